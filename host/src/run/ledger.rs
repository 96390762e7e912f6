//! Between the host functions and the journal: passes everything on, and remembers which stages have left changed state behind.

use crate::{
    capability::Leaves,
    failure::Failure,
    grant::{Decision, DecisionLog},
    journal::Journal,
    name::StageName,
    service::effect::{Begun, EffectLog, Intent},
};
use futures::future::BoxFuture;
use serde_json::{Value as Json, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The effects of one run so far.
pub struct Ledger {
    journal: Arc<dyn Journal>,
    effects: Mutex<HashMap<StageName, Vec<Entry>>>,
}

struct Entry {
    intent: Intent,
    state: &'static str,
}

impl Ledger {
    pub fn new(journal: Arc<dyn Journal>) -> Self {
        Self {
            journal,
            effects: Mutex::default(),
        }
    }

    /// Stages whose effects have changed state that is still there, or may be.
    pub fn left_behind(&self) -> Vec<StageName> {
        let is_state = |entry: &Entry| entry.intent.leaves == Leaves::State && entry.state != "failed";
        let effects = self.effects();
        let mut stages: Vec<_> = effects
            .iter()
            .filter(|(_, entries)| entries.iter().any(is_state))
            .map(|(stage, _)| stage.clone())
            .collect();
        stages.sort();
        stages
    }

    /// For `compensate`: the effects of a stage, `done` or `unknown`.
    pub fn effects_of(&self, stage: &StageName) -> Json {
        let effects = self.effects();
        let entries = effects.get(stage).map(Vec::as_slice).unwrap_or_default();
        let happened = entries.iter().filter(|entry| entry.state != "failed");
        let shown = happened.map(|entry| {
            let Intent {
                key,
                function,
                arguments,
                ..
            } = &entry.intent;
            json!({ "key": key, "function": function, "arguments": arguments, "state": entry.state })
        });
        Json::Array(shown.collect())
    }

    /// What the stage did has been undone.
    pub fn undone(&self, stage: &StageName) {
        self.effects().remove(stage);
    }

    fn effects(&self) -> MutexGuard<'_, HashMap<StageName, Vec<Entry>>> {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EffectLog for Ledger {
    fn begin(&self, intent: Intent) -> BoxFuture<'_, Result<Begun, Failure>> {
        let entry = Entry {
            intent: intent.clone(),
            state: "unknown",
        };
        self.effects()
            .entry(intent.stage.clone())
            .or_default()
            .push(entry);
        self.journal.begin(intent)
    }

    fn finish(&self, key: String, outcome: Result<Json, Failure>) -> BoxFuture<'_, Result<(), Failure>> {
        for entry in self
            .effects()
            .values_mut()
            .flatten()
            .filter(|entry| entry.intent.key == key)
        {
            // A failure that may have happened on the far side all the same stays unknown: only what says so failed.
            entry.state = if outcome.is_ok() { "done" } else { "failed" };
        }
        self.journal.finish(key, outcome)
    }
}

impl DecisionLog for Ledger {
    fn record(&self, decision: &Decision) {
        self.journal.record(decision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{failure::Turn, journal::Ephemeral};

    #[tokio::test]
    async fn only_state_that_may_be_there_counts() {
        let ledger = Ledger::new(Arc::new(Ephemeral));
        let intent = |key: &str, stage: &str, leaves| Intent {
            key: key.into(),
            stage: StageName::new(stage).expect("valid"),
            function: "f",
            arguments: Json::Null,
            leaves,
        };
        for (key, stage, leaves) in [
            ("1", "additive", Leaves::Additive),
            ("2", "cut", Leaves::State),
            ("3", "failed", Leaves::State),
            ("4", "done", Leaves::State),
        ] {
            ledger.begin(intent(key, stage, leaves)).await.expect("begins");
        }
        let failure = Failure::new(Turn::Environment, "x", "x");
        ledger.finish("1".into(), Ok(Json::Null)).await.expect("ends");
        ledger.finish("3".into(), Err(failure)).await.expect("ends");
        ledger.finish("4".into(), Ok(Json::Null)).await.expect("ends");
        let left = |ledger: &Ledger| {
            ledger
                .left_behind()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(left(&ledger), ["cut", "done"]);
        let cut = StageName::new("cut").expect("valid");
        assert_eq!(ledger.effects_of(&cut)[0]["state"], "unknown");
        ledger.undone(&cut);
        assert_eq!(left(&ledger), ["done"]);
    }
}
