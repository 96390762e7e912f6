//! The last screen of a run. For a failed one in this order: the cause in one line; stage, plugin and digest; the last log
//! lines; the real reply; what was undone and what not; the plugin's stack; help; whose turn it is; what to type next.

use super::{
    duration, short_digest,
    story::{End, StageStory, Story, level_word},
};
use crate::{
    event::{RunStatus, StageReport, StageStatus},
    failure::Failure,
    name::StageName,
};
use serde_json::Value as Json;
use std::fmt::Write;

/// Log lines of a failed stage on the last screen.
pub const LAST_LINES: usize = 30;

/// Colours, or none. Nothing is said by colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    pub colour: bool,
}

impl Palette {
    pub fn red(self, text: &str) -> String {
        self.paint(anstyle::AnsiColor::Red, text)
    }

    pub fn green(self, text: &str) -> String {
        self.paint(anstyle::AnsiColor::Green, text)
    }

    pub fn yellow(self, text: &str) -> String {
        self.paint(anstyle::AnsiColor::Yellow, text)
    }

    fn paint(self, colour: anstyle::AnsiColor, text: &str) -> String {
        if !self.colour {
            return text.into();
        }
        let style = anstyle::Style::new().fg_color(Some(colour.into())).bold();
        format!("{style}{text}{style:#}")
    }
}

/// The last screen, ending in a newline; empty while the run goes on.
pub fn render(story: &Story, palette: Palette) -> String {
    let Some(end) = &story.end else {
        return String::new();
    };
    let mut text = String::new();
    let mut failures: Vec<(&StageName, &StageStory, &Failure)> = story
        .stages
        .iter()
        .filter_map(|(name, stage)| Some((name, stage, stage.report.as_ref()?.failure.as_ref()?)))
        .collect();
    failures.sort_by_key(|(_, stage, _)| (was_cancelled(stage), stage.finished));
    for (name, stage, failure) in &failures {
        render_failure(&mut text, name, stage, failure, palette);
    }
    if end.status != RunStatus::Succeeded {
        render_undone(&mut text, story);
    }
    for (name, _, failure) in &failures {
        if failures.len() > 1 {
            line(&mut text, "  ", &format!("stage {name}:"));
        }
        render_advice(&mut text, failure);
    }
    if let Some(next) = &end.next {
        line(&mut text, "  next: ", next);
    }
    render_end(&mut text, story, end, palette);
    text
}

/// A stage is cancelled because of another one, or of a person: it is not the cause.
fn was_cancelled(stage: &StageStory) -> bool {
    let status = stage.report.as_ref().map(|report| report.status);
    status == Some(StageStatus::Cancelled)
}

/// One line for a finished attempt: `✓ succeeded in 1.2 s: summary`. The mark says no more than the word.
pub fn finished_line(report: &StageReport, palette: Palette) -> String {
    let word = match (report.status, report.changed) {
        (StageStatus::Succeeded, true) => palette.green("✓ succeeded"),
        (StageStatus::Succeeded, false) => palette.green("✓ unchanged"),
        (StageStatus::Failed, _) => palette.red("✗ failed"),
        (StageStatus::Denied, _) => palette.red("✗ denied"),
        (StageStatus::TimedOut, _) => palette.red("✗ timed out"),
        (StageStatus::Skipped, _) => palette.yellow("- skipped"),
        (StageStatus::Cancelled, _) => palette.yellow("- cancelled"),
    };
    let said = match &report.failure {
        Some(failure) => failure.message.lines().next().unwrap_or_default(),
        None => report.summary.as_str(),
    };
    let said = if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    };
    match report.status {
        StageStatus::Skipped => format!("{word}{said}"),
        _ => format!("{word} in {}{said}", duration(report.duration_ms)),
    }
}

/// A failure that belongs to no stage, or comes before the run: cause, help, whose turn.
pub fn render_alone(failure: &Failure, palette: Palette) -> String {
    let mut text = String::new();
    line(&mut text, "", &cause(failure, palette));
    render_advice(&mut text, failure);
    text
}

fn render_failure(
    text: &mut String,
    name: &StageName,
    stage: &StageStory,
    failure: &Failure,
    palette: Palette,
) {
    line(text, "", &cause(failure, palette));
    let mut place = format!("stage {name}");
    if let Some(plugin) = &stage.plugin {
        let _ = write!(place, ", plugin {} {}", plugin.name, short_digest(&plugin.digest));
    }
    if stage.attempts > 1 {
        let _ = write!(place, ", attempt {}", stage.attempts);
    }
    line(text, "  in: ", &place);
    render_lines(text, stage);
    render_details(text, failure.details.as_ref());
}

fn cause(failure: &Failure, palette: Palette) -> String {
    format!("{}[{}]: {}", palette.red("error"), failure.code, failure.message)
}

fn render_advice(text: &mut String, failure: &Failure) {
    if !failure.stack.is_empty() {
        line(text, "  ", "stack of the plugin, innermost first:");
        for frame in &failure.stack {
            line(text, "    ", frame);
        }
    }
    if let Some(help) = &failure.help {
        line(text, "  help: ", help);
    }
    line(text, "  turn: ", failure.turn.describe());
}

fn render_lines(text: &mut String, stage: &StageStory) {
    if stage.lines.is_empty() {
        return;
    }
    let shown = stage.lines.len().min(LAST_LINES);
    line(
        text,
        "  ",
        &format!("last {shown} log lines (all: windlass runs logs):"),
    );
    for entry in stage.lines.iter().skip(stage.lines.len() - shown) {
        line(
            text,
            "    | ",
            &format!("{}{}", level_word(entry.level), entry.text),
        );
    }
}

/// What the other side said comes first and as it is; the rest as `key: value`.
fn render_details(text: &mut String, details: Option<&Json>) {
    let Some(Json::Object(details)) = details else {
        return;
    };
    if let Some(reply) = details.get("reply") {
        line(text, "  ", "the real reply:");
        line(text, "    | ", &plain_text(reply));
    }
    for (key, value) in details
        .iter()
        .filter(|(key, _)| *key != "reply" && *key != "help")
    {
        line(text, &format!("  {key}: "), &plain_text(value));
    }
}

fn plain_text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Object(_) | Json::Array(_) => serde_json::to_string_pretty(value).unwrap_or_default(),
        other => other.to_string(),
    }
}

fn render_undone(text: &mut String, story: &Story) {
    for (name, stage) in &story.stages {
        match (&stage.compensated, &stage.report) {
            (Some(done), _) if done.succeeded => line(text, "  undone: ", &labelled(name, &done.summary)),
            (Some(failed), _) => {
                let why = failed
                    .failure
                    .as_ref()
                    .map_or(&failed.summary, |failure| &failure.message);
                line(text, "  not undone: ", &labelled(name, why));
            }
            (None, Some(report)) if report.status == StageStatus::Succeeded && report.changed => {
                line(text, "  left as it is: ", &labelled(name, &report.summary));
            }
            _ => {}
        }
    }
}

fn labelled(name: &StageName, text: &str) -> String {
    if text.is_empty() {
        name.to_string()
    } else {
        format!("{name}: {text}")
    }
}

fn render_end(text: &mut String, story: &Story, end: &End, palette: Palette) {
    let word = match end.status {
        RunStatus::Succeeded => palette.green("succeeded"),
        RunStatus::Failed => palette.red("failed"),
        RunStatus::RolledBack => palette.red("failed and was rolled back"),
        RunStatus::NeedsOperator => palette.red("failed and needs an operator"),
        RunStatus::Paused => palette.yellow("is paused"),
        RunStatus::Cancelled => palette.yellow("was cancelled"),
        RunStatus::Running => palette.yellow("goes on"),
    };
    let run = story.run.as_ref().map_or("", |run| run.as_str());
    let took = duration(end.duration_ms);
    let counts = counts(story);
    line(
        text,
        "",
        &format!(
            "run {run} {word} in {took}: {counts} (exit {}, {})",
            end.exit, end.reason
        ),
    );
}

fn counts(story: &Story) -> String {
    let count =
        |wanted: &dyn Fn(&StageStory) -> bool| story.stages.values().filter(|stage| wanted(stage)).count();
    let with = |status: StageStatus, changed: Option<bool>| {
        count(&|stage| {
            stage.report.as_ref().is_some_and(|report| {
                report.status == status && changed.is_none_or(|changed| report.changed == changed)
            })
        })
    };
    let parts = [
        (with(StageStatus::Succeeded, Some(true)), "succeeded"),
        (with(StageStatus::Succeeded, Some(false)), "unchanged"),
        (with(StageStatus::Failed, None), "failed"),
        (with(StageStatus::Denied, None), "denied"),
        (with(StageStatus::TimedOut, None), "timed out"),
        (with(StageStatus::Cancelled, None), "cancelled"),
        (with(StageStatus::Skipped, None), "skipped"),
        (count(&|stage| stage.report.is_none()), "not reached"),
    ];
    let shown: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    shown.join(", ")
}

/// One or more lines, each behind `start`, the later ones behind as many spaces and at least two.
fn line(text: &mut String, start: &str, content: &str) {
    let bar = start.ends_with("| ");
    for (index, part) in content.lines().enumerate() {
        if index == 0 || bar {
            text.push_str(start);
        } else {
            text.extend(std::iter::repeat_n(' ', start.len().max(2)));
        }
        text.push_str(part);
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn story() -> Story {
        let mut story = Story::new(LAST_LINES);
        samples::failed_run()
            .iter()
            .for_each(|stamped| story.event(stamped));
        story
    }

    #[test]
    fn the_failure_screen() {
        insta::assert_snapshot!(render(&story(), Palette { colour: false }), @"
        error[check.failed]: `web` answered 301, expected 200
          in: stage web, plugin health-check sha256:0123456789ab, attempt 2
          last 2 log lines (all: windlass runs logs):
            | debug: not shown live check=web
            | warning: still 301 check=web
          the real reply:
            | HTTP/1.1 301 Moved Permanently
            | Location: https://web/up
          status: 301
          undone: migrate: back to version 2
          help: let the check expect 301, or give it the address behind the redirect
          turn: the environment (a service, disk or network)
          next: windlass run --from web
        run 01hf7yat000000000000000000 failed and was rolled back in 1 min 1 s: 1 succeeded, 1 failed, 1 not reached (exit 1, failed)
        ");
    }

    #[test]
    fn colour_says_nothing_alone() {
        let plain = render(&story(), Palette { colour: false });
        let coloured = render(&story(), Palette { colour: true });
        assert_ne!(plain, coloured);
        let mut stripped = String::new();
        for (index, part) in coloured.split('\u{1b}').enumerate() {
            let rest = part.split_once('m').map_or(part, |(_, rest)| rest);
            stripped.push_str(if index == 0 { part } else { rest });
        }
        assert_eq!(stripped, plain);
    }

    #[test]
    fn the_cause_comes_first() {
        let mut story = story();
        let mut cancelled = story.stages["web"].clone();
        let report = cancelled.report.as_mut().expect("it ended");
        report.status = StageStatus::Cancelled;
        report.failure = Some(Failure::new(
            crate::failure::Turn::Operator,
            "run.cancelled",
            "cancelled",
        ));
        story.stages.insert_before(0, samples::stage("early"), cancelled);
        let text = render(&story, Palette { colour: false });
        assert!(text.starts_with("error[check.failed]"), "{text}");
        assert!(text.contains("\nerror[run.cancelled]: cancelled\n"), "{text}");
    }

    #[test]
    fn a_cause_of_several_lines_stays_one_block() {
        let mut failure = samples::not_well();
        failure.message = "one\ntwo".into();
        let text = render_alone(&failure, Palette { colour: false });
        assert!(text.starts_with("error[check.failed]: one\n  two\n"), "{text}");
    }

    #[test]
    fn a_trap_shows_the_plugins_stack() {
        let mut failure = samples::not_well();
        failure.stack = vec!["stage::run".into(), "main".into()];
        let text = render_alone(&failure, Palette { colour: false });
        assert!(
            text.contains("  stack of the plugin, innermost first:\n    stage::run\n    main\n"),
            "{text}"
        );
        assert!(
            text.ends_with("turn: the environment (a service, disk or network)\n"),
            "{text}"
        );
    }
}
