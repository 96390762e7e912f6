//! The seam under the journal: whoever keeps these five promises can hold runs. Plain data only; a store knows nothing of
//! records beyond their text.

use crate::{
    failure::{Failure, Turn},
    name::RunId,
};
use std::path::PathBuf;

/// A record as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// From 0, without gaps, within its run.
    pub sequence: u64,
    pub version: u32,
    /// Milliseconds since 1970, by the wall clock: shown to people, never compared.
    pub at_ms: i64,
    pub kind: String,
    pub body: String,
    pub chain: [u8; 32],
}

/// A log line of a stage: kept for `runs logs`, outside the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLine {
    /// The position to go on from; 0 in lines that are not stored yet.
    pub cursor: u64,
    pub at_ms: i64,
    pub stage: String,
    pub attempt: u32,
    pub level: String,
    pub message: String,
    /// A JSON array of pairs.
    pub fields: String,
}

/// What is committed together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub records: Vec<StoredRecord>,
    pub lines: Vec<StoredLine>,
}

/// What a commit demands of the lock that its run holds: the group is still given to this owner, in this acquisition. A store
/// looks in the transaction of the commit itself, so that nothing can come between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    pub group: String,
    /// Grows with every acquisition of the group.
    pub token: u64,
    /// Random, one for each acquisition: a table that was emptied starts its tokens anew.
    pub owner: String,
}

/// Where journals are kept.
pub trait Store: Send {
    /// Returns once the batch is on disk, whole.
    ///
    /// # Errors
    /// Nothing of the batch may be relied on.
    fn append(&mut self, run: &RunId, batch: &Batch) -> Result<(), StoreError>;

    /// All records of a run, by number.
    ///
    /// # Errors
    /// [`StoreError::UnknownRun`], or the store cannot be read.
    fn read_run(&self, run: &RunId) -> Result<Vec<StoredRecord>, StoreError>;

    /// The newest runs, newest first, each with those of its records whose kind is asked for.
    ///
    /// # Errors
    /// The store cannot be read.
    fn list_runs(&self, limit: usize, kinds: &[&str]) -> Result<Vec<(RunId, Vec<StoredRecord>)>, StoreError>;

    /// At most `limit` log lines of a run behind `cursor`, of one stage or of all.
    ///
    /// # Errors
    /// The store cannot be read.
    fn read_lines(
        &self,
        run: &RunId,
        stage: Option<&str>,
        cursor: u64,
        limit: usize,
    ) -> Result<Vec<StoredLine>, StoreError>;
}

/// What can be wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the journal {path} was written by a newer Windlass (format {found}; this one knows {known})", path = path.display())]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("record {sequence} of run {run} was written by a newer Windlass: {problem}")]
    NewerRecord {
        run: RunId,
        sequence: u64,
        problem: String,
    },
    #[error("{path} is not a journal of Windlass", path = path.display())]
    Foreign { path: PathBuf },
    #[error("there is no run {0} in this state directory")]
    UnknownRun(RunId),
    #[error("record {sequence} of run {run} is damaged: {problem}")]
    Damaged {
        run: RunId,
        sequence: u64,
        problem: String,
    },
    #[error("the lock of group `{group}` was lost: another run holds it, or somebody released it")]
    LockLost { group: String },
    #[error("the journal {path} cannot be used: {problem}", path = path.display())]
    Unusable { path: PathBuf, problem: String },
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let (turn, code, help) = match &error {
            StoreError::Newer { .. } | StoreError::NewerRecord { .. } => (
                Turn::Operator,
                "journal.newer",
                "use that newer Windlass, or another directory with --state-dir",
            ),
            StoreError::Foreign { .. } => (
                Turn::Operator,
                "journal.foreign",
                "choose another directory with --state-dir; this file is left as it is",
            ),
            StoreError::UnknownRun(_) => (
                Turn::Operator,
                "journal.unknown-run",
                "`windlass runs list` shows the runs of this state directory",
            ),
            StoreError::Damaged { .. } => (
                Turn::Environment,
                "journal.damaged",
                "something other than Windlass changed the journal: restore it from a copy, or start a new run",
            ),
            StoreError::LockLost { .. } => (
                Turn::Operator,
                "lock.lost",
                "`windlass lock show` says who holds it; nothing more of this run is done or recorded until `windlass resume`",
            ),
            StoreError::Unusable { .. } => (
                Turn::Environment,
                "journal.failed",
                "see that the disk has room and the state directory belongs to you, then `windlass resume`",
            ),
        };
        Failure::new(turn, code, error.to_string()).help(help)
    }
}
