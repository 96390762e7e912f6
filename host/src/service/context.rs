//! `windlass:stage/context`: what the host tells the plugin. Always linked, never a grant.

use super::State;
use crate::{
    name::{PipelineName, RunId, StageName},
    wit::windlass::stage::context,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use wasmtime::component::{HasSelf, Linker};

/// The longest sleep of one call: a guest that wants more asks again, and sees a cancellation in between.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What one attempt knows of itself.
#[derive(Clone, Debug)]
pub struct Context {
    pub pipeline: PipelineName,
    pub stage: StageName,
    pub run: RunId,
    /// From 1.
    pub attempt: u32,
    /// The `with:` block as JSON text, placeholders where secrets are.
    pub config: Arc<str>,
    pub deadline: Option<Instant>,
    pub cancel: CancellationToken,
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    context::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl context::Host for State {
    async fn pipeline(&mut self) -> wasmtime::Result<String> {
        Ok(self.context.pipeline.to_string())
    }

    async fn stage(&mut self) -> wasmtime::Result<String> {
        Ok(self.context.stage.to_string())
    }

    async fn run_id(&mut self) -> wasmtime::Result<String> {
        Ok(self.context.run.to_string())
    }

    async fn attempt(&mut self) -> wasmtime::Result<u32> {
        Ok(self.context.attempt)
    }

    async fn config(&mut self) -> wasmtime::Result<String> {
        Ok(self.context.config.to_string())
    }

    async fn remaining_ms(&mut self) -> wasmtime::Result<Option<u64>> {
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now()).as_millis();
        Ok(self
            .context
            .deadline
            .map(|deadline| u64::try_from(left(deadline)).unwrap_or(u64::MAX)))
    }

    async fn is_cancelled(&mut self) -> wasmtime::Result<bool> {
        Ok(self.context.cancel.is_cancelled())
    }

    async fn sleep_ms(&mut self, duration: u32) -> wasmtime::Result<bool> {
        let duration = Duration::from_millis(duration.into()).min(LONGEST_SLEEP);
        tokio::select! {
            biased;
            () = self.context.cancel.cancelled() => Ok(false),
            () = tokio::time::sleep(duration) => Ok(true),
        }
    }
}
