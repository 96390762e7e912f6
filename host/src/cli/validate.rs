//! `windlass validate`: all problems of the files at once. Touches nothing, contacts nobody.

use super::{
    Result,
    arguments::{ProjectArguments, ValidateArguments},
    exit_code::ExitCode,
    load,
    print::Printer,
    project::Project,
};
use crate::{diagnostic::Diagnostics, grant::approve, pipeline::MissingValues};
use std::path::Path;

pub(super) fn validate(
    project: &ProjectArguments,
    command: &ValidateArguments,
    printer: &Printer,
) -> Result<ExitCode> {
    let project = Project::find(project, printer)?;
    let files = match command.files.as_slice() {
        [] => vec![project.pipeline_file(None, printer)?],
        files => files.to_vec(),
    };
    let mut all = Diagnostics::new();
    for file in &files {
        let problems = problems(&project, file, command);
        if problems.is_empty() {
            printer.say(&format!("{}: valid", file.display()));
        }
        all.append(problems);
    }
    if all.has_errors() || (command.strict && !all.is_empty()) {
        return match printer.stop_for::<ExitCode>(&all) {
            // With --strict, a warning is as good as an error: there is none to tell denials from.
            Err(super::Stopped(_)) if !all.has_errors() => Ok(ExitCode::INVALID),
            stopped => stopped,
        };
    }
    if !all.is_empty() {
        printer.problems(&all);
    }
    Ok(ExitCode::SUCCEEDED)
}

/// Everything that is wrong with one file, its plugins and its grants.
fn problems(project: &Project, file: &Path, command: &ValidateArguments) -> Diagnostics {
    let overlay = command.overlay.as_deref();
    let (pipeline, mut problems) =
        match load::read(project, file, overlay, &command.values, MissingValues::Unknown) {
            Ok(read) => read,
            Err(problems) => return problems,
        };
    let planned = match load::plan(project, pipeline) {
        Ok(planned) => planned,
        Err(more) => {
            problems.append(more);
            return problems;
        }
    };
    problems.append(planned.warnings);
    match approve(planned.plan) {
        Ok((_, more)) | Err(more) => problems.append(more),
    }
    problems
}
