//! Which services an attempt gets. The only place that knows all of them.

use crate::{
    failure::Failure,
    grant::Granter,
    plan::Plan,
    secret::Store,
    service::{
        Services,
        effect::Effects,
        egress::{Connector, SystemResolver},
        events::Log,
        http::Http,
        secret::Secrets,
        wasi::HttpSender,
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

    /// What sends the requests of one attempt. It is there without a grant too: then it explains in the log what is missing.
    pub fn http(
        &self,
        services: &Services,
        granter: &Granter,
        effects: &Arc<Effects>,
        log: Log,
        idempotent: bool,
    ) -> Arc<dyn HttpSender> {
        Arc::new(Http {
            granter: granter.clone(),
            connector: self.connector.clone(),
            effects: effects.clone(),
            secrets: services.secrets.clone(),
            log,
            idempotent,
            limits: Default::default(),
            sent: Arc::default(),
        })
    }

    /// The `with:` block as the guest sees it: a placeholder wherever a secret is.
    pub fn config(&self, services: &Services, with: &Value) -> Json {
        with.to_json(&mut |text| services.secrets.as_ref().map_or_else(String::new, |secrets| secrets.placeholder(text)))
    }
}
