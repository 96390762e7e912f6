//! What lives in containers into the file of a backup: dumped by the programs of its own image, moved and compressed by the host.

use std::collections::BTreeMap;

use windlass_backup_format::host::{Host, Sink, Source};
use windlass_backup_format::inside::Inside;
use windlass_backup_format::manifest::Record;
use windlass_backup_format::postgres::Postgres;
use windlass_backup_format::redis::{self, Redis};
use windlass_backup_format::service;
use windlass_guest::Error;
use windlass_guest::flow::{Copied, Options};

use crate::write::empty;

/// A source that was copied, and what is known of it that its proof has to show.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) copied: Copied,
    /// Rows by table, where nobody wrote meanwhile.
    pub(crate) exact: Option<BTreeMap<String, u64>>,
    /// Tables that were there before and after.
    pub(crate) seen: Vec<String>,
    pub(crate) record: Option<Record>,
}

impl From<Copied> for Taken {
    fn from(copied: Copied) -> Self {
        Self {
            copied,
            exact: None,
            seen: Vec::new(),
            record: None,
        }
    }
}

/// `pg_dump`. Where the moment is the same before and after, the dump must hold exactly what is counted then; a database in use
/// is counted in its restored copy only, and has to have the same tables.
///
/// # Errors
/// `backup.empty`, `flow.source-failed` when `pg_dump` does not end well, and those of the host.
pub(crate) fn postgres(
    name: &str,
    postgres: &Postgres,
    to: Sink<'_>,
    options: &Options,
    host: &mut dyn Host,
) -> Result<Taken, Error> {
    let id = postgres.find(host)?;
    let database = &postgres.database;
    let before = postgres.moment(host, &id, database)?;
    let mut seen = postgres.names(host, &id, database)?;
    if seen.is_empty() {
        return Err(empty(name, "is a database without a table"));
    }
    let program = postgres.dump();
    let from = Source::Program {
        container: &id,
        program: &program,
    };
    let copied = host.copy(from, to, options)?;
    let mut exact = None;
    if postgres.moment(host, &id, database)? == before {
        let counted = postgres.tables(host, &id, database)?;
        // It takes a while to count.
        exact = (postgres.moment(host, &id, database)? == before).then_some(counted);
    }
    if exact.is_none() {
        let after = postgres.names(host, &id, database)?;
        seen.retain(|table| after.contains(table));
    }
    Ok(Taken {
        seen,
        exact,
        ..copied.into()
    })
}

/// `redis-cli --rdb` into a file of its own: over standard output it would write the mark of the transfer's end into the dump.
///
/// # Errors
/// `redis.failed`, and those of the host.
pub(crate) fn redis(
    name: &str,
    redis: &Redis,
    to: Sink<'_>,
    options: &Options,
    host: &mut dyn Host,
) -> Result<Taken, Error> {
    let id = redis.find(host)?;
    let path = format!("/tmp/windlass_{}.rdb", service::tag(host, name));
    let before = redis.contents(host, &id)?;
    let copied = redis.dump(host, &id, &path).and_then(|()| {
        let program = redis::program(&["cat", &path]);
        let from = Source::Program {
            container: &id,
            program: &program,
        };
        host.copy(from, to, options)
    });
    if let Err(error) = host.exec(&id, &redis::program(&["rm", "-f", &path])) {
        host.warn(&format!(
            "could not remove {path} in {}: {}",
            redis.container, error.message
        ));
    }
    let copied = copied?;
    let after = redis.contents(host, &id)?;
    if before.keys.is_empty() && after.keys.is_empty() {
        host.warn(&format!("{name}: there is no key in it"));
    }
    // Keys that go by themselves go from the copy too.
    let is_quiet = before == after && before.expires == 0;
    let full =
        |keys: &BTreeMap<String, u64>, database: &String| keys.get(database).is_some_and(|count| *count > 0);
    let seen = before
        .keys
        .keys()
        .filter(|database| full(&after.keys, database) && before.expires == 0);
    Ok(Taken {
        seen: seen.cloned().collect(),
        exact: is_quiet.then_some(before.keys),
        ..copied.into()
    })
}

/// A directory, as the engine's tar stream.
///
/// # Errors
/// `backup.missing`, `backup.empty`, and those of the host.
pub(crate) fn directory(
    name: &str,
    inside: &Inside,
    to: Sink<'_>,
    options: &Options,
    host: &mut dyn Host,
) -> Result<Taken, Error> {
    let id = inside.find(host)?;
    match inside.is_empty(host, &id)? {
        None => {
            let message = format!("there is no {} in {}", inside.path, inside.container);
            return Err(
                Error::new("backup.missing", message).help("correct the path, or mount what belongs there")
            );
        }
        Some(true) => return Err(empty(name, &format!("is an empty directory ({})", inside.path))),
        Some(false) => {}
    }
    let from = Source::Inside {
        container: &id,
        path: &inside.path,
    };
    host.copy(from, to, options).map(Taken::from)
}
