//! From the texts of compose files and an environment to a resolved [`Project`], with all problems at once, after the
//! Compose specification. Pure: files come in through a reader and variables through a function. Knows no container
//! engine: whether it can do what a file asks for is the business of whoever applies the model.
//!
//! ```text
//! text ──yaml──▶ tree ──interpolate──▶ tree ──canonical──▶ one form ──extends, merge, include──▶ one tree
//!      ──resolve──▶ names, env files, profiles ──check──▶ references ──model──▶ Project
//! ```

pub mod model;

mod canonical;
mod check;
mod environment;
mod extends;
mod files;
mod include;
mod interpolate;
mod keys;
mod merge;
mod mount;
mod name;
mod plain;
mod port;
mod resolve;
mod shape;
mod short;
mod special;
mod tree;
mod value;
mod words;

pub use model::Project;

use crate::diagnostic::Diagnostics;
use std::{
    io,
    path::{Path, PathBuf},
};

/// What to load, and with which values.
pub struct LoadRequest<'a> {
    /// The files, as they are to be opened; the later is laid over the earlier. Absolute.
    pub files: Vec<PathBuf>,
    /// What relative paths are relative to, and the project's name comes from. Default: where the first file is.
    pub directory: Option<PathBuf>,
    /// `--project-name`. Default: `name` of the files, else the directory's name.
    pub name: Option<String>,
    /// Services with profiles are left out unless one of theirs is here; `*` is all of them.
    pub profiles: Vec<String>,
    /// Opens a file.
    pub reader: &'a dyn Fn(&Path) -> io::Result<String>,
    /// How a path is shown in messages.
    pub shown: &'a dyn Fn(&Path) -> String,
    /// The value of a variable.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Env files of services stay as `env_file`, unread, for whoever makes the containers.
    pub keeps_env_files: bool,
}

/// A project twice: as the specification writes it, and typed. Both say the same.
pub struct Resolved {
    /// In the specification's own keys and canonical forms, `x-` keys included. `$` is a dollar: no variables are left.
    pub document: serde_json::Value,
    pub project: Project,
}

/// Reads, merges and resolves compose files.
///
/// # Errors
/// Everything that is wrong with them, in one go. Without errors, the warnings come with the model.
pub fn load(request: &LoadRequest<'_>) -> Result<(Resolved, Diagnostics), Diagnostics> {
    resolve::load(request)
}

/// What variables mean in a file.
trait Names {
    fn look_up(&self, name: &str) -> Option<String>;
}

#[cfg(test)]
mod tests;
