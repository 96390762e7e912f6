//! Every capability × {absent, requested only, granted, pattern miss}: the whole command runs a probe that calls one host
//! function in each stage, and says what it was answered.

use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output},
};
use windlass::capability::TABLE;
use windlass_tests::{
    component::{guest, with_metadata},
    engine::{Engine, Project},
};

/// One host function of one capability.
#[derive(Clone)]
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
    let object =
        |bucket: &str| json!({ "url": format!("s3://{bucket}/team/a"), "endpoint": origin }).to_string();
    let objects = json!({ "objects": ["s3://backups/team"], "http": [origin] });
    let of_objects = [
        "objects.head",
        "objects.list",
        "objects.delete",
        "flow.from-object",
        "flow.to-object",
    ];
    let of_objects = of_objects.map(|call| {
        let need = ("objects", "s3://backups/team");
        row(
            "objects",
            call,
            &object("backups"),
            &object("others"),
            need,
            objects.clone(),
        )
    });
    let mut rows = vec![
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
    ];
    rows.extend(of_objects);
    rows
}

/// Those that ask an engine. What is there is `<project>-web-1`, running, of the service `web`; and `<project>-other-1`.
fn engine_rows(image: &str, project: &str) -> Vec<Row> {
    let spec = |service: &str, more: Json| {
        let mut spec = json!({ "project": project, "service": service, "image": image, "name": format!("{project}-made-{service}") });
        spec.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        spec.to_string()
    };
    let web = format!("{project}/web");
    let here = |service: &str| {
        json!({ "container": format!("{project}-{service}-1"), "argv": ["true"], "path": "/bin/busybox", "bytes": "x", "file": "x" }).to_string()
    };
    let into = |service: &str| {
        json!({ "container": format!("{project}-{service}-1"), "path": "/tmp", "bytes": "x", "file": "x" })
            .to_string()
    };
    let named = |service: &str| format!("{project}-{service}-1");
    let manage = json!({ "containers": { "manage": [web], "run": [image] } });
    let (manage_only, exec) = (
        json!({ "containers": { "manage": [web] } }),
        json!({ "containers": { "exec": [web] } }),
    );
    let object = |name: &str| json!({ "project": project, "name": name }).to_string();
    let build = json!({ "containers": { "build": ["windlass-matrix:*"] } });
    let tag = |name: &str| json!({ "source": image, "target": format!("{name}:{project}") }).to_string();
    let mut rows = Vec::new();
    let mut add =
        |capability, call, on: String, other: String, key: &'static str, need: &str, allow: &Json| {
            rows.push(row(capability, call, &on, &other, (key, need), allow.clone()));
        };
    add(
        "containers.build",
        "images.tag",
        tag("windlass-matrix"),
        tag("other"),
        "build",
        "windlass-matrix:x",
        &build,
    );
    let pull = |image: &str| json!({ "image": image }).to_string();
    add(
        "containers.pull",
        "images.inspect",
        pull(image),
        pull("other:1"),
        "pull",
        image,
        &json!({ "containers": { "pull": [image] } }),
    );
    add(
        "containers.push",
        "images.inspect",
        pull(image),
        pull("other:1"),
        "push",
        image,
        &json!({ "containers": { "push": [image] } }),
    );
    add(
        "containers.run",
        "images.inspect",
        pull(image),
        pull("other:1"),
        "run",
        image,
        &json!({ "containers": { "run": [image] } }),
    );
    add(
        "containers.manage",
        "containers.fingerprint",
        spec("web", json!({})),
        spec("other", json!({})),
        "manage",
        &web,
        &manage,
    );
    add(
        "containers.manage",
        "containers.list",
        web.clone(),
        format!("{project}/other"),
        "manage",
        &web,
        &manage_only,
    );
    for call in [
        "containers.inspect",
        "containers.logs",
        "containers.start",
        "containers.wait-health",
    ] {
        add(
            "containers.manage",
            call,
            named("web"),
            named("other"),
            "manage",
            &web,
            &manage_only,
        );
    }
    let network = json!({ "containers": { "manage": [format!("{project}/net")] } });
    let net = format!("{project}/net");
    add(
        "containers.manage",
        "containers.network",
        object("net"),
        object("other"),
        "manage",
        &net,
        &network,
    );
    add(
        "containers.manage",
        "containers.volume",
        object("net"),
        object("other"),
        "manage",
        &net,
        &network,
    );
    let gone = |name: &str| json!({ "kind": "network", "name": format!("{project}/{name}") }).to_string();
    add(
        "containers.manage",
        "containers.tidy",
        gone("net"),
        gone("other"),
        "manage",
        &net,
        &network,
    );
    for call in [
        "containers.exec",
        "flow.from-exec",
        "flow.to-exec",
        "flow.from-container",
    ] {
        add(
            "containers.exec",
            call,
            here("web"),
            here("other"),
            "exec",
            &web,
            &exec,
        );
    }
    add(
        "containers.exec",
        "flow.to-container",
        into("web"),
        into("other"),
        "exec",
        &web,
        &exec,
    );
    let mounted = |volume: &str| {
        spec(
            "web",
            json!({ "mounts": [{ "type": "volume", "source": volume, "target": "/x" }] }),
        )
    };
    let mount = json!({ "containers": { "manage": [web], "run": [image], "mount": ["data:rw"] } });
    add(
        "containers.mount",
        "containers.fingerprint",
        mounted("data"),
        mounted("other"),
        "mount",
        "data:rw",
        &mount,
    );
    let published = |port: u16| {
        spec(
            "web",
            json!({ "ports": [{ "host-ip": "127.0.0.1", "published": port, "target": 80 }] }),
        )
    };
    let publish = json!({ "containers": { "manage": [web], "run": [image], "publish": ["127.0.0.1:8080"] } });
    add(
        "containers.publish",
        "containers.fingerprint",
        published(8080),
        published(8081),
        "publish",
        "127.0.0.1:8080",
        &publish,
    );
    rows
}

fn host(engine: &Option<Engine>) -> Vec<(&'static str, &str)> {
    engine
        .iter()
        .map(|engine| ("DOCKER_HOST", engine.host.as_str()))
        .collect()
}

/// A project with the probe and everything that it may be pointed at.
pub(crate) fn project(stages: &Json, probe: &[u8]) -> tempfile::TempDir {
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

pub(crate) fn windlass(root: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_windlass-under-test"))
        .args(arguments)
        .arg("--state-dir")
        .arg(root.join(".git/state"))
        .current_dir(root)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("KNOWN", "a known value")
        .env("UNKNOWN", "an unknown value")
        .envs(environment.iter().copied())
        .output()
        .expect("starts")
}

/// The outputs of the stages that succeeded.
pub(crate) fn outputs(output: &Output) -> BTreeMap<String, Json> {
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

/// Answers every request on a loopback port with 200: as a server of objects does, whose every object is "ok" and says of itself
/// what the last one said that was written.
fn serve() -> (u16, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let serving = listener.try_clone().expect("cloned");
    std::thread::spawn(move || {
        let mut said = String::new();
        for stream in serving.incoming() {
            let Ok(stream) = stream else { return };
            answer(stream, &mut said);
        }
    });
    (listener.local_addr().expect("bound").port(), listener)
}

fn answer(mut stream: TcpStream, said: &mut String) {
    use std::io::{BufRead, BufReader, Read, Write};
    let mut reader = BufReader::new(stream.try_clone().expect("cloned"));
    let head: Vec<String> = reader
        .by_ref()
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    let Some(first) = head.first() else { return };
    let length = head
        .iter()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let _ = reader.read_exact(&mut vec![0; length.unwrap_or(0)]);
    let metadata = head.iter().filter(|line| line.starts_with("x-amz-meta-"));
    if first.starts_with("PUT ") {
        *said = metadata.map(|line| format!("{line}\r\n")).collect();
    }
    let body = if first.contains("list-type=") {
        "<ListBucketResult></ListBucketResult>"
    } else {
        "ok"
    };
    let (metadata, body) = match first.starts_with("HEAD ") {
        true => (said.as_str(), ""),
        false => ("", body),
    };
    let length = if body.is_empty() { 2 } else { body.len() };
    let reply = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\netag: \"x\"\r\n{metadata}connection: close\r\n\r\n{body}"
    );
    let _ = stream.write_all(reply.as_bytes());
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
    let all_rows = [rows(1, 2), engine_rows("image:1", "project")].concat();
    let tested: BTreeSet<&str> = all_rows.iter().map(|row| row.capability).collect();
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
    let engine = Engine::get();
    let project_on_it = engine.as_ref().map(|engine| Project::new(engine, "matrix"));
    let on_engine = project_on_it.iter().flat_map(|project| {
        let image = project.engine.busybox();
        for service in ["web", "other"] {
            let labels = [
                ("project", project.name.as_str()),
                ("service", service),
                ("oneoff", "False"),
            ];
            let labels = labels.map(|(name, value)| format!("--label=com.docker.compose.{name}={value}"));
            let name = format!("--name={}-{service}-1", project.name);
            let [one, two, three] = &labels;
            project
                .engine
                .told(&["run", "-d", one, two, three, &name, image, "sleep", "1000"]);
        }
        engine_rows(image, &project.name)
    });
    let all_rows: Vec<Row> = rows(http, tcp).into_iter().chain(on_engine).collect();
    for (index, row) in all_rows.iter().enumerate() {
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
    let output = windlass(
        root.path(),
        &["run", "--progress", "json", "--jobs", "4"],
        &host(&engine),
    );
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
    let rows = [rows(1, 2), engine_rows("image:1", "project")].concat();
    let mut stages = json!({});
    for (index, row) in rows.iter().enumerate() {
        let mut denied = stage(row, &row.on, true);
        denied.as_object_mut().expect("a stage").remove("allow");
        denied.as_object_mut().expect("a stage").remove("needs");
        stages[format!("stage-{index}")] = denied;
    }
    let root = project(&stages, &guest("probe").bytes);
    let output = windlass(root.path(), &["run", "--progress", "json"], &[]);
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
    for row in [rows(http, tcp), engine_rows("image:1", "project")].concat() {
        let mut only = stage(&row, &row.on, true);
        only.as_object_mut().expect("a stage").remove("needs");
        let root = project(&json!({ "only": only }), &probe_without(row.capability));
        let output = windlass(root.path(), &["run", "--progress", "json"], &[]);
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
