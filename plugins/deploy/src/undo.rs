//! Puts back what a run replaced. What that is stands in the containers' names and labels and in the router's answer, not in any list: it can be
//! done after a crash anywhere, and again.

use std::collections::BTreeMap;
use std::time::Duration;

use windlass_guest::containers::Container;
use windlass_guest::{Error, Outcome};

use crate::colours::{lost, past};
use crate::config::{Config, Strategy};
use crate::host::Host;
use crate::names;
use crate::rolling::in_place;
use crate::scene::Verdict;
use crate::step::Step;

/// What is undone may be working; the engine's usual time to end.
const GRACE: Duration = Duration::from_secs(10);

/// Undoes this run, whether it has succeeded, failed or was cut off.
///
/// # Errors
/// `deploy.router-lost`, `deploy.no-way-back`, `deploy.unhealthy`, those of the host: of all services that could not be put back.
pub fn compensate(config: &Config, host: &mut dyn Host) -> Result<Outcome, Error> {
    config.check()?;
    let run = host.run_id();
    let mut step = Step { config, run, host };
    let mut done = Vec::new();
    let mut failures: Vec<Error> = Vec::new();
    for (service, is_coloured) in step.order()? {
        let undone = match is_coloured {
            true => step.undo_colours(&service),
            false => step.undo_rolling(&service),
        };
        match undone {
            Ok(words) => done.extend(words),
            Err(error) => failures.push(error.context(format!("`{service}` could not be put back"))),
        }
    }
    let mut failures = failures.into_iter();
    if let Some(mut first) = failures.next() {
        for other in failures {
            first.message += &format!("; {}", other.message);
        }
        return Err(first);
    }
    Ok(match done.is_empty() {
        true => Outcome::unchanged("this run left nothing to undo"),
        false => Outcome::changed(done.join("; ")),
    })
}

impl Step<'_> {
    /// The services, with whether colours or others are meant. A router that was replaced comes first, for without it no colour can be asked, and one
    /// that was made anew comes last, for the same reason. Between them the colours, for they have the traffic; then the others as they depend on
    /// each other.
    fn order(&mut self) -> Result<Vec<(String, bool)>, Error> {
        let mut all = self.host.list(&self.config.project, "*")?;
        all.retain(|container| !container.one_off);
        let mut positions: BTreeMap<String, usize> = BTreeMap::new();
        for container in &all {
            let position = positions.entry(container.service.clone()).or_default();
            *position = (*position).max(names::position(container));
        }
        let router = self
            .config
            .router
            .as_ref()
            .map(|router| router.service.as_str())
            .unwrap_or_default();
        let is_aside =
            |container: &Container| names::put_aside(container).is_some_and(|(_, run)| run == self.run);
        let is_replaced = all
            .iter()
            .any(|container| container.service == router && is_aside(container));
        let mut services: Vec<((u8, usize), String, bool)> = positions
            .into_iter()
            .map(|(name, position)| {
                let group = match (name == router, is_replaced) {
                    (true, true) => 0,
                    (true, false) => 3,
                    (false, _) => 2,
                };
                ((group, position), name, false)
            })
            .collect();
        let coloured = self
            .config
            .strategy
            .iter()
            .filter(|(_, strategy)| **strategy == Strategy::BlueGreen);
        services.extend(coloured.map(|(name, _)| ((1, 0), name.clone(), true)));
        services.sort();
        Ok(services
            .into_iter()
            .map(|(_, name, is_coloured)| (name, is_coloured))
            .collect())
    }

    fn undo_colours(&mut self, service: &str) -> Result<Vec<String>, Error> {
        let own = |container: &Container, run: &str| {
            names::made_by(container, run)
                && names::colour(container).is_some()
                && names::put_aside(container).is_none()
        };
        let Some((way, scene)) = self.look(service)? else {
            let run = self.run.clone();
            let any = self
                .containers(service)?
                .iter()
                .any(|container| own(container, &run));
            return if any {
                Err(lost(service, "it has no container"))
            } else {
                Ok(Vec::new())
            };
        };
        if let Verdict::Lost(why) = scene.verdict(&self.run) {
            return Err(lost(service, &why));
        }
        self.record_as_answered(&way, &scene)?;
        let mut words = Vec::new();
        match scene.verdict(&self.run) {
            Verdict::Lost(_) | Verdict::First { .. } | Verdict::Next { .. } => {}
            Verdict::Switched { live } => {
                let old = scene
                    .before(live.colour)
                    .map(|colour| past(colour, &live, &scene));
                self.traffic_back(&way, service, &live, old.as_ref())?;
                self.drain(&way, service, live.colour)?;
                let to = old.map_or_else(
                    || "nowhere, as before".to_owned(),
                    |old| old.colour.name().to_owned(),
                );
                words.push(format!("{service}: the traffic went back to {to}"));
            }
        }
        for container in scene
            .containers
            .iter()
            .filter(|container| own(container, &self.run))
        {
            self.host.stop(&container.id, GRACE)?;
            self.host.remove(&container.id)?;
            words.push(format!("{} was removed", container.name));
        }
        Ok(words)
    }

    fn undo_rolling(&mut self, service: &str) -> Result<Vec<String>, Error> {
        let all = self.containers(service)?;
        let mut made: Vec<&Container> = all
            .iter()
            .filter(|container| in_place(container) && names::made_by(container, &self.run))
            .collect();
        let mut words = Vec::new();
        for before in &all {
            let Some((name, _)) = names::put_aside(before).filter(|(_, run)| *run == self.run) else {
                continue;
            };
            let rival = made.iter().position(|made| made.number == before.number);
            let rival = rival.map(|at| made.swap_remove(at));
            self.put_back(service, before, name, rival)?;
            words.push(format!("{name} is the one before again"));
        }
        for container in made {
            self.host.stop(&container.id, GRACE)?;
            self.host.remove(&container.id)?;
            words.push(format!("{} was removed", container.name));
        }
        Ok(words)
    }

    /// The old one runs before the new one goes, unless both would publish the same port.
    fn put_back(
        &mut self,
        service: &str,
        before: &Container,
        name: &str,
        rival: Option<&Container>,
    ) -> Result<(), Error> {
        let publishes = rival.is_some_and(publishes) || publishes(before);
        if let Some(rival) = rival.filter(|_| publishes) {
            self.host.stop(&rival.id, GRACE)?;
            self.host.remove(&rival.id)?;
        }
        if !names::is_task(before) {
            self.host.start(&before.id)?;
            self.wait_healthy(service, &before.id)?;
        }
        if let Some(rival) = rival.filter(|_| !publishes) {
            self.host.stop(&rival.id, GRACE)?;
            self.host.remove(&rival.id)?;
        }
        self.host.rename(&before.id, name)
    }
}

/// A stopped container shows no ports; it is taken for one that publishes where its successor does.
fn publishes(container: &Container) -> bool {
    let ports = container.ports.as_array().into_iter().flatten();
    ports.into_iter().any(|port| !port["published"].is_null())
}
