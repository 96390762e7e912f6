//! `windlass:containers/exec`: a program inside a running container.

use super::{Caller, caller, client, inspect, names, spec};
use crate::{
    capability::{Capability, Leaves},
    event::LogLevel,
    failure::{Failure, Turn},
    service::{State, capture::Capture},
    wit::{GuestError, windlass::containers::exec},
};
use bollard::{
    container::LogOutput,
    exec::{StartExecOptions, StartExecResults},
    models::ExecConfig,
};
use futures::{Stream, StreamExt};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::{collections::BTreeMap, pin::Pin, time::Duration};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use wasmtime::component::{HasSelf, Linker};

const DEFAULT_TIMEOUT_MS: u64 = 60_000;
const MOST_WORDS: usize = 1000;

/// See `run` in the WIT.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Options {
    pub(super) environment: BTreeMap<String, String>,
    pub(super) user: Option<String>,
    pub(super) working_dir: Option<String>,
    input: Option<String>,
    pub(super) repeatable: bool,
    pub(super) timeout_ms: Option<u64>,
    log: bool,
}

/// A program that runs, and its streams.
pub(super) struct Started {
    pub(super) exec: String,
    pub(super) output: Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>,
    pub(super) input: Pin<Box<dyn AsyncWrite + Send>>,
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    exec::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl exec::Host for State {
    async fn run(
        &mut self,
        container: String,
        argv: Vec<String>,
        options: String,
    ) -> wasmtime::Result<Result<String, GuestError>> {
        let caller = caller!(self);
        let ran = match spec::parse::<Options>("the options of `run`", "exec.options", &options) {
            Ok(options) => caller.exec(&container, argv, options).await,
            Err(failure) => Err(failure),
        };
        Ok(ran.map(|json| json.to_string()).map_err(GuestError::from))
    }
}

impl Caller {
    /// A running container in which programs may be run: its id and name.
    pub(super) async fn enterable(&self, container: &str) -> Result<(String, String), Failure> {
        let found = self.find(container).await?;
        self.granter
            .check(Capability::ContainersExec, &names::owner(&found)?.pattern())?;
        let shown = inspect::to_json(&found);
        let name = shown["name"].as_str().unwrap_or_default().to_string();
        if shown["state"] != "running" {
            let message = format!(
                "`{name}` is {} and runs no programs",
                shown["state"].as_str().unwrap_or("gone")
            );
            return Err(Failure::new(Turn::Environment, "container.stopped", message));
        }
        Ok((found.id.unwrap_or_else(|| container.into()), name))
    }

    async fn exec(&self, container: &str, argv: Vec<String>, options: Options) -> Result<Json, Failure> {
        if argv.first().is_none_or(String::is_empty) || argv.len() > MOST_WORDS {
            let message = format!("a program is 1 to {MOST_WORDS} words, the first of them its name");
            return Err(Failure::new(Turn::Plugin, "exec.options", message));
        }
        let (id, name) = self.enterable(container).await?;
        if options.repeatable {
            return self.run_in(&id, &name, &argv, &options).await;
        }
        let shown: Vec<String> = argv.iter().map(|word| self.describe(word)).collect();
        let input = options.input.as_deref().map(|input| self.describe(input));
        let arguments = json!({ "container": name, "id": id, "argv": shown, "input": input });
        let caller = self.clone();
        let effect = || async move { caller.run_in(&id, &name, &argv, &options).await };
        self.effects
            .perform("containers.exec", arguments, Leaves::State, effect)
            .await
    }

    async fn run_in(
        &self,
        id: &str,
        name: &str,
        argv: &[String],
        options: &Options,
    ) -> Result<Json, Failure> {
        let timeout = Duration::from_millis(options.timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS));
        let program = argv.first().map(String::as_str).unwrap_or_default();
        tokio::select! {
            biased;
            failure = self.patience.ended() => Err(failure),
            ran = tokio::time::timeout(timeout, self.attached(id, name, argv, options)) => ran.unwrap_or_else(|_| {
                let message = format!("`{program}` in `{name}` did not end within {} s", timeout.as_secs_f32());
                Err(Failure::new(Turn::Environment, "exec.timeout", message))
            }),
        }
    }

    /// Starts a program with its streams attached.
    pub(super) async fn started(
        &self,
        id: &str,
        name: &str,
        argv: &[String],
        options: &Options,
        takes_input: bool,
    ) -> Result<Started, Failure> {
        let docker = self.docker().await?;
        let failed =
            |error: &bollard::errors::Error| self.failure(&format!("run a program in `{name}`"), error);
        let plain = |text: &String| self.swap(text).map(|swapped| swapped.to_string());
        let environment = options
            .environment
            .iter()
            .map(|(name, value)| Ok(format!("{name}={}", plain(value)?)));
        let config = ExecConfig {
            attach_stdin: Some(takes_input),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(argv.iter().map(plain).collect::<Result<_, _>>()?),
            env: Some(environment.collect::<Result<_, Failure>>()?),
            user: options.user.clone(),
            working_dir: options.working_dir.clone(),
            privileged: Some(false),
            ..ExecConfig::default()
        };
        let made = docker
            .create_exec(id, config)
            .await
            .map_err(|error| match client::status(&error) {
                Some(409) => Failure::new(
                    Turn::Environment,
                    "container.stopped",
                    format!("`{name}` does not run"),
                ),
                _ => failed(&error),
            })?;
        let started = docker.start_exec(&made.id, None::<StartExecOptions>).await;
        match started.map_err(|error| failed(&error))? {
            StartExecResults::Attached { output, input } => Ok(Started {
                exec: made.id,
                output,
                input,
            }),
            StartExecResults::Detached => {
                let message = format!("the engine detached a program in `{name}`");
                Err(Failure::new(Turn::Environment, "engine.failed", message))
            }
        }
    }

    /// How a program has ended.
    pub(super) async fn exit_of(&self, exec: &str, name: &str) -> Result<i64, Failure> {
        let ended = self.docker().await?.inspect_exec(exec).await;
        let ended = ended.map_err(|error| self.failure(&format!("look at a program in `{name}`"), &error))?;
        ended.exit_code.ok_or_else(|| {
            let message = format!("a program in `{name}` has ended, and the engine does not know how");
            Failure::new(Turn::Environment, "engine.failed", message)
        })
    }

    async fn attached(
        &self,
        id: &str,
        name: &str,
        argv: &[String],
        options: &Options,
    ) -> Result<Json, Failure> {
        let started = self
            .started(id, name, argv, options, options.input.is_some())
            .await?;
        let Started {
            exec,
            mut output,
            mut input,
        } = started;
        let failed =
            |error: &bollard::errors::Error| self.failure(&format!("run a program in `{name}`"), error);
        let words = self.words();
        let capture = |level| match options.log {
            true => Capture::new(&self.log, level, &words),
            false => Capture::silent(&words),
        };
        let (mut stdout, mut stderr) = (capture(LogLevel::Info), capture(LogLevel::Warn));
        let feed = async {
            if let Some(text) = &options.input {
                let text = self.swap(text)?;
                // A program may end without reading what it was given.
                let _ = input.write_all(text.as_bytes()).await;
                let _ = input.shutdown().await;
            }
            Ok(())
        };
        let read = async {
            while let Some(piece) = output.next().await {
                match piece.map_err(|error| failed(&error))? {
                    LogOutput::StdErr { message } => stderr.push(&message).await,
                    other => stdout.push(other.as_ref()).await,
                }
            }
            Ok::<_, Failure>(())
        };
        let (fed, read): (Result<(), Failure>, _) = tokio::join!(feed, read);
        fed?;
        read?;
        let exit = self.exit_of(&exec, name).await?;
        let (stdout, stderr) = (stdout.finish().await, stderr.finish().await);
        // What runc says when it finds no program, or may not execute it.
        let is_missing = matches!(exit, 126 | 127) && format!("{stdout}{stderr}").contains("exec failed");
        if is_missing {
            let program = argv.first().map(String::as_str).unwrap_or_default();
            let message = format!(
                "`{program}` cannot be run in `{name}`: {}",
                format!("{stdout}{stderr}").trim()
            );
            return Err(Failure::new(Turn::PipelineAuthor, "exec.missing", message));
        }
        Ok(json!({ "exit": exit, "stdout": stdout, "stderr": stderr }))
    }
}
