//! Files and an environment in, a resolved document or problems out.

use super::*;
use serde_json::{Value as Json, json};
use std::io;

/// The files of a project in `/app`; the first is the one that is loaded, and those after it that are named `over*`.
fn read(files: &[(&str, &str)], profiles: &[&str]) -> Result<(Resolved, Diagnostics), Diagnostics> {
    let open = |path: &Path| {
        let shown = path.display().to_string();
        let found = files.iter().find(|(name, _)| format!("/app/{name}") == shown);
        let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no such file");
        found.map(|(_, text)| (*text).to_string()).ok_or_else(missing)
    };
    let loaded = files.iter().enumerate();
    let loaded = loaded.filter(|(at, (name, _))| *at == 0 || name.starts_with("over"));
    load(&LoadRequest {
        files: loaded
            .map(|(_, (name, _))| Path::new("/app").join(name))
            .collect(),
        directory: None,
        name: None,
        profiles: profiles.iter().map(ToString::to_string).collect(),
        reader: &open,
        shown: &|path| path.strip_prefix("/app").unwrap_or(path).display().to_string(),
        environment: &|name| match name {
            "HOME" => Some("/home/me".to_string()),
            "SET" => Some("value".to_string()),
            "EMPTY" => Some(String::new()),
            _ => None,
        },
        keeps_env_files: false,
    })
}

fn problems(diagnostics: &Diagnostics) -> Vec<String> {
    let shown = |problem: &&crate::diagnostic::Diagnostic| {
        let place = problem.span.as_ref().map(ToString::to_string);
        let help = problem.help.as_deref().map(|help| format!(" ({help})"));
        let place = place.map(|place| format!("{place} ")).unwrap_or_default();
        format!("{place}{}{}", problem.message, help.unwrap_or_default())
    };
    diagnostics.sorted().iter().map(shown).collect()
}

/// What stands at `pointer` of the resolved document.
#[track_caller]
fn check(files: &[(&str, &str)], pointer: &str, expected: Json) {
    let (resolved, _) = read(files, &[]).unwrap_or_else(|found| panic!("{:#?}", problems(&found)));
    let found = resolved.document.pointer(pointer).unwrap_or(&Json::Null);
    assert_eq!(*found, expected, "{pointer} of {:#}", resolved.document);
}

/// `key: value` of a service.
#[track_caller]
fn check_service(text: &str, expected: Json) {
    let key = text.split(':').next().unwrap_or_default();
    let file = format!(
        "services:\n  a:\n    image: x\n    {}\n",
        text.replace('\n', "\n    ")
    );
    check(
        &[("compose.yaml", &file)],
        &format!("/services/a/{key}"),
        expected,
    );
}

/// Each problem, as `file:line:col message (help)`, by its beginning.
#[track_caller]
fn check_problems(files: &[(&str, &str)], expected: &[&str]) {
    let found = match read(files, &[]) {
        Ok((resolved, _)) => panic!("it was accepted: {:#}", resolved.document),
        Err(found) => problems(&found),
    };
    let same = found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .all(|(found, expected)| found.starts_with(expected));
    assert!(same, "{found:#?}");
}

#[test]
fn short_forms_become_the_one_form() {
    check_service("build: ./here", json!({ "context": "/app/here" }));
    check_service(
        "build: https://example.com/x.git",
        json!({ "context": "https://example.com/x.git" }),
    );
    check_service(
        "build: { target: t }",
        json!({ "target": "t", "context": "/app" }),
    );
    check_service(
        "command: run --name 'a b' $$X",
        json!(["run", "--name", "a b", "$X"]),
    );
    check_service("command: [run, 1]", json!(["run", "1"]));
    check_service("entrypoint: []", json!([]));
    check_service(
        "environment: [A=1, SET, NONE, B=x=y]",
        json!({ "A": "1", "SET": "value", "NONE": null, "B": "x=y" }),
    );
    check_service(
        "environment: { A: 1.10, B: true, C: , D: \"x\" }",
        json!({ "A": "1.10", "B": "true", "C": null, "D": "x" }),
    );
    check_service("labels: [a=b, c]", json!({ "a": "b", "c": "" }));
    check_service("depends_on: []", json!({}));
    check_service("tmpfs: /run", json!(["/run"]));
    check_service("dns: 8.8.8.8", json!(["8.8.8.8"]));
    check_service("expose: [3000, \"4000\"]", json!(["3000", "4000"]));
    check_service(
        "ulimits: { nproc: 5, nofile: { soft: 1, hard: 2 } }",
        json!({ "nproc": { "soft": 5, "hard": 5 }, "nofile": { "soft": 1, "hard": 2 } }),
    );
    check_service(
        "extra_hosts: [\"a:1.2.3.4\", \"b=::1\"]",
        json!(["a=1.2.3.4", "b=::1"]),
    );
    check_service(
        "extra_hosts: { a: [1.2.3.4, \"[::1]\"] }",
        json!(["a=1.2.3.4", "a=::1"]),
    );
    check_service("gpus: all", json!([{ "count": "all" }]));
    check_service(
        "devices: [\"/dev/a:/dev/b:r\"]",
        json!([{ "source": "/dev/a", "target": "/dev/b", "permissions": "r" }]),
    );
    check_service(
        "volumes: [\"~/x:/y\", \"../z:/z:ro\"]",
        json!([
            { "type": "bind", "source": "/home/me/x", "target": "/y", "bind": { "create_host_path": true } },
            { "type": "bind", "source": "/z", "target": "/z", "read_only": true, "bind": { "create_host_path": true } },
        ]),
    );
}

#[test]
fn amounts_have_one_spelling() {
    check_service("mem_limit: 64m", json!("67108864"));
    check_service("shm_size: 1024", json!("1024"));
    check_service("stop_grace_period: 90s", json!("1m30s"));
    check_service("cpus: \"0.5\"", json!(0.5));
    check_service("cpus: 2.0", json!(2));
    check_service("init: \"yes\"", json!(true));
    check_service(
        "healthcheck: { test: curl x, interval: 1m30s, retries: \"3\" }",
        json!({ "test": ["CMD-SHELL", "curl x"], "interval": "1m30s", "retries": 3 }),
    );
    check_service(
        "deploy: { replicas: 2, resources: { limits: { cpus: '0.5', memory: 512M } } }",
        json!({ "replicas": 2, "resources": { "limits": { "cpus": 0.5, "memory": "536870912" } } }),
    );
}

#[test]
fn variables() {
    for (text, expected) in [
        ("$SET-${SET}", "value-value"),
        ("${NO:-d}${NO-d}", "dd"),
        ("${EMPTY:-d}|${EMPTY-d}", "d|"),
        ("${SET:+x}${NO:+y}${EMPTY+z}", "xz"),
        ("${NO:-${EMPTY:-${SET}}}", "value"),
        ("$${SET} $1 a$", "${SET} $1 a$"),
        ("${SET:?no}${EMPTY?no}", "value"),
        ("${COMPOSE_PROJECT_NAME}", "app"),
    ] {
        check_service(&format!("hostname: \"{text}\""), json!(expected));
    }
}

#[test]
fn keys_are_not_interpolated() {
    check_service("labels: { $SET: $SET }", json!({ "$SET": "value" }));
}

#[test]
fn unset_variables_are_warnings_and_required_ones_errors() {
    let file = "services:\n  a:\n    image: x${NO}\n";
    let (resolved, warnings) = read(&[("compose.yaml", file)], &[]).unwrap_or_else(|_| panic!("valid"));
    assert_eq!(resolved.document["services"]["a"]["image"], "x");
    assert!(problems(&warnings)[0].starts_with("compose.yaml:3:12 the variable `NO` is not set"));
    check_problems(
        &[(
            "compose.yaml",
            "services:\n  a:\n    image: ${NO:?set it}\n    user: ${NO\n",
        )],
        &[
            "compose.yaml:3:12 `NO` is required: set it",
            "compose.yaml:4:11 a `${` has no `}`",
        ],
    );
}

const BASE: &str = "
services:
  a:
    image: x
    command: [one]
    environment: { A: 1, B: 2 }
    ports: [\"8080:80\", \"9090:90\"]
    volumes: [one:/data]
    dns: [1.1.1.1]
    secrets: [s]
    logging: { driver: json-file, options: { max-size: 1m } }
    labels: [a=1]
volumes: { one: , two: }
secrets: { s: { file: ./s.txt } }
";

/// What stands at `pointer` once `over` was laid over [`BASE`].
#[track_caller]
fn check_merged(over: &str, pointer: &str, expected: Json) {
    let over = format!("services:\n  a:\n    {}\n", over.replace('\n', "\n    "));
    check(
        &[("compose.yaml", BASE), ("over.yaml", &over)],
        &format!("/services/a{pointer}"),
        expected,
    );
}

#[test]
fn files_are_merged_by_the_specifications_rules() {
    check_merged("image: y", "/image", json!("y"));
    check_merged("command: [two]", "/command", json!(["two"]));
    check_merged(
        "environment: [B=3, C=4]",
        "/environment",
        json!({ "A": "1", "B": "3", "C": "4" }),
    );
    check_merged("labels: { a: 2 }", "/labels", json!({ "a": "2" }));
    check_merged("dns: 8.8.8.8", "/dns", json!(["1.1.1.1", "8.8.8.8"]));
    check_merged(
        "ports: [\"8080:80\", \"1:1\"]\ncontainer_name: c",
        "/ports/2/published",
        json!("1"),
    );
    check_merged("ports: [\"8080:80\", \"1:1\"]", "/ports/3", Json::Null);
    check_merged(
        "volumes: [\"two:/data:ro\"]",
        "/volumes",
        json!([{ "type": "volume", "source": "two", "target": "/data", "read_only": true }]),
    );
    // `/data/` is the same place.
    check_merged(
        "volumes: [\"two:/data/\"]",
        "/volumes",
        json!([{ "type": "volume", "source": "two", "target": "/data" }]),
    );
    check_merged(
        "secrets: [{ source: s, mode: 0440 }]",
        "/secrets",
        json!([{ "source": "s", "mode": "0440" }]),
    );
    check_merged(
        "logging: { options: { max-file: 3 } }",
        "/logging/options",
        json!({ "max-size": "1m", "max-file": "3" }),
    );
    check_merged(
        "logging: { driver: syslog }",
        "/logging",
        json!({ "driver": "syslog" }),
    );
    check_merged("ports: !reset []", "/ports", Json::Null);
    check_merged("ports: !override [\"1:1\"]", "/ports/1", Json::Null);
    check_merged(
        "environment: { A: !reset null }",
        "/environment",
        json!({ "B": "2" }),
    );
    check_merged(
        "environment: !override { C: 1 }",
        "/environment",
        json!({ "C": "1" }),
    );
}

#[test]
fn names() {
    let file = "services: { a: { image: x } }\nvolumes: { v: , w: { external: true }, u: { external: { name: o } } }\n";
    let volumes = json!({
        "v": { "name": "app_v" }, "w": { "external": true, "name": "w" }, "u": { "external": true, "name": "o" },
    });
    check(&[("compose.yaml", file)], "/volumes", volumes);
    check(
        &[("compose.yaml", file)],
        "/networks",
        json!({ "default": { "name": "app_default" } }),
    );
    check(&[("compose.yaml", file)], "/name", json!("app"));
    check(
        &[("compose.yaml", file), ("over.yaml", "name: n-${SET}\n")],
        "/volumes/v/name",
        json!("n-value_v"),
    );
    check_problems(
        &[("compose.yaml", "name: A\nservices: { a: { image: x } }\n")],
        &["compose.yaml:1:7 `A` cannot be the name of a project"],
    );
}

#[test]
fn env_files_stand_below_the_environment() {
    let file = "services:\n  a:\n    image: x\n    env_file: [one.env, { path: two.env, required: false }, { path: raw.env, format: raw }]\n    environment: [B=9, D]\n";
    let env = "A=${SET} # comment\nB=2\nD=from file\nSET\nNO\n";
    check(
        &[
            ("compose.yaml", file),
            ("one.env", env),
            ("raw.env", "R='$X' # y\n"),
        ],
        "/services/a/environment",
        json!({ "A": "value", "B": "9", "D": null, "SET": "value", "R": "'$X' # y" }),
    );
    check_problems(
        &[("compose.yaml", file), ("one.env", "no equals\n")],
        &[
            "compose.yaml:4:69 raw.env cannot be read",
            "one.env:1:1 `no` has no `=` after it",
        ],
    );
}

#[test]
fn extends_and_include() {
    let other = "services:\n  base: { image: base, build: ./b, environment: { A: 1, B: 1 }, extends: root }\n  root: { user: me }\n";
    let file = "services:\n  a: { extends: { file: sub/other.yaml, service: base }, environment: { B: 2 } }\n  b: { extends: a, image: b }\n";
    let files = [("compose.yaml", file), ("sub/other.yaml", other)];
    check(&files, "/services/a/build/context", json!("/app/sub/b"));
    check(
        &files,
        "/services/b",
        json!({
            "user": "me", "image": "b", "build": { "context": "/app/sub/b" }, "environment": { "A": "1", "B": "2" },
            "networks": { "default": {} },
        }),
    );
    check_problems(
        &[(
            "compose.yaml",
            "services:\n  a: { extends: b }\n  b: { extends: a }\n  c: { extends: d, image: x }\n",
        )],
        &[
            "compose.yaml:2:17 this service extends itself",
            "compose.yaml:3:17 this service extends itself",
            "compose.yaml:4:17 there is no service `d` to extend",
        ],
    );
    let include = "include: [sub/compose.yaml]\nservices: { a: { image: a, depends_on: [i] } }\n";
    let files = [
        ("compose.yaml", include),
        (
            "sub/compose.yaml",
            "services: { i: { image: \"i:${TAG}\", build: . } }\n",
        ),
        ("sub/.env", "TAG=7\n"),
    ];
    check(&files, "/services/i/image", json!("i:7"));
    check(&files, "/services/i/build/context", json!("/app/sub"));
    check_problems(
        &[
            (
                "compose.yaml",
                "include: [over.yaml]\nservices: { a: { image: a } }\n",
            ),
            ("sub.yaml", ""),
            ("./x", ""),
        ],
        &["compose.yaml:1:11 over.yaml cannot be read"],
    );
    check_problems(
        &[
            (
                "compose.yaml",
                "include: [sub.yaml]\nservices: { a: { image: a } }\n",
            ),
            ("sub.yaml", "services: { a: { image: b } }\n"),
        ],
        &["compose.yaml:2:13 `a` in `services` is included, and there is another one here"],
    );
    check_problems(
        &[("compose.yaml", "include: [compose.yaml]\n")],
        &["compose.yaml:1:10 files are included too deep"],
    );
}

#[test]
fn profiles() {
    let file = "services:\n  a: { image: x }\n  b: { image: y, profiles: [p] }\n";
    let active = |profiles: &[&str]| {
        let (resolved, _) = read(&[("compose.yaml", file)], profiles).unwrap_or_else(|_| panic!("valid"));
        resolved.project.services.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(
        [active(&[]), active(&["p"]), active(&["*"])],
        [vec!["a"], vec!["a", "b"], vec!["a", "b"]]
            .map(|names| names.into_iter().map(String::from).collect::<Vec<_>>())
    );
    check_problems(
        &[(
            "compose.yaml",
            "services:\n  a: { image: x, depends_on: [b] }\n  b: { image: y, profiles: [p] }\n",
        )],
        &["compose.yaml:2:31 the service `b` is not active (add --profile p)"],
    );
}

#[test]
fn all_problems_at_once() {
    let file = "\
services:
  a:
    imag: x
    volums: []
    user: 1000
    restart: [always]
    mem_limit: lots
    ports: [\"80:x\"]
    stop_grace_period: 10
    healthcheck: { interval: 5 }
    deploy: { replica: 2 }
    depends_on: { b: { condition: healthy } }
volume: {}
";
    check_problems(
        &[("compose.yaml", file)],
        &[
            "compose.yaml:3:5 unknown key `imag` in `a` in `services` (did you mean `image`?)",
            "compose.yaml:4:5 unknown key `volums` in `a` in `services` (did you mean `volumes`?)",
            "compose.yaml:5:11 `user` must be text, and is a number (put it in quotes: \"1000\")",
            "compose.yaml:6:14 `restart` must be text, and is a list",
            "compose.yaml:7:16 `mem_limit` cannot be `lots` (a size is a number",
            "compose.yaml:8:13 an element of `ports` cannot be `80:x` (a port is",
            "compose.yaml:9:24 `stop_grace_period` cannot be `10` (a span of time is",
            "compose.yaml:10:30 `interval` cannot be `5` (a span of time is",
            "compose.yaml:11:15 unknown key `replica` in `deploy` (did you mean `replicas`?)",
            "compose.yaml:12:19 there is no service `b`",
            "compose.yaml:12:35 `condition` cannot be `healthy` (it can be: service_started, service_healthy",
            "compose.yaml:13:1 unknown key `volume` in `compose.yaml` (did you mean `volumes`?)",
        ],
    );
}

#[test]
fn what_is_referred_to_has_to_exist() {
    let file = "\
services:
  a: { image: x, networks: [back], volumes: [\"data:/d\", \"src/x:/y\"], secrets: [s], configs: [c], depends_on: [c] }
  b: { networks: { frnt: }, image: x, network_mode: host }
  c: { image: x, links: [a], container_name: one, scale: 2 }
  d: {}
networks: { front: }
secrets: { t: { file: a, external: true }, u: {} }
";
    check_problems(
        &[("compose.yaml", file)],
        &[
            "compose.yaml:2:3 services wait for each other: `a` -> `c` -> `a`",
            "compose.yaml:2:29 there is no network `back` (declare it: a key `back:` in `networks:`",
            "compose.yaml:2:46 there is no volume `data`",
            "compose.yaml:2:57 `src/x` is not the name of a volume (for a directory beside the file write `./src/x`)",
            "compose.yaml:2:80 there is no secret `s`",
            "compose.yaml:2:94 there is no config `c`",
            "compose.yaml:3:20 there is no network `frnt` (did you mean `front`?)",
            "compose.yaml:3:53 the service `b` has `network_mode` and `networks`",
            "compose.yaml:4:46 2 containers of the service `c` cannot have one name",
            "compose.yaml:5:3 the service `d` has neither `image` nor `build`",
            "compose.yaml:7:12 the secret `t` comes from several places: file, external",
            "compose.yaml:7:44 the secret `u` comes from nowhere",
        ],
    );
}

#[test]
fn extensions_and_anchors() {
    let file = "\
x-common: &common { restart: always, x-note: { any: [thing] } }
services:
  a: { <<: *common, image: x, labels: { x-a: b } }
  b: { !!merge <<: *common, image: x }
";
    check(&[("compose.yaml", file)], "/services/a/restart", json!("always"));
    check(&[("compose.yaml", file)], "/services/b/restart", json!("always"));
    check(
        &[("compose.yaml", file)],
        "/services/a/labels",
        json!({ "x-a": "b" }),
    );
    check(
        &[("compose.yaml", file)],
        "/services/a/x-note",
        json!({ "any": ["thing"] }),
    );
    check(&[("compose.yaml", file)], "/x-common/restart", json!("always"));
}

#[test]
fn the_types_say_the_same() {
    let file = "\
services:
  web: { image: x, depends_on: { db: { condition: service_healthy } }, deploy: { replicas: 3 }, stop_grace_period: 90s,
         mem_limit: 1k, environment: { PASSWORD: hidden } }
  db: { image: y, links: [cache] }
  cache: { image: z }
";
    let (Resolved { project, .. }, _) =
        read(&[("compose.yaml", file)], &[]).unwrap_or_else(|_| panic!("valid"));
    let web = &project.services["web"];
    assert_eq!(project.start_order(), ["cache", "db", "web"]);
    assert_eq!(web.replicas(), 3);
    assert_eq!(web.mem_limit, Some(model::Bytes(1024)));
    assert_eq!(web.stop_grace_period.map(|span| span.0.as_secs()), Some(90));
    assert_eq!(web.depends_on["db"].condition, model::Condition::Healthy);
    let shown = format!("{project:?}");
    assert!(shown.contains("PASSWORD") && !shown.contains("hidden"), "{shown}");
}

/// A value of a shape, with every key that it can have. What a form of its own looks like, its key tells.
fn sample(shape: &shape::Shape, key: &str) -> Json {
    use shape::Shape;
    match shape {
        Shape::Any | Shape::Text | Shape::Scalar | Shape::Path | Shape::Context => json!("a"),
        Shape::Bool => json!(false),
        Shape::Integer | Shape::Number | Shape::Size => json!(1),
        Shape::Duration => json!("1s"),
        Shape::Mode => json!("0440"),
        Shape::Word(words) => json!(words[0]),
        Shape::Pairs(_) => json!({ "a": "b" }),
        Shape::Map(of) | Shape::Named(of, _) => json!({ "a": sample(of, key) }),
        Shape::List(of, _) | Shape::OneOrList(of, _) => json!([sample(of, key)]),
        Shape::Object(object) => {
            let keys = object.keys.iter();
            keys.map(|key| (key.name.to_string(), sample(&key.shape, key.name)))
                .chain([("x-a".to_string(), json!({ "b": 1 }))])
                .collect()
        }
        Shape::Special(_) => match key {
            "test" => json!(["NONE"]),
            "ulimits" => json!({ "soft": 1, "hard": 2, "x-a": 1 }),
            "external" => json!(false),
            "gpus" => json!("all"),
            "extra_hosts" => json!(["a=1.2.3.4"]),
            "additional_contexts" => json!({ "a": "b" }),
            _ => json!(["a"]),
        },
    }
}

/// The tables of keys and the types are written apart; a key of one that the other lacks is found here.
#[test]
fn every_key_has_its_place_in_the_types() {
    let base = json!({
        "services": { "a": { "image": "x" } }, "networks": { "a": {} }, "volumes": { "a": {} }, "models": { "a": { "model": "m" } },
        "secrets": { "a": { "file": "x" } }, "configs": { "a": { "file": "x" } },
    });
    let check = |document: Json, what: &str| {
        let text = document.to_string();
        let loaded = read(&[("compose.yaml", &text), ("a", "A=1\nservices: {}")], &["*"]);
        assert!(
            loaded.is_ok(),
            "{what}: {:#?}",
            loaded.err().map(|found| problems(&found))
        );
    };
    let elsewhere = ["extends", "env_file", "label_file"];
    for key in keys::SERVICE
        .keys
        .iter()
        .filter(|key| !elsewhere.contains(&key.name))
    {
        let mut document = base.clone();
        document["services"]["w"] = json!({ "image": "x", key.name: sample(&key.shape, key.name) });
        check(document, key.name);
    }
    let sections = keys::TOP.keys.iter();
    for section in sections.filter(|key| !["version", "name", "include", "services"].contains(&key.name)) {
        let shape::Shape::Map(shape::Shape::Object(object)) = &section.shape else {
            panic!("{} is a map of resources", section.name)
        };
        for key in object.keys {
            let mut document = base.clone();
            document[section.name]["a"][key.name] = sample(&key.shape, key.name);
            if ["environment", "content", "driver"].contains(&key.name) && section.name != "networks" {
                document[section.name]["a"]
                    .as_object_mut()
                    .map(|all| all.remove("file"));
            }
            check(document, &format!("{} {}", section.name, key.name));
        }
    }
}
