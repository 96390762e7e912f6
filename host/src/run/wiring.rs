//! Which services an attempt gets. The only place that knows all of them.

use crate::{
    artifact,
    capability::Capability,
    catalog::Descriptor,
    event::RunEvent,
    failure::Failure,
    grant::Granter,
    name::StageName,
    plan::Plan,
    secret::Store,
    service::{
        Services,
        artifact::Artifacts,
        containers::{Address, Containers, Engine, resolve::EngineResolver, roots::Roots, steps::Steps},
        effect::Effects,
        egress::Connector,
        events::Log,
        http::{self, Http},
        limits, objects,
        patience::Patience,
        secret::Secrets,
        words::Words,
    },
    value::Value,
};
use serde_json::Value as Json;
use std::{path::Path, sync::Arc};
use tokio::sync::mpsc;

/// What the services of all attempts of a run share.
pub struct Wiring {
    secrets: Arc<Store>,
    connector: Arc<Connector>,
    artifacts: artifact::Store,
    containers: Containers,
}

/// The attempt that services are made for.
pub struct Making<'a> {
    pub plugin: &'a Descriptor,
    pub stage: &'a StageName,
    pub attempt: u32,
    pub granter: &'a Granter,
    pub effects: &'a Arc<Effects>,
    pub events: &'a mpsc::Sender<RunEvent>,
}

impl Wiring {
    /// # Errors
    /// `origins:` of the pipeline is not valid.
    pub fn new(
        plan: &Plan,
        root: &Path,
        secrets: Arc<Store>,
        state: &Path,
        engine: Address,
    ) -> Result<Self, Failure> {
        let engine = Arc::new(Engine::new(engine));
        let resolver = Arc::new(EngineResolver(engine.clone()));
        let connector = Connector::new(&plan.pipeline.origins, root, resolver)?;
        let mounts = plan.pipeline.directories.iter();
        let mounts = mounts.map(|(name, path)| (format!("/mnt/{name}"), root.join(path)));
        let variables = plan.pipeline.env.iter();
        let variables = variables.map(|(name, value)| (name.to_string(), value.value.clone()));
        let workspace = ("/workspace".to_string(), root.to_path_buf());
        Ok(Self {
            secrets,
            connector: Arc::new(connector),
            artifacts: artifact::Store::new(state),
            containers: Containers {
                engine,
                roots: Roots::new(std::iter::once(workspace).chain(mounts)),
                steps: Steps::new(state),
                variables: Arc::new(variables.collect()),
            },
        })
    }

    /// Where the run's artifacts are.
    pub fn artifacts(&self) -> &artifact::Store {
        &self.artifacts
    }

    /// The container engine of the run.
    pub fn engine(&self) -> &Engine {
        &self.containers.engine
    }

    /// Who asks for objects with these grants, outside of any attempt.
    pub fn objects(&self, granter: Granter) -> objects::Caller {
        objects::Caller {
            granter,
            connector: self.connector.clone(),
            secrets: Some(Arc::new(Secrets::new(self.secrets.clone()))),
            patience: Patience::default(),
        }
    }

    /// The services of one attempt: they share nothing with another's but the run's stores.
    pub fn services(&self, making: &Making<'_>) -> Services {
        let secrets = Arc::new(Secrets::new(self.secrets.clone()));
        let mut requests = making
            .plugin
            .requests
            .iter()
            .filter(|row| row.capability == Capability::Http);
        let http = Http {
            granter: making.granter.clone(),
            connector: self.connector.clone(),
            effects: making.effects.clone(),
            secrets: Some(secrets.clone()),
            log: Log::new(
                making.stage.clone(),
                making.attempt,
                making.events.clone(),
                Words::new(Some(self.secrets.mask())),
                &limits::Limits::default(),
            ),
            // Each row may be about another service: one that is not idempotent makes effects of all.
            idempotent: requests.all(|row| row.idempotent),
            limits: http::Limits::default(),
            sent: Arc::default(),
        };
        Services {
            http: Some(Arc::new(http)),
            artifacts: Some(Artifacts::new(self.artifacts.clone())),
            secrets: Some(secrets),
            connector: Some(self.connector.clone()),
            containers: Some(self.containers.clone()),
        }
    }

    /// The `with:` block as the guest sees it: a placeholder wherever a secret is.
    pub fn config(&self, services: &Services, with: &Value) -> Json {
        with.to_json(&mut |text| {
            services
                .secrets
                .as_ref()
                .map_or_else(String::new, |secrets| secrets.placeholder(text))
        })
    }
}
