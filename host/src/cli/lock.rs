//! `windlass lock show|release`, and the lock that a run holds.

use super::{
    Result,
    arguments::{Format, ProjectArguments},
    exit_code::ExitCode,
    load,
    print::Printer,
    project::Project,
};
use crate::{
    journal::{Journal, SqliteStore},
    lock::{self, Held, LENGTH, LONGEST, Lock, Released, Request, Settings, Standing, Waiting},
    name::RunId,
    pipeline::{MissingValues, Pipeline},
};
use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};
use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

#[derive(Debug, Args)]
pub(super) struct LockArguments {
    #[command(subcommand)]
    command: LockCommand,
    /// The pipeline whose state directory is meant (default: windlass.yaml, else pipelines/deploy.yaml)
    #[arg(long = "file", value_name = "FILE", global = true, env = "WINDLASS_FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum LockCommand {
    /// Who holds each concurrency group, since when, and who waits
    Show {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Give a lock back in the place of a holder that is dead
    Release {
        /// The concurrency group
        group: String,
        /// Also when its holder may be alive: that run then starts no further effect and records nothing more, what it has in
        /// flight goes on, and the next run may begin beside that
        #[arg(long)]
        force: bool,
    },
}

/// What a command that runs something takes for its lock.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct LockFlags {
    /// Wait, in order, while another run holds the pipeline's concurrency group, instead of ending with exit code 75
    #[arg(long, env = "WINDLASS_LOCK_WAIT")]
    lock_wait: bool,
    /// Wait at most so long (seconds, or 90s, 10m, 2h), then end with exit code 75
    #[arg(long, value_name = "TIME", default_value = "900", env = "WINDLASS_LOCK_WAIT_TIMEOUT", value_parser = time)]
    lock_wait_timeout: Duration,
    /// Look again after so long
    #[arg(long, value_name = "TIME", default_value = "15", env = "WINDLASS_LOCK_WAIT_INTERVAL", value_parser = interval)]
    lock_wait_interval: Duration,
    /// The length of a lease, for tests
    #[arg(long, value_name = "TIME", hide = true, env = "WINDLASS_LOCK_LEASE", value_parser = lease)]
    lock_lease: Option<Duration>,
}

/// Who runs what.
#[derive(Clone, Copy)]
pub(super) struct Purpose<'a> {
    pub(super) state: &'a Path,
    pub(super) pipeline: &'a Pipeline,
    pub(super) run: &'a RunId,
    /// `run`, `resume`, `rollback`.
    pub(super) command: &'a str,
}

pub(super) fn lock(
    project: &ProjectArguments,
    command: &LockArguments,
    printer: &Printer,
) -> Result<ExitCode> {
    let state = state(project, command, printer)?;
    match &command.command {
        LockCommand::Show { format } => {
            let locks = lock::show(&state).or_else(|failure| printer.stop(&failure))?;
            match format {
                Format::Json => printer.data(&format!("{:#}", to_json(&locks))),
                Format::Text if locks.is_empty() => printer.say("no lock was ever taken here"),
                Format::Text => locks.iter().for_each(|lock| printer.data(&to_text(lock))),
            }
            Ok(ExitCode::SUCCEEDED)
        }
        LockCommand::Release { group, force } => {
            match lock::release(&state, group, *force).or_else(|failure| printer.stop(&failure))? {
                Released::WasFree => printer.say(&format!("the lock of group `{group}` is free already")),
                Released::Done => printer.say(&format!("the lock of group `{group}` is free")),
                Released::Refused(standing) => {
                    return printer.stop(&lock::release_failure(group, &standing));
                }
            }
            Ok(ExitCode::SUCCEEDED)
        }
    }
}

/// Gets the lock of the pipeline's concurrency group; `None` where it has no group. It is held until it is dropped.
pub(super) async fn hold(purpose: Purpose<'_>, flags: LockFlags, printer: &Printer) -> Result<Option<Held>> {
    let Some(concurrency) = &purpose.pipeline.concurrency else {
        return Ok(None);
    };
    warn_of_throw_away_state(purpose.state, &concurrency.group, printer);
    let request = Request {
        state: purpose.state,
        group: &concurrency.group,
        run: purpose.run,
        pipeline: purpose.pipeline.name.as_str(),
        command: purpose.command,
        waiting: flags.lock_wait.then_some(Waiting {
            timeout: flags.lock_wait_timeout,
            interval: flags.lock_wait_interval,
        }),
        settings: Settings::new(flags.lock_lease.unwrap_or(LENGTH)),
        say: &|text| printer.say(&format!("notice[lock]: {text}")),
    };
    let held = lock::acquire(request)
        .await
        .or_else(|failure| printer.stop(&failure))?;
    Ok(Some(held))
}

/// The store with the fence of the run's lock, where it holds one.
pub(super) fn fenced(store: SqliteStore, held: Option<&Held>) -> SqliteStore {
    match held {
        Some(held) => store.fenced(held.fence()),
        None => store,
    }
}

/// The journal behind the gate of the run's lock, where it holds one.
pub(super) fn gated(journal: Arc<dyn Journal>, held: Option<&Held>) -> Arc<dyn Journal> {
    match held {
        Some(held) => held.gate(journal),
        None => journal,
    }
}

/// A lock excludes only who uses the same state directory.
fn warn_of_throw_away_state(state: &Path, group: &str, printer: &Printer) {
    let is_ci = env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    let throw_away = [
        Some(env::temp_dir()),
        Some("/tmp".into()),
        Some("/dev/shm".into()),
        env::var_os("RUNNER_TEMP").map(PathBuf::from),
    ];
    let is_below = |directory: &PathBuf| {
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.clone());
        state.starts_with(directory)
    };
    if is_ci && throw_away.iter().flatten().any(is_below) {
        printer.say(&format!(
            "warning[lock.throw-away]: the state directory {} is temporary, so the lock of group `{group}` excludes no other job",
            state.display()
        ));
        printer.say("  help: give all jobs one directory with --state-dir or WINDLASS_STATE_DIR");
    }
}

fn state(project: &ProjectArguments, command: &LockArguments, printer: &Printer) -> Result<PathBuf> {
    let project = Project::find(project, printer)?;
    let file = project.pipeline_file(command.file.as_deref(), printer)?;
    let values = super::arguments::ValueArguments::default();
    match load::read(&project, &file, None, &values, MissingValues::Unknown) {
        Ok((pipeline, _)) => project.state(&pipeline.name, printer),
        Err(problems) => printer.stop_for(&problems),
    }
}

fn to_text(lock: &Lock) -> String {
    let Lock { group, waiting, .. } = lock;
    let mut lines = vec![match &lock.standing {
        Standing::Free => format!("{group}  free"),
        Standing::Held { holder, left } => {
            format!("{group}  held by {holder}; lease {:.1} s", left.as_secs_f64())
        }
        Standing::Dead { holder, .. } => {
            format!("{group}  its holder is dead: {holder}; the next run takes it")
        }
        Standing::Foreign { holder } => format!("{group}  held on another machine by {holder}"),
        Standing::Unreadable { problem } => format!("{group}  unreadable: {problem}"),
    }];
    let waiting = waiting.iter().enumerate();
    lines.extend(waiting.map(|(at, holder)| format!("  {}. waits: {holder}", at + 1)));
    lines.join("\n")
}

fn to_json(locks: &[Lock]) -> Json {
    let shown = locks.iter().map(|lock| {
        let (state, holder, lease_ms, problem) = match &lock.standing {
            Standing::Free => ("free", None, None, None),
            Standing::Held { holder, left } => ("held", Some(holder), Some(left.as_millis()), None),
            Standing::Dead { holder, .. } => ("dead", Some(holder), None, None),
            Standing::Foreign { holder } => ("foreign", Some(holder), None, None),
            Standing::Unreadable { problem } => ("unreadable", None, None, Some(problem)),
        };
        json!({
            "group": lock.group,
            "state": state,
            "token": lock.token,
            "holder": holder.map(|holder| person(holder)),
            "lease-ms": lease_ms.and_then(|left| u64::try_from(left).ok()),
            "problem": problem,
            "waiting": lock.waiting.iter().map(|holder| person(holder)).collect::<Vec<_>>(),
        })
    });
    json!({ "locks": shown.collect::<Vec<_>>() })
}

fn person(holder: &lock::Holder) -> Json {
    json!({
        "run": holder.run,
        "pipeline": holder.pipeline,
        "command": holder.command,
        "pid": holder.pid(),
        "host": holder.host(),
        "since": holder.since(),
    })
}

/// Seconds where there is no unit, as other tools have it.
fn time(text: &str) -> std::result::Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => crate::pipeline::duration::parse(text)
            .ok_or_else(|| "it takes seconds, or a number and a unit: 90s, 10m, 2h".to_string()),
    }
}

fn interval(text: &str) -> std::result::Result<Duration, String> {
    let shortest = Duration::from_millis(50);
    time(text).and_then(|time| match time {
        time if time >= shortest => Ok(time),
        _ => Err("it takes at least 50ms".into()),
    })
}

fn lease(text: &str) -> std::result::Result<Duration, String> {
    time(text).and_then(|time| match time {
        time if (Duration::from_millis(100)..=LONGEST).contains(&time) => Ok(time),
        _ => Err("it takes 100ms to 1h".into()),
    })
}
