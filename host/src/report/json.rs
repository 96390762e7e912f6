//! `--progress json`: one object a line, version 1 of the shape. A program that reads it may rely on every key here; new ones
//! may come, none goes.

use super::{Out, Reporter, Stamped};
use crate::{event::RunEvent, failure::Failure, name::RunId};
use serde_json::{Map, Value as Json, json};
use std::io::Write;

/// Writes events as JSON lines.
pub struct JsonLines<W> {
    out: Out<W>,
    run: Option<RunId>,
}

impl<W: Write + Send> JsonLines<W> {
    pub fn new(writer: W) -> Self {
        Self {
            out: Out::new(writer),
            run: None,
        }
    }
}

impl<W: Write + Send> Reporter for JsonLines<W> {
    fn event(&mut self, stamped: &Stamped) {
        if let RunEvent::RunStarted { run, .. } = &stamped.event {
            self.run = Some(run.clone());
        }
        let Some((event, rest)) = shape(&stamped.event) else {
            return;
        };
        let mut line = Map::new();
        line.insert("v".into(), json!(1));
        line.insert("ts".into(), json!(stamped.ts));
        line.insert("run".into(), json!(self.run));
        line.insert("event".into(), json!(event));
        if let Json::Object(rest) = rest {
            line.extend(rest);
        }
        self.out.text(&format!("{}\n", Json::Object(line)));
    }

    fn finish(&mut self) {}
}

/// The event's name and its own keys; `None` for what is said to people only.
fn shape(event: &RunEvent) -> Option<(&'static str, Json)> {
    Some(match event {
        RunEvent::RunStarted {
            pipeline,
            stages,
            resumed,
            ..
        } => (
            "run.started",
            json!({ "pipeline": pipeline, "stages": stages, "resumed": resumed }),
        ),
        RunEvent::StageStarted {
            stage,
            attempt,
            plugin,
        } => (
            "stage.started",
            json!({ "stage": stage, "attempt": attempt, "plugin": plugin }),
        ),
        RunEvent::StageLog {
            stage,
            attempt,
            level,
            message,
            fields,
        } => {
            let fields: Map<String, Json> = fields
                .iter()
                .map(|(key, value)| (key.clone(), json!(value)))
                .collect();
            let log = json!({
                "stage": stage, "attempt": attempt, "level": level, "message": message, "fields": fields,
            });
            ("stage.log", log)
        }
        RunEvent::StageProgress {
            stage,
            attempt,
            done,
            total,
            note,
        } => (
            "stage.progress",
            json!({ "stage": stage, "attempt": attempt, "done": done, "total": total, "note": note }),
        ),
        RunEvent::StageRetrying {
            stage,
            attempt,
            delay_ms,
            failure,
        } => (
            "stage.retrying",
            json!({ "stage": stage, "attempt": attempt, "delay-ms": delay_ms, "error": error(Some(failure)) }),
        ),
        RunEvent::StageFinished {
            stage,
            attempt,
            report,
        } => (
            "stage.finished",
            json!({
                "stage": stage, "attempt": attempt, "status": report.status, "changed": report.changed,
                "summary": report.summary, "outputs": report.outputs, "error": error(report.failure.as_ref()),
                "duration-ms": report.duration_ms, "usage": report.usage,
            }),
        ),
        RunEvent::StageCompensated {
            stage,
            succeeded,
            summary,
            failure,
        } => (
            "stage.compensated",
            json!({
                "stage": stage, "status": if *succeeded { "succeeded" } else { "failed" }, "summary": summary,
                "error": error(failure.as_ref()),
            }),
        ),
        RunEvent::Notice { .. } => return None,
        RunEvent::RunFinished {
            status,
            exit,
            reason,
            duration_ms,
            next,
        } => (
            "run.finished",
            json!({
                "status": status, "exit": { "code": exit, "reason": reason }, "duration-ms": duration_ms, "next": next,
            }),
        ),
    })
}

fn error(failure: Option<&Failure>) -> Json {
    failure.map_or(Json::Null, |failure| {
        json!({
            "code": failure.code, "message": failure.message, "turn": failure.turn, "retryable": failure.retryable,
            "help": failure.help, "details": failure.details,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn version_1() {
        let mut bytes = Vec::new();
        let mut report = JsonLines::new(&mut bytes);
        for stamped in samples::failed_run() {
            report.event(&stamped);
        }
        report.finish();
        let text = String::from_utf8(bytes).expect("text");
        let lines: Vec<Json> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("one object a line"))
            .collect();
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
        assert_eq!(lines[0]["ts"], "2023-11-14T22:13:20Z");
        let failed = &lines[9];
        assert_eq!(
            (&failed["status"], &failed["attempt"]),
            (&json!("failed"), &json!(2))
        );
        assert_eq!(failed["error"]["code"], "check.failed");
        assert_eq!(lines[11]["exit"], json!({ "code": 1, "reason": "stage-failed" }));
        assert_eq!(lines[3]["outputs"], json!({ "version": 3 }));
        assert!(
            text.starts_with(r#"{"v":1,"ts":"2023-11-14T22:13:20Z","run":""#),
            "{text}"
        );
    }
}
