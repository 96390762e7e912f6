//! The transition table: `(state, event) -> actions`.
//!
//! Forward, a stage starts once all it needs have succeeded; what needs a stage that failed, was skipped by a failure or was
//! cancelled never starts. When nothing runs any more, a failed run is unwound: the failed stages and then the completed ones, in
//! reverse order of completion, up to a point of no return. `finally` runs last, whatever happened.
//!
//! A journal is read with the same table: [`Schedule::replaying`] starts nothing by itself, the records say what was started, and
//! [`Event::Resumed`] turns what was cut off back into what has to be done.

use std::collections::BTreeSet;

/// What the table needs to know of a plan. Stages are numbered in plan order, `finally` last.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// For each stage those it needs.
    pub needs: Vec<Vec<usize>>,
    /// Stages from here on are `finally`.
    pub finally_from: usize,
    /// Whether a stage is undone when the run fails.
    pub compensable: Vec<bool>,
    /// Whether a stage is undone when a person asks for it: `windlass rollback`.
    pub undoable: Vec<bool>,
    pub point_of_no_return: Vec<bool>,
    /// For each stage those whose secrets it uses. Secrets live in memory only, so a resumed run fetches them again.
    pub secrets_of: Vec<Vec<usize>>,
    /// How many stages may run at once; at least 1.
    pub jobs: usize,
}

/// Where a stage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageState {
    /// Its needs have not all ended.
    Waiting,
    /// Could start; waits for a free job.
    Ready,
    /// Its start was announced.
    Running {
        attempt: u32,
    },
    /// Failed and will be tried again.
    BackingOff {
        attempt: u32,
    },
    Succeeded,
    /// By its own condition, or by `--only`, `--skip`, `--from`.
    Skipped,
    Failed,
    /// Never started, because something it needs did not succeed or the run was stopped.
    Unreached,
    Cancelled,
    /// Cannot go on by itself: an effect whose outcome nobody knows, a person's answer, a source of secrets that is gone. The run
    /// ends there and can be resumed.
    Parked,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The run begins.
    Begin,
    Succeeded(usize),
    /// `retry`: the driver has an attempt left for this kind of failure.
    Failed {
        stage: usize,
        retry: bool,
    },
    /// Its condition was false.
    Skipped(usize),
    Cancelled(usize),
    BackoffOver(usize),
    /// Stop: nothing new starts, except `finally`.
    Stop,
    Compensated {
        stage: usize,
        succeeded: bool,
    },
    /// It cannot go on by itself.
    Parked(usize),
    /// Its undo cannot go on by itself. The undos behind it wait too: what they undo was there before it.
    UndoParked(usize),
    /// Only in a replay: a stage was started, for the first time or again.
    Started {
        stage: usize,
        attempt: u32,
    },
    /// Another process goes on: what was running has ended without a word, and secrets that stages have put are gone.
    Resumed,
    /// A person wants the finished run undone; `past` a point of no return where they have said that its state was restored.
    RollBack {
        past: bool,
    },
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Start {
        stage: usize,
        attempt: u32,
    },
    /// Wait before the next attempt, then say `BackoffOver`.
    BackOff {
        stage: usize,
        attempt: u32,
    },
    Compensate {
        stage: usize,
    },
    Finish(Ending),
}

/// How the run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Succeeded,
    /// Something failed; everything that was to be undone was undone (perhaps nothing).
    Failed,
    /// Something failed and an undo failed, or a point of no return was passed.
    NotClean,
    Cancelled,
    /// Stages are parked: `resume` goes on.
    Halted,
    /// By `windlass rollback`: everything that it was asked to undo is undone.
    RolledBack,
}

/// An event that cannot happen in this state: a damaged journal, or a bug.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot follow: the stage is {state:?}")]
pub struct Illegal {
    pub event: Event,
    pub state: Option<StageState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Forward,
    Unwinding,
    Finally,
    Ended,
}

/// A run in progress.
#[derive(Clone, Debug)]
pub struct Schedule {
    shape: Shape,
    dependents: Vec<Vec<usize>>,
    missing: Vec<usize>,
    states: Vec<StageState>,
    /// How many attempts of each stage have started.
    attempts: Vec<u32>,
    ready: BTreeSet<usize>,
    running: usize,
    backing_off: usize,
    phase: Phase,
    stopped: bool,
    failed: bool,
    not_clean: bool,
    completed: Vec<usize>,
    undo: Vec<usize>,
    /// Stages that have been undone.
    undone: BTreeSet<usize>,
    /// Completed stages whose secrets are no longer in memory.
    lost: BTreeSet<usize>,
    rolling_back: bool,
    undo_is_parked: bool,
    replaying: bool,
    ended_in: Option<Phase>,
}

impl Schedule {
    /// Before the first event. `already` says where stages stand that a journal knows of, or that the command line left out.
    pub fn new(shape: Shape, already: impl IntoIterator<Item = (usize, StageState)>) -> Self {
        let count = shape.needs.len();
        let mut dependents = vec![Vec::new(); count];
        for (stage, needs) in shape.needs.iter().enumerate() {
            for need in needs {
                dependents[*need].push(stage);
            }
        }
        let missing = shape.needs.iter().map(Vec::len).collect();
        let mut schedule = Self {
            dependents,
            missing,
            states: vec![StageState::Waiting; count],
            attempts: vec![0; count],
            ready: BTreeSet::new(),
            running: 0,
            backing_off: 0,
            phase: Phase::Forward,
            stopped: false,
            failed: false,
            not_clean: false,
            completed: Vec::new(),
            undo: Vec::new(),
            undone: BTreeSet::new(),
            lost: BTreeSet::new(),
            rolling_back: false,
            undo_is_parked: false,
            replaying: false,
            ended_in: None,
            shape,
        };
        for (stage, state) in already {
            schedule.settle(stage, state);
        }
        schedule
    }

    /// The same for a journal: nothing starts but what [`Event::Started`] says.
    pub fn replaying(shape: Shape, already: impl IntoIterator<Item = (usize, StageState)>) -> Self {
        Self {
            replaying: true,
            ..Self::new(shape, already)
        }
    }

    /// Ends a replay: from here on [`Schedule::apply`] starts stages again. The next event is [`Event::Resumed`] or
    /// [`Event::RollBack`].
    pub fn go_live(&mut self) {
        self.replaying = false;
    }

    /// What the stage did makes it a point of no return, as if the file had said so.
    pub fn pass_no_return(&mut self, stage: usize) {
        self.shape.point_of_no_return[stage] = true;
    }

    /// How many attempts of a stage have started.
    pub fn attempts(&self, stage: usize) -> u32 {
        self.attempts[stage]
    }

    pub fn state(&self, stage: usize) -> StageState {
        self.states[stage]
    }

    /// Whether a person has asked for the run to be undone.
    pub fn is_rolling_back(&self) -> bool {
        self.rolling_back
    }

    /// Stages that completed, in order of completion.
    pub fn completed(&self) -> &[usize] {
        &self.completed
    }

    /// Applies one event.
    ///
    /// # Errors
    /// The event cannot happen now; nothing has changed.
    pub fn apply(&mut self, event: Event) -> Result<Vec<Action>, Illegal> {
        self.check(event)?;
        let mut actions = Vec::new();
        match event {
            Event::Begin => self.open_ready(),
            Event::Succeeded(stage) => {
                self.running -= 1;
                self.settle(stage, StageState::Succeeded);
            }
            Event::Skipped(stage) => {
                self.running -= 1;
                self.settle(stage, StageState::Skipped);
            }
            Event::Cancelled(stage) => {
                self.running -= 1;
                self.settle(stage, StageState::Cancelled);
            }
            Event::Failed { stage, retry } => {
                self.running -= 1;
                let attempt = self.attempts[stage];
                if retry && !self.stopped {
                    self.states[stage] = StageState::BackingOff { attempt };
                    self.backing_off += 1;
                    actions.push(Action::BackOff { stage, attempt });
                } else {
                    self.settle(stage, StageState::Failed);
                }
            }
            Event::BackoffOver(stage) => {
                if matches!(self.states[stage], StageState::BackingOff { .. }) {
                    self.backing_off -= 1;
                    self.states[stage] = StageState::Ready;
                    self.ready.insert(stage);
                }
            }
            Event::Stop => self.stop(),
            Event::Compensated { stage, succeeded } => {
                self.running -= 1;
                self.undo.retain(|one| *one != stage);
                self.not_clean |= !succeeded;
                if succeeded {
                    self.undone.insert(stage);
                }
            }
            Event::Parked(stage) => {
                self.running -= 1;
                self.states[stage] = StageState::Parked;
            }
            Event::UndoParked(_) => {
                self.running -= 1;
                self.undo_is_parked = true;
            }
            Event::Started { stage, attempt } => self.started(stage, attempt),
            Event::Resumed => self.resumed(),
            Event::RollBack { past } => self.roll_back(past),
        }
        self.next(&mut actions);
        Ok(actions)
    }

    fn check(&self, event: Event) -> Result<(), Illegal> {
        let stage = match event {
            Event::Begin | Event::Stop | Event::Resumed => return Ok(()),
            Event::RollBack { .. } if self.phase == Phase::Ended => return Ok(()),
            Event::RollBack { .. } => return Err(Illegal { event, state: None }),
            Event::Succeeded(stage)
            | Event::Skipped(stage)
            | Event::Cancelled(stage)
            | Event::Parked(stage)
            | Event::UndoParked(stage)
            | Event::Started { stage, .. }
            | Event::BackoffOver(stage)
            | Event::Failed { stage, .. }
            | Event::Compensated { stage, .. } => stage,
        };
        let state = self.states.get(stage).copied();
        let legal = match (event, state) {
            // A stop has failed it meanwhile.
            (Event::BackoffOver(_), Some(StageState::Failed)) => self.stopped,
            (Event::BackoffOver(_), Some(StageState::BackingOff { .. })) => true,
            (Event::BackoffOver(_), _) => false,
            (Event::Started { .. }, Some(state)) => self.replaying && state != StageState::Waiting,
            (Event::Compensated { .. } | Event::UndoParked(_), Some(_)) => {
                self.phase == Phase::Unwinding && self.undo.last() == Some(&stage) && self.running > 0
            }
            (_, Some(StageState::Running { .. })) => true,
            _ => false,
        };
        if legal {
            Ok(())
        } else {
            Err(Illegal { event, state })
        }
    }

    /// Gives a stage its last state and tells those that need it.
    fn settle(&mut self, stage: usize, state: StageState) {
        self.ready.remove(&stage);
        self.states[stage] = state;
        match state {
            StageState::Succeeded | StageState::Skipped => {
                if state == StageState::Succeeded {
                    self.completed.push(stage);
                }
                for index in 0..self.dependents[stage].len() {
                    let dependent = self.dependents[stage][index];
                    self.missing[dependent] -= 1;
                    self.offer(dependent);
                }
            }
            StageState::Failed | StageState::Unreached | StageState::Cancelled => {
                self.failed |= state == StageState::Failed;
                for index in 0..self.dependents[stage].len() {
                    let dependent = self.dependents[stage][index];
                    if matches!(self.states[dependent], StageState::Waiting | StageState::Ready) {
                        self.settle(dependent, StageState::Unreached);
                    }
                }
            }
            _ => {}
        }
    }

    fn offer(&mut self, stage: usize) {
        let of_this_phase = (stage >= self.shape.finally_from) == (self.phase == Phase::Finally);
        let open = of_this_phase && (!self.stopped || self.phase == Phase::Finally);
        if open && self.missing[stage] == 0 && self.states[stage] == StageState::Waiting {
            self.states[stage] = StageState::Ready;
            self.ready.insert(stage);
        }
    }

    fn open_ready(&mut self) {
        let range = match self.phase {
            Phase::Finally => self.shape.finally_from..self.states.len(),
            _ => 0..self.shape.finally_from,
        };
        range.for_each(|stage| self.offer(stage));
    }

    fn stop(&mut self) {
        self.stopped = true;
        if self.phase == Phase::Finally {
            return;
        }
        for stage in 0..self.shape.finally_from {
            match self.states[stage] {
                StageState::Waiting | StageState::Ready => self.settle(stage, StageState::Unreached),
                StageState::BackingOff { .. } => {
                    self.backing_off -= 1;
                    self.settle(stage, StageState::Failed);
                }
                _ => {}
            }
        }
    }

    /// What a journal says was started: ready, tried again, or fetched again for its secrets.
    fn started(&mut self, stage: usize, attempt: u32) {
        match self.states[stage] {
            StageState::Running { .. } => {}
            StageState::BackingOff { .. } => {
                self.backing_off -= 1;
                self.running += 1;
            }
            StageState::Succeeded => {
                self.again(stage);
                self.running += 1;
            }
            _ => self.running += 1,
        }
        self.ready.remove(&stage);
        self.attempts[stage] = attempt;
        self.states[stage] = StageState::Running { attempt };
    }

    /// The phase that a run which has come to its end is in again when it goes on.
    fn goes_on_in(&self) -> Phase {
        match (self.phase, self.ended_in) {
            (Phase::Ended, Some(phase)) => phase,
            (phase, _) => phase,
        }
    }

    fn end(&mut self, ending: Ending, actions: &mut Vec<Action>) {
        self.ended_in = Some(self.phase);
        self.phase = Phase::Ended;
        actions.push(Action::Finish(ending));
    }

    /// What was running is to be started again; an undo that was cut off is asked for again by `next`.
    fn resumed(&mut self) {
        (self.running, self.backing_off) = (0, 0);
        self.undo_is_parked = false;
        self.phase = self.goes_on_in();
        for stage in 0..self.states.len() {
            let is_cut_off = matches!(
                self.states[stage],
                StageState::Running { .. } | StageState::BackingOff { .. } | StageState::Parked
            );
            if is_cut_off {
                self.states[stage] = StageState::Ready;
                self.ready.insert(stage);
            }
        }
        self.lose_secrets();
        let waiting = |state: &StageState| matches!(state, StageState::Waiting | StageState::Ready);
        let users = (0..self.states.len()).filter(|stage| waiting(&self.states[*stage]));
        for stage in users.collect::<Vec<_>>() {
            self.fetch_secrets_of(stage);
        }
    }

    fn lose_secrets(&mut self) {
        let providers = self.shape.secrets_of.iter().flatten().copied();
        self.lost = providers
            .filter(|stage| self.states[*stage] == StageState::Succeeded)
            .collect();
    }

    /// Starts what put the secrets of `stage` again, where they are lost.
    fn fetch_secrets_of(&mut self, stage: usize) {
        let providers = self.shape.secrets_of.get(stage).cloned().unwrap_or_default();
        for provider in providers {
            if !self.lost.remove(&provider) {
                continue;
            }
            self.fetch_secrets_of(provider);
            self.again(provider);
            self.states[provider] = StageState::Ready;
            if self.missing[provider] == 0 {
                self.ready.insert(provider);
            } else {
                self.states[provider] = StageState::Waiting;
            }
        }
    }

    /// Takes back that a stage has completed: those that need it wait for it again.
    fn again(&mut self, stage: usize) {
        self.lost.remove(&stage);
        self.completed.retain(|one| *one != stage);
        for index in 0..self.dependents[stage].len() {
            let dependent = self.dependents[stage][index];
            self.missing[dependent] += 1;
            if self.ready.remove(&dependent) {
                self.states[dependent] = StageState::Waiting;
            }
        }
    }

    fn roll_back(&mut self, past: bool) {
        (self.running, self.not_clean) = (0, false);
        (self.rolling_back, self.undo_is_parked) = (true, false);
        self.phase = Phase::Unwinding;
        self.lose_secrets();
        let kept = if past { 0 } else { self.kept() };
        self.not_clean |= self.kept() > 0 && !past;
        let broken = self.broken();
        let order = self.completed[kept..].iter().copied().chain(broken);
        self.undo = order
            .filter(|stage| *stage < self.shape.finally_from)
            .filter(|stage| self.shape.undoable[*stage] && !self.undone.contains(stage))
            .collect();
    }

    fn next(&mut self, actions: &mut Vec<Action>) {
        self.start_ready(actions);
        let is_replayed = self.replaying && !self.ready.is_empty();
        if self.running > 0 || self.backing_off > 0 || is_replayed {
            return;
        }
        let is_parked = self.undo_is_parked || self.states.contains(&StageState::Parked);
        if self.phase != Phase::Ended && is_parked {
            return self.end(Ending::Halted, actions);
        }
        match self.phase {
            Phase::Forward => {
                self.begin_unwinding();
                self.next(actions);
            }
            Phase::Unwinding => match self.undo.last().copied() {
                Some(stage) => {
                    self.fetch_secrets_of(stage);
                    if self.ready.is_empty() {
                        self.running += 1;
                        actions.push(Action::Compensate { stage });
                    } else {
                        self.next(actions);
                    }
                }
                None if self.rolling_back => {
                    let is_clean = !self.not_clean;
                    self.end(
                        if is_clean {
                            Ending::RolledBack
                        } else {
                            Ending::NotClean
                        },
                        actions,
                    );
                }
                None => {
                    self.phase = Phase::Finally;
                    self.open_ready();
                    self.next(actions);
                }
            },
            Phase::Finally => self.end(self.ending(), actions),
            Phase::Ended => {}
        }
    }

    fn start_ready(&mut self, actions: &mut Vec<Action>) {
        while !self.replaying && self.running < self.shape.jobs.max(1) {
            let Some(stage) = self.ready.pop_first() else {
                return;
            };
            self.attempts[stage] += 1;
            let attempt = self.attempts[stage];
            self.states[stage] = StageState::Running { attempt };
            self.running += 1;
            actions.push(Action::Start { stage, attempt });
        }
    }

    /// The order of undoing, last first in `undo`: failed and cancelled stages before completed ones, the latest before the earliest.
    fn begin_unwinding(&mut self) {
        self.phase = Phase::Unwinding;
        let broken = self.broken();
        if broken.is_empty() && !self.stopped {
            return;
        }
        let kept = self.kept();
        self.not_clean |= kept > 0;
        let order = self.completed[kept..].iter().copied().chain(broken);
        self.undo = order.filter(|stage| self.shape.compensable[*stage]).collect();
    }

    /// How many of the completed stages lie before a point of no return, with it.
    fn kept(&self) -> usize {
        let last = self
            .completed
            .iter()
            .rposition(|stage| self.shape.point_of_no_return[*stage]);
        last.map_or(0, |position| position + 1)
    }

    /// Stages that have perhaps done a part of their work.
    fn broken(&self) -> Vec<usize> {
        let is_broken = |state: StageState| matches!(state, StageState::Failed | StageState::Cancelled);
        (0..self.shape.finally_from)
            .filter(|stage| is_broken(self.states[*stage]))
            .collect()
    }

    fn ending(&self) -> Ending {
        match (self.not_clean, self.failed, self.stopped) {
            (true, _, _) => Ending::NotClean,
            (_, true, _) => Ending::Failed,
            (_, _, true) => Ending::Cancelled,
            _ => Ending::Succeeded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(needs: &[&[usize]], finally_from: usize) -> Shape {
        Shape {
            needs: needs.iter().map(|one| one.to_vec()).collect(),
            finally_from,
            compensable: vec![true; needs.len()],
            undoable: vec![true; needs.len()],
            secrets_of: vec![Vec::new(); needs.len()],
            point_of_no_return: vec![false; needs.len()],
            jobs: 8,
        }
    }

    fn start(stage: usize) -> Action {
        Action::Start { stage, attempt: 1 }
    }

    /// Applies events one after another; the last one's actions are compared.
    #[track_caller]
    fn check(shape: Shape, events: &[Event], expected: &[Action]) {
        let mut schedule = Schedule::new(shape, []);
        let mut actions = schedule.apply(Event::Begin).expect("legal");
        for event in events {
            actions = schedule.apply(*event).expect("legal");
        }
        assert_eq!(actions, expected);
    }

    #[test]
    fn forward() {
        let diamond = shape(&[&[], &[0], &[0], &[1, 2]], 4);
        check(diamond.clone(), &[], &[start(0)]);
        check(diamond.clone(), &[Event::Succeeded(0)], &[start(1), start(2)]);
        check(diamond.clone(), &[Event::Succeeded(0), Event::Succeeded(2)], &[]);
        check(
            diamond.clone(),
            &[Event::Succeeded(0), Event::Succeeded(2), Event::Skipped(1)],
            &[start(3)],
        );
        let done = [
            Event::Succeeded(0),
            Event::Succeeded(2),
            Event::Succeeded(1),
            Event::Succeeded(3),
        ];
        check(diamond, &done, &[Action::Finish(Ending::Succeeded)]);
        check(shape(&[], 0), &[], &[Action::Finish(Ending::Succeeded)]);
    }

    #[test]
    fn jobs_bound_what_runs_at_once() {
        let wide = Shape {
            jobs: 2,
            ..shape(&[&[], &[], &[]], 3)
        };
        check(wide.clone(), &[], &[start(0), start(1)]);
        check(wide, &[Event::Succeeded(1)], &[start(2)]);
    }

    #[test]
    fn a_failure_undoes_in_reverse_and_then_finally_runs() {
        let chain = shape(&[&[], &[0], &[1], &[]], 3);
        let failed = Event::Failed {
            stage: 2,
            retry: false,
        };
        let undone = |stage| Event::Compensated {
            stage,
            succeeded: true,
        };
        let mut events = vec![Event::Succeeded(0), Event::Succeeded(1), failed];
        check(chain.clone(), &events, &[Action::Compensate { stage: 2 }]);
        events.push(undone(2));
        check(chain.clone(), &events, &[Action::Compensate { stage: 1 }]);
        events.extend([undone(1), undone(0)]);
        check(chain.clone(), &events, &[start(3)]);
        events.push(Event::Succeeded(3));
        check(chain.clone(), &events, &[Action::Finish(Ending::Failed)]);

        let mut guarded = chain;
        guarded.point_of_no_return[1] = true;
        let events = [
            Event::Succeeded(0),
            Event::Succeeded(1),
            failed,
            undone(2),
            Event::Succeeded(3),
        ];
        check(guarded, &events, &[Action::Finish(Ending::NotClean)]);
    }

    #[test]
    fn others_go_on_when_one_fails() {
        let two = Shape {
            compensable: vec![false; 4],
            ..shape(&[&[], &[], &[0], &[1]], 4)
        };
        let events = [
            Event::Failed {
                stage: 0,
                retry: false,
            },
            Event::Succeeded(1),
        ];
        check(two.clone(), &events, &[start(3)]);
        let events = [events[0], events[1], Event::Succeeded(3)];
        check(two, &events, &[Action::Finish(Ending::Failed)]);
    }

    #[test]
    fn retries() {
        let one = Shape {
            compensable: vec![false],
            ..shape(&[&[]], 1)
        };
        let failed = Event::Failed {
            stage: 0,
            retry: true,
        };
        check(
            one.clone(),
            &[failed],
            &[Action::BackOff { stage: 0, attempt: 1 }],
        );
        check(
            one.clone(),
            &[failed, Event::BackoffOver(0)],
            &[Action::Start { stage: 0, attempt: 2 }],
        );
        check(one, &[failed, Event::Stop], &[Action::Finish(Ending::Failed)]);
    }

    #[test]
    fn stopping() {
        let chain = Shape {
            compensable: vec![false; 3],
            ..shape(&[&[], &[0], &[]], 2)
        };
        check(chain.clone(), &[Event::Stop, Event::Cancelled(0)], &[start(2)]);
        check(
            chain,
            &[Event::Stop, Event::Succeeded(0), Event::Succeeded(2)],
            &[Action::Finish(Ending::Cancelled)],
        );
    }

    #[test]
    fn illegal_events_change_nothing() {
        let mut schedule = Schedule::new(shape(&[&[], &[0]], 2), []);
        schedule.apply(Event::Begin).expect("legal");
        for event in [
            Event::Succeeded(1),
            Event::Succeeded(9),
            Event::BackoffOver(0),
            Event::Compensated {
                stage: 0,
                succeeded: true,
            },
        ] {
            assert!(schedule.apply(event).is_err(), "{event:?}");
        }
        assert_eq!(schedule.apply(Event::Succeeded(0)), Ok(vec![start(1)]));
    }

    /// What the driver would write of these actions and events, and how it is read again.
    #[derive(Clone, Copy, Debug)]
    enum Written {
        Started(usize, u32),
        Happened(Event),
    }

    /// Live again behind the last of them.
    fn replayed(shape: &Shape, written: &[Written]) -> Schedule {
        let mut schedule = Schedule::replaying(shape.clone(), []);
        schedule.apply(Event::Begin).expect("legal");
        for one in written {
            let event = match *one {
                Written::Started(stage, attempt) => Event::Started { stage, attempt },
                Written::Happened(event) => event,
            };
            schedule
                .apply(event)
                .unwrap_or_else(|illegal| panic!("{illegal} in {written:?}"));
        }
        schedule.go_live();
        schedule
    }

    #[test]
    fn what_was_cut_off_starts_again_and_lost_secrets_are_fetched() {
        let mut chain = shape(&[&[], &[0], &[0, 1]], 3);
        chain.secrets_of[2] = vec![0];
        let written = [
            Written::Started(0, 1),
            Written::Happened(Event::Succeeded(0)),
            Written::Started(1, 1),
            Written::Happened(Event::Succeeded(1)),
            Written::Started(2, 1),
        ];
        let mut schedule = replayed(&chain, &written);
        let again = |stage, attempt| Action::Start { stage, attempt };
        assert_eq!(
            schedule.apply(Event::Resumed),
            Ok(vec![again(0, 2)]),
            "its secrets first"
        );
        assert_eq!(schedule.apply(Event::Succeeded(0)), Ok(vec![again(2, 2)]));
        // It fails: what is undone needs no secret, so nothing is fetched again.
        let failed = Event::Failed {
            stage: 2,
            retry: false,
        };
        assert_eq!(schedule.apply(failed), Ok(vec![Action::Compensate { stage: 2 }]));

        let cut_off = [&written[..], &[Written::Happened(failed)]].concat();
        let mut schedule = replayed(&chain, &cut_off);
        assert_eq!(
            schedule.apply(Event::Resumed),
            Ok(vec![again(0, 2)]),
            "the undo needs them too"
        );
        assert_eq!(
            schedule.apply(Event::Succeeded(0)),
            Ok(vec![Action::Compensate { stage: 2 }])
        );
    }

    #[test]
    fn a_parked_stage_ends_the_run_and_goes_on_later() {
        let pair = shape(&[&[], &[]], 2);
        let mut schedule = Schedule::new(pair, []);
        schedule.apply(Event::Begin).expect("legal");
        assert_eq!(schedule.apply(Event::Parked(0)), Ok(vec![]));
        assert_eq!(
            schedule.apply(Event::Succeeded(1)),
            Ok(vec![Action::Finish(Ending::Halted)])
        );
        assert_eq!(
            schedule.apply(Event::Resumed),
            Ok(vec![Action::Start { stage: 0, attempt: 2 }])
        );
        assert_eq!(
            schedule.apply(Event::Succeeded(0)),
            Ok(vec![Action::Finish(Ending::Succeeded)])
        );
    }

    #[test]
    fn a_parked_undo_ends_the_run_and_goes_on_later() {
        let three = shape(&[&[], &[0], &[1]], 3);
        let mut guarded = three.clone();
        // `finally` is not reached before the undo has ended.
        guarded.needs[2].clear();
        guarded.finally_from = 2;
        let undone = |stage| Event::Compensated {
            stage,
            succeeded: true,
        };
        let mut written = vec![
            Written::Started(0, 1),
            Written::Happened(Event::Succeeded(0)),
            Written::Started(1, 1),
            Written::Happened(Event::Failed {
                stage: 1,
                retry: false,
            }),
            Written::Happened(undone(1)),
        ];
        let mut live = replayed(&guarded, &written);
        assert_eq!(
            live.apply(Event::Resumed),
            Ok(vec![Action::Compensate { stage: 0 }])
        );
        assert_eq!(
            live.apply(Event::UndoParked(0)),
            Ok(vec![Action::Finish(Ending::Halted)])
        );
        // Read again from its journal it stands where it stood, and it goes on with that undo.
        written.push(Written::Happened(Event::UndoParked(0)));
        for mut schedule in [live, replayed(&guarded, &written)] {
            assert!(schedule.apply(Event::UndoParked(0)).is_err(), "it does not run");
            assert_eq!(
                schedule.apply(Event::Resumed),
                Ok(vec![Action::Compensate { stage: 0 }])
            );
            assert!(schedule.apply(Event::UndoParked(1)).is_err(), "it is undone");
            assert_eq!(schedule.apply(undone(0)), Ok(vec![start(2)]));
            assert_eq!(
                schedule.apply(Event::Succeeded(2)),
                Ok(vec![Action::Finish(Ending::Failed)])
            );
        }
    }

    #[test]
    fn a_finished_run_is_rolled_back_up_to_a_point_of_no_return() {
        let done = [
            Written::Started(0, 1),
            Written::Happened(Event::Succeeded(0)),
            Written::Started(1, 1),
            Written::Happened(Event::Succeeded(1)),
        ];
        let undone = |stage| Event::Compensated {
            stage,
            succeeded: true,
        };
        let chain = shape(&[&[], &[0]], 2);
        let mut schedule = replayed(&chain, &done);
        let asked = schedule.apply(Event::RollBack { past: false });
        assert_eq!(asked, Ok(vec![Action::Compensate { stage: 1 }]));
        assert_eq!(
            schedule.apply(undone(1)),
            Ok(vec![Action::Compensate { stage: 0 }])
        );
        assert_eq!(
            schedule.apply(undone(0)),
            Ok(vec![Action::Finish(Ending::RolledBack)])
        );

        let mut guarded = chain;
        guarded.point_of_no_return[0] = true;
        let mut schedule = replayed(&guarded, &done);
        schedule.apply(Event::RollBack { past: false }).expect("legal");
        assert_eq!(
            schedule.apply(undone(1)),
            Ok(vec![Action::Finish(Ending::NotClean)])
        );
        let mut schedule = replayed(&guarded, &done);
        assert!(schedule.apply(Event::RollBack { past: true }).is_ok());

        let mut learnt = replayed(&shape(&[&[], &[0]], 2), &done);
        learnt.pass_no_return(0);
        let mut said = replayed(&guarded, &done);
        for event in [Event::RollBack { past: false }, undone(1)] {
            assert_eq!(learnt.apply(event), said.apply(event));
        }
    }

    proptest! {
        /// Whatever fails, is skipped or retried: no stage starts before its needs have ended well, and the run ends.
        #[test]
        fn always_ends_and_never_starts_early(
            edges in prop::collection::vec((0usize..12, 0usize..12), 0..30),
            outcomes in prop::collection::vec(0u8..5, 400),
            jobs in 1usize..4,
            stop_at in 0usize..60,
        ) {
            let mut needs = vec![Vec::new(); 12];
            for (from, to) in edges {
                let (low, high) = (from.min(to), from.max(to));
                if low != high && !needs[high].contains(&low) && (high < 10 || low >= 10) {
                    needs[high].push(low);
                }
            }
            let shape = Shape { needs: needs.clone(), finally_from: 10, compensable: vec![true; 12], undoable: vec![true; 12], secrets_of: vec![Vec::new(); 12], point_of_no_return: vec![false; 12], jobs };
            let mut schedule = Schedule::new(shape, []);
            let mut pending: Vec<Action> = schedule.apply(Event::Begin).expect("legal");
            let mut outcomes = outcomes.into_iter().cycle();
            let mut steps = 0;
            while let Some(action) = pending.pop() {
                steps += 1;
                prop_assert!(steps < 2_000, "does not end");
                let outcome = outcomes.next().expect("cycles");
                let event = match action {
                    Action::Finish(_) => {
                        // A pause before another attempt may be pending: a stop has ended it.
                        let only_pauses = pending.iter().all(|action| matches!(action, Action::BackOff { .. }));
                        prop_assert!(only_pauses);
                        break;
                    }
                    Action::Start { stage, attempt } => {
                        for need in &needs[stage] {
                            prop_assert!(matches!(schedule.state(*need), StageState::Succeeded | StageState::Skipped));
                        }
                        match outcome {
                            0 => Event::Failed { stage, retry: attempt < 3 },
                            1 => Event::Skipped(stage),
                            2 => Event::Cancelled(stage),
                            _ => Event::Succeeded(stage),
                        }
                    }
                    Action::BackOff { stage, .. } => Event::BackoffOver(stage),
                    Action::Compensate { stage } => Event::Compensated { stage, succeeded: outcome > 0 },
                };
                pending.extend(schedule.apply(event).expect("legal"));
                if steps == stop_at {
                    pending.extend(schedule.apply(Event::Stop).expect("legal"));
                }
                let running = (0..12).filter(|stage| matches!(schedule.state(*stage), StageState::Running { .. })).count();
                prop_assert!(running <= jobs);
            }
            let ended = (0..12).all(|stage| !matches!(schedule.state(stage), StageState::Running { .. } | StageState::BackingOff { .. } | StageState::Ready));
            prop_assert!(ended);
        }

        /// A run that is killed after any record, again and again, ends; what has succeeded never starts again, and what was
        /// undone is never undone twice.
        #[test]
        fn killed_anywhere_it_still_ends(
            edges in prop::collection::vec((0usize..8, 0usize..8), 0..16),
            outcomes in prop::collection::vec(0u8..6, 200),
            kills in prop::collection::vec(1usize..9, 0..6),
            jobs in 1usize..4,
            stop_at in 0usize..40,
        ) {
            let mut needs = vec![Vec::new(); 8];
            for (from, to) in edges {
                let (low, high) = (from.min(to), from.max(to));
                if low != high && !needs[high].contains(&low) && (high < 7 || low >= 7) {
                    needs[high].push(low);
                }
            }
            let shape = Shape { needs, finally_from: 7, compensable: vec![true; 8], undoable: vec![true; 8],
                secrets_of: vec![Vec::new(); 8], point_of_no_return: vec![false; 8], jobs };
            let mut schedule = Schedule::new(shape.clone(), []);
            let mut written: Vec<Written> = Vec::new();
            let begun = schedule.apply(Event::Begin).expect("legal");
            let mut pending = Vec::new();
            /// The driver writes what it starts before it hears of anything else.
            fn issue(actions: Vec<Action>, written: &mut Vec<Written>, pending: &mut Vec<Action>) {
                for action in actions {
                    if let Action::Start { stage, attempt } = action {
                        written.push(Written::Started(stage, attempt));
                    }
                    pending.push(action);
                }
            }
            let (mut outcomes, mut kills) = (outcomes.into_iter().cycle(), kills.into_iter());
            issue(begun, &mut written, &mut pending);
            let mut until_kill = kills.next();
            let (mut succeeded, mut undone, mut steps) = (BTreeSet::new(), BTreeSet::new(), 0);
            let ending = loop {
                steps += 1;
                prop_assert!(steps < 2_000, "does not end");
                if until_kill == Some(0) {
                    schedule = replayed(&shape, &written);
                    written.push(Written::Happened(Event::Resumed));
                    pending.clear();
                    issue(schedule.apply(Event::Resumed).expect("legal"), &mut written, &mut pending);
                    until_kill = kills.next();
                }
                until_kill = until_kill.map(|left| left - 1);
                let Some(action) = pending.pop() else { prop_assert!(false, "nothing to do"); unreachable!() };
                let event = match action {
                    Action::Finish(ending) => break ending,
                    Action::Start { stage, attempt } => {
                        prop_assert!(!succeeded.contains(&stage), "{stage} starts again");
                        match outcomes.next().expect("cycles") {
                            0 => Event::Failed { stage, retry: attempt < 3 },
                            1 => Event::Skipped(stage),
                            _ => { succeeded.insert(stage); Event::Succeeded(stage) }
                        }
                    }
                    Action::BackOff { stage, .. } => {
                        let actions = schedule.apply(Event::BackoffOver(stage)).expect("legal");
                        issue(actions, &mut written, &mut pending);
                        continue;
                    }
                    Action::Compensate { stage } => {
                        prop_assert!(undone.insert(stage), "{stage} is undone twice");
                        Event::Compensated { stage, succeeded: true }
                    }
                };
                written.push(Written::Happened(event));
                issue(schedule.apply(event).expect("legal"), &mut written, &mut pending);
                if steps == stop_at {
                    written.push(Written::Happened(Event::Stop));
                    issue(schedule.apply(Event::Stop).expect("legal"), &mut written, &mut pending);
                }
            };
            prop_assert!(matches!(ending, Ending::Succeeded | Ending::Failed | Ending::Cancelled), "{ending:?}");
        }
    }
}
