//! One attempt: a fresh store, one instance, one call, every limit. Whatever the guest does, this returns.

use super::{Loaded, Sandbox, load::Prepared, trap};
use crate::{
    event::RunEvent,
    failure::{Failure, Turn},
    grant::Granter,
    service::{
        Services, State,
        context::Context,
        effect::Effects,
        events::Log,
        files::Mounts,
        limits::{Limiter, Limits, Reached, Tripwire, Usage},
        link::Interfaces,
        wasi::Wasi,
        words::Words,
    },
    wit::{self, GuestError, GuestOutcome},
};
use serde_json::Value as Json;
use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering, time::Instant};
use tokio::sync::mpsc;
use wasmtime::{
    Store,
    component::{Instance, ResourceTable},
};

/// The summary is one line of a report.
const LONGEST_SUMMARY: usize = 1 << 10;
/// What a plugin says of its failure may hold a reply or a log.
const LONGEST_MESSAGE: usize = 16 << 10;
/// JSON texts, as the WIT says.
const LONGEST_JSON: usize = 1 << 20;
/// Codes and names of outputs are words.
const LONGEST_WORD: usize = 100;

/// Everything an attempt is given. What is not in it, the guest cannot reach.
pub struct Attempt {
    pub context: Context,
    pub granter: Granter,
    pub effects: Arc<Effects>,
    pub services: Services,
    pub interfaces: Interfaces,
    pub limits: Limits,
    /// The variables that are granted.
    pub environment: Vec<(String, String)>,
    /// With the private `/tmp`.
    pub mounts: Arc<Mounts>,
    /// Bounded; see [`Log`].
    pub events: mpsc::Sender<RunEvent>,
}

/// Which export is called.
#[derive(Clone, Debug)]
pub enum Call {
    Run,
    Plan,
    Compensate {
        /// Names and JSON texts.
        outputs: Vec<(String, String)>,
        /// A JSON array.
        effects: String,
    },
    Reconcile {
        /// A JSON object.
        effect: String,
    },
}

/// What the export answered, checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Of `Run` and `Compensate`.
    Outcome(Outcome),
    /// Of `Plan`: a JSON array.
    Plan(Json),
    Reconciled(Reconciled),
}

/// What a stage did.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub changed: bool,
    pub summary: String,
    pub outputs: BTreeMap<String, Json>,
    pub details: Option<Json>,
}

/// Whether an effect happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconciled {
    Done,
    NotDone,
    Unknown,
}

/// How the attempt ended, and what it used.
#[derive(Clone, Debug)]
pub struct AttemptResult {
    pub outcome: Result<Answer, Failure>,
    pub usage: Usage,
}

pub(super) async fn call(sandbox: &Sandbox, loaded: &Loaded, attempt: Attempt, call: Call) -> AttemptResult {
    let started = Instant::now();
    let mut usage = Usage::new();
    let outcome = attempt_once(sandbox, loaded, attempt, call, &mut usage).await;
    let elapsed = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    usage.insert("time-ms".into(), elapsed);
    AttemptResult { outcome, usage }
}

async fn attempt_once(
    sandbox: &Sandbox,
    loaded: &Loaded,
    attempt: Attempt,
    call: Call,
    usage: &mut Usage,
) -> Result<Answer, Failure> {
    let limits = attempt.limits;
    let fits_pool = limits.memory <= Limits::default().memory;
    let prepared = loaded.prepare(&sandbox.0, &attempt.interfaces, fits_pool)?;
    let tripwire = Tripwire::default();
    let context = attempt.context.clone();
    let words = attempt.services.words();
    let state = state(attempt, &tripwire)?;
    let (peak, spoken, log) = (state.limiter.peak(), state.wasi.spoken(), state.log.clone());
    let mut store = store(&prepared, state, &limits);

    // The guest first: one that never waits ends before a timer is set, which would wake another thread for it. It cannot
    // keep the others from their turn: what computes gives way at every tick.
    let ended = tokio::select! {
        biased;
        answer = invoke(&mut store, &prepared, call), if !is_late(&context) => answer,
        () = stopped(&context, &limits) => Err(Ended::Stopped(stop_reason(&context))),
        failure = tripwire.tripped() => Err(Ended::Stopped(failure)),
    };
    // A guest that was dropped in the middle is never entered again.
    drop(store);
    spoken.finish().await;
    log.usage(usage);
    spoken.usage(usage);
    usage.insert("memory-bytes".into(), peak.load(Ordering::Relaxed));
    let said = spoken.last_words();

    let answer = ended.map_err(|ended| match ended {
        Ended::Stopped(failure) => failure,
        Ended::Trapped(error) => trap::failure(loaded.plugin(), &error, &limits, &said),
        Ended::Missing(export) => missing(loaded.plugin(), export),
    })?;
    match answer.check(loaded.plugin(), &words, &limits) {
        // Whatever it says of itself: it left because it was told to.
        Err(_) if context.cancel.is_cancelled() => Err(stop_reason(&context)),
        checked => checked,
    }
}

fn state(attempt: Attempt, tripwire: &Tripwire) -> Result<State, Failure> {
    let limits = attempt.limits;
    let log = Log::new(
        attempt.context.stage.clone(),
        attempt.context.attempt,
        attempt.events,
        attempt.services.words(),
        &limits,
    );
    let wasi = Wasi::new(
        &attempt.environment,
        &attempt.mounts,
        &log,
        attempt.services.http.clone(),
        &limits,
        tripwire,
    )?;
    let mut table = ResourceTable::new();
    table.set_max_capacity(limits.handles);
    Ok(State {
        context: attempt.context,
        granter: attempt.granter,
        effects: attempt.effects,
        services: attempt.services,
        log,
        mounts: attempt.mounts,
        table,
        limiter: Limiter::new(limits),
        wasi,
    })
}

fn store(prepared: &Prepared, state: State, limits: &Limits) -> Store<State> {
    let mut store = Store::new(&prepared.engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(limits.call_bytes);
    // At every tick a guest that computes gives way, so that whoever waits for it can see the clock and drop it.
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store
}

/// Whether there was no time left to begin with.
fn is_late(context: &Context) -> bool {
    context
        .deadline
        .is_some_and(|deadline| deadline <= Instant::now())
}

/// Returns when the attempt has to end: its deadline has come, or its grace after a cancellation is over.
async fn stopped(context: &Context, limits: &Limits) {
    let deadline = async {
        match context.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    };
    let cancelled = async {
        context.cancel.cancelled().await;
        tokio::time::sleep(limits.cancel_grace).await;
    };
    tokio::select! {
        () = deadline => {}
        () = cancelled => {}
    }
}

fn stop_reason(context: &Context) -> Failure {
    if context.cancel.is_cancelled() {
        let message = format!("stage `{}` was cancelled", context.stage);
        return Failure::new(Turn::Operator, "cancelled", message);
    }
    let message = format!("stage `{}` did not end before its deadline", context.stage);
    Failure::new(Turn::PipelineAuthor, "limit.time", message)
        .help("give it more with `timeout:`, or look in its log for what it waits for")
}

/// How a call ended without an answer.
enum Ended {
    Stopped(Failure),
    Trapped(wasmtime::Error),
    Missing(&'static str),
}

impl From<wasmtime::Error> for Ended {
    fn from(error: wasmtime::Error) -> Self {
        Self::Trapped(error)
    }
}

/// What an export answered, as the guest gave it.
enum Raw {
    Outcome(Result<GuestOutcome, GuestError>),
    Plan(Result<String, GuestError>),
    Reconciled(Result<String, GuestError>),
}

async fn invoke(store: &mut Store<State>, prepared: &Prepared, call: Call) -> Result<Raw, Ended> {
    let instance = prepared.instance.instantiate_async(&mut *store).await?;
    match call {
        Call::Run => {
            let export = bind(store, &instance, "lifecycle", wit::Lifecycle::new)?;
            let answer = export.windlass_stage_lifecycle().call_run(&mut *store).await?;
            Ok(Raw::Outcome(answer))
        }
        Call::Plan => {
            let export = bind(store, &instance, "planner", wit::planner::HostPlanner::new)?;
            let answer = export.windlass_stage_planner().call_plan(&mut *store).await?;
            Ok(Raw::Plan(answer))
        }
        Call::Compensate { outputs, effects } => {
            let export = bind(
                store,
                &instance,
                "compensator",
                wit::compensator::HostCompensator::new,
            )?;
            let compensator = export.windlass_stage_compensator();
            let answer = compensator
                .call_compensate(&mut *store, &outputs, &effects)
                .await?;
            Ok(Raw::Outcome(answer))
        }
        Call::Reconcile { effect } => {
            let export = bind(
                store,
                &instance,
                "reconciler",
                wit::reconciler::HostReconciler::new,
            )?;
            let answer = export
                .windlass_stage_reconciler()
                .call_reconcile(&mut *store, &effect)
                .await?;
            Ok(Raw::Reconciled(answer))
        }
    }
}

fn bind<'a, Export>(
    store: &'a mut Store<State>,
    instance: &Instance,
    name: &'static str,
    new: impl FnOnce(&'a mut Store<State>, &Instance) -> wasmtime::Result<Export>,
) -> Result<Export, Ended> {
    new(store, instance).map_err(|error| {
        tracing::debug!(%error, name, "export not found");
        Ended::Missing(name)
    })
}

fn missing(plugin: &str, export: &str) -> Failure {
    let code = if export == "lifecycle" {
        "plugin.not-a-stage"
    } else {
        "plugin.missing-export"
    };
    let message = format!("plugin `{plugin}` does not export `windlass:stage/{export}`");
    Failure::new(Turn::Plugin, code, message)
}

impl Raw {
    fn check(self, plugin: &str, words: &Words, limits: &Limits) -> Result<Answer, Failure> {
        match self {
            Self::Outcome(Ok(outcome)) => check_outcome(plugin, outcome, words, limits).map(Answer::Outcome),
            Self::Plan(Ok(text)) => match parse_json(&text) {
                Some(plan @ Json::Array(_)) => Ok(Answer::Plan(plan)),
                _ => Err(invalid(plugin, "its plan is not a JSON array")),
            },
            Self::Reconciled(Ok(word)) => match word.as_str() {
                "done" => Ok(Answer::Reconciled(Reconciled::Done)),
                "not-done" => Ok(Answer::Reconciled(Reconciled::NotDone)),
                "unknown" => Ok(Answer::Reconciled(Reconciled::Unknown)),
                _ => Err(invalid(
                    plugin,
                    "its reconciler answers `done`, `not-done` or `unknown`",
                )),
            },
            Self::Outcome(Err(error)) | Self::Plan(Err(error)) | Self::Reconciled(Err(error)) => {
                Err(guest_failure(error, words))
            }
        }
    }
}

fn invalid(plugin: &str, problem: &str) -> Failure {
    let message = format!("plugin `{plugin}` returned what it must not: {problem}");
    Failure::new(Turn::Plugin, "plugin.invalid-output", message).help("this is a bug of the plugin")
}

fn parse_json(text: &str) -> Option<Json> {
    (text.len() <= LONGEST_JSON)
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

fn check_outcome(
    plugin: &str,
    outcome: GuestOutcome,
    words: &Words,
    limits: &Limits,
) -> Result<Outcome, Failure> {
    let size: usize = outcome
        .outputs
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if size > limits.output_bytes {
        let limit = limits.output_bytes;
        return Err(Reached::Outputs { size, limit }.failure());
    }
    let mut outputs = BTreeMap::new();
    for (key, value) in outcome.outputs {
        let shown = words.line(&key, LONGEST_WORD);
        if !is_word(&key) {
            let problem =
                format!("the output name {shown:?} is not of a-z A-Z 0-9 . _ - (at most {LONGEST_WORD})");
            return Err(invalid(plugin, &problem));
        }
        let Some(value) = parse_json(&value) else {
            return Err(invalid(plugin, &format!("the output `{shown}` is not JSON")));
        };
        if outputs.insert(key, value).is_some() {
            return Err(invalid(plugin, &format!("the output `{shown}` is there twice")));
        }
    }
    let details = match outcome.details.as_deref().map(parse_json) {
        None => None,
        Some(Some(details @ Json::Object(_))) => Some(details),
        Some(_) => return Err(invalid(plugin, "its details are not a JSON object")),
    };
    Ok(Outcome {
        changed: outcome.changed,
        summary: words.line(&outcome.summary, LONGEST_SUMMARY),
        outputs,
        details,
    })
}

fn is_word(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=LONGEST_WORD).contains(&text.len()) && text.bytes().all(allowed)
}

/// Codes that only the host gives: a plugin that returns one has its own failure all the same.
const RESERVED: [&str; 5] = ["cancelled", "limit", "plugin", "internal", "sandbox"];

/// Who can mend a failure of the plugin's own, by the first word of its code; other codes are the plugin's. What cannot be
/// reached is the environment's, whatever its first word is, and what was asked for wrongly the plugin's.
const TURNS: [(&str, Turn); 26] = [
    ("vault", Turn::Operator),
    ("restore", Turn::Operator),
    ("backup", Turn::Operator),
    ("migrate", Turn::PipelineAuthor),
    ("build", Turn::PipelineAuthor),
    ("file", Turn::PipelineAuthor),
    ("check", Turn::Environment),
    ("grant", Turn::PipelineAuthor),
    ("config", Turn::PipelineAuthor),
    ("secret", Turn::PipelineAuthor),
    ("upstream", Turn::Environment),
    ("http", Turn::Environment),
    ("tcp", Turn::Environment),
    ("sql", Turn::Environment),
    ("storage", Turn::Environment),
    ("compose", Turn::PipelineAuthor),
    ("deploy", Turn::Environment),
    ("router", Turn::Environment),
    ("redis", Turn::Environment),
    ("container", Turn::Environment),
    ("engine", Turn::Environment),
    ("image", Turn::Environment),
    ("registry", Turn::Environment),
    ("exec", Turn::Environment),
    ("flow", Turn::Environment),
    ("object", Turn::Environment),
];

fn guest_failure(error: GuestError, words: &Words) -> Failure {
    let mut details = match error.details.as_deref().map(parse_json) {
        Some(Some(Json::Object(details))) => details,
        Some(_) => serde_json::Map::from_iter([(
            "note".to_string(),
            "the plugin's details are no JSON object".into(),
        )]),
        None => serde_json::Map::new(),
    };
    let help = match details.remove("help") {
        Some(Json::String(help)) => Some(words.text(&help, LONGEST_SUMMARY)),
        _ => None,
    };
    let first = error.code.split('.').next().unwrap_or_default();
    let is_code = is_word(&error.code) && !RESERVED.contains(&first);
    let turn = match TURNS.iter().find(|(word, _)| *word == first) {
        _ if error.code.ends_with(".unreachable") => Turn::Environment,
        _ if error.code.ends_with(".options") || error.code.ends_with(".spec") => Turn::Plugin,
        Some((_, turn)) => *turn,
        None => Turn::Plugin,
    };
    let code = if is_code {
        error.code.clone()
    } else {
        details.insert("code".into(), words.line(&error.code, LONGEST_WORD).into());
        "stage.failed".into()
    };
    Failure {
        code,
        message: words.text(&error.message, LONGEST_MESSAGE),
        turn,
        retryable: error.retryable,
        help,
        details: (!details.is_empty()).then_some(Json::Object(details)),
        stack: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(outputs: &[(&str, &str)], details: Option<&str>) -> GuestOutcome {
        GuestOutcome {
            changed: true,
            summary: "done\n::error::x".into(),
            outputs: outputs
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            details: details.map(String::from),
        }
    }

    #[test]
    fn outcomes_are_checked() {
        let check = |outputs: &[(&str, &str)], details, code: Option<&str>| {
            let checked = check_outcome(
                "p",
                outcome(outputs, details),
                &Words::default(),
                &Limits::default(),
            );
            assert_eq!(checked.err().map(|failure| failure.code).as_deref(), code);
        };
        check(&[("a", "1"), ("b.c", "{\"x\": []}")], Some("{}"), None);
        check(&[("a", "nonsense")], None, Some("plugin.invalid-output"));
        check(&[("a", "1"), ("a", "2")], None, Some("plugin.invalid-output"));
        check(&[("a\u{1b}", "1")], None, Some("plugin.invalid-output"));
        check(&[("", "1")], None, Some("plugin.invalid-output"));
        check(&[], Some("[]"), Some("plugin.invalid-output"));
        check(&[("a", &"[".repeat(10_000))], None, Some("plugin.invalid-output"));
        let long = format!("\"{}\"", "x".repeat(70_000));
        check(&[("a", &long)], None, Some("limit.outputs"));
        let checked =
            check_outcome("p", outcome(&[], None), &Words::default(), &Limits::default()).expect("valid");
        assert_eq!(checked.summary, "done ::error::x");
    }

    #[test]
    fn failures_of_the_plugin_itself() {
        let check = |code: &str, details: Option<&str>, expected: &str, turn, help: Option<&str>| {
            let error = GuestError {
                code: code.into(),
                message: "m\u{1b}[1m".into(),
                retryable: true,
                details: details.map(String::from),
            };
            let failure = guest_failure(error, &Words::default());
            assert_eq!((failure.code.as_str(), failure.turn), (expected, turn));
            assert_eq!((failure.message.as_str(), failure.help.as_deref()), ("m", help));
            assert!(failure.retryable);
            failure.details
        };
        let details = Some(r#"{"help": "do this", "status": 503}"#);
        let kept = check(
            "upstream.failed",
            details,
            "upstream.failed",
            Turn::Environment,
            Some("do this"),
        );
        assert_eq!(kept, Some(serde_json::json!({ "status": 503 })));
        check("mine.own", None, "mine.own", Turn::Plugin, None);
        check("vault.denied", None, "vault.denied", Turn::Operator, None);
        check(
            "vault.unreachable",
            None,
            "vault.unreachable",
            Turn::Environment,
            None,
        );
        check("deploy.check", None, "deploy.check", Turn::Environment, None);
        check("exec.options", None, "exec.options", Turn::Plugin, None);
        check("grant.denied", None, "grant.denied", Turn::PipelineAuthor, None);
        check("cancelled", None, "stage.failed", Turn::Plugin, None);
        check("limit.memory", None, "stage.failed", Turn::Plugin, None);
        check("a b", Some("no JSON"), "stage.failed", Turn::Plugin, None);
    }
}
