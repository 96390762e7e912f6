//! What the host tells the plugin about this attempt, and waiting.

use crate::bindings::stage::context;
use std::time::Duration;

/// The longest wait the host takes in one call.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The name of the pipeline.
pub fn pipeline() -> String {
    context::pipeline()
}

/// The name of this stage, with its matrix cell where it has one.
pub fn stage() -> String {
    context::stage()
}

/// The id of this run. Derive names of what you make from it, never from a clock.
pub fn run_id() -> String {
    context::run_id()
}

/// Which try this is, from 1.
pub fn attempt() -> u32 {
    context::attempt()
}

/// The `with:` block as JSON text; [`Stage::run`](crate::Stage::run) gets it typed.
pub fn config() -> String {
    context::config()
}

/// The time until the stage's deadline, `None` where it has none.
pub fn remaining() -> Option<Duration> {
    context::remaining_ms().map(Duration::from_millis)
}

/// True once the run wants this stage to end.
pub fn is_cancelled() -> bool {
    context::is_cancelled()
}

/// Waits. False, early, when the stage is cancelled.
pub fn sleep(mut duration: Duration) -> bool {
    while !duration.is_zero() {
        let part = duration.min(LONGEST_SLEEP);
        // The host counts in milliseconds: what is less is rounded up, or the loop would spin on it.
        let milliseconds = part.as_nanos().div_ceil(1_000_000) as u32;
        if !context::sleep_ms(milliseconds) {
            return false;
        }
        duration -= part;
    }
    !context::is_cancelled()
}
