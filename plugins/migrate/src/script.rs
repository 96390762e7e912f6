//! One SQL file (its name and its bytes) into a migration: version, phase, checksum, text.
//!
//! Pure. Refuses whatever could not be applied in one transaction and recorded beside it.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use windlass_guest::Error;

use crate::statement::{self, Finding};

/// One file, ready to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Migration {
    pub(crate) version: Version,
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) phase: Phase,
    /// `sha256:<hex>` of the file's bytes.
    pub(crate) checksum: String,
    pub(crate) sql: String,
}

/// `0003`: compared as a number, shown as written.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    number: u64,
    text: String,
}

/// What a migration means for code of the version before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Old code goes on working.
    Expand,
    /// Old code no longer works.
    Contract,
    /// What it removed cannot be brought back.
    Irreversible,
}

/// The host takes 1 MiB for all steps of a transaction, as JSON; this leaves room for the rest of it.
const MAX_SCRIPT: usize = 1_000_000;

const DIRECTIVE: &str = "-- windlass:";

impl Migration {
    /// `None` for a file that is not SQL.
    ///
    /// # Errors
    /// `migrate.name`, `migrate.header`, `migrate.transaction`, `migrate.empty-script`, `migrate.too-large`,
    /// `migrate.encoding`, each naming the file.
    pub(crate) fn read(file: &str, bytes: &[u8]) -> Result<Option<Self>, Error> {
        let Some(stem) = file.strip_suffix(".sql") else {
            return Ok(None);
        };
        let (version, name) = split_name(stem).ok_or_else(|| wrong_name(file))?;
        let text = std::str::from_utf8(bytes)
            .map_err(|_| at(file, "migrate.encoding", "is not UTF-8").help("save it as UTF-8"))?;
        let sql = text.trim_start_matches('\u{feff}');
        let phase = header(file, sql)?;
        check_statements(file, sql)?;
        if json!(sql).to_string().len() > MAX_SCRIPT {
            let error = at(
                file,
                "migrate.too-large",
                &format!("is larger than {MAX_SCRIPT} bytes"),
            );
            return Err(error.help("split it into several migrations"));
        }
        let (file, name, sql) = (file.to_owned(), name.to_owned(), sql.to_owned());
        Ok(Some(Self {
            version,
            name,
            file,
            phase,
            checksum: checksum(bytes),
            sql,
        }))
    }
}

impl Version {
    /// 18 digits hold every timestamp and stay a number.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let valid = (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|_| valid)?;
        Some(Self {
            number,
            text: text.to_owned(),
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number.cmp(&other.number)
    }
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expand => "expand",
            Self::Contract => "contract",
            Self::Irreversible => "irreversible",
        }
    }
}

/// `0001_create_users` as version and name; a bare version is its own name.
fn split_name(stem: &str) -> Option<(Version, &str)> {
    let (version, name) = stem.split_once('_').unwrap_or((stem, stem));
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let version = Version::parse(version)?;
    (!name.is_empty() && name.bytes().all(plain)).then_some((version, name))
}

fn wrong_name(file: &str) -> Error {
    let error = at(
        file,
        "migrate.name",
        "is not named like `0001_create_users.sql` or `0001.sql`",
    );
    let stem = file.trim_end_matches(".sql");
    if [".down", ".undo", ".rollback"]
        .iter()
        .any(|end| stem.ends_with(end))
    {
        return error.help("migrations only go forward here: keep scripts that undo in another directory");
    }
    error.help("give it a version of digits, `_`, and a name of letters, digits, `_` and `-`")
}

/// The phase that the comments before the first statement declare.
fn header(file: &str, sql: &str) -> Result<Phase, Error> {
    let wrong =
        |line: usize, text: &str| at(file, "migrate.header", text).with_details(json!({ "line": line }));
    let mut phase = None;
    let mut in_header = true;
    for (number, line) in sql.lines().map(str::trim).enumerate() {
        in_header &= line.is_empty() || line.starts_with("--");
        let Some(directive) = line.strip_prefix(DIRECTIVE).map(str::trim) else {
            continue;
        };
        let number = number + 1;
        if !in_header {
            return Err(wrong(
                number,
                &format!("says `{line}` in line {number}, after its first statement"),
            )
            .help("move it to the top of the file"));
        }
        let declared = match directive {
            "phase=expand" => Phase::Expand,
            "phase=contract" => Phase::Contract,
            "phase=irreversible" => Phase::Irreversible,
            "no-transaction" => {
                return Err(wrong(number, "asks for `no-transaction`, which does not exist here")
                    .help("every migration is one transaction, so that a failed one leaves nothing behind; run what cannot be in one (`VACUUM`, `CREATE INDEX CONCURRENTLY`) with a `command` stage"));
            }
            other => {
                return Err(wrong(
                    number,
                    &format!("says `{DIRECTIVE} {other}` in line {number}, which is unknown"),
                )
                .help("write `-- windlass: phase=expand`, `phase=contract` or `phase=irreversible`"));
            }
        };
        if phase.replace(declared).is_some_and(|before| before != declared) {
            return Err(wrong(number, "declares two phases").help("a migration has one; split it"));
        }
    }
    Ok(phase.unwrap_or(Phase::Expand))
}

fn check_statements(file: &str, sql: &str) -> Result<(), Error> {
    match statement::inspect(sql) {
        Finding::Statements => Ok(()),
        Finding::Nothing => Err(at(file, "migrate.empty-script", "holds no statement")
            .help("write it, or delete the file before it is applied anywhere")),
        Finding::Control(control) => {
            let text = format!("says `{}` in line {}", control.word, control.line);
            Err(at(file, "migrate.transaction", &text)
                .with_details(json!({ "line": control.line }))
                .help("remove it: the whole file already runs in one transaction, together with the row that records it"))
        }
    }
}

fn checksum(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn at(file: &str, code: &str, text: &str) -> Error {
    Error::new(code, format!("the migration {file} {text}")).with_details(json!({ "file": file }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `version name phase`, nothing, or the code of the error.
    fn check(file: &str, text: &str, expected: &str) {
        let seen = match Migration::read(file, text.as_bytes()) {
            Ok(Some(m)) => format!("{} {} {}", m.version.as_str(), m.name, m.phase.as_str()),
            Ok(None) => String::new(),
            Err(error) => error.code,
        };
        assert_eq!(seen, expected, "{file}: {text}");
    }

    #[test]
    fn names_give_versions() {
        check("0001_create_users.sql", "select 1", "0001 create_users expand");
        check("20261123201500_x-y.sql", "select 1", "20261123201500 x-y expand");
        check("7.sql", "select 1", "7 7 expand");
        check("README.md", "words", "");
        check("create.sql", "select 1", "migrate.name");
        check("0001_.sql", "select 1", "migrate.name");
        check("0001_a.down.sql", "drop table a", "migrate.name");
        check("0001_a b.sql", "select 1", "migrate.name");
        check("1234567890123456789_a.sql", "select 1", "migrate.name");
    }

    #[test]
    fn headers_give_phases() {
        check(
            "1.sql",
            "-- words\n\n-- windlass: phase=contract\nselect 1",
            "1 1 contract",
        );
        check(
            "1.sql",
            "\u{feff}--  x\r\n-- windlass: phase=irreversible\r\nselect 1",
            "1 1 irreversible",
        );
        check(
            "1.sql",
            "select 1;\n-- windlass: phase=contract",
            "migrate.header",
        );
        check("1.sql", "-- windlass: phase=explode\nselect 1", "migrate.header");
        check("1.sql", "-- windlass: no-transaction\nvacuum", "migrate.header");
        check(
            "1.sql",
            "-- windlass: phase=expand\n-- windlass: phase=contract\nselect 1",
            "migrate.header",
        );
    }

    #[test]
    fn what_cannot_be_one_transaction_is_refused() {
        check("1.sql", "begin; select 1; commit;", "migrate.transaction");
        check("1.sql", "-- nothing yet\n", "migrate.empty-script");
        check(
            "1.sql",
            &format!("select '{}'", "x".repeat(MAX_SCRIPT)),
            "migrate.too-large",
        );
        assert_eq!(
            Migration::read("1.sql", b"\xff\xfe").unwrap_err().code,
            "migrate.encoding"
        );
    }

    #[test]
    fn versions_are_numbers() {
        let version = |text| Version::parse(text).unwrap();
        assert!(version("9") < version("0010"));
        assert_eq!(version("1"), version("0001"));
        assert!(Version::parse("").is_none() && Version::parse("+1").is_none());
    }
}
