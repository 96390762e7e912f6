//! A tree without its `x-` keys. In a map with names of the author's choice, `x-` is an ordinary beginning of a name.

use super::shape::Shape;
use crate::pipeline::node::{Entry, Kind, Node};

pub(super) fn without_extensions(node: &Node, shape: &Shape) -> Node {
    let kind = match (&node.kind, shape) {
        (Kind::Map(entries), Shape::Object(object)) => {
            let known = entries
                .iter()
                .filter_map(|entry| Some((entry, object.key(&entry.key)?)));
            Kind::Map(known.map(|(entry, key)| inner(entry, &key.shape)).collect())
        }
        (Kind::Map(entries), Shape::Map(of) | Shape::Named(of, _)) => {
            Kind::Map(entries.iter().map(|entry| inner(entry, of)).collect())
        }
        (Kind::List(items), Shape::List(of, _) | Shape::OneOrList(of, _)) => {
            Kind::List(items.iter().map(|item| without_extensions(item, of)).collect())
        }
        (other, _) => other.clone(),
    };
    Node::new(kind, node.span.clone())
}

fn inner(entry: &Entry, shape: &Shape) -> Entry {
    Entry {
        key: entry.key.clone(),
        key_span: entry.key_span.clone(),
        value: without_extensions(&entry.value, shape),
    }
}
