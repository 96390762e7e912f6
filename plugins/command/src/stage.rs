//! From a configuration to a program, and from what the program did to the outcome of the stage.

use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use windlass_guest::process::{Output, Program};
use windlass_guest::{Error, Outcome};

/// The most of standard output in `outputs`, as JSON. It is there up to twice (`stdout` and `json`), and all outputs
/// of a stage together may have 64 KiB.
const STDOUT_LIMIT: usize = 30 * 1024;

/// How many of the last lines a failure shows.
const SHOWN_LINES: usize = 20;

/// The `with:` block.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    argv: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    directory: Option<String>,
    #[serde(default = "zero")]
    success_codes: Vec<i32>,
}

/// A success.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) outcome: Outcome,
    /// True when the outcome has only the end of the output.
    pub(crate) shortened: bool,
}

impl Config {
    pub(crate) fn program(&self) -> Result<Program, Error> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(Error::config("`argv` names no program")
                .help("write the program first, then its arguments: argv: [git, status]"));
        }
        Ok(Program {
            argv: self.argv.clone(),
            environment: self.environment.clone(),
            directory: self.directory.clone(),
            input: None,
        })
    }

    /// The program alone: arguments may hold placeholders of secrets, and people know them from the file.
    fn name(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }
}

/// Decides what the program's exit status means, and keeps what later stages may want of its output.
pub(crate) fn judge(config: &Config, output: &Output) -> Result<Judged, Error> {
    if !config.success_codes.contains(&output.exit) {
        return Err(failure(config, output));
    }
    let stdout = output.stdout.trim();
    let kept = end_of(stdout, STDOUT_LIMIT);
    let shortened = kept.len() < stdout.len();
    let mut outcome = Outcome::changed(format!("`{}` exited with {}", config.name(), output.exit))
        .output("exit", output.exit)
        .output("stdout", kept);
    if !shortened && let Ok(document) = serde_json::from_str::<Value>(stdout) {
        outcome = outcome.output("json", document);
    }
    Ok(Judged { outcome, shortened })
}

fn failure(config: &Config, output: &Output) -> Error {
    let written = if output.stderr.trim().is_empty() {
        &output.stdout
    } else {
        &output.stderr
    };
    let lines: Vec<&str> = written.trim_end().lines().collect();
    let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
    let wanted: Vec<String> = config.success_codes.iter().map(i32::to_string).collect();
    let said = last
        .last()
        .map(|line| format!(": {}", line.trim()))
        .unwrap_or_default();
    Error::new(
        "command.failed",
        format!(
            "`{}` exited with {}, expected {}{said}",
            config.name(),
            output.exit,
            wanted.join(" or ")
        ),
    )
    .with_details(json!({ "exit": output.exit, "reply": last.join("\n") }))
    .help("all it wrote is in the stage's log: windlass runs logs")
}

/// The longest end of `text` whose JSON form fits into `limit` bytes.
fn end_of(text: &str, limit: usize) -> &str {
    let mut room = limit;
    let mut start = text.len();
    for (at, character) in text.char_indices().rev() {
        let cost = match character {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            control if control < ' ' => 6,
            other => other.len_utf8(),
        };
        if cost > room {
            break;
        }
        room -= cost;
        start = at;
    }
    &text[start..]
}

fn zero() -> Vec<i32> {
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_guest::metadata::Metadata;

    fn config(with: Value) -> Config {
        serde_json::from_value(with).unwrap()
    }

    /// What becomes of a program that exits with `exit` after writing `stdout` and `stderr`.
    fn check(with: Value, exit: i32, stdout: &str, stderr: &str) -> Result<Value, Error> {
        let output = Output {
            exit,
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        judge(&config(with), &output).map(|judged| json!(judged.outcome.outputs))
    }

    #[test]
    fn metadata_and_configuration_agree() {
        let metadata = Metadata::parse(include_str!("../plugin.json"));
        metadata.describes_fields_of::<Config>("/schema");
        metadata.is_fully_described();
        assert_eq!(metadata.examples_parse::<Config>(), 2);
    }

    #[test]
    fn output_is_trimmed_and_read_when_it_is_json() {
        let with = json!({"argv": ["x"]});
        assert_eq!(
            check(with.clone(), 0, " abc\n", "noise"),
            Ok(json!({"exit": 0, "stdout": "abc"}))
        );
        assert_eq!(
            check(with.clone(), 0, "{\"a\": [1]}\n", ""),
            Ok(json!({"exit": 0, "stdout": "{\"a\": [1]}", "json": {"a": [1]}}))
        );
        assert_eq!(
            check(with, 0, "{\"a\": [1]} {}", ""),
            Ok(json!({"exit": 0, "stdout": "{\"a\": [1]} {}"}))
        );
    }

    #[test]
    fn only_the_named_statuses_are_successes() {
        let with = json!({"argv": ["x"], "success-codes": [0, 3]});
        assert_eq!(
            check(with.clone(), 3, "", ""),
            Ok(json!({"exit": 3, "stdout": ""}))
        );
        let error = check(with, 2, "out", "").unwrap_err();
        assert_eq!(error.code, "command.failed");
        assert_eq!(error.message, "`x` exited with 2, expected 0 or 3: out");
        assert!(!error.retryable);
    }

    #[test]
    fn a_failure_shows_the_last_lines_and_no_argument() {
        let stderr: String = (0..50).map(|line| format!("line {line}\n")).collect();
        let error = check(json!({"argv": ["x", "wlsec_0"]}), 1, "out", &stderr).unwrap_err();
        let details = error.details.unwrap();
        let reply = details["reply"].as_str().unwrap();
        assert_eq!(
            (reply.lines().count(), reply.lines().next()),
            (SHOWN_LINES, Some("line 30"))
        );
        assert_eq!(error.message, "`x` exited with 1, expected 0: line 49");
    }

    #[test]
    fn long_output_keeps_its_end_within_the_limit_of_outputs() {
        let stdout = "\"\u{1}ü".repeat(20_000);
        let output = Output {
            exit: 0,
            stdout,
            stderr: String::new(),
        };
        let judged = judge(&config(json!({"argv": ["x"]})), &output).unwrap();
        let kept = judged.outcome.outputs["stdout"].to_string();
        assert!(judged.shortened);
        assert!(
            (STDOUT_LIMIT - 10..=STDOUT_LIMIT + 2).contains(&kept.len()),
            "{}",
            kept.len()
        );
        assert!(kept.ends_with("ü\""));
    }

    #[test]
    fn a_program_needs_a_name() {
        for argv in [json!([]), json!([""])] {
            assert_eq!(
                config(json!({"argv": argv})).program().unwrap_err().code,
                "config.invalid"
            );
        }
        let program = config(json!({"argv": ["a", "b"], "directory": "/workspace"}))
            .program()
            .unwrap();
        assert_eq!(
            (program.argv.len(), program.directory.as_deref()),
            (2, Some("/workspace"))
        );
    }
}
