//! A copy that a crash has cut off → whether it was put in its place. What it had set aside is noted in its intent: still there,
//! it was not; gone, and the place has its digest, it was. Removes what is left aside once that is clear.

use super::{
    copy::Copied,
    place::{Maker, OURS, Place},
    sink::{Aside, recover, tree_digest},
    source::Digested,
    stop::Stop,
};
use crate::{failure::Failure, pattern::Mode, service::files::Mounts};
use cap_std::fs::Dir;
use serde_json::{Value as Json, json};
use std::{io, path::Path};
use tokio_util::sync::CancellationToken;

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Became {
    /// With the answer that the copy gives.
    Done(Json),
    NotDone,
    Unknown,
}

/// What the intent of a copy says beside its arguments.
pub(super) fn note(aside: Option<(Aside, &Copied)>) -> Json {
    match aside {
        Some((aside, copied)) => {
            json!({ "scratch": aside.scratch, "digest": aside.digest, "upload": aside.upload, "copied": copied })
        }
        None => Json::Null,
    }
}

/// The artifact that a copy was to publish: its name, its digest and the answer but for the artifact itself.
pub fn artifact(arguments: &Json) -> Option<(&str, &str, &Json)> {
    let name = arguments["to"]["artifact"].as_str()?;
    let digest = arguments["aside"]["digest"].as_str()?;
    Some((name, digest, &arguments["aside"]["copied"]))
}

/// Looks in the directories of the stage; waits for the disk.
///
/// # Errors
/// A directory is gone, or the disk cannot be read.
pub fn look(mounts: &Mounts, arguments: &Json) -> Result<Became, Failure> {
    let noted = &arguments["aside"];
    let (Some(scratch), Some(digest)) = (noted["scratch"].as_str(), noted["digest"].as_str()) else {
        return Ok(Became::Unknown);
    };
    if !scratch.starts_with(OURS) || scratch.contains('/') {
        return Ok(Became::Unknown);
    }
    let to = &arguments["to"];
    let file = to["file"].as_str();
    let database = to["sqlite"]
        .as_str()
        .and_then(|url| url.strip_prefix("sqlite://"));
    let stop = Stop(CancellationToken::new());
    let is_done = || Became::Done(noted["copied"].clone());
    match (file.or(database), to["directory"].as_str()) {
        (Some(path), _) => {
            let (directory, name) = place(mounts, path)?.split()?;
            file_became(&directory, &name, scratch, digest, is_done)
        }
        (None, Some(path)) => directory_became(&place(mounts, path)?, scratch, digest, &stop, is_done),
        (None, None) => Ok(Became::Unknown),
    }
}

fn place(mounts: &Mounts, path: &str) -> Result<Place, Failure> {
    let resolved = mounts.resolve(path, Mode::ReadWrite)?;
    Ok(Place {
        directory: resolved.directory,
        path: resolved.path,
        shown: path.into(),
        maker: Maker::default(),
    })
}

fn file_became(
    directory: &Dir,
    name: &Path,
    scratch: &str,
    digest: &str,
    is_done: impl FnOnce() -> Became,
) -> Result<Became, Failure> {
    let failed =
        |error: io::Error| crate::artifact::storage_failed("what a copy has left cannot be read", &error);
    match directory.remove_file(scratch) {
        Ok(()) => return Ok(Became::NotDone),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut file = match directory.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Became::Unknown),
        Err(error) => return Err(failed(error)),
    };
    let mut digested = Digested::new(io::sink());
    io::copy(&mut file, &mut digested).map_err(failed)?;
    let is_ours = digested.digest() == digest;
    Ok(if is_ours { is_done() } else { Became::Unknown })
}

/// An exchange leaves the old content under the name of the new: only the digests tell the two apart.
fn directory_became(
    place: &Place,
    scratch: &str,
    digest: &str,
    stop: &Stop,
    is_done: impl FnOnce() -> Became,
) -> Result<Became, Failure> {
    recover(place)?;
    let beside = match place.path.file_name() {
        Some(_) => place.split()?.0,
        None => place.directory.clone(),
    };
    let has_digest = |directory: io::Result<Dir>| match directory {
        Ok(directory) => Ok(tree_digest(&directory, stop)? == digest),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(place.failed(&error)),
    };
    let became = if has_digest(place.directory.open_dir(&place.path))? {
        is_done()
    } else if has_digest(beside.open_dir(scratch))? {
        Became::NotDone
    } else {
        return Ok(Became::Unknown);
    };
    match beside.remove_dir_all(scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(place.failed(&error)),
        _ => Ok(became),
    }
}
