//! A command migration: one container, once, whatever crashes meanwhile.
//!
//! Three things keep it from running twice. Its container has one name for all runs, so the engine refuses a second beside it. An attempt after a
//! crash finds the container of the one before and starts it only if it never ran. And the container is removed last of all, once its end has been
//! seen.

use std::time::Duration;

use serde_json::{Value, json};
use windlass_guest::containers::{Container, Made};
use windlass_guest::{Effect, Error, Outcome, PastEffect, Verdict, duration};

use crate::script::Phase;
use crate::task::{self, Task};

/// What a command migration needs from outside. All errors are those of `windlass:containers`.
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
pub trait Engine {
    fn create(&mut self, spec: &Value) -> Result<Made, Error>;
    fn start(&mut self, container: &str) -> Result<(), Error>;
    fn stop(&mut self, container: &str, grace: Duration) -> Result<(), Error>;
    fn remove(&mut self, container: &str) -> Result<(), Error>;
    fn inspect(&mut self, container: &str) -> Result<Container, Error>;
    /// Until it has ended; its output goes to the stage's log meanwhile.
    fn wait(&mut self, container: &str, timeout: Duration) -> Result<Container, Error>;
    fn logs(&mut self, container: &str, lines: u32) -> Result<String, Error>;
    /// The model of compose files.
    fn load(&mut self, options: &Value) -> Result<Value, Error>;
    fn read(&mut self, path: &str) -> Result<String, Error>;
    fn pipeline(&mut self) -> String;
    fn stage(&mut self) -> String;
    fn run_id(&mut self) -> String;
    /// Until the stage's deadline.
    fn remaining(&mut self) -> Option<Duration>;
    fn info(&mut self, message: &str);
    fn warn(&mut self, message: &str);
}

/// The most the host waits in one call.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// How long a migration that is stopped may take to end by itself.
const GRACE: Duration = Duration::from_secs(30);
/// What of its output goes into the message.
const SHOWN_LINES: u32 = 20;

/// Runs the command to its end.
///
/// # Errors
/// `config.invalid`, `migrate.running`, `migrate.failed`, `migrate.timeout`, `migrate.unknown`, and those of the engine.
pub fn run(task: &Task<'_>, engine: &mut dyn Engine) -> Result<Outcome, Error> {
    let (name, spec) = prepare(task, engine)?;
    let id = claim(&name, &spec, engine)?;
    let found = engine.inspect(&id).map_err(|error| match error.code.as_str() {
        "container.missing" => unknown(&name),
        _ => error,
    })?;
    if found.state == "created" {
        engine.start(&id)?;
    } else {
        engine.info(&format!(
            "`{name}` was started by an attempt that was cut off: waiting for its end"
        ));
    }
    let ended = until_ended(task, &name, &id, engine)?;
    if ended.exit_code != 0 {
        return Err(failed(task, &name, &id, ended.exit_code, engine));
    }
    tidy(&name, &id, engine);
    let image = spec["image"].as_str().unwrap_or_default();
    Ok(
        Outcome::changed(format!("ran `{}` ({})", task.shown(), task.phase.as_str()))
            .output("phases", json!([task.phase]))
            .output("image", image)
            .output("exit", 0),
    )
}

/// What [`run`] would do.
///
/// # Errors
/// As before a container is made.
pub fn plan(task: &Task<'_>, engine: &mut dyn Engine) -> Result<Vec<Effect>, Error> {
    let (name, spec) = prepare(task, engine)?;
    let needs = task::needs(&spec).into_iter().map(|(value, capability)| Effect {
        action: "run",
        target: format!("container {name}"),
        summary: match capability {
            "containers.run" => format!("run `{}` once in {value} ({})", task.shown(), task.phase.as_str()),
            _ => format!("give it {value}"),
        },
        capability: Some(capability.to_owned()),
        value: Some(value),
    });
    Ok(needs.collect())
}

/// Ends and removes what a failed or interrupted attempt has left running. What it did to the database stays.
///
/// # Errors
/// `migrate.not-undone` when that is more than older code can live with, and those of the engine.
pub fn compensate(
    task: &Task<'_>,
    effects: &[PastEffect],
    engine: &mut dyn Engine,
) -> Result<Outcome, Error> {
    let model = model(task, engine)?;
    let name = task.name(&task.project(model.as_ref(), &engine.pipeline()));
    let mut was_there = false;
    if let Some(found) = present(&name, engine)?.filter(|found| is_ours(found, engine)) {
        if matches!(found.state.as_str(), "running" | "paused" | "restarting") {
            engine.stop(&found.id, GRACE)?;
        }
        engine.remove(&found.id)?;
        was_there = true;
    }
    let has_run = effects.iter().any(|effect| effect.function == "containers.start");
    if has_run && task.phase != Phase::Expand {
        let message = format!(
            "`{}` has run, and a migration of the phase {} cannot be taken back",
            task.shown(),
            task.phase.as_str()
        );
        return Err(Error::new("migrate.not-undone", message)
            .help("look at the database; a backup from before this run is the way back"));
    }
    let what = "what the migration added stays: older code works beside it";
    Ok(match (was_there, has_run) {
        (true, _) => Outcome::changed(format!("removed `{name}`; {what}")),
        (false, true) => Outcome::unchanged(what),
        (false, false) => Outcome::unchanged("the migration never ran"),
    })
}

/// After a crash: whether a call of this stage reached the engine, as far as the host does not know by itself.
///
/// # Errors
/// Those of the engine.
pub fn reconcile(effect: &PastEffect, engine: &mut dyn Engine) -> Result<Verdict, Error> {
    let Some(id) = effect.arguments["id"].as_str() else {
        return Ok(Verdict::Unknown);
    };
    let state = present(id, engine)?.map(|found| found.state);
    let is = |done: bool| if done { Verdict::Done } else { Verdict::NotDone };
    Ok(match (effect.function.as_str(), state.as_deref()) {
        ("containers.remove", state) => is(state.is_none()),
        ("containers.start", Some(state)) => is(state != "created"),
        ("containers.stop", Some(state)) => is(state != "running"),
        _ => Verdict::Unknown,
    })
}

fn model(task: &Task<'_>, engine: &mut dyn Engine) -> Result<Option<Value>, Error> {
    task.compose().map(|options| engine.load(&options)).transpose()
}

fn prepare(task: &Task<'_>, engine: &mut dyn Engine) -> Result<(String, Value), Error> {
    let model = model(task, engine)?;
    let project = task.project(model.as_ref(), &engine.pipeline());
    let spec = task.spec(&project, model.as_ref(), &mut |path| engine.read(path))?;
    Ok((task.name(&project), spec))
}

/// The id of this run's container: made now, or by an attempt before this one.
fn claim(name: &str, spec: &Value, engine: &mut dyn Engine) -> Result<String, Error> {
    match engine.create(spec) {
        Ok(made) => return Ok(made.id),
        Err(error) if error.code == "container.exists" => {}
        Err(error) => return Err(error),
    }
    let Some(found) = present(name, engine)? else {
        return engine.create(spec).map(|made| made.id);
    };
    if is_ours(&found, engine) {
        return Ok(found.id);
    }
    if matches!(found.state.as_str(), "running" | "paused" | "restarting") {
        return Err(running(name, &found));
    }
    engine.warn(&format!(
        "removing `{name}`, which run {} has left {}",
        run_of(&found),
        found.state
    ));
    engine.remove(&found.id)?;
    engine.create(spec).map(|made| made.id)
}

fn present(name: &str, engine: &mut dyn Engine) -> Result<Option<Container>, Error> {
    match engine.inspect(name) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code == "container.missing" => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_ours(found: &Container, engine: &mut dyn Engine) -> bool {
    run_of(found) == engine.run_id() && found.labels.get("windlass.stage") == Some(&engine.stage())
}

fn run_of(found: &Container) -> &str {
    found.labels.get("windlass.run").map_or("unknown", String::as_str)
}

fn until_ended(task: &Task<'_>, name: &str, id: &str, engine: &mut dyn Engine) -> Result<Container, Error> {
    let mut left = task.timeout().or(engine.remaining()).unwrap_or(Duration::MAX);
    loop {
        let patience = left.min(LONGEST_WAIT);
        match engine.wait(id, patience) {
            Err(error) if error.code == "container.timeout" => left -= patience,
            answer => return answer,
        }
        if left.is_zero() {
            break;
        }
    }
    let tail = tail(id, engine);
    engine.stop(id, GRACE)?;
    tidy(name, id, engine);
    let limit = task
        .timeout()
        .map(|limit| format!(" within {}", duration::show(limit)));
    let message = format!(
        "`{}` did not end{} and was stopped{}",
        task.shown(),
        limit.unwrap_or_default(),
        after(&tail)
    );
    Err(Error::new("migrate.timeout", message)
        .with_details(json!({ "log": tail }))
        .help("look at what it waits for, often a lock of another session; or give it more `timeout`"))
}

fn failed(task: &Task<'_>, name: &str, id: &str, exit: i64, engine: &mut dyn Engine) -> Error {
    let tail = tail(id, engine);
    tidy(name, id, engine);
    let message = format!("`{}` ended with status {exit}{}", task.shown(), after(&tail));
    let error = Error::new("migrate.failed", message).with_details(json!({ "exit": exit, "log": tail }));
    match task.phase {
        Phase::Expand => error
            .retryable()
            .help("the whole output is in the stage's log; older code is not touched by what it has added"),
        _ => error.help("the whole output is in the stage's log; look at the database before anything else"),
    }
}

/// Its end has been seen: what is left of it is of no more use, and no reason to fail.
fn tidy(name: &str, id: &str, engine: &mut dyn Engine) {
    if let Err(error) = engine.remove(id) {
        engine.warn(&format!(
            "could not remove `{name}`: {}; the next migration will",
            error.message
        ));
    }
}

fn tail(id: &str, engine: &mut dyn Engine) -> String {
    engine
        .logs(id, SHOWN_LINES)
        .map_or_else(|_| String::new(), |text| text.trim_end().to_owned())
}

fn after(tail: &str) -> String {
    if tail.is_empty() {
        return ", without a word".to_owned();
    }
    format!(":\n{tail}")
}

fn running(name: &str, found: &Container) -> Error {
    Error::new(
        "migrate.running",
        format!(
            "a migration is running already: `{name}`, of run {}",
            run_of(found)
        ),
    )
    .with_details(json!({ "container": found.id, "run": run_of(found), "started": found.started }))
    .retryable()
    .help("wait for it (`retry` does), or end that run; two migrations of one database must not run at once")
}

fn unknown(name: &str) -> Error {
    Error::new(
        "migrate.unknown",
        format!("`{name}`, which this run has made, is gone: an earlier attempt saw its end and removed it, or somebody else did"),
    )
    .help("look at the database: where the migration is applied, run the pipeline again, and it will find nothing to do")
}
