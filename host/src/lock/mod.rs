//! Concurrency groups: at most one run of a group acts at a time, across processes, crashes and machines that sleep.
//!
//! A lock is a lease with a heartbeat and a fencing token that grows with every acquisition, kept beside the journal in one
//! database. `lease` decides, from a row and a moment, who holds it; `table` is the rows; `acquire` waits in order; `keeper` beats
//! while a run goes on; `gate` stands before every effect. Knows nothing of stages and pipelines beyond what it shows to people.
//!
//! What a holder may rely on, and where it ends:
//! - A commit to the journal checks the token in its own transaction, so whoever has lost the lock records nothing more, and
//!   therefore starts nothing more: an effect's intent is durable before the effect.
//! - An effect starts only with [`Settings::margin`] of the lease left. What remains is a process that is stopped between this
//!   check and the effect itself, for longer than the margin: that one effect may come late. Effects are idempotent by their keys
//!   for this reason.

mod acquire;
mod gate;
mod keeper;
mod lease;
mod table;
mod words;
mod world;

pub use acquire::{Request, Waiting, acquire};
pub use keeper::{Held, Lost};
pub use lease::{Death, Holder, Standing};
pub use table::{Lock, Released, release, show};
pub use words::{is_refusal, release_failure};

use std::time::Duration;

/// How long a lease lasts without a heartbeat: what the next run waits for when a holder hangs without being gone. Long enough
/// that a loaded machine or a slow disk does not cost a healthy run its lock.
pub const LENGTH: Duration = Duration::from_secs(15);

/// No lease is longer. What says it is was not written by us.
pub const LONGEST: Duration = Duration::from_secs(3_600);

/// The times of a lock, all made from the length of its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    length: Duration,
}

impl Settings {
    /// With leases of this length, at most [`LONGEST`].
    pub fn new(length: Duration) -> Self {
        Self {
            length: length.min(LONGEST),
        }
    }

    pub fn length(self) -> Duration {
        self.length
    }

    /// Two heartbeats may be missed.
    pub fn heartbeat(self) -> Duration {
        self.length / 3
    }

    /// How much of the lease an effect needs to start: covers the time between the check and the effect's first act. A
    /// holder whose heart beats has two thirds of its lease at any moment, so this costs it nothing.
    pub fn margin(self) -> Duration {
        self.length / 5
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new(LENGTH)
    }
}
