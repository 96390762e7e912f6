//! A target into the backups that are in it, by reading names and manifests only.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde_json::json;
use windlass_guest::Error;
use windlass_guest::flow::Options;
use windlass_guest::objects::{Access, Listed};

use crate::host::{Host, Sink, Source};
use crate::id;
use crate::manifest::{FILE, MAX_SIZE, Manifest};
use crate::place::Place;

/// A directory of a target, or a part of its prefix, whose name is a backup's id.
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
/// `file.failed`, `object.*`.
pub fn list(target: &Place, host: &mut dyn Host) -> Result<Vec<Entry>, Error> {
    match target {
        Place::Disk(path) => on_disk(path),
        Place::Bucket { url, access } => in_bucket(url, access, host),
    }
}

/// The state of one backup; `None` when it is not there.
///
/// # Errors
/// `file.failed`, `object.*`.
pub fn find(target: &Place, id: &str, host: &mut dyn Host) -> Result<Option<State>, Error> {
    match target {
        Place::Disk(path) => find_on_disk(path, id),
        Place::Bucket { .. } => {
            let Place::Bucket { url, access } = target.within(id) else {
                return Ok(None);
            };
            match host.objects(&url, &access)?.as_slice() {
                [] => Ok(None),
                objects => look_in_bucket(&url, id, objects, &access, host).map(Some),
            }
        }
    }
}

/// By the first part of their keys.
fn in_bucket(prefix: &str, access: &Access, host: &mut dyn Host) -> Result<Vec<Entry>, Error> {
    let mut parts: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
    for object in host.objects(prefix, access)? {
        let below = object
            .url
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_prefix('/'));
        let name = below
            .and_then(|below| below.split_once('/'))
            .map(|(name, _)| name.to_owned());
        if let Some(name) = name.filter(|name| id::is_id(name)) {
            parts.entry(name).or_default().push(object);
        }
    }
    let mut found = Vec::new();
    for (id, objects) in parts {
        let state = look_in_bucket(&format!("{prefix}/{id}"), &id, &objects, access, host)?;
        found.push(Entry { id, state });
    }
    Ok(found)
}

fn look_in_bucket(
    prefix: &str,
    id: &str,
    objects: &[Listed],
    access: &Access,
    host: &mut dyn Host,
) -> Result<State, Error> {
    let url = format!("{prefix}/{FILE}");
    let Some(manifest) = objects.iter().find(|object| object.url == url) else {
        let changed = objects.iter().map(|object| object.modified).max();
        return Ok(State::Partial {
            changed: changed.unwrap_or(0),
        });
    };
    if manifest.size > MAX_SIZE {
        return Ok(too_large());
    }
    // Bytes of objects come to a plugin through a file of its own only.
    let here = format!("{}/{FILE}", host.scratch());
    let from = Source::Object { url: &url, access };
    match host.copy(from, Sink::File(&here), &Options::default()) {
        Err(error) if error.code == "object.digest" => {
            return Ok(State::Unreadable("is not what was written".to_owned()));
        }
        copied => drop(copied?),
    }
    let bytes = fs::read(&here).map_err(|error| unreadable(&here, &error))?;
    fs::remove_file(&here).map_err(|error| unreadable(&here, &error))?;
    Ok(state(id, &bytes))
}

fn on_disk(target: &str) -> Result<Vec<Entry>, Error> {
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

fn find_on_disk(target: &str, id: &str) -> Result<Option<State>, Error> {
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
        return Ok(too_large());
    }
    Ok(state(id, &bytes))
}

fn state(id: &str, manifest: &[u8]) -> State {
    match Manifest::read(id, manifest) {
        Ok(manifest) => State::Published(manifest),
        Err(reason) => State::Unreadable(reason),
    }
}

fn too_large() -> State {
    State::Unreadable("is larger than any manifest".to_owned())
}

fn unreadable(path: &str, error: &io::Error) -> Error {
    Error::new("file.failed", format!("cannot read {path}: {error}")).with_details(json!({ "file": path }))
}
