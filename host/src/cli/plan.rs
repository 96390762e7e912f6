//! `windlass plan`: what would run, with which plugin and capabilities, and what the plugins say they would do.

use super::{
    Result,
    arguments::{Format, PipelineArguments, PlanArguments, ProjectArguments},
    exit_code::ExitCode,
    load, planners,
    print::Printer,
    project::Project,
};
use crate::{
    failure::{Failure, Turn},
    plan::render::{self, Effects},
};
use std::path::PathBuf;

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
        true => planners::ask(&project, &planned, &approved, &|_| true, true, printer)?,
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
