//! `include`: the resources of another project, which has a directory and a `.env` of its own.

use super::{
    files::{Loading, Variables},
    resolve,
};
use crate::{
    diagnostic::Diagnostic,
    pipeline::{
        env_file,
        node::{Entry, Kind, Node},
    },
    source::Span,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// Deeper than this, files include each other in a circle.
const MAXIMUM_DEPTH: usize = 16;

/// What an include can bring.
const RESOURCES: [&str; 6] = ["services", "networks", "volumes", "secrets", "configs", "models"];

/// Replaces `include` by what it brings.
pub(super) fn apply(loading: &mut Loading<'_>, mut tree: Node, names: &Variables<'_>, depth: usize) -> Node {
    let Some(includes) = tree.remove("include").map(|entry| entry.value) else {
        return tree;
    };
    if depth > MAXIMUM_DEPTH {
        let message = "files are included too deep: some include each other";
        loading.problems.error("compose.cycle", &includes.span, message);
        return tree;
    }
    for include in includes.items() {
        if let Some(brought) = read(loading, include, names, depth) {
            add(loading, &mut tree, brought);
        }
    }
    tree
}

fn read(loading: &mut Loading<'_>, include: &Node, names: &Variables<'_>, depth: usize) -> Option<Node> {
    let paths: Vec<(PathBuf, Span)> = texts(include.get("path")?);
    let (first, _) = paths.first()?;
    let directory = match include.text_of("project_directory") {
        Some(directory) => PathBuf::from(directory),
        None => first.parent().unwrap_or(Path::new("/")).to_path_buf(),
    };
    let mut below = HashMap::new();
    match include.get("env_file") {
        Some(files) => {
            for (path, span) in texts(files) {
                below.extend(environment(loading, &path, Some(&span), names));
            }
        }
        None => below.extend(environment(loading, &directory.join(".env"), None, names)),
    }
    // The environment of this project wins over that of the included one.
    below.extend(names.below.clone());
    let names = loading.variables(below);
    resolve::read(loading, &paths, &directory, &names, depth + 1)
}

/// The variables of an env file. One that nobody named need not exist.
fn environment(
    loading: &mut Loading<'_>,
    path: &Path,
    at: Option<&Span>,
    names: &Variables<'_>,
) -> HashMap<String, String> {
    if at.is_none() && (loading.request.reader)(path).is_err() {
        return HashMap::new();
    }
    let Some(file) = loading.open(path, at, "compose.env-file") else {
        return HashMap::new();
    };
    match env_file::parse(&file.text, &|name| super::Names::look_up(names, name)) {
        Ok(pairs) => pairs.into_iter().collect(),
        Err(problems) => {
            for problem in problems {
                super::environment::report(loading, &file, &problem);
            }
            HashMap::new()
        }
    }
}

fn texts(list: &Node) -> Vec<(PathBuf, Span)> {
    let text = |node: &Node| node.text().map(|text| (PathBuf::from(text), node.span.clone()));
    list.items().iter().filter_map(text).collect()
}

/// Two things of one name are a conflict, unless they are the same.
fn add(loading: &mut Loading<'_>, tree: &mut Node, brought: Node) {
    let Kind::Map(sections) = brought.kind else { return };
    for section in sections
        .into_iter()
        .filter(|section| RESOURCES.contains(&&*section.key))
    {
        if tree.get(&section.key).is_none() {
            tree.set(&section.key, section.value);
            continue;
        }
        let Kind::Map(entries) = section.value.kind else {
            continue;
        };
        let Some(there) = tree.get_mut(&section.key) else {
            continue;
        };
        for entry in entries {
            match there.entry(&entry.key) {
                None => there.set(&entry.key.clone(), entry.value),
                Some(first) if first.value.to_json() == entry.value.to_json() => {}
                Some(first) => loading.problems.push(conflict(&section.key, first, &entry)),
            }
        }
    }
}

fn conflict(section: &str, first: &Entry, second: &Entry) -> Diagnostic {
    let message = format!(
        "`{}` in `{section}` is included, and there is another one here",
        first.key
    );
    Diagnostic::error("compose.conflict", message)
        .at(&first.key_span)
        .related(&second.key_span, "the included one")
        .help("give one of them another name, or lay the file over this one with -f")
}
