//! What happens in a run, as every report sees it. Version 1 of the machine-readable shapes is rendered from these.

use crate::{
    failure::Failure,
    name::{RunId, StageName},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// How a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StageStatus {
    Succeeded,
    Failed,
    Skipped,
    Denied,
    Cancelled,
    TimedOut,
}

/// How a run stands or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunStatus {
    Running,
    Succeeded,
    Failed,
    RolledBack,
    NeedsOperator,
    Paused,
    Cancelled,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// Which plugin a stage runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginIdentity {
    pub name: String,
    /// `sha256:<hex>` of the component's bytes.
    pub digest: String,
}

/// What is kept of a finished attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageReport {
    pub status: StageStatus,
    /// False: everything was in place already.
    pub changed: bool,
    pub summary: String,
    pub outputs: BTreeMap<String, Json>,
    pub failure: Option<Failure>,
    pub duration_ms: u64,
    /// Lines and bytes that the stage's limits dropped, calls, memory: what the sandbox counted.
    pub usage: BTreeMap<String, u64>,
}

impl StageReport {
    /// Whether the stage did what older code cannot live with, or nobody can bring back: its output `phases` says so. It is a
    /// point of no return then, without the pipeline file having to know.
    pub fn passed_no_return(&self) -> bool {
        let phases = self.outputs.get("phases").and_then(Json::as_array);
        let mut phases = phases.into_iter().flatten().filter_map(Json::as_str);
        self.status == StageStatus::Succeeded
            && phases.any(|phase| matches!(phase, "contract" | "irreversible"))
    }
}

/// One thing that happened. Everything that a guest wrote has been made inert and redacted before it is here.
#[derive(Clone, Debug, PartialEq)]
pub enum RunEvent {
    RunStarted {
        run: RunId,
        pipeline: String,
        /// All stages in the order in which they are shown, `finally` last.
        stages: Vec<StageName>,
        /// True where the run goes on from a journal.
        resumed: bool,
    },
    /// A stage that had ended before the run went on: for summaries, not news.
    StageKnown {
        stage: StageName,
        attempts: u32,
        plugin: Option<PluginIdentity>,
        report: StageReport,
    },
    StageStarted {
        stage: StageName,
        attempt: u32,
        plugin: PluginIdentity,
    },
    StageLog {
        stage: StageName,
        attempt: u32,
        level: LogLevel,
        message: String,
        fields: Vec<(String, String)>,
    },
    StageProgress {
        stage: StageName,
        attempt: u32,
        done: u64,
        total: Option<u64>,
        note: Option<String>,
    },
    StageRetrying {
        stage: StageName,
        attempt: u32,
        delay_ms: u64,
        failure: Failure,
    },
    StageFinished {
        stage: StageName,
        attempt: u32,
        report: StageReport,
    },
    StageCompensated {
        stage: StageName,
        succeeded: bool,
        summary: String,
        failure: Option<Failure>,
    },
    /// Something a person should know that belongs to no stage.
    Notice { level: LogLevel, message: String },
    RunFinished {
        status: RunStatus,
        exit: u8,
        /// A word for the exit code: see `cli::exit_code`.
        reason: String,
        duration_ms: u64,
        /// The next thing to type, where there is one.
        next: Option<String>,
    },
}
