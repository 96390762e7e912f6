//! What people and machines see of a run: pure consumers of events that write to what they are given.
//!
//! Texts are redacted and inert before they come here. A reader that goes away (a closed pipe) is no error of the run: from
//! then on nothing is written to it.

pub mod ci;
pub mod json;
pub mod junit;
pub mod plain;
pub mod redact;
pub mod story;
pub mod summary;
pub mod tty;

use crate::event::RunEvent;
use std::io::Write;

/// An event and when it happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamped {
    pub ts: jiff::Timestamp,
    pub event: RunEvent,
}

/// Somebody who is told of everything, in order.
pub trait Reporter: Send {
    fn event(&mut self, stamped: &Stamped);

    /// After the last event.
    fn finish(&mut self);
}

/// A writer whose reader may go away.
struct Out<W> {
    writer: W,
    gone: bool,
}

impl<W: Write> Out<W> {
    fn new(writer: W) -> Self {
        Self { writer, gone: false }
    }

    fn text(&mut self, text: &str) {
        if !self.gone {
            let written = self.writer.write_all(text.as_bytes());
            self.gone = written.and_then(|()| self.writer.flush()).is_err();
        }
    }
}

/// `0.3 s`, `12 s`, `3 min 20 s`, `2 h 5 min`.
pub fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000;
    match seconds {
        0..10 => format!("{seconds}.{} s", milliseconds % 1_000 / 100),
        10..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// `sha256:` and the first twelve digits: what people compare.
pub fn short_digest(digest: &str) -> &str {
    const SHOWN: usize = "sha256:".len() + 12;
    digest.get(..SHOWN).unwrap_or(digest)
}

#[cfg(test)]
pub(crate) mod samples {
    //! The events of one failed run, for the tests of every report.

    use super::Stamped;
    use crate::{
        event::{LogLevel, PluginIdentity, RunEvent, RunStatus, StageReport, StageStatus},
        failure::{Failure, Turn},
        name::{RunId, StageName},
    };
    use serde_json::json;
    use std::collections::BTreeMap;

    pub(crate) fn stage(name: &str) -> StageName {
        StageName::new(name).expect("valid")
    }

    fn started(name: &str, attempt: u32) -> RunEvent {
        let plugin = PluginIdentity {
            name: if name == "web" { "health-check" } else { name }.into(),
            digest: format!("sha256:{}", "0123456789abcdef".repeat(4)),
        };
        RunEvent::StageStarted {
            stage: stage(name),
            attempt,
            plugin,
        }
    }

    fn log(name: &str, attempt: u32, level: LogLevel, message: &str) -> RunEvent {
        RunEvent::StageLog {
            stage: stage(name),
            attempt,
            level,
            message: message.into(),
            fields: vec![("check".into(), "web".into())],
        }
    }

    fn finished(name: &str, attempt: u32, failure: Option<Failure>) -> RunEvent {
        let report = StageReport {
            status: if failure.is_some() {
                StageStatus::Failed
            } else {
                StageStatus::Succeeded
            },
            changed: failure.is_none(),
            summary: if failure.is_some() {
                String::new()
            } else {
                "3 migrations applied".into()
            },
            outputs: BTreeMap::from([("version".to_string(), json!(3))]),
            failure,
            duration_ms: 1_250,
            usage: BTreeMap::new(),
        };
        RunEvent::StageFinished {
            stage: stage(name),
            attempt,
            report,
        }
    }

    pub(crate) fn not_well() -> Failure {
        Failure::new(
            Turn::Environment,
            "check.failed",
            "`web` answered 301, expected 200",
        )
        .retryable()
        .help("let the check expect 301, or give it the address behind the redirect")
        .details(
            json!({ "reply": "HTTP/1.1 301 Moved Permanently\nLocation: https://web/up", "status": 301 }),
        )
    }

    pub(crate) fn failed_run() -> Vec<Stamped> {
        let events = vec![
            RunEvent::RunStarted {
                run: RunId::new(1_700_000_000_000, [0; 10]),
                pipeline: "shop".into(),
                stages: vec![stage("migrate"), stage("web"), stage("notify")],
                resumed: false,
            },
            started("migrate", 1),
            log("migrate", 1, LogLevel::Info, "applying 003"),
            finished("migrate", 1, None),
            started("web", 1),
            log("web", 1, LogLevel::Debug, "not shown live"),
            RunEvent::StageRetrying {
                stage: stage("web"),
                attempt: 1,
                delay_ms: 2_000,
                failure: not_well(),
            },
            started("web", 2),
            log("web", 2, LogLevel::Warn, "still 301"),
            finished("web", 2, Some(not_well())),
            RunEvent::StageCompensated {
                stage: stage("migrate"),
                succeeded: true,
                summary: "back to version 2".into(),
                failure: None,
            },
            RunEvent::RunFinished {
                status: RunStatus::RolledBack,
                exit: 1,
                reason: "failed".into(),
                duration_ms: 61_000,
                next: Some("windlass run --from web".into()),
            },
        ];
        let stamp = |(index, event)| {
            let ms = 1_700_000_000_000 + i64::try_from(index).expect("few");
            let ts = jiff::Timestamp::from_millisecond(ms).expect("in range");
            Stamped { ts, event }
        };
        events.into_iter().enumerate().map(stamp).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (milliseconds, shown) in [
            (0, "0.0 s"),
            (9_990, "9.9 s"),
            (59_999, "59 s"),
            (61_000, "1 min 1 s"),
            (7_500_000, "2 h 5 min"),
        ] {
            assert_eq!(duration(milliseconds), shown);
        }
    }

    #[test]
    fn a_closed_pipe_is_written_to_once() {
        struct Closed(u32);
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                self.0 += 1;
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut out = Out::new(Closed(0));
        out.text("a");
        out.text("b");
        assert_eq!(out.writer.0, 1);
    }
}
