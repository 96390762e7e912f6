//! `<service>.<project>.compose`: the addresses of a service's running containers, as the engine knows them. Every other name is the system's.

use super::{client::Engine, names};
use crate::service::egress::{Resolver, SystemResolver};
use bollard::query_parameters::ListContainersOptionsBuilder;
use futures::future::BoxFuture;
use std::{collections::HashMap, io, net::IpAddr, sync::Arc};

/// The end of names that are looked up here.
const SUFFIX: &str = ".compose";

/// Asks the engine for its own names, and the system for all others.
pub struct EngineResolver(pub Arc<Engine>);

impl Resolver for EngineResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        match parts(host) {
            Some((service, project)) => Box::pin(self.containers(service, project)),
            None => SystemResolver.resolve(host),
        }
    }
}

/// Service and project.
fn parts(host: &str) -> Option<(&str, &str)> {
    let (service, project) = host.strip_suffix(SUFFIX)?.rsplit_once('.')?;
    (names::is_name(service) && names::is_name(project)).then_some((service, project))
}

impl EngineResolver {
    async fn containers(&self, service: &str, project: &str) -> io::Result<Vec<IpAddr>> {
        let labels = vec![
            format!("{}={project}", names::PROJECT),
            format!("{}={service}", names::SERVICE),
            format!("{}=False", names::ONE_OFF),
        ];
        let running = vec!["running".to_string()];
        let filters = HashMap::from([("label".to_string(), labels), ("status".to_string(), running)]);
        let options = ListContainersOptionsBuilder::default().filters(&filters).build();
        let docker = self
            .0
            .docker()
            .await
            .map_err(|failure| io::Error::other(failure.message))?;
        let listed = docker
            .list_containers(Some(options))
            .await
            .map_err(io::Error::other)?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for container in listed {
            let networks = container.network_settings.and_then(|settings| settings.networks);
            let found = networks
                .into_iter()
                .flatten()
                .filter_map(|(_, endpoint)| endpoint.ip_address?.parse::<IpAddr>().ok());
            addresses.extend(found);
        }
        addresses.sort_unstable();
        match addresses.is_empty() {
            true => Err(io::Error::other(format!(
                "the container engine has no running container of the service `{service}` in the project `{project}`"
            ))),
            false => Ok(addresses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_services() {
        assert_eq!(
            parts("backend.team-insight.compose"),
            Some(("backend", "team-insight"))
        );
        for other in [
            "backend.compose",
            "compose",
            "example.com",
            "a.b.compose.example.com",
            ".b.compose",
        ] {
            assert_eq!(parts(other), None, "{other}");
        }
    }
}
