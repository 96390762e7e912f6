//! The places of `into` into what may happen to them: filled, replaced, or left, as they hold the backup already.
//!
//! Reads only.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde_json::json;
use windlass_backup_format::host::{Host, Sink, Source};
use windlass_backup_format::location::Location;
use windlass_backup_format::manifest::{Manifest, Record};
use windlass_backup_format::postgres::Postgres;
use windlass_backup_format::prove;
use windlass_guest::Error;
use windlass_guest::flow::Options;

use crate::config::Config;
use crate::write;

/// What is at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Empty,
    /// Exactly what would be restored: an earlier attempt got so far.
    Same,
    Other,
}

/// Looks at every place before anything is written, and refuses all that would be overwritten at once.
///
/// # Errors
/// `restore.target-not-empty`, naming all of them, and those of the host.
pub(crate) fn inspect<'a>(
    config: &'a Config,
    manifest: &Manifest,
    host: &mut dyn Host,
) -> Result<BTreeMap<&'a str, Found>, Error> {
    let mut found = BTreeMap::new();
    for (name, location) in &config.into {
        let record = manifest.sources.get(name).ok_or_else(|| {
            Error::new(
                "restore.missing",
                format!("the backup {} holds no `{name}`", manifest.id),
            )
        })?;
        let at = look(&location.resolved(), record, host)
            .map_err(|error| error.context(format!("looking at where `{name}` goes")))?;
        found.insert(name.as_str(), at);
    }
    let occupied: Vec<&str> = found
        .iter()
        .filter(|(_, found)| **found == Found::Other)
        .map(|(name, _)| *name)
        .collect();
    if occupied.is_empty() || config.replace {
        return Ok(found);
    }
    let message = format!(
        "there is something already where {} would go; nothing was written",
        occupied.join(", ")
    );
    Err(Error::new("restore.target-not-empty", message)
        .with_details(json!({ "names": occupied }))
        .help("restore to an empty place, or say `replace: true` to lose what is there"))
}

fn look(location: &Location, record: &Record, host: &mut dyn Host) -> Result<Found, Error> {
    let (empty, source) = match location {
        Location::Directory(path) => (is_empty_directory(path)?, Source::Directory(path)),
        Location::Sqlite(url) => (is_empty_database(url, host)?, Source::Sqlite(url)),
        Location::Postgres(postgres) => return look_at_postgres(postgres, record, host),
        Location::Redis(redis) => {
            let id = redis.find(host)?;
            let keys = redis.contents(host, &id)?.keys;
            return Ok(if keys.values().all(|count| *count == 0) {
                Found::Empty
            } else {
                Found::Other
            });
        }
        Location::ContainerPath(inside) => {
            let id = inside.find(host)?;
            let is_empty = inside.is_empty(host, &id)?.unwrap_or(true);
            return Ok(if is_empty { Found::Empty } else { Found::Other });
        }
    };
    if empty {
        return Ok(Found::Empty);
    }
    // Whatever cannot be read as a backup would be is something else.
    let digest = host
        .copy(source, Sink::Nowhere, &Options::default())
        .map(|copied| copied.sha256_in);
    Ok(if digest.is_ok_and(|digest| digest == record.content_sha256) {
        Found::Same
    } else {
        Found::Other
    })
}

fn look_at_postgres(postgres: &Postgres, record: &Record, host: &mut dyn Host) -> Result<Found, Error> {
    let id = postgres.find(host)?;
    if !postgres.exists(host, &id)? {
        return Ok(Found::Empty);
    }
    // An attempt of this run that was cut off behind the exchange left its mark.
    if postgres.mark(host, &id)? == write::mark(record, host) {
        return Ok(Found::Same);
    }
    let tables = postgres.tables(host, &id, &postgres.database)?;
    Ok(if tables.is_empty() {
        Found::Empty
    } else {
        Found::Other
    })
}

fn is_empty_directory(path: &str) -> Result<bool, Error> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(Error::new("file.failed", format!("cannot read {path}: {error}"))),
    }
}

fn is_empty_database(url: &str, host: &mut dyn Host) -> Result<bool, Error> {
    match prove::tables(host, url) {
        Ok(tables) => Ok(tables.is_empty()),
        Err(error) if error.code == "sql.missing" => Ok(true),
        // A file that is no database, or a broken one: certainly not empty.
        Err(error) if error.code == "sql.failed" => Ok(false),
        Err(error) => Err(error),
    }
}
