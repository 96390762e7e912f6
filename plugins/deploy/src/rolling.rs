//! One container after the other: the new one is well before the next is touched. What was replaced is stopped and kept under another name, with
//! which `undo` puts it back, until a later deployment has replaced the service again.

use windlass_guest::Error;
use windlass_guest::containers::Container;

use crate::leftover::{self, Leftover};
use crate::names;
use crate::service::Service;
use crate::step::{Report, Step};

/// What has to be done for one container to be there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Nothing,
    /// It was made by this very run, which was cut off.
    Start,
    Create,
}

/// Of a container that should be there, and the one that is.
pub(crate) fn work(current: Option<&Container>, fingerprint: &str, run: &str, is_task: bool) -> Work {
    let Some(current) = current.filter(|current| names::has_fingerprint(current, fingerprint)) else {
        return Work::Create;
    };
    let has_ended_well = current.state == "exited" && current.exit_code == 0;
    if current.is_running() || (is_task && has_ended_well) {
        return Work::Nothing;
    }
    match names::made_by(current, run) {
        true => Work::Start,
        false => Work::Create,
    }
}

/// Those that are in place: neither put aside nor of a colour.
pub(crate) fn in_place(container: &Container) -> bool {
    names::put_aside(container).is_none() && names::colour(container).is_none()
}

/// The container of a number. One that another tool has made is called otherwise, and has the number.
pub(crate) fn seat<'a>(all: &'a [Container], name: &str, number: u32) -> Option<&'a Container> {
    let mut free = all.iter().filter(|container| in_place(container));
    let named = free.clone().find(|container| container.name == name);
    named.or_else(|| free.find(|container| container.number == number))
}

impl Step<'_> {
    pub(crate) fn roll(&mut self, service: &Service, digest: &str) -> Result<Report, Error> {
        let mut report = Report {
            image: service.image.clone(),
            digest: digest.to_owned(),
            ..Report::default()
        };
        for number in 1..=service.replicas {
            self.roll_one(service, number, &mut report)?;
        }
        self.put_surplus_aside(service, &report)?;
        self.retire(service)?;
        Ok(report)
    }

    fn roll_one(&mut self, service: &Service, number: u32, report: &mut Report) -> Result<(), Error> {
        let spec = service.spec(number);
        let name = spec["name"].as_str().unwrap_or_default().to_owned();
        let fingerprint = self.host.fingerprint(&spec)?;
        self.settle_interrupted(service, number)?;
        let all = self.containers(&service.name)?;
        let current = seat(&all, &name, number);
        let work = work(current, &fingerprint, &self.run, service.is_task);
        if work == Work::Create {
            if let Some(current) = current {
                self.put_aside(current)?;
            }
            if service.publishes {
                self.stop_aside(service, Some(number))?;
            }
            self.host.info(&format!("{name}: starting {}", service.image));
            self.create(service, spec, &fingerprint, &[])?;
        } else if let (Work::Start, Some(current)) = (&work, current) {
            self.host.start(&current.id)?;
        }
        let is_own = current.is_some_and(|current| names::made_by(current, &self.run));
        if work != Work::Nothing || is_own {
            match service.is_task {
                true => self.wait_ended(&service.name, &name)?,
                false => self.wait_healthy(&service.name, &name)?,
            };
            report.recreated.push(name.clone());
        }
        let shown = current
            .filter(|_| work == Work::Nothing)
            .map_or(name, |current| current.name.clone());
        report.containers.push(shown);
        self.stop_aside(service, Some(number))
    }

    /// Under its other name it is known as what has to be put back: so that comes first, before it is stopped.
    pub(crate) fn put_aside(&mut self, current: &Container) -> Result<(), Error> {
        self.host
            .rename(&current.id, &names::aside(&current.name, &self.run))
    }

    /// Stops what this run has put aside, of one number or of all.
    pub(crate) fn stop_aside(&mut self, service: &Service, number: Option<u32>) -> Result<(), Error> {
        for container in self.containers(&service.name)? {
            let is_own = names::put_aside(&container).is_some_and(|(_, run)| run == self.run);
            if is_own && number.is_none_or(|number| container.number == number) {
                self.host.stop(&container.id, service.grace)?;
            }
        }
        Ok(())
    }

    /// What another run has left in the middle.
    fn settle_interrupted(&mut self, service: &Service, number: u32) -> Result<(), Error> {
        let all = self.containers(&service.name)?;
        match leftover::find(&all, number, &self.run, service.is_task) {
            Leftover::None => Ok(()),
            Leftover::NeverRan(container) => self.host.remove(&container.id),
            Leftover::HalfReplaced { broken, before, name } => {
                self.host.warn(&format!("a run that was interrupted has left `{name}` half replaced: the one before is taken up again"));
                if let Some(broken) = broken {
                    self.host.remove(&broken.id)?;
                }
                self.host.rename(&before.id, name)
            }
        }
    }

    /// More than are asked for now, and those of a colour that is no more.
    fn put_surplus_aside(&mut self, service: &Service, report: &Report) -> Result<(), Error> {
        for container in self.containers(&service.name)? {
            if names::put_aside(&container).is_some() || report.containers.contains(&container.name) {
                continue;
            }
            self.host.info(&format!("{}: no longer needed", container.name));
            self.put_aside(&container)?;
        }
        self.stop_aside(service, None)
    }

    /// What this run has put aside can be put back; what was put aside before that is of no more use.
    pub(crate) fn retire(&mut self, service: &Service) -> Result<(), Error> {
        let all = self.containers(&service.name)?;
        let aside = |container: &Container| names::put_aside(container).map(|(_, run)| run.to_owned());
        let has_own = all
            .iter()
            .any(|container| aside(container).as_ref() == Some(&self.run));
        for container in &all {
            let is_old = aside(container).is_some_and(|run| run != self.run);
            if is_old && (has_own || container.is_running()) {
                self.host.remove(&container.id)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_made_again_when_it_is_another_or_does_not_run() {
        let container = |state: &str, exit_code: i64, fingerprint: &str, run: &str| Container {
            state: state.into(),
            exit_code,
            labels: [(names::FINGERPRINT, fingerprint), ("windlass.run", run)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..Container::default()
        };
        let check = |current: Option<Container>, is_task: bool, expected: Work| {
            assert_eq!(
                work(current.as_ref(), "f", "now", is_task),
                expected,
                "{current:?}"
            );
        };
        check(None, false, Work::Create);
        check(Some(container("running", 0, "f", "before")), false, Work::Nothing);
        check(Some(container("running", 0, "g", "before")), false, Work::Create);
        check(Some(container("exited", 0, "f", "before")), false, Work::Create);
        check(Some(container("exited", 0, "f", "before")), true, Work::Nothing);
        check(Some(container("exited", 1, "f", "before")), true, Work::Create);
        check(Some(container("created", 0, "f", "now")), false, Work::Start);
    }
}
