//! File operations with the path in every error, and directories that belong to one user.

use crate::failure::{Failure, Turn};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Reads a text file.
///
/// # Errors
/// `file.unreadable`, with the path.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| unreadable(path, &error))
}

/// Makes a directory that only its owner may enter, and all above it that are missing.
///
/// # Errors
/// `storage.failed`, with the path: also where it exists and belongs to others, or others may write to it.
pub fn private_directory(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |error: io::Error| {
        Failure::new(
            Turn::Environment,
            "storage.failed",
            format!("cannot make the directory {}: {error}", path.display()),
        )
        .help("remove what is in its way, or name another: --state-dir for the state, `directories:` for a pipeline's own")
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed)?;
    let path = fs::canonicalize(path).map_err(failed)?;
    let mode = fs::metadata(&path).map_err(failed)?.permissions().mode();
    if mode & 0o022 != 0 {
        let message = format!(
            "others may write to {} (mode {:o}): what is kept there could be forged",
            path.display(),
            mode & 0o777
        );
        return Err(Failure::new(Turn::Operator, "storage.failed", message)
            .help(format!("chmod 700 {}", path.display())));
    }
    Ok(path)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let message = match error.kind() {
        io::ErrorKind::NotFound => format!("there is no file {}", path.display()),
        io::ErrorKind::InvalidData => format!("{} is not UTF-8 text", path.display()),
        _ => format!("cannot read {}: {error}", path.display()),
    };
    Failure::new(Turn::Operator, "file.unreadable", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_path() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let missing = directory.path().join("missing.yaml");
        assert!(
            read_text(&missing)
                .expect_err("missing")
                .message
                .contains("missing.yaml")
        );
        let state = directory.path().join("a/b");
        assert!(private_directory(&state).is_ok());
        fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).expect("may change it");
        assert_eq!(
            private_directory(&state).expect_err("open to others").code,
            "storage.failed"
        );
    }
}
