//! The journal in one SQLite database: `journal.db` in the state directory, which belongs to its owner only.
//!
//! Settings, and what relies on them:
//! - WAL with `synchronous=FULL`: a commit that returned is on disk, at the price of one sync.
//! - Normal locking, not exclusive, so that `runs show` can read while a run writes.
//! - The WAL file is grown once and then written over: a sync that also has to grow a file costs two to three times as much.
//! - Records are appended to one tree in the order of their ids, which splits its last page and no other: a commit writes one page of the
//!   log, where a tree over (run, sequence) would move the records of its last three pages about in every second one.
//! - No checkpoint on close: `windlass run` ends without two more syncs; the next writer finds the WAL as it was left.

use super::store::{Batch, Fence, Store, StoreError, StoredLine, StoredRecord};
use crate::name::RunId;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, config::DbConfig, params};
use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// The layout of the tables below: how many of the steps were taken.
const SCHEMA: i64 = 4;

/// `application_id` of our databases: "wdls".
const APPLICATION: i64 = 0x7764_6c73;

/// The WAL is written over after this many pages (2 MiB): long enough that its two syncs vanish among the commits, short
/// enough that the next process reads it in a few milliseconds.
const WAL_PAGES: i64 = 512;

/// Another process that commits holds the database for milliseconds; longer than this, something hangs.
const BUSY: Duration = Duration::from_secs(10);

/// From an empty database to the present layout, one step for each layout. An older database takes those it has not taken; a
/// step is never changed once a version with it was released.
const STEPS: [&str; SCHEMA as usize] = [RUNS, LOCKS, CHAINED, APPENDED];

const RUNS: &str = "
    CREATE TABLE run (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE record (
        run INTEGER NOT NULL REFERENCES run(number), sequence INTEGER NOT NULL, version INTEGER NOT NULL,
        at INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, chain BLOB NOT NULL,
        PRIMARY KEY (run, sequence)) STRICT, WITHOUT ROWID;
    CREATE TABLE line (
        cursor INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES run(number), at INTEGER NOT NULL,
        stage TEXT NOT NULL, attempt INTEGER NOT NULL, level TEXT NOT NULL, message TEXT NOT NULL,
        fields TEXT NOT NULL) STRICT;
    CREATE INDEX line_of_run ON line (run, cursor);
";

/// The locks are beside the records, so that one transaction sees both: see [`Fence`]. `lock` is the only module that writes
/// these two. A free lock keeps its row, and with it its token.
const LOCKS: &str = "
    CREATE TABLE lock (
        name TEXT PRIMARY KEY, token INTEGER NOT NULL, owner TEXT, holder TEXT, until INTEGER NOT NULL) STRICT;
    CREATE TABLE waiter (
        ticket INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, owner TEXT NOT NULL, holder TEXT NOT NULL,
        until INTEGER NOT NULL) STRICT;
    CREATE INDEX waiter_of_lock ON waiter (name, ticket);
";

/// The same tables; but records of version 2 may be in them, whose chain an older Windlass would take for damage.
const CHAINED: &str = "";

/// Records under one number, the run's in its upper half. What reads the layouts before finds its columns.
const APPENDED: &str = "
    ALTER TABLE record RENAME TO record_before;
    CREATE TABLE record (
        id INTEGER PRIMARY KEY,
        run INTEGER NOT NULL GENERATED ALWAYS AS (id >> 32) VIRTUAL,
        sequence INTEGER NOT NULL GENERATED ALWAYS AS (id & 4294967295) VIRTUAL,
        version INTEGER NOT NULL, at INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, chain BLOB NOT NULL) STRICT;
    INSERT INTO record (id, version, at, kind, body, chain)
        SELECT run << 32 | sequence, version, at, kind, body, chain FROM record_before ORDER BY run, sequence;
    DROP TABLE record_before;
";

/// Of the number of a record.
const SEQUENCE_BITS: u32 = 32;

/// One connection to the journal of a state directory.
pub struct SqliteStore {
    connection: Connection,
    path: PathBuf,
    fence: Option<Fence>,
    /// The run that was written to last, with its number. It keeps it.
    known: Option<(RunId, i64)>,
    /// Whether records lie under one number. What is only read may be older.
    is_appended: bool,
}

impl SqliteStore {
    /// The journal's file in a state directory.
    pub fn path_in(state_directory: &Path) -> PathBuf {
        state_directory.join("journal.db")
    }

    /// Opens the journal for writing; makes directory and file where they are missing.
    ///
    /// # Errors
    /// It was written by a newer Windlass, belongs to another program, or cannot be opened.
    pub fn open(state_directory: &Path) -> Result<Self, StoreError> {
        let path = Self::path_in(state_directory);
        make_private(state_directory, &path).map_err(|error| unusable(&path, &error))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(&path, flags).map_err(|error| unusable(&path, &error))?;
        let mut store = Self {
            connection,
            path,
            fence: None,
            known: None,
            is_appended: true,
        };
        store.prepare_writer().map_err(|error| store.explain(error))?;
        store.check_or_make_tables()?;
        store.grow_wal().map_err(|error| store.explain(error))?;
        Ok(store)
    }

    /// Opens the journal for reading, `None` where the state directory has none.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn open_for_reading(state_directory: &Path) -> Result<Option<Self>, StoreError> {
        let path = Self::path_in(state_directory);
        if !path.exists() {
            return Ok(None);
        }
        // Reading a WAL database needs its shared memory file, which a read-only connection could not make.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(&path, flags).map_err(|error| unusable(&path, &error))?;
        let mut store = Self {
            connection,
            path,
            fence: None,
            known: None,
            is_appended: false,
        };
        let set = || {
            store.connection.busy_timeout(BUSY)?;
            store
                .connection
                .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            store.connection.execute_batch("PRAGMA query_only = ON")
        };
        set().map_err(|error| store.explain(error))?;
        let layout = store.layout()?;
        store.is_appended = layout >= 4;
        Ok((layout > 0).then_some(store))
    }

    /// From now on every commit demands this of the lock, or fails with [`StoreError::LockLost`].
    pub fn fenced(mut self, fence: Fence) -> Self {
        self.fence = Some(fence);
        self
    }

    /// The connection itself, for the tables of the locks.
    pub(crate) fn into_connection(self) -> Connection {
        self.connection
    }

    fn prepare_writer(&self) -> rusqlite::Result<()> {
        let connection = &self.connection;
        connection.busy_timeout(BUSY)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
        connection.pragma_update(None, "foreign_keys", "ON")
    }

    /// 0 for an empty database, else the layout's number.
    fn layout(&self) -> Result<i64, StoreError> {
        let number = |name: &str| {
            self.connection
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
        };
        let application = number("application_id").map_err(|error| self.explain(error))?;
        let found = number("user_version").map_err(|error| self.explain(error))?;
        let empty = (application, found) == (0, 0);
        if !empty && application != APPLICATION {
            return Err(StoreError::Foreign {
                path: self.path.clone(),
            });
        }
        if found > SCHEMA {
            return Err(StoreError::Newer {
                path: self.path.clone(),
                found,
                known: SCHEMA,
            });
        }
        Ok(found)
    }

    fn check_or_make_tables(&mut self) -> Result<(), StoreError> {
        if self.layout()? == SCHEMA {
            return Ok(());
        }
        let make = |connection: &mut Connection| {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            let transaction =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            // Another process may have been faster.
            let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
            let taken = usize::try_from(found).unwrap_or(0);
            for step in STEPS.iter().skip(taken) {
                transaction.execute_batch(step)?;
            }
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", found.max(SCHEMA))?;
            transaction.commit()
        };
        make(&mut self.connection).map_err(|error| self.explain(error))
    }

    /// Writes the WAL to its full length once; whoever comes later overwrites it from its start.
    fn grow_wal(&self) -> rusqlite::Result<()> {
        const PAGE: i64 = 4096;
        let wal = self.path.with_extension("db-wal");
        let length = fs::metadata(wal).map_or(0, |found| found.len());
        if length >= (WAL_PAGES * PAGE).unsigned_abs() {
            return Ok(());
        }
        self.connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; CREATE TABLE filler (bytes BLOB); INSERT INTO filler VALUES (zeroblob({})); COMMIT;
             BEGIN IMMEDIATE; DROP TABLE filler; COMMIT;",
            WAL_PAGES * PAGE
        ))?;
        // With readers in the way it restarts later, at the next automatic checkpoint.
        self.connection
            .query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
    }

    fn explain(&self, error: rusqlite::Error) -> StoreError {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => StoreError::Foreign {
                path: self.path.clone(),
            },
            _ => unusable(&self.path, &error),
        }
    }

    fn number_of(&self, run: &RunId) -> Result<Option<i64>, StoreError> {
        let mut select = self
            .connection
            .prepare_cached("SELECT number FROM run WHERE id = ?1")
            .map_err(|error| self.explain(error))?;
        select
            .query_row([run.as_str()], |row| row.get(0))
            .optional()
            .map_err(|error| self.explain(error))
    }

    /// `false`: the lock is no longer held, and nothing was written.
    fn append_in_one(&mut self, run: &RunId, batch: &Batch) -> rusqlite::Result<bool> {
        let transaction = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let number;
        {
            if let Some(fence) = &self.fence
                && !holds(&transaction, fence)?
            {
                return Ok(false);
            }
            number = match &self.known {
                Some((known, number)) if known == run => *number,
                _ => number_for(&transaction, run)?,
            };
            let mut insert = transaction.prepare_cached(
                "INSERT INTO record (id, version, at, kind, body, chain) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for record in &batch.records {
                insert.execute(params![
                    first_of(number) | record.sequence.cast_signed(),
                    record.version,
                    record.at_ms,
                    record.kind,
                    record.body,
                    record.chain
                ])?;
            }
            let mut insert = transaction.prepare_cached(
                "INSERT INTO line (run, at, stage, attempt, level, message, fields) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            for line in &batch.lines {
                insert.execute(params![
                    number,
                    line.at_ms,
                    line.stage,
                    line.attempt,
                    line.level,
                    line.message,
                    line.fields
                ])?;
            }
        }
        transaction.commit()?;
        if self.known.as_ref().is_none_or(|(known, _)| known != run) {
            self.known = Some((run.clone(), number));
        }
        Ok(true)
    }

    /// In the order in which they began. Their ids begin with the time, and somebody may have set the clock meanwhile.
    fn select_runs(&self, limit: usize) -> rusqlite::Result<Vec<(i64, String)>> {
        let mut select = self
            .connection
            .prepare("SELECT number, id FROM run ORDER BY number DESC LIMIT ?1")?;
        select
            .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect()
    }

    fn select_records(&self, number: i64, kinds: &[&str]) -> rusqlite::Result<Vec<StoredRecord>> {
        let (which, from, to) = match self.is_appended {
            true => (
                "id BETWEEN ?1 AND ?2 ORDER BY id",
                first_of(number),
                first_of(number + 1) - 1,
            ),
            false => ("run BETWEEN ?1 AND ?2 ORDER BY sequence", number, number),
        };
        let mut select = self.connection.prepare_cached(&format!(
            "SELECT sequence, version, at, kind, body, chain FROM record WHERE {which}"
        ))?;
        let mut rows = select.query([from, to])?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            let kind = row.get_ref(3)?;
            let wanted = kinds.is_empty() || kind.as_str().is_ok_and(|kind| kinds.contains(&kind));
            if wanted {
                records.push(stored_record(row)?);
            }
        }
        Ok(records)
    }

    fn select_lines(
        &self,
        number: i64,
        stage: Option<&str>,
        cursor: u64,
        limit: usize,
    ) -> rusqlite::Result<Vec<StoredLine>> {
        let mut select = self.connection.prepare_cached(
            "SELECT cursor, at, stage, attempt, level, message, fields FROM line
             WHERE run = ?1 AND cursor > ?2 AND (?3 IS NULL OR stage = ?3) ORDER BY cursor LIMIT ?4",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        select
            .query_map(params![number, cursor.cast_signed(), stage, limit], stored_line)?
            .collect()
    }
}

impl Store for SqliteStore {
    fn append(&mut self, run: &RunId, batch: &Batch) -> Result<(), StoreError> {
        let is_written = self
            .append_in_one(run, batch)
            .map_err(|error| self.explain(error))?;
        match &self.fence {
            Some(fence) if !is_written => Err(StoreError::LockLost {
                group: fence.group.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn read_run(&self, run: &RunId) -> Result<Vec<StoredRecord>, StoreError> {
        let number = self
            .number_of(run)?
            .ok_or_else(|| StoreError::UnknownRun(run.clone()))?;
        self.select_records(number, &[])
            .map_err(|error| self.explain(error))
    }

    fn list_runs(&self, limit: usize, kinds: &[&str]) -> Result<Vec<(RunId, Vec<StoredRecord>)>, StoreError> {
        let mut runs = Vec::new();
        for (number, id) in self.select_runs(limit).map_err(|error| self.explain(error))? {
            let run = RunId::parse(&id).map_err(|error| unusable(&self.path, &error))?;
            let records = self
                .select_records(number, kinds)
                .map_err(|error| self.explain(error))?;
            runs.push((run, records));
        }
        Ok(runs)
    }

    fn read_lines(
        &self,
        run: &RunId,
        stage: Option<&str>,
        cursor: u64,
        limit: usize,
    ) -> Result<Vec<StoredLine>, StoreError> {
        let number = self
            .number_of(run)?
            .ok_or_else(|| StoreError::UnknownRun(run.clone()))?;
        self.select_lines(number, stage, cursor, limit)
            .map_err(|error| self.explain(error))
    }
}

/// The number of the first record of a run.
fn first_of(run: i64) -> i64 {
    run << SEQUENCE_BITS
}

/// Whether the group is still given as the fence says.
fn holds(connection: &Connection, fence: &Fence) -> rusqlite::Result<bool> {
    let Fence { group, token, owner } = fence;
    connection
        .prepare_cached("SELECT 1 FROM lock WHERE name = ?1 AND token = ?2 AND owner = ?3")?
        .exists(params![group, token.cast_signed(), owner])
}

fn stored_record(row: &Row<'_>) -> rusqlite::Result<StoredRecord> {
    Ok(StoredRecord {
        sequence: row.get::<_, i64>(0)?.cast_unsigned(),
        version: row.get(1)?,
        at_ms: row.get(2)?,
        kind: row.get(3)?,
        body: row.get(4)?,
        chain: row.get(5)?,
    })
}

fn stored_line(row: &Row<'_>) -> rusqlite::Result<StoredLine> {
    Ok(StoredLine {
        cursor: row.get::<_, i64>(0)?.cast_unsigned(),
        at_ms: row.get(1)?,
        stage: row.get(2)?,
        attempt: row.get(3)?,
        level: row.get(4)?,
        message: row.get(5)?,
        fields: row.get(6)?,
    })
}

/// The number of a run, which gets one with its first records.
fn number_for(transaction: &Transaction<'_>, run: &RunId) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached("INSERT OR IGNORE INTO run (id) VALUES (?1)")?
        .execute([run.as_str()])?;
    transaction
        .prepare_cached("SELECT number FROM run WHERE id = ?1")?
        .query_row([run.as_str()], |row| row.get(0))
}

/// The directory 0700 and the file 0600 before SQLite sees them; it gives its side files the mode of the main one.
fn make_private(directory: &Path, file: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    let opened = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(file)?;
    opened.set_permissions(Permissions::from_mode(0o600))
}

fn unusable(path: &Path, problem: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unusable {
        path: path.to_path_buf(),
        problem: problem.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RunId {
        RunId::new(1, [1; 10])
    }

    fn record(sequence: u64, kind: &str) -> StoredRecord {
        StoredRecord {
            sequence,
            version: 1,
            at_ms: 5,
            kind: kind.into(),
            body: "{}".into(),
            chain: [7; 32],
        }
    }

    fn line(stage: &str, message: &str) -> StoredLine {
        StoredLine {
            cursor: 0,
            at_ms: 5,
            stage: stage.into(),
            attempt: 1,
            level: "info".into(),
            message: message.into(),
            fields: "[]".into(),
        }
    }

    #[test]
    fn what_was_written_is_read_by_another_connection_while_the_first_is_open() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let state = directory.path().join("state");
        let mut store = SqliteStore::open(&state).expect("opens");
        let batch = Batch {
            records: vec![record(0, "run-started"), record(1, "decision")],
            lines: vec![line("a", "one"), line("b", "two"), line("a", "three")],
        };
        store.append(&run(), &batch).expect("commits");
        let reader = SqliteStore::open_for_reading(&state)
            .expect("opens")
            .expect("exists");
        assert_eq!(reader.read_run(&run()).expect("reads"), batch.records);
        let listed = reader.list_runs(9, &["run-started"]).expect("lists");
        assert_eq!(listed, [(run(), vec![record(0, "run-started")])]);
        let of_a = reader.read_lines(&run(), Some("a"), 0, 10).expect("reads");
        let messages: Vec<&str> = of_a.iter().map(|line| line.message.as_str()).collect();
        assert_eq!(messages, ["one", "three"]);
        let later = reader.read_lines(&run(), None, of_a[0].cursor, 1).expect("reads");
        assert_eq!(later[0].message, "two");
        let unknown = RunId::new(2, [1; 10]);
        assert!(matches!(
            reader.read_run(&unknown),
            Err(StoreError::UnknownRun(_))
        ));
        for (path, mode) in [(state.clone(), 0o700), (SqliteStore::path_in(&state), 0o600)] {
            let found = fs::metadata(path).expect("exists").permissions().mode() & 0o777;
            assert_eq!(found, mode);
        }
    }

    #[test]
    fn the_wal_does_not_grow_while_runs_are_written() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut store = SqliteStore::open(directory.path()).expect("opens");
        let wal = directory.path().join("journal.db-wal");
        let length = || fs::metadata(&wal).expect("exists").len();
        let grown = length();
        for sequence in 0..600 {
            let batch = Batch {
                records: vec![record(sequence, "decision")],
                lines: Vec::new(),
            };
            store.append(&run(), &batch).expect("commits");
        }
        assert_eq!(length(), grown);
        drop(store);
        assert_eq!(length(), grown, "closing leaves it");
        let again = SqliteStore::open(directory.path()).expect("opens");
        assert_eq!(again.read_run(&run()).expect("reads").len(), 600);
    }

    #[test]
    fn a_number_is_used_once() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut store = SqliteStore::open(directory.path()).expect("opens");
        let batch = Batch {
            records: vec![record(0, "run-started")],
            lines: Vec::new(),
        };
        store.append(&run(), &batch).expect("commits");
        let twice = store.append(&run(), &batch).expect_err("the number is taken");
        assert!(matches!(twice, StoreError::Unusable { .. }), "{twice}");
    }

    #[test]
    fn a_commit_behind_a_lost_lock_writes_nothing() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let fence = |token, owner: &str| Fence {
            group: "g".into(),
            token,
            owner: owner.into(),
        };
        let open = || SqliteStore::open(directory.path()).expect("opens");
        let insert = "INSERT INTO lock VALUES ('g', 7, 'me', '{}', 0)";
        open().into_connection().execute_batch(insert).expect("inserts");
        let batch = |sequence| Batch {
            records: vec![record(sequence, "decision")],
            lines: vec![line("a", "one")],
        };
        let mut mine = open().fenced(fence(7, "me"));
        mine.append(&run(), &batch(0)).expect("it is held");
        for other in [fence(6, "me"), fence(8, "me"), fence(7, "you")] {
            let lost = open().fenced(other).append(&run(), &batch(1));
            assert!(matches!(lost, Err(StoreError::LockLost { .. })), "{lost:?}");
        }
        for given_away in [
            "UPDATE lock SET owner = NULL",
            "UPDATE lock SET owner = 'me', token = 8",
            "DELETE FROM lock",
        ] {
            open()
                .into_connection()
                .execute_batch(given_away)
                .expect("changes");
            assert!(mine.append(&run(), &batch(1)).is_err(), "{given_away}");
        }
        assert_eq!(mine.read_run(&run()).expect("reads").len(), 1);
        assert_eq!(mine.read_lines(&run(), None, 0, 9).expect("reads").len(), 1);
    }

    #[test]
    fn a_journal_of_the_first_layout_is_read_and_then_taken_to_the_present_one() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = SqliteStore::path_in(directory.path());
        let old = Connection::open(&path).expect("opens");
        old.pragma_update(None, "journal_mode", "WAL").expect("is set");
        old.execute_batch(RUNS).expect("made");
        old.execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION}; PRAGMA user_version = 1; INSERT INTO run (id) VALUES ('{}')",
            run()
        ))
        .expect("written");
        drop(old);
        let read = || {
            SqliteStore::open_for_reading(directory.path())
                .expect("opens")
                .expect("exists")
        };
        assert_eq!(read().list_runs(9, &[]).expect("lists").len(), 1);
        let mut store = SqliteStore::open(directory.path()).expect("opens");
        assert_eq!(store.layout().expect("ours"), SCHEMA);
        let batch = Batch {
            records: vec![record(0, "run-started")],
            lines: Vec::new(),
        };
        store.append(&run(), &batch).expect("commits");
        assert_eq!(read().read_run(&run()).expect("reads").len(), 1);
    }

    #[test]
    fn newer_and_foreign_files_are_refused_in_words() {
        let directory = tempfile::tempdir().expect("temporary directory");
        drop(SqliteStore::open(directory.path()).expect("opens"));
        let path = SqliteStore::path_in(directory.path());
        let connection = Connection::open(&path).expect("opens");
        connection
            .pragma_update(None, "user_version", SCHEMA + 1)
            .expect("is set");
        drop(connection);
        let newer = SqliteStore::open(directory.path()).err().expect("refused");
        let said = newer.to_string();
        assert!(
            said.ends_with("was written by a newer Windlass (format 5; this one knows 4)"),
            "{said}"
        );
        assert!(SqliteStore::open_for_reading(directory.path()).is_err());

        let other = tempfile::tempdir().expect("temporary directory");
        fs::write(
            SqliteStore::path_in(other.path()),
            "not a database, but long enough to look at".repeat(90),
        )
        .expect("writes");
        let foreign = SqliteStore::open(other.path()).err().expect("refused");
        assert!(matches!(foreign, StoreError::Foreign { .. }), "{foreign}");
        assert!(
            SqliteStore::open_for_reading(&other.path().join("none"))
                .expect("no journal")
                .is_none()
        );
    }
}
