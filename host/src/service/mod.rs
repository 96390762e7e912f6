//! The host functions: one file for each import of a plugin. The only way out of the sandbox.
//!
//! A service never reads policy: it asks the [`Granter`] it was handed, then bounds its input, acts,
//! and maps errors.

pub mod artifact;
pub mod aws_sm;
pub(crate) mod capture;
pub mod containers;
pub mod context;
pub mod effect;
pub mod egress;
pub mod events;
pub mod files;
pub mod flow;
pub mod http;
pub mod inert;
pub mod limits;
pub mod link;
pub mod objects;
pub(crate) mod patience;
pub mod process;
pub mod secret;
pub mod sql;
pub mod stdio;
pub mod tcp;
#[cfg(test)]
pub(crate) mod testing;
pub mod wasi;
pub mod words;

use crate::{
    failure::{Failure, Turn},
    grant::Granter,
};
use std::sync::Arc;
use wasmtime::component::ResourceTable;

/// What a store holds: everything that one attempt of one stage may reach. Made afresh for each attempt.
pub struct State {
    pub context: context::Context,
    pub granter: Granter,
    /// Every change outside the sandbox goes through it.
    pub effects: Arc<effect::Effects>,
    pub services: Services,
    pub log: events::Log,
    pub mounts: Arc<files::Mounts>,
    /// The guest's handles; its capacity is a limit.
    pub table: ResourceTable,
    pub limiter: limits::Limiter,
    pub(crate) wasi: wasi::Wasi,
}

/// What the run hands to an attempt, made from the stage's grants. An empty slot means: nothing of the kind is granted.
#[derive(Clone, Default)]
pub struct Services {
    /// Sends the guest's `wasi:http` requests; it asks the granter for each.
    pub http: Option<Arc<dyn wasi::HttpSender>>,
    /// One for each attempt.
    pub artifacts: Option<artifact::Artifacts>,
    /// The run's secrets with the placeholders of this attempt.
    pub secrets: Option<Arc<secret::Secrets>>,
    /// Connects for `tcp` and `sql`.
    pub connector: Option<Arc<egress::Connector>>,
    /// The container engine, and what of this machine containers may be given.
    pub containers: Option<containers::Containers>,
}

impl Services {
    /// What stands between the guest's words and whoever reads them.
    pub fn words(&self) -> words::Words {
        words::Words::new(self.secrets.as_ref().map(|secrets| secrets.store().mask()))
    }
}

impl State {
    fn secrets(&self) -> Result<&Arc<secret::Secrets>, Failure> {
        self.services
            .secrets
            .as_ref()
            .ok_or_else(|| unequipped("secrets"))
    }

    fn connector(&self) -> Result<&Arc<egress::Connector>, Failure> {
        self.services
            .connector
            .as_ref()
            .ok_or_else(|| unequipped("connections"))
    }
}

/// The linker has let a guest in that the attempt was not prepared for.
fn unequipped(service: &str) -> Failure {
    let message = format!("the attempt was started without its service for {service}");
    Failure::new(Turn::Windlass, "internal.service", message)
}
