//! What the journal holds: records in their written form, version 2, and the digest chain over them.
//!
//! These are wire types. They change only by addition, and they are not the types the engine runs with
//! (`convert.rs` goes between the two). No field ever holds a secret; [`Record::for_each_text`] names every field whose
//! text comes from outside, so that the redactor sees each of them once more before it is written.

use super::store::StoredRecord;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The version written beside each record. A reader refuses records above it.
///
/// 2: the chain covers the columns `version` and `kind` too, and a stage that is parked while it is undone waits with its undo.
pub const VERSION: u32 = 2;

/// The first one; its chain covers number, time and text.
const FIRST_VERSION: u32 = 1;

/// The chain value before the first record of a run.
pub const CHAIN_START: [u8; 32] = [0; 32];

/// One thing that is known about a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Record {
    RunStarted {
        pipeline: String,
        /// `sha256:<hex>` of the approved plan.
        plan_digest: String,
        /// The approved plan: what a resume goes on with.
        plan: Json,
        /// In the order in which listings show them, `finally` last.
        stages: Vec<String>,
        /// Plugin name to `sha256:<hex>` of its bytes.
        plugins: BTreeMap<String, String>,
        vars: Json,
        /// What the plan was made from: a resume makes it again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        inputs: Option<WireInputs>,
    },
    /// Another process goes on with the run.
    RunResumed {},
    /// The run was told to stop: nothing new starts.
    RunStopping {
        reason: String,
    },
    /// A person wants the finished run undone.
    RollbackStarted {
        /// Past points of no return, because the state was restored from a backup.
        past: bool,
    },
    StageStarted {
        stage: String,
        attempt: u32,
        plugin: WirePlugin,
        /// Why it runs again, where it does: `retry`, `interrupted`, `secrets-needed`.
        reason: Option<String>,
    },
    StageFinished {
        stage: String,
        attempt: u32,
        report: WireReport,
    },
    StageSkipped {
        stage: String,
        reason: String,
    },
    /// It cannot go on by itself; the run ends and can be resumed.
    StageParked {
        stage: String,
        failure: WireFailure,
    },
    /// A person's answer to a stage that asked for one.
    StageAnswered {
        stage: String,
        approved: bool,
        who: String,
        reason: String,
    },
    /// Effects of the stage behind this are those of its undo.
    CompensationStarted {
        stage: String,
    },
    StageCompensated {
        stage: String,
        succeeded: bool,
        summary: String,
        failure: Option<WireFailure>,
    },
    EffectIntent {
        key: String,
        stage: String,
        function: String,
        arguments: Json,
        leaves: WireLeaves,
    },
    EffectOutcome {
        key: String,
        result: Option<Json>,
        failure: Option<WireFailure>,
    },
    /// One answer of the grant check.
    Decision {
        stage: String,
        capability: String,
        value: String,
        allowed: bool,
        rule: Option<String>,
    },
    RunFinished {
        status: WireRunStatus,
        exit: u8,
        reason: String,
        /// Whether `windlass resume` goes on with it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        resumable: bool,
    },
}

/// What a run was started with, where it decides about the plan. No values of secrets: those are read again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WireInputs {
    /// The pipeline file, relative to the project's root where it is below it.
    pub file: String,
    pub overlay: Option<String>,
    /// `--var-file`, in order.
    pub var_files: Vec<String>,
    /// The text of the pipeline file, the overlay and the var files.
    pub texts: BTreeMap<String, String>,
    /// `--var`, in order.
    pub vars: Vec<(String, String)>,
    /// `env` after all layers.
    pub env: BTreeMap<String, String>,
    /// A plugin as the pipeline names it to `sha256:<hex>` of its bytes.
    pub plugins: BTreeMap<String, String>,
    /// Stages that `--only`, `--skip` and `--from` left out.
    pub left_out: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WirePlugin {
    pub name: String,
    pub digest: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WireReport {
    pub status: WireStageStatus,
    pub changed: bool,
    pub summary: String,
    pub outputs: BTreeMap<String, Json>,
    pub failure: Option<WireFailure>,
    pub duration_ms: u64,
    pub usage: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WireFailure {
    pub code: String,
    pub message: String,
    pub turn: WireTurn,
    pub retryable: bool,
    pub help: Option<String>,
    pub details: Option<Json>,
    pub stack: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WireStageStatus {
    Succeeded,
    Failed,
    Skipped,
    Denied,
    Cancelled,
    TimedOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WireRunStatus {
    Running,
    Succeeded,
    Failed,
    RolledBack,
    NeedsOperator,
    Paused,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WireTurn {
    Plugin,
    PipelineAuthor,
    Operator,
    Environment,
    Windlass,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WireLeaves {
    Nothing,
    Additive,
    State,
}

impl Record {
    /// The word in the `kind` column, the same as the record's tag.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RunStarted { .. } => "run-started",
            Self::RunResumed {} => "run-resumed",
            Self::RunStopping { .. } => "run-stopping",
            Self::RollbackStarted { .. } => "rollback-started",
            Self::StageStarted { .. } => "stage-started",
            Self::StageFinished { .. } => "stage-finished",
            Self::StageSkipped { .. } => "stage-skipped",
            Self::StageParked { .. } => "stage-parked",
            Self::StageAnswered { .. } => "stage-answered",
            Self::CompensationStarted { .. } => "compensation-started",
            Self::StageCompensated { .. } => "stage-compensated",
            Self::EffectIntent { .. } => "effect-intent",
            Self::EffectOutcome { .. } => "effect-outcome",
            Self::Decision { .. } => "decision",
            Self::RunFinished { .. } => "run-finished",
        }
    }

    /// Shows `visit` every text that a plugin, a service or a file may have written. Names of stages, keys and digests
    /// were checked where they were made and stay as they are, or a resume would not find them again.
    pub fn for_each_text(&mut self, visit: &mut dyn FnMut(&mut String)) {
        match self {
            Self::RunStarted {
                plan, vars, inputs, ..
            } => {
                visit_json(plan, visit);
                visit_json(vars, visit);
                inputs.iter_mut().for_each(|inputs| inputs.for_each_text(visit));
            }
            Self::StageFinished { report, .. } => {
                visit(&mut report.summary);
                let outputs = std::mem::take(&mut report.outputs);
                report.outputs = outputs
                    .into_iter()
                    .map(|entry| visit_entry(entry, visit))
                    .collect();
                visit_failure(report.failure.as_mut(), visit);
            }
            Self::StageSkipped { reason, .. } | Self::RunStopping { reason } => visit(reason),
            Self::StageParked { failure, .. } => visit_failure(Some(failure), visit),
            Self::StageAnswered { who, reason, .. } => {
                visit(who);
                visit(reason);
            }
            Self::StageCompensated { summary, failure, .. } => {
                visit(summary);
                visit_failure(failure.as_mut(), visit);
            }
            Self::EffectIntent { arguments, .. } => visit_json(arguments, visit),
            Self::EffectOutcome { result, failure, .. } => {
                result.iter_mut().for_each(|result| visit_json(result, visit));
                visit_failure(failure.as_mut(), visit);
            }
            Self::Decision { value, .. } => visit(value),
            Self::RunResumed {}
            | Self::RollbackStarted { .. }
            | Self::StageStarted { .. }
            | Self::CompensationStarted { .. }
            | Self::RunFinished { .. } => {}
        }
    }

    /// The record as JSON text.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("records have text keys only and no failing serializer")
    }

    /// # Errors
    /// The text is not a record of a version up to [`VERSION`].
    pub fn decode(version: u32, text: &str) -> Result<Self, DecodeError> {
        check_version(version)?;
        serde_json::from_str(text).map_err(|_| DecodeError::Garbled)
    }
}

impl WireInputs {
    fn for_each_text(&mut self, visit: &mut dyn FnMut(&mut String)) {
        let texts = self.texts.values_mut().chain(self.env.values_mut());
        texts.for_each(&mut *visit);
        self.vars.iter_mut().for_each(|(_, value)| visit(value));
    }
}

/// Why a stored record cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("it has version {version}; this Windlass knows up to {VERSION}")]
    Newer { version: u32 },
    #[error("it has version {version}, which there never was")]
    Unversioned { version: u32 },
    #[error("its text is not a record")]
    Garbled,
}

/// # Errors
/// [`DecodeError::Newer`], [`DecodeError::Unversioned`].
pub fn check_version(version: u32) -> Result<(), DecodeError> {
    match version {
        FIRST_VERSION..=VERSION => Ok(()),
        version if version > VERSION => Err(DecodeError::Newer { version }),
        version => Err(DecodeError::Unversioned { version }),
    }
}

/// The chain value after a record: sha256 over the value before it and all that is kept of the record, its chain aside.
pub fn chain(before: &[u8; 32], stored: &StoredRecord) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(before);
    if stored.version > FIRST_VERSION {
        hash.update(stored.version.to_le_bytes());
        // Its length too, or the kind and the text could be cut at another place.
        hash.update((stored.kind.len() as u64).to_le_bytes());
        hash.update(stored.kind.as_bytes());
    }
    hash.update(stored.sequence.to_le_bytes());
    hash.update(stored.at_ms.to_le_bytes());
    hash.update(stored.body.as_bytes());
    hash.finalize().into()
}

fn visit_failure(failure: Option<&mut WireFailure>, visit: &mut dyn FnMut(&mut String)) {
    let Some(failure) = failure else { return };
    visit(&mut failure.code);
    visit(&mut failure.message);
    failure.help.iter_mut().for_each(&mut *visit);
    failure
        .details
        .iter_mut()
        .for_each(|details| visit_json(details, visit));
    failure.stack.iter_mut().for_each(visit);
}

fn visit_entry((mut key, mut value): (String, Json), visit: &mut dyn FnMut(&mut String)) -> (String, Json) {
    visit(&mut key);
    visit_json(&mut value, visit);
    (key, value)
}

fn visit_json(value: &mut Json, visit: &mut dyn FnMut(&mut String)) {
    match value {
        Json::String(text) => visit(text),
        Json::Array(items) => items.iter_mut().for_each(|item| visit_json(item, visit)),
        Json::Object(entries) => {
            let taken = std::mem::take(entries);
            *entries = taken.into_iter().map(|entry| visit_entry(entry, visit)).collect();
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn written_form_of_version_1() {
        // The journals of every released version must stay readable: this text may gain fields and lose none.
        let record = Record::StageStarted {
            stage: "build".into(),
            attempt: 1,
            plugin: WirePlugin {
                name: "build".into(),
                digest: "sha256:00".into(),
            },
            reason: None,
        };
        let text = r#"{"record":"stage-started","stage":"build","attempt":1,"plugin":{"name":"build","digest":"sha256:00"},"reason":null}"#;
        assert_eq!(record.encode(), text);
        for version in FIRST_VERSION..=VERSION {
            assert_eq!(Record::decode(version, text).as_ref(), Ok(&record));
        }
        assert_eq!(Record::decode(3, text), Err(DecodeError::Newer { version: 3 }));
        assert_eq!(
            Record::decode(0, text),
            Err(DecodeError::Unversioned { version: 0 })
        );
        assert_eq!(Record::decode(1, &text[..40]), Err(DecodeError::Garbled));
    }

    #[test]
    fn the_last_guard_sees_keys_values_and_failures() {
        let failure = WireFailure {
            code: "hunter2".into(),
            message: "no hunter2".into(),
            turn: WireTurn::Plugin,
            retryable: false,
            help: Some("hunter2".into()),
            details: Some(json!({ "hunter2": ["hunter2"] })),
            stack: vec!["hunter2".into()],
        };
        let mut records = vec![
            Record::EffectOutcome {
                key: "k".into(),
                result: Some(json!({ "hunter2": { "a": "hunter2" } })),
                failure: Some(failure.clone()),
            },
            Record::StageFinished {
                stage: "a".into(),
                attempt: 1,
                report: WireReport {
                    status: WireStageStatus::Failed,
                    changed: true,
                    summary: "hunter2".into(),
                    outputs: BTreeMap::from([("hunter2".into(), json!("hunter2"))]),
                    failure: Some(failure),
                    duration_ms: 1,
                    usage: BTreeMap::new(),
                },
            },
        ];
        for record in &mut records {
            record.for_each_text(&mut |text| *text = text.replace("hunter2", "***"));
            assert!(!record.encode().contains("hunter2"), "{}", record.encode());
        }
    }

    #[test]
    fn the_chain_binds_all_that_is_kept() {
        let stored = |version| StoredRecord {
            sequence: 0,
            version,
            at_ms: 5,
            kind: "ab".into(),
            body: "c".into(),
            chain: CHAIN_START,
        };
        type Change = fn(&mut StoredRecord);
        let always: [Change; 3] = [
            |stored| stored.sequence = 1,
            |stored| stored.at_ms = 6,
            |stored| stored.body.push('x'),
        ];
        let since_2: [Change; 3] = [
            |stored| stored.version += 1,
            |stored| stored.kind.push('x'),
            |stored| (stored.kind, stored.body) = ("a".into(), "bc".into()),
        ];
        let is_bound = |version, change: Change| {
            let mut changed = stored(version);
            change(&mut changed);
            chain(&CHAIN_START, &changed) != chain(&CHAIN_START, &stored(version))
        };
        for version in [1, 2] {
            assert!(always.iter().all(|change| is_bound(version, *change)));
            let one = chain(&CHAIN_START, &stored(version));
            assert_ne!(chain(&one, &stored(version)), one);
        }
        assert!(since_2.iter().all(|change| is_bound(2, *change)));
        assert_ne!(
            chain(&CHAIN_START, &stored(1)),
            chain(&CHAIN_START, &stored(2)),
            "a record of one version is none of the other"
        );
    }

    #[test]
    fn the_chain_of_version_1_is_what_it_was() {
        let stored = StoredRecord {
            sequence: 7,
            version: 1,
            at_ms: 5,
            kind: "any".into(),
            body: "{}".into(),
            chain: CHAIN_START,
        };
        let mut hash = Sha256::new();
        hash.update(CHAIN_START);
        hash.update(7_u64.to_le_bytes());
        hash.update(5_i64.to_le_bytes());
        hash.update(b"{}");
        let expected: [u8; 32] = hash.finalize().into();
        assert_eq!(chain(&CHAIN_START, &stored), expected);
    }
}
