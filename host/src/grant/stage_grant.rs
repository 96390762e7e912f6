//! What one stage may touch, and the one place that says so at run time: [`Granter::check`], the first line of every host
//! function.

use crate::{
    capability::Capability,
    failure::{Failure, Turn},
    name::StageName,
    pattern::Pattern,
};
use std::sync::Arc;

/// The effective capabilities of one stage.
#[derive(Clone, Debug)]
pub struct StageGrant {
    pub stage: StageName,
    pub plugin: String,
    entries: Vec<Entry>,
}

/// One line of `allow:` that the plugin requests too and the ceiling leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub capability: Capability,
    pub pattern: Pattern,
    /// `file:line:col` of the line in `allow:`.
    pub rule: String,
}

/// One answer, allowed or denied, for the audit log.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub stage: StageName,
    pub capability: Capability,
    pub value: String,
    pub allowed: bool,
    /// The `file:line:col` that allowed it.
    pub rule: Option<String>,
}

/// Where decisions are written.
pub trait DecisionLog: Send + Sync {
    fn record(&self, decision: &Decision);
}

/// Answers for one attempt of one stage.
#[derive(Clone)]
pub struct Granter {
    grant: Arc<StageGrant>,
    log: Arc<dyn DecisionLog>,
}

impl StageGrant {
    /// Only `grant::approve` and tests have the entries to call this with.
    pub fn new(stage: StageName, plugin: String, entries: Vec<Entry>) -> Self {
        Self {
            stage,
            plugin,
            entries,
        }
    }

    /// The rule that covers the value.
    pub fn covering(&self, capability: Capability, value: &Pattern) -> Option<&Entry> {
        let implied = |entry: &&Entry| {
            entry.capability == capability
                || (capability == Capability::SecretsUse && entry.capability == Capability::SecretsReveal)
        };
        self.entries
            .iter()
            .filter(implied)
            .find(|entry| entry.pattern.covers(value))
    }

    /// All entries of one capability.
    pub fn of(&self, capability: Capability) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(move |entry| entry.capability == capability)
    }

    /// Whether anything of this capability is granted.
    pub fn has(&self, capability: Capability) -> bool {
        self.of(capability).next().is_some()
    }
}

impl Granter {
    pub fn new(grant: Arc<StageGrant>, log: Arc<dyn DecisionLog>) -> Self {
        Self { grant, log }
    }

    pub fn grant(&self) -> &StageGrant {
        &self.grant
    }

    /// Writes down a call of something that was never granted; `value` says what was called.
    pub fn deny(&self, capability: Capability, value: &str) {
        self.log.record(&Decision {
            stage: self.grant.stage.clone(),
            capability,
            value: value.into(),
            allowed: false,
            rule: None,
        });
    }

    /// Whether the stage may use `capability` for `value`.
    ///
    /// # Errors
    /// `grant.denied`, with the line to add.
    pub fn check(&self, capability: Capability, value: &Pattern) -> Result<(), Failure> {
        let entry = self.grant.covering(capability, value);
        self.log.record(&Decision {
            stage: self.grant.stage.clone(),
            capability,
            value: value.to_string(),
            allowed: entry.is_some(),
            rule: entry.map(|entry| entry.rule.clone()),
        });
        if entry.is_some() {
            return Ok(());
        }
        let stage = &self.grant.stage;
        let message = format!("stage `{stage}` may not use `{capability}` for `{value}`");
        Err(
            Failure::new(Turn::PipelineAuthor, "grant.denied", message).help(format!(
                "if it should, add to `{}` under `allow:`: {}",
                stage.base(),
                allow_line(capability, value)
            )),
        )
    }
}

/// The line of `allow:` that grants `value`, as an author would type it.
pub fn allow_line(capability: Capability, value: &Pattern) -> String {
    let quoted = |text: &str| serde_json::Value::String(text.into()).to_string();
    match value {
        Pattern::Files { path, .. } => {
            let text = value.to_string();
            format!("files: {{ {path}: {} }}", text.split(' ').next().unwrap_or("ro"))
        }
        _ => {
            let value = quoted(&value.to_string());
            match capability.name().split_once('.') {
                Some((outer, inner)) => format!("{outer}: {{ {inner}: [{value}] }}"),
                None => format!("{}: [{value}]", capability.name()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Recorded(Mutex<Vec<Decision>>);

    impl DecisionLog for Recorded {
        fn record(&self, decision: &Decision) {
            self.0.lock().expect("not poisoned").push(decision.clone());
        }
    }

    fn entry(capability: Capability, text: &str) -> Entry {
        let pattern = Pattern::parse(capability, text).expect("valid");
        Entry {
            capability,
            pattern,
            rule: "a.yaml:1:1".into(),
        }
    }

    #[test]
    fn every_answer_is_recorded_and_a_denial_names_the_line_to_add() {
        let entries = vec![
            entry(Capability::Http, "https://a"),
            entry(Capability::SecretsReveal, "id"),
        ];
        let stage = StageName::new("fetch").expect("valid");
        let log = Arc::new(Recorded::default());
        let granter = Granter::new(
            Arc::new(StageGrant::new(stage, "vault".into(), entries)),
            log.clone(),
        );
        let check = |capability, value: &str| {
            granter.check(capability, &Pattern::parse(capability, value).expect("valid"))
        };
        assert_eq!(check(Capability::Http, "https://a:443"), Ok(()));
        assert_eq!(check(Capability::SecretsUse, "id"), Ok(()), "reveal implies use");
        let denied = check(Capability::Http, "https://b").expect_err("not granted");
        assert_eq!(denied.code, "grant.denied");
        assert!(
            denied
                .help
                .expect("says what to add")
                .contains(r#"http: ["https://b"]"#)
        );
        let denied = check(Capability::Files, "rw /workspace/a").expect_err("not granted");
        assert!(
            denied
                .help
                .expect("says what to add")
                .contains("files: { /workspace/a: rw }")
        );
        let denied = check(Capability::SecretsPut, "x").expect_err("not granted");
        assert!(
            denied
                .help
                .expect("says what to add")
                .contains(r#"secrets: { put: ["x"] }"#)
        );
        let recorded: Vec<bool> = log
            .0
            .lock()
            .expect("not poisoned")
            .iter()
            .map(|one| one.allowed)
            .collect();
        assert_eq!(recorded, [true, true, false, false, false]);
    }
}
