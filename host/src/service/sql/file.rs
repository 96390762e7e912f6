//! From a guest path to the file of a SQLite database, and the locks beside it. No link leads out of the mount.
//!
//! SQLite opens files by name, and a database is several files. So the directory is opened through `cap-std`, which never
//! leaves the mount; its real path, free of links, is asked from the system; and SQLite opens below that path with
//! `NOFOLLOW`, which refuses a link in any part of it.
//!
//! The database file itself is never opened here: closing any descriptor of it would drop the locks that other connections
//! of this process hold on it (POSIX locks belong to a process, not to a descriptor).

use super::Patience;
use crate::{
    failure::{Failure, Turn},
    pattern::Mode,
    service::files::{Mounts, Resolved},
};
use cap_std::fs::{Dir, MetadataExt};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::{
    fs::{FileType, FlockOperation, OFlags},
    io::Errno,
};
use sha2::{Digest, Sha256};
use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// How often a lock is tried while another holds it.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// A place for a database, in a directory that is held open.
#[derive(Clone)]
pub(crate) struct DatabaseFile {
    directory: Arc<Dir>,
    name: String,
    guest_path: String,
    /// Whether the mount may be written, whatever this connection wants.
    mode: Mode,
}

/// Which file it was when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity(u64, u64);

impl DatabaseFile {
    /// # Errors
    /// `grant.denied`, `file.path`; `sql.missing`: its directory is not there.
    pub(crate) fn locate(mounts: &Mounts, guest_path: &str, mode: Mode) -> Result<Self, Failure> {
        let Resolved {
            directory,
            path,
            mode,
        } = mounts.resolve(guest_path, mode)?;
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.filter(|_| !guest_path.ends_with('/')) else {
            return Err(refused(guest_path, "is a directory"));
        };
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let directory = directory.open_dir(parent).map_err(|error| {
            let message = format!("the directory of the database `{guest_path}` cannot be opened: {error}");
            let failure = Failure::new(Turn::PipelineAuthor, "sql.missing", message);
            failure.help("make the directory first, or correct the path; a link out of it is not followed")
        })?;
        Ok(Self {
            directory: Arc::new(directory),
            name: name.into(),
            guest_path: guest_path.into(),
            mode,
        })
    }

    /// A file in a directory that was opened safely, to be written there. `shown` is what messages call it.
    pub(crate) fn within(directory: Arc<Dir>, name: String, shown: &str) -> Self {
        Self {
            directory,
            name,
            guest_path: shown.into(),
            mode: Mode::ReadWrite,
        }
    }

    /// Opens the database, which has to be there. Waits for the disk.
    ///
    /// # Errors
    /// `sql.missing`, `sql.refused`, `sql.failed`.
    pub(crate) fn connect(&self, access: OpenFlags) -> Result<Connection, Failure> {
        let identity = self.identity()?.ok_or_else(|| self.missing())?;
        let path = self.host_path()?;
        let flags = access | OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(|error| unopened(&error))?;
        match Identity::of(&path) {
            Some(opened) if opened == identity => Ok(connection),
            _ => Err(refused(&self.guest_path, "was replaced while it was opened")),
        }
    }

    /// The file, if there is one.
    ///
    /// # Errors
    /// `sql.refused`: it is a link or no regular file.
    pub(crate) fn identity(&self) -> Result<Option<Identity>, Failure> {
        let metadata = match self.directory.symlink_metadata(&self.name) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unreadable(&error)),
        };
        if metadata.is_symlink() {
            return Err(refused(
                &self.guest_path,
                "is a link, and links to databases are not followed",
            ));
        }
        if !metadata.is_file() {
            return Err(refused(&self.guest_path, "is no file"));
        }
        Ok(Some(Identity(metadata.dev(), metadata.ino())))
    }

    /// Makes an empty file, which is an empty database, without opening it. One that is there already is left alone.
    ///
    /// # Errors
    /// `sql.failed`: the system does not allow it.
    pub(crate) fn make(&self) -> Result<(), Failure> {
        match rustix::fs::mknodat(
            &self.directory,
            &self.name,
            FileType::RegularFile,
            0o644.into(),
            0,
        ) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(self.unreadable(&error.into())),
        }
    }

    /// Where the file really is on the host: only for opening it without following links.
    ///
    /// # Errors
    /// `sql.failed`: the system does not say.
    fn host_path(&self) -> Result<PathBuf, Failure> {
        let descriptor = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        let directory = std::fs::read_link(descriptor).map_err(|error| self.unreadable(&error))?;
        Ok(directory.join(&self.name))
    }

    fn missing(&self) -> Failure {
        let message = format!("there is no database `{}`", self.guest_path);
        Failure::new(Turn::PipelineAuthor, "sql.missing", message)
            .help("correct the path, or let the stage create it where it has an option for that")
    }

    fn unreadable(&self, error: &std::io::Error) -> Failure {
        let message = format!("the database `{}`: {error}", self.guest_path);
        Failure::new(Turn::Environment, "sql.failed", message)
    }

    /// Takes the lock `key`, `None` when another holds it for all of `timeout`.
    ///
    /// A lock is an exclusive `flock` on a file beside the database: everyone who sees the database sees it, SQLite's own locks
    /// do not touch it, and the system releases it with its last descriptor, also when the process is killed. The file
    /// stays: deleting it would let two processes lock two files of the same name.
    ///
    /// # Errors
    /// `sql.read-only`: the directory may not be written. `sql.failed`, `cancelled`.
    pub(crate) async fn lock(
        &self,
        key: &str,
        timeout: Duration,
        patience: &Patience,
    ) -> Result<Option<OwnedFd>, Failure> {
        if self.mode == Mode::ReadOnly {
            let message = format!(
                "a lock of `{}` is a file beside it, and the stage may only read there",
                self.guest_path
            );
            return Err(Failure::new(Turn::PipelineAuthor, "sql.read-only", message));
        }
        let file = self
            .open_lock(key)
            .map_err(|error| self.unreadable(&error.into()))?;
        let until = Instant::now() + timeout;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(file)),
                Err(Errno::WOULDBLOCK) => {}
                Err(error) => return Err(self.unreadable(&error.into())),
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            patience.sleep(left.min(LOCK_INTERVAL)).await?;
        }
    }

    fn open_lock(&self, key: &str) -> rustix::io::Result<OwnedFd> {
        let digest = hex::encode(Sha256::digest(key));
        let name = format!(
            "{}.windlass-{}.lock",
            self.name,
            digest.get(..16).unwrap_or(&digest)
        );
        // Not blocking: a pipe in its place must not stop us.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        rustix::fs::openat(&self.directory, name, flags, 0o644.into())
    }
}

impl Identity {
    /// Of what a path without links leads to now.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        Some(Self(
            std::os::unix::fs::MetadataExt::dev(&metadata),
            std::os::unix::fs::MetadataExt::ino(&metadata),
        ))
    }
}

/// Why a database cannot be opened. The library's message would name the path on the host.
pub(crate) fn unopened(error: &rusqlite::Error) -> Failure {
    let message = match error.sqlite_error_code() {
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            "the database cannot be opened: the system refuses it, or a part of its path is a link"
        }
        _ => "the database cannot be opened",
    };
    Failure::new(Turn::Environment, "sql.failed", message)
}

fn refused(guest_path: &str, problem: &str) -> Failure {
    let message = format!("the database `{guest_path}` {problem}");
    Failure::new(Turn::PipelineAuthor, "sql.refused", message).help("name the file itself")
}
