//! The order in which a pipeline file is read: the file and its overlay, what stands outside of the stages, the stages, and
//! what they wait for. Every file comes in through the request's reader.

use super::{
    LoadRequest, Pipeline,
    environment::Environment,
    expression::Parsers,
    fields::{Fields, entries, is_word},
    graph::{self, Sections},
    keys::TOP,
    model::{Concurrency, Origin, SecretSpec, Stage},
    node::{Entry, Kind, Node},
    problems::{Problems, quoted},
    reading::Reading,
    secrets, settings,
    stage::{self, Defaults, ReadStage},
    vars::Vars,
    yaml,
};
use crate::{
    diagnostic::{Diagnostic, Diagnostics},
    name::{PipelineName, SecretName, StageName},
    source::{SourceFile, Span},
};
use indexmap::{IndexMap, IndexSet};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub(super) fn load(request: &LoadRequest<'_>) -> Result<(Pipeline, Diagnostics), Diagnostics> {
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

/// Everything that stands outside of the stages.
struct Head<'a> {
    name: Option<PipelineName>,
    vars: Vars,
    environment: Environment<'a>,
    secrets: IndexMap<SecretName, SecretSpec>,
    /// Files that no stage may be given with a whole tree.
    secret_files: Vec<String>,
    directories: IndexMap<String, PathBuf>,
    origins: IndexMap<String, Origin>,
    defaults: Defaults,
}

impl<'a> Loader<'a> {
    fn pipeline(&mut self) -> Option<Pipeline> {
        let shown = self.request.shown.clone();
        let mut document = self.document(self.request.file, &shown)?;
        if let Some(name) = &self.request.overlay {
            document.merge(self.overlay(name)?);
        }
        let mut top = Fields::read(document, "the pipeline", TOP, &mut self.problems)?;
        let head = self.head(&mut top);
        let stages = self.section(&mut top, "stages");
        let finally = self.section(&mut top, "finally");
        let (concurrency, stages, finally) = self.stages(&head, top.take("concurrency"), stages, finally);
        Some(Pipeline {
            name: head.name?,
            cells: cells(stages.iter().chain(&finally)),
            sources: std::mem::take(&mut self.sources),
            vars: head.vars.values,
            env: head.environment.values,
            secrets: head.secrets,
            directories: head.directories,
            origins: head.origins,
            concurrency,
            stages,
            finally,
        })
    }

    fn head(&mut self, top: &mut Fields) -> Head<'a> {
        self.check_version(top);
        let name = self.name(top);
        top.text("description", &mut self.problems);
        let vars = self.vars(top);
        let files = top.texts("env-files", &mut self.problems);
        let environment = self.environment(top.take("env"), &files);
        let secrets = secrets::read(top.take("secrets"), &mut self.problems);
        Head {
            name,
            vars,
            environment,
            secret_files: secrets::files(&secrets, &files),
            secrets,
            directories: settings::directories(top.take("directories"), &mut self.problems),
            origins: settings::origins(top.take("origins"), &mut self.problems),
            defaults: stage::defaults(top.take("defaults"), &mut self.problems),
        }
    }

    /// The stages of both sections, with what they wait for.
    fn stages(
        &mut self,
        head: &Head<'_>,
        concurrency: Option<Node>,
        stages: Vec<Entry>,
        finally: Vec<Entry>,
    ) -> (Option<Concurrency>, Vec<Stage>, Vec<Stage>) {
        let names = |entries: &[Entry]| {
            entries
                .iter()
                .map(|entry| entry.key.clone())
                .collect::<IndexSet<_>>()
        };
        let (stage_names, finally_names) = (names(&stages), names(&finally));
        refuse_same_names(&stages, &finally, &stage_names, &mut self.problems);
        secrets::check_stages(&head.secrets, &stage_names, &mut self.problems);
        let mut reading = Reading {
            vars: &head.vars,
            environment: &head.environment,
            secrets: &head.secrets,
            directories: &head.directories,
            stages: &stage_names.union(&finally_names).cloned().collect(),
            missing: self.request.missing,
            parsers: &mut Parsers::default(),
            problems: &mut self.problems,
        };
        let concurrency = concurrency.and_then(|node| settings::concurrency(node, &mut reading));
        let mut read = |entries: Vec<Entry>| -> Vec<ReadStage> {
            let entries = entries.into_iter();
            entries
                .flat_map(|entry| stage::read(entry, &head.defaults, &head.secret_files, &mut reading))
                .collect()
        };
        let (mut stages, mut finally) = (read(stages), read(finally));
        let (own, other) = (&stage_names, &finally_names);
        graph::resolve(
            &mut stages,
            Sections {
                own,
                other,
                is_last: false,
            },
            &mut self.problems,
        );
        let (own, other) = (other, own);
        graph::resolve(
            &mut finally,
            Sections {
                own,
                other,
                is_last: true,
            },
            &mut self.problems,
        );
        let finish = |read: Vec<ReadStage>| read.into_iter().map(|one| one.stage).collect();
        (concurrency, finish(stages), finish(finally))
    }

    /// One YAML file; it is kept among the sources.
    fn document(&mut self, path: &Path, shown: &str) -> Option<Node> {
        let file = self.file(path, shown, None)?;
        self.sources.push(file.clone());
        yaml::parse(&file, &yaml::PIPELINE, &mut self.problems)
    }

    fn file(&mut self, path: &Path, shown: &str, named_at: Option<&Span>) -> Option<Arc<SourceFile>> {
        match (self.request.reader)(path) {
            Ok(text) => Some(Arc::new(SourceFile::new(shown, path, text))),
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
        if let Some(recorded) = request.recorded_env {
            environment.replace(recorded);
            return environment;
        }
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

    /// The entries of `stages` or `finally`.
    fn section(&mut self, top: &mut Fields, section: &str) -> Vec<Entry> {
        let Some(node) = top.take(section) else {
            return Vec::new();
        };
        let (span, before) = (node.span.clone(), self.problems.count());
        let stages = entries(Some(node), &format!("`{section}`"), &mut self.problems);
        if stages.is_empty() && section == "stages" && before == self.problems.count() {
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

fn refuse_same_names(
    stages: &[Entry],
    finally: &[Entry],
    stage_names: &IndexSet<Box<str>>,
    problems: &mut Problems,
) {
    for entry in finally {
        let first = stage_names
            .get_index_of(&entry.key)
            .and_then(|index| stages.get(index));
        if let Some(first) = first {
            let message = format!("there is a stage {} already", quoted(&entry.key));
            let problem = Diagnostic::error("pipeline.duplicate-key", message).at(&entry.key_span);
            problems.push(problem.related(&first.key_span, "here"));
        }
    }
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
