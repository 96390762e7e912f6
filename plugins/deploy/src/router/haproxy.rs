//! HAProxy: the live colour is an entry of a map, in memory and in the file that it starts with. Changing the entry starts no process and
//! closes no connection.

use windlass_guest::Error;
use windlass_guest::containers::{Container, Output, Program};

use super::{At, Live, Router, changing, expect_success, refused, repeatable};
use crate::host::Host;
use crate::names::{self, Colour};

const FILE: &str = "/router/live.map";
/// In one step, and on disk before anything relies on it.
const WRITE: &str = "cat > /router/live.map.new && sync /router/live.map.new && mv /router/live.map.new /router/live.map && sync /router";
const NOT_THERE: &str = "entry not found";

/// Fields of `show stat`, from 0.
const IN_FLIGHT: usize = 4;
const STATUS: usize = 17;
const CHECK: usize = 36;

#[derive(Debug)]
pub(crate) struct Haproxy;

impl Haproxy {
    fn lines(host: &mut dyn Host, at: &At) -> Result<Vec<String>, Error> {
        let output = host.exec(&at.container, &repeatable(Program::new(["cat", FILE])))?;
        Ok(output.stdout.lines().map(String::from).collect())
    }

    /// One command on the router's own socket. It says nothing when all is well, and ends with 0 in any case.
    fn command(host: &mut dyn Host, at: &At, text: &str) -> Result<Output, Error> {
        let program = changing(Program::new(["nc", "127.0.0.1", "9999"])).input(format!("{text}\n"));
        host.exec(&at.container, &program)
    }

    fn statistics(host: &mut dyn Host, at: &At, what: &str) -> Result<Vec<Vec<String>>, Error> {
        let program =
            repeatable(Program::new(["nc", "127.0.0.1", "9999"])).input(format!("show stat {what} -1\n"));
        let output = host.exec(&at.container, &program)?;
        let rows = output
            .stdout
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        Ok(rows
            .map(|line| line.split(',').map(String::from).collect())
            .collect())
    }
}

/// The entry of a service in a line of the map.
fn entry<'a>(line: &'a str, service: &str) -> Option<&'a str> {
    let (key, value) = line.trim().split_once(char::is_whitespace)?;
    (key == service).then_some(value)
}

impl Router for Haproxy {
    fn recorded(&self, host: &mut dyn Host, at: &At) -> Result<Option<Live>, Error> {
        let lines = Self::lines(host, at)?;
        Ok(lines
            .iter()
            .find_map(|line| Live::parse(entry(line, &at.service)?)))
    }

    fn ready(&self, host: &mut dyn Host, at: &At, colour: Colour, _: &[Container]) -> Result<usize, Error> {
        let backend = names::alias(&at.service, colour);
        let rows = Self::statistics(host, at, &format!("{backend} 4"))?;
        // A new server counts as up before it was asked for the first time.
        let is_up = |row: &&Vec<String>| {
            let field = |at: usize| row.get(at).map_or("", String::as_str);
            field(STATUS) == "UP" && field(CHECK).trim_start_matches("* ") == "L7OK"
        };
        Ok(rows.iter().filter(is_up).count())
    }

    fn record(&self, host: &mut dyn Host, at: &At, live: Option<&Live>) -> Result<(), Error> {
        let mut lines = Self::lines(host, at)?;
        lines.retain(|line| !line.trim().is_empty() && entry(line, &at.service).is_none());
        lines.extend(live.map(|live| format!("{} {live}", at.service)));
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let program = repeatable(Program::new(["sh", "-c", WRITE])).input(text);
        let output = host.exec(&at.container, &program)?;
        expect_success("wrote down the live colour", &output)
    }

    fn turn(&self, host: &mut dyn Host, at: &At, live: Option<&Live>) -> Result<(), Error> {
        let service = &at.service;
        let Some(live) = live else {
            let words = Self::command(host, at, &format!("del map {FILE} {service}"))?.stdout;
            return match words.trim() {
                "" => Ok(()),
                words if words.contains(NOT_THERE) => Ok(()),
                words => Err(refused("took the live colour out", words)),
            };
        };
        let value = live.to_string().replace(' ', "\\ ");
        let mut words = Self::command(host, at, &format!("set map {FILE} {service} {value}"))?.stdout;
        if words.contains(NOT_THERE) {
            words = Self::command(host, at, &format!("add map {FILE} {service} {value}"))?.stdout;
        }
        match words.trim() {
            "" => Ok(()),
            words => Err(refused("switched", words)),
        }
    }

    fn in_flight(&self, host: &mut dyn Host, at: &At, colour: Colour) -> Result<u64, Error> {
        let backend = names::alias(&at.service, colour);
        let rows = Self::statistics(host, at, &format!("{backend} 2"))?;
        let count = rows.first().and_then(|row| row.get(IN_FLIGHT)?.parse().ok());
        count.ok_or_else(|| refused("asked what is in flight", "no number"))
    }
}
