//! `windlass:stage/events`: log lines and progress, bounded, inert, one way. Always linked, never a grant.
//!
//! Each text loses its secrets before it is cut; whoever receives it hides them once more, with those that were learned since.

use super::{
    State,
    limits::{Limits, Usage},
    words::Words,
};
use crate::{
    event::{LogLevel, RunEvent},
    name::StageName,
    wit::windlass::stage::events,
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use wasmtime::component::{HasSelf, Linker};

/// A longer message is cut: see the WIT.
pub(crate) const LONGEST_MESSAGE: usize = 16 << 10;
/// More fields than a line of a report can show are left out.
const MOST_FIELDS: usize = 32;
/// A field is a label, not a document.
const LONGEST_FIELD: usize = 1 << 10;
/// Ten times a second is as fast as eyes follow.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Where the lines of one attempt go. Clones share the budget.
#[derive(Clone)]
pub struct Log {
    stage: StageName,
    attempt: u32,
    sender: mpsc::Sender<RunEvent>,
    words: Words,
    budget: Arc<Budget>,
}

struct Budget {
    maximum_lines: u64,
    maximum_bytes: u64,
    lines: AtomicU64,
    bytes: AtomicU64,
    dropped_lines: AtomicU64,
    last_progress: Mutex<Option<Instant>>,
}

impl Log {
    pub fn new(
        stage: StageName,
        attempt: u32,
        sender: mpsc::Sender<RunEvent>,
        words: Words,
        limits: &Limits,
    ) -> Self {
        let budget = Budget {
            maximum_lines: limits.log_lines,
            maximum_bytes: limits.log_bytes,
            lines: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dropped_lines: AtomicU64::new(0),
            last_progress: Mutex::new(None),
        };
        Self {
            stage,
            attempt,
            sender,
            words,
            budget: Arc::new(budget),
        }
    }

    /// The event of one line, or nothing when the budget is used up.
    pub(crate) fn line(
        &self,
        level: LogLevel,
        message: &str,
        fields: &[(String, String)],
    ) -> Option<RunEvent> {
        let message = self.words.text(message, LONGEST_MESSAGE);
        let short = |text: &String| self.words.line(text, LONGEST_FIELD);
        let fields: Vec<_> = fields
            .iter()
            .take(MOST_FIELDS)
            .map(|(key, value)| (short(key), short(value)))
            .collect();
        let size: usize = message.len()
            + fields
                .iter()
                .map(|(key, value)| key.len() + value.len())
                .sum::<usize>();
        let budget = &self.budget;
        let lines = budget.lines.fetch_add(1, Ordering::Relaxed);
        let bytes = budget.bytes.fetch_add(size as u64, Ordering::Relaxed);
        if lines >= budget.maximum_lines || bytes + size as u64 > budget.maximum_bytes {
            budget.dropped_lines.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(RunEvent::StageLog {
            stage: self.stage.clone(),
            attempt: self.attempt,
            level,
            message,
            fields,
        })
    }

    /// Sends one line, waiting while the report is behind: a fast guest is slowed down, never the host filled up.
    pub async fn write(&self, level: LogLevel, message: &str, fields: &[(String, String)]) {
        if let Some(event) = self.line(level, message, fields) {
            // Nobody listens any more only when the run is over: then nothing is lost.
            let _ = self.sender.send(event).await;
        }
    }

    pub(crate) fn words(&self) -> &Words {
        &self.words
    }

    pub(crate) fn sender(&self) -> mpsc::Sender<RunEvent> {
        self.sender.clone()
    }

    async fn progress(&self, done: u64, total: Option<u64>, note: Option<String>) {
        if !self.is_due(total == Some(done)) {
            return;
        }
        let event = RunEvent::StageProgress {
            stage: self.stage.clone(),
            attempt: self.attempt,
            done,
            total,
            note: note.map(|note| self.words.line(&note, LONGEST_FIELD)),
        };
        let _ = self.sender.send(event).await;
    }

    /// Whether progress is to be shown now. The end is shown too, unless it follows an end at once.
    fn is_due(&self, is_end: bool) -> bool {
        let now = Instant::now();
        let mut last = self
            .budget
            .last_progress
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let elapsed = last.map(|last| now.duration_since(last));
        let wanted = if is_end {
            PROGRESS_INTERVAL / 10
        } else {
            PROGRESS_INTERVAL
        };
        let due = elapsed.is_none_or(|elapsed| elapsed >= wanted);
        if due {
            *last = Some(now);
        }
        due
    }

    /// What was written and what was dropped.
    pub fn usage(&self, usage: &mut Usage) {
        let lines = self.budget.lines.load(Ordering::Relaxed);
        let dropped = self.budget.dropped_lines.load(Ordering::Relaxed);
        usage.insert("log-lines".into(), lines - dropped);
        if dropped > 0 {
            usage.insert("log-lines-dropped".into(), dropped);
        }
    }
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    events::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl events::Host for State {
    async fn log(
        &mut self,
        level: events::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        let level = match level {
            events::Level::Trace => LogLevel::Trace,
            events::Level::Debug => LogLevel::Debug,
            events::Level::Info => LogLevel::Info,
            events::Level::Warn => LogLevel::Warn,
            events::Level::Error => LogLevel::Error,
        };
        self.log.write(level, &message, &fields).await;
        Ok(())
    }

    async fn progress(
        &mut self,
        done: u64,
        total: Option<u64>,
        note: Option<String>,
    ) -> wasmtime::Result<()> {
        self.log.progress(done, total, note).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: u64, bytes: u64) -> (Log, mpsc::Receiver<RunEvent>) {
        let (sender, receiver) = mpsc::channel(100);
        let limits = Limits {
            log_lines: lines,
            log_bytes: bytes,
            ..Limits::default()
        };
        let stage = StageName::new("build").expect("valid");
        (Log::new(stage, 1, sender, Words::default(), &limits), receiver)
    }

    #[tokio::test]
    async fn past_the_budget_lines_are_counted_and_dropped() {
        let check = async |lines, bytes, sent: u64, dropped: Option<&u64>| {
            let (log, mut receiver) = log(lines, bytes);
            for _ in 0..10 {
                log.write(LogLevel::Info, "0123456789", &[]).await;
            }
            let mut usage = Usage::new();
            log.usage(&mut usage);
            assert_eq!(
                (usage["log-lines"], usage.get("log-lines-dropped")),
                (sent, dropped)
            );
            drop(log);
            let mut received = 0;
            while receiver.recv().await.is_some() {
                received += 1;
            }
            assert_eq!(received, sent);
        };
        check(100, 1_000, 10, None).await;
        check(3, 1_000, 3, Some(&7)).await;
        check(100, 45, 4, Some(&6)).await;
    }

    #[tokio::test]
    async fn messages_are_cut_and_inert() {
        let (log, _receiver) = log(10, 1 << 20);
        let fields = vec![("a\nb".to_string(), "::x".to_string()); 40];
        let Some(RunEvent::StageLog { message, fields, .. }) = log.line(
            LogLevel::Info,
            &format!("::set-env{}", "x".repeat(20_000)),
            &fields,
        ) else {
            panic!("a line within the budget is sent");
        };
        assert!(message.len() <= LONGEST_MESSAGE + 3 && message.starts_with('\u{200b}'));
        assert_eq!(fields.len(), MOST_FIELDS);
        assert_eq!(fields[0], ("a b".to_string(), "\u{200b}::x".to_string()));
    }

    #[tokio::test]
    async fn progress_is_slowed_down() {
        let (log, mut receiver) = log(10, 1 << 20);
        for done in 0..1_000 {
            log.progress(done, Some(2_000), None).await;
        }
        drop(log);
        let mut received = 0;
        while receiver.recv().await.is_some() {
            received += 1;
        }
        assert!((1..=3).contains(&received), "{received}");
    }
}
