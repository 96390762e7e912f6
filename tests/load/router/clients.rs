//! The clients that send while colours are switched, and what they say about it in the same words.

use crate::configuration::FRONT;
use serde::Serialize;
use std::{
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use windlass_load::{Load, Mode, Report};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// 50 connections, each busy all the time, nothing sent twice.
    Wrk,
    /// 200 a second over 50 connections; sends again on a new connection where the old one was closed, as browsers do.
    Hey,
    /// As wrk, but our own: says what was sent and never answered.
    Busy,
    /// 1,000 GET a second over 50 connections.
    Kept,
    /// 1,000 POST a second over 50 connections: no proxy may send these again.
    Post,
    /// 1,000 GET a second, each on a new connection.
    New,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) sent: u64,
    /// No whole answer.
    pub(crate) lost: u64,
    /// An answer of the proxy's instead of the service's.
    pub(crate) errors: u64,
    /// Connections that were found closed in time; a client that does not look loses as many requests.
    pub(crate) closed: Option<u64>,
    pub(crate) p99_ms: f64,
}

impl Client {
    pub(crate) const ALL: [Self; 6] = [
        Self::Wrk,
        Self::Hey,
        Self::Busy,
        Self::Kept,
        Self::Post,
        Self::New,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Wrk => "wrk -c50",
            Self::Hey => "hey -c50 -q4",
            Self::Busy => "own, 50 kept, busy",
            Self::Kept => "own, 50 kept, 1,000/s",
            Self::Post => "own, 50 kept, 1,000 POST/s",
            Self::New => "own, new, 1,000/s",
        }
    }

    /// Sends for `duration`, and calls `act` so many `times` meanwhile.
    pub(crate) fn run(
        self,
        duration: Duration,
        mut act: impl FnMut() -> Result<(), String>,
        times: u32,
    ) -> Result<Figures, String> {
        let sending = self.start(duration)?;
        let started = Instant::now();
        for number in 0..times {
            // Not with the first request, and not with the last.
            let due = started + duration * (2 * number + 1) / (2 * times);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            act()?;
        }
        sending.figures()
    }

    fn start(self, duration: Duration) -> Result<Sending, String> {
        let url = format!("http://127.0.0.1:{FRONT}/api/v1/teams");
        let seconds = format!("{}s", duration.as_secs());
        let load = Load {
            duration,
            count_header: Some("x-colour".into()),
            ..Load::of(url.parse()?)
        };
        let kept = Load {
            mode: Mode::KeepAlive { connections: 50 },
            rate: Some(1000),
            ..load.clone()
        };
        let own = |load| windlass_load::start(load).map(Sending::Own);
        match self {
            Self::Wrk => {
                program("wrk", &["-t2", "-c50", "--latency", "-d", &seconds, &url]).map(Sending::Wrk)
            }
            Self::Hey => program("hey", &["-c", "50", "-q", "4", "-z", &seconds, &url]).map(Sending::Hey),
            Self::Busy => own(Load { rate: None, ..kept }),
            Self::Kept => own(kept),
            Self::Post => own(Load {
                method: "POST".into(),
                ..kept
            }),
            Self::New => own(Load {
                rate: Some(1000),
                ..load
            }),
        }
    }
}

enum Sending {
    Wrk(Child),
    Hey(Child),
    Own(windlass_load::Running),
}

impl Sending {
    fn figures(self) -> Result<Figures, String> {
        match self {
            Self::Wrk(child) => wrk(&text(child)?),
            Self::Hey(child) => hey(&text(child)?),
            Self::Own(running) => Ok(own(&running.wait())),
        }
    }
}

fn program(name: &str, arguments: &[&str]) -> Result<Child, String> {
    let started = Command::new(name).args(arguments).stdout(Stdio::piped()).spawn();
    started.map_err(|error| format!("{name} does not start: {error}"))
}

fn text(child: Child) -> Result<String, String> {
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn own(report: &Report) -> Figures {
    Figures {
        sent: report.sent,
        lost: report.failures() - errors(report),
        errors: errors(report),
        closed: Some(report.closed_idle),
        p99_ms: report.p99_ms,
    }
}

fn errors(report: &Report) -> u64 {
    report.statuses.range(500..).map(|(_, count)| count).sum()
}

/// wrk prints its two lines of errors only if there were any.
fn wrk(text: &str) -> Result<Figures, String> {
    let number =
        |before: &str| after(text, before).and_then(|word| word.trim_matches(',').parse::<u64>().ok());
    let sent: u64 = text
        .lines()
        .find_map(|line| line.split_once(" requests in "))
        .and_then(|(count, _)| count.trim().parse().ok())
        .ok_or_else(|| format!("wrk did not say how many requests it sent:\n{text}"))?;
    let lost = ["connect ", "read ", "write ", "timeout "];
    let broken = text.split_once("Socket errors:").map_or(0, |(_, broken)| {
        let words = broken.lines().next().unwrap_or_default();
        let count = |kind: &&str| after(words, kind)?.trim_matches(',').parse::<u64>().ok();
        lost.iter().filter_map(count).sum()
    });
    Ok(Figures {
        sent: sent + broken,
        lost: broken,
        errors: number("Non-2xx or 3xx responses: ").unwrap_or(0),
        closed: None,
        p99_ms: after(text, "99%").and_then(milliseconds).unwrap_or(0.0),
    })
}

fn hey(text: &str) -> Result<Figures, String> {
    // `[200]	1234 responses`, and below `Error distribution:` `[3]	Get ...: EOF`.
    let (answers, failures) = text.split_once("Error distribution:").unwrap_or((text, ""));
    let counts = |text: &str, of: &dyn Fn(u64, u64) -> u64| -> u64 {
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix('['));
        lines
            .filter_map(|line| {
                let (first, rest) = line.split_once(']')?;
                let second = rest.split_whitespace().next()?.parse().unwrap_or(0);
                Some(of(first.parse().ok()?, second))
            })
            .sum()
    };
    let answered = counts(answers, &|_, count| count);
    let errors = counts(answers, &|status, count| if status >= 500 { count } else { 0 });
    let lost = counts(failures, &|count, _| count);
    if answered == 0 {
        return Err(format!("hey got no answer:\n{text}"));
    }
    let p99 = text.lines().find_map(|line| {
        line.trim()
            .strip_prefix("99% in ")?
            .split(' ')
            .next()?
            .parse::<f64>()
            .ok()
    });
    Ok(Figures {
        sent: answered + lost,
        lost,
        errors,
        closed: None,
        p99_ms: p99.unwrap_or(0.0) * 1000.0,
    })
}

/// The word behind the first `before`.
fn after<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_whitespace().next()
}

/// wrk's times have their unit behind them.
fn milliseconds(text: &str) -> Option<f64> {
    let (number, factor) = match (
        text.strip_suffix("us"),
        text.strip_suffix("ms"),
        text.strip_suffix('s'),
    ) {
        (Some(number), _, _) => (number, 0.001),
        (_, Some(number), _) => (number, 1.0),
        (_, _, Some(number)) => (number, 1000.0),
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says() {
        let text = "  Thread Stats ...\n     99%   12.34ms\n  479405 requests in 20.10s, 99.00MB read\n  \
            Socket errors: connect 1, read 395, write 2, timeout 3\n  Non-2xx or 3xx responses: 7\n";
        let figures = wrk(text).unwrap();
        assert_eq!((figures.sent, figures.lost, figures.errors), (479_806, 401, 7));
        assert!((figures.p99_ms - 12.34).abs() < 1e-9);
        assert_eq!(wrk("  10 requests in 1.00s\n").unwrap().lost, 0);
        assert!(wrk("unable to connect").is_err());
    }

    #[test]
    fn what_hey_says() {
        let text = "Latency distribution:\n  99% in 0.0123 secs\n\nStatus code distribution:\n  [200]\t1998 responses\n  \
            [502]\t2 responses\n\nError distribution:\n  [3]\tGet \"http://x\": EOF\n";
        let figures = hey(text).unwrap();
        assert_eq!((figures.sent, figures.lost, figures.errors), (2003, 3, 2));
        assert!((figures.p99_ms - 12.3).abs() < 1e-9);
        assert!(hey("").is_err());
    }

    #[test]
    fn times_with_units() {
        assert_eq!(milliseconds("500.00us"), Some(0.5));
        assert_eq!(milliseconds("1.50s"), Some(1500.0));
        assert_eq!(milliseconds("soon"), None);
    }
}
