//! Native programs as a guest sees them, hostile ones included.

use super::*;
use crate::{
    event::RunEvent,
    name::SecretName,
    pipeline::model::{SecretSource, SecretSpec},
    secret::{Mask, MaskStream, Sources, Store},
    service::{
        files::Mount,
        limits::Limits,
        testing::{Journal, granter, stage},
    },
    source::{SourceFile, Span},
    value::SecretText,
};
use indexmap::IndexMap;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

struct Project {
    root: tempfile::TempDir,
    journal: Arc<Journal>,
    runner: Runner,
    log: mpsc::Receiver<RunEvent>,
}

const EVERYTHING: &[&str] = &["sh **", "env **", "cat **", "pwd **", "sleep **", "true", "none"];

impl Project {
    fn new(allow: &[&str]) -> Self {
        let root = tempfile::tempdir().expect("temporary");
        let mount = |guest: &str, host: &str| {
            std::fs::create_dir_all(root.path().join(host)).expect("made");
            Mount::open(guest, &root.path().join(host), Mode::ReadWrite).expect("opens")
        };
        let mounts = Mounts::new(vec![mount("/workspace", "project"), mount("/tmp", "scratch")]);
        let allow: Vec<_> = allow.iter().map(|text| (Capability::Process, *text)).collect();
        let journal = Arc::new(Journal::default());
        let (sender, log) = mpsc::channel(100_000);
        let runner = Runner {
            granter: granter(&allow),
            mounts: Arc::new(mounts.expect("apart")),
            effects: journal.attempt(false),
            secrets: None,
            log: Log::new(stage(), 1, sender, Words::default(), &Limits::default()),
            patience: Patience::default(),
        };
        Self {
            root,
            journal,
            runner,
            log,
        }
    }

    async fn run(&self, argv: &[&str], options: Json) -> Result<Json, Failure> {
        let argv: Vec<_> = argv.iter().map(ToString::to_string).collect();
        self.runner.run(&argv, &options.to_string()).await
    }

    async fn shell(&self, script: &str) -> Result<Json, Failure> {
        self.run(&["sh", "-c", script], json!({})).await
    }
}

fn code<T>(outcome: &Result<T, Failure>) -> &str {
    outcome.as_ref().err().map_or("ok", |failure| &failure.code)
}

fn text<'a>(outcome: &'a Result<Json, Failure>, stream: &str) -> &'a str {
    outcome.as_ref().expect("ran")[stream].as_str().expect("text")
}

#[tokio::test]
async fn exit_status_and_streams() {
    let mut project = Project::new(EVERYTHING);
    let ran = project.shell("echo out; echo err >&2; exit 3").await;
    assert_eq!(
        ran,
        Ok(json!({ "exit": 3, "stdout": "out\n", "stderr": "err\n" }))
    );
    let mut lines = Vec::new();
    while let Ok(RunEvent::StageLog { level, message, .. }) = project.log.try_recv() {
        lines.push(format!("{level:?} {message}"));
    }
    lines.sort();
    assert_eq!(lines, ["Info out", "Warn err"]);
    let intents = project.journal.intents.lock().expect("not poisoned").clone();
    let arguments =
        json!({ "argv": ["sh", "-c", "echo out; echo err >&2; exit 3"], "directory": "/workspace" });
    assert_eq!(
        (intents[0].function, &intents[0].arguments),
        ("process.run", &arguments)
    );
    let echoed = project.run(&["cat"], json!({ "input": "line\nrest" })).await;
    assert_eq!(text(&echoed, "stdout"), "line\nrest");
    let unread = project
        .run(&["true"], json!({ "input": "x".repeat(1 << 20) }))
        .await;
    assert_eq!(unread.expect("ran")["exit"], 0);
    let died = project.shell("kill -9 $$").await.expect_err("killed");
    assert_eq!(
        (died.code.as_str(), died.details),
        ("process.signal", Some(json!({ "signal": 9 })))
    );
}

#[tokio::test]
async fn the_environment_is_clean() {
    let project = Project::new(EVERYTHING);
    // There must be something that could be inherited, or this would prove nothing. Cargo sets many; a shell sets some.
    assert!(std::env::vars().any(|(name, _)| !["HOME", "LANG", "PATH"].contains(&name.as_str())));
    let ran = project
        .run(&["env"], json!({ "environment": { "MINE": "yes", "LANG": "C" } }))
        .await;
    let mut names: Vec<_> = text(&ran, "stdout")
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    names.sort_unstable();
    names.retain(|name| *name != "HOME");
    assert_eq!(names, ["LANG", "MINE", "PATH"]);
    assert!(text(&ran, "stdout").contains("LANG=C\n"));
    for name in ["PATH", "LD_PRELOAD", "A=B", ""] {
        let refused = project
            .run(&["env"], json!({ "environment": { name: "x" } }))
            .await;
        assert_eq!(code(&refused), "process.options", "{name}");
    }
}

#[tokio::test]
async fn only_what_is_granted_runs() {
    let project = Project::new(&["sh -c *", "none"]);
    std::fs::write(project.root.path().join("project/sh"), "").expect("written");
    let check = async |argv: &[&str], expected: &str| {
        assert_eq!(code(&project.run(argv, json!({})).await), expected, "{argv:?}");
    };
    check(&["sh", "-c", "true"], "ok").await;
    check(&["sh", "-c", "true", "more"], "grant.denied").await;
    check(&["cat"], "grant.denied").await;
    check(&["/bin/sh", "-c", "true"], "grant.denied").await;
    check(&["./sh", "-c", "true"], "grant.denied").await;
    check(&["none"], "process.missing").await;
    check(&[], "process.options").await;
    check(&[""], "process.options").await;
    let here = project
        .run(&["sh", "-c", "pwd"], json!({ "directory": "/tmp" }))
        .await;
    assert!(text(&here, "stdout").ends_with("/scratch\n"));
    for directory in ["/etc", "/tmp/..", "/tmp/none"] {
        let refused = project
            .run(&["sh", "-c", "pwd"], json!({ "directory": directory }))
            .await;
        assert_ne!(code(&refused), "ok", "{directory}");
    }
    assert_eq!(
        code(&project.run(&["sh", "-c", "true"], json!({ "shell": true })).await),
        "process.options"
    );
}

/// Waits until no process has `mark` in its arguments.
async fn gone(mark: &str) -> bool {
    let until = Instant::now() + Duration::from_secs(20);
    let is_alive = || {
        let processes = std::fs::read_dir("/proc").expect("lists");
        let arguments = processes.filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok());
        arguments
            .into_iter()
            .any(|line| String::from_utf8_lossy(&line).contains(mark))
    };
    while is_alive() {
        if Instant::now() > until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

#[tokio::test]
async fn nobody_of_the_group_outlives_the_call() {
    let mut project = Project::new(EVERYTHING);
    let left = project
        .shell("sleep 4100.01 & sleep 4100.01 & echo started")
        .await;
    assert_eq!(
        text(&left, "stdout"),
        "started\n",
        "an end with children left behind is an end"
    );
    assert!(gone("4100.01").await);

    project.runner.patience.deadline = Some(Instant::now() + Duration::from_millis(300));
    let late = project
        .shell("trap '' TERM; (trap '' TERM; sleep 4100.02; sleep 4100.02) & sleep 4100.02")
        .await;
    assert_eq!(code(&late), "process.timeout");
    assert!(gone("4100.02").await);

    project.runner.patience.deadline = None;
    let dropped = tokio::time::timeout(
        Duration::from_millis(300),
        project.shell("sleep 4100.03 & sleep 4100.03"),
    );
    assert!(dropped.await.is_err());
    assert!(gone("4100.03").await);

    let cancel = project.runner.patience.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cancel.cancel();
    });
    assert_eq!(code(&project.shell("sleep 4100.04 & wait").await), "cancelled");
    assert!(gone("4100.04").await);
}

#[tokio::test]
async fn a_flood_is_bounded() {
    let mut project = Project::new(EVERYTHING);
    let ran = project
        .shell("yes 0123456789 | head -c 20000000; printf end")
        .await;
    let kept = text(&ran, "stdout");
    assert!(kept.len() <= 64 << 10 && kept.ends_with("end"), "{}", kept.len());
    let mut lines = 0;
    while project.log.try_recv().is_ok() {
        lines += 1;
    }
    assert_eq!(lines, Limits::default().log_lines);
    let endless = project.shell("head -c 1000000 /dev/zero | tr '\\0' x").await;
    assert_eq!(
        text(&endless, "stdout").len(),
        64 << 10,
        "one line without an end"
    );
}

/// Hides one value, and waits for the end of a stream to do so.
struct Stars;

const VALUE: &str = "correct-horse";

impl Mask for Stars {
    fn learn(&self, _values: &[&[u8]]) {}

    fn redact(&self, text: &str) -> String {
        text.replace(VALUE, "***")
    }

    fn stream(&self) -> Box<dyn MaskStream> {
        Box::new(Held(String::new()))
    }
}

struct Held(String);

impl MaskStream for Held {
    fn push(&mut self, piece: &str) -> String {
        self.0.push_str(piece);
        String::new()
    }

    fn finish(&mut self) -> String {
        Stars.redact(&std::mem::take(&mut self.0))
    }
}

/// The secret `key`, from a variable.
fn secrets() -> Secrets {
    let file = SourceFile::new("windlass.yaml", "windlass.yaml", "secrets:\n");
    let spec = SecretSpec {
        from: SecretSource::Env("KEY".into()),
        key: None,
        kdf: None,
        hosts: Vec::new(),
        span: Span::new(&Arc::new(file), 0..7),
    };
    let sources = Sources {
        root: "/none".into(),
        variable: Box::new(|_| Some(VALUE.into())),
        docker_secrets: "/none".into(),
        read: Box::new(|_| Err(std::io::ErrorKind::NotFound.into())),
        aws_sm: None,
    };
    let specs = IndexMap::from([(key(), spec)]);
    Secrets::new(Arc::new(Store::new(specs, sources, Arc::new(Stars))))
}

fn key() -> SecretName {
    SecretName::new("key").expect("valid")
}

#[tokio::test]
async fn secrets_reach_the_program_and_nothing_else() {
    let mut project = Project::new(&["sh -c *"]);
    let secrets = Arc::new(secrets());
    let placeholder = secrets.placeholder(&SecretText::Secret {
        name: key(),
        field: None,
    });
    project.runner.secrets = Some(secrets);
    let script = format!("test {placeholder} = $MINE && test $(cat) = $MINE && echo $MINE >&2 && exit 7");
    let options = json!({ "environment": { "MINE": placeholder }, "input": placeholder });
    let ungranted = project.run(&["sh", "-c", &script], options.clone()).await;
    assert_eq!(
        code(&ungranted),
        "grant.denied",
        "the program is granted, the secret is not"
    );
    project.runner.granter = granter(&[(Capability::Process, "sh -c *"), (Capability::SecretsUse, "key")]);
    let ran = project.run(&["sh", "-c", &script], options).await;
    assert_eq!(ran, Ok(json!({ "exit": 7, "stdout": "", "stderr": "***\n" })));
    let intents = format!("{:?}", project.journal.intents.lock().expect("not poisoned"));
    assert!(intents.contains("test <key> =") && !intents.contains(VALUE));
    let exact = project.run(&["sh", "-c", VALUE, "x"], json!({})).await;
    assert_eq!(code(&exact), "grant.denied");
}
