//! A disk that fails in the middle of a run: `strace` lets system calls of the real binary fail, once or from then on, each in
//! turn. Whatever fails, the run says so, ends with another code than 0, claims nothing that is not on disk, and is gone on with.

use super::{
    asks, everywhere,
    scene::{Case, Left, Scene, Shape},
};
use serde_json::Value as Json;
use std::{
    path::PathBuf,
    process::{Command, Stdio},
};
use windlass_tests::workspace::Ended;

/// No thread of a run of the quickstart makes as many syncs, or as many writes.
const SYNCS: usize = 60;
const WRITES: usize = 400;

/// One system call that fails.
#[derive(Clone, Copy, Debug)]
struct Fault {
    call: &'static str,
    /// Of the journal's log only; else of any file.
    is_journal: bool,
    /// Which one of a thread, from 1.
    number: usize,
    /// And all after it, as of a disk that has died.
    is_lasting: bool,
}

/// How a run with a fault went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    /// The run could not begin.
    Refused,
    /// Nothing that the run needs has failed.
    Nothing,
    /// It stopped there and was gone on with to its end.
    Resumed,
    /// The stage failed, and with it the run, which was undone.
    Failed,
}

impl Fault {
    fn all(call: &'static str, is_journal: bool, most: usize) -> Vec<Self> {
        let one = |number, is_lasting| Self {
            call,
            is_journal,
            number,
            is_lasting,
        };
        // The first ones all, later ones with gaps that grow.
        let numbers = std::iter::successors(Some(1), |number| Some(number + 1 + number / 12));
        numbers
            .take_while(|number| *number <= most)
            .flat_map(|number| [one(number, false), one(number, true)])
            .collect()
    }

    /// Runs the pipeline with it.
    fn run(&self, case: &Case) -> Ended {
        let Self { call, number, .. } = self;
        let and_all_after = if self.is_lasting { "+" } else { "" };
        let run = case.workspace.command(case.run_as_json());
        let mut strace = Command::new("strace");
        strace.args(["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null"]);
        strace.arg(format!("--trace={call}"));
        strace.arg(format!("--inject={call}:error=EIO:when={number}{and_all_after}"));
        if self.is_journal {
            strace.arg("-P").arg(log_of(case));
        }
        strace
            .arg(run.get_program())
            .args(run.get_args())
            .env_clear()
            .current_dir(case.workspace.path(""))
            .stdin(Stdio::null());
        for (name, value) in run.get_envs() {
            strace.env(name, value.expect("it is set"));
        }
        Ended::from(strace.output().expect("strace is there"))
    }

    fn play(&self, scene: Scene, undisturbed: &Left) -> Met {
        let case = scene.set();
        // Grows the journal's log to its length: what fails then is what a run itself writes.
        case.first_stage_only();
        let mut ended = self.run(&case);
        let mut said = vec![ended.said()];
        if ended.code == 0 {
            case.judge(undisturbed, &said);
            return Met::Nothing;
        }
        in_words(&ended);
        if case.runs() == 1 {
            assert_eq!(claims(&ended).count(), 0, "{said:#?}");
            assert!(case.counter.effects().is_empty(), "{said:#?}");
            case.run().expect(0);
            return Met::Refused;
        }
        nothing_claimed(&case, &ended);
        if ended.code == 1 {
            let left = case.left().expect("it has run");
            assert_eq!(left.exit, 1, "{said:#?}");
            assert!(
                left.effects.values().all(|(done, undone)| done == undone),
                "{said:#?}"
            );
            case.run().expect(0);
            return Met::Failed;
        }
        while ended.code != 0 {
            ended = match asks(&ended.said()) {
                Some(stage) => case
                    .workspace
                    .windlass(["resume", "--assume", &format!("{stage}=not-done")]),
                None => case.resume(),
            };
            said.push(ended.said());
            assert!(said.len() < 12, "{said:#?}");
            if ended.said().contains("error[runs.none]") {
                // Its end is on disk, and only that could not be reported.
                break;
            }
        }
        case.judge(undisturbed, &said);
        Met::Resumed
    }
}

/// Where SQLite writes a commit first.
fn log_of(case: &Case) -> PathBuf {
    // Makes the state directory.
    case.workspace
        .windlass(["runs", "list", "--file", super::scene::FILE])
        .expect(0);
    let states = std::fs::read_dir(case.workspace.state().join("windlass")).expect("readable");
    let state = states.flatten().next().expect("that of the pipeline").path();
    state.join("journal.db-wal")
}

/// What is wrong, and whose turn it is.
#[track_caller]
fn in_words(ended: &Ended) {
    let said = ended.said();
    assert!([1, 3, 69].contains(&ended.code), "{} {said}", ended.code);
    assert!(
        said.contains("I/O error") || said.contains("Input/output error"),
        "{said}"
    );
    assert!(said.contains("help") && !said.contains("panicked"), "{said}");
}

/// What the events say has happened is in the journal.
#[track_caller]
fn nothing_claimed(case: &Case, ended: &Ended) {
    let shown = case
        .workspace
        .windlass(["runs", "show", "--file", super::scene::FILE, "--format", "json"])
        .expect(0)
        .json();
    let stages = shown["stages"].as_array().expect("a list");
    for claim in claims(ended) {
        let is_meant = |stage: &&Json| stage["name"] == claim["stage"];
        let known = stages.iter().find(is_meant).expect("it is a stage");
        assert_eq!(known["status"], claim["status"], "{}\n{shown}", ended.said());
    }
    let events = ended.json_lines();
    let last = events.iter().find(|event| event["event"] == "run.finished");
    if let Some(last) = last {
        assert_eq!(last["exit"]["code"], ended.code, "{last}");
        assert_ne!(last["status"], "succeeded", "{last}");
    }
}

/// The stages of which the events say that they have ended.
fn claims(ended: &Ended) -> impl Iterator<Item = Json> {
    let events = ended.json_lines().into_iter();
    events.filter(|event| event["event"] == "stage.finished")
}

/// Every call of these, each in a run of its own.
fn failing(call: &'static str, is_journal: bool, most: usize) {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: needs strace");
        return;
    }
    let scene = Scene {
        shape: Shape::Quickstart,
        fails: false,
    };
    let (undisturbed, _) = scene.undisturbed();
    let faults = Fault::all(call, is_journal, most);
    let met = everywhere(&faults, |fault| fault.play(scene, &undisturbed));
    let count = |wanted: Met| met.iter().filter(|one| **one == wanted).count();
    println!(
        "{call}{}: {} faults, {} runs stopped and gone on with, {} undone, {} that could not begin, {} that it was not needed for; 0 effects done twice",
        if is_journal { " of the journal" } else { "" },
        faults.len(),
        count(Met::Resumed),
        count(Met::Failed),
        count(Met::Refused),
        count(Met::Nothing),
    );
    assert!(count(Met::Resumed) + count(Met::Failed) >= 6, "{met:?}");
    assert_eq!(met.last(), Some(&Met::Nothing), "every call was tried: {met:?}");
    assert!(!is_journal || count(Met::Failed) == 0, "{met:?}");
}

#[test]
fn a_journal_that_cannot_be_synced_ends_the_run_and_it_is_gone_on_with() {
    failing("fdatasync", true, SYNCS);
}

#[test]
fn a_journal_that_cannot_be_written_ends_the_run_and_it_is_gone_on_with() {
    failing("pwrite64", true, WRITES);
}

#[test]
fn a_disk_that_cannot_be_synced_ends_the_run_or_fails_the_stage() {
    failing("fsync", false, SYNCS);
}
