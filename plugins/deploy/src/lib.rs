//! The standard plugin `deploy`: the services of compose files, one container after the other, or as two colours behind a router.
//!
//! [`stage`] is a deployment, [`undo`] the way back, [`plan`] what would happen, [`reconcile`] what is asked after a crash. They see the engine
//! through [`host`] only; this file ties them to the sandbox.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod amount;
mod check;
mod colours;
pub mod config;
mod files;
pub mod host;
#[cfg(test)]
#[path = "../../../tests/compose/keys.rs"]
mod keys;
mod leftover;
mod names;
mod order;
pub mod plan;
mod project;
pub mod reconcile;
mod refusal;
mod rolling;
mod router;
mod scene;
mod service;
pub mod stage;
mod step;
pub mod undo;

use std::collections::BTreeMap;

use serde_json::Value;
use windlass_guest::{Compensator, Effect, Error, Outcome, PastEffect, Planner, Reconciler, Stage, Verdict};

use config::Config;
use host::Sandbox;

/// The stage, as the host sees it.
pub struct Deploy;

impl Stage for Deploy {
    type Config = Config;

    fn run(config: Config) -> Result<Outcome, Error> {
        stage::run(&config, &mut Sandbox::default())
    }
}

impl Planner for Deploy {
    fn plan(config: Config) -> Result<Vec<Effect>, Error> {
        plan::plan(&config, &mut Sandbox::default())
    }
}

impl Compensator for Deploy {
    fn compensate(config: Config, _: BTreeMap<String, Value>, _: Vec<PastEffect>) -> Result<Outcome, Error> {
        undo::compensate(&config, &mut Sandbox::default())
    }
}

impl Reconciler for Deploy {
    fn reconcile(config: Config, effect: PastEffect) -> Result<Verdict, Error> {
        reconcile::reconcile(&config, &effect, &mut Sandbox::default())
    }
}

windlass_guest::export!(Deploy, metadata: "../plugin.json", planner, compensator, reconciler);
