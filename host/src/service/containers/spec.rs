//! What a plugin asks for: a container, network or volume as typed fields. What has no field here cannot be asked for, and an unknown key is
//! an error: privileges, host namespaces and devices do not exist.

use crate::failure::{Failure, Turn};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;

/// See `create` in the WIT.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ContainerSpec {
    pub project: String,
    pub service: String,
    pub image: String,
    pub name: Option<String>,
    #[serde(default = "one")]
    pub number: u32,
    #[serde(default)]
    pub one_off: bool,
    pub command: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    #[serde(default)]
    pub env_files: Vec<String>,
    /// What `${NAME}` means in the env files.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub hostname: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub networks: BTreeMap<String, Endpoint>,
    #[serde(default)]
    pub ports: Vec<Port>,
    #[serde(default)]
    pub mounts: Vec<MountSpec>,
    #[serde(default)]
    pub secrets: Vec<SecretFile>,
    pub healthcheck: Option<Healthcheck>,
    pub restart: Option<String>,
    pub logging: Option<Logging>,
    pub memory: Option<i64>,
    pub cpus: Option<f64>,
    pub pids: Option<i64>,
    pub shm_size: Option<i64>,
    #[serde(default)]
    pub cap_add: Vec<String>,
    #[serde(default)]
    pub cap_drop: Vec<String>,
    #[serde(default)]
    pub read_only: bool,
    pub init: Option<bool>,
    pub stop_signal: Option<String>,
    pub stop_grace_ms: Option<u64>,
    #[serde(default)]
    pub ulimits: BTreeMap<String, Ulimit>,
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    #[serde(default)]
    pub extra_hosts: Vec<String>,
    #[serde(default)]
    pub dns: Vec<String>,
    #[serde(default)]
    pub tty: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Endpoint {
    pub aliases: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Port {
    #[serde(default = "everywhere")]
    pub host_ip: String,
    /// `None`: one that the engine chooses.
    pub published: Option<u16>,
    pub target: u16,
    #[serde(default = "tcp")]
    pub protocol: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountKind {
    Volume,
    Bind,
    Tmpfs,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MountSpec {
    pub r#type: MountKind,
    #[serde(default)]
    pub source: String,
    pub target: String,
    #[serde(default)]
    pub read_only: bool,
}

/// A file in the container with a secret in it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SecretFile {
    pub target: String,
    pub value: String,
    #[serde(default)]
    pub uid: u64,
    #[serde(default)]
    pub gid: u64,
    #[serde(default = "owner_reads")]
    pub mode: u32,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Healthcheck {
    pub test: Vec<String>,
    pub interval_ms: Option<i64>,
    pub timeout_ms: Option<i64>,
    pub start_period_ms: Option<i64>,
    pub retries: Option<i64>,
    pub disable: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Logging {
    pub driver: Option<String>,
    pub options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ulimit {
    pub soft: i64,
    pub hard: i64,
}

/// See `ensure-network` and `ensure-volume` in the WIT.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NetworkSpec {
    pub project: String,
    pub name: String,
    #[serde(default)]
    pub external: bool,
    pub driver: Option<String>,
    #[serde(default)]
    pub driver_opts: BTreeMap<String, String>,
    #[serde(default)]
    pub internal: bool,
    #[serde(default)]
    pub attachable: bool,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub subnet: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct VolumeSpec {
    pub project: String,
    pub name: String,
    #[serde(default)]
    pub external: bool,
    pub driver: Option<String>,
    #[serde(default)]
    pub driver_opts: BTreeMap<String, String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

fn everywhere() -> String {
    "0.0.0.0".into()
}

fn tcp() -> String {
    "tcp".into()
}

fn owner_reads() -> u32 {
    0o400
}

/// A JSON object of a guest's as what it has to be.
///
/// # Errors
/// `code`, naming what does not fit.
pub(super) fn parse<T: DeserializeOwned>(what: &str, code: &str, text: &str) -> Result<T, Failure> {
    // By way of an object: an array would do for the derived code too.
    let object = serde_json::from_str::<Map<String, Json>>(text)
        .map_err(|_| Failure::new(Turn::Plugin, code, format!("{what} is no JSON object")))?;
    let read = serde_path_to_error::deserialize(Json::Object(object));
    read.map_err(|error: serde_path_to_error::Error<serde_json::Error>| {
        let place = match error.path().to_string() {
            path if path == "." => String::new(),
            path => format!(" at `{path}`"),
        };
        let message = format!("{what} does not fit{place}: {}", error.inner());
        Failure::new(Turn::Plugin, code, message)
    })
}

impl ContainerSpec {
    /// The name it will have.
    pub fn container_name(&self) -> String {
        let own = || format!("{}-{}-{}", self.project, self.service, self.number);
        self.name.clone().unwrap_or_else(own)
    }

    /// Every text in which a placeholder may stand, for the journal and for changes.
    pub(super) fn map_texts(
        &mut self,
        map: &mut impl FnMut(&str) -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        let arguments = self.command.iter_mut().chain(&mut self.entrypoint).flatten();
        let values = self.environment.values_mut().chain(self.variables.values_mut());
        let files = self.secrets.iter_mut().map(|secret| &mut secret.value);
        let test = self.healthcheck.iter_mut().flat_map(|check| &mut check.test);
        for text in arguments.chain(values).chain(files).chain(test) {
            *text = map(text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_asked_for_is_named() {
        let check = |text: &str, expected: &str| {
            let failure = parse::<ContainerSpec>("the container", "container.spec", text).expect_err(text);
            assert_eq!(failure.code, "container.spec");
            assert!(failure.message.contains(expected), "{}", failure.message);
        };
        check("[]", "no JSON object");
        check("{}", "project");
        let base = r#""project":"p","service":"s","image":"i""#;
        check(&format!("{{{base},\"privileged\":true}}"), "privileged");
        check(&format!("{{{base},\"network-mode\":\"host\"}}"), "network-mode");
        check(
            &format!("{{{base},\"mounts\":[{{\"type\":\"npipe\",\"target\":\"/x\"}}]}}"),
            "mounts[0].type",
        );
        let fine: ContainerSpec =
            parse("the container", "container.spec", &format!("{{{base}}}")).expect("fits");
        assert_eq!(fine.container_name(), "p-s-1");
    }
}
