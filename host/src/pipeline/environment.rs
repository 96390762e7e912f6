//! `env`: layers of values, the later wins: default, env-files, the process (where allowed), `--env-file`.

use super::{
    env_file,
    fields::{Fields, entries, wrong},
    keys::ENV,
    model::EnvValue,
    node::{Entry, Kind, Node},
    problems::Problems,
};
use crate::source::{SourceFile, Span};
use indexmap::{IndexMap, IndexSet};
use std::{collections::BTreeMap, sync::Arc};

/// The `env` of a pipeline while its layers are put together.
pub(crate) struct Environment<'a> {
    pub(crate) values: IndexMap<String, EnvValue>,
    /// All names, with and without a value.
    declared: IndexSet<String>,
    process: &'a dyn Fn(&str) -> Option<String>,
    /// Names for which the process may be asked.
    from_process: IndexSet<String>,
}

impl<'a> Environment<'a> {
    /// The lowest layer: the file's `env`.
    pub(crate) fn read(
        node: Option<Node>,
        process: &'a dyn Fn(&str) -> Option<String>,
        problems: &mut Problems,
    ) -> Self {
        let mut environment = Self {
            values: IndexMap::new(),
            declared: IndexSet::new(),
            process,
            from_process: IndexSet::new(),
        };
        for entry in entries(node, "`env`", problems) {
            environment.declare(entry, problems);
        }
        environment
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.iter().map(String::as_str)
    }

    pub(crate) fn is_declared(&self, name: &str) -> bool {
        self.declared.contains(name)
    }

    fn declare(&mut self, entry: Entry, problems: &mut Problems) {
        let name = entry.key.to_string();
        if !is_name(&name) {
            let message = format!(
                "{} cannot be the name of an environment variable",
                super::problems::quoted(&name)
            );
            problems.error_with_help(
                "pipeline.name",
                &entry.key_span,
                message,
                "it takes letters, digits and `_`, not starting with a digit",
            );
        }
        self.declared.insert(name.clone());
        let default = match entry.value.kind {
            Kind::Null => None,
            Kind::Map(_) => {
                let what = format!("`env.{name}`");
                let Some(mut fields) = Fields::read(entry.value, &what, ENV, problems) else {
                    return;
                };
                if fields.boolean("process", problems) == Some(true) {
                    self.from_process.insert(name.clone());
                }
                fields
                    .take("default")
                    .and_then(|node| scalar(node, &what, problems))
            }
            _ => scalar(entry.value, &format!("`env.{name}`"), problems),
        };
        if let Some(value) = default {
            self.values.insert(
                name,
                EnvValue {
                    value,
                    layer: "default".to_string(),
                },
            );
        }
    }

    /// One env file. `layer` is what `windlass plan` calls it.
    pub(crate) fn read_file(&mut self, file: &Arc<SourceFile>, layer: &str, problems: &mut Problems) {
        let parsed = env_file::parse(&file.text, &|name| self.outer(name));
        match parsed {
            Ok(lines) => {
                for (name, value) in lines {
                    self.declared.insert(name.clone());
                    self.values.insert(
                        name,
                        EnvValue {
                            value,
                            layer: layer.to_string(),
                        },
                    );
                }
            }
            Err(found) => {
                for problem in found {
                    let span = line_span(file, problem.line);
                    problems.error("pipeline.env-file", &span, problem.message);
                }
            }
        }
    }

    /// Puts the values of an earlier process in the place of all layers.
    pub(crate) fn replace(&mut self, recorded: &BTreeMap<String, String>) {
        let value = |value: &String| EnvValue {
            value: value.clone(),
            layer: "recorded".to_string(),
        };
        self.declared.extend(recorded.keys().cloned());
        self.values = recorded
            .iter()
            .map(|(name, text)| (name.clone(), value(text)))
            .collect();
    }

    /// The layer of the process: for names with `process: true`.
    pub(crate) fn read_process(&mut self) {
        for name in &self.from_process {
            if let Some(value) = (self.process)(name) {
                self.values.insert(
                    name.clone(),
                    EnvValue {
                        value,
                        layer: "process".to_string(),
                    },
                );
            }
        }
    }

    /// What `${X}` in an env file means where no earlier line says so: the process, where it may be asked, else the layers so
    /// far.
    fn outer(&self, name: &str) -> Option<String> {
        let from_process = self
            .from_process
            .contains(name)
            .then(|| (self.process)(name))
            .flatten();
        from_process.or_else(|| self.values.get(name).map(|known| known.value.clone()))
    }
}

fn scalar(node: Node, what: &str, problems: &mut Problems) -> Option<String> {
    match node.kind {
        Kind::Text(text) => Some(text),
        Kind::Number(number) => Some(number.to_string()),
        Kind::Bool(value) => Some(value.to_string()),
        _ => wrong(&node, what, "text", problems),
    }
}

fn is_name(name: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(part) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// The whole of a line, counted from 1.
fn line_span(file: &Arc<SourceFile>, line: usize) -> Span {
    let before: usize = file
        .text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let length = file.text[before..].lines().next().map_or(0, str::len);
    Span::new(file, before..before + length)
}
