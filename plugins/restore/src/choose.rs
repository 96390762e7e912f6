//! The backups of a directory and what is wanted of them into the one to restore.
//!
//! Pure: it looks at manifests, not at files.

use serde_json::json;
use windlass_backup_format::manifest::Manifest;
use windlass_backup_format::shelf::{Entry, State};
use windlass_guest::Error;

use crate::config::Config;

/// The backup that `id` names, or the latest verified one that holds every name of `into`. `entries` oldest first.
///
/// # Errors
/// `restore.missing` when there is none, `restore.damaged` when its manifest cannot be read.
pub(crate) fn choose<'a>(entries: &'a [Entry], config: &Config) -> Result<&'a Manifest, Error> {
    let manifest = match config.id() {
        Some(id) => named(entries, id, config)?,
        None => latest(entries, config)?,
    };
    for (name, location) in &config.into {
        let Some(record) = manifest.sources.get(name) else {
            return Err(unknown(name, manifest));
        };
        if record.kind != location.kind() {
            let (is, wanted) = (record.kind.words(), location.kind().words());
            let message = format!(
                "`{name}` is {is} in the backup {}, and cannot be restored as {wanted}",
                manifest.id
            );
            return Err(Error::new("restore.missing", message).with_details(json!({ "name": name })));
        }
    }
    Ok(manifest)
}

fn named<'a>(entries: &'a [Entry], id: &str, config: &Config) -> Result<&'a Manifest, Error> {
    match entries
        .iter()
        .find(|entry| entry.id == id)
        .map(|entry| &entry.state)
    {
        Some(State::Published(manifest)) => Ok(manifest),
        Some(State::Unreadable(reason)) => {
            let message = format!("the backup {id} cannot be used: its manifest {reason}");
            Err(Error::new("restore.damaged", message)
                .help("take another backup: leave `id` out for the latest verified"))
        }
        Some(State::Partial { .. }) => Err(Error::new(
            "restore.missing",
            format!("the backup {id} was never finished"),
        )
        .help("take another backup: leave `id` out for the latest verified")),
        None => {
            let known: Vec<&str> = published(entries)
                .rev()
                .take(5)
                .map(|manifest| manifest.id.as_str())
                .collect();
            let error = Error::new(
                "restore.missing",
                format!("there is no backup {id} in {}", config.from),
            );
            Err(match known.is_empty() {
                true => error.help("there is no backup at all: correct `from`"),
                false => error.help(format!("the newest there are {}", known.join(", "))),
            })
        }
    }
}

fn latest<'a>(entries: &'a [Entry], config: &Config) -> Result<&'a Manifest, Error> {
    let verified: Vec<&Manifest> = published(entries)
        .rev()
        .filter(|manifest| manifest.verified)
        .collect();
    let complete = verified
        .iter()
        .find(|manifest| config.into.keys().all(|name| manifest.sources.contains_key(name)));
    // Without a complete one, the newest is what the message about the missing name is about.
    if let Some(manifest) = complete.or(verified.first()) {
        return Ok(manifest);
    }
    let message = format!("there is no verified backup in {}", config.from);
    let error = Error::new("restore.missing", message);
    Err(match published(entries).next_back() {
        Some(manifest) => error.help(format!(
            "the newest that was not verified is {}: name it with `id`",
            manifest.id
        )),
        None => error.help("correct `from`: it is the place that a `backup` stage writes `to`"),
    })
}

fn published(entries: &[Entry]) -> impl DoubleEndedIterator<Item = &Manifest> {
    entries.iter().filter_map(|entry| match &entry.state {
        State::Published(manifest) => Some(manifest),
        _ => None,
    })
}

fn unknown(name: &str, manifest: &Manifest) -> Error {
    let known: Vec<&str> = manifest.sources.keys().map(String::as_str).collect();
    Error::new(
        "restore.missing",
        format!("the backup {} holds no `{name}`", manifest.id),
    )
    .with_details(json!({ "name": name, "backup": manifest.id }))
    .help(format!("it holds {}", known.join(", ")))
}
