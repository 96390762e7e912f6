//! The `with:` block of a `deploy` stage into checked values.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use windlass_guest::{Error, duration};

/// The whole block, as `plugin.json` describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    pub compose: Vec<String>,
    pub project: String,
    #[serde(default)]
    pub services: Vec<String>,
    #[serde(default)]
    pub profiles: Vec<String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    #[serde(default)]
    /// `None` while planning: an earlier stage has to build it first.
    pub images: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    #[serde(default)]
    pub strategy: BTreeMap<String, Strategy>,
    pub router: Option<Router>,
    #[serde(default)]
    pub checks: BTreeMap<String, Check>,
    #[serde(default = "two_minutes", deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    #[serde(default = "thirty_seconds", deserialize_with = "duration::deserialize")]
    pub watch: Duration,
    #[serde(default = "thirty_seconds", deserialize_with = "duration::deserialize")]
    pub drain: Duration,
    #[serde(default)]
    pub standby: Standby,
    #[serde(default = "five")]
    pub keep: usize,
}

/// What becomes of the colour before, which the traffic may have to go back to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standby {
    /// It is started again when it is needed.
    #[default]
    Stopped,
    /// Going back takes as long as a switch.
    Running,
}

/// How the containers of a service are replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    #[default]
    Rolling,
    BlueGreen,
}

/// What sends the traffic of the blue-green services to their live colour.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Router {
    pub kind: Kind,
    /// The router's own service in the compose files.
    pub service: String,
    /// Where the containers of the colours listen.
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Haproxy,
    Nginx,
}

/// One question to the candidate before it gets traffic, and while it is watched.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Check {
    /// A path at the candidate: `/health`.
    pub http: String,
    /// The blue-green service it is for. Without it, every one.
    pub service: Option<String>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub expect: Expect,
}

/// What a reply has to be like, as in `health-check`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Expect {
    pub status: Vec<u16>,
    pub json: BTreeMap<String, Value>,
    pub header: BTreeMap<String, String>,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            status: vec![200],
            json: BTreeMap::new(),
            header: BTreeMap::new(),
        }
    }
}

fn two_minutes() -> Duration {
    Duration::from_secs(120)
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

fn five() -> usize {
    5
}

impl Config {
    /// The compose files as the sandbox shows them: relative paths of the pipeline file live under `/workspace`.
    pub(crate) fn files(&self) -> Vec<String> {
        let guest = |path: &String| match path.strip_prefix("./").unwrap_or(path) {
            absolute if absolute.starts_with('/') => absolute.to_owned(),
            relative => format!("/workspace/{relative}"),
        };
        self.compose.iter().map(guest).collect()
    }

    pub(crate) fn strategy_of(&self, service: &str) -> Strategy {
        self.strategy.get(service).copied().unwrap_or_default()
    }

    /// The checks that are for a service, by name.
    pub(crate) fn checks_of<'a>(&'a self, service: &'a str) -> impl Iterator<Item = (&'a String, &'a Check)> {
        self.checks
            .iter()
            .filter(move |(_, check)| check.service.as_deref().is_none_or(|of| of == service))
    }

    /// The router; a configuration that was checked has one wherever it is needed.
    ///
    /// # Errors
    /// `config.invalid`.
    pub(crate) fn router(&self) -> Result<&Router, Error> {
        self.router.as_ref().ok_or_else(|| {
            Error::config(
                "a blue-green service needs a `router`: something has to send the traffic to one colour",
            )
            .help("add router: { kind: haproxy, service: router, port: 8000 }")
        })
    }

    /// Everything that can be wrong with the block before anything is read.
    ///
    /// # Errors
    /// `config.invalid`, naming the key.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.compose.is_empty() {
            return Err(Error::config("`compose` names no file"));
        }
        let colourful = |service: &str| self.strategy_of(service) == Strategy::BlueGreen;
        if self.strategy.keys().any(|service| colourful(service)) {
            let router = self.router()?;
            if colourful(&router.service) {
                let message = format!("the router `{}` cannot be blue-green itself", router.service);
                return Err(Error::config(message));
            }
        }
        for (name, check) in &self.checks {
            if !check.http.starts_with('/') {
                let message = format!("check `{name}`: `http: {}` is not a path", check.http);
                return Err(Error::config(message)
                    .help("write the path alone, such as /health: the host is the candidate"));
            }
            if let Some(service) = check.service.as_deref().filter(|service| !colourful(service)) {
                let message = format!("check `{name}` is for `{service}`, which is not blue-green");
                return Err(Error::config(message).help("use a `health-check` stage for it"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(patch: Value, wrong: Option<&str>) {
        let mut with = json!({ "compose": ["compose.yaml"], "project": "p" });
        let patch = patch.as_object().unwrap().clone();
        with.as_object_mut().unwrap().extend(patch);
        let config: Config = serde_json::from_value(with).expect("it has the right shape");
        match (config.check(), wrong) {
            (Ok(()), None) => {}
            (Err(error), Some(text)) => assert!(error.message.contains(text), "{}", error.message),
            (answer, wrong) => panic!("{answer:?} is not {wrong:?}"),
        }
    }

    #[test]
    fn blocks_are_checked() {
        let router = json!({ "kind": "nginx", "service": "router", "port": 8000 });
        check(json!({}), None);
        check(json!({ "compose": [] }), Some("`compose`"));
        check(json!({ "strategy": { "backend": "rolling" } }), None);
        check(
            json!({ "strategy": { "backend": "blue-green" } }),
            Some("needs a `router`"),
        );
        check(
            json!({ "strategy": { "backend": "blue-green" }, "router": router }),
            None,
        );
        check(
            json!({ "strategy": { "router": "blue-green" }, "router": router }),
            Some("blue-green itself"),
        );
        check(
            json!({ "checks": { "up": { "http": "http://backend/health" } } }),
            Some("is not a path"),
        );
        check(
            json!({ "checks": { "up": { "http": "/health", "service": "backend" } } }),
            Some("not blue-green"),
        );
    }

    #[test]
    fn relative_files_are_in_the_workspace() {
        let with = json!({ "compose": ["./a.yaml", "b/c.yaml", "/mnt/d.yaml"], "project": "p" });
        let config: Config = serde_json::from_value(with).unwrap();
        assert_eq!(
            config.files(),
            ["/workspace/a.yaml", "/workspace/b/c.yaml", "/mnt/d.yaml"]
        );
    }
}
