//! The containers of services, for sources and targets that live in one.

use windlass_guest::Error;
use windlass_guest::containers::Container;

use crate::host::Host;

/// The running container of `service` or `project/service`, by its id. Without a project, that of the pipeline's name.
///
/// # Errors
/// `container.stopped` when none runs, `container.ambiguous` when several do, and those of the host.
pub fn running(host: &mut dyn Host, service: &str) -> Result<String, Error> {
    let containers = host.containers(service)?;
    let running: Vec<&Container> = containers
        .iter()
        .filter(|found| found.is_running() && !found.one_off)
        .collect();
    match running.as_slice() {
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
                .help("which of them holds the data cannot be told"))
        }
    }
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
