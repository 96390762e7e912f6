//! Versioned SQL files against a database: lock, compare, apply one by one.
//!
//! What to do is decided in `pending`; here it is done, each migration and the row that records it in one
//! transaction, so that a crash anywhere leaves whole migrations and a truthful table.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use windlass_guest::sql::{Options, Rows, Step};
use windlass_guest::{Effect, Error, Outcome};

use crate::config::Config;
use crate::pending::{self, Applied, Work};
use crate::script::{Migration, Phase};
use crate::table::Table;

/// What a migration needs from outside.
pub trait Host {
    /// Connects.
    ///
    /// # Errors
    /// Those of `windlass:sql/database.open`.
    fn open(&mut self, url: &str, options: &Options) -> Result<Box<dyn Database>, Error>;

    /// The id of this run, kept beside every migration it applied.
    fn run_id(&mut self) -> String;

    /// One line of the stage's log.
    fn info(&mut self, message: &str);

    /// `done` of `total` migrations.
    fn progress(&mut self, done: u64, total: u64);

    /// True once the run wants this stage to end.
    fn is_cancelled(&mut self) -> bool;
}

/// One connection, as `windlass:sql/database.connection` describes it.
pub trait Database {
    /// `sqlite` or `postgresql`.
    fn dialect(&self) -> String;

    /// False: held by another.
    ///
    /// # Errors
    /// `sql.*`
    fn lock(&self, key: &str, timeout: Duration) -> Result<bool, Error>;

    /// Reads.
    ///
    /// # Errors
    /// `sql.*`
    fn query(&self, statement: &str, parameters: &[Value]) -> Result<Rows, Error>;

    /// Writes: all steps or none.
    ///
    /// # Errors
    /// `sql.*`, with `details.step`.
    fn transact(&self, label: &str, steps: &[Step]) -> Result<(), Error>;
}

/// More files than a project collects in its life; what the host answers in one query is the same number.
const MAX_FILES: usize = 10_000;

/// What the journal calls the transactions of this stage; [`crate::reconcile`] reads it back.
pub(crate) const TABLE_LABEL: &str = "migrations table";
pub(crate) const MIGRATION_LABEL: &str = "migration ";

/// Applies what is pending.
///
/// # Errors
/// `migrate.*`, `sql.*`, `cancelled`.
pub fn run(config: &Config, host: &mut dyn Host) -> Result<Outcome, Error> {
    config.check()?;
    let files = read_directory(&config.directory())?;
    let database = host.open(&config.url, &options(config))?;
    let table = Table::new(&config.table, &database.dialect())?;
    if !database.lock(&table.lock_key(), config.lock_timeout)? {
        return Err(locked(config));
    }
    let applied = applied(database.as_ref(), &table)?;
    let work = pending::decide(&files, &applied.rows, &config.to)?;
    if !work.pending.is_empty() && !applied.table_exists {
        database.transact(TABLE_LABEL, &[table.create().additive(true)])?;
    }
    let run = host.run_id();
    for (done, migration) in work.pending.iter().enumerate() {
        host.progress(done as u64, work.pending.len() as u64);
        if host.is_cancelled() {
            return Err(cancelled(&work, done));
        }
        apply(database.as_ref(), &table, migration, &run).map_err(|error| failed(error, &work, done))?;
        host.info(&format!(
            "applied {} ({})",
            migration.file,
            migration.phase.as_str()
        ));
    }
    host.progress(work.pending.len() as u64, work.pending.len() as u64);
    Ok(outcome(&work))
}

/// What [`run`] would apply. Takes no lock and writes nothing.
///
/// # Errors
/// As [`run`].
pub fn plan(config: &Config, host: &mut dyn Host) -> Result<Vec<Effect>, Error> {
    config.check()?;
    let files = read_directory(&config.directory())?;
    let reading = Options {
        create: false,
        read_only: true,
        ..options(config)
    };
    let rows = match host.open(&config.url, &reading) {
        Ok(database) => {
            let table = Table::new(&config.table, &database.dialect())?;
            applied(database.as_ref(), &table)?.rows
        }
        // The first run will make it.
        Err(error) if error.code == "sql.missing" && config.create => Vec::new(),
        Err(error) => return Err(error),
    };
    let work = pending::decide(&files, &rows, &config.to)?;
    let effect = |migration: &&Migration| Effect {
        action: "update",
        target: format!("migration {}", migration.version.as_str()),
        summary: format!("apply {} ({})", migration.file, migration.phase.as_str()),
        capability: None,
        value: None,
    };
    Ok(work.pending.iter().map(effect).collect())
}

/// All migrations of the directory, by version.
fn read_directory(directory: &Path) -> Result<Vec<Migration>, Error> {
    let shown = directory.display();
    let unreadable = |what: String, error: &std::io::Error| {
        Error::new("migrate.unreadable", format!("cannot read {what}: {error}"))
            .help("`directory` is the directory of the SQL files, relative to the project's root")
    };
    let mut migrations = Vec::new();
    for (count, entry) in fs::read_dir(directory)
        .map_err(|error| unreadable(shown.to_string(), &error))?
        .enumerate()
    {
        if count >= MAX_FILES {
            return Err(Error::new(
                "migrate.too-many-files",
                format!("{shown} holds more than {MAX_FILES} files"),
            ));
        }
        let entry = entry.map_err(|error| unreadable(shown.to_string(), &error))?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if !file.ends_with(".sql") {
            continue;
        }
        let bytes = fs::read(entry.path()).map_err(|error| unreadable(format!("{shown}/{file}"), &error))?;
        migrations.extend(Migration::read(&file, &bytes)?);
    }
    migrations.sort_by(|a, b| a.version.cmp(&b.version));
    if migrations.is_empty() {
        let error = Error::new("migrate.no-migrations", format!("{shown} holds no SQL file"));
        return Err(error.help("name the first one like `0001_create_users.sql`, or correct `directory`"));
    }
    match migrations
        .windows(2)
        .find(|pair| matches!(pair, [a, b] if a.version == b.version))
    {
        Some([a, b]) => Err(Error::new(
            "migrate.duplicate",
            format!("{} and {} have the same version", a.file, b.file),
        )
        .help("give one of them the next free version")),
        _ => Ok(migrations),
    }
}

pub(crate) struct Known {
    pub(crate) table_exists: bool,
    pub(crate) rows: Vec<Applied>,
}

pub(crate) fn applied(database: &dyn Database, table: &Table) -> Result<Known, Error> {
    let (statement, parameters) = table.exists();
    if database.query(statement, &parameters)?.rows.is_empty() {
        return Ok(Known {
            table_exists: false,
            rows: Vec::new(),
        });
    }
    let rows = table.read(&database.query(&table.select(), &[])?)?;
    Ok(Known {
        table_exists: true,
        rows,
    })
}

fn apply(database: &dyn Database, table: &Table, migration: &Migration, run: &str) -> Result<(), Error> {
    let steps = [Step::new(&migration.sql), table.insert(migration, run)]
        .map(|step| step.additive(migration.phase == Phase::Expand));
    database.transact(
        &format!("{MIGRATION_LABEL}{}", migration.version.as_str()),
        &steps,
    )
}

pub(crate) fn options(config: &Config) -> Options {
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Options {
        create: config.create,
        lock_timeout_ms: Some(milliseconds(config.lock_timeout)),
        statement_timeout_ms: config.statement_timeout.map(milliseconds),
        ..Options::default()
    }
}

fn outcome(work: &Work<'_>) -> Outcome {
    let before = work.from.as_ref().map(|version| version.as_str());
    let after = work
        .pending
        .last()
        .map(|migration| migration.version.as_str())
        .or(before);
    let mut phases: Vec<Phase> = work.pending.iter().map(|migration| migration.phase).collect();
    phases.sort_unstable();
    phases.dedup();
    let applied: Vec<&str> = work
        .pending
        .iter()
        .map(|migration| migration.version.as_str())
        .collect();
    let outcome = match (before, after) {
        (_, Some(after)) if applied.is_empty() => {
            Outcome::unchanged(format!("already at {after}, nothing to do"))
        }
        (Some(before), Some(after)) => Outcome::changed(format!("migrated from {before} to {after}")),
        (_, after) => Outcome::changed(format!(
            "migrated an empty database to {}",
            after.unwrap_or("nothing")
        )),
    };
    outcome
        .output("from", json!(before))
        .output("to", json!(after))
        .output("applied", json!(applied))
        .output("already", json!(work.already))
        .output("phases", json!(phases))
}

/// Where the database stands after `done` of the pending migrations.
fn standing(work: &Work<'_>, done: usize) -> String {
    let last = done
        .checked_sub(1)
        .and_then(|last| work.pending.get(last))
        .map(|migration| &migration.version);
    match last.or(work.from.as_ref()) {
        Some(version) => format!("the database is at {}", version.as_str()),
        None => "the database has no migration".to_owned(),
    }
}

/// The database's own error, with the file it came from and what was kept.
fn failed(error: Error, work: &Work<'_>, done: usize) -> Error {
    let file = work
        .pending
        .get(done)
        .map_or("a migration", |migration| migration.file.as_str());
    let standing = standing(work, done);
    let message = format!(
        "{file} failed: {}; nothing of it was kept, {standing}",
        error.message
    );
    let mut wrapped = Error::new("migrate.failed", message);
    wrapped.retryable = error.retryable;
    if let Some(details) = error.details {
        wrapped = wrapped.with_details(details);
    }
    let sql = work
        .pending
        .get(done)
        .map_or("", |migration| migration.sql.as_str());
    if let Some(line) = line_of(wrapped.details.as_ref(), sql) {
        wrapped = wrapped.with_details(json!({ "line": line }));
    }
    wrapped
        .with_details(json!({ "file": file, "cause": error.code }))
        .help("correct the file and run again: it was not recorded, so it may be changed")
}

/// The line of the script at which the database stopped, when it said so (`position` counts characters from 1).
fn line_of(details: Option<&Value>, sql: &str) -> Option<usize> {
    let details = details?;
    let position = usize::try_from(details.get("position")?.as_u64()?).ok()?;
    let in_script = details.get("step").is_none_or(|step| step.as_u64() == Some(0));
    in_script.then(|| {
        1 + sql
            .chars()
            .take(position.saturating_sub(1))
            .filter(|c| *c == '\n')
            .count()
    })
}

fn cancelled(work: &Work<'_>, done: usize) -> Error {
    let left = work.pending.len() - done;
    let message = format!(
        "stopped before {left} of {} migrations; {}",
        work.pending.len(),
        standing(work, done)
    );
    Error::new("cancelled", message).retryable()
}

fn locked(config: &Config) -> Error {
    let waited = windlass_guest::duration::show(config.lock_timeout);
    Error::new(
        "migrate.locked",
        format!("another run is migrating this database (waited {waited})"),
    )
    .retryable()
    .help("wait for it, or let this stage wait longer: `lock-timeout: 60s`, or `retry`")
}
