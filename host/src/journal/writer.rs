//! Everybody lays records into the inbox of a run and waits. All who wait while a commit is under way share the next one, so
//! parallel stages cost one sync together. A thread makes the commits; a caller that nothing runs beside makes its own, which
//! spares both a hand-over. Refuses to go on after a commit that failed: what is on disk is then unknown, and trying again could
//! report success for data that the kernel has already dropped.

use super::{
    Journal, LogLine, Redact,
    record::{self, Record},
    replay::{CutOff, Position},
    store::{Batch, Store, StoredLine, StoredRecord},
};
use crate::{
    event::LogLevel,
    failure::{Failure, Turn},
    grant::{Decision, DecisionLog},
    name::RunId,
    service::effect::{Begun, EffectLog, Intent},
};
use futures::future::BoxFuture;
use serde_json::Value as Json;
use std::{
    collections::HashMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// How long records and lines that nobody waits for may stay in memory: what `runs logs -f` lags behind.
const FLUSH_AFTER: Duration = Duration::from_millis(200);

/// A commit is made once this many records and lines are pending, waited for or not: bounds memory and transactions.
const PENDING: usize = 4_096;

/// The journal of one run that is being written.
pub struct Writer {
    desk: Arc<Desk>,
    redact: Redact,
    /// Outcomes of effects from attempts that a crash cut off, by key.
    cut_off: Mutex<HashMap<String, CutOff>>,
}

type Done = oneshot::Sender<Result<(), Failure>>;

/// What those who write share with the thread.
struct Desk {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    /// Whoever has it takes the inbox: what was laid there first is written first.
    owner: Mutex<Owner>,
}

/// What has not been taken to a commit yet.
#[derive(Default)]
struct Inbox {
    records: Vec<Encoded>,
    lines: Vec<StoredLine>,
    waiting: Vec<Done>,
    /// When the oldest of them came.
    since: Option<Instant>,
    /// Told when all is on disk and the store is given back.
    closing: Option<Done>,
    /// Nothing is taken any more.
    is_closed: bool,
}

struct Encoded {
    kind: &'static str,
    body: String,
    at_ms: i64,
}

impl Writer {
    /// Goes on behind `position` in `run`: [`Position::start`] for a new run, else that of its history. `cut_off` comes from the
    /// history too; see [`super::RunHistory::cut_off`].
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        store: impl Store + 'static,
        run: RunId,
        redact: Redact,
        position: Position,
        cut_off: HashMap<String, CutOff>,
    ) -> io::Result<Self> {
        let desk = Arc::new(Desk {
            inbox: Mutex::default(),
            arrived: Condvar::new(),
            owner: Mutex::new(Owner {
                store: Some(Box::new(store)),
                run,
                position,
                failed: None,
            }),
        });
        let clerk = Clerk(desk.clone());
        thread::Builder::new()
            .name("journal".into())
            .spawn(move || clerk.serve())?;
        Ok(Self {
            desk,
            redact,
            cut_off: Mutex::new(cut_off),
        })
    }

    fn encode(&self, mut record: Record) -> Encoded {
        if let Record::StageFinished { stage, .. } = &record {
            // A new attempt after this one is a retry: it does its effects itself.
            let mut cut_off = self.cut_off.lock().unwrap_or_else(PoisonError::into_inner);
            cut_off.retain(|_, entry| entry.stage != *stage);
        }
        record.for_each_text(&mut |text| *text = (self.redact)(text));
        Encoded {
            kind: record.kind(),
            body: record.encode(),
            at_ms: now_ms(),
        }
    }

    fn encode_all(&self, records: Vec<Record>) -> Vec<Encoded> {
        records.into_iter().map(|record| self.encode(record)).collect()
    }

    /// Lays something into the inbox together with who waits for it.
    fn hand_over(&self, lay: impl FnOnce(&mut Inbox, Done)) -> BoxFuture<'static, Result<(), Failure>> {
        let (done, wait) = oneshot::channel();
        // What a closed inbox does not take is dropped, and `done` with it: kept, it would be waited for forever.
        self.desk.lay(|inbox| lay(inbox, done));
        Box::pin(async move { wait.await.unwrap_or_else(|_| Err(closed())) })
    }

    fn begun_before(&self, intent: &Intent) -> Option<Result<Begun, Failure>> {
        if let Some(result) = self.recall(&intent.key) {
            return Some(Ok(Begun::AlreadyDone(result)));
        }
        let cut_off = self.cut_off.lock().unwrap_or_else(PoisonError::into_inner);
        cut_off
            .contains_key(&intent.key)
            .then(|| Err(unknown_outcome(intent)))
    }
}

impl Journal for Writer {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<(), Failure>> {
        let encoded = self.encode_all(records);
        self.hand_over(|inbox, done| {
            inbox.records.extend(encoded);
            inbox.waiting.push(done);
        })
    }

    fn append_blocking(&self, records: Vec<Record>) -> Result<(), Failure> {
        let encoded = self.encode_all(records);
        let mut owner = self.desk.owner.lock().map_err(|_| closed())?;
        let mut inbox = self.desk.take();
        inbox.records.extend(encoded);
        owner.commit(inbox)
    }

    fn append_later(&self, record: Record) {
        // A closed inbox does not take it: whoever waits for a commit hears of that.
        let encoded = self.encode(record);
        self.desk.lay(|inbox| inbox.records.push(encoded));
    }

    fn log(&self, line: LogLine) {
        let fields = line
            .fields
            .iter()
            .map(|(key, value)| ((self.redact)(key), (self.redact)(value)));
        let line = StoredLine {
            cursor: 0,
            at_ms: now_ms(),
            stage: line.stage.to_string(),
            attempt: line.attempt,
            level: level_name(line.level).into(),
            message: (self.redact)(&line.message),
            fields: serde_json::json!(fields.collect::<Vec<_>>()).to_string(),
        };
        self.desk.lay(|inbox| inbox.lines.push(line));
    }

    fn settle(&self, key: &str, result: Option<Json>) {
        let outcome = result.clone().ok_or_else(|| {
            let message = "after the crash it was found not to have happened";
            Failure::new(Turn::Windlass, "effect.not-done", message)
        });
        self.append_later(Record::outcome(key.into(), outcome));
        let mut cut_off = self.cut_off.lock().unwrap_or_else(PoisonError::into_inner);
        match (result, cut_off.get_mut(key)) {
            (Some(result), Some(entry)) => entry.result = Some(result),
            _ => drop(cut_off.remove(key)),
        }
    }

    fn close(&self) -> BoxFuture<'static, Result<(), Failure>> {
        self.hand_over(|inbox, done| {
            inbox.closing = Some(done);
            inbox.is_closed = true;
        })
    }
}

impl EffectLog for Writer {
    fn recall(&self, key: &str) -> Option<Json> {
        let mut cut_off = self.cut_off.lock().unwrap_or_else(PoisonError::into_inner);
        cut_off.get(key)?.result.as_ref()?;
        cut_off.remove(key)?.result
    }

    fn begin(&self, intent: Intent) -> BoxFuture<'_, Result<Begun, Failure>> {
        if let Some(answer) = self.begun_before(&intent) {
            return Box::pin(std::future::ready(answer));
        }
        let durable = self.append(vec![intent.into()]);
        Box::pin(async move { durable.await.map(|()| Begun::Proceed) })
    }

    fn finish(&self, key: String, outcome: Result<Json, Failure>) -> BoxFuture<'_, Result<(), Failure>> {
        self.append_later(Record::outcome(key, outcome));
        Box::pin(std::future::ready(Ok(())))
    }
}

impl DecisionLog for Writer {
    fn record(&self, decision: &Decision) {
        self.append_later(decision.into());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.desk.lay(|inbox| inbox.is_closed = true);
    }
}

impl Desk {
    fn lay(&self, lay: impl FnOnce(&mut Inbox)) {
        let mut inbox = locked(&self.inbox);
        if inbox.is_closed {
            return;
        }
        let was_empty = inbox.since.is_none();
        lay(&mut inbox);
        inbox.since.get_or_insert_with(Instant::now);
        if was_empty || inbox.is_due() {
            self.arrived.notify_one();
        }
    }

    fn take(&self) -> Inbox {
        let mut inbox = locked(&self.inbox);
        let is_closed = inbox.is_closed;
        std::mem::replace(
            &mut *inbox,
            Inbox {
                is_closed,
                ..Inbox::default()
            },
        )
    }

    /// Returns when a commit is due.
    fn wait(&self) {
        let mut inbox = locked(&self.inbox);
        while !inbox.is_due() {
            inbox = match inbox.since {
                None => self.arrived.wait(inbox).unwrap_or_else(PoisonError::into_inner),
                Some(since) => {
                    let left = FLUSH_AFTER.saturating_sub(since.elapsed());
                    let woken = self.arrived.wait_timeout(inbox, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl Inbox {
    fn is_due(&self) -> bool {
        self.is_closed
            || !self.waiting.is_empty()
            || self.records.len() + self.lines.len() >= PENDING
            || self.since.is_some_and(|since| since.elapsed() >= FLUSH_AFTER)
    }
}

/// The thread that commits for everybody who does not do it itself.
struct Clerk(Arc<Desk>);

impl Clerk {
    fn serve(self) {
        loop {
            self.0.wait();
            // Poisoned: a commit has panicked, and what is on disk is unknown.
            let Ok(mut owner) = self.0.owner.lock() else {
                return;
            };
            let mut inbox = self.0.take();
            let (is_closed, closing) = (inbox.is_closed, inbox.closing.take());
            let result = owner.commit(inbox);
            if is_closed {
                owner.store = None;
                drop(owner);
                if let Some(done) = closing {
                    let _ = done.send(result);
                }
                return;
            }
        }
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        let mut inbox = locked(&self.0.inbox);
        // Whoever waits is told by it that nobody is here any more.
        *inbox = Inbox {
            is_closed: true,
            ..Inbox::default()
        };
    }
}

/// Who writes to the store.
struct Owner {
    /// `None`: closed.
    store: Option<Box<dyn Store>>,
    run: RunId,
    position: Position,
    failed: Option<Failure>,
}

impl Owner {
    fn commit(&mut self, inbox: Inbox) -> Result<(), Failure> {
        let batch = Batch {
            records: inbox
                .records
                .into_iter()
                .map(|record| self.chain(record))
                .collect(),
            lines: inbox.lines,
        };
        let is_empty = batch.records.is_empty() && batch.lines.is_empty();
        if self.failed.is_none() && !is_empty {
            failpoint!("journal.before-commit");
            let written = match &mut self.store {
                Some(store) => store.append(&self.run, &batch).map_err(Failure::from),
                None => Err(closed()),
            };
            self.failed = written.err();
            failpoint!("journal.after-commit");
        }
        let result = self.failed.clone().map_or(Ok(()), Err);
        for done in inbox.waiting {
            // Whoever no longer waits was cancelled; the records are on disk all the same.
            let _ = done.send(result.clone());
        }
        result
    }

    fn chain(&mut self, record: Encoded) -> StoredRecord {
        let Encoded { kind, body, at_ms } = record;
        let Position { sequence, chain } = self.position;
        let mut stored = StoredRecord {
            sequence,
            version: record::VERSION,
            at_ms,
            kind: kind.into(),
            body,
            chain,
        };
        stored.chain = record::chain(&chain, &stored);
        self.position = Position {
            sequence: sequence + 1,
            chain: stored.chain,
        };
        stored
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    }
}

fn closed() -> Failure {
    Failure::new(
        Turn::Windlass,
        "journal.failed",
        "the journal of this run is closed already",
    )
}

fn unknown_outcome(intent: &Intent) -> Failure {
    let Intent { stage, function, .. } = intent;
    let message =
        format!("stage `{stage}` was cut off during `{function}`, and whether it happened is not known");
    Failure::new(Turn::Operator, "effect.unknown", message).help(format!(
        "look whether it happened, then `windlass resume --assume {stage}=done` or `--assume {stage}=not-done`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{capability::Leaves, journal::store::StoreError, name::StageName};
    use std::sync::mpsc::{Receiver, channel};

    /// A store that counts commits, waits in the first until told, and fails from a given commit on.
    struct Counting {
        commits: Arc<Mutex<Vec<Batch>>>,
        gate: Option<Receiver<()>>,
        fails_from: usize,
    }

    impl Store for Counting {
        fn append(&mut self, _: &RunId, batch: &Batch) -> Result<(), StoreError> {
            if let Some(gate) = self.gate.take() {
                gate.recv().expect("the test opens the gate");
            }
            let mut commits = self.commits.lock().expect("not poisoned");
            if commits.len() >= self.fails_from {
                let path = "journal.db".into();
                let problem = "disk I/O error".into();
                return Err(StoreError::Unusable { path, problem });
            }
            commits.push(batch.clone());
            Ok(())
        }

        fn read_run(&self, _: &RunId) -> Result<Vec<StoredRecord>, StoreError> {
            Ok(Vec::new())
        }

        fn list_runs(&self, _: usize, _: &[&str]) -> Result<Vec<(RunId, Vec<StoredRecord>)>, StoreError> {
            Ok(Vec::new())
        }

        fn read_lines(
            &self,
            _: &RunId,
            _: Option<&str>,
            _: u64,
            _: usize,
        ) -> Result<Vec<StoredLine>, StoreError> {
            Ok(Vec::new())
        }
    }

    fn writer(store: Counting, cut_off: HashMap<String, CutOff>) -> Writer {
        let redact: Redact = Arc::new(|text| text.replace("hunter2", "***"));
        Writer::start(store, RunId::new(1, [0; 10]), redact, Position::start(), cut_off).expect("a thread")
    }

    fn skipped(reason: &str) -> Record {
        Record::StageSkipped {
            stage: "a".into(),
            reason: reason.into(),
        }
    }

    fn intent(key: &str) -> Intent {
        Intent {
            key: key.into(),
            stage: StageName::new("a").expect("valid"),
            function: "sql.transact",
            arguments: Json::Null,
            leaves: Leaves::State,
        }
    }

    #[tokio::test]
    async fn all_who_wait_share_a_commit_and_the_last_guard_has_looked() {
        let commits = Arc::new(Mutex::new(Vec::new()));
        let (open, gate) = channel();
        let store = Counting {
            commits: commits.clone(),
            gate: Some(gate),
            fails_from: usize::MAX,
        };
        let writer = writer(store, HashMap::new());
        let first = writer.append(vec![skipped("first")]);
        let others: Vec<_> = (0..32).map(|_| writer.append(vec![skipped("hunter2")])).collect();
        writer.append_later(skipped("later"));
        open.send(()).expect("the store waits");
        first.await.expect("durable");
        for other in others {
            other.await.expect("durable");
        }
        writer.close().await.expect("closes");
        let commits = commits.lock().expect("not poisoned");
        let records: Vec<StoredRecord> = commits.iter().flat_map(|batch| batch.records.clone()).collect();
        assert!(
            commits.len() <= 3,
            "{} commits for 33 waiting callers",
            commits.len()
        );
        assert_eq!(records.len(), 34);
        assert!(records.iter().all(|record| !record.body.contains("hunter2")));
        assert!(crate::journal::replay::verify(&RunId::new(1, [0; 10]), &records).is_ok());
    }

    #[tokio::test]
    async fn a_failed_commit_is_final() {
        let store = Counting {
            commits: Arc::default(),
            gate: None,
            fails_from: 1,
        };
        let writer = writer(store, HashMap::new());
        writer
            .append(vec![skipped("a")])
            .await
            .expect("the first commit works");
        for _ in 0..2 {
            let failed = writer.begin(intent("k")).await.expect_err("it fails for good");
            assert_eq!(failed.code, "journal.failed");
        }
        assert!(writer.close().await.is_err());
        assert!(writer.append(vec![skipped("a")]).await.is_err(), "closed");
    }

    #[tokio::test]
    async fn effects_of_a_cut_off_attempt_are_answered_from_the_journal() {
        let store = Counting {
            commits: Arc::default(),
            gate: None,
            fails_from: usize::MAX,
        };
        let entry = |result| CutOff {
            stage: "a".into(),
            result,
        };
        let cut_off = HashMap::from([
            ("done".to_string(), entry(Some(Json::from(7)))),
            ("unknown".to_string(), entry(None)),
            ("settled".to_string(), entry(None)),
        ]);
        let writer = writer(store, cut_off);
        assert_eq!(
            writer.begin(intent("done")).await,
            Ok(Begun::AlreadyDone(Json::from(7)))
        );
        assert_eq!(writer.begin(intent("new")).await, Ok(Begun::Proceed));
        let unknown = writer.begin(intent("unknown")).await.expect_err("nobody knows");
        assert_eq!(unknown.code, "effect.unknown");
        writer.settle("settled", Some(Json::from(8)));
        assert_eq!(
            writer.begin(intent("settled")).await,
            Ok(Begun::AlreadyDone(Json::from(8)))
        );
        writer.settle("unknown", None);
        assert_eq!(writer.begin(intent("unknown")).await, Ok(Begun::Proceed));
    }

    #[tokio::test]
    async fn lines_reach_the_store_without_anybody_waiting() {
        let commits = Arc::new(Mutex::new(Vec::new()));
        let store = Counting {
            commits: commits.clone(),
            gate: None,
            fails_from: usize::MAX,
        };
        let writer = writer(store, HashMap::new());
        writer.log(LogLine {
            stage: StageName::new("a").expect("valid"),
            attempt: 1,
            level: LogLevel::Warn,
            message: "say hunter2".into(),
            fields: vec![("k".into(), "hunter2".into())],
        });
        drop(writer);
        for _ in 0..500 {
            if let Some(batch) = commits.lock().expect("not poisoned").first() {
                let line = &batch.lines[0];
                let shown = (line.message.as_str(), line.fields.as_str(), line.level.as_str());
                return assert_eq!(shown, ("say ***", r#"[["k","***"]]"#, "warn"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the line was not written");
    }
}
