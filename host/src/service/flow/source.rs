//! Where bytes come from.

use super::{
    archive,
    place::{Place, Scratch},
    replace,
    stop::{Stop, carry},
};
use crate::{
    artifact::{self, Reference, Store},
    failure::{Failure, Turn},
    service::{containers::flow::Inside, objects::flow::Object},
};
use cap_std::fs::Dir;
use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};
use std::{
    io::{self, Read, Seek, Write},
    sync::Arc,
    time::{Duration, Instant},
};

/// Bytes moved at a time.
pub(super) const CHUNK: usize = 256 << 10;

/// Pages copied before a database is let go for others: 1 MiB.
const PAGES: i32 = 256;

/// How long a database may stay locked by somebody else.
const BUSY: Duration = Duration::from_secs(30);

/// A source, named and granted, not read yet.
pub enum Source {
    File(Place),
    Directory(Place),
    Sqlite(Place),
    Artifact {
        store: Store,
        reference: Reference,
    },
    Bytes(Vec<u8>),
    /// What a program in a container writes, or a path in one.
    Container(Box<Inside>),
    Object(Box<Object>),
}

impl Source {
    /// Writes everything to `out`.
    pub(super) fn pour(&self, out: &mut dyn Write, scratch: &Arc<Dir>, stop: &Stop) -> Result<(), Failure> {
        match self {
            Self::File(place) => {
                let metadata = place
                    .directory
                    .metadata(&place.path)
                    .map_err(|error| place.failed(&error))?;
                if !metadata.is_file() {
                    let message = format!("`{}` is no file", place.shown);
                    return Err(Failure::new(Turn::PipelineAuthor, "file.missing", message));
                }
                let file = place
                    .directory
                    .open(&place.path)
                    .map_err(|error| place.failed(&error))?;
                pump(file, out, &place.shown, stop)
            }
            Self::Directory(place) => {
                check_whole(place)?;
                let root = place
                    .directory
                    .open_dir(&place.path)
                    .map_err(|error| place.failed(&error))?;
                archive::pack(&root, out, stop)
            }
            Self::Sqlite(place) => {
                let (snapshot, mut file) = Scratch::spool(scratch)
                    .map_err(|error| artifact::storage_failed("the snapshot cannot be written", &error))?;
                self::snapshot(place, &snapshot, stop)?;
                file.rewind()
                    .map_err(|error| artifact::storage_failed("the snapshot cannot be read", &error))?;
                pump(file, out, &place.shown, stop)
            }
            Self::Artifact { store, reference } => {
                let artifact = store.find(reference)?;
                let mut expected = Digested::new(out);
                pump(
                    store.open_unchecked(&artifact)?,
                    &mut expected,
                    &artifact.artifact,
                    stop,
                )?;
                if expected.digest() == artifact.digest {
                    return Ok(());
                }
                let message = format!(
                    "artifact `{}` is damaged: its bytes no longer have its digest",
                    artifact.artifact
                );
                Err(Failure::new(Turn::Environment, "artifact.damaged", message)
                    .help("run the stage that makes it again"))
            }
            Self::Bytes(bytes) => out.write_all(bytes).map_err(|error| stop.write_failed(error)),
            Self::Container(inside) => inside.pour(&mut |piece| {
                stop.check()?;
                out.write_all(piece).map_err(|error| stop.write_failed(error))
            }),
            Self::Object(object) => object.pour(&mut |piece| {
                stop.check()?;
                out.write_all(piece).map_err(|error| stop.write_failed(error))
            }),
        }
    }
}

fn pump(mut from: impl Read, out: &mut dyn Write, shown: &str, stop: &Stop) -> Result<(), Failure> {
    let mut buffer = vec![0; CHUNK];
    loop {
        stop.check()?;
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let message = format!("`{shown}` cannot be read: {error}");
                return Err(Failure::new(Turn::Environment, "flow.source-failed", message));
            }
        };
        out.write_all(buffer.get(..count).unwrap_or_default())
            .map_err(|error| stop.write_failed(error))?;
    }
}

/// A consistent copy of a database that others may be writing to.
fn snapshot(place: &Place, into: &Scratch, stop: &Stop) -> Result<(), Failure> {
    // Reading a database in WAL mode needs its shared memory file, so the connection itself may write.
    let from = place.database()?.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    fill_database(&from, into, &place.shown, stop)
}

/// Copies all pages into a new file, which needs no journal: it is whole or thrown away.
pub(super) fn fill_database(
    from: &Connection,
    into: &Scratch,
    shown: &str,
    stop: &Stop,
) -> Result<(), Failure> {
    let mut to = into.database(shown).connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    to.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        .map_err(|error| database_failed(shown, &error))?;
    copy_database(from, &mut to, shown, stop)
}

/// A directory that was being replaced when that was interrupted is neither the old one nor the new.
fn check_whole(place: &Place) -> Result<(), Failure> {
    let found = replace::interrupted(&place.directory, &place.path).map_err(|error| place.failed(&error))?;
    let Some(aside) = found else { return Ok(()) };
    let message = format!(
        "`{}` is not whole: its replacement was interrupted, and its old content is in `{}`",
        place.shown,
        aside.display()
    );
    Err(Failure::new(Turn::Operator, "flow.source-failed", message)
        .help("run the stage that restores it again: it first puts the old content back"))
}

/// All pages from one database to the other, giving way to those who write.
pub(super) fn copy_database(
    from: &Connection,
    to: &mut Connection,
    shown: &str,
    stop: &Stop,
) -> Result<(), Failure> {
    let failed = |error: rusqlite::Error| database_failed(shown, &error);
    let backup = Backup::new(from, to).map_err(failed)?;
    let mut locked_since: Option<Instant> = None;
    loop {
        stop.check()?;
        match backup.step(PAGES).map_err(failed)? {
            StepResult::Done => return Ok(()),
            StepResult::More => locked_since = None,
            _ if locked_since.get_or_insert_with(Instant::now).elapsed() > BUSY => {
                let message = format!("the database `{shown}` stayed locked for {} s", BUSY.as_secs());
                return Err(Failure::new(Turn::Environment, "sql.busy", message).retryable());
            }
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

pub(super) fn database_failed(shown: &str, error: &rusqlite::Error) -> Failure {
    let code = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => "flow.corrupt",
        Some(rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::SystemIoFailure) => "storage.failed",
        _ => "flow.source-failed",
    };
    let message = format!("the database `{shown}` cannot be copied: {error}");
    Failure::new(Turn::Environment, code, message)
}

/// Passes bytes on and digests them.
pub(super) struct Digested<W> {
    inner: W,
    hash: sha2::Sha256,
    pub(super) count: u64,
}

impl<W: Write> Digested<W> {
    pub(super) fn new(inner: W) -> Self {
        Self {
            inner,
            hash: sha2::Digest::new(),
            count: 0,
        }
    }

    pub(super) fn digest(&self) -> String {
        use sha2::Digest;
        format!("sha256:{}", hex::encode(self.hash.clone().finalize()))
    }

    pub(super) fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: Write> Write for Digested<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.inner.write_all(data)?;
        sha2::Digest::update(&mut self.hash, data);
        self.count += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Ends a stream that grows beyond what its input can have been.
pub(super) struct Bounded<W> {
    pub(super) inner: W,
    pub(super) left: u64,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let left = self.left.checked_sub(data.len() as u64);
        self.left = left.ok_or_else(|| {
            let message = "what was decompressed is out of all proportion to its input";
            carry(Failure::new(Turn::Environment, "flow.corrupt", message))
        })?;
        self.inner.write_all(data)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
