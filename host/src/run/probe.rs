//! What became of an effect that a crash has cut off: the host looks where it can tell, then the plugin is asked, then the person
//! who said `--assume`. What nobody knows stops the stage; nothing is done twice on a guess.

use super::{attempt::Workshop, ledger::Ledger, recover::UnknownEffect};
use crate::{
    artifact::{Artifact, Reference},
    event::RunEvent,
    failure::{Failure, Turn},
    journal::Journal,
    name::{RunId, StageName},
    pipeline::expression::Outputs,
    sandbox::Reconciled,
    service::{
        containers::probe as containers,
        flow::probe::{self as flow, Became},
    },
};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use tokio::sync::mpsc;

/// What a person says of a stage's unknown effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assumed {
    Done,
    NotDone,
}

/// The unknown effects of one stage, and whoever may know.
pub(super) struct Settling {
    pub(super) stage: usize,
    pub(super) name: StageName,
    pub(super) effects: Vec<UnknownEffect>,
    pub(super) assumed: Option<Assumed>,
    pub(super) run: RunId,
    /// What a person types to go on: `resume`, or `rollback`.
    pub(super) command: &'static str,
    pub(super) outputs: Outputs,
    pub(super) workshop: Arc<Workshop>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) events: mpsc::Sender<RunEvent>,
}

/// What is known of an effect.
enum Found {
    /// With the result that the host function answers with.
    Done(Json),
    NotDone,
    Unknown,
}

/// Why an artifact is not the one that was meant.
enum Absent {
    Missing,
    /// Another has its name.
    Other,
}

impl From<Absent> for Found {
    fn from(absent: Absent) -> Self {
        match absent {
            Absent::Missing => Self::NotDone,
            Absent::Other => Self::Unknown,
        }
    }
}

impl From<Became> for Found {
    fn from(became: Became) -> Self {
        match became {
            Became::Done(result) => Self::Done(result),
            Became::NotDone => Self::NotDone,
            Became::Unknown => Self::Unknown,
        }
    }
}

impl Settling {
    /// Finds out about every effect, and writes it down.
    ///
    /// # Errors
    /// `effect.unknown` for the first that nobody knows; those before it are settled.
    pub(super) async fn settle(self) -> Result<(), Failure> {
        for effect in &self.effects {
            let found = match self.look(effect).await? {
                Found::Unknown => self.ask(effect).await?,
                found => found,
            };
            let result = match (found, self.assumed) {
                (Found::Done(result), _) => Some(result),
                (Found::NotDone, _) | (Found::Unknown, Some(Assumed::NotDone)) => None,
                (Found::Unknown, Some(Assumed::Done)) => Some(answer_of(effect)),
                (Found::Unknown, None) => return Err(self.unknown(effect)),
            };
            self.ledger.settle(&effect.key, result.is_some());
            self.journal.settle(&effect.key, result);
        }
        Ok(())
    }

    /// What the host can see by itself.
    async fn look(&self, effect: &UnknownEffect) -> Result<Found, Failure> {
        let text = |key: &str| effect.arguments[key].as_str().unwrap_or_default();
        match effect.function.as_str() {
            "artifacts.write" => {
                let found = self.artifact(text("name"), text("digest"))?;
                Ok(found.map_or_else(Found::from, |artifact| Found::Done(json!(artifact))))
            }
            "flow.copy" if effect.arguments["to"]["object"].is_string() => {
                let grants = self.ledger.clone();
                let looked =
                    self.workshop
                        .look_for_object(self.stage, grants, &effect.key, &effect.arguments);
                looked.await.map(Found::from)
            }
            "flow.copy" => self.copy(&effect.arguments).await,
            // Making what is there already changes nothing, nor does deleting what is gone.
            "sql.create" | "objects.delete" => Ok(Found::NotDone),
            function if function.starts_with("containers.") => {
                let engine = self.workshop.wiring.engine();
                let became = containers::look(engine, function, &effect.key, &effect.arguments).await?;
                Ok(Found::from(became))
            }
            _ => Ok(Found::Unknown),
        }
    }

    /// Published under its name with this digest, or not at all: the store publishes whole.
    fn artifact(&self, name: &str, digest: &str) -> Result<Result<Artifact, Absent>, Failure> {
        let reference = Reference::parse(&self.run, &format!("{}/{name}", self.name))?;
        match self.workshop.wiring.artifacts().find(&reference) {
            Ok(found) if found.digest == digest => Ok(Ok(found)),
            Ok(_) => Ok(Err(Absent::Other)),
            Err(failure) if failure.matches("artifact.missing") => Ok(Err(Absent::Missing)),
            Err(failure) => Err(failure),
        }
    }

    /// A copy sets aside what it puts in place in one step.
    async fn copy(&self, arguments: &Json) -> Result<Found, Failure> {
        if let Some((name, digest, copied)) = flow::artifact(arguments) {
            let found = self.artifact(name, digest)?;
            return Ok(found.map_or_else(Found::from, |artifact| {
                let mut copied = copied.clone();
                copied["artifact"] = json!(artifact);
                Found::Done(copied)
            }));
        }
        Ok(Found::from(
            self.workshop.look_for_copy(self.stage, arguments).await?,
        ))
    }

    async fn ask(&self, effect: &UnknownEffect) -> Result<Found, Failure> {
        if !self.workshop.can_reconcile(self.stage) {
            return Ok(Found::Unknown);
        }
        let shown = effect.to_json();
        let answer = self.workshop.reconcile(
            self.stage,
            self.run.clone(),
            &self.outputs,
            &shown,
            self.ledger.clone(),
            self.events.clone(),
        );
        Ok(match answer.await? {
            Reconciled::Done => Found::Done(answer_of(effect)),
            Reconciled::NotDone => Found::NotDone,
            Reconciled::Unknown => Found::Unknown,
        })
    }

    fn unknown(&self, effect: &UnknownEffect) -> Failure {
        let Self {
            name, run, command, ..
        } = self;
        let message = format!(
            "stage `{name}` was cut off during `{}` ({}), and whether it happened is not known",
            effect.function,
            shown(&effect.arguments)
        );
        Failure::new(Turn::Operator, "effect.unknown", message).help(format!(
            "look whether it happened, then `windlass {command} {run} --assume '{name}=done'` or `--assume '{name}=not-done'`"
        ))
    }
}

/// What the host function answers for an effect that is known to have happened, where its own answer is lost.
fn answer_of(effect: &UnknownEffect) -> Json {
    match effect.function.as_str() {
        "http.request" => json!({ "status": 200 }),
        "sql.transact" => json!({ "rows-affected": [] }),
        "containers.exec" => json!({ "exit": 0, "stdout": "", "stderr": "" }),
        "process.run" => json!({ "exit": 0, "stdout": "", "stderr": "" }),
        "flow.copy" if effect.arguments["aside"]["copied"].is_object() => {
            effect.arguments["aside"]["copied"].clone()
        }
        _ => json!({ "reconciled": true }),
    }
}

fn shown(arguments: &Json) -> String {
    const LONGEST: usize = 200;
    let text = arguments.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
