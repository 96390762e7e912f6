//! The crash harness: kills a run at every place at which a crash can make a difference, goes on until it has ended, and compares
//! what is there with what is there when nothing was killed. Effects are counted by the server they happen on.

mod faults;
mod scene;

use scene::{Case, Left, Scene, Shape};
use std::{
    fmt::Debug,
    panic::AssertUnwindSafe,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// A process that is killed waits on its disk more than it computes.
const WORKERS: usize = 4;
/// Nobody has to be asked as often in one run.
const MOST_QUESTIONS: usize = 12;

/// Of the samples.
const SEED: u64 = 0x5eed;

/// Numbers that are the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn one_of(&mut self, places: &[String]) -> String {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let at = usize::try_from(self.0 % places.len().max(1) as u64).expect("below the bound");
        places[at].clone()
    }
}

/// How a case went.
#[derive(Clone, Debug, Default)]
struct Played {
    /// How many processes were killed. A place may not be reached again: which commits are shared differs from run to run.
    kills: usize,
    /// How often a person had to be asked.
    asked: usize,
    /// The places that the process after the first kill has reached.
    reached: Vec<String>,
}

impl Scene {
    /// What is there when nothing is killed, and every place on the way.
    fn undisturbed(self) -> (Left, Vec<String>) {
        let mut case = self.set();
        case.trace();
        let ended = case.run();
        let places = case.traced();
        let left = case.left().expect("it has run");
        let code = if self.fails { 1 } else { 0 };
        assert_eq!(
            (ended.code, left.exit),
            (code, i64::from(code)),
            "{}",
            ended.said()
        );
        let undone = usize::from(self.fails);
        let is_once = |counts: &(usize, usize)| *counts == (1, undone);
        assert!(left.effects.values().all(is_once), "{:?}", left.effects);
        (left, places)
    }

    /// Kills one process after the other at these places, and goes on until the run has ended.
    fn play(self, kills: &[String], undisturbed: &Left) -> Played {
        let mut case = self.set();
        let mut played = Played::default();
        let mut kills = kills.iter();
        case.trace();
        case.arm(kills.next().map(String::as_str));
        let mut said = Vec::new();
        let mut ended = case.run();
        loop {
            said.push(ended.said());
            let reached = case.traced();
            if played.kills == 1 && played.reached.is_empty() {
                played.reached = reached;
            }
            if ended.code == -1 {
                played.kills += 1;
                case.arm(kills.next().map(String::as_str));
                ended = case.resume();
            } else if let Some(stage) = asks(&ended.said()) {
                played.asked += 1;
                assert!(played.asked < MOST_QUESTIONS, "{said:#?}");
                // A copy that was killed has not put anything in its place, and a migration is looked up: once more harms nobody.
                ended = case
                    .workspace
                    .windlass(["resume", "--assume", &format!("{stage}=not-done")]);
            } else {
                break;
            }
        }
        case.judge(undisturbed, &said);
        played
    }
}

impl Scene {
    /// Says how the cases went. How many processes were killed.
    fn tell(self, places: usize, undisturbed: &Left, played: &[Played]) -> usize {
        let killed: usize = played.iter().map(|one| one.kills).sum();
        let asked: usize = played.iter().map(|one| one.asked).sum();
        println!(
            "{:?}, {}: {places} kill points, {killed} kills, {} effects, 0 done twice, 0 runs in an unnamed state; a person was asked {asked} times",
            self.shape,
            if self.fails { "undo" } else { "do" },
            undisturbed.effects.len(),
        );
        killed
    }
}

/// The stage of whose effect nobody knows.
fn asks(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("--assume '")?;
    rest.split_once('=').map(|(stage, _)| stage.to_string())
}

impl Case {
    fn judge(&self, undisturbed: &Left, said: &[String]) {
        let Some(left) = self.left() else {
            // Killed before its first record: nothing has begun.
            assert!(self.counter.effects().is_empty(), "{said:#?}");
            return;
        };
        assert_eq!(&left, undisturbed, "{:#?}\n{said:#?}", self.counter.effects());
        // Killed behind its last record, it has not given the lock back: the next run takes it over.
        let has_ended_before = said.last().is_some_and(|last| last.contains("runs.none"));
        assert!(has_ended_before || self.is_unlocked(), "{said:#?}");
    }
}

/// Plays cases beside each other.
fn all(scene: Scene, undisturbed: &Left, cases: &[Vec<String>]) -> Vec<Played> {
    everywhere(cases, |kills| scene.play(kills, undisturbed))
}

/// Does it with each of them, some beside each other. The first that fails is told.
fn everywhere<C: Debug + Sync, R: Send>(cases: &[C], play: impl Fn(&C) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let played = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some(case) = cases.get(at) else { return };
                    let one = std::panic::catch_unwind(AssertUnwindSafe(|| play(case)));
                    let one = one.unwrap_or_else(|_| panic!("it was {case:?}"));
                    played
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((at, one));
                }
            });
        }
    });
    let mut played = played.into_inner().unwrap_or_else(PoisonError::into_inner);
    played.sort_by_key(|(at, _)| *at);
    played.into_iter().map(|(_, one)| one).collect()
}

/// Every place, each in a run of its own.
fn once_everywhere(scene: Scene) {
    let (undisturbed, places) = scene.undisturbed();
    let cases: Vec<Vec<String>> = places.iter().map(|place| vec![place.clone()]).collect();
    let played = all(scene, &undisturbed, &cases);
    let killed = scene.tell(places.len(), &undisturbed, &played);
    // Which commits are shared differs from run to run, so that the last of a kind may not be reached.
    assert!(killed * 10 >= places.len() * 9, "{killed} of {}", places.len());
}

/// As many runs, each killed two or three times: anywhere at first, then anywhere on the way of a process that goes on.
fn again_and_again(scene: Scene, samples: usize) {
    let (undisturbed, places) = scene.undisturbed();
    let mut random = Random(SEED);
    // What a process reaches that goes on, from a few places.
    let first: Vec<Vec<String>> = (0..8).map(|_| vec![random.one_of(&places)]).collect();
    let resumed = all(scene, &undisturbed, &first);
    let later: Vec<String> = resumed.into_iter().flat_map(|one| one.reached).collect();
    let cases: Vec<Vec<String>> = (0..samples)
        .map(|sample| {
            let mut kills = vec![random.one_of(&places)];
            kills.extend((0..=sample % 2).map(|_| random.one_of(&later)));
            kills
        })
        .collect();
    let planned: usize = cases.iter().map(Vec::len).sum();
    let played = all(scene, &undisturbed, &cases);
    println!("seed {SEED:#x}, {samples} runs at depth 2 and 3:");
    let killed = scene.tell(planned, &undisturbed, &played);
    // Where little is left to do, a later place is not reached.
    assert!(killed * 10 >= planned * 6, "{killed} of {planned}");
}

const DO: bool = false;
const UNDO: bool = true;

fn scene(shape: Shape, fails: bool) -> Scene {
    Scene { shape, fails }
}

#[test]
fn a_quickstart_killed_anywhere_ends_as_if_it_had_not_been() {
    once_everywhere(scene(Shape::Quickstart, DO));
}

#[test]
fn a_quickstart_killed_anywhere_is_undone_as_if_it_had_not_been() {
    once_everywhere(scene(Shape::Quickstart, UNDO));
}

#[test]
fn twelve_stages_killed_anywhere_end_as_if_they_had_not_been() {
    once_everywhere(scene(Shape::Fan, DO));
}

#[test]
fn twelve_stages_killed_anywhere_are_undone_as_if_they_had_not_been() {
    once_everywhere(scene(Shape::Fan, UNDO));
}

#[test]
fn four_stages_killed_again_and_again_end_as_if_they_had_not_been() {
    again_and_again(scene(Shape::Diamond, DO), 800);
}

#[test]
fn twelve_stages_killed_again_and_again_end_as_if_they_had_not_been() {
    again_and_again(scene(Shape::Fan, DO), 200);
}

#[test]
fn four_stages_killed_again_and_again_are_undone_as_if_they_had_not_been() {
    again_and_again(scene(Shape::Diamond, UNDO), 800);
}

#[test]
fn twelve_stages_killed_again_and_again_are_undone_as_if_they_had_not_been() {
    again_and_again(scene(Shape::Fan, UNDO), 200);
}

/// Whichever of twelve stages fails, after however many of its effects, and killed on the way or not: the run has failed.
#[test]
fn a_run_whose_stage_has_failed_never_succeeds() {
    let fan = scene(Shape::Fan, DO);
    let (_, places) = fan.undisturbed();
    let mut random = Random(SEED);
    for part in Shape::Fan.parts() {
        for after in 0..=2 {
            let mut case = fan.set_with(Some((&part.name, after)));
            case.arm((after == 1).then(|| random.one_of(&places)).as_deref());
            let mut ended = case.run();
            if ended.code == -1 {
                case.arm(None);
                ended = case.resume();
            }
            let said = format!("{} after {after}: {}", part.name, ended.said());
            if said.contains("runs.none") {
                continue;
            }
            assert_eq!(ended.code, 1, "all of it can be undone; {said}");
            let effects = case.counter.effects();
            assert!(
                effects.values().all(|effect| effect.done == effect.undone),
                "{said}"
            );
        }
    }
}
