//! Containers, images and compose files of a container engine. What goes in is JSON as `wit/deps/containers` describes it.

use crate::bindings::containers::{compose as files, engine, exec, images};
use crate::{Error, stage};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is known of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub project: String,
    pub service: String,
    pub number: u32,
    /// As it was asked for.
    pub image: String,
    pub image_id: String,
    /// `created`, `running`, `paused`, `restarting`, `exited` or `dead`.
    pub state: String,
    /// `none`, `starting`, `healthy` or `unhealthy`.
    pub health: String,
    pub exit_code: i64,
    pub created: String,
    pub started: String,
    pub labels: BTreeMap<String, String>,
    /// By name: `{ "aliases", "address" }`.
    pub networks: BTreeMap<String, Value>,
    pub ports: Value,
    pub mounts: Value,
    pub one_off: bool,
}

impl Container {
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }

    /// Runs, and its health check, where it has one, says that it is well.
    pub fn is_healthy(&self) -> bool {
        self.is_running() && matches!(self.health.as_str(), "none" | "healthy")
    }
}

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Made {
    pub id: String,
    pub name: String,
}

/// What is known of an image.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Image {
    pub id: String,
    pub tags: Vec<String>,
    /// `repository@digest`, one for each registry that it was pushed to or pulled from.
    pub digests: Vec<String>,
    pub size: u64,
    pub created: String,
    pub labels: BTreeMap<String, String>,
    pub user: String,
}

/// An image as a registry has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Pushed {
    pub digest: String,
    /// `repository@digest`.
    pub reference: String,
    #[serde(default)]
    pub size: u64,
}

/// What a program in a container did: the last 64 KiB of each stream, redacted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Output {
    pub exit: i64,
    pub stdout: String,
    pub stderr: String,
}

/// A program to run in a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Program {
    #[serde(skip)]
    pub argv: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// It changes nothing, or doing it twice does no harm.
    pub repeatable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Its output goes to the stage's log.
    pub log: bool,
}

impl Program {
    pub fn new<I, S>(argv: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    #[must_use]
    pub fn repeatable(self) -> Self {
        Self {
            repeatable: true,
            ..self
        }
    }

    #[must_use]
    pub fn input(self, text: impl Into<String>) -> Self {
        Self {
            input: Some(text.into()),
            ..self
        }
    }

    /// As `windlass:flow` takes it.
    pub(crate) fn stream_options(&self) -> String {
        let mut options = json!({ "environment": self.environment, "repeatable": self.repeatable });
        let given = [
            ("user", self.user.clone().map(Value::from)),
            ("working-dir", self.working_dir.clone().map(Value::from)),
            ("timeout-ms", self.timeout_ms.map(Value::from)),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                options[name] = value;
            }
        }
        options.to_string()
    }

    /// Runs it to its end. A status other than 0 is not an error here.
    pub fn run(&self, container: &str) -> Result<Output, Error> {
        let options = serde_json::to_string(self).expect("options are plain texts");
        stage::read(&exec::run(container, &self.argv, &options)?)
    }
}

/// Makes a container; see `create` of `windlass:containers/engine` for the specification.
pub fn create(spec: &Value) -> Result<Made, Error> {
    stage::read(&engine::create(&spec.to_string())?)
}

/// The digest over all that `create` would take from this specification.
pub fn fingerprint(spec: &Value) -> Result<String, Error> {
    Ok(engine::fingerprint(&spec.to_string())?)
}

pub fn start(container: &str) -> Result<(), Error> {
    Ok(engine::start(container)?)
}

/// Ends it: its stop signal, then SIGKILL.
pub fn stop(container: &str, grace: Duration) -> Result<(), Error> {
    Ok(engine::stop(container, milliseconds(grace))?)
}

pub fn remove(container: &str, force: bool) -> Result<(), Error> {
    Ok(engine::remove(container, force)?)
}

pub fn rename(container: &str, name: &str) -> Result<(), Error> {
    Ok(engine::rename(container, name)?)
}

/// Until it has ended. With `log`, its output goes to the stage's log meanwhile.
pub fn wait_for_exit(container: &str, log: bool, timeout: Duration) -> Result<Container, Error> {
    wait(container, "exited", log, timeout)
}

/// Until it is healthy.
pub fn wait_for_health(container: &str, timeout: Duration) -> Result<Container, Error> {
    wait(container, "healthy", false, timeout)
}

fn wait(container: &str, until: &str, log: bool, timeout: Duration) -> Result<Container, Error> {
    let options = json!({ "until": until, "log": log }).to_string();
    stage::read(&engine::wait(container, &options, milliseconds(timeout))?)
}

pub fn inspect(container: &str) -> Result<Container, Error> {
    stage::read(&engine::inspect(container)?)
}

/// The containers of `<project>/<service>`, oldest first.
pub fn list(service: &str) -> Result<Vec<Container>, Error> {
    stage::read(&engine::list(service)?)
}

/// The last lines of its output.
pub fn logs(container: &str, lines: u32) -> Result<String, Error> {
    Ok(engine::logs(container, lines)?)
}

/// The engine's name of a network that is there now.
pub fn ensure_network(spec: &Value) -> Result<String, Error> {
    named(&engine::ensure_network(&spec.to_string())?)
}

/// The engine's name of a volume that is there now.
pub fn ensure_volume(spec: &Value) -> Result<String, Error> {
    named(&engine::ensure_volume(&spec.to_string())?)
}

fn named(answer: &str) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    stage::read::<Named>(answer).map(|named| named.name)
}

/// Removes a network or volume that nothing uses.
pub fn tidy(kind: &str, name: &str) -> Result<bool, Error> {
    Ok(engine::tidy(kind, name)?)
}

/// Builds an image; see `build` of `windlass:containers/images` for the specification.
pub fn build(spec: &Value) -> Result<Image, Error> {
    stage::read(&images::build(&spec.to_string())?)
}

pub fn tag(source: &str, target: &str) -> Result<(), Error> {
    Ok(images::tag(source, target)?)
}

pub fn pull(reference: &str, options: &Value) -> Result<Image, Error> {
    stage::read(&images::pull(reference, &options.to_string())?)
}

pub fn push(reference: &str, options: &Value) -> Result<Pushed, Error> {
    stage::read(&images::push(reference, &options.to_string())?)
}

pub fn image(reference: &str) -> Result<Option<Image>, Error> {
    let found = images::inspect(reference)?;
    found.map(|found| stage::read(&found)).transpose()
}

pub fn remove_image(reference: &str) -> Result<bool, Error> {
    Ok(images::remove(reference)?)
}

/// Compose files, resolved: `{ "model", "warnings" }`.
pub fn load_compose(options: &Value) -> Result<Value, Error> {
    stage::read(&files::load(&options.to_string())?)
}

fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
