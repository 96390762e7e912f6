//! What the engine knows of a container, as the WIT has it.

use super::names;
use bollard::models::ContainerInspectResponse;
use serde_json::{Map, Value as Json, json};

/// Labels of ours and of others, at most.
const LONGEST_LABEL: usize = 4 << 10;

pub(super) fn to_json(container: &ContainerInspectResponse) -> Json {
    let config = container.config.as_ref();
    let state = container.state.as_ref();
    let labels = config
        .and_then(|config| config.labels.clone())
        .unwrap_or_default();
    let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
    let health = state.and_then(|state| state.health.as_ref()?.status);
    let health = health.map_or_else(|| "none".into(), |status| status.to_string());
    let shown_labels: Map<String, Json> = labels
        .iter()
        .filter(|(_, value)| value.len() <= LONGEST_LABEL)
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    json!({
        "id": container.id,
        "name": container.name.as_deref().unwrap_or_default().trim_start_matches('/'),
        "project": label(names::PROJECT),
        "service": label(names::SERVICE),
        "number": label(names::NUMBER).parse::<u32>().unwrap_or(1),
        "image": config.and_then(|config| config.image.clone()).unwrap_or_default(),
        "image-id": container.image.clone().unwrap_or_default(),
        "state": state.and_then(|state| state.status).map_or_else(String::new, |status| status.to_string()),
        "health": if health.is_empty() { "none".into() } else { health },
        "exit-code": state.and_then(|state| state.exit_code).unwrap_or_default(),
        "created": container.created.clone().unwrap_or_default(),
        "started": state.and_then(|state| state.started_at.clone()).unwrap_or_default(),
        "labels": shown_labels,
        "networks": networks(container),
        "ports": ports(container),
        "mounts": mounts(container),
        "one-off": label(names::ONE_OFF) == "True",
    })
}

fn networks(container: &ContainerInspectResponse) -> Json {
    let settings = container.network_settings.as_ref();
    let networks = settings
        .and_then(|settings| settings.networks.clone())
        .unwrap_or_default();
    let shown = networks.into_iter().map(|(name, endpoint)| {
        let aliases = endpoint.aliases.unwrap_or_default();
        let address = endpoint.ip_address.unwrap_or_default();
        (name, json!({ "aliases": aliases, "address": address }))
    });
    Json::Object(shown.collect())
}

fn ports(container: &ContainerInspectResponse) -> Json {
    let settings = container.network_settings.as_ref();
    let ports = settings
        .and_then(|settings| settings.ports.clone())
        .unwrap_or_default();
    let mut shown: Vec<Json> = Vec::new();
    for (port, bindings) in ports {
        let (target, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
        let target: u16 = target.parse().unwrap_or_default();
        for binding in bindings.unwrap_or_default() {
            let published: Option<u16> = binding.host_port.and_then(|port| port.parse().ok());
            let host_ip = binding.host_ip.unwrap_or_default();
            shown.push(
                json!({ "host-ip": host_ip, "published": published, "target": target, "protocol": protocol }),
            );
        }
    }
    shown.sort_by_key(Json::to_string);
    Json::Array(shown)
}

fn mounts(container: &ContainerInspectResponse) -> Json {
    let mounts = container.mounts.iter().flatten().map(|mount| {
        // Of a bind mount the path on the machine is not the guest's business.
        let source = mount.name.clone().unwrap_or_default();
        json!({
            "type": mount.typ, "source": source, "target": mount.destination, "read-only": mount.rw == Some(false),
        })
    });
    Json::Array(mounts.collect())
}
