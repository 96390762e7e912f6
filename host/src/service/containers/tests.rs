//! What an engine or a registry says wrong, told by an engine of ours that says it.

use super::{Address, Caller, Containers, Engine, images::Transfer, roots::Roots, steps::Steps};
use crate::{
    capability::Capability,
    failure::Failure,
    name::{PipelineName, RunId},
    service::{
        context::Context,
        events::Log,
        limits::Limits,
        patience::Patience,
        testing::{self, Journal},
        words::Words,
    },
};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};
use tokio_util::sync::CancellationToken;

const IMAGE: &str = "127.0.0.1:5000/app:1";
const DIGEST: &str = "sha256:aa";

/// Answers each request by the part of its path, and closes.
async fn engine(answers: Vec<(&'static str, u16, String)>) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("temporary");
    let path = directory.path().join("engine.sock");
    let listener = UnixListener::bind(&path).expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 16 << 10];
            let count = stream.read(&mut request).await.unwrap_or_default();
            let line = String::from_utf8_lossy(&request[..count])
                .lines()
                .next()
                .unwrap_or_default()
                .to_string();
            let found = answers.iter().find(|(part, ..)| line.contains(part));
            let Some((_, status, body)) = found else {
                // Gone in the middle.
                continue;
            };
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all((head + body).as_bytes()).await;
        }
    });
    (directory, format!("unix://{}", path.display()))
}

fn caller(host: &str, journal: &Arc<Journal>) -> Caller {
    let host = host.to_string();
    let address = Address::from_variables(|name| (name == "DOCKER_HOST").then(|| host.clone()));
    let (sender, _) = tokio::sync::mpsc::channel(1);
    let context = Context {
        pipeline: PipelineName::new("test").expect("valid"),
        stage: testing::stage(),
        run: RunId::new(0, [0; 10]),
        attempt: 1,
        config: "{}".into(),
        deadline: None,
        cancel: CancellationToken::new(),
    };
    Caller {
        granter: testing::granter(&[
            (Capability::ContainersPush, IMAGE),
            (Capability::ContainersPull, IMAGE),
        ]),
        effects: journal.attempt(false),
        secrets: None,
        containers: Containers {
            engine: Arc::new(Engine::new(address)),
            roots: Roots::default(),
            steps: Steps::new(std::path::Path::new("/nonexistent")),
            variables: Arc::default(),
        },
        log: Log::new(testing::stage(), 1, sender, Words::default(), &Limits::default()),
        patience: Patience::of(&context),
        context,
    }
}

fn version() -> (&'static str, u16, String) {
    (
        "/version",
        200,
        json!({ "ApiVersion": "1.41", "Version": "20.10" }).to_string(),
    )
}

fn there() -> (&'static str, u16, String) {
    (
        "/images/127.0.0.1:5000/app:1/json",
        200,
        json!({ "Id": "sha256:id" }).to_string(),
    )
}

fn pushed(lines: &[Json]) -> (&'static str, u16, String) {
    let lines: Vec<String> = lines.iter().map(Json::to_string).collect();
    ("/push", 200, lines.join("\n"))
}

fn held(digest: &str) -> (&'static str, u16, String) {
    let descriptor = json!({ "mediaType": "m", "digest": digest, "size": 7 });
    (
        "/distribution/",
        200,
        json!({ "Descriptor": descriptor, "Platforms": [] }).to_string(),
    )
}

async fn push(answers: Vec<(&'static str, u16, String)>) -> Result<Json, Failure> {
    let (_directory, host) = engine([vec![version(), there()], answers].concat()).await;
    let journal = Arc::new(Journal::default());
    let pushed = caller(&host, &journal).push(IMAGE, Transfer::default()).await;
    assert_eq!(
        journal.functions(),
        ["containers.push"],
        "announced before it began"
    );
    pushed
}

#[track_caller]
fn refused(pushed: Result<Json, Failure>, code: &str, is_retryable: bool) {
    let failure = pushed.expect_err("no success");
    assert_eq!(
        (failure.code.as_str(), failure.retryable),
        (code, is_retryable),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_push_has_succeeded_when_the_registry_says_so() {
    let last = json!({ "status": format!("1: digest: {DIGEST} size: 7") });
    let fine = push(vec![
        pushed(&[json!({ "status": "Pushing" }), last.clone()]),
        held(DIGEST),
    ])
    .await;
    assert_eq!(
        fine.expect("pushed")["reference"],
        format!("127.0.0.1:5000/app@{DIGEST}")
    );
    let error = |message: &str| json!({ "errorDetail": { "message": message }, "error": message });
    let server = push(vec![
        pushed(&[error(
            "received unexpected HTTP status: 500 Internal Server Error",
        )]),
        held(DIGEST),
    ])
    .await;
    refused(server, "registry.unreachable", true);
    let inside = push(vec![
        pushed(&[
            json!({ "status": "Pushing" }),
            error("unauthorized: authentication required"),
        ]),
        held(DIGEST),
    ])
    .await;
    refused(inside, "registry.denied", false);
    refused(
        push(vec![pushed(std::slice::from_ref(&last)), held("sha256:bb")]).await,
        "registry.digest",
        false,
    );
    refused(
        push(vec![pushed(&[json!({ "status": "Pushed" })]), held(DIGEST)]).await,
        "image.push",
        true,
    );
    refused(
        push(vec![("/push", 500, json!({ "message": "disk" }).to_string())]).await,
        "registry.unreachable",
        true,
    );
    // The engine is killed: in the middle of the push, and between push and look.
    refused(push(vec![]).await, "engine.unreachable", true);
    refused(push(vec![pushed(&[last])]).await, "engine.unreachable", true);
}

#[tokio::test]
async fn a_pull_with_an_error_in_its_stream_is_none() {
    let message = "manifest for 127.0.0.1:5000/app:1 not found: manifest unknown";
    let lines = json!({ "errorDetail": { "message": message }, "error": message }).to_string();
    let (_directory, host) = engine(vec![version(), ("/images/create", 200, lines), there()]).await;
    let journal = Arc::new(Journal::default());
    let pulled = caller(&host, &journal).pull(IMAGE, Transfer::default()).await;
    refused(pulled, "image.missing", false);
}
