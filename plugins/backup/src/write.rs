//! Sources into the files of one backup, each proved before the next is read; and such files into further copies.
//!
//! Writes no manifest: what is here is not published yet.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::json;
use windlass_backup_format::host::{Host, Sink, Source, check_cancelled};
use windlass_backup_format::location::{Kind, Location};
use windlass_backup_format::manifest::{Compression, Record};
use windlass_backup_format::place::Place;
use windlass_backup_format::prove::{Doubt, prove};
use windlass_guest::Error;
use windlass_guest::flow::Options;

use crate::config::Config;
use crate::take::{self, Taken};

/// Backs every source up into `directory`, which is removed again when one of them fails.
///
/// # Errors
/// `backup.empty`, `backup.missing`, `backup.unverified`, `cancelled`, and those of the host.
pub(crate) fn sources(
    config: &Config,
    directory: &Place,
    host: &mut dyn Host,
) -> Result<BTreeMap<String, Record>, Error> {
    let mut records = BTreeMap::new();
    make(directory)?;
    for (name, location) in &config.sources {
        let written = check_cancelled(host)
            .and_then(|()| source(name, &location.resolved(), config.compress, directory, host))
            .and_then(|taken| verified(name, taken, &location.resolved(), config.verify, directory, host));
        match written {
            Ok(record) => records.insert(name.clone(), record),
            Err(error) => {
                remove(directory, host);
                return Err(error);
            }
        };
    }
    Ok(records)
}

fn source(
    name: &str,
    location: &Location,
    compression: Compression,
    directory: &Place,
    host: &mut dyn Host,
) -> Result<Taken, Error> {
    let file = Record::file_name(name, location.kind(), compression);
    let place = directory.within(&file);
    let options = Options {
        compress: compression.for_flow(),
        ..Options::default()
    };
    let to = place.sink();
    let taken = match location {
        Location::Sqlite(url) => host.copy(Source::Sqlite(url), to, &options).map(Taken::from),
        Location::Directory(path) => check_directory(name, path)
            .and_then(|()| host.copy(Source::Directory(path), to, &options).map(Taken::from)),
        Location::Postgres(postgres) => take::postgres(name, postgres, to, &options, host),
        Location::Redis(redis) => take::redis(name, redis, to, &options, host),
        Location::ContainerPath(inside) => take::directory(name, inside, to, &options, host),
    };
    let taken = taken.map_err(|error| error.context(format!("backing up `{name}`")))?;
    let copied = &taken.copied;
    if copied.bytes_in == 0 {
        return Err(empty(name, "gave no bytes"));
    }
    host.info(&format!(
        "{name}: {} bytes, {} in {file}",
        copied.bytes_in, copied.bytes_out
    ));
    let record = Record {
        kind: location.kind(),
        file,
        compression,
        size: copied.bytes_out,
        sha256: copied.sha256_out.clone(),
        content_size: copied.bytes_in,
        content_sha256: copied.sha256_in.clone(),
        tables: taken.exact.clone(),
    };
    Ok(Taken {
        record: Some(record),
        ..taken
    })
}

fn verified(
    name: &str,
    taken: Taken,
    location: &Location,
    wanted: bool,
    directory: &Place,
    host: &mut dyn Host,
) -> Result<Record, Error> {
    let Taken { record, seen, .. } = taken;
    let mut record = record.expect("`source` has described it");
    if !wanted {
        return Ok(record);
    }
    let unverified = |reason: String, file: &str| {
        let message = format!("the backup of `{name}` cannot be restored: {reason}");
        Error::new("backup.unverified", message)
            .with_details(json!({ "source": name, "file": file }))
            .help("nothing was published and older backups are untouched; look at the disk and at the source")
    };
    record.tables = match prove(host, directory, name, &record, location) {
        Ok(tables) => tables,
        Err(Doubt::Failed(error)) => return Err(error.context(format!("verifying the backup of `{name}`"))),
        Err(Doubt::Damaged(reason)) => return Err(unverified(reason, &record.file)),
    };
    if let Some(missing) = seen.iter().find(|table| !holds(&record, table)) {
        return Err(unverified(format!("{missing} is missing in it"), &record.file));
    }
    match &record.tables {
        Some(tables) if tables.is_empty() && location.kind() != Kind::Redis => {
            Err(empty(name, "is a database without a table"))
        }
        Some(tables) => {
            let rows = tables.values().fold(0_u64, |sum, rows| sum.saturating_add(*rows));
            let what = match location.kind() {
                Kind::Redis => format!("{rows} keys"),
                _ => format!("{} tables with {rows} rows", tables.len()),
            };
            host.info(&format!("{name}: restored and compared, {what}"));
            Ok(record)
        }
        None => {
            let done = match location.kind() {
                Kind::ContainerPath => "read back and compared",
                _ => "restored and compared",
            };
            host.info(&format!("{name}: {done}"));
            Ok(record)
        }
    }
}

fn holds(record: &Record, table: &str) -> bool {
    record
        .tables
        .as_ref()
        .is_some_and(|tables| tables.contains_key(table))
}

/// Copies the files of a finished backup from one directory to another, which is removed again when that fails.
///
/// # Errors
/// Those of the host.
pub(crate) fn copies(
    records: &BTreeMap<String, Record>,
    from: &Place,
    to: &Place,
    host: &mut dyn Host,
) -> Result<(), Error> {
    make(to)?;
    for record in records.values() {
        let (source, place) = (from.within(&record.file), to.within(&record.file));
        let options = Options {
            expect: Some(record.sha256.clone()),
            ..Options::default()
        };
        let copied =
            check_cancelled(host).and_then(|()| host.copy(source.source(), place.sink(), &options).map(drop));
        if let Err(error) = copied {
            remove(to, host);
            return Err(error.context(format!("copying {} to {to}", record.file)));
        }
    }
    Ok(())
}

/// Every file of a backup is there and has its digest.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn check(
    records: &BTreeMap<String, Record>,
    directory: &Place,
    host: &mut dyn Host,
) -> Result<(), Error> {
    for record in records.values() {
        let options = Options {
            expect: Some(record.sha256.clone()),
            ..Options::default()
        };
        let file = directory.within(&record.file);
        host.copy(file.source(), Sink::Nowhere, &options)?;
    }
    Ok(())
}

/// Removes what was never published; the error that led here matters more than one of removing.
pub(crate) fn remove(directory: &Place, host: &mut dyn Host) {
    if let Err(error) = clear(directory, host) {
        host.warn(&format!("could not remove {directory}: {}", error.message));
    }
}

/// Removes everything of one backup. One that is not there is fine.
///
/// # Errors
/// `storage.failed`, `object.*`.
pub(crate) fn clear(directory: &Place, host: &mut dyn Host) -> Result<(), Error> {
    match directory {
        Place::Disk(path) => match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::new("storage.failed", error.to_string()))
            }
            _ => Ok(()),
        },
        Place::Bucket { url, access } => host
            .objects(url, access)?
            .iter()
            .try_for_each(|object| host.delete(&object.url, access)),
    }
}

fn make(directory: &Place) -> Result<(), Error> {
    // A bucket has no directories.
    let Place::Disk(path) = directory else {
        return Ok(());
    };
    fs::create_dir_all(path).map_err(|error| {
        Error::new("storage.failed", format!("cannot make {path}: {error}"))
            .with_details(json!({ "directory": path }))
            .help("the directory of `to` must exist and be granted `rw`")
    })
}

/// A directory that is there and holds something: an unmounted disk is neither.
fn check_directory(name: &str, path: &str) -> Result<(), Error> {
    match fs::read_dir(Path::new(path)).map(|mut entries| entries.next().is_none()) {
        Ok(false) => Ok(()),
        Ok(true) => Err(empty(name, &format!("is an empty directory ({path})"))),
        Err(error) => Err(Error::new(
            "backup.missing",
            format!("the source `{name}` cannot be read: {path}: {error}"),
        )
        .with_details(json!({ "source": name }))
        .help("correct the path, or mount what belongs there")),
    }
}

pub(crate) fn empty(name: &str, how: &str) -> Error {
    Error::new(
        "backup.empty",
        format!("the source `{name}` {how}: there is nothing to back up"),
    )
    .with_details(json!({ "source": name }))
    .help("an empty backup hides a loss: correct the source, or take it out of `sources`")
}
