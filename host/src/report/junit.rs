//! `--report junit=FILE`: a test case for each stage, with its attempts and its log.

use super::{
    Reporter, Stamped,
    story::{StageStory, Story, level_word},
};
use crate::{event::StageStatus, failure::Failure, name::StageName};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestRerun, TestSuite};
use std::{io::Write, time::Duration};

/// Lines of each stage's log in the report: as many as a stage may write.
const LINES: usize = 10_000;

/// Writes the whole report at the end.
pub struct Junit<W> {
    writer: W,
    story: Story,
}

impl<W: Write + Send> Junit<W> {
    pub fn new(writer: W) -> Self {
        Self {
            writer,
            story: Story::new(LINES),
        }
    }
}

impl<W: Write + Send> Reporter for Junit<W> {
    fn event(&mut self, stamped: &Stamped) {
        self.story.event(stamped);
    }

    fn finish(&mut self) {
        // The run's result does not depend on who reads about it.
        let _ = report(&self.story).serialize(&mut self.writer);
    }
}

fn report(story: &Story) -> Report {
    let mut suite = TestSuite::new(story.pipeline.as_str());
    if let Some(run) = &story.run {
        suite.add_property(("run", run.as_str()));
    }
    let mut report = Report::new(story.pipeline.as_str());
    if let Some(end) = &story.end {
        let time = Duration::from_millis(end.duration_ms);
        suite.set_time(time);
        report.set_time(time);
        suite.add_property(("exit.code", end.exit.to_string().as_str()));
        suite.add_property(("exit.reason", end.reason.as_str()));
    }
    for (name, stage) in &story.stages {
        suite.add_test_case(test_case(&story.pipeline, name, stage));
    }
    report.add_test_suite(suite);
    report
}

fn test_case(pipeline: &str, name: &StageName, stage: &StageStory) -> TestCase {
    let mut case = TestCase::new(name.as_str(), status(stage));
    case.set_classname(pipeline);
    if let Some(report) = &stage.report {
        case.set_time(Duration::from_millis(report.duration_ms));
    }
    if let Some(plugin) = &stage.plugin {
        case.add_property(("plugin", plugin.name.as_str()));
        case.add_property(("digest", plugin.digest.as_str()));
    }
    let lines: Vec<String> = stage
        .lines
        .iter()
        .map(|line| format!("{}{}", level_word(line.level), line.text))
        .collect();
    if !lines.is_empty() {
        case.set_system_out(lines.join("\n"));
    }
    case
}

fn status(stage: &StageStory) -> TestCaseStatus {
    let Some(report) = &stage.report else {
        return skipped("not reached");
    };
    let reruns = stage.retried.iter().map(rerun);
    match (report.status, &report.failure) {
        (StageStatus::Skipped, _) => skipped(&report.summary),
        (StageStatus::Succeeded, _) => {
            let mut status = TestCaseStatus::success();
            status.add_reruns(reruns);
            status
        }
        (_, failure) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            if let Some(failure) = failure {
                status.set_message(failure.message.as_str());
                status.set_type(failure.code.as_str());
                status.set_description(description(failure));
            }
            status.add_reruns(reruns);
            status
        }
    }
}

fn skipped(why: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::skipped();
    status.set_message(why);
    status
}

fn rerun(failure: &Failure) -> TestRerun {
    let mut rerun = TestRerun::new(NonSuccessKind::Failure);
    rerun.set_message(failure.message.as_str());
    rerun.set_type(failure.code.as_str());
    rerun
}

fn description(failure: &Failure) -> String {
    let help = failure.help.iter().map(|help| format!("help: {help}"));
    let turn = format!("turn: {}", failure.turn.describe());
    let details = failure.details.iter().map(|details| format!("{details:#}"));
    let stack = failure.stack.iter().map(|frame| format!("at {frame}"));
    let lines: Vec<String> = help.chain([turn]).chain(details).chain(stack).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn a_case_for_each_stage() {
        let mut bytes = Vec::new();
        let mut report = Junit::new(&mut bytes);
        samples::failed_run()
            .iter()
            .for_each(|stamped| report.event(stamped));
        report.finish();
        let text = String::from_utf8(bytes).expect("text");
        for part in [
            r#"<testsuite name="shop" tests="3" skipped="1" errors="0" failures="1" time="61.000""#,
            r#"<property name="exit.code" value="1"/>"#,
            r#"<property name="exit.reason" value="failed"/>"#,
            r#"<testcase name="migrate" classname="shop" time="1.250">"#,
            r#"<failure message="`web` answered 301, expected 200" type="check.failed">"#,
            "<rerunFailure ",
            "warning: still 301 check=web",
            r#"<skipped message="not reached"/>"#,
            r#"<property name="digest" value="sha256:0123456789abcdef"#,
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
