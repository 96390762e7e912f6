//! Command migrations against an engine in memory: what is made, that it runs once, and what is left behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use windlass_guest::containers::{Container, Made};
use windlass_guest::{Error, Outcome, PastEffect, Verdict};
use windlass_plugin_migrate::config::Config;
use windlass_plugin_migrate::container::{self, Engine};
use windlass_plugin_migrate::task::Task;

const DIGEST: &str = "registry:5000/team-backend@sha256:0123";

/// An engine whose containers end as they are told to.
struct Fake {
    containers: BTreeMap<String, Container>,
    /// What `create` answers without making anything: the journal's word after a crash.
    recalled: Option<Made>,
    exit: i64,
    never_ends: bool,
    output: &'static str,
    run: String,
    calls: Vec<String>,
    specs: Vec<Value>,
    lines: Vec<String>,
    variables: Value,
}

impl Fake {
    fn new() -> Self {
        Self {
            containers: BTreeMap::new(),
            recalled: None,
            exit: 0,
            never_ends: false,
            output: "",
            run: "run1".into(),
            calls: Vec::new(),
            specs: Vec::new(),
            lines: Vec::new(),
            variables: Value::Null,
        }
    }

    fn with(run: &str, state: &str, exit_code: i64) -> Self {
        let mut fake = Self::new();
        fake.put("team-migrate", run, state, exit_code);
        fake
    }

    fn put(&mut self, name: &str, run: &str, state: &str, exit_code: i64) {
        let labels = [("windlass.run", run), ("windlass.stage", "migrate")];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let container = Container {
            id: format!("id-of-{name}-{run}"),
            name: name.into(),
            state: state.into(),
            exit_code,
            labels: labels.into(),
            ..Container::default()
        };
        self.containers.insert(name.into(), container);
    }

    fn find(&mut self, container: &str) -> Result<&mut Container, Error> {
        let mut all = self.containers.values_mut();
        all.find(|known| known.id == container || known.name == container)
            .ok_or_else(|| Error::new("container.missing", format!("there is no {container}")))
    }

    fn call(&mut self, what: &str) {
        self.calls.push(what.to_owned());
    }
}

impl Engine for Fake {
    fn create(&mut self, spec: &Value) -> Result<Made, Error> {
        self.call("create");
        self.specs.push(spec.clone());
        if let Some(made) = self.recalled.take() {
            return Ok(made);
        }
        let name = spec["name"].as_str().unwrap().to_owned();
        if self.containers.contains_key(&name) {
            return Err(Error::new("container.exists", "the name is taken"));
        }
        let run = self.run.clone();
        self.put(&name, &run, "created", 0);
        let id = self.containers[&name].id.clone();
        Ok(Made { id, name })
    }

    fn start(&mut self, container: &str) -> Result<(), Error> {
        self.call("start");
        self.find(container)?.state = "running".into();
        Ok(())
    }

    fn stop(&mut self, container: &str, _: Duration) -> Result<(), Error> {
        self.call("stop");
        self.find(container)?.state = "exited".into();
        Ok(())
    }

    fn remove(&mut self, container: &str) -> Result<(), Error> {
        self.call("remove");
        let found = self.find(container)?.clone();
        assert_ne!(found.state, "running", "what runs is not removed");
        self.containers.remove(&found.name);
        Ok(())
    }

    fn inspect(&mut self, container: &str) -> Result<Container, Error> {
        self.find(container).cloned()
    }

    fn wait(&mut self, container: &str, _: Duration) -> Result<Container, Error> {
        self.call("wait");
        let (exit, never_ends) = (self.exit, self.never_ends);
        let found = self.find(container)?;
        if never_ends {
            return Err(Error::new("container.timeout", "it runs on").retryable());
        }
        if found.state == "running" {
            found.state = "exited".into();
            found.exit_code = exit;
        }
        Ok(found.clone())
    }

    fn logs(&mut self, _: &str, lines: u32) -> Result<String, Error> {
        assert!(lines > 0);
        Ok(self.output.into())
    }

    fn load(&mut self, options: &Value) -> Result<Value, Error> {
        assert_eq!(options["files"], json!(["/workspace/docker-compose.yml"]));
        self.variables = options["variables"].clone();
        Ok(model())
    }

    fn read(&mut self, path: &str) -> Result<String, Error> {
        Ok(format!("text of {path}"))
    }

    fn pipeline(&mut self) -> String {
        "team".into()
    }

    fn stage(&mut self) -> String {
        "migrate".into()
    }

    fn run_id(&mut self) -> String {
        self.run.clone()
    }

    fn remaining(&mut self) -> Option<Duration> {
        None
    }

    fn info(&mut self, message: &str) {
        self.lines.push(message.into());
    }

    fn warn(&mut self, message: &str) {
        self.lines.push(format!("warning: {message}"));
    }
}

fn model() -> Value {
    json!({
        "name": "insight",
        "services": {
            "backend": {
                "image": "team-backend:latest",
                "environment": { "APP_ENV": "production", "PORT": 8000, "UNSET": null },
                "env_file": [{ "path": "/workspace/backend/.env.production", "required": true }],
                "networks": { "default": null, "backend-net": { "aliases": ["api"] } },
                "secrets": [
                    { "source": "db_password", "target": "db_password" },
                    { "source": "local", "target": "/etc/local", "uid": "1000", "mode": "0440" },
                ],
                "volumes": [
                    { "type": "volume", "source": "uploads", "target": "/app/uploads", "volume": {} },
                    { "type": "bind", "source": "/workspace/conf", "target": "/conf", "read_only": true },
                ],
                "user": "1000",
                "restart": "always",
                "healthcheck": { "test": ["CMD", "true"] },
            },
            "built": { "build": { "context": "." } },
        },
        "networks": { "default": { "name": "insight_default" }, "backend-net": { "name": "shared", "external": true } },
        "volumes": { "uploads": { "name": "insight_uploads" } },
        "secrets": { "db_password": { "external": true }, "local": { "file": "/workspace/local.txt" } },
    })
}

fn config(more: Value) -> Config {
    let mut with = json!({
        "image": DIGEST, "command": ["alembic", "upgrade", "head"], "phase": "expand",
        "environment": { "DATABASE_URL": "wlsec_1" },
    });
    with.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    with.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    serde_json::from_value(with).unwrap()
}

fn migrate(fake: &mut Fake, more: Value) -> Result<Outcome, Error> {
    let config = config(more);
    container::run(&Task::new(&config)?, fake)
}

#[test]
fn a_command_runs_once_and_leaves_no_container() {
    let mut fake = Fake::new();
    let outcome = migrate(&mut fake, json!({ "network": "team_default", "user": "app" })).unwrap();
    assert_eq!(outcome.summary, "ran `alembic upgrade head` (expand)");
    assert_eq!(outcome.outputs["phases"], json!(["expand"]));
    assert_eq!(outcome.outputs["image"], DIGEST);
    assert_eq!(fake.calls, ["create", "start", "wait", "remove"]);
    assert!(fake.containers.is_empty());
    let expected = json!({
        "project": "team", "service": "migrate", "name": "team-migrate", "one-off": true, "image": DIGEST,
        "command": ["alembic", "upgrade", "head"], "environment": { "DATABASE_URL": "wlsec_1" },
        "networks": { "team_default": {} }, "user": "app",
    });
    assert_eq!(fake.specs, [expected]);
}

#[test]
fn an_attempt_after_a_crash_finds_its_container_and_starts_it_at_most_once() {
    // Cut off before the start, while it ran, and after its end.
    for (state, calls) in [
        ("created", &["create", "start", "wait", "remove"][..]),
        ("running", &["create", "wait", "remove"]),
        ("exited", &["create", "wait", "remove"]),
    ] {
        let mut fake = Fake::with("run1", state, 0);
        let (id, name) = ("id-of-team-migrate-run1".to_owned(), "team-migrate".to_owned());
        fake.recalled = Some(Made { id, name });
        migrate(&mut fake, json!({})).unwrap();
        assert_eq!(fake.calls, calls, "{state}");
    }
    // The journal knows of no container, the engine does: by its name and labels.
    let mut fake = Fake::with("run1", "exited", 0);
    migrate(&mut fake, json!({})).unwrap();
    assert_eq!(fake.calls, ["create", "wait", "remove"]);
    // The end that the attempt before has seen is not thrown away with the container.
    let mut fake = Fake::with("run1", "exited", 3);
    assert_eq!(migrate(&mut fake, json!({})).unwrap_err().code, "migrate.failed");
}

#[test]
fn a_container_that_is_gone_is_nobodys_success() {
    let mut fake = Fake::new();
    let (id, name) = ("gone".to_owned(), "team-migrate".to_owned());
    fake.recalled = Some(Made { id, name });
    let error = migrate(&mut fake, json!({})).unwrap_err();
    assert_eq!((error.code.as_str(), error.retryable), ("migrate.unknown", false));
    assert_eq!(fake.calls, ["create"]);
}

#[test]
fn two_migrations_do_not_run_at_once() {
    let mut fake = Fake::with("run0", "running", 0);
    let error = migrate(&mut fake, json!({})).unwrap_err();
    assert_eq!((error.code.as_str(), error.retryable), ("migrate.running", true));
    assert!(error.message.contains("run0"), "{}", error.message);
    assert_eq!(
        fake.containers["team-migrate"].state, "running",
        "the other is left alone"
    );

    // What an old run has left is in nobody's way.
    for state in ["exited", "created"] {
        let mut fake = Fake::with("run0", state, 1);
        migrate(&mut fake, json!({})).unwrap();
        assert_eq!(
            fake.calls,
            ["create", "remove", "create", "start", "wait", "remove"]
        );
    }
}

#[test]
fn a_failure_shows_the_last_lines_and_leaves_no_container() {
    let mut fake = Fake::new();
    fake.exit = 1;
    fake.output = "Running upgrade 1 -> 2\nProgrammingError: column exists\n";
    let error = migrate(&mut fake, json!({})).unwrap_err();
    assert_eq!((error.code.as_str(), error.retryable), ("migrate.failed", true));
    let expected = "`alembic upgrade head` ended with status 1:\nRunning upgrade 1 -> 2\nProgrammingError: column exists";
    assert_eq!(error.message, expected);
    assert!(fake.containers.is_empty());

    let mut fake = Fake::new();
    fake.exit = 1;
    let error = migrate(&mut fake, json!({ "phase": "contract" })).unwrap_err();
    assert!(
        !error.retryable,
        "a contraction that failed halfway is looked at first"
    );
}

#[test]
fn one_that_does_not_end_is_stopped() {
    let mut fake = Fake::new();
    fake.never_ends = true;
    let error = migrate(&mut fake, json!({ "timeout": "90m" })).unwrap_err();
    assert_eq!(error.code, "migrate.timeout");
    assert!(error.message.contains("within 90m"), "{}", error.message);
    assert_eq!(fake.calls, ["create", "start", "wait", "wait", "stop", "remove"]);
}

#[test]
fn a_service_gives_what_it_has() {
    let mut fake = Fake::new();
    let with = json!({
        "image": null, "compose": ["./docker-compose.yml"], "service": "backend", "secrets": { "db_password": "wlsec_2" },
        "environment": { "APP_ENV": "migration" }, "variables": { "DB_PASSWORD": "wlsec_3" },
    });
    migrate(&mut fake, with).unwrap();
    assert_eq!(fake.variables, json!({ "DB_PASSWORD": "wlsec_3" }));
    let expected = json!({
        "project": "insight", "service": "backend", "name": "insight-backend-migrate", "one-off": true,
        "image": "team-backend:latest", "command": ["alembic", "upgrade", "head"], "user": "1000",
        "environment": { "APP_ENV": "migration", "PORT": "8000" },
        "env-files": ["/workspace/backend/.env.production"], "variables": { "DB_PASSWORD": "wlsec_3" },
        "networks": { "insight_default": {}, "shared": {} },
        "mounts": [
            { "type": "volume", "source": "insight_uploads", "target": "/app/uploads", "read-only": false },
            { "type": "bind", "source": "/workspace/conf", "target": "/conf", "read-only": true },
        ],
        "secrets": [
            { "target": "/run/secrets/db_password", "value": "wlsec_2" },
            { "target": "/etc/local", "value": "text of /workspace/local.txt", "uid": 1000, "mode": 0o440 },
        ],
    });
    assert_eq!(fake.specs, [expected]);
}

#[track_caller]
fn check_refused(more: Value, text: &str) {
    let error = migrate(&mut Fake::new(), more).unwrap_err();
    assert_eq!(error.code, "config.invalid");
    assert!(error.message.contains(text), "{}", error.message);
}

#[test]
fn what_means_nothing_is_refused_before_a_container_is_made() {
    let compose = |more: Value| {
        let mut with = json!({ "image": null, "compose": ["docker-compose.yml"], "service": "backend" });
        with.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        with
    };
    check_refused(json!({ "phase": null }), "`phase`");
    check_refused(json!({ "command": [] }), "`command`");
    check_refused(json!({ "image": null }), "`image`");
    check_refused(json!({ "url": "sqlite:///a.db" }), "beside");
    check_refused(compose(json!({ "service": null })), "`service`");
    check_refused(compose(json!({ "service": "front" })), "no service `front`");
    check_refused(compose(json!({ "service": "built" })), "names no image");
    check_refused(
        compose(json!({})),
        "the secret `db_password` of the service `backend`",
    );
}

#[test]
fn the_plan_names_what_it_needs() {
    let with = json!({
        "image": null, "compose": ["docker-compose.yml"], "service": "backend", "secrets": { "db_password": "wlsec_2" },
    });
    let config = config(with);
    let effects = container::plan(&Task::new(&config).unwrap(), &mut Fake::new()).unwrap();
    let needs = effects.iter().map(|effect| {
        (
            effect.capability.as_deref().unwrap(),
            effect.value.as_deref().unwrap(),
        )
    });
    let expected = [
        ("containers.mount", "/workspace/backend/.env.production:ro"),
        ("containers.mount", "/workspace/conf:ro"),
        ("containers.mount", "insight_uploads:rw"),
        ("containers.run", "team-backend:latest"),
    ];
    assert_eq!(needs.collect::<Vec<_>>(), expected);
}

fn effect(function: &str) -> PastEffect {
    PastEffect {
        key: String::new(),
        function: function.into(),
        arguments: json!({ "id": "id-of-team-migrate-run1" }),
        state: "unknown".into(),
    }
}

#[test]
fn undoing_stops_what_runs_and_tells_what_stays() {
    let undo = |fake: &mut Fake, phase: &str, effects: &[PastEffect]| {
        let config = config(json!({ "phase": phase }));
        container::compensate(&Task::new(&config).unwrap(), effects, fake)
    };
    let started = [effect("containers.create"), effect("containers.start")];
    let mut fake = Fake::with("run1", "running", 0);
    assert!(undo(&mut fake, "expand", &started).unwrap().changed);
    assert_eq!(fake.calls, ["stop", "remove"]);

    assert!(!undo(&mut Fake::new(), "expand", &started).unwrap().changed);
    let mut fake = Fake::with("run1", "running", 0);
    assert_eq!(
        undo(&mut fake, "contract", &started).unwrap_err().code,
        "migrate.not-undone"
    );
    assert!(fake.containers.is_empty(), "it is stopped all the same");
    assert!(
        undo(&mut Fake::new(), "contract", &started[..1]).is_ok(),
        "it never ran"
    );

    let mut fake = Fake::with("run0", "running", 0);
    undo(&mut fake, "expand", &[]).unwrap();
    assert_eq!(fake.calls, [""; 0], "another run's is left alone");
}

#[test]
fn after_a_crash_the_engine_is_asked() {
    let check = |fake: &mut Fake, function: &str, expected: Verdict| {
        let verdict = container::reconcile(&effect(function), fake).unwrap();
        assert_eq!(verdict, expected, "{function}");
    };
    let gone = &mut Fake::new();
    check(gone, "containers.remove", Verdict::Done);
    check(gone, "containers.start", Verdict::Unknown);
    let made = &mut Fake::with("run1", "created", 0);
    check(made, "containers.start", Verdict::NotDone);
    check(made, "containers.remove", Verdict::NotDone);
    check(
        &mut Fake::with("run1", "exited", 0),
        "containers.start",
        Verdict::Done,
    );
    check(
        &mut Fake::with("run1", "running", 0),
        "containers.stop",
        Verdict::NotDone,
    );
}
