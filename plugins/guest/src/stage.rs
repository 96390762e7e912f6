//! What a plugin implements, and how its typed values become the texts that cross the boundary.

use crate::bindings::stage::types;
use crate::{Error, context};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a stage did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    /// False when everything was in place already: the stage shows as "unchanged".
    pub changed: bool,
    /// One line for a person.
    pub summary: String,
    /// Named results for `${{ stages.<name>.outputs.<key> }}`, at most 64 KiB in total.
    pub outputs: BTreeMap<String, Value>,
    /// A JSON object for reports; nothing reads it to decide.
    pub details: Option<Value>,
}

impl Outcome {
    /// Something was changed.
    pub fn changed(summary: impl Into<String>) -> Self {
        Self {
            changed: true,
            summary: summary.into(),
            ..Self::default()
        }
    }

    /// Everything was in place already.
    pub fn unchanged(summary: impl Into<String>) -> Self {
        Self {
            changed: false,
            summary: summary.into(),
            ..Self::default()
        }
    }

    /// Adds one named result.
    pub fn output(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.outputs.insert(name.into(), value.into());
        self
    }
}

/// The one thing every plugin does.
pub trait Stage {
    /// The `with:` block. Defaults of the schema are filled in before it is read.
    type Config: DeserializeOwned;

    /// Does the work. Called once per instance.
    fn run(config: Self::Config) -> Result<Outcome, Error>;
}

/// Tells what `run` would do, reading only.
pub trait Planner: Stage {
    /// The effects `run` would have, in order.
    fn plan(config: Self::Config) -> Result<Vec<Effect>, Error>;
}

/// One effect that `run` would have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effect {
    /// `create`, `update`, `delete` or `run`.
    pub action: &'static str,
    /// What it happens to.
    pub target: String,
    /// One line for a person.
    pub summary: String,
    /// The capability it needs, when its value is known only by planning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// The value of that capability, checked against the grants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// Undoes what `run` did.
pub trait Compensator: Stage {
    /// `outputs` are those of the completed run, empty when it failed.
    fn compensate(
        config: Self::Config,
        outputs: BTreeMap<String, Value>,
        effects: Vec<PastEffect>,
    ) -> Result<Outcome, Error>;
}

/// Finds out about an effect whose outcome was lost in a crash.
pub trait Reconciler: Stage {
    /// Did it happen?
    fn reconcile(config: Self::Config, effect: PastEffect) -> Result<Verdict, Error>;
}

/// An effect as the journal has it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct PastEffect {
    /// Its idempotency key.
    pub key: String,
    /// The host function that was called.
    pub function: String,
    /// What it was called with.
    #[serde(default)]
    pub arguments: Value,
    /// `done` or `unknown`.
    pub state: String,
}

/// The answer of a reconciler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It happened.
    Done,
    /// It did not.
    NotDone,
    /// Nobody can tell.
    Unknown,
}

/// Called by [`export!`](crate::export): the export `lifecycle.run`.
#[doc(hidden)]
pub fn run<S: Stage>() -> Result<types::Outcome, types::Error> {
    Ok(outcome(S::run(config::<S>(&context::config())?)?))
}

/// Called by [`export!`](crate::export): the export `planner.plan`.
#[doc(hidden)]
pub fn plan<S: Planner>() -> Result<String, types::Error> {
    let effects = S::plan(config::<S>(&context::config())?)?;
    Ok(serde_json::to_string(&effects).expect("effects are plain texts"))
}

/// Called by [`export!`](crate::export): the export `compensator.compensate`.
#[doc(hidden)]
pub fn compensate<S: Compensator>(
    outputs: Vec<(String, String)>,
    effects: String,
) -> Result<types::Outcome, types::Error> {
    let outputs = outputs
        .into_iter()
        .map(|(name, text)| Ok((name, read(&text)?)))
        .collect::<Result<_, Error>>()?;
    Ok(outcome(S::compensate(
        config::<S>(&context::config())?,
        outputs,
        read(&effects)?,
    )?))
}

/// Called by [`export!`](crate::export): the export `reconciler.reconcile`.
#[doc(hidden)]
pub fn reconcile<S: Reconciler>(effect: String) -> Result<String, types::Error> {
    let verdict = S::reconcile(config::<S>(&context::config())?, read(&effect)?)?;
    let word = match verdict {
        Verdict::Done => "done",
        Verdict::NotDone => "not-done",
        Verdict::Unknown => "unknown",
    };
    Ok(word.to_owned())
}

/// Reads the `with:` block. The host has checked it against the plugin's schema, so a failure here means that the
/// schema allows more than the plugin understands.
fn config<S: Stage>(text: &str) -> Result<S::Config, Error> {
    serde_json::from_str(text).map_err(|cause| {
        Error::config("the stage's `with:` block does not have the form this plugin reads")
            .with_details(serde_json::json!({ "reason": cause.to_string() }))
            .help("compare it with the schema that `windlass plugin inspect` shows")
    })
}

/// Reads a text the host wrote.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|cause| {
        Error::new(
            "host.reply",
            "the host answered in a form this plugin does not know",
        )
        .with_details(serde_json::json!({ "reason": cause.to_string() }))
    })
}

fn outcome(from: Outcome) -> types::Outcome {
    types::Outcome {
        changed: from.changed,
        summary: from.summary,
        outputs: from
            .outputs
            .into_iter()
            .map(|(name, value)| (name, value.to_string()))
            .collect(),
        details: from.details.map(|details| details.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Greeting;

    #[derive(Deserialize)]
    struct Name {
        name: String,
    }

    impl Stage for Greeting {
        type Config = Name;
        fn run(config: Name) -> Result<Outcome, Error> {
            Ok(Outcome::changed(format!("hello {}", config.name)).output("length", config.name.len()))
        }
    }

    #[test]
    fn outputs_cross_as_json_texts() {
        let config = config::<Greeting>(r#"{"name":"you"}"#).unwrap();
        let there = outcome(Greeting::run(config).unwrap());
        assert_eq!((there.changed, there.summary.as_str()), (true, "hello you"));
        assert_eq!(there.outputs, [("length".to_owned(), "3".to_owned())]);
    }

    #[test]
    fn a_block_of_another_form_is_the_authors_turn() {
        let Err(error) = config::<Greeting>(r#"{"nam":"you"}"#) else {
            panic!("accepted")
        };
        assert_eq!(error.code, "config.invalid");
        assert!(
            error.details.unwrap()["help"]
                .as_str()
                .unwrap()
                .contains("windlass plugin inspect")
        );
    }

    #[test]
    fn effects_leave_out_what_they_do_not_name() {
        let effect = Effect {
            action: "create",
            target: "t".into(),
            summary: "s".into(),
            capability: None,
            value: None,
        };
        assert_eq!(
            serde_json::to_string(&[effect]).unwrap(),
            r#"[{"action":"create","target":"t","summary":"s"}]"#
        );
    }
}
