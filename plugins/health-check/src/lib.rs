//! The standard plugin `health-check`: are the services well? This file ties the logic to the host; `stage` tries
//! again and gives up, `check` makes one try, `config` knows the `with:` block.

mod check;
mod config;
mod stage;

use std::io::Read;
use std::time::{Duration, Instant};
use windlass_guest::containers::{self, Container};
use windlass_guest::http::{Request, Response};
use windlass_guest::log::Level;
use windlass_guest::{Error, Outcome, Stage, context, log, sql, tcp};

/// The stage.
pub struct HealthCheck;

impl Stage for HealthCheck {
    type Config = config::Config;

    fn run(config: config::Config) -> Result<Outcome, Error> {
        stage::run(
            &config,
            &mut Host {
                started: Instant::now(),
            },
        )
    }
}

/// The real world behind [`stage::Ports`].
struct Host {
    started: Instant,
}

impl stage::Ports for Host {
    fn send(&mut self, request: &Request) -> Result<Response, Error> {
        request.send()
    }

    fn connect(&mut self, host: &str, port: u16, timeout: Duration) -> Result<(), Error> {
        tcp::connect(host, port, timeout).map(drop)
    }

    fn query(&mut self, url: &str, statement: &str, timeout: Duration) -> Result<sql::Rows, Error> {
        let limit = u64::try_from(timeout.as_millis()).ok();
        let options = sql::Options {
            read_only: true,
            connect_timeout_ms: limit,
            lock_timeout_ms: limit,
            statement_timeout_ms: limit,
            ..sql::Options::default()
        };
        sql::open(url, &options)?.query(statement, &[])
    }

    fn read(&mut self, path: &str, limit: u64) -> std::io::Result<Vec<u8>> {
        let mut data = Vec::new();
        std::fs::File::open(path)?.take(limit).read_to_end(&mut data)?;
        Ok(data)
    }

    fn containers(&mut self, service: &str) -> Result<Vec<Container>, Error> {
        match service.contains('/') {
            true => containers::list(service),
            false => containers::list(&format!("{}/{service}", context::pipeline())),
        }
    }

    fn output(&mut self, container: &str, lines: u32) -> Result<String, Error> {
        containers::logs(container, lines)
    }

    fn clock(&mut self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&mut self, duration: Duration) -> bool {
        context::sleep(duration)
    }

    fn remaining(&mut self) -> Option<Duration> {
        context::remaining()
    }

    fn log(&mut self, level: Level, line: &str) {
        log::line(level, line, &[]);
    }

    fn progress(&mut self, done: u64, total: u64, note: &str) {
        log::progress(done, Some(total), Some(note));
    }
}

windlass_guest::export!(HealthCheck, metadata: "../plugin.json");
