//! One compose file: read, its variables replaced, brought into the one form. Nothing in it is followed elsewhere.

use super::{LoadRequest, Names, canonical::Canonical, interpolate::interpolate, keys::TOP, shape::Shape};
use crate::{
    diagnostic::Diagnostic,
    pipeline::{
        node::{Kind, Mark, Node},
        problems::Problems,
        yaml::{self, Dialect},
    },
    source::{SourceFile, Span},
};
use std::{collections::HashMap, path::Path, sync::Arc};

static COMPOSE: Dialect = Dialect {
    file: "a compose file",
    code: "compose.yaml",
    duplicate: "compose.duplicate-key",
    tags: &[("reset", Mark::Reset), ("override", Mark::Override)],
};

/// What all steps of one load share.
pub(super) struct Loading<'a> {
    pub(super) request: &'a LoadRequest<'a>,
    pub(super) problems: Problems,
    /// The name of the project, once it is known: files can use it as `COMPOSE_PROJECT_NAME`.
    pub(super) name: String,
    /// Services that no active profile asks for, with their profiles.
    pub(super) disabled: Vec<(String, Vec<String>)>,
}

/// Variables of one file: the environment, and below it what a `.env` beside an included file sets.
pub(super) struct Variables<'a> {
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
    pub(super) project: String,
    pub(super) below: HashMap<String, String>,
}

impl Names for Variables<'_> {
    fn look_up(&self, name: &str) -> Option<String> {
        if name == "COMPOSE_PROJECT_NAME" && !self.project.is_empty() {
            return Some(self.project.clone());
        }
        (self.environment)(name).or_else(|| self.below.get(name).cloned())
    }
}

impl<'a> Loading<'a> {
    pub(super) fn variables(&self, below: HashMap<String, String>) -> Variables<'a> {
        Variables {
            environment: self.request.environment,
            project: self.name.clone(),
            below,
        }
    }

    /// A file's text. `at` is the place that names it; without one it was named by whoever started the command.
    pub(super) fn open(
        &mut self,
        path: &Path,
        at: Option<&Span>,
        code: &'static str,
    ) -> Option<Arc<SourceFile>> {
        let shown = (self.request.shown)(path);
        match (self.request.reader)(path) {
            Ok(text) => Some(Arc::new(SourceFile::new(shown, path, text))),
            Err(error) => {
                let problem = Diagnostic::error(code, format!("{shown} cannot be read: {error}"));
                self.problems.push(match at {
                    Some(span) => problem.at(span),
                    None => problem,
                });
                None
            }
        }
    }

    /// The tree of a file, as it was written.
    pub(super) fn parse(&mut self, path: &Path, at: Option<&Span>) -> Option<Node> {
        let file = self.open(path, at, "compose.file")?;
        let tree = yaml::parse(&file, &COMPOSE, &mut self.problems)?;
        if tree.is_null() {
            return Some(Node::new(Kind::Map(Vec::new()), tree.span));
        }
        Some(tree)
    }

    /// A tree in the one form, with all variables replaced and all paths below `base`.
    pub(super) fn canonical(&mut self, mut tree: Node, base: &Path, names: &dyn Names) -> Option<Node> {
        interpolate(&mut tree, names, &mut self.problems);
        let version = tree.entry("version").map(|entry| entry.key_span.clone());
        let what = format!("`{}`", tree.span.file.name);
        let mut reading = Canonical {
            base,
            home: names.look_up("HOME"),
            problems: &mut self.problems,
        };
        let mut tree = reading.value(tree, &Shape::Object(&TOP), &what)?;
        if let Some(span) = version {
            let message = "`version` has no meaning any more, and is ignored";
            let note = Diagnostic::warning("compose.version", message).at(&span);
            self.problems.push(note.help("remove the line"));
            tree.remove("version");
        }
        Some(tree)
    }
}
