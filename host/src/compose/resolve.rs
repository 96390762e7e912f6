//! Several trees to one project in which nothing is left open: names, profiles, env files, networks.

use super::{
    LoadRequest, Resolved, check, environment,
    extends::Extending,
    files::{Loading, Variables},
    include,
    keys::TOP,
    merge::{merge, settle},
    model, name, plain,
    shape::Shape,
};
use crate::{
    diagnostic::{Diagnostic, Diagnostics},
    pipeline::{
        node::{Kind, Node},
        problems::{Problems, quoted},
        substitute::Substitution,
    },
    source::Span,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

pub(super) fn load(request: &LoadRequest<'_>) -> Result<(Resolved, Diagnostics), Diagnostics> {
    let mut loading = Loading {
        request,
        problems: Problems::default(),
        name: String::new(),
        disabled: Vec::new(),
    };
    let project = project(&mut loading);
    let mut problems = std::mem::take(&mut loading.problems).into_diagnostics();
    let Some(project) = project.filter(|_| !problems.has_errors()) else {
        if !problems.has_errors() {
            problems.push(Diagnostic::error(
                "compose.file",
                "there is no compose file to read",
            ));
        }
        return Err(problems);
    };
    let document = project.to_json();
    let mut typed = plain::without_extensions(&project, &Shape::Object(&TOP)).to_json();
    if let Some(services) = typed
        .get_mut("services")
        .and_then(|services| services.as_object_mut())
    {
        let services = services
            .values_mut()
            .filter_map(|service| service.as_object_mut());
        services.for_each(|service| drop(service.remove("env_file")));
    }
    match model::Project::read(typed) {
        Ok(project) => Ok((Resolved { document, project }, problems)),
        Err(reason) => {
            // The tables of keys and the types say the same, which a test holds them to.
            let message =
                format!("a bug in Windlass: the resolved files do not fit its own model ({reason})");
            Err(Diagnostic::error("compose.model", message).into())
        }
    }
}

fn project(loading: &mut Loading<'_>) -> Option<Node> {
    let request = loading.request;
    let first = request.files.first()?;
    let directory = request.directory.as_deref().or_else(|| first.parent());
    let directory = directory.unwrap_or(Path::new("/")).to_path_buf();
    let trees = parse(loading, request.files.iter().map(|path| (path.as_path(), None)));
    loading.name = project_name(loading, &trees, &directory)?;
    let names = loading.variables(HashMap::new());
    let mut tree = combine(loading, trees, &directory, &names, 0)?;
    let span = tree.span.clone();
    tree.set("name", Node::new(Kind::Text(loading.name.clone()), span));
    default_network(&mut tree);
    resource_names(&mut tree, &loading.name);
    check::check(&tree, &loading.disabled, &mut loading.problems);
    Some(in_order(tree))
}

/// The files of one project as one tree; what they include is in it.
pub(super) fn read(
    loading: &mut Loading<'_>,
    paths: &[(PathBuf, Span)],
    directory: &Path,
    names: &Variables<'_>,
    depth: usize,
) -> Option<Node> {
    let trees = parse(
        loading,
        paths.iter().map(|(path, span)| (path.as_path(), Some(span))),
    );
    combine(loading, trees, directory, names, depth)
}

fn parse<'p>(
    loading: &mut Loading<'_>,
    paths: impl Iterator<Item = (&'p Path, Option<&'p Span>)>,
) -> Vec<Node> {
    paths.filter_map(|(path, at)| loading.parse(path, at)).collect()
}

fn combine(
    loading: &mut Loading<'_>,
    trees: Vec<Node>,
    directory: &Path,
    names: &Variables<'_>,
    depth: usize,
) -> Option<Node> {
    let mut merged: Option<Node> = None;
    for tree in trees {
        let Some(tree) = loading.canonical(tree, directory, names) else {
            continue;
        };
        let read = HashMap::new();
        let tree = Extending { loading, names, read }.apply(tree, merged.as_ref());
        merged = Some(match merged {
            None => tree,
            Some(before) => merge(before, tree, &Shape::Object(&TOP)),
        });
    }
    let mut tree = settle(merged?);
    default_context(&mut tree, directory);
    select(loading, &mut tree);
    environment::fold(loading, &mut tree, names);
    Some(include::apply(loading, tree, names, depth))
}

/// `--project-name`, else `name` of the last file that has one, else the directory's name.
fn project_name(loading: &mut Loading<'_>, trees: &[Node], directory: &Path) -> Option<String> {
    let help = "a project's name is made of lower case letters, digits, `_` and `-`, and starts with a letter or digit";
    if let Some(given) = &loading.request.name {
        if name::is_project(given) {
            return Some(given.clone());
        }
        let message = format!("{} cannot be the name of a project", quoted(given));
        let problem = Diagnostic::error("compose.name", message);
        loading.problems.push(problem.help(help));
        return None;
    }
    let node = trees.iter().rev().find_map(|tree| tree.get("name"));
    let Some((text, node)) = node.and_then(|node| node.text().map(|text| (text, node))) else {
        let directory = directory.file_name().unwrap_or_default().to_string_lossy();
        let name = name::normal(&directory);
        return Some(if name.is_empty() {
            "default".to_string()
        } else {
            name
        });
    };
    let substitution = Substitution {
        look_up: loading.request.environment,
        unset: &|_| {},
        escapes: false,
    };
    // What is wrong with a variable is reported when the whole file is interpolated.
    let given = substitution
        .expand(text)
        .unwrap_or_else(|_| "unknown".to_string());
    if !name::is_project(&given) {
        let message = format!("{} cannot be the name of a project", quoted(&given));
        let problems = &mut loading.problems;
        problems.error_with_help("compose.name", &node.span, message, help);
    }
    Some(given)
}

/// Leaves out services whose profiles are not asked for.
fn select(loading: &mut Loading<'_>, tree: &mut Node) {
    let active = &loading.request.profiles;
    let Some(Kind::Map(services)) = tree.get_mut("services").map(|services| &mut services.kind) else {
        return;
    };
    services.retain(|service| {
        let profiles = service.value.get("profiles").map(Node::items).unwrap_or_default();
        let is_active = |profile: &Node| {
            active
                .iter()
                .any(|name| name == "*" || Some(name.as_str()) == profile.text())
        };
        let enabled = profiles.is_empty() || profiles.iter().any(is_active);
        if !enabled {
            let names = profiles.iter().filter_map(Node::text).map(String::from);
            loading.disabled.push((service.key.to_string(), names.collect()));
        }
        enabled
    });
}

/// What is built without a word about where is built in the project's directory.
fn default_context(tree: &mut Node, directory: &Path) {
    let services = tree
        .get_mut("services")
        .map(Node::entries_mut)
        .unwrap_or_default();
    for build in services
        .iter_mut()
        .filter_map(|service| service.value.get_mut("build"))
    {
        if build.get("context").is_none() {
            let context = Kind::Text(directory.display().to_string());
            build.set("context", Node::new(context, build.span.clone()));
        }
    }
}

/// A service that names no network is on `default`; where one is, there is such a network.
fn default_network(tree: &mut Node) {
    let mut used = false;
    let span = tree.span.clone();
    if let Some(services) = tree.get_mut("services") {
        for entry in services.entries_mut() {
            let service = &mut entry.value;
            let has_own = service.get("network_mode").is_some() || service.get("provider").is_some();
            if service
                .get("networks")
                .is_none_or(|networks| networks.entries().is_empty())
                && !has_own
            {
                let default = serde_json::json!({ "default": {} });
                service.set("networks", Node::from_json(default, &entry.key_span));
            }
            let networks = service.get("networks");
            used |= networks.is_some_and(|networks| networks.get("default").is_some());
        }
    }
    if !used {
        return;
    }
    let empty = || Node::new(Kind::Map(Vec::new()), span.clone());
    match tree.get_mut("networks") {
        Some(networks) if networks.get("default").is_none() => networks.set("default", empty()),
        Some(_) => {}
        None => tree.set(
            "networks",
            Node::from_json(serde_json::json!({ "default": {} }), &span),
        ),
    }
}

/// What a network or volume is called outside of the project: by its own name where it has one, or is somebody else's.
fn resource_names(tree: &mut Node, project: &str) {
    for section in ["networks", "volumes", "secrets", "configs"] {
        let Some(resources) = tree.get_mut(section) else {
            continue;
        };
        for entry in resources.entries_mut() {
            let resource = &mut entry.value;
            let nested = resource
                .get("external")
                .filter(|external| !external.entries().is_empty())
                .cloned();
            if let Some(external) = nested {
                if let Some(name) = external.get("name").filter(|_| resource.get("name").is_none()) {
                    resource.set("name", name.clone());
                }
                resource.set("external", Node::new(Kind::Bool(true), external.span.clone()));
            }
            if resource.get("name").is_none() {
                let name = match resource.is_true("external") {
                    true => entry.key.to_string(),
                    false => format!("{project}_{}", entry.key),
                };
                resource.set("name", Node::new(Kind::Text(name), entry.key_span.clone()));
            }
        }
    }
}

/// The sections in the order in which people write them.
fn in_order(mut tree: Node) -> Node {
    let order = [
        "name", "services", "networks", "volumes", "secrets", "configs", "models",
    ];
    let place = |key: &str| {
        order
            .iter()
            .position(|known| *known == key)
            .unwrap_or(order.len())
    };
    if let Kind::Map(entries) = &mut tree.kind {
        entries.sort_by_key(|entry| place(&entry.key));
    }
    tree
}
