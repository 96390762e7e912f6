//! From the text of a pipeline file to a typed [`Pipeline`], with all problems at once. Pure: files come in through a reader,
//! the environment through a function, and nothing of the world is asked otherwise.

pub mod duration;
pub mod env_file;
pub mod expression;
pub mod model;
pub mod schema;

mod environment;
mod fields;
mod grants;
mod graph;
mod keys;
mod matrix;
mod node;
mod problems;
mod reading;
mod secrets;
mod stage;
mod vars;
mod yaml;

pub use model::Pipeline;

use crate::{
    diagnostic::{Diagnostic, Diagnostics},
    name::{PipelineName, SecretName, StageName},
    source::{SourceFile, Span},
};
use environment::Environment;
use expression::Parsers;
use fields::{Fields, entries};
use indexmap::{IndexMap, IndexSet};
use keys::{CONCURRENCY, ORIGIN, TOP};
use model::{Concurrency, Origin, SecretSource, SecretSpec, Stage};
use node::{Entry, Kind, Node};
use problems::{Problems, quoted};
use reading::Reading;
use stage::ReadStage;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};
use vars::Vars;

/// What to load, and with which values.
pub struct LoadRequest<'a> {
    /// The project's root: env files and everything else that the pipeline names are relative to it.
    pub root: &'a Path,
    /// The pipeline file, as it is to be opened.
    pub file: &'a Path,
    /// Its name in messages.
    pub shown: String,
    /// `-e NAME`: `pipeline.NAME.yaml` beside `pipeline.yaml` is laid over it.
    pub overlay: Option<String>,
    /// `--var NAME=VALUE`, in order.
    pub vars: Vec<(String, String)>,
    /// `--var-file`, in order; before `vars`.
    pub var_files: Vec<PathBuf>,
    /// `--env-file`, in order: the highest layer of `env`.
    pub env_files: Vec<PathBuf>,
    pub reader: &'a dyn Fn(&Path) -> io::Result<String>,
    pub process_env: &'a dyn Fn(&str) -> Option<String>,
    pub missing: MissingValues,
}

/// What to do about a variable that is required, or used, and has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingValues {
    /// It is an error: nothing can run.
    Refuse,
    /// Go on without it: a file can be valid before anybody has its values. What depends on it is not checked.
    Unknown,
}

/// Reads a pipeline file, its overlay and its env files.
///
/// # Errors
/// Everything that is wrong with them, in one go. Without errors, the warnings come with the pipeline.
pub fn load(request: &LoadRequest<'_>) -> Result<(Pipeline, Diagnostics), Diagnostics> {
    let mut loader = Loader {
        request,
        problems: Problems::default(),
        sources: Vec::new(),
    };
    let pipeline = loader.pipeline();
    let diagnostics = loader.problems.into_diagnostics();
    match pipeline {
        Some(pipeline) => diagnostics.into_result(pipeline),
        None => Err(diagnostics),
    }
}

struct Loader<'a> {
    request: &'a LoadRequest<'a>,
    problems: Problems,
    sources: Vec<Arc<SourceFile>>,
}

impl<'a> Loader<'a> {
    fn pipeline(&mut self) -> Option<Pipeline> {
        let shown = self.request.shown.clone();
        let mut document = self.document(self.request.file, &shown)?;
        if let Some(name) = &self.request.overlay {
            document.merge(self.overlay(name)?);
        }
        let mut top = Fields::read(document, "the pipeline", TOP, &mut self.problems)?;
        self.check_version(&mut top);
        let name = self.name(&mut top);
        top.text("description", &mut self.problems);
        let vars = self.vars(&mut top);
        let environment_files = top.texts("env-files", &mut self.problems);
        let environment = self.environment(top.take("env"), &environment_files);
        let secrets = secrets::read(top.take("secrets"), &mut self.problems);
        let secret_files = secret_files(&secrets, &environment_files);
        let directories = directories(top.take("directories"), &mut self.problems);
        let origins = origins(top.take("origins"), &mut self.problems);
        let defaults = stage::defaults(top.take("defaults"), &mut self.problems);
        let concurrency = top.take("concurrency");
        let (stages, finally) = (
            self.stage_entries("stages", top.take("stages")),
            self.stage_entries("finally", top.take("finally")),
        );
        let (names, finally_names) = (names(&stages), names(&finally));
        refuse_same_names(&stages, &finally, &mut self.problems);
        check_sources(&secrets, &names, &mut self.problems);
        let all = names.union(&finally_names).cloned().collect();
        let mut parsers = Parsers::default();
        let mut reading = Reading {
            vars: &vars,
            environment: &environment,
            secrets: &secrets,
            directories: &directories,
            stages: &all,
            missing: self.request.missing,
            parsers: &mut parsers,
            problems: &mut self.problems,
        };
        let concurrency = concurrency.and_then(|node| read_concurrency(node, &mut reading));
        let mut read = |entries: Vec<Entry>| -> Vec<ReadStage> {
            entries
                .into_iter()
                .flat_map(|entry| stage::read(entry, &defaults, &secret_files, &mut reading))
                .collect()
        };
        let (mut stages, mut finally) = (read(stages), read(finally));
        graph::resolve(&mut stages, "stages", &finally_names, &mut self.problems);
        graph::resolve(&mut finally, "finally", &names, &mut self.problems);
        let finish = |read: Vec<ReadStage>| read.into_iter().map(|one| one.stage).collect::<Vec<Stage>>();
        let (stages, finally) = (finish(stages), finish(finally));
        Some(Pipeline {
            name: name?,
            cells: cells(stages.iter().chain(&finally)),
            sources: std::mem::take(&mut self.sources),
            vars: vars.values,
            env: environment.values,
            secrets,
            directories,
            origins,
            concurrency,
            stages,
            finally,
        })
    }

    /// One YAML file; it is kept among the sources.
    fn document(&mut self, path: &Path, shown: &str) -> Option<Node> {
        let file = self.file(path, shown, None)?;
        yaml::parse(&file, &mut self.problems)
    }

    fn file(&mut self, path: &Path, shown: &str, named_at: Option<&Span>) -> Option<Arc<SourceFile>> {
        match (self.request.reader)(path) {
            Ok(text) => {
                let file = Arc::new(SourceFile::new(shown, path, text));
                self.sources.push(file.clone());
                Some(file)
            }
            Err(error) => {
                let message = match error.kind() {
                    io::ErrorKind::NotFound => format!("there is no file {}", quoted(shown)),
                    io::ErrorKind::InvalidData => format!("{} is not UTF-8 text", quoted(shown)),
                    _ => format!("{} cannot be read: {error}", quoted(shown)),
                };
                let mut problem = Diagnostic::error("pipeline.file", message);
                problem.span = named_at.cloned();
                self.problems.push(problem);
                None
            }
        }
    }

    /// `pipeline.NAME.yaml` beside `pipeline.yaml`.
    fn overlay(&mut self, name: &str) -> Option<Node> {
        if !is_word(name) {
            let message = format!("-e: {} cannot be the name of an overlay", quoted(name));
            self.problems.push(
                Diagnostic::error("pipeline.overlay", message).help("it takes letters, digits, `_` and `-`"),
            );
            return None;
        }
        let path = overlay_path(self.request.file, name);
        let shown = overlay_path(Path::new(&self.request.shown), name)
            .display()
            .to_string();
        let node = self.document(&path, &shown)?;
        if !matches!(node.kind, Kind::Map(_)) {
            self.problems
                .error("pipeline.type", &node.span, "an overlay must be a map");
            return None;
        }
        Some(node)
    }

    fn check_version(&mut self, top: &mut Fields) {
        let Some(node) = top.take("windlass") else { return };
        if !matches!(&node.kind, Kind::Number(number) if number.as_u64() == Some(1)) {
            let message = "this version of Windlass reads format 1";
            self.problems
                .error_with_help("pipeline.version", &node.span, message, "write `windlass: 1`");
        }
    }

    fn name(&mut self, top: &mut Fields) -> Option<PipelineName> {
        let (text, span) = top.text("name", &mut self.problems)?;
        let name = PipelineName::new(&text);
        name.map_err(|error| self.problems.error("pipeline.name", &span, error.to_string()))
            .ok()
    }

    fn vars(&mut self, top: &mut Fields) -> Vars {
        let mut vars = Vars::read(top.take("vars"), &mut self.problems);
        for path in &self.request.var_files {
            if let Some(node) = self.document(path, &path.display().to_string()) {
                vars.read_file(node, &mut self.problems);
            }
        }
        for (name, text) in &self.request.vars {
            vars.set(name, text, &mut self.problems);
        }
        vars.check_required(self.request.missing, &mut self.problems);
        vars
    }

    fn environment(&mut self, node: Option<Node>, files: &[(String, Span)]) -> Environment<'a> {
        let request = self.request;
        let mut environment = Environment::read(node, request.process_env, &mut self.problems);
        for (name, span) in files {
            if let Some(file) = self.file(&request.root.join(name), name, Some(span)) {
                environment.read_file(&file, name, &mut self.problems);
            }
        }
        environment.read_process();
        for path in &request.env_files {
            let shown = path.display().to_string();
            if let Some(file) = self.file(path, &shown, None) {
                environment.read_file(&file, &format!("--env-file {shown}"), &mut self.problems);
            }
        }
        environment
    }

    fn stage_entries(&mut self, section: &str, node: Option<Node>) -> Vec<Entry> {
        let Some(node) = node else { return Vec::new() };
        let span = node.span.clone();
        let mut stages = entries(Some(node), &format!("`{section}`"), &mut self.problems);
        stages.retain(|entry| !entry.key.starts_with("x-"));
        if stages.is_empty() && section == "stages" && !self.problems.has_errors() {
            self.problems
                .error("pipeline.missing-key", &span, "`stages` has no stage");
        }
        stages
    }
}

/// `a/pipeline.yaml` and `production` to `a/pipeline.production.yaml`.
fn overlay_path(file: &Path, name: &str) -> PathBuf {
    let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let (stem, extension) = (part(file.file_stem()), part(file.extension()));
    let file_name = if extension.is_empty() {
        format!("{stem}.{name}")
    } else {
        format!("{stem}.{name}.{extension}")
    };
    file.with_file_name(file_name)
}

fn is_word(text: &str) -> bool {
    StageName::new(text).is_ok()
}

/// Names that expressions can use without quotes, and cells without confusion.
fn check_word(name: &str, what: &str, span: &Span, problems: &mut Problems) {
    if !is_word(name) {
        let message = format!("{} cannot be the name of a {what}", quoted(name));
        problems.error_with_help(
            "pipeline.name",
            span,
            message,
            "it takes 1 to 64 letters, digits, `_` and `-`, not starting with `-`",
        );
    }
}

fn names(entries: &[Entry]) -> IndexSet<Box<str>> {
    entries.iter().map(|entry| entry.key.clone()).collect()
}

fn refuse_same_names(stages: &[Entry], finally: &[Entry], problems: &mut Problems) {
    for entry in finally {
        if let Some(first) = stages.iter().find(|stage| stage.key == entry.key) {
            let message = format!("there is a stage {} already", quoted(&entry.key));
            problems.push(
                Diagnostic::error("pipeline.duplicate-key", message)
                    .at(&entry.key_span)
                    .related(&first.key_span, "here"),
            );
        }
    }
}

/// `stage://` must name a stage.
fn check_sources(
    secrets: &IndexMap<SecretName, SecretSpec>,
    stages: &IndexSet<Box<str>>,
    problems: &mut Problems,
) {
    for spec in secrets.values() {
        if let SecretSource::Stage { stage, .. } = &spec.from {
            if !stages.contains(stage.as_str()) {
                let message = expression::unknown(
                    "stage",
                    stage.as_str(),
                    stages.iter().take(1_000).map(|name| &**name),
                );
                problems.error("pipeline.secret", &spec.span, message);
            }
        }
    }
}

/// The files of the root that a stage must not be given with a whole tree.
fn secret_files(secrets: &IndexMap<SecretName, SecretSpec>, env_files: &[(String, Span)]) -> Vec<String> {
    let sources = secrets
        .values()
        .flat_map(|spec| std::iter::once(&spec.from).chain(&spec.key));
    let paths = sources.filter_map(|source| match source {
        SecretSource::File { path, .. } => path.to_str().map(String::from),
        _ => None,
    });
    let all = paths.chain(env_files.iter().map(|(path, _)| path.clone()));
    all.map(|path| path.trim_start_matches("./").to_string())
        .collect()
}

fn directories(node: Option<Node>, problems: &mut Problems) -> IndexMap<String, PathBuf> {
    let mut directories = IndexMap::new();
    for entry in entries(node, "`directories`", problems) {
        check_word(&entry.key, "directory", &entry.key_span, problems);
        let what = format!("the directory `{}`", entry.key);
        if let Some((path, _)) = fields::text(entry.value, &what, problems) {
            directories.insert(entry.key.into(), PathBuf::from(path));
        }
    }
    directories
}

fn origins(node: Option<Node>, problems: &mut Problems) -> IndexMap<String, Origin> {
    let mut origins = IndexMap::new();
    for entry in entries(node, "`origins`", problems) {
        let pattern = crate::pattern::Pattern::parse(crate::capability::Capability::Http, &entry.key);
        if let Err(error) = pattern {
            problems.error("pipeline.pattern", &entry.key_span, error.to_string());
        }
        let what = format!("the origin {}", quoted(&entry.key));
        let Some(mut fields) = Fields::read(entry.value, &what, ORIGIN, problems) else {
            continue;
        };
        let connect = fields.text("connect", problems).and_then(|(text, span)| {
            match crate::pattern::Pattern::parse(crate::capability::Capability::Tcp, &text) {
                Ok(_) => Some(text),
                Err(error) => {
                    problems.error("pipeline.pattern", &span, error.to_string());
                    None
                }
            }
        });
        let ca = fields.text("ca", problems).map(|(path, _)| PathBuf::from(path));
        origins.insert(entry.key.into(), Origin { connect, ca });
    }
    origins
}

fn read_concurrency(node: Node, reading: &mut Reading<'_>) -> Option<Concurrency> {
    let mut fields = Fields::read(node, "`concurrency`", CONCURRENCY, reading.problems)?;
    let group = fields.take("group")?;
    let text = reading.constant_text(&group, "`group`", "concurrency", &IndexMap::new())?;
    check_word(&text, "group", &group.span, reading.problems);
    Some(Concurrency { group: text })
}

/// The cells of stages with a matrix.
fn cells<'a>(stages: impl Iterator<Item = &'a Stage>) -> IndexMap<String, Vec<StageName>> {
    let mut cells: IndexMap<String, Vec<StageName>> = IndexMap::new();
    for stage in stages.filter(|stage| !stage.matrix.is_empty()) {
        cells
            .entry(stage.name.base().to_string())
            .or_default()
            .push(stage.name.clone());
    }
    cells
}
