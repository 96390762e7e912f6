//! Which services an attempt gets. The only place that knows all of them.

use crate::{
    failure::Failure,
    plan::Plan,
    secret::Store,
    service::{
        Services,
        egress::{Connector, SystemResolver},
        secret::Secrets,
    },
    value::Value,
};
use serde_json::Value as Json;
use std::{path::Path, sync::Arc};

/// What the services of all attempts of a run share.
pub struct Wiring {
    secrets: Arc<Store>,
    connector: Arc<Connector>,
}

impl Wiring {
    /// # Errors
    /// `origins:` of the pipeline is not valid; the state directory cannot be used.
    pub fn new(plan: &Plan, root: &Path, secrets: Arc<Store>, _state: &Path) -> Result<Self, Failure> {
        let connector = Connector::new(&plan.pipeline.origins, root, Arc::new(SystemResolver))?;
        Ok(Self { secrets, connector: Arc::new(connector) })
    }

    /// The services of one attempt: they share nothing with another's but the run's stores.
    pub fn services(&self) -> Services {
        Services {
            secrets: Some(Arc::new(Secrets::new(self.secrets.clone()))),
            connector: Some(self.connector.clone()),
            ..Services::default()
        }
    }

    /// The `with:` block as the guest sees it: a placeholder wherever a secret is.
    pub fn config(&self, services: &Services, with: &Value) -> Json {
        with.to_json(&mut |text| services.secrets.as_ref().map_or_else(String::new, |secrets| secrets.placeholder(text)))
    }
}
