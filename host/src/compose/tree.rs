//! Looking into and changing a tree of located values. Knows nothing of compose files.

use super::short::Json;
use crate::{
    pipeline::node::{Entry, Kind, Node},
    source::Span,
};

impl Node {
    /// A plain value as if it had been written at `span`.
    pub(super) fn from_json(value: Json, span: &Span) -> Self {
        let kind = match value {
            Json::Null => Kind::Null,
            Json::Bool(value) => Kind::Bool(value),
            Json::Number(value) => Kind::Number(value),
            Json::String(value) => Kind::Text(value),
            Json::Array(items) => Kind::List(
                items
                    .into_iter()
                    .map(|item| Self::from_json(item, span))
                    .collect(),
            ),
            Json::Object(entries) => Kind::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| Entry::new(key, span, Self::from_json(value, span)))
                    .collect(),
            ),
        };
        Self::new(kind, span.clone())
    }

    pub(super) fn to_json(&self) -> Json {
        match &self.kind {
            Kind::Null => Json::Null,
            Kind::Bool(value) => Json::Bool(*value),
            Kind::Number(value) => Json::Number(value.clone()),
            Kind::Text(value) => Json::String(value.clone()),
            Kind::List(items) => items.iter().map(Self::to_json).collect(),
            Kind::Map(entries) => Json::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.to_string(), entry.value.to_json()))
                    .collect(),
            ),
        }
    }

    /// The entries of a map; none for everything else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn entries_mut(&mut self) -> &mut [Entry] {
        match &mut self.kind {
            Kind::Map(entries) => entries,
            _ => &mut [],
        }
    }

    /// The elements of a list; none for everything else.
    pub(super) fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::List(items) => items,
            _ => &[],
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| &*entry.key == key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        let mut entries = self.entries_mut().iter_mut();
        entries
            .find(|entry| &*entry.key == key)
            .map(|entry| &mut entry.value)
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Self::text)
    }

    /// Whether the key is there and is `true`.
    pub(super) fn is_true(&self, key: &str) -> bool {
        matches!(self.get(key).map(|node| &node.kind), Some(Kind::Bool(true)))
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<Entry> {
        let Kind::Map(entries) = &mut self.kind else {
            return None;
        };
        let at = entries.iter().position(|entry| &*entry.key == key)?;
        Some(entries.remove(at))
    }

    /// Sets a key of a map, in its place where it is there already.
    pub(super) fn set(&mut self, key: &str, value: Node) {
        if let Some(there) = self.get_mut(key) {
            *there = value;
        } else if let Kind::Map(entries) = &mut self.kind {
            let span = value.span.clone();
            entries.push(Entry::new(key.to_string(), &span, value));
        }
    }
}

impl Entry {
    pub(super) fn new(key: String, span: &Span, value: Node) -> Self {
        Self {
            key: key.into(),
            key_span: span.clone(),
            value,
        }
    }
}
