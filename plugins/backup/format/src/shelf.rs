//! A target directory into the backups that are in it, by reading names and manifests only.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde_json::json;
use windlass_guest::Error;

use crate::id;
use crate::manifest::{FILE, MAX_SIZE, Manifest};

/// A directory of a target whose name is a backup's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: String,
    pub state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Published(Manifest),
    /// There is a manifest, and it says nothing usable: why.
    Unreadable(String),
    /// No manifest: being written, or left by a crash. Last changed so many seconds after 1970.
    Partial {
        changed: u64,
    },
}

/// Everything in `target`, oldest first. A target that is not there is empty.
///
/// # Errors
/// `file.failed`.
pub fn list(target: &str) -> Result<Vec<Entry>, Error> {
    let failed = |error: io::Error| unreadable(target, &error);
    let entries = match fs::read_dir(target) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // A link with a backup's name is not ours, wherever it points.
        if id::is_id(&name) && entry.file_type().map_err(failed)?.is_dir() {
            let state = look(&entry.path(), &name)?;
            found.push(Entry { id: name, state });
        }
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

/// The state of one backup's directory; `None` when it is not there.
///
/// # Errors
/// `file.failed`.
pub fn find(target: &str, id: &str) -> Result<Option<State>, Error> {
    let path = Path::new(target).join(id);
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => look(&path, id).map(Some),
        Ok(_) => Ok(Some(State::Unreadable("is not a directory".to_owned()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(target, &error)),
    }
}

fn look(directory: &Path, id: &str) -> Result<State, Error> {
    let failed = |error: io::Error| unreadable(&directory.to_string_lossy(), &error);
    let mut bytes = Vec::new();
    match File::open(directory.join(FILE)) {
        Ok(file) => file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let changed = fs::metadata(directory)
                .and_then(|found| found.modified())
                .map_err(failed)?;
            let changed = changed
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs());
            return Ok(State::Partial { changed });
        }
        Err(error) => return Err(failed(error)),
    };
    if bytes.len() as u64 > MAX_SIZE {
        return Ok(State::Unreadable("is larger than any manifest".to_owned()));
    }
    Ok(match Manifest::read(id, &bytes) {
        Ok(manifest) => State::Published(manifest),
        Err(reason) => State::Unreadable(reason),
    })
}

fn unreadable(path: &str, error: &io::Error) -> Error {
    Error::new("file.failed", format!("cannot read {path}: {error}")).with_details(json!({ "file": path }))
}
