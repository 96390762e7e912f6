//! `windlass:process/runner`: native programs, by argument list, outside the sandbox.
//!
//! What is here makes sure that exactly the granted program is started, with nothing of our environment, and that it does
//! not outlive its stage. What the program does inside itself nobody here can see.

mod capture;
mod group;

use super::{
    State,
    effect::Effects,
    events::Log,
    files::Mounts,
    patience::Patience,
    secret::{Place, Secrets},
    words::Words,
};
use crate::{
    capability::{Capability, Leaves},
    failure::{Failure, Turn},
    grant::Granter,
    pattern::{Mode, Pattern},
    wit::{GuestError, windlass::process::runner},
};
use cap_std::fs::Dir;
use group::{Ended, Group};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeMap,
    os::{fd::AsRawFd, unix::fs::PermissionsExt, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use wasmtime::component::{HasSelf, Linker};
use zeroize::Zeroizing;

/// What a program gets of our environment: where programs are, whose files it may want, and which language it speaks.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];
/// Where programs are when we have no `PATH` ourselves.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What running a program needs of an attempt.
pub(crate) struct Runner {
    granter: Granter,
    mounts: Arc<Mounts>,
    effects: Arc<Effects>,
    secrets: Option<Arc<Secrets>>,
    log: Log,
    patience: Patience,
}

/// See `run` in the WIT.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Options {
    environment: BTreeMap<String, String>,
    directory: Option<String>,
    input: String,
}

/// A program ready to start, secrets and all. Not `Debug`.
struct Program {
    path: PathBuf,
    argv: Vec<Zeroizing<String>>,
    environment: Vec<(String, Zeroizing<String>)>,
    directory: Dir,
    input: Zeroizing<String>,
}

impl Runner {
    fn of(state: &State) -> Self {
        Self {
            granter: state.granter.clone(),
            mounts: state.mounts.clone(),
            effects: state.effects.clone(),
            secrets: state.services.secrets.clone(),
            log: state.log.clone(),
            patience: Patience::of(&state.context),
        }
    }

    /// # Errors
    /// `process.options`, `grant.denied`, `process.missing`, `process.timeout`, `process.signal`, `cancelled`.
    pub(crate) async fn run(&self, argv: &[String], options: &str) -> Result<Json, Failure> {
        // By way of an object: an array would do for the derived code too.
        let object = serde_json::from_str::<serde_json::Map<String, Json>>(options).map(Json::Object);
        let options: Options = object.and_then(serde_json::from_value).map_err(|_| {
            let failure = invalid("the options of `run` are no JSON object of known options");
            failure.help("known are: environment, directory, input")
        })?;
        let Some(name) = argv.first().filter(|name| !name.is_empty()) else {
            return Err(invalid("the argument list names no program"));
        };
        options.environment.keys().try_for_each(|name| check_name(name))?;
        // With the placeholders: what a secret is does not decide what may run, so only a `*` covers one.
        self.granter.check(Capability::Process, &Pattern::call(argv))?;
        let (directory, shown_directory) = self.directory(options.directory.as_deref())?;
        let program = Program {
            path: find(name, &inherited("PATH").unwrap_or_else(|| DEFAULT_PATH.into()))?,
            argv: argv
                .iter()
                .map(|word| self.swap(word))
                .collect::<Result<_, _>>()?,
            environment: self.environment(&options)?,
            directory,
            input: self.swap(&options.input)?,
        };
        let argv: Vec<_> = argv.iter().map(|word| self.describe(word)).collect();
        let arguments = json!({ "argv": argv, "directory": shown_directory });
        let start = || self.start(name, program);
        self.effects
            .perform("process.run", arguments, Leaves::State, start)
            .await
    }

    /// The directory to start in: the one that is asked for, else the project's if granted, else the scratch.
    fn directory(&self, asked: Option<&str>) -> Result<(Dir, String), Failure> {
        let guest_path = match asked {
            Some(path) => path,
            None if self.mounts.resolve("/workspace", Mode::ReadOnly).is_ok() => "/workspace",
            None => "/tmp",
        };
        let resolved = self.mounts.resolve(guest_path, Mode::ReadOnly)?;
        let directory = resolved.directory.open_dir(&resolved.path).map_err(|error| {
            let message = format!("the directory `{guest_path}` cannot be opened: {error}");
            Failure::new(Turn::PipelineAuthor, "process.missing", message)
                .help("make it, or correct the path")
        })?;
        Ok((directory, guest_path.into()))
    }

    fn environment(&self, options: &Options) -> Result<Vec<(String, Zeroizing<String>)>, Failure> {
        let ours = INHERITED
            .iter()
            .filter_map(|name| Some((name.to_string(), Zeroizing::new(inherited(name)?))));
        let mut environment: BTreeMap<_, _> = ours.collect();
        for (name, value) in &options.environment {
            environment.insert(name.clone(), self.swap(value)?);
        }
        Ok(environment.into_iter().collect())
    }

    fn swap(&self, text: &str) -> Result<Zeroizing<String>, Failure> {
        match &self.secrets {
            Some(secrets) => secrets.swap(&self.granter, text, Place::Local),
            None => Ok(Zeroizing::new(text.into())),
        }
    }

    fn describe(&self, text: &str) -> String {
        match &self.secrets {
            Some(secrets) => secrets.describe(text),
            None => text.into(),
        }
    }

    /// Runs the program to its end, on a task of its own: when this future is dropped, the task ends the program.
    async fn start(&self, name: &str, program: Program) -> Result<Json, Failure> {
        let (patience, _stop) = self.patience.until_dropped();
        let (group, pipes) = program.spawn(name)?;
        let words = Words::new(self.secrets.as_ref().map(|secrets| secrets.store().mask()));
        let log = self.log.clone();
        let input = program.input;
        let supervised =
            tokio::spawn(
                async move { capture::supervise(group, pipes, &input, &patience, &log, &words).await },
            );
        let (ended, output) = supervised.await.map_err(|error| {
            let message = format!("the task that watches `{name}` ended early: {error}");
            Failure::new(Turn::Windlass, "internal.process", message)
        })?;
        let status = match ended {
            Ended::By(status) => status,
            Ended::Stopped(failure) => return Err(stopped(name, failure)),
            Ended::Lost(error) => {
                let message = format!("`{name}` cannot be waited for: {error}");
                return Err(Failure::new(Turn::Environment, "process.signal", message));
            }
        };
        match status.code() {
            Some(exit) => Ok(json!({ "exit": exit, "stdout": output.stdout, "stderr": output.stderr })),
            None => Err(killed(name, status.signal())),
        }
    }
}

impl Program {
    fn spawn(&self, name: &str) -> Result<(Group, group::Pipes), Failure> {
        let mut command = tokio::process::Command::new(&self.path);
        command
            .arg0(name)
            .args(self.argv.iter().skip(1).map(|word| word.as_str()))
            .env_clear()
            .envs(
                self.environment
                    .iter()
                    .map(|(name, value)| (name, value.as_str())),
            )
            // By descriptor: a path could lead elsewhere by now.
            .current_dir(format!("/proc/self/fd/{}", self.directory.as_raw_fd()));
        Group::spawn(command).map_err(|error| {
            let message = format!("`{name}` cannot be started: {error}");
            Failure::new(Turn::Environment, "process.missing", message)
        })
    }
}

/// Looks the program up where we look programs up: a `PATH` of the guest's could lead a granted name elsewhere.
fn find(name: &str, path: &str) -> Result<PathBuf, Failure> {
    let missing = |problem: &str| {
        let message = format!("the program `{name}` {problem}");
        let failure = Failure::new(Turn::Operator, "process.missing", message);
        failure.help("install it on the host that runs the pipeline, or name it by its absolute path")
    };
    let is_program = |path: &Path| {
        let metadata = std::fs::metadata(path);
        metadata.is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if name.starts_with('/') {
        let path = PathBuf::from(name);
        return is_program(&path)
            .then_some(path)
            .ok_or_else(|| missing("is no executable file"));
    }
    if name.contains('/') {
        return Err(missing("is a relative path, and those are not looked up"));
    }
    let directories = path.split(':').filter(|directory| directory.starts_with('/'));
    let mut candidates = directories.map(|directory| Path::new(directory).join(name));
    let found = candidates.find(|candidate| is_program(candidate));
    found.ok_or_else(|| missing("is in no directory of PATH"))
}

fn inherited(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Variables that decide which code the granted program is made of are not the guest's to set.
fn check_name(name: &str) -> Result<(), Failure> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(invalid(&format!("{name:?} is no name of a variable")));
    }
    if name == "PATH" || name.starts_with("LD_") || name.starts_with("DYLD_") {
        let message =
            format!("the variable `{name}` decides which code a program runs, and is not handed on");
        return Err(invalid(&message).help("name another program by its absolute path, and grant that"));
    }
    Ok(())
}

fn stopped(name: &str, failure: Failure) -> Failure {
    if failure.code == "cancelled" {
        return failure;
    }
    let message =
        format!("`{name}` did not end before the stage's deadline and was killed with all it started");
    Failure::new(Turn::PipelineAuthor, "process.timeout", message).help("give the stage more with `timeout:`")
}

fn killed(name: &str, signal: Option<i32>) -> Failure {
    let signal = signal.unwrap_or_default();
    let message = format!("`{name}` was ended by signal {signal}");
    Failure::new(Turn::Environment, "process.signal", message).details(json!({ "signal": signal }))
}

fn invalid(problem: &str) -> Failure {
    Failure::new(Turn::Plugin, "process.options", problem)
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    runner::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl runner::Host for State {
    async fn run(
        &mut self,
        argv: Vec<String>,
        options: String,
    ) -> wasmtime::Result<Result<String, GuestError>> {
        let runner = Runner::of(self);
        let outcome = runner.run(&argv, &options).await;
        Ok(outcome.map(|json| json.to_string()).map_err(GuestError::from))
    }
}

#[cfg(test)]
mod tests;
