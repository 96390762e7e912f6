//! `windlass approve` and `windlass reject`: a person's answer to a stage that waits for one. It goes into the journal;
//! `windlass resume` acts on it.

use super::{
    Result,
    arguments::{AnswerArguments, ProjectArguments},
    exit_code::ExitCode,
    live,
    print::Printer,
    project::Project,
    recorded::{self, Recorded},
    run::runtime,
};
use crate::{
    failure::{Failure, Turn},
    journal::{Journal, RunHistory, SqliteStore, Writer, record::Record},
};
use std::{collections::HashMap, sync::Arc};

pub(super) fn answer(
    arguments: &ProjectArguments,
    command: &AnswerArguments,
    approved: bool,
    printer: &Printer,
) -> Result<ExitCode> {
    let project = Project::find(arguments, printer)?;
    let is_meant = |history: &RunHistory| !waiting(history).is_empty();
    let named = command.choice.run.as_deref();
    let Recorded { state, history } =
        recorded::find(&project, named, "that waits for a person", &is_meant, printer)?;
    let stage = choose(&history, command.stage.as_deref()).or_else(|failure| printer.stop(&failure))?;
    let _live = live::hold(&state, &history.id).or_else(|failure| printer.stop(&failure))?;
    let record = Record::StageAnswered {
        stage: stage.clone(),
        approved,
        who: who(),
        reason: command.reason.clone(),
    };
    let written = runtime(printer)?.block_on(async {
        let store = SqliteStore::open(&state)?;
        let same = Arc::new(str::to_string);
        let writer = Writer::start(store, history.id.clone(), same, history.position, HashMap::new());
        let writer = writer.map_err(|error| {
            let message = format!("the system gives no thread for the journal: {error}");
            Failure::new(Turn::Environment, "system.threads", message)
        })?;
        writer.append(vec![record]).await?;
        writer.close().await
    });
    written.or_else(|failure| printer.stop(&failure))?;
    let word = if approved { "approved" } else { "rejected" };
    printer.say(&format!("{word}: stage `{stage}` of run {}", history.id));
    printer.say(&format!("  next: windlass resume {}", history.id));
    Ok(ExitCode::SUCCEEDED)
}

fn waiting(history: &RunHistory) -> Vec<&str> {
    let is_waiting = |(failure, _): &(Failure, i64)| failure.code == "approval.needed";
    let stages = history.stages.iter();
    stages
        .filter(|stage| history.is_resumable && stage.parked.as_ref().is_some_and(is_waiting))
        .map(|stage| stage.name.as_str())
        .collect()
}

fn choose(history: &RunHistory, named: Option<&str>) -> std::result::Result<String, Failure> {
    let waiting = waiting(history);
    let shown = waiting.join(", ");
    match (named, waiting.as_slice()) {
        (_, []) => Err(Failure::new(
            Turn::Operator,
            "approval.none",
            format!("no stage of run {} waits for a person", history.id),
        )),
        (None, [one]) => Ok((*one).to_string()),
        (None, _) => Err(Failure::new(
            Turn::Operator,
            "approval.stage",
            format!("several stages wait: {shown}"),
        )
        .help("name one with --stage")),
        (Some(named), waiting) if waiting.contains(&named) => Ok(named.to_string()),
        (Some(named), _) => Err(Failure::new(
            Turn::Operator,
            "approval.stage",
            format!("stage `{named}` does not wait for a person; these do: {shown}"),
        )),
    }
}

/// The name of the account, for the journal: not a proof of who it was.
fn who() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| format!("user {}", rustix::process::getuid().as_raw()))
}
