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
    fn recall(&self, key: &str) -> Option<Json> {
        self.journal.recall(key)
    }

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

    fn append_blocking(&self, records: Vec<Record>) -> Result<(), Failure> {
        self.journal.append_blocking(records)
    }

    fn append_later(&self, record: Record) {
        self.journal.append_later(record);
    }

    fn log(&self, line: LogLine) {
        self.journal.log(line);
    }

    fn settle(&self, key: &str, result: Option<Json>) {
        self.journal.settle(key, result);
    }

    fn close(&self) -> BoxFuture<'static, Result<(), Failure>> {
        self.journal.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        capability::Leaves,
        journal::store::Fence,
        lock::{Settings, world::World, world::testing::Fake},
        name::StageName,
    };
    use std::{
        sync::{Mutex, PoisonError},
        time::Duration,
    };

    /// A journal that remembers what it was asked, and during whose commit time may pass.
    struct Slow {
        world: Arc<Fake>,
        commit: Duration,
        asked: Mutex<Vec<&'static str>>,
    }

    impl Slow {
        fn note(&self, what: &'static str) {
            self.asked
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(what);
        }
    }

    impl EffectLog for Slow {
        fn recall(&self, _: &str) -> Option<Json> {
            None
        }

        fn begin(&self, _: Intent) -> BoxFuture<'_, Result<Begun, Failure>> {
            self.note("intent");
            self.world.pass(self.commit);
            Box::pin(std::future::ready(Ok(Begun::Proceed)))
        }

        fn finish(&self, _: String, outcome: Result<Json, Failure>) -> BoxFuture<'_, Result<(), Failure>> {
            self.note(if outcome.is_ok() { "done" } else { "failed" });
            Box::pin(std::future::ready(Ok(())))
        }
    }

    impl DecisionLog for Slow {
        fn record(&self, _: &Decision) {}
    }

    impl Journal for Slow {
        fn append(&self, _: Vec<Record>) -> BoxFuture<'static, Result<(), Failure>> {
            Box::pin(std::future::ready(Ok(())))
        }

        fn append_blocking(&self, _: Vec<Record>) -> Result<(), Failure> {
            Ok(())
        }

        fn append_later(&self, _: Record) {}

        fn log(&self, _: LogLine) {}

        fn settle(&self, _: &str, _: Option<Json>) {}

        fn close(&self) -> BoxFuture<'static, Result<(), Failure>> {
            Box::pin(std::future::ready(Ok(())))
        }
    }

    /// With a lease of 150 ms, `before` of which passed before the intent and `commit` while it was written.
    async fn check(before: u64, commit: u64, expected: Result<Begun, &str>, asked: &[&str]) {
        let world = Fake::new();
        let settings = Settings::new(Duration::from_millis(150));
        let fence = Fence {
            group: "g".into(),
            token: 1,
            owner: "me".into(),
        };
        let until = world.now().since_boot + settings.length();
        let lease = Arc::new(Lease::new(fence, until, settings, world.clone()));
        let journal = Arc::new(Slow {
            world: world.clone(),
            commit: Duration::from_millis(commit),
            asked: Mutex::default(),
        });
        world.pass(Duration::from_millis(before));
        let intent = Intent {
            key: "k".into(),
            stage: StageName::new("a").expect("valid"),
            function: "f",
            arguments: Json::Null,
            leaves: Leaves::State,
        };
        let begun = Gate::new(journal.clone(), lease).begin(intent).await;
        let begun = begun.as_ref().map_err(|failure| failure.code.as_str());
        assert_eq!(begun, expected.as_ref().map_err(|code| *code));
        assert_eq!(*journal.asked.lock().expect("not poisoned"), asked);
    }

    #[tokio::test]
    async fn no_effect_starts_without_its_margin_before_and_after_its_intent() {
        check(0, 0, Ok(Begun::Proceed), &["intent"]).await;
        check(100, 20, Ok(Begun::Proceed), &["intent"]).await;
        check(121, 0, Err("lock.lost"), &[]).await;
        check(100, 21, Err("lock.lost"), &["intent", "failed"]).await;
        check(0, 86_400_000, Err("lock.lost"), &["intent", "failed"]).await;
    }
}
