//! An effect on the engine that a crash has cut off → whether it happened.

use super::{
    client::{self, Engine},
    inspect, names,
};
use crate::{failure::Failure, service::flow::probe::Became};
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use serde_json::{Value as Json, json};
use std::collections::HashMap;

/// # Errors
/// The engine cannot be reached, or answers nonsense.
pub async fn look(engine: &Engine, function: &str, key: &str, arguments: &Json) -> Result<Became, Failure> {
    match function {
        "containers.create" => created(engine, key).await,
        "containers.start" => started(engine, arguments).await,
        // What a program did nobody can see from outside.
        "containers.exec" => Ok(Became::Unknown),
        // Done twice, each of the others leaves what done once leaves.
        _ => Ok(Became::NotDone),
    }
}

/// One that was made and never started may lack its networks and secrets: it is made again.
async fn created(engine: &Engine, key: &str) -> Result<Became, Failure> {
    let docker = engine.docker().await?;
    let label = vec![format!("{}={key}", names::EFFECT)];
    let filters = HashMap::from([("label".to_string(), label)]);
    let options = ListContainersOptionsBuilder::default()
        .all(true)
        .filters(&filters)
        .build();
    let listed = docker.list_containers(Some(options)).await;
    let listed = listed.map_err(|error| engine.failure("list the containers", &error))?;
    for id in listed.into_iter().filter_map(|container| container.id) {
        let found = match docker.inspect_container(&id, None).await {
            Ok(found) => inspect::to_json(&found),
            Err(error) if client::status(&error) == Some(404) => continue,
            Err(error) => return Err(engine.failure("look at a container", &error)),
        };
        if found["state"] != "created" {
            return Ok(Became::Done(json!({ "id": found["id"], "name": found["name"] })));
        }
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        match docker.remove_container(&id, Some(options)).await {
            Err(error) if client::status(&error) != Some(404) => {
                return Err(engine.failure("remove half of a container", &error));
            }
            _ => {}
        }
    }
    Ok(Became::NotDone)
}

/// Started since it was looked at before.
async fn started(engine: &Engine, arguments: &Json) -> Result<Became, Failure> {
    let id = arguments["id"].as_str().unwrap_or_default();
    let found = match engine.docker().await?.inspect_container(id, None).await {
        Ok(found) => inspect::to_json(&found),
        Err(error) if client::status(&error) == Some(404) => return Ok(Became::NotDone),
        Err(error) => return Err(engine.failure("look at a container", &error)),
    };
    let has_started = found["started"] != arguments["started"];
    Ok(match has_started {
        true => Became::Done(Json::Null),
        false => Became::NotDone,
    })
}
