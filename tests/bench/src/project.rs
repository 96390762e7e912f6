//! A project in a temporary directory, and runs of its pipelines: the library called as `windlass run` calls it, with the time
//! at which each stage ended.

use crate::statistics::timed;
use indexmap::IndexMap;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
};
use windlass::{
    catalog::{self, Component, Digest},
    diagnostic::Diagnostics,
    event::RunEvent,
    failure::Failure,
    grant::{ApprovedPlan, approve},
    journal::{
        Ephemeral, Journal, SqliteStore, Writer,
        replay::Position,
        store::{Batch, Store, StoreError, StoredLine, StoredRecord},
    },
    name::RunId,
    pipeline::{self, LoadRequest, MissingValues, Pipeline},
    plan,
    report::redact::Redactor,
    run::{
        Ended, Exit, Options, Run, Start, Stop, attempt::Workshop, ledger::Ledger, scratch::ScratchPool,
        wiring::Wiring,
    },
    sandbox::{Loaded, Sandbox, SandboxSettings},
    secret::{self, Sources},
    service::containers::Address,
};

/// The plugin that does nothing.
pub(crate) const NOOP: &[u8] = include_bytes!(env!("NOOP_COMPONENT"));

/// As the pipelines name it.
pub(crate) const NOOP_REFERENCE: &str = "./noop.wasm";

/// Events on their way to the reports, as in `windlass run`.
const EVENTS: usize = 1_024;

/// What a benchmark cannot go on without, in words.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// The directory, the sandbox and the threads.
pub(crate) struct Project {
    directory: TempDir,
    pub(crate) sandbox: Sandbox,
    pub(crate) runtime: Runtime,
    runs: AtomicU64,
}

/// A pipeline file's stages.
pub(crate) struct Shape<'a> {
    pub(crate) stages: usize,
    /// Each needs the one before it.
    pub(crate) is_chain: bool,
    /// What stands below each stage's name, beside `needs:`.
    pub(crate) body: &'a str,
}

/// A pipeline that may run.
pub(crate) struct Ready {
    approved: ApprovedPlan,
    plugins: HashMap<Digest, Loaded>,
}

/// What a run took.
pub(crate) struct Measured {
    pub(crate) total: Duration,
    /// When it was told to stop, if it was.
    asked: Option<Instant>,
    /// When each stage's end was heard, from the first to the last.
    pub(crate) ends: Vec<Instant>,
    /// Commits of the journal while stages ran.
    pub(crate) commits: u64,
}

impl Measured {
    /// From the end of one stage to the end of the next.
    pub(crate) fn steps(&self) -> Vec<Duration> {
        self.ends.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

impl Project {
    /// Below `parent`: on the disk whose syncs are measured.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        let directory =
            tempfile::tempdir_in(parent).map_err(|error| format!("no temporary directory: {error}"))?;
        std::fs::write(directory.path().join(NOOP_REFERENCE), NOOP).map_err(|error| error.to_string())?;
        // A root of its own, where `parent` lies in a repository.
        std::fs::create_dir(directory.path().join(".git")).map_err(|error| error.to_string())?;
        let settings = SandboxSettings {
            cache_directory: Some(directory.path().join("cache")),
            compile_command: None,
        };
        let sandbox = Sandbox::new(settings).map_err(said)?;
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        Ok(Self {
            directory,
            sandbox,
            runtime,
            runs: AtomicU64::new(0),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a pipeline file; its path.
    pub(crate) fn write(&self, shape: &Shape<'_>) -> Result<PathBuf> {
        let kind = if shape.is_chain { "chain" } else { "wide" };
        let path = self.root().join(format!("{kind}-{}.yaml", shape.stages));
        std::fs::write(&path, yaml(shape)).map_err(|error| error.to_string())?;
        Ok(path)
    }

    /// Reads a pipeline file as `windlass run` does.
    pub(crate) fn read(&self, file: &Path) -> Result<Pipeline> {
        let read = pipeline::load(&LoadRequest {
            root: self.root(),
            file,
            shown: "bench.yaml".into(),
            overlay: None,
            vars: Vec::new(),
            var_files: Vec::new(),
            env_files: Vec::new(),
            reader: &|path| std::fs::read_to_string(path),
            process_env: &|_| None,
            recorded_env: None,
            missing: MissingValues::Refuse,
        });
        read.map(|(pipeline, _)| pipeline)
            .map_err(|problems| shown(&problems))
    }

    /// Describes the plugins, plans, approves.
    pub(crate) fn approve(&self, pipeline: Pipeline) -> Result<(ApprovedPlan, Vec<Component>)> {
        let (mut components, mut descriptors) = (Vec::new(), IndexMap::new());
        for stage in &pipeline.stages {
            if !descriptors.contains_key(&stage.uses) {
                let component = catalog::locate(&stage.uses, self.root()).map_err(said)?;
                descriptors.insert(
                    stage.uses.clone(),
                    Arc::new(catalog::describe(&component).map_err(said)?),
                );
                components.push(component);
            }
        }
        let (plan, _) = plan::build(Arc::new(pipeline), &descriptors).map_err(|problems| shown(&problems))?;
        let (approved, _) = approve(Arc::new(plan)).map_err(|problems| shown(&problems))?;
        Ok((approved, components))
    }

    /// Everything up to the run.
    pub(crate) fn ready(&self, shape: &Shape<'_>) -> Result<Ready> {
        let pipeline = self.read(&self.write(shape)?)?;
        let (approved, components) = self.approve(pipeline)?;
        let mut plugins = HashMap::new();
        for component in &components {
            let loaded = self
                .runtime
                .block_on(self.sandbox.load(component))
                .map_err(said)?;
            plugins.insert(component.digest, loaded);
        }
        Ok(Ready { approved, plugins })
    }

    /// One run from its first record to its last, without a journal or with one.
    pub(crate) fn run(&self, ready: &Ready, jobs: usize, is_durable: bool) -> Result<Measured> {
        let (measured, ended) = self.drive(ready, jobs, is_durable, None)?;
        match ended.exit {
            Exit::Succeeded => Ok(measured),
            _ => Err(ended.cause.map_or("the run failed".into(), |(stage, failure)| {
                format!("{stage}: {}", failure.message)
            })),
        }
    }

    /// Stops a run `after` its first stage has started: how long until that stage's plugin was dead.
    pub(crate) fn cancel(&self, ready: &Ready, after: Duration) -> Result<Duration> {
        let (measured, ended) = self.drive(ready, 1, false, Some(after))?;
        match (ended.exit, measured.asked, measured.ends.first()) {
            (Exit::Interrupted, Some(asked), Some(end)) => Ok(end.saturating_duration_since(asked)),
            _ => Err("the run ended before it was stopped".into()),
        }
    }

    fn drive(
        &self,
        ready: &Ready,
        jobs: usize,
        is_durable: bool,
        stop_after: Option<Duration>,
    ) -> Result<(Measured, Ended)> {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let id = RunId::new(number, [0; 10]);
        let commits = Arc::new(AtomicU64::new(0));
        let journal = self.journal(&id, is_durable, commits.clone())?;
        let workshop = self.workshop(ready, &id)?;
        let ledger = Arc::new(Ledger::new(journal.clone()));
        let (events, receiver) = mpsc::channel(EVENTS);
        let (hand, stop) = watch::channel(None);
        let listener = std::thread::spawn(move || listen(receiver, &hand, stop_after));
        let options = Options {
            jobs,
            timeout: None,
            left_out: Vec::new(),
            assumed: HashMap::new(),
        };
        let run = Run {
            id,
            workshop: Arc::new(workshop),
            journal: journal.clone(),
            ledger,
            options,
            start: Start::New,
            events,
            stop,
        };
        let (total, ended) = timed(|| self.runtime.block_on(run.drive()));
        let commits = commits.load(Ordering::Relaxed);
        self.runtime.block_on(journal.close()).map_err(said)?;
        let (asked, ends) = listener.join().map_err(|_| "the listener failed")?;
        let measured = Measured {
            total,
            asked,
            ends,
            commits,
        };
        Ok((measured, ended))
    }

    fn journal(&self, id: &RunId, is_durable: bool, commits: Arc<AtomicU64>) -> Result<Arc<dyn Journal>> {
        if !is_durable {
            return Ok(Arc::new(Ephemeral));
        }
        let store = SqliteStore::open(&self.root().join("state")).map_err(|error| error.to_string())?;
        let store = Counting { store, commits };
        let redactor = Redactor::new();
        let redact = Arc::new(move |text: &str| redactor.redact(text));
        let writer = Writer::start(store, id.clone(), redact, Position::start(), HashMap::new());
        Ok(Arc::new(writer.map_err(|error| error.to_string())?))
    }

    fn workshop(&self, ready: &Ready, id: &RunId) -> Result<Workshop> {
        let plan = ready.approved.plan();
        let sources = Sources {
            root: self.root().into(),
            variable: Box::new(|_| None),
            docker_secrets: "/run/secrets".into(),
            read: Box::new(secret::read_bounded),
            aws_sm: None,
        };
        let secrets = Arc::new(secret::Store::new(
            plan.pipeline.secrets.clone(),
            sources,
            Arc::new(Redactor::new()),
        ));
        Ok(Workshop {
            approved: ready.approved.clone(),
            sandbox: self.sandbox.clone(),
            plugins: ready.plugins.clone(),
            root: self.root().into(),
            scratch: ScratchPool::new(&self.root().join("scratch").join(id.as_str())).map_err(said)?,
            wiring: Wiring::new(
                plan,
                self.root(),
                secrets,
                &self.root().join("state"),
                Address::from_variables(|name| std::env::var(name).ok()),
            )
            .map_err(said)?,
            exit_code: |_| (0, "succeeded"),
        })
    }
}

/// The text of a pipeline file.
pub(crate) fn yaml(shape: &Shape<'_>) -> String {
    let mut text = String::from("windlass: 1\nname: bench\nstages:\n");
    for number in 0..shape.stages {
        text += &format!("  s{number:06}:\n{}", shape.body);
        if shape.is_chain && number > 0 {
            text += &format!("    needs: [s{:06}]\n", number - 1);
        }
    }
    text
}

/// Reads events as a report does, and keeps when stages ended. Stops the run `stop_after` its first stage has started; when
/// that was.
fn listen(
    mut receiver: mpsc::Receiver<RunEvent>,
    hand: &watch::Sender<Option<Stop>>,
    stop_after: Option<Duration>,
) -> (Option<Instant>, Vec<Instant>) {
    let (mut asked, mut ends) = (None, Vec::new());
    while let Some(event) = receiver.blocking_recv() {
        match event {
            RunEvent::StageFinished { .. } => ends.push(Instant::now()),
            RunEvent::StageStarted { .. } => {
                if let (None, Some(after)) = (asked, stop_after) {
                    std::thread::sleep(after);
                    asked = Some(Instant::now());
                    hand.send_replace(Some(Stop::Interrupted));
                }
            }
            _ => {}
        }
    }
    (asked, ends)
}

/// The journal's own store, counted: one commit is one sync.
struct Counting {
    store: SqliteStore,
    commits: Arc<AtomicU64>,
}

impl Store for Counting {
    fn append(&mut self, run: &RunId, batch: &Batch) -> std::result::Result<(), StoreError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.store.append(run, batch)
    }

    fn read_run(&self, run: &RunId) -> std::result::Result<Vec<StoredRecord>, StoreError> {
        self.store.read_run(run)
    }

    fn list_runs(
        &self,
        limit: usize,
        kinds: &[&str],
    ) -> std::result::Result<Vec<(RunId, Vec<StoredRecord>)>, StoreError> {
        self.store.list_runs(limit, kinds)
    }

    fn read_lines(
        &self,
        run: &RunId,
        stage: Option<&str>,
        cursor: u64,
        limit: usize,
    ) -> std::result::Result<Vec<StoredLine>, StoreError> {
        self.store.read_lines(run, stage, cursor, limit)
    }
}

/// For `map_err`.
pub(crate) fn said(failure: Failure) -> String {
    format!("{}: {}", failure.code, failure.message)
}

fn shown(problems: &Diagnostics) -> String {
    problems
        .sorted()
        .iter()
        .map(|problem| problem.message.clone())
        .collect::<Vec<_>>()
        .join("; ")
}
