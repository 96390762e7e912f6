//! The standard plugin `backup`: databases and directories into verified backups, and old ones out.
//!
//! [`stage`] is the whole of it; this file only ties it to the host.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod config;
mod retention;
pub mod stage;
mod take;
mod write;

use windlass_backup_format::host::Sandbox;
use windlass_guest::{Effect, Error, Outcome, PastEffect, Planner, Reconciler, Stage, Verdict};

use config::Config;

/// The stage, as the host sees it.
pub struct Backup;

impl Stage for Backup {
    type Config = Config;

    fn run(config: Config) -> Result<Outcome, Error> {
        stage::run(&config, &mut Sandbox)
    }
}

impl Planner for Backup {
    fn plan(config: Config) -> Result<Vec<Effect>, Error> {
        stage::plan(&config, &mut Sandbox)
    }
}

impl Reconciler for Backup {
    /// What a copy into a program was cut off in is scratch of that attempt: the next one begins with its own.
    fn reconcile(_: Config, effect: PastEffect) -> Result<Verdict, Error> {
        Ok(match effect.function.as_str() {
            "flow.copy" => Verdict::NotDone,
            _ => Verdict::Unknown,
        })
    }
}

windlass_guest::export!(Backup, metadata: "../plugin.json", planner, reconciler);
