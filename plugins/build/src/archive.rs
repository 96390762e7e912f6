//! An assembled image into one tar file that both worlds read: an OCI image layout, and a `manifest.json` for `docker load`.
//!
//! Every blob is digested again while it is written, so an archive never holds bytes that its manifest does not name.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde_json::{Value, json};
use tar::EntryType;
use windlass_guest::Error;

use crate::blob::Blob;
use crate::digest::Meter;
use crate::image::Image;
use crate::layer::header;
use crate::stage::ArtifactWriter;

pub(crate) const ARCHIVE_MEDIA_TYPE: &str = "application/vnd.oci.image.layout.v1.tar";

/// `artifacts.write` takes at most 1 MiB a call.
const CHUNK: usize = 1 << 20;

/// Writes the archive of `image`, called `name:tag`, into `artifact`.
///
/// # Errors
/// Those of the artifact store; `build.changed` when a blob's bytes changed since it was described.
pub(crate) fn write(
    image: &Image,
    name: &str,
    tag: &str,
    artifact: &mut dyn ArtifactWriter,
) -> Result<(), Error> {
    let mut tar = tar::Builder::new(Chunks {
        artifact,
        waiting: Vec::with_capacity(CHUNK),
    });
    for (path, part) in parts(image, name, tag) {
        match part {
            Part::Directory => append(&mut tar, EntryType::Directory, &path, 0, io::empty())?,
            Part::Document(value) => {
                let bytes = value.to_string().into_bytes();
                append(
                    &mut tar,
                    EntryType::Regular,
                    &path,
                    bytes.len() as u64,
                    bytes.as_slice(),
                )?;
            }
            Part::Blob(blob) => append_blob(&mut tar, &path, blob)?,
        }
    }
    let mut chunks = tar.into_inner().map_err(writing)?;
    chunks.flush().map_err(writing)
}

enum Part<'a> {
    Directory,
    Document(Value),
    Blob(&'a Blob),
}

/// What the archive holds, by path: sorted, and each blob once however often the image uses it.
fn parts<'a>(image: &'a Image, name: &str, tag: &str) -> BTreeMap<String, Part<'a>> {
    let mut parts = BTreeMap::from([
        ("blobs/".to_owned(), Part::Directory),
        ("blobs/sha256/".to_owned(), Part::Directory),
        (
            "oci-layout".to_owned(),
            Part::Document(json!({ "imageLayoutVersion": "1.0.0" })),
        ),
        ("index.json".to_owned(), Part::Document(index(image, name, tag))),
        (
            "manifest.json".to_owned(),
            Part::Document(docker_manifest(image, name, tag)),
        ),
    ]);
    let blobs = image.layers.iter().chain([&image.manifest, &image.configuration]);
    parts.extend(blobs.map(|blob| (blob.digest.blob_path(), Part::Blob(blob))));
    parts
}

fn index(image: &Image, name: &str, tag: &str) -> Value {
    let mut descriptor = image.manifest.descriptor();
    descriptor["annotations"] = json!({
        "io.containerd.image.name": format!("docker.io/library/{name}:{tag}"),
        "org.opencontainers.image.ref.name": tag,
    });
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor],
    })
}

/// The list that `docker load` of any version looks for.
fn docker_manifest(image: &Image, name: &str, tag: &str) -> Value {
    json!([{
        "Config": image.configuration.digest.blob_path(),
        "RepoTags": [format!("{name}:{tag}")],
        "Layers": image.layers.iter().map(|layer| layer.digest.blob_path()).collect::<Vec<_>>(),
    }])
}

fn append_blob(tar: &mut tar::Builder<Chunks<'_>>, path: &str, blob: &Blob) -> Result<(), Error> {
    let changed = |why: &str| {
        Error::new("build.changed", format!("the blob {} {why}", blob.digest.as_str()))
            .help("nothing may write to the base archive while the image is built; if it is damaged, fetch it again")
    };
    let source = blob
        .open()
        .map_err(|error| changed(&format!("cannot be read: {error}")))?;
    let mut tee = Tee {
        source,
        meter: Meter::new(io::sink()),
        failure: None,
    };
    let written = append(tar, EntryType::Regular, path, blob.size, &mut tee);
    if let Some(why) = tee.failure {
        return Err(changed(&format!("cannot be read: {why}")));
    }
    written?;
    let measured = tee.meter.finish().1;
    if measured.digest != blob.digest || measured.size != blob.size {
        return Err(changed("has other bytes than its digest names"));
    }
    Ok(())
}

fn append(
    tar: &mut tar::Builder<Chunks<'_>>,
    kind: EntryType,
    path: &str,
    size: u64,
    content: impl Read,
) -> Result<(), Error> {
    let mode = if kind == EntryType::Directory {
        0o755
    } else {
        0o644
    };
    tar.append_data(&mut header(kind, mode, size), path, content)
        .map_err(writing)
}

/// A reader that digests what it hands on and remembers its own failure.
struct Tee<R> {
    source: R,
    meter: Meter<io::Sink>,
    failure: Option<String>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.failure = Some(error.to_string());
            }
        })?;
        self.meter.write_all(buffer.get(..read).unwrap_or_default())?;
        Ok(read)
    }
}

/// Small writes of the tar writer, gathered into calls of the size the store takes.
struct Chunks<'a> {
    artifact: &'a mut dyn ArtifactWriter,
    waiting: Vec<u8>,
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.waiting.len());
        self.waiting
            .extend_from_slice(bytes.get(..taken).unwrap_or(bytes));
        if self.waiting.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.waiting.is_empty() {
            self.artifact.write(&self.waiting).map_err(io::Error::other)?;
            self.waiting.clear();
        }
        Ok(())
    }
}

/// The store's own error, carried through the tar writer, or what else went wrong.
fn writing(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => Error::new(
            "storage.failed",
            format!("cannot write the image archive: {error}"),
        )
        .retryable(),
    }
}
