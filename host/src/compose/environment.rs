//! What a service's environment is in the end: its env files, below what `environment` says; and its labels likewise.

use super::{Names, files::Loading};
use crate::{
    diagnostic::Diagnostic,
    pipeline::{
        env_file::{self, EnvFileProblem},
        node::{Kind, Node},
    },
    source::{SourceFile, Span},
};
use std::{path::Path, sync::Arc};

/// Replaces `env_file` and `label_file` of each service by what is in the files, and gives names without a value the one
/// that they inherit.
pub(super) fn fold(loading: &mut Loading<'_>, tree: &mut Node, names: &dyn Names) {
    let Some(services) = tree.get_mut("services") else {
        return;
    };
    for entry in services.entries_mut() {
        let service = &mut entry.value;
        let files = match loading.request.keeps_env_files {
            true => None,
            false => service.remove("env_file").map(|entry| entry.value),
        };
        if let Some(found) = files.map(|files| env_files(loading, &files, names)) {
            below(service, "environment", found);
        }
        let files = service.remove("label_file").map(|entry| entry.value);
        if let Some(found) = files.map(|files| label_files(loading, &files, names)) {
            below(service, "labels", found);
        }
        inherit(service.get_mut("environment"), names);
        inherit(
            service.get_mut("build").and_then(|build| build.get_mut("args")),
            names,
        );
    }
}

/// A name without a value takes the one of the environment; without that it stays without.
fn inherit(pairs: Option<&mut Node>, names: &dyn Names) {
    for entry in pairs.map(Node::entries_mut).unwrap_or_default() {
        if let (true, Some(value)) = (entry.value.is_null(), names.look_up(&entry.key)) {
            entry.value.kind = Kind::Text(value);
        }
    }
}

/// Puts pairs below those that are there.
fn below(service: &mut Node, key: &str, mut pairs: Node) {
    if let Some(over) = service.get(key).cloned() {
        for entry in over.entries() {
            pairs.set(&entry.key, entry.value.clone());
        }
    }
    service.set(key, pairs);
}

fn env_files(loading: &mut Loading<'_>, files: &Node, names: &dyn Names) -> Node {
    let mut found = Node::new(Kind::Map(Vec::new()), files.span.clone());
    for file in files.items() {
        let Some(path) = file.get("path") else { continue };
        let optional = matches!(
            file.get("required").map(|node| &node.kind),
            Some(Kind::Bool(false))
        );
        let raw = file.text_of("format") == Some("raw");
        for (name, value) in read(loading, path, optional, raw, names) {
            found.set(&name, Node::new(Kind::Text(value), path.span.clone()));
        }
    }
    found
}

fn label_files(loading: &mut Loading<'_>, files: &Node, names: &dyn Names) -> Node {
    let mut found = Node::new(Kind::Map(Vec::new()), files.span.clone());
    for path in files.items() {
        for (name, value) in read(loading, path, false, false, names) {
            found.set(&name, Node::new(Kind::Text(value), path.span.clone()));
        }
    }
    found
}

fn read(
    loading: &mut Loading<'_>,
    path: &Node,
    optional: bool,
    raw: bool,
    names: &dyn Names,
) -> Vec<(String, String)> {
    let place = Path::new(path.text().unwrap_or_default());
    let missing = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    if optional && (loading.request.reader)(place).is_err_and(missing) {
        return Vec::new();
    }
    let Some(file) = loading.open(place, Some(&path.span), "compose.env-file") else {
        return Vec::new();
    };
    if raw {
        let pair = |line: &str| {
            line.split_once('=')
                .map(|(name, value)| (name.into(), value.into()))
        };
        return file
            .text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(pair)
            .collect();
    }
    match env_file::parse(&file.text, &|name| names.look_up(name)) {
        Ok(pairs) => pairs,
        Err(problems) => {
            problems.iter().for_each(|one| report(loading, &file, one));
            Vec::new()
        }
    }
}

/// A problem on a line of an env file.
pub(super) fn report(loading: &mut Loading<'_>, file: &Arc<SourceFile>, problem: &EnvFileProblem) {
    let span = Span::line(file, problem.line);
    let message = problem.message.clone();
    loading
        .problems
        .push(Diagnostic::error("compose.env-file", message).at(&span));
}
