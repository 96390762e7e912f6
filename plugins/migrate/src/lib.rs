//! The standard plugin `migrate`: a directory of versioned SQL files, each applied once, in order, in one transaction.
//!
//! [`stage`] is the whole of it, and [`reconcile`] what is asked after a crash; this file only ties them to the host.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod config;
mod pending;
pub mod reconcile;
mod script;
pub mod stage;
mod statement;
mod table;

use std::time::Duration;

use serde_json::Value;
use windlass_guest::sql::{self, Options, Rows, Step};
use windlass_guest::{Effect, Error, Outcome, PastEffect, Planner, Reconciler, Stage, Verdict, context, log};

use config::Config;
use stage::{Database, Host};

/// The stage, as the host sees it.
pub struct Migrate;

impl Stage for Migrate {
    type Config = Config;

    fn run(config: Config) -> Result<Outcome, Error> {
        stage::run(&config, &mut Sandbox)
    }
}

impl Planner for Migrate {
    fn plan(config: Config) -> Result<Vec<Effect>, Error> {
        stage::plan(&config, &mut Sandbox)
    }
}

impl Reconciler for Migrate {
    fn reconcile(config: Config, effect: PastEffect) -> Result<Verdict, Error> {
        reconcile::reconcile(&config, &effect, &mut Sandbox)
    }
}

windlass_guest::export!(Migrate, metadata: "../plugin.json", planner, reconciler);

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
