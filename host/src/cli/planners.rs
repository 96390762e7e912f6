//! Asks plugins what their stages would do, before anything is done.

use super::{
    Result, Stopped,
    exit_code::ExitCode,
    load::Planned,
    print::Printer,
    project::Project,
    run::{engine_address, exit_code, load_plugins, new_run_id, runtime, sandbox},
    secrets,
};
use crate::{
    capability::Capability,
    catalog::request::{Part, RequestRow},
    event::RunEvent,
    failure::{Failure, Turn},
    grant::{ApprovedPlan, stage_grant::allow_line},
    journal::Ephemeral,
    pattern::Pattern,
    plan::{PlannedStage, render::Effects},
    report::redact::Redactor,
    run::{attempt::Workshop, ledger::Ledger, scratch::ScratchPool, wiring::Wiring},
    sandbox::Answer,
    secret,
};
use serde_json::Value as Json;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Runs the planners, with functions that only read, and checks what they would do against the grants.
/// `wanted`: which stages are asked. `tell`: whether to say of a stage that it cannot say yet.
pub(super) fn ask(
    project: &Project,
    planned: &Planned,
    approved: &ApprovedPlan,
    wanted: &dyn Fn(&PlannedStage) -> bool,
    tell: bool,
    printer: &Printer,
) -> Result<Effects> {
    let runtime = runtime(printer)?;
    let state = project.state(&planned.plan.pipeline.name, printer)?;
    let run = new_run_id(printer)?;
    runtime.block_on(async {
        let redactor = Redactor::new();
        let sources = secrets::sources(project, &planned.plan).or_else(|failure| printer.stop(&failure))?;
        let secrets = secret::Store::new(
            planned.plan.pipeline.secrets.clone(),
            sources,
            Arc::new(redactor.clone()),
        );
        let scratch = state.join("scratch").join(run.as_str());
        let wiring = Wiring::new(
            &planned.plan,
            &project.root,
            Arc::new(secrets),
            &state,
            engine_address(),
        );
        let sandbox = sandbox(project, printer)?;
        let workshop = Workshop {
            approved: approved.clone(),
            plugins: load_plugins(&sandbox, planned, printer).await?,
            sandbox,
            root: project.root.clone(),
            scratch: ScratchPool::new(&scratch).or_else(|failure| printer.stop(&failure))?,
            wiring: wiring.or_else(|failure| printer.stop(&failure))?,
            exit_code,
        };
        let mut effects = Effects::new();
        let mut is_denied = false;
        for (number, stage) in planned
            .plan
            .stages
            .iter()
            .enumerate()
            .filter(|(_, stage)| stage.plugin.has_planner && wanted(stage))
        {
            let ledger = Arc::new(Ledger::new(Arc::new(Ephemeral)));
            let answer = workshop.effects(number, run.clone(), ledger, silent()).await;
            match answer.outcome {
                Ok(Answer::Plan(Json::Array(list))) => {
                    let denied = denials(approved, number, &list);
                    denied.iter().for_each(|failure| printer.failure(failure));
                    is_denied |= !denied.is_empty();
                    effects.insert(number, list);
                }
                Ok(_) => {}
                Err(mut failure) if is_invalid(&failure) => {
                    failure.message = redactor.redact(&failure.message);
                    printer.failure(&failure);
                    return Err(Stopped(ExitCode::INVALID));
                }
                Err(_) if !tell => {}
                Err(failure) => {
                    // What a planner needs may only be there once earlier stages have run.
                    let name = &stage.stage.name;
                    printer.say(&format!(
                        "note: stage `{name}` cannot say yet what it would do: {}",
                        redactor.redact(&failure.message)
                    ));
                }
            }
        }
        if is_denied {
            return Err(Stopped(ExitCode::DENIED));
        }
        Ok(effects)
    })
}

/// What a plan cannot tell from `with:` alone, such as what compose files ask for, is asked of the planners before anything starts.
///
/// # Errors
/// Something would be done that is not granted: exit 77.
pub(super) fn check(
    project: &Project,
    planned: &Planned,
    approved: &ApprovedPlan,
    printer: &Printer,
) -> Result<()> {
    let depends = |stage: &PlannedStage| {
        let is_planned = |row: &RequestRow| row.part == Part::Planned;
        stage.needs.iter().any(|need| need.pattern.is_none()) || stage.plugin.requests.iter().any(is_planned)
    };
    let any = |stage: &PlannedStage| stage.plugin.has_planner && depends(stage);
    match planned.plan.stages.iter().any(any) {
        true => ask(project, planned, approved, &depends, false, printer).map(drop),
        false => Ok(()),
    }
}

/// Whether no earlier stage could mend it: a file asks for what cannot be.
fn is_invalid(failure: &Failure) -> bool {
    failure.code == "compose.invalid"
        || failure.code == "config.invalid"
        || failure.code.ends_with(".unsupported")
}

/// Every effect that names its capability and value must be granted.
fn denials(approved: &ApprovedPlan, stage: usize, effects: &[Json]) -> Vec<Failure> {
    let grant = approved.grant(stage);
    let denied = effects.iter().filter_map(|effect| {
        let part = |key: &str| effect.get(key).and_then(Json::as_str);
        let capability = part("capability").and_then(Capability::from_name)?;
        let value = part("value")?;
        let pattern = Pattern::parse(capability, value);
        let is_granted = |pattern: &Pattern| grant.covering(capability, pattern).is_some();
        if pattern.as_ref().is_ok_and(is_granted) {
            return None;
        }
        let message = format!(
            "stage `{}` plans `{capability}` for `{value}`, which is not granted",
            grant.stage
        );
        let failure = Failure::new(Turn::PipelineAuthor, "grant.denied", message);
        Some(match pattern {
            Ok(pattern) => failure.help(format!(
                "if it should, add to `{}` under `allow:`: {}",
                grant.stage.base(),
                allow_line(capability, &pattern)
            )),
            Err(_) => failure,
        })
    });
    let mut unique: Vec<Failure> = Vec::new();
    denied.for_each(|failure| {
        if !unique.contains(&failure) {
            unique.push(failure);
        }
    });
    unique
}

/// Planners may log; nobody reads it.
fn silent() -> mpsc::Sender<RunEvent> {
    let (sender, mut receiver) = mpsc::channel(64);
    tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    sender
}
