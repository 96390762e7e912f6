//! What a deployment needs from outside, as a trait: the sandbox behind it here, an engine in memory in the tests.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use windlass_guest::containers::{self, Container, Image, Made, Output, Program};
use windlass_guest::{Error, context, log};

/// The functions of `windlass:containers`, and what `windlass:stage` tells of the run. Their errors are those of the WIT.
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
pub trait Host {
    fn load(&mut self, options: &Value) -> Result<Value, Error>;
    /// The containers of a service, oldest first; with `*` those of all.
    fn list(&mut self, project: &str, service: &str) -> Result<Vec<Container>, Error>;
    fn inspect(&mut self, container: &str) -> Result<Container, Error>;
    fn fingerprint(&mut self, spec: &Value) -> Result<String, Error>;
    fn create(&mut self, spec: &Value) -> Result<Made, Error>;
    fn start(&mut self, container: &str) -> Result<(), Error>;
    fn stop(&mut self, container: &str, grace: Duration) -> Result<(), Error>;
    fn remove(&mut self, container: &str) -> Result<(), Error>;
    fn rename(&mut self, container: &str, name: &str) -> Result<(), Error>;
    fn wait_for_health(&mut self, container: &str, timeout: Duration) -> Result<Container, Error>;
    fn wait_for_exit(&mut self, container: &str, timeout: Duration) -> Result<Container, Error>;
    fn logs(&mut self, container: &str, lines: u32) -> Result<String, Error>;
    fn exec(&mut self, container: &str, program: &Program) -> Result<Output, Error>;
    fn ensure_network(&mut self, spec: &Value) -> Result<(), Error>;
    fn ensure_volume(&mut self, spec: &Value) -> Result<(), Error>;
    fn image(&mut self, reference: &str) -> Result<Option<Image>, Error>;
    fn pull(&mut self, reference: &str, missing_only: bool) -> Result<Image, Error>;
    fn remove_image(&mut self, reference: &str) -> Result<bool, Error>;
    /// Whether there is a file, as far as the stage sees files.
    fn is_file(&mut self, path: &str) -> bool;
    fn run_id(&mut self) -> String;
    /// Since the stage began.
    fn clock(&mut self) -> Duration;
    /// False when the stage is to end.
    fn sleep(&mut self, duration: Duration) -> bool;
    fn info(&mut self, message: &str);
    fn warn(&mut self, message: &str);
    fn progress(&mut self, done: usize, total: usize, note: &str);
}

/// The capabilities of the sandbox.
#[derive(Debug)]
pub struct Sandbox {
    started: Instant,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Host for Sandbox {
    fn load(&mut self, options: &Value) -> Result<Value, Error> {
        containers::load_compose(options)
    }

    fn list(&mut self, project: &str, service: &str) -> Result<Vec<Container>, Error> {
        containers::list(&format!("{project}/{service}"))
    }

    fn inspect(&mut self, container: &str) -> Result<Container, Error> {
        containers::inspect(container)
    }

    fn fingerprint(&mut self, spec: &Value) -> Result<String, Error> {
        containers::fingerprint(spec)
    }

    fn create(&mut self, spec: &Value) -> Result<Made, Error> {
        containers::create(spec)
    }

    fn start(&mut self, container: &str) -> Result<(), Error> {
        containers::start(container)
    }

    fn stop(&mut self, container: &str, grace: Duration) -> Result<(), Error> {
        containers::stop(container, grace)
    }

    fn remove(&mut self, container: &str) -> Result<(), Error> {
        containers::remove(container, true)
    }

    fn rename(&mut self, container: &str, name: &str) -> Result<(), Error> {
        containers::rename(container, name)
    }

    fn wait_for_health(&mut self, container: &str, timeout: Duration) -> Result<Container, Error> {
        containers::wait_for_health(container, timeout)
    }

    fn wait_for_exit(&mut self, container: &str, timeout: Duration) -> Result<Container, Error> {
        containers::wait_for_exit(container, true, timeout)
    }

    fn logs(&mut self, container: &str, lines: u32) -> Result<String, Error> {
        containers::logs(container, lines)
    }

    fn exec(&mut self, container: &str, program: &Program) -> Result<Output, Error> {
        program.run(container)
    }

    fn ensure_network(&mut self, spec: &Value) -> Result<(), Error> {
        containers::ensure_network(spec).map(drop)
    }

    fn ensure_volume(&mut self, spec: &Value) -> Result<(), Error> {
        containers::ensure_volume(spec).map(drop)
    }

    fn image(&mut self, reference: &str) -> Result<Option<Image>, Error> {
        containers::image(reference)
    }

    fn pull(&mut self, reference: &str, missing_only: bool) -> Result<Image, Error> {
        containers::pull(reference, &json!({ "missing-only": missing_only }))
    }

    fn remove_image(&mut self, reference: &str) -> Result<bool, Error> {
        containers::remove_image(reference)
    }

    fn is_file(&mut self, path: &str) -> bool {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
    }

    fn run_id(&mut self) -> String {
        context::run_id()
    }

    fn clock(&mut self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&mut self, duration: Duration) -> bool {
        context::sleep(duration)
    }

    fn info(&mut self, message: &str) {
        log::info(message);
    }

    fn warn(&mut self, message: &str) {
        log::warn(message);
    }

    fn progress(&mut self, done: usize, total: usize, note: &str) {
        log::progress(done as u64, Some(total as u64), Some(note));
    }
}
