//! Records → what is known of a run. Pure: reads no clock and no disk, and never panics, whatever the records say.
//!
//! A journal that ends early is no error (that is what a crash leaves); one with a gap, a changed text or an unknown record is.

use super::{
    record::{self, DecodeError, Record, WireInputs, WireReport},
    store::{Store, StoreError, StoredRecord},
};
use crate::{
    event::{PluginIdentity, RunStatus, StageReport, StageStatus},
    failure::Failure,
    name::RunId,
};
use serde::Serialize;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Where the next record of a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub sequence: u64,
    pub chain: [u8; 32],
}

/// An effect of an attempt that was cut off.
#[derive(Clone, Debug, PartialEq)]
pub struct CutOff {
    pub stage: String,
    /// `None`: announced, and whether it happened is not known.
    pub result: Option<Json>,
}

/// Everything that the journal knows of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunHistory {
    pub id: RunId,
    pub pipeline: String,
    pub status: RunStatus,
    pub exit: Option<Exit>,
    pub started_ms: i64,
    pub finished_ms: Option<i64>,
    pub plan_digest: String,
    pub plan: Json,
    pub plugins: BTreeMap<String, String>,
    pub vars: Json,
    /// `None` in a journal that was written before they were kept.
    pub inputs: Option<WireInputs>,
    /// Whether it has not ended, or ended so that `windlass resume` goes on with it.
    pub is_resumable: bool,
    /// Whether a person wanted it undone, and that has not ended.
    pub is_rolling_back: bool,
    pub stages: Vec<StageHistory>,
    /// What happened to the stages, in order: the schedule is made again from it.
    pub steps: Vec<Step>,
    pub position: Position,
}

/// Something that moved the schedule. Stages are numbered as in [`RunHistory::stages`].
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Started {
        stage: usize,
        attempt: u32,
    },
    Ended {
        stage: usize,
        attempt: u32,
        status: StageStatus,
        failure: Option<Failure>,
    },
    Skipped(usize),
    Parked(usize),
    UndoParked(usize),
    Compensated {
        stage: usize,
        succeeded: bool,
    },
    Stopping,
    Resumed,
    RollbackStarted {
        past: bool,
    },
}

/// A person's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageAnswer {
    pub approved: bool,
    pub who: String,
    pub reason: String,
}

/// How a run ended, for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exit {
    pub code: u8,
    pub reason: String,
}

/// Everything that the journal knows of one stage of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct StageHistory {
    pub name: String,
    pub standing: Standing,
    pub attempts: u32,
    pub plugin: Option<PluginIdentity>,
    pub started_ms: Option<i64>,
    pub finished_ms: Option<i64>,
    /// Of the last attempt that ended.
    pub report: Option<StageReport>,
    pub skipped_because: Option<String>,
    /// Of all attempts, in the order of their intents.
    pub effects: Vec<EffectHistory>,
    pub compensated: Option<CompensationHistory>,
    /// An undo was begun, and its end is not known.
    pub is_compensating: bool,
    /// Why it waits for a person, and since when, where it does.
    pub parked: Option<(Failure, i64)>,
    /// The last answer.
    pub answer: Option<StageAnswer>,
}

/// Where a stage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Pending,
    /// Started and not ended, as far as the journal knows.
    Running,
    Ended(StageStatus),
}

/// A change outside the sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectHistory {
    pub key: String,
    pub function: String,
    pub arguments: Json,
    pub leaves: crate::capability::Leaves,
    pub state: EffectState,
    /// True for an effect of the stage's undo.
    pub is_undo: bool,
    /// True once its attempt has ended.
    settled: bool,
}

/// What became of an effect.
#[derive(Clone, Debug, PartialEq)]
pub enum EffectState {
    Unknown,
    Done(Json),
    Failed(Failure),
}

/// How undoing a stage went.
#[derive(Clone, Debug, PartialEq)]
pub struct CompensationHistory {
    pub succeeded: bool,
    pub summary: String,
    pub failure: Option<Failure>,
}

/// One line of `runs list`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunSummary {
    pub id: RunId,
    pub pipeline: String,
    pub status: RunStatus,
    pub exit: Option<Exit>,
    pub started: String,
    pub finished: Option<String>,
}

/// The newest runs, newest first.
///
/// # Errors
/// The store cannot be read, or a record of one of the runs is damaged.
pub fn list_runs(store: &dyn Store, limit: usize) -> Result<Vec<RunSummary>, StoreError> {
    const KINDS: &[&str] = &["run-started", "run-resumed", "rollback-started", "run-finished"];
    let runs = store.list_runs(limit, KINDS)?;
    let summary = |(run, records): (RunId, Vec<StoredRecord>)| Ok(fold(run, &records)?.summary());
    runs.into_iter().map(summary).collect()
}

/// What is known of a run.
///
/// # Errors
/// The run is unknown, the store cannot be read, or a record is damaged.
pub fn show_run(store: &dyn Store, run: &RunId) -> Result<RunHistory, StoreError> {
    replay(run, &store.read_run(run)?)
}

/// All records of a run → its history.
///
/// # Errors
/// [`StoreError::Damaged`], [`StoreError::NewerRecord`].
pub fn replay(run: &RunId, records: &[StoredRecord]) -> Result<RunHistory, StoreError> {
    verify(run, records)?;
    let mut history = fold(run.clone(), records)?;
    if let Some(last) = records.last() {
        history.position = Position {
            sequence: last.sequence + 1,
            chain: last.chain,
        };
    }
    Ok(history)
}

/// Whether the records are those that were written: numbered without a gap, each bound to the one before it.
///
/// # Errors
/// [`StoreError::Damaged`] at the first that is not.
pub fn verify(run: &RunId, records: &[StoredRecord]) -> Result<(), StoreError> {
    let mut position = Position::start();
    for stored in records {
        if stored.sequence != position.sequence {
            return Err(damaged(run, position.sequence, "it is missing"));
        }
        // Before its chain, of which only that version knows how it is made.
        record::check_version(stored.version)
            .map_err(|problem| undecodable(run, stored.sequence, &problem))?;
        let chain = record::chain(&position.chain, stored);
        if chain != stored.chain {
            return Err(damaged(
                run,
                stored.sequence,
                "it was changed after it was written",
            ));
        }
        position = Position {
            sequence: stored.sequence + 1,
            chain,
        };
    }
    Ok(())
}

fn fold(run: RunId, records: &[StoredRecord]) -> Result<RunHistory, StoreError> {
    let mut folding: Option<Folding> = None;
    for stored in records {
        let record = Record::decode(stored.version, &stored.body)
            .map_err(|problem| undecodable(&run, stored.sequence, &problem))?;
        if record.kind() != stored.kind {
            // The chain of version 1 does not cover it.
            return Err(damaged(&run, stored.sequence, "its kind is not that of its text"));
        }
        match (&mut folding, record) {
            (Some(folding), record) => folding.apply(record, stored.at_ms),
            (none, started @ Record::RunStarted { .. }) => {
                *none = Folding::begin(run.clone(), started, stored.at_ms)
            }
            (None, _) => return Err(damaged(&run, stored.sequence, "the run's start is not before it")),
        }
    }
    folding
        .map(|folding| folding.history)
        .ok_or_else(|| damaged(&run, 0, "the run's start is missing"))
}

/// A history in the making, with an index of its effects.
struct Folding {
    history: RunHistory,
    stages: HashMap<String, usize>,
    /// Key to stage and effect. An effect that is done again after a retry has the key of its last intent.
    effects: HashMap<String, (usize, usize)>,
}

impl Folding {
    fn begin(id: RunId, record: Record, at_ms: i64) -> Option<Self> {
        let Record::RunStarted {
            pipeline,
            plan_digest,
            plan,
            stages,
            plugins,
            vars,
            inputs,
        } = record
        else {
            return None;
        };
        let history = RunHistory {
            id,
            pipeline,
            status: RunStatus::Running,
            exit: None,
            started_ms: at_ms,
            finished_ms: None,
            plan_digest,
            plan,
            plugins,
            vars,
            inputs,
            is_resumable: true,
            is_rolling_back: false,
            stages: Vec::new(),
            steps: Vec::new(),
            position: Position::start(),
        };
        let mut folding = Self {
            history,
            stages: HashMap::new(),
            effects: HashMap::new(),
        };
        for name in stages {
            folding.index_of(name);
        }
        Some(folding)
    }

    fn index_of(&mut self, name: String) -> usize {
        if let Some(index) = self.stages.get(&name) {
            return *index;
        }
        let index = self.history.stages.len();
        self.stages.insert(name.clone(), index);
        self.history.stages.push(StageHistory::pending(name));
        index
    }

    fn stage(&mut self, name: String) -> &mut StageHistory {
        let index = self.index_of(name);
        &mut self.history.stages[index]
    }

    fn apply(&mut self, record: Record, at_ms: i64) {
        match record {
            // A second start cannot be written; the first one counts.
            Record::RunStarted { .. } | Record::Decision { .. } => {}
            Record::RunResumed {} => self.run_goes_on(Step::Resumed),
            Record::RollbackStarted { past } => {
                self.history.is_rolling_back = true;
                self.run_goes_on(Step::RollbackStarted { past });
            }
            Record::RunStopping { .. } => self.history.steps.push(Step::Stopping),
            Record::StageStarted {
                stage,
                attempt,
                plugin,
                reason: _,
            } => self.start(stage, attempt, plugin.into(), at_ms),
            Record::StageFinished {
                stage,
                attempt,
                report,
            } => self.finish(stage, attempt, report, at_ms),
            Record::StageSkipped { stage, reason } => {
                let number = self.index_of(stage);
                let stage = &mut self.history.stages[number];
                stage.standing = Standing::Ended(StageStatus::Skipped);
                stage.skipped_because = Some(reason);
                self.history.steps.push(Step::Skipped(number));
            }
            Record::StageParked { stage, failure } => {
                let number = self.index_of(stage);
                if self.history.stages[number].is_compensating {
                    self.history.steps.push(Step::UndoParked(number));
                } else {
                    self.history.stages[number].parked = Some((failure.into(), at_ms));
                    self.history.steps.push(Step::Parked(number));
                }
            }
            Record::StageAnswered {
                stage,
                approved,
                who,
                reason,
            } => {
                self.stage(stage).answer = Some(StageAnswer {
                    approved,
                    who,
                    reason,
                })
            }
            Record::CompensationStarted { stage } => self.stage(stage).is_compensating = true,
            Record::StageCompensated {
                stage,
                succeeded,
                summary,
                failure,
            } => {
                let compensation = CompensationHistory {
                    succeeded,
                    summary,
                    failure: failure.map(Failure::from),
                };
                self.compensated(stage, compensation);
            }
            intent @ Record::EffectIntent { .. } => self.intend(intent),
            Record::EffectOutcome { key, result, failure } => {
                self.settle(&key, result, failure.map(Failure::from))
            }
            Record::RunFinished {
                status,
                exit,
                reason,
                resumable,
            } => {
                self.history.status = status.into();
                self.history.exit = Some(Exit { code: exit, reason });
                self.history.finished_ms = Some(at_ms);
                self.history.is_resumable = resumable;
                self.history.is_rolling_back &= resumable;
            }
        }
    }

    fn start(&mut self, stage: String, attempt: u32, plugin: PluginIdentity, at_ms: i64) {
        let number = self.index_of(stage);
        let stage = &mut self.history.stages[number];
        stage.standing = Standing::Running;
        stage.attempts = stage.attempts.max(attempt);
        stage.plugin = Some(plugin);
        stage.started_ms.get_or_insert(at_ms);
        stage.finished_ms = None;
        stage.parked = None;
        self.history.steps.push(Step::Started {
            stage: number,
            attempt,
        });
    }

    fn finish(&mut self, stage: String, attempt: u32, report: WireReport, at_ms: i64) {
        let number = self.index_of(stage);
        let stage = &mut self.history.stages[number];
        stage.finish(report, at_ms);
        let (status, failure) = match &stage.report {
            Some(report) => (report.status, report.failure.clone()),
            None => (StageStatus::Failed, None),
        };
        self.history.steps.push(Step::Ended {
            stage: number,
            attempt,
            status,
            failure,
        });
    }

    fn compensated(&mut self, stage: String, compensation: CompensationHistory) {
        let number = self.index_of(stage);
        let stage = &mut self.history.stages[number];
        stage.is_compensating = false;
        let succeeded = compensation.succeeded;
        for effect in &mut stage.effects {
            // Of an undo that failed, this may have happened: the next one finds out before it does anything.
            let is_open = !succeeded && effect.is_undo && effect.state == EffectState::Unknown;
            effect.settled = !is_open;
        }
        stage.compensated = Some(compensation);
        self.history.steps.push(Step::Compensated {
            stage: number,
            succeeded,
        });
    }

    fn run_goes_on(&mut self, step: Step) {
        self.history.status = RunStatus::Running;
        self.history.exit = None;
        self.history.finished_ms = None;
        self.history.is_resumable = true;
        self.history.steps.push(step);
    }

    fn intend(&mut self, intent: Record) {
        let Record::EffectIntent {
            key,
            stage,
            function,
            arguments,
            leaves,
        } = intent
        else {
            return;
        };
        let index = self.index_of(stage);
        let is_undo = self.history.stages[index].is_compensating;
        let effects = &mut self.history.stages[index].effects;
        self.effects.insert(key.clone(), (index, effects.len()));
        effects.push(EffectHistory {
            key,
            function,
            arguments,
            leaves: leaves.into(),
            state: EffectState::Unknown,
            is_undo,
            settled: false,
        });
    }

    fn settle(&mut self, key: &str, result: Option<Json>, failure: Option<Failure>) {
        // An outcome without its intent cannot be written; there is nothing it could belong to.
        let Some((stage, effect)) = self.effects.get(key) else {
            return;
        };
        let place = self
            .history
            .stages
            .get_mut(*stage)
            .and_then(|stage| stage.effects.get_mut(*effect));
        if let Some(place) = place {
            place.state = match failure {
                Some(failure) if failure.may_have_happened() => EffectState::Unknown,
                Some(failure) => EffectState::Failed(failure),
                None => EffectState::Done(result.unwrap_or(Json::Null)),
            };
        }
    }
}

impl StageHistory {
    fn pending(name: String) -> Self {
        Self {
            name,
            standing: Standing::Pending,
            attempts: 0,
            plugin: None,
            started_ms: None,
            finished_ms: None,
            report: None,
            skipped_because: None,
            effects: Vec::new(),
            compensated: None,
            is_compensating: false,
            parked: None,
            answer: None,
        }
    }

    fn finish(&mut self, report: WireReport, at_ms: i64) {
        let report = StageReport::from(report);
        self.standing = Standing::Ended(report.status);
        self.finished_ms = Some(at_ms);
        self.report = Some(report);
        self.effects.iter_mut().for_each(|effect| effect.settled = true);
    }

    /// Whether an attempt, or the stage's undo, began and its end is not known.
    pub fn is_cut_off(&self) -> bool {
        self.standing == Standing::Running || self.is_compensating
    }

    /// Effects of an attempt or of an undo whose end is not known, and those of undos that failed of which nobody knows.
    pub fn cut_off_effects(&self) -> impl Iterator<Item = &EffectHistory> {
        let is_cut_off = self.is_cut_off();
        let is_open = move |effect: &&EffectHistory| !effect.settled && (is_cut_off || effect.is_undo);
        self.effects.iter().filter(is_open)
    }

    fn to_json(&self) -> Json {
        let status = match self.standing {
            Standing::Pending => json!("pending"),
            Standing::Running => json!("running"),
            Standing::Ended(status) => json!(status),
        };
        let plugin = self.plugin.as_ref();
        let outputs = self.report.as_ref().map(|report| &report.outputs);
        json!({
            "name": self.name,
            "status": status,
            "attempts": self.attempts,
            "plugin": plugin.map(|plugin| json!({ "name": plugin.name, "digest": plugin.digest })),
            "outputs": outputs.map_or_else(|| json!({}), |outputs| json!(outputs)),
            "started": self.started_ms.map(timestamp),
            "finished": self.finished_ms.map(timestamp),
        })
    }
}

impl RunHistory {
    /// `runs show --format json`, version 1.
    pub fn to_json(&self) -> Json {
        json!({
            "id": self.id,
            "pipeline": self.pipeline,
            "status": self.status,
            "exit": self.exit,
            "started": timestamp(self.started_ms),
            "finished": self.finished_ms.map(timestamp),
            "stages": self.stages.iter().map(StageHistory::to_json).collect::<Json>(),
        })
    }

    pub fn summary(&self) -> RunSummary {
        RunSummary {
            id: self.id.clone(),
            pipeline: self.pipeline.clone(),
            status: self.status,
            exit: self.exit.clone(),
            started: timestamp(self.started_ms),
            finished: self.finished_ms.map(timestamp),
        }
    }

    /// Whether its undo has begun and not ended: `windlass rollback` goes on with it.
    pub fn is_being_undone(&self) -> bool {
        let is_begun = self.stages.iter().any(|stage| stage.is_compensating);
        self.is_resumable && (is_begun || self.is_rolling_back)
    }

    /// The stages that have ended, the last first: by the order of the records, whatever the clock said.
    pub fn ended_last_first(&self) -> Vec<usize> {
        let mut seen = HashSet::new();
        let ended = self.steps.iter().rev().filter_map(|step| match step {
            Step::Ended { stage, .. } => Some(*stage),
            _ => None,
        });
        ended.filter(|stage| seen.insert(*stage)).collect()
    }

    /// The effects whose attempts were cut off: what a resumed run does not do again. Those that failed are done again.
    pub fn cut_off(&self) -> HashMap<String, CutOff> {
        let mut found = HashMap::new();
        for stage in &self.stages {
            for effect in stage.cut_off_effects() {
                let result = match &effect.state {
                    EffectState::Done(result) => Some(result.clone()),
                    EffectState::Unknown => None,
                    EffectState::Failed(_) => {
                        found.remove(&effect.key);
                        continue;
                    }
                };
                let stage = stage.name.clone();
                found.insert(effect.key.clone(), CutOff { stage, result });
            }
        }
        found
    }
}

impl Position {
    /// Before the first record.
    pub fn start() -> Self {
        Self {
            sequence: 0,
            chain: record::CHAIN_START,
        }
    }
}

/// RFC 3339 in UTC, with milliseconds where there are any.
pub fn timestamp(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

fn undecodable(run: &RunId, sequence: u64, problem: &DecodeError) -> StoreError {
    match problem {
        DecodeError::Newer { .. } => StoreError::NewerRecord {
            run: run.clone(),
            sequence,
            problem: problem.to_string(),
        },
        DecodeError::Garbled | DecodeError::Unversioned { .. } => damaged(run, sequence, problem.to_string()),
    }
}

fn damaged(run: &RunId, sequence: u64, problem: impl Into<String>) -> StoreError {
    StoreError::Damaged {
        run: run.clone(),
        sequence,
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::{
        VERSION, WireFailure, WireLeaves, WirePlugin, WireRunStatus, WireStageStatus, WireTurn,
    };
    use proptest::prelude::*;

    fn run() -> RunId {
        RunId::new(1_700_000_000_000, [0; 10])
    }

    fn stored(records: &[Record]) -> Vec<StoredRecord> {
        stored_as(records, &|_| VERSION)
    }

    /// `version` is that of the record with this number.
    fn stored_as(records: &[Record], version: &dyn Fn(u64) -> u32) -> Vec<StoredRecord> {
        let mut before = record::CHAIN_START;
        let mut all = Vec::new();
        for (record, sequence) in records.iter().zip(0..) {
            let mut stored = StoredRecord {
                sequence,
                version: version(sequence),
                at_ms: 1_700_000_000_000 + sequence.cast_signed(),
                kind: record.kind().into(),
                body: record.encode(),
                chain: before,
            };
            stored.chain = record::chain(&before, &stored);
            before = stored.chain;
            all.push(stored);
        }
        all
    }

    fn started() -> Record {
        Record::RunStarted {
            pipeline: "shop".into(),
            plan_digest: "sha256:11".into(),
            plan: json!({}),
            stages: vec!["a".into(), "b".into()],
            plugins: BTreeMap::new(),
            vars: json!({}),
            inputs: None,
        }
    }

    fn stage_started(attempt: u32) -> Record {
        Record::StageStarted {
            stage: "a".into(),
            attempt,
            plugin: WirePlugin {
                name: "build".into(),
                digest: "sha256:22".into(),
            },
            reason: None,
        }
    }

    fn finished(status: WireStageStatus) -> Record {
        Record::StageFinished {
            stage: "a".into(),
            attempt: 1,
            report: WireReport {
                status,
                changed: true,
                summary: "built".into(),
                outputs: [("image".to_string(), json!("x:1"))].into(),
                failure: None,
                duration_ms: 4,
                usage: BTreeMap::new(),
            },
        }
    }

    fn intent(key: &str) -> Record {
        Record::EffectIntent {
            key: key.into(),
            stage: "a".into(),
            function: "flow.copy".into(),
            arguments: json!({ "to": "x" }),
            leaves: WireLeaves::State,
        }
    }

    fn outcome(key: &str, failed: bool) -> Record {
        let failure = WireFailure {
            code: "storage.failed".into(),
            message: "no room".into(),
            turn: WireTurn::Environment,
            retryable: false,
            help: None,
            details: None,
            stack: Vec::new(),
        };
        Record::EffectOutcome {
            key: key.into(),
            result: (!failed).then(|| json!(1)),
            failure: failed.then_some(failure),
        }
    }

    #[test]
    fn the_shape_of_runs_show() {
        let records = [
            started(),
            stage_started(1),
            finished(WireStageStatus::Succeeded),
            Record::StageSkipped {
                stage: "b".into(),
                reason: "`if` is false".into(),
            },
            Record::RunFinished {
                status: WireRunStatus::Succeeded,
                exit: 0,
                reason: "succeeded".into(),
                resumable: false,
            },
        ];
        let history = replay(&run(), &stored(&records)).expect("whole");
        let expected = json!({
            "id": run(), "pipeline": "shop", "status": "succeeded", "exit": { "code": 0, "reason": "succeeded" },
            "started": "2023-11-14T22:13:20Z", "finished": "2023-11-14T22:13:20.004Z",
            "stages": [
                { "name": "a", "status": "succeeded", "attempts": 1,
                  "plugin": { "name": "build", "digest": "sha256:22" }, "outputs": { "image": "x:1" },
                  "started": "2023-11-14T22:13:20.001Z", "finished": "2023-11-14T22:13:20.002Z" },
                { "name": "b", "status": "skipped", "attempts": 0, "plugin": null, "outputs": {},
                  "started": null, "finished": null },
            ],
        });
        assert_eq!(history.to_json(), expected);
        let unfinished = replay(&run(), &stored(&records[..2]))
            .expect("a crash leaves this")
            .to_json();
        assert_eq!(
            (&unfinished["status"], &unfinished["exit"]),
            (&json!("running"), &Json::Null)
        );
        assert_eq!(unfinished["stages"][0]["status"], "running");
    }

    #[test]
    fn only_what_a_crash_cut_off_is_not_done_again() {
        let check = |records: Vec<Record>, expected: &[(&str, Option<Json>)]| {
            let mut all = vec![started()];
            all.extend(records);
            let history = replay(&run(), &stored(&all)).expect("whole");
            let mut found: Vec<(String, Option<Json>)> = history
                .cut_off()
                .into_iter()
                .map(|(key, entry)| (key, entry.result))
                .collect();
            found.sort_by(|left, right| left.0.cmp(&right.0));
            let expected: Vec<(String, Option<Json>)> = expected
                .iter()
                .map(|(key, result)| (key.to_string(), result.clone()))
                .collect();
            assert_eq!(found, expected);
        };
        let failed = || finished(WireStageStatus::Failed);
        check(
            vec![stage_started(1), intent("k"), outcome("k", false)],
            &[("k", Some(json!(1)))],
        );
        check(vec![stage_started(1), intent("k")], &[("k", None)]);
        check(vec![stage_started(1), intent("k"), outcome("k", true)], &[]);
        check(
            vec![stage_started(1), intent("k"), outcome("k", false), failed()],
            &[],
        );
        let retried = vec![
            stage_started(1),
            intent("k"),
            outcome("k", false),
            failed(),
            stage_started(2),
        ];
        check(retried, &[]);
        let twice = vec![
            stage_started(1),
            intent("j"),
            outcome("j", false),
            stage_started(2),
            intent("k"),
        ];
        check(twice, &[("j", Some(json!(1))), ("k", None)]);
    }

    #[test]
    fn damage_is_found_and_named() {
        let good = stored(&[started(), stage_started(1), finished(WireStageStatus::Succeeded)]);
        let check = |change: &dyn Fn(&mut Vec<StoredRecord>), expected: &str| {
            let mut records = good.clone();
            change(&mut records);
            let said = replay(&run(), &records).expect_err("damaged").to_string();
            assert!(said.ends_with(expected), "{said}");
        };
        check(
            &|records| records[1].body.push(' '),
            "is damaged: it was changed after it was written",
        );
        check(
            &|records| records[1].at_ms += 1,
            "is damaged: it was changed after it was written",
        );
        check(&|records| drop(records.remove(1)), "is damaged: it is missing");
        check(&|records| records.swap(0, 1), "is damaged: it is missing");
        check(
            &|records| records.clear(),
            "is damaged: the run's start is missing",
        );
        check(
            &|records| records[2].version = 9,
            "it has version 9; this Windlass knows up to 2",
        );
        check(
            &|records| records[2].version = 0,
            "is damaged: it has version 0, which there never was",
        );
        for change in [
            |record: &mut StoredRecord| record.version = 1,
            |record: &mut StoredRecord| record.kind = "decision".into(),
        ] {
            check(
                &|records| change(&mut records[1]),
                "is damaged: it was changed after it was written",
            );
        }
    }

    #[test]
    fn a_journal_that_an_older_windlass_began_is_read_and_damage_in_it_is_found() {
        let records = [started(), stage_started(1), finished(WireStageStatus::Succeeded)];
        let mixed = stored_as(&records, &|sequence| if sequence < 2 { 1 } else { 2 });
        let history = replay(&run(), &mixed).expect("both versions are known");
        assert_eq!(history.position.chain, mixed[2].chain);
        let check = |change: &dyn Fn(&mut StoredRecord), expected: &str| {
            let mut records = mixed.clone();
            change(&mut records[1]);
            let said = replay(&run(), &records).expect_err("damaged").to_string();
            assert!(said.ends_with(expected), "{said}");
        };
        check(
            &|record| record.version = 2,
            "it was changed after it was written",
        );
        check(&|record| record.version = 0, "which there never was");
        check(
            &|record| record.kind = "decision".into(),
            "its kind is not that of its text",
        );
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let name = "[abc]";
        prop_oneof![
            Just(started()),
            Just(Record::RunResumed {}),
            (1..4u32).prop_map(stage_started),
            Just(finished(WireStageStatus::Failed)),
            Just(finished(WireStageStatus::Succeeded)),
            name.prop_map(|key| intent(&key)),
            (name, any::<bool>()).prop_map(|(key, failed)| outcome(&key, failed)),
            name.prop_map(|stage| Record::StageSkipped {
                stage,
                reason: String::new()
            }),
            (name, any::<bool>()).prop_map(|(stage, succeeded)| Record::StageCompensated {
                stage,
                succeeded,
                summary: String::new(),
                failure: None,
            }),
            Just(Record::RunFinished {
                status: WireRunStatus::Failed,
                exit: 1,
                reason: "stage-failed".into(),
                resumable: false,
            }),
        ]
    }

    proptest! {
        #[test]
        fn every_prefix_replays(rest in proptest::collection::vec(any_record(), 0..40)) {
            let mut records = vec![started()];
            records.extend(rest);
            let all = stored(&records);
            for length in 1..=all.len() {
                let history = replay(&run(), &all[..length]).expect("a prefix is what a crash leaves");
                prop_assert_eq!(history.position.sequence, length as u64);
                let unsettled = history.stages.iter().any(StageHistory::is_cut_off);
                prop_assert!(unsettled || history.cut_off().is_empty());
            }
        }

        #[test]
        fn a_flipped_byte_is_an_error(at in 0..3usize, byte in 0..60usize) {
            let mut all = stored(&[started(), stage_started(1), finished(WireStageStatus::Failed)]);
            let mut body = std::mem::take(&mut all[at].body).into_bytes();
            body[byte] ^= 1;
            all[at].body = String::from_utf8_lossy(&body).into_owned();
            prop_assert!(replay(&run(), &all).is_err());
        }
    }
}
