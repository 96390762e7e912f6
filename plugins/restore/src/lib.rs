//! The standard plugin `restore`: backups back into place, with everything checked before the first write.
//!
//! [`stage`] is the whole of it; this file only ties it to the host.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod choose;
pub mod config;
pub mod stage;
mod target;
mod write;

use windlass_backup_format::host::Sandbox;
use windlass_guest::{Effect, Error, Outcome, PastEffect, Planner, Reconciler, Stage, Verdict};

use config::Config;

/// The stage, as the host sees it.
pub struct Restore;

impl Stage for Restore {
    type Config = Config;

    fn run(config: Config) -> Result<Outcome, Error> {
        stage::run(&config, &mut Sandbox)
    }
}

impl Planner for Restore {
    fn plan(config: Config) -> Result<Vec<Effect>, Error> {
        stage::plan(&config, &mut Sandbox)
    }
}

impl Reconciler for Restore {
    /// What a copy into a program was cut off in is a database that only that attempt knew, and scratch: the next attempt begins with its own.
    fn reconcile(_: Config, effect: PastEffect) -> Result<Verdict, Error> {
        Ok(match effect.function.as_str() {
            "flow.copy" => Verdict::NotDone,
            _ => Verdict::Unknown,
        })
    }
}

windlass_guest::export!(Restore, metadata: "../plugin.json", planner, reconciler);
