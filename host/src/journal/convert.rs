//! Between the engine's types and the journal's written ones. One direction per `From`, so that a new field or variant on
//! either side fails to compile here and nowhere else.

use super::record::{
    Record, WireFailure, WireLeaves, WirePlugin, WireReport, WireRunStatus, WireStageStatus, WireTurn,
};
use crate::{
    capability::Leaves,
    event::{PluginIdentity, RunStatus, StageReport, StageStatus},
    failure::{Failure, Turn},
    grant::Decision,
    service::effect::Intent,
};
use serde_json::Value as Json;

/// Both directions of a pair of enums with the same variants.
macro_rules! same_variants {
    ($runtime:ty, $wire:ty, $($variant:ident),+) => {
        impl From<$runtime> for $wire {
            fn from(value: $runtime) -> Self {
                match value { $(<$runtime>::$variant => Self::$variant),+ }
            }
        }
        impl From<$wire> for $runtime {
            fn from(value: $wire) -> Self {
                match value { $(<$wire>::$variant => Self::$variant),+ }
            }
        }
    };
}

same_variants!(
    StageStatus,
    WireStageStatus,
    Succeeded,
    Failed,
    Skipped,
    Denied,
    Cancelled,
    TimedOut
);
same_variants!(
    RunStatus,
    WireRunStatus,
    Running,
    Succeeded,
    Failed,
    RolledBack,
    NeedsOperator,
    Paused,
    Cancelled
);
same_variants!(
    Turn,
    WireTurn,
    Plugin,
    PipelineAuthor,
    Operator,
    Environment,
    Windlass
);
same_variants!(Leaves, WireLeaves, Nothing, Additive, State);

impl From<PluginIdentity> for WirePlugin {
    fn from(PluginIdentity { name, digest }: PluginIdentity) -> Self {
        Self { name, digest }
    }
}

impl From<WirePlugin> for PluginIdentity {
    fn from(WirePlugin { name, digest }: WirePlugin) -> Self {
        Self { name, digest }
    }
}

impl From<Failure> for WireFailure {
    fn from(failure: Failure) -> Self {
        let Failure {
            code,
            message,
            turn,
            retryable,
            help,
            details,
            stack,
        } = failure;
        Self {
            code,
            message,
            turn: turn.into(),
            retryable,
            help,
            details,
            stack,
        }
    }
}

impl From<WireFailure> for Failure {
    fn from(failure: WireFailure) -> Self {
        let WireFailure {
            code,
            message,
            turn,
            retryable,
            help,
            details,
            stack,
        } = failure;
        Self {
            code,
            message,
            turn: turn.into(),
            retryable,
            help,
            details,
            stack,
        }
    }
}

impl From<StageReport> for WireReport {
    fn from(report: StageReport) -> Self {
        let StageReport {
            status,
            changed,
            summary,
            outputs,
            failure,
            duration_ms,
            usage,
        } = report;
        Self {
            status: status.into(),
            changed,
            summary,
            outputs,
            failure: failure.map(WireFailure::from),
            duration_ms,
            usage,
        }
    }
}

impl From<WireReport> for StageReport {
    fn from(report: WireReport) -> Self {
        let WireReport {
            status,
            changed,
            summary,
            outputs,
            failure,
            duration_ms,
            usage,
        } = report;
        Self {
            status: status.into(),
            changed,
            summary,
            outputs,
            failure: failure.map(Failure::from),
            duration_ms,
            usage,
        }
    }
}

impl From<Intent> for Record {
    fn from(intent: Intent) -> Self {
        let Intent {
            key,
            stage,
            function,
            arguments,
            leaves,
        } = intent;
        Self::EffectIntent {
            key,
            stage: stage.to_string(),
            function: function.into(),
            arguments,
            leaves: leaves.into(),
        }
    }
}

impl From<&Decision> for Record {
    fn from(decision: &Decision) -> Self {
        let Decision {
            stage,
            capability,
            value,
            allowed,
            rule,
        } = decision;
        Self::Decision {
            stage: stage.to_string(),
            capability: capability.name().into(),
            value: value.clone(),
            allowed: *allowed,
            rule: rule.clone(),
        }
    }
}

impl Record {
    /// The outcome of the effect with this key.
    pub fn outcome(key: String, outcome: Result<Json, Failure>) -> Self {
        let (result, failure) = match outcome {
            Ok(result) => (Some(result), None),
            Err(failure) => (None, Some(failure.into())),
        };
        Self::EffectOutcome { key, result, failure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_comes_back_as_it_was() {
        let failure = Failure::new(Turn::Environment, "upstream.timeout", "no answer")
            .retryable()
            .help("look at the network")
            .details(serde_json::json!({ "status": 503 }));
        let report = StageReport {
            status: StageStatus::TimedOut,
            changed: true,
            summary: "gave up".into(),
            outputs: [("tries".to_string(), serde_json::json!(3))].into(),
            failure: Some(failure),
            duration_ms: 17,
            usage: [("calls".to_string(), 4)].into(),
        };
        let record = Record::StageFinished {
            stage: "a".into(),
            attempt: 2,
            report: report.clone().into(),
        };
        let Ok(Record::StageFinished { report: read, .. }) = Record::decode(1, &record.encode()) else {
            panic!("it decodes to what it was");
        };
        assert_eq!(StageReport::from(read), report);
    }
}
