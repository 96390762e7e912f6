//! Where the project is, and where its state is kept.

use super::{Result, arguments::ProjectArguments, print::Printer};
use crate::{
    failure::{Failure, Turn},
    name::PipelineName,
    support::fs::private_directory,
};
use sha2::{Digest, Sha256};
use std::{
    env,
    path::{Path, PathBuf},
};

/// A project on this machine.
#[derive(Clone, Debug)]
pub(super) struct Project {
    /// The nearest ancestor with `windlass.lock` or `.git`, else the directory itself.
    pub(super) root: PathBuf,
    /// Where the command was started, or what `-C` says: files on the command line are relative to it.
    pub(super) here: PathBuf,
    state: Option<PathBuf>,
}

impl Project {
    pub(super) fn find(arguments: &ProjectArguments, printer: &Printer) -> Result<Self> {
        let here = match &arguments.directory {
            Some(directory) => directory.clone(),
            None => PathBuf::from("."),
        };
        let here = match here.canonicalize() {
            Ok(here) => here,
            Err(error) => {
                let message = format!("cannot work in {}: {error}", here.display());
                return printer.stop(
                    &Failure::new(Turn::Operator, "project.directory", message)
                        .help("give an existing directory with -C"),
                );
            }
        };
        let is_root =
            |directory: &&Path| directory.join("windlass.lock").exists() || directory.join(".git").exists();
        let root = here.ancestors().find(is_root).unwrap_or(&here).to_path_buf();
        Ok(Self {
            root,
            here,
            state: arguments.state_dir.clone(),
        })
    }

    /// The pipeline file: what was named, else `windlass.yaml`, else `pipelines/deploy.yaml`.
    pub(super) fn pipeline_file(&self, named: Option<&Path>, printer: &Printer) -> Result<PathBuf> {
        if let Some(named) = named {
            return Ok(named.to_path_buf());
        }
        let usual = ["windlass.yaml", "pipelines/deploy.yaml"];
        if let Some(found) = usual
            .iter()
            .map(|name| self.root.join(name))
            .find(|path| path.is_file())
        {
            return Ok(found);
        }
        let message = format!(
            "there is neither windlass.yaml nor pipelines/deploy.yaml in {}",
            self.root.display()
        );
        printer.stop(
            &Failure::new(Turn::Operator, "pipeline.missing", message)
                .help("name the file: windlass run FILE"),
        )
    }

    /// A path of the command line, to be opened.
    pub(super) fn open_path(&self, path: &Path) -> PathBuf {
        self.here.join(path)
    }

    /// The state directory of one pipeline, made when it is missing. Never inside the root, unless it was asked for.
    pub(super) fn state(&self, pipeline: &PipelineName, printer: &Printer) -> Result<PathBuf> {
        let directory = match &self.state {
            Some(directory) => self.here.join(directory),
            None => state_home()
                .join("windlass")
                .join(format!("{pipeline}-{}", self.hash())),
        };
        private_directory(&directory).or_else(|failure| printer.stop(&failure))
    }

    /// The state directories of this project that exist: one for each of its pipelines.
    pub(super) fn states(&self) -> Vec<PathBuf> {
        if let Some(directory) = &self.state {
            return vec![self.here.join(directory)];
        }
        let suffix = format!("-{}", self.hash());
        let entries = std::fs::read_dir(state_home().join("windlass"));
        let is_ours = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(&suffix);
        let mut found: Vec<PathBuf> = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| is_ours(&entry.file_name()))
            .map(|entry| entry.path())
            .collect();
        found.sort();
        found
    }

    /// Compiled plugins: shared by all pipelines of a user.
    pub(super) fn cache(&self) -> Option<PathBuf> {
        let cache = match &self.state {
            Some(directory) => self.here.join(directory).join("cache"),
            None => base("XDG_CACHE_HOME", ".cache").join("windlass"),
        };
        private_directory(&cache).ok()
    }

    /// Sixteen digits that stand for the root.
    fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.root.as_os_str().as_encoded_bytes()))
            .chars()
            .take(16)
            .collect()
    }
}

fn state_home() -> PathBuf {
    base("XDG_STATE_HOME", ".local/state")
}

fn base(variable: &str, below_home: &str) -> PathBuf {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path: &PathBuf| path.is_absolute())
    };
    absolute(variable).unwrap_or_else(|| absolute("HOME").unwrap_or_else(env::temp_dir).join(below_home))
}
