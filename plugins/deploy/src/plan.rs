//! What a run would do, and every capability that it needs for it: reading only.

use windlass_guest::{Effect, Error};

use crate::config::{Config, Strategy};
use crate::host::Host;
use crate::names::{self, Colour};
use crate::project::{self, Resource};
use crate::rolling::{self, Work};
use crate::scene::Verdict;
use crate::service::{Pull, Service};
use crate::step::Step;

/// Plans.
///
/// # Errors
/// As the run, without what only happens while it runs. What is not granted is no error here: the effect that needs it says so.
pub fn plan(config: &Config, host: &mut dyn Host) -> Result<Vec<Effect>, Error> {
    config.check()?;
    let project = project::load(config, host)?;
    let run = host.run_id();
    let mut step = Step { config, run, host };
    let mut effects = Vec::new();
    for service in &project.services {
        effects.extend(step.plan_service(service)?);
    }
    if effects.is_empty() {
        return Ok(effects);
    }
    let shared = |kind: &'static str| move |resource: &Resource| ensured(config, kind, resource);
    let networks = project.networks.iter().map(shared("network"));
    Ok(networks
        .chain(project.volumes.iter().map(shared("volume")))
        .chain(effects)
        .collect())
}

fn ensured(config: &Config, kind: &str, resource: &Resource) -> Effect {
    let name = resource.spec["name"].as_str().unwrap_or(&resource.key);
    Effect {
        action: "create",
        target: format!("{kind} {}/{}", config.project, resource.key),
        summary: format!("the {kind} {name}, unless it is there"),
        capability: Some("containers.manage".to_owned()),
        value: Some(format!("{}/{name}", config.project)),
    }
}

/// What is to happen to a service.
struct Change {
    action: &'static str,
    summary: String,
}

impl Step<'_> {
    fn plan_service(&mut self, service: &Service) -> Result<Vec<Effect>, Error> {
        let change = match service.strategy {
            Strategy::Rolling => self.plan_rolling(service),
            Strategy::BlueGreen => self.plan_colours(service),
        };
        let change = match change {
            Err(error) if error.code == "grant.denied" => Some(Change {
                action: "update",
                summary: format!("{}: what is there cannot be seen without the grant", service.name),
            }),
            // An earlier stage has to put it first.
            Err(error) if error.code.starts_with("secret.") => Some(Change {
                action: "update",
                summary: format!(
                    "{}: what differs is seen once its secrets are there",
                    service.name
                ),
            }),
            change => change?,
        };
        let pulled = self.plan_pull(service)?;
        let Some(change) = change else {
            return Ok(pulled.into_iter().collect());
        };
        let mut needed = service.capabilities();
        if service.strategy == Strategy::BlueGreen {
            let router = &self.config.router()?.service;
            needed.push(("containers.exec", format!("{}/{router}", service.project)));
        }
        let effects = needed
            .into_iter()
            .enumerate()
            .map(|(at, (capability, value))| Effect {
                action: if at == 0 { change.action } else { "run" },
                target: format!("service {}", service.name),
                summary: match at {
                    0 => change.summary.clone(),
                    _ => format!("{}: needs {capability} {value}", service.name),
                },
                capability: Some(capability.to_owned()),
                value: Some(value),
            });
        Ok(pulled.into_iter().chain(effects).collect())
    }

    fn plan_pull(&mut self, service: &Service) -> Result<Option<Effect>, Error> {
        let is_there = match service.pull {
            Pull::Never => true,
            Pull::Always => false,
            Pull::Missing => match self.host.image(&service.image) {
                Ok(image) => image.is_some(),
                Err(error) if error.code == "grant.denied" => true,
                Err(error) => return Err(error),
            },
        };
        Ok((!is_there).then(|| Effect {
            action: "create",
            target: format!("image {}", service.image),
            summary: format!("pull {}", service.image),
            capability: Some("containers.pull".to_owned()),
            value: Some(names::with_tag(&service.image)),
        }))
    }

    fn plan_rolling(&mut self, service: &Service) -> Result<Option<Change>, Error> {
        let all = self.containers(&service.name)?;
        let (mut made, mut kept) = (Vec::new(), Vec::new());
        for number in 1..=service.replicas {
            let spec = service.spec(number);
            let name = spec["name"].as_str().unwrap_or_default().to_owned();
            let fingerprint = self.host.fingerprint(&spec)?;
            let current = rolling::seat(&all, &name, number);
            match rolling::work(current, &fingerprint, &self.run, service.is_task) {
                Work::Nothing => kept.extend(current.map(|current| current.name.clone())),
                Work::Start | Work::Create => made.push(name),
            }
        }
        let is_surplus = |name: &String| !made.contains(name) && !kept.contains(name);
        let in_place = all
            .iter()
            .filter(|container| names::put_aside(container).is_none());
        let surplus: Vec<String> = in_place
            .map(|container| container.name.clone())
            .filter(is_surplus)
            .collect();
        let is_new = all.is_empty();
        let how = if service.publishes {
            ", after the old one has stopped: it publishes a port"
        } else {
            ""
        };
        Ok(match (made.is_empty(), surplus.is_empty()) {
            (true, true) => None,
            (false, _) if is_new => Some(Change {
                action: "create",
                summary: format!("{} of {}", made.join(", "), service.image),
            }),
            (false, _) => Some(Change {
                action: "update",
                summary: format!("recreate {} of {}{how}", made.join(", "), service.image),
            }),
            (true, false) => Some(Change {
                action: "delete",
                summary: format!("stop {}", surplus.join(", ")),
            }),
        })
    }

    fn plan_colours(&mut self, service: &Service) -> Result<Option<Change>, Error> {
        let config = self.config.router()?;
        let routers = self.containers(&config.service)?;
        let create = |colour: Colour, from: &str| Change {
            action: if from.is_empty() { "create" } else { "update" },
            summary: format!(
                "{} containers of {} at {}{from}",
                service.replicas,
                colour.name(),
                service.image
            ),
        };
        // To start a stopped router is no part of a plan.
        let is_asked = routers.iter().any(|router| router.is_running());
        let Some((_, scene)) = (if is_asked { self.look(&service.name)? } else { None }) else {
            return Ok(Some(create(Colour::Blue, "")));
        };
        match scene.verdict(&self.run) {
            Verdict::Lost(why) => Err(crate::colours::lost(&service.name, &why)),
            Verdict::First { target } => Ok(Some(create(target, ""))),
            Verdict::Next { live, .. } | Verdict::Switched { live }
                if self.fits(service, &scene, live.colour)? =>
            {
                Ok(None)
            }
            Verdict::Next { live, target } => {
                let from = format!(
                    ", checked, then the traffic from {} in generation {} to it",
                    live.colour.name(),
                    live.generation
                );
                Ok(Some(create(target, &from)))
            }
            Verdict::Switched { live } => Ok(Some(create(live.colour, ", which is live already"))),
        }
    }
}
