//! From a pipeline file to an approved plan: the part that `run`, `plan` and `validate` share.

use super::{Result, arguments::ValueArguments, print::Printer, project::Project};
use crate::{
    catalog::{self, Component, Descriptor},
    diagnostic::{Diagnostic, Diagnostics},
    failure::Failure,
    grant::{ApprovedPlan, approve},
    journal::record::WireInputs,
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
        recorded_env: None,
        missing,
    })
}

/// What the plan of a run was made from, for the journal.
pub(super) fn inputs(
    project: &Project,
    file: &Path,
    overlay: Option<&str>,
    values: &ValueArguments,
    planned: &Planned,
) -> WireInputs {
    let pipeline = &planned.plan.pipeline;
    let named = |path: &Path| relative(project, &project.open_path(path));
    let texts = pipeline.sources.iter();
    WireInputs {
        file: named(file),
        overlay: overlay.map(String::from),
        var_files: values.var_file.iter().map(|path| named(path)).collect(),
        texts: texts
            .map(|source| (relative(project, &source.path), source.text.clone()))
            .collect(),
        vars: values.vars.clone(),
        env: pipeline
            .env
            .iter()
            .map(|(name, value)| (name.clone(), value.value.clone()))
            .collect(),
        plugins: planned
            .components
            .iter()
            .map(|(reference, component)| (reference.to_string(), component.digest.to_string()))
            .collect(),
        left_out: Vec::new(),
    }
}

/// Reads the pipeline of an earlier process again: from what its journal holds, or else from the files as they are now.
pub(super) fn read_again(
    project: &Project,
    inputs: &WireInputs,
    from_journal: bool,
) -> std::result::Result<(Pipeline, Diagnostics), Diagnostics> {
    let recorded = |path: &Path| {
        let text = inputs.texts.get(&relative(project, path)).cloned();
        text.ok_or_else(|| std::io::ErrorKind::NotFound.into())
    };
    let on_disk = |path: &Path| std::fs::read_to_string(path);
    pipeline::load(&LoadRequest {
        root: &project.root,
        file: &project.root.join(&inputs.file),
        shown: inputs.file.clone(),
        overlay: inputs.overlay.clone(),
        vars: inputs.vars.clone(),
        var_files: inputs
            .var_files
            .iter()
            .map(|path| project.root.join(path))
            .collect(),
        env_files: Vec::new(),
        reader: if from_journal { &recorded } else { &on_disk },
        process_env: &|name| std::env::var(name).ok(),
        recorded_env: from_journal.then_some(&inputs.env),
        missing: MissingValues::Refuse,
    })
}

/// A path below the root as it is from there; another one whole.
fn relative(project: &Project, path: &Path) -> String {
    path.strip_prefix(&project.root)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// Reads the plugins of a pipeline and plans it. All problems at once.
pub(super) fn plan(project: &Project, pipeline: Pipeline) -> std::result::Result<Planned, Diagnostics> {
    plan_with(pipeline, &|reference| catalog::locate(reference, &project.root))
}

/// The same with plugins from wherever `locate` finds them.
pub(super) fn plan_with(
    pipeline: Pipeline,
    locate: &dyn Fn(&PluginReference) -> std::result::Result<Component, Failure>,
) -> std::result::Result<Planned, Diagnostics> {
    let mut problems = Diagnostics::new();
    let (mut components, mut descriptors) = (IndexMap::new(), IndexMap::new());
    let mut failed: Vec<PluginReference> = Vec::new();
    for stage in pipeline.stages.iter().chain(&pipeline.finally) {
        if descriptors.contains_key(&stage.uses) || failed.contains(&stage.uses) {
            continue;
        }
        let described = locate(&stage.uses).and_then(|component| {
            let descriptor = catalog::describe(&component)?;
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
