//! The `with:` block of a `migrate` stage into checked values.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use windlass_guest::{Error, duration};

use crate::script::Phase;

/// The whole block, as `plugin.json` describes it: SQL files (`url` and `directory`), or a command in a container (`command` and `phase`, with an
/// `image` or a service of `compose` files).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub url: String,
    #[serde(default)]
    pub directory: String,
    #[serde(default = "latest")]
    pub to: String,
    #[serde(default = "default_table")]
    pub table: String,
    #[serde(default = "yes")]
    pub create: bool,
    #[serde(default = "default_lock_timeout", deserialize_with = "duration::deserialize")]
    pub lock_timeout: Duration,
    #[serde(default, deserialize_with = "duration::deserialize_option")]
    pub statement_timeout: Option<Duration>,
    pub image: Option<String>,
    pub command: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub phase: Option<Phase>,
    pub network: Option<String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    pub user: Option<String>,
    pub project: Option<String>,
    pub service: Option<String>,
    #[serde(default)]
    pub compose: Vec<String>,
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "duration::deserialize_option")]
    pub timeout: Option<Duration>,
}

pub(crate) const LATEST: &str = "latest";

fn latest() -> String {
    LATEST.to_owned()
}

fn default_table() -> String {
    "windlass_migrations".to_owned()
}

fn yes() -> bool {
    true
}

fn default_lock_timeout() -> Duration {
    Duration::from_secs(5)
}

impl Config {
    /// Where the sandbox shows the files: relative paths of the pipeline file live under `/workspace`.
    pub(crate) fn directory(&self) -> PathBuf {
        PathBuf::from("/workspace").join(self.directory.strip_prefix("./").unwrap_or(&self.directory))
    }

    /// Whether a command in a container migrates, rather than SQL files.
    pub fn is_command(&self) -> bool {
        self.command.is_some()
    }

    /// What SQL files need. The table's name becomes part of statements: an identifier, or two joined by a dot.
    ///
    /// # Errors
    /// `config.invalid`.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.url.is_empty() || self.directory.is_empty() {
            return Err(Error::config("neither SQL files nor a command are given")
                .help("say `url` and `directory`, or `image`, `command` and `phase`"));
        }
        let parts: Vec<&str> = self.table.split('.').collect();
        if parts.len() <= 2 && parts.iter().all(|part| is_identifier(part)) {
            return Ok(());
        }
        Err(
            Error::config(format!("`table: {}` is not the name of a table", self.table))
                .help("use letters, digits and `_`; put a schema in front with a dot: `audit.migrations`"),
        )
    }
}

fn is_identifier(text: &str) -> bool {
    let first = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    // 63 is where PostgreSQL starts to cut names off.
    first && text.len() <= 63 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(table: &str, valid: bool) {
        let with = json!({ "url": "sqlite:///workspace/app.db", "directory": "migrations", "table": table });
        let config: Config = serde_json::from_value(with).unwrap();
        assert_eq!(config.check().is_ok(), valid, "{table}");
    }

    #[test]
    fn tables_are_identifiers() {
        check("windlass_migrations", true);
        check("audit.migrations", true);
        for wrong in ["", "a b", "a;drop table b", "a.b.c", "1a", "a.", "a\"b"] {
            check(wrong, false);
        }
    }

    #[test]
    fn relative_directories_are_in_the_workspace() {
        let at = |directory: &str| {
            let with = json!({ "url": "x", "directory": directory });
            serde_json::from_value::<Config>(with).unwrap().directory()
        };
        assert_eq!(at("./db/migrations"), PathBuf::from("/workspace/db/migrations"));
        assert_eq!(at("/mnt/sql"), PathBuf::from("/mnt/sql"));
    }
}
