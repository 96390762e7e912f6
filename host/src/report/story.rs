//! Events → the run so far. What summaries, JUnit and the JSON report are written from; itself it writes nothing.

use super::Stamped;
use crate::{
    event::{LogLevel, PluginIdentity, RunEvent, RunStatus, StageReport},
    failure::Failure,
    name::{RunId, StageName},
};
use indexmap::IndexMap;
use serde_json::{Value as Json, json};
use std::collections::VecDeque;

/// A run as far as it was told.
#[derive(Clone, Debug)]
pub struct Story {
    pub run: Option<RunId>,
    pub pipeline: String,
    pub started: Option<jiff::Timestamp>,
    pub finished: Option<jiff::Timestamp>,
    pub end: Option<End>,
    pub stages: IndexMap<StageName, StageStory>,
    /// Log lines kept for each stage: the last ones.
    keep_lines: usize,
}

/// How the run ended.
#[derive(Clone, Debug)]
pub struct End {
    pub status: RunStatus,
    pub exit: u8,
    pub reason: String,
    pub duration_ms: u64,
    pub next: Option<String>,
}

/// One stage as far as it was told.
#[derive(Clone, Debug, Default)]
pub struct StageStory {
    pub plugin: Option<PluginIdentity>,
    pub attempts: u32,
    pub started: Option<jiff::Timestamp>,
    pub finished: Option<jiff::Timestamp>,
    pub report: Option<StageReport>,
    /// Of attempts that were followed by another.
    pub retried: Vec<Failure>,
    pub lines: VecDeque<Line>,
    pub lines_dropped: u64,
    pub compensated: Option<Compensated>,
}

#[derive(Clone, Debug)]
pub struct Line {
    pub level: LogLevel,
    pub text: String,
}

#[derive(Clone, Debug)]
pub struct Compensated {
    pub succeeded: bool,
    pub summary: String,
    pub failure: Option<Failure>,
}

impl Story {
    /// Keeps the last `keep_lines` log lines of each stage.
    pub fn new(keep_lines: usize) -> Self {
        Self {
            run: None,
            pipeline: String::new(),
            started: None,
            finished: None,
            end: None,
            stages: IndexMap::new(),
            keep_lines,
        }
    }

    pub fn event(&mut self, Stamped { ts, event }: &Stamped) {
        match event {
            RunEvent::RunStarted {
                run,
                pipeline,
                stages,
                ..
            } => {
                self.run = Some(run.clone());
                self.pipeline.clone_from(pipeline);
                self.started = Some(*ts);
                for stage in stages {
                    self.stage(stage);
                }
            }
            RunEvent::StageKnown {
                stage,
                attempts,
                plugin,
                report,
            } => {
                let stage = self.stage(stage);
                stage.plugin.clone_from(plugin);
                stage.attempts = *attempts;
                stage.report = Some(report.clone());
            }
            RunEvent::StageStarted {
                stage,
                attempt,
                plugin,
            } => {
                let stage = self.stage(stage);
                stage.report = None;
                stage.plugin = Some(plugin.clone());
                stage.attempts = *attempt;
                stage.started.get_or_insert(*ts);
            }
            RunEvent::StageLog {
                stage,
                level,
                message,
                fields,
                ..
            } => {
                let keep = self.keep_lines;
                let text = line_text(message, fields);
                self.stage(stage).add_line(Line { level: *level, text }, keep);
            }
            RunEvent::StageRetrying { stage, failure, .. } => self.stage(stage).retried.push(failure.clone()),
            RunEvent::StageFinished { stage, report, .. } => {
                let stage = self.stage(stage);
                stage.report = Some(report.clone());
                stage.finished = Some(*ts);
            }
            RunEvent::StageCompensated {
                stage,
                succeeded,
                summary,
                failure,
            } => {
                self.stage(stage).compensated = Some(Compensated {
                    succeeded: *succeeded,
                    summary: summary.clone(),
                    failure: failure.clone(),
                });
            }
            RunEvent::RunFinished {
                status,
                exit,
                reason,
                duration_ms,
                next,
            } => {
                self.finished = Some(*ts);
                self.end = Some(End {
                    status: *status,
                    exit: *exit,
                    reason: reason.clone(),
                    duration_ms: *duration_ms,
                    next: next.clone(),
                });
            }
            RunEvent::StageProgress { .. } | RunEvent::Notice { .. } => {}
        }
    }

    fn stage(&mut self, name: &StageName) -> &mut StageStory {
        self.stages.entry(name.clone()).or_default()
    }

    /// The run in the shape of `runs show --format json`.
    pub fn to_json(&self) -> Json {
        let stages = self.stages.iter().map(|(name, stage)| {
            let status = match (&stage.report, stage.started) {
                (Some(report), _) => json!(report.status),
                (None, Some(_)) => json!("running"),
                (None, None) => json!("pending"),
            };
            let outputs = stage.report.as_ref().map(|report| json!(report.outputs));
            json!({
                "name": name, "status": status, "attempts": stage.attempts, "plugin": stage.plugin,
                "outputs": outputs.unwrap_or_else(|| json!({})), "started": stage.started, "finished": stage.finished,
            })
        });
        let end = self.end.as_ref();
        json!({
            "id": self.run, "pipeline": self.pipeline,
            "status": end.map_or(RunStatus::Running, |end| end.status),
            "exit": end.map(|end| json!({ "code": end.exit, "reason": end.reason })),
            "started": self.started, "finished": self.finished, "stages": stages.collect::<Json>(),
        })
    }
}

impl StageStory {
    fn add_line(&mut self, line: Line, keep: usize) {
        self.lines.push_back(line);
        if self.lines.len() > keep {
            self.lines.pop_front();
            self.lines_dropped += 1;
        }
    }
}

/// A log line with its fields, as people see it.
pub fn line_text(message: &str, fields: &[(String, String)]) -> String {
    let mut text = message.to_string();
    for (key, value) in fields {
        text.push_str(&format!(" {key}={value}"));
    }
    text
}

/// The level's word, empty for the usual one.
pub fn level_word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "trace: ",
        LogLevel::Debug => "debug: ",
        LogLevel::Info => "",
        LogLevel::Warn => "warning: ",
        LogLevel::Error => "error: ",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn the_same_shape_as_runs_show() {
        let mut story = Story::new(1);
        samples::failed_run()
            .iter()
            .for_each(|stamped| story.event(stamped));
        let shown = story.to_json();
        let keys =
            |value: &Json| -> Vec<String> { value.as_object().expect("an object").keys().cloned().collect() };
        assert_eq!(
            keys(&shown),
            [
                "id", "pipeline", "status", "exit", "started", "finished", "stages"
            ]
        );
        let stage = [
            "name", "status", "attempts", "plugin", "outputs", "started", "finished",
        ];
        assert_eq!(keys(&shown["stages"][0]), stage);
        assert_eq!(
            (&shown["status"], &shown["stages"][2]["status"]),
            (&json!("rolled-back"), &json!("pending"))
        );
        let web = &story.stages["web"];
        assert_eq!((web.lines.len(), web.lines_dropped, web.retried.len()), (1, 1, 1));
    }
}
