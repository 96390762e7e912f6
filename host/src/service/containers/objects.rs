//! Networks and volumes of a project.

use super::{
    Caller, client,
    names::{self, Owner},
    spec::{NetworkSpec, VolumeSpec},
};
use crate::{
    capability::{Capability, Leaves},
    failure::{Failure, Turn},
};
use bollard::{
    models::{Ipam, IpamConfig, NetworkCreateRequest, VolumeCreateRequest},
    query_parameters::RemoveVolumeOptions,
};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, HashMap};

/// The label under which compose tools keep the name in the project.
const COMPOSE_NETWORK: &str = "com.docker.compose.network";
const COMPOSE_VOLUME: &str = "com.docker.compose.volume";

impl Caller {
    fn check_object(&self, project: &str, name: &str) -> Result<(), Failure> {
        let owner = Owner::parse(&format!("{project}/{name}"))?;
        self.granter.check(Capability::ContainersManage, &owner.pattern())
    }

    fn labels(
        &self,
        project: &str,
        name: &str,
        kind: &str,
        own: &BTreeMap<String, String>,
    ) -> Result<HashMap<String, String>, Failure> {
        names::check_labels(own)?;
        let mut labels: HashMap<String, String> = own.clone().into_iter().collect();
        labels.extend(names::maker(&self.context));
        labels.insert(names::PROJECT.into(), project.into());
        labels.insert(names::NAME.into(), name.into());
        labels.insert(kind.into(), name.into());
        Ok(labels)
    }

    pub(super) async fn ensure_network(&self, spec: NetworkSpec) -> Result<Json, Failure> {
        self.check_object(&spec.project, &spec.name)?;
        let name = full_name(&spec.project, &spec.name, spec.external);
        let docker = self.docker().await?;
        match docker.inspect_network(&name, None).await {
            Ok(_) => return Ok(json!({ "name": name, "created": false })),
            Err(error) if client::status(&error) == Some(404) => {}
            Err(error) => return Err(self.failure(&format!("look at the network `{name}`"), &error)),
        }
        if spec.external {
            return Err(absent("network", &name));
        }
        let ipam = spec.subnet.clone().map(|subnet| Ipam {
            config: Some(vec![IpamConfig {
                subnet: Some(subnet),
                ..IpamConfig::default()
            }]),
            ..Ipam::default()
        });
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: spec.driver.clone(),
            internal: Some(spec.internal),
            attachable: Some(spec.attachable),
            options: Some(spec.driver_opts.clone().into_iter().collect()),
            labels: Some(self.labels(&spec.project, &spec.name, COMPOSE_NETWORK, &spec.labels)?),
            ipam,
            ..NetworkCreateRequest::default()
        };
        let caller = self.clone();
        let effect = || async move {
            match caller.docker().await?.create_network(request).await {
                Ok(_) => Ok(json!({ "name": name, "created": true })),
                // Somebody was quicker, or an attempt that was cut off had made it.
                Err(error) if client::status(&error) == Some(409) => {
                    Ok(json!({ "name": name, "created": false }))
                }
                Err(error) => Err(caller.failure(&format!("make the network `{name}`"), &error)),
            }
        };
        self.effects
            .perform("containers.ensure-network", json!(spec), Leaves::Additive, effect)
            .await
    }

    pub(super) async fn ensure_volume(&self, spec: VolumeSpec) -> Result<Json, Failure> {
        self.check_object(&spec.project, &spec.name)?;
        let name = full_name(&spec.project, &spec.name, spec.external);
        let docker = self.docker().await?;
        match docker.inspect_volume(&name).await {
            Ok(_) => return Ok(json!({ "name": name, "created": false })),
            Err(error) if client::status(&error) == Some(404) => {}
            Err(error) => return Err(self.failure(&format!("look at the volume `{name}`"), &error)),
        }
        if spec.external {
            return Err(absent("volume", &name));
        }
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            driver: spec.driver.clone(),
            driver_opts: Some(spec.driver_opts.clone().into_iter().collect()),
            labels: Some(self.labels(&spec.project, &spec.name, COMPOSE_VOLUME, &spec.labels)?),
            ..VolumeCreateRequest::default()
        };
        let caller = self.clone();
        let effect = || async move {
            let made = caller.docker().await?.create_volume(request).await;
            made.map_err(|error| caller.failure(&format!("make the volume `{name}`"), &error))?;
            Ok(json!({ "name": name, "created": true }))
        };
        self.effects
            .perform("containers.ensure-volume", json!(spec), Leaves::Additive, effect)
            .await
    }

    /// Removes what carries the project's label and nothing uses.
    pub(super) async fn tidy(&self, kind: &str, name: &str) -> Result<Json, Failure> {
        let owner = Owner::parse(name)?;
        names::check(&owner.service)?;
        self.granter
            .check(Capability::ContainersManage, &owner.pattern())?;
        let is_network = match kind {
            "network" => true,
            "volume" => false,
            _ => {
                let message = format!("`{kind}` cannot be tidied: write network or volume");
                return Err(Failure::new(Turn::Plugin, "container.spec", message));
            }
        };
        let full = full_name(&owner.project, &owner.service, false);
        let docker = self.docker().await?;
        let labels = match is_network {
            true => docker
                .inspect_network(&full, None)
                .await
                .map(|network| network.labels.unwrap_or_default()),
            false => docker.inspect_volume(&full).await.map(|volume| volume.labels),
        };
        let is_ours = match labels {
            Ok(labels) => labels.get(names::PROJECT) == Some(&owner.project),
            Err(error) if client::status(&error) == Some(404) => false,
            Err(error) => return Err(self.failure(&format!("look at the {kind} `{full}`"), &error)),
        };
        if !is_ours {
            return Ok(Json::Bool(false));
        }
        let caller = self.clone();
        let arguments = json!({ "kind": kind, "name": name });
        let effect = || async move {
            let docker = caller.docker().await?;
            let removed = match is_network {
                true => docker.remove_network(&full).await,
                false => docker.remove_volume(&full, None::<RemoveVolumeOptions>).await,
            };
            match removed {
                Ok(()) => Ok(Json::Bool(true)),
                // Gone already, or in use.
                Err(error) if matches!(client::status(&error), Some(403 | 404 | 409)) => {
                    Ok(Json::Bool(false))
                }
                Err(error) => Err(caller.failure(&format!("remove `{full}`"), &error)),
            }
        };
        self.effects
            .perform("containers.tidy", arguments, Leaves::State, effect)
            .await
    }
}

/// As compose tools name them.
fn full_name(project: &str, name: &str, is_external: bool) -> String {
    match is_external {
        true => name.into(),
        false => format!("{project}_{name}"),
    }
}

fn absent(kind: &str, name: &str) -> Failure {
    let message =
        format!("there is no {kind} `{name}`, and it is declared external: Windlass does not make it");
    Failure::new(Turn::Operator, format!("{kind}.missing"), message)
        .help(format!("make it: docker {kind} create {name}"))
}
