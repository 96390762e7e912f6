//! The standard plugin `build`: directories of the workspace into OCI image archives, without a daemon, to the byte the
//! same every time.
//!
//! [`stage`] is the whole of it; this file only ties it to the host.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod archive;
mod base;
mod blob;
pub mod config;
mod digest;
mod image;
mod layer;
pub mod stage;
mod tree;

use std::path::Path;

use windlass_guest::artifacts::{self, Artifact};
use windlass_guest::{Effect, Error, Outcome, Planner, Stage, context, log};

use config::Config;
use stage::{ArtifactWriter, Workshop};

/// The stage, as the host sees it.
pub struct Build;

impl Stage for Build {
    type Config = Config;

    fn run(config: Config) -> Result<Outcome, Error> {
        stage::run(&config, Path::new("/tmp"), &mut Host)
    }
}

impl Planner for Build {
    fn plan(config: Config) -> Result<Vec<Effect>, Error> {
        stage::plan(&config)
    }
}

windlass_guest::export!(Build, metadata: "../plugin.json", planner);

/// The capabilities of the sandbox.
struct Host;

impl Workshop for Host {
    fn create(&mut self, name: &str, media_type: &str) -> Result<Box<dyn ArtifactWriter>, Error> {
        Ok(Box::new(HostWriter(artifacts::create(name, media_type)?)))
    }

    fn info(&mut self, message: &str) {
        log::info(message);
    }

    fn is_cancelled(&mut self) -> bool {
        context::is_cancelled()
    }
}

struct HostWriter(artifacts::Writer);

impl ArtifactWriter for HostWriter {
    fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        self.0.append(data)
    }

    fn finish(self: Box<Self>) -> Result<Artifact, Error> {
        self.0.finish()
    }
}
