//! Where bytes go: written aside, checked, and put in place at the end.

use super::{
    archive,
    place::{Place, Scratch, sync_directory, sync_tree},
    source::{copy_database, database_failed, open_database},
    stop::{Stop, carry},
};
use crate::{
    artifact::{self, Artifact, BlobWriter, Store, storage_failed},
    failure::{Failure, Turn},
    service::artifact::Target,
};
use cap_std::fs::Dir;
use rusqlite::{Connection, OpenFlags};
use std::{
    io::{self, Seek, Write},
    sync::Arc,
};

/// A sink, named and granted, not opened yet.
pub enum Sink {
    Artifact { store: Store, target: Target },
    File(Place),
    Directory(Place),
    Sqlite(Place),
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

impl Sink {
    /// Gets ready to take bytes; refuses a place that is taken.
    pub(super) fn open(&self, spool: &Arc<Dir>, replace: bool) -> Result<Filling, Failure> {
        let failed = |error: io::Error| storage_failed("the copy cannot be written", &error);
        match self {
            Self::Artifact { store, .. } => Ok(Filling::Artifact(store.create(artifact::LARGEST)?)),
            Self::File(place) => {
                if let Some(parent) = place
                    .path
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty())
                {
                    place.directory.create_dir_all(parent).map_err(failed)?;
                }
                let (directory, _) = place.split()?;
                let (scratch, file) = Scratch::file(&directory).map_err(failed)?;
                Ok(Filling::File { scratch, file })
            }
            Self::Directory(place) => {
                if !replace && !is_empty_directory(place)? {
                    return Err(not_empty(place));
                }
                let (scratch, file) = Scratch::file(spool).map_err(failed)?;
                Ok(Filling::Spool { scratch, file })
            }
            Self::Sqlite(place) => {
                if !replace && has_tables(place)? {
                    return Err(not_empty(place));
                }
                let (scratch, file) = Scratch::file(spool).map_err(failed)?;
                Ok(Filling::Spool { scratch, file })
            }
            Self::Discard => Ok(Filling::Discard),
        }
    }

    /// Puts what came in its place; on disk when this returns.
    pub(super) fn publish(
        self,
        filling: Filling,
        replace: bool,
        stop: &Stop,
    ) -> Result<Option<Artifact>, Failure> {
        match (self, filling) {
            (Self::Artifact { store, mut target }, Filling::Artifact(blob)) => {
                let artifact =
                    store.publish(blob, &target.run, &target.stage, &target.name, &target.media_type)?;
                target.keep();
                Ok(Some(artifact))
            }
            (Self::File(place), Filling::File { scratch, file }) => {
                let (directory, name) = place.split()?;
                let put = || {
                    file.sync_all()?;
                    directory.rename(&scratch.name, &directory, &name)?;
                    sync_directory(&directory)
                };
                put().map_err(|error| place.failed(&error)).map(|()| None)
            }
            (Self::Directory(place), Filling::Spool { file, .. }) => {
                put_directory(&place, file, replace, stop).map(|()| None)
            }
            (Self::Sqlite(place), Filling::Spool { scratch, file }) => {
                put_database(&place, &scratch, &file, replace, stop).map(|()| None)
            }
            // `open` pairs them; nothing else can come together.
            _ => Ok(None),
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

/// Unpacks beside the place and renames, so that the directory is never half there. The root of a mount cannot be renamed:
/// there the parts move in one by one.
fn put_directory(place: &Place, mut spool: std::fs::File, replace: bool, stop: &Stop) -> Result<(), Failure> {
    let failed = |error: io::Error| place.failed(&error);
    spool.rewind().map_err(failed)?;
    let is_root = place.path.file_name().is_none();
    if !is_root
        && let Some(parent) = place
            .path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
    {
        place.directory.create_dir_all(parent).map_err(failed)?;
    }
    let beside = if is_root {
        place.directory.clone()
    } else {
        place.split()?.0
    };
    let (scratch, made) = Scratch::directory(&beside).map_err(failed)?;
    archive::unpack(io::BufReader::new(spool), &made, stop)?;
    sync_tree(&made).map_err(failed)?;
    if !replace && !is_empty_directory(place)? {
        return Err(not_empty(place));
    }
    let old = Scratch::name(&beside).map_err(failed)?;
    let put = || {
        if is_root {
            beside.create_dir(&old.name)?;
            let aside = beside.open_dir(&old.name)?;
            move_all(&beside, &aside, &[&old.name, &scratch.name])?;
            move_all(&made, &beside, &[])?;
        } else {
            let (_, name) = place.split().map_err(carry)?;
            if beside.symlink_metadata(&name).is_ok() {
                beside.rename(&name, &beside, &old.name)?;
            }
            beside.rename(&scratch.name, &beside, &name)?;
        }
        sync_directory(&beside)
    };
    put().map_err(failed)
}

fn move_all(from: &Dir, to: &Dir, except: &[&str]) -> io::Result<()> {
    for entry in from.entries()? {
        let name = entry?.file_name();
        if !except.iter().any(|kept| name == **kept) {
            from.rename(&name, to, &name)?;
        }
    }
    Ok(())
}

fn put_database(
    place: &Place,
    spool: &Scratch,
    file: &std::fs::File,
    replace: bool,
    stop: &Stop,
) -> Result<(), Failure> {
    let empty = file.metadata().is_ok_and(|metadata| metadata.len() == 0);
    let from = Connection::open(spool.path()).map_err(|error| database_failed(&place.shown, &error))?;
    let checked: Result<String, _> = from.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
    match checked {
        Ok(word) if word == "ok" && !empty => {}
        Ok(problem) => return Err(corrupt(place, if empty { "it is empty" } else { &problem })),
        Err(error) => return Err(corrupt(place, &error.to_string())),
    }
    if !replace && has_tables(place)? {
        return Err(not_empty(place));
    }
    let create = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut to = open_database(place, create)?;
    copy_database(&from, &mut to, &place.shown, stop)
}

fn is_empty_directory(place: &Place) -> Result<bool, Failure> {
    let path = if place.path.as_os_str().is_empty() {
        ".".as_ref()
    } else {
        place.path.as_path()
    };
    match place.directory.read_dir(path) {
        Ok(mut entries) => Ok(!entries.any(|entry| {
            entry.is_ok_and(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".windlass-"))
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
    let connection = open_database(place, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
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
