//! The transition table: `(state, event) -> actions`.
//!
//! Forward, a stage starts once all it needs have succeeded; what needs a stage that failed, was skipped by a failure or was
//! cancelled never starts. When nothing runs any more, a failed run is unwound: the failed stages and then the completed ones, in
//! reverse order of completion, up to a point of no return. `finally` runs last, whatever happened.

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
    pub point_of_no_return: Vec<bool>,
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
            shape,
        };
        for (stage, state) in already {
            schedule.settle(stage, state);
        }
        schedule
    }

    pub fn state(&self, stage: usize) -> StageState {
        self.states[stage]
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
                self.backing_off -= 1;
                if self.stopped && self.phase != Phase::Finally {
                    self.settle(stage, StageState::Failed);
                } else {
                    self.states[stage] = StageState::Ready;
                    self.ready.insert(stage);
                }
            }
            Event::Stop => self.stop(),
            Event::Compensated { stage, succeeded } => {
                self.running -= 1;
                self.undo.retain(|one| *one != stage);
                self.not_clean |= !succeeded;
            }
        }
        self.next(&mut actions);
        Ok(actions)
    }

    fn check(&self, event: Event) -> Result<(), Illegal> {
        let stage = match event {
            Event::Begin | Event::Stop => return Ok(()),
            Event::Succeeded(stage)
            | Event::Skipped(stage)
            | Event::Cancelled(stage)
            | Event::BackoffOver(stage)
            | Event::Failed { stage, .. }
            | Event::Compensated { stage, .. } => stage,
        };
        let state = self.states.get(stage).copied();
        let legal = match (event, state) {
            (Event::BackoffOver(_), Some(StageState::BackingOff { .. })) => true,
            (Event::BackoffOver(_), _) => false,
            (Event::Compensated { .. }, Some(_)) => {
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
            if matches!(self.states[stage], StageState::Waiting | StageState::Ready) {
                self.settle(stage, StageState::Unreached);
            }
        }
    }

    fn next(&mut self, actions: &mut Vec<Action>) {
        self.start_ready(actions);
        if self.running > 0 || self.backing_off > 0 {
            return;
        }
        match self.phase {
            Phase::Forward => {
                self.begin_unwinding();
                self.next(actions);
            }
            Phase::Unwinding => match self.undo.last() {
                Some(stage) => {
                    self.running += 1;
                    actions.push(Action::Compensate { stage: *stage });
                }
                None => {
                    self.phase = Phase::Finally;
                    self.open_ready();
                    self.next(actions);
                }
            },
            Phase::Finally => {
                self.phase = Phase::Ended;
                actions.push(Action::Finish(self.ending()));
            }
            Phase::Ended => {}
        }
    }

    fn start_ready(&mut self, actions: &mut Vec<Action>) {
        while self.running < self.shape.jobs.max(1) {
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
        let broken = |state: &StageState| matches!(state, StageState::Failed | StageState::Cancelled);
        if !self.states.iter().any(broken) && !self.stopped {
            return;
        }
        let after = self
            .completed
            .iter()
            .rposition(|stage| self.shape.point_of_no_return[*stage]);
        self.not_clean |= after.is_some();
        let kept = after.map_or(0, |position| position + 1);
        let partly = (0..self.shape.finally_from).filter(|stage| broken(&self.states[*stage]));
        let order = self.completed[kept..].iter().copied().chain(partly);
        self.undo = order.filter(|stage| self.shape.compensable[*stage]).collect();
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
        check(
            one,
            &[failed, Event::Stop, Event::BackoffOver(0)],
            &[Action::Finish(Ending::Failed)],
        );
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
            let shape = Shape { needs: needs.clone(), finally_from: 10, compensable: vec![true; 12], point_of_no_return: vec![false; 12], jobs };
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
                        prop_assert!(pending.is_empty());
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
    }
}
