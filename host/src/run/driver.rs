//! The event loop of a run: asks the schedule, writes records, starts attempts, hears how they ended.

use super::{
    attempt::{self, Prepared, Workshop},
    ledger::Ledger,
    probe::{self, Assumed},
    recover::{Recovered, UnknownEffect},
};
use crate::{
    event::{LogLevel, PluginIdentity, RunEvent, RunStatus, StageReport, StageStatus},
    failure::{Failure, Turn},
    journal::{
        Journal,
        record::{Record, WirePlugin},
        replay::StageAnswer,
        store::StoreError,
    },
    name::{RunId, StageName},
    pipeline::expression::Outputs,
    sandbox::{Answer, AttemptResult},
    schedule::{Action, Ending, Event, Schedule, StageState},
};
use futures::future::BoxFuture;
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinError, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// How long stages may take to stop once the lock is lost: another run may act meanwhile.
const LOCK_LOST_GRACE: Duration = Duration::from_secs(2);

/// The code of a failure that says so; the journal gives it too, to whoever writes behind a lost lock.
const LOCK_LOST: &str = "lock.lost";

/// Why a run is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Interrupted,
    Terminated,
    /// Another run holds the lock of the concurrency group now.
    LockLost,
}

/// What the command line decides about a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many stages may run at once.
    pub jobs: usize,
    /// The run's own time.
    pub timeout: Option<Duration>,
    /// Stages left out by `--only`, `--skip` and `--from`.
    pub left_out: Vec<usize>,
    /// `--assume STAGE=done|not-done`, for effects that nothing else has an answer for.
    pub assumed: HashMap<usize, Assumed>,
}

/// Where a run begins.
pub enum Start {
    New,
    /// An earlier process has begun it.
    Again(Box<Recovered>),
}

/// A run that is ready to begin.
pub struct Run {
    pub id: RunId,
    pub workshop: Arc<Workshop>,
    pub journal: Arc<dyn Journal>,
    pub ledger: Arc<Ledger>,
    pub options: Options,
    pub start: Start,
    /// Bounded: a report that is behind slows the run down.
    pub events: mpsc::Sender<RunEvent>,
    /// `None` until the run is told to stop.
    pub stop: watch::Receiver<Option<Stop>>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    pub status: RunStatus,
    pub exit: Exit,
    /// Stages that have left changed state behind.
    pub left_behind: Vec<StageName>,
    /// The first failure, or why the run cannot go on by itself.
    pub cause: Option<(StageName, Failure)>,
    /// `windlass resume` goes on with it.
    pub is_resumable: bool,
    /// What has broken the run itself, whatever its stages did.
    pub broken: Option<Failure>,
}

/// Why, in the words of the exit codes' table; `cli` has the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Succeeded,
    Failed,
    NotClean,
    Denied,
    TimedOut,
    Interrupted,
    Terminated,
    /// A person has to answer.
    Paused,
    /// The first failure was a service that could not be reached, or what the run needs to go on is out of reach.
    Unavailable,
    /// The journal could not be written.
    Internal,
    /// The lock of the concurrency group was lost, and nothing was left behind.
    LockLost,
}

/// What a task of the loop came back with.
enum Message {
    Ended {
        stage: usize,
        attempt: u32,
        result: Box<AttemptResult>,
        started: Instant,
    },
    BackoffOver(usize),
    /// The stage's effects of an earlier process cannot be told.
    Unknown {
        stage: usize,
        failure: Failure,
    },
    Undone {
        stage: usize,
        result: Box<AttemptResult>,
    },
    /// The effects of its undo, begun by an earlier process, cannot be told.
    UndoUnknown {
        stage: usize,
        failure: Failure,
    },
}

struct Loop {
    run: Run,
    schedule: Schedule,
    tasks: JoinSet<Message>,
    /// What a stage came to that had ended when [`Loop::start_here`] had polled it.
    at_hand: Option<Message>,
    /// Which stage a task works for, for the case that it panics.
    owners: HashMap<Id, usize>,
    outputs: Outputs,
    retry_delays: HashMap<usize, Failure>,
    /// Cancels every attempt.
    cancel: CancellationToken,
    records: Vec<Record>,
    /// What happened, with the record that says so: written in the order in which it is applied.
    queue: VecDeque<(Event, Option<Record>)>,
    /// What the reports are told once its records are on disk: nobody is told of what a crash could still take back.
    untold: Vec<RunEvent>,
    uncounted: HashMap<usize, u32>,
    /// Stages that have succeeded in an earlier process.
    succeeded: HashSet<usize>,
    unknown: HashMap<usize, Vec<UnknownEffect>>,
    answers: HashMap<usize, StageAnswer>,
    waiting_since: HashMap<usize, i64>,
    /// Why stages are parked.
    parked: Vec<(StageName, Failure, Exit)>,
    cause: Option<(StageName, Failure)>,
    undone: usize,
    stopped: Option<Exit>,
    ending: Option<Ending>,
}

/// What begins once the records of its beginning are on disk: an effect's intent has to lie behind them, or replay would take it
/// for somebody else's.
#[derive(Default)]
struct Starts {
    attempts: Vec<(usize, u32, Prepared)>,
    /// Stages that are undone.
    undos: Vec<usize>,
}

impl Run {
    /// Runs until nothing is left to do; stops at once when it is dropped.
    ///
    /// In a task of its own, whoever waits for it: a stage that the loop starts is then taken up by the thread that waits for
    /// it, and no other thread has to be woken for it.
    pub async fn drive(self) -> Ended {
        let driven = AbortOnDropHandle::new(tokio::spawn(self.drive_here()));
        match driven.await {
            Ok(ended) => ended,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => std::future::pending().await,
            },
        }
    }

    async fn drive_here(mut self) -> Ended {
        let began = Instant::now();
        let start = std::mem::replace(&mut self.start, Start::New);
        let shape = self.workshop.plan().shape(self.options.jobs);
        let left_out = self.options.left_out.iter();
        let schedule = Schedule::new(shape, left_out.map(|stage| (*stage, StageState::Skipped)));
        let mut the_loop = Loop {
            run: self,
            schedule,
            tasks: JoinSet::new(),
            at_hand: None,
            owners: HashMap::new(),
            outputs: Outputs::new(),
            retry_delays: HashMap::new(),
            cancel: CancellationToken::new(),
            records: Vec::new(),
            queue: VecDeque::new(),
            untold: Vec::new(),
            uncounted: HashMap::new(),
            succeeded: HashSet::new(),
            unknown: HashMap::new(),
            answers: HashMap::new(),
            waiting_since: HashMap::new(),
            parked: Vec::new(),
            cause: None,
            undone: 0,
            stopped: None,
            ending: None,
        };
        let ended = match the_loop.turn(start).await {
            Ok(()) => the_loop.conclude().await,
            Err(failure) => the_loop.broken(failure).await,
        };
        the_loop.announce(&ended, began).await;
        ended
    }
}

impl Loop {
    async fn turn(&mut self, start: Start) -> Result<(), Failure> {
        let deadline = self
            .run
            .options
            .timeout
            .map(|timeout| tokio::time::Instant::now() + timeout);
        match start {
            Start::New => self.queue.push_back((Event::Begin, None)),
            Start::Again(recovered) => self.go_on(*recovered),
        }
        self.perform().await?;
        let ledger = self.run.ledger.clone();
        let mut broken = std::pin::pin!(ledger.broken());
        while self.ending.is_none() {
            let wait_for_stop = self.stopped.is_none();
            tokio::select! {
                // Takes of the loop's own budget: in a chain of short stages others get their turn too.
                () = tokio::task::consume_budget(), if self.at_hand.is_some() => {
                    if let Some(message) = self.at_hand.take() {
                        self.heard(message);
                    }
                }
                Some(joined) = self.tasks.join_next_with_id() => {
                    self.take(joined);
                    // Whatever else has ended meanwhile shares the commit.
                    while let Some(joined) = self.tasks.try_join_next_with_id() {
                        self.take(joined);
                    }
                }
                Ok(()) = self.run.stop.changed(), if wait_for_stop => {
                    let stop = *self.run.stop.borrow();
                    let exit = match stop {
                        Some(Stop::Interrupted) => Exit::Interrupted,
                        Some(Stop::Terminated) => Exit::Terminated,
                        Some(Stop::LockLost) => return Err(self.lock_lost().await),
                        None => continue,
                    };
                    self.stop(exit).await;
                }
                () = until(deadline), if wait_for_stop => self.stop(Exit::TimedOut).await,
                failure = &mut broken, if !self.tasks.is_empty() => return Err(match failure.matches(LOCK_LOST) {
                    true => self.lock_lost().await,
                    false => failure,
                }),
                else => return Err(Failure::new(Turn::Windlass, "internal.stuck", "nothing runs and nothing can start")),
            }
            self.perform().await?;
        }
        Ok(())
    }

    /// Takes over what an earlier process has left.
    fn go_on(&mut self, recovered: Recovered) {
        self.schedule = recovered.schedule;
        self.outputs = recovered.outputs;
        self.uncounted = recovered.uncounted;
        self.succeeded = recovered.succeeded;
        self.unknown = recovered.unknown;
        self.answers = recovered.answers;
        self.waiting_since = recovered.waiting_since;
        self.undone = recovered.undone;
        self.schedule.go_live();
        let record = match recovered.goes_on {
            Event::RollBack { past } => Record::RollbackStarted { past },
            _ => Record::RunResumed {},
        };
        self.queue.push_back((recovered.goes_on, Some(record)));
    }

    /// Applies what has happened until nothing follows from it, with one commit for each round of records.
    async fn perform(&mut self) -> Result<(), Failure> {
        while !self.queue.is_empty() {
            let mut starts = Starts::default();
            while let Some((event, record)) = self.queue.pop_front() {
                self.records.extend(record);
                let followed = self.schedule.apply(event);
                let actions = followed.map_err(|illegal| {
                    Failure::new(Turn::Windlass, "internal.schedule", illegal.to_string())
                })?;
                for action in actions {
                    self.prepare(action, &mut starts);
                }
            }
            let records = std::mem::take(&mut self.records);
            if !records.is_empty() {
                failpoint!("round.before-commit");
                if self.tasks.is_empty() {
                    self.run.journal.append_blocking(records)?;
                } else {
                    self.run.journal.append(records).await?;
                }
                failpoint!("round.after-commit");
            }
            for event in std::mem::take(&mut self.untold) {
                self.send(event).await;
            }
            let is_alone = self.tasks.is_empty() && starts.attempts.len() == 1 && starts.undos.is_empty();
            for (stage, attempt, prepared) in starts.attempts {
                self.start(stage, attempt, prepared, is_alone).await;
            }
            starts.undos.into_iter().for_each(|stage| self.compensate(stage));
        }
        Ok(())
    }

    fn happened(&mut self, event: Event, record: Record) {
        self.queue.push_back((event, Some(record)));
    }

    fn prepare(&mut self, action: Action, starts: &mut Starts) {
        match action {
            Action::Start { stage, attempt } => {
                if let Some(failure) = self.answer(stage) {
                    return match failure.code.as_str() {
                        "approval.needed" => self.park(stage, failure, Exit::Paused),
                        _ => self.failed(stage, attempt, failure, BTreeMap::new(), 0),
                    };
                }
                let workshop = self.run.workshop.clone();
                match workshop.prepare(stage, attempt, &self.run.id, &self.outputs) {
                    Ok(Some(prepared)) => {
                        self.records.push(self.started(stage, attempt));
                        starts.attempts.push((stage, attempt, prepared));
                    }
                    Ok(None) => self.skipped(stage, attempt),
                    Err(failure) => self.failed(stage, attempt, failure, BTreeMap::new(), 0),
                }
            }
            Action::BackOff { stage, attempt } => self.back_off(stage, attempt),
            Action::Compensate { stage } => {
                self.records.push(Record::CompensationStarted {
                    stage: self.name(stage).to_string(),
                });
                starts.undos.push(stage);
            }
            Action::Finish(ending) => self.ending = Some(ending),
        }
    }

    /// Why a stage that asks for a person does not start, where it does not.
    fn answer(&self, stage: usize) -> Option<Failure> {
        let approval = self.run.workshop.plan().stages[stage].stage.approval.as_ref()?;
        let answer = self.answers.get(&stage);
        let (approved, reason) = match (answer, self.waiting_since.get(&stage)) {
            (Some(answer), _) => (answer.approved, format!("{}: {}", answer.who, answer.reason)),
            (None, Some(since)) if approval.is_over(*since, jiff::Timestamp::now().as_millisecond()) => {
                (approval.approve_by_default, "nobody answered in time".into())
            }
            (None, _) => {
                let message = format!("waits for a person: {}", approval.question);
                let failure = Failure::new(Turn::Operator, "approval.needed", message);
                let (run, stage) = (&self.run.id, self.name(stage));
                return Some(failure.help(format!(
                    "`windlass approve {run} --stage '{stage}' --reason TEXT` or `windlass reject`, then `windlass resume {run}`"
                )));
            }
        };
        let rejected = || {
            Failure::new(
                Turn::Operator,
                "approval.rejected",
                format!("rejected by {reason}"),
            )
        };
        (!approved).then(rejected)
    }

    /// The stage cannot go on by itself: the run ends, whole, and `resume` goes on with it.
    fn park(&mut self, stage: usize, failure: Failure, exit: Exit) {
        self.parked_in(Event::Parked(stage), stage, failure, exit);
    }

    /// As [`Loop::park`], in the middle of its undo: what lies before it is not undone either, until a person has answered.
    fn park_undo(&mut self, stage: usize, failure: Failure) {
        self.untold.push(RunEvent::StageCompensated {
            stage: self.name(stage),
            succeeded: false,
            summary: failure.message.clone(),
            failure: Some(failure.clone()),
        });
        self.parked_in(Event::UndoParked(stage), stage, failure, Exit::NotClean);
    }

    fn parked_in(&mut self, event: Event, stage: usize, failure: Failure, exit: Exit) {
        let name = self.name(stage);
        self.happened(
            event,
            Record::StageParked {
                stage: name.to_string(),
                failure: failure.clone().into(),
            },
        );
        let message = format!("stage `{name}`: {}", failure.message);
        self.parked.push((name, failure, exit));
        self.untold.push(RunEvent::Notice {
            level: LogLevel::Warn,
            message,
        });
    }

    async fn start(&mut self, stage: usize, attempt: u32, prepared: Prepared, is_alone: bool) {
        let identity = self.identity(stage);
        self.send(RunEvent::StageStarted {
            stage: self.name(stage),
            attempt,
            plugin: identity,
        })
        .await;
        let workshop = self.run.workshop.clone();
        let (ledger, events) = (self.run.ledger.clone(), self.run.events.clone());
        let cancel = self.cancel.child_token();
        let run = self.run.id.clone();
        let settling = self.settling(stage);
        let work = async move {
            if let Some(settling) = settling
                && let Err(failure) = settling.settle().await
            {
                return Message::Unknown { stage, failure };
            }
            failpoint!("stage.before-call");
            let started = Instant::now();
            let result = workshop
                .run(stage, attempt, run, prepared, ledger, events, cancel)
                .await;
            failpoint!("stage.after-call");
            Message::Ended {
                stage,
                attempt,
                result: Box::new(result),
                started,
            }
        };
        if is_alone {
            self.start_here(stage, Box::pin(work)).await;
        } else {
            self.spawn(stage, work);
        }
    }

    fn spawn(&mut self, stage: usize, work: impl Future<Output = Message> + Send + 'static) {
        let handle = self.tasks.spawn(work);
        self.owners.insert(handle.id(), stage);
    }

    /// For a stage that nothing runs beside. One that does not wait for anything has ended after it was polled once, which spares
    /// it a task. One that computes gives up its place at the next tick of the epoch, as everywhere.
    async fn start_here(&mut self, stage: usize, mut work: BoxFuture<'static, Message>) {
        let polled = poll_fn(|context| {
            let poll = || work.as_mut().poll(context);
            Poll::Ready(catch_unwind(AssertUnwindSafe(poll)))
        });
        match polled.await {
            Ok(Poll::Ready(message)) => self.at_hand = Some(message),
            Ok(Poll::Pending) => self.spawn(stage, work),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                self.panicked(stage, text.unwrap_or("it panicked"));
            }
        }
    }

    /// What has to be found out before the stage is touched again.
    fn settling(&mut self, stage: usize) -> Option<probe::Settling> {
        let effects = self.unknown.remove(&stage)?;
        Some(probe::Settling {
            stage,
            name: self.name(stage),
            effects,
            assumed: self.run.options.assumed.get(&stage).copied(),
            run: self.run.id.clone(),
            command: self.goes_on_with(),
            outputs: self.outputs.clone(),
            workshop: self.run.workshop.clone(),
            journal: self.run.journal.clone(),
            ledger: self.run.ledger.clone(),
            events: self.run.events.clone(),
        })
    }

    /// What a person types to go on with this run.
    fn goes_on_with(&self) -> &'static str {
        match self.schedule.is_rolling_back() {
            true => "rollback",
            false => "resume",
        }
    }

    fn take(&mut self, joined: Result<(Id, Message), JoinError>) {
        match joined {
            Ok((id, message)) => {
                self.owners.remove(&id);
                self.heard(message);
            }
            Err(error) => {
                let Some(stage) = self.owners.remove(&error.id()) else {
                    return;
                };
                self.panicked(stage, &error.to_string());
            }
        }
    }

    fn panicked(&mut self, stage: usize, text: &str) {
        let message = format!("the host failed while the stage ran: {text}");
        let failure = Failure::new(Turn::Windlass, "internal.panic", message);
        self.failed(stage, 1, failure, BTreeMap::new(), 0);
    }

    fn heard(&mut self, message: Message) {
        match message {
            Message::BackoffOver(stage) => self.queue.push_back((Event::BackoffOver(stage), None)),
            Message::Unknown { stage, failure } => self.park(stage, failure, Exit::NotClean),
            Message::Undone { stage, result } => self.undone(stage, *result),
            Message::UndoUnknown { stage, failure } => self.park_undo(stage, failure),
            Message::Ended {
                stage,
                attempt,
                result,
                started,
            } => {
                let duration = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                match result.outcome {
                    Ok(Answer::Outcome(outcome)) => {
                        let outputs: serde_json::Map<_, _> = outcome.outputs.clone().into_iter().collect();
                        self.outputs.insert(self.name(stage), Json::Object(outputs));
                        let report = StageReport {
                            status: StageStatus::Succeeded,
                            changed: outcome.changed,
                            summary: outcome.summary,
                            outputs: outcome.outputs,
                            failure: None,
                            duration_ms: duration,
                            usage: result.usage,
                        };
                        if report.passed_no_return() {
                            self.schedule.pass_no_return(stage);
                        }
                        self.finished(Event::Succeeded(stage), stage, attempt, report);
                    }
                    Ok(_) => {
                        let failure = Failure::new(
                            Turn::Windlass,
                            "internal.answer",
                            "the sandbox answered another call",
                        );
                        self.failed(stage, attempt, failure, result.usage, duration);
                    }
                    Err(failure) => self.failed(stage, attempt, failure, result.usage, duration),
                }
            }
        }
    }

    fn failed(
        &mut self,
        stage: usize,
        attempt: u32,
        failure: Failure,
        usage: BTreeMap<String, u64>,
        duration_ms: u64,
    ) {
        let status = match failure.code.as_str() {
            "cancelled" => StageStatus::Cancelled,
            "limit.time" => StageStatus::TimedOut,
            code if code.starts_with("grant.") => StageStatus::Denied,
            _ => StageStatus::Failed,
        };
        if self.succeeded.contains(&stage) && self.stopped.is_none() {
            // It ran again only for its secrets. The run is as it was.
            return self.park(stage, failure, Exit::Unavailable);
        }
        let counted = attempt.saturating_sub(self.uncounted.get(&stage).copied().unwrap_or(0));
        let retry = self.run.workshop.may_retry(stage, counted, &failure);
        let event = match status {
            StageStatus::Cancelled => Event::Cancelled(stage),
            _ => Event::Failed { stage, retry },
        };
        if retry && self.stopped.is_none() {
            self.retry_delays.insert(stage, failure.clone());
        } else if self.cause.is_none() && status != StageStatus::Cancelled {
            self.cause = Some((self.name(stage), failure.clone()));
        }
        let report = StageReport {
            status,
            changed: false,
            summary: failure.message.lines().next().unwrap_or_default().to_string(),
            outputs: BTreeMap::new(),
            failure: Some(failure),
            duration_ms,
            usage,
        };
        self.finished(event, stage, attempt, report);
    }

    fn skipped(&mut self, stage: usize, attempt: u32) {
        let reason = "its condition is false";
        self.happened(
            Event::Skipped(stage),
            Record::StageSkipped {
                stage: self.name(stage).to_string(),
                reason: reason.into(),
            },
        );
        let report = StageReport {
            status: StageStatus::Skipped,
            changed: false,
            summary: reason.into(),
            outputs: BTreeMap::new(),
            failure: None,
            duration_ms: 0,
            usage: BTreeMap::new(),
        };
        self.untold.push(RunEvent::StageFinished {
            stage: self.name(stage),
            attempt,
            report,
        });
    }

    fn finished(&mut self, event: Event, stage: usize, attempt: u32, report: StageReport) {
        let name = self.name(stage);
        self.happened(
            event,
            Record::StageFinished {
                stage: name.to_string(),
                attempt,
                report: report.clone().into(),
            },
        );
        self.untold.push(RunEvent::StageFinished {
            stage: name,
            attempt,
            report,
        });
    }

    fn back_off(&mut self, stage: usize, attempt: u32) {
        let delay = self.run.workshop.backoff(stage, attempt);
        if let Some(failure) = self.retry_delays.remove(&stage) {
            let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            self.untold.push(RunEvent::StageRetrying {
                stage: self.name(stage),
                attempt,
                delay_ms,
                failure,
            });
        }
        let cancel = self.cancel.clone();
        self.spawn(stage, async move {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = cancel.cancelled() => {}
            }
            Message::BackoffOver(stage)
        });
    }

    fn compensate(&mut self, stage: usize) {
        let workshop = self.run.workshop.clone();
        let (ledger, events, run) = (
            self.run.ledger.clone(),
            self.run.events.clone(),
            self.run.id.clone(),
        );
        let outputs = self.outputs.clone();
        let settling = self.settling(stage);
        self.spawn(stage, async move {
            if let Some(settling) = settling
                && let Err(failure) = settling.settle().await
            {
                return Message::UndoUnknown { stage, failure };
            }
            failpoint!("undo.before-call");
            let result = workshop.compensate(stage, run, &outputs, ledger, events).await;
            failpoint!("undo.after-call");
            Message::Undone {
                stage,
                result: Box::new(result),
            }
        });
    }

    fn undone(&mut self, stage: usize, result: AttemptResult) {
        let name = self.name(stage);
        let (succeeded, summary, failure) = match result.outcome {
            Ok(Answer::Outcome(outcome)) => (true, outcome.summary, None),
            Ok(_) => (false, String::new(), None),
            Err(failure) => (false, failure.message.clone(), Some(failure)),
        };
        if succeeded {
            self.undone += 1;
            self.run.ledger.undone(&name);
        }
        self.happened(
            Event::Compensated { stage, succeeded },
            Record::StageCompensated {
                stage: name.to_string(),
                succeeded,
                summary: summary.clone(),
                failure: failure.clone().map(Into::into),
            },
        );
        self.untold.push(RunEvent::StageCompensated {
            stage: name,
            succeeded,
            summary,
            failure,
        });
    }

    async fn stop(&mut self, exit: Exit) {
        self.stopped = Some(exit);
        let why = match exit {
            Exit::TimedOut => "the run's own time is over",
            Exit::Terminated => "terminated",
            _ => "interrupted",
        };
        let message = format!("{why}: stopping in order; a second signal stops at once");
        self.send(RunEvent::Notice {
            level: LogLevel::Warn,
            message,
        })
        .await;
        self.cancel.cancel();
        // What runs in `finally` is not cancelled by the stop that brought it there.
        self.cancel = CancellationToken::new();
        let reason = why.to_string();
        self.happened(Event::Stop, Record::RunStopping { reason });
    }

    /// Another run may act now: what runs here is told to stop and gets a moment to do so. Nothing is undone, which would need
    /// the lock too; `resume` goes on once it has it.
    async fn lock_lost(&mut self) -> Failure {
        self.cancel.cancel();
        if let Some(message) = self.at_hand.take() {
            self.heard(message);
        }
        let mut over = std::pin::pin!(tokio::time::sleep(LOCK_LOST_GRACE));
        loop {
            tokio::select! {
                joined = self.tasks.join_next_with_id() => match joined {
                    Some(joined) => self.take(joined),
                    None => break,
                },
                () = &mut over => break,
            }
        }
        let concurrency = self.run.workshop.plan().pipeline.concurrency.as_ref();
        let group = concurrency.map_or_else(String::new, |concurrency| concurrency.group.clone());
        StoreError::LockLost { group }.into()
    }

    fn ended(&self) -> Ended {
        let left_behind = self.run.ledger.left_behind();
        let ending = self.ending.unwrap_or(Ending::NotClean);
        if ending == Ending::Halted {
            return self.halted(left_behind);
        }
        let cause = self.cause.as_ref().map(|(_, failure)| failure);
        let denied = cause.is_some_and(|failure| failure.matches("grant"));
        let unreachable = cause.is_some_and(Failure::is_unreachable);
        let failed = if self.undone > 0 {
            RunStatus::RolledBack
        } else {
            RunStatus::Failed
        };
        let unclean = ending == Ending::NotClean || (ending != Ending::Succeeded && !left_behind.is_empty());
        let (status, exit) = match (ending, self.stopped) {
            (Ending::Succeeded, _) => (RunStatus::Succeeded, Exit::Succeeded),
            _ if unclean && self.stopped.is_none() => (RunStatus::NeedsOperator, Exit::NotClean),
            (_, Some(exit)) => (RunStatus::Cancelled, exit),
            (Ending::RolledBack, _) => (RunStatus::RolledBack, Exit::Succeeded),
            _ if denied => (failed, Exit::Denied),
            _ if unreachable => (failed, Exit::Unavailable),
            _ => (failed, Exit::Failed),
        };
        let left_behind = if exit == Exit::Succeeded {
            Vec::new()
        } else {
            left_behind
        };
        Ended {
            status,
            exit,
            left_behind,
            cause: self.cause.clone(),
            is_resumable: false,
            broken: None,
        }
    }

    /// Stages are parked: the gravest reason decides.
    fn halted(&self, left_behind: Vec<StageName>) -> Ended {
        let of = |wanted: Exit| self.parked.iter().find(|(_, _, exit)| *exit == wanted);
        let first = of(Exit::NotClean)
            .or_else(|| of(Exit::Unavailable))
            .or_else(|| self.parked.first());
        let (cause, exit) = match first {
            Some((stage, failure, exit)) => (Some((stage.clone(), failure.clone())), *exit),
            None => (None, Exit::NotClean),
        };
        let status = match exit {
            Exit::NotClean => RunStatus::NeedsOperator,
            _ => RunStatus::Paused,
        };
        Ended {
            status,
            exit: self.stopped.unwrap_or(exit),
            left_behind,
            cause,
            is_resumable: true,
            broken: None,
        }
    }

    /// The journal or the loop itself failed: nothing new starts, what runs is dropped.
    async fn broken(&mut self, failure: Failure) -> Ended {
        self.tasks.shutdown().await;
        let left_behind = self.run.ledger.left_behind();
        let (status, exit) = match failure.turn {
            Turn::Windlass => (RunStatus::NeedsOperator, Exit::Internal),
            _ if !left_behind.is_empty() => (RunStatus::NeedsOperator, Exit::NotClean),
            _ if failure.matches(LOCK_LOST) => (RunStatus::Cancelled, Exit::LockLost),
            // The disk under the journal.
            _ => (RunStatus::Paused, Exit::Unavailable),
        };
        Ended {
            status,
            exit,
            left_behind,
            cause: self.cause.clone(),
            is_resumable: true,
            broken: Some(failure),
        }
    }

    /// Writes down how the run has ended. It has not where that cannot be written: `resume` then finds what is left to do, and
    /// that may be nothing but this.
    async fn conclude(&mut self) -> Ended {
        let ended = self.ended();
        let (exit, reason) = (self.run.workshop.exit_code)(ended.exit);
        let record = Record::RunFinished {
            status: ended.status.into(),
            exit,
            reason: reason.into(),
            resumable: ended.is_resumable,
        };
        failpoint!("run.before-finish");
        match self.run.journal.append(vec![record]).await {
            Ok(()) => ended,
            Err(failure) => self.broken(failure).await,
        }
    }

    async fn announce(&mut self, ended: &Ended, began: Instant) {
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (exit, reason) = (self.run.workshop.exit_code)(ended.exit);
        let next = attempt::next_command(ended, &self.run.id, self.goes_on_with());
        self.send(RunEvent::RunFinished {
            status: ended.status,
            exit,
            reason: reason.into(),
            duration_ms,
            next,
        })
        .await;
    }

    fn started(&self, stage: usize, attempt: u32) -> Record {
        let PluginIdentity { name, digest } = self.identity(stage);
        Record::StageStarted {
            stage: self.name(stage).to_string(),
            attempt,
            plugin: WirePlugin { name, digest },
            reason: self.reason(stage, attempt).map(String::from),
        }
    }

    /// Why a stage starts that has started before.
    fn reason(&self, stage: usize, attempt: u32) -> Option<&'static str> {
        if attempt == 1 {
            None
        } else if self.succeeded.contains(&stage) {
            Some("secrets-needed")
        } else if self
            .uncounted
            .get(&stage)
            .is_some_and(|uncounted| uncounted + 1 == attempt)
        {
            Some("interrupted")
        } else {
            Some("retry")
        }
    }

    fn identity(&self, stage: usize) -> PluginIdentity {
        let plugin = &self.run.workshop.plan().stages[stage].plugin;
        PluginIdentity {
            name: plugin.id.clone(),
            digest: plugin.digest.to_string(),
        }
    }

    fn name(&self, stage: usize) -> StageName {
        self.run.workshop.plan().stages[stage].stage.name.clone()
    }

    /// Nobody listening any more is no failure of the run.
    async fn send(&self, event: RunEvent) {
        let _ = self.run.events.send(event).await;
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
