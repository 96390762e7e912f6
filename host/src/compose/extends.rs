//! `extends`: a service on top of another one, of the same file or of another.

use super::{
    Names,
    files::Loading,
    keys::SERVICE,
    merge::{merge, settle},
    shape::Shape,
};
use crate::pipeline::{
    node::{Kind, Node},
    problems::{quoted, suggest},
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// Longer chains than this are no configuration that a person can follow.
const MAXIMUM_DEPTH: usize = 32;

/// One resolution of all `extends` of a file.
pub(super) struct Extending<'l, 'a> {
    pub(super) loading: &'l mut Loading<'a>,
    pub(super) names: &'l dyn Names,
    /// The files that were read for a service in them, in the one form.
    pub(super) read: HashMap<PathBuf, Option<Node>>,
}

impl Extending<'_, '_> {
    /// The file's tree with every service complete. A service that is not in it is looked for in `earlier`.
    pub(super) fn apply(&mut self, mut tree: Node, earlier: Option<&Node>) -> Node {
        let Some(services) = tree.get("services").cloned() else {
            return tree;
        };
        let mut complete = services.clone();
        for entry in complete.entries_mut() {
            let mut chain = vec![(tree.span.file.path.clone(), entry.key.to_string())];
            let before = earlier.and_then(|earlier| earlier.get("services"));
            entry.value = self.service(entry.value.clone(), &services, before, &mut chain);
        }
        tree.set("services", complete);
        tree
    }

    fn service(
        &mut self,
        mut service: Node,
        siblings: &Node,
        before: Option<&Node>,
        chain: &mut Vec<(PathBuf, String)>,
    ) -> Node {
        let Some(extends) = service.remove("extends").map(|entry| entry.value) else {
            return service;
        };
        let Some(name) = extends.get("service").cloned() else {
            return service;
        };
        let wanted = name.text().unwrap_or_default().to_string();
        let other = match extends.get("file") {
            Some(file) => match self.file(file) {
                Some(other) => other,
                None => return service,
            },
            None => siblings.clone(),
        };
        let found = other
            .get(&wanted)
            .or_else(|| before.and_then(|before| before.get(&wanted)));
        let Some(base) = found.cloned() else {
            let known = other.entries().iter().map(|entry| &*entry.key);
            let message = format!("there is no service {} to extend", quoted(&wanted));
            let help = suggest(&wanted, known);
            let problems = &mut self.loading.problems;
            problems.error_with_help("compose.reference", &name.span, message, help);
            return service;
        };
        let link = (other.span.file.path.clone(), wanted);
        if chain.contains(&link) || chain.len() > MAXIMUM_DEPTH {
            let message = "this service extends itself, over others";
            self.loading.problems.error("compose.cycle", &name.span, message);
            return service;
        }
        chain.push(link);
        let base = settle(self.service(base, &other, None, chain));
        chain.pop();
        merge(base, service, &Shape::Object(&SERVICE))
    }

    /// The services of another file. Its relative paths belong to its own directory.
    fn file(&mut self, file: &Node) -> Option<Node> {
        let path = PathBuf::from(file.text()?);
        if !self.read.contains_key(&path) {
            let tree = self.loading.parse(&path, Some(&file.span));
            let base = path.parent().unwrap_or(Path::new("/"));
            let tree = tree.and_then(|tree| self.loading.canonical(tree, base, self.names));
            self.read.insert(path.clone(), tree);
        }
        let tree = self.read.get(&path)?.as_ref()?;
        let nothing = || Node::new(Kind::Map(Vec::new()), tree.span.clone());
        Some(tree.get("services").cloned().unwrap_or_else(nothing))
    }
}
