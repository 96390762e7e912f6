//! One service.

use super::{Build, Bytes, Deploy, FileMode, TimeSpan};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value as Json;
use std::fmt;

/// A service: how its containers are made, and what they need.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Service {
    pub image: Option<String>,
    pub build: Option<Build>,
    pub pull_policy: Option<String>,
    pub pull_refresh_after: Option<String>,
    pub platform: Option<String>,
    /// `None`: the image's own. An empty list: none at all.
    pub command: Option<Vec<String>>,
    /// `None`: the image's own. An empty list: none at all.
    pub entrypoint: Option<Vec<String>>,
    pub working_dir: Option<String>,
    pub user: Option<String>,
    pub group_add: Vec<String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub container_name: Option<String>,

    /// Env files are in it.
    pub environment: Environment,
    pub labels: IndexMap<String, String>,
    pub annotations: IndexMap<String, String>,
    pub profiles: Vec<String>,
    pub secrets: Vec<FileGrant>,
    pub configs: Vec<FileGrant>,
    pub volumes: Vec<Mount>,
    pub volumes_from: Vec<String>,
    /// `/run` or `/run:size=64m,mode=1777`.
    pub tmpfs: Vec<String>,
    pub devices: Vec<Device>,
    pub device_cgroup_rules: Vec<String>,

    pub depends_on: IndexMap<String, Dependency>,
    pub healthcheck: Option<Healthcheck>,
    /// `no`, `always`, `on-failure[:N]` or `unless-stopped`.
    pub restart: Option<String>,
    pub scale: Option<i64>,
    pub deploy: Deploy,
    pub stop_signal: Option<String>,
    pub stop_grace_period: Option<TimeSpan>,
    pub post_start: Vec<Hook>,
    pub pre_stop: Vec<Hook>,
    /// Run to their ends before the service starts.
    pub pre_start: Vec<InitContainer>,
    pub logging: Option<Logging>,
    pub attach: Option<bool>,

    pub ports: Vec<Port>,
    pub expose: Vec<String>,
    pub networks: IndexMap<String, Attachment>,
    pub network_mode: Option<String>,
    /// `SERVICE` or `SERVICE:ALIAS`.
    pub links: Vec<String>,
    pub external_links: Vec<String>,
    /// `HOST=ADDRESS`.
    pub extra_hosts: Vec<String>,
    pub dns: Vec<String>,
    pub dns_opt: Vec<String>,
    pub dns_search: Vec<String>,
    pub mac_address: Option<String>,

    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub security_opt: Vec<String>,
    pub privileged: bool,
    pub read_only: bool,
    pub init: Option<bool>,
    pub tty: bool,
    pub stdin_open: bool,
    pub use_api_socket: bool,
    pub ipc: Option<String>,
    pub pid: Option<String>,
    pub uts: Option<String>,
    pub userns_mode: Option<String>,
    pub cgroup: Option<String>,
    pub cgroup_parent: Option<String>,
    pub isolation: Option<String>,
    pub runtime: Option<String>,
    pub sysctls: IndexMap<String, String>,
    pub ulimits: IndexMap<String, Ulimit>,
    pub storage_opt: IndexMap<String, String>,
    pub credential_spec: Option<Json>,

    pub cpus: Option<f64>,
    pub cpuset: Option<String>,
    pub cpu_count: Option<i64>,
    pub cpu_percent: Option<f64>,
    pub cpu_shares: Option<i64>,
    pub cpu_period: Option<String>,
    pub cpu_quota: Option<String>,
    pub cpu_rt_period: Option<String>,
    pub cpu_rt_runtime: Option<String>,
    pub mem_limit: Option<Bytes>,
    pub mem_reservation: Option<Bytes>,
    pub memswap_limit: Option<Bytes>,
    pub mem_swappiness: Option<i64>,
    pub shm_size: Option<Bytes>,
    pub pids_limit: Option<i64>,
    pub oom_kill_disable: Option<bool>,
    pub oom_score_adj: Option<i64>,
    pub blkio_config: Option<Json>,
    pub gpus: Vec<Json>,

    pub develop: Option<Json>,
    pub models: IndexMap<String, Json>,
    pub provider: Option<Json>,
}

impl Service {
    /// How many containers there are to be.
    pub fn replicas(&self) -> i64 {
        self.deploy.replicas.or(self.scale).unwrap_or(1)
    }

    /// The services that have to be there before this one: by `depends_on`, `links`, `volumes_from` and `service:NAME`.
    pub fn needs(&self) -> Vec<&str> {
        let first = |text: &'_ str| text.split(':').next().map_or(0, str::len);
        let links = self.links.iter().map(|link| &link[..first(link)]);
        let volumes = self
            .volumes_from
            .iter()
            .filter(|from| !from.starts_with("container:"));
        let shared = [&self.network_mode, &self.ipc, &self.pid, &self.uts];
        let shared = shared
            .into_iter()
            .flatten()
            .filter_map(|mode| mode.strip_prefix("service:"));
        self.depends_on
            .keys()
            .map(String::as_str)
            .chain(links)
            .chain(volumes.map(|from| &from[..first(from)]))
            .chain(shared)
            .collect()
    }
}

/// Names with their values; a name without one has none at all in the container. Values may be secret: they are not shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Environment(pub IndexMap<String, Option<String>>);

impl fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    pub condition: Condition,
    /// Without it, only a warning is due when the other service is not there.
    #[serde(default = "yes")]
    pub required: bool,
    /// Whether this service is restarted with the other one.
    #[serde(default)]
    pub restart: bool,
}

fn yes() -> bool {
    true
}

/// What has to be true of another service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Condition {
    #[serde(rename = "service_started")]
    Started,
    #[serde(rename = "service_healthy")]
    Healthy,
    #[serde(rename = "service_completed_successfully")]
    Completed,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Healthcheck {
    /// `NONE`, or `CMD` and words, or `CMD-SHELL` and a line.
    pub test: Vec<String>,
    pub interval: Option<TimeSpan>,
    pub timeout: Option<TimeSpan>,
    pub retries: Option<i64>,
    pub start_period: Option<TimeSpan>,
    pub start_interval: Option<TimeSpan>,
    pub disable: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logging {
    pub driver: Option<String>,
    pub options: IndexMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// In the container.
    pub target: i64,
    /// On the host: a port, or a range to choose from. `None`: any free one.
    pub published: Option<String>,
    pub host_ip: Option<String>,
    pub protocol: Option<String>,
    /// `host` or `ingress`.
    pub mode: Option<String>,
    pub name: Option<String>,
    pub app_protocol: Option<String>,
}

/// How a service is on a network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attachment {
    pub aliases: Vec<String>,
    pub ipv4_address: Option<String>,
    pub ipv6_address: Option<String>,
    pub link_local_ips: Vec<String>,
    pub mac_address: Option<String>,
    pub interface_name: Option<String>,
    pub priority: Option<i64>,
    pub gw_priority: Option<i64>,
    pub driver_opts: IndexMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    #[serde(rename = "type")]
    pub kind: MountKind,
    /// A volume's key, an absolute place on the host, or an image. `None`: an anonymous volume.
    pub source: Option<String>,
    pub target: String,
    #[serde(default)]
    pub read_only: bool,
    pub consistency: Option<String>,
    pub bind: Option<Json>,
    pub volume: Option<Json>,
    pub tmpfs: Option<Json>,
    pub image: Option<Json>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    Bind,
    Volume,
    Tmpfs,
    Cluster,
    Npipe,
    Image,
}

/// A secret or a config as a file in the container.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileGrant {
    /// The key of the secret or config.
    pub source: String,
    /// `None`: `/run/secrets/SOURCE` for a secret, `/SOURCE` for a config.
    pub target: Option<String>,
    pub uid: Option<String>,
    pub gid: Option<String>,
    pub mode: Option<FileMode>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub source: String,
    pub target: Option<String>,
    pub permissions: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ulimit {
    pub soft: i64,
    pub hard: i64,
}

/// A container that runs to its end before those of the service start.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InitContainer {
    /// `None`: the service's.
    pub image: Option<String>,
    pub command: Option<Vec<String>>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub privileged: bool,
    pub environment: Environment,
    /// Before each container of the service, and not once before all of them.
    pub per_replica: bool,
}

/// A command that runs in the container after it started, or before it is stopped.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    pub command: Vec<String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    #[serde(default)]
    pub privileged: bool,
    #[serde(default)]
    pub environment: Environment,
}
