//! The entries of one layer into a gzip-compressed tar in the scratch directory, with both digests an image needs.
//!
//! The bytes depend on names and contents only: no times, no owners, two modes, one gzip header. The sandbox shows no
//! permission bits, so a file is executable when the kernel could execute it: it starts like a program or a script.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};
use windlass_guest::Error;

use crate::blob::{Blob, Content};
use crate::digest::{Digest, Meter};
use crate::tree::{Entry, Kind, unreadable};

/// A finished layer.
#[derive(Debug)]
pub(crate) struct Layer {
    /// The compressed bytes, as the manifest names them.
    pub(crate) blob: Blob,
    /// The digest of the uncompressed tar, as the configuration names it.
    pub(crate) diff_id: Digest,
}

pub(crate) const LAYER_MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// `OS: unknown` of RFC 1952, the same on every machine.
const GZIP_OS_UNKNOWN: u8 = 255;

/// Writes the layer to `target`. `cancelled` is asked before every entry.
///
/// # Errors
/// `build.unreadable`, `build.changed` when a file changed its size meanwhile, `storage.failed`, `cancelled`.
pub(crate) fn write(
    entries: &[Entry],
    target: PathBuf,
    cancelled: &mut dyn FnMut() -> bool,
) -> Result<Layer, Error> {
    let file = File::create(&target).map_err(|error| storage(&target, &error))?;
    let compressed = Meter::new(BufWriter::new(file));
    let gzip = GzBuilder::new()
        .mtime(0)
        .operating_system(GZIP_OS_UNKNOWN)
        .write(compressed, Compression::default());
    let mut tar = tar::Builder::new(Meter::new(gzip));
    for entry in entries {
        if cancelled() {
            return Err(Error::new("cancelled", "the run wants this stage to end").retryable());
        }
        append(&mut tar, entry, &target)?;
    }
    let failed = |error: io::Error| storage(&target, &error);
    let (gzip, plain) = tar.into_inner().map_err(failed)?.finish();
    let (mut file, packed) = gzip.finish().map_err(failed)?.finish();
    file.flush().map_err(failed)?;
    let blob = Blob {
        digest: packed.digest,
        size: packed.size,
        media_type: LAYER_MEDIA_TYPE.to_owned(),
        content: Content::File {
            path: target,
            offset: 0,
        },
    };
    Ok(Layer {
        blob,
        diff_id: plain.digest,
    })
}

fn append<W: Write>(tar: &mut tar::Builder<W>, entry: &Entry, target: &Path) -> Result<(), Error> {
    let failed = |error: io::Error| storage(target, &error);
    match &entry.kind {
        Kind::Directory => {
            let mut header = header(EntryType::Directory, 0o755, 0);
            tar.append_data(&mut header, format!("{}/", entry.path), io::empty())
                .map_err(failed)
        }
        Kind::Link { target: to } => {
            let mut header = header(EntryType::Symlink, 0o777, 0);
            tar.append_link(&mut header, &entry.path, to).map_err(failed)
        }
        Kind::File { source, size } => append_file(tar, &entry.path, source, *size, target),
    }
}

fn append_file<W: Write>(
    tar: &mut tar::Builder<W>,
    path: &str,
    source: &Path,
    size: u64,
    target: &Path,
) -> Result<(), Error> {
    let mut content = File::open(source).map_err(|error| unreadable(source, &error))?;
    let start = beginning(&mut content).map_err(|error| unreadable(source, &error))?;
    let mut header = header(
        EntryType::Regular,
        if is_program(&start) { 0o755 } else { 0o644 },
        size,
    );
    // One byte more than announced is enough to see that the file grew.
    let whole = start
        .as_slice()
        .chain(BufReader::new(content))
        .take(size.saturating_add(1));
    let mut counted = Counted {
        inner: whole,
        count: 0,
        failure: None,
    };
    let written = tar.append_data(&mut header, path, &mut counted);
    match (counted.failure, written) {
        (Some(error), _) => Err(unreadable(source, &error)),
        (None, Err(error)) => Err(storage(target, &error)),
        (None, Ok(())) if counted.count != size => Err(changed(source)),
        (None, Ok(())) => Ok(()),
    }
}

/// The first bytes of a file, as many as tell a program.
fn beginning(file: &mut File) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    file.take(4).read_to_end(&mut start)?;
    Ok(start)
}

fn is_program(start: &[u8]) -> bool {
    start.starts_with(b"#!") || start.starts_with(b"\x7fELF")
}

pub(crate) fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

/// Tells a source that cannot be read from a target that cannot be written, which `io::copy` mixes up.
struct Counted<R> {
    inner: R,
    count: u64,
    failure: Option<io::Error>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(read) => {
                self.count += read as u64;
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failure = Some(error);
                Err(kind.into())
            }
        }
    }
}

fn changed(source: &Path) -> Error {
    Error::new(
        "build.changed",
        format!("{} changed while it was packed", source.display()),
    )
    .retryable()
    .help("run this stage after whatever writes there")
}

pub(crate) fn storage(path: &Path, error: &io::Error) -> Error {
    Error::new(
        "storage.failed",
        format!("cannot write {}: {error}", path.display()),
    )
    .retryable()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use std::fs;

    /// Packs one file `name` with `content`, claimed to be `size` long; answers `path mode size` of every entry.
    fn check(name: &str, content: &[u8], size: u64, expected: Result<&[&str], &str>) {
        let place = tempfile::tempdir().unwrap();
        let source = place.path().join("source");
        fs::write(&source, content).unwrap();
        let entries = [
            Entry {
                path: "d".into(),
                kind: Kind::Directory,
            },
            Entry {
                path: format!("d/{name}"),
                kind: Kind::File { source, size },
            },
            Entry {
                path: "d/z".into(),
                kind: Kind::Link { target: "x".into() },
            },
        ];
        let packed = place.path().join("layer");
        match (write(&entries, packed.clone(), &mut || false), expected) {
            (Ok(layer), Ok(expected)) => {
                let bytes = fs::read(&packed).unwrap();
                assert_eq!(layer.blob.digest, Digest::of(&bytes));
                assert_eq!(layer.blob.size, bytes.len() as u64);
                let mut plain = Vec::new();
                GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap();
                assert_eq!(layer.diff_id, Digest::of(&plain));
                assert_eq!(listing(&plain), expected);
            }
            (Err(error), Err(code)) => assert_eq!(error.code, code),
            (layer, expected) => panic!("{layer:?} is not {expected:?}"),
        }
    }

    fn listing(plain: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(plain);
        let show = |entry: tar::Entry<&[u8]>| {
            let header = entry.header();
            assert_eq!(
                (
                    header.uid().unwrap(),
                    header.gid().unwrap(),
                    header.mtime().unwrap()
                ),
                (0, 0, 0)
            );
            format!(
                "{} {:o} {}",
                entry.path().unwrap().display(),
                header.mode().unwrap(),
                entry.size()
            )
        };
        archive
            .entries()
            .unwrap()
            .map(|entry| show(entry.unwrap()))
            .collect()
    }

    #[test]
    fn modes_follow_the_content() {
        check("a", b"text", 4, Ok(&["d/ 755 0", "d/a 644 4", "d/z 777 0"]));
        check(
            "a",
            b"#!/bin/sh\n",
            10,
            Ok(&["d/ 755 0", "d/a 755 10", "d/z 777 0"]),
        );
        check(
            "a",
            b"\x7fELF\x02",
            5,
            Ok(&["d/ 755 0", "d/a 755 5", "d/z 777 0"]),
        );
        check("a", b"", 0, Ok(&["d/ 755 0", "d/a 644 0", "d/z 777 0"]));
    }

    #[test]
    fn long_names_survive() {
        let name = "n".repeat(180);
        let entry = format!("d/{name} 644 4");
        check(&name, b"text", 4, Ok(&["d/ 755 0", &entry, "d/z 777 0"]));
    }

    #[test]
    fn a_file_that_changed_its_size_is_no_layer() {
        check("a", b"text", 3, Err("build.changed"));
        check("a", b"text", 5, Err("build.changed"));
        check("a", b"", 1, Err("build.changed"));
    }
}
