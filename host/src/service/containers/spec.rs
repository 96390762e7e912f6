//! What a plugin asks for: a container, network or volume as typed fields. What has no field here cannot be asked for, and an unknown key is
//! an error: privileges, host namespaces and devices do not exist.

use crate::failure::{Failure, Turn};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;

/// See `create` in the WIT.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct ContainerSpec {
    pub(super) project: String,
    pub(super) service: String,
    pub(super) image: String,
    pub(super) name: Option<String>,
    #[serde(default = "one")]
    pub(super) number: u32,
    #[serde(default)]
    pub(super) one_off: bool,
    pub(super) command: Option<Vec<String>>,
    pub(super) entrypoint: Option<Vec<String>>,
    #[serde(default)]
    pub(super) environment: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) env_files: Vec<String>,
    /// What `${NAME}` means in the env files.
    #[serde(default)]
    pub(super) variables: BTreeMap<String, String>,
    pub(super) user: Option<String>,
    pub(super) working_dir: Option<String>,
    pub(super) hostname: Option<String>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) networks: BTreeMap<String, Endpoint>,
    #[serde(default)]
    pub(super) ports: Vec<Port>,
    #[serde(default)]
    pub(super) mounts: Vec<MountSpec>,
    #[serde(default)]
    pub(super) secrets: Vec<SecretFile>,
    pub(super) healthcheck: Option<Healthcheck>,
    pub(super) restart: Option<String>,
    pub(super) logging: Option<Logging>,
    pub(super) memory: Option<i64>,
    pub(super) cpus: Option<f64>,
    pub(super) pids: Option<i64>,
    pub(super) shm_size: Option<i64>,
    #[serde(default)]
    pub(super) cap_add: Vec<String>,
    #[serde(default)]
    pub(super) cap_drop: Vec<String>,
    #[serde(default)]
    pub(super) read_only: bool,
    pub(super) init: Option<bool>,
    pub(super) stop_signal: Option<String>,
    pub(super) stop_grace_ms: Option<u64>,
    #[serde(default)]
    pub(super) ulimits: BTreeMap<String, Ulimit>,
    #[serde(default)]
    pub(super) sysctls: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) extra_hosts: Vec<String>,
    #[serde(default)]
    pub(super) dns: Vec<String>,
    #[serde(default)]
    pub(super) tty: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Endpoint {
    pub(super) aliases: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Port {
    #[serde(default = "everywhere")]
    pub(super) host_ip: String,
    /// `None`: one that the engine chooses.
    pub(super) published: Option<u16>,
    pub(super) target: u16,
    #[serde(default = "tcp")]
    pub(super) protocol: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum MountKind {
    Volume,
    Bind,
    Tmpfs,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct MountSpec {
    pub(super) r#type: MountKind,
    #[serde(default)]
    pub(super) source: String,
    pub(super) target: String,
    #[serde(default)]
    pub(super) read_only: bool,
}

/// A file in the container with a secret in it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct SecretFile {
    pub(super) target: String,
    pub(super) value: String,
    #[serde(default)]
    pub(super) uid: u64,
    #[serde(default)]
    pub(super) gid: u64,
    #[serde(default = "owner_reads")]
    pub(super) mode: u32,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Healthcheck {
    pub(super) test: Vec<String>,
    pub(super) interval_ms: Option<i64>,
    pub(super) timeout_ms: Option<i64>,
    pub(super) start_period_ms: Option<i64>,
    pub(super) retries: Option<i64>,
    pub(super) disable: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Logging {
    pub(super) driver: Option<String>,
    pub(super) options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Ulimit {
    pub(super) soft: i64,
    pub(super) hard: i64,
}

/// See `ensure-network` and `ensure-volume` in the WIT.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct NetworkSpec {
    pub(super) project: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) external: bool,
    pub(super) driver: Option<String>,
    #[serde(default)]
    pub(super) driver_opts: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) internal: bool,
    #[serde(default)]
    pub(super) attachable: bool,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    pub(super) subnet: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct VolumeSpec {
    pub(super) project: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) external: bool,
    pub(super) driver: Option<String>,
    #[serde(default)]
    pub(super) driver_opts: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
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
    pub(super) fn container_name(&self) -> String {
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
