//! A place below a directory that was opened safely, and what is made beside it before it may be seen.

use crate::{
    artifact::storage_failed,
    failure::{Failure, Turn},
    service::sql::DatabaseFile,
};
use cap_std::fs::{Dir, OpenOptions};
use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};
use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

/// How the names begin of what a copy makes beside its place.
pub(super) const OURS: &str = ".windlass-";

/// A path in a directory, and the words for it in messages.
#[derive(Clone, Debug)]
pub struct Place {
    pub(super) directory: Arc<Dir>,
    pub(super) path: PathBuf,
    /// As the guest named it.
    pub(super) shown: String,
    pub(super) maker: Maker,
}

/// Whose copy it is. What one makes beside its place has a name that follows from it, so that a later attempt of the same stage
/// finds and removes what an earlier one has left, whose process has died or whose deadline is over.
#[derive(Clone, Debug, Default)]
pub(super) struct Maker {
    pub(super) run: String,
    pub(super) stage: String,
    pub(super) attempt: u32,
}

/// A file or a directory, removed when dropped.
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

    /// Makes an empty file in the directory that holds the place.
    pub(super) fn file_beside(&self, directory: &Arc<Dir>) -> io::Result<(Scratch, std::fs::File)> {
        Scratch::named(directory, self.name_beside(directory)?).file()
    }

    /// Makes an empty directory in the one that holds the place.
    pub(super) fn directory_beside(&self, directory: &Arc<Dir>) -> io::Result<(Scratch, Dir)> {
        let scratch = Scratch::named(directory, self.name_beside(directory)?);
        directory.create_dir(&scratch.name)?;
        let made = directory.open_dir(&scratch.name)?;
        Ok((scratch, made))
    }

    /// The name for this attempt, once what earlier ones have left is gone.
    fn name_beside(&self, directory: &Dir) -> io::Result<String> {
        let name = |attempt| self.maker.name(attempt, &self.path);
        for attempt in 1..=self.maker.attempt {
            remove_whatever(directory, &name(attempt))?;
        }
        Ok(name(self.maker.attempt))
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

impl Maker {
    fn name(&self, attempt: u32, place: &Path) -> String {
        let Self { run, stage, .. } = self;
        let seed = format!("{run}/{stage}/{attempt}/");
        let digest = Sha256::new()
            .chain_update(seed)
            .chain_update(place.as_os_str().as_encoded_bytes())
            .finalize();
        format!("{OURS}{}", hex::encode(&digest[..8]))
    }
}

impl Scratch {
    /// Makes an empty file of a random name, in a directory that is removed with the attempt.
    pub(super) fn spool(directory: &Arc<Dir>) -> io::Result<(Self, std::fs::File)> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Self::named(directory, format!("{OURS}{}", hex::encode(bytes))).file()
    }

    fn named(directory: &Arc<Dir>, name: String) -> Self {
        Self {
            directory: directory.clone(),
            name,
        }
    }

    fn file(self) -> io::Result<(Self, std::fs::File)> {
        let options = OpenOptions::new().read(true).write(true).create_new(true).clone();
        let file = self.directory.open_with(&self.name, &options)?;
        Ok((self, file.into_std()))
    }

    /// For SQLite, which opens files by name. `shown` is what the copy is of.
    pub(super) fn database(&self, shown: &str) -> DatabaseFile {
        DatabaseFile::within(self.directory.clone(), self.name.clone(), shown)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It was renamed into its place, or is ours to remove.
        let _ = remove_whatever(&self.directory, &self.name);
    }
}

/// A file, a whole directory, or nothing.
fn remove_whatever(directory: &Dir, name: &str) -> io::Result<()> {
    match directory.symlink_metadata(name) {
        Ok(found) if found.is_dir() => directory.remove_dir_all(name),
        Ok(_) => directory.remove_file(name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
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
