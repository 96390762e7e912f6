//! The command line's promises: streams and shapes.

use windlass_tests::workspace::Workspace;

pub(crate) fn workspace() -> Workspace {
    Workspace::quickstart(env!("CARGO_BIN_EXE_windlass-under-test"))
}

pub(crate) fn empty() -> Workspace {
    Workspace::new(env!("CARGO_BIN_EXE_windlass-under-test"))
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
            "deploy",
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
