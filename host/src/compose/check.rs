//! Whether a resolved project holds together: everything that is referred to exists, nothing waits for itself, and no two
//! keys say the opposite.

use super::name;
use crate::{
    diagnostic::Diagnostic,
    pipeline::{
        node::{Entry, Node},
        problems::{Problems, quoted, suggest},
    },
    source::Span,
};

/// Services that were left out, with their profiles.
pub(super) type Disabled = [(String, Vec<String>)];

pub(super) fn check(tree: &Node, disabled: &Disabled, problems: &mut Problems) {
    let mut checking = Checking {
        tree,
        disabled,
        complete: !problems.has_errors(),
        problems,
    };
    for section in ["services", "networks", "volumes", "secrets", "configs", "models"] {
        checking.names(section);
    }
    for service in checking.section("services") {
        checking.service(service);
    }
    for section in ["secrets", "configs"] {
        for resource in checking.section(section) {
            checking.origin(section, resource);
        }
    }
    checking.cycles();
}

struct Checking<'a> {
    tree: &'a Node,
    disabled: &'a Disabled,
    /// Whether everything could be read: what is missing may otherwise be what had a problem.
    complete: bool,
    problems: &'a mut Problems,
}

impl<'a> Checking<'a> {
    fn section(&self, name: &str) -> &'a [Entry] {
        self.tree.get(name).map(Node::entries).unwrap_or_default()
    }

    fn names(&mut self, section: &str) {
        for entry in self
            .section(section)
            .iter()
            .filter(|entry| !name::is_resource(&entry.key))
        {
            let message = format!("{} cannot be a name in `{section}`", quoted(&entry.key));
            let help = "a name is made of letters, digits, `.`, `_` and `-`";
            self.problems
                .error_with_help("compose.name", &entry.key_span, message, help);
        }
    }

    fn service(&mut self, entry: &'a Entry) {
        let service = &entry.value;
        if self.complete
            && ["image", "build", "provider"]
                .iter()
                .all(|key| service.get(key).is_none())
        {
            let message = format!("the service `{}` has neither `image` nor `build`", entry.key);
            self.problems.error("compose.service", &entry.key_span, message);
        }
        for (key, section) in [("networks", "networks"), ("models", "models")] {
            for used in service.get(key).map(Node::entries).unwrap_or_default() {
                self.exists(section, &used.key, &used.key_span);
            }
        }
        for section in ["secrets", "configs"] {
            let inside = service.get(section).map(Node::items).unwrap_or_default();
            let building = service.get("build").and_then(|build| build.get(section));
            for used in inside.iter().chain(building.map(Node::items).unwrap_or_default()) {
                if let Some(source) = used.get("source") {
                    self.exists(section, source.text().unwrap_or_default(), &source.span);
                }
            }
        }
        for mount in service.get("volumes").map(Node::items).unwrap_or_default() {
            self.mount(mount);
        }
        for (name, span, optional) in needs(service) {
            self.needed(&name, &span, optional);
        }
        self.contradictions(entry);
    }

    fn mount(&mut self, mount: &Node) {
        let is_volume = mount.text_of("type") == Some("volume");
        let Some(source) = mount.get("source").filter(|_| is_volume) else {
            return;
        };
        let text = source.text().unwrap_or_default();
        if text.contains('/') && !self.section("volumes").iter().any(|volume| &*volume.key == text) {
            let message = format!("{} is not the name of a volume", quoted(text));
            let help = format!("for a directory beside the file write `./{text}`");
            self.problems
                .error_with_help("compose.reference", &source.span, message, help);
            return;
        }
        self.exists("volumes", text, &source.span);
    }

    fn exists(&mut self, section: &str, name: &str, span: &Span) {
        let known = self.section(section);
        if known.iter().any(|entry| &*entry.key == name) {
            return;
        }
        let singular = section.trim_end_matches('s');
        let near = suggest(name, known.iter().map(|entry| &*entry.key));
        let help = match near.as_str() {
            near if near.starts_with("did you mean") => near.to_string(),
            _ => format!("declare it: a key `{name}:` in `{section}:` at the top level"),
        };
        let message = format!("there is no {singular} {}", quoted(name));
        self.problems
            .error_with_help("compose.reference", span, message, help);
    }

    fn needed(&mut self, name: &str, span: &Span, optional: bool) {
        let known = self.section("services");
        if optional || known.iter().any(|entry| &*entry.key == name) {
            return;
        }
        let (message, help) = match self.disabled.iter().find(|(disabled, _)| disabled == name) {
            Some((_, profiles)) => (
                format!("the service {} is not active", quoted(name)),
                format!(
                    "add --profile {}",
                    profiles.first().map_or("NAME", String::as_str)
                ),
            ),
            None => (
                format!("there is no service {}", quoted(name)),
                suggest(name, known.iter().map(|entry| &*entry.key)),
            ),
        };
        self.problems
            .error_with_help("compose.reference", span, message, help);
    }

    fn contradictions(&mut self, entry: &Entry) {
        let service = &entry.value;
        if let (Some(mode), Some(networks)) = (service.get("network_mode"), service.entry("networks")) {
            let message = format!("the service `{}` has `network_mode` and `networks`", entry.key);
            self.problems.push(
                Diagnostic::error("compose.service", message)
                    .at(&mode.span)
                    .related(&networks.key_span, "and this")
                    .help("remove one of them"),
            );
        }
        let count = |node: Option<&Node>| node.and_then(|node| node.to_json().as_i64()).unwrap_or(1);
        let replicas = count(service.get("deploy").and_then(|deploy| deploy.get("replicas")));
        let copies = replicas.max(count(service.get("scale")));
        if let Some(name) = service.get("container_name").filter(|_| copies > 1) {
            let message = format!(
                "{copies} containers of the service `{}` cannot have one name",
                entry.key
            );
            let help = "remove `container_name`, or run one container";
            self.problems
                .error_with_help("compose.service", &name.span, message, help);
        }
    }

    /// A secret or config comes from one place.
    fn origin(&mut self, section: &str, entry: &Entry) {
        let places = ["file", "environment", "content", "external", "driver"];
        let resource = &entry.value;
        let given: Vec<&str> = places
            .into_iter()
            .filter(|key| match *key {
                "external" => resource.is_true("external"),
                key => resource.get(key).is_some(),
            })
            .collect();
        let singular = section.trim_end_matches('s');
        let known = if section == "configs" {
            "file, environment, content"
        } else {
            "file, environment"
        };
        let message = match given.as_slice() {
            [_] => return,
            [] => format!("the {singular} `{}` comes from nowhere", entry.key),
            several => format!(
                "the {singular} `{}` comes from several places: {}",
                entry.key,
                several.join(", ")
            ),
        };
        let help = format!("give it one of {known}, or `external: true`");
        self.problems
            .error_with_help("compose.resource", &entry.key_span, message, help);
    }

    /// Services that wait for each other would never start.
    fn cycles(&mut self) {
        let services = self.section("services");
        let mut done: Vec<&str> = Vec::new();
        for entry in services {
            let mut path: Vec<&str> = Vec::new();
            if let Some(circle) = circle(&entry.key, services, &mut path, &mut done) {
                let message = format!("services wait for each other: {}", circle.join(" -> "));
                self.problems.error("compose.cycle", &entry.key_span, message);
                return;
            }
        }
    }
}

/// The services in a circle that can be reached from `name`.
fn circle<'a>(
    name: &'a str,
    services: &'a [Entry],
    path: &mut Vec<&'a str>,
    done: &mut Vec<&'a str>,
) -> Option<Vec<String>> {
    if let Some(start) = path.iter().position(|before| *before == name) {
        let names = path.iter().skip(start).chain([&name]);
        return Some(names.map(|name| format!("`{name}`")).collect());
    }
    if done.contains(&name) {
        return None;
    }
    let entry = services.iter().find(|entry| &*entry.key == name)?;
    path.push(name);
    for (needed, ..) in needs(&entry.value) {
        let needed = services.iter().find(|entry| *entry.key == *needed);
        if let Some(found) = needed.and_then(|needed| circle(&needed.key, services, path, done)) {
            return Some(found);
        }
    }
    path.pop();
    done.push(name);
    None
}

/// The services that have to be there for this one, where that is said, and whether it is said to be optional.
pub(super) fn needs(service: &Node) -> Vec<(String, Span, bool)> {
    let mut needs = Vec::new();
    for entry in service.get("depends_on").map(Node::entries).unwrap_or_default() {
        let required = entry.value.get("required").map(Node::to_json);
        let optional = required == Some(serde_json::Value::Bool(false));
        needs.push((entry.key.to_string(), entry.key_span.clone(), optional));
    }
    for link in service.get("links").map(Node::items).unwrap_or_default() {
        let text = link.text().unwrap_or_default();
        let name = text.split_once(':').map_or(text, |(name, _)| name);
        needs.push((name.to_string(), link.span.clone(), false));
    }
    for from in service.get("volumes_from").map(Node::items).unwrap_or_default() {
        let text = from.text().unwrap_or_default();
        if !text.starts_with("container:") {
            let name = text.split_once(':').map_or(text, |(name, _)| name);
            needs.push((name.to_string(), from.span.clone(), false));
        }
    }
    for key in ["network_mode", "ipc", "pid", "uts"] {
        let node = service.get(key);
        let name = node
            .and_then(Node::text)
            .and_then(|text| text.strip_prefix("service:"));
        if let (Some(node), Some(name)) = (node, name) {
            needs.push((name.to_string(), node.span.clone(), false));
        }
    }
    needs
}
