//! Names ⇄ artifacts: one small JSON file for each, `runs/<run>/<stage>/<name>`, published after the bytes it names.

use super::{BlobWriter, Store, blob::Partial, make_directory, storage_failed, sync_parent};
use crate::{
    failure::{Failure, Turn},
    name::{RunId, StageName},
};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

/// An index file is a few hundred bytes; a larger one was not written by us.
const LARGEST_ENTRY: u64 = 64 << 10;

/// A published artifact, as plugins see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Artifact {
    /// `<run>/<stage>/<name>`.
    pub artifact: String,
    /// `sha256:<hex>`.
    pub digest: String,
    pub size: u64,
    pub media_type: String,
}

/// Which artifact: `<stage>/<name>` of this run, or `<run>/<stage>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub run: RunId,
    pub stage: String,
    pub name: String,
}

impl Reference {
    /// # Errors
    /// `artifact.name`.
    pub fn parse(this_run: &RunId, text: &str) -> Result<Self, Failure> {
        let parts: Vec<&str> = text.split('/').collect();
        let (run, stage, name) = match *parts.as_slice() {
            [stage, name] => (Ok(this_run.clone()), stage, name),
            [run, stage, name] => (RunId::parse(run), stage, name),
            _ => return Err(no_name(text, "it takes <stage>/<name>, or <run>/<stage>/<name>")),
        };
        let run = run.map_err(|error| no_name(text, &error.to_string()))?;
        if stage.is_empty() {
            return Err(no_name(text, "the stage is missing"));
        }
        check_name(name)?;
        Ok(Self {
            run,
            stage: stage.into(),
            name: name.into(),
        })
    }

    /// `<stage>/<name>`: what `artifacts.read` is granted for.
    pub fn in_run(&self) -> String {
        format!("{}/{}", self.stage, self.name)
    }

    fn full(&self) -> String {
        format!("{}/{}/{}", self.run, self.stage, self.name)
    }
}

/// Whether `name` can be an artifact's.
///
/// # Errors
/// `artifact.name`.
pub fn check_name(name: &str) -> Result<(), Failure> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=100).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(no_name(
        name,
        "it takes 1 to 100 characters of a-z A-Z 0-9 . _ -, not starting with a dot",
    ))
}

impl Store {
    /// Publishes what was written under `<run>/<stage>/<name>`, in the place of an earlier artifact of that name (a stage
    /// that runs again makes its artifacts again). On disk when this returns.
    ///
    /// # Errors
    /// `artifact.name`, `storage.failed`.
    pub fn publish(
        &self,
        blob: BlobWriter,
        run: &RunId,
        stage: &StageName,
        name: &str,
        media_type: &str,
    ) -> Result<Artifact, Failure> {
        check_name(name)?;
        let reference = Reference {
            run: run.clone(),
            stage: stage.to_string(),
            name: name.into(),
        };
        let sealed = blob.seal()?;
        self.keep(&sealed)?;
        let artifact = Artifact {
            artifact: reference.full(),
            digest: sealed.digest.clone(),
            size: sealed.size,
            media_type: media_type.into(),
        };
        let place = self.entry_path(&reference);
        write_entry(&self.scratch(), &place, &artifact)
            .map_err(|error| storage_failed(&format!("`{}` cannot be written", place.display()), &error))?;
        Ok(artifact)
    }

    /// The artifact of a name.
    ///
    /// # Errors
    /// `artifact.missing`, `artifact.damaged`, `storage.failed`.
    pub fn find(&self, reference: &Reference) -> Result<Artifact, Failure> {
        let place = self.entry_path(reference);
        read_entry(&place)?.ok_or_else(|| {
            let message = format!("there is no artifact `{}`", reference.full());
            Failure::new(Turn::PipelineAuthor, "artifact.missing", message).help(format!(
                "see that stage `{}` writes it, and that this stage `needs` that one",
                reference.stage
            ))
        })
    }

    /// All artifacts of a run, by stage and name.
    ///
    /// # Errors
    /// `artifact.damaged`, `storage.failed`.
    pub fn list(&self, run: &RunId) -> Result<Vec<Artifact>, Failure> {
        let root = self.run_path(run);
        let mut found = Vec::new();
        for stage in entries(&root)? {
            for place in entries(&stage)? {
                let partial = place
                    .file_name()
                    .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
                if !partial {
                    found.extend(read_entry(&place)?);
                }
            }
        }
        found.sort_by(|left, right| left.artifact.cmp(&right.artifact));
        Ok(found)
    }

    fn run_path(&self, run: &RunId) -> PathBuf {
        self.root.join("runs").join(run.as_str())
    }

    fn entry_path(&self, reference: &Reference) -> PathBuf {
        self.run_path(&reference.run)
            .join(file_name(&reference.stage))
            .join(&reference.name)
    }
}

/// A stage's name as one file name: a matrix cell may hold any character, `/` too.
fn file_name(stage: &str) -> String {
    let mut name = String::new();
    for byte in stage.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"_-[]=,".contains(&byte);
        if plain {
            name.push(byte.into());
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
    // Long cells exceed what file systems take for one name.
    if name.len() > 200 {
        use sha2::{Digest, Sha256};
        return format!("%{}", hex::encode(Sha256::digest(stage)));
    }
    name
}

fn write_entry(scratch: &Path, place: &Path, artifact: &Artifact) -> io::Result<()> {
    let directory = place.parent().ok_or(io::ErrorKind::InvalidInput)?;
    make_directory(directory)?;
    let mut partial = Partial::new(scratch)?;
    partial.file.write_all(&serde_json::to_vec(artifact)?)?;
    partial.file.sync_all()?;
    fs::rename(&partial.path, place)?;
    sync_parent(place)?;
    sync_parent(directory)
}

fn read_entry(place: &Path) -> Result<Option<Artifact>, Failure> {
    let failed = |error| storage_failed(&format!("`{}` cannot be read", place.display()), &error);
    let garbled = || {
        let message = format!("`{}` is not the record of an artifact", place.display());
        Failure::new(Turn::Environment, "artifact.damaged", message).help("run the stage that makes it again")
    };
    match fs::metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if metadata.len() > LARGEST_ENTRY => return Err(garbled()),
        Ok(_) => {}
    }
    let text = fs::read(place).map_err(failed)?;
    serde_json::from_slice(&text).map(Some).map_err(|_| garbled())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| storage_failed(&format!("`{}` cannot be read", directory.display()), &error);
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
        Ok(found) => found
            .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
            .collect(),
    }
}

fn no_name(text: &str, rule: &str) -> Failure {
    let shown: String = text.chars().take(120).collect();
    let message = format!("{shown:?} cannot be the name of an artifact: {rule}");
    Failure::new(Turn::Plugin, "artifact.name", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::LARGEST;
    use std::{io::Read, os::unix::fs::PermissionsExt};

    fn run() -> RunId {
        RunId::new(1, [3; 10])
    }

    fn stage() -> StageName {
        StageName::new("build")
            .expect("valid")
            .cell([("os", "a/b".to_string())])
    }

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = Store::new(directory.path());
        (directory, store)
    }

    fn publish(store: &Store, bytes: &[u8], name: &str) -> Result<Artifact, Failure> {
        let mut blob = store.create(LARGEST)?;
        blob.append(bytes)?;
        store.publish(blob, &run(), &stage(), name, "text/plain")
    }

    fn reference(name: &str) -> Reference {
        Reference {
            run: run(),
            stage: stage().to_string(),
            name: name.into(),
        }
    }

    /// All files below a directory.
    fn files(root: &Path) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(root) else {
            return Vec::new();
        };
        let paths = entries.map(|entry| entry.expect("reads").path());
        paths
            .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
            .collect()
    }

    #[test]
    fn what_was_published_is_read_again() {
        let (_directory, store) = store();
        let artifact = publish(&store, b"hello", "a.txt").expect("published");
        let digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!((artifact.digest.as_str(), artifact.size), (digest, 5));
        assert_eq!(artifact.artifact, format!("{}/build[os=a/b]/a.txt", run()));
        assert_eq!(store.find(&reference("a.txt")), Ok(artifact.clone()));
        let mut text = String::new();
        let mut file = store.open(&artifact).expect("whole");
        file.read_to_string(&mut text).expect("reads");
        assert_eq!(text, "hello");
        let again = publish(&store, b"other", "a.txt").expect("a stage that runs again");
        assert_eq!(store.list(&run()), Ok(vec![again]));
        let path = store.path(&artifact).expect("a digest");
        let mode = fs::metadata(path).expect("exists").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let (directory, store) = store();
        let mut blob = store.create(10).expect("created");
        blob.append(b"12345678").expect("fits");
        let large = blob.append(b"123").expect_err("does not fit");
        assert_eq!(large.code, "artifact.too-large");
        drop(blob);
        assert_eq!(files(directory.path()), Vec::<PathBuf>::new());
        assert_eq!(
            publish(&store, b"x", "a/b").expect_err("no name").code,
            "artifact.name"
        );
        assert_eq!(files(directory.path()), Vec::<PathBuf>::new());
        assert_eq!(
            store.find(&reference("x")).expect_err("none").code,
            "artifact.missing"
        );
    }

    #[test]
    fn what_a_crash_left_half_written_goes_at_once_and_what_is_being_written_stays() {
        let (directory, store) = store();
        store.tidy().expect("there is nothing yet");
        let mut blob = store.create(LARGEST).expect("created");
        blob.append(b"hel").expect("written");
        let left = directory.path().join("artifacts/partial/left-behind");
        let leave = || fs::write(&left, "half").expect("written");
        leave();
        store.tidy().expect("tidied");
        assert!(!left.exists());
        leave();
        let other = store.create(LARGEST).expect("created");
        assert!(!left.exists());
        assert_eq!(files(directory.path()).len(), 2, "both are being written");
        drop(other);
        blob.append(b"lo").expect("written");
        let kept = store.publish(blob, &run(), &stage(), "a.txt", "text/plain");
        assert_eq!(kept.expect("published").size, 5);
    }

    #[test]
    fn damage_is_found() {
        let (_directory, store) = store();
        let artifact = publish(&store, b"hello", "a.txt").expect("published");
        let path = store.path(&artifact).expect("a digest");
        let check = |change: &dyn Fn(), code: &str| {
            change();
            assert_eq!(store.open(&artifact).expect_err("damaged").code, code);
        };
        check(&|| fs::write(&path, "hellO").expect("writes"), "artifact.damaged");
        check(&|| fs::write(&path, "hell").expect("writes"), "artifact.damaged");
        check(&|| fs::remove_file(&path).expect("removes"), "artifact.missing");
        fs::write(store.entry_path(&reference("a.txt")), "{").expect("writes");
        assert_eq!(
            store.find(&reference("a.txt")).expect_err("garbled").code,
            "artifact.damaged"
        );
        let forged = Artifact {
            digest: "sha256:../../etc/passwd".into(),
            ..artifact
        };
        assert_eq!(
            store.open(&forged).expect_err("no digest").code,
            "artifact.damaged"
        );
    }

    #[test]
    fn a_disk_that_cannot_be_written_is_named() {
        let directory = tempfile::tempdir().expect("temporary directory");
        fs::write(directory.path().join("artifacts"), "a file in the way").expect("writes");
        let failed = Store::new(directory.path()).create(LARGEST).err().expect("fails");
        assert_eq!(
            (failed.code.as_str(), failed.turn),
            ("storage.failed", Turn::Environment)
        );
        let full = storage_failed("x", &io::Error::from_raw_os_error(28));
        assert!(full.help.is_some_and(|help| help.contains("make room")));
    }

    #[test]
    fn references() {
        let check = |text: &str, expected: Option<&str>| {
            let parsed = Reference::parse(&run(), text).map(|reference| reference.full());
            assert_eq!(parsed.ok().as_deref(), expected, "{text}");
        };
        let other = RunId::new(9, [1; 10]);
        check("build/a.tar", Some(&format!("{}/build/a.tar", run())));
        check(
            &format!("{other}/build/a.tar"),
            Some(&format!("{other}/build/a.tar")),
        );
        for bad in ["", "a", "/a", "a/.b", "a/..", "x/build/a", "a/b/c/d", "a/b c"] {
            check(bad, None);
        }
        check("a[x=1]/b", Some(&format!("{}/a[x=1]/b", run())));
    }
}
