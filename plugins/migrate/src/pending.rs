//! Files and applied rows into what is left to do, or the reason why nothing may be done.
//!
//! Pure, and the only place that decides.

use serde_json::json;
use windlass_guest::Error;

use crate::config::LATEST;
use crate::script::{Migration, Version};

/// A row of the migrations table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) version: Version,
    pub(crate) name: String,
    pub(crate) checksum: String,
    /// The run that applied it.
    pub(crate) run: String,
}

/// What is left to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Work<'a> {
    /// The newest applied version, `None` for a fresh database.
    pub(crate) from: Option<Version>,
    pub(crate) already: usize,
    /// Oldest first.
    pub(crate) pending: Vec<&'a Migration>,
}

/// `files` and `applied` sorted by version, without duplicates.
///
/// # Errors
/// `migrate.missing`, `migrate.checksum`, `migrate.target`, `migrate.out-of-order`.
pub(crate) fn decide<'a>(files: &'a [Migration], applied: &[Applied], to: &str) -> Result<Work<'a>, Error> {
    check_applied(files, applied)?;
    let newest = applied.last().map(|row| row.version.clone());
    let target = target(files, newest.as_ref(), to)?;
    let is_applied = |file: &Migration| applied.iter().any(|row| row.version == file.version);
    let left: Vec<&Migration> = files
        .iter()
        .filter(|file| !is_applied(file) && target.is_none_or(|to| file.version <= *to))
        .collect();
    if let (Some(gap), Some(newest)) = (
        left.first().filter(|file| Some(&file.version) < newest.as_ref()),
        &newest,
    ) {
        return Err(out_of_order(gap, newest));
    }
    Ok(Work {
        from: newest,
        already: applied.len(),
        pending: left,
    })
}

/// What was applied must still be there, byte for byte.
fn check_applied(files: &[Migration], applied: &[Applied]) -> Result<(), Error> {
    for row in applied {
        let version = row.version.as_str();
        let Some(file) = files.iter().find(|file| file.version == row.version) else {
            let message = format!(
                "the migration {version} ({}) was applied, but its file is gone",
                row.name
            );
            return Err(Error::new("migrate.missing", message)
                .with_details(json!({ "version": version, "name": row.name, "checksum": row.checksum }))
                .help("bring the file back: the directory must hold every migration that this database has seen"));
        };
        if file.checksum != row.checksum {
            let message = format!(
                "{} was changed after it was applied: it was {}, it is {}",
                file.file, row.checksum, file.checksum
            );
            return Err(Error::new("migrate.checksum", message)
                .with_details(json!({ "file": file.file, "applied": row.checksum, "found": file.checksum }))
                .help("undo the change and put it into a new migration"));
        }
    }
    Ok(())
}

/// The version to stop at; `None` goes to the end.
fn target<'a>(
    files: &'a [Migration],
    newest: Option<&Version>,
    to: &str,
) -> Result<Option<&'a Version>, Error> {
    if to == LATEST {
        return Ok(None);
    }
    let wanted = Version::parse(to);
    let Some(file) = files.iter().find(|file| Some(&file.version) == wanted.as_ref()) else {
        let known: Vec<&str> = files
            .iter()
            .rev()
            .take(5)
            .map(|file| file.version.as_str())
            .collect();
        return Err(
            Error::new("migrate.target", format!("there is no migration `{to}` to go to")).help(format!(
                "use `latest` or a version of the directory; the newest are {}",
                known.join(", ")
            )),
        );
    };
    match newest.filter(|newest| file.version < **newest) {
        None => Ok(Some(&file.version)),
        Some(newest) => {
            let message = format!("the database is at {}, newer than `to: {to}`", newest.as_str());
            Err(Error::new("migrate.target", message)
                .help("migrations only go forward: write a new one, or restore a backup"))
        }
    }
}

fn out_of_order(file: &Migration, newest: &Version) -> Error {
    let newest = newest.as_str();
    let message = format!(
        "{} is older than {newest}, which the database already has, and was not applied",
        file.file
    );
    Error::new("migrate.out-of-order", message)
        .with_details(json!({ "file": file.file, "newest": newest }))
        .help(format!(
            "give the file a version above {newest}; it probably came with a branch merged later"
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Versions, `!` behind an applied one whose file was changed since.
    fn check(files: &[&str], applied: &[&str], to: &str, expected: Result<&[&str], &str>) {
        let script = |version: &&str| {
            Migration::read(&format!("{version}.sql"), b"select 1")
                .unwrap()
                .unwrap()
        };
        let files: Vec<Migration> = files.iter().map(script).collect();
        let row = |text: &&str| {
            let version = text.trim_end_matches('!');
            let checksum = if text.ends_with('!') {
                "sha256:other".into()
            } else {
                script(&version).checksum
            };
            Applied {
                version: Version::parse(version).unwrap(),
                name: version.into(),
                checksum,
                run: "run1".into(),
            }
        };
        let applied: Vec<Applied> = applied.iter().map(row).collect();
        match (decide(&files, &applied, to), expected) {
            (Ok(work), Ok(expected)) => {
                let pending: Vec<&str> = work.pending.iter().map(|file| file.version.as_str()).collect();
                assert_eq!(pending, expected);
                assert_eq!(work.already, applied.len());
            }
            (Err(error), Err(code)) => assert_eq!(error.code, code, "{}", error.message),
            (work, expected) => panic!("{work:?} is not {expected:?}"),
        }
    }

    #[test]
    fn the_rest_is_pending() {
        check(&["1", "2", "3"], &[], "latest", Ok(&["1", "2", "3"]));
        check(&["1", "2", "3"], &["1"], "latest", Ok(&["2", "3"]));
        check(&["1", "2", "3"], &["1"], "2", Ok(&["2"]));
        check(&["1", "2", "3"], &["1", "2"], "0002", Ok(&[]));
        check(&["1", "2", "3"], &["1", "2", "3"], "latest", Ok(&[]));
    }

    #[test]
    fn history_must_be_whole() {
        check(&["1", "2"], &["1!"], "latest", Err("migrate.checksum"));
        check(&["2"], &["1"], "latest", Err("migrate.missing"));
        check(
            &["1", "2", "3"],
            &["1", "3"],
            "latest",
            Err("migrate.out-of-order"),
        );
        check(&["1", "2", "3"], &["1", "3"], "3", Err("migrate.out-of-order"));
    }

    #[test]
    fn targets_exist_and_lie_ahead() {
        check(&["1", "2"], &[], "3", Err("migrate.target"));
        check(&["1", "2"], &[], "newest", Err("migrate.target"));
        check(&["1", "2"], &["1", "2"], "1", Err("migrate.target"));
    }
}
