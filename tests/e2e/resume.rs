//! Runs that are killed, paused and resumed: the real binary, killed as the system would at named places.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};
use windlass_tests::workspace::Workspace;

const WINDLASS: &str = env!("CARGO_BIN_EXE_windlass-under-test");

/// The places that a whole quickstart reaches, each as often as it is reached.
fn kill_points() -> Vec<(String, usize)> {
    let mut workspace = Workspace::quickstart(WINDLASS);
    let trace = workspace.path("../trace").display().to_string();
    workspace.set("WINDLASS_FAILPOINT_TRACE", &trace);
    workspace.windlass(["run", "pipelines/quickstart.yaml"]).expect(0);
    let mut points: Vec<(String, usize)> = Vec::new();
    for name in workspace.read("../trace").lines() {
        let before = points.iter().filter(|(known, _)| known == name).count();
        points.push((name.to_string(), before + 1));
    }
    points
}

/// Kills a run at one place and goes on: whatever the crash has hidden is found out without asking a person.
fn killed_at(name: &str, count: usize) {
    let mut workspace = Workspace::quickstart(WINDLASS);
    workspace.set("WINDLASS_FAILPOINT", &format!("{name}:{count}"));
    let killed = workspace.windlass(["run", "pipelines/quickstart.yaml"]);
    // Which commits are shared differs from run to run: a place may not be reached as often again.
    if killed.code == 0 {
        return;
    }
    assert_eq!(killed.code, -1, "{name}:{count}: {}", killed.said());
    workspace.set("WINDLASS_FAILPOINT", "");
    let runs = workspace
        .windlass(["runs", "list", "--file", "pipelines/quickstart.yaml"])
        .expect(0)
        .stdout;
    if runs.is_empty() || runs.contains("succeeded") {
        // Killed before its first record, where nothing has begun, or after its last.
        return;
    }
    let resumed = workspace.windlass(["resume"]);
    assert_eq!(
        resumed.code,
        0,
        "{name}:{count}: {}\n{}",
        killed.said(),
        resumed.said()
    );
    workspace.windlass(["resume"]).expect(65);
}

#[test]
fn a_quickstart_killed_anywhere_is_resumed_to_its_end() {
    let points = kill_points();
    assert!(points.len() > 30, "{points:?}");
    // A process that is killed waits on its disk more than it computes.
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let work = || {
            while let Some((name, count)) = points.get(next.fetch_add(1, Ordering::SeqCst)) {
                killed_at(name, *count);
            }
        };
        (0..4).for_each(|_| drop(scope.spawn(work)));
    });
    println!("{} kill points", points.len());
}

const APPROVAL: &str = "windlass: 1\nname: asks\nstages:\n  first:\n    uses: command\n    with: { argv: [echo, one] }\n    allow: { process: [\"echo one\"] }\n    rollback: never\n  second:\n    needs: [first]\n    uses: command\n    with: { argv: [echo, two] }\n    allow: { process: [\"echo two\"] }\n    approval: { ask: \"go live?\" }\n";

#[test]
fn a_stage_waits_for_a_person() {
    let workspace = Workspace::new(WINDLASS);
    workspace.write("windlass.yaml", APPROVAL);
    let paused = workspace.windlass(["run"]).expect(4);
    assert!(paused.said().contains("go live?") && paused.said().contains("windlass approve"));
    workspace.windlass(["resume"]).expect(4);
    workspace
        .windlass(["approve", "--reason", "looked at it"])
        .expect(0);
    workspace.windlass(["resume"]).expect(0);
    assert!(
        workspace
            .windlass(["journal"])
            .expect(0)
            .stdout
            .contains("looked at it")
    );

    workspace.windlass(["run"]).expect(4);
    workspace.windlass(["reject", "--reason", "not today"]).expect(0);
    // What `first` did is still there, and nobody can undo it.
    let rejected = workspace.windlass(["resume"]).expect(3);
    assert!(rejected.said().contains("not today"), "{}", rejected.said());
}

#[test]
fn a_resume_uses_the_plan_of_the_start_and_finds_its_state_in_another_place() {
    let workspace = Workspace::new(WINDLASS);
    workspace.write("windlass.yaml", APPROVAL);
    workspace.windlass(["run"]).expect(4);
    workspace.windlass(["approve", "--reason", "yes"]).expect(0);
    workspace.write("windlass.yaml", "windlass: 1\nname: other\nstages: {}\n");
    workspace.windlass(["resume"]).expect(0);

    workspace.write("windlass.yaml", APPROVAL);
    workspace.windlass(["run"]).expect(4);
    let moved = workspace.path("../moved");
    let state = std::fs::read_dir(workspace.state().join("windlass")).expect("readable");
    let state = state.flatten().next().expect("one pipeline").path();
    std::fs::rename(state, &moved).expect("moved");
    let moved = moved.display().to_string();
    let told = ["--state-dir", &moved];
    workspace
        .windlass(["approve", "--reason", "yes"].iter().chain(&told))
        .expect(0);
    workspace.windlass(["resume"].iter().chain(&told)).expect(0);
}
