//! A YAML document as a tree in which every value and every key knows its place.

use crate::source::Span;
#[cfg(test)]
use crate::value::Value;
use indexmap::IndexMap;

/// A value in a file.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
    pub(crate) mark: Mark,
}

/// What a tag before a value says about the value that it is laid over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mark {
    #[default]
    None,
    /// `!reset`: there is none.
    Reset,
    /// `!override`: this one stands in its place, and nothing is merged.
    Override,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map with its value. Keys are unique.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Box<str>,
    pub(crate) key_span: Span,
    pub(crate) value: Node,
}

impl Node {
    pub(crate) fn new(kind: Kind, span: Span) -> Self {
        Self {
            kind,
            span,
            mark: Mark::None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    /// What the value is, in the file's words.
    pub(crate) fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    /// The plain value, without places.
    #[cfg(test)]
    pub(crate) fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(value) => Value::Number(value.clone()),
            Kind::Text(value) => Value::String(value.clone()),
            Kind::List(items) => Value::List(items.iter().map(Self::to_value).collect()),
            Kind::Map(entries) => Value::Map(
                entries
                    .iter()
                    .map(|entry| (entry.key.to_string(), entry.value.to_value()))
                    .collect(),
            ),
        }
    }

    /// Lays an overlay over this: maps are merged, `null` removes a key, everything else is replaced.
    pub(crate) fn merge(&mut self, overlay: Node) {
        let (Kind::Map(base), Kind::Map(_)) = (&mut self.kind, &overlay.kind) else {
            *self = overlay;
            return;
        };
        let Kind::Map(changes) = overlay.kind else { return };
        let mut merged: IndexMap<Box<str>, Entry> = std::mem::take(base)
            .into_iter()
            .map(|entry| (entry.key.clone(), entry))
            .collect();
        for change in changes {
            if change.value.is_null() {
                merged.shift_remove(&change.key);
            } else if let Some(entry) = merged.get_mut(&change.key) {
                entry.value.merge(change.value);
            } else {
                merged.insert(change.key.clone(), change);
            }
        }
        *base = merged.into_values().collect();
    }
}
