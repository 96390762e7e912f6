//! `windlass-load URL`: sends, and prints what became of it as JSON.

use clap::{Parser, ValueEnum};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};
use windlass_load::{Load, Mode, Target, Trust};

/// Sends requests at a constant rate and prints what was sent, answered and lost. No request is sent twice.
///
/// Exit code: 0 nothing failed and no status was 500 or above, 1 something did, 64 the command line is wrong.
#[derive(Parser)]
struct Arguments {
    url: Target,
    #[arg(long, value_enum, default_value = "close")]
    mode: Kind,
    /// Requests a second, or `max`: each connection sends as soon as it has its answer.
    #[arg(long, default_value = "100", value_parser = rate)]
    rate: Rate,
    /// Of `keep-alive`.
    #[arg(long, default_value_t = 50)]
    connections: u32,
    /// In seconds.
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// For a connection, and for an answer, in seconds.
    #[arg(long, default_value_t = 10.0)]
    timeout: f64,
    #[arg(long, default_value = "GET")]
    method: String,
    /// Counts the values of this header of the answers.
    #[arg(long, value_name = "HEADER")]
    count: Option<String>,
    /// Connects to this address, whatever the host resolves to.
    #[arg(long, value_name = "ADDRESS:PORT")]
    connect: Option<SocketAddr>,
    /// Certificates to trust, as PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Trusts any certificate; for loopback addresses.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Close,
    KeepAlive,
}

#[derive(Clone, Copy)]
struct Rate(Option<u32>);

fn rate(text: &str) -> Result<Rate, String> {
    match (text, text.parse()) {
        ("max", _) => Ok(Rate(None)),
        (_, Ok(rate)) if rate > 0 => Ok(Rate(Some(rate))),
        _ => Err("a number above 0, or `max`".into()),
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody is left to tell if that fails.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    match windlass_load::start(load(arguments)) {
        Ok(running) => {
            let report = running.wait();
            let text = serde_json::to_string_pretty(&report).expect("a report is JSON");
            println!("{text}");
            ExitCode::from(u8::from(report.failures() > 0))
        }
        Err(words) => {
            eprintln!("error: {words}");
            ExitCode::from(64)
        }
    }
}

fn load(arguments: Arguments) -> Load {
    let trust = match (arguments.ca, arguments.insecure) {
        (Some(path), _) => Some(Trust::Authority(path)),
        (None, true) => Some(Trust::Anybody),
        (None, false) => None,
    };
    Load {
        connect: arguments.connect,
        mode: match arguments.mode {
            Kind::Close => Mode::Close,
            Kind::KeepAlive => Mode::KeepAlive {
                connections: arguments.connections.max(1),
            },
        },
        rate: arguments.rate.0,
        duration: seconds(arguments.duration),
        timeout: seconds(arguments.timeout),
        method: arguments.method,
        count_header: arguments.count,
        trust,
        ..Load::of(arguments.url)
    }
}

/// What is no length of time is none at all.
fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number).unwrap_or_default()
}
