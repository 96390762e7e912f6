//! Where output goes: data to standard output, everything for people to standard error.

use super::{Result, Stopped, exit_code::ExitCode};
use crate::{
    diagnostic::{Diagnostics, Severity},
    failure::{Failure, Turn},
};
use std::io::{IsTerminal, Write};

/// Both streams, and whether people get colours.
pub(super) struct Printer {
    pub(super) colour: bool,
}

impl Printer {
    /// `NO_COLOR` and `CLICOLOR_FORCE` decide, else whether standard error is a terminal.
    pub(super) fn new() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let forced = set("CLICOLOR_FORCE") && std::env::var("CLICOLOR_FORCE").as_deref() != Ok("0");
        Self {
            colour: !set("NO_COLOR") && (forced || std::io::stderr().is_terminal()),
        }
    }

    /// Data. A reader that went away is no failure.
    pub(super) fn data(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let _ = write!(out, "{text}{end}").and_then(|()| out.flush());
    }

    /// For people.
    pub(super) fn say(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// All problems, in the order of the files, and how many there were.
    pub(super) fn problems(&self, problems: &Diagnostics) {
        for problem in problems.sorted() {
            self.say(&problem.render(self.colour));
            self.say("");
        }
        let count = |severity| {
            problems
                .sorted()
                .iter()
                .filter(|one| one.severity == severity)
                .count()
        };
        let shown = |count: usize, word: &str| {
            (count > 0).then(|| format!("{count} {word}{}", if count == 1 { "" } else { "s" }))
        };
        let counts = [
            shown(count(Severity::Error), "error"),
            shown(count(Severity::Warning), "warning"),
        ];
        let counts: Vec<String> = counts.into_iter().flatten().collect();
        if !counts.is_empty() {
            self.say(&counts.join(", "));
        }
    }

    /// A failure outside of a run: what, whose turn, what next.
    pub(super) fn failure(&self, failure: &Failure) {
        self.say(&format!("error[{}]: {}", failure.code, failure.message));
        self.say(&format!("  turn: {}", failure.turn.describe()));
        if let Some(help) = &failure.help {
            self.say(&format!("  help: {help}"));
        }
    }

    /// Says a failure and ends the command with its exit code.
    pub(super) fn stop<T>(&self, failure: &Failure) -> Result<T> {
        self.failure(failure);
        Err(Stopped(exit_of(failure)))
    }

    /// Says the problems and ends: 77 where everything wrong is a denial, else 65.
    pub(super) fn stop_for<T>(&self, problems: &Diagnostics) -> Result<T> {
        self.problems(problems);
        let mut errors = problems
            .sorted()
            .into_iter()
            .filter(|one| one.severity == Severity::Error);
        let denied = errors.all(|one| one.code.starts_with("grant.denied"));
        Err(Stopped(if denied {
            ExitCode::DENIED
        } else {
            ExitCode::INVALID
        }))
    }
}

/// The exit code for a failure that is not a stage's.
pub(super) fn exit_of(failure: &Failure) -> ExitCode {
    match failure.code.as_str() {
        code if crate::lock::is_refusal(code) => ExitCode::LOCKED,
        code if code.starts_with("grant.") || code == "lock.unknown-plugin" => ExitCode::DENIED,
        code if code.starts_with("plugin.")
            || code.starts_with("secret.") && failure.turn == Turn::PipelineAuthor =>
        {
            ExitCode::INVALID
        }
        "secret.unavailable" | "secret.missing" | "secret.denied" => ExitCode::UNAVAILABLE,
        _ if failure.turn == Turn::Windlass => ExitCode::INTERNAL,
        _ if failure.turn == Turn::Environment => ExitCode::UNAVAILABLE,
        _ => ExitCode::INVALID,
    }
}
