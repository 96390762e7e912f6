//! The router: asked which colour is live, told to switch, asked again. What it answers is the only record there is.
//!
//! Everything is a program that runs in the router's container. What both kinds have in common is here; the kinds know their files and
//! commands. The container needs a shell, `wget` (or `curl`), `timeout`, and for HAProxy `nc`: the images of both for Alpine have them.

mod haproxy;
mod nginx;

pub(crate) use haproxy::Haproxy;
pub(crate) use nginx::Nginx;

use std::fmt;
use std::time::Duration;

use windlass_guest::Error;
use windlass_guest::containers::{Container, Output, Program};

use crate::config::Kind;
use crate::host::Host;
use crate::names::Colour;

/// So many fresh answers in a row have to be the new one.
const CONFIRMATIONS: usize = 20;
const CONFIRMED_WITHIN: Duration = Duration::from_secs(10);
const BETWEEN_TRIES: Duration = Duration::from_millis(250);
const PROGRAM_TIMEOUT_MS: u64 = 10_000;

/// Which colour has the traffic of a service, since which switch, at which image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) colour: Colour,
    pub(crate) generation: u64,
    pub(crate) digest: String,
}

impl Live {
    /// `blue 7 sha256:…`, and nothing else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [colour, generation, digest] = words[..] else {
            return None;
        };
        Some(Self {
            colour: Colour::parse(colour)?,
            generation: generation.parse().ok()?,
            digest: digest.to_owned(),
        })
    }
}

impl fmt::Display for Live {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} {} {}",
            self.colour.name(),
            self.generation,
            self.digest
        )
    }
}

/// What the router says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Live(Live),
    /// No colour has ever been live, and it says so itself.
    Nothing,
    /// It cannot be asked, or says what nobody understands.
    Lost(String),
}

/// The router's container, and the service whose traffic it sends.
#[derive(Debug, Clone)]
pub(crate) struct At {
    pub(crate) container: String,
    pub(crate) service: String,
    /// Where the colours listen.
    pub(crate) port: u16,
}

/// What each kind of router has of its own.
pub(crate) trait Router {
    /// What it would start with.
    fn recorded(&self, host: &mut dyn Host, at: &At) -> Result<Option<Live>, Error>;
    /// How many containers of a colour it would send traffic to.
    fn ready(
        &self,
        host: &mut dyn Host,
        at: &At,
        colour: Colour,
        containers: &[Container],
    ) -> Result<usize, Error>;
    /// Writes what it would start with: in one step, and on disk when it returns. `None`: nothing is live. Doing it twice does no harm, and it has
    /// to be done again by who goes on after a crash: it is no effect of its own.
    fn record(&self, host: &mut dyn Host, at: &At, live: Option<&Live>) -> Result<(), Error>;
    /// Makes the running router do what was recorded. An effect, which differs from one generation to the next: a journal that answers for it
    /// must not take one switch for another.
    fn turn(&self, host: &mut dyn Host, at: &At, live: Option<&Live>) -> Result<(), Error>;
    /// Requests that a colour is still answering; 0: it may be stopped.
    fn in_flight(&self, host: &mut dyn Host, at: &At, colour: Colour) -> Result<u64, Error>;
}

pub(crate) fn of(kind: Kind) -> Box<dyn Router> {
    match kind {
        Kind::Haproxy => Box::new(Haproxy),
        Kind::Nginx => Box::new(Nginx),
    }
}

/// Reads what is live from the running router's memory.
///
/// # Errors
/// Those of the engine; that the router gives no answer is [`Answer::Lost`].
pub(crate) fn answer(host: &mut dyn Host, at: &At) -> Result<Answer, Error> {
    let url = format!("http://127.0.0.1:8081/live/{}", at.service);
    let output = host.exec(&at.container, &repeatable(Program::new(["wget", "-qO-", &url])))?;
    if output.exit == 0 {
        let text = output.stdout.trim();
        return Ok(
            Live::parse(text).map_or_else(|| Answer::Lost(format!("it answers `{text}`")), Answer::Live)
        );
    }
    match output.stderr.contains("404") {
        true => Ok(Answer::Nothing),
        false => Ok(Answer::Lost(format!(
            "it cannot be asked: {}",
            output.stderr.trim()
        ))),
    }
}

/// Switches: the file, the running router, and the router's word that it did.
///
/// # Errors
/// `router.refused`, `router.not-confirmed`.
pub(crate) fn switch(
    router: &dyn Router,
    host: &mut dyn Host,
    at: &At,
    live: Option<&Live>,
) -> Result<(), Error> {
    router.record(host, at, live)?;
    router.turn(host, at, live)?;
    confirm(host, at, live)
}

fn confirm(host: &mut dyn Host, at: &At, live: Option<&Live>) -> Result<(), Error> {
    let started = host.clock();
    loop {
        let (is_new, seen) = match live {
            Some(live) => fresh_answers(host, at, live)?,
            None => {
                let answer = answer(host, at)?;
                (answer == Answer::Nothing, format!("{answer:?}"))
            }
        };
        if is_new {
            return Ok(());
        }
        if host.clock().saturating_sub(started) >= CONFIRMED_WITHIN || !host.sleep(BETWEEN_TRIES) {
            let wanted = live.map_or_else(|| "nothing".to_owned(), Live::to_string);
            let message = format!(
                "the router was told to send the traffic of `{}` to `{wanted}`, and does not say so: {seen}",
                at.service
            );
            return Err(Error::new("router.not-confirmed", message));
        }
    }
}

fn fresh_answers(host: &mut dyn Host, at: &At, live: &Live) -> Result<(bool, String), Error> {
    let script =
        "i=0; while [ $i -lt \"$2\" ]; do timeout 2 wget -qO- \"$1\" || exit 1; echo; i=$((i+1)); done";
    let url = format!("http://127.0.0.1:8081/live/{}", at.service);
    let count = CONFIRMATIONS.to_string();
    let output = host.exec(
        &at.container,
        &repeatable(Program::new(["sh", "-c", script, "confirm", &url, &count])),
    )?;
    let wanted = live.to_string();
    let lines: Vec<&str> = output.stdout.lines().collect();
    let is_new = output.exit == 0 && lines.len() == CONFIRMATIONS && lines.iter().all(|line| *line == wanted);
    let seen = lines.iter().rev().find(|line| **line != wanted).copied();
    Ok((is_new, seen.unwrap_or(output.stderr.trim()).to_owned()))
}

/// A program that only reads, or may be run again.
pub(crate) fn repeatable(program: Program) -> Program {
    changing(program.repeatable())
}

/// A program that changes what the router does.
fn changing(program: Program) -> Program {
    Program {
        timeout_ms: Some(PROGRAM_TIMEOUT_MS),
        ..program
    }
}

fn expect_success(doing: &str, output: &Output) -> Result<(), Error> {
    if output.exit == 0 {
        return Ok(());
    }
    Err(refused(doing, &format!("{}{}", output.stderr, output.stdout)))
}

fn refused(doing: &str, words: &str) -> Error {
    Error::new(
        "router.refused",
        format!(
            "the router did not take it when Windlass {doing}: {}",
            words.trim()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_strictly() {
        let check = |text: &str, expected: Option<(Colour, u64)>| {
            let live = Live::parse(text);
            assert_eq!(
                live.as_ref().map(|live| (live.colour, live.generation)),
                expected,
                "{text}"
            );
        };
        check("blue 7 sha256:ab", Some((Colour::Blue, 7)));
        check("green 8 sha256:ab\n", Some((Colour::Green, 8)));
        for wrong in [
            "",
            "blue",
            "blue 7",
            "red 7 x",
            "blue seven x",
            "blue 7 x y",
            "nothing of that name",
        ] {
            check(wrong, None);
        }
    }
}
