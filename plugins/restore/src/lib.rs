//! The standard plugin `restore`: backups back into place, with everything checked before the first write.
//!
//! [`stage`] is the whole of it; this file only ties it to the host.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod choose;
pub mod config;
pub mod stage;
mod target;

use windlass_backup_format::host::Sandbox;
use windlass_guest::{Effect, Error, Outcome, Planner, Stage};

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
        stage::plan(&config)
    }
}

windlass_guest::export!(Restore, metadata: "../plugin.json", planner);
