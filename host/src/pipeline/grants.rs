//! `allow`: what a stage may touch, by the table of capabilities. What has no row there does not parse.

use super::{
    fields::{list, wrong},
    matrix::Cell,
    model::Grant,
    node::{Entry, Kind, Node},
    problems::{quoted, suggest},
    reading::Reading,
};
use crate::{
    capability::{Capability, TABLE},
    name::SecretName,
    pattern::{Mode, Pattern},
    source::Span,
};

/// The grants of one cell of a stage.
pub(crate) fn grants(allow: &Node, cell: &Cell, reading: &mut Reading<'_>) -> Vec<Grant> {
    let mut grants = Vec::new();
    let entries = match &allow.kind {
        Kind::Null => return grants,
        Kind::Map(entries) => entries,
        _ => return wrong(allow, "`allow`", "a map", reading.problems).unwrap_or_default(),
    };
    for entry in entries {
        match Capability::from_name(&entry.key) {
            Some(capability) if !entry.key.contains('.') => {
                values(capability, &entry.value, cell, reading, &mut grants)
            }
            _ if inner_names(&entry.key).next().is_some() => nested(entry, cell, reading, &mut grants),
            _ => unknown(&entry.key, &entry.key_span, reading),
        }
    }
    grants
}

/// The names below an outer one: `use`, `reveal` and `put` of `secrets`.
pub(crate) fn inner_names(outer: &str) -> impl Iterator<Item = &'static str> {
    TABLE
        .iter()
        .filter_map(|row| row.name.split_once('.'))
        .filter(move |(name, _)| *name == outer)
        .map(|(_, inner)| inner)
}

/// The names that stand directly in `allow`.
pub(crate) fn outer_names() -> Vec<&'static str> {
    let mut names: Vec<&str> = TABLE
        .iter()
        .map(|row| row.name.split('.').next().unwrap_or(row.name))
        .collect();
    names.dedup();
    names
}

fn unknown(name: &str, span: &Span, reading: &mut Reading<'_>) {
    let message = format!("unknown capability {}", quoted(name));
    let help = match Capability::from_name(name).and_then(|_| name.split_once('.')) {
        Some((outer, inner)) => format!("write `{outer}: {{ {inner}: [...] }}`"),
        None => suggest(name, outer_names()),
    };
    reading
        .problems
        .error_with_help("pipeline.capability", span, message, help);
}

fn nested(entry: &Entry, cell: &Cell, reading: &mut Reading<'_>, grants: &mut Vec<Grant>) {
    let outer = &*entry.key;
    let what = format!("`allow.{outer}`");
    let inner = match &entry.value.kind {
        Kind::Map(inner) => inner,
        Kind::Null => return,
        _ => return wrong(&entry.value, &what, "a map", reading.problems).unwrap_or_default(),
    };
    for entry in inner {
        match Capability::from_name(&format!("{outer}.{}", entry.key)) {
            Some(capability) => values(capability, &entry.value, cell, reading, grants),
            None => {
                let message = format!("unknown key {} in {what}", quoted(&entry.key));
                let help = suggest(&entry.key, inner_names(outer));
                reading
                    .problems
                    .error_with_help("pipeline.capability", &entry.key_span, message, help);
            }
        }
    }
}

fn values(
    capability: Capability,
    value: &Node,
    cell: &Cell,
    reading: &mut Reading<'_>,
    grants: &mut Vec<Grant>,
) {
    if capability == Capability::Files {
        return files(value, cell, reading, grants);
    }
    let what = format!("`{capability}`");
    for item in list(value.clone(), &what, reading.problems) {
        let Some(text) = reading.constant_text(&item, &format!("a value of {what}"), "allow", cell) else {
            continue;
        };
        match Pattern::parse(capability, &text) {
            Ok(pattern) => {
                check_name(capability, &text, &item.span, reading);
                grants.push(Grant {
                    capability,
                    pattern,
                    span: item.span,
                });
            }
            Err(error) => reading
                .problems
                .error("pipeline.pattern", &item.span, error.to_string()),
        }
    }
}

/// `files: { /workspace: ro }`.
fn files(value: &Node, cell: &Cell, reading: &mut Reading<'_>, grants: &mut Vec<Grant>) {
    let entries = match &value.kind {
        Kind::Map(entries) => entries,
        Kind::Null => return,
        _ => {
            return wrong(
                value,
                "`files`",
                "a map of guest paths to ro or rw",
                reading.problems,
            )
            .unwrap_or_default();
        }
    };
    for entry in entries {
        let path = Node::new(Kind::Text(entry.key.to_string()), entry.key_span.clone());
        let path = reading.constant_text(&path, "a path", "allow", cell);
        let mode = reading.constant_text(&entry.value, "the mode of a path", "allow", cell);
        let (Some(path), Some(mode)) = (path, mode) else {
            continue;
        };
        match Pattern::files(&mode, &path) {
            Ok(pattern) => {
                check_path(&path, &entry.key_span, reading);
                let span = Span::new(
                    &entry.key_span.file,
                    entry.key_span.range().start..entry.value.span.range().end,
                );
                grants.push(Grant {
                    capability: Capability::Files,
                    pattern,
                    span,
                });
            }
            Err(error) => reading
                .problems
                .error("pipeline.pattern", &entry.key_span, error.to_string()),
        }
    }
}

/// A grant for a secret or variable that does not exist is a mistake.
fn check_name(capability: Capability, name: &str, span: &Span, reading: &mut Reading<'_>) {
    let problem = match capability {
        Capability::SecretsUse | Capability::SecretsReveal if !reading.secrets.contains_key(name) => {
            super::expression::unknown("secret", name, reading.secrets.keys().map(SecretName::as_str))
        }
        Capability::Env if !reading.environment.is_declared(name) => {
            super::expression::unknown("name in `env`", name, reading.environment.names())
        }
        _ => return,
    };
    reading.problems.error("pipeline.pattern", span, problem);
}

/// `/mnt/NAME` needs a directory of that name.
fn check_path(path: &str, span: &Span, reading: &mut Reading<'_>) {
    let Some(name) = path.strip_prefix("/mnt/").and_then(|rest| rest.split('/').next()) else {
        return;
    };
    if !reading.directories.contains_key(name) {
        let message =
            super::expression::unknown("directory", name, reading.directories.keys().map(String::as_str));
        let help = format!("add `directories: {{ {name}: /path/on/this/machine }}` to the pipeline");
        reading
            .problems
            .error_with_help("pipeline.pattern", span, message, help);
    }
}

/// A tree that holds a file of secrets cannot be granted whole: the stage would read what it should get as a handle.
pub(crate) fn refuse_secret_files(grants: &[Grant], secret_files: &[String], reading: &mut Reading<'_>) {
    for grant in grants
        .iter()
        .filter(|grant| grant.capability == Capability::Files)
    {
        let held = secret_files.iter().find(|file| {
            Pattern::files("ro", &format!("/workspace/{file}")).is_ok_and(|file| grant.pattern.covers(&file))
        });
        let (Some(file), Pattern::Files { mode, .. }) = (held, &grant.pattern) else {
            continue;
        };
        let mode = if *mode == Mode::ReadOnly { "ro" } else { "rw" };
        reading.problems.error_with_help(
            "pipeline.secret-file",
            &grant.span,
            format!("this would give the stage `{file}`, which `secrets` or `env-files` names"),
            format!("grant the directories that it needs, for example `/workspace/migrations: {mode}`"),
        );
    }
}
