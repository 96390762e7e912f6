//! `windlass:containers/engine`: the host functions, one step of an effect each.

use super::{
    Caller, caller, client, inspect,
    names::{self, Owner},
    spec::{self, ContainerSpec},
};
use crate::{
    capability::Leaves,
    failure::{Failure, Turn},
    service::State,
    wit::{GuestError, windlass::containers::engine},
};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder,
    StopContainerOptionsBuilder,
};
use serde_json::{Value as Json, json};
use std::collections::HashMap;
use wasmtime::component::{HasSelf, Linker};

const LONGEST_GRACE_MS: u32 = 600_000;
const MOST_LINES: u32 = 10_000;
/// More containers than a service has.
const MOST_LISTED: usize = 500;

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    engine::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl Caller {
    async fn start(&self, container: &str) -> Result<(), Failure> {
        let found = self.managed(container).await?;
        let shown = inspect::to_json(&found);
        if shown["state"] == "running" {
            return Ok(());
        }
        let (id, name) = (text(&shown, "id"), text(&shown, "name"));
        let caller = self.clone();
        let effect = || async move {
            // One that has ended since an attempt that was cut off had started it is not started again: a migration runs once.
            let started = caller.docker().await?.start_container(&id, None).await;
            started.map_err(|error| caller.failure(&format!("start `{name}`"), &error))?;
            Ok(Json::Null)
        };
        let arguments = json!({ "container": shown["name"], "id": shown["id"], "started": shown["started"] });
        self.effects
            .perform("containers.start", arguments, Leaves::State, effect)
            .await
            .map(drop)
    }

    async fn stop(&self, container: &str, grace_ms: u32) -> Result<(), Failure> {
        let found = self.managed(container).await?;
        let shown = inspect::to_json(&found);
        if !matches!(shown["state"].as_str(), Some("running" | "paused" | "restarting")) {
            return Ok(());
        }
        let (id, name) = (text(&shown, "id"), text(&shown, "name"));
        let seconds = grace_ms.min(LONGEST_GRACE_MS).div_ceil(1000);
        let caller = self.clone();
        let effect = || async move {
            let options = StopContainerOptionsBuilder::default()
                .t(i32::try_from(seconds).unwrap_or(i32::MAX))
                .build();
            let stopped = caller
                .docker()
                .await?
                .clone()
                .with_timeout(std::time::Duration::from_secs(u64::from(seconds) + 60))
                .stop_container(&id, Some(options))
                .await;
            match stopped {
                Err(error) if !matches!(client::status(&error), Some(304 | 404)) => {
                    Err(caller.failure(&format!("stop `{name}`"), &error))
                }
                _ => Ok(Json::Null),
            }
        };
        let arguments = json!({ "container": shown["name"], "id": shown["id"] });
        self.effects
            .perform("containers.stop", arguments, Leaves::State, effect)
            .await
            .map(drop)
    }

    async fn remove(&self, container: &str, force: bool) -> Result<(), Failure> {
        let found = match self.managed(container).await {
            Ok(found) => found,
            Err(failure) if failure.code == "container.missing" => return Ok(()),
            Err(failure) => return Err(failure),
        };
        let shown = inspect::to_json(&found);
        let (id, name) = (text(&shown, "id"), text(&shown, "name"));
        let caller = self.clone();
        let effect = || async move {
            let options = RemoveContainerOptionsBuilder::default()
                .force(force)
                .v(true)
                .build();
            match caller.docker().await?.remove_container(&id, Some(options)).await {
                // 409: it is being removed already, or (without force) runs.
                Err(error) if client::status(&error) == Some(404) => Ok(Json::Null),
                Err(error) => Err(caller.failure(&format!("remove `{name}`"), &error)),
                Ok(()) => Ok(Json::Null),
            }
        };
        let arguments = json!({ "container": shown["name"], "id": shown["id"], "force": force });
        self.effects
            .perform("containers.remove", arguments, Leaves::State, effect)
            .await
            .map(drop)
    }

    async fn rename(&self, container: &str, name: &str) -> Result<(), Failure> {
        names::check(name)?;
        let found = self.managed(container).await?;
        let shown = inspect::to_json(&found);
        if shown["name"] == name {
            return Ok(());
        }
        let (id, new_name, caller) = (text(&shown, "id"), name.to_string(), self.clone());
        let effect = || async move {
            let options = RenameContainerOptionsBuilder::default().name(&new_name).build();
            match caller.docker().await?.rename_container(&id, options).await {
                Ok(()) => Ok(Json::Null),
                Err(error) if client::status(&error) == Some(409) => {
                    let message = format!("there is a container `{new_name}` already");
                    Err(Failure::new(Turn::Environment, "container.exists", message))
                }
                Err(error) => Err(caller.failure(&format!("rename a container to `{new_name}`"), &error)),
            }
        };
        let arguments = json!({ "container": shown["name"], "id": shown["id"], "name": name });
        self.effects
            .perform("containers.rename", arguments, Leaves::State, effect)
            .await
            .map(drop)
    }

    async fn list(&self, service: &str) -> Result<Json, Failure> {
        let asked = Owner::parse(service)?;
        let is_all = asked.service == "*";
        if !is_all {
            self.check_seen(&asked)?;
        }
        let mut labels = vec![format!("{}={}", names::PROJECT, asked.project)];
        if !is_all {
            labels.push(format!("{}={}", names::SERVICE, asked.service));
        }
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&HashMap::from([("label".to_string(), labels)]))
            .build();
        let docker = self.docker().await?;
        let listed = docker.list_containers(Some(options)).await;
        let mut listed = listed.map_err(|error| self.failure("list the containers", &error))?;
        listed.sort_by_key(|container| container.created);
        let mut shown = Vec::new();
        for container in listed {
            let owner = container.labels.as_ref().and_then(names::owner_of);
            let is_seen = !is_all || owner.is_some_and(|owner| self.check_seen(&owner).is_ok());
            let Some(id) = container.id.filter(|_| is_seen) else {
                continue;
            };
            // One that is gone by now is not listed.
            match self.find(&id).await {
                Ok(found) => shown.push(inspect::to_json(&found)),
                Err(failure) if failure.code == "container.missing" => {}
                Err(failure) => return Err(failure),
            }
            if shown.len() == MOST_LISTED {
                break;
            }
        }
        Ok(Json::Array(shown))
    }
}

fn text(shown: &Json, key: &str) -> String {
    shown[key].as_str().unwrap_or_default().to_string()
}

type Answer<T> = wasmtime::Result<Result<T, GuestError>>;

fn answer(result: Result<Json, Failure>) -> Answer<String> {
    Ok(result.map(|json| json.to_string()).map_err(GuestError::from))
}

fn nothing(result: Result<(), Failure>) -> Answer<()> {
    Ok(result.map_err(GuestError::from))
}

fn container_spec(text: &str) -> Result<ContainerSpec, Failure> {
    spec::parse("the specification of the container", "container.spec", text)
}

impl engine::Host for State {
    async fn create(&mut self, spec: String) -> Answer<String> {
        let caller = caller!(self);
        answer(match container_spec(&spec) {
            Ok(spec) => caller.create(spec).await,
            Err(failure) => Err(failure),
        })
    }

    async fn start(&mut self, container: String) -> Answer<()> {
        nothing(caller!(self).start(&container).await)
    }

    async fn stop(&mut self, container: String, grace_ms: u32) -> Answer<()> {
        nothing(caller!(self).stop(&container, grace_ms).await)
    }

    async fn remove(&mut self, container: String, force: bool) -> Answer<()> {
        nothing(caller!(self).remove(&container, force).await)
    }

    async fn rename(&mut self, container: String, name: String) -> Answer<()> {
        nothing(caller!(self).rename(&container, &name).await)
    }

    async fn wait(&mut self, container: String, options: String, timeout_ms: u32) -> Answer<String> {
        let caller = caller!(self);
        answer(
            match spec::parse("the options of `wait`", "container.spec", &options) {
                Ok(options) => caller.wait(&container, options, timeout_ms).await,
                Err(failure) => Err(failure),
            },
        )
    }

    async fn inspect(&mut self, container: String) -> Answer<String> {
        let found = caller!(self).seen(&container).await;
        answer(found.map(|found| inspect::to_json(&found)))
    }

    async fn list(&mut self, service: String) -> Answer<String> {
        answer(caller!(self).list(&service).await)
    }

    async fn logs(&mut self, container: String, lines: u32) -> Answer<String> {
        let caller = caller!(self);
        let logs = match caller.seen(&container).await {
            Ok(found) => {
                let id = found.id.unwrap_or(container);
                caller.last_lines(&id, lines.clamp(1, MOST_LINES)).await
            }
            Err(failure) => Err(failure),
        };
        Ok(logs.map_err(GuestError::from))
    }

    async fn fingerprint(&mut self, spec: String) -> Answer<String> {
        let caller = caller!(self);
        let made = container_spec(&spec).and_then(|spec| caller.fingerprint(spec));
        Ok(made.map_err(GuestError::from))
    }

    async fn ensure_network(&mut self, spec: String) -> Answer<String> {
        let caller = caller!(self);
        answer(
            match spec::parse("the specification of the network", "container.spec", &spec) {
                Ok(spec) => caller.ensure_network(spec).await,
                Err(failure) => Err(failure),
            },
        )
    }

    async fn ensure_volume(&mut self, spec: String) -> Answer<String> {
        let caller = caller!(self);
        answer(
            match spec::parse("the specification of the volume", "container.spec", &spec) {
                Ok(spec) => caller.ensure_volume(spec).await,
                Err(failure) => Err(failure),
            },
        )
    }

    async fn tidy(&mut self, kind: String, name: String) -> Answer<bool> {
        let tidied = caller!(self).tidy(&kind, &name).await;
        Ok(tidied
            .map(|removed| removed == Json::Bool(true))
            .map_err(GuestError::from))
    }
}
