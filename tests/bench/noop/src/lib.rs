//! A plugin that does nothing, so that what is measured is the engine. With `wait-ms` it
//! stays alive, so that many of it can; with `spin` it can only be killed.

use std::time::Duration;
use windlass_guest::{Error, Outcome, Stage, context};

/// The stage.
pub struct Noop;

/// Its `with:`.
#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    wait_ms: u64,
    #[serde(default)]
    spin: bool,
}

impl Stage for Noop {
    type Config = Config;

    fn run(config: Config) -> Result<Outcome, Error> {
        if config.wait_ms > 0 {
            context::sleep(Duration::from_millis(config.wait_ms));
        }
        // Never asks whether it was cancelled.
        if config.spin {
            loop {
                std::hint::spin_loop();
            }
        }
        Ok(Outcome::unchanged("nothing"))
    }
}

windlass_guest::export!(Noop, metadata: "../plugin.json");
