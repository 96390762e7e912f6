//! The whole of a deployment: networks and volumes, then the services in the order in which they need each other.

use serde_json::{Map, Value};
use windlass_guest::containers::Container;
use windlass_guest::{Error, Outcome};

use crate::config::{Config, Strategy};
use crate::host::Host;
use crate::names;
use crate::order::Condition;
use crate::project::{self, Project};
use crate::service::Service;
use crate::step::{Report, Step};

/// Deploys.
///
/// # Errors
/// `config.invalid`, `compose.invalid`, `deploy.*`, `router.*`, `image.*`, those of the host.
pub fn run(config: &Config, host: &mut dyn Host) -> Result<Outcome, Error> {
    config.check()?;
    let project = project::load(config, host)?;
    let run = host.run_id();
    let mut step = Step { config, run, host };
    step.refuse_if_lost(&project)?;
    // All images first: what cannot be fetched is better known before anything is replaced.
    let digests = project.services.iter().map(|service| step.image(service));
    let digests: Vec<String> = digests.collect::<Result<_, _>>()?;
    for network in &project.networks {
        step.host.ensure_network(&network.spec)?;
    }
    for volume in &project.volumes {
        step.host.ensure_volume(&volume.spec)?;
    }
    let mut reports: Vec<(&Service, Report)> = Vec::new();
    for (done, (service, digest)) in project.services.iter().zip(&digests).enumerate() {
        step.host.progress(done, project.services.len(), &service.name);
        step.wait_for_needs(service)?;
        let report = match service.strategy {
            Strategy::Rolling => step.roll(service, digest)?,
            Strategy::BlueGreen => step.colours(service, digest)?,
        };
        reports.push((service, report));
    }
    step.host
        .progress(project.services.len(), project.services.len(), "deployed");
    Ok(outcome(&reports))
}

impl Step<'_> {
    /// A router that has lost its colour is found before anything else is touched.
    fn refuse_if_lost(&mut self, project: &Project) -> Result<(), Error> {
        for service in project
            .services
            .iter()
            .filter(|service| service.strategy == Strategy::BlueGreen)
        {
            let config = self.config.router()?;
            let routers = self.containers(&config.service)?;
            let is_running =
                |container: &Container| names::put_aside(container).is_none() && container.is_running();
            // One that does not run is not started for this: it may be about to be replaced.
            if !routers.iter().any(is_running) {
                continue;
            }
            if let Some((_, scene)) = self.look(&service.name)?
                && let crate::scene::Verdict::Lost(why) = scene.verdict(&self.run)
            {
                return Err(crate::colours::lost(&service.name, &why));
            }
        }
        Ok(())
    }

    /// As the conditions of `depends_on` say.
    fn wait_for_needs(&mut self, service: &Service) -> Result<(), Error> {
        for need in &service.needs {
            let all = self.containers(&need.service)?;
            let in_use = all
                .iter()
                .filter(|container| names::put_aside(container).is_none());
            match need.condition {
                Condition::Started => {}
                Condition::Healthy => {
                    for container in in_use.filter(|container| container.is_running()) {
                        self.wait_healthy(&need.service, &container.id)?;
                    }
                }
                Condition::Completed => {
                    for container in in_use {
                        self.wait_ended(&need.service, &container.id)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn outcome(reports: &[(&Service, Report)]) -> Outcome {
    let recreated: Vec<&str> = reports
        .iter()
        .filter(|(_, report)| !report.recreated.is_empty())
        .map(|(service, _)| service.name.as_str())
        .collect();
    let live = reports.iter().filter_map(|(service, report)| {
        let (colour, generation) = (report.colour?, report.generation?);
        Some(format!(
            "; {} is {} in generation {generation}",
            service.name,
            colour.name()
        ))
    });
    let live: String = live.collect();
    let mut outcome = match recreated.is_empty() {
        true => Outcome::unchanged(format!("all {} services are as wanted{live}", reports.len())),
        false => Outcome::changed(format!("deployed {}{live}", recreated.join(", "))),
    };
    let services: Map<String, Value> = reports
        .iter()
        .map(|(service, report)| (service.name.clone(), report.to_json()))
        .collect();
    outcome.outputs = services.into_iter().collect();
    outcome
}
