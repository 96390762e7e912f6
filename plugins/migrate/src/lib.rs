//! The standard plugin `migrate`: a directory of versioned SQL files, each applied once, in order, in one transaction; or a command in a container of its
//! own, as migration tools want to be run.
//!
//! [`stage`] is the whole of the first, with [`reconcile`] for what is asked after a crash, and [`container`] that of the second; this file only ties
//! them to the host.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod config;
pub mod container;
mod pending;
pub mod reconcile;
mod script;
mod service;
pub mod stage;
mod statement;
mod table;
pub mod task;
mod undo;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use windlass_guest::containers::{self, Container, Made};
use windlass_guest::sql::{self, Options, Rows, Step};
use windlass_guest::{
    Compensator, Effect, Error, Outcome, PastEffect, Planner, Reconciler, Stage, Verdict, context, log,
};

use config::Config;
use container::Engine;
use stage::{Database, Host};
use task::Task;

/// The stage, as the host sees it.
pub struct Migrate;

impl Stage for Migrate {
    type Config = Config;

    fn run(config: Config) -> Result<Outcome, Error> {
        match config.is_command() {
            true => container::run(&Task::new(&config)?, &mut Sandbox),
            false => stage::run(&config, &mut Sandbox),
        }
    }
}

impl Planner for Migrate {
    fn plan(config: Config) -> Result<Vec<Effect>, Error> {
        match config.is_command() {
            true => container::plan(&Task::new(&config)?, &mut Sandbox),
            false => stage::plan(&config, &mut Sandbox),
        }
    }
}

impl Compensator for Migrate {
    fn compensate(
        config: Config,
        _outputs: BTreeMap<String, Value>,
        effects: Vec<PastEffect>,
    ) -> Result<Outcome, Error> {
        match config.is_command() {
            true => container::compensate(&Task::new(&config)?, &effects, &mut Sandbox),
            false => undo::check(&config, &effects),
        }
    }
}

impl Reconciler for Migrate {
    fn reconcile(config: Config, effect: PastEffect) -> Result<Verdict, Error> {
        match config.is_command() {
            true => container::reconcile(&effect, &mut Sandbox),
            false => reconcile::reconcile(&config, &effect, &mut Sandbox),
        }
    }
}

windlass_guest::export!(Migrate, metadata: "../plugin.json", planner, compensator, reconciler);

/// The capabilities of the sandbox.
struct Sandbox;

impl Host for Sandbox {
    fn open(&mut self, url: &str, options: &Options) -> Result<Box<dyn Database>, Error> {
        Ok(Box::new(Connection(sql::open(url, options)?)))
    }

    fn run_id(&mut self) -> String {
        context::run_id()
    }

    fn info(&mut self, message: &str) {
        log::info(message);
    }

    fn progress(&mut self, done: u64, total: u64) {
        log::progress(done, Some(total), Some("migrations"));
    }

    fn is_cancelled(&mut self) -> bool {
        context::is_cancelled()
    }
}

struct Connection(sql::Connection);

impl Database for Connection {
    fn dialect(&self) -> String {
        self.0.dialect()
    }

    fn lock(&self, key: &str, timeout: Duration) -> Result<bool, Error> {
        self.0.lock(key, timeout)
    }

    fn query(&self, statement: &str, parameters: &[Value]) -> Result<Rows, Error> {
        self.0.query(statement, parameters)
    }

    fn transact(&self, label: &str, steps: &[Step]) -> Result<(), Error> {
        self.0.transact(label, steps).map(drop)
    }
}

impl Engine for Sandbox {
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
        containers::remove(container, false)
    }

    fn inspect(&mut self, container: &str) -> Result<Container, Error> {
        containers::inspect(container)
    }

    fn wait(&mut self, container: &str, timeout: Duration) -> Result<Container, Error> {
        containers::wait_for_exit(container, true, timeout)
    }

    fn logs(&mut self, container: &str, lines: u32) -> Result<String, Error> {
        containers::logs(container, lines)
    }

    fn load(&mut self, options: &Value) -> Result<Value, Error> {
        let mut loaded = containers::load_compose(options)?;
        Ok(loaded["model"].take())
    }

    fn read(&mut self, path: &str) -> Result<String, Error> {
        std::fs::read_to_string(path)
            .map_err(|error| Error::new("file.failed", format!("cannot read the secret {path}: {error}")))
    }

    fn pipeline(&mut self) -> String {
        context::pipeline()
    }

    fn stage(&mut self) -> String {
        context::stage()
    }

    fn run_id(&mut self) -> String {
        context::run_id()
    }

    fn remaining(&mut self) -> Option<Duration> {
        context::remaining()
    }

    fn info(&mut self, message: &str) {
        log::info(message);
    }

    fn warn(&mut self, message: &str) {
        log::warn(message);
    }
}
