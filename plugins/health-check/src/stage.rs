//! Check after check, try after try, until one is used up. All of the world is behind [`Ports`].

use crate::check::{self, Passed};
use crate::config::{Check, Config, Kind};
use serde_json::{Value, json};
use std::time::Duration;
use windlass_guest::containers::Container;
use windlass_guest::http::{Request, Response};
use windlass_guest::log::Level;
use windlass_guest::{Error, Outcome, sql};

/// What the stage needs of the world.
pub(crate) trait Ports {
    /// Sends one request.
    fn send(&mut self, request: &Request) -> Result<Response, Error>;
    /// Connects to a port.
    fn connect(&mut self, host: &str, port: u16, timeout: Duration) -> Result<(), Error>;
    /// Connects to a database and reads.
    fn query(&mut self, url: &str, statement: &str, timeout: Duration) -> Result<sql::Rows, Error>;
    /// Reads the beginning of a file.
    fn read(&mut self, path: &str, limit: u64) -> std::io::Result<Vec<u8>>;
    /// The containers of a service, `service` or `project/service`.
    fn containers(&mut self, service: &str) -> Result<Vec<Container>, Error>;
    /// The last lines of a container's output.
    fn output(&mut self, container: &str, lines: u32) -> Result<String, Error>;
    /// The time since some moment.
    fn clock(&mut self) -> Duration;
    /// Waits; false when the stage is cancelled.
    fn sleep(&mut self, duration: Duration) -> bool;
    /// The time until the stage's deadline.
    fn remaining(&mut self) -> Option<Duration>;
    /// A line for the run's log.
    fn log(&mut self, level: Level, line: &str);
    /// Which try this is, for the display.
    fn progress(&mut self, done: u64, total: u64, note: &str);
}

/// Runs the stage.
pub(crate) fn run(config: &Config, ports: &mut impl Ports) -> Result<Outcome, Error> {
    // All of them first: a check that means nothing is found before the others have waited for minutes.
    let checks: Vec<(&str, &Check, Kind<'_>)> = config
        .checks
        .iter()
        .map(|(name, check)| Ok((name.as_str(), check, check.kind(name)?)))
        .collect::<Result<_, Error>>()?;
    let mut outcome = Outcome::unchanged(match checks.len() {
        1 => "1 check passed".to_owned(),
        many => format!("{many} checks passed"),
    });
    for (name, check, kind) in &checks {
        let patience = Patience::new(check, config);
        let (passed, attempts) = until_passed(name, kind, &patience, ports)
            .map_err(|error| with_output(error, check.logs.as_deref(), ports))?;
        ports.log(
            Level::Info,
            &format!(
                "✓ {name}: {} in {} ms{}",
                passed.seen,
                passed.latency.as_millis(),
                tries(attempts)
            ),
        );
        outcome = outcome.output(*name, output(&passed, attempts));
    }
    Ok(outcome)
}

/// How long one check is waited for.
struct Patience {
    retries: u32,
    delay: Duration,
    timeout: Duration,
}

impl Patience {
    fn new(check: &Check, config: &Config) -> Self {
        Self {
            retries: check.retries.unwrap_or(config.retries),
            delay: check.delay.unwrap_or(config.delay),
            timeout: check.timeout.unwrap_or(config.timeout),
        }
    }
}

/// What the service itself had to say, where that is known or can be asked.
fn with_output(error: Error, service: Option<&str>, ports: &mut impl Ports) -> Error {
    if error.code != "check.failed" {
        return error;
    }
    let told = error.details.as_ref().and_then(|details| details["log"].as_str());
    let told = match (told, service) {
        (Some(told), _) => told.to_owned(),
        (None, Some(service)) => check::last_output(service, ports),
        (None, None) => return error,
    };
    if told.is_empty() {
        return error;
    }
    let message = format!("{}; the last of its output:\n{told}", error.message);
    Error { message, ..error }.with_details(json!({ "log": told }))
}

fn until_passed(
    name: &str,
    kind: &Kind<'_>,
    patience: &Patience,
    ports: &mut impl Ports,
) -> Result<(Passed, u32), Error> {
    let most = patience.retries.max(1);
    let mut told = String::new();
    for attempt in 1..=most {
        ports.progress(attempt.into(), most.into(), &format!("tries of {name}"));
        let error = match check::attempt(kind, patience.timeout, ports) {
            Ok(passed) => return Ok((passed, attempt)),
            Err(error) if !error.retryable => return Err(given_up(error, name, attempt, None)),
            Err(error) => error,
        };
        // The same words thirty times help nobody: they are shown when they change.
        let level = if told == error.message {
            Level::Debug
        } else {
            Level::Info
        };
        ports.log(
            level,
            &format!("· {name}: {} (try {attempt} of {most})", error.message),
        );
        told.clone_from(&error.message);
        if attempt == most {
            return Err(given_up(error, name, attempt, None));
        }
        // Past its deadline the stage is stopped without a word; what was seen is worth more than one more try.
        if ports
            .remaining()
            .is_some_and(|left| left <= patience.delay + patience.timeout)
        {
            return Err(given_up(
                error,
                name,
                attempt,
                Some("the stage's time is nearly over"),
            ));
        }
        if !ports.sleep(patience.delay) {
            return Err(Error::new("cancelled", "the run ended between two tries")
                .with_details(json!({ "check": name, "attempts": attempt })));
        }
    }
    unreachable!("the last try returns")
}

fn given_up(error: Error, name: &str, attempts: u32, why: Option<&str>) -> Error {
    let why = why.map(|why| format!("; {why}")).unwrap_or_default();
    let message = format!("check `{name}`: {}{}{why}", error.message, tries(attempts));
    Error { message, ..error }.with_details(json!({ "check": name, "attempts": attempts }))
}

fn tries(attempts: u32) -> String {
    if attempts == 1 {
        String::new()
    } else {
        format!(" (after {attempts} tries)")
    }
}

fn output(passed: &Passed, attempts: u32) -> Value {
    let latency = u64::try_from(passed.latency.as_millis()).unwrap_or(u64::MAX);
    let mut output = json!({ "status": "passed", "latency_ms": latency, "attempts": attempts });
    if let Some(status) = passed.http_status {
        output["http_status"] = status.into();
    }
    output
}

#[cfg(test)]
mod tests;
