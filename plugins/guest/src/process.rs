//! A native program on the host, outside the sandbox.

use crate::bindings::process::runner;
use crate::{Error, stage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A program by argument list; no shell reads it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Program {
    /// The program and its arguments.
    #[serde(skip)]
    pub argv: Vec<String>,
    /// What is added to the cleaned environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// A granted guest path to start in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// What it reads from its standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
}

/// What a program did: the last 64 KiB of each stream, redacted.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Output {
    /// Its exit status.
    pub exit: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Program {
    /// Runs it to its end. A status other than 0 is not an error here.
    pub fn run(&self) -> Result<Output, Error> {
        let options = serde_json::to_string(self).expect("options are plain texts");
        stage::read(&runner::run(&self.argv, &options)?)
    }
}
