//! What tests of services need of an attempt: a granter from lines of `allow:`, a journal in memory.

pub(crate) mod server;

use super::effect::{Begun, EffectLog, Effects, Intent};
use crate::{
    capability::Capability,
    failure::Failure,
    grant::{Decision, DecisionLog, Granter, StageGrant, stage_grant::Entry},
    name::StageName,
    pattern::Pattern,
};
use futures::future::BoxFuture;
use serde_json::Value as Json;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

/// Forgets.
struct NoLog;

impl DecisionLog for NoLog {
    fn record(&self, _decision: &Decision) {}
}

pub(crate) fn stage() -> StageName {
    StageName::new("test").expect("valid")
}

pub(crate) fn granter(allow: &[(Capability, &str)]) -> Granter {
    let entry = |(capability, text): &(Capability, &str)| Entry {
        capability: *capability,
        pattern: Pattern::parse(*capability, text).expect("a valid pattern"),
        rule: "a.yaml:1:1".into(),
    };
    let entries = allow.iter().map(entry).collect();
    Granter::new(
        Arc::new(StageGrant::new(stage(), "test".into(), entries)),
        Arc::new(NoLog),
    )
}

/// A journal that remembers outcomes.
#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) intents: Mutex<Vec<Intent>>,
    done: Mutex<HashMap<String, Json>>,
}

impl Journal {
    /// The effects of an attempt that writes here.
    pub(crate) fn attempt(self: &Arc<Self>, read_only: bool) -> Arc<Effects> {
        Arc::new(Effects::new("run".into(), stage(), self.clone(), read_only))
    }

    pub(crate) fn functions(&self) -> Vec<&'static str> {
        let intents = self.intents.lock().expect("not poisoned");
        intents.iter().map(|intent| intent.function).collect()
    }
}

impl EffectLog for Journal {
    fn recall(&self, key: &str) -> Option<Json> {
        self.done.lock().expect("not poisoned").get(key).cloned()
    }

    fn begin(&self, intent: Intent) -> BoxFuture<'_, Result<Begun, Failure>> {
        let done = self.done.lock().expect("not poisoned").get(&intent.key).cloned();
        self.intents.lock().expect("not poisoned").push(intent);
        Box::pin(async { Ok(done.map_or(Begun::Proceed, Begun::AlreadyDone)) })
    }

    fn finish(&self, key: String, outcome: Result<Json, Failure>) -> BoxFuture<'_, Result<(), Failure>> {
        if let Ok(result) = outcome {
            self.done.lock().expect("not poisoned").insert(key, result);
        }
        Box::pin(async { Ok(()) })
    }
}
