//! `--progress plain`: a line for everything that happens, for logs and pipes. In a CI service with groups, the lines of a
//! stage come together once it has finished, because groups of stages that run in parallel would interleave.

use super::{
    Out, Reporter, Stamped,
    ci::Ci,
    duration, short_digest,
    story::{Story, level_word, line_text},
    summary::{self, LAST_LINES, Palette, finished_line},
};
use crate::{
    event::{LogLevel, RunEvent},
    name::StageName,
};
use std::{collections::HashMap, io::Write};

/// Writes lines for people.
pub struct Plain<W> {
    out: Out<W>,
    palette: Palette,
    ci: Option<Ci>,
    story: Story,
    /// Lines of running stages, where there are groups.
    held: HashMap<StageName, String>,
}

impl<W: Write + Send> Plain<W> {
    pub fn new(writer: W, palette: Palette, ci: Option<Ci>) -> Self {
        Self {
            out: Out::new(writer),
            palette,
            ci,
            story: Story::new(LAST_LINES),
            held: HashMap::new(),
        }
    }

    /// A text that no stage's group takes in.
    fn text(&mut self, text: &str) {
        match self.ci {
            Some(ci) => self.out.text(&ci.harmless(text)),
            None => self.out.text(text),
        }
    }

    fn stage_line(&mut self, stage: &StageName, text: &str) {
        let mut lines = String::new();
        for part in text.lines() {
            lines.push_str(&format!("[{stage}] {part}\n"));
        }
        if self.ci.is_some() {
            self.held.entry(stage.clone()).or_default().push_str(&lines);
        } else {
            self.out.text(&lines);
        }
    }

    fn release(&mut self, stage: &StageName, stamped: &Stamped, failed: bool) {
        let (Some(ci), Some(lines)) = (self.ci, self.held.remove(stage)) else {
            return;
        };
        let title = format!("stage {stage}");
        let group = ci.group(stage.as_str(), stamped.ts.as_second(), &title, &lines, failed);
        self.out.text(&group);
    }
}

impl<W: Write + Send> Reporter for Plain<W> {
    fn event(&mut self, stamped: &Stamped) {
        self.story.event(stamped);
        match &stamped.event {
            RunEvent::StageFinished { stage, report, .. } => {
                self.stage_line(stage, &finished_line(report, self.palette));
                self.release(stage, stamped, report.failure.is_some());
                let annotation = report
                    .failure
                    .as_ref()
                    .zip(self.ci)
                    .and_then(|(failure, ci)| ci.annotation(&format!("stage {stage}"), &failure.message));
                annotation.iter().for_each(|line| self.out.text(line));
            }
            RunEvent::RunFinished { .. } => {
                let stages: Vec<StageName> = self.held.keys().cloned().collect();
                stages
                    .iter()
                    .for_each(|stage| self.release(stage, stamped, false));
                self.text(&summary::render(&self.story, self.palette));
            }
            other => match line_of(other, self.palette) {
                Some((Some(stage), text)) => self.stage_line(stage, &text),
                Some((None, text)) => self.text(&format!("{text}\n")),
                None => {}
            },
        }
    }

    fn finish(&mut self) {
        let rest: Vec<String> = self.held.drain().map(|(_, lines)| lines).collect();
        rest.iter().for_each(|lines| self.text(lines));
    }
}

/// The line of an event that is shown as it happens, and the stage it belongs to.
pub(super) fn line_of(event: &RunEvent, palette: Palette) -> Option<(Option<&StageName>, String)> {
    Some(match event {
        RunEvent::RunStarted {
            run,
            pipeline,
            stages,
            resumed,
        } => {
            let word = if *resumed { "goes on" } else { "started" };
            let plural = if stages.len() == 1 { "" } else { "s" };
            (
                None,
                format!("run {run} of {pipeline} {word}: {} stage{plural}", stages.len()),
            )
        }
        RunEvent::StageStarted {
            stage,
            attempt,
            plugin,
        } => {
            let again = if *attempt > 1 {
                format!(", attempt {attempt}")
            } else {
                String::new()
            };
            let digest = short_digest(&plugin.digest);
            (Some(stage), format!("started: {} {digest}{again}", plugin.name))
        }
        RunEvent::StageLog {
            stage,
            level,
            message,
            fields,
            ..
        } if *level >= LogLevel::Info => {
            let word = match level {
                LogLevel::Warn => palette.yellow(level_word(*level)),
                LogLevel::Error => palette.red(level_word(*level)),
                _ => level_word(*level).into(),
            };
            (Some(stage), format!("{word}{}", line_text(message, fields)))
        }
        RunEvent::StageRetrying {
            stage,
            attempt,
            delay_ms,
            failure,
        } => {
            let after = duration(*delay_ms);
            let (code, message) = (&failure.code, &failure.message);
            (
                Some(stage),
                format!("attempt {attempt} failed [{code}]: {message}; again in {after}"),
            )
        }
        RunEvent::StageCompensated {
            stage,
            succeeded,
            summary,
            failure,
        } => {
            let word = if *succeeded {
                palette.yellow("undone")
            } else {
                palette.red("could not be undone")
            };
            let said = failure.as_ref().map_or(summary, |failure| &failure.message);
            (Some(stage), format!("{word}: {said}"))
        }
        RunEvent::Notice { level, message } => (None, format!("{}{message}", level_word(*level))),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn shown(ci: Option<Ci>) -> String {
        let mut bytes = Vec::new();
        let mut report = Plain::new(&mut bytes, Palette { colour: false }, ci);
        samples::failed_run()
            .iter()
            .for_each(|stamped| report.event(stamped));
        report.finish();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_failed_run() {
        let text = shown(None);
        let live = text.split("error[").next().unwrap_or_default();
        insta::assert_snapshot!(live, @"
        run 01hf7yat000000000000000000 of shop started: 3 stages
        [migrate] started: migrate sha256:0123456789ab
        [migrate] applying 003 check=web
        [migrate] ✓ succeeded in 1.2 s: 3 migrations applied
        [web] started: health-check sha256:0123456789ab
        [web] attempt 1 failed [check.failed]: `web` answered 301, expected 200; again in 2.0 s
        [web] started: health-check sha256:0123456789ab, attempt 2
        [web] warning: still 301 check=web
        [web] ✗ failed in 1.2 s: `web` answered 301, expected 200
        [migrate] undone: back to version 2
        ");
    }

    #[test]
    fn groups_are_whole() {
        let text = shown(Some(Ci::GitHub));
        let group = "::group::stage migrate\n[migrate] started: migrate sha256:0123456789ab\n[migrate] applying 003 \
                     check=web\n[migrate] ✓ succeeded in 1.2 s: 3 migrations applied\n::endgroup::\n";
        assert!(text.contains(group), "{text}");
        assert!(
            text.contains("::error title=stage web::`web` answered 301, expected 200\n"),
            "{text}"
        );
    }

    #[test]
    fn a_failure_of_several_lines_is_no_command() {
        let mut events = samples::failed_run();
        let mut said = 0;
        for stamped in &mut events {
            if let RunEvent::StageFinished { report, .. } = &mut stamped.event
                && let Some(failure) = &mut report.failure
            {
                failure.message = "no\n::set-output name=a::b".into();
                failure.help = Some("help\n::stop-commands::x".into());
                said += 1;
            }
        }
        assert_eq!(said, 1);
        let mut bytes = Vec::new();
        let mut report = Plain::new(&mut bytes, Palette { colour: false }, Some(Ci::GitHub));
        events.iter().for_each(|stamped| report.event(stamped));
        report.finish();
        let text = String::from_utf8(bytes).expect("text");
        let commands = text.lines().filter(|line| line.trim_start().starts_with("::"));
        let commands: Vec<&str> = commands.collect();
        assert_eq!(
            commands,
            [
                "::group::stage migrate",
                "::endgroup::",
                "::error title=stage web::no%0A::set-output name=a::b",
                "::group::stage migrate",
                "::endgroup::",
            ],
            "{text}"
        );
    }
}
