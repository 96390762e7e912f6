//! `images` and the services of compose files into the images that a container engine is asked to build: what they are called here, what in the
//! registry, and the request.
//!
//! Pure. What would be left out of a build is refused by name.

use serde_json::{Map, Value, json};
use windlass_guest::Error;

use crate::config::{Config, Image, guest_path};

/// One image to build.
#[derive(Debug, PartialEq)]
pub(crate) struct Wanted {
    /// The name of its output.
    pub(crate) name: String,
    /// `repository:tag`, as this engine calls it.
    pub(crate) local: String,
    /// `registry/repository:tag`, where it is pushed.
    pub(crate) remote: Option<String>,
    /// For `build` of `windlass:containers/images`.
    pub(crate) spec: Value,
}

/// Keys of `build:` and what `build` of the host calls them.
const KEYS: [(&str, &str); 9] = [
    ("context", "context"),
    ("dockerfile", "dockerfile"),
    ("target", "target"),
    ("network", "network"),
    ("no_cache", "no-cache"),
    ("pull", "pull"),
    ("cache_from", "cache-from"),
    ("extra_hosts", "extra-hosts"),
    ("labels", "labels"),
];

/// All images, those of `images` first. `model` is that of the compose files.
///
/// # Errors
/// `config.invalid`.
pub(crate) fn all(config: &Config, pipeline: &str, model: Option<&Value>) -> Result<Vec<Wanted>, Error> {
    let mut all = Vec::new();
    for (name, image) in &config.images {
        if let Some(context) = &image.context {
            let default = format!("{pipeline}-{name}");
            let repository = image.repository.as_deref().unwrap_or(&default);
            all.push(wanted(config, name, repository, of_image(image, context)));
        }
    }
    if let Some(model) = model {
        of_model(config, pipeline, model, &mut all)?;
    }
    for (at, one) in all.iter().enumerate() {
        let same = |other: &&Wanted| other.local == one.local || other.name == one.name;
        if let Some(other) = all.iter().take(at).find(same) {
            let message = format!("`{}` and `{}` would both be {}", other.name, one.name, one.local);
            return Err(Error::config(message).help("give one of them another name"));
        }
    }
    Ok(all)
}

fn wanted(config: &Config, name: &str, repository: &str, mut spec: Value) -> Wanted {
    let local = format!("{repository}:{}", config.tag);
    spec["tags"] = json!([local]);
    Wanted {
        name: name.to_owned(),
        remote: config.push_to.as_ref().map(|prefix| format!("{prefix}/{local}")),
        local,
        spec,
    }
}

fn of_image(image: &Image, context: &str) -> Value {
    let mut spec = json!({ "context": guest_path(context).display().to_string().trim_end_matches('/') });
    let texts = [
        ("dockerfile", &image.dockerfile),
        ("target", &image.target),
        ("platform", &image.platform),
        ("network", &image.network),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            spec[key] = text.as_str().into();
        }
    }
    if !image.args.is_empty() {
        spec["args"] = json!(image.args);
    }
    spec
}

fn of_model(config: &Config, pipeline: &str, model: &Value, all: &mut Vec<Wanted>) -> Result<(), Error> {
    let project = model["name"].as_str().unwrap_or(pipeline);
    let services = model["services"].as_object().into_iter().flatten();
    let mut built = services
        .filter(|(_, service)| !service["build"].is_null())
        .peekable();
    if built.peek().is_none() {
        return Err(Error::config("no service of the compose files has `build`")
            .help("name the file that says how the images are built, or the images under `images`"));
    }
    for (name, service) in built {
        let repository = match service["image"].as_str() {
            Some(reference) => repository_of(reference).to_owned(),
            None => format!("{project}-{name}"),
        };
        let spec = of_service(name, &service["build"])?;
        all.push(wanted(config, name, &repository, spec));
    }
    Ok(())
}

fn of_service(name: &str, build: &Value) -> Result<Value, Error> {
    let mut spec = json!({});
    let nothing = Map::new();
    for (key, value) in build.as_object().unwrap_or(&nothing) {
        let is_empty = value.is_null() || value == false || value == &json!([]) || value == &json!({});
        match (KEYS.iter().find(|(known, _)| known == key), key.as_str()) {
            _ if is_empty => {}
            (Some((_, "extra-hosts")), _) => spec["extra-hosts"] = hosts(value),
            (Some((_, ours)), _) => spec[ours] = value.clone(),
            (None, "args") => spec["args"] = arguments(value),
            (None, "platforms") => match value.as_array().map(Vec::as_slice) {
                Some([one]) => spec["platform"] = one.clone(),
                _ => return Err(unsupported(name, "platforms", "one platform is built at a time")),
            },
            // What the image is called this stage says itself.
            (None, "tags") => {}
            (None, other) => return Err(unsupported(name, other, "it is not supported")),
        }
    }
    Ok(spec)
}

fn unsupported(service: &str, key: &str, why: &str) -> Error {
    Error::config(format!("`services.{service}.build.{key}`: {why}"))
        .help("describe the image under `images` instead, without it")
}

/// Arguments without a value have none: the environment they would be taken from is nobody's here.
fn arguments(value: &Value) -> Value {
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let entries = value.as_object().into_iter().flatten();
    let known = entries.filter_map(|(name, value)| Some((name.clone(), text(value)?.into())));
    Value::Object(known.collect())
}

fn hosts(value: &Value) -> Value {
    match value {
        Value::Object(hosts) => {
            let shown = hosts.iter().map(|(name, address)| {
                let address = address.as_str().unwrap_or_default();
                json!(format!("{name}:{address}"))
            });
            Value::Array(shown.collect())
        }
        other => other.clone(),
    }
}

/// `team/backend` of `registry.example.com:5000/team/backend:1.0@sha256:…`.
fn repository_of(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => rest,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_image_is_neither_its_registry_nor_its_tag() {
        for (reference, name) in [
            ("team-backend", "team-backend"),
            ("team-backend:latest", "team-backend"),
            ("team/backend@sha256:00", "team/backend"),
            ("127.0.0.1:5000/team/backend:1.0", "team/backend"),
            ("registry.example.com/backend", "backend"),
            ("localhost/backend:1", "backend"),
        ] {
            assert_eq!(repository_of(reference), name, "{reference}");
        }
    }
}
