//! The journal of a run that holds a lock: passes everything on, and lets an effect start only while the lease has its margin.

use super::keeper::Lease;
use crate::{
    failure::Failure,
    grant::{Decision, DecisionLog},
    journal::{Journal, LogLine, record::Record},
    service::effect::{Begun, EffectLog, Intent},
};
use futures::future::BoxFuture;
use serde_json::Value as Json;
use std::sync::Arc;

/// See [`super::Held::gate`].
pub(crate) struct Gate {
    journal: Arc<dyn Journal>,
    lease: Arc<Lease>,
}

impl Gate {
    pub(crate) fn new(journal: Arc<dyn Journal>, lease: Arc<Lease>) -> Self {
        Self { journal, lease }
    }

    /// Asked before the intent, so that nothing is written for an effect that cannot start, and after it: that commit may have
    /// taken longer than the lease.
    async fn pass(&self, intent: Intent) -> Result<Begun, Failure> {
        self.lease.ready().await?;
        let key = intent.key.clone();
        let begun = self.journal.begin(intent).await?;
        if begun == Begun::Proceed
            && let Err(lost) = self.lease.ready().await
        {
            // It has not started, and that is worth a try to write down; behind a lost lock the journal refuses.
            let _ = self.journal.finish(key, Err(lost.clone())).await;
            return Err(lost);
        }
        Ok(begun)
    }
}

impl EffectLog for Gate {
    fn begin(&self, intent: Intent) -> BoxFuture<'_, Result<Begun, Failure>> {
        Box::pin(self.pass(intent))
    }

    fn finish(&self, key: String, outcome: Result<Json, Failure>) -> BoxFuture<'_, Result<(), Failure>> {
        self.journal.finish(key, outcome)
    }
}

impl DecisionLog for Gate {
    fn record(&self, decision: &Decision) {
        self.journal.record(decision);
    }
}

impl Journal for Gate {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<(), Failure>> {
        self.journal.append(records)
    }

    fn append_later(&self, record: Record) {
        self.journal.append_later(record);
    }

    fn log(&self, line: LogLine) {
        self.journal.log(line);
    }

    fn close(&self) -> BoxFuture<'static, Result<(), Failure>> {
        self.journal.close()
    }
}
