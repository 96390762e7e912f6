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

/// No thread of a run of the quickstart makes as many of one call.
const MOST: usize = 40;

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
    /// Nothing that the run needs has failed.
    Nothing,
    /// It stopped there and was gone on with to its end.
    Resumed,
    /// The stage failed, and with it the run, which was undone.
    Failed,
}

impl Fault {
    fn all(call: &'static str, is_journal: bool) -> Vec<Self> {
        let one = |number, is_lasting| Self {
            call,
            is_journal,
            number,
            is_lasting,
        };
        (1..=MOST)
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
        let mut ended = self.run(&case);
        let mut said = vec![ended.said()];
        if ended.code == 0 {
            case.judge(undisturbed, &said);
            return Met::Nothing;
        }
        in_words(&ended);
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
    let events = ended.json_lines();
    let shown = case
        .workspace
        .windlass(["runs", "show", "--file", super::scene::FILE, "--format", "json"]);
    let finished = |event: &&Json| event["event"] == "stage.finished";
    if shown.code != 0 {
        assert!(!events.iter().any(|event| finished(&event)), "{}", ended.said());
        return;
    }
    let shown = shown.json();
    let stages = shown["stages"].as_array().expect("a list");
    for event in events.iter().filter(finished) {
        let is_meant = |stage: &&Json| stage["name"] == event["stage"];
        let known = stages.iter().find(is_meant).expect("it is a stage");
        assert_eq!(known["status"], event["status"], "{}\n{shown}", ended.said());
    }
    if let Some(last) = events.iter().find(|event| event["event"] == "run.finished") {
        assert_eq!(last["exit"]["code"], ended.code, "{last}");
        assert_ne!(last["status"], "succeeded", "{last}");
    }
}

/// Every call of these, each in a run of its own.
fn failing(call: &'static str, is_journal: bool) {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: needs strace");
        return;
    }
    let scene = Scene {
        shape: Shape::Quickstart,
        fails: false,
    };
    let (undisturbed, _) = scene.undisturbed();
    let faults = Fault::all(call, is_journal);
    let met = everywhere(&faults, |fault| fault.play(scene, &undisturbed));
    let count = |wanted: Met| met.iter().filter(|one| **one == wanted).count();
    println!(
        "{call}{}: {} faults, {} runs stopped and gone on with, {} undone, {} that it was not needed for; 0 effects done twice",
        if is_journal { " of the journal" } else { "" },
        faults.len(),
        count(Met::Resumed),
        count(Met::Failed),
        count(Met::Nothing),
    );
    assert!(count(Met::Resumed) + count(Met::Failed) >= 6, "{met:?}");
    assert_eq!(met.last(), Some(&Met::Nothing), "every call was tried: {met:?}");
    assert!(!is_journal || count(Met::Failed) == 0, "{met:?}");
}

#[test]
fn a_journal_that_cannot_be_synced_ends_the_run_and_it_is_gone_on_with() {
    failing("fdatasync", true);
}

#[test]
fn a_journal_that_cannot_be_written_ends_the_run_and_it_is_gone_on_with() {
    failing("pwrite64", true);
}

#[test]
fn a_disk_that_cannot_be_synced_ends_the_run_or_fails_the_stage() {
    failing("fsync", false);
}
