//! From the JSON texts of a guest to options, parameters and steps, or to what is wrong with them.

use crate::{
    capability::Leaves,
    failure::{Failure, Turn},
};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::time::Duration;

/// A label is a line of the journal, not a document.
const LONGEST_LABEL: usize = 200;
/// A transaction of more steps belongs into a file that the database reads by itself.
const MOST_STEPS: usize = 10_000;

/// How to connect: see `open` in the WIT.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Options {
    pub(crate) create: bool,
    pub(crate) read_only: bool,
    connect_timeout_ms: u64,
    lock_timeout_ms: u64,
    statement_timeout_ms: Option<u64>,
    pub(crate) search_path: Option<String>,
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    pub(crate) sql: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) parameters: Vec<Json>,
    /// What the author says it leaves behind when it is not undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaves: Option<Left>,
}

/// The one thing that can be said: nothing that was there before is changed.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Left {
    Additive,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create: false,
            read_only: false,
            connect_timeout_ms: 10_000,
            lock_timeout_ms: 5_000,
            statement_timeout_ms: None,
            search_path: None,
        }
    }
}

impl Options {
    /// # Errors
    /// `sql.options`.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        // By way of an object: an array would do for the derived code too.
        let object = serde_json::from_str::<serde_json::Map<String, Json>>(text).map(Json::Object);
        object.and_then(serde_json::from_value).map_err(|_| {
            let failure = invalid("the options of `open` are no JSON object of known options");
            failure.help(
                "known are: create, read-only, connect-timeout-ms, lock-timeout-ms, statement-timeout-ms, search-path",
            )
        })
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn lock_timeout(&self) -> Duration {
        Duration::from_millis(self.lock_timeout_ms)
    }

    /// For one statement; without it only the stage's deadline stops a statement.
    pub(crate) fn statement_timeout(&self) -> Option<Duration> {
        self.statement_timeout_ms.map(Duration::from_millis)
    }
}

/// # Errors
/// `sql.options`.
pub(crate) fn parameters(text: &str) -> Result<Vec<Json>, Failure> {
    serde_json::from_str(text).map_err(|_| invalid("the parameters are no JSON array"))
}

/// # Errors
/// `sql.options`.
pub(crate) fn steps(text: &str) -> Result<Vec<Step>, Failure> {
    let steps: Vec<Step> = serde_json::from_str(text).map_err(|_| {
        let failure = invalid("the steps are no JSON array of steps");
        failure.help(r#"a step is { "sql": text, "parameters"?: [value], "leaves"?: "additive" }"#)
    })?;
    if steps.is_empty() || steps.len() > MOST_STEPS {
        return Err(invalid(&format!("a transaction has 1 to {MOST_STEPS} steps")));
    }
    Ok(steps)
}

/// # Errors
/// `sql.options`.
pub(crate) fn check_label(label: &str) -> Result<(), Failure> {
    if label.is_empty() || label.len() > LONGEST_LABEL || label.chars().any(char::is_control) {
        let problem = format!("the label of a transaction is one line of 1 to {LONGEST_LABEL} bytes");
        return Err(invalid(&problem));
    }
    Ok(())
}

/// What the whole transaction leaves: one step that changes something makes it a change.
pub(crate) fn leaves(steps: &[Step]) -> Leaves {
    if steps.iter().all(|step| step.leaves == Some(Left::Additive)) {
        Leaves::Additive
    } else {
        Leaves::State
    }
}

fn invalid(problem: &str) -> Failure {
    Failure::new(Turn::Plugin, "sql.options", problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        let check = |text: &str, valid: bool| {
            let parsed = Options::parse(text);
            assert_eq!(parsed.is_ok(), valid, "{text}");
            let code = parsed.err().map(|failure| failure.code);
            assert!(code.is_none_or(|code| code == "sql.options"));
        };
        check("{}", true);
        check(r#"{"create":true,"lock-timeout-ms":1}"#, true);
        check(r#"{"crate":true}"#, false);
        check(r#"{"create":"yes"}"#, false);
        check(r#"{"lock-timeout-ms":-1}"#, false);
        check("[]", false);
        check("", false);
    }

    #[test]
    fn steps_say_what_they_leave() {
        let check = |text: &str, expected: Option<Leaves>| {
            assert_eq!(steps(text).ok().map(|steps| leaves(&steps)), expected, "{text}");
        };
        check(r#"[{"sql":"a"}]"#, Some(Leaves::State));
        check(r#"[{"sql":"a","leaves":"additive"}]"#, Some(Leaves::Additive));
        check(
            r#"[{"sql":"a","leaves":"additive"},{"sql":"b"}]"#,
            Some(Leaves::State),
        );
        check(r#"[{"sql":"a","leaves":"nothing"}]"#, None);
        check(r#"[{"sql":"a","args":[]}]"#, None);
        check("[]", None);
    }
}
