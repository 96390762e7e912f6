//! What people are told about locks.

use super::{
    Waiting,
    lease::{Death, Holder, Standing},
    table::Obstacle,
};
use crate::failure::{Failure, Turn};
use std::time::Duration;

/// Whether a failure says that a lock stands in the way: exit code 75.
pub fn is_refusal(code: &str) -> bool {
    [
        "lock.held",
        "lock.timeout",
        "lock.unreadable",
        "lock.foreign",
        "lock.lost",
    ]
    .contains(&code)
}

/// Why a lock cannot be had now.
pub(crate) fn blocked(group: &str, obstacle: &Obstacle, waiting: Option<&Waiting>) -> Failure {
    let failure = match obstacle {
        Obstacle::Lock(standing) => refused(group, standing),
        Obstacle::Queue { ahead, next } => {
            let runs = if *ahead == 1 { "run waits" } else { "runs wait" };
            let message = format!(
                "the lock of group `{group}` is about to go to {}: {ahead} {runs} longer for it",
                next
            );
            held(message)
        }
    };
    match waiting {
        Some(waiting) if failure.code == "lock.held" => {
            let waited = waiting.timeout.as_secs();
            let message = format!("{}; waited {waited} s for it", failure.message);
            Failure::new(Turn::Operator, "lock.timeout", message)
                .help("`windlass lock show` says who holds it; --lock-wait-timeout waits longer")
        }
        _ => failure,
    }
}

/// Why a lock is not given to a run, nor released without force.
fn refused(group: &str, standing: &Standing) -> Failure {
    match standing {
        Standing::Held { holder, .. } => held(format!("the lock of group `{group}` is held by {}", holder)),
        Standing::Foreign { holder } => {
            let message = format!(
                "the lock of group `{group}` is held by {} on another machine, and whether that run is alive cannot be seen from here",
                holder
            );
            Failure::new(Turn::Operator, "lock.foreign", message).help(format!(
                "when you are sure that it has ended: windlass lock release {group} --force"
            ))
        }
        Standing::Unreadable { problem } => {
            let message =
                format!("the lock of group `{group}` cannot be read: {problem}; it is left as it is");
            Failure::new(Turn::Operator, "lock.unreadable", message).help(format!(
                "when you are sure that no run of the group is alive: windlass lock release {group} --force"
            ))
        }
        Standing::Free | Standing::Dead { .. } => {
            held(format!("the lock of group `{group}` is changing hands"))
        }
    }
}

fn held(message: String) -> Failure {
    Failure::new(Turn::Operator, "lock.held", message)
        .help("`windlass lock show` says more; --lock-wait waits for it in order")
}

/// Why `windlass lock release` did not, and what `--force` would mean.
pub fn release_failure(group: &str, standing: &Standing) -> Failure {
    let failure = refused(group, standing);
    match standing {
        Standing::Held { .. } => failure.help(format!(
            "wait for it or stop it. `windlass lock release {group} --force` takes the lock away from it: it then starts no further effect and \
             records nothing more, what it has in flight goes on, and the next run may begin beside that"
        )),
        _ => failure,
    }
}

/// The lock went to somebody else while it should have been held.
pub(crate) fn lost(group: &str) -> Failure {
    crate::journal::store::StoreError::LockLost { group: group.into() }.into()
}

/// What is said when a lock is taken from a dead holder.
pub(crate) fn took_over(group: &str, holder: &Holder, death: Death) -> String {
    let why = match death {
        Death::Gone => "whose process has ended without giving it back".to_string(),
        Death::Rebooted => "from before this machine was restarted".to_string(),
        Death::Expired(by) => format!("whose lease ran out {} ago", seconds(by)),
    };
    format!(
        "took over the lock of group `{group}` from {}, {why}; `windlass runs show {}` has that run",
        holder, holder.run
    )
}

/// What is said once while a run waits.
pub(crate) fn waits(group: &str, obstacle: &Obstacle) -> String {
    let ahead = match obstacle {
        Obstacle::Lock(Standing::Held { holder, .. }) => format!("held by {}", holder),
        Obstacle::Queue { ahead, next } => format!("{ahead} before this run, next {}", next),
        Obstacle::Lock(_) => "not free".into(),
    };
    format!("waiting for the lock of group `{group}`: {ahead}")
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
