//! Two trees in the one form of [`super::canonical`] to one: the specification's rules for several files and for `extends`.

use super::shape::{Merge, Object, Shape};
use crate::pipeline::node::{Entry, Kind, Mark, Node};

/// Lays `over` over `base`; both have the given shape.
pub(crate) fn merge(base: Node, over: Node, shape: &Shape) -> Node {
    if over.mark != Mark::None {
        return over;
    }
    match (shape, &base.kind, &over.kind) {
        (Shape::Object(object), Kind::Map(_), Kind::Map(_)) => merge_objects(base, over, object),
        (Shape::Map(of) | Shape::Named(of, _), Kind::Map(_), Kind::Map(_)) => {
            merge_entries(base, over, |_| Some(of))
        }
        (Shape::Pairs(_), Kind::Map(_), Kind::Map(_)) => merge_entries(base, over, |_| None),
        (Shape::List(_, how) | Shape::OneOrList(_, how), Kind::List(_), Kind::List(_)) => {
            merge_lists(base, over, *how)
        }
        _ => over,
    }
}

fn merge_objects(base: Node, over: Node, object: &'static Object) -> Node {
    if let Some(identity) = object.identity {
        let (before, after) = (base.text_of(identity), over.text_of(identity));
        if before.is_some() && after.is_some() && before != after {
            return over;
        }
    }
    merge_entries(base, over, |key| object.key(key).map(|key| &key.shape))
}

fn merge_entries<'s>(mut base: Node, over: Node, shape: impl Fn(&str) -> Option<&'s Shape>) -> Node {
    let Kind::Map(changes) = over.kind else {
        return base;
    };
    let Kind::Map(entries) = &mut base.kind else {
        return base;
    };
    for change in changes {
        match entries.iter_mut().find(|entry| entry.key == change.key) {
            None => entries.push(change),
            Some(there) => {
                let before =
                    std::mem::replace(&mut there.value, Node::new(Kind::Null, change.key_span.clone()));
                there.key_span = change.key_span;
                there.value = match shape(&change.key) {
                    Some(shape) => merge(before, change.value, shape),
                    None => change.value,
                };
            }
        }
    }
    base
}

fn merge_lists(base: Node, over: Node, how: Merge) -> Node {
    let (Kind::List(mut items), Kind::List(more)) = (base.kind, over.kind) else {
        return Node::new(Kind::Null, base.span);
    };
    for item in more {
        let same = |there: &&mut Node| match how {
            Merge::By(fields) => fields
                .iter()
                .all(|field| identity(there, field) == identity(&item, field)),
            _ => there.to_json() == item.to_json(),
        };
        match how {
            Merge::Replace | Merge::Append => items.push(item),
            Merge::Set | Merge::By(_) => match items.iter_mut().find(same) {
                Some(there) => *there = item,
                None => items.push(item),
            },
        }
    }
    Node::new(Kind::List(items), over.span)
}

/// What tells an element from others; a file in the container is called as its source unless it says otherwise.
fn identity(item: &Node, field: &str) -> Option<String> {
    let value = item.get(field).or_else(|| match field {
        "target" => item.get("source"),
        _ => None,
    });
    value
        .map(|value| value.to_json().to_string())
        .or_else(|| (field == "protocol").then(|| "\"tcp\"".to_string()))
}

/// Takes out what `!reset` removed; what `!override` brought becomes ordinary.
pub(crate) fn settle(mut node: Node) -> Node {
    node.mark = Mark::None;
    node.kind = match node.kind {
        Kind::List(items) => {
            let kept = items.into_iter().filter(|item| item.mark != Mark::Reset);
            Kind::List(kept.map(settle).collect())
        }
        Kind::Map(entries) => {
            let kept = entries
                .into_iter()
                .filter(|entry| entry.value.mark != Mark::Reset);
            let settled = kept.map(|entry| Entry {
                value: settle(entry.value),
                ..entry
            });
            Kind::Map(settled.collect())
        }
        other => other,
    };
    node
}
