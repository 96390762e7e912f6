//! What expressions can see, and how a reference is looked up in it.

use super::term::{Reference, Root};
use crate::{
    name::{SecretName, StageName},
    pipeline::{
        model::{EnvValue, SecretSpec},
        problems::suggest,
    },
    value::{SecretText, Value},
};
use indexmap::IndexMap;
use serde_json::Value as Json;

/// The outputs of stages that have run, by their full names (`test[os=debian]` for a matrix cell).
pub type Outputs = IndexMap<StageName, Json>;

/// The run, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunScope<'a> {
    pub pipeline: &'a str,
    /// `None` while planning: `run.id` is then unknown.
    pub id: Option<&'a str>,
    /// From 1. `None` while planning.
    pub attempt: Option<u32>,
}

/// Everything an expression can refer to.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    pub vars: &'a IndexMap<String, Json>,
    pub env: &'a IndexMap<String, EnvValue>,
    pub secrets: &'a IndexMap<SecretName, SecretSpec>,
    pub matrix: &'a IndexMap<String, Json>,
    /// The cells of stages with a matrix.
    pub cells: &'a IndexMap<String, Vec<StageName>>,
    pub run: RunScope<'a>,
    /// `None`: nothing has run yet.
    pub outputs: Option<&'a Outputs>,
}

/// The result of a lookup.
pub(super) enum Found {
    Value(Value),
    /// With a sentence that says so.
    Missing(String),
}

impl Scope<'_> {
    /// A name that is declared and has no value is unknown: whether that is a mistake was decided when the file was loaded.
    pub(super) fn look_up(&self, reference: &Reference) -> Found {
        let Some((first, rest)) = reference.path.split_first() else {
            let message = format!(
                "`{}` needs a name after it, for example `{}.x`",
                reference.root.name(),
                reference.root.name()
            );
            return Found::Missing(message);
        };
        match reference.root {
            Root::Vars => self
                .vars
                .get(first)
                .map_or(Found::Value(Value::Unknown), |value| {
                    walk(value, rest, "variable", first)
                }),
            Root::Env => match self.env.get(first) {
                None => Found::Value(Value::Unknown),
                Some(value) if rest.is_empty() => Found::Value(Value::String(value.value.clone())),
                Some(_) => no_parts(first),
            },
            Root::Matrix => match self.matrix.get(first) {
                None => Found::Missing(unknown(
                    "matrix key",
                    first,
                    self.matrix.keys().map(String::as_str),
                )),
                // Values are never null: this one had a mistake.
                Some(Json::Null) => Found::Value(Value::Unknown),
                Some(value) => walk(value, rest, "matrix value", first),
            },
            Root::Secrets => self.secret(first, rest),
            Root::Run => self.run(first),
            Root::Stages => self.stage(first, rest),
        }
    }

    fn secret(&self, name: &str, rest: &[String]) -> Found {
        let Some((name, _)) = self.secrets.get_key_value(name) else {
            return Found::Missing(unknown(
                "secret",
                name,
                self.secrets.keys().map(SecretName::as_str),
            ));
        };
        match rest {
            [] | [_] => Found::Value(Value::Secret(SecretText::Secret {
                name: name.clone(),
                field: rest.first().cloned(),
            })),
            _ => Found::Missing(format!("a field of the secret `{name}` has no parts")),
        }
    }

    fn run(&self, name: &str) -> Found {
        let known = |value: Option<Value>| Found::Value(value.unwrap_or(Value::Unknown));
        match name {
            "id" => known(self.run.id.map(|id| Value::String(id.to_string()))),
            "attempt" => known(self.run.attempt.map(|attempt| Value::Number(attempt.into()))),
            "pipeline" => Found::Value(Value::String(self.run.pipeline.to_string())),
            _ => Found::Missing(unknown("name in `run`", name, ["id", "pipeline", "attempt"])),
        }
    }

    fn stage(&self, stage: &str, rest: &[String]) -> Found {
        let Some(("outputs", path)) = rest.split_first().map(|(first, path)| (first.as_str(), path)) else {
            return Found::Missing(format!("a stage has `outputs` only: `stages.{stage}.outputs`"));
        };
        let Some(outputs) = self.outputs else {
            return Found::Value(Value::Unknown);
        };
        let Some(cells) = self.cells.get(stage) else {
            return match outputs.get(stage) {
                Some(value) => walk(value, path, "output of stage", stage),
                None => Found::Value(Value::Unknown),
            };
        };
        match path.split_first() {
            Some((cell, path)) => match outputs.get(cell.as_str()) {
                Some(value) => walk(value, path, "output of stage", cell),
                None if cells.iter().any(|known| known.as_str() == cell) => Found::Value(Value::Unknown),
                None => Found::Missing(unknown("matrix cell", cell, cells.iter().map(StageName::as_str))),
            },
            None => {
                let entry =
                    |cell: &StageName| Some((cell.to_string(), Value::from(outputs.get(cell)?.clone())));
                let all: Option<IndexMap<String, Value>> = cells.iter().map(entry).collect();
                Found::Value(all.map_or(Value::Unknown, Value::Map))
            }
        }
    }
}

/// Follows a path into a value.
fn walk(value: &Json, path: &[String], what: &str, name: &str) -> Found {
    let mut value = value;
    for part in path {
        let next = match value {
            Json::Object(entries) => entries.get(part),
            Json::Array(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        };
        value = match (next, value) {
            (Some(next), _) => next,
            (None, Json::Object(entries)) => {
                let known = suggest(part, entries.keys().map(String::as_str));
                return Found::Missing(format!("the {what} `{name}` has no `{part}`; {known}"));
            }
            (None, _) => return Found::Missing(format!("the {what} `{name}` has no `{part}`")),
        };
    }
    Found::Value(Value::from(value.clone()))
}

fn no_parts(name: &str) -> Found {
    Found::Missing(format!("`env.{name}` is text and has no parts"))
}

/// `unknown secret `x`; did you mean ...`.
pub(crate) fn unknown<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    format!("unknown {what} `{name}`; {}", suggest(name, known))
}
