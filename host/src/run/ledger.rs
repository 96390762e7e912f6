//! Between the host functions and the journal: passes everything on, and remembers which stages have left changed state behind.
//!
//! A plugin never hears that the journal has failed or that the lock was lost. It would tidy up, as after any failure, and whoever
//! goes on with the run would not know of that. It is left waiting, and dropped with the run, as in a crash.

use crate::{
    capability::Leaves,
    failure::Failure,
    grant::{Decision, DecisionLog},
    journal::{
        Journal,
        replay::{EffectHistory, EffectState},
    },
    name::StageName,
    service::effect::{Begun, EffectLog, Intent},
};
use futures::future::BoxFuture;
use serde_json::{Value as Json, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// The effects of one run so far.
pub struct Ledger {
    journal: Arc<dyn Journal>,
    /// Why nothing more of this run can be written.
    broken: watch::Sender<Option<Failure>>,
    effects: Mutex<HashMap<StageName, Vec<Entry>>>,
}

struct Entry {
    key: String,
    function: String,
    arguments: Json,
    leaves: Leaves,
    state: &'static str,
}

impl Ledger {
    pub fn new(journal: Arc<dyn Journal>) -> Self {
        Self {
            journal,
            broken: watch::Sender::new(None),
            effects: Mutex::default(),
        }
    }

    /// Resolves once a stage waits because nothing more of this run can be written.
    pub async fn broken(&self) -> Failure {
        let mut broken = self.broken.subscribe();
        let failure = broken.wait_for(Option::is_some).await;
        match failure.map(|failure| failure.clone()) {
            Ok(Some(failure)) => failure,
            // The sender is ours, and nobody takes the failure back.
            _ => std::future::pending().await,
        }
    }

    async fn durable(&self, intent: Intent) -> Result<Begun, Failure> {
        match self.journal.begin(intent).await {
            Err(failure) if ["journal.failed", "lock.lost"].contains(&failure.code.as_str()) => {
                self.broken.send_replace(Some(failure));
                std::future::pending().await
            }
            answer => answer,
        }
    }

    /// Takes in what an earlier process has done in this run.
    pub fn remember(&self, stage: &StageName, effect: &EffectHistory) {
        let state = match effect.state {
            EffectState::Done(_) => "done",
            EffectState::Unknown => "unknown",
            EffectState::Failed(_) => "failed",
        };
        let entry = Entry {
            key: effect.key.clone(),
            function: effect.function.clone(),
            arguments: effect.arguments.clone(),
            leaves: effect.leaves,
            state,
        };
        self.effects().entry(stage.clone()).or_default().push(entry);
    }

    /// What was found out about an effect of an earlier process.
    pub fn settle(&self, key: &str, happened: bool) {
        for entry in self.effects().values_mut().flatten() {
            if entry.key == key && entry.state == "unknown" {
                entry.state = if happened { "done" } else { "failed" };
            }
        }
    }

    /// Stages whose effects have changed state that is still there, or may be.
    pub fn left_behind(&self) -> Vec<StageName> {
        let is_state = |entry: &Entry| entry.leaves == Leaves::State && entry.state != "failed";
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
            json!({ "key": entry.key, "function": entry.function, "arguments": entry.arguments, "state": entry.state })
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
    fn recall(&self, key: &str) -> Option<Json> {
        self.journal.recall(key)
    }

    fn begin(&self, intent: Intent) -> BoxFuture<'_, Result<Begun, Failure>> {
        Box::pin(async move {
            let entry = Entry {
                key: intent.key.clone(),
                function: intent.function.into(),
                arguments: intent.arguments.clone(),
                leaves: intent.leaves,
                state: "unknown",
            };
            let stage = intent.stage.clone();
            let begun = self.durable(intent).await?;
            if begun == Begun::Proceed {
                let mut effects = self.effects();
                let entries = effects.entry(stage).or_default();
                // An attempt that was cut off had announced the same effect.
                entries.retain(|known| known.key != entry.key || known.state == "done");
                entries.push(entry);
            }
            Ok(begun)
        })
    }

    fn finish(&self, key: String, outcome: Result<Json, Failure>) -> BoxFuture<'_, Result<(), Failure>> {
        let state = match &outcome {
            Ok(_) => "done",
            Err(failure) if failure.may_have_happened() => "unknown",
            Err(_) => "failed",
        };
        // The last one: an attempt before this one may have had the same effect.
        let mut effects = self.effects();
        let of_key = effects.values_mut().flatten().filter(|entry| entry.key == key);
        if let Some(entry) = of_key.last() {
            entry.state = state;
        }
        drop(effects);
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
