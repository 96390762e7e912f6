//! Labels: to which service of which project a container belongs, and which run, stage and effect made it.

use super::super::context::Context;
use crate::{
    failure::{Failure, Turn},
    pattern::{Pattern, image::Reference},
};
use bollard::models::ContainerInspectResponse;
use std::collections::{BTreeMap, HashMap};

/// A compose tool's own labels: what it started is found by us, and what we start by it.
pub(super) const PROJECT: &str = "com.docker.compose.project";
pub(super) const SERVICE: &str = "com.docker.compose.service";
pub(super) const NUMBER: &str = "com.docker.compose.container-number";
pub(super) const ONE_OFF: &str = "com.docker.compose.oneoff";
/// Ours.
pub(super) const EFFECT: &str = "windlass.effect";
const RUN: &str = "windlass.run";
const STAGE: &str = "windlass.stage";
const PIPELINE: &str = "windlass.pipeline";
/// What a network or a volume is called in its project.
pub(super) const NAME: &str = "windlass.name";

/// Labels that a plugin does not set.
const RESERVED: [&str; 9] = [
    PROJECT, SERVICE, NUMBER, ONE_OFF, EFFECT, RUN, STAGE, PIPELINE, NAME,
];

/// Engines take longer ones for nothing.
const LONGEST_NAME: usize = 255;

/// A service of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) project: String,
    pub(super) service: String,
}

impl Owner {
    pub(super) fn pattern(&self) -> Pattern {
        Pattern::Service {
            project: Some(self.project.clone()),
            service: self.service.clone(),
        }
    }

    /// `<project>/<service>`.
    ///
    /// # Errors
    /// `container.spec`.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let refused = || {
            let message = format!("`{text}` does not name a service: write <project>/<service>");
            Failure::new(Turn::Plugin, "container.spec", message)
        };
        let (project, service) = text.split_once('/').ok_or_else(refused)?;
        if !is_name(project) || !(is_name(service) || service == "*") {
            return Err(refused());
        }
        Ok(Self {
            project: project.into(),
            service: service.into(),
        })
    }
}

/// Whether it can be the name of a project, a service, a network or a volume.
pub(super) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty()
        && text.len() <= LONGEST_NAME
        && text.bytes().all(allowed)
        && text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
}

/// A container's name or id goes into the path of a request: nothing but a name may.
///
/// # Errors
/// `container.spec`.
pub(super) fn check(name: &str) -> Result<(), Failure> {
    if is_name(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    let message = format!("{shown:?} is no name of a container, network or volume");
    Err(Failure::new(Turn::Plugin, "container.spec", message))
}

/// # Errors
/// `container.foreign`.
pub(super) fn owner(container: &ContainerInspectResponse) -> Result<Owner, Failure> {
    let labels = container
        .config
        .as_ref()
        .and_then(|config| config.labels.as_ref());
    labels.and_then(owner_of).ok_or_else(|| {
        let name = container.name.as_deref().unwrap_or_default().trim_start_matches('/');
        let message = format!("the container `{name}` belongs to no service: neither Windlass nor a compose tool made it");
        Failure::new(Turn::Operator, "container.foreign", message)
            .help("Windlass touches only what carries a project's labels: give it another name, or remove it by hand")
    })
}

/// The image of a one-off container.
pub(super) fn task_image(container: &ContainerInspectResponse) -> Option<Reference> {
    let config = container.config.as_ref()?;
    let is_task = config.labels.as_ref()?.get(ONE_OFF).map(String::as_str) == Some("True");
    is_task
        .then(|| Reference::parse(config.image.as_deref()?).ok())
        .flatten()
}

pub(super) fn owner_of(labels: &HashMap<String, String>) -> Option<Owner> {
    Some(Owner {
        project: labels.get(PROJECT)?.clone(),
        service: labels.get(SERVICE)?.clone(),
    })
}

/// Who makes something.
pub(super) fn maker(context: &Context) -> [(String, String); 3] {
    [
        (RUN.into(), context.run.to_string()),
        (STAGE.into(), context.stage.to_string()),
        (PIPELINE.into(), context.pipeline.to_string()),
    ]
}

/// # Errors
/// `container.spec`: a label that says who made what is not the plugin's to set.
pub(super) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Failure> {
    let Some(reserved) = labels.keys().find(|label| RESERVED.contains(&label.as_str())) else {
        return Ok(());
    };
    let message = format!("the label `{reserved}` is set by Windlass itself");
    Err(Failure::new(Turn::Plugin, "container.spec", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["a", "team-insight", "a_b.c", "0123456789abcdef"] {
            assert!(check(name).is_ok(), "{name}");
        }
        for name in ["", "a/b", "../x", "a?b", "-a", "a b", "ä"] {
            assert!(check(name).is_err(), "{name}");
        }
        let owner = Owner::parse("p/s").expect("a service");
        assert_eq!(owner.pattern().to_string(), "p/s");
        assert!(Owner::parse("s").is_err() && Owner::parse("a/b/c").is_err() && Owner::parse("*/s").is_err());
    }
}
