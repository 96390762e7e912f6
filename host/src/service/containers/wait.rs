//! Waiting for a container to end or to be healthy.

use super::{Caller, inspect};
use crate::{
    event::LogLevel,
    failure::{Failure, Turn},
    service::capture::Capture,
};
use bollard::{
    container::LogOutput,
    errors::Error,
    models::ContainerInspectResponse,
    query_parameters::{LogsOptionsBuilder, WaitContainerOptions},
};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::time::Duration;
use tokio::time::Instant;

/// How often the engine is asked what it does not tell: a look costs it about a millisecond.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long the engine's word is waited for before it is asked all the same.
const TOLD: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(3600);
/// What a container's last words are worth in a message.
const LAST_LINES: u32 = 30;
/// After the end of a container its output is there at once; longer only an engine in trouble takes.
const DRAIN: Duration = Duration::from_secs(2);

/// See `wait` in the WIT.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Options {
    until: Until,
    #[serde(default)]
    log: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Until {
    Exited,
    Healthy,
}

impl Caller {
    pub(super) async fn wait(
        &self,
        container: &str,
        options: Options,
        timeout_ms: u32,
    ) -> Result<Json, Failure> {
        let found = self.seen(container).await?;
        let id = found.id.clone().unwrap_or_else(|| container.into());
        let timeout = Duration::from_millis(timeout_ms.into()).min(LONGEST);
        let waiting = async {
            tokio::select! {
                biased;
                failure = self.patience.ended() => Err(failure),
                found = self.poll(&id, options.until, Instant::now() + timeout) => found,
            }
        };
        if !options.log {
            return waiting.await;
        }
        let mut following = std::pin::pin!(self.follow(&id));
        let mut waiting = std::pin::pin!(waiting);
        tokio::select! {
            waited = &mut waiting => {
                let _ = tokio::time::timeout(DRAIN, following).await;
                waited
            }
            () = &mut following => waiting.await,
        }
    }

    async fn poll(&self, id: &str, until: Until, deadline: Instant) -> Result<Json, Failure> {
        loop {
            let found = self.find(id).await?;
            match reached(&found, until) {
                Some(true) => return Ok(inspect::to_json(&found)),
                Some(false) => {
                    let shown = inspect::to_json(&found);
                    let name = shown["name"].as_str().unwrap_or_default().to_string();
                    let message = match shown["state"].as_str() {
                        Some("running") => {
                            format!("`{name}` is unhealthy: its health check has failed for good")
                        }
                        state => format!(
                            "`{name}` is {} (exit {}), and was to become healthy",
                            state.unwrap_or("gone"),
                            shown["exit-code"]
                        ),
                    };
                    return Err(self.last_words("container.unhealthy", message, &found).await);
                }
                None if Instant::now() >= deadline => {
                    let name = found
                        .name
                        .as_deref()
                        .unwrap_or_default()
                        .trim_start_matches('/')
                        .to_string();
                    let wanted = if until == Until::Exited {
                        "end"
                    } else {
                        "become healthy"
                    };
                    let message = format!("`{name}` did not {wanted} in time");
                    let failure = self.last_words("container.timeout", message, &found).await;
                    return Err(failure.retryable());
                }
                None => self.change(id, until, &found).await,
            }
        }
    }

    /// Until a look may find something else. Of the end of what runs the engine tells at once.
    async fn change(&self, id: &str, until: Until, found: &ContainerInspectResponse) {
        let runs = found.state.as_ref().and_then(|state| state.running) == Some(true);
        if let (Until::Exited, true, Ok(docker)) = (until, runs, self.docker().await) {
            let mut end = docker.wait_container(id, None::<WaitContainerOptions>);
            let told = tokio::time::timeout(TOLD, end.next()).await;
            if matches!(
                told,
                Ok(Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })))
            ) {
                return;
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }

    async fn last_words(&self, code: &str, message: String, found: &ContainerInspectResponse) -> Failure {
        let id = found.id.as_deref().unwrap_or_default();
        let log = self.last_lines(id, LAST_LINES).await.unwrap_or_default();
        let health = found
            .state
            .as_ref()
            .and_then(|state| state.health.as_ref()?.log.as_ref());
        let replies = health.into_iter().flatten().rev().take(3).map(|reply| {
            let output = reply.output.clone().unwrap_or_default();
            json!({ "exit": reply.exit_code, "output": self.words().text(output.trim(), 1 << 10) })
        });
        let replies: Vec<Json> = replies.collect();
        Failure::new(Turn::PipelineAuthor, code, message)
            .details(json!({ "log": log, "health-log": replies }))
    }

    /// The last of what a container wrote, redacted.
    pub(super) async fn last_lines(&self, id: &str, lines: u32) -> Result<String, Failure> {
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .tail(&lines.to_string())
            .build();
        let mut stream = self.docker().await?.logs(id, Some(options));
        let mut capture = Capture::silent(&self.words());
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| self.failure("read the container's output", &error))?;
            capture.push(piece.as_ref()).await;
        }
        Ok(capture.finish().await)
    }

    /// What a container writes, to the stage's log, until it ends.
    async fn follow(&self, id: &str) {
        let Ok(docker) = self.docker().await else { return };
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .follow(true)
            .build();
        let mut stream = docker.logs(id, Some(options));
        let words = self.words();
        let mut stdout = Capture::new(&self.log, LogLevel::Info, &words);
        let mut stderr = Capture::new(&self.log, LogLevel::Warn, &words);
        // When the output cannot be followed, the wait goes on all the same: how it ended is what counts.
        while let Some(Ok(piece)) = stream.next().await {
            match &piece {
                LogOutput::StdErr { message } => stderr.push(message).await,
                other => stdout.push(other.as_ref()).await,
            }
        }
        stdout.finish().await;
        stderr.finish().await;
    }
}

/// `None`: not yet; `Some(false)`: never any more.
fn reached(found: &ContainerInspectResponse, until: Until) -> Option<bool> {
    let shown = inspect::to_json(found);
    let (state, health) = (shown["state"].as_str(), shown["health"].as_str());
    match (until, state, health) {
        (Until::Exited, Some("exited" | "dead"), _) => Some(true),
        (Until::Exited, _, _) => None,
        (Until::Healthy, Some("exited" | "dead"), _) => Some(false),
        (Until::Healthy, Some("running"), Some("healthy" | "none")) => Some(true),
        (Until::Healthy, Some("running"), Some("unhealthy")) => Some(false),
        (Until::Healthy, _, _) => None,
    }
}
