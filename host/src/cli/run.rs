//! `windlass run`: load, approve, open the journal, run, report.

use super::{
    Result, Stopped,
    arguments::{Conduct, Progress, ProjectArguments, Report, ReportKind, RunArguments, Selection},
    exit_code::ExitCode,
    live,
    load::{self, Planned},
    lock, plan, planners,
    print::{Printer, exit_of},
    project::Project,
    recorded,
    reporting::Reports,
    secrets, signal,
};
use crate::{
    artifact,
    capability::Capability,
    catalog::{Lock, lock::FILE_NAME},
    event::{RunEvent, StageStatus},
    failure::{Failure, Turn},
    grant::ApprovedPlan,
    journal::{
        Ephemeral, Journal, RunHistory, SqliteStore, Writer,
        record::{Record, WireInputs},
        replay::{self, Position, Standing},
    },
    lock::Held,
    name::{RunId, SecretName},
    pattern::Pattern,
    plan::{Plan, PlannedStage},
    report::{
        ci::Ci, json::JsonLines, junit::Junit, plain::Plain, redact::Redactor, summary::Palette, tty::Tty,
    },
    run::{
        Assumed, Exit, Options, Run, Start, attempt::Workshop, ledger::Ledger, recover::recover,
        scratch::ScratchPool, wiring::Wiring,
    },
    sandbox::{Loaded, Sandbox, SandboxSettings},
    schedule::Event,
    secret,
};
use indicatif::ProgressDrawTarget;
use std::{
    collections::{BTreeMap, HashMap},
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::mpsc;

/// Events on their way to the reports: enough that a burst does not stop the run, little enough to be no memory.
const EVENTS: usize = 1_024;

pub(super) fn run(
    arguments: &ProjectArguments,
    command: &RunArguments,
    printer: &Printer,
) -> Result<ExitCode> {
    if command.dry_run {
        return plan::dry_run(arguments, &command.pipeline, printer);
    }
    let project = Project::find(arguments, printer)?;
    let file = project.pipeline_file(command.pipeline.file.as_deref(), printer)?;
    let overlay = command.pipeline.overlay.as_deref();
    let (planned, approved) = load::approved(&project, &file, overlay, &command.pipeline.values, printer)?;
    check_lock(&project, &planned, command, printer)?;
    let left_out = select(&planned.plan, &command.selection).map_err(|failure| {
        printer.failure(&failure);
        Stopped(ExitCode::USAGE)
    })?;
    planners::check(&project, &planned, &approved, printer)?;
    let state = project.state(&planned.plan.pipeline.name, printer)?;
    let runtime = runtime(printer)?;
    let mut inputs = load::inputs(&project, &file, overlay, &command.pipeline.values, &planned);
    let name = |number: &usize| planned.plan.stages[*number].stage.name.to_string();
    inputs.left_out = left_out.iter().map(name).collect();
    let ready = Ready {
        project,
        planned,
        approved,
        state,
        left_out,
        inputs,
        again: None,
        ephemeral: command.ephemeral,
    };
    runtime.block_on(ready.run(&command.conduct, printer))
}

/// The container engine that this process's environment names.
pub(super) fn engine_address() -> crate::service::containers::Address {
    crate::service::containers::Address::from_variables(|name| std::env::var(name).ok())
}

/// The threads of a command.
pub(super) fn runtime(printer: &Printer) -> Result<tokio::runtime::Runtime> {
    let made = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    made.or_else(|error| {
        let message = format!("the system gives no threads: {error}");
        printer.stop(&Failure::new(Turn::Environment, "system.threads", message))
    })
}

/// Everything that is decided before the run.
pub(super) struct Ready {
    pub(super) project: Project,
    pub(super) planned: Planned,
    pub(super) approved: ApprovedPlan,
    pub(super) state: PathBuf,
    pub(super) left_out: Vec<usize>,
    /// For the journal of a new run.
    pub(super) inputs: WireInputs,
    /// The run that is gone on with; `None` for a new one.
    pub(super) again: Option<Again>,
    pub(super) ephemeral: bool,
}

/// A run that an earlier process has begun.
pub(super) struct Again {
    pub(super) history: RunHistory,
    /// [`Event::Resumed`] or [`Event::RollBack`].
    pub(super) goes_on: Event,
    pub(super) assumed: HashMap<usize, Assumed>,
}

impl Ready {
    pub(super) async fn run(mut self, conduct: &Conduct, printer: &Printer) -> Result<ExitCode> {
        let again = self.again.take();
        let id = match &again {
            Some(again) => again.history.id.clone(),
            None => new_run_id(printer)?,
        };
        let _live = match self.ephemeral {
            true => None,
            false => Some(live::hold(&self.state, &id).map_err(|failure| {
                printer.failure(&failure);
                Stopped(match failure.code.as_str() {
                    "run.live" => ExitCode::LOCKED,
                    _ => exit_of(&failure),
                })
            })?),
        };
        let purpose = lock::Purpose {
            state: &self.state,
            pipeline: &self.planned.plan.pipeline,
            run: &id,
            command: match again.as_ref().map(|again| again.goes_on) {
                None => "run",
                Some(Event::RollBack { .. }) => "rollback",
                Some(_) => "resume",
            },
        };
        let held = lock::hold(purpose, conduct.lock, printer).await?;
        let redactor = Redactor::new();
        let secrets = self.secrets(&redactor, again.as_ref(), printer)?;
        let sandbox = sandbox(&self.project, printer)?;
        let plugins = load_plugins(&sandbox, &self.planned, printer).await?;
        let journal = self.journal(&id, again.as_ref(), held.as_ref(), &redactor, printer)?;
        let scratch = ScratchPool::new(&self.state.join("scratch").join(id.as_str()))
            .or_else(|failure| printer.stop(&failure))?;
        artifact::Store::new(&self.state)
            .tidy()
            .or_else(|failure| printer.stop(&failure))?;
        let ledger = Arc::new(Ledger::new(journal.clone()));
        let wiring = Wiring::new(
            &self.planned.plan,
            &self.project.root,
            secrets,
            &self.state,
            engine_address(),
        )
        .or_else(|failure| printer.stop(&failure))?;
        let workshop = Arc::new(Workshop {
            approved: self.approved.clone(),
            sandbox,
            plugins,
            root: self.project.root.clone(),
            scratch,
            wiring,
            exit_code,
        });
        let (events, receiver) = mpsc::channel(EVENTS);
        let reporting = self.reporting(conduct, redactor, journal.clone(), receiver, printer)?;
        let stop = signal::watch(held.as_ref().map(Held::lost)).or_else(|error| {
            let message = format!("signals cannot be watched: {error}");
            printer.stop(&Failure::new(Turn::Environment, "system.signals", message))
        })?;
        let options = Options {
            jobs: conduct.jobs.map_or_else(default_jobs, usize::from),
            timeout: conduct.timeout,
            left_out: self.left_out.clone(),
            assumed: again
                .as_ref()
                .map(|again| again.assumed.clone())
                .unwrap_or_default(),
        };
        let start = self
            .start(again.as_ref(), &workshop, &options, &ledger)
            .or_else(|failure| printer.stop(&failure))?;
        let started = self
            .announce(&id, again.as_ref(), journal.as_ref(), &events)
            .await;
        let ended = match started {
            Ok(()) => {
                Run {
                    id: id.clone(),
                    workshop,
                    journal: journal.clone(),
                    ledger,
                    options,
                    start,
                    events,
                    stop,
                }
                .drive()
                .await
            }
            Err(failure) => return printer.stop(&failure),
        };
        // The report ends when the last sender is gone; only then is the journal complete.
        let reporting = tokio::task::spawn_blocking(move || reporting.join()).await;
        let closed = journal.close().await;
        // Not before: the last commit has demanded it.
        drop(held);
        if reporting.is_err() {
            printer.say("error[internal.report]: the report failed; `windlass runs show` has the run");
        }
        if let Some(failure) = ended.broken.or(closed.err()) {
            printer.failure(&failure);
        }
        self.write_json_reports(&id, conduct, printer)?;
        Ok(of(ended.exit))
    }

    /// Where the run begins: at its start, or where its journal ends.
    fn start(
        &self,
        again: Option<&Again>,
        workshop: &Workshop,
        options: &Options,
        ledger: &Ledger,
    ) -> std::result::Result<Start, Failure> {
        let Some(again) = again else {
            return Ok(Start::New);
        };
        let may_retry = |stage, attempt, failure: &Failure| workshop.may_retry(stage, attempt, failure);
        let plan = &self.planned.plan;
        recover(plan, options, &may_retry, &again.history, again.goes_on, ledger)
            .map(|recovered| Start::Again(Box::new(recovered)))
    }

    /// Reads every secret that a stage needs and no stage puts: all that are missing are named before anything starts.
    fn secrets(
        &self,
        redactor: &Redactor,
        again: Option<&Again>,
        printer: &Printer,
    ) -> Result<Arc<secret::Store>> {
        let sources =
            secrets::sources(&self.project, &self.planned.plan).or_else(|failure| printer.stop(&failure))?;
        let specs = self.planned.plan.pipeline.secrets.clone();
        let store = secret::Store::new(specs, sources, Arc::new(redactor.clone()));
        if let Err(failures) = store.load(&needed_secrets(
            &self.planned.plan,
            again.map(|again| &again.history),
        )) {
            failures.iter().for_each(|failure| printer.failure(failure));
            let code = failures.first().map_or(ExitCode::INTERNAL, exit_of);
            return Err(Stopped(code));
        }
        for name in store.short_values() {
            printer.say(&format!("warning[secret.short]: secret `{name}` has a value under six characters, which is not masked in logs"));
        }
        Ok(Arc::new(store))
    }

    fn journal(
        &self,
        id: &RunId,
        again: Option<&Again>,
        held: Option<&Held>,
        redactor: &Redactor,
        printer: &Printer,
    ) -> Result<Arc<dyn Journal>> {
        if self.ephemeral {
            return Ok(lock::gated(Arc::new(Ephemeral), held));
        }
        recorded::keep_plugins(&self.state, &self.planned).or_else(|failure| printer.stop(&failure))?;
        let store = SqliteStore::open(&self.state).or_else(|error| printer.stop(&Failure::from(error)))?;
        let store = lock::fenced(store, held);
        let redactor = redactor.clone();
        let redact = Arc::new(move |text: &str| redactor.redact(text));
        let (position, cut_off) = match again {
            Some(again) => (again.history.position, again.history.cut_off()),
            None => (Position::start(), HashMap::new()),
        };
        let writer = Writer::start(store, id.clone(), redact, position, cut_off);
        match writer {
            Ok(writer) => Ok(lock::gated(Arc::new(writer), held)),
            Err(error) => {
                let message = format!("the system gives no thread for the journal: {error}");
                printer.stop(&Failure::new(Turn::Environment, "system.threads", message))
            }
        }
    }

    /// The first record, durable before anything starts.
    async fn announce(
        &self,
        id: &RunId,
        again: Option<&Again>,
        journal: &dyn Journal,
        events: &mpsc::Sender<RunEvent>,
    ) -> std::result::Result<(), Failure> {
        let plan = &self.planned.plan;
        let stages: Vec<_> = plan
            .stages
            .iter()
            .map(|planned| planned.stage.name.clone())
            .collect();
        let plugins = self
            .planned
            .descriptors
            .values()
            .map(|plugin| (plugin.id.clone(), plugin.digest.to_string()));
        if again.is_none() {
            let shown = plan_record(plan);
            let started = Record::RunStarted {
                pipeline: plan.pipeline.name.to_string(),
                plan_digest: shown.0,
                plan: shown.1,
                stages: stages.iter().map(ToString::to_string).collect(),
                plugins: plugins.collect::<BTreeMap<_, _>>(),
                vars: serde_json::to_value(&plan.pipeline.vars).unwrap_or_default(),
                inputs: Some(self.inputs.clone()),
            };
            journal.append(vec![started]).await?;
        }
        let pipeline = plan.pipeline.name.to_string();
        // A report that is gone is no failure of the run.
        let _ = events
            .send(RunEvent::RunStarted {
                run: id.clone(),
                pipeline,
                stages,
                resumed: again.is_some(),
            })
            .await;
        for (stage, planned) in again
            .iter()
            .flat_map(|again| &again.history.stages)
            .zip(&plan.stages)
        {
            if let Some(report) = stage.report.clone().filter(|_| !stage.is_cut_off()) {
                let known = RunEvent::StageKnown {
                    stage: planned.stage.name.clone(),
                    attempts: stage.attempts,
                    plugin: stage.plugin.clone(),
                    report,
                };
                let _ = events.send(known).await;
            }
        }
        Ok(())
    }

    fn reporting(
        &self,
        conduct: &Conduct,
        redactor: Redactor,
        journal: Arc<dyn Journal>,
        receiver: mpsc::Receiver<RunEvent>,
        printer: &Printer,
    ) -> Result<std::thread::JoinHandle<()>> {
        let mut reports = Reports::new(redactor, journal);
        let palette = Palette {
            colour: printer.colour,
        };
        let progress = match conduct.progress {
            Progress::Auto if std::io::stderr().is_terminal() => Progress::Tty,
            Progress::Auto => Progress::Plain,
            chosen => chosen,
        };
        match progress {
            Progress::Json => reports.add(JsonLines::new(std::io::stdout())),
            Progress::Tty => reports.add(Tty::new(ProgressDrawTarget::stderr(), palette)),
            _ => reports.add(Plain::new(
                std::io::stderr(),
                palette,
                Ci::detect(&|name| std::env::var(name).ok()),
            )),
        }
        for Report { path, .. } in conduct
            .reports
            .iter()
            .filter(|report| report.kind == ReportKind::Junit)
        {
            let path = self.project.open_path(path);
            match std::fs::File::create(&path) {
                Ok(file) => reports.add(Junit::new(file)),
                Err(error) => return printer.stop(&report_failure(&path, &error)),
            }
        }
        let thread = std::thread::Builder::new()
            .name("report".into())
            .spawn(move || reports.consume(receiver));
        thread.or_else(|error| {
            let message = format!("the system gives no thread for the report: {error}");
            printer.stop(&Failure::new(Turn::Environment, "system.threads", message))
        })
    }

    /// `--report json=FILE`: what `runs show` says of this run.
    fn write_json_reports(&self, id: &RunId, conduct: &Conduct, printer: &Printer) -> Result<()> {
        for Report { path, .. } in conduct
            .reports
            .iter()
            .filter(|report| report.kind == ReportKind::Json)
        {
            let path = self.project.open_path(path);
            let history = match SqliteStore::open_for_reading(&self.state) {
                Ok(Some(store)) if !self.ephemeral => replay::show_run(&store, id).map_err(Failure::from),
                Err(error) => Err(Failure::from(error)),
                Ok(_) => Err(Failure::new(
                    Turn::Operator,
                    "report.ephemeral",
                    "a run without a journal leaves no JSON report",
                )
                .help("leave --ephemeral or --report json= away")),
            };
            let written = history.map(|history| std::fs::write(&path, format!("{:#}\n", history.to_json())));
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => printer.failure(&report_failure(&path, &error)),
                Err(failure) => printer.failure(&failure),
            }
        }
        Ok(())
    }
}

fn report_failure(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Turn::Operator,
        "report.unwritable",
        format!("cannot write the report {}: {error}", path.display()),
    )
}

fn plan_record(plan: &Plan) -> (String, serde_json::Value) {
    (plan.digest(), crate::plan::render::canonical(plan))
}

/// `--locked`, and wherever `CI` is set: no plugin but those that windlass.lock knows as they are. Built-in plugins are part of this
/// executable and locked with it.
fn check_lock(project: &Project, planned: &Planned, command: &RunArguments, printer: &Printer) -> Result<()> {
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    let foreign: Vec<_> = planned
        .components
        .iter()
        .filter(|(_, component)| !component.is_built_in)
        .collect();
    if !(command.locked || is_ci) || foreign.is_empty() {
        return Ok(());
    }
    let text = std::fs::read_to_string(project.root.join(FILE_NAME)).unwrap_or_default();
    let lock = if text.is_empty() {
        Ok(Lock::default())
    } else {
        Lock::read(&text)
    };
    let lock = lock.or_else(|failure| printer.stop(&failure))?;
    let refused: Vec<Failure> = foreign
        .into_iter()
        .filter_map(|(reference, component)| lock.check(component, planned.descriptors.get(reference)?).err())
        .collect();
    refused.iter().for_each(|failure| printer.failure(failure));
    if refused.is_empty() {
        Ok(())
    } else {
        Err(Stopped(ExitCode::DENIED))
    }
}

/// The stages that `--only`, `--skip` and `--from` leave out. `finally` stays unless it is named.
fn select(plan: &Plan, selection: &Selection) -> std::result::Result<Vec<usize>, Failure> {
    let numbered = |name: &str| -> std::result::Result<Vec<usize>, Failure> {
        let is_meant = |planned: &crate::plan::PlannedStage| {
            planned.stage.name.as_str() == name || planned.stage.name.base() == name
        };
        let found: Vec<usize> = plan
            .stages
            .iter()
            .enumerate()
            .filter(|(_, planned)| is_meant(planned))
            .map(|(number, _)| number)
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let known: Vec<&str> = plan
            .stages
            .iter()
            .map(|planned| planned.stage.name.as_str())
            .collect();
        let help = match crate::diagnostic::did_you_mean(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the stages are: {}", known.join(", ")),
        };
        Err(Failure::new(
            Turn::Operator,
            "selection.unknown-stage",
            format!("there is no stage `{name}`"),
        )
        .help(help))
    };
    let all = |names: &[String]| -> std::result::Result<Vec<usize>, Failure> {
        Ok(names
            .iter()
            .map(|name| numbered(name))
            .collect::<std::result::Result<Vec<_>, _>>()?
            .concat())
    };
    let (only, skip) = (all(&selection.only)?, all(&selection.skip)?);
    let from = selection.from.as_deref().map(numbered).transpose()?;
    let after = from.map(|from| descendants(plan, &from));
    let is_left_out = |number: &usize| {
        let is_forward = *number < plan.finally_from;
        skip.contains(number)
            || (is_forward && !only.is_empty() && !only.contains(number))
            || (is_forward && after.as_ref().is_some_and(|after| !after.contains(number)))
    };
    Ok((0..plan.stages.len()).filter(is_left_out).collect())
}

fn descendants(plan: &Plan, from: &[usize]) -> Vec<usize> {
    let mut found = from.to_vec();
    let mut grew = true;
    while grew {
        let next: Vec<usize> = (0..plan.finally_from)
            .filter(|number| {
                !found.contains(number) && plan.stages[*number].after.iter().any(|need| found.contains(need))
            })
            .collect();
        grew = !next.is_empty();
        found.extend(next);
    }
    found
}

/// Of a run that goes on, what is over needs no secrets: only what is still to be run, or may have to be undone.
fn needed_secrets(plan: &Plan, history: Option<&RunHistory>) -> Vec<SecretName> {
    let mut names: Vec<SecretName> = Vec::new();
    let is_over = |number: usize, planned: &PlannedStage| {
        let ended = history.and_then(|history| history.stages.get(number));
        let succeeded = ended.is_some_and(|stage| stage.standing == Standing::Ended(StageStatus::Succeeded));
        let puts = planned
            .needs
            .iter()
            .any(|need| need.capability == Capability::SecretsPut);
        succeeded && !planned.is_undoable() && !puts
    };
    let stages = plan.stages.iter().enumerate();
    let needs = stages
        .filter(|(number, planned)| !is_over(*number, planned))
        .flat_map(|(_, planned)| &planned.needs);
    let secrets = needs.filter(|need| {
        matches!(
            need.capability,
            Capability::SecretsUse | Capability::SecretsReveal
        )
    });
    for pattern in secrets.filter_map(|need| need.pattern.as_ref()) {
        if let Pattern::Name(name) = pattern
            && let Ok(name) = SecretName::new(name)
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}

pub(super) fn sandbox(project: &Project, printer: &Printer) -> Result<Sandbox> {
    let settings = SandboxSettings {
        cache_directory: project.cache(),
        compile_command: std::env::current_exe().ok(),
    };
    Sandbox::new(settings).or_else(|failure| printer.stop(&failure))
}

/// Compiles or fetches from the cache; every plugin of the plan, before the first stage starts.
pub(super) async fn load_plugins(
    sandbox: &Sandbox,
    planned: &Planned,
    printer: &Printer,
) -> Result<HashMap<crate::catalog::Digest, Loaded>> {
    let loads = planned
        .components
        .values()
        .map(|component| async { (component.digest, sandbox.load(component).await) });
    let mut plugins = HashMap::new();
    for (digest, loaded) in futures::future::join_all(loads).await {
        match loaded {
            Ok(loaded) => {
                plugins.insert(digest, loaded);
            }
            Err(failure) => return printer.stop(&failure),
        }
    }
    Ok(plugins)
}

pub(super) fn new_run_id(printer: &Printer) -> Result<RunId> {
    let mut random = [0; 10];
    if let Err(error) = getrandom::fill(&mut random) {
        let message = format!("the system gives no random bytes: {error}");
        return printer.stop(&Failure::new(Turn::Environment, "system.random", message));
    }
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
    Ok(RunId::new(now, random))
}

fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn of(exit: Exit) -> ExitCode {
    match exit {
        Exit::Succeeded => ExitCode::SUCCEEDED,
        Exit::Failed => ExitCode::FAILED,
        Exit::NotClean => ExitCode::NOT_CLEAN,
        Exit::Denied => ExitCode::DENIED,
        Exit::Unavailable => ExitCode::UNAVAILABLE,
        Exit::Paused => ExitCode::PAUSED,
        Exit::TimedOut => ExitCode::TIMED_OUT,
        Exit::Interrupted => ExitCode::INTERRUPTED,
        Exit::Terminated => ExitCode::TERMINATED,
        Exit::Internal => ExitCode::INTERNAL,
        Exit::LockLost => ExitCode::LOCKED,
    }
}

pub(super) fn exit_code(exit: Exit) -> (u8, &'static str) {
    let code = of(exit);
    (code.code, code.reason)
}
