//! Which services are deployed, and in which order: each after those that it needs.

use serde_json::{Map, Value};
use windlass_guest::Error;

use crate::config::{Config, Strategy};
use crate::project::object;

/// What has to be true of another service before this one is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Started,
    Healthy,
    Completed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) service: String,
    pub(crate) condition: Condition,
}

/// The services that were asked for with all that they need; without `services:`, all.
///
/// # Errors
/// `deploy.service`: one that was named is not in the compose files, or they need each other in a circle.
pub(crate) fn select(config: &Config, all: &Map<String, Value>) -> Result<Vec<String>, Error> {
    let routed = config
        .strategy
        .iter()
        .filter(|(_, strategy)| **strategy == Strategy::BlueGreen);
    let router = config.router.as_ref().map(|router| &router.service);
    let named = config.services.iter().chain(config.strategy.keys());
    let named = named
        .chain(router.filter(|_| routed.count() > 0))
        .chain(config.images.keys());
    for name in named {
        if !all.contains_key(name) {
            let known: Vec<&str> = all.keys().map(String::as_str).collect();
            let message = format!("there is no service `{name}` in the compose files");
            return Err(Error::new("deploy.service", message).help(format!("they have {}", known.join(", "))));
        }
    }
    let wanted: Vec<&String> = match config.services.is_empty() {
        true => all.keys().collect(),
        false => config.services.iter().collect(),
    };
    let (mut order, mut way) = (Vec::new(), Vec::new());
    for name in wanted {
        place(config, all, name, &mut order, &mut way)?;
    }
    Ok(order)
}

fn place(
    config: &Config,
    all: &Map<String, Value>,
    name: &str,
    order: &mut Vec<String>,
    way: &mut Vec<String>,
) -> Result<(), Error> {
    if order.iter().any(|placed| placed == name) {
        return Ok(());
    }
    if way.iter().any(|on_way| on_way == name) {
        let message = format!("the services {} need each other in a circle", way.join(", "));
        return Err(Error::new("deploy.service", message));
    }
    way.push(name.to_owned());
    for need in needs(config, name, &all[name]) {
        if all.contains_key(&need.service) {
            place(config, all, &need.service, order, way)?;
        }
    }
    way.pop();
    order.push(name.to_owned());
    Ok(())
}

/// What a service needs. A blue-green service needs its router, which has to be asked first; and a router needs none of those, which come and go
/// behind it.
pub(crate) fn needs(config: &Config, name: &str, service: &Value) -> Vec<Need> {
    let is_blue_green = |name: &str| config.strategy_of(name) == Strategy::BlueGreen;
    let router = config.router.as_ref().map(|router| router.service.as_str());
    let mut needs: Vec<Need> = object(&service["depends_on"])
        .iter()
        .filter(|(needed, _)| !(router == Some(name) && is_blue_green(needed)))
        .map(|(needed, how)| Need {
            service: needed.clone(),
            condition: match how["condition"].as_str() {
                Some("service_healthy") => Condition::Healthy,
                Some("service_completed_successfully") => Condition::Completed,
                _ => Condition::Started,
            },
        })
        .collect();
    // A link says the same as `depends_on` without a condition.
    for link in service["links"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        let (service, _) = link.split_once(':').unwrap_or((link, link));
        if !needs.iter().any(|need| need.service == service) {
            needs.push(Need {
                service: service.to_owned(),
                condition: Condition::Started,
            });
        }
    }
    if let Some(router) = router.filter(|_| is_blue_green(name))
        && !needs.iter().any(|need| need.service == router)
    {
        needs.push(Need {
            service: router.to_owned(),
            condition: Condition::Healthy,
        });
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(with: Value, services: Value, expected: Result<&[&str], &str>) {
        let mut whole = json!({ "compose": ["c"], "project": "p" });
        whole
            .as_object_mut()
            .unwrap()
            .extend(with.as_object().unwrap().clone());
        let config: Config = serde_json::from_value(whole).unwrap();
        match (select(&config, services.as_object().unwrap()), expected) {
            (Ok(order), Ok(expected)) => assert_eq!(order, expected),
            (Err(error), Err(text)) => assert!(error.message.contains(text), "{}", error.message),
            (found, expected) => panic!("{found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn each_comes_after_what_it_needs() {
        let on = |names: &[&str]| {
            let all = names
                .iter()
                .map(|name| ((*name).to_owned(), json!({ "condition": "service_healthy" })));
            json!({ "depends_on": all.collect::<Map<_, _>>() })
        };
        let all = json!({ "backend": on(&["cache", "db"]), "cache": {}, "db": {}, "front": on(&["backend"]), "router": on(&["backend"]) });
        check(
            json!({}),
            all.clone(),
            Ok(&["cache", "db", "backend", "front", "router"]),
        );
        check(
            json!({ "services": ["backend"] }),
            all.clone(),
            Ok(&["cache", "db", "backend"]),
        );
        let colours = json!({ "strategy": { "backend": "blue-green" }, "router": { "kind": "haproxy", "service": "router", "port": 1 } });
        check(
            colours,
            all.clone(),
            Ok(&["cache", "db", "router", "backend", "front"]),
        );
        check(json!({ "services": ["bakend"] }), all, Err("no service `bakend`"));
        check(
            json!({}),
            json!({ "a": on(&["b"]), "b": on(&["a"]) }),
            Err("circle"),
        );
    }
}
