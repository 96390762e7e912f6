//! Bytes ⇄ digests. A blob is written aside, hashed on the way, synced and renamed to its digest; a name in `sha256/` is
//! therefore always whole. Reading checks the digest again: disks lie.
//!
//! What is being written is locked by its process, and the lock goes with it: a file that nobody has locked was left behind by a
//! crash and is removed, however old it is.

use super::{Artifact, Store, make_directory, remove_if_there, storage_failed, sync_parent};
use crate::failure::{Failure, Turn};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// The largest artifact. Larger things have stores of their own (registries, buckets), and a disk that a plugin fills stops
/// every other run.
pub const LARGEST: u64 = 4 << 30;

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;

/// A blob being written. Dropped before [`Store::publish`], it leaves nothing.
pub struct BlobWriter {
    partial: Partial,
    hash: Sha256,
    size: u64,
    limit: u64,
}

/// A written blob that has its digest and not yet its name.
pub(super) struct Sealed {
    partial: Partial,
    pub(super) digest: String,
    pub(super) size: u64,
}

/// A file that has no name of its own yet: locked as long as this is there, and removed with it unless it was renamed.
pub(super) struct Partial {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

impl Store {
    /// A new blob of at most `limit` bytes.
    ///
    /// # Errors
    /// `storage.failed`.
    pub fn create(&self, limit: u64) -> Result<BlobWriter, Failure> {
        let scratch = self.scratch();
        self.create_in(&scratch, limit)
            .map_err(|error| storage_failed(&format!("`{}` cannot be written", scratch.display()), &error))
    }

    fn create_in(&self, scratch: &Path, limit: u64) -> io::Result<BlobWriter> {
        make_directory(scratch)?;
        make_directory(&self.blobs())?;
        remove_left_behind(scratch)?;
        Ok(BlobWriter {
            partial: Partial::new(scratch)?,
            hash: Sha256::new(),
            size: 0,
            limit: limit.min(LARGEST),
        })
    }

    /// Removes what processes that were killed have left half written.
    ///
    /// # Errors
    /// `storage.failed`.
    pub fn tidy(&self) -> Result<(), Failure> {
        let scratch = self.scratch();
        match remove_left_behind(&scratch) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(storage_failed(
                &format!("`{}` cannot be tidied", scratch.display()),
                &error,
            )),
            _ => Ok(()),
        }
    }

    /// Puts a sealed blob under its digest.
    pub(super) fn keep(&self, sealed: &Sealed) -> Result<(), Failure> {
        let place = self.blob_path(&sealed.digest)?;
        // An existing blob has the same bytes, or was damaged and is mended by this.
        let kept = fs::rename(&sealed.partial.path, &place).and_then(|()| sync_parent(&place));
        kept.map_err(|error| storage_failed(&format!("`{}` cannot be written", place.display()), &error))
    }

    /// Where the bytes of an artifact are on this machine.
    ///
    /// # Errors
    /// `artifact.damaged`: its digest is none.
    pub fn path(&self, artifact: &Artifact) -> Result<PathBuf, Failure> {
        self.blob_path(&artifact.digest)
    }

    fn blob_path(&self, digest: &str) -> Result<PathBuf, Failure> {
        let hex = digest.strip_prefix("sha256:").filter(|hex| is_sha256(hex));
        let hex = hex.ok_or_else(|| damaged(digest, "its index names no digest"))?;
        Ok(self.blobs().join(hex))
    }

    /// Opens an artifact's bytes without looking at them: for readers that compute the digest themselves.
    ///
    /// # Errors
    /// `artifact.missing`, `artifact.damaged`, `storage.failed`.
    pub fn open_unchecked(&self, artifact: &Artifact) -> Result<File, Failure> {
        let path = self.path(artifact)?;
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => missing(artifact),
            _ => storage_failed(&format!("`{}` cannot be read", path.display()), &error),
        })?;
        let size = file.metadata().map(|metadata| metadata.len());
        match size {
            Ok(size) if size == artifact.size => Ok(file),
            _ => Err(damaged(&artifact.artifact, "its size is another")),
        }
    }

    /// Opens an artifact's bytes after reading them all once.
    ///
    /// # Errors
    /// As [`Store::open_unchecked`]; `artifact.damaged` too when the bytes do not have the digest.
    pub fn open(&self, artifact: &Artifact) -> Result<File, Failure> {
        let mut file = self.open_unchecked(artifact)?;
        let failed = |error| {
            storage_failed(
                &format!("artifact `{}` cannot be read", artifact.artifact),
                &error,
            )
        };
        let mut hash = Sha256::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = file.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                break;
            }
            hash.update(buffer.get(..count).unwrap_or_default());
        }
        if format!("sha256:{}", hex::encode(hash.finalize())) != artifact.digest {
            return Err(damaged(&artifact.artifact, "its bytes no longer have its digest"));
        }
        io::Seek::rewind(&mut file).map_err(failed)?;
        Ok(file)
    }
}

impl BlobWriter {
    /// Appends bytes.
    ///
    /// # Errors
    /// `artifact.too-large`, `storage.failed`.
    pub fn append(&mut self, data: &[u8]) -> Result<(), Failure> {
        let size = self.size.saturating_add(data.len() as u64);
        if size > self.limit {
            let message = format!("the artifact grows over its limit of {} bytes", self.limit);
            return Err(Failure::new(Turn::Plugin, "artifact.too-large", message)
                .help("split it, or keep it where large things are kept (a registry, a bucket)"));
        }
        self.partial
            .file
            .write_all(data)
            .map_err(|error| storage_failed("the artifact cannot be written", &error))?;
        self.hash.update(data);
        self.size = size;
        Ok(())
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// `sha256:<hex>` of what was written so far.
    pub fn digest(&self) -> String {
        format!("sha256:{}", hex::encode(self.hash.clone().finalize()))
    }

    pub(super) fn seal(self) -> Result<Sealed, Failure> {
        self.partial
            .file
            .sync_all()
            .map_err(|error| storage_failed("the artifact cannot be written", &error))?;
        Ok(Sealed {
            digest: self.digest(),
            size: self.size,
            partial: self.partial,
        })
    }
}

impl Partial {
    pub(super) fn new(scratch: &Path) -> io::Result<Self> {
        loop {
            let path = scratch.join(random_name()?);
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            file.lock()?;
            let partial = Self { file, path };
            // Before it was locked, somebody may have taken it for one that was left behind.
            if partial.path.try_exists()? {
                return Ok(partial);
            }
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Where it was renamed there is nothing to remove; what cannot be removed now is left behind, and found later.
        let _ = remove_if_there(&self.path);
    }
}

/// A name that nobody else has.
fn random_name() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(hex::encode(bytes))
}

pub(super) fn missing(artifact: &Artifact) -> Failure {
    let message = format!(
        "the bytes of artifact `{}` are gone from the state directory",
        artifact.artifact
    );
    Failure::new(Turn::Operator, "artifact.missing", message).help("run the stage that makes it again")
}

fn damaged(what: &str, problem: &str) -> Failure {
    let message = format!("artifact `{what}` is damaged: {problem}");
    Failure::new(Turn::Environment, "artifact.damaged", message).help("run the stage that makes it again")
}

fn is_sha256(hex: &str) -> bool {
    hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn remove_left_behind(scratch: &Path) -> io::Result<()> {
    for entry in fs::read_dir(scratch)? {
        let path = entry?.path();
        // Another process may have finished it meanwhile. Its name is never given again.
        let is_left_behind = File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
        if is_left_behind {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}
