//! From a pipeline file to an approved plan: the part that `run`, `plan` and `validate` share.

use super::{Result, arguments::ValueArguments, print::Printer, project::Project};
use crate::{
    catalog::{self, Component, Descriptor},
    diagnostic::{Diagnostic, Diagnostics},
    failure::Failure,
    grant::{ApprovedPlan, approve},
    pipeline::{self, LoadRequest, MissingValues, Pipeline, model::PluginReference},
    plan::{self, Plan},
    source::Span,
};
use indexmap::IndexMap;
use std::{path::Path, sync::Arc};

/// A pipeline with its plugins.
pub(super) struct Planned {
    pub(super) plan: Arc<Plan>,
    pub(super) components: IndexMap<PluginReference, Component>,
    pub(super) descriptors: IndexMap<PluginReference, Arc<Descriptor>>,
    pub(super) warnings: Diagnostics,
}

/// Reads one pipeline file. Nothing else is opened but what it names: overlay, env files, plugins.
pub(super) fn read(
    project: &Project,
    file: &Path,
    overlay: Option<&str>,
    values: &ValueArguments,
    missing: MissingValues,
) -> std::result::Result<(Pipeline, Diagnostics), Diagnostics> {
    let opened = project.open_path(file);
    let shown = opened.strip_prefix(&project.here).unwrap_or(&opened);
    pipeline::load(&LoadRequest {
        root: &project.root,
        file: &opened,
        shown: shown.display().to_string(),
        overlay: overlay.map(String::from),
        vars: values.vars.clone(),
        var_files: values
            .var_file
            .iter()
            .map(|path| project.open_path(path))
            .collect(),
        env_files: values
            .env_file
            .iter()
            .map(|path| project.open_path(path))
            .collect(),
        reader: &|path| std::fs::read_to_string(path),
        process_env: &|name| std::env::var(name).ok(),
        missing,
    })
}

/// Reads the plugins of a pipeline and plans it. All problems at once.
pub(super) fn plan(project: &Project, pipeline: Pipeline) -> std::result::Result<Planned, Diagnostics> {
    let mut problems = Diagnostics::new();
    let (mut components, mut descriptors) = (IndexMap::new(), IndexMap::new());
    let mut failed: Vec<PluginReference> = Vec::new();
    for stage in pipeline.stages.iter().chain(&pipeline.finally) {
        if descriptors.contains_key(&stage.uses) || failed.contains(&stage.uses) {
            continue;
        }
        let described = describe(project, &stage.uses).and_then(|(component, descriptor)| {
            descriptor.check_imports(&component.reference)?;
            Ok((component, descriptor))
        });
        match described {
            Ok((component, descriptor)) => {
                components.insert(stage.uses.clone(), component);
                descriptors.insert(stage.uses.clone(), Arc::new(descriptor));
            }
            Err(failure) => {
                problems.push(diagnostic(&failure, &stage.uses_span));
                failed.push(stage.uses.clone());
            }
        }
    }
    match plan::build(Arc::new(pipeline), &descriptors) {
        Ok((plan, warnings)) if !problems.has_errors() => {
            problems.append(warnings);
            Ok(Planned {
                plan: Arc::new(plan),
                components,
                descriptors,
                warnings: problems,
            })
        }
        Ok((_, more)) | Err(more) => {
            problems.append(more);
            Err(problems)
        }
    }
}

/// File, plugins, plan and approval; every problem is said before this returns.
pub(super) fn approved(
    project: &Project,
    file: &Path,
    overlay: Option<&str>,
    values: &ValueArguments,
    printer: &Printer,
) -> Result<(Planned, ApprovedPlan)> {
    let (pipeline, mut warnings) = match read(project, file, overlay, values, MissingValues::Refuse) {
        Ok(read) => read,
        Err(problems) => return printer.stop_for(&problems),
    };
    let planned = match plan(project, pipeline) {
        Ok(planned) => planned,
        Err(mut problems) => {
            warnings.append(std::mem::take(&mut problems));
            return printer.stop_for(&warnings);
        }
    };
    warnings.append(planned.warnings.clone());
    match approve(planned.plan.clone()) {
        Ok((approved, more)) => {
            warnings.append(more);
            if !warnings.is_empty() {
                printer.problems(&warnings);
            }
            Ok((planned, approved))
        }
        Err(denials) => printer.stop_for(&denials),
    }
}

/// A plugin's bytes and what it says of itself. Nothing of it is executed.
pub(super) fn describe(
    project: &Project,
    reference: &PluginReference,
) -> std::result::Result<(Component, Descriptor), Failure> {
    let component = catalog::locate(reference, &project.root)?;
    let descriptor = catalog::describe(&component)?;
    Ok((component, descriptor))
}

fn diagnostic(failure: &Failure, span: &Span) -> Diagnostic {
    let problem = Diagnostic::error("plugin.unusable", failure.message.clone())
        .at(span)
        .label(failure.code.clone());
    match &failure.help {
        Some(help) => problem.help(help.clone()),
        None => problem,
    }
}
