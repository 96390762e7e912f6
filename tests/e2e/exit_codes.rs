//! The exit codes, each reached by a real command and told alike by the process, the events, JUnit and the history.
//!
//! 3, 4 and 75 (a state that is not clean, a paused run, a lock that is held) are shown where those are tested.

use super::contract::{empty, workspace};
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
};
use windlass_tests::workspace::{Ended, Workspace};

const QUICKSTART: &str = "pipelines/quickstart.yaml";

/// With everything that says how it ended.
const RUN: [&str; 8] = [
    "run",
    "a.yaml",
    "--progress",
    "json",
    "--report",
    "junit=report.xml",
    "--report",
    "json=report.json",
];

/// A pipeline of one native program, which is the simplest stage that can do anything.
fn command(argv: &str, allow: &str) -> String {
    format!(
        "windlass: 1\nname: test\nstages:\n  one:\n    uses: command\n    with: {{ argv: {argv} }}\n    allow: {{ {allow} }}\n"
    )
}

/// One migration of the database that the environment names as `DB`; `sql` is what is granted.
fn migration(sql: &str) -> String {
    format!(
        "windlass: 1\nname: test\ndirectories: {{ data: data }}\nsecrets: {{ db: env://DB }}\nstages:\n  one:\n    uses: migrate\n    with: {{ url: \"${{{{ secrets.db }}}}\", directory: migrations }}\n    allow:\n      secrets: {{ use: [db] }}\n      sql: [\"{sql}\"]\n      files: {{ /workspace/migrations: ro, /mnt/data: rw }}\n"
    )
}

/// Runs `a.yaml`, which has to start, and compares what each of its readers is told.
#[track_caller]
fn check(workspace: &Workspace, text: &str, more: &[&str], code: u8, reason: &str) -> Ended {
    workspace.write("a.yaml", text);
    let ended = workspace.windlass(RUN.iter().chain(more));
    told_alike(workspace, &ended, code, reason);
    ended
}

#[track_caller]
fn told_alike(workspace: &Workspace, ended: &Ended, code: u8, reason: &str) {
    assert_eq!(ended.code, i32::from(code), "{}", ended.said());
    let exit = json!({ "code": code, "reason": reason });
    let last = ended.json_lines().pop().expect("events");
    assert_eq!(
        (&last["event"], &last["exit"]),
        (&json!("run.finished"), &exit),
        "{last}"
    );
    let junit = workspace.read("report.xml");
    for (name, value) in [("exit.code", code.to_string()), ("exit.reason", reason.into())] {
        let property = format!("<property name=\"{name}\" value=\"{value}\"/>");
        assert!(junit.contains(&property), "{property} in\n{junit}");
    }
    let report: serde_json::Value = serde_json::from_str(&workspace.read("report.json")).expect("JSON");
    assert_eq!(report["exit"], exit);
    let shown = workspace
        .windlass(["runs", "show", "--format", "json", "--file", "a.yaml"])
        .expect(0);
    assert_eq!(shown.json()["exit"], exit);
}

#[test]
fn success_is_0() {
    check(
        &empty(),
        &command("[\"true\"]", "process: [\"true\"]"),
        &[],
        0,
        "succeeded",
    );
    empty().windlass(["--version"]).expect(0);
    empty().windlass(["run", "missing.yaml", "--help"]).expect(0);
}

#[test]
fn a_failure_that_left_nothing_is_1() {
    let text = command("[no-such-program]", "process: [no-such-program]");
    check(&empty(), &text, &[], 1, "failed");
}

#[test]
fn a_program_that_fails_is_never_0() {
    let workspace = empty();
    workspace.write("a.yaml", &command("[\"false\"]", "process: [\"false\"]"));
    let ended = workspace.windlass(["run", "a.yaml"]);
    // A native program may have changed anything before it failed: an operator has to look.
    assert!([1, 3].contains(&ended.code), "{}", ended.said());
}

#[test]
fn a_plan_with_changes_is_2_and_one_without_is_0() {
    let mut workspace = empty();
    workspace.set("DB", "sqlite:///mnt/data/app.db");
    workspace.write("migrations/0001_a.sql", "create table a (id integer);\n");
    workspace.write("a.yaml", &migration("sqlite:///mnt/data/app.db"));
    let plan = |code| {
        workspace
            .windlass(["plan", "a.yaml", "--detailed-exitcode"])
            .expect(code)
    };
    plan(2);
    workspace.windlass(["run", "a.yaml"]).expect(0);
    plan(0);
    workspace.windlass(["plan", "a.yaml"]).expect(0);
}

#[test]
fn wrong_usage_is_64() {
    for arguments in [
        &["run", "--no-such-flag"][..],
        &["no-such-command"],
        &["run", "--jobs", "0"],
        &["plan", "--progress", "json"],
        &["runs"],
    ] {
        empty().windlass(arguments).expect(64);
    }
    let unknown = workspace()
        .windlass(["run", QUICKSTART, "--only", "bild"])
        .expect(64);
    assert!(
        unknown.stderr.contains("did you mean `build`?"),
        "{}",
        unknown.said()
    );
}

#[test]
fn invalid_files_are_65() {
    let workspace = empty();
    workspace.windlass(["run", "missing.yaml"]).expect(65);
    workspace.write("a.yaml", "windlass: 1\nname: x\nstags: {}\n");
    for command in ["validate", "plan", "run"] {
        let ended = workspace.windlass([command, "a.yaml"]).expect(65);
        assert!(
            ended.stderr.contains("a.yaml:3:1") && ended.stdout.is_empty(),
            "{command}: {}",
            ended.said()
        );
    }
    workspace.write(
        "a.yaml",
        &command("[\"true\"]", "process: [\"true\"]").replace("command", "./a.wasm"),
    );
    workspace.write("a.wasm", "not a component");
    workspace.windlass(["run", "a.yaml"]).expect(65);
}

#[test]
fn a_service_that_is_not_there_is_69() {
    let mut workspace = empty();
    workspace.write("migrations/0001_a.sql", "create table a (id integer);\n");
    let database = format!("postgres://127.0.0.1:{}/app", closed_port());
    workspace.set("DB", &database.replace("//", "//user:the-password@"));
    let ended = check(&workspace, &migration(&database), &[], 69, "unavailable");
    assert!(ended.stdout.contains("sql.unreachable"), "{}", ended.stdout);
}

#[test]
fn a_denial_before_the_start_is_77_and_starts_nothing() {
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
fn a_denial_at_a_call_is_77() {
    let mut workspace = empty();
    workspace.write("migrations/0001_a.sql", "create table a (id integer);\n");
    // Which database it is nobody knows before the stage has the secret.
    workspace.set("DB", "sqlite:///mnt/data/other.db");
    check(
        &workspace,
        &migration("sqlite:///mnt/data/app.db"),
        &[],
        77,
        "denied",
    );
    assert!(!workspace.path("data/other.db").exists());
}

#[test]
fn the_runs_own_time_is_124() {
    let text = command("[sleep, \"60\"]", "process: [\"sleep 60\"]");
    check(&empty(), &text, &["--timeout", "300ms"], 124, "timed-out");
}

#[test]
fn the_first_signal_is_an_orderly_stop() {
    for (signal, code, reason) in [("INT", 130, "interrupted"), ("TERM", 143, "terminated")] {
        let workspace = empty();
        workspace.write("a.yaml", &command("[sleep, \"60\"]", "process: [\"sleep 60\"]"));
        let mut child = workspace
            .command(RUN)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdout = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        while !stdout.contains("stage.started") {
            let read = lines.read_line(&mut stdout).expect("readable");
            assert!(read > 0, "it ended before it started: {stdout}");
        }
        Command::new("kill")
            .args([format!("-{signal}"), child.id().to_string()])
            .status()
            .expect("kill is there");
        lines.read_to_string(&mut stdout).expect("it says how it ended");
        let status = child.wait().expect("ends");
        let ended = Ended {
            code: status.code().unwrap_or(-1),
            stdout,
            stderr: String::new(),
        };
        told_alike(&workspace, &ended, code, reason);
    }
}

/// Whichever stage of the quickstart fails: the run does too, names it, and nothing that needs it starts.
#[test]
fn no_stage_can_fail_and_the_run_succeed() {
    let denying = format!("http://127.0.0.1:{}", vault_that_denies());
    type Spoil = fn(&Workspace);
    let cases: [(&str, Spoil, &[&str]); 5] = [
        ("fetch", with_vault, &["migrate", "health-check", "backup"]),
        (
            "build",
            with_absolute_link,
            &["migrate", "health-check", "backup"],
        ),
        ("migrate", with_broken_migration, &["health-check", "backup"]),
        ("health-check", with_wrong_expectation, &["backup"]),
        ("backup", with_file_for_directory, &[]),
    ];
    for (stage, spoil, after) in cases {
        let mut workspace = workspace();
        spoil(&workspace);
        workspace.set("VAULT_ADDR", &denying);
        workspace.set("USE_VAULT", if stage == "fetch" { "true" } else { "false" });
        let ended = workspace.windlass(["run", QUICKSTART, "--progress", "json"]);
        assert!([1, 3].contains(&ended.code), "{stage}: {}", ended.said());
        let events = ended.json_lines();
        let stages = |event: &str, status: Option<&str>| -> Vec<String> {
            let chosen = events.iter().filter(|one| one["event"] == event);
            let chosen = chosen.filter(|one| status.is_none_or(|status| one["status"] == status));
            chosen
                .filter_map(|one| one["stage"].as_str().map(String::from))
                .collect()
        };
        assert_eq!(
            stages("stage.finished", Some("failed")),
            [stage],
            "{}",
            ended.said()
        );
        let started = stages("stage.started", None);
        assert!(
            after.iter().all(|later| !started.iter().any(|one| one == later)),
            "{stage}: {started:?}"
        );
        let last = events.last().expect("events");
        assert_ne!(last["status"], "succeeded");
        assert_eq!(last["exit"]["code"], ended.code);
    }
}

fn edit(workspace: &Workspace, from: &str, to: &str) {
    let text = workspace.read(QUICKSTART);
    assert!(text.contains(from), "the quickstart has {from:?}");
    workspace.write(QUICKSTART, &text.replacen(from, to, 1));
}

fn with_vault(workspace: &Workspace) {
    let address = "      address: \"${{ env.VAULT_ADDR }}\"\n";
    edit(
        workspace,
        address,
        &format!("{address}      auth: {{ token: some-token }}\n"),
    );
    edit(
        workspace,
        "    allow:\n",
        "    allow:\n      http: [\"${{ env.VAULT_ADDR }}\"]\n",
    );
}

fn with_absolute_link(workspace: &Workspace) {
    let link = workspace.path("pipelines/quickstart/app/link");
    std::os::unix::fs::symlink("/etc/hostname", link).expect("made");
}

fn with_broken_migration(workspace: &Workspace) {
    workspace.write(
        "pipelines/quickstart/migrations/0004_broken.sql",
        "create tabel x;\n",
    );
}

fn with_wrong_expectation(workspace: &Workspace) {
    edit(workspace, "equals: 1", "equals: 2");
    edit(workspace, "delay: 1s", "delay: 10ms");
}

fn with_file_for_directory(workspace: &Workspace) {
    workspace.write("target/quickstart/backups", "in the way");
}

/// A port on which nobody listens.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// Answers 403 to whatever it is asked, as long as the test lives.
fn vault_that_denies() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || listener.incoming().flatten().for_each(deny));
    port
}

fn deny(mut stream: TcpStream) {
    let mut lines = BufReader::new(&mut stream).lines().map_while(Result::ok);
    // The requests are GETs: they end with the empty line.
    let _ = lines.find(String::is_empty);
    let body = "{\"errors\":[\"permission denied\"]}";
    let head = format!(
        "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    // Whoever hangs up has heard enough.
    let _ = stream.write_all((head + body).as_bytes());
}

#[test]
fn a_migration_says_itself_that_there_is_no_way_back() {
    for (phase, code, words) in [
        ("expand", 0, "0001 stay: older code works beside them"),
        ("contract", 65, "stage `one` is a point of no return"),
        ("irreversible", 65, "stage `one` is a point of no return"),
    ] {
        let mut workspace = empty();
        workspace.set("DB", "sqlite:///mnt/data/app.db");
        let script = format!("-- windlass: phase={phase}\ncreate table a (id integer);\n");
        workspace.write("migrations/0001_a.sql", &script);
        workspace.write("a.yaml", &migration("sqlite:///mnt/data/app.db"));
        workspace.windlass(["run", "a.yaml"]).expect(0);
        let ended = workspace.windlass(["rollback", "--yes"]).expect(code);
        assert!(ended.stderr.contains(words), "{phase}: {}", ended.said());
    }
}

/// A bug is told as one, and costs no more than a crash. One within a stage's attempt is that stage's failure.
#[test]
fn a_bug_ends_a_run_with_70_and_the_run_can_be_gone_on_with() {
    for (place, code) in [
        ("round.before-commit:2", 70),
        ("run.before-finish:1", 70),
        // The first two stages run beside each other, the third alone.
        ("stage.before-call:1", 1),
        ("stage.before-call:3", 1),
    ] {
        let mut workspace = workspace();
        workspace.set("WINDLASS_FAILPOINT", place);
        workspace.set("WINDLASS_FAILPOINT_SIGNAL", "PANIC");
        let ended = workspace.windlass(["run", QUICKSTART]).expect(code);
        assert!(ended.stderr.contains("bug"), "{place}: {}", ended.said());
        let is_told = [
            "the host failed while the stage ran",
            "the failpoint `stage.before-call`",
        ]
        .iter()
        .all(|words| ended.stderr.contains(words));
        assert_eq!(is_told, code == 1, "{place}: {}", ended.said());
        if code == 70 {
            workspace.set("WINDLASS_FAILPOINT", "");
            workspace.windlass(["resume"]).expect(0);
        }
    }
}
