//! The standard plugin `build`: directories of the workspace into OCI image archives, without a daemon, to the byte the
//! same every time; and Dockerfiles, of a list or of compose files, into images of a container engine and its registry.
//!
//! [`stage`] is the whole of the first and [`engine`] of the second; this file only ties them to the host.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod archive;
mod base;
mod blob;
pub mod config;
mod digest;
pub mod engine;
mod image;
mod layer;
pub mod stage;
mod tree;
mod wanted;

use std::path::Path;

use serde_json::Value;
use windlass_guest::artifacts::{self, Artifact};
use windlass_guest::containers::{self, Image, Pushed};
use windlass_guest::{Effect, Error, Outcome, Planner, Stage, context, log};

use config::Config;
use engine::Engine;
use stage::{ArtifactWriter, Workshop};

/// The stage, as the host sees it.
pub struct Build;

impl Stage for Build {
    type Config = Config;

    fn run(config: Config) -> Result<Outcome, Error> {
        config.check()?;
        let archives = match config.archives().next() {
            Some(_) => Some(stage::run(&config, Path::new("/tmp"), &mut Host)?),
            None => None,
        };
        if !config.needs_engine() {
            return Ok(archives.unwrap_or_default());
        }
        let images = engine::run(&config, &mut Host)?;
        Ok(engine::together(archives, images))
    }
}

impl Planner for Build {
    fn plan(config: Config) -> Result<Vec<Effect>, Error> {
        let mut effects = stage::plan(&config)?;
        if config.needs_engine() {
            effects.extend(engine::plan(&config, &mut Host)?);
        }
        Ok(effects)
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

impl Engine for Host {
    fn image(&mut self, reference: &str) -> Result<Option<Image>, Error> {
        containers::image(reference)
    }

    fn build(&mut self, spec: &Value) -> Result<Image, Error> {
        containers::build(spec)
    }

    fn tag(&mut self, source: &str, target: &str) -> Result<(), Error> {
        containers::tag(source, target)
    }

    fn push(&mut self, reference: &str, options: &Value) -> Result<Pushed, Error> {
        containers::push(reference, options)
    }

    fn load(&mut self, options: &Value) -> Result<Value, Error> {
        let mut loaded = containers::load_compose(options)?;
        Ok(loaded["model"].take())
    }

    fn pipeline(&mut self) -> String {
        context::pipeline()
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
