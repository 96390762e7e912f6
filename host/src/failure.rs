//! What went wrong, whose turn it is, and what to type next.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who can mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Turn {
    /// The plugin's author.
    Plugin,
    /// Whoever wrote the pipeline file.
    PipelineAuthor,
    /// Whoever runs it, or keeps the policy.
    Operator,
    /// Something outside: a service, a disk, a network.
    Environment,
    /// A bug here.
    Windlass,
}

impl Turn {
    pub fn describe(self) -> &'static str {
        match self {
            Self::Plugin => "the plugin's author",
            Self::PipelineAuthor => "the pipeline's author",
            Self::Operator => "the operator",
            Self::Environment => "the environment (a service, disk or network)",
            Self::Windlass => "Windlass (a bug: please report it)",
        }
    }
}

/// A failure as reports, the journal and retries see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable, dotted, lower case: `grant.denied`, `limit.memory`, `upstream.timeout`. `retry.on` matches it by prefix.
    pub code: String,
    /// One sentence, or a few lines.
    pub message: String,
    pub turn: Turn,
    pub retryable: bool,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// What else is known, as the plugin or service gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<serde_json::Value>,
    /// Frames of the plugin, innermost first, where it trapped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<String>,
}

impl Failure {
    pub fn new(turn: Turn, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            turn,
            retryable: false,
            help: None,
            details: None,
            stack: Vec::new(),
        }
    }

    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn details(mut self, details: serde_json::Value) -> Self {
        self.details = Some(details);
        self
    }

    /// Whether what failed may have happened on the far side all the same: the answer was lost, or it was stopped on its way.
    pub fn may_have_happened(&self) -> bool {
        const LOST: [&str; 10] = [
            "cancelled",
            "limit.time",
            "http.failed",
            "http.timeout",
            "process.timeout",
            "process.signal",
            "sql.unreachable",
            "engine.unreachable",
            "object.unreachable",
            "exec.timeout",
        ];
        LOST.contains(&self.code.as_str())
    }

    /// Whether `prefix` is this code or one of its leading parts: `upstream` matches `upstream.timeout`.
    pub fn matches(&self, prefix: &str) -> bool {
        self.code
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// Whether a service that is needed could not be reached: `vault.unreachable`, `sql.unreachable`, ...
    pub fn is_unreachable(&self) -> bool {
        self.code.ends_with(".unreachable")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_match_by_whole_parts() {
        let failure = Failure::new(Turn::Environment, "upstream.timeout", "no answer");
        assert!(failure.matches("upstream") && failure.matches("upstream.timeout"));
        assert!(!failure.matches("up") && !failure.matches("upstream.timeout.connect"));
        assert!(!failure.is_unreachable());
        assert!(Failure::new(Turn::Environment, "vault.unreachable", "no answer").is_unreachable());
    }
}
