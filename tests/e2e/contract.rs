//! The command line's promises: exit codes, streams, shapes.

use windlass_tests::workspace::Workspace;

pub(crate) fn workspace() -> Workspace {
    Workspace::quickstart(env!("CARGO_BIN_EXE_windlass-under-test"))
}

fn empty() -> Workspace {
    Workspace::new(env!("CARGO_BIN_EXE_windlass-under-test"))
}

/// A pipeline of one native program, which is the simplest stage that can do anything.
fn command(argv: &str, allow: &str) -> String {
    format!(
        "windlass: 1\nname: test\nstages:\n  one:\n    uses: command\n    with: {{ argv: {argv} }}\n    allow: {{ {allow} }}\n"
    )
}

#[test]
fn wrong_usage_is_64() {
    empty().windlass(["run", "--no-such-flag"]).expect(64);
    empty().windlass(["no-such-command"]).expect(64);
    empty().windlass(["run", "--jobs", "0"]).expect(64);
    empty().windlass(["--version"]).expect(0);
    empty().windlass(["run", "missing.yaml", "--help"]).expect(0);
}

#[test]
fn invalid_files_are_65() {
    let workspace = empty();
    workspace.windlass(["run", "missing.yaml"]).expect(65);
    workspace.write("a.yaml", "windlass: 1\nname: x\nstags: {}\n");
    let ended = workspace.windlass(["validate", "a.yaml"]).expect(65);
    assert!(
        ended.stderr.contains("a.yaml:3:1") && ended.stdout.is_empty(),
        "{}",
        ended.said()
    );
}

#[test]
fn a_failed_stage_is_never_0() {
    let workspace = empty();
    workspace.write("a.yaml", &command("[\"false\"]", "process: [\"false\"]"));
    let ended = workspace.windlass(["run", "a.yaml"]);
    // A native program may have changed anything before it failed: an operator has to look.
    assert!([1, 3].contains(&ended.code), "{}", ended.said());
    workspace.write(
        "a.yaml",
        &command("[no-such-program]", "process: [no-such-program]"),
    );
    workspace.windlass(["run", "a.yaml"]).expect(1);
}

#[test]
fn a_denial_is_77_and_starts_nothing() {
    let workspace = empty();
    workspace.write("a.yaml", &command("[touch, made]", ""));
    let ended = workspace.windlass(["run", "a.yaml"]).expect(77);
    assert!(
        ended.stderr.contains("process: [\"touch made\"]"),
        "{}",
        ended.stderr
    );
    assert!(!workspace.path("made").exists());
}

#[test]
fn the_runs_own_time_is_124() {
    let workspace = empty();
    workspace.write("a.yaml", &command("[sleep, \"60\"]", "process: [\"sleep 60\"]"));
    workspace
        .windlass(["run", "a.yaml", "--timeout", "300ms"])
        .expect(124);
}

#[test]
fn the_first_signal_is_an_orderly_stop() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let workspace = empty();
        workspace.write("a.yaml", &command("[sleep, \"60\"]", "process: [\"sleep 60\"]"));
        let mut child = workspace.command(["run", "a.yaml", "--progress", "json"]);
        let mut child = child
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
        lines
            .find(|line| line.as_ref().is_ok_and(|line| line.contains("stage.started")))
            .expect("it starts")
            .expect("readable");
        let id = child.id().to_string();
        std::process::Command::new("kill")
            .args([format!("-{signal}"), id])
            .status()
            .expect("kill is there");
        let last = lines.map_while(Result::ok).last().expect("it says how it ended");
        assert!(
            last.contains("run.finished") && last.contains(&format!("\"code\":{code}")),
            "{last}"
        );
        assert_eq!(child.wait().expect("ends").code(), Some(code));
    }
}

#[test]
fn json_progress_is_one_object_a_line_on_standard_output() {
    let ended = workspace()
        .windlass(["run", "pipelines/quickstart.yaml", "--progress", "json"])
        .expect(0);
    let events = ended.json_lines();
    let names: Vec<&str> = events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .collect();
    assert_eq!(
        (names.first(), names.last()),
        (Some(&"run.started"), Some(&"run.finished"))
    );
    assert_eq!(names.iter().filter(|name| **name == "stage.finished").count(), 5);
    assert!(
        events
            .iter()
            .all(|event| event["v"] == 1 && event["run"].is_string() && event["ts"].is_string())
    );
    assert_eq!(
        events.last().map(|event| event["exit"]["code"].clone()),
        Some(0.into())
    );
}

#[test]
fn junit_has_a_case_for_each_stage() {
    let workspace = workspace();
    workspace
        .windlass(["run", "pipelines/quickstart.yaml", "--report", "junit=report.xml"])
        .expect(0);
    assert_eq!(workspace.read("report.xml").matches("<testcase ").count(), 5);
}

#[test]
fn plans_say_what_would_happen_and_change_nothing() {
    let workspace = workspace();
    let plan = workspace
        .windlass(["plan", "pipelines/quickstart.yaml", "--format", "json"])
        .expect(0)
        .json();
    assert_eq!(plan["stages"].as_array().map(Vec::len), Some(5));
    assert!(
        plan["digest"]
            .as_str()
            .is_some_and(|digest| digest.starts_with("sha256:"))
    );
    workspace
        .windlass(["plan", "pipelines/quickstart.yaml", "--detailed-exitcode"])
        .expect(2);
    assert!(!workspace.path("target/quickstart/data/app.db").exists());
}

#[test]
fn plugins_can_be_inspected_without_running_them() {
    let listed = empty()
        .windlass(["plugin", "list", "--format", "json"])
        .expect(0)
        .json();
    let names: Vec<&str> = listed
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|plugin| plugin["id"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "backup",
            "build",
            "command",
            "health-check",
            "migrate",
            "restore",
            "vault"
        ]
    );
    for plugin in listed.as_array().into_iter().flatten() {
        let states: Vec<&str> = plugin["imports"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|import| import["state"].as_str())
            .collect();
        assert!(!states.contains(&"undeclared"), "{plugin}");
        assert!(
            plugin["requests"]
                .as_array()
                .into_iter()
                .flatten()
                .all(|row| row["reason"].as_str().is_some_and(|reason| reason.len() > 10))
        );
    }
    let page = empty().windlass(["plugin", "inspect", "vault"]).expect(0).stdout;
    assert!(
        page.contains("secrets.reveal") && page.contains("the plugin sees the secret in plain text"),
        "{page}"
    );
}

#[test]
fn only_skip_and_from_choose_stages() {
    let workspace = workspace();
    let ran = |arguments: &[&str]| {
        let all = ["run", "pipelines/quickstart.yaml", "--progress", "json"]
            .iter()
            .chain(arguments);
        let ended = workspace.windlass(all).expect(0);
        let started = ended
            .json_lines()
            .into_iter()
            .filter(|event| event["event"] == "stage.started");
        started
            .filter_map(|event| event["stage"].as_str().map(String::from))
            .collect::<Vec<_>>()
    };
    assert_eq!(ran(&["--only", "build"]), ["build"]);
    let mut skipped = ran(&["--skip", "backup"]);
    skipped.sort();
    assert_eq!(skipped, ["build", "fetch", "health-check", "migrate"]);
    let unknown = workspace
        .windlass(["run", "pipelines/quickstart.yaml", "--only", "bild"])
        .expect(64);
    assert!(
        unknown.stderr.contains("did you mean `build`?"),
        "{}",
        unknown.stderr
    );
}
