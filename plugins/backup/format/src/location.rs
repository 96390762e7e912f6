//! What is backed up and where it is restored to: a SQLite database or a directory, as both plugins' `with:` says it.

use serde::{Deserialize, Serialize};
use windlass_guest::Error;

use crate::host::{Sink, Source};

/// One thing that holds data.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Location {
    /// A URL, possibly a secret's placeholder: never shown.
    Sqlite(String),
    /// A guest path, or relative to the project's root.
    Directory(String),
}

/// The kind of a location, as the manifest keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Sqlite,
    Directory,
}

impl Location {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Sqlite(_) => Kind::Sqlite,
            Self::Directory(_) => Kind::Directory,
        }
    }

    /// With its path as the sandbox shows it.
    pub fn resolved(&self) -> Self {
        match self {
            Self::Sqlite(url) => Self::Sqlite(url.clone()),
            Self::Directory(path) => Self::Directory(guest_path(path)),
        }
    }

    pub fn source(&self) -> Source<'_> {
        match self {
            Self::Sqlite(url) => Source::Sqlite(url),
            Self::Directory(path) => Source::Directory(path),
        }
    }

    pub fn sink(&self) -> Sink<'_> {
        match self {
            Self::Sqlite(url) => Sink::Sqlite(url),
            Self::Directory(path) => Sink::Directory(path),
        }
    }
}

impl Kind {
    /// For messages.
    pub fn words(self) -> &'static str {
        match self {
            Self::Sqlite => "a SQLite database",
            Self::Directory => "a directory",
        }
    }
}

/// The path a guest sees: relative paths of the pipeline file live under `/workspace`.
pub fn guest_path(text: &str) -> String {
    let trimmed = text.trim_end_matches('/');
    if text.starts_with('/') {
        return trimmed.to_owned();
    }
    format!("/workspace/{}", trimmed.strip_prefix("./").unwrap_or(trimmed))
}

/// Names become parts of file names.
///
/// # Errors
/// `config.invalid`.
pub fn check_name(key: &str, name: &str) -> Result<(), Error> {
    if is_name(name) {
        return Ok(());
    }
    Err(Error::config(format!("`{key}.{name}` is not a name"))
        .help("use letters, digits, `_` and `-`, 63 at most, starting with a letter or a digit"))
}

pub(crate) fn is_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    first
        && name.len() <= 63
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_what_the_sandbox_shows() {
        assert_eq!(guest_path("data/files/"), "/workspace/data/files");
        assert_eq!(guest_path("./data"), "/workspace/data");
        assert_eq!(guest_path("/mnt/backups/"), "/mnt/backups");
    }

    #[test]
    fn names_are_file_names() {
        for good in ["app", "app_db-2", "0"] {
            assert_eq!(check_name("sources", good), Ok(()));
        }
        for bad in ["", "a/b", "..", "-a", "a.b", "ü"] {
            assert!(check_name("sources", bad).is_err(), "{bad}");
        }
    }
}
