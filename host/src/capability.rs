//! The table of capabilities: every kind of thing a stage may touch, one row each.
//!
//! The file format, the linker, the audit, the documentation and the capability matrix of the tests are all driven by it.
//! A capability without a service that enforces it has no row: a field that is not enforced must not parse.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A kind of thing a stage may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Capability {
    #[serde(rename = "http")]
    Http,
    #[serde(rename = "tcp")]
    Tcp,
    #[serde(rename = "files")]
    Files,
    #[serde(rename = "secrets.use")]
    SecretsUse,
    #[serde(rename = "secrets.reveal")]
    SecretsReveal,
    #[serde(rename = "secrets.put")]
    SecretsPut,
    #[serde(rename = "sql")]
    Sql,
    #[serde(rename = "process")]
    Process,
    #[serde(rename = "artifacts.read")]
    ArtifactsRead,
    #[serde(rename = "artifacts.write")]
    ArtifactsWrite,
    #[serde(rename = "objects")]
    Objects,
    #[serde(rename = "env")]
    Env,
    #[serde(rename = "containers.build")]
    ContainersBuild,
    #[serde(rename = "containers.push")]
    ContainersPush,
    #[serde(rename = "containers.pull")]
    ContainersPull,
    #[serde(rename = "containers.run")]
    ContainersRun,
    #[serde(rename = "containers.exec")]
    ContainersExec,
    #[serde(rename = "containers.manage")]
    ContainersManage,
    #[serde(rename = "containers.mount")]
    ContainersMount,
    #[serde(rename = "containers.publish")]
    ContainersPublish,
}

/// What an effect of this capability leaves behind when it is not undone; decides between exit codes 1 and 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// Reads only.
    Nothing,
    /// Something new beside what was there: harmless when left.
    Additive,
    /// Changed state that somebody may depend on.
    State,
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    pub capability: Capability,
    /// As in `allow:` (a dot is one level of nesting), requests, the audit and messages.
    pub name: &'static str,
    /// The form of its values, for messages and the manual.
    pub form: &'static str,
    /// A value that is valid, for messages.
    pub example: &'static str,
    pub summary: &'static str,
    /// The import through which a plugin uses it; `wasi:` interfaces are always linked and inert.
    pub interfaces: &'static [&'static str],
    /// Shown in red wherever it is granted, and why.
    pub risk: Option<&'static str>,
    pub leaves: Leaves,
}

/// The ABI of this Windlass: `major.minor` of every `windlass:` package. A plugin has to be built for it.
pub const ABI: &str = "0.1";

/// Interfaces that belong to no capability: every plugin may import them.
pub const ALWAYS_LINKED: [&str; 3] = [
    "windlass:stage/types",
    "windlass:stage/context",
    "windlass:stage/events",
];

/// Every capability, in the order in which listings show them.
pub const TABLE: &[Row] = &[
    Row {
        capability: Capability::Http,
        name: "http",
        form: "<scheme>://<host>[:<port>], the host may be *.<suffix>",
        example: "https://vault.example.com:8200",
        summary: "send HTTP requests to one origin",
        interfaces: &["wasi:http/outgoing-handler", "wasi:http/client"],
        risk: None,
        leaves: Leaves::State,
    },
    Row {
        capability: Capability::Tcp,
        name: "tcp",
        form: "<host>:<port>",
        example: "redis.example.com:6379",
        summary: "see whether a port accepts connections",
        interfaces: &["windlass:tcp/probe"],
        risk: None,
        leaves: Leaves::Nothing,
    },
    Row {
        capability: Capability::Files,
        name: "files",
        form: "<guest path>: ro | rw",
        example: "/workspace: ro",
        summary: "read, or read and write, a directory",
        interfaces: &["wasi:filesystem/preopens", "windlass:flow/streams"],
        risk: None,
        leaves: Leaves::State,
    },
    Row {
        capability: Capability::SecretsUse,
        name: "secrets.use",
        form: "<name>",
        example: "database",
        summary: "hand a secret on without seeing it",
        interfaces: &["windlass:secrets/store"],
        risk: None,
        leaves: Leaves::Nothing,
    },
    Row {
        capability: Capability::SecretsReveal,
        name: "secrets.reveal",
        form: "<name>",
        example: "vault-id",
        summary: "read a secret's bytes",
        interfaces: &["windlass:secrets/reveal", "windlass:secrets/store"],
        risk: Some("the plugin sees the secret in plain text"),
        leaves: Leaves::Nothing,
    },
    Row {
        capability: Capability::SecretsPut,
        name: "secrets.put",
        form: "<name>",
        example: "database",
        summary: "give the run a secret",
        interfaces: &["windlass:secrets/sink"],
        risk: None,
        leaves: Leaves::Nothing,
    },
    Row {
        capability: Capability::Sql,
        name: "sql",
        form: "<scheme>://<host>[:<port>]/<database>, or sqlite://<guest path>",
        example: "postgresql://db.example.com/app",
        summary: "read and write one database",
        interfaces: &["windlass:sql/database", "windlass:flow/streams"],
        risk: None,
        leaves: Leaves::State,
    },
    Row {
        capability: Capability::Process,
        name: "process",
        form: "<program> <argument patterns>: * is one argument, ** at the end any number",
        example: "git rev-parse *",
        summary: "run a native program on the host",
        interfaces: &["windlass:process/runner"],
        risk: Some("a native program runs outside the sandbox"),
        leaves: Leaves::State,
    },
    Row {
        capability: Capability::ArtifactsRead,
        name: "artifacts.read",
        form: "<stage>/<name>, * within a part",
        example: "build/image-*.tar",
        summary: "read artifacts of earlier stages",
        interfaces: &["windlass:artifacts/store", "windlass:flow/streams"],
        risk: None,
        leaves: Leaves::Nothing,
    },
    Row {
        capability: Capability::ArtifactsWrite,
        name: "artifacts.write",
        form: "<name>, * within it",
        example: "image-*.tar",
        summary: "leave artifacts",
        interfaces: &["windlass:artifacts/store", "windlass:flow/streams"],
        risk: None,
        leaves: Leaves::Additive,
    },
    Row {
        capability: Capability::Objects,
        name: "objects",
        form: "s3://<bucket>[/<prefix>], with all below it",
        example: "s3://team-insight-backups/production",
        summary: "read, write and delete objects of one bucket, or below one prefix",
        interfaces: &["windlass:objects/store", "windlass:flow/streams"],
        risk: None,
        leaves: Leaves::State,
    },
    Row {
        capability: Capability::Env,
        name: "env",
        form: "<NAME>",
        example: "APP_ENV",
        summary: "see a variable of the pipeline's `env` in its own environment",
        interfaces: &["wasi:cli/environment"],
        risk: None,
        leaves: Leaves::Nothing,
    },
    Row {
        capability: Capability::ContainersBuild,
        name: "containers.build",
        form: "[<registry>/]<repository>[:<tag>][@<digest>], * within a part",
        example: "team-insight-*",
        summary: "build, tag and remove images of one name",
        interfaces: &["windlass:containers/images", "windlass:containers/compose"],
        risk: None,
        leaves: Leaves::Additive,
    },
    Row {
        capability: Capability::ContainersPush,
        name: "containers.push",
        form: "[<registry>/]<repository>[:<tag>][@<digest>], * within a part",
        example: "registry.example.com/team-insight-*",
        summary: "push images to one repository",
        interfaces: &["windlass:containers/images"],
        risk: None,
        leaves: Leaves::Additive,
    },
    Row {
        capability: Capability::ContainersPull,
        name: "containers.pull",
        form: "[<registry>/]<repository>[:<tag>][@<digest>], * within a part",
        example: "postgres:15-alpine",
        summary: "pull images from one repository",
        interfaces: &["windlass:containers/images"],
        risk: None,
        leaves: Leaves::Additive,
    },
    Row {
        capability: Capability::ContainersRun,
        name: "containers.run",
        form: "[<registry>/]<repository>[:<tag>][@<digest>], * within a part",
        example: "*/team-insight-backend@*",
        summary: "make containers of one image",
        interfaces: &["windlass:containers/engine", "windlass:containers/images"],
        risk: None,
        leaves: Leaves::State,
    },
    Row {
        capability: Capability::ContainersExec,
        name: "containers.exec",
        form: "[<project>/]<service>, * within a part",
        example: "team-insight/postgres",
        summary: "run programs inside the containers of one service",
        interfaces: &[
            "windlass:containers/exec",
            "windlass:containers/engine",
            "windlass:flow/streams",
        ],
        risk: Some("a program runs inside a container, outside the sandbox"),
        leaves: Leaves::State,
    },
    Row {
        capability: Capability::ContainersManage,
        name: "containers.manage",
        form: "[<project>/]<service, network or volume>, * within a part",
        example: "team-insight/backend",
        summary: "make, start, stop and remove the containers of one service, or one network or volume",
        interfaces: &["windlass:containers/engine", "windlass:containers/compose"],
        risk: None,
        leaves: Leaves::State,
    },
    Row {
        capability: Capability::ContainersMount,
        name: "containers.mount",
        form: "<volume or guest path>:<ro | rw>",
        example: "team-insight_postgres_data:rw",
        summary: "give containers a volume, or a directory of the workspace",
        interfaces: &["windlass:containers/engine"],
        risk: None,
        leaves: Leaves::State,
    },
    Row {
        capability: Capability::ContainersPublish,
        name: "containers.publish",
        form: "<address>:<port>[/udp], the port may be *",
        example: "127.0.0.1:8080",
        summary: "publish a port of a container on this machine",
        interfaces: &["windlass:containers/engine"],
        risk: None,
        leaves: Leaves::State,
    },
];

impl Capability {
    /// The row of this capability.
    pub fn row(self) -> &'static Row {
        TABLE
            .iter()
            .find(|row| row.capability == self)
            .expect("a test holds every capability against the table")
    }

    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The capability of a name such as `secrets.use`.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE
            .iter()
            .find(|row| row.name == name)
            .map(|row| row.capability)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Pattern;

    #[test]
    fn every_row_is_found_and_its_example_parses() {
        for row in TABLE {
            assert_eq!(row.capability.row().name, row.name);
            assert_eq!(Capability::from_name(row.name), Some(row.capability));
            assert!(!row.interfaces.is_empty() && !row.summary.is_empty());
            let example = match row.capability {
                Capability::Files => Pattern::files("ro", "/workspace"),
                capability => Pattern::parse(capability, row.example),
            };
            assert!(example.is_ok(), "{}: {example:?}", row.name);
            assert_eq!(serde_json::to_value(row.capability).expect("text"), row.name);
        }
        assert_eq!(Capability::from_name("containers.privileged"), None);
    }
}
