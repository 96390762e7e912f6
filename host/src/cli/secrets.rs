//! Where a run's secrets come from: the environment, the disk and the network, handed in.

use super::project::Project;
use crate::{
    failure::Failure,
    plan::Plan,
    secret::{self, Sources},
    service::{
        aws_sm::SecretsManager,
        egress::{Connector, SystemResolver},
    },
};
use std::{path::PathBuf, sync::Arc};

/// # Errors
/// `origins:` of the pipeline is not valid.
pub(super) fn sources(project: &Project, plan: &Plan) -> Result<Sources, Failure> {
    let variable = |name: &str| std::env::var(name).ok();
    let connector = Connector::new(&plan.pipeline.origins, &project.root, Arc::new(SystemResolver))?;
    let manager = SecretsManager::new(Box::new(variable), Arc::new(connector));
    Ok(Sources {
        root: project.root.clone(),
        variable: Box::new(variable),
        docker_secrets: PathBuf::from("/run/secrets"),
        read: Box::new(secret::read_bounded),
        aws_sm: Some(Box::new(move |name| manager.fetch(name))),
    })
}
