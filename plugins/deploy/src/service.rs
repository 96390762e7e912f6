//! One service of the compose model to what `create` takes: key by key, so that a key without a line here is refused and not forgotten.

use std::time::Duration;

use serde_json::{Map, Value, json};
use windlass_guest::Error;

use crate::amount;
use crate::config::{Config, Strategy};
use crate::files;
use crate::names::{self, Colour};
use crate::order::{self, Need};
use crate::project::{object, texts};
use crate::refusal::{Refusals, asks_for_something};

/// As container engines wait when nothing else is said.
const GRACE: Duration = Duration::from_secs(10);

/// When an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pull {
    /// It was built here, or has to be there for another reason.
    Never,
    Missing,
    Always,
}

/// One service, ready to be made.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) project: String,
    pub(crate) image: String,
    pub(crate) pull: Pull,
    pub(crate) replicas: u32,
    pub(crate) strategy: Strategy,
    /// It is to end with 0, and another service waits for that.
    pub(crate) is_task: bool,
    /// Two of its containers cannot run at once: they would publish the same port.
    pub(crate) publishes: bool,
    pub(crate) grace: Duration,
    pub(crate) container_name: Option<String>,
    pub(crate) needs: Vec<Need>,
    /// Its place in the order, for who undoes it.
    pub(crate) position: usize,
    spec: Map<String, Value>,
}

impl Service {
    /// The specification of the n-th container, without the labels that tell one deployment from another.
    pub(crate) fn spec(&self, number: u32) -> Value {
        let mut spec = self.spec.clone();
        let name = match &self.container_name {
            Some(name) => name.clone(),
            None => format!("{}-{}-{number}", self.project, self.name),
        };
        spec.insert("name".into(), name.into());
        spec.insert("number".into(), number.into());
        Value::Object(spec)
    }

    /// The n-th container of a colour: on each network under the colour's name alone, so that nothing but the router finds it.
    pub(crate) fn colour_spec(&self, colour: Colour, number: u32) -> Value {
        let mut spec = self.spec(number);
        spec["name"] = names::coloured(&self.project, &self.name, colour, number).into();
        let alias = names::alias(&self.name, colour);
        if let Some(networks) = spec["networks"].as_object_mut() {
            for endpoint in networks.values_mut() {
                *endpoint = json!({ "aliases": [alias] });
            }
        }
        spec["environment"]["SERVICE_COLOR"] = colour.name().into();
        spec
    }

    /// The capabilities that its containers need, each with its value.
    pub(crate) fn capabilities(&self) -> Vec<(&'static str, String)> {
        let spec = &self.spec;
        let list = |key: &str| {
            spec.get(key)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default()
        };
        let mut needed = vec![
            ("containers.manage", format!("{}/{}", self.project, self.name)),
            ("containers.run", names::with_tag(&self.image)),
        ];
        for mount in list("mounts") {
            let source = mount["source"].as_str().unwrap_or_default();
            if !source.is_empty() && mount["type"] != "tmpfs" {
                let mode = if mount["read-only"] == true { "ro" } else { "rw" };
                needed.push(("containers.mount", format!("{source}:{mode}")));
            }
        }
        for file in list("env-files") {
            let path = file.as_str().unwrap_or_default();
            needed.push(("containers.mount", format!("{path}:ro")));
        }
        needed.extend(
            list("ports")
                .iter()
                .map(|port| ("containers.publish", published(port))),
        );
        needed
    }
}

/// As a grant of `containers.publish` has it.
fn published(port: &Value) -> String {
    let address = port["host-ip"].as_str().unwrap_or("0.0.0.0");
    let address = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    let number = port["published"]
        .as_u64()
        .map_or_else(|| "*".to_owned(), |port| port.to_string());
    let protocol = port["protocol"].as_str().filter(|protocol| *protocol != "tcp");
    format!(
        "{address}:{number}{}",
        protocol
            .map(|protocol| format!("/{protocol}"))
            .unwrap_or_default()
    )
}

/// Reads one service.
pub(crate) struct Reading<'a> {
    pub(crate) config: &'a Config,
    pub(crate) model: &'a Value,
    pub(crate) name: &'a str,
    pub(crate) refusals: &'a mut Refusals,
    pub(crate) is_file: &'a mut dyn FnMut(&str) -> bool,
    pub(crate) spec: Map<String, Value>,
}

/// Keys that say how an image is made, when a service is chosen, what a development tool does, or nothing to an engine.
const WITHOUT_MEANING: [&str; 6] = ["build", "profiles", "expose", "attach", "develop", "extends"];
/// Keys that are looked at elsewhere.
const ELSEWHERE: [&str; 3] = ["image", "container_name", "scale"];

impl<'a> Reading<'a> {
    pub(crate) fn new(
        config: &'a Config,
        model: &'a Value,
        name: &'a str,
        refusals: &'a mut Refusals,
        is_file: &'a mut dyn FnMut(&str) -> bool,
    ) -> Self {
        let spec = json!({ "project": config.project, "service": name, "environment": {}, "networks": {} });
        Self {
            config,
            model,
            name,
            refusals,
            is_file,
            spec: object(&spec).clone(),
        }
    }

    fn from(&self) -> &'a Value {
        &self.model["services"][self.name]
    }

    pub(crate) fn refuse(&mut self, key: &str, why: &str) {
        self.refusals.add(&format!("services.{}.{key}", self.name), why);
    }

    /// `None`: something was refused.
    pub(crate) fn service(mut self, position: usize) -> Result<Option<Service>, Error> {
        let from = self.from();
        for (key, value) in object(from) {
            if !value.is_null() {
                self.key(key, value)?;
            }
        }
        let image = self.image()?;
        self.spec.insert("image".into(), image.clone().into());
        let strategy = self.config.strategy_of(self.name);
        let replicas = from["deploy"]["replicas"]
            .as_u64()
            .or_else(|| from["scale"].as_u64())
            .unwrap_or(1);
        let container_name = from["container_name"].as_str().map(String::from);
        let publishes = self.publishes();
        self.check_shape(strategy, replicas, publishes, container_name.is_some());
        Ok(Some(Service {
            name: self.name.to_owned(),
            project: self.config.project.clone(),
            image,
            pull: self.pull(),
            replicas: u32::try_from(replicas).unwrap_or(u32::MAX),
            strategy,
            is_task: false,
            publishes,
            grace: amount::duration(&from["stop_grace_period"]).unwrap_or(GRACE),
            container_name,
            needs: order::needs(self.config, self.name, from),
            position,
            spec: self.spec,
        }))
    }

    fn publishes(&self) -> bool {
        let ports = self.spec.get("ports").and_then(Value::as_array);
        ports.is_some_and(|ports| ports.iter().any(|port| port.get("published").is_some()))
    }

    /// What each key may be, and all together may not.
    fn check_shape(&mut self, strategy: Strategy, replicas: u64, publishes: bool, is_named: bool) {
        if replicas > 100 {
            self.refuse(
                "deploy.replicas",
                "more than 100 containers of one service are not made",
            );
        }
        if publishes && replicas > 1 {
            self.refuse("ports", "several containers cannot publish the same port");
        }
        if is_named && replicas > 1 {
            self.refuse("container_name", "several containers cannot have the same name");
        }
        if strategy != Strategy::BlueGreen {
            return;
        }
        if publishes {
            self.refuse(
                "ports",
                "two colours cannot publish the same port: let the router publish it",
            );
        }
        if is_named {
            self.refuse("container_name", "two colours cannot have the same name");
        }
        let networks = object(&self.from()["networks"]);
        for (network, endpoint) in networks {
            if asks_for_something(&endpoint["aliases"]) {
                let why =
                    "an alias of both colours would send traffic past the router: give it to the router";
                self.refuse(&format!("networks.{network}.aliases"), why);
            }
        }
        if networks.is_empty() {
            self.refuse(
                "network_mode",
                "a blue-green service needs a network that its router is on",
            );
        }
    }

    fn image(&self) -> Result<String, Error> {
        let own = self.config.images.get(self.name).and_then(Option::as_deref);
        own.or_else(|| self.from()["image"].as_str()).map(String::from).ok_or_else(|| {
            let message = format!("the service `{}` names no image", self.name);
            Error::new("deploy.image", message).help(format!(
                "give it `image:` in the compose file, or add images: {{ {}: \"${{{{ stages.build.outputs.{}.image }}}}\" }}",
                self.name, self.name
            ))
        })
    }

    /// What this machine builds is not looked for in a registry, unless the pipeline names the image.
    fn pull(&mut self) -> Pull {
        let is_named = self.config.images.contains_key(self.name);
        match self.from()["pull_policy"].as_str() {
            None | Some("missing" | "if_not_present") if is_named || self.from()["build"].is_null() => {
                Pull::Missing
            }
            None | Some("missing" | "if_not_present" | "never" | "build") => Pull::Never,
            Some("always") => Pull::Always,
            Some(_) => {
                self.refuse(
                    "pull_policy",
                    "it is one of always, missing, if_not_present, never and build",
                );
                Pull::Never
            }
        }
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.spec.insert(key.to_owned(), value.into());
    }

    fn key(&mut self, key: &str, value: &Value) -> Result<(), Error> {
        match key {
            "command" | "entrypoint" | "user" | "hostname" | "init" | "tty" => self.set(key, value.clone()),
            "working_dir" | "cap_add" | "cap_drop" | "read_only" | "stop_signal" => {
                self.set(&key.replace('_', "-"), value.clone());
            }
            "dns" => self.set(key, value.clone()),
            "labels" | "sysctls" => self.set(key, texts(value)),
            "ulimits" => self.set(key, value.clone()),
            "environment" => self.environment(value),
            "env_file" => files::env_files(self, value),
            "networks" => self.networks(value),
            "network_mode" if value == "none" => {}
            "ports" => self.ports(value),
            "volumes" => files::volumes(self, value),
            "tmpfs" => files::tmpfs(self, value),
            "secrets" => files::secrets(self, value)?,
            "configs" => files::configs(self, value),
            "healthcheck" => self.healthcheck(value),
            "restart" => self.restart(value.as_str().unwrap_or_default()),
            "logging" => {
                self.set(
                    key,
                    json!({ "driver": value["driver"], "options": texts(&value["options"]) }),
                );
            }
            "deploy" => self.deploy(value),
            "depends_on" => self.depends_on(value),
            "mem_limit" => self.amount("memory", key, amount::size(value)),
            "shm_size" => self.amount("shm-size", key, amount::size(value)),
            "pids_limit" => self.amount("pids", key, value.as_i64()),
            "cpus" => self.amount("cpus", key, value.as_f64()),
            "stop_grace_period" => {
                let grace = amount::duration(value).map(|grace| grace.as_millis() as u64);
                self.amount("stop-grace-ms", key, grace);
            }
            "extra_hosts" => {
                let lines = value.as_array().into_iter().flatten().filter_map(Value::as_str);
                let lines: Vec<String> = lines.map(|line| line.replacen('=', ":", 1)).collect();
                self.set("extra-hosts", lines);
            }
            "security_opt" => self.security(value),
            "links" => self.links(value),
            "pull_policy" => {}
            _ if WITHOUT_MEANING.contains(&key) || ELSEWHERE.contains(&key) || key.starts_with("x-") => {}
            _ => {
                let place = format!("services.{}.{key}", self.name);
                self.refusals.unsupported(&place, value);
            }
        }
        Ok(())
    }

    fn amount<T: Into<Value>>(&mut self, key: &str, from: &str, value: Option<T>) {
        match value {
            Some(value) => self.set(key, value),
            None => self.refuse(from, "this is not an amount"),
        }
    }

    /// A name without a value takes the one that the variables have, and is left out where they have none.
    fn environment(&mut self, value: &Value) {
        let pairs = object(value).iter().filter_map(|(name, value)| {
            let inherited = || self.config.environment.get(name).cloned();
            amount::text(value)
                .or_else(inherited)
                .map(|value| (name.clone(), Value::String(value)))
        });
        let pairs: Map<String, Value> = pairs.collect();
        self.set("environment", pairs);
    }

    /// The order comes from [`order::needs`]; here is what it leaves out.
    fn depends_on(&mut self, value: &Value) {
        for (needed, how) in object(value) {
            let place = format!("services.{}.depends_on.{needed}.restart", self.name);
            self.refusals.unsupported(&place, &how["restart"]);
        }
    }

    fn networks(&mut self, value: &Value) {
        let mut networks = Map::new();
        for (key, endpoint) in object(value) {
            for (own, value) in object(endpoint) {
                if own != "aliases" && !own.starts_with("x-") {
                    let place = format!("services.{}.networks.{key}.{own}", self.name);
                    self.refusals.unsupported(&place, value);
                }
            }
            let mut aliases = vec![Value::from(self.name)];
            let more = endpoint["aliases"].as_array().into_iter().flatten();
            aliases.extend(more.filter(|alias| *alias != self.name).cloned());
            let name = self.model["networks"][key]["name"].as_str().unwrap_or(key);
            networks.insert(name.to_owned(), json!({ "aliases": aliases }));
        }
        self.set("networks", networks);
    }

    fn ports(&mut self, value: &Value) {
        let mut ports = Vec::new();
        for port in value.as_array().into_iter().flatten() {
            let mut made = json!({ "target": port["target"], "protocol": "tcp" });
            for (key, value) in object(port) {
                match key.as_str() {
                    "target" | "name" | "app_protocol" => {}
                    "mode" if value == "ingress" || value == "host" => {}
                    "protocol" => made["protocol"] = value.clone(),
                    "host_ip" => made["host-ip"] = value.clone(),
                    "published" => match amount::number::<u16>(value) {
                        Some(number) => made["published"] = number.into(),
                        None => self.refuse("ports.published", "a range to choose from is not supported"),
                    },
                    _ => self
                        .refusals
                        .unsupported(&format!("services.{}.ports.{key}", self.name), value),
                }
            }
            ports.push(made);
        }
        self.set("ports", ports);
    }

    fn healthcheck(&mut self, value: &Value) {
        let is_none = value["test"][0] == "NONE";
        if is_none || value["disable"] == true {
            return self.set("healthcheck", json!({ "disable": true }));
        }
        let mut check = json!({});
        for (key, value) in object(value) {
            match key.as_str() {
                "test" | "retries" => check[key] = value.clone(),
                "interval" | "timeout" | "start_period" => {
                    let name = format!("{}-ms", key.replace('_', "-"));
                    match amount::duration(value) {
                        Some(span) => check[name] = json!(span.as_millis() as u64),
                        None => self.refuse(&format!("healthcheck.{key}"), "this is not a span of time"),
                    }
                }
                key if key.starts_with("x-") => {}
                _ => self
                    .refusals
                    .unsupported(&format!("services.{}.healthcheck.{key}", self.name), value),
            }
        }
        self.set("healthcheck", check);
    }

    /// `always` would start what was stopped on purpose (the old colour) when the engine itself is restarted.
    fn restart(&mut self, policy: &str) {
        let policy = if policy == "always" {
            "unless-stopped"
        } else {
            policy
        };
        self.set("restart", policy);
    }

    fn deploy(&mut self, value: &Value) {
        for (key, value) in object(value) {
            let place = format!("services.{}.deploy.{key}", self.name);
            match key.as_str() {
                "replicas" => {}
                "mode" if value == "replicated" => {}
                // One at a time, which is how it is done anyway.
                "update_config" | "rollback_config" => {
                    let is_other = |(key, value): (&String, &Value)| !(key == "parallelism" && *value == 1);
                    if object(value).iter().any(is_other) {
                        self.refusals.unsupported(&place, value);
                    }
                }
                "resources" => self.resources(value),
                "restart_policy" => self.restart_policy(value),
                key if key.starts_with("x-") => {}
                _ => self.refusals.unsupported(&place, value),
            }
        }
    }

    fn resources(&mut self, value: &Value) {
        let place = format!("services.{}.deploy.resources", self.name);
        self.refusals
            .unsupported(&format!("{place}.reservations"), &value["reservations"]);
        for (key, value) in object(&value["limits"]) {
            match key.as_str() {
                "cpus" => self.amount(
                    "cpus",
                    "deploy.resources.limits.cpus",
                    amount::number::<f64>(value),
                ),
                "memory" => self.amount("memory", "deploy.resources.limits.memory", amount::size(value)),
                "pids" => self.amount(
                    "pids",
                    "deploy.resources.limits.pids",
                    amount::number::<i64>(value),
                ),
                _ => self.refusals.unsupported(&format!("{place}.limits.{key}"), value),
            }
        }
    }

    fn restart_policy(&mut self, value: &Value) {
        let attempts = value["max_attempts"].as_u64();
        let policy = match (value["condition"].as_str().unwrap_or("any"), attempts) {
            ("any", None) => "unless-stopped".to_owned(),
            ("on-failure", None) => "on-failure".to_owned(),
            ("on-failure", Some(attempts)) => format!("on-failure:{attempts}"),
            ("none", None) => "no".to_owned(),
            _ => {
                return self.refuse(
                    "deploy.restart_policy",
                    "`max_attempts` is for the condition on-failure",
                );
            }
        };
        for (key, value) in object(value) {
            if key != "condition" && key != "max_attempts" {
                self.refusals.unsupported(
                    &format!("services.{}.deploy.restart_policy.{key}", self.name),
                    value,
                );
            }
        }
        self.set("restart", policy);
    }

    /// What every container gets in any case may be asked for.
    fn security(&mut self, value: &Value) {
        let always = [
            "no-new-privileges",
            "no-new-privileges:true",
            "no-new-privileges=true",
        ];
        let others = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        if let Some(other) = others.into_iter().find(|option| !always.contains(option)) {
            self.refuse("security_opt", &format!("`{other}` cannot be applied"));
        }
    }

    /// On a network of their own, services find each other by name without links.
    fn links(&mut self, value: &Value) {
        let links = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        if let Some(link) = links.into_iter().find(|link| {
            link.split_once(':')
                .is_some_and(|(service, alias)| service != alias)
        }) {
            self.refuse(
                "links",
                &format!("`{link}`: give the other service that alias on a network"),
            );
        }
    }
}
