//! A service of a resolved compose model into what a one-off container gets of it, as `docker-compose run` gives it: environment, env files, networks,
//! secrets and volumes. Ports, health check, restart policy and replicas are for the service, not for a command beside it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use windlass_guest::Error;

/// A service in its model.
pub(crate) struct Service<'a> {
    model: &'a Value,
    service: &'a Value,
    name: &'a str,
    project: &'a str,
}

impl<'a> Service<'a> {
    /// # Errors
    /// `config.invalid` when the model has no such service.
    pub(crate) fn new(model: &'a Value, name: &'a str, project: &'a str) -> Result<Self, Error> {
        let services = model["services"].as_object();
        let Some(service) = services.and_then(|services| services.get(name)) else {
            let known: Vec<&str> = services
                .into_iter()
                .flatten()
                .map(|(name, _)| name.as_str())
                .collect();
            return Err(
                Error::config(format!("the compose files have no service `{name}`"))
                    .help(format!("they have {}", known.join(", "))),
            );
        };
        Ok(Self {
            model,
            service,
            name,
            project,
        })
    }

    /// # Errors
    /// `config.invalid` for a secret that comes from nowhere, and those of `read`.
    pub(crate) fn spec(
        &self,
        given: &BTreeMap<String, String>,
        read: &mut dyn FnMut(&str) -> Result<String, Error>,
    ) -> Result<Value, Error> {
        let mut spec = json!({
            "environment": self.environment(),
            "networks": self.networks(),
        });
        let mut set = |key: &str, value: Value| {
            let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            if !is_empty {
                spec[key] = value;
            }
        };
        set("image", self.service["image"].clone());
        set("entrypoint", self.service["entrypoint"].clone());
        set("user", self.service["user"].clone());
        set("working-dir", self.service["working_dir"].clone());
        set("env-files", json!(self.env_files()));
        set("mounts", json!(self.mounts()));
        set("secrets", Value::Array(self.secrets(given, read)?));
        set("extra-hosts", self.extra_hosts());
        Ok(spec)
    }

    /// What has no value there has one in nobody's environment.
    fn environment(&self) -> Map<String, Value> {
        let entries = self.service["environment"].as_object().into_iter().flatten();
        let text = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        entries
            .filter_map(|(name, value)| Some((name.clone(), text(value)?.into())))
            .collect()
    }

    fn env_files(&self) -> Vec<String> {
        let files = self.service["env_file"].as_array().into_iter().flatten();
        let path = |file: &Value| file["path"].as_str().or(file.as_str()).map(str::to_owned);
        files.filter_map(path).collect()
    }

    /// Without aliases: nobody is to find the migration under the service's name.
    fn networks(&self) -> Map<String, Value> {
        let own = self.service["networks"].as_object();
        let names: Vec<&str> = match own {
            Some(networks) => networks.keys().map(String::as_str).collect(),
            None => vec!["default"],
        };
        let full = |name: &&str| (self.full("networks", name), json!({}));
        names.iter().map(full).collect()
    }

    fn mounts(&self) -> Vec<Value> {
        let volumes = self.service["volumes"].as_array().into_iter().flatten();
        let mount = |volume: &Value| {
            let kind = volume["type"].as_str().unwrap_or("volume");
            let source = volume["source"].as_str().unwrap_or_default();
            let source = match kind {
                "volume" if !source.is_empty() => self.full("volumes", source),
                _ => source.to_owned(),
            };
            json!({
                "type": kind,
                "source": source,
                "target": volume["target"],
                "read-only": volume["read_only"] == true,
            })
        };
        volumes.map(mount).collect()
    }

    fn extra_hosts(&self) -> Value {
        match &self.service["extra_hosts"] {
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

    /// What the engine calls a network or volume of the model.
    fn full(&self, kind: &str, name: &str) -> String {
        let named = self.model[kind][name]["name"].as_str();
        named.map_or_else(|| format!("{}_{name}", self.project), str::to_owned)
    }

    fn secrets(
        &self,
        given: &BTreeMap<String, String>,
        read: &mut dyn FnMut(&str) -> Result<String, Error>,
    ) -> Result<Vec<Value>, Error> {
        let wanted = self.service["secrets"].as_array().into_iter().flatten();
        let secret = |wanted: &Value| {
            let source = wanted["source"].as_str().or(wanted.as_str()).unwrap_or_default();
            let value = match (given.get(source), self.model["secrets"][source]["file"].as_str()) {
                (Some(value), _) => value.clone(),
                (None, Some(path)) => read(path)?,
                (None, None) => return Err(self.unknown_secret(source)),
            };
            let target = wanted["target"].as_str().unwrap_or(source);
            let target = match target.starts_with('/') {
                true => target.to_owned(),
                false => format!("/run/secrets/{target}"),
            };
            let mut file = json!({ "target": target, "value": value });
            for key in ["uid", "gid"] {
                if let Some(number) = number(&wanted[key], 10) {
                    file[key] = number.into();
                }
            }
            if let Some(mode) = number(&wanted["mode"], 8) {
                file["mode"] = mode.into();
            }
            Ok(file)
        };
        wanted.map(secret).collect()
    }

    fn unknown_secret(&self, source: &str) -> Error {
        let message = format!(
            "the secret `{source}` of the service `{}` is external: its value comes from this pipeline's `secrets`",
            self.name
        );
        Error::config(message).help(format!(
            "add to `with:`: `secrets: {{ {source}: \"${{{{ secrets.NAME }}}}\" }}`"
        ))
    }
}

fn number(value: &Value, radix: u32) -> Option<u32> {
    match value {
        Value::String(text) => u32::from_str_radix(text.trim_start_matches("0o"), radix).ok(),
        other => other.as_u64().and_then(|number| u32::try_from(number).ok()),
    }
}
