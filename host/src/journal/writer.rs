//! One thread owns the store of a run; everybody else sends it records and waits. All who wait while a commit is under way
//! share the next one, so parallel stages cost one sync together. Refuses to go on after a commit that failed: what is on
//! disk is then unknown, and trying again could report success for data that the kernel has already dropped.

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
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
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
    sender: Sender<Message>,
    redact: Redact,
    /// Outcomes of effects from attempts that a crash cut off, by key.
    cut_off: Mutex<HashMap<String, CutOff>>,
}

type Done = oneshot::Sender<Result<(), Failure>>;

enum Message {
    Records(Vec<Encoded>, Option<Done>),
    Line(StoredLine),
    Close(Done),
}

struct Encoded {
    kind: &'static str,
    body: String,
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
        let (sender, receiver) = channel();
        let owner = Owner {
            store: Box::new(store),
            run,
            position,
            batch: Batch::default(),
            waiting: Vec::new(),
            since: None,
            failed: None,
        };
        thread::Builder::new()
            .name("journal".into())
            .spawn(move || owner.serve(&receiver))?;
        Ok(Self {
            sender,
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
        }
    }

    fn hand_over(&self, make: impl FnOnce(Done) -> Message) -> BoxFuture<'static, Result<(), Failure>> {
        let (done, wait) = oneshot::channel();
        // A message that nobody took is dropped here, and its `done` with it: kept, it would be waited for forever.
        let is_sent = self.sender.send(make(done)).is_ok();
        Box::pin(async move {
            match wait.await {
                Ok(result) if is_sent => result,
                _ => Err(closed()),
            }
        })
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
        let encoded = records.into_iter().map(|record| self.encode(record)).collect();
        self.hand_over(|done| Message::Records(encoded, Some(done)))
    }

    fn append_later(&self, record: Record) {
        // An owner that is gone has failed or was closed: whoever waits for a commit hears of it.
        let _ = self
            .sender
            .send(Message::Records(vec![self.encode(record)], None));
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
        let _ = self.sender.send(Message::Line(line));
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
        self.hand_over(Message::Close)
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

/// What the thread owns.
struct Owner {
    store: Box<dyn Store>,
    run: RunId,
    position: Position,
    batch: Batch,
    waiting: Vec<Done>,
    /// When the oldest of the pending records came.
    since: Option<Instant>,
    failed: Option<Failure>,
}

impl Owner {
    fn serve(mut self, receiver: &Receiver<Message>) {
        loop {
            let next = match self.since {
                None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(since) => receiver.recv_timeout(FLUSH_AFTER.saturating_sub(since.elapsed())),
            };
            let closing = match next {
                Ok(first) => self.take_all(first, receiver),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.commit(),
            };
            let due = self.since.is_some_and(|since| since.elapsed() >= FLUSH_AFTER);
            if closing.is_some() || due || !self.waiting.is_empty() || self.pending() >= PENDING {
                self.commit();
            }
            if let Some(done) = closing {
                let result = self.failed.take().map_or(Ok(()), Err);
                drop(self.store);
                let _ = done.send(result);
                return;
            }
        }
    }

    /// Takes `first` and whatever else has come meanwhile; the sender of `Close`, where it is among them.
    fn take_all(&mut self, first: Message, receiver: &Receiver<Message>) -> Option<Done> {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Records(records, done) => {
                    let at_ms = now_ms();
                    records.into_iter().for_each(|record| self.add(record, at_ms));
                    self.waiting.extend(done);
                }
                Message::Line(line) => self.batch.lines.push(line),
                Message::Close(done) => return Some(done),
            }
            self.since.get_or_insert_with(Instant::now);
            if self.pending() >= PENDING {
                return None;
            }
            next = receiver.try_recv().ok();
        }
        None
    }

    fn add(&mut self, Encoded { kind, body }: Encoded, at_ms: i64) {
        let Position { sequence, chain } = self.position;
        let chain = record::chain(&chain, sequence, at_ms, &body);
        self.position = Position {
            sequence: sequence + 1,
            chain,
        };
        self.batch.records.push(StoredRecord {
            sequence,
            version: record::VERSION,
            at_ms,
            kind: kind.into(),
            body,
            chain,
        });
    }

    fn pending(&self) -> usize {
        self.batch.records.len() + self.batch.lines.len()
    }

    fn commit(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.since = None;
        let empty = batch.records.is_empty() && batch.lines.is_empty();
        if self.failed.is_none() && !empty {
            failpoint!("journal.before-commit");
            self.failed = self.store.append(&self.run, &batch).err().map(Failure::from);
            failpoint!("journal.after-commit");
        }
        for done in self.waiting.drain(..) {
            // Whoever no longer waits was cancelled; the records are on disk all the same.
            let _ = done.send(self.failed.clone().map_or(Ok(()), Err));
        }
    }
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
    use std::sync::Arc;

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
