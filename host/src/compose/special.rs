//! Values that have a form of their own: commands, health checks, hosts, limits.

use super::{
    canonical::{self, Canonical},
    keys::{self, MOUNT},
    mount,
    shape::{Merge, Shape},
    words,
};
use crate::pipeline::{
    node::{Entry, Kind, Node},
    problems::quoted,
};
use std::path::Path;

/// Text is split into words as a shell does it; no shell runs.
pub(super) fn command(reading: &mut Canonical<'_>, node: Node, what: &str) -> Option<Node> {
    let Some(text) = node.text() else {
        return reading.value(node, &Shape::List(&Shape::Scalar, Merge::Replace), what);
    };
    match words::split(text) {
        Ok(words) => {
            let words = words
                .into_iter()
                .map(|word| Node::new(Kind::Text(word), node.span.clone()));
            Some(Node::new(Kind::List(words.collect()), node.span.clone()))
        }
        Err(reason) => {
            let message = format!("{what} cannot be split into words: {reason}");
            reading.problems.error("compose.value", &node.span, message);
            None
        }
    }
}

/// Text is a command for the container's shell.
pub(super) fn health_test(reading: &mut Canonical<'_>, node: Node, what: &str) -> Option<Node> {
    if node.text().is_some() {
        let span = node.span.clone();
        let shell = Node::new(Kind::Text("CMD-SHELL".to_string()), span.clone());
        return Some(Node::new(Kind::List(vec![shell, node]), span));
    }
    let node = reading.value(node, &Shape::List(&Shape::Scalar, Merge::Replace), what)?;
    let first = node.items().first();
    if first.is_none_or(|first| {
        first
            .text()
            .is_some_and(|word| ["NONE", "CMD", "CMD-SHELL"].contains(&word))
    }) {
        return Some(node);
    }
    let message = format!("{what} must start with NONE, CMD or CMD-SHELL");
    reading.problems.error(
        "compose.value",
        first.map_or(&node.span, |first| &first.span),
        message,
    );
    None
}

/// `HOST=ADDRESS` lines, from those, from `HOST:ADDRESS`, or from a map of one or several addresses.
pub(super) fn hosts(reading: &mut Canonical<'_>, node: Node, what: &str) -> Option<Node> {
    let mut lines = Vec::new();
    match node.kind {
        Kind::List(items) => {
            for item in items {
                let item = reading.text(item, &format!("an element of {what}"))?;
                let text = item.text().unwrap_or_default();
                let Some((host, address)) = text.split_once('=').or_else(|| text.split_once(':')) else {
                    let message = format!("an element of {what} cannot be {}", quoted(text));
                    let help = "it takes HOST=ADDRESS";
                    reading
                        .problems
                        .error_with_help("compose.value", &item.span, message, help);
                    continue;
                };
                let line = host_line(host, address);
                lines.push(Node::new(Kind::Text(line), item.span));
            }
        }
        Kind::Map(entries) => {
            for entry in entries {
                let addresses =
                    reading.value(entry.value, &Shape::OneOrList(&Shape::Text, Merge::Append), what)?;
                for address in addresses.items() {
                    let line = host_line(&entry.key, address.text().unwrap_or_default());
                    lines.push(Node::new(Kind::Text(line), address.span.clone()));
                }
            }
        }
        _ => return reading.wrong(&node, what, "a map or a list"),
    }
    Some(Node::new(Kind::List(lines), node.span))
}

fn host_line(host: &str, address: &str) -> String {
    let address = address.trim();
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    format!("{}={}", host.trim(), bare.unwrap_or(address))
}

/// One number is both limits.
pub(super) fn ulimit(reading: &mut Canonical<'_>, node: Node, what: &str) -> Option<Node> {
    let span = node.span.clone();
    let limit = |key: &str, value: Node| Entry::new(key.to_string(), &span, value);
    let Kind::Map(entries) = node.kind else {
        let number = reading.value(node, &Shape::Integer, what)?;
        let both = vec![limit("soft", number.clone()), limit("hard", number)];
        return Some(Node::new(Kind::Map(both), span));
    };
    static LIMITS: super::shape::Object = super::shape::Object::new(
        "a limit",
        &[
            super::shape::required("soft", Shape::Integer),
            super::shape::required("hard", Shape::Integer),
        ],
    );
    reading.closed(Node::new(Kind::Map(entries), span), &LIMITS, what)
}

/// `all`, or a list of requests.
pub(super) fn gpus(reading: &mut Canonical<'_>, node: Node, what: &str) -> Option<Node> {
    if node.text() == Some("all") {
        let all = serde_json::json!([{ "count": "all" }]);
        return Some(Node::from_json(all, &node.span));
    }
    reading.value(node, &keys::GPUS, what)
}

/// Other contexts by name: directories become absolute, images and services stay.
pub(super) fn contexts(reading: &mut Canonical<'_>, node: Node, what: &str) -> Option<Node> {
    let mut node = reading.value(node, &Shape::Pairs(super::shape::Bare::Empty), what)?;
    for entry in node.entries_mut() {
        entry.value = reading.context(entry.value.clone());
    }
    Some(node)
}

/// `true`, or the old form that names the thing in the same place.
pub(super) fn external(reading: &mut Canonical<'_>, node: Node, what: &str) -> Option<Node> {
    static NAMED: super::shape::Object =
        super::shape::Object::new("`external`", &[super::shape::key("name", Shape::Text)]);
    match node.kind {
        Kind::Map(_) => reading.closed(node, &NAMED, what),
        _ => reading.value(node, &Shape::Bool, what),
    }
}

/// A volume of a service: a place on the host becomes absolute, and a place in the container is needed, which has one spelling: `/data/` is
/// `/data` to whoever lays another volume over it.
pub(super) fn finish_mount(reading: &mut Canonical<'_>, mount: &mut Node) {
    let is_bind = mount.text_of("type") == Some("bind");
    if mount.get("target").is_none() {
        let message = format!("{} has no `target`", MOUNT.what);
        reading
            .problems
            .error("compose.missing-key", &mount.span, message);
    }
    if let Some((path, span)) = mount
        .get("target")
        .and_then(|target| Some((target.text()?, &target.span)))
        && path.starts_with('/')
    {
        let normal = canonical::normal(Path::new(path)).display().to_string();
        mount.set("target", Node::new(Kind::Text(normal), span.clone()));
    }
    let Some(source) = mount.get("source").cloned() else {
        if is_bind {
            let message = "a volume of type bind has no `source`";
            reading
                .problems
                .error("compose.missing-key", &mount.span, message);
        }
        return;
    };
    let is_windows = source.text().is_some_and(mount::is_drive);
    if is_bind && !is_windows {
        mount.set("source", reading.absolute(source));
    }
}
