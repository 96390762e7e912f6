//! `windlass resume`: goes on with a run that was cut off or paused, with the plan and the plugins of its start.

use super::{
    Result, Stopped,
    arguments::{ProjectArguments, ResumeArguments},
    exit_code::ExitCode,
    print::Printer,
    project::Project,
    recorded::{self, Recorded},
    run::{Again, Ready, runtime},
};
use crate::{
    failure::{Failure, Turn},
    plan::Plan,
    run::Assumed,
    schedule::Event,
};
use std::collections::HashMap;

pub(super) fn resume(
    arguments: &ProjectArguments,
    command: &ResumeArguments,
    printer: &Printer,
) -> Result<ExitCode> {
    let project = Project::find(arguments, printer)?;
    let named = command.choice.run.as_deref();
    let recorded = recorded::find(
        &project,
        named,
        "to resume",
        &|history| history.is_resumable,
        printer,
    )?;
    let history = &recorded.history;
    if !history.is_resumable {
        let exit = history
            .exit
            .as_ref()
            .map_or(String::new(), |exit| format!(" (exit {})", exit.code));
        let message = format!("run {} has ended{exit}: there is nothing to resume", history.id);
        return printer.stop(
            &Failure::new(Turn::Operator, "resume.ended", message).help(format!(
                "`windlass runs show {}`; `windlass run` starts a new one",
                history.id
            )),
        );
    }
    let (planned, approved) = recorded::plan_again(&project, &recorded, printer)?;
    let assumed = assumed(&planned.plan, &command.assume, printer)?;
    let Recorded { state, history } = recorded;
    let ready = Ready {
        left_out: left_out(&planned.plan, &history),
        inputs: history.inputs.clone().unwrap_or_default(),
        again: Some(Again {
            history,
            goes_on: Event::Resumed,
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

/// The stages that were left out at the start, as the journal has them.
pub(super) fn left_out(plan: &Plan, history: &crate::journal::RunHistory) -> Vec<usize> {
    let names = history.inputs.iter().flat_map(|inputs| &inputs.left_out);
    let names: Vec<&str> = names.map(String::as_str).collect();
    let is_one = |number: &usize| names.contains(&plan.stages[*number].stage.name.as_str());
    (0..plan.stages.len()).filter(is_one).collect()
}

/// `--assume`, by the numbers of the stages.
pub(super) fn assumed(
    plan: &Plan,
    said: &[(String, Assumed)],
    printer: &Printer,
) -> Result<HashMap<usize, Assumed>> {
    let numbered = |(name, answer): &(String, Assumed)| {
        let mut stages = plan.stages.iter();
        match stages.position(|planned| planned.stage.name.as_str() == name) {
            Some(number) => Ok((number, *answer)),
            None => Err(Failure::new(
                Turn::Operator,
                "selection.unknown-stage",
                format!("--assume: there is no stage `{name}`"),
            )
            .help("`windlass runs show` names the stages of the run")),
        }
    };
    let assumed: std::result::Result<_, Failure> = said.iter().map(numbered).collect();
    assumed.map_err(|failure| {
        printer.failure(&failure);
        Stopped(ExitCode::USAGE)
    })
}
