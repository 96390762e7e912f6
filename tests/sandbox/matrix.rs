//! Every capability × {absent, requested only, granted, pattern miss}: the whole command runs a probe that calls one host
//! function in each stage, and says what it was answered.

use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};
use windlass::capability::TABLE;
use windlass_tests::component::{guest, with_metadata};

/// One host function of one capability.
struct Row {
    capability: &'static str,
    call: &'static str,
    /// What it is called on, and what else of the kind is not granted.
    on: String,
    other: String,
    /// The key and value of `needs:`, as the file has them.
    need: (&'static str, String),
    /// The lines of `allow:`.
    allow: Json,
    /// The answer without a grant.
    denied: &'static str,
}

fn row(
    capability: &'static str,
    call: &'static str,
    on: &str,
    other: &str,
    need: (&'static str, &str),
    allow: Json,
) -> Row {
    Row {
        capability,
        call,
        on: on.into(),
        other: other.into(),
        need: (need.0, need.1.into()),
        allow,
        denied: match capability {
            // Through WASI a guest sees no code of ours: the file, or the variable, is not there.
            "files" if !call.starts_with("flow") => "files.refused",
            "env" => "env.missing",
            _ => "grant.denied",
        },
    }
}

fn rows(http: u16, tcp: u16) -> Vec<Row> {
    let origin = format!("http://127.0.0.1:{http}");
    let address = format!("127.0.0.1:{tcp}");
    let database = "sqlite:///workspace/db/a.db";
    let known = "${{ secrets.known }}";
    let use_known = json!({ "secrets": { "use": ["known"] } });
    let reveal_known = json!({ "secrets": { "reveal": ["known"] } });
    let put_made = json!({ "secrets": { "put": ["made"] } });
    let read_data = json!({ "files": { "/workspace/data": "ro" } });
    let write_a = json!({ "artifacts": { "write": ["a.txt"] } });
    let read_a = json!({ "artifacts": { "read": ["writer/a.txt"] } });
    let query = json!({ "sql": [database], "files": { "/workspace/db": "rw" } });
    let other_database = "sqlite:///workspace/db/b.db";
    vec![
        row(
            "http",
            "http.get",
            &format!("{origin}/"),
            &format!("http://127.0.0.1:{tcp}/"),
            ("http", &origin),
            json!({ "http": [origin] }),
        ),
        row(
            "tcp",
            "tcp.connect",
            &address,
            &format!("127.0.0.1:{http}"),
            ("tcp", &address),
            json!({ "tcp": [address] }),
        ),
        row(
            "files",
            "files.read",
            "/workspace/data/file",
            "/workspace/secret/file",
            ("files", "/workspace/data"),
            read_data.clone(),
        ),
        row(
            "files",
            "flow.from-file",
            "/workspace/data/file",
            "/workspace/secret/file",
            ("files", "/workspace/data"),
            read_data.clone(),
        ),
        row(
            "files",
            "flow.from-directory",
            "/workspace/data",
            "/workspace/secret",
            ("files", "/workspace/data"),
            read_data,
        ),
        row(
            "secrets.use",
            "secrets.get",
            "known",
            "unknown",
            ("use", known),
            use_known,
        ),
        row(
            "secrets.reveal",
            "secrets.reveal",
            "known",
            "unknown",
            ("reveal", known),
            reveal_known,
        ),
        row(
            "secrets.put",
            "secrets.put",
            "made",
            "other",
            ("put", "made"),
            put_made.clone(),
        ),
        row(
            "secrets.put",
            "secrets.put-fields",
            "made",
            "other",
            ("put", "made"),
            put_made,
        ),
        row(
            "sql",
            "sql.query",
            database,
            other_database,
            ("sql", database),
            query.clone(),
        ),
        row(
            "sql",
            "sql.transact",
            database,
            other_database,
            ("sql", database),
            query.clone(),
        ),
        row(
            "sql",
            "flow.from-sqlite",
            database,
            other_database,
            ("sql", database),
            query,
        ),
        row(
            "process",
            "process.run",
            "true",
            "echo no",
            ("process", "true"),
            json!({ "process": ["true"] }),
        ),
        row(
            "artifacts.write",
            "artifacts.create",
            "a.txt",
            "b.txt",
            ("write", "a.txt"),
            write_a.clone(),
        ),
        row(
            "artifacts.write",
            "flow.to-artifact",
            "a.txt",
            "b.txt",
            ("write", "a.txt"),
            write_a,
        ),
        row(
            "artifacts.read",
            "artifacts.open",
            "writer/a.txt",
            "writer/b.txt",
            ("read", "writer/a.txt"),
            read_a.clone(),
        ),
        row(
            "artifacts.read",
            "flow.from-artifact",
            "writer/a.txt",
            "writer/b.txt",
            ("read", "writer/a.txt"),
            read_a,
        ),
        row(
            "env",
            "env.read",
            "APP",
            "OTHER",
            ("env", "APP"),
            json!({ "env": ["APP"] }),
        ),
    ]
}

/// A project with the probe and everything that it may be pointed at.
fn project(stages: &Json, probe: &[u8]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("temporary");
    for directory in [".git", "data", "secret", "db"] {
        fs::create_dir(root.path().join(directory)).expect("made");
    }
    for (file, text) in [
        ("data/file", "read me"),
        ("secret/file", "not me"),
        ("db/a.db", ""),
        ("db/b.db", ""),
    ] {
        fs::write(root.path().join(file), text).expect("written");
    }
    fs::write(root.path().join("probe.wasm"), probe).expect("written");
    let file = json!({
        "windlass": 1,
        "name": "matrix",
        "env": { "APP": { "default": "x" }, "OTHER": { "default": "y" } },
        "secrets": { "known": "env://KNOWN", "unknown": "env://UNKNOWN" },
        "stages": stages,
    });
    // JSON is YAML.
    fs::write(root.path().join("windlass.yaml"), file.to_string()).expect("written");
    root
}

fn windlass(root: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_windlass-under-test"))
        .args(arguments)
        .arg("--state-dir")
        .arg(root.join(".git/state"))
        .current_dir(root)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("KNOWN", "a known value")
        .env("UNKNOWN", "an unknown value")
        .output()
        .expect("starts")
}

/// The outputs of the stages that succeeded.
fn outputs(output: &Output) -> BTreeMap<String, Json> {
    let text = String::from_utf8_lossy(&output.stdout);
    let events = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Json>(line).ok());
    let finished = events.filter(|event| event["event"] == "stage.finished");
    finished
        .map(|event| {
            (
                event["stage"].as_str().unwrap_or_default().to_string(),
                event["outputs"].clone(),
            )
        })
        .collect()
}

/// The probe whose metadata is without the requests of one capability.
fn probe_without(capability: &str) -> Vec<u8> {
    let text = include_str!("../guests/probe/plugin.json");
    let mut metadata: Json = serde_json::from_str(text).expect("the probe's metadata");
    let requests = metadata["requests"].as_array_mut().expect("a list");
    requests.retain(|row| row["capability"] != capability);
    with_metadata(&guest("probe"), &metadata)
}

/// Answers every request on a loopback port with 200.
fn serve() -> (u16, TcpListener) {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let serving = listener.try_clone().expect("cloned");
    std::thread::spawn(move || {
        for stream in serving.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
        }
    });
    (listener.local_addr().expect("bound").port(), listener)
}

fn stage(row: &Row, on: &str, is_granted: bool) -> Json {
    let mut with = json!({ "call": row.call, "on": on });
    let mut stage = json!({ "uses": "./probe.wasm" });
    if is_granted {
        let (key, value) = &row.need;
        with["needs"] = json!({ (*key): value });
        stage["allow"] = row.allow.clone();
    }
    stage["with"] = with;
    if row.capability == "artifacts.read" {
        stage["needs"] = json!(["writer"]);
    }
    stage
}

#[test]
fn the_rows_are_every_capability() {
    let tested: BTreeSet<&str> = rows(1, 2).iter().map(|row| row.capability).collect();
    let all: BTreeSet<&str> = TABLE.iter().map(|row| row.name).collect();
    assert_eq!(tested, all);
}

#[test]
fn granted_missed_and_requested_only() {
    let ((http, _server), (tcp, _listener)) = (serve(), serve());
    let mut stages = json!({});
    let mut expected = BTreeMap::new();
    let write = json!({ "call": "artifacts.create", "on": "a.txt", "needs": { "write": "a.txt" } });
    stages["writer"] =
        json!({ "uses": "./probe.wasm", "with": write, "allow": { "artifacts": { "write": ["a.txt"] } } });
    expected.insert("writer".to_string(), "ok");
    for (index, row) in rows(http, tcp).iter().enumerate() {
        let mut add = |state: &str, on: &str, is_granted: bool, answer: &'static str| {
            let name = format!("{state}-{index}-{}", row.call.replace('.', "-"));
            stages[&name] = stage(row, on, is_granted);
            expected.insert(name, answer);
        };
        add("granted", &row.on, true, "ok");
        add("missed", &row.other, true, row.denied);
        add("requested", &row.on, false, row.denied);
    }
    let root = project(&stages, &guest("probe").bytes);
    let output = windlass(root.path(), &["run", "--progress", "json", "--jobs", "4"]);
    let found = outputs(&output);
    let wrong: Vec<String> = expected
        .iter()
        .filter(|(name, answer)| found.get(*name).is_none_or(|outputs| outputs["code"] != **answer))
        .map(|(name, answer)| format!("{name}: {answer} expected, found {:?}", found.get(name)))
        .collect();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(wrong.is_empty(), "{}\n{told}", wrong.join("\n"));
    assert_eq!(output.status.code(), Some(0), "{told}");
}

/// What is needed and not granted stops the run before its first stage, all at once.
#[test]
fn needed_and_not_granted() {
    let rows = rows(1, 2);
    let mut stages = json!({});
    for (index, row) in rows.iter().enumerate() {
        let mut denied = stage(row, &row.on, true);
        denied.as_object_mut().expect("a stage").remove("allow");
        denied.as_object_mut().expect("a stage").remove("needs");
        stages[format!("stage-{index}")] = denied;
    }
    let root = project(&stages, &guest("probe").bytes);
    let output = windlass(root.path(), &["run", "--progress", "json"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{told}");
    assert_eq!(outputs(&output), BTreeMap::new(), "nothing started");
    for (index, row) in rows.iter().enumerate() {
        let name = format!("stage-{index}");
        assert!(
            told.contains(&name),
            "{name} ({}) is not named in:\n{told}",
            row.capability
        );
    }
}

/// A capability that the plugin does not request is no one's to grant: the file does not pass, or the call is denied.
#[test]
fn absent() {
    let ((http, _server), (tcp, _listener)) = (serve(), serve());
    for row in rows(http, tcp) {
        let mut only = stage(&row, &row.on, true);
        only.as_object_mut().expect("a stage").remove("needs");
        let root = project(&json!({ "only": only }), &probe_without(row.capability));
        let output = windlass(root.path(), &["run", "--progress", "json"]);
        let answered = outputs(&output)
            .get("only")
            .map(|outputs| outputs["code"].clone());
        let told = String::from_utf8_lossy(&output.stderr);
        let refused = [Some(65), Some(77)].contains(&output.status.code()) && answered.is_none();
        let denied = answered == Some(json!(row.denied));
        assert!(
            refused || denied,
            "{} {}: {answered:?} {:?}\n{told}",
            row.capability,
            row.call,
            output.status
        );
    }
}
