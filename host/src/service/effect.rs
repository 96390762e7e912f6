//! Effects: every change outside the sandbox is announced before it happens and its outcome written after.

use crate::{capability::Leaves, failure::Failure, name::StageName};
use futures::future::BoxFuture;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::{collections::HashMap, future::Future, sync::Arc, sync::Mutex};

/// What a host function is about to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// sha256 of run, stage, function, canonical arguments and the n-th identical call.
    pub key: String,
    pub stage: StageName,
    /// `sql.transact`, `flow.copy`, ...
    pub function: &'static str,
    /// Canonical, with secrets by name.
    pub arguments: Json,
    pub leaves: Leaves,
}

/// What the journal says to an intent.
#[derive(Clone, Debug, PartialEq)]
pub enum Begun {
    /// The intent is durable: go on.
    Proceed,
    /// It happened in an earlier attempt that was cut off: this is its result, do nothing.
    AlreadyDone(Json),
}

/// The journal as effects see it.
pub trait EffectLog: Send + Sync {
    /// The result of an effect that an attempt which was cut off has journalled. Given once, as [`Begun::AlreadyDone`] is.
    fn recall(&self, key: &str) -> Option<Json>;
    /// Returns once the intent is durable.
    fn begin(&self, intent: Intent) -> BoxFuture<'_, Result<Begun, Failure>>;
    /// Writes the outcome; durable with the next commit.
    fn finish(&self, key: String, outcome: Result<Json, Failure>) -> BoxFuture<'_, Result<(), Failure>>;
}

/// The effects of one attempt: makes the keys and keeps the order intent, effect, outcome.
pub struct Effects {
    run: String,
    stage: StageName,
    log: Arc<dyn EffectLog>,
    seen: Mutex<HashMap<String, u64>>,
    /// True while a planner runs: every effect is refused.
    read_only: bool,
    /// True while the stage is undone: its calls are not those of the stage, even where they look the same.
    is_undo: bool,
}

impl Effects {
    pub fn new(run: String, stage: StageName, log: Arc<dyn EffectLog>, read_only: bool) -> Self {
        Self {
            run,
            stage,
            log,
            seen: Mutex::new(HashMap::new()),
            read_only,
            is_undo: false,
        }
    }

    /// The effects of the stage's undo.
    #[must_use]
    pub fn of_undo(self) -> Self {
        Self {
            is_undo: true,
            ..self
        }
    }

    /// Performs one effect, or returns the result that an interrupted attempt has journalled.
    ///
    /// # Errors
    /// `plan.read-only` while planning; the journal's failure; the effect's own.
    pub async fn perform<F>(
        &self,
        function: &'static str,
        arguments: Json,
        leaves: Leaves,
        effect: impl FnOnce() -> F,
    ) -> Result<Json, Failure>
    where
        F: Future<Output = Result<Json, Failure>>,
    {
        self.refuse_while_planning(function)?;
        let key = self.key(function, &arguments);
        self.announced(key, function, arguments, leaves, effect).await
    }

    /// As [`Effects::perform`], for an effect that leaves its key where it happens, so that it can be looked for there.
    ///
    /// # Errors
    /// As [`Effects::perform`].
    pub async fn perform_labelled<F>(
        &self,
        function: &'static str,
        arguments: Json,
        leaves: Leaves,
        effect: impl FnOnce(String) -> F,
    ) -> Result<Json, Failure>
    where
        F: Future<Output = Result<Json, Failure>>,
    {
        self.refuse_while_planning(function)?;
        let key = self.key(function, &arguments);
        let label = key.clone();
        self.announced(key, function, arguments, leaves, || effect(label))
            .await
    }

    /// As [`Effects::perform`], for an effect that is made ready before it is announced. What `ready`, which is told its key, says of
    /// it is noted in the intent under `aside`, and is no part of the key: the next attempt may make it ready under another name.
    ///
    /// # Errors
    /// As [`Effects::perform`], and those of `ready`, after which nothing was announced.
    pub async fn perform_aside<T, R, F>(
        &self,
        function: &'static str,
        arguments: Json,
        leaves: Leaves,
        ready: impl FnOnce(String) -> R,
        effect: impl FnOnce(T) -> F,
    ) -> Result<Json, Failure>
    where
        R: Future<Output = Result<(T, Json), Failure>>,
        F: Future<Output = Result<Json, Failure>>,
    {
        self.refuse_while_planning(function)?;
        let key = self.key(function, &arguments);
        if let Some(result) = self.log.recall(&key) {
            return Ok(result);
        }
        let (made, aside) = ready(key.clone()).await?;
        failpoint!("effect.ready");
        let mut arguments = arguments;
        if let Some(arguments) = arguments.as_object_mut() {
            arguments.insert("aside".into(), aside);
        }
        self.announced(key, function, arguments, leaves, || effect(made))
            .await
    }

    async fn announced<F>(
        &self,
        key: String,
        function: &'static str,
        arguments: Json,
        leaves: Leaves,
        effect: impl FnOnce() -> F,
    ) -> Result<Json, Failure>
    where
        F: Future<Output = Result<Json, Failure>>,
    {
        let stage = self.stage.clone();
        let intent = Intent {
            key: key.clone(),
            stage,
            function,
            arguments,
            leaves,
        };
        if let Begun::AlreadyDone(result) = self.log.begin(intent).await? {
            return Ok(result);
        }
        failpoint!("effect.announced");
        let outcome = effect().await;
        failpoint!("effect.done");
        self.log.finish(key, outcome.clone()).await?;
        failpoint!("effect.written");
        outcome
    }

    /// For what changes something without being an effect, such as putting a secret.
    ///
    /// # Errors
    /// `plan.read-only` while planning.
    pub fn refuse_while_planning(&self, function: &str) -> Result<(), Failure> {
        if !self.read_only {
            return Ok(());
        }
        let message = format!("`{function}` changes something and a planner may only read");
        Err(Failure::new(
            crate::failure::Turn::Plugin,
            "plan.read-only",
            message,
        ))
    }

    fn key(&self, function: &str, arguments: &Json) -> String {
        let stage = self.stage.as_str();
        let call = match self.is_undo {
            false => serde_json::json!([self.run, stage, function, arguments]),
            true => serde_json::json!([self.run, stage, "undo", function, arguments]),
        };
        let call = call.to_string();
        let mut seen = self
            .seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = seen.entry(call.clone()).or_insert(0);
        *count += 1;
        hex::encode(Sha256::digest(format!("{call}#{count}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Memory(Mutex<Vec<String>>);

    impl EffectLog for Memory {
        fn recall(&self, _: &str) -> Option<Json> {
            None
        }

        fn begin(&self, intent: Intent) -> BoxFuture<'_, Result<Begun, Failure>> {
            self.0
                .lock()
                .expect("not poisoned")
                .push(format!("intent {}", intent.key));
            Box::pin(async { Ok(Begun::Proceed) })
        }

        fn finish(&self, key: String, outcome: Result<Json, Failure>) -> BoxFuture<'_, Result<(), Failure>> {
            self.0.lock().expect("not poisoned").push(format!(
                "{} {key}",
                if outcome.is_ok() { "done" } else { "failed" }
            ));
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test]
    async fn intent_comes_first_and_identical_calls_have_their_own_keys() {
        let stage = StageName::new("a").expect("valid");
        let log = Arc::new(Memory::default());
        let effects = Effects::new("run".into(), stage.clone(), log.clone(), false);
        for _ in 0..2 {
            effects
                .perform("f", Json::Null, Leaves::State, || async { Ok(Json::Null) })
                .await
                .expect("succeeds");
        }
        let lines = log.0.lock().expect("not poisoned").clone();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0].strip_prefix("intent "), lines[1].strip_prefix("done "));
        assert_ne!(lines[0], lines[2]);
        let again = Effects::new("run".into(), stage, log.clone(), false);
        again
            .perform("f", Json::Null, Leaves::State, || async { Ok(Json::Null) })
            .await
            .expect("succeeds");
        assert_eq!(
            log.0.lock().expect("not poisoned")[4],
            lines[0],
            "an attempt after a crash makes the same key"
        );
    }

    #[tokio::test]
    async fn what_is_aside_is_announced_and_no_part_of_the_key() {
        let log = Arc::new(crate::service::testing::Journal::default());
        let perform = async |aside: &str| {
            let effects = log.attempt(false);
            let (arguments, aside) = (serde_json::json!({ "to": "x" }), Json::from(aside));
            let ready = |_| async { Ok((7, aside)) };
            let effect = |made| async move { Ok(Json::from(made)) };
            effects
                .perform_aside("f", arguments, Leaves::State, ready, effect)
                .await
        };
        assert_eq!(perform("one").await, Ok(Json::from(7)));
        let announced = log.intents.lock().expect("not poisoned")[0].clone();
        assert_eq!(
            announced.arguments,
            serde_json::json!({ "to": "x", "aside": "one" })
        );
        // What was done is not even made ready again, whatever it would be called this time.
        assert_eq!(perform("two").await, Ok(Json::from(7)));
        assert_eq!(log.functions(), ["f"]);
    }

    #[tokio::test]
    async fn a_planner_changes_nothing() {
        let stage = StageName::new("a").expect("valid");
        let effects = Effects::new("run".into(), stage, Arc::new(Memory::default()), true);
        let refused = effects
            .perform("f", Json::Null, Leaves::State, || async { panic!("not called") })
            .await;
        assert_eq!(refused.expect_err("refused").code, "plan.read-only");
    }
}
