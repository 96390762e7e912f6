//! `${X}` in the values of a tree to what it stands for. Keys stay as they are.

use super::Names;
use crate::{
    diagnostic::Diagnostic,
    pipeline::{
        node::{Kind, Node},
        problems::Problems,
        substitute::Substitution,
    },
};
use std::cell::RefCell;

/// Replaces every variable; one without value becomes nothing, with a warning.
pub(crate) fn interpolate(node: &mut Node, names: &dyn Names, problems: &mut Problems) {
    match &mut node.kind {
        Kind::Text(text) if text.contains('$') => {
            let unset = RefCell::new(Vec::new());
            let look_up = |name: &str| names.look_up(name);
            let substitution = Substitution {
                look_up: &look_up,
                unset: &|name| unset.borrow_mut().push(name.to_string()),
                escapes: false,
            };
            match substitution.expand(text) {
                Ok(expanded) => *text = expanded,
                Err(message) => problems.error("compose.variable", &node.span, message),
            }
            for name in unset.into_inner() {
                let message = format!("the variable `{name}` is not set: nothing stands in its place");
                problems.push(
                    Diagnostic::warning("compose.variable", message)
                        .at(&node.span)
                        .help(format!("set it, give it a default with ${{{name}:-...}}, or require it with ${{{name}:?}}")),
                );
            }
        }
        Kind::List(items) => items
            .iter_mut()
            .for_each(|item| interpolate(item, names, problems)),
        Kind::Map(entries) => entries
            .iter_mut()
            .for_each(|entry| interpolate(&mut entry.value, names, problems)),
        _ => {}
    }
}
