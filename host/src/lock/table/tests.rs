//! The table under a clock that stands still until a test moves it.

use super::*;
use crate::{
    lock::{LENGTH, world::Presence, world::testing::Fake},
    name::RunId,
};
use proptest::prelude::*;

const GROUP: &str = "deploy-production";

/// A state directory, and the only world that its tables know.
struct Site {
    directory: tempfile::TempDir,
    world: Arc<Fake>,
}

impl Site {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            world: Fake::new(),
        }
    }

    fn table(&self) -> Table {
        Table::open(self.directory.path(), self.world.clone()).expect("opens")
    }

    fn candidate(&self, owner: &str) -> Candidate {
        Candidate {
            owner: owner.into(),
            holder: Holder::new(&RunId::new(1, [0; 10]), owner, "run", self.world.as_ref()),
            length: LENGTH,
        }
    }

    /// What the table says to `owner`, in a word or two.
    fn ask(&self, owner: &str, stay: Option<Duration>) -> (String, Option<Fence>) {
        let answer = self
            .table()
            .take(GROUP, &self.candidate(owner), stay)
            .expect("usable");
        match answer {
            Answer::Taken { fence, from, .. } => {
                let from = from.map_or(String::new(), |(holder, death)| {
                    format!(" from {} {death:?}", holder.pipeline)
                });
                (format!("taken{from}"), Some(fence))
            }
            Answer::Blocked(Obstacle::Lock(Standing::Held { holder, .. })) => {
                (format!("held by {}", holder.pipeline), None)
            }
            Answer::Blocked(Obstacle::Lock(other)) => (format!("{other:?}"), None),
            Answer::Blocked(Obstacle::Queue { ahead, next }) => {
                (format!("{ahead} ahead, next {}", next.pipeline), None)
            }
        }
    }

    #[track_caller]
    fn check(&self, owner: &str, stay: Option<Duration>, expected: &str) -> Option<Fence> {
        let (said, fence) = self.ask(owner, stay);
        assert!(said.starts_with(expected), "{said}, not {expected}");
        fence
    }

    #[track_caller]
    fn take(&self, owner: &str) -> Fence {
        self.check(owner, None, "taken").expect("taken")
    }

    fn damage(&self, sql: &str) {
        self.table().connection.execute_batch(sql).expect("changes");
    }
}

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

#[test]
fn a_lock_has_one_holder_and_its_token_grows() {
    let site = Site::new();
    let first = site.take("a");
    assert_eq!(first.token, 1);
    site.check("b", None, "held by a");
    site.table().free(&first).expect("usable");
    let second = site.take("b");
    assert_eq!(second.token, 2);
    site.table().free(&first).expect("usable");
    site.check("c", None, "held by b");
    let other = site
        .table()
        .take("another", &site.candidate("c"), None)
        .expect("usable");
    assert!(matches!(other, Answer::Taken { .. }), "groups are apart");
}

#[test]
fn a_dead_holder_is_followed_without_force_and_cannot_come_back() {
    for (death, expected) in [
        ("expires", "taken from a Expired"),
        ("ends", "taken from a Gone"),
        ("reboots", "taken from a Rebooted"),
    ] {
        let site = Site::new();
        let old = site.take("a");
        match death {
            "expires" => site.world.pass(LENGTH),
            "ends" => site.world.set(Presence::Gone),
            _ => site.world.restart(crate::lock::world::testing::boot("boot-2")),
        }
        let new = site.check("b", None, expected).expect("taken");
        site.world.set(Presence::Running);
        assert_eq!(new.token, old.token + 1);
        let until = Duration::from_secs(9_999);
        assert!(!site.table().renew(&old, until).expect("usable"), "{death}");
        site.table().free(&old).expect("usable");
        site.check("c", None, "held by b");
        assert!(
            site.table()
                .renew(&new, site.world.now().since_boot)
                .expect("usable")
        );
    }
}

#[test]
fn an_expired_lease_that_nobody_took_can_be_renewed() {
    let site = Site::new();
    let fence = site.take("a");
    // The machine sleeps for a day: its clock of the boot goes on.
    site.world.pass(Duration::from_secs(86_400));
    let until = site.world.now().since_boot + LENGTH;
    assert!(site.table().renew(&fence, until).expect("usable"));
    site.check("b", None, "held by a");
}

#[test]
fn who_waits_is_served_in_order_and_the_dead_leave_the_queue() {
    let site = Site::new();
    let fence = site.take("a");
    for owner in ["b", "c", "d"] {
        site.check(owner, MINUTE, "held by a");
    }
    let waiting = |site: &Site| {
        let locks = site.table().locks().expect("readable");
        let names = locks[0].waiting.iter().map(|holder| holder.pipeline.clone());
        names.collect::<Vec<_>>()
    };
    assert_eq!(waiting(&site), ["b", "c", "d"]);
    site.table().free(&fence).expect("usable");
    site.check("d", MINUTE, "2 ahead, next b");
    site.check("e", None, "3 ahead, next b");
    // b asks no more; the others do.
    site.world.pass(Duration::from_secs(59));
    site.check("c", MINUTE, "1 ahead, next b");
    site.check("d", MINUTE, "2 ahead, next b");
    site.world.pass(Duration::from_secs(2));
    site.check("d", MINUTE, "1 ahead, next c");
    let fence = site.check("c", MINUTE, "taken").expect("taken");
    assert_eq!(waiting(&site), ["d"]);
    site.check("b", MINUTE, "held by c");
    assert_eq!(waiting(&site), ["d", "b"], "who was away for too long is last");
    site.table().leave("d").expect("usable");
    site.table().free(&fence).expect("usable");
    site.check("b", MINUTE, "taken");
}

#[test]
fn a_row_that_nobody_can_read_blocks_and_stays_as_it_is() {
    for damage in [
        "UPDATE lock SET holder = 'garbage'",
        "UPDATE lock SET owner = NULL",
        "UPDATE lock SET token = -5",
        "UPDATE lock SET until = 9223372036854775807",
    ] {
        let site = Site::new();
        let fence = site.take("a");
        site.damage(damage);
        let row = || select(&site.table().connection, GROUP).expect("readable");
        let before = row();
        site.check("b", MINUTE, "Unreadable");
        site.world.pass(LENGTH * 4);
        site.check("b", None, "Unreadable");
        let refused = site.table().release(GROUP, false).expect("usable");
        assert!(
            matches!(refused, Released::Refused(Standing::Unreadable { .. })),
            "{refused:?}"
        );
        assert_eq!(row(), before, "{damage}");
        assert_eq!(site.table().release(GROUP, true).expect("usable"), Released::Done);
        // Nobody waits any more.
        site.table().leave("b").expect("usable");
        let taken = site.take("c");
        assert_ne!((taken.token, &taken.owner), (fence.token, &fence.owner));
    }
}

#[test]
fn release_takes_from_the_dead_only_unless_forced() {
    let site = Site::new();
    assert_eq!(
        site.table().release(GROUP, false).expect("usable"),
        Released::WasFree
    );
    let fence = site.take("a");
    let refused = site.table().release(GROUP, false).expect("usable");
    assert!(
        matches!(refused, Released::Refused(Standing::Held { .. })),
        "{refused:?}"
    );
    assert_eq!(site.table().release(GROUP, true).expect("usable"), Released::Done);
    assert!(
        !site
            .table()
            .renew(&fence, Duration::from_secs(9_999))
            .expect("usable")
    );
    assert_eq!(
        site.table().release(GROUP, true).expect("usable"),
        Released::WasFree
    );
    let next = site.take("b");
    assert!(next.token > fence.token);
    site.world.pass(LENGTH);
    assert_eq!(
        site.table().release(GROUP, false).expect("usable"),
        Released::Done
    );
}

#[test]
fn another_machines_lock_is_not_judged() {
    let site = Site::new();
    site.take("a");
    let mut elsewhere = crate::lock::world::testing::boot("boot-2");
    elsewhere.host = "elsewhere".into();
    site.world.restart(elsewhere);
    site.world.pass(Duration::from_secs(1_000_000));
    site.check("b", None, "Foreign");
    let refused = site.table().release(GROUP, false).expect("usable");
    assert!(
        matches!(refused, Released::Refused(Standing::Foreign { .. })),
        "{refused:?}"
    );
    assert_eq!(site.table().release(GROUP, true).expect("usable"), Released::Done);
}

/// One step of any of three processes, or of the world.
#[derive(Clone, Debug)]
enum Step {
    Ask { who: usize, patient: bool },
    Beat(usize),
    Free(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize, any::<bool>()).prop_map(|(who, patient)| Step::Ask { who, patient }),
        3 => (0..3usize).prop_map(Step::Beat),
        1 => (0..3usize).prop_map(Step::Free),
        2 => (0..20u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However three processes take turns and stop for any time, at most one passes the fence, tokens only grow, and nobody
    /// takes the lock of a holder whose lease has time left.
    #[test]
    fn at_most_one_passes_the_fence(steps in proptest::collection::vec(step(), 1..40)) {
        let site = Site::new();
        let mut table = site.table();
        let mut held: [Option<(Fence, Duration)>; 3] = [const { None }; 3];
        let mut last_token = 0;
        for (number, step) in steps.into_iter().enumerate() {
            let now = site.world.now().since_boot;
            match step {
                Step::Pass(seconds) => site.world.pass(Duration::from_secs(seconds)),
                Step::Ask { who, patient } => {
                    // A process asks for each run once; a new acquisition has a new owner.
                    let owner = format!("{who}-{number}");
                    let answer = table.take(GROUP, &site.candidate(&owner), patient.then_some(LENGTH));
                    if let Answer::Taken { fence, until, .. } = answer.expect("usable") {
                        prop_assert!(fence.token > last_token);
                        last_token = fence.token;
                        for (_, end) in held.iter().flatten() {
                            prop_assert!(*end <= now, "taken while a lease had time left");
                        }
                        held[who] = Some((fence, until));
                    }
                }
                Step::Beat(who) => {
                    if let Some((fence, until)) = &mut held[who] {
                        match table.renew(fence, now + LENGTH).expect("usable") {
                            true => *until = now + LENGTH,
                            false => held[who] = None,
                        }
                    }
                }
                Step::Free(who) => {
                    if let Some((fence, _)) = held[who].take() {
                        table.free(&fence).expect("usable");
                    }
                }
            }
            let passes = |fence: &Fence| {
                let row = select(&table.connection, GROUP).expect("readable");
                row.is_some_and(|row| {
                    row.token == fence.token.cast_signed() && row.owner.as_deref() == Some(&fence.owner)
                })
            };
            prop_assert!(held.iter().flatten().filter(|(fence, _)| passes(fence)).count() <= 1);
        }
    }
}
