//! What sources and targets inside of containers need from outside, and the sandbox's own answer to it.

use std::time::Duration;

use windlass_guest::containers::{self, Container, Output, Program};
use windlass_guest::{Error, context};

use crate::host::Sandbox;

/// How long a service that was started may take to be healthy.
const HEALTH: Duration = Duration::from_secs(300);
/// How long one that is stopped may take to end by itself: it saves what it has in memory.
const GRACE: Duration = Duration::from_secs(60);

/// Containers, seen from a backup. All errors are those of `windlass:containers`.
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
pub trait Engine {
    /// The containers of `service` or `project/service`; without a project, of that of the pipeline's name.
    fn containers(&mut self, service: &str) -> Result<Vec<Container>, Error>;
    /// Runs a program in a container. A status other than 0 is no error.
    fn exec(&mut self, container: &str, program: &Program) -> Result<Output, Error>;
    fn stop(&mut self, container: &str) -> Result<(), Error>;
    /// Starts it and waits until it is healthy.
    fn start(&mut self, container: &str) -> Result<(), Error>;
    /// Which try of the stage this is, from 1.
    fn attempt(&mut self) -> u32;
    /// False, early, when the stage is cancelled.
    fn sleep(&mut self, duration: Duration) -> bool;
}

impl Engine for Sandbox {
    fn containers(&mut self, service: &str) -> Result<Vec<Container>, Error> {
        match service.contains('/') {
            true => containers::list(service),
            false => containers::list(&format!("{}/{service}", context::pipeline())),
        }
    }

    fn exec(&mut self, container: &str, program: &Program) -> Result<Output, Error> {
        program.run(container)
    }

    fn stop(&mut self, container: &str) -> Result<(), Error> {
        containers::stop(container, GRACE)
    }

    fn start(&mut self, container: &str) -> Result<(), Error> {
        containers::start(container)?;
        containers::wait_for_health(container, HEALTH).map(drop)
    }

    fn attempt(&mut self) -> u32 {
        context::attempt()
    }

    fn sleep(&mut self, duration: Duration) -> bool {
        context::sleep(duration)
    }
}
