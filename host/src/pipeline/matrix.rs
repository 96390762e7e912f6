//! `matrix`: axes, additions and omissions to cells.

use super::{
    fields::{list, map, wrong},
    keys::MATRIX,
    node::{Entry, Node},
    problems::quoted,
    reading::Reading,
};
use crate::source::Span;
use indexmap::IndexMap;
use serde_json::Value as Json;

/// More cells than this are a loop, and belong into a plugin.
const MAXIMUM_CELLS: usize = 256;

/// The values of one cell, by axis.
pub(crate) type Cell = IndexMap<String, Json>;

/// The cells in order: the last axis turns fastest, then what `include` adds. One empty cell without a matrix, and after a
/// mistake in it.
pub(crate) fn cells(node: Option<Node>, reading: &mut Reading<'_>) -> Vec<Cell> {
    let Some(node) = node else {
        return vec![Cell::new()];
    };
    let span = node.span.clone();
    let Some(entries) = map(node, "`matrix`", reading.problems) else {
        return vec![Cell::new()];
    };
    let special = |entry: &Entry| MATRIX.iter().any(|key| key.name == &*entry.key);
    let (special, axes): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(special);
    let mut axis_values: Vec<(String, Vec<Json>)> = Vec::new();
    for entry in axes {
        super::fields::check_word(&entry.key, "matrix key", &entry.key_span, reading.problems);
        let values = axis(&entry, reading);
        axis_values.push((entry.key.into(), values));
    }
    let Some(mut cells) = product(&axis_values, &span, reading) else {
        return vec![Cell::new()];
    };
    let (mut include, mut exclude) = (Vec::new(), Vec::new());
    for entry in special {
        let found = partial_cells(&entry, reading);
        if &*entry.key == "include" {
            include = found
        } else {
            exclude = found
        }
    }
    for (excluded, place) in &exclude {
        let before = cells.len();
        cells.retain(|cell| !excluded.iter().all(|(key, value)| cell.get(key) == Some(value)));
        if cells.len() == before {
            reading
                .problems
                .error("pipeline.matrix", place, "this excludes no cell");
        }
    }
    for (cell, place) in include {
        if cells.contains(&cell) {
            reading
                .problems
                .error("pipeline.matrix", &place, "there is such a cell already");
        } else {
            cells.push(cell);
        }
    }
    if cells.is_empty() || cells.len() > MAXIMUM_CELLS {
        let message = format!(
            "the matrix has {} cells; it must have 1 to {MAXIMUM_CELLS}",
            cells.len()
        );
        reading.problems.error("pipeline.matrix", &span, message);
        return vec![Cell::new()];
    }
    cells
}

fn axis(entry: &Entry, reading: &mut Reading<'_>) -> Vec<Json> {
    // What was wrong stands for one unknown value: references to it are no further mistakes.
    let unusable = || vec![Json::Null];
    let what = format!("the matrix key `{}`", entry.key);
    let Some(value) = reading.constant(&entry.value, "matrix", &Cell::new()) else {
        return unusable();
    };
    match value.to_json(&mut |_| String::new()) {
        Json::Array(items) if !items.is_empty() && items.iter().all(is_scalar) => items,
        Json::Array(_) => {
            let message = format!("{what} must have values: text, numbers, true or false");
            reading
                .problems
                .error("pipeline.matrix", &entry.value.span, message);
            unusable()
        }
        _ => wrong(&entry.value, &what, "a list", reading.problems).unwrap_or_else(unusable),
    }
}

/// `None`, with a problem, where there are too many cells.
fn product(axes: &[(String, Vec<Json>)], span: &Span, reading: &mut Reading<'_>) -> Option<Vec<Cell>> {
    let sizes = axes.iter().map(|(_, values)| values.len());
    let count = sizes.fold(usize::from(!axes.is_empty()), usize::saturating_mul);
    if count > MAXIMUM_CELLS {
        let message = format!("the matrix has {count} cells; it may have {MAXIMUM_CELLS}");
        reading.problems.error("pipeline.matrix", span, message);
        return None;
    }
    let start = if axes.is_empty() {
        Vec::new()
    } else {
        vec![Cell::new()]
    };
    Some(axes.iter().fold(start, |cells, (key, values)| {
        let extend = |cell: &Cell| {
            let with = |value: &Json| {
                let mut cell = cell.clone();
                cell.insert(key.clone(), value.clone());
                cell
            };
            values.iter().map(with).collect::<Vec<_>>()
        };
        cells.iter().flat_map(extend).collect()
    }))
}

fn partial_cells(entry: &Entry, reading: &mut Reading<'_>) -> Vec<(Cell, Span)> {
    let what = format!("`{}`", entry.key);
    let items = list(entry.value.clone(), &what, reading.problems);
    let mut cells = Vec::new();
    for item in items {
        let Some(value) = reading.constant(&item, "matrix", &Cell::new()) else {
            continue;
        };
        match value.to_json(&mut |_| String::new()) {
            Json::Object(values) if !values.is_empty() && values.values().all(is_scalar) => {
                for key in values.keys() {
                    super::fields::check_word(key, "matrix key", &item.span, reading.problems);
                }
                cells.push((values.into_iter().collect(), item.span));
            }
            _ => {
                let message = format!(
                    "an element of {what} is a map of matrix keys to values, as in {}",
                    quoted("{ os: debian }")
                );
                reading.problems.error("pipeline.matrix", &item.span, message);
            }
        }
    }
    cells
}

fn is_scalar(value: &Json) -> bool {
    matches!(value, Json::String(_) | Json::Number(_) | Json::Bool(_))
}

/// A value as a cell's name has it: without what separates names there.
pub(crate) fn shown(value: &Json) -> String {
    match value {
        Json::String(text) => text
            .chars()
            .take(40)
            .map(|one| {
                if one.is_alphanumeric() || "._-".contains(one) {
                    one
                } else {
                    '-'
                }
            })
            .collect(),
        other => other.to_string(),
    }
}
