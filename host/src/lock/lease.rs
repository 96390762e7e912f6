//! The rules: from a row of the table and a moment to who holds the lock. Pure; reads no clock.

use super::{
    LONGEST,
    world::{Boot, Moment, Presence, Process, World},
};
use crate::name::RunId;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc, time::Duration};

/// Who holds a lock or waits for it: what people are shown, and what tells whether it can still be alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Holder {
    pub run: String,
    pub pipeline: String,
    /// `run`, `resume`, `rollback`.
    pub command: String,
    /// Milliseconds since 1970, by the wall clock: shown to people, never compared.
    pub since_ms: i64,
    pub(crate) process: Process,
    pub(crate) boot: Boot,
}

impl Holder {
    /// This process, for a run.
    pub(crate) fn new(run: &RunId, pipeline: &str, command: &str, world: &dyn World) -> Self {
        Self {
            run: run.to_string(),
            pipeline: pipeline.into(),
            command: command.into(),
            since_ms: jiff::Timestamp::now().as_millisecond(),
            process: Process::this(),
            boot: Boot::clone(&world.now().boot),
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    pub fn host(&self) -> &str {
        &self.boot.host
    }

    /// When it got the lock or began to wait, as people read it.
    pub fn since(&self) -> String {
        match jiff::Timestamp::from_millisecond(self.since_ms) {
            Ok(at) => format!("{at:.0}"),
            Err(_) => "unknown".into(),
        }
    }
}

/// `run 01m8… of p (pid 12 on host, since 2026-01-01T00:00:00Z)`.
impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, pipeline, .. } = self;
        let (pid, host, since) = (self.pid(), self.host(), self.since());
        write!(
            formatter,
            "run {run} of {pipeline} (pid {pid} on {host}, since {since})"
        )
    }
}

/// A row as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) token: i64,
    /// Both are empty while the lock is free.
    pub(crate) owner: Option<String>,
    pub(crate) holder: Option<String>,
    /// Milliseconds since the holder's boot.
    pub(crate) until: i64,
}

/// How a lock stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    Free,
    Held {
        holder: Arc<Holder>,
        left: Duration,
    },
    /// It was held by somebody who cannot act any more: the next run takes it.
    Dead {
        holder: Arc<Holder>,
        death: Death,
    },
    /// Held on another machine, whose clock says nothing here.
    Foreign {
        holder: Arc<Holder>,
    },
    Unreadable {
        problem: String,
    },
}

/// How it is known that a holder is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Its lease ran out so long ago.
    Expired(Duration),
    /// Its process has ended.
    Gone,
    /// The machine was started anew since.
    Rebooted,
}

/// Says how a lock stands. What is not understood is held: it is never taken.
pub(crate) fn standing(row: &Row, world: &dyn World) -> Standing {
    let unreadable = |problem: &str| Standing::Unreadable {
        problem: problem.into(),
    };
    if !(1..i64::MAX).contains(&row.token) {
        return unreadable("its token is no positive number that could still grow");
    }
    let text = match (&row.owner, &row.holder) {
        (None, None) => return Standing::Free,
        (Some(_), Some(text)) => text,
        _ => return unreadable("it names half a holder"),
    };
    let Ok(holder) = serde_json::from_str::<Holder>(text) else {
        return unreadable("its holder is not written in a form that this version knows");
    };
    let Ok(until) = u64::try_from(row.until) else {
        return unreadable("its lease ends before the machine was started");
    };
    of_holder(Arc::new(holder), Duration::from_millis(until), world)
}

fn of_holder(holder: Arc<Holder>, until: Duration, world: &dyn World) -> Standing {
    let now = world.now();
    if holder.boot.id != now.boot.id {
        return match is_same_machine(&holder.boot, &now.boot) {
            true => Standing::Dead {
                holder,
                death: Death::Rebooted,
            },
            false => Standing::Foreign { holder },
        };
    }
    let Some(left) = left(until, &now) else {
        let death = Death::Expired(now.since_boot.saturating_sub(until));
        return Standing::Dead { holder, death };
    };
    if left > LONGEST {
        let problem = format!("its lease ends only in {} hours", left.as_secs() / 3_600);
        return Standing::Unreadable { problem };
    }
    match world.presence(&holder.process) {
        Presence::Gone => Standing::Dead {
            holder,
            death: Death::Gone,
        },
        Presence::Running | Presence::Unknown => Standing::Held { holder, left },
    }
}

/// What is left of a lease of this boot; `None` when nothing is.
pub(crate) fn left(until: Duration, now: &Moment) -> Option<Duration> {
    until.checked_sub(now.since_boot).filter(|left| !left.is_zero())
}

/// Only where all names agree: images of containers are copied with their machine id in them.
fn is_same_machine(one: &Boot, other: &Boot) -> bool {
    !one.machine.is_empty() && one.machine == other.machine && one.host == other.host
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::world::testing::{Fake, boot};
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn holder(world: &Fake) -> Holder {
        Holder::new(&RunId::new(1, [0; 10]), "p", "run", world)
    }

    /// Held on the fake's boot, for 15 seconds more.
    fn held(world: &Fake) -> Row {
        Row {
            token: 1,
            owner: Some("owner".into()),
            holder: Some(serde_json::to_string(&holder(world)).expect("serialises")),
            until: 1_015_000,
        }
    }

    #[track_caller]
    fn check(row: &Row, world: &Fake, expected: &str) {
        let found = match standing(row, world) {
            Standing::Free => "free".to_string(),
            Standing::Held { left, .. } => format!("held {}", left.as_secs()),
            Standing::Dead { death, .. } => format!("dead {death:?}"),
            Standing::Foreign { .. } => "foreign".into(),
            Standing::Unreadable { problem } => format!("unreadable: {problem}"),
        };
        assert!(found.starts_with(expected), "{found}, not {expected}");
    }

    #[test]
    fn a_lease_lives_until_its_time_is_over_its_process_is_gone_or_its_boot_has_ended() {
        let world = Fake::new();
        let row = held(&world);
        check(&row, &world, "held 15");
        world.pass(14 * SECOND);
        check(&row, &world, "held 1");
        world.pass(SECOND);
        check(&row, &world, "dead Expired(0ns)");
        world.pass(9 * SECOND);
        check(&row, &world, "dead Expired(9s)");

        let world = Fake::new();
        world.set(Presence::Unknown);
        check(&row, &world, "held 15");
        world.set(Presence::Gone);
        check(&row, &world, "dead Gone");

        world.set(Presence::Running);
        world.restart(boot("boot-2"));
        check(&row, &world, "dead Rebooted");
    }

    #[test]
    fn another_machine_is_never_judged_by_our_clock() {
        let world = Fake::new();
        let row = held(&world);
        for elsewhere in [
            Boot {
                machine: "other".into(),
                ..boot("boot-2")
            },
            Boot {
                machine: String::new(),
                ..boot("boot-2")
            },
            Boot {
                host: "clone".into(),
                ..boot("boot-2")
            },
        ] {
            world.restart(elsewhere);
            world.set(Presence::Gone);
            check(&row, &world, "foreign");
            world.pass(100_000 * SECOND);
            check(&row, &world, "foreign");
        }
    }

    #[test]
    fn what_is_not_understood_is_not_free() {
        let world = Fake::new();
        let row = held(&world);
        let with = |change: &dyn Fn(&mut Row)| {
            let mut row = row.clone();
            change(&mut row);
            row
        };
        let free = |row: &mut Row| (row.owner, row.holder) = (None, None);
        check(&with(&free), &world, "free");
        for change in [
            &|row: &mut Row| row.token = 0,
            &|row: &mut Row| row.owner = None,
            &|row: &mut Row| row.holder = None,
            &|row: &mut Row| row.holder = Some(String::new()),
            &|row: &mut Row| row.holder = Some("{\"run\":\"x\"}".into()),
            &|row: &mut Row| row.until = -1,
            &|row: &mut Row| row.until = i64::MAX,
        ] as [&dyn Fn(&mut Row); 7]
        {
            check(&with(change), &world, "unreadable");
        }
    }

    proptest! {
        /// Whatever a row says, nothing panics, and it is free or dead only for a reason that is true.
        #[test]
        fn no_row_is_taken_without_a_reason(
            token in any::<i64>(), until in any::<i64>(), owned in any::<bool>(),
            text in prop_oneof![Just(None), Just(Some(String::new())), ".*".prop_map(Some),
                Just(Some(serde_json::to_string(&holder(&Fake::new())).expect("serialises")))],
        ) {
            let world = Fake::new();
            let row = Row { token, owner: owned.then(|| "me".into()), holder: text, until };
            match standing(&row, world.as_ref()) {
                Standing::Free => prop_assert!(!owned && row.holder.is_none() && token > 0),
                Standing::Dead { .. } => prop_assert!(owned && (0..=1_000_000).contains(&until)),
                Standing::Held { left, .. } => prop_assert!(left <= LONGEST && until > 1_000_000),
                Standing::Foreign { .. } => prop_assert!(false, "there is one machine"),
                Standing::Unreadable { .. } => {}
            }
        }
    }
}
