//! The small sections of the file: `directories`, `origins`, `concurrency`.

use super::{
    fields::{Fields, check_word, entries, text},
    keys::{CONCURRENCY, ORIGIN},
    model::{Concurrency, Origin},
    node::Node,
    problems::{Problems, quoted},
    reading::Reading,
};
use crate::{capability::Capability, pattern::Pattern};
use indexmap::IndexMap;
use std::path::PathBuf;

/// `directories`: host directories by the name under `/mnt`.
pub(crate) fn directories(node: Option<Node>, problems: &mut Problems) -> IndexMap<String, PathBuf> {
    let mut directories = IndexMap::new();
    for entry in entries(node, "`directories`", problems) {
        check_word(&entry.key, "directory", &entry.key_span, problems);
        let what = format!("the directory `{}`", entry.key);
        if let Some((path, _)) = text(entry.value, &what, problems) {
            directories.insert(entry.key.into(), PathBuf::from(path));
        }
    }
    directories
}

/// `origins`: where to connect instead.
pub(crate) fn origins(node: Option<Node>, problems: &mut Problems) -> IndexMap<String, Origin> {
    let mut origins = IndexMap::new();
    for entry in entries(node, "`origins`", problems) {
        let pattern = Pattern::parse(Capability::Http, &entry.key);
        if let Err(error) = pattern {
            problems.error("pipeline.pattern", &entry.key_span, error.to_string());
        }
        let what = format!("the origin {}", quoted(&entry.key));
        let Some(mut fields) = Fields::read(entry.value, &what, ORIGIN, problems) else {
            continue;
        };
        let connect = fields.text("connect", problems).and_then(|(text, span)| {
            match Pattern::parse(Capability::Tcp, &text) {
                Ok(_) => Some(text),
                Err(error) => {
                    problems.error("pipeline.pattern", &span, error.to_string());
                    None
                }
            }
        });
        let ca = fields.text("ca", problems).map(|(path, _)| PathBuf::from(path));
        origins.insert(entry.key.into(), Origin { connect, ca });
    }
    origins
}

/// `concurrency`.
pub(crate) fn concurrency(node: Node, reading: &mut Reading<'_>) -> Option<Concurrency> {
    let mut fields = Fields::read(node, "`concurrency`", CONCURRENCY, reading.problems)?;
    let group = fields.take("group")?;
    let text = reading.constant_text(&group, "`group`", "concurrency", &IndexMap::new())?;
    check_word(&text, "group", &group.span, reading.problems);
    Some(Concurrency { group: text })
}
