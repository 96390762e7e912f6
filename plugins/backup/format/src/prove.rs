//! A file of a backup into the certainty that it can be restored: by restoring it into scratch and comparing.
//!
//! A digest alone proves that bytes are the same, not that they are a database.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde_json::Value;
use windlass_guest::Error;
use windlass_guest::flow::Options;

use crate::host::{Host, Sink, Source};
use crate::location::{Kind, Location};
use crate::manifest::Record;

/// Why there is no proof.
#[derive(Debug)]
pub enum Doubt {
    /// The backup itself is wrong: in which way.
    Damaged(String),
    /// It could not be tried: the error that stopped it.
    Failed(Error),
}

/// What the manifest says about how it was proved.
pub const HOW: &str = "read back, decompressed, restored into scratch and compared";

/// Restores the file of `record` from `directory` into scratch, compares, and clears scratch again. Answers the rows by
/// table of a database.
///
/// # Errors
/// [`Doubt`].
pub fn prove(
    host: &mut dyn Host,
    directory: &str,
    name: &str,
    record: &Record,
) -> Result<Option<BTreeMap<String, u64>>, Doubt> {
    let scratch = format!("{}/verify-{name}", host.scratch());
    let place = match record.kind {
        Kind::Sqlite => Location::Sqlite(format!("sqlite://{scratch}")),
        Kind::Directory => Location::Directory(scratch.clone()),
    };
    let proved = restore(host, directory, record, &place).and_then(|()| match &place {
        Location::Sqlite(url) => {
            let tables = check_database(host, url)?;
            match &record.tables {
                Some(before) if *before != tables => {
                    Err(Doubt::Damaged("its tables have other rows".to_owned()))
                }
                _ => Ok(Some(tables)),
            }
        }
        Location::Directory(path) => check_directory(host, path, record).map(|()| None),
    });
    clear(host, &scratch);
    proved
}

fn restore(host: &mut dyn Host, directory: &str, record: &Record, place: &Location) -> Result<(), Doubt> {
    let options = Options {
        decompress: record.compression.for_flow(),
        expect: Some(record.sha256.clone()),
        replace: true,
        ..Options::default()
    };
    let file = format!("{directory}/{}", record.file);
    let copied = host
        .copy(Source::File(&file), place.sink(), &options)
        .map_err(|error| judge(error, &record.file))?;
    if copied.sha256_out != record.content_sha256 {
        return Err(Doubt::Damaged(format!(
            "{} holds other data than was backed up",
            record.file
        )));
    }
    Ok(())
}

/// A copied database must be whole, and every table must be readable to its end.
fn check_database(host: &mut dyn Host, url: &str) -> Result<BTreeMap<String, u64>, Doubt> {
    let check = host
        .query(url, "PRAGMA integrity_check")
        .map_err(|error| judge(error, "the restored database"))?;
    let answer = check
        .rows
        .first()
        .and_then(|row| row.first())
        .and_then(Value::as_str)
        .unwrap_or_default();
    if answer != "ok" {
        return Err(Doubt::Damaged(format!(
            "the restored database is not whole: {answer}"
        )));
    }
    tables(host, url).map_err(|error| judge(error, "the restored database"))
}

fn check_directory(host: &mut dyn Host, path: &str, record: &Record) -> Result<(), Doubt> {
    let again = host
        .copy(Source::Directory(path), Sink::Nowhere, &Options::default())
        .map_err(|error| judge(error, "the restored directory"))?;
    if again.sha256_in != record.content_sha256 {
        return Err(Doubt::Damaged(
            "the restored directory differs from what was backed up".to_owned(),
        ));
    }
    Ok(())
}

/// Rows by table.
///
/// # Errors
/// `sql.*`
pub fn tables(host: &mut dyn Host, url: &str) -> Result<BTreeMap<String, u64>, Error> {
    // A virtual table's module may be missing here; its contents are in tables of their own.
    let names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
                 AND sql NOT LIKE 'CREATE VIRTUAL%'";
    let listed = host.query(url, names)?;
    let names = listed.rows.iter().filter_map(|row| row.first()?.as_str());
    let mut counted = BTreeMap::new();
    for name in names {
        let counting = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
        let answer = host.query(url, &counting)?;
        let rows = answer
            .rows
            .first()
            .and_then(|row| row.first())
            .and_then(Value::as_u64);
        counted.insert(name.to_owned(), rows.unwrap_or(0));
    }
    Ok(counted)
}

/// Errors that blame the data, and errors that blame the circumstances.
pub fn judge(error: Error, what: &str) -> Doubt {
    let damaged = [
        "flow.digest",
        "flow.corrupt",
        "file.missing",
        "target.",
        "sql.failed",
        "sql.missing",
    ];
    if damaged.iter().any(|code| error.code.starts_with(code)) {
        return Doubt::Damaged(format!("{what}: {}", error.message));
    }
    Doubt::Failed(error)
}

/// Scratch is small: the next source needs the room. What cannot be removed goes with the attempt.
fn clear(host: &mut dyn Host, scratch: &str) {
    let files = ["", "-journal", "-wal", "-shm"].map(|end| format!("{scratch}{end}"));
    let removed = match fs::symlink_metadata(scratch) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(scratch),
        _ => files
            .iter()
            .map(fs::remove_file)
            .find(|done| matches!(done, Err(e) if e.kind() != io::ErrorKind::NotFound))
            .unwrap_or(Ok(())),
    };
    if let Err(error) = removed {
        host.warn(&format!("could not clear {scratch}: {error}"));
    }
}
