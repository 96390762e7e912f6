//! The private `/tmp` of each attempt: an empty directory that no other attempt sees, used again only when it was left empty.

use crate::{
    failure::{Failure, Turn},
    support::fs::private_directory,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// The scratch directories of one process, below one directory that goes away with it.
pub struct ScratchPool {
    root: PathBuf,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    directories: Vec<PathBuf>,
    made: usize,
}

/// One attempt's directory. Given back when dropped.
pub struct Scratch {
    path: PathBuf,
    pool: Arc<ScratchPool>,
}

impl ScratchPool {
    /// # Errors
    /// `storage.failed`.
    pub fn new(root: &Path) -> Result<Arc<Self>, Failure> {
        // What a process that was killed has left: nobody else works in this run's scratch.
        let _ = fs::remove_dir_all(root);
        Ok(Arc::new(Self {
            root: private_directory(root)?,
            free: Mutex::default(),
        }))
    }

    /// An empty directory.
    ///
    /// # Errors
    /// `storage.failed`.
    pub fn take(self: &Arc<Self>) -> Result<Scratch, Failure> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let path = match free.directories.pop() {
            Some(path) => path,
            None => {
                free.made += 1;
                let path = self.root.join(free.made.to_string());
                fs::create_dir(&path).map_err(|error| {
                    let message = format!("cannot make the scratch directory {}: {error}", path.display());
                    Failure::new(Turn::Environment, "storage.failed", message)
                })?;
                path
            }
        };
        Ok(Scratch {
            path,
            pool: self.clone(),
        })
    }
}

impl Scratch {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be emptied is not used again; it goes away with the root.
        if empty(&self.path).is_ok() {
            let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.directories.push(std::mem::take(&mut self.path));
        }
    }
}

impl Drop for ScratchPool {
    fn drop(&mut self) {
        // A failure leaves files of ours in our own state directory; the next run with this id would make them anew.
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn empty(path: &Path) -> io::Result<()> {
    if fs::read_dir(path)?.next().is_none() {
        return Ok(());
    }
    fs::remove_dir_all(path)?;
    fs::create_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_for_the_next_attempt() {
        let directory = tempfile::tempdir().expect("temporary");
        let root = directory.path().join("scratch");
        let pool = ScratchPool::new(&root).expect("made");
        let first = pool.take().expect("made");
        let path = first.path().to_path_buf();
        fs::create_dir_all(path.join("a/b")).expect("written");
        let second = pool.take().expect("made");
        assert_ne!(second.path(), path);
        drop(first);
        let again = pool.take().expect("made");
        assert_eq!(again.path(), path);
        assert!(fs::read_dir(again.path()).expect("readable").next().is_none());
        drop((second, again, pool));
        assert!(!root.exists());
    }
}
