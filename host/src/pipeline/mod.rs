//! From the text of a pipeline file to a typed [`Pipeline`], with all problems at once. Pure: files come in through a reader,
//! the environment through a function, and nothing of the world is asked otherwise.

pub mod duration;
pub mod env_file;
pub mod expression;
pub mod model;
pub mod schema;

mod environment;
mod fields;
mod grants;
mod graph;
mod keys;
mod loader;
mod matrix;
pub(crate) mod node;
pub(crate) mod problems;
mod reading;
mod secrets;
mod settings;
mod stage;
pub(crate) mod substitute;
mod vars;
pub(crate) mod yaml;

pub use model::Pipeline;

use crate::diagnostic::Diagnostics;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// What to load, and with which values.
pub struct LoadRequest<'a> {
    /// The project's root: env files and everything else that the pipeline names are relative to it.
    pub root: &'a Path,
    /// The pipeline file, as it is to be opened.
    pub file: &'a Path,
    /// Its name in messages.
    pub shown: String,
    /// `-e NAME`: `pipeline.NAME.yaml` beside `pipeline.yaml` is laid over it.
    pub overlay: Option<String>,
    /// `--var NAME=VALUE`, in order.
    pub vars: Vec<(String, String)>,
    /// `--var-file`, in order; before `vars`.
    pub var_files: Vec<PathBuf>,
    /// `--env-file`, in order: the highest layer of `env`.
    pub env_files: Vec<PathBuf>,
    pub reader: &'a dyn Fn(&Path) -> io::Result<String>,
    pub process_env: &'a dyn Fn(&str) -> Option<String>,
    /// The values of `env` that a run was started with: they stand for all layers, and no env file is read.
    pub recorded_env: Option<&'a BTreeMap<String, String>>,
    pub missing: MissingValues,
}

/// What to do about a variable that is required, or used, and has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingValues {
    /// It is an error: nothing can run.
    Refuse,
    /// Go on without it: a file can be valid before anybody has its values. What depends on it is not checked.
    Unknown,
}

/// Reads a pipeline file, its overlay and its env files.
///
/// # Errors
/// Everything that is wrong with them, in one go. Without errors, the warnings come with the pipeline.
pub fn load(request: &LoadRequest<'_>) -> Result<(Pipeline, Diagnostics), Diagnostics> {
    loader::load(request)
}

#[cfg(test)]
mod tests;
