//! `windlass plan`: what would run, with which plugin and capabilities, and what the plugins say they would do.

use super::{
    Result, Stopped,
    arguments::{Format, PipelineArguments, PlanArguments, ProjectArguments},
    exit_code::ExitCode,
    load::{self, Planned},
    print::Printer,
    project::Project,
    run::{engine_address, exit_code, load_plugins, new_run_id, runtime, sandbox},
};
use crate::{
    capability::Capability,
    event::RunEvent,
    failure::{Failure, Turn},
    grant::ApprovedPlan,
    journal::Ephemeral,
    pattern::Pattern,
    plan::render::{self, Effects},
    report::redact::Redactor,
    run::{attempt::Workshop, ledger::Ledger, scratch::ScratchPool, wiring::Wiring},
    sandbox::Answer,
    secret::{self, Sources},
};
use serde_json::Value as Json;
use std::{path::PathBuf, sync::Arc};
use tokio::sync::mpsc;

pub(super) fn plan(
    project: &ProjectArguments,
    command: &PlanArguments,
    printer: &Printer,
) -> Result<ExitCode> {
    let shown = Shown {
        format: command.format,
        out: command.out.clone(),
        detailed: command.detailed_exitcode,
        effects: !command.no_effects,
    };
    show(project, &command.pipeline, &shown, printer)
}

/// `windlass run -n`.
pub(super) fn dry_run(
    project: &ProjectArguments,
    pipeline: &PipelineArguments,
    printer: &Printer,
) -> Result<ExitCode> {
    show(
        project,
        pipeline,
        &Shown {
            format: Format::Text,
            out: None,
            detailed: false,
            effects: true,
        },
        printer,
    )
}

struct Shown {
    format: Format,
    out: Option<PathBuf>,
    detailed: bool,
    effects: bool,
}

fn show(
    arguments: &ProjectArguments,
    pipeline: &PipelineArguments,
    shown: &Shown,
    printer: &Printer,
) -> Result<ExitCode> {
    let project = Project::find(arguments, printer)?;
    let file = project.pipeline_file(pipeline.file.as_deref(), printer)?;
    let (planned, approved) = load::approved(
        &project,
        &file,
        pipeline.overlay.as_deref(),
        &pipeline.values,
        printer,
    )?;
    let has_planner = planned.descriptors.values().any(|plugin| plugin.has_planner);
    let effects = match shown.effects && has_planner {
        true => ask(&project, &planned, &approved, printer)?,
        false => Effects::new(),
    };
    let json = render::to_json(&planned.plan, &effects);
    if let Some(out) = &shown.out
        && let Err(error) = std::fs::write(project.open_path(out), format!("{json:#}\n"))
    {
        let message = format!("cannot write the plan {}: {error}", out.display());
        return printer.stop(&Failure::new(Turn::Operator, "plan.unwritable", message));
    }
    match shown.format {
        Format::Json => printer.data(&format!("{json:#}")),
        Format::Text => printer.data(&render::to_text(&planned.plan, &effects)),
    }
    let has_changes = planned.plan.stages.iter().enumerate().any(|(number, planned)| {
        // Without a planner nobody can say that nothing would change.
        !planned.plugin.has_planner || effects.get(&number).is_none_or(|effects| !effects.is_empty())
    });
    Ok(if shown.detailed && has_changes {
        ExitCode::CHANGES
    } else {
        ExitCode::SUCCEEDED
    })
}

/// Runs the planners, with functions that only read, and checks what they would do against the grants.
fn ask(project: &Project, planned: &Planned, approved: &ApprovedPlan, printer: &Printer) -> Result<Effects> {
    let runtime = runtime(printer)?;
    let state = project.state(&planned.plan.pipeline.name, printer)?;
    let run = new_run_id(printer)?;
    runtime.block_on(async {
        let redactor = Redactor::new();
        let sources = Sources {
            root: project.root.clone(),
            variable: Box::new(|name| std::env::var(name).ok()),
            docker_secrets: PathBuf::from("/run/secrets"),
            read: Box::new(secret::read_bounded),
        };
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
        for (number, stage) in planned
            .plan
            .stages
            .iter()
            .enumerate()
            .filter(|(_, stage)| stage.plugin.has_planner)
        {
            let ledger = Arc::new(Ledger::new(Arc::new(Ephemeral)));
            let answer = workshop.effects(number, run.clone(), ledger, silent()).await;
            match answer.outcome {
                Ok(Answer::Plan(Json::Array(list))) => {
                    check_effects(approved, number, &list).map_err(|failure| {
                        printer.failure(&failure);
                        Stopped(ExitCode::DENIED)
                    })?;
                    effects.insert(number, list);
                }
                Ok(_) => {}
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
        Ok(effects)
    })
}

/// An effect that names its capability and value must be granted.
fn check_effects(
    approved: &ApprovedPlan,
    stage: usize,
    effects: &[Json],
) -> std::result::Result<(), Failure> {
    for effect in effects {
        let part = |key: &str| effect.get(key).and_then(Json::as_str);
        let (Some(capability), Some(value)) =
            (part("capability").and_then(Capability::from_name), part("value"))
        else {
            continue;
        };
        let granted = Pattern::parse(capability, value)
            .is_ok_and(|pattern| approved.grant(stage).covering(capability, &pattern).is_some());
        if !granted {
            let message = format!(
                "stage `{}` plans `{capability}` for `{value}`, which is not granted",
                approved.grant(stage).stage
            );
            return Err(Failure::new(Turn::PipelineAuthor, "grant.denied", message));
        }
    }
    Ok(())
}

/// Planners may log; nobody reads it.
fn silent() -> mpsc::Sender<RunEvent> {
    let (sender, mut receiver) = mpsc::channel(64);
    tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    sender
}
