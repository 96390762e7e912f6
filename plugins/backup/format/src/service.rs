//! The containers of services, for sources and targets that live in one.

use std::path::Path;

use windlass_guest::Error;
use windlass_guest::containers::Container;

use crate::host::Host;

/// The running container of `service` or `project/service`, by its id. Without a project, that of the pipeline's name.
///
/// # Errors
/// `container.stopped` when none runs, `container.ambiguous` when several do, and those of the host.
pub fn running(host: &mut dyn Host, service: &str) -> Result<String, Error> {
    only(service, &all_running(host, service)?)
}

/// As [`running`], for what is at `path`: of several containers one, where the path lies on the same volume in all of them.
///
/// # Errors
/// As [`running`].
pub fn running_with(host: &mut dyn Host, service: &str, path: &str) -> Result<String, Error> {
    let running = all_running(host, service)?;
    match running.as_slice() {
        [first, others @ ..] if !others.is_empty() && shares(first, others, path) => Ok(first.id.clone()),
        all => only(service, all),
    }
}

fn all_running(host: &mut dyn Host, service: &str) -> Result<Vec<Container>, Error> {
    let mut containers = host.containers(service)?;
    containers.retain(|found| found.is_running() && !found.one_off);
    Ok(containers)
}

fn only(service: &str, running: &[Container]) -> Result<String, Error> {
    match running {
        [one] => Ok(one.id.clone()),
        [] => Err(Error::new(
            "container.stopped",
            format!("no container of the service {service} is running"),
        )
        .retryable()
        .help("start it first; a database is read and written through its own programs")),
        several => {
            let message = format!(
                "{} containers of the service {service} are running",
                several.len()
            );
            Err(Error::new("container.ambiguous", message)
                .help("which of them holds the data cannot be told; a directory on a named volume may be shared by all"))
        }
    }
}

fn shares(first: &Container, others: &[Container], path: &str) -> bool {
    let volume = volume_at(first, path);
    volume.is_some() && others.iter().all(|other| volume_at(other, path) == volume)
}

/// The volume that `path` is on, and where it is mounted. What else is mounted below it is none of it.
fn volume_at<'a>(container: &'a Container, path: &str) -> Option<(&'a str, &'a str)> {
    let mounts = container.mounts.as_array().into_iter().flatten();
    let (kind, source, target) = mounts
        .filter_map(|mount| {
            Some((
                mount["type"].as_str()?,
                mount["source"].as_str()?,
                mount["target"].as_str()?,
            ))
        })
        .filter(|(_, _, target)| Path::new(path).starts_with(target))
        .max_by_key(|(_, _, target)| target.len())?;
    (kind == "volume").then_some((source, target))
}

/// What tells scratch of one attempt from that of any other: run, attempt, and a short word for stage and source.
pub fn tag(host: &mut dyn Host, name: &str) -> String {
    let text = format!("{}/{name}", host.stage());
    // FNV-1a: short, and the same everywhere.
    let word = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{}_{}_{word:08x}", host.run_id(), host.attempt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(mounts: [Value; 2], path: &str, expected: bool) {
        let [first, second] = mounts.map(|mounts| {
            let mounts = json!([mounts, { "type": "volume", "source": "other", "target": "/other" }]);
            Container {
                mounts,
                ..Container::default()
            }
        });
        assert_eq!(shares(&first, &[second], path), expected, "{path}");
    }

    #[test]
    fn replicas_share_what_is_on_one_named_volume() {
        let on = |source: &str, target: &str| json!({ "type": "volume", "source": source, "target": target });
        check(
            [on("uploads", "/app/uploads"), on("uploads", "/app/uploads")],
            "/app/uploads",
            true,
        );
        check(
            [on("uploads", "/app"), on("uploads", "/app")],
            "/app/uploads",
            true,
        );
        check(
            [on("uploads", "/app"), on("uploads", "/app/uploads")],
            "/app/uploads",
            false,
        );
        check(
            [on("a1", "/app/uploads"), on("b2", "/app/uploads")],
            "/app/uploads",
            false,
        );
        check(
            [on("uploads", "/app/up"), on("uploads", "/app/up")],
            "/app/uploads",
            false,
        );
        let bind = json!({ "type": "bind", "source": "", "target": "/app/uploads" });
        check([bind.clone(), bind], "/app/uploads", false);
    }
}
