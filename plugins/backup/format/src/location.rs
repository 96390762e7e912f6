//! What is backed up and where it is restored to, as both plugins' `with:` says it: a database or a directory, here or in a container.

use serde::{Deserialize, Serialize};
use windlass_guest::Error;

use crate::inside::Inside;
use crate::postgres::Postgres;
use crate::redis::Redis;

/// One thing that holds data.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Location {
    /// A URL, possibly a secret's placeholder: never shown.
    Sqlite(String),
    /// A guest path, or relative to the project's root.
    Directory(String),
    /// A database that its server's container dumps.
    Postgres(Postgres),
    /// Everything a server holds.
    Redis(Redis),
    /// A directory inside of a container.
    ContainerPath(Inside),
}

/// The kind of a location, as the manifest keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Sqlite,
    Directory,
    Postgres,
    Redis,
    ContainerPath,
}

impl Location {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Sqlite(_) => Kind::Sqlite,
            Self::Directory(_) => Kind::Directory,
            Self::Postgres(_) => Kind::Postgres,
            Self::Redis(_) => Kind::Redis,
            Self::ContainerPath(_) => Kind::ContainerPath,
        }
    }

    /// With its path as the sandbox shows it.
    pub fn resolved(&self) -> Self {
        match self {
            Self::Directory(path) => Self::Directory(guest_path(path)),
            Self::ContainerPath(inside) => Self::ContainerPath(Inside {
                path: inside.path.trim_end_matches('/').to_owned(),
                ..inside.clone()
            }),
            other => other.clone(),
        }
    }

    /// For people: a URL may hold a password.
    pub fn shown(&self, name: &str) -> String {
        match self {
            Self::Sqlite(_) => format!("the database of `{name}`"),
            Self::Directory(path) => path.clone(),
            Self::Postgres(postgres) => {
                format!("the database {} of {}", postgres.database, postgres.container)
            }
            Self::Redis(redis) => format!("the Redis of {}", redis.container),
            Self::ContainerPath(inside) => format!("{} of {}", inside.path, inside.container),
        }
    }

    /// Everything that can be wrong with it by itself.
    ///
    /// # Errors
    /// `config.invalid`.
    pub fn check(&self, name: &str) -> Result<(), Error> {
        match self.resolved() {
            Self::ContainerPath(inside) => {
                let parts = inside.path.strip_prefix('/').map(|path| path.split('/'));
                let is_plain =
                    parts.is_some_and(|mut parts| parts.all(|part| !["", ".", ".."].contains(&part)));
                match is_plain {
                    true => Ok(()),
                    false => Err(Error::config(format!(
                        "`{name}`: `{}` is no absolute path of a directory in a container",
                        inside.path
                    ))),
                }
            }
            _ => Ok(()),
        }
    }
}

impl Kind {
    /// For messages.
    pub fn words(self) -> &'static str {
        match self {
            Self::Sqlite => "a SQLite database",
            Self::Directory => "a directory",
            Self::Postgres => "a PostgreSQL database",
            Self::Redis => "a Redis server",
            Self::ContainerPath => "a directory in a container",
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
