//! Compiled code, kept between runs in a directory that is this user's alone. Compiled code is trusted code: each file
//! carries a MAC over its name and bytes, made with a key that lies beside it, and nothing is loaded whose MAC is wrong.

use crate::{
    catalog::Digest,
    failure::{Failure, Turn},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::{
    fs::{self, DirBuilder, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use wasmtime::Engine;

/// Bytes of a MAC, and of the key.
const MAC: usize = 32;

/// An open cache.
pub(super) struct Cache {
    directory: PathBuf,
    key: [u8; MAC],
    /// Of the engine's configuration: other settings make other code.
    configuration: String,
}

impl Cache {
    /// Opens it, made where it is missing.
    ///
    /// # Errors
    /// `cache.unusable`: it cannot be made, is not ours, or others may write to it.
    pub(super) fn open(directory: PathBuf, engine: &Engine) -> Result<Self, Failure> {
        let unusable = |problem: String| {
            let message = format!(
                "the cache of compiled plugins `{}` cannot be used: {problem}",
                directory.display()
            );
            Failure::new(Turn::Operator, "cache.unusable", message).help(format!(
                "remove it, Windlass makes it again: rm -r {}",
                directory.display()
            ))
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|error| unusable(error.to_string()))?;
        check_private(&directory).map_err(unusable)?;
        let key = read_key(&directory).map_err(|error| unusable(error.to_string()))?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let configuration = format!("{}-{:016x}", env!("CARGO_PKG_VERSION"), hasher.finish());
        Ok(Self {
            directory,
            key,
            configuration,
        })
    }

    /// The compiled code of a component, if it is here and is what was put here.
    pub(super) fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        let name = self.name(digest);
        let mut file = fs::read(self.directory.join(&name)).ok()?;
        let code = file.len().checked_sub(MAC)?;
        let (bytes, mac) = file.split_at(code);
        if self.mac(&name, bytes).verify_slice(mac).is_err() {
            tracing::warn!(
                file = name,
                "a file of the compile cache was changed: compiling again"
            );
            return None;
        }
        file.truncate(code);
        Some(file)
    }

    /// Keeps compiled code. Failing to keep it costs the next run some time and nothing else.
    pub(super) fn put(&self, digest: &Digest, code: &[u8]) {
        let name = self.name(digest);
        let write = || -> io::Result<()> {
            let unfinished = self.directory.join(format!(".{name}.{}", std::process::id()));
            let mut file = private().create(true).truncate(true).open(&unfinished)?;
            file.write_all(code)?;
            file.write_all(&self.mac(&name, code).finalize().into_bytes())?;
            fs::rename(&unfinished, self.directory.join(&name))
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "compiled code could not be kept");
        }
    }

    fn name(&self, digest: &Digest) -> String {
        format!("{}-{}", digest.hex(), self.configuration)
    }

    /// Over the name too: code of one plugin is never taken for another's.
    fn mac(&self, name: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of every length");
        mac.update(name.as_bytes());
        mac.update(&[0]);
        mac.update(code);
        mac
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn check_private(path: &Path) -> Result<(), String> {
    let metadata = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_dir() {
        return Err("it is not a directory".into());
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err("it belongs to another user".into());
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(format!(
            "others may use it: its mode is {:o}, not 700",
            metadata.mode() & 0o777
        ));
    }
    Ok(())
}

/// The key, made by the first process: whichever links its file into place wins, and all read that one.
fn read_key(directory: &Path) -> io::Result<[u8; MAC]> {
    let path = directory.join("key");
    if !path.exists() {
        let mut key = [0; MAC];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        let unfinished = directory.join(format!(".key.{}.{}", std::process::id(), hex::encode(&key[..4])));
        private().create_new(true).open(&unfinished)?.write_all(&key)?;
        match fs::hard_link(&unfinished, &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => fs::remove_file(&unfinished)?,
        }
    }
    let bytes = fs::read(&path)?;
    bytes
        .try_into()
        .map_err(|_| io::Error::other("its key file is damaged"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::engine::compiler;
    use std::os::unix::fs::PermissionsExt;

    fn open(directory: &Path) -> Result<Cache, Failure> {
        Cache::open(directory.into(), &compiler().expect("starts"))
    }

    #[test]
    fn only_what_was_put_comes_back() {
        let root = tempfile::tempdir().expect("temporary");
        let directory = root.path().join("cache");
        let cache = open(&directory).expect("opens");
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        assert_eq!(cache.get(&one), None);
        cache.put(&one, b"code");
        assert_eq!(cache.get(&one), Some(b"code".to_vec()));
        assert_eq!(open(&directory).expect("opens").get(&one), Some(b"code".to_vec()));

        let path = directory.join(cache.name(&one));
        fs::copy(&path, directory.join(cache.name(&two))).expect("copied");
        assert_eq!(cache.get(&two), None, "code of another component");
        let mut file = fs::read(&path).expect("read");
        file[1] ^= 1;
        fs::write(&path, &file).expect("written");
        assert_eq!(cache.get(&one), None, "changed code");
        fs::write(&path, b"x").expect("written");
        assert_eq!(cache.get(&one), None, "shorter than a MAC");
    }

    #[test]
    fn others_may_not_use_it() {
        let root = tempfile::tempdir().expect("temporary");
        let directory = root.path().join("cache");
        open(&directory).expect("opens");
        let mode = |path: &Path| fs::metadata(path).expect("exists").mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join("key"))), (0o700, 0o600));
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("changed");
        assert_eq!(open(&directory).err().expect("refused").code, "cache.unusable");
    }
}
