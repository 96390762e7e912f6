//! What a journal knows of a run → where the run goes on: the schedule, the outputs, and the effects that nobody has an answer
//! for. Decides nothing that the transition table decides.

use super::{driver::Options, ledger::Ledger};
use crate::{
    event::{StageReport, StageStatus},
    failure::{Failure, Turn},
    journal::{
        RunHistory,
        replay::{EffectHistory, EffectState, StageAnswer, StageHistory, Step},
    },
    name::StageName,
    pipeline::expression::Outputs,
    plan::Plan,
    schedule::{Event, Illegal, Schedule, StageState},
};
use serde_json::{Value as Json, json};
use std::collections::{HashMap, HashSet};

/// Whether a stage has an attempt left: stage, attempt, failure.
pub type MayRetry<'a> = &'a dyn Fn(usize, u32, &Failure) -> bool;

/// A run that an earlier process has begun.
pub struct Recovered {
    pub schedule: Schedule,
    /// How it goes on: [`Event::Resumed`] or [`Event::RollBack`].
    pub goes_on: Event,
    pub outputs: Outputs,
    /// Attempts of a stage that ended without a word, or that waited: they are no tries of its `retry:`.
    pub uncounted: HashMap<usize, u32>,
    /// Stages that have succeeded before; one of them starts again only for its secrets.
    pub succeeded: HashSet<usize>,
    /// Effects of a stage whose outcome is not known.
    pub unknown: HashMap<usize, Vec<UnknownEffect>>,
    pub answers: HashMap<usize, StageAnswer>,
    /// Since when a stage waits, in milliseconds since 1970.
    pub waiting_since: HashMap<usize, i64>,
    pub undone: usize,
}

/// An effect that a crash has cut off.
#[derive(Clone, Debug, PartialEq)]
pub struct UnknownEffect {
    pub key: String,
    pub function: String,
    pub arguments: Json,
}

impl UnknownEffect {
    /// As `reconciler.reconcile` gets it.
    pub fn to_json(&self) -> Json {
        json!({ "key": self.key, "function": self.function, "arguments": self.arguments, "state": "unknown" })
    }
}

/// # Errors
/// `journal.damaged`: the records contradict each other, or are of another plan.
pub fn recover(
    plan: &Plan,
    options: &Options,
    may_retry: MayRetry<'_>,
    history: &RunHistory,
    goes_on: Event,
    ledger: &Ledger,
) -> Result<Recovered, Failure> {
    let names = plan.stages.iter().map(|planned| planned.stage.name.as_str());
    if !names.eq(history.stages.iter().map(|stage| stage.name.as_str())) {
        return Err(damaged("its stages are not those of its plan"));
    }
    let (schedule, uncounted) = replay(plan, options, may_retry, history)?;
    let mut recovered = Recovered {
        schedule,
        goes_on,
        outputs: Outputs::new(),
        uncounted,
        succeeded: HashSet::new(),
        unknown: HashMap::new(),
        answers: HashMap::new(),
        waiting_since: HashMap::new(),
        undone: 0,
    };
    for (number, stage) in history.stages.iter().enumerate() {
        recovered.take(number, stage, &plan.stages[number].stage.name, ledger);
    }
    Ok(recovered)
}

impl Recovered {
    fn take(&mut self, number: usize, stage: &StageHistory, name: &StageName, ledger: &Ledger) {
        if let Some(report) = &stage.report
            && report.status == StageStatus::Succeeded
        {
            let outputs = report.outputs.clone().into_iter().collect();
            self.outputs.insert(name.clone(), Json::Object(outputs));
            self.succeeded.insert(number);
        }
        let is_undone = stage.compensated.as_ref().is_some_and(|undo| undo.succeeded);
        self.undone += usize::from(is_undone);
        if !is_undone {
            let own = stage.effects.iter().filter(|effect| !effect.is_undo);
            own.for_each(|effect| ledger.remember(name, effect));
        }
        let unknown: Vec<UnknownEffect> = stage.cut_off_effects().filter_map(unknown).collect();
        if !unknown.is_empty() {
            self.unknown.insert(number, unknown);
        }
        if let Some(answer) = &stage.answer {
            self.answers.insert(number, answer.clone());
        }
        if let Some((_, since)) = &stage.parked {
            self.waiting_since.insert(number, *since);
        }
    }
}

fn unknown(effect: &EffectHistory) -> Option<UnknownEffect> {
    (effect.state == EffectState::Unknown).then(|| UnknownEffect {
        key: effect.key.clone(),
        function: effect.function.clone(),
        arguments: effect.arguments.clone(),
    })
}

/// The schedule as it was when the last record was written.
fn replay(
    plan: &Plan,
    options: &Options,
    may_retry: MayRetry<'_>,
    history: &RunHistory,
) -> Result<(Schedule, HashMap<usize, u32>), Failure> {
    let left_out = options.left_out.iter();
    let already = left_out.map(|stage| (*stage, StageState::Skipped));
    let mut schedule = Schedule::replaying(plan.shape(options.jobs), already);
    let mut uncounted = HashMap::new();
    let passed = |stage: &StageHistory| stage.report.as_ref().is_some_and(StageReport::passed_no_return);
    let stages = history.stages.iter().enumerate();
    for (number, _) in stages.filter(|(_, stage)| passed(stage)) {
        schedule.pass_no_return(number);
    }
    apply(&mut schedule, Event::Begin)?;
    for step in &history.steps {
        let event = match *step {
            Step::Started { stage, attempt } => Event::Started { stage, attempt },
            Step::Ended {
                stage,
                attempt,
                status,
                ref failure,
            } => {
                announce(&mut schedule, stage)?;
                let counted = attempt.saturating_sub(uncounted.get(&stage).copied().unwrap_or(0));
                match status {
                    StageStatus::Succeeded => Event::Succeeded(stage),
                    StageStatus::Skipped => Event::Skipped(stage),
                    StageStatus::Cancelled => Event::Cancelled(stage),
                    StageStatus::Failed | StageStatus::Denied | StageStatus::TimedOut => Event::Failed {
                        stage,
                        retry: failure
                            .as_ref()
                            .is_some_and(|failure| may_retry(stage, counted, failure)),
                    },
                }
            }
            Step::Skipped(stage) => {
                announce(&mut schedule, stage)?;
                Event::Skipped(stage)
            }
            Step::Parked(stage) => {
                announce(&mut schedule, stage)?;
                Event::Parked(stage)
            }
            Step::UndoParked(stage) => Event::UndoParked(stage),
            Step::Compensated { stage, succeeded } => Event::Compensated { stage, succeeded },
            Step::Stopping => Event::Stop,
            Step::Resumed => {
                count_cut_off(&schedule, plan.stages.len(), &mut uncounted);
                Event::Resumed
            }
            Step::RollbackStarted { past } => Event::RollBack { past },
        };
        apply(&mut schedule, event)?;
    }
    count_cut_off(&schedule, plan.stages.len(), &mut uncounted);
    Ok((schedule, uncounted))
}

/// A stage that failed before its attempt began, or was skipped, has no record of a start.
fn announce(schedule: &mut Schedule, stage: usize) -> Result<(), Failure> {
    if matches!(schedule.state(stage), StageState::Running { .. }) {
        return Ok(());
    }
    let attempt = schedule.attempts(stage) + 1;
    apply(schedule, Event::Started { stage, attempt })
}

fn count_cut_off(schedule: &Schedule, stages: usize, uncounted: &mut HashMap<usize, u32>) {
    let is_cut_off = |state| matches!(state, StageState::Running { .. } | StageState::Parked);
    for stage in (0..stages).filter(|stage| is_cut_off(schedule.state(*stage))) {
        *uncounted.entry(stage).or_default() += 1;
    }
}

fn apply(schedule: &mut Schedule, event: Event) -> Result<(), Failure> {
    let applied = schedule.apply(event);
    applied
        .map(drop)
        .map_err(|illegal: Illegal| damaged(&illegal.to_string()))
}

fn damaged(problem: &str) -> Failure {
    let message = format!("the journal of this run cannot be followed: {problem}");
    Failure::new(Turn::Environment, "journal.damaged", message)
        .help("something other than Windlass changed the journal: restore it from a copy, or start a new run")
}
