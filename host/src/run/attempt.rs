//! What one attempt is given: `with:` evaluated and checked again, mounts, grants, services. And what the plan says about retries.

use super::{
    driver::{Ended, Exit},
    ledger::Ledger,
    scratch::ScratchPool,
    wiring::{Making, Wiring},
};
use crate::{
    capability::Capability,
    catalog::{Digest, request::Part},
    event::RunEvent,
    failure::{Failure, Turn},
    grant::{ApprovedPlan, Granter},
    name::RunId,
    pattern::{Mode, Pattern},
    pipeline::expression::{Outputs, RunScope},
    plan::{Plan, PlannedStage, needs},
    sandbox::{Answer, Attempt, AttemptResult, Call, Loaded, Reconciled, Sandbox},
    service::{
        context::Context,
        effect::Effects,
        files::{Mount, Mounts},
        flow::probe::{self as flow, Became},
        limits::Limits,
        link::{Interfaces, Kind},
        objects::probe as objects,
    },
    support::fs::private_directory,
    value::Value,
};
use serde_json::Value as Json;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What every attempt of a run is made from.
pub struct Workshop {
    pub approved: ApprovedPlan,
    pub sandbox: Sandbox,
    /// The components of the plan, loaded before the first stage starts.
    pub plugins: HashMap<Digest, Loaded>,
    /// The project's root: `/workspace`.
    pub root: PathBuf,
    pub scratch: Arc<ScratchPool>,
    /// Makes the services of each attempt.
    pub wiring: Wiring,
    /// Number and word for how a run ends: the command line's table.
    pub exit_code: fn(Exit) -> (u8, &'static str),
}

/// A stage whose `with:` is complete.
pub struct Prepared {
    with: Arc<Value>,
}

impl Workshop {
    pub fn plan(&self) -> &Plan {
        self.approved.plan()
    }

    fn planned(&self, stage: usize) -> &PlannedStage {
        &self.plan().stages[stage]
    }

    /// Evaluates what depended on earlier stages, and checks it as the plan was checked. `None`: its condition is false.
    ///
    /// # Errors
    /// `expression.failed`, `with.invalid`, `grant.denied`.
    pub fn prepare(
        &self,
        stage: usize,
        attempt: u32,
        run: &RunId,
        outputs: &Outputs,
    ) -> Result<Option<Prepared>, Failure> {
        let planned = self.planned(stage);
        let pipeline = &self.plan().pipeline;
        let run_scope = RunScope {
            pipeline: pipeline.name.as_str(),
            id: Some(run.as_str()),
            attempt: Some(attempt),
        };
        let scope = pipeline.scope(&planned.stage, run_scope, Some(outputs));
        if let Some(condition) = &planned.stage.condition {
            let holds = condition
                .condition(&scope)
                .map_err(|(span, message)| expression(&span.to_string(), &message))?;
            if holds == Some(false) {
                return Ok(None);
            }
        }
        if !planned.with.has_unknown() {
            return Ok(Some(Prepared {
                with: planned.with.clone(),
            }));
        }
        let mut with = planned.stage.with.evaluate(&scope).map_err(|problems| {
            let shown: Vec<String> = problems
                .iter()
                .map(|(span, message)| format!("{span}: {message}"))
                .collect();
            expression(&planned.stage.name.to_string(), &shown.join("\n"))
        })?;
        if let Some(schema) = self.plan().schema(stage) {
            schema.fill_defaults(&mut with);
            let problems = schema.check(
                &planned.plugin.id,
                &with,
                &crate::plan::build::InFile(&planned.stage),
            );
            if let Some(first) = problems.sorted().first() {
                let place = first
                    .span
                    .as_ref()
                    .map(|span| format!("{span}: "))
                    .unwrap_or_default();
                return Err(Failure::new(
                    Turn::PipelineAuthor,
                    "with.invalid",
                    format!("{place}{}", first.message),
                )
                .help("the value came from an earlier stage: `windlass runs show` has its outputs"));
            }
        }
        self.check_needs(stage, &with)?;
        Ok(Some(Prepared { with: Arc::new(with) }))
    }

    /// What was not known while planning is checked before the stage starts.
    fn check_needs(&self, stage: usize, with: &Value) -> Result<(), Failure> {
        let planned = self.planned(stage);
        let grant = self.approved.grant(stage);
        let (needs, _) = needs::of(&planned.plugin.requests, with);
        for need in needs.iter().filter(|need| !need.is_free()) {
            let Some(pattern) = &need.pattern else { continue };
            if grant.covering(need.capability, pattern).is_none() {
                let line = crate::grant::stage_grant::allow_line(need.capability, pattern);
                let message = format!(
                    "stage `{}` needs `{}` for `{pattern}`, and its `allow:` does not grant it",
                    planned.stage.name, need.capability
                );
                return Err(
                    Failure::new(Turn::PipelineAuthor, "grant.denied", message).help(format!(
                        "if it should, add to `{}` under `allow:`: {line}",
                        planned.stage.name.base()
                    )),
                );
            }
        }
        Ok(())
    }

    /// Runs one attempt to its end.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one thing of the attempt, and there is one caller"
    )]
    pub async fn run(
        &self,
        stage: usize,
        attempt: u32,
        run: RunId,
        prepared: Prepared,
        ledger: Arc<Ledger>,
        events: mpsc::Sender<RunEvent>,
        cancel: CancellationToken,
    ) -> AttemptResult {
        let given = Given {
            stage,
            attempt,
            run,
            with: prepared.with,
            ledger,
            events,
            cancel,
            purpose: Purpose::Run,
        };
        self.call(given, Call::Run).await
    }

    /// Asks a plugin to undo its stage.
    pub async fn compensate(
        &self,
        stage: usize,
        run: RunId,
        outputs: &Outputs,
        ledger: Arc<Ledger>,
        events: mpsc::Sender<RunEvent>,
    ) -> AttemptResult {
        let name = &self.planned(stage).stage.name;
        let effects = ledger.effects_of(name).to_string();
        let done = match outputs.get(name) {
            Some(Json::Object(outputs)) => outputs
                .iter()
                .map(|(key, value)| (key.clone(), value.to_string()))
                .collect(),
            _ => Vec::new(),
        };
        let prepared = match self.prepare(stage, 1, &run, outputs) {
            Ok(Some(prepared)) => prepared.with,
            Ok(None) => self.planned(stage).with.clone(),
            Err(failure) => return failed(failure),
        };
        let cancel = CancellationToken::new();
        let given = Given {
            stage,
            attempt: 1,
            run,
            with: prepared,
            ledger,
            events,
            cancel,
            purpose: Purpose::Undo,
        };
        self.call(
            given,
            Call::Compensate {
                outputs: done,
                effects,
            },
        )
        .await
    }

    /// Asks a plugin whether an effect of its stage happened. Reads only.
    pub async fn reconcile(
        &self,
        stage: usize,
        run: RunId,
        outputs: &Outputs,
        effect: &Json,
        ledger: Arc<Ledger>,
        events: mpsc::Sender<RunEvent>,
    ) -> Result<Reconciled, Failure> {
        let with = match self.prepare(stage, 1, &run, outputs)? {
            Some(prepared) => prepared.with,
            None => self.planned(stage).with.clone(),
        };
        let given = Given {
            stage,
            attempt: 1,
            run,
            with,
            ledger,
            events,
            cancel: CancellationToken::new(),
            purpose: Purpose::Plan,
        };
        let effect = effect.to_string();
        match self.call(given, Call::Reconcile { effect }).await.outcome? {
            Answer::Reconciled(answer) => Ok(answer),
            _ => Ok(Reconciled::Unknown),
        }
    }

    /// What became of a copy of this stage that was cut off.
    ///
    /// # Errors
    /// A directory of the stage cannot be opened or read.
    pub async fn look_for_copy(&self, stage: usize, arguments: &Json) -> Result<Became, Failure> {
        let scratch = self.scratch.take()?;
        let mounts = self.mounts(self.planned(stage), stage, scratch.path())?;
        let arguments = arguments.clone();
        // It reads whole files.
        let looked = tokio::task::spawn_blocking(move || flow::look(&mounts, &arguments)).await;
        looked.unwrap_or_else(|error| {
            let message = format!("looking for a copy was broken off: {error}");
            Err(Failure::new(Turn::Windlass, "internal.blocking", message))
        })
    }

    /// What became of a copy of this stage to an object.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn look_for_object(
        &self,
        stage: usize,
        ledger: Arc<Ledger>,
        key: &str,
        arguments: &Json,
    ) -> Result<Became, Failure> {
        let granter = Granter::new(self.approved.grant(stage).clone(), ledger);
        objects::look(&self.wiring.objects(granter), key, arguments).await
    }

    /// Whether the stage's plugin can say what became of an effect.
    pub fn can_reconcile(&self, stage: usize) -> bool {
        self.planned(stage).plugin.has_reconciler
    }

    /// Asks a plugin what its stage would do; every function that changes something answers `plan.read-only`.
    pub async fn effects(
        &self,
        stage: usize,
        run: RunId,
        ledger: Arc<Ledger>,
        events: mpsc::Sender<RunEvent>,
    ) -> AttemptResult {
        let with = self.planned(stage).with.clone();
        let cancel = CancellationToken::new();
        let given = Given {
            stage,
            attempt: 1,
            run,
            with,
            ledger,
            events,
            cancel,
            purpose: Purpose::Plan,
        };
        self.call(given, Call::Plan).await
    }

    async fn call(&self, given: Given, call: Call) -> AttemptResult {
        let planned = self.planned(given.stage);
        let Some(loaded) = self.plugins.get(&planned.plugin.digest) else {
            return failed(Failure::new(
                Turn::Windlass,
                "internal.plugin",
                "the plugin was not loaded",
            ));
        };
        let scratch = match self.scratch.take() {
            Ok(scratch) => scratch,
            Err(failure) => return failed(failure),
        };
        match self.attempt(planned, &given, scratch.path()) {
            Ok(attempt) => self.sandbox.call(loaded, attempt, call).await,
            Err(failure) => failed(failure),
        }
    }

    fn attempt(&self, planned: &PlannedStage, given: &Given, scratch: &Path) -> Result<Attempt, Failure> {
        let stage = &planned.stage;
        let grant = self.approved.grant(given.stage);
        let granter = Granter::new(grant.clone(), given.ledger.clone());
        let effects = Effects::new(
            given.run.to_string(),
            stage.name.clone(),
            given.ledger.clone(),
            given.purpose == Purpose::Plan,
        );
        let effects = Arc::new(match given.purpose {
            Purpose::Undo => effects.of_undo(),
            Purpose::Run | Purpose::Plan => effects,
        });
        let services = self.wiring.services(&Making {
            plugin: &planned.plugin,
            stage: &stage.name,
            attempt: given.attempt,
            granter: &granter,
            effects: &effects,
            events: &given.events,
        });
        let config = self.wiring.config(&services, &given.with);
        let context = Context {
            pipeline: self.plan().pipeline.name.clone(),
            stage: stage.name.clone(),
            run: given.run.clone(),
            attempt: given.attempt,
            config: config.to_string().into(),
            deadline: Some(Instant::now() + stage.timeout),
            cancel: given.cancel.clone(),
        };
        Ok(Attempt {
            context,
            mounts: Arc::new(self.mounts(planned, given.stage, scratch)?),
            environment: self.environment(given.stage),
            interfaces: self.interfaces(planned, given.stage),
            granter,
            effects,
            services,
            limits: Limits::default(),
            events: given.events.clone(),
        })
    }

    fn mounts(&self, planned: &PlannedStage, stage: usize, scratch: &Path) -> Result<Mounts, Failure> {
        let mut mounts = vec![Mount::open("/tmp", scratch, Mode::ReadWrite)?];
        for entry in self.approved.grant(stage).of(Capability::Files) {
            let Pattern::Files { mode, path } = &entry.pattern else {
                continue;
            };
            if path == "/tmp" || path.starts_with("/tmp/") {
                continue;
            }
            let host = self.host_path(planned, path)?;
            // One file is for host functions, such as the loader of compose files: a guest's own are directories.
            if host.is_file() {
                continue;
            }
            if *mode == Mode::ReadWrite && path.starts_with("/mnt/") && !host.exists() {
                private_directory(&host)?;
            }
            mounts.push(Mount::open(path, &host, *mode)?);
        }
        Mounts::new(mounts)
    }

    fn host_path(&self, planned: &PlannedStage, guest: &str) -> Result<PathBuf, Failure> {
        if let Some(rest) = guest.strip_prefix("/workspace") {
            return Ok(self.root.join(rest.trim_start_matches('/')));
        }
        let inside = guest.strip_prefix("/mnt/").unwrap_or_default();
        let (name, rest) = inside.split_once('/').unwrap_or((inside, ""));
        match self.plan().pipeline.directories.get(name) {
            Some(directory) => Ok(self.root.join(directory).join(rest)),
            None => {
                let message = format!(
                    "stage `{}` is granted {guest}, and `directories:` has no `{name}`",
                    planned.stage.name
                );
                Err(
                    Failure::new(Turn::PipelineAuthor, "files.undeclared", message).help(format!(
                        "add to the pipeline: directories: {{ {name}: /path/on/this/machine }}"
                    )),
                )
            }
        }
    }

    fn environment(&self, stage: usize) -> Vec<(String, String)> {
        let env = &self.plan().pipeline.env;
        let granted = self
            .approved
            .grant(stage)
            .of(Capability::Env)
            .map(|entry| entry.pattern.to_string());
        granted
            .filter_map(|name| env.get(&name).map(|value| (name, value.value.clone())))
            .collect()
    }

    /// Real where something of the capability is needed and granted; a stub that denies where the plugin only may need it.
    fn interfaces(&self, planned: &PlannedStage, stage: usize) -> Interfaces {
        let mut interfaces = Interfaces::default();
        let grant = self.approved.grant(stage);
        let ours = |capability: Capability| {
            capability
                .row()
                .interfaces
                .iter()
                .filter(|name| name.starts_with("windlass:"))
        };
        for row in &planned.plugin.requests {
            ours(row.capability).for_each(|name| interfaces.add(*name, Kind::Stub));
        }
        let needed = planned
            .needs
            .iter()
            .filter(|need| need.is_free() || grant.has(need.capability));
        let requests = planned.plugin.requests.iter();
        let is_open = |part| matches!(part, Part::Planned | Part::Object);
        let may_be_needed = requests.filter(|row| is_open(row.part) && grant.has(row.capability));
        let capabilities = needed.map(|need| need.capability);
        for capability in capabilities.chain(may_be_needed.map(|row| row.capability)) {
            ours(capability).for_each(|name| interfaces.add(*name, Kind::Real));
        }
        interfaces
    }

    /// Whether the stage's `retry:` has an attempt left for this failure.
    pub fn may_retry(&self, stage: usize, attempt: u32, failure: &Failure) -> bool {
        let retry = &self.planned(stage).stage.retry;
        let of_this_kind = match retry.on.as_slice() {
            [] => failure.retryable,
            prefixes => prefixes.iter().any(|prefix| failure.matches(prefix)),
        };
        attempt < retry.attempts && of_this_kind && failure.code != "cancelled" && !failure.matches("grant")
    }

    /// The pause after a failed attempt: doubled each time, up to the stage's maximum.
    pub fn backoff(&self, stage: usize, attempt: u32) -> Duration {
        let retry = &self.planned(stage).stage.retry;
        let factor = 2u32.saturating_pow(attempt.saturating_sub(1));
        retry.backoff.saturating_mul(factor).min(retry.maximum_backoff)
    }
}

struct Given {
    stage: usize,
    attempt: u32,
    run: RunId,
    with: Arc<Value>,
    ledger: Arc<Ledger>,
    events: mpsc::Sender<RunEvent>,
    cancel: CancellationToken,
    purpose: Purpose,
}

/// What an attempt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Run,
    /// Reads only: a planner, or a reconciler.
    Plan,
    Undo,
}

/// The next thing to type after a run, where there is one. `goes_on_with`: `resume`, or `rollback` in the middle of one.
pub fn next_command(ended: &Ended, run: &RunId, goes_on_with: &str) -> Option<String> {
    let parked = ended
        .cause
        .as_ref()
        .map(|(stage, failure)| (stage, failure.code.as_str()));
    match (ended.exit, parked) {
        (Exit::Succeeded, _) => None,
        _ if ended.broken.is_some() => Some(format!("windlass {goes_on_with} {run}")),
        (Exit::NotClean, Some((stage, "effect.unknown"))) => Some(format!(
            "windlass {goes_on_with} {run} --assume '{stage}=done' (or not-done, after looking)"
        )),
        (Exit::Paused, Some((stage, _))) => Some(format!(
            "windlass approve {run} --stage '{stage}', then windlass resume {run}"
        )),
        _ if ended.is_resumable => Some(format!("windlass {goes_on_with} {run}")),
        (Exit::NotClean, _) => Some(format!("windlass rollback {run}")),
        _ => Some(format!("windlass runs show {run}")),
    }
}

fn expression(place: &str, message: &str) -> Failure {
    Failure::new(
        Turn::PipelineAuthor,
        "expression.failed",
        format!("{place}: {message}"),
    )
}

pub(super) fn failed(failure: Failure) -> AttemptResult {
    AttemptResult {
        outcome: Err(failure),
        usage: crate::service::limits::Usage::new(),
    }
}
