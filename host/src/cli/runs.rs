//! `windlass runs list|show|logs`: reads the journal; never writes, so it works beside a run.

use super::{
    Result,
    arguments::{Format, ProjectArguments, RunsArguments, RunsCommand, ValueArguments},
    exit_code::ExitCode,
    live, load,
    print::Printer,
    project::Project,
};
use crate::{
    event::RunStatus,
    failure::{Failure, Turn},
    journal::{RunHistory, SqliteStore, replay, store::Store},
    name::RunId,
    pipeline::MissingValues,
};
use std::{path::Path, time::Duration};

/// Lines read at once.
const LINES: usize = 1_000;

/// How often `logs -f` looks: as often as the journal writes log lines.
const FOLLOW: Duration = Duration::from_millis(200);

pub(super) fn runs(
    project: &ProjectArguments,
    command: &RunsArguments,
    printer: &Printer,
) -> Result<ExitCode> {
    let project = Project::find(project, printer)?;
    let file = project.pipeline_file(command.file.as_deref(), printer)?;
    let read = load::read(
        &project,
        &file,
        None,
        &ValueArguments::default(),
        MissingValues::Unknown,
    );
    let pipeline = match read {
        Ok((pipeline, _)) => pipeline,
        Err(problems) => return printer.stop_for(&problems),
    };
    let state = project.state(&pipeline.name, printer)?;
    let store = SqliteStore::open_for_reading(&state).or_else(|error| printer.stop(&Failure::from(error)))?;
    match &command.command {
        RunsCommand::List { format, limit } => list(&state, store.as_ref(), *format, *limit, printer),
        RunsCommand::Show { run, format } => {
            let (_, id) = find(store.as_ref(), run.as_deref(), printer)?;
            let history = show(store.as_ref(), &id, printer)?;
            match format {
                Format::Json => printer.data(&format!("{:#}", history.to_json())),
                Format::Text => printer.data(&to_text(&state, &history)),
            }
            Ok(ExitCode::SUCCEEDED)
        }
        RunsCommand::Logs { run, stage, follow } => {
            let (store, id) = find(store.as_ref(), run.as_deref(), printer)?;
            logs(store, &id, stage.as_deref(), *follow, printer)
        }
    }
}

fn list(
    state: &Path,
    store: Option<&SqliteStore>,
    format: Format,
    limit: usize,
    printer: &Printer,
) -> Result<ExitCode> {
    let runs = match store {
        None => Vec::new(),
        Some(store) => {
            replay::list_runs(store, limit).or_else(|error| printer.stop(&Failure::from(error)))?
        }
    };
    match format {
        Format::Json => printer.data(&format!("{:#}", serde_json::json!(runs))),
        Format::Text if runs.is_empty() => printer.say("there are no runs yet"),
        Format::Text => {
            for run in runs {
                let exit = run.exit.map_or("-".to_string(), |exit| exit.code.to_string());
                printer.data(&format!(
                    "{}  {:<15} {exit:>3}  {}",
                    run.id,
                    standing(state, &run.id, run.status),
                    run.started
                ));
            }
        }
    }
    Ok(ExitCode::SUCCEEDED)
}

/// The run that is meant: the one named, else the last.
fn find<'a>(
    store: Option<&'a SqliteStore>,
    named: Option<&str>,
    printer: &Printer,
) -> Result<(&'a SqliteStore, RunId)> {
    let none = || Failure::new(Turn::Operator, "runs.none", "there are no runs yet").help("windlass run");
    let Some(store) = store else {
        return printer.stop(&none());
    };
    if let Some(named) = named {
        let parsed = RunId::parse(named);
        let id = parsed.or_else(|error| {
            printer
                .stop(&Failure::new(Turn::Operator, "runs.id", error.to_string()).help("windlass runs list"))
        })?;
        return Ok((store, id));
    }
    match replay::list_runs(store, 1) {
        Ok(runs) => match runs.into_iter().next() {
            Some(run) => Ok((store, run.id)),
            None => printer.stop(&none()),
        },
        Err(error) => printer.stop(&Failure::from(error)),
    }
}

fn show(store: Option<&SqliteStore>, id: &RunId, printer: &Printer) -> Result<RunHistory> {
    let Some(store) = store else {
        return printer
            .stop(&Failure::new(Turn::Operator, "runs.none", "there are no runs yet").help("windlass run"));
    };
    replay::show_run(store, id).or_else(|error| printer.stop(&Failure::from(error)))
}

fn logs(
    store: &SqliteStore,
    id: &RunId,
    stage: Option<&str>,
    follow: bool,
    printer: &Printer,
) -> Result<ExitCode> {
    let mut cursor = 0;
    loop {
        // Asked before the lines are read: what a run says last is then not missed.
        let is_over = show(Some(store), id, printer)?.finished_ms.is_some();
        let lines = store
            .read_lines(id, stage, cursor, LINES)
            .or_else(|error| printer.stop(&Failure::from(error)))?;
        for line in &lines {
            let at = replay::timestamp(line.at_ms);
            printer.data(&format!(
                "{at} {:<12} {:<5} {}",
                line.stage, line.level, line.message
            ));
        }
        cursor = lines.last().map_or(cursor, |line| line.cursor);
        if !lines.is_empty() {
            continue;
        }
        if !follow || is_over {
            return Ok(ExitCode::SUCCEEDED);
        }
        std::thread::sleep(FOLLOW);
    }
}

fn to_text(state: &Path, history: &RunHistory) -> String {
    let mut lines = vec![format!(
        "run {}  {}  {}",
        history.id,
        history.pipeline,
        standing(state, &history.id, history.status)
    )];
    if let Some(exit) = &history.exit {
        lines.push(format!("exit {} ({})", exit.code, exit.reason));
    }
    lines.push(format!("started {}", replay::timestamp(history.started_ms)));
    lines.extend(
        history
            .finished_ms
            .map(|at| format!("finished {}", replay::timestamp(at))),
    );
    if history.is_resumable && !live::is_live(state, &history.id) {
        lines.push(format!("next: windlass resume {}", history.id));
    }
    for stage in &history.stages {
        let plugin = stage.plugin.as_ref().map_or("", |plugin| plugin.name.as_str());
        let standing = match stage.standing {
            replay::Standing::Pending => "pending".to_string(),
            replay::Standing::Running => "running".to_string(),
            replay::Standing::Ended(status) => word(status),
        };
        let report = stage.report.as_ref();
        let summary = report.map_or("", |report| report.summary.as_str());
        lines.push(format!(
            "  {:<16} {standing:<10} {plugin:<14} {summary}",
            stage.name
        ));
        if let Some(failure) = report.and_then(|report| report.failure.as_ref()) {
            lines.push(format!("    {}: {}", failure.code, failure.message));
            lines.extend(failure.help.iter().map(|help| format!("    help: {help}")));
        }
    }
    lines.join("\n")
}

/// As people see it: a run that nobody works on any more was interrupted.
fn standing(state: &Path, id: &RunId, status: RunStatus) -> String {
    match status {
        RunStatus::Running if !live::is_live(state, id) => "interrupted".to_string(),
        status => word(status),
    }
}

/// The word that JSON has for it.
fn word(status: impl serde::Serialize) -> String {
    match serde_json::to_value(status) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
