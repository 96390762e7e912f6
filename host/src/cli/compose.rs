//! `windlass compose config`: compose files resolved, printed in the specification's own keys. Touches nothing but the files.

use super::{
    Result,
    arguments::{ComposeArguments, ComposeCommand, ComposeConfig, ComposeFormat, ProjectArguments},
    exit_code::ExitCode,
    print::Printer,
    project::Project,
};
use crate::{
    compose::{self, LoadRequest},
    diagnostic::{Diagnostic, Diagnostics},
    failure::{Failure, Turn},
    pipeline::env_file,
    source::{SourceFile, Span},
};
use serde_json::Value as Json;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Looked for where no file is named: the first that exists, and the override beside it.
const USUAL: [[&str; 2]; 4] = [
    ["compose.yaml", "compose.override.yaml"],
    ["compose.yml", "compose.override.yml"],
    ["docker-compose.yml", "docker-compose.override.yml"],
    ["docker-compose.yaml", "docker-compose.override.yaml"],
];

pub(super) fn compose(
    project: &ProjectArguments,
    command: &ComposeArguments,
    printer: &Printer,
) -> Result<ExitCode> {
    let project = Project::find(project, printer)?;
    match &command.command {
        ComposeCommand::Config(config) => self::config(&project, config, printer),
    }
}

fn config(project: &Project, command: &ComposeConfig, printer: &Printer) -> Result<ExitCode> {
    let files = files(project, command, printer)?;
    let directory = files
        .first()
        .and_then(|first| first.parent())
        .unwrap_or(Path::new("/"));
    let variables = variables(project, command, directory).or_else(|problems| printer.stop_for(&problems))?;
    let environment = |name: &str| std::env::var(name).ok().or_else(|| variables.get(name).cloned());
    let given = |name: &str| environment(name).filter(|value| !value.is_empty());
    let profiles = match command.profiles.is_empty() {
        true => given("COMPOSE_PROFILES")
            .map_or_else(Vec::new, |names| names.split(',').map(String::from).collect()),
        false => command.profiles.clone(),
    };
    let loaded = compose::load(&LoadRequest {
        files: files.clone(),
        directory: None,
        name: command
            .project_name
            .clone()
            .or_else(|| given("COMPOSE_PROJECT_NAME")),
        profiles,
        reader: &|path| std::fs::read_to_string(path),
        shown: &|path| shown(project, path),
        environment: &environment,
        keeps_env_files: false,
    });
    let (resolved, warnings) = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => return printer.stop_for(&problems),
    };
    if !warnings.is_empty() {
        printer.problems(&warnings);
    }
    match print(escape(resolved.document), command.format) {
        Ok(text) => printer.data(&text),
        Err(reason) => {
            let message = format!("the resolved model cannot be printed: {reason}");
            return printer.stop(&Failure::new(Turn::Windlass, "compose.print", message));
        }
    }
    Ok(ExitCode::SUCCEEDED)
}

/// The files as they are to be opened.
fn files(project: &Project, command: &ComposeConfig, printer: &Printer) -> Result<Vec<PathBuf>> {
    if !command.files.is_empty() {
        return Ok(command.files.iter().map(|file| project.open_path(file)).collect());
    }
    for usual in USUAL {
        let [file, laid_over] = usual.map(|name| project.here.join(name));
        if file.is_file() {
            let laid_over = Some(laid_over).filter(|path| path.is_file());
            return Ok([file].into_iter().chain(laid_over).collect());
        }
    }
    let message = format!(
        "there is no compose.yaml or docker-compose.yml in {}",
        project.here.display()
    );
    let failure = Failure::new(Turn::Operator, "compose.file", message);
    printer.stop(&failure.help("name the file: windlass compose config -f FILE"))
}

/// What `--env-file` sets, else the `.env` beside the first file. The process's environment stands above both.
fn variables(
    project: &Project,
    command: &ComposeConfig,
    directory: &Path,
) -> std::result::Result<HashMap<String, String>, Diagnostics> {
    let usual = directory.join(".env");
    let files: Vec<PathBuf> = match command.env_file.as_slice() {
        [] => Some(usual).filter(|path| path.is_file()).into_iter().collect(),
        named => named.iter().map(|path| project.open_path(path)).collect(),
    };
    let mut found = HashMap::new();
    let mut problems = Diagnostics::new();
    for path in files {
        let name = shown(project, &path);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("{name} cannot be read: {error}");
                problems.push(Diagnostic::error("compose.env-file", message));
                continue;
            }
        };
        let outer = |name: &str| std::env::var(name).ok().or_else(|| found.get(name).cloned());
        match env_file::parse(&text, &outer) {
            Ok(pairs) => found.extend(pairs),
            Err(lines) => {
                let file = Arc::new(SourceFile::new(name, &path, text));
                for line in lines {
                    let place = Span::line(&file, line.line);
                    problems.push(Diagnostic::error("compose.env-file", line.message).at(&place));
                }
            }
        }
    }
    if problems.has_errors() {
        Err(problems)
    } else {
        Ok(found)
    }
}

fn shown(project: &Project, path: &Path) -> String {
    path.strip_prefix(&project.here)
        .unwrap_or(path)
        .display()
        .to_string()
}

/// What is printed can be read again: a dollar must not look like a variable.
fn escape(value: Json) -> Json {
    match value {
        Json::String(text) => Json::String(text.replace('$', "$$")),
        Json::Array(items) => items.into_iter().map(escape).collect(),
        Json::Object(entries) => entries
            .into_iter()
            .map(|(key, value)| (key, escape(value)))
            .collect(),
        other => other,
    }
}

fn print(document: Json, format: ComposeFormat) -> std::result::Result<String, String> {
    match format {
        ComposeFormat::Yaml => serde_saphyr::to_string(&document).map_err(|error| error.to_string()),
        ComposeFormat::Json => serde_json::to_string_pretty(&document).map_err(|error| error.to_string()),
    }
}
