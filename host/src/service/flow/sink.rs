//! Where bytes go: written aside, checked, and put in place in one step at the end.

use super::{
    archive,
    place::{OURS, Place, Scratch, sync_directory, sync_tree},
    replace::{self, System},
    source::{Digested, copy_database, database_failed, fill_database},
    stop::{Stop, carry},
};
use crate::{
    artifact::{self, Artifact, BlobWriter, Store, storage_failed},
    failure::{Failure, Turn},
    service::{
        artifact::Target,
        containers::flow::Inside,
        objects::flow::{Label, Object},
    },
};
use cap_std::fs::Dir;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::RenameFlags;
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    io::{self, Seek, Write},
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
};

/// A sink, named and granted, not opened yet.
pub enum Sink {
    Artifact {
        store: Store,
        target: Target,
    },
    File(Place),
    Directory(Place),
    Sqlite(Place),
    /// The input of a program in a container, or a directory in one.
    Container(Box<Inside>),
    Object(Box<Object>),
    Discard,
}

/// A sink that takes bytes. Dropped, it leaves nothing.
pub(super) enum Filling {
    Artifact(BlobWriter),
    File {
        scratch: Scratch,
        file: std::fs::File,
    },
    /// A tar stream or a database, whole before anything is made of it.
    Spool {
        scratch: Scratch,
        file: std::fs::File,
    },
    Discard,
}

/// Whole and on disk, one step from its place. Dropped, it leaves nothing.
pub(super) enum Ready {
    Artifact {
        store: Store,
        target: Target,
        blob: BlobWriter,
    },
    File {
        place: Place,
        scratch: Scratch,
    },
    Directory {
        place: Place,
        /// Beside the place, or in it where it is the root of a mount.
        scratch: Scratch,
        root: Option<Arc<Dir>>,
        digest: String,
    },
    NewDatabase {
        place: Place,
        scratch: Scratch,
        digest: String,
    },
    /// Into one that is there: page by page, in one transaction.
    Database {
        place: Place,
        scratch: Scratch,
    },
    /// All that the program, or the container, gets.
    Container {
        inside: Box<Inside>,
        scratch: Scratch,
        file: std::fs::File,
    },
    Object {
        object: Box<Object>,
        _scratch: Scratch,
        file: std::fs::File,
        label: Label,
        /// Where it will be put together, where it is large.
        upload: Option<String>,
    },
    Discarded,
}

/// Where something is that is ready, and what it is: enough to tell after a crash whether it was put in its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Aside {
    /// Its name beside the place; gone once it has been put there.
    pub(super) scratch: Option<String>,
    pub(super) digest: String,
    /// What a server calls the upload that becomes an object.
    pub(super) upload: Option<String>,
}

impl Sink {
    /// Gets ready to take bytes; refuses a place that is taken.
    pub(super) fn open(&self, spool: &Arc<Dir>, replace: bool) -> Result<Filling, Failure> {
        let failed = |error: io::Error| storage_failed("the copy cannot be written", &error);
        match self {
            Self::Artifact { store, .. } => Ok(Filling::Artifact(store.create(artifact::LARGEST)?)),
            Self::File(place) => {
                make_parent(place)?;
                let (directory, _) = place.split()?;
                let (scratch, file) = place.file_beside(&directory).map_err(failed)?;
                Ok(Filling::File { scratch, file })
            }
            Self::Directory(place) => {
                recover(place)?;
                if !replace && !is_empty_directory(place)? {
                    return Err(not_empty(place));
                }
                let (scratch, file) = Scratch::spool(spool).map_err(failed)?;
                Ok(Filling::Spool { scratch, file })
            }
            Self::Sqlite(place) => {
                if !replace && has_tables(place)? {
                    return Err(not_empty(place));
                }
                let (scratch, file) = Scratch::spool(spool).map_err(failed)?;
                Ok(Filling::Spool { scratch, file })
            }
            Self::Container(_) | Self::Object(_) => {
                let (scratch, file) = Scratch::spool(spool).map_err(failed)?;
                Ok(Filling::Spool { scratch, file })
            }
            Self::Discard => Ok(Filling::Discard),
        }
    }

    /// Sets aside what came, whole and on disk, one step from its place.
    pub(super) fn ready(
        self,
        filling: Filling,
        label: Label,
        replace: bool,
        stop: &Stop,
    ) -> Result<Ready, Failure> {
        match (self, filling) {
            (Self::Artifact { store, target }, Filling::Artifact(blob)) => {
                Ok(Ready::Artifact { store, target, blob })
            }
            (Self::File(place), Filling::File { scratch, file }) => {
                file.sync_all().map_err(|error| place.failed(&error))?;
                Ok(Ready::File { place, scratch })
            }
            (Self::Directory(place), Filling::Spool { file, .. }) => unpacked(place, file, replace, stop),
            (Self::Sqlite(place), Filling::Spool { scratch, file }) => {
                checked_database(place, scratch, &file, replace, stop)
            }
            (Self::Container(inside), Filling::Spool { scratch, file }) => Ok(Ready::Container {
                inside,
                scratch,
                file,
            }),
            (Self::Object(object), Filling::Spool { scratch, file }) => Ok(Ready::Object {
                upload: object.begin(&file, &label)?,
                object,
                _scratch: scratch,
                file,
                label,
            }),
            // `open` pairs them; nothing else can come together.
            _ => Ok(Ready::Discarded),
        }
    }
}

impl Ready {
    /// How it is found again by [`super::probe`]; `None`: it can only be told from its outcome.
    pub(super) fn aside(&self, sha256_out: &str) -> Option<Aside> {
        let under = |scratch: &Scratch, digest: &str| {
            Some(Aside {
                scratch: Some(scratch.name.clone()),
                digest: digest.into(),
                upload: None,
            })
        };
        match self {
            Self::Artifact { blob, .. } => Some(Aside {
                scratch: None,
                digest: blob.digest(),
                upload: None,
            }),
            Self::Object { label, upload, .. } => Some(Aside {
                scratch: None,
                digest: label.digest.clone(),
                upload: upload.clone(),
            }),
            Self::File { scratch, .. } => under(scratch, sha256_out),
            Self::Directory { scratch, digest, .. } | Self::NewDatabase { scratch, digest, .. } => {
                under(scratch, digest)
            }
            Self::Database { .. } | Self::Container { .. } | Self::Discarded => None,
        }
    }

    /// Puts it in its place; on disk when this returns.
    pub(super) fn put(self, replace: bool, stop: &Stop) -> Result<Option<Artifact>, Failure> {
        match self {
            Self::Artifact {
                store,
                mut target,
                blob,
            } => {
                let artifact =
                    store.publish(blob, &target.run, &target.stage, &target.name, &target.media_type)?;
                target.keep();
                Ok(Some(artifact))
            }
            Self::File { place, scratch } => {
                let (directory, name) = place.split()?;
                let put = || {
                    directory.rename(&scratch.name, &directory, &name)?;
                    sync_directory(&directory)
                };
                put().map_err(|error| place.failed(&error)).map(|()| None)
            }
            Self::Directory {
                place, scratch, root, ..
            } => put_directory(&place, &scratch, root, replace).map(|()| None),
            Self::NewDatabase { place, scratch, .. } => {
                let (directory, name) = place.split()?;
                let put = || {
                    for leftover in leftovers(&directory, &name) {
                        directory.remove_file(&leftover)?;
                    }
                    let flags = RenameFlags::NOREPLACE;
                    rustix::fs::renameat_with(&directory, scratch.name.as_str(), &directory, &name, flags)?;
                    sync_directory(&directory)
                };
                put().map_err(|error| place.failed(&error)).map(|()| None)
            }
            Self::Database { place, scratch } => {
                let from = scratch
                    .database(&place.shown)
                    .connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
                if !replace && has_tables(&place)? {
                    return Err(not_empty(&place));
                }
                // Others may have it open: it keeps its file, and what fails half-way is rolled back.
                let mut to = place.database()?.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
                copy_database(&from, &mut to, &place.shown, stop).map(|()| None)
            }
            Self::Container {
                inside,
                scratch: _scratch,
                mut file,
            } => {
                file.rewind()
                    .map_err(|error| storage_failed("the copy cannot be read", &error))?;
                inside.put(file).map(|()| None)
            }
            Self::Object {
                object,
                file,
                label,
                upload,
                ..
            } => object.put(&file, &label, upload.as_ref()).map(|()| None),
            Self::Discarded => Ok(None),
        }
    }
}

impl Write for Filling {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Artifact(blob) => blob.append(data).map_err(carry)?,
            Self::File { file, .. } | Self::Spool { file, .. } => file.write_all(data)?,
            Self::Discard => {}
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Unpacks beside the place.
fn unpacked(place: Place, mut spool: std::fs::File, replace: bool, stop: &Stop) -> Result<Ready, Failure> {
    let failed = |error: io::Error| place.failed(&error);
    spool.rewind().map_err(failed)?;
    let root = is_root(&place)?;
    if root.is_none() {
        make_parent(&place)?;
    }
    let beside = match &root {
        Some(root) => root.clone(),
        None => place.split()?.0,
    };
    let (scratch, made) = place.directory_beside(&beside).map_err(failed)?;
    archive::unpack(io::BufReader::new(spool), &made, stop)?;
    sync_tree(&made).map_err(failed)?;
    if !replace && !is_empty_directory(&place)? {
        return Err(not_empty(&place));
    }
    let digest = tree_digest(&made, stop)?;
    Ok(Ready::Directory {
        place,
        scratch,
        root,
        digest,
    })
}

/// Exchanges the two, so that the directory is never half there.
fn put_directory(
    place: &Place,
    scratch: &Scratch,
    root: Option<Arc<Dir>>,
    replace: bool,
) -> Result<(), Failure> {
    let failed = |error: io::Error| place.failed(&error);
    // From here to the end nobody else may exchange what is in a root.
    let _lock = root.as_ref().map(|root| locked(place, root)).transpose()?;
    if !replace && !is_empty_directory(place)? {
        return Err(not_empty(place));
    }
    let fresh = Path::new(&scratch.name);
    match root {
        Some(root) => replace::recover(&System, &root)
            .and_then(|()| replace::by_content(&System, &root, fresh))
            .map_err(failed),
        None => {
            let (beside, name) = place.split()?;
            replace::by_name(&System, &beside, fresh, &name).map_err(failed)
        }
    }
}

/// Of everything in it: names, contents and executable bits, without the machinery of copies at its top.
pub(super) fn tree_digest(root: &Dir, stop: &Stop) -> Result<String, Failure> {
    let mut digested = Digested::new(io::sink());
    archive::pack_content(root, &mut digested, stop)?;
    Ok(digested.digest())
}

/// The directory itself, where it is the root of a mount, which has no name that could be changed.
fn is_root(place: &Place) -> Result<Option<Arc<Dir>>, Failure> {
    if place.path.file_name().is_some() {
        return Ok(None);
    }
    let root = place
        .directory
        .open_dir(".")
        .map_err(|error| place.failed(&error))?;
    Ok(Some(Arc::new(root)))
}

/// Puts back what an interrupted replacement left.
pub(super) fn recover(place: &Place) -> Result<(), Failure> {
    let interrupted = replace::interrupted(&place.directory, &place.path);
    if interrupted.map_err(|error| place.failed(&error))?.is_none() {
        return Ok(());
    }
    if place.path.file_name().is_some() {
        let (directory, name) = place.split()?;
        replace::recover_name(&System, &directory, &name).map_err(|error| place.failed(&error))?;
    }
    let root = place.directory.open_dir(&place.path);
    let root = root.map_err(|error| place.failed(&error))?;
    let _lock = locked(place, &root)?;
    replace::recover(&System, &root).map_err(|error| place.failed(&error))
}

fn locked(place: &Place, root: &Dir) -> Result<OwnedFd, Failure> {
    let locked = replace::lock(root).map_err(|error| place.failed(&error))?;
    locked.ok_or_else(|| {
        let message = format!("`{}` is being replaced by somebody else", place.shown);
        Failure::new(Turn::Operator, "target.busy", message)
            .retryable()
            .help("wait until the other run has ended, then run again")
    })
}

fn make_parent(place: &Place) -> Result<(), Failure> {
    match place.path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => place
            .directory
            .create_dir_all(parent)
            .map_err(|error| storage_failed("the copy cannot be written", &error)),
        _ => Ok(()),
    }
}

fn checked_database(
    place: Place,
    spool: Scratch,
    file: &std::fs::File,
    replace: bool,
    stop: &Stop,
) -> Result<Ready, Failure> {
    if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
        return Err(corrupt(&place, "it is empty"));
    }
    let from = spool
        .database(&place.shown)
        .connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let checked: Result<String, _> = from.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
    match checked {
        Ok(word) if word == "ok" => {}
        Ok(problem) => return Err(corrupt(&place, &problem)),
        Err(error) => return Err(corrupt(&place, &error.to_string())),
    }
    if !replace && has_tables(&place)? {
        return Err(not_empty(&place));
    }
    if place.directory.symlink_metadata(&place.path).is_err() {
        return new_database(place, &from, replace, stop);
    }
    Ok(Ready::Database {
        place,
        scratch: spool,
    })
}

/// Written aside: what fails leaves no empty file that looks like a database.
fn new_database(place: Place, from: &Connection, replace: bool, stop: &Stop) -> Result<Ready, Failure> {
    let failed = |error: io::Error| place.failed(&error);
    let (directory, name) = place.split()?;
    if !replace && !leftovers(&directory, &name).is_empty() {
        return Err(not_empty(&place));
    }
    let (scratch, mut file) = place.file_beside(&directory).map_err(failed)?;
    fill_database(from, &scratch, &place.shown, stop)?;
    file.sync_all().map_err(failed)?;
    file.rewind().map_err(failed)?;
    let mut digested = Digested::new(io::sink());
    io::copy(&mut file, &mut digested).map_err(failed)?;
    Ok(Ready::NewDatabase {
        place,
        scratch,
        digest: digested.digest(),
    })
}

/// What belonged to a database that is gone, and would be replayed into the new one.
fn leftovers(directory: &Dir, name: &Path) -> Vec<OsString> {
    let named = |ending: &str| {
        let mut leftover = name.as_os_str().to_owned();
        leftover.push(ending);
        leftover
    };
    let all = ["-journal", "-wal"].map(named).into_iter();
    all.filter(|leftover| directory.symlink_metadata(leftover).is_ok())
        .collect()
}

fn is_empty_directory(place: &Place) -> Result<bool, Failure> {
    let path = if place.path.as_os_str().is_empty() {
        ".".as_ref()
    } else {
        place.path.as_path()
    };
    match place.directory.read_dir(path) {
        Ok(mut entries) => Ok(!entries.any(|entry| {
            entry.is_ok_and(|entry| !entry.file_name().as_encoded_bytes().starts_with(OURS.as_bytes()))
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(error) => Err(place.failed(&error)),
    }
}

fn has_tables(place: &Place) -> Result<bool, Failure> {
    if place.directory.symlink_metadata(&place.path).is_err() {
        return Ok(false);
    }
    let connection = place.database()?.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let count: Result<i64, _> =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0));
    count
        .map(|count| count > 0)
        .map_err(|error| database_failed(&place.shown, &error))
}

fn not_empty(place: &Place) -> Failure {
    let message = format!("there is something at `{}` already", place.shown);
    Failure::new(Turn::Operator, "target.not-empty", message)
        .help("choose another place, or tell the stage to replace what is there")
}

fn corrupt(place: &Place, problem: &str) -> Failure {
    let message = format!("what came for `{}` is no whole database: {problem}", place.shown);
    Failure::new(Turn::Environment, "flow.corrupt", message)
        .help("take another backup; this one is not whole")
}
