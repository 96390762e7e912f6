//! The resolved compose model and the `with:` block to what is to be there: networks, volumes and services, in the order in which they come.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use windlass_guest::Error;

use crate::amount;
use crate::config::{Config, Strategy};
use crate::host::Host;
use crate::order;
use crate::refusal::Refusals;
use crate::service::{Reading, Service};

/// What is to be there.
#[derive(Debug)]
pub(crate) struct Project {
    pub(crate) networks: Vec<Resource>,
    pub(crate) volumes: Vec<Resource>,
    /// Each after those that it needs.
    pub(crate) services: Vec<Service>,
}

/// A network or a volume.
#[derive(Debug)]
pub(crate) struct Resource {
    pub(crate) key: String,
    /// As `ensure-network` and `ensure-volume` take it.
    pub(crate) spec: Value,
}

/// Keys of a compose file that mean nothing to a deployment, or are looked at elsewhere.
const TOP: [&str; 7] = [
    "name", "version", "services", "networks", "volumes", "secrets", "configs",
];

/// Reads the compose files.
///
/// # Errors
/// `compose.invalid`, `deploy.unsupported`, `deploy.service`, `deploy.image`, `deploy.secret`, those of the host.
pub(crate) fn load(config: &Config, host: &mut dyn Host) -> Result<Project, Error> {
    let loaded = host.load(&json!({
        "files": config.files(),
        "project": config.project,
        "profiles": config.profiles,
        "variables": config.environment,
    }))?;
    for warning in loaded["warnings"].as_array().into_iter().flatten() {
        host.warn(warning.as_str().unwrap_or_default());
    }
    read(config, &loaded["model"], &mut |path| host.is_file(path))
}

/// As [`load`], of a model that was read.
pub(crate) fn read(
    config: &Config,
    model: &Value,
    is_file: &mut dyn FnMut(&str) -> bool,
) -> Result<Project, Error> {
    let mut refusals = Refusals::default();
    for (key, value) in object(model) {
        if !TOP.contains(&key.as_str()) && !key.starts_with("x-") {
            refusals.unsupported(key, value);
        }
    }
    let all = object(&model["services"]);
    let names = order::select(config, all)?;
    let mut services = Vec::new();
    for (position, name) in names.iter().enumerate() {
        let reading = Reading::new(config, model, name, &mut refusals, is_file);
        let service = reading.service(position)?;
        services.extend(service);
    }
    let used = |kind: &str| -> BTreeMap<String, ()> {
        let all = names.iter().flat_map(|name| used_by(&all[name], kind));
        all.map(|key| (key, ())).collect()
    };
    let networks = resources(config, model, "networks", &used("networks"), &mut refusals);
    let volumes = resources(config, model, "volumes", &used("volumes"), &mut refusals);
    mark_tasks(&mut services);
    refusals.into_result()?;
    Ok(Project {
        networks,
        volumes,
        services,
    })
}

/// A service whose end another one waits for is a task: it is to end, and not to run.
fn mark_tasks(services: &mut [Service]) {
    let needed: Vec<String> = services
        .iter()
        .flat_map(|service| &service.needs)
        .filter(|need| need.condition == order::Condition::Completed)
        .map(|need| need.service.clone())
        .collect();
    for service in services {
        service.is_task = needed.contains(&service.name) && service.strategy == Strategy::Rolling;
    }
}

fn used_by(service: &Value, kind: &str) -> Vec<String> {
    match kind {
        "networks" => object(&service["networks"]).keys().cloned().collect(),
        _ => {
            let mounts = service["volumes"].as_array().into_iter().flatten();
            let named = mounts.filter(|mount| mount["type"] == "volume");
            named
                .filter_map(|mount| mount["source"].as_str().map(String::from))
                .collect()
        }
    }
}

fn resources(
    config: &Config,
    model: &Value,
    kind: &str,
    used: &BTreeMap<String, ()>,
    refusals: &mut Refusals,
) -> Vec<Resource> {
    let all = object(&model[kind])
        .iter()
        .filter(|(key, _)| used.contains_key(*key));
    let read = all.map(|(key, from)| Resource {
        key: key.clone(),
        spec: resource(config, key, from, &format!("{kind}.{key}"), refusals),
    });
    read.collect()
}

fn resource(config: &Config, key: &str, from: &Value, place: &str, refusals: &mut Refusals) -> Value {
    let is_external = from["external"] == true;
    let mut spec = json!({ "project": config.project, "name": key });
    if is_external {
        spec["name"] = from["name"].clone();
        spec["external"] = true.into();
    }
    for (name, value) in object(from) {
        let place = format!("{place}.{name}");
        match name.as_str() {
            "external" => {}
            "name" => {
                let own = format!("{}_{key}", config.project);
                if !is_external && *value != own {
                    refusals.add(&place, &format!("what Windlass makes is called `{own}`"));
                }
            }
            "driver" | "internal" | "attachable" => spec[name] = value.clone(),
            "driver_opts" => spec["driver-opts"] = texts(value),
            "labels" => spec["labels"] = texts(value),
            "enable_ipv4" if *value == true => {}
            "enable_ipv4" => refusals.add(&place, "a network without IPv4 cannot be made"),
            "ipam" => subnet(value, &place, &mut spec, refusals),
            key if key.starts_with("x-") => {}
            _ => refusals.unsupported(&place, value),
        }
    }
    spec
}

/// One subnet, and nothing else of address management.
fn subnet(ipam: &Value, place: &str, spec: &mut Value, refusals: &mut Refusals) {
    for (key, value) in object(ipam) {
        match (key.as_str(), value.as_array().map(Vec::as_slice)) {
            ("driver", _) if *value == "default" => {}
            ("config", Some([one])) if object(one).keys().eq(["subnet"]) => {
                spec["subnet"] = one["subnet"].clone();
            }
            _ => refusals.unsupported(&format!("{place}.{key}"), value),
        }
    }
}

/// The entries of an object; of anything else, none.
pub(crate) fn object(value: &Value) -> &Map<String, Value> {
    static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&NONE)
}

/// With every value as a text.
pub(crate) fn texts(value: &Value) -> Value {
    let texts = object(value).iter().map(|(name, value)| {
        (
            name.clone(),
            Value::String(amount::text(value).unwrap_or_default()),
        )
    });
    Value::Object(texts.collect())
}
