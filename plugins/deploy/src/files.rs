//! Everything of a service that is a file or a directory in its containers: volumes, secrets, configs; and its env files.

use serde_json::{Value, json};
use windlass_guest::Error;

use crate::amount;
use crate::project::object;
use crate::service::Reading;

/// Paths, for the host to read: their values are not for the plugin.
pub(crate) fn env_files(reading: &mut Reading<'_>, value: &Value) {
    let mut paths = Vec::new();
    for file in value.as_array().into_iter().flatten() {
        if !file["format"].is_null() {
            reading.refuse("env_file.format", "env files are read in Compose's own dialect");
        }
        let path = file["path"].as_str().unwrap_or_default();
        if file["required"] == false && !(reading.is_file)(path) {
            continue;
        }
        paths.push(path.to_owned());
    }
    if !paths.is_empty() {
        reading.spec.insert("env-files".into(), paths.into());
        reading
            .spec
            .insert("variables".into(), json!(reading.config.environment));
    }
}

fn push(reading: &mut Reading<'_>, key: &str, value: Value) {
    let list = reading.spec.entry(key).or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut() {
        list.push(value);
    }
}

pub(crate) fn volumes(reading: &mut Reading<'_>, value: &Value) {
    for mount in value.as_array().into_iter().flatten() {
        let target = mount["target"].as_str().unwrap_or_default();
        let place = format!("services.{}.volumes.{target}", reading.name);
        let kind = mount["type"].as_str().unwrap_or_default();
        if !["volume", "bind", "tmpfs"].contains(&kind) {
            reading.refuse("volumes", &format!("a mount of type {kind} cannot be made"));
            continue;
        }
        for (key, value) in object(mount) {
            match key.as_str() {
                "type" | "source" | "target" | "read_only" | "consistency" => {}
                "bind" => {
                    // A place that is not there is an error and no new directory of root's.
                    let others = object(value).iter().filter(|(key, _)| *key != "create_host_path");
                    others.for_each(|(key, value)| {
                        reading
                            .refusals
                            .unsupported(&format!("{place}.bind.{key}"), value)
                    });
                }
                _ => reading.refusals.unsupported(&format!("{place}.{key}"), value),
            }
        }
        let source = mount["source"].as_str();
        let source = source.map(|source| match kind {
            "volume" => reading.model["volumes"][source]["name"]
                .as_str()
                .unwrap_or(source),
            _ => source,
        });
        let mut made = json!({ "type": kind, "target": target, "read-only": mount["read_only"] == true });
        if let Some(source) = source {
            made["source"] = source.into();
        }
        push(reading, "mounts", made);
    }
}

pub(crate) fn tmpfs(reading: &mut Reading<'_>, value: &Value) {
    for text in value.as_array().into_iter().flatten().filter_map(Value::as_str) {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        if !options.is_empty() {
            reading.refuse("tmpfs", &format!("the options `{options}` cannot be applied"));
        }
        push(
            reading,
            "mounts",
            json!({ "type": "tmpfs", "target": target, "read-only": false }),
        );
    }
}

/// A value becomes a file that its owner reads; a file of the workspace is mounted, as compose tools do it.
pub(crate) fn secrets(reading: &mut Reading<'_>, value: &Value) -> Result<(), Error> {
    for grant in value.as_array().into_iter().flatten() {
        let key = grant["source"].as_str().unwrap_or_default();
        let from = &reading.model["secrets"][key];
        swarm(reading, &format!("secrets.{key}"), from);
        let target = match grant["target"].as_str() {
            Some(absolute) if absolute.starts_with('/') => absolute.to_owned(),
            Some(name) => format!("/run/secrets/{name}"),
            None => format!("/run/secrets/{key}"),
        };
        let outside = from["name"].as_str().filter(|_| from["external"] == true);
        let own = reading.config.secrets.get(key);
        let own = own.or_else(|| reading.config.secrets.get(outside?));
        let variable = from["environment"].as_str();
        let value = own.or_else(|| reading.config.environment.get(variable?));
        match (value, from["file"].as_str()) {
            (Some(value), _) => file(reading, grant, &target, &value.clone(), 0o400),
            (None, Some(path)) => mount(reading, "secrets", grant, path, &target),
            (None, None) => return Err(missing(key, variable)),
        }
    }
    Ok(())
}

fn missing(key: &str, variable: Option<&str>) -> Error {
    let message = format!("the compose files need the secret `{key}`, and nothing gives it a value");
    let help = match variable {
        Some(variable) => {
            format!("add environment: {{ {variable}: \"${{{{ secrets.{key} }}}}\" }} to `with:`")
        }
        None => format!("add secrets: {{ {key}: \"${{{{ secrets.{key} }}}}\" }} to `with:`"),
    };
    Error::new("deploy.secret", message).help(help)
}

pub(crate) fn configs(reading: &mut Reading<'_>, value: &Value) {
    for grant in value.as_array().into_iter().flatten() {
        let key = grant["source"].as_str().unwrap_or_default();
        let from = &reading.model["configs"][key];
        swarm(reading, &format!("configs.{key}"), from);
        let target = grant["target"]
            .as_str()
            .map_or_else(|| format!("/{key}"), String::from);
        let variable = from["environment"].as_str();
        let value = from["content"].as_str().map(String::from);
        let value = value.or_else(|| reading.config.environment.get(variable?).cloned());
        match (value, from["file"].as_str()) {
            (Some(value), _) => file(reading, grant, &target, &value, 0o444),
            (None, Some(path)) => mount(reading, "configs", grant, path, &target),
            (None, None) => reading.refuse(&format!("configs.{key}"), "it has neither a file nor a content"),
        }
    }
}

/// What only the store of a swarm can do with a file.
fn swarm(reading: &mut Reading<'_>, place: &str, from: &Value) {
    for key in ["driver_opts", "template_driver"] {
        reading
            .refusals
            .unsupported(&format!("{place}.{key}"), &from[key]);
    }
}

fn file(reading: &mut Reading<'_>, grant: &Value, target: &str, value: &str, mode: u32) {
    let id = |key: &str| amount::number::<u64>(&grant[key]).unwrap_or(0);
    let mode = amount::mode(&grant["mode"]).unwrap_or(mode);
    let made = json!({ "target": target, "value": value, "uid": id("uid"), "gid": id("gid"), "mode": mode });
    push(reading, "secrets", made);
}

fn mount(reading: &mut Reading<'_>, kind: &str, grant: &Value, path: &str, target: &str) {
    for key in ["uid", "gid", "mode"] {
        if !grant[key].is_null() {
            reading.refuse(&format!("{kind}.{key}"), &format!("{path} is mounted as it is"));
        }
    }
    push(
        reading,
        "mounts",
        json!({ "type": "bind", "source": path, "target": target, "read-only": true }),
    );
}
