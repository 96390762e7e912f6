//! Where secrets are kept: from a source and the way to reach it, to bytes. `stage://` secrets are not here: stages put them.

use super::{Bytes, MAXIMUM_VALUE, openssl};
use crate::{
    failure::{Failure, Turn},
    pipeline::{
        env_file,
        model::{Kdf, SecretSource, SecretSpec},
    },
};
use std::{
    io,
    path::{Path, PathBuf},
};
use zeroize::{Zeroize, Zeroizing};

/// Looks a variable of the process up.
pub type Variables = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;
/// Reads a file: see [`read_bounded`].
pub type ReadFile = Box<dyn Fn(&Path) -> io::Result<Vec<u8>> + Send + Sync>;

/// Fetches the value of a secret of AWS Secrets Manager.
pub type AwsSm = Box<dyn Fn(&str) -> Result<Bytes, Failure> + Send + Sync>;

/// The outside, handed in: nothing here reads the environment or a disk by itself.
pub struct Sources {
    /// `file://` paths are relative to it.
    pub root: PathBuf,
    pub variable: Variables,
    /// `/run/secrets`.
    pub docker_secrets: PathBuf,
    pub read: ReadFile,
    /// `None`: there is no network here.
    pub aws_sm: Option<AwsSm>,
}

/// Why a source gave no value.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("the environment variable `{0}` is not set")]
    NoVariable(String),
    #[error("there is no file `{}`", .0.display())]
    NoFile(PathBuf),
    #[error("the file `{}` has no line for `{key}`", .path.display())]
    NoLine { path: PathBuf, key: String },
    #[error("the file `{}` is not a valid env file: {problem}", .path.display())]
    EnvFile { path: PathBuf, problem: String },
    #[error("the file `{}` cannot be read: {problem}", .path.display())]
    Unreadable { path: PathBuf, problem: String },
    #[error("the file `{}` is larger than 1 MiB", .0.display())]
    TooLarge(PathBuf),
    #[error("the file `{}` is not UTF-8 text", .0.display())]
    NotText(PathBuf),
    #[error("the file `{}` is encrypted and the secret has no `{missing}`", .path.display())]
    Undeclared { path: PathBuf, missing: &'static str },
    #[error("the file `{}` is not encrypted, yet the secret has a `key`", .0.display())]
    NotEncrypted(PathBuf),
    #[error("the file `{}`: {problem}", .path.display())]
    Decrypt {
        path: PathBuf,
        problem: openssl::DecryptError,
    },
    #[error("{}", .0.message)]
    AwsSm(Failure),
    #[error("the secret `{0}` of AWS Secrets Manager is no JSON object with keys to choose from")]
    NoObject(String),
    #[error("the secret `{name}` of AWS Secrets Manager has no key `{key}`")]
    NoKey { name: String, key: String },
    #[error("the secret `{0}` of AWS Secrets Manager is not fetched here")]
    NoNetwork(String),
    #[error("its key: {0}")]
    Key(Box<SourceError>),
    #[error("the key of an encrypted file cannot come from a stage")]
    KeyOfStage,
}

/// At most one byte more than a secret may have: enough to see that it is too large.
///
/// # Errors
/// The file system's.
pub fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let file = std::fs::File::open(path)?;
    let mut content = Vec::new();
    file.take(MAXIMUM_VALUE as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

impl Sources {
    /// The value of a secret; `None` for one that a stage puts.
    pub(super) fn value(&self, spec: &SecretSpec) -> Result<Option<Bytes>, SourceError> {
        let lock = Lock {
            key: spec.key.as_ref(),
            kdf: spec.kdf,
        };
        self.read(&spec.from, lock)
    }

    fn read(&self, from: &SecretSource, lock: Lock<'_>) -> Result<Option<Bytes>, SourceError> {
        match from {
            SecretSource::Stage { .. } => Ok(None),
            SecretSource::Env(name) => self.variable(name).map(Some),
            SecretSource::DockerSecret(name) => self.docker_secret(name).map(Some),
            SecretSource::AwsSm { name, key } => {
                let fetch = self.aws_sm.as_ref();
                let fetch = fetch.ok_or_else(|| SourceError::NoNetwork(name.clone()))?;
                let value = fetch(name).map_err(SourceError::AwsSm)?;
                match key {
                    None => Ok(Some(value)),
                    Some(key) => field(name, &value, key).map(Some),
                }
            }
            SecretSource::File { path, key } => {
                let path = self.root.join(path);
                let content = self.decrypted(&path, lock)?;
                match key {
                    None => Ok(Some(without_newline(content))),
                    Some(key) => line(&path, &content, key, &self.variable).map(Some),
                }
            }
        }
    }

    fn variable(&self, name: &str) -> Result<Bytes, SourceError> {
        let value = (self.variable)(name).ok_or_else(|| SourceError::NoVariable(name.into()))?;
        Ok(Zeroizing::new(value.into_bytes()))
    }

    /// The file that `$NAME_FILE` names, else the one that Docker mounts.
    fn docker_secret(&self, name: &str) -> Result<Bytes, SourceError> {
        let variable = format!("{}_FILE", name.to_ascii_uppercase().replace(['-', '.'], "_"));
        let path = match (self.variable)(&variable) {
            Some(path) => self.root.join(path),
            None => self.docker_secrets.join(name),
        };
        self.file(&path).map(without_newline)
    }

    fn file(&self, path: &Path) -> Result<Bytes, SourceError> {
        let content = (self.read)(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SourceError::NoFile(path.into()),
            _ => SourceError::Unreadable {
                path: path.into(),
                problem: error.to_string(),
            },
        })?;
        let content = Zeroizing::new(content);
        if content.len() > MAXIMUM_VALUE {
            return Err(SourceError::TooLarge(path.into()));
        }
        Ok(content)
    }

    fn decrypted(&self, path: &Path, lock: Lock<'_>) -> Result<Bytes, SourceError> {
        let content = self.file(path)?;
        let missing = |missing| SourceError::Undeclared {
            path: path.into(),
            missing,
        };
        match (lock.key, openssl::is_encrypted(&content)) {
            (None, false) => Ok(content),
            (Some(_), false) => Err(SourceError::NotEncrypted(path.into())),
            (None, true) => Err(missing("key")),
            (Some(key), true) => {
                let kdf = lock.kdf.ok_or_else(|| missing("kdf"))?;
                let passphrase = self.passphrase(key)?;
                openssl::decrypt(&content, &passphrase, kdf).map_err(|problem| SourceError::Decrypt {
                    path: path.into(),
                    problem,
                })
            }
        }
    }

    fn passphrase(&self, key: &SecretSource) -> Result<Bytes, SourceError> {
        let open = Lock { key: None, kdf: None };
        let value = self
            .read(key, open)
            .map_err(|error| SourceError::Key(Box::new(error)))?;
        value.ok_or(SourceError::KeyOfStage)
    }
}

impl SourceError {
    pub(super) fn code(&self) -> &str {
        match self {
            Self::NoVariable(_) | Self::NoFile(_) | Self::NoLine { .. } | Self::NoKey { .. } => {
                "secret.missing"
            }
            Self::Unreadable { .. } | Self::NoNetwork(_) => "secret.unavailable",
            Self::AwsSm(failure) => &failure.code,
            Self::TooLarge(_) => "secret.too-large",
            Self::NotText(_) | Self::EnvFile { .. } | Self::NoObject(_) => "secret.not-text",
            Self::Undeclared { .. } | Self::NotEncrypted(_) | Self::KeyOfStage => "secret.declaration",
            Self::Decrypt { .. } => "secret.decrypt",
            Self::Key(inner) => inner.code(),
        }
    }

    pub(super) fn turn(&self) -> Turn {
        match self {
            Self::Undeclared { .. } | Self::NotEncrypted(_) | Self::KeyOfStage => Turn::PipelineAuthor,
            Self::Key(inner) => inner.turn(),
            _ => Turn::Operator,
        }
    }

    pub(super) fn help(&self) -> String {
        match self {
            Self::NoVariable(name) => format!("set it before the run: {name}=... windlass run"),
            Self::NoFile(_) => "create the file, or correct the path: it is relative to the project's root".into(),
            Self::NoLine { key, .. } => format!("add a line `{key}=...`, or correct what stands after `#`"),
            Self::EnvFile { .. } => "a line is `NAME=value`, `NAME='value'` or `NAME=\"value\"`".into(),
            Self::AwsSm(failure) => failure.help.clone().unwrap_or_default(),
            Self::NoObject(_) => "leave out `#...` for the whole value".into(),
            Self::NoKey { .. } => "correct what stands after `#`, or add the key to the secret".into(),
            Self::NoNetwork(_) => "a value of it is known only in a run".into(),
            Self::Unreadable { .. } => "let the user who runs Windlass read the file".into(),
            Self::TooLarge(_) => "a secret is at most 1 MiB".into(),
            Self::NotText(_) => "only text files have lines to choose from; leave out `#...` for the whole file".into(),
            Self::Undeclared { missing: "kdf", .. } => "add `kdf:` with how the file was written: `evp-sha256` \
                (openssl enc of version 1.1.0 or later), `evp-md5` (of an earlier one) or `pbkdf2` (with -pbkdf2)"
                .into(),
            Self::Undeclared { .. } => "add where the passphrase comes from, for example `key: env://ENCRYPTION_KEY`".into(),
            Self::NotEncrypted(_) => "remove `key`, or encrypt the file: openssl enc -aes-256-cbc -salt -pbkdf2".into(),
            Self::Decrypt { problem: openssl::DecryptError::CutOff, .. } => {
                "copy the file again, in binary: openssl enc without -a wrote it".into()
            }
            Self::Decrypt { .. } => "check the passphrase, and `kdf:` (`evp-sha256`, `evp-md5` or `pbkdf2`): \
                the file itself does not tell which of the two is wrong"
                .into(),
            Self::Key(inner) => inner.help(),
            Self::KeyOfStage => "take the key from env://, file:// or docker-secret://".into(),
        }
    }
}

/// How a file is encrypted, as the pipeline declares it.
#[derive(Clone, Copy)]
struct Lock<'a> {
    key: Option<&'a SecretSource>,
    kdf: Option<Kdf>,
}

/// What a secret that is a JSON object has under a key: a text as it is, anything else as JSON.
fn field(name: &str, value: &[u8], key: &str) -> Result<Bytes, SourceError> {
    let parsed = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(value);
    let mut fields = parsed.map_err(|_| SourceError::NoObject(name.into()))?;
    let found = fields.remove(key);
    // The others may be secrets too.
    fields.values_mut().for_each(|value| {
        if let serde_json::Value::String(text) = value {
            text.zeroize();
        }
    });
    match found {
        Some(serde_json::Value::String(text)) => Ok(Zeroizing::new(text.into_bytes())),
        Some(other) => Ok(Zeroizing::new(other.to_string().into_bytes())),
        None => Err(SourceError::NoKey {
            name: name.into(),
            key: key.into(),
        }),
    }
}

/// Editors and `echo` leave a newline that nobody means.
fn without_newline(mut content: Bytes) -> Bytes {
    if content.ends_with(b"\n") {
        content.pop();
        if content.ends_with(b"\r") {
            content.pop();
        }
    }
    content
}

/// The value of `key` in an env file; the last line with that name wins.
fn line(
    path: &Path,
    content: &[u8],
    key: &str,
    outer: &dyn Fn(&str) -> Option<String>,
) -> Result<Bytes, SourceError> {
    let text = std::str::from_utf8(content).map_err(|_| SourceError::NotText(path.into()))?;
    let lines = env_file::parse(text, outer).map_err(|problems| SourceError::EnvFile {
        path: path.into(),
        problem: match problems.first() {
            Some(first) => format!("line {}: {}", first.line, first.message),
            None => "it cannot be read".into(),
        },
    })?;
    let mut found = None;
    for (name, value) in lines {
        // Every value of such a file may be a secret: those that are not asked for are overwritten too.
        let value = Zeroizing::new(value.into_bytes());
        if name == key {
            found = Some(value);
        }
    }
    found.ok_or_else(|| SourceError::NoLine {
        path: path.into(),
        key: key.into(),
    })
}
