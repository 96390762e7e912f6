//! A tree as somebody wrote it to the one form that the specification has for it: every short form spelled out, every
//! amount in one spelling, every path absolute. Unknown keys and wrong kinds are reported, all of them.

use super::{
    shape::{Bare, Object, Shape},
    value,
};
use crate::{
    diagnostic::Diagnostic,
    pipeline::{
        node::{Entry, Kind, Mark, Node},
        problems::{Problems, quoted, suggest},
    },
    source::Span,
};
use std::path::{Component, Path, PathBuf};

/// What reading needs beside the tree.
pub(crate) struct Canonical<'a> {
    /// What relative paths are relative to.
    pub(crate) base: &'a Path,
    /// What `~` stands for.
    pub(crate) home: Option<String>,
    pub(crate) problems: &'a mut Problems,
}

impl Canonical<'_> {
    /// `None`: there is nothing, or a problem was reported. `what` names the place in messages.
    pub(crate) fn value(&mut self, node: Node, shape: &Shape, what: &str) -> Option<Node> {
        if node.mark == Mark::Reset {
            return Some(Node {
                kind: Kind::Null,
                ..node
            });
        }
        let mark = node.mark;
        if node.is_null() && !matches!(shape, Shape::Any) {
            return None;
        }
        let node = match shape {
            Shape::Any => Some(node),
            Shape::Text => self.text(node, what),
            Shape::Scalar => self.scalar(node, what),
            Shape::Bool => self.bool(node, what),
            Shape::Integer => self.number(node, what, true),
            Shape::Number => self.number(node, what, false),
            Shape::Size => self.size(node, what),
            Shape::Duration => self.duration(node, what),
            Shape::Mode => self.mode(node, what),
            Shape::Word(words) => self.word(node, words, what),
            Shape::Path => self.text(node, what).map(|node| self.absolute(node)),
            Shape::Context => self.text(node, what).map(|node| self.context(node)),
            Shape::Pairs(bare) => self.pairs(node, *bare, what),
            Shape::Map(of) => self.map(node, of, what),
            Shape::Named(of, defaults) => {
                let node = self.named(node, defaults, what)?;
                self.map(node, of, what)
            }
            Shape::Object(object) => self.one(node, object, what),
            Shape::List(of, _) => self.list(node, of, what),
            Shape::OneOrList(of, _) => self.one_or_list(node, of, what),
            Shape::Special(read) => read(self, node, what),
        };
        node.map(|node| Node { mark, ..node })
    }

    pub(crate) fn text(&mut self, node: Node, what: &str) -> Option<Node> {
        match node.kind {
            Kind::Text(_) => Some(node),
            _ => self.wrong(&node, what, "text"),
        }
    }

    pub(crate) fn scalar(&mut self, node: Node, what: &str) -> Option<Node> {
        match scalar_text(&node) {
            Some(text) => Some(Node::new(Kind::Text(text), node.span)),
            None => self.wrong(&node, what, "text or a number"),
        }
    }

    pub(super) fn bool(&mut self, node: Node, what: &str) -> Option<Node> {
        match &node.kind {
            Kind::Bool(_) => return Some(node),
            Kind::Text(text) => {
                if let Some(truth) = value::truth(text) {
                    return Some(Node::new(Kind::Bool(truth), node.span));
                }
            }
            _ => {}
        }
        self.wrong(&node, what, "true or false")
    }

    fn number(&mut self, node: Node, what: &str, whole: bool) -> Option<Node> {
        let wanted = if whole { "a whole number" } else { "a number" };
        let number = match &node.kind {
            Kind::Number(number) => Some(number.clone()),
            Kind::Text(text) => value::number(text),
            _ => None,
        };
        let number = number.map(value::plain);
        match number.filter(|number| !whole || number.is_i64()) {
            Some(number) => Some(Node::new(Kind::Number(number), node.span)),
            None => self.wrong(&node, what, wanted),
        }
    }

    fn size(&mut self, node: Node, what: &str) -> Option<Node> {
        let bytes = scalar_text(&node).and_then(|text| value::size(&text));
        self.amount(node, what, bytes.map(|bytes| bytes.to_string()), value::SIZE)
    }

    fn duration(&mut self, node: Node, what: &str) -> Option<Node> {
        let span = node.text().and_then(value::duration).map(value::show_duration);
        self.amount(node, what, span, value::DURATION)
    }

    fn mode(&mut self, node: Node, what: &str) -> Option<Node> {
        let mode = scalar_text(&node).and_then(|text| value::mode(&text));
        self.amount(node, what, mode.map(|mode| format!("{mode:04o}")), value::MODE)
    }

    fn amount(&mut self, node: Node, what: &str, text: Option<String>, help: &str) -> Option<Node> {
        let Some(text) = text else {
            let shown = scalar_text(&node).map_or(node.describe().to_string(), |text| quoted(&text));
            let message = format!("{what} cannot be {shown}");
            self.problems
                .error_with_help("compose.value", &node.span, message, help);
            return None;
        };
        Some(Node::new(Kind::Text(text), node.span))
    }

    fn word(&mut self, node: Node, words: &[&str], what: &str) -> Option<Node> {
        let node = self.text(node, what)?;
        let text = node.text().unwrap_or_default();
        if words.contains(&text) {
            return Some(node);
        }
        let (message, help) = (
            format!("{what} cannot be {}", quoted(text)),
            suggest(text, words.iter().copied()),
        );
        self.problems
            .error_with_help("compose.value", &node.span, message, help);
        None
    }

    /// A relative path becomes an absolute one, without looking whether it exists.
    pub(super) fn absolute(&self, node: Node) -> Node {
        let Kind::Text(text) = &node.kind else { return node };
        let path = match (text.strip_prefix('~'), &self.home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                PathBuf::from(format!("{home}{rest}"))
            }
            _ => self.base.join(text),
        };
        let path = normal(&path).display().to_string();
        Node::new(Kind::Text(path), node.span)
    }

    /// As [`Self::absolute`], for what may also be fetched from somewhere.
    pub(super) fn context(&self, node: Node) -> Node {
        let is_remote = node.text().is_some_and(|text| {
            let prefixes = ["git@", "github.com/", "service:", "docker-image:", "oci-layout:"];
            text.contains("://") || prefixes.iter().any(|prefix| text.starts_with(prefix))
        });
        if is_remote { node } else { self.absolute(node) }
    }

    fn pairs(&mut self, node: Node, bare: Bare, what: &str) -> Option<Node> {
        let span = node.span.clone();
        let mut made = Node::new(Kind::Map(Vec::new()), span);
        match node.kind {
            Kind::Map(entries) => {
                for Entry { key, key_span, value } in entries {
                    if let Some(value) = self.pair(&key, value, bare, what) {
                        put(&mut made, Entry { key, key_span, value });
                    }
                }
            }
            Kind::List(items) => {
                for item in items {
                    let Some(item) = self.scalar(item, &format!("an element of {what}")) else {
                        continue;
                    };
                    let text = item.text().unwrap_or_default();
                    let (key, value) = match text.split_once('=') {
                        Some((key, value)) => (key, Kind::Text(value.to_string())),
                        None => (text, nothing(bare)),
                    };
                    let entry = Entry::new(key.to_string(), &item.span, Node::new(value, item.span.clone()));
                    put(&mut made, entry);
                }
            }
            _ => return self.wrong(&node, what, "a map, or a list of NAME=value"),
        }
        Some(made)
    }

    fn pair(&mut self, key: &str, value: Node, bare: Bare, what: &str) -> Option<Node> {
        match value.kind {
            Kind::Null if value.mark == Mark::None => Some(Node::new(nothing(bare), value.span)),
            _ => self.value(value, &Shape::Scalar, &format!("`{key}` in {what}")),
        }
    }

    /// A list of names becomes a map.
    fn named(&mut self, node: Node, defaults: &[(&str, &str)], what: &str) -> Option<Node> {
        let Kind::List(items) = node.kind else {
            return Some(node);
        };
        let mut entries = Vec::new();
        for item in items {
            let Some(item) = self.text(item, &format!("an element of {what}")) else {
                continue;
            };
            let defaults = defaults.iter().map(|(key, value)| {
                let value = Node::new(Kind::Text((*value).to_string()), item.span.clone());
                Entry::new((*key).to_string(), &item.span, value)
            });
            let value = Node::new(Kind::Map(defaults.collect()), item.span.clone());
            let name = item.text().unwrap_or_default().to_string();
            entries.push(Entry::new(name, &item.span, value));
        }
        Some(Node::new(Kind::Map(entries), node.span))
    }

    fn map(&mut self, node: Node, of: &Shape, what: &str) -> Option<Node> {
        let Kind::Map(entries) = node.kind else {
            return self.wrong(&node, what, "a map");
        };
        let mut made = Vec::new();
        for Entry { key, key_span, value } in entries {
            let span = value.span.clone();
            let nothing = value.is_null();
            let value = self.value(value, of, &format!("`{key}` in {what}"));
            // `networks: { front: }` says that there is one, and nothing about it.
            let value = value.or_else(|| nothing.then(|| Node::new(empty(of), span)));
            if let Some(value) = value {
                made.push(Entry { key, key_span, value });
            }
        }
        Some(Node::new(Kind::Map(made), node.span))
    }

    fn one(&mut self, node: Node, object: &'static Object, what: &str) -> Option<Node> {
        let span = node.span.clone();
        let mut all = self.objects(node, object, what);
        if all.len() > 1 {
            let message = format!("{what} stands for several, and there can be one");
            self.problems.error("compose.type", &span, message);
        }
        (!all.is_empty()).then(|| all.swap_remove(0))
    }

    /// A short form may stand for several maps: a range of ports does.
    fn objects(&mut self, node: Node, object: &'static Object, what: &str) -> Vec<Node> {
        let Some(short) = object.short else {
            return self.object(node, object, what).into_iter().collect();
        };
        let text = match &node.kind {
            Kind::Map(_) => return self.object(node, object, what).into_iter().collect(),
            Kind::Text(_) | Kind::Number(_) => scalar_text(&node),
            _ => None,
        };
        let Some(text) = text else {
            let _: Option<Node> = self.wrong(&node, what, "text or a map");
            return Vec::new();
        };
        match short(&text) {
            Ok(made) => made
                .into_iter()
                .filter_map(|made| self.object(Node::from_json(made, &node.span), object, what))
                .collect(),
            Err(help) => {
                let message = format!("{what} cannot be {}", quoted(&text));
                self.problems
                    .error_with_help("compose.value", &node.span, message, help);
                Vec::new()
            }
        }
    }

    pub(super) fn object(&mut self, node: Node, object: &'static Object, what: &str) -> Option<Node> {
        let Kind::Map(entries) = node.kind else {
            return self.wrong(&node, what, "a map");
        };
        self.check_required(&entries, object, &node.span, what);
        let mut made = Vec::new();
        for Entry { key, key_span, value } in entries {
            let value = if key.starts_with("x-") {
                Some(value)
            } else if let Some(known) = object.key(&key) {
                self.value(value, &known.shape, &format!("`{key}`"))
            } else {
                self.unknown(&key, &key_span, object, what);
                None
            };
            if let Some(value) = value {
                made.push(Entry { key, key_span, value });
            }
        }
        let mut made = Node::new(Kind::Map(made), node.span);
        if let Some(finish) = object.finish {
            finish(self, &mut made);
        }
        Some(made)
    }

    /// As [`Self::object`], without `x-` keys: nothing that comes after a form of its own knows which keys it has.
    pub(super) fn closed(&mut self, node: Node, object: &'static Object, what: &str) -> Option<Node> {
        let mut made = self.object(node, object, what)?;
        if let Kind::Map(entries) = &mut made.kind {
            entries.retain(|entry| !entry.key.starts_with("x-"));
        }
        Some(made)
    }

    fn check_required(&mut self, entries: &[Entry], object: &Object, span: &Span, what: &str) {
        for key in object.keys.iter().filter(|key| key.required) {
            let there = entries
                .iter()
                .any(|entry| &*entry.key == key.name && !entry.value.is_null());
            if !there {
                let place = Span::new(&span.file, span.range().start..span.range().start);
                let message = format!("{what} has no `{}`", key.name);
                self.problems.error("compose.missing-key", &place, message);
            }
        }
    }

    fn unknown(&mut self, key: &str, span: &Span, object: &Object, what: &str) {
        let message = format!("unknown key {} in {what}", quoted(key));
        let known = object.keys.iter().map(|key| key.name);
        self.problems.push(
            Diagnostic::error("compose.unknown-key", message)
                .at(span)
                .label(format!("not a key of {}", object.what))
                .help(suggest(key, known)),
        );
    }

    fn list(&mut self, node: Node, of: &'static Shape, what: &str) -> Option<Node> {
        let Kind::List(items) = node.kind else {
            return self.wrong(&node, what, "a list");
        };
        let what = format!("an element of {what}");
        let mut made = Vec::new();
        for item in items {
            match of {
                Shape::Object(object) => made.extend(self.objects(item, object, &what)),
                _ if item.is_null() => {
                    let _: Option<Node> = self.wrong(&item, &what, "a value");
                }
                _ => made.extend(self.value(item, of, &what)),
            }
        }
        Some(Node::new(Kind::List(made), node.span))
    }

    fn one_or_list(&mut self, node: Node, of: &'static Shape, what: &str) -> Option<Node> {
        let node = match node.kind {
            Kind::List(_) => node,
            _ => {
                let span = node.span.clone();
                Node::new(Kind::List(vec![node]), span)
            }
        };
        self.list(node, of, what)
    }

    pub(super) fn wrong<T>(&mut self, node: &Node, what: &str, wanted: &str) -> Option<T> {
        let message = format!("{what} must be {wanted}, and is {}", node.describe());
        let mut problem = Diagnostic::error("compose.type", message).at(&node.span);
        if wanted == "text" && matches!(node.kind, Kind::Number(_) | Kind::Bool(_)) {
            problem = problem.help(format!("put it in quotes: \"{}\"", node.span.text()));
        }
        self.problems.push(problem);
        None
    }
}

/// Text, or the words in which a number or a truth was written: `1.10` is not `1.1`.
pub(super) fn scalar_text(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Text(text) => Some(text.clone()),
        Kind::Number(number) if node.span.text().is_empty() => Some(number.to_string()),
        Kind::Number(number) => {
            let written = node.span.text();
            // A short form that was spelled out stands where the whole text stood.
            let is_number =
                written.bytes().any(|byte| byte.is_ascii_digit()) && !written.contains([':', ' ']);
            Some(if is_number {
                written.to_string()
            } else {
                number.to_string()
            })
        }
        Kind::Bool(value) => Some(value.to_string()),
        Kind::Null | Kind::List(_) | Kind::Map(_) => None,
    }
}

fn nothing(bare: Bare) -> Kind {
    match bare {
        Bare::Inherited => Kind::Null,
        Bare::Empty => Kind::Text(String::new()),
    }
}

/// What a name says that has nothing behind it.
fn empty(of: &Shape) -> Kind {
    match of {
        Shape::Scalar => Kind::Text(String::new()),
        _ => Kind::Map(Vec::new()),
    }
}

/// The later of two entries with one key counts.
fn put(map: &mut Node, entry: Entry) {
    match map.get_mut(&entry.key) {
        Some(there) => *there = entry.value,
        None => {
            if let Kind::Map(entries) = &mut map.kind {
                entries.push(entry);
            }
        }
    }
}

/// A path without `.` and `..`, as far as that needs no look at the disk.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                normal.pop();
            }
            other => normal.push(other),
        }
    }
    normal
}
