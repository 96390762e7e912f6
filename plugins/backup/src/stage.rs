//! Sources into published, verified backups in every target, and old ones out.
//!
//! The order is the guarantee: files, proof, further copies, manifests, and only then retention. A stage that ran
//! before under the same id finds its own work and goes on from there.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use windlass_backup_format::host::{Host, Source, check_cancelled};
use windlass_backup_format::manifest::{About, FILE, Manifest, Record};
use windlass_backup_format::place::Place;
use windlass_backup_format::shelf::{self, Entry, State};
use windlass_backup_format::{id, prove};
use windlass_guest::flow::Options;
use windlass_guest::{Effect, Error, Outcome};

use crate::config::Config;
use crate::retention::{self, Scope};
use crate::write;

/// Outputs hold 64 KiB; a retention made shorter may remove thousands at once.
const MAX_LISTED: usize = 200;

/// Backs up, publishes, tidies.
///
/// # Errors
/// `config.invalid`, `backup.*`, `storage.failed`, `cancelled`, and those of the host.
pub fn run(config: &Config, host: &mut dyn Host) -> Result<Outcome, Error> {
    config.check()?;
    let scope = scope(host);
    let targets = config.targets()?;
    let standing = standing(config, &targets, &scope, host)?;
    let open: Vec<&Place> = targets
        .iter()
        .filter(|target| !standing.published.contains(target))
        .collect();
    let manifest = match &standing.manifest {
        Some(manifest) => manifest.clone(),
        None => first(config, &targets, &scope, host)?,
    };
    let origin = standing.published.first().unwrap_or(nearest(&targets));
    spread(config, &manifest, &origin.within(&manifest.id), &open, host)?;
    publish(&manifest, &open, host)?;
    let mut removed = Vec::new();
    for target in &targets {
        removed.extend(tidy(target, config, &scope, host)?);
    }
    Ok(outcome(&manifest, &targets, open.is_empty(), removed))
}

/// What [`run`] would do.
///
/// # Errors
/// `config.invalid`, `file.failed`.
pub fn plan(config: &Config, host: &mut dyn Host) -> Result<Vec<Effect>, Error> {
    config.check()?;
    let scope = scope(host);
    let effect = |action, target, summary| Effect {
        action,
        target,
        summary,
        capability: None,
        value: None,
    };
    let names: Vec<&str> = config.sources.keys().map(String::as_str).collect();
    let kind = if config.verify {
        "verified backup"
    } else {
        "backup, not verified,"
    };
    let mut effects = Vec::new();
    for target in config.targets()? {
        effects.push(effect(
            "create",
            target.to_string(),
            format!("a {kind} of {}", names.join(", ")),
        ));
        let mut entries = shelf::list(&target, host)?;
        entries.retain(|entry| entry.id != scope.current);
        entries.push(Entry {
            id: scope.current.clone(),
            state: State::Published(blank(config, &scope)),
        });
        for id in retention::expired(&entries, config.keep, &scope) {
            effects.push(effect(
                "delete",
                target.within(id).to_string(),
                "no longer to be kept".to_owned(),
            ));
        }
    }
    Ok(effects)
}

/// What an earlier attempt under the same id has published already.
#[derive(Default)]
struct Standing {
    manifest: Option<Manifest>,
    /// The targets where it is whole.
    published: Vec<Place>,
}

fn standing(
    config: &Config,
    targets: &[Place],
    scope: &Scope,
    host: &mut dyn Host,
) -> Result<Standing, Error> {
    let mut standing = Standing::default();
    for target in targets {
        let Some(State::Published(manifest)) = shelf::find(target, &scope.current, host)? else {
            continue;
        };
        if manifest.stage != scope.stage || manifest.pipeline != scope.pipeline {
            let message = format!(
                "{target} already holds {}, of the stage `{}`",
                manifest.id, manifest.stage
            );
            return Err(Error::new("backup.id-taken", message).help("rename one of the two stages"));
        }
        let wanted =
            manifest.sources.keys().eq(config.sources.keys()) && (manifest.verified || !config.verify);
        let whole = wanted && write::check(&manifest.sources, &target.within(&manifest.id), host).is_ok();
        let same = standing.manifest.as_ref().is_none_or(|other| *other == manifest);
        if whole && same {
            standing.published.push(target.clone());
            standing.manifest = Some(manifest);
        } else {
            host.warn(&format!(
                "the backup {} in {target} is not whole and is made again",
                manifest.id
            ));
        }
    }
    Ok(standing)
}

/// The target that the backup is made in, and copied from: a disk, where there is one.
fn nearest(targets: &[Place]) -> &Place {
    let on_disk = targets.iter().find(|target| target.is_on_disk());
    on_disk.unwrap_or_else(|| targets.first().expect("the configuration was checked"))
}

/// Writes and proves the backup in the nearest target, without publishing it.
fn first(config: &Config, targets: &[Place], scope: &Scope, host: &mut dyn Host) -> Result<Manifest, Error> {
    let directory = nearest(targets).within(&scope.current);
    unpublish(&directory, host)?;
    let mut manifest = blank(config, scope);
    manifest.run = host.run_id();
    manifest.sources = write::sources(config, &directory, host)?;
    Ok(manifest)
}

/// Copies the files to the other targets. When one cannot be reached, nothing that was not published before stays.
fn spread(
    config: &Config,
    manifest: &Manifest,
    origin: &Place,
    open: &[&Place],
    host: &mut dyn Host,
) -> Result<(), Error> {
    for target in open {
        let directory = target.within(&manifest.id);
        if directory == *origin {
            continue;
        }
        let mut copied = check_cancelled(host)
            .and_then(|()| unpublish(&directory, host))
            .and_then(|()| write::copies(&manifest.sources, origin, &directory, host));
        // A server says what it likes about what it has: read back it has to be the same.
        if copied.is_ok() && config.verify && !target.is_on_disk() {
            copied = write::check(&manifest.sources, &directory, host)
                .map_err(|error| error.context(format!("reading back what was written to {directory}")));
        }
        if let Err(error) = copied {
            open.iter()
                .for_each(|target| write::remove(&target.within(&manifest.id), host));
            return Err(error);
        }
    }
    Ok(())
}

fn publish(manifest: &Manifest, open: &[&Place], host: &mut dyn Host) -> Result<(), Error> {
    let bytes = manifest.to_bytes();
    for (done, target) in open.iter().enumerate() {
        let directory = target.within(&manifest.id);
        let file = directory.within(FILE);
        if let Err(error) = host.copy(Source::Bytes(&bytes), file.sink(), &Options::default()) {
            open.iter()
                .skip(done)
                .for_each(|target| write::remove(&target.within(&manifest.id), host));
            return Err(error.context(format!("publishing the backup in {target}")));
        }
        host.info(&format!("published {directory}"));
    }
    Ok(())
}

/// Removes what is no longer to be kept. What cannot be removed is said and left: the new backup is good all the same.
fn tidy(target: &Place, config: &Config, scope: &Scope, host: &mut dyn Host) -> Result<Vec<String>, Error> {
    let entries = shelf::list(target, host)?;
    let mut removed = Vec::new();
    for id in retention::expired(&entries, config.keep, scope) {
        let directory = target.within(id);
        // The manifest goes first: half a backup must not look like one.
        let gone = unpublish(&directory, host).and_then(|()| write::clear(&directory, host));
        match gone {
            Ok(()) => {
                host.info(&format!("removed {directory}"));
                removed.push(directory.to_string());
            }
            Err(error) => host.warn(&format!("could not remove {directory}: {}", error.message)),
        }
    }
    Ok(removed)
}

fn unpublish(directory: &Place, host: &mut dyn Host) -> Result<(), Error> {
    match directory.within(FILE) {
        Place::Bucket { url, access } => host.delete(&url, &access),
        Place::Disk(manifest) => match fs::remove_file(&manifest) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::new(
                "storage.failed",
                format!("cannot remove {manifest}: {error}"),
            )),
            _ => Ok(()),
        },
    }
}

fn scope(host: &mut dyn Host) -> Scope {
    let stage = host.stage();
    let current = id::derive(&host.run_id(), &stage);
    Scope {
        pipeline: host.pipeline(),
        stage,
        current,
        now: host.now(),
    }
}

/// The manifest of this run's backup, before anything is in it.
fn blank(config: &Config, scope: &Scope) -> Manifest {
    let about = About {
        id: scope.current.clone(),
        pipeline: scope.pipeline.clone(),
        stage: scope.stage.clone(),
        run: String::new(),
        created: scope.now,
    };
    let mut manifest = Manifest::new(about, BTreeMap::new());
    if config.verify {
        manifest.verified = true;
        manifest.verified_how = prove::HOW.to_owned();
    }
    manifest
}

fn outcome(manifest: &Manifest, targets: &[Place], was_there: bool, removed: Vec<String>) -> Outcome {
    let size = manifest.size();
    let proof = if manifest.verified {
        "verified"
    } else {
        "not verified"
    };
    let outcome = if was_there && removed.is_empty() {
        Outcome::unchanged(format!("the backup {} was already there, {proof}", manifest.id))
    } else if was_there {
        Outcome::changed(format!(
            "the backup {} was already there; {} old ones removed",
            manifest.id,
            removed.len()
        ))
    } else {
        Outcome::changed(format!(
            "backed up {} as {}, {size} bytes, {proof}",
            list(manifest),
            manifest.id
        ))
    };
    let places: Vec<String> = targets
        .iter()
        .map(|target| target.within(&manifest.id).to_string())
        .collect();
    let sources: BTreeMap<&String, Value> = manifest
        .sources
        .iter()
        .map(|(name, record)| (name, summary(record)))
        .collect();
    outcome
        .output("id", json!(manifest.id))
        .output("verified", json!(manifest.verified))
        .output("targets", json!(places))
        .output("sources", json!(sources))
        .output(
            "removed",
            json!(removed.iter().take(MAX_LISTED).collect::<Vec<_>>()),
        )
        .output("removed-count", json!(removed.len()))
        .output("size", json!(size))
}

fn list(manifest: &Manifest) -> String {
    manifest
        .sources
        .keys()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Without the tables: outputs are small, and the manifest has them.
fn summary(record: &Record) -> Value {
    json!({
        "kind": record.kind,
        "file": record.file,
        "size": record.size,
        "sha256": record.sha256,
        "content-size": record.content_size,
        "rows": record.tables.as_ref().map(|tables| tables.values().sum::<u64>()),
    })
}
