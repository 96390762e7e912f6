//! Layers, a base and the stage's wishes into the two documents of an image: its configuration and its manifest.
//!
//! Pure: the same input gives the same bytes. `serde_json` keeps keys sorted or in the order written here; both are fixed.

use serde_json::{Map, Value, json};
use windlass_guest::Error;

use crate::base::Base;
use crate::blob::Blob;
use crate::config::{Archive, Platform, port_key};
use crate::layer::Layer;

/// A complete image: every blob it needs, and which of them is the manifest.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) manifest: Blob,
    pub(crate) configuration: Blob,
    /// From the bottom up.
    pub(crate) layers: Vec<Blob>,
}

const CONFIGURATION_MEDIA_TYPE: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// # Errors
/// `config.invalid` for what [`crate::config::Config::check`] would have refused.
pub(crate) fn assemble(wanted: &Archive, base: Base, layers: Vec<Layer>) -> Result<Image, Error> {
    let platform = Platform::parse(&wanted.platform).map_err(|text| Error::new("config.invalid", text))?;
    let inherited = base.layers.len();
    let mut diff_ids = base.diff_ids;
    diff_ids.extend(layers.iter().map(|layer| layer.diff_id.as_str().to_owned()));
    let history = history(&base.configuration, inherited, wanted);
    let running = running(&base.configuration, wanted)?;

    let mut document = json!({
        "created": wanted.created,
        "architecture": platform.architecture,
        "os": platform.os,
        "config": running,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    });
    if let Some(variant) = platform.variant {
        document["variant"] = Value::String(variant);
    }
    let configuration = Blob::of_json(CONFIGURATION_MEDIA_TYPE, &document);
    let mut all = base.layers;
    all.extend(layers.into_iter().map(|layer| layer.blob));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_MEDIA_TYPE,
        "config": configuration.descriptor(),
        "layers": all.iter().map(Blob::descriptor).collect::<Vec<_>>(),
    });
    Ok(Image {
        manifest: Blob::of_json(MANIFEST_MEDIA_TYPE, &manifest),
        configuration,
        layers: all,
    })
}

/// How the image runs: what the base says, changed by what the stage says.
fn running(base: &Map<String, Value>, wanted: &Archive) -> Result<Map<String, Value>, Error> {
    let mut running = base
        .get("config")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    if let Some(entrypoint) = &wanted.entrypoint {
        running.insert("Entrypoint".into(), json!(entrypoint));
        // A command is arguments to an entrypoint: the base's arguments mean nothing to another one.
        running.remove("Cmd");
    }
    if let Some(command) = &wanted.command {
        running.insert("Cmd".into(), json!(command));
    }
    if let Some(directory) = &wanted.working_directory {
        running.insert("WorkingDir".into(), json!(directory));
    }
    if let Some(user) = &wanted.user {
        running.insert("User".into(), json!(user));
    }
    let environment = environment(running.get("Env"), wanted);
    if !environment.is_empty() {
        running.insert("Env".into(), json!(environment));
    }
    for (name, value) in &wanted.labels {
        object(&mut running, "Labels").insert(name.clone(), json!(value));
    }
    for port in &wanted.exposed_ports {
        let port = port_key(port).map_err(|text| Error::new("config.invalid", text))?;
        object(&mut running, "ExposedPorts").insert(port, json!({}));
    }
    Ok(running)
}

/// The base's variables in their order, changed in place; new ones after them, sorted.
fn environment(base: Option<&Value>, wanted: &Archive) -> Vec<String> {
    let inherited = base
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut left = wanted.environment.clone();
    let mut lines: Vec<String> = Vec::new();
    for line in inherited.iter().filter_map(Value::as_str) {
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        match left.remove(name) {
            Some(value) => lines.push(format!("{name}={value}")),
            None => lines.push(line.to_owned()),
        }
    }
    lines.extend(left.iter().map(|(name, value)| format!("{name}={value}")));
    lines
}

/// One line per layer. A base without a usable history gets one, as readers refuse counts that differ.
fn history(base: &Map<String, Value>, inherited: usize, wanted: &Archive) -> Vec<Value> {
    let kept = base
        .get("history")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let filled = kept
        .iter()
        .filter(|line| line.get("empty_layer") != Some(&Value::Bool(true)))
        .count();
    let mut lines = if filled == inherited {
        kept
    } else {
        vec![json!({ "created": wanted.created, "created_by": "base" }); inherited]
    };
    lines.extend(wanted.layers.iter().map(
        |layer| json!({ "created": wanted.created, "created_by": format!("windlass build: {} to {}", layer.from, layer.to) }),
    ));
    lines
}

/// The object under `key`, made when there is none or something else.
fn object<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let place = map.entry(key).or_insert_with(|| json!({}));
    if !place.is_object() {
        *place = json!({});
    }
    place.as_object_mut().expect("it was made an object above")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an image with `wanted` over a base running `base` runs like.
    fn check(base: Value, wanted: Value, expected: Value) {
        let mut archive = json!({ "layers": [] });
        archive
            .as_object_mut()
            .unwrap()
            .extend(wanted.as_object().unwrap().clone());
        let archive: Archive = serde_json::from_value(archive).unwrap();
        let configuration = json!({ "config": base }).as_object().unwrap().clone();
        let image = assemble(
            &archive,
            Base {
                configuration,
                ..Base::default()
            },
            Vec::new(),
        )
        .unwrap();
        let bytes = match &image.configuration.content {
            crate::blob::Content::Bytes(bytes) => bytes.clone(),
            other => panic!("{other:?}"),
        };
        let document: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(document["config"], expected);
    }

    #[test]
    fn the_base_is_inherited_and_overridden() {
        let base = json!({ "Env": ["PATH=/bin", "A=1"], "Entrypoint": ["old"], "Cmd": ["x"], "User": "app" });
        check(base.clone(), json!({}), base.clone());
        check(
            base.clone(),
            json!({ "entrypoint": ["new"], "environment": { "A": "2", "Z": "3", "B": "4" } }),
            json!({ "Env": ["PATH=/bin", "A=2", "B=4", "Z=3"], "Entrypoint": ["new"], "User": "app" }),
        );
        check(
            base,
            json!({ "command": ["y"], "working-directory": "/app", "user": "0" }),
            json!({ "Env": ["PATH=/bin", "A=1"], "Entrypoint": ["old"], "Cmd": ["y"], "User": "0", "WorkingDir": "/app" }),
        );
    }

    #[test]
    fn odd_bases_do_not_break_it() {
        check(
            json!({ "Labels": null, "ExposedPorts": 3, "Env": "x" }),
            json!({ "labels": { "a": "b" }, "exposed-ports": ["80", "53/udp"] }),
            json!({ "Labels": { "a": "b" }, "ExposedPorts": { "80/tcp": {}, "53/udp": {} }, "Env": "x" }),
        );
    }
}
