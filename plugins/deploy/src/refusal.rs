//! What a compose file asks for and this plugin cannot do: gathered with its place, told at once, never ignored.

use serde_json::Value;
use windlass_guest::Error;

#[derive(Debug, Default)]
pub(crate) struct Refusals(Vec<String>);

impl Refusals {
    /// `place` is a path of keys: `services.backend.privileged`.
    pub(crate) fn add(&mut self, place: &str, why: &str) {
        self.0.push(format!("`{place}`: {why}"));
    }

    /// A key that has no meaning here, unless it asks for nothing: `privileged: false`.
    pub(crate) fn unsupported(&mut self, place: &str, value: &Value) {
        if asks_for_something(value) {
            self.add(place, "this cannot be applied");
        }
    }

    /// # Errors
    /// `deploy.unsupported`, with all of them.
    pub(crate) fn into_result(self) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let all = self.0.join("; ");
        Err(Error::new(
            "deploy.unsupported",
            format!("the compose files ask for what cannot be deployed: {all}"),
        )
        .with_details(serde_json::json!({ "refused": self.0 }))
        .help("take these keys out, or leave the service out with `services:` or a profile"))
    }
}

pub(crate) fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => entries.values().any(asks_for_something),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Sample, samples};
    use crate::project;
    use serde_json::json;

    /// Keys that are neither applied nor refused, and why that is right.
    const WITHOUT_EFFECT: &[(&str, &str)] = &[
        ("services.attach", "whose output a terminal shows"),
        ("services.build", "the stage `build` makes images"),
        (
            "services.depends_on.required",
            "a service that is not there is not waited for in any case",
        ),
        ("services.develop", "for tools that watch the sources"),
        (
            "services.expose",
            "on a network of their own containers reach every port",
        ),
        ("services.extends", "the loader has applied it"),
        ("services.ports.app_protocol", "a word for readers"),
        (
            "services.ports.mode",
            "outside of a swarm both modes are the same",
        ),
        ("services.ports.name", "a word for readers"),
        ("services.profiles", "the loader has applied it"),
        (
            "services.volumes.bind.create_host_path",
            "a place that is not there is an error",
        ),
        ("services.volumes.consistency", "it means nothing on Linux"),
        (
            "networks.enable_ipv4",
            "a network has it in any case, and `false` is refused",
        ),
        ("secrets.labels", "a file has none"),
        ("secrets.name", "a file has none outside"),
        ("configs.labels", "a file has none"),
        ("configs.name", "a file has none outside"),
    ];

    /// What would be deployed, or why nothing would.
    fn deployed(model: &Value) -> Result<String, String> {
        let config = json!({ "compose": ["c"], "project": "p" });
        let config = serde_json::from_value(config).unwrap();
        let project = project::read(&config, model, &mut |_| false);
        project
            .map(|project| format!("{project:?}"))
            .map_err(|error| error.message)
    }

    fn around(Sample { document, place }: &Sample) -> (Value, String) {
        let mut model = json!({
            "services": { "a": {
                "image": "x", "networks": { "a": {} }, "volumes": [{ "type": "volume", "source": "a", "target": "/a" }],
                "secrets": [{ "source": "a" }], "configs": [{ "source": "a" }],
            } },
            "networks": { "a": {} }, "volumes": { "a": {} }, "secrets": { "a": { "file": "/a" } }, "configs": { "a": { "file": "/a" } },
        });
        // Not in the place of the service that others need.
        let name = if place[0] == "services" { "b" } else { "a" };
        model[&place[0]][name] = document[&place[0]]["a"].clone();
        let last = place.len() - 1;
        let parent = [&[place[0].clone(), name.to_owned()], &place[2..last]].concat();
        (model, parent.iter().map(|key| format!("/{key}")).collect())
    }

    #[test]
    fn every_key_is_applied_or_refused() {
        let sections = ["services", "networks", "volumes", "secrets", "configs", "models"];
        let is_inside =
            |sample: &Sample| sample.place.len() > 2 && sections.contains(&sample.place[0].as_str());
        let mut ignored = Vec::new();
        for sample in samples(true).into_iter().filter(is_inside) {
            let (with, parent) = around(&sample);
            let mut without = with.clone();
            let key = sample.place.last().unwrap();
            without
                .pointer_mut(&parent)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .remove(key);
            let names = sample.place.iter().filter(|part| *part != "a" && *part != "0");
            let names: Vec<String> = names.cloned().collect();
            match deployed(&with) {
                Ok(project) if deployed(&without).as_ref() == Ok(&project) => ignored.push(names.join(".")),
                Ok(_) => {}
                // A secret without a value is told by its name alone.
                Err(message) => {
                    let mut telling = names.iter().filter(|name| *name != "services");
                    assert!(
                        telling.any(|name| message.contains(name.trim_end_matches('s'))),
                        "{names:?}: {message}"
                    );
                }
            }
        }
        let is_known = |key: &String| WITHOUT_EFFECT.iter().any(|(known, _)| key.starts_with(known));
        let forgotten: Vec<&String> = ignored.iter().filter(|key| !is_known(key)).collect();
        assert!(
            forgotten.is_empty(),
            "neither applied nor refused: {forgotten:#?}"
        );
        for (known, _) in WITHOUT_EFFECT {
            assert!(
                ignored.iter().any(|key| key.starts_with(known)),
                "{known} has an effect"
            );
        }
    }
}
