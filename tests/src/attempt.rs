//! One attempt in a sandbox, with exactly the grants that a test gives.

use futures::future::BoxFuture;
use serde_json::{Value as Json, json};
use std::{
    path::Path,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use windlass::{
    capability::Capability,
    catalog::Component,
    event::RunEvent,
    failure::Failure,
    grant::{Decision, DecisionLog, Granter, StageGrant, stage_grant::Entry},
    name::{PipelineName, RunId, StageName},
    pattern::{Mode, Pattern},
    sandbox::{Answer, Attempt, AttemptResult, Call, Outcome, Sandbox, SandboxSettings},
    service::{
        Services,
        context::Context,
        effect::{Begun, EffectLog, Effects, Intent},
        files::{Mount, Mounts},
        limits::{Limits, Usage},
        link::{Interfaces, Kind},
    },
};

/// The sandbox of this test process: compiled once a component.
///
/// # Panics
/// The engine does not start.
pub fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX.get_or_init(|| {
        // One process a test: the cache spares each the compiling.
        let cache = Path::new(env!("OUT_DIR")).join("compiled");
        let settings = SandboxSettings {
            cache_directory: Some(cache),
            compile_command: None,
        };
        Sandbox::new(settings).expect("the engine starts")
    })
}

/// What an attempt is given.
pub struct Setup {
    pub config: Json,
    pub grants: Vec<(Capability, &'static str)>,
    pub interfaces: Interfaces,
    pub limits: Limits,
    pub time: Duration,
    pub cancel: CancellationToken,
    pub environment: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub services: Services,
}

/// How it ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    pub outcome: Result<Outcome, Failure>,
    pub usage: Usage,
    /// The messages of its log.
    pub log: Vec<String>,
    /// What the stage asked for, and whether it may.
    pub decisions: Vec<Decision>,
    pub elapsed: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            config: json!({}),
            grants: Vec::new(),
            interfaces: Interfaces::default(),
            limits: Limits::default(),
            time: Duration::from_secs(30),
            cancel: CancellationToken::new(),
            environment: Vec::new(),
            mounts: Vec::new(),
            services: Services::default(),
        }
    }
}

impl Setup {
    /// A plugin's `with:`.
    pub fn with(config: Json) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    /// For an interface that the guest imports and this test does not need.
    #[must_use]
    pub fn stub(mut self, interface: &str) -> Self {
        self.interfaces.add(interface, Kind::Stub);
        self
    }

    /// # Panics
    /// The directory does not exist.
    #[must_use]
    pub fn mount(mut self, guest: &str, host: &Path, mode: Mode) -> Self {
        self.mounts
            .push(Mount::open(guest, host, mode).expect("the directory exists"));
        self
    }

    /// Loads the component and runs it once.
    ///
    /// # Panics
    /// A grant is not valid.
    pub async fn run(self, component: &Component) -> Ended {
        let started = Instant::now();
        let (sender, mut receiver) = mpsc::channel(64);
        let listen = tokio::spawn(async move {
            let mut log = Vec::new();
            while let Some(event) = receiver.recv().await {
                if let RunEvent::StageLog { message, .. } = event {
                    log.push(message);
                }
            }
            log
        });
        let decisions = Arc::new(Decisions::default());
        let AttemptResult { outcome, usage } = match sandbox().load(component).await {
            Ok(loaded) => {
                sandbox()
                    .call(&loaded, self.attempt(sender, decisions.clone()), Call::Run)
                    .await
            }
            Err(failure) => {
                drop(sender);
                AttemptResult {
                    outcome: Err(failure),
                    usage: Usage::new(),
                }
            }
        };
        let log = listen.await.expect("ends with the attempt");
        let decisions = std::mem::take(&mut *decisions.0.lock().expect("not poisoned"));
        Ended {
            outcome: outcome.map(|answer| match answer {
                Answer::Outcome(outcome) => outcome,
                other => panic!("`run` answers an outcome, not {other:?}"),
            }),
            usage,
            decisions,
            log,
            elapsed: started.elapsed(),
        }
    }

    fn attempt(self, events: mpsc::Sender<RunEvent>, decisions: Arc<Decisions>) -> Attempt {
        let stage = StageName::new("stage").expect("valid");
        let run = RunId::new(1, [7; 10]);
        let entry = |(capability, text): &(Capability, &str)| Entry {
            capability: *capability,
            pattern: Pattern::parse(*capability, text).expect("a valid grant"),
            rule: "test.yaml:1:1".into(),
        };
        let grant = StageGrant::new(
            stage.clone(),
            "guest".into(),
            self.grants.iter().map(entry).collect(),
        );
        Attempt {
            context: Context {
                pipeline: PipelineName::new("test").expect("valid"),
                stage: stage.clone(),
                run: run.clone(),
                attempt: 1,
                config: self.config.to_string().into(),
                deadline: Some(Instant::now() + self.time),
                cancel: self.cancel,
            },
            granter: Granter::new(Arc::new(grant), decisions),
            effects: Arc::new(Effects::new(run.to_string(), stage, Arc::new(Unwritten), false)),
            services: self.services,
            interfaces: self.interfaces,
            limits: self.limits,
            environment: self.environment,
            mounts: Arc::new(Mounts::new(self.mounts).expect("no shared trees")),
            events,
        }
    }
}

#[derive(Default)]
struct Decisions(Mutex<Vec<Decision>>);

impl DecisionLog for Decisions {
    fn record(&self, decision: &Decision) {
        self.0.lock().expect("not poisoned").push(decision.clone());
    }
}

/// Effects that nobody reads.
struct Unwritten;

impl EffectLog for Unwritten {
    fn recall(&self, _: &str) -> Option<Json> {
        None
    }

    fn begin(&self, _intent: Intent) -> BoxFuture<'_, Result<Begun, Failure>> {
        Box::pin(async { Ok(Begun::Proceed) })
    }

    fn finish(&self, _key: String, _outcome: Result<Json, Failure>) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }
}
