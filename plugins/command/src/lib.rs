//! The standard plugin `command`: one native program, by argument list. It decides what its result means; starting,
//! killing and redacting are the host's.

mod stage;

use windlass_guest::{Error, Outcome, Stage, log};

/// The stage.
pub struct Command;

impl Stage for Command {
    type Config = stage::Config;

    fn run(config: stage::Config) -> Result<Outcome, Error> {
        let output = config.program()?.run()?;
        let judged = stage::judge(&config, &output)?;
        if judged.shortened {
            log::warn("the program wrote more than a stage may hand on: `outputs.stdout` has the end of it");
        }
        Ok(judged.outcome)
    }
}

windlass_guest::export!(Command, metadata: "../plugin.json");
