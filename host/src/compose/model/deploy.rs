//! How many containers of a service there are, what they may use, and how they are replaced.

use super::{Bytes, TimeSpan};
use indexmap::IndexMap;
use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Deploy {
    pub mode: Option<String>,
    pub replicas: Option<i64>,
    pub endpoint_mode: Option<String>,
    pub labels: IndexMap<String, String>,
    pub resources: Resources,
    pub restart_policy: Option<RestartPolicy>,
    pub update_config: Option<Update>,
    pub rollback_config: Option<Update>,
    pub placement: Option<Placement>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    pub limits: Limits,
    pub reservations: Reservations,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub cpus: Option<f64>,
    pub memory: Option<Bytes>,
    pub pids: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reservations {
    pub cpus: Option<f64>,
    pub memory: Option<Bytes>,
    pub devices: Vec<serde_json::Value>,
    pub generic_resources: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestartPolicy {
    /// `none`, `on-failure` or `any`.
    pub condition: Option<String>,
    pub delay: Option<TimeSpan>,
    pub max_attempts: Option<i64>,
    pub window: Option<TimeSpan>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Update {
    /// How many containers are replaced at once; 0 is all of them.
    pub parallelism: Option<i64>,
    pub delay: Option<TimeSpan>,
    pub failure_action: Option<String>,
    pub monitor: Option<TimeSpan>,
    pub max_failure_ratio: Option<f64>,
    pub order: Option<UpdateOrder>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    StartFirst,
    StopFirst,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Placement {
    pub constraints: Vec<String>,
    pub preferences: Vec<serde_json::Value>,
    pub max_replicas_per_node: Option<i64>,
}
