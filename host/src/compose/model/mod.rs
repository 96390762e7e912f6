//! A resolved project as types, for whoever applies it. Amounts are numbers, paths are absolute, every reference exists.
//!
//! The types name every key of the specification; keys that few people use are kept as JSON, in the specification's
//! canonical form. Nothing here is `Debug` that may hold a secret: values of environments are not shown.

mod amount;
mod build;
mod deploy;
mod resource;
mod service;

pub use amount::{Bytes, FileMode, TimeSpan};
pub use build::Build;
pub use deploy::{Deploy, Limits, Placement, Reservations, Resources, RestartPolicy, Update, UpdateOrder};
pub use resource::{Config, Network, Secret, Volume};
pub use service::{
    Attachment, Condition, Dependency, Device, Environment, FileGrant, Healthcheck, Hook, InitContainer,
    Logging, Mount, MountKind, Port, Service, Ulimit,
};

use indexmap::IndexMap;
use serde::Deserialize;

/// What several compose files together describe.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    pub name: String,
    #[serde(default)]
    pub services: IndexMap<String, Service>,
    #[serde(default)]
    pub networks: IndexMap<String, Network>,
    #[serde(default)]
    pub volumes: IndexMap<String, Volume>,
    #[serde(default)]
    pub secrets: IndexMap<String, Secret>,
    #[serde(default)]
    pub configs: IndexMap<String, Config>,
    #[serde(default)]
    pub models: IndexMap<String, serde_json::Value>,
}

impl Project {
    /// From a document in the canonical form, without `x-` keys.
    pub(super) fn read(document: serde_json::Value) -> Result<Self, String> {
        serde_json::from_value(document).map_err(|error| error.to_string())
    }

    /// The services in an order in which each comes after those that it needs; otherwise as they stand in the file.
    pub fn start_order(&self) -> Vec<&str> {
        let mut order: Vec<&str> = Vec::with_capacity(self.services.len());
        // There are no circles in a resolved project: each round places at least one service.
        while order.len() < self.services.len() {
            let before = order.len();
            for (name, service) in &self.services {
                let ready = service.needs().iter().all(|needed| {
                    order.iter().any(|placed| placed == needed) || !self.services.contains_key(*needed)
                });
                if ready && !order.contains(&name.as_str()) {
                    order.push(name);
                }
            }
            if order.len() == before {
                break;
            }
        }
        order
    }
}
