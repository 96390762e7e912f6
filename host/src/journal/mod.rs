//! The durable record of a run: what is about to happen is on disk before it happens, and its outcome after.
//!
//! `record` is what is written, `store` where, `writer` when (one commit for everybody who waits), `replay` what it means when
//! it is read again. Nothing here decides what happens next.

mod convert;
pub mod record;
pub mod replay;
pub mod sqlite;
pub mod store;
pub mod writer;

use crate::{
    event::LogLevel,
    failure::Failure,
    grant::{Decision, DecisionLog},
    name::StageName,
    service::effect::{Begun, EffectLog, Intent},
};
use futures::future::BoxFuture;
use record::Record;
use serde_json::Value as Json;
use std::sync::Arc;

pub use replay::{RunHistory, RunSummary};
pub use sqlite::SqliteStore;
pub use writer::Writer;

/// The last guard before the disk: masks what should not have come this far.
pub type Redact = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// A run's journal, as the run sees it.
pub trait Journal: EffectLog + DecisionLog {
    /// Resolves once the records, and all that were given before them, are on disk. They are handed over by the call itself.
    ///
    /// A failure is final: every later call fails too, and the run has to end.
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<(), Failure>>;

    /// As [`Journal::append`], but this thread itself waits for the disk: for a caller that nothing runs beside, to whom handing
    /// the records over and being woken again would cost as much as the disk.
    ///
    /// # Errors
    /// As those of [`Journal::append`].
    fn append_blocking(&self, records: Vec<Record>) -> Result<(), Failure>;

    /// Goes to disk with the next commit, within a moment.
    fn append_later(&self, record: Record);

    /// A line of a stage's log. As durable as [`Journal::append_later`], and outside the chain.
    fn log(&self, line: LogLine);

    /// Says what became of an effect whose outcome a crash left unknown: its result, or `None` when it did not happen.
    fn settle(&self, key: &str, result: Option<Json>);

    /// Writes what is left and gives the store back to the system.
    fn close(&self) -> BoxFuture<'static, Result<(), Failure>>;
}

/// One log line of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    pub stage: StageName,
    pub attempt: u32,
    pub level: LogLevel,
    pub message: String,
    pub fields: Vec<(String, String)>,
}

/// The journal of `--ephemeral`: keeps nothing, so nothing can be resumed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ephemeral;

impl Journal for Ephemeral {
    fn append(&self, _: Vec<Record>) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn append_blocking(&self, _: Vec<Record>) -> Result<(), Failure> {
        Ok(())
    }

    fn append_later(&self, _: Record) {}

    fn log(&self, _: LogLine) {}

    fn settle(&self, _: &str, _: Option<Json>) {}

    fn close(&self) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl EffectLog for Ephemeral {
    fn recall(&self, _: &str) -> Option<Json> {
        None
    }

    fn begin(&self, _: Intent) -> BoxFuture<'_, Result<Begun, Failure>> {
        Box::pin(std::future::ready(Ok(Begun::Proceed)))
    }

    fn finish(&self, _: String, _: Result<Json, Failure>) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl DecisionLog for Ephemeral {
    fn record(&self, _: &Decision) {}
}
