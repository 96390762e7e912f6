//! Which router switches colours without losing a request: candidates × clients, each figure beside that of a plain `nginx -s reload`.
//!
//! `cargo run --release -p windlass-load --bin router-experiment`. Needs nginx, haproxy, wrk and hey, and the loopback ports from 19080.

mod clients;
mod configuration;
mod place;
mod table;

use clap::Parser;
use clients::Client;
use configuration::Candidate;
use place::Place;
use std::{path::PathBuf, process::ExitCode, time::Duration};
use table::Row;

#[derive(Parser)]
struct Arguments {
    /// How long each client sends, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Switches within that time.
    #[arg(long, default_value_t = 20)]
    switches: u32,
    /// Writes the rows there as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("error: {words}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), String> {
    let duration = Duration::from_secs(arguments.seconds);
    let mut rows = Vec::new();
    for candidate in Candidate::ALL {
        let mut place = Place::start(candidate)?;
        for client in Client::ALL {
            eprintln!("{} under {}", candidate.title(), client.title());
            let quiet = client.run(duration, || Ok(()), 0)?;
            let before = place.switches();
            let busy = client.run(duration, || place.switch(), arguments.switches)?;
            let switched = place.switches() - before;
            rows.push(Row::new(candidate, client, switched, quiet, busy));
        }
    }
    print!("{}", table::render(&rows));
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&rows).expect("rows are JSON");
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}
