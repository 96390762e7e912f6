//! Whether a run is being worked on right now: a lock of the system on a file of the run's own. It goes with the process, however
//! that ends, so it is never stale.

use crate::{
    failure::{Failure, Turn},
    name::RunId,
    support::fs::private_directory,
};
use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

/// Held while this process works on the run.
#[derive(Debug)]
pub(super) struct Live {
    file: File,
    path: PathBuf,
}

/// # Errors
/// `run.live`: another process is working on it. `storage.failed`.
pub(super) fn hold(state: &Path, run: &RunId) -> Result<Live, Failure> {
    let path = private_directory(&state.join("live"))?.join(run.as_str());
    let failed = |error: std::io::Error| {
        let message = format!("cannot lock {}: {error}", path.display());
        Failure::new(Turn::Environment, "storage.failed", message)
    };
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Live { file, path }),
        Err(TryLockError::WouldBlock) => {
            let message = format!("run {run} is being worked on by another process");
            Err(Failure::new(Turn::Operator, "run.live", message)
                .retryable()
                .help(format!(
                    "`windlass runs logs -f {run}` follows it; stop it there, or wait"
                )))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Whether a process is working on the run.
pub(super) fn is_live(state: &Path, run: &RunId) -> bool {
    let file = File::open(state.join("live").join(run.as_str()));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

impl Drop for Live {
    fn drop(&mut self) {
        // Removed while it is still locked, so that nobody locks a file that is about to go. What stays harms nobody.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}
