//! What every part of a stage needs while it is read: names that exist, values that are known, and where problems go.

use super::{
    MissingValues,
    environment::Environment,
    expression::{
        Expression, Parsers, Reference, Root, RunScope, Scope, Template, holds_expression, unknown,
    },
    fields::wrong,
    model::SecretSpec,
    node::{Kind, Node},
    problems::Problems,
    vars::Vars,
};
use crate::{name::SecretName, source::Span, value::Value};
use indexmap::{IndexMap, IndexSet};
use serde_json::Value as Json;
use std::path::PathBuf;

/// Names that stages can use, and the collector of problems.
pub(crate) struct Reading<'a> {
    pub(crate) vars: &'a Vars,
    pub(crate) environment: &'a Environment<'a>,
    pub(crate) secrets: &'a IndexMap<SecretName, SecretSpec>,
    pub(crate) directories: &'a IndexMap<String, PathBuf>,
    /// The names of `stages` and `finally`, as the file has them.
    pub(crate) stages: &'a IndexSet<Box<str>>,
    pub(crate) missing: MissingValues,
    pub(crate) parsers: &'a mut Parsers,
    pub(crate) problems: &'a mut Problems,
}

/// Where an expression stands decides what it may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Decided when the file is loaded.
    Constant(&'static str),
    With,
    Condition,
}

/// What expressions of a stage refer to: it waits for these.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    pub(crate) stages: Vec<(String, Span)>,
    pub(crate) secrets: Vec<(String, Span)>,
}

/// The longest list of names that is searched for a near one.
const SEARCHED: usize = 1_000;

impl Reading<'_> {
    pub(crate) fn template(&mut self, node: Node) -> Template {
        self.parsers.template(node, self.problems)
    }

    /// Reports references to what does not exist or may not stand there; collects what the stage must wait for.
    pub(crate) fn check(
        &mut self,
        template: &Template,
        place: Place,
        matrix: &IndexMap<String, Json>,
        uses: &mut Uses,
    ) {
        template.for_each_reference(&mut |reference, span| {
            self.check_reference(reference, &span, place, matrix, uses)
        });
    }

    pub(crate) fn check_expression(
        &mut self,
        expression: &Expression,
        matrix: &IndexMap<String, Json>,
        uses: &mut Uses,
    ) {
        expression.for_each_reference(&mut |reference, span| {
            self.check_reference(reference, &span, Place::Condition, matrix, uses);
        });
    }

    fn check_reference(
        &mut self,
        reference: &Reference,
        span: &Span,
        place: Place,
        matrix: &IndexMap<String, Json>,
        uses: &mut Uses,
    ) {
        if let Some(message) = forbidden(reference.root, place) {
            return self.problems.error("pipeline.expression", span, message);
        }
        let Some(name) = reference.path.first() else {
            let root = reference.root.name();
            let message = format!("`{root}` needs a name after it, for example `{root}.x`");
            return self.problems.error("pipeline.expression", span, message);
        };
        let missing = match reference.root {
            _ if reference.optional && reference.path.len() == 1 => None,
            Root::Vars => self.check_var(name),
            Root::Env => return self.check_env(name, span),
            Root::Secrets => {
                uses.secrets.push((name.clone(), span.clone()));
                let known = || self.secrets.keys().map(SecretName::as_str);
                (!self.secrets.contains_key(name.as_str())).then(|| unknown("secret", name, known()))
            }
            Root::Matrix => (!matrix.contains_key(name))
                .then(|| unknown("matrix key", name, matrix.keys().map(String::as_str))),
            Root::Run => {
                let known = ["id", "pipeline", "attempt"];
                (!known.contains(&name.as_str())).then(|| unknown("name in `run`", name, known))
            }
            Root::Stages => {
                uses.stages.push((name.clone(), span.clone()));
                self.check_stage(name, reference)
            }
        };
        if let Some(message) = missing {
            self.problems.error("pipeline.expression", span, message);
        }
    }

    fn check_var(&self, name: &str) -> Option<String> {
        (!self.vars.is_declared(name)).then(|| unknown("variable", name, self.vars.names()))
    }

    fn check_env(&mut self, name: &str, span: &Span) {
        if !self.environment.is_declared(name) {
            let message = unknown("name in `env`", name, self.environment.names());
            self.problems.error("pipeline.expression", span, message);
        } else if !self.environment.values.contains_key(name) && self.missing == MissingValues::Refuse {
            let message = format!("`env.{name}` has no value in any layer");
            let help = format!(
                "set {name} in an env file, give it a default, or set it for this process with `process: true`"
            );
            self.problems.error_with_help("pipeline.env", span, message, help);
        }
    }

    fn check_stage(&self, name: &str, reference: &Reference) -> Option<String> {
        if !self.stages.contains(name) {
            let known = self.stages.iter().take(SEARCHED).map(|known| &**known);
            return Some(unknown("stage", name, known));
        }
        let outputs = reference.path.get(1).map(String::as_str);
        (outputs != Some("outputs")).then(|| format!("a stage has `outputs` only: `stages.{name}.outputs`"))
    }

    /// A value that is decided now. `None`: it has a problem, or depends on a variable without a value.
    pub(crate) fn constant(
        &mut self,
        node: &Node,
        place: &'static str,
        matrix: &IndexMap<String, Json>,
    ) -> Option<Value> {
        let before = self.problems.count();
        let template = self.template(node.clone());
        self.check(&template, Place::Constant(place), matrix, &mut Uses::default());
        let (no_cells, no_secrets) = (IndexMap::new(), IndexMap::new());
        let scope = Scope {
            vars: &self.vars.values,
            env: &self.environment.values,
            secrets: &no_secrets,
            matrix,
            cells: &no_cells,
            run: RunScope::default(),
            outputs: None,
        };
        match template.evaluate(&scope) {
            Ok(value) if value.has_unknown() => None,
            Ok(value) => Some(value),
            Err(found) => {
                // A reference that was reported as forbidden has no value either: once is enough.
                if before == self.problems.count() {
                    found.into_iter().for_each(|(span, message)| {
                        self.problems.error("pipeline.expression", &span, message)
                    });
                }
                None
            }
        }
    }

    /// A text that is decided now.
    pub(crate) fn constant_text(
        &mut self,
        node: &Node,
        what: &str,
        place: &'static str,
        matrix: &IndexMap<String, Json>,
    ) -> Option<String> {
        match &node.kind {
            Kind::Text(text) if !holds_expression(text) => Some(text.clone()),
            Kind::Text(_) => match self.constant(node, place, matrix)? {
                Value::String(text) => Some(text),
                Value::Number(number) => Some(number.to_string()),
                Value::Bool(value) => Some(value.to_string()),
                _ => {
                    let message = format!("{what} must be text");
                    self.problems.error("pipeline.type", &node.span, message);
                    None
                }
            },
            _ => wrong(node, what, "text", self.problems),
        }
    }
}

/// Why a root may not be used in a place.
fn forbidden(root: Root, place: Place) -> Option<String> {
    match (place, root) {
        (Place::Constant(_), Root::Vars | Root::Env | Root::Matrix) | (Place::With, _) => None,
        (Place::Constant(place), root) => Some(format!(
            "`{place}` cannot use `{}`: it is decided before anything runs, from `vars`, `env` and `matrix`",
            root.name()
        )),
        (Place::Condition, Root::Secrets) => Some(
            "`if` cannot use `secrets`: a secret is handed on in `with`, and never looked at".to_string(),
        ),
        (Place::Condition, _) => None,
    }
}
