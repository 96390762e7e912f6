//! Blue and green: the idle colour is made beside the live one, has to be well and to answer the checks, and only then gets the traffic. The old
//! colour is kept, stopped, for the way back. Each step looks at what is there, so that a run that was cut off goes on where it was.

use std::time::Duration;

use windlass_guest::Error;
use windlass_guest::containers::Container;

use crate::check;
use crate::config::Standby;
use crate::names::{self, Colour};
use crate::router::{self, Answer, At, Live, Router};
use crate::scene::{Scene, Verdict};
use crate::service::Service;
use crate::step::{Report, Step};

/// How often what changes by itself is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A check that fails may find the candidate still warming up.
const TRIES: usize = 3;

/// The router, and how it is asked about one service.
pub(crate) struct Way {
    pub(crate) router: Box<dyn Router>,
    pub(crate) at: At,
}

/// What is to be switched to, and from.
struct Switch<'a> {
    service: &'a Service,
    way: &'a Way,
    /// `None`: there was no traffic before.
    old: Option<Live>,
    new: Live,
}

impl Step<'_> {
    /// What is seen of a service. A router that does not run is started: it takes up what it wrote down last. `None`: there is no router.
    pub(crate) fn look(&mut self, service: &str) -> Result<Option<(Way, Scene)>, Error> {
        let config = self.config.router()?;
        let routers = self.containers(&config.service)?;
        let mut routers = routers.iter().filter(|router| names::put_aside(router).is_none());
        let running = routers.clone().find(|router| router.is_running());
        let Some(router) = running.or_else(|| routers.next()) else {
            return Ok(None);
        };
        if running.is_none() {
            self.host
                .warn(&format!("the router `{}` does not run: starting it", router.name));
            self.host.start(&router.id)?;
            self.wait_healthy(&config.service, &router.id)?;
        }
        let at = At {
            container: router.id.clone(),
            service: service.to_owned(),
            port: config.port,
        };
        let answer = router::answer(self.host, &at)?;
        let mut containers = self.containers(service)?;
        containers
            .retain(|container| names::colour(container).is_some() && names::put_aside(container).is_none());
        let scene = Scene {
            answer,
            was_down: running.is_none(),
            containers,
        };
        let way = Way {
            router: router::of(config.kind),
            at,
        };
        Ok(Some((way, scene)))
    }

    pub(crate) fn colours(&mut self, service: &Service, digest: &str) -> Result<Report, Error> {
        let Some((way, scene)) = self.look(&service.name)? else {
            return Err(lost(&service.name, "it has no container"));
        };
        let (old, target) = match scene.verdict(&self.run) {
            Verdict::Lost(why) => return Err(lost(&service.name, &why)),
            Verdict::Switched { live } => {
                let old = scene
                    .before(live.colour)
                    .map(|colour| past(colour, &live, &scene));
                self.record_as_answered(&way, &scene)?;
                let switch = Switch {
                    service,
                    way: &way,
                    old,
                    new: live,
                };
                return self.after_switch(&switch);
            }
            Verdict::Next { live, .. } if self.fits(service, &scene, live.colour)? => {
                self.record_as_answered(&way, &scene)?;
                return self.unchanged(service, &scene, &live, digest);
            }
            Verdict::Next { live, target } => (Some(live), target),
            Verdict::First { target } => (None, target),
        };
        self.record_as_answered(&way, &scene)?;
        let generation = old.as_ref().map_or(0, |live| live.generation) + 1;
        let new = Live {
            colour: target,
            generation,
            digest: digest.to_owned(),
        };
        let switch = Switch {
            service,
            way: &way,
            old,
            new,
        };
        self.hand_over(&switch, &scene)
            .inspect_err(|_| self.remove_candidate(&switch))?;
        self.pin(&switch, &scene)?;
        self.switch(&switch)?;
        self.after_switch(&switch)
    }

    /// A crash between the file and the switch leaves them different, and the next restart would then switch by itself.
    pub(crate) fn record_as_answered(&mut self, way: &Way, scene: &Scene) -> Result<(), Error> {
        let answered = match &scene.answer {
            Answer::Live(live) => Some(live),
            _ => None,
        };
        if way.router.recorded(self.host, &way.at)?.as_ref() == answered {
            return Ok(());
        }
        self.host.warn("the router's file says something else than the router: it is written again from the router's answer");
        way.router.record(self.host, &way.at, answered)
    }

    /// Whether a colour is what is wanted already: as many containers, each made from the same, each running.
    pub(crate) fn fits(&mut self, service: &Service, scene: &Scene, colour: Colour) -> Result<bool, Error> {
        let there = scene.of(colour);
        if there.len() != service.replicas as usize {
            return Ok(false);
        }
        for number in 1..=service.replicas {
            let fingerprint = self.host.fingerprint(&service.colour_spec(colour, number))?;
            let fits = there.iter().any(|container| {
                container.number == number
                    && container.is_running()
                    && names::has_fingerprint(container, &fingerprint)
            });
            if !fits {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The live colour is the wanted one. What runs beside it was left by a run that was interrupted.
    fn unchanged(
        &mut self,
        service: &Service,
        scene: &Scene,
        live: &Live,
        digest: &str,
    ) -> Result<Report, Error> {
        let before = scene.before(live.colour);
        for container in scene.of(live.colour.other()) {
            match before {
                Some(_) => self.stand_by(service, container)?,
                None => self.host.remove(&container.id)?,
            }
        }
        let names = scene
            .of(live.colour)
            .into_iter()
            .map(|container| container.name.clone());
        Ok(Report {
            image: service.image.clone(),
            digest: digest.to_owned(),
            colour: Some(live.colour),
            previous: before,
            generation: Some(live.generation),
            containers: names.collect(),
            recreated: Vec::new(),
        })
    }

    /// Makes the idle colour, and asks it everything that can be asked before it has traffic.
    fn hand_over(&mut self, switch: &Switch<'_>, scene: &Scene) -> Result<(), Error> {
        let (service, colour) = (switch.service, switch.new.colour);
        let images = earlier_images(service, scene, switch.old.as_ref(), self.config.keep);
        let labels = [
            (names::COLOUR, colour.name().to_owned()),
            (names::GENERATION, switch.new.generation.to_string()),
            (names::IMAGES, images.join(" ")),
        ];
        let mut wanted = Vec::new();
        for number in 1..=service.replicas {
            let spec = service.colour_spec(colour, number);
            let fingerprint = self.host.fingerprint(&spec)?;
            wanted.push((number, spec, fingerprint));
        }
        let mut kept = Vec::new();
        for container in scene.of(colour) {
            let fits = wanted.iter().any(|(number, _, fingerprint)| {
                container.number == *number && names::has_fingerprint(container, fingerprint)
            });
            if fits && names::made_by(container, &self.run) {
                kept.push(container);
                continue;
            }
            if self.config.standby == Standby::Running {
                self.host.stop(&container.id, service.grace)?;
            }
            self.host.remove(&container.id)?;
        }
        self.host.info(&format!(
            "{}: starting {} at {}",
            service.name,
            colour.name(),
            service.image
        ));
        for (number, spec, fingerprint) in wanted {
            match kept.iter().find(|container| container.number == number) {
                Some(container) => self.host.start(&container.id)?,
                None => drop(self.create(service, spec, &fingerprint, &labels)?),
            }
        }
        self.wait_ready(switch)?;
        for (name, check) in self.config.checks_of(&service.name) {
            self.check_with_tries(switch, name, check)?;
        }
        Ok(())
    }

    /// Well by the containers' own health, and taken for well by the router.
    fn wait_ready(&mut self, switch: &Switch<'_>) -> Result<(), Error> {
        let (service, colour, way) = (switch.service, switch.new.colour, switch.way);
        let mut well = Vec::new();
        for number in 1..=service.replicas {
            let name = names::coloured(&service.project, &service.name, colour, number);
            well.push(self.wait_healthy(&service.name, &name)?);
        }
        let started = self.host.clock();
        loop {
            let ready = way.router.ready(self.host, &way.at, colour, &well)?;
            if ready >= well.len() {
                return Ok(());
            }
            if self.host.clock().saturating_sub(started) >= self.config.timeout {
                let message = format!(
                    "the containers of {} are healthy, and the router takes {ready} of {} for well",
                    names::alias(&service.name, colour),
                    well.len()
                );
                return Err(Error::new("deploy.not-ready", message).help(
                    "is the router on a network of the service, and is its health check the right one?",
                ));
            }
            self.pause(LOOK_EVERY)?;
        }
    }

    fn check_with_tries(
        &mut self,
        switch: &Switch<'_>,
        name: &str,
        check: &crate::config::Check,
    ) -> Result<(), Error> {
        let mut tries = 1;
        loop {
            match check::ask(self.host, &switch.way.at, switch.new.colour, name, check) {
                Ok(()) => {
                    self.host.info(&format!(
                        "✓ {name}: {} answers GET {}",
                        switch.new.colour.name(),
                        check.http
                    ));
                    return Ok(());
                }
                Err(error) if error.code == "deploy.check" && tries < TRIES => tries += 1,
                Err(error) if error.code == "deploy.check" => return Err(self.with_log(switch, error)),
                Err(error) => return Err(error),
            }
            self.pause(LOOK_EVERY)?;
        }
    }

    /// A failure, with the last that the first container of the new colour wrote.
    fn with_log(&mut self, switch: &Switch<'_>, mut error: Error) -> Error {
        let service = switch.service;
        let name = names::coloured(&service.project, &service.name, switch.new.colour, 1);
        let log = self.host.logs(&name, 20).unwrap_or_default();
        if !log.trim().is_empty() {
            error.message += &format!("\nthe last of the output of {name}:\n{}", log.trim_end());
        }
        error.retryable = false;
        error
    }

    /// The candidate has had no traffic: it goes, and the failure is the answer. What cannot be removed now, the undo removes.
    fn remove_candidate(&mut self, switch: &Switch<'_>) {
        let Ok(containers) = self.containers(&switch.service.name) else {
            return;
        };
        for container in containers {
            let is_own = names::made_by(&container, &self.run);
            if is_own
                && names::colour(&container) == Some(switch.new.colour)
                && self.host.remove(&container.id).is_err()
            {
                return;
            }
        }
    }

    /// The way back has to be there before it is needed. A container pins its image.
    fn pin(&mut self, switch: &Switch<'_>, scene: &Scene) -> Result<(), Error> {
        let Some(old) = &switch.old else {
            return Ok(());
        };
        let mut is_there = false;
        for container in scene.of(old.colour) {
            is_there |= self.host.inspect(&container.id)?.is_running();
        }
        if !is_there {
            let words = "the live colour does not run: what is deployed now replaces a service that is down, and there is no way back";
            self.host.warn(words);
        }
        Ok(())
    }

    fn switch(&mut self, switch: &Switch<'_>) -> Result<(), Error> {
        let way = switch.way;
        match router::switch(way.router.as_ref(), self.host, &way.at, Some(&switch.new)) {
            Ok(()) => {
                self.host.info(&format!(
                    "{}: the router sends the traffic to {}",
                    switch.service.name, switch.new
                ));
                Ok(())
            }
            Err(error) if error.code.starts_with("router.") => {
                self.go_back(switch)?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The new colour has the traffic: is it still well when it works? Then the old one may end.
    fn after_switch(&mut self, switch: &Switch<'_>) -> Result<Report, Error> {
        if let Err(error) = self.watch(switch) {
            if ["deploy.check", "deploy.unhealthy", "deploy.traffic"].contains(&error.code.as_str()) {
                self.host.warn(&format!(
                    "{}: going back, since {}",
                    switch.service.name, error.message
                ));
                let error = self.with_log(switch, error);
                self.go_back(switch)?;
                return Err(error);
            }
            return Err(error);
        }
        if let Some(old) = &switch.old {
            self.drain(switch.way, &switch.service.name, old.colour)?;
            for container in self.of_colour(&switch.service.name, old.colour)? {
                self.stand_by(switch.service, &container)?;
            }
        }
        self.finish(switch)
    }

    /// A container of the colour before, which has no traffic any more.
    fn stand_by(&mut self, service: &Service, container: &Container) -> Result<(), Error> {
        match self.config.standby {
            Standby::Stopped => self.host.stop(&container.id, service.grace),
            Standby::Running => Ok(()),
        }
    }

    fn watch(&mut self, switch: &Switch<'_>) -> Result<(), Error> {
        let started = self.host.clock();
        let service = switch.service;
        loop {
            let elapsed = self.host.clock().saturating_sub(started);
            if elapsed >= self.config.watch {
                break;
            }
            self.host.progress(
                elapsed.as_secs() as usize,
                self.config.watch.as_secs() as usize,
                "seconds watched",
            );
            for container in self.of_colour(&service.name, switch.new.colour)? {
                if !container.is_running() || container.health == "unhealthy" {
                    let words = format!(
                        "{} is {} ({}) since it has traffic",
                        container.name, container.state, container.health
                    );
                    return Err(Error::new("deploy.unhealthy", words));
                }
            }
            for (name, check) in self.config.checks_of(&service.name) {
                check::ask(self.host, &switch.way.at, switch.new.colour, name, check)?;
            }
            let answer = router::answer(self.host, &switch.way.at)?;
            if answer != Answer::Live(switch.new.clone()) {
                let words = format!(
                    "the router's traffic was taken from {} by somebody else: {answer:?}",
                    switch.new
                );
                return Err(Error::new("deploy.router-changed", words));
            }
            self.pause(LOOK_EVERY.min(self.config.watch))?;
        }
        Ok(())
    }

    pub(crate) fn of_colour(&mut self, service: &str, colour: Colour) -> Result<Vec<Container>, Error> {
        let mut all = self.containers(service)?;
        all.retain(|container| {
            names::colour(container) == Some(colour) && names::put_aside(container).is_none()
        });
        Ok(all)
    }

    /// The traffic back to where it was, and the new colour away.
    fn go_back(&mut self, switch: &Switch<'_>) -> Result<(), Error> {
        let service = &switch.service.name;
        self.traffic_back(switch.way, service, &switch.new, switch.old.as_ref())?;
        self.drain(switch.way, service, switch.new.colour)?;
        self.remove_candidate(switch);
        Ok(())
    }

    /// Sends the traffic from a colour back to the one before, which is started if it was stopped.
    pub(crate) fn traffic_back(
        &mut self,
        way: &Way,
        service: &str,
        new: &Live,
        old: Option<&Live>,
    ) -> Result<(), Error> {
        let no_way = |why: &str| {
            let message = format!("there is no way back for `{service}`: {why}");
            Error::new("deploy.no-way-back", message).help("deploy the version that is wanted")
        };
        let back = match old {
            None if new.generation > 1 => return Err(no_way("the containers of the colour before are gone")),
            None => None,
            Some(old) => {
                let mut all = self.containers(service)?;
                all.retain(|container| {
                    names::colour(container) == Some(old.colour) && names::put_aside(container).is_none()
                });
                if all.is_empty() {
                    return Err(no_way(&format!(
                        "the containers of {} are gone",
                        old.colour.name()
                    )));
                }
                for container in all.iter().filter(|container| !container.is_running()) {
                    self.host.start(&container.id)?;
                }
                for container in &all {
                    self.wait_healthy(service, &container.id)?;
                }
                self.wait_for_router(way, old.colour, &all)?;
                Some(Live {
                    generation: new.generation + 1,
                    ..old.clone()
                })
            }
        };
        router::switch(way.router.as_ref(), self.host, &way.at, back.as_ref())?;
        let words = back.map_or_else(|| "nothing, as before".to_owned(), |back| back.to_string());
        self.host.info(&format!(
            "{service}: the router sends the traffic to {words} again"
        ));
        Ok(())
    }

    /// As long as it takes the router to see what was just started; what it takes for well at once needs no wait.
    fn wait_for_router(&mut self, way: &Way, colour: Colour, containers: &[Container]) -> Result<(), Error> {
        let started = self.host.clock();
        let mut wanted = containers.to_vec();
        for container in &mut wanted {
            *container = self.host.inspect(&container.id)?;
        }
        while way.router.ready(self.host, &way.at, colour, &wanted)? == 0 {
            if self.host.clock().saturating_sub(started) >= self.config.timeout {
                let message = format!("the router takes no container of {} for well", colour.name());
                return Err(Error::new("deploy.not-ready", message));
            }
            self.pause(Duration::from_millis(200))?;
        }
        Ok(())
    }

    /// Until nothing is in flight at a colour that has lost its traffic, or its time is over.
    pub(crate) fn drain(&mut self, way: &Way, service: &str, colour: Colour) -> Result<(), Error> {
        let started = self.host.clock();
        // What has stopped answers nothing any more.
        while self.of_colour(service, colour)?.iter().any(Container::is_running) {
            let left = way.router.in_flight(self.host, &way.at, colour)?;
            if left == 0 {
                break;
            }
            if self.host.clock().saturating_sub(started) >= self.config.drain {
                self.host.warn(&format!(
                    "{left} requests are still in flight at {} when its time is over",
                    colour.name()
                ));
                break;
            }
            self.pause(LOOK_EVERY)?;
        }
        Ok(())
    }

    /// What came before colours, and images that nobody goes back to.
    fn finish(&mut self, switch: &Switch<'_>) -> Result<Report, Error> {
        let service = switch.service;
        let containers = self.of_colour(&service.name, switch.new.colour)?;
        let previous = switch.old.as_ref().map(|old| old.colour);
        for container in self.containers(&service.name)? {
            let is_of_no_use = match names::colour(&container) {
                None => names::put_aside(&container).is_none(),
                Some(colour) => Some(colour) != previous && colour != switch.new.colour,
            };
            if is_of_no_use && names::colour(&container).is_some() {
                self.host.remove(&container.id)?;
            } else if is_of_no_use {
                self.put_aside(&container)?;
            }
        }
        self.stop_aside(service, None)?;
        self.retire(service)?;
        self.prune(service, &containers);
        let own = containers
            .iter()
            .filter(|container| names::made_by(container, &self.run));
        Ok(Report {
            image: service.image.clone(),
            digest: switch.new.digest.clone(),
            colour: Some(switch.new.colour),
            previous,
            generation: Some(switch.new.generation),
            containers: containers
                .iter()
                .map(|container| container.name.clone())
                .collect(),
            recreated: own.map(|container| container.name.clone()).collect(),
        })
    }

    /// Removes images past those that are to be kept. An image that a container uses stays, and so does one whose removal is not granted.
    fn prune(&mut self, service: &Service, containers: &[Container]) {
        let images = containers
            .first()
            .and_then(|container| container.labels.get(names::IMAGES));
        let old = images.map(|images| images.split(' ').skip(self.config.keep.max(1)));
        for image in old.into_iter().flatten().filter(|image| *image != service.image) {
            match self.host.remove_image(image) {
                Ok(true) => self.host.info(&format!("removed the image {image}")),
                Ok(false) => {}
                Err(error) => self
                    .host
                    .info(&format!("the image {image} stays: {}", error.message)),
            }
        }
    }
}

/// The images that came before, the last first, with one more than are kept: that one goes now.
fn earlier_images(service: &Service, scene: &Scene, old: Option<&Live>, keep: usize) -> Vec<String> {
    let live = old.and_then(|old| scene.of(old.colour).first().copied());
    let mut images: Vec<String> = live.map(|live| live.image.clone()).into_iter().collect();
    let before = live.and_then(|live| live.labels.get(names::IMAGES));
    images.extend(
        before
            .iter()
            .flat_map(|before| before.split(' '))
            .map(String::from),
    );
    let mut seen = vec![service.image.clone()];
    images.retain(|image| {
        let is_new = !image.is_empty() && !seen.contains(image);
        seen.push(image.clone());
        is_new
    });
    images.truncate(keep.max(1) + 1);
    images
}

/// The colour before, as the router had it, as far as its containers tell.
pub(crate) fn past(colour: Colour, live: &Live, scene: &Scene) -> Live {
    let digest = scene
        .of(colour)
        .first()
        .map(|container| container.image_id.clone());
    Live {
        colour,
        generation: live.generation.saturating_sub(1),
        digest: digest
            .filter(|digest| !digest.is_empty())
            .unwrap_or_else(|| "unknown".to_owned()),
    }
}

pub(crate) fn lost(service: &str, why: &str) -> Error {
    let message = format!(
        "the router cannot say which colour of `{service}` has the traffic ({why}): nothing was touched"
    );
    Error::new("deploy.router-lost", message)
        .help("see what the router's container does (docker logs), mend it or write its file by hand, and run again")
}
