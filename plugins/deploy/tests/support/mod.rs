//! A container engine and a router in memory. It can stop answering before or after any effect, or fail any call once; it remembers the effects
//! of an attempt that was cut off as the journal does; and after every call it looks whether the colour that has the traffic is well.

#![allow(dead_code, reason = "each test uses a part of it")]

mod programs;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use windlass_guest::Error;
use windlass_guest::containers::{Container, Image, Made, Output, Program};
use windlass_plugin_deploy::config::Config;
use windlass_plugin_deploy::host::Host;

/// When the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    BeforeEffect(usize),
    AfterEffect(usize),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub(crate) containers: Vec<Container>,
    /// By id, what a container was made from.
    pub(crate) specs: BTreeMap<String, Value>,
    pub(crate) model: Value,
    pub(crate) images: BTreeSet<String>,
    /// References that a registry has.
    pub(crate) registry: BTreeSet<String>,
    /// Images whose containers never become healthy.
    pub(crate) ill: BTreeSet<String>,
    /// Images whose containers become unhealthy once they have had traffic for some seconds.
    pub(crate) fragile: BTreeSet<String>,
    /// Images whose answer is not 200.
    pub(crate) wrong: BTreeMap<String, u16>,
    /// What the router would start with, and what it does.
    pub(crate) file: String,
    pub(crate) memory: BTreeMap<String, String>,
    /// How many requests a colour still answers; each look finds one less.
    pub(crate) in_flight: BTreeMap<String, u64>,
    pub(crate) denied: BTreeSet<String>,
    pub(crate) log: Vec<String>,
    /// Every effect, in order.
    pub(crate) effects: Vec<String>,
    pub(crate) crash: Option<Crash>,
    pub(crate) has_crashed: bool,
    pub(crate) fail_call: Option<usize>,
    pub(crate) calls: usize,
    /// From here on the traffic has to be answered.
    pub(crate) serves: bool,
    pub(crate) run: String,
    is_undo: bool,
    attempt: BTreeMap<String, usize>,
    /// Results of this run's effects, by key, for an attempt after one that was cut off.
    journal: BTreeMap<String, Value>,
    cut_off: BTreeMap<String, Value>,
    networks: BTreeSet<String>,
    volumes: BTreeSet<String>,
    clock: Duration,
    next: usize,
}

pub(crate) fn crashed() -> Error {
    Error::new("test.crash", "the process has ended")
}

impl World {
    pub(crate) fn new(model: Value) -> Self {
        let mut world = Self {
            model,
            ..Self::default()
        };
        world
            .images
            .extend(["db:1", "router:1", "front:1", "front:2", "tool:1"].map(String::from));
        world
            .images
            .extend((1..9).map(|version| format!("app:{version}")));
        world
    }

    /// A new process works on a run.
    pub(crate) fn begin(&mut self, run: &str, is_undo: bool) {
        if self.run != run {
            self.journal.clear();
        }
        self.cut_off = if self.has_crashed {
            self.journal.clone()
        } else {
            BTreeMap::new()
        };
        self.run = run.to_owned();
        self.is_undo = is_undo;
        self.attempt.clear();
        self.effects.clear();
        self.calls = 0;
        self.crash = None;
        self.fail_call = None;
        self.has_crashed = false;
    }

    pub(crate) fn deploy(&mut self, run: &str, config: &Config) -> Result<windlass_guest::Outcome, Error> {
        self.begin(run, false);
        windlass_plugin_deploy::stage::run(config, self)
    }

    pub(crate) fn undo(&mut self, run: &str, config: &Config) -> Result<windlass_guest::Outcome, Error> {
        self.begin(run, true);
        windlass_plugin_deploy::undo::compensate(config, self)
    }

    pub(crate) fn names(&self, of: impl Fn(&Container) -> bool) -> Vec<String> {
        let mut names: Vec<String> = self
            .containers
            .iter()
            .filter(|container| of(container))
            .map(|container| container.name.clone())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn running(&self) -> Vec<String> {
        self.names(Container::is_running)
    }

    pub(crate) fn image_of(&self, name: &str) -> String {
        self.containers
            .iter()
            .find(|container| container.name == name)
            .map(|container| container.image.clone())
            .unwrap_or_default()
    }

    pub(crate) fn at(&mut self, name: &str) -> &mut Container {
        self.containers
            .iter_mut()
            .find(|container| container.name == name)
            .unwrap()
    }

    /// Ends a container, as a crash of its own would.
    pub(crate) fn kill(&mut self, name: &str) {
        let container = self.at(name);
        container.state = "exited".into();
        container.exit_code = 137;
        container.health = "none".into();
        if container.service == "router" {
            self.memory.clear();
        }
    }

    /// Who answers a request now: the image of a well container of the live colour.
    pub(crate) fn serving(&self) -> Option<String> {
        let live = self.memory.get("backend")?;
        let colour = live.split(' ').next()?;
        let alias = format!("backend-{colour}");
        let mut well = self
            .containers
            .iter()
            .filter(|container| container.is_running() && container.health == "healthy");
        well.find(|container| self.aliases(container).contains(&alias))
            .map(|container| container.image.clone())
    }

    fn aliases(&self, container: &Container) -> Vec<String> {
        let networks = self.specs[&container.id]["networks"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        let all = networks
            .values()
            .flat_map(|endpoint| endpoint["aliases"].as_array().cloned().unwrap_or_default());
        all.filter_map(|alias| alias.as_str().map(String::from)).collect()
    }

    fn call(&mut self) -> Result<(), Error> {
        if self.has_crashed {
            return Err(crashed());
        }
        if self.serves && self.serving().is_none() {
            panic!(
                "nobody serves: the router has {:?}, there is {:#?}, after {:#?}",
                self.memory,
                self.names(|_| true),
                self.effects
            );
        }
        self.calls += 1;
        match self.fail_call {
            Some(call) if call == self.calls => {
                Err(Error::new("engine.failed", "the engine has failed, once"))
            }
            _ => Ok(()),
        }
    }

    fn effect(
        &mut self,
        function: &str,
        arguments: Value,
        perform: impl FnOnce(&mut Self) -> Result<Value, Error>,
    ) -> Result<Value, Error> {
        let call = format!("{function} {arguments} {}", self.is_undo);
        let count = self.attempt.entry(call.clone()).or_default();
        *count += 1;
        let key = format!("{call}#{count}");
        if let Some(result) = self.cut_off.remove(&key) {
            return Ok(result);
        }
        let number = self.effects.len() + 1;
        self.effects.push(format!("{function} {arguments}"));
        if self.crash == Some(Crash::BeforeEffect(number)) {
            self.has_crashed = true;
            return Err(crashed());
        }
        let result = perform(self)?;
        self.journal.insert(key, result.clone());
        if self.crash == Some(Crash::AfterEffect(number)) {
            self.has_crashed = true;
            return Err(crashed());
        }
        Ok(result)
    }

    fn position(&self, container: &str) -> Result<usize, Error> {
        let at = self
            .containers
            .iter()
            .position(|known| known.id == container || known.name == container);
        at.ok_or_else(|| {
            Error::new(
                "container.missing",
                format!("there is no container `{container}`"),
            )
        })
    }

    fn boot(&mut self, at: usize) {
        let (service, publishes) = {
            let container = &mut self.containers[at];
            container.state = "running".into();
            container.health = "starting".into();
            (container.service.clone(), container.ports.clone())
        };
        if let Some(port) = publishes[0]["published"].as_u64() {
            let id = self.containers[at].id.clone();
            let rival = self
                .containers
                .iter()
                .find(|other| other.id != id && other.is_running() && other.ports[0]["published"] == port);
            assert!(rival.is_none(), "port {port} is taken by {}", rival.unwrap().name);
        }
        if service == "router" {
            self.load_router();
        }
        if service == "task" {
            self.containers[at].state = "exited".into();
            self.containers[at].health = "none".into();
        }
    }

    fn become_well(&mut self, at: usize) {
        let is_ill = self.ill.contains(&self.containers[at].image);
        let container = &mut self.containers[at];
        if container.is_running() && container.health == "starting" {
            container.health = if is_ill { "unhealthy" } else { "healthy" }.into();
        }
    }

    fn image_at(&self, reference: &str) -> Image {
        Image {
            id: format!("sha256:{}", reference.replace([':', '/'], "")),
            ..Image::default()
        }
    }
}

impl Host for World {
    fn load(&mut self, _: &Value) -> Result<Value, Error> {
        self.call()?;
        Ok(json!({ "model": self.model, "warnings": [] }))
    }

    fn list(&mut self, project: &str, service: &str) -> Result<Vec<Container>, Error> {
        self.call()?;
        let mut all = self.containers.clone();
        all.retain(|container| {
            container.project == project && (service == "*" || container.service == service)
        });
        Ok(all)
    }

    fn inspect(&mut self, container: &str) -> Result<Container, Error> {
        self.call()?;
        self.position(container).map(|at| self.containers[at].clone())
    }

    fn fingerprint(&mut self, spec: &Value) -> Result<String, Error> {
        self.call()?;
        if self.denied.contains("containers.manage") {
            return Err(Error::new("grant.denied", "no"));
        }
        Ok(spec.to_string())
    }

    fn create(&mut self, spec: &Value) -> Result<Made, Error> {
        self.call()?;
        let spec = spec.clone();
        let made = self.effect("containers.create", spec.clone(), |world| {
            let name = spec["name"].as_str().unwrap().to_owned();
            if world.position(&name).is_ok() {
                return Err(Error::new(
                    "container.exists",
                    format!("there is a container `{name}` already"),
                ));
            }
            let image = spec["image"].as_str().unwrap().to_owned();
            if !world.images.contains(&image) {
                return Err(Error::new("image.missing", image));
            }
            world.next += 1;
            let id = format!("id{}", world.next);
            let mut labels: BTreeMap<String, String> =
                serde_json::from_value(spec["labels"].clone()).unwrap_or_default();
            labels.insert("windlass.run".into(), world.run.clone());
            world.containers.push(Container {
                id: id.clone(),
                name: name.clone(),
                project: spec["project"].as_str().unwrap().into(),
                service: spec["service"].as_str().unwrap().into(),
                number: spec["number"].as_u64().unwrap() as u32,
                image_id: format!("sha256:{}", image.replace(':', "")),
                image,
                state: "created".into(),
                health: "none".into(),
                ports: spec["ports"].clone(),
                labels,
                ..Container::default()
            });
            world.specs.insert(id.clone(), spec);
            Ok(json!({ "id": id, "name": name }))
        })?;
        Ok(serde_json::from_value(made).unwrap())
    }

    fn start(&mut self, container: &str) -> Result<(), Error> {
        self.call()?;
        let at = self.position(container)?;
        if self.containers[at].is_running() {
            return Ok(());
        }
        let started = self.containers[at].started.clone();
        let arguments = json!([self.containers[at].id, started]);
        self.effect("containers.start", arguments, |world| {
            world.next += 1;
            world.containers[at].started = world.next.to_string();
            world.boot(at);
            Ok(Value::Null)
        })
        .map(drop)
    }

    fn stop(&mut self, container: &str, _: Duration) -> Result<(), Error> {
        self.call()?;
        let at = self.position(container)?;
        if !self.containers[at].is_running() {
            return Ok(());
        }
        self.effect("containers.stop", json!(self.containers[at].id), |world| {
            let container = &mut world.containers[at];
            container.state = "exited".into();
            container.health = "none".into();
            if container.service == "router" {
                world.memory.clear();
            }
            Ok(Value::Null)
        })
        .map(drop)
    }

    fn remove(&mut self, container: &str) -> Result<(), Error> {
        self.call()?;
        let Ok(at) = self.position(container) else {
            return Ok(());
        };
        self.effect("containers.remove", json!(self.containers[at].id), |world| {
            world.containers.remove(at);
            Ok(Value::Null)
        })
        .map(drop)
    }

    fn rename(&mut self, container: &str, name: &str) -> Result<(), Error> {
        self.call()?;
        let at = self.position(container)?;
        if self.containers[at].name == name {
            return Ok(());
        }
        if self.position(name).is_ok() {
            return Err(Error::new("container.exists", name.to_owned()));
        }
        let arguments = json!([self.containers[at].id, self.containers[at].name, name]);
        self.effect("containers.rename", arguments, |world| {
            world.containers[at].name = name.into();
            Ok(Value::Null)
        })
        .map(drop)
    }

    fn wait_for_health(&mut self, container: &str, _: Duration) -> Result<Container, Error> {
        self.call()?;
        let at = self.position(container)?;
        self.clock += Duration::from_secs(1);
        self.become_well(at);
        let found = self.containers[at].clone();
        match found.is_healthy() {
            true => Ok(found),
            false => Err(Error::new(
                "container.unhealthy",
                format!("`{}` is {}", found.name, found.state),
            )
            .with_details(json!({ "health-log": [{ "exit": 1, "output": "503 database unreachable" }] }))),
        }
    }

    fn wait_for_exit(&mut self, container: &str, _: Duration) -> Result<Container, Error> {
        self.call()?;
        self.position(container).map(|at| self.containers[at].clone())
    }

    fn logs(&mut self, container: &str, _: u32) -> Result<String, Error> {
        self.call()?;
        Ok(format!("the last words of {container}"))
    }

    fn exec(&mut self, container: &str, program: &Program) -> Result<Output, Error> {
        self.call()?;
        let at = self.position(container)?;
        if !self.containers[at].is_running() {
            return Err(Error::new("container.stopped", "it does not run"));
        }
        if program.repeatable {
            let output = self.repeatable_program(program);
            return Ok(output);
        }
        let arguments = json!({ "id": self.containers[at].id, "argv": program.argv, "input": program.input });
        let output = self.effect("containers.exec", arguments, |world| {
            let output = world.run_program(program);
            Ok(json!({ "exit": output.exit, "stdout": output.stdout, "stderr": output.stderr }))
        })?;
        Ok(serde_json::from_value(output).unwrap())
    }

    fn ensure_network(&mut self, spec: &Value) -> Result<(), Error> {
        self.call()?;
        self.networks.insert(spec["name"].to_string());
        Ok(())
    }

    fn ensure_volume(&mut self, spec: &Value) -> Result<(), Error> {
        self.call()?;
        self.volumes.insert(spec["name"].to_string());
        Ok(())
    }

    fn image(&mut self, reference: &str) -> Result<Option<Image>, Error> {
        self.call()?;
        Ok(self.images.contains(reference).then(|| self.image_at(reference)))
    }

    fn pull(&mut self, reference: &str, _: bool) -> Result<Image, Error> {
        self.call()?;
        if !self.registry.contains(reference) {
            return Err(Error::new(
                "image.missing",
                format!("no registry has `{reference}`"),
            ));
        }
        self.images.insert(reference.into());
        Ok(self.image_at(reference))
    }

    fn remove_image(&mut self, reference: &str) -> Result<bool, Error> {
        self.call()?;
        let is_used = self
            .containers
            .iter()
            .any(|container| container.image == reference);
        Ok(!is_used && self.images.remove(reference))
    }

    fn is_file(&mut self, _: &str) -> bool {
        false
    }

    fn run_id(&mut self) -> String {
        self.run.clone()
    }

    fn clock(&mut self) -> Duration {
        self.clock
    }

    fn sleep(&mut self, duration: Duration) -> bool {
        self.clock += duration;
        let live = self
            .memory
            .get("backend")
            .and_then(|live| live.split(' ').next())
            .unwrap_or_default()
            .to_owned();
        for container in &mut self.containers {
            let has_traffic = container.labels.get("windlass.colour") == Some(&live);
            if self.fragile.contains(&container.image) && has_traffic && container.is_running() {
                container.health = "unhealthy".into();
            }
        }
        true
    }

    fn info(&mut self, message: &str) {
        self.log.push(message.into());
    }

    fn warn(&mut self, message: &str) {
        self.log.push(format!("warning: {message}"));
    }

    fn progress(&mut self, _: usize, _: usize, _: &str) {}
}

/// A configuration: the guide's backend behind a router, all else rolling.
pub(crate) fn config(patch: Value) -> Config {
    let mut with = json!({
        "compose": ["compose.yaml"], "project": "p",
        "strategy": { "backend": "blue-green" },
        "router": { "kind": "haproxy", "service": "router", "port": 8000 },
        "checks": { "projects": { "http": "/api/v1/projects", "expect": { "status": [200, 401] } } },
        "watch": "5s", "drain": "3s", "timeout": "10s",
    });
    with.as_object_mut()
        .unwrap()
        .extend(patch.as_object().unwrap().clone());
    serde_json::from_value(with).unwrap()
}

/// A stack as the loader resolves it, at a version of the backend.
pub(crate) fn stack(version: &str, front: &str) -> Value {
    let healthy = |name: &str| json!({ name: { "condition": "service_healthy", "required": true } });
    let network = json!({ "back": {} });
    let check = json!({ "test": ["CMD", "true"], "interval": "1s" });
    json!({
        "name": "p",
        "services": {
            "backend": {
                "image": format!("app:{version}"), "networks": network, "depends_on": healthy("db"), "healthcheck": check,
                "deploy": { "replicas": 2 }, "restart": "always",
            },
            "db": {
                "image": "db:1", "networks": network, "healthcheck": check,
                "volumes": [{ "type": "volume", "source": "data", "target": "/data" }],
            },
            "front": {
                "image": format!("front:{front}"), "networks": network, "depends_on": healthy("backend"),
                "ports": [{ "mode": "ingress", "target": 80, "published": "80", "protocol": "tcp" }],
            },
            "router": { "image": "router:1", "networks": network, "depends_on": healthy("backend"), "healthcheck": check },
        },
        "networks": { "back": { "name": "p_back" } },
        "volumes": { "data": { "name": "p_data" } },
    })
}
