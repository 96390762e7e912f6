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
use crate::place::Place;
use crate::postgres::{Postgres, scratch_name};
use crate::redis::{self, Redis};
use crate::service;

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

/// Restores the file of `record` from `directory` into scratch, compares, and clears scratch again: here, or for what lives in a container (`location`
/// says which) beside it. Answers the rows by table of a database.
///
/// # Errors
/// [`Doubt`].
pub fn prove(
    host: &mut dyn Host,
    directory: &Place,
    name: &str,
    record: &Record,
    location: &Location,
) -> Result<Option<BTreeMap<String, u64>>, Doubt> {
    let file = directory.within(&record.file);
    let found = match location {
        Location::Sqlite(_) | Location::Directory(_) => {
            let scratch = format!("{}/verify-{name}", host.scratch());
            let proved = here(host, &file, record, &scratch);
            clear(host, &scratch);
            proved?
        }
        Location::Postgres(postgres) => Some(in_postgres(host, &file, name, record, postgres)?),
        Location::Redis(redis) => Some(in_redis(host, &file, name, record, redis)?),
        // What it holds only its container can tell; that it is whole, its digest.
        Location::ContainerPath(_) => {
            pour(host, &file, record, Sink::Nowhere)?;
            None
        }
    };
    match (&found, &record.tables) {
        (Some(found), Some(before)) if before != found => Err(Doubt::Damaged(format!(
            "it holds other rows: {}",
            difference(before, found)
        ))),
        _ => Ok(found),
    }
}

fn here(
    host: &mut dyn Host,
    file: &Place,
    record: &Record,
    scratch: &str,
) -> Result<Option<BTreeMap<String, u64>>, Doubt> {
    if record.kind == Kind::Sqlite {
        let url = format!("sqlite://{scratch}");
        pour(host, file, record, Sink::Sqlite(&url))?;
        return check_database(host, &url).map(Some);
    }
    pour(host, file, record, Sink::Directory(scratch))?;
    check_directory(host, scratch, record).map(|()| None)
}

fn in_postgres(
    host: &mut dyn Host,
    file: &Place,
    name: &str,
    record: &Record,
    postgres: &Postgres,
) -> Result<BTreeMap<String, u64>, Doubt> {
    let id = postgres.find(host).map_err(Doubt::Failed)?;
    let scratch = scratch_name("verify", host, name);
    postgres.create(host, &id, &scratch).map_err(Doubt::Failed)?;
    let to = postgres.load(&scratch);
    let restored = pour(
        host,
        file,
        record,
        Sink::Program {
            container: &id,
            program: &to,
        },
    );
    let counted = restored.and_then(|()| {
        let tables = postgres.tables(host, &id, &scratch);
        tables.map_err(|error| judge(error, "the restored database"))
    });
    if let Err(error) = postgres.drop(host, &id, &scratch) {
        host.warn(&format!(
            "could not drop the scratch database {scratch}: {}",
            error.message
        ));
    }
    counted
}

fn in_redis(
    host: &mut dyn Host,
    file: &Place,
    name: &str,
    record: &Record,
    redis: &Redis,
) -> Result<BTreeMap<String, u64>, Doubt> {
    let id = redis.find(host).map_err(Doubt::Failed)?;
    let scratch = format!("/tmp/windlass_verify_{}", service::tag(host, name));
    let made = host.exec(&id, &redis::program(&["mkdir", "-p", "-m", "700", &scratch]));
    let made = made.map_err(Doubt::Failed)?;
    if made.exit != 0 {
        let message = format!(
            "cannot make {scratch} in {}: {}",
            redis.container,
            made.stderr.trim()
        );
        return Err(Doubt::Failed(Error::new("container.failed", message)));
    }
    let to = redis::program(&["dd", &format!("of={scratch}/dump.rdb"), "bs=64k"]);
    let restored = pour(
        host,
        file,
        record,
        Sink::Program {
            container: &id,
            program: &to,
        },
    );
    let found = restored.and_then(|()| {
        redis
            .try_out(host, &id, &scratch)
            .map_err(|error| judge(error, &record.file))
    });
    if let Err(error) = host.exec(&id, &redis::program(&["rm", "-rf", &scratch])) {
        host.warn(&format!(
            "could not remove {scratch} in {}: {}",
            redis.container, error.message
        ));
    }
    found.map(|contents| contents.keys)
}

fn difference(before: &BTreeMap<String, u64>, found: &BTreeMap<String, u64>) -> String {
    let names = before
        .keys()
        .chain(found.keys().filter(|name| !before.contains_key(*name)));
    let differing = names.filter(|name| before.get(*name) != found.get(*name));
    let word = |rows: Option<&u64>| rows.map_or("none".to_owned(), ToString::to_string);
    let shown = differing.take(5).map(|name| {
        let (before, found) = (word(before.get(name)), word(found.get(name)));
        format!("{name} {found} instead of {before}")
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn pour(host: &mut dyn Host, file: &Place, record: &Record, to: Sink<'_>) -> Result<(), Doubt> {
    let options = Options {
        decompress: record.compression.for_flow(),
        expect: Some(record.sha256.clone()),
        replace: true,
        ..Options::default()
    };
    let copied = host
        .copy(file.source(), to, &options)
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
        "object.missing",
        "object.digest",
        "target.",
        "sql.failed",
        "sql.missing",
        "redis.damaged",
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
