//! How long a host function may go on: until the stage's deadline, its cancellation, or the end of its own call.

use super::context::Context;
use crate::failure::{Failure, Turn};
use std::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Of one attempt, or of one call in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patience {
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancel: CancellationToken,
}

impl Patience {
    pub(crate) fn of(context: &Context) -> Self {
        Self {
            deadline: context.deadline,
            cancel: context.cancel.clone(),
        }
    }

    /// For work that goes on elsewhere: it is over too when the guard is dropped, with the future that waits for it.
    pub(crate) fn until_dropped(&self) -> (Self, DropGuard) {
        let cancel = self.cancel.child_token();
        let guard = cancel.clone().drop_guard();
        let deadline = self.deadline;
        (Self { deadline, cancel }, guard)
    }

    /// Why to stop, if so.
    pub(crate) fn over(&self) -> Option<Failure> {
        if self.cancel.is_cancelled() {
            return Some(Failure::new(
                Turn::Operator,
                "cancelled",
                "the stage was cancelled",
            ));
        }
        let late = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        late.then(late_failure)
    }

    /// Waits until it is over.
    pub(crate) async fn ended(&self) -> Failure {
        let deadline = self.deadline.map(tokio::time::Instant::from_std);
        tokio::select! {
            () = self.cancel.cancelled() => {}
            () = sleep_until(deadline) => {}
        }
        let timeout = || {
            Failure::new(
                Turn::Environment,
                "stage.timeout",
                "the stage's deadline has passed",
            )
        };
        self.over().unwrap_or_else(timeout)
    }

    /// # Errors
    /// It was over before the time.
    pub(crate) async fn sleep(&self, duration: Duration) -> Result<(), Failure> {
        tokio::select! {
            biased;
            failure = self.ended() => Err(failure),
            () = tokio::time::sleep(duration) => Ok(()),
        }
    }
}

fn late_failure() -> Failure {
    let message = "the stage's deadline has passed";
    Failure::new(Turn::PipelineAuthor, "limit.time", message).help("give it more with `timeout:`")
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
