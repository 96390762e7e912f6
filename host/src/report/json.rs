//! `--progress json`: one object a line, version 1 of the shape. A program that reads it may rely on every key here; new ones
//! may come, none goes.

use super::{Out, Reporter, Stamped};
use crate::{
    event::{LogLevel, PluginIdentity, RunEvent, RunStatus, StageReport, StageStatus},
    failure::{Failure, Turn},
    name::{RunId, StageName},
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Serialize;
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
};

/// One line of `windlass run --progress json`.
#[derive(Serialize, JsonSchema)]
struct Line<'a> {
    /// The version of this shape.
    #[schemars(range(min = 1, max = 1))]
    v: u8,
    /// RFC 3339, UTC, with milliseconds.
    #[schemars(regex(pattern = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"))]
    ts: String,
    /// The run's id.
    run: &'a str,
    #[serde(flatten)]
    event: Event<'a>,
}

#[derive(Serialize, JsonSchema)]
#[serde(tag = "event", rename_all_fields = "kebab-case")]
enum Event<'a> {
    #[serde(rename = "run.started")]
    RunStarted {
        pipeline: &'a str,
        /// Every stage, in the order in which they are shown.
        stages: Vec<&'a str>,
        /// True where the run goes on from its journal.
        resumed: bool,
    },
    #[serde(rename = "stage.started")]
    StageStarted {
        stage: &'a str,
        attempt: u32,
        plugin: &'a PluginIdentity,
    },
    #[serde(rename = "stage.log")]
    StageLog {
        stage: &'a str,
        attempt: u32,
        level: LogLevel,
        message: &'a str,
        fields: BTreeMap<&'a str, &'a str>,
    },
    #[serde(rename = "stage.progress")]
    StageProgress {
        stage: &'a str,
        attempt: u32,
        done: u64,
        total: Option<u64>,
        note: Option<&'a str>,
    },
    #[serde(rename = "stage.retrying")]
    StageRetrying {
        stage: &'a str,
        /// The attempt that failed.
        attempt: u32,
        /// How long it waits before the next attempt.
        delay_ms: u64,
        error: Error<'a>,
    },
    #[serde(rename = "stage.finished")]
    StageFinished {
        stage: &'a str,
        attempt: u32,
        status: StageStatus,
        /// False: everything was in place already.
        changed: bool,
        summary: &'a str,
        outputs: &'a BTreeMap<String, Json>,
        error: Option<Error<'a>>,
        duration_ms: u64,
        /// What the sandbox counted.
        usage: &'a BTreeMap<String, u64>,
    },
    #[serde(rename = "stage.compensated")]
    StageCompensated {
        stage: &'a str,
        /// The attempt that was undone.
        attempt: u32,
        status: StageStatus,
        summary: &'a str,
        error: Option<Error<'a>>,
    },
    #[serde(rename = "run.finished")]
    RunFinished {
        status: RunStatus,
        exit: Exit<'a>,
        duration_ms: u64,
        /// The next command to type, where there is one.
        next: Option<&'a str>,
    },
}

#[derive(Serialize, JsonSchema)]
struct Error<'a> {
    /// Stable, dotted, lower case.
    code: &'a str,
    message: &'a str,
    turn: Turn,
    retryable: bool,
    help: Option<&'a str>,
    /// What else is known, as the plugin or service gave it.
    details: Option<&'a Json>,
    /// Frames of the plugin, innermost first, where it trapped.
    stack: &'a [String],
}

#[derive(Serialize, JsonSchema)]
struct Exit<'a> {
    /// The exit code of the process.
    code: u8,
    /// A word for it.
    reason: &'a str,
}

/// The JSON Schema of one line, made from the types that write it.
pub fn schema() -> Json {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    settings
        .into_generator()
        .into_root_schema_for::<Line<'static>>()
        .to_value()
}

/// Writes events as JSON lines.
pub struct JsonLines<W> {
    out: Out<W>,
    run: Option<RunId>,
    /// Of every stage the last one.
    attempts: HashMap<StageName, u32>,
}

impl<W: Write + Send> JsonLines<W> {
    pub fn new(writer: W) -> Self {
        Self {
            out: Out::new(writer),
            run: None,
            attempts: HashMap::new(),
        }
    }
}

impl<W: Write + Send> Reporter for JsonLines<W> {
    fn event(&mut self, stamped: &Stamped) {
        match &stamped.event {
            RunEvent::RunStarted { run, .. } => self.run = Some(run.clone()),
            RunEvent::StageStarted { stage, attempt, .. } => {
                self.attempts.insert(stage.clone(), *attempt);
            }
            _ => {}
        }
        let attempt_of = |stage: &StageName| self.attempts.get(stage).copied().unwrap_or(1);
        let Some((run, event)) = self.run.as_ref().zip(shape(&stamped.event, attempt_of)) else {
            return;
        };
        let line = Line {
            v: 1,
            ts: stamped.ts.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
            run: run.as_str(),
            event,
        };
        let line = serde_json::to_string(&line).expect("keys are texts and nothing in a line can fail");
        self.out.text(&format!("{line}\n"));
    }

    fn finish(&mut self) {}
}

/// What programs see of an event; `None` for what is said to people only.
fn shape(event: &RunEvent, attempt_of: impl Fn(&StageName) -> u32) -> Option<Event<'_>> {
    Some(match event {
        RunEvent::RunStarted {
            pipeline,
            stages,
            resumed,
            ..
        } => Event::RunStarted {
            pipeline,
            stages: stages.iter().map(StageName::as_str).collect(),
            resumed: *resumed,
        },
        RunEvent::StageCompensated {
            stage,
            succeeded,
            summary,
            failure,
        } => Event::StageCompensated {
            stage: stage.as_str(),
            attempt: attempt_of(stage),
            status: if *succeeded {
                StageStatus::Succeeded
            } else {
                StageStatus::Failed
            },
            summary,
            error: failure.as_ref().map(error),
        },
        RunEvent::RunFinished {
            status,
            exit,
            reason,
            duration_ms,
            next,
        } => Event::RunFinished {
            status: *status,
            exit: Exit { code: *exit, reason },
            duration_ms: *duration_ms,
            next: next.as_deref(),
        },
        RunEvent::Notice { .. } => return None,
        of_a_stage => return attempt_shape(of_a_stage),
    })
}

/// What happens in one attempt.
fn attempt_shape(event: &RunEvent) -> Option<Event<'_>> {
    Some(match event {
        RunEvent::StageStarted {
            stage,
            attempt,
            plugin,
        } => Event::StageStarted {
            stage: stage.as_str(),
            attempt: *attempt,
            plugin,
        },
        RunEvent::StageLog {
            stage,
            attempt,
            level,
            message,
            fields,
        } => Event::StageLog {
            stage: stage.as_str(),
            attempt: *attempt,
            level: *level,
            message,
            fields: fields
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect(),
        },
        RunEvent::StageProgress {
            stage,
            attempt,
            done,
            total,
            note,
        } => Event::StageProgress {
            stage: stage.as_str(),
            attempt: *attempt,
            done: *done,
            total: *total,
            note: note.as_deref(),
        },
        RunEvent::StageRetrying {
            stage,
            attempt,
            delay_ms,
            failure,
        } => Event::StageRetrying {
            stage: stage.as_str(),
            attempt: *attempt,
            delay_ms: *delay_ms,
            error: error(failure),
        },
        RunEvent::StageFinished {
            stage,
            attempt,
            report,
        } => finished(stage, *attempt, report),
        _ => return None,
    })
}

fn finished<'a>(stage: &'a StageName, attempt: u32, report: &'a StageReport) -> Event<'a> {
    Event::StageFinished {
        stage: stage.as_str(),
        attempt,
        status: report.status,
        changed: report.changed,
        summary: &report.summary,
        outputs: &report.outputs,
        error: report.failure.as_ref().map(error),
        duration_ms: report.duration_ms,
        usage: &report.usage,
    }
}

fn error(failure: &Failure) -> Error<'_> {
    Error {
        code: &failure.code,
        message: &failure.message,
        turn: failure.turn,
        retryable: failure.retryable,
        help: failure.help.as_deref(),
        details: failure.details.as_ref(),
        stack: &failure.stack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;
    use serde_json::json;

    fn written(events: &[Stamped]) -> String {
        let mut bytes = Vec::new();
        let mut report = JsonLines::new(&mut bytes);
        events.iter().for_each(|stamped| report.event(stamped));
        report.finish();
        String::from_utf8(bytes).expect("text")
    }

    fn parsed(text: &str) -> Vec<Json> {
        text.lines()
            .map(|line| serde_json::from_str(line).expect("one object a line"))
            .collect()
    }

    #[test]
    fn version_1() {
        let text = written(&samples::failed_run());
        let lines = parsed(&text);
        let names: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
        let expected = [
            "run.started",
            "stage.started",
            "stage.log",
            "stage.finished",
            "stage.started",
            "stage.log",
            "stage.retrying",
            "stage.started",
            "stage.log",
            "stage.finished",
            "stage.compensated",
            "run.finished",
        ];
        assert_eq!(names, expected);
        let run = RunId::new(1_700_000_000_000, [0; 10]);
        assert!(
            lines
                .iter()
                .all(|line| line["v"] == 1 && line["run"] == run.as_str())
        );
        assert_eq!(lines[1]["ts"], "2023-11-14T22:13:20.001Z");
        assert_eq!(
            (&lines[10]["stage"], &lines[10]["attempt"]),
            (&json!("migrate"), &json!(1))
        );
        assert_eq!(
            (&lines[6]["delay-ms"], &lines[6]["error"]["turn"]),
            (&json!(2_000), &json!("environment"))
        );
        let failed = &lines[9];
        assert_eq!(
            (&failed["status"], &failed["attempt"]),
            (&json!("failed"), &json!(2))
        );
        assert_eq!(failed["error"]["code"], "check.failed");
        assert_eq!(lines[11]["exit"], json!({ "code": 1, "reason": "failed" }));
        assert_eq!(lines[3]["outputs"], json!({ "version": 3 }));
        assert!(
            text.starts_with(r#"{"v":1,"ts":"2023-11-14T22:13:20.000Z","run":""#),
            "{text}"
        );
    }

    #[test]
    fn every_line_is_of_the_schema() {
        let validator = jsonschema::validator_for(&schema()).expect("a schema");
        let mut events = samples::failed_run();
        let ts = events[0].ts;
        let stage = samples::stage("web");
        let progress = |total, note| RunEvent::StageProgress {
            stage: stage.clone(),
            attempt: 1,
            done: 1,
            total,
            note,
        };
        for event in [progress(None, None), progress(Some(3), Some("checks".into()))] {
            events.push(Stamped { ts, event });
        }
        for line in parsed(&written(&events)) {
            let wrong: Vec<String> = validator
                .iter_errors(&line)
                .map(|error| error.to_string())
                .collect();
            assert!(wrong.is_empty(), "{line}: {wrong:?}");
            for key in line.as_object().expect("an object").keys() {
                let mut short = line.clone();
                short.as_object_mut().expect("an object").remove(key);
                assert!(!validator.is_valid(&short), "without {key}: {line}");
            }
        }
    }

    #[test]
    fn the_schema_refuses_what_is_not_of_version_1() {
        let validator = jsonschema::validator_for(&schema()).expect("a schema");
        let good = parsed(&written(&samples::failed_run())).remove(0);
        assert!(validator.is_valid(&good));
        for (key, value) in [
            ("v", json!(2)),
            ("event", json!("run.began")),
            ("ts", json!("now")),
            ("run", Json::Null),
        ] {
            let mut bad = good.clone();
            bad[key] = value;
            assert!(!validator.is_valid(&bad), "{bad}");
        }
    }
}
