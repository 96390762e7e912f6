//! `windlass rollback`: undoes a finished run, after saying what that means; and goes on with an undo that was cut off.

use super::{
    Result,
    arguments::{ProjectArguments, RollbackArguments},
    exit_code::ExitCode,
    print::Printer,
    project::Project,
    recorded::{self, Recorded},
    resume::{assumed, left_out},
    run::{Again, Ready, runtime},
};
use crate::{
    event::{RunStatus, StageReport, StageStatus},
    failure::{Failure, Turn},
    journal::{
        RunHistory,
        replay::{Standing, Step},
    },
    plan::Plan,
    schedule::Event,
};
use std::io::{BufRead, IsTerminal};

pub(super) fn rollback(
    arguments: &ProjectArguments,
    command: &RollbackArguments,
    printer: &Printer,
) -> Result<ExitCode> {
    let project = Project::find(arguments, printer)?;
    let is_meant = |history: &RunHistory| match history.is_resumable {
        true => history.is_being_undone(),
        false => history.status != RunStatus::RolledBack,
    };
    let named = command.choice.run.as_deref();
    let recorded = recorded::find(&project, named, "to roll back", &is_meant, printer)?;
    let is_begun = recorded.history.is_being_undone();
    if recorded.history.is_resumable && !is_begun {
        let id = &recorded.history.id;
        let message = format!("run {id} has not ended: only a finished run is rolled back");
        return printer.stop(
            &Failure::new(Turn::Operator, "rollback.unfinished", message)
                .help(format!("windlass resume {id}")),
        );
    }
    let (planned, approved) = recorded::plan_again(&project, &recorded, printer)?;
    let assumed = assumed(&planned.plan, &command.assume, printer)?;
    let past = command.after_restoring.is_some();
    let goes_on = if is_begun {
        begun(&recorded.history, past, printer)?
    } else {
        let meaning = Meaning::of(&planned.plan, &recorded.history, past);
        meaning.say(&recorded.history, printer);
        if let Some(failure) = meaning.refused(&recorded.history) {
            return printer.stop(&failure);
        }
        if meaning.undone.is_empty() {
            printer.say("nothing of this run can be undone");
            return Ok(ExitCode::NOT_CLEAN);
        }
        confirm(command.yes, printer)?;
        Event::RollBack { past }
    };
    let Recorded { state, history } = recorded;
    let ready = Ready {
        left_out: left_out(&planned.plan, &history),
        inputs: history.inputs.clone().unwrap_or_default(),
        again: Some(Again {
            history,
            goes_on,
            assumed,
        }),
        project,
        planned,
        approved,
        state,
        ephemeral: false,
    };
    runtime(printer)?.block_on(ready.run(&command.conduct, printer))
}

/// An undo that was cut off goes on as it was begun: whoever began it has said yes.
fn begun(history: &RunHistory, past: bool, printer: &Printer) -> Result<Event> {
    let id = &history.id;
    let is_past = |step: &Step| matches!(step, Step::RollbackStarted { past: true });
    if past && !history.steps.iter().any(is_past) {
        let message = format!("run {id} is being undone already, and not past its points of no return");
        let failure = Failure::new(Turn::Operator, "rollback.begun", message);
        return printer.stop(&failure.help(format!(
            "`windlass rollback {id}` goes on with it; once it has ended, roll back again with --after-restoring"
        )));
    }
    printer.say(&format!(
        "going on with undoing run {id} of {}, which was cut off",
        history.pipeline
    ));
    Ok(Event::Resumed)
}

/// What a rollback would do.
struct Meaning {
    /// In the order of undoing.
    undone: Vec<String>,
    /// Completed and not undone: nothing to undo, or nobody who can.
    stay: Vec<String>,
    /// The last point of no return that was passed.
    barrier: Option<String>,
}

impl Meaning {
    fn of(plan: &Plan, history: &RunHistory, past: bool) -> Self {
        let mut meaning = Self {
            undone: Vec::new(),
            stay: Vec::new(),
            barrier: None,
        };
        let is_meant = |number: &usize| {
            let stage = &history.stages[*number];
            let is_undone = stage.compensated.as_ref().is_some_and(|undo| undo.succeeded);
            let did_something = matches!(
                stage.standing,
                Standing::Ended(
                    StageStatus::Succeeded
                        | StageStatus::Failed
                        | StageStatus::Cancelled
                        | StageStatus::TimedOut
                )
            );
            *number < plan.finally_from && did_something && !is_undone
        };
        for number in history.ended_last_first().into_iter().filter(is_meant) {
            let planned = &plan.stages[number];
            let name = planned.stage.name.to_string();
            let succeeded = history.stages[number].standing == Standing::Ended(StageStatus::Succeeded);
            let report = history.stages[number].report.as_ref();
            let is_barrier =
                planned.stage.point_of_no_return || report.is_some_and(StageReport::passed_no_return);
            if is_barrier && succeeded && meaning.barrier.is_none() {
                meaning.barrier = Some(name.clone());
            }
            let is_behind = meaning.barrier.is_some() && !past;
            match planned.is_undoable() && !is_behind {
                true => meaning.undone.push(name),
                false => meaning.stay.push(name),
            }
        }
        meaning
    }

    fn say(&self, history: &RunHistory, printer: &Printer) {
        printer.say(&format!(
            "rolling back run {} of {}:",
            history.id, history.pipeline
        ));
        for name in &self.undone {
            printer.say(&format!("  undo  {name}"));
        }
        for name in &self.stay {
            printer.say(&format!(
                "  keep  {name}: it cannot be undone by its plugin, or lies before a point of no return"
            ));
        }
    }

    fn refused(&self, history: &RunHistory) -> Option<Failure> {
        let barrier = self.barrier.as_ref().filter(|_| self.undone.is_empty())?;
        let message =
            format!("stage `{barrier}` is a point of no return, and nothing behind it is left to undo");
        let backup = history.stages.iter().find_map(|stage| {
            let report = stage.report.as_ref()?;
            let id = report
                .outputs
                .get("id")
                .or_else(|| report.outputs.get("backup"))?;
            let is_backup = stage
                .plugin
                .as_ref()
                .is_some_and(|plugin| plugin.name == "backup");
            is_backup.then(|| id.as_str().map_or_else(|| id.to_string(), String::from))
        });
        let help = match backup {
            Some(id) => format!(
                "restore the backup that this run took ({id}), then `windlass rollback {} --after-restoring {id}`",
                history.id
            ),
            None => format!(
                "this run took no backup: restore another one, then `windlass rollback {} --after-restoring BACKUP`",
                history.id
            ),
        };
        Some(Failure::new(Turn::Operator, "rollback.no-return", message).help(help))
    }
}

fn confirm(yes: bool, printer: &Printer) -> Result<()> {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        return printer.stop(
            &Failure::new(
                Turn::Operator,
                "usage.confirm",
                "nothing was done: this needs a yes",
            )
            .help("add --yes"),
        );
    }
    printer.say("go on? [y/N]");
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    if read.is_ok() && ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        return Ok(());
    }
    printer.stop(&Failure::new(Turn::Operator, "usage.confirm", "nothing was done"))
}
