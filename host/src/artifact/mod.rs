//! Artifacts: bytes under their digest, and per run an index of the names that stages gave them.
//!
//! `blob` is bytes and digests, `index` names. Neither knows grants, guests or journals. Everything here blocks: callers with
//! something else to do go to a blocking thread.

mod blob;
mod index;

pub use blob::{BlobWriter, LARGEST};
pub use index::{Artifact, Reference, check_name};

use crate::failure::{Failure, Turn};
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// The artifacts of one state directory.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store in a state directory. Touches nothing: a run without artifacts pays nothing.
    pub fn new(state_directory: &Path) -> Self {
        Self {
            root: state_directory.join("artifacts"),
        }
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("sha256")
    }

    fn scratch(&self) -> PathBuf {
        self.root.join("partial")
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a rename or a new name in the directory last.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_directory)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The disk did not do what it was asked.
pub fn storage_failed(what: &str, error: &io::Error) -> Failure {
    let help = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on that disk, then run again",
        io::ErrorKind::PermissionDenied => "see who owns that directory, then run again",
        _ => "see whether that disk is healthy (the kernel's log says), then run again",
    };
    Failure::new(Turn::Environment, "storage.failed", format!("{what}: {error}")).help(help)
}
