//! A backup back into place: choose, look at every target, prove every file, and only then write.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use windlass_backup_format::host::{Host, check_cancelled};
use windlass_backup_format::location::Location;
use windlass_backup_format::manifest::{Manifest, Record};
use windlass_backup_format::place::Place;
use windlass_backup_format::prove::{Doubt, prove};
use windlass_backup_format::shelf;
use windlass_guest::{Effect, Error, Outcome};

use crate::choose::choose;
use crate::config::Config;
use crate::target::{self, Found};
use crate::write::Write;

/// Restores everything `into` names, or writes nothing at all.
///
/// # Errors
/// `config.invalid`, `restore.missing`, `restore.target-not-empty`, `restore.damaged`, `restore.failed`, `cancelled`, and
/// those of the host.
pub fn run(config: &Config, host: &mut dyn Host) -> Result<Outcome, Error> {
    config.check()?;
    let from = config.from()?;
    let entries = shelf::list(&from, host)?;
    let manifest = choose(&entries, config)?;
    host.info(&format!(
        "restoring the backup {} of {}",
        manifest.id, manifest.created
    ));
    let found = target::inspect(config, manifest, host)?;
    let directory = from.within(&manifest.id);
    let wanted: Vec<Wanted<'_>> = wanted(config, manifest, &found);
    for one in &wanted {
        check(one, &directory, host)?;
    }
    let mut done = Vec::new();
    for one in &wanted {
        if let Err(error) = check_cancelled(host).and_then(|()| write(one, &directory, config.replace, host))
        {
            return Err(incomplete(error, &done, one.name, config.into.len()));
        }
        done.push(one.name);
    }
    Ok(outcome(config, manifest, &found))
}

/// What [`run`] would do, as far as manifests tell.
///
/// # Errors
/// `config.invalid`, `restore.missing`, `restore.damaged`, `file.failed`, `object.*`.
pub fn plan(config: &Config, host: &mut dyn Host) -> Result<Vec<Effect>, Error> {
    config.check()?;
    let entries = shelf::list(&config.from()?, host)?;
    let manifest = choose(&entries, config)?;
    let word = if config.replace { "replace" } else { "fill" };
    let effect = |(name, location): (&String, &Location)| Effect {
        action: "update",
        target: location.resolved().shown(name),
        summary: format!("{word} with `{name}` of the backup {}", manifest.id),
        capability: None,
        value: None,
    };
    Ok(config.into.iter().map(effect).collect())
}

/// One source that has to be written.
struct Wanted<'a> {
    name: &'a str,
    location: Location,
    record: &'a Record,
}

fn wanted<'a>(config: &'a Config, manifest: &'a Manifest, found: &BTreeMap<&str, Found>) -> Vec<Wanted<'a>> {
    let place = |(name, location): (&'a String, &'a Location)| {
        let record = manifest.sources.get(name)?;
        let same = found.get(name.as_str()) == Some(&Found::Same);
        (!same).then(|| Wanted {
            name,
            location: location.resolved(),
            record,
        })
    };
    config.into.iter().filter_map(place).collect()
}

/// Digest of the file, of what is in it, and a restore into scratch.
fn check(one: &Wanted<'_>, directory: &Place, host: &mut dyn Host) -> Result<(), Error> {
    check_cancelled(host)?;
    match prove(host, directory, one.name, one.record, &one.location) {
        Ok(_) => {
            host.info(&format!("{}: checked", one.name));
            Ok(())
        }
        Err(Doubt::Failed(error)) => {
            Err(error.context(format!("checking `{}` before anything is written", one.name)))
        }
        Err(Doubt::Damaged(reason)) => {
            let message = format!(
                "the backup of `{}` is damaged: {reason}; nothing was written",
                one.name
            );
            Err(Error::new("restore.damaged", message)
                .with_details(json!({ "name": one.name, "file": directory.within(&one.record.file).shown() }))
                .help("take another backup with `id`, or another copy with `from`"))
        }
    }
}

fn write(one: &Wanted<'_>, directory: &Place, replace: bool, host: &mut dyn Host) -> Result<(), Error> {
    let write = Write {
        name: one.name,
        file: directory.within(&one.record.file),
        record: one.record,
        replace,
    };
    write.perform(&one.location, host)?;
    host.info(&format!(
        "{}: restored {} bytes",
        one.name, one.record.content_size
    ));
    Ok(())
}

/// The host's error, with what is restored and what is not. Each target is whole: the old or the new.
fn incomplete(error: Error, done: &[&str], failed: &str, all: usize) -> Error {
    if done.is_empty() && error.code == "restore.incomplete" {
        return error.context(format!("restoring `{failed}`"));
    }
    if done.is_empty() {
        return error.context(format!("restoring `{failed}`; nothing was written"));
    }
    let so_far = done.join(", ");
    let message = format!(
        "`{failed}` could not be restored: {}; already restored: {so_far}",
        error.message
    );
    let mut wrapped = Error::new("restore.failed", message);
    wrapped.retryable = error.retryable;
    wrapped
        .with_details(json!({ "cause": error.code, "restored": done, "total": all }))
        .help("mend the cause and run again: each target holds either what it held or the whole backup")
}

fn outcome(config: &Config, manifest: &Manifest, found: &BTreeMap<&str, Found>) -> Outcome {
    let is_same = |name: &str| found.get(name) == Some(&Found::Same);
    let names: Vec<&str> = config.into.keys().map(String::as_str).collect();
    let outcome = if names.iter().all(|name| is_same(name)) {
        Outcome::unchanged(format!(
            "{} already hold the backup {}",
            names.join(", "),
            manifest.id
        ))
    } else {
        Outcome::changed(format!(
            "restored {} from the backup {}",
            names.join(", "),
            manifest.id
        ))
    };
    let shown = |name: &&str| {
        let record = manifest.sources.get(*name)?;
        let rows = record.tables.as_ref().map(|tables| tables.values().sum::<u64>());
        let value = json!({ "kind": record.kind, "size": record.content_size, "rows": rows, "changed": !is_same(name) });
        Some(((*name).to_owned(), value))
    };
    let restored: BTreeMap<String, Value> = names.iter().filter_map(shown).collect();
    outcome
        .output("id", json!(manifest.id))
        .output("restored", json!(restored))
}
