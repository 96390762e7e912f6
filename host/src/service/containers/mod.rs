//! `windlass:containers`: images, containers, networks and volumes of a container engine.
//!
//! Whoever may talk to the engine's socket is root on its machine, so this code is the boundary: it builds every request itself from typed
//! fields (`spec`), checks each value against the grants, hardens what it makes (`create`), and touches only what carries the labels of
//! a service that is granted.

mod client;
pub mod compose;
mod context;
mod create;
pub mod engine;
pub mod exec;
pub(crate) mod flow;
pub mod images;
mod inspect;
mod names;
mod objects;
pub mod probe;
pub mod resolve;
pub mod roots;
mod spec;
pub mod steps;
mod wait;

pub use client::{Address, Engine};

use super::{
    State,
    context::Context,
    effect::Effects,
    events::Log,
    patience::Patience,
    secret::{Place, Secrets},
    words::Words,
};
use crate::{
    capability::Capability,
    failure::{Failure, Turn},
    grant::Granter,
    pattern::Pattern,
};
use bollard::{Docker, models::ContainerInspectResponse};
use names::Owner;
use roots::Roots;
use std::sync::Arc;
use steps::Steps;
use zeroize::Zeroizing;

/// What an attempt gets of containers.
#[derive(Clone)]
pub struct Containers {
    pub engine: Arc<Engine>,
    pub roots: Roots,
    pub steps: Steps,
    /// The pipeline's `env`: what `${NAME}` in compose files means.
    pub variables: Arc<std::collections::BTreeMap<String, String>>,
}

/// What a call needs of its attempt. Cheap to clone: what an effect does outlives the borrow of the store.
#[derive(Clone)]
pub(crate) struct Caller {
    granter: Granter,
    effects: Arc<Effects>,
    secrets: Option<Arc<Secrets>>,
    containers: Containers,
    log: Log,
    patience: Patience,
    context: Context,
}

impl Caller {
    /// # Errors
    /// `internal.service`.
    pub(crate) fn of(state: &State) -> Result<Self, Failure> {
        let containers = state.services.containers.clone();
        Ok(Self {
            granter: state.granter.clone(),
            effects: state.effects.clone(),
            secrets: state.services.secrets.clone(),
            containers: containers.ok_or_else(|| super::unequipped("containers"))?,
            log: state.log.clone(),
            patience: Patience::of(&state.context),
            context: state.context.clone(),
        })
    }

    async fn docker(&self) -> Result<&Docker, Failure> {
        self.containers.engine.docker().await
    }

    fn failure(&self, doing: &str, error: &bollard::errors::Error) -> Failure {
        self.containers.engine.failure(doing, error)
    }

    /// Whether the stage may use a capability for a value that is still text.
    fn check(&self, capability: Capability, value: &str, code: &str) -> Result<(), Failure> {
        let pattern = Pattern::parse(capability, value)
            .map_err(|error| Failure::new(Turn::Plugin, code, error.to_string()))?;
        self.granter.check(capability, &pattern)
    }

    /// A text with the values of its placeholders.
    fn swap(&self, text: &str) -> Result<Zeroizing<String>, Failure> {
        match &self.secrets {
            Some(secrets) => secrets.swap(&self.granter, text, Place::Local),
            None => Ok(Zeroizing::new(text.into())),
        }
    }

    /// A text for people and for the journal.
    fn describe(&self, text: &str) -> String {
        match &self.secrets {
            Some(secrets) => secrets.describe(text),
            None => text.into(),
        }
    }

    fn words(&self) -> Words {
        Words::new(self.secrets.as_ref().map(|secrets| secrets.store().mask()))
    }

    /// A container that may be changed.
    async fn managed(&self, container: &str) -> Result<ContainerInspectResponse, Failure> {
        let found = self.find(container).await?;
        let owner = names::owner(&found)?;
        if !self.may_run(&found)? {
            self.granter
                .check(Capability::ContainersManage, &owner.pattern())?;
        }
        Ok(found)
    }

    /// A container that may be looked at: by whoever may change it, or run programs in it.
    async fn seen(&self, container: &str) -> Result<ContainerInspectResponse, Failure> {
        let found = self.find(container).await?;
        let owner = names::owner(&found)?;
        if !self.may_run(&found)? {
            self.check_seen(&owner)?;
        }
        Ok(found)
    }

    /// Whether it is a task of an image that the stage may run: that is all it takes to end such a task.
    fn may_run(&self, found: &ContainerInspectResponse) -> Result<bool, Failure> {
        let Some(pattern) = names::task_image(found).map(|image| image.or_latest().pattern()) else {
            return Ok(false);
        };
        let covering = self.granter.grant().covering(Capability::ContainersRun, &pattern);
        match covering {
            Some(_) => self
                .granter
                .check(Capability::ContainersRun, &pattern)
                .map(|()| true),
            None => Ok(false),
        }
    }

    fn check_seen(&self, owner: &Owner) -> Result<(), Failure> {
        let pattern = owner.pattern();
        let may_exec = self
            .granter
            .grant()
            .covering(Capability::ContainersExec, &pattern);
        let capability = match may_exec {
            Some(_) => Capability::ContainersExec,
            None => Capability::ContainersManage,
        };
        self.granter.check(capability, &pattern)
    }

    async fn find(&self, container: &str) -> Result<ContainerInspectResponse, Failure> {
        names::check(container)?;
        let found = self.docker().await?.inspect_container(container, None).await;
        found.map_err(|error| match client::status(&error) {
            Some(404) => missing(container),
            _ => self.failure(&format!("look at the container `{container}`"), &error),
        })
    }
}

/// The attempt's caller, or its failure as the guest's error.
macro_rules! caller {
    ($state:expr) => {
        match $crate::service::containers::Caller::of($state) {
            Ok(caller) => caller,
            Err(failure) => return Ok(Err(failure.into())),
        }
    };
}
pub(crate) use caller;

fn missing(container: &str) -> Failure {
    let message = format!("there is no container `{container}`");
    Failure::new(Turn::Environment, "container.missing", message)
}

#[cfg(test)]
mod tests;
