//! A place below a directory that was opened safely, and what is made beside it before it may be seen.

use crate::{
    artifact::storage_failed,
    failure::{Failure, Turn},
    service::sql::DatabaseFile,
};
use cap_std::fs::{Dir, OpenOptions};
use rustix::fs::{Mode, OFlags};
use std::{io, os::fd::AsFd, path::PathBuf, sync::Arc};

/// How the names begin of what a copy makes beside its place.
pub(super) const OURS: &str = ".windlass-";

/// A path in a directory, and the words for it in messages.
#[derive(Clone, Debug)]
pub struct Place {
    pub(super) directory: Arc<Dir>,
    pub(super) path: PathBuf,
    /// As the guest named it.
    pub(super) shown: String,
}

/// A file of a random name, removed when dropped.
pub(super) struct Scratch {
    pub(super) directory: Arc<Dir>,
    pub(super) name: String,
}

impl Place {
    /// The directory that holds the place, opened, and the last part of its path.
    ///
    /// # Errors
    /// `file.missing`: there is no such directory. `file.path`: the place is the root of a mount and cannot be replaced.
    pub(super) fn split(&self) -> Result<(Arc<Dir>, PathBuf), Failure> {
        let name = self.path.file_name().ok_or_else(|| {
            let message = format!(
                "`{}` is the root of what the stage was granted and cannot be replaced",
                self.shown
            );
            Failure::new(Turn::PipelineAuthor, "file.path", message).help("grant the directory above it")
        })?;
        let parent = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => Arc::new(
                self.directory
                    .open_dir(parent)
                    .map_err(|error| self.failed(&error))?,
            ),
            _ => self.directory.clone(),
        };
        Ok((parent, name.into()))
    }

    /// The SQLite database that is or will be here.
    ///
    /// # Errors
    /// As [`Place::split`].
    pub(super) fn database(&self) -> Result<DatabaseFile, Failure> {
        let (directory, name) = self.split()?;
        let name = name.to_str().ok_or_else(|| {
            let message = format!("the name of `{}` is not UTF-8", self.shown);
            Failure::new(Turn::PipelineAuthor, "file.path", message)
        })?;
        Ok(DatabaseFile::within(directory, name.into(), &self.shown))
    }

    /// An error about this place.
    pub(super) fn failed(&self, error: &io::Error) -> Failure {
        if error.kind() == io::ErrorKind::NotFound {
            let message = format!("`{}` does not exist", self.shown);
            return Failure::new(Turn::PipelineAuthor, "file.missing", message);
        }
        storage_failed(&format!("`{}` cannot be used", self.shown), error)
    }
}

impl Scratch {
    /// Makes an empty file.
    pub(super) fn file(directory: &Arc<Dir>) -> io::Result<(Self, std::fs::File)> {
        let scratch = Self::new(directory)?;
        let options = OpenOptions::new().read(true).write(true).create_new(true).clone();
        let file = directory.open_with(&scratch.name, &options)?;
        Ok((scratch, file.into_std()))
    }

    /// Makes an empty directory.
    pub(super) fn directory(directory: &Arc<Dir>) -> io::Result<(Self, Dir)> {
        let scratch = Self::new(directory)?;
        directory.create_dir(&scratch.name)?;
        let made = directory.open_dir(&scratch.name)?;
        Ok((scratch, made))
    }

    fn new(directory: &Arc<Dir>) -> io::Result<Self> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self {
            directory: directory.clone(),
            name: format!("{OURS}{}", hex::encode(bytes)),
        })
    }

    /// For SQLite, which opens files by name. `shown` is what the copy is of.
    pub(super) fn database(&self, shown: &str) -> DatabaseFile {
        DatabaseFile::within(self.directory.clone(), self.name.clone(), shown)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It was renamed into its place, or is ours to remove.
        if self.directory.remove_file(&self.name).is_err() {
            let _ = self.directory.remove_dir_all(&self.name);
        }
    }
}

/// Makes what was renamed in the directory last. `Dir` is opened without the right to sync, so it is opened again.
pub(super) fn sync_directory(directory: &Dir) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(directory.as_fd(), ".", flags, Mode::empty())?;
    Ok(rustix::fs::fsync(opened)?)
}

/// Makes everything on the directory's file system last: one call for a whole tree.
pub(super) fn sync_tree(directory: &Dir) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(directory.as_fd(), ".", flags, Mode::empty())?;
    Ok(rustix::fs::syncfs(opened)?)
}
