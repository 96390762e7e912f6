//! A pipeline after reading: typed, checked, with the place of everything; what depends on earlier stages is still a template.

use super::expression::{Expression, Outputs, RunScope, Scope, Template};
use crate::{
    capability::Capability,
    name::{PipelineName, SecretName, StageName},
    pattern::Pattern,
    source::{SourceFile, Span},
};
use indexmap::IndexMap;
use serde_json::Value as Json;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// The whole file, with its overlay where there is one.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub name: PipelineName,
    /// The pipeline file first, then the overlay and the files of `--var-file`. Env files are not kept: they may hold secrets.
    pub sources: Vec<Arc<SourceFile>>,
    /// `vars` after `--var` and `--var-file`.
    pub vars: IndexMap<String, Json>,
    /// `env` after all layers, with the layer each value came from.
    pub env: IndexMap<String, EnvValue>,
    pub secrets: IndexMap<SecretName, SecretSpec>,
    /// Host directories that stages may be granted as `/mnt/<name>`.
    pub directories: IndexMap<String, PathBuf>,
    /// Where to connect instead, for an origin.
    pub origins: IndexMap<String, Origin>,
    pub concurrency: Option<Concurrency>,
    /// One entry a matrix cell, in the order of the file.
    pub stages: Vec<Stage>,
    /// Run after everything else, however it ended.
    pub finally: Vec<Stage>,
    /// The cells of stages with a matrix, by the stage's name in the file.
    pub cells: IndexMap<String, Vec<StageName>>,
}

/// A resolved variable of `env`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvValue {
    pub value: String,
    /// `default`, the name of an env file, `process`, or `--env-file NAME`.
    pub layer: String,
}

/// Where a secret comes from.
#[derive(Clone, Debug)]
pub struct SecretSpec {
    pub from: SecretSource,
    /// For encrypted files: where the passphrase comes from, and how the key is derived.
    pub key: Option<SecretSource>,
    pub kdf: Option<Kdf>,
    /// Hosts that its value may be sent to in request headers; empty: those the stage may reach.
    pub hosts: Vec<String>,
    pub span: Span,
}

/// A secret's source, parsed from its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// `env://NAME`: a variable of the process.
    Env(String),
    /// `file://path` or `file://path#KEY` (a line of a `.env` file), relative to the project's root.
    File { path: PathBuf, key: Option<String> },
    /// `docker-secret://name`: `$NAME_FILE`, else `/run/secrets/name`.
    DockerSecret(String),
    /// `aws-sm://name` or `aws-sm://name#key` (a field of the JSON in it): AWS Secrets Manager.
    AwsSm { name: String, key: Option<String> },
    /// `stage://stage/name`: put there by a stage of this run.
    Stage { stage: StageName, name: String },
}

/// How `openssl enc` made the key; the file's header cannot tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kdf {
    /// `openssl enc` since 1.1.0, without `-pbkdf2`.
    EvpSha256,
    /// Before 1.1.0.
    EvpMd5,
    /// `-pbkdf2`: 10,000 rounds of HMAC-SHA-256.
    Pbkdf2,
}

/// `origins:` stands for curl's `--resolve` and a private authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// `host:port` to connect to.
    pub connect: Option<String>,
    /// PEM file with the authorities for this origin, beside the system's, relative to the root.
    pub ca: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concurrency {
    pub group: String,
}

/// One use of a plugin.
#[derive(Clone, Debug)]
pub struct Stage {
    pub name: StageName,
    pub description: Option<String>,
    /// Values of `matrix` for this cell, empty without one.
    pub matrix: IndexMap<String, Json>,
    /// Stages that must have ended well before (all cells of a stage with a matrix; those that put its secrets).
    pub needs: Vec<StageName>,
    pub uses: PluginReference,
    pub condition: Option<Expression>,
    pub with: Template,
    pub allow: Vec<Grant>,
    pub timeout: Duration,
    pub retry: Retry,
    pub rollback: Rollback,
    pub point_of_no_return: bool,
    /// The run pauses before it until a person has answered.
    pub approval: Option<Approval>,
    /// The stage's key in the file.
    pub span: Span,
    /// The `uses` value.
    pub uses_span: Span,
    /// The `allow` key with its value, `None` where there is none: where a line would have to be added.
    pub allow_span: Option<Span>,
    /// `with`'s value, `None` where there is none.
    pub with_span: Option<Span>,
}

/// Which plugin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PluginReference {
    /// A built-in one, by its name.
    BuiltIn(String),
    /// A component file, relative to the root as written: `./my.wasm`.
    File(PathBuf),
    /// `oci://registry/repository:tag`.
    Oci(String),
}

/// One line of `allow:`.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    pub capability: Capability,
    pub pattern: Pattern,
    pub span: Span,
}

/// What happens after a failed attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// At least 1, the first try included.
    pub attempts: u32,
    /// Before the second attempt; doubles each time.
    pub backoff: Duration,
    pub maximum_backoff: Duration,
    /// Failure codes, by prefix; empty: those that say of themselves that they are retryable.
    pub on: Vec<String>,
}

/// What a stage asks a person before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    pub question: String,
    /// `None`: it waits for ever.
    pub timeout: Option<Duration>,
    /// What counts when the time is over.
    pub approve_by_default: bool,
}

impl Approval {
    /// Whether the time to answer is over; both in milliseconds since 1970.
    pub fn is_over(&self, since_ms: i64, now_ms: i64) -> bool {
        let waited = u128::from(now_ms.saturating_sub(since_ms).max(0).cast_unsigned());
        self.timeout.is_some_and(|timeout| waited >= timeout.as_millis())
    }
}

/// Whether and how a stage is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rollback {
    /// By the plugin, where it can.
    Auto,
    /// By a person; the last screen says so.
    Manual,
    /// There is nothing to undo.
    Never,
}

impl std::fmt::Display for PluginReference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BuiltIn(name) => formatter.write_str(name),
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Oci(reference) => write!(formatter, "oci://{reference}"),
        }
    }
}

impl Pipeline {
    /// What the expressions of a stage see. `outputs` are those of stages that have run, `None` while planning.
    pub fn scope<'a>(
        &'a self,
        stage: &'a Stage,
        run: RunScope<'a>,
        outputs: Option<&'a Outputs>,
    ) -> Scope<'a> {
        Scope {
            vars: &self.vars,
            env: &self.env,
            secrets: &self.secrets,
            matrix: &stage.matrix,
            cells: &self.cells,
            run: RunScope {
                pipeline: self.name.as_str(),
                ..run
            },
            outputs,
        }
    }
}

impl Stage {
    /// The place for problems with the grants: `allow`, else the stage's name.
    pub fn grants_span(&self) -> &Span {
        self.allow_span.as_ref().unwrap_or(&self.span)
    }
}
