//! `vars`: declarations, and the values that `--var` and `--var-file` give them.

use super::{
    MissingValues,
    fields::{Fields, entries},
    keys::VAR,
    node::{Entry, Kind, Node},
    problems::{Problems, quoted, suggest},
};
use crate::{diagnostic::Diagnostic, source::Span};
use indexmap::IndexMap;
use serde_json::Value as Json;

/// The variables of a pipeline.
#[derive(Debug, Default)]
pub(crate) struct Vars {
    pub(crate) values: IndexMap<String, Json>,
    /// All names, with and without a value.
    declared: IndexMap<String, Declaration>,
}

#[derive(Debug)]
struct Declaration {
    kind: VarType,
    required: bool,
    choices: Vec<Json>,
    span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VarType {
    String,
    Number,
    Boolean,
}

const TYPES: &[(&str, VarType)] = &[
    ("string", VarType::String),
    ("number", VarType::Number),
    ("boolean", VarType::Boolean),
];

impl Vars {
    /// The `vars` of the file.
    pub(crate) fn read(node: Option<Node>, problems: &mut Problems) -> Self {
        let mut vars = Self::default();
        for entry in entries(node, "`vars`", problems) {
            vars.declare(entry, problems);
        }
        vars
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.keys().map(String::as_str)
    }

    pub(crate) fn is_declared(&self, name: &str) -> bool {
        self.declared.contains_key(name)
    }

    fn declare(&mut self, entry: Entry, problems: &mut Problems) {
        let name = entry.key.to_string();
        let span = entry.key_span;
        super::fields::check_word(&name, "variable", &span, problems);
        let short = |kind, span| Declaration {
            kind,
            required: false,
            choices: Vec::new(),
            span,
        };
        match entry.value.kind {
            Kind::Text(text) => {
                self.values.insert(name.clone(), Json::String(text));
                self.declared.insert(name, short(VarType::String, span));
            }
            Kind::Number(number) => {
                self.values.insert(name.clone(), Json::Number(number));
                self.declared.insert(name, short(VarType::Number, span));
            }
            Kind::Bool(value) => {
                self.values.insert(name.clone(), Json::Bool(value));
                self.declared.insert(name, short(VarType::Boolean, span));
            }
            Kind::Map(_) => self.declare_long(name, span, entry.value, problems),
            Kind::Null | Kind::List(_) => {
                super::fields::wrong::<()>(
                    &entry.value,
                    &format!("the variable `{name}`"),
                    "text, a number, true or false, or a declaration",
                    problems,
                );
                self.declared.insert(name, short(VarType::String, span));
            }
        }
    }

    fn declare_long(&mut self, name: String, span: Span, value: Node, problems: &mut Problems) {
        let what = format!("the variable `{name}`");
        let Some(mut fields) = Fields::read(value, &what, VAR, problems) else {
            return;
        };
        let kind = fields.choice("type", TYPES, problems).unwrap_or(VarType::String);
        let required = fields.boolean("required", problems).unwrap_or(false);
        fields.text("description", problems);
        let choices = fields
            .take("enum")
            .map(|node| super::fields::list(node, "`enum`", problems))
            .unwrap_or_default();
        let choices = choices
            .into_iter()
            .filter_map(|node| typed(node, kind, &what, problems))
            .collect();
        let default = fields.take("default").and_then(|node| {
            let place = node.span.clone();
            typed(node, kind, &what, problems).map(|value| (value, place))
        });
        let declaration = Declaration {
            kind,
            required,
            choices,
            span,
        };
        if let Some((value, place)) = default {
            check_choice(&name, &value, &declaration, Some(&place), problems);
            self.values.insert(name.clone(), value);
        } else if !required {
            self.values.insert(name.clone(), Json::Null);
        }
        self.declared.insert(name, declaration);
    }

    /// What a `--var-file` says.
    pub(crate) fn read_file(&mut self, node: Node, problems: &mut Problems) {
        for entry in entries(Some(node), "a file of variables", problems) {
            let name = &*entry.key;
            match self.declared.get(name) {
                None => {
                    let message = format!("there is no variable {} in the pipeline", quoted(name));
                    problems.error_with_help(
                        "pipeline.var",
                        &entry.key_span,
                        message,
                        suggest(name, self.names()),
                    );
                }
                Some(declaration) => {
                    let (name, place) = (name.to_string(), entry.value.span.clone());
                    let what = format!("the variable `{name}`");
                    if let Some(value) = typed(entry.value, declaration.kind, &what, problems) {
                        check_choice(&name, &value, declaration, Some(&place), problems);
                        self.values.insert(name, value);
                    }
                }
            }
        }
    }

    /// What `--var NAME=VALUE` says; the text is read as the declared type.
    pub(crate) fn set(&mut self, name: &str, text: &str, problems: &mut Problems) {
        let Some(declaration) = self.declared.get(name) else {
            let message = format!("--var: there is no variable {} in the pipeline", quoted(name));
            problems.push(Diagnostic::error("pipeline.var", message).help(suggest(name, self.names())));
            return;
        };
        let value = match declaration.kind {
            VarType::String => Some(Json::String(text.to_string())),
            VarType::Number => serde_json::from_str::<serde_json::Number>(text)
                .ok()
                .map(Json::Number),
            VarType::Boolean => text.parse().ok().map(Json::Bool),
        };
        match value {
            Some(value) => {
                check_choice(name, &value, declaration, None, problems);
                self.values.insert(name.to_string(), value);
            }
            None => {
                let message = format!(
                    "--var: `{name}` must be {}, not {}",
                    describe(declaration.kind),
                    quoted(text)
                );
                problems.push(
                    Diagnostic::error("pipeline.var", message)
                        .at(&declaration.span)
                        .label("declared here"),
                );
            }
        }
    }

    /// Required variables that nobody gave a value.
    pub(crate) fn check_required(&self, missing: MissingValues, problems: &mut Problems) {
        for (name, declaration) in &self.declared {
            if declaration.required && !self.values.contains_key(name) {
                let message = format!("the variable `{name}` is required and has no value");
                let problem = match missing {
                    MissingValues::Refuse => Diagnostic::error("pipeline.var", message),
                    MissingValues::Unknown => continue,
                };
                problems.push(problem.at(&declaration.span).help(format!("--var {name}=VALUE")));
            }
        }
    }
}

fn typed(node: Node, kind: VarType, what: &str, problems: &mut Problems) -> Option<Json> {
    match (node.kind, kind) {
        (Kind::Text(text), VarType::String) => Some(Json::String(text)),
        (Kind::Number(number), VarType::Number) => Some(Json::Number(number)),
        (Kind::Bool(value), VarType::Boolean) => Some(Json::Bool(value)),
        (other, kind) => super::fields::wrong(&Node::new(other, node.span), what, describe(kind), problems),
    }
}

fn describe(kind: VarType) -> &'static str {
    match kind {
        VarType::String => "text",
        VarType::Number => "a number",
        VarType::Boolean => "true or false",
    }
}

fn check_choice(
    name: &str,
    value: &Json,
    declaration: &Declaration,
    place: Option<&Span>,
    problems: &mut Problems,
) {
    if declaration.choices.is_empty() || declaration.choices.contains(value) {
        return;
    }
    let choices: Vec<String> = declaration.choices.iter().map(ToString::to_string).collect();
    let message = format!("the variable `{name}` cannot be {}", quoted(&value.to_string()));
    let problem = Diagnostic::error("pipeline.var", message).at(place.unwrap_or(&declaration.span));
    problems.push(problem.help(format!("it can be: {}", choices.join(", "))));
}
