//! A map of the file as typed fields: unknown keys, missing keys and wrong kinds are reported, and reading goes on.

use super::{
    duration,
    keys::Key,
    node::{Entry, Kind, Node},
    problems::{Problems, quoted, suggest},
};
use crate::{diagnostic::Diagnostic, name::StageName, source::Span};
use std::time::Duration;

/// The known keys of one map, taken one after the other.
pub(crate) struct Fields {
    entries: Vec<Entry>,
    keys: &'static [Key],
}

impl Fields {
    /// `what` as in "unknown key `x` in `what`". `None` where the node is no map.
    pub(crate) fn read(
        node: Node,
        what: &str,
        keys: &'static [Key],
        problems: &mut Problems,
    ) -> Option<Self> {
        let span = node.span.clone();
        let mut entries = map(node, what, problems)?;
        let extensions = has_extensions(keys);
        entries.retain(|entry| {
            let known = keys.iter().any(|key| key.name == &*entry.key);
            let extension = extensions && entry.key.starts_with("x-");
            if !known && !extension {
                unknown_key(entry, what, keys, problems);
            }
            known
        });
        for key in keys.iter().filter(|key| key.required) {
            if !entries.iter().any(|entry| &*entry.key == key.name) {
                let message = format!("{what} has no `{}`", key.name);
                let first_line = span.range().start..span.range().start;
                let place = Span::new(&span.file, first_line);
                problems.error_with_help(
                    "pipeline.missing-key",
                    &place,
                    message,
                    format!("`{}`: {}", key.name, key.description),
                );
            }
        }
        Some(Self { entries, keys })
    }

    pub(crate) fn take_entry(&mut self, name: &str) -> Option<Entry> {
        debug_assert!(
            self.keys.iter().any(|key| key.name == name),
            "`{name}` is in the table of keys"
        );
        let at = self.entries.iter().position(|entry| &*entry.key == name)?;
        Some(self.entries.swap_remove(at))
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Node> {
        self.take_entry(name).map(|entry| entry.value)
    }

    pub(crate) fn text(&mut self, name: &str, problems: &mut Problems) -> Option<(String, Span)> {
        let node = self.take(name)?;
        text(node, &format!("`{name}`"), problems)
    }

    pub(crate) fn boolean(&mut self, name: &str, problems: &mut Problems) -> Option<bool> {
        let node = self.take(name)?;
        match node.kind {
            Kind::Bool(value) => Some(value),
            _ => wrong(&node, &format!("`{name}`"), "true or false", problems),
        }
    }

    pub(crate) fn duration(&mut self, name: &str, problems: &mut Problems) -> Option<Duration> {
        let node = self.take(name)?;
        let (kind, shown) = match &node.kind {
            Kind::Text(text) => (duration::parse(text), quoted(text)),
            Kind::Number(number) => (None, quoted(&number.to_string())),
            _ => return wrong(&node, &format!("`{name}`"), "a duration", problems),
        };
        if kind.is_none() {
            let message = format!("{shown} is not a duration");
            problems.error_with_help(
                "pipeline.duration",
                &node.span,
                message,
                format!("it takes {}", duration::FORM),
            );
        }
        kind
    }

    /// A whole number within bounds.
    pub(crate) fn integer(
        &mut self,
        name: &str,
        bounds: std::ops::RangeInclusive<u32>,
        problems: &mut Problems,
    ) -> Option<u32> {
        let node = self.take(name)?;
        let number = match &node.kind {
            Kind::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
            _ => return wrong(&node, &format!("`{name}`"), "a whole number", problems),
        };
        let valid = number.filter(|number| bounds.contains(number));
        if valid.is_none() {
            let message = format!(
                "`{name}` must be a whole number from {} to {}",
                bounds.start(),
                bounds.end()
            );
            problems.error("pipeline.type", &node.span, message);
        }
        valid
    }

    /// One of some words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        name: &str,
        choices: &[(&'static str, T)],
        problems: &mut Problems,
    ) -> Option<T> {
        let (word, span) = self.text(name, problems)?;
        let found = choices
            .iter()
            .find(|(known, _)| *known == word)
            .map(|(_, value)| *value);
        if found.is_none() {
            let message = format!("`{name}` cannot be {}", quoted(&word));
            problems.error_with_help(
                "pipeline.type",
                &span,
                message,
                suggest(&word, choices.iter().map(|(known, _)| *known)),
            );
        }
        found
    }

    /// A list of texts; absent and `null` are empty.
    pub(crate) fn texts(&mut self, name: &str, problems: &mut Problems) -> Vec<(String, Span)> {
        let Some(node) = self.take(name) else {
            return Vec::new();
        };
        let what = format!("`{name}`");
        let items = list(node, &what, problems);
        items
            .into_iter()
            .filter_map(|item| text(item, &format!("an element of {what}"), problems))
            .collect()
    }
}

/// Only a pipeline and its stages have `x-` keys.
fn has_extensions(keys: &'static [Key]) -> bool {
    std::ptr::eq(keys, super::keys::TOP) || std::ptr::eq(keys, super::keys::STAGE)
}

fn unknown_key(entry: &Entry, what: &str, keys: &'static [Key], problems: &mut Problems) {
    let message = format!("unknown key {} in {what}", quoted(&entry.key));
    let help = suggest(&entry.key, keys.iter().map(|key| key.name));
    problems.error_with_help("pipeline.unknown-key", &entry.key_span, message, help);
}

/// Reports that a value is of another kind than its place takes.
pub(crate) fn wrong<T>(node: &Node, what: &str, wanted: &str, problems: &mut Problems) -> Option<T> {
    let message = format!("{what} must be {wanted}, not {}", node.describe());
    let mut problem = Diagnostic::error("pipeline.type", message).at(&node.span);
    if wanted == "text" && matches!(node.kind, Kind::Number(_) | Kind::Bool(_)) {
        problem = problem.help(format!("put it in quotes: \"{}\"", node.span.text()));
    }
    problems.push(problem);
    None
}

pub(crate) fn text(node: Node, what: &str, problems: &mut Problems) -> Option<(String, Span)> {
    match node.kind {
        Kind::Text(text) => Some((text, node.span)),
        _ => wrong(&node, what, "text", problems),
    }
}

/// The elements of a list; `null` is an empty one.
pub(crate) fn list(node: Node, what: &str, problems: &mut Problems) -> Vec<Node> {
    match node.kind {
        Kind::List(items) => items,
        Kind::Null => Vec::new(),
        _ => wrong(&node, what, "a list", problems).unwrap_or_default(),
    }
}

/// The entries of a map; `None`, and a problem, for everything else.
pub(crate) fn map(node: Node, what: &str, problems: &mut Problems) -> Option<Vec<Entry>> {
    match node.kind {
        Kind::Map(entries) => Some(entries),
        _ => wrong(&node, what, "a map", problems),
    }
}

/// The entries of an optional map; absent and `null` are empty.
pub(crate) fn entries(node: Option<Node>, what: &str, problems: &mut Problems) -> Vec<Entry> {
    match node {
        Some(node) if !node.is_null() => map(node, what, problems).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// Whether a text can be a name.
pub(crate) fn is_word(text: &str) -> bool {
    StageName::new(text).is_ok()
}

/// Names that expressions can use without quotes, and cells without confusion.
pub(crate) fn check_word(name: &str, what: &str, span: &Span, problems: &mut Problems) {
    if !is_word(name) {
        let message = format!("{} cannot be the name of a {what}", quoted(name));
        problems.error_with_help(
            "pipeline.name",
            span,
            message,
            "it takes 1 to 64 letters, digits, `_` and `-`, not starting with `-`",
        );
    }
}
