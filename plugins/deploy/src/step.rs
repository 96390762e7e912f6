//! What rolling and blue-green have in common: making a container, waiting for it, and saying what it said when it did not come up.

use std::time::Duration;

use serde_json::{Map, Value, json};
use windlass_guest::Error;
use windlass_guest::containers::Container;

use crate::config::Config;
use crate::host::Host;
use crate::names::{self, Colour};
use crate::service::{Pull, Service};

/// Lines of a container's output that are shown when it fails.
const LAST_LINES: usize = 20;

/// One deployment.
pub(crate) struct Step<'a> {
    pub(crate) config: &'a Config,
    pub(crate) run: String,
    pub(crate) host: &'a mut dyn Host,
}

/// What became of a service.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) image: String,
    pub(crate) digest: String,
    pub(crate) colour: Option<Colour>,
    pub(crate) previous: Option<Colour>,
    pub(crate) generation: Option<u64>,
    /// Those that run.
    pub(crate) containers: Vec<String>,
    /// Those of them that this run made.
    pub(crate) recreated: Vec<String>,
}

impl Report {
    pub(crate) fn to_json(&self) -> Value {
        let mut shown = json!({
            "image": self.image, "digest": self.digest, "containers": self.containers, "recreated": self.recreated,
        });
        if let Some(colour) = self.colour {
            shown["colour"] = colour.name().into();
            shown["previous-colour"] = self.previous.map(Colour::name).into();
            shown["generation"] = self.generation.into();
        }
        shown
    }
}

impl Step<'_> {
    /// The service's containers; tasks that ran once on the side are none of them.
    pub(crate) fn containers(&mut self, service: &str) -> Result<Vec<Container>, Error> {
        let mut all = self.host.list(&self.config.project, service)?;
        all.retain(|container| !container.one_off);
        Ok(all)
    }

    /// Fetches the image where that is wanted, and says which it is.
    pub(crate) fn image(&mut self, service: &Service) -> Result<String, Error> {
        let known = match service.pull {
            Pull::Always => None,
            _ => self.host.image(&service.image)?,
        };
        let image = match (known, service.pull) {
            (Some(image), _) => image,
            (None, Pull::Never) => {
                let message = format!(
                    "the engine has no image `{}`, which `{}` needs",
                    service.image, service.name
                );
                return Err(Error::new("image.missing", message)
                    .help("build it in an earlier stage, or give the service `pull_policy: missing`"));
            }
            (None, pull) => {
                self.host.info(&format!("pulling {}", service.image));
                self.host.pull(&service.image, pull == Pull::Missing)?
            }
        };
        let digest = image.digests.iter().find_map(|digest| digest.split_once('@'));
        let pinned = service.image.split_once('@').map(|(_, digest)| digest.to_owned());
        Ok(pinned
            .or_else(|| digest.map(|(_, digest)| digest.to_owned()))
            .unwrap_or(image.id))
    }

    /// Makes and starts a container with the labels by which the next run knows it.
    pub(crate) fn create(
        &mut self,
        service: &Service,
        mut spec: Value,
        fingerprint: &str,
        labels: &[(&str, String)],
    ) -> Result<String, Error> {
        let mut all: Map<String, Value> = spec["labels"].as_object().cloned().unwrap_or_default();
        all.insert(names::FINGERPRINT.into(), fingerprint.into());
        all.insert(names::POSITION.into(), service.position.to_string().into());
        if service.is_task {
            all.insert(names::TASK.into(), "true".into());
        }
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone().into()));
        all.extend(labels);
        spec["labels"] = Value::Object(all);
        let made = self.host.create(&spec)?;
        self.host.start(&made.id)?;
        Ok(made.id)
    }

    /// Until a container is well.
    ///
    /// # Errors
    /// `deploy.unhealthy`, with its last words.
    pub(crate) fn wait_healthy(&mut self, service: &str, container: &str) -> Result<Container, Error> {
        match self.host.wait_for_health(container, self.config.timeout) {
            Ok(container) => Ok(container),
            Err(error) if ["container.unhealthy", "container.timeout"].contains(&error.code.as_str()) => {
                let log = self.host.logs(container, LAST_LINES as u32).unwrap_or_default();
                Err(unhealthy(service, &error, &log))
            }
            Err(error) => Err(error),
        }
    }

    /// Until a task has ended, and well.
    pub(crate) fn wait_ended(&mut self, service: &str, container: &str) -> Result<Container, Error> {
        let ended = self.host.wait_for_exit(container, self.config.timeout)?;
        if ended.exit_code == 0 {
            return Ok(ended);
        }
        let log = self.host.logs(container, LAST_LINES as u32).unwrap_or_default();
        let message = format!("`{service}` ended with {}\n{}", ended.exit_code, last_lines(&log));
        Err(Error::new("deploy.task", message))
    }

    /// Waits a moment.
    ///
    /// # Errors
    /// `cancelled`.
    pub(crate) fn pause(&mut self, duration: Duration) -> Result<(), Error> {
        match self.host.sleep(duration) {
            true => Ok(()),
            false => Err(Error::new("cancelled", "the run is being stopped")),
        }
    }
}

/// A container that did not come up, with what it wrote and what its health check got.
pub(crate) fn unhealthy(service: &str, error: &Error, log: &str) -> Error {
    let details = error.details.clone().unwrap_or_default();
    let mut message = format!("`{service}` did not become healthy: {}", error.message);
    for reply in details["health-log"].as_array().into_iter().flatten().take(1) {
        let output = reply["output"].as_str().unwrap_or_default();
        message += &format!(
            "\nits health check ended with {}: {}",
            reply["exit"],
            output.trim()
        );
    }
    let log = match log.trim() {
        "" => details["log"].as_str().unwrap_or_default(),
        log => log,
    };
    if !log.trim().is_empty() {
        message += &format!("\nthe last of its output:\n{}", last_lines(log));
    }
    Error::new("deploy.unhealthy", message).with_details(details)
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
