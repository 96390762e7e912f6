//! A place below a directory that was opened safely, and what is made beside it before it may be seen.

use crate::{
    artifact::storage_failed,
    failure::{Failure, Turn},
};
use cap_std::fs::{Dir, OpenOptions};
use rustix::fs::{Mode, OFlags};
use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    sync::Arc,
};

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
        let scratch = Self::name(directory)?;
        let options = OpenOptions::new().read(true).write(true).create_new(true).clone();
        let file = directory.open_with(&scratch.name, &options)?;
        Ok((scratch, file.into_std()))
    }

    /// Makes an empty directory.
    pub(super) fn directory(directory: &Arc<Dir>) -> io::Result<(Self, Dir)> {
        let scratch = Self::name(directory)?;
        directory.create_dir(&scratch.name)?;
        let made = directory.open_dir(&scratch.name)?;
        Ok((scratch, made))
    }

    /// A name for something that is moved aside.
    pub(super) fn name(directory: &Arc<Dir>) -> io::Result<Self> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self {
            directory: directory.clone(),
            name: format!(".windlass-{}", hex::encode(bytes)),
        })
    }

    /// For libraries that want a path: through the open directory, so that nobody can exchange it.
    pub(super) fn path(&self) -> PathBuf {
        path_in(&self.directory, Path::new(&self.name))
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

/// A path through an open directory.
pub(super) fn path_in(directory: &Dir, name: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name)
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
