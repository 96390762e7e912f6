//! Directories ⇄ tar streams. Packing depends on names, contents and executable bits only; unpacking believes nothing of
//! what it reads: no absolute path, no `..`, no link that leads out, no device, no file twice.

use super::{
    place::OURS,
    stop::{Stop, carry},
};
use crate::failure::{Failure, Turn};
use cap_std::fs::{Dir, DirEntry, OpenOptions, Permissions, PermissionsExt};
use std::{
    ffi::{OsStr, OsString},
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
};

/// Directories within directories. Deeper trees are loops or attacks.
const DEEPEST: usize = 256;

/// Entries of an archive: more would take a day to check.
const MOST_ENTRIES: u64 = 2_000_000;

/// All bytes of an archive's files.
const LARGEST_TREE: u64 = 256 << 30;

/// Writes everything below `root`, sorted.
pub(super) fn pack(root: &Dir, out: &mut dyn Write, stop: &Stop) -> Result<(), Failure> {
    pack_entries(root, &|_| true, out, stop)
}

/// As [`pack`], without what copies have aside at its top.
pub(super) fn pack_content(root: &Dir, out: &mut dyn Write, stop: &Stop) -> Result<(), Failure> {
    let is_content = |name: &OsStr| !name.as_encoded_bytes().starts_with(OURS.as_bytes());
    pack_entries(root, &is_content, out, stop)
}

fn pack_entries(
    root: &Dir,
    is_wanted: &dyn Fn(&OsStr) -> bool,
    out: &mut dyn Write,
    stop: &Stop,
) -> Result<(), Failure> {
    let mut builder = tar::Builder::new(out);
    pack_directory(root, root, Path::new(""), is_wanted, &mut builder, stop)?;
    builder.finish().map_err(|error| stop.write_failed(error))
}

fn pack_directory(
    root: &Dir,
    directory: &Dir,
    path: &Path,
    is_wanted: &dyn Fn(&OsStr) -> bool,
    builder: &mut tar::Builder<&mut dyn Write>,
    stop: &Stop,
) -> Result<(), Failure> {
    if path.components().count() > DEEPEST {
        return Err(source_failed(path, "its directories are nested too deeply"));
    }
    let read = |error: io::Error| source_failed(path, &error.to_string());
    let mut entries: Vec<(OsString, DirEntry)> = Vec::new();
    for entry in directory.entries().map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.file_name();
        if is_wanted(&name) {
            entries.push((name, entry));
        }
    }
    entries.sort_by(|left, right| left.0.cmp(&right.0));
    for (name, entry) in entries {
        stop.check()?;
        let path = path.join(&name);
        let read = |error: io::Error| source_failed(&path, &error.to_string());
        let kind = entry.file_type().map_err(read)?;
        if kind.is_dir() {
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            builder
                .append_data(&mut header, &path, io::empty())
                .map_err(|error| stop.write_failed(error))?;
            pack_directory(
                root,
                &entry.open_dir().map_err(read)?,
                &path,
                &|_| true,
                builder,
                stop,
            )?;
        } else if kind.is_symlink() {
            let target = directory.read_link_contents(&name).map_err(read)?;
            check_link(root, &path, &target)?;
            let mut header = header(tar::EntryType::Symlink, 0o777, 0);
            builder
                .append_link(&mut header, &path, &target)
                .map_err(|error| stop.write_failed(error))?;
        } else if kind.is_file() {
            pack_file(&entry, &path, builder, stop)?;
        } else {
            return Err(source_failed(&path, "it is no file, directory or link"));
        }
    }
    Ok(())
}

fn pack_file(
    entry: &DirEntry,
    path: &Path,
    builder: &mut tar::Builder<&mut dyn Write>,
    stop: &Stop,
) -> Result<(), Failure> {
    let read = |error: io::Error| source_failed(path, &error.to_string());
    let file = entry.open().map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    let executable = metadata.permissions().mode() & 0o111 != 0;
    let size = metadata.len();
    let mut header = header(
        tar::EntryType::Regular,
        if executable { 0o755 } else { 0o644 },
        size,
    );
    let mut content = Counted {
        inner: file.take(size),
        count: 0,
    };
    builder
        .append_data(&mut header, path, &mut content)
        .map_err(|error| stop.write_failed(error))?;
    if content.count != size {
        return Err(source_failed(path, "it became shorter while it was read"));
    }
    Ok(())
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// A link may dangle; it may not lead out.
fn check_link(root: &Dir, path: &Path, target: &Path) -> Result<(), Failure> {
    let leads_out = || {
        source_failed(
            path,
            &format!("its link to `{}` leads out of the directory", target.display()),
        )
    };
    if !stays_inside(path, target) {
        return Err(leads_out());
    }
    match root.metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(leads_out()),
        _ => Ok(()),
    }
}

/// Whether `target`, seen from the link at `path`, stays below the root by its words.
fn stays_inside(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    for component in target.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

/// Unpacks a tar stream into an empty directory.
pub(super) fn unpack(from: impl Read, into: &Dir, stop: &Stop) -> Result<(), Failure> {
    let mut archive = tar::Archive::new(from);
    let entries = archive.entries().map_err(|error| corrupt(&error.to_string()))?;
    let (mut count, mut bytes) = (0_u64, 0_u64);
    for entry in entries {
        stop.check()?;
        let mut entry = entry.map_err(|error| corrupt(&error.to_string()))?;
        count += 1;
        bytes = bytes.saturating_add(entry.size());
        if count > MOST_ENTRIES || bytes > LARGEST_TREE {
            return Err(corrupt(
                "it has more files or bytes than any directory that is backed up",
            ));
        }
        unpack_entry(&mut entry, into, stop)?;
    }
    Ok(())
}

fn unpack_entry<R: Read>(entry: &mut tar::Entry<'_, R>, into: &Dir, stop: &Stop) -> Result<(), Failure> {
    let path = plain_path(&entry.path().map_err(|error| corrupt(&error.to_string()))?)?;
    let shown = path.display().to_string();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => corrupt(&format!("`{shown}` is in it twice")),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => corrupt(&error.to_string()),
        _ => crate::artifact::storage_failed(&format!("`{shown}` cannot be written"), &error),
    };
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    match entry.header().entry_type() {
        tar::EntryType::Directory => into.create_dir_all(&path).map_err(failed),
        kind => {
            if !parent.as_os_str().is_empty() {
                into.create_dir_all(parent).map_err(failed)?;
            }
            match kind {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    unpack_file(entry, into, &path, stop).map_err(failed)
                }
                tar::EntryType::Symlink => {
                    let target = entry.link_name().map_err(|error| corrupt(&error.to_string()))?;
                    let target =
                        target.ok_or_else(|| corrupt(&format!("the link `{shown}` has no target")))?;
                    if !stays_inside(&path, &target) {
                        return Err(corrupt(&format!("the link `{shown}` leads out of the directory")));
                    }
                    into.symlink_contents(&target, &path).map_err(failed)
                }
                _ => Err(corrupt(&format!("`{shown}` is no file, directory or link"))),
            }
        }
    }
}

fn unpack_file<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    into: &Dir,
    path: &Path,
    stop: &Stop,
) -> io::Result<()> {
    let executable = entry.header().mode().unwrap_or(0) & 0o111 != 0;
    let expected = entry.size();
    let mut file = into.open_with(path, OpenOptions::new().write(true).create_new(true))?;
    let mut buffer = vec![0; 256 << 10];
    let mut written = 0;
    loop {
        stop.check().map_err(carry)?;
        let count = entry.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        file.write_all(buffer.get(..count).unwrap_or_default())?;
        written += count as u64;
    }
    if written != expected {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    file.set_permissions(Permissions::from_mode(if executable { 0o755 } else { 0o644 }))
}

/// A relative path of plain names.
fn plain_path(path: &Path) -> Result<PathBuf, Failure> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            _ => {
                return Err(corrupt(&format!(
                    "the path `{}` leads out of the directory",
                    path.display()
                )));
            }
        }
    }
    if plain.components().count() > DEEPEST {
        return Err(corrupt("its directories are nested too deeply"));
    }
    Ok(plain)
}

struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

fn source_failed(path: &Path, problem: &str) -> Failure {
    let message = format!("`{}` cannot be packed: {problem}", path.display());
    Failure::new(Turn::Environment, "flow.source-failed", message)
}

fn corrupt(problem: &str) -> Failure {
    let message = format!("the archive cannot be unpacked: {problem}");
    Failure::new(Turn::Environment, "flow.corrupt", message)
        .help("take another backup; this one is not whole")
}
