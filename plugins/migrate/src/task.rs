//! A command migration's `with:` into the specification of the one container that it runs in.
//!
//! Knows names and compose models; refuses to know engines.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use windlass_guest::Error;

use crate::config::Config;
use crate::script::Phase;
use crate::service::Service;

/// The service that a command belongs to when nothing else is said.
const SERVICE: &str = "migrate";

/// A command migration.
#[derive(Debug)]
pub struct Task<'a> {
    config: &'a Config,
    pub(crate) command: &'a [String],
    pub(crate) phase: Phase,
    project: Option<&'a str>,
    service: &'a str,
}

impl<'a> Task<'a> {
    /// # Errors
    /// `config.invalid`, naming the key.
    pub fn new(config: &'a Config) -> Result<Self, Error> {
        let command = config.command.as_deref().unwrap_or_default();
        if command.is_empty() {
            return Err(Error::config("`command` names no program")
                .help("write it as a list: `command: [alembic, upgrade, head]`"));
        }
        if !config.url.is_empty() || !config.directory.is_empty() {
            return Err(Error::config(
                "`command` stands beside `url` or `directory`: which of them is meant?",
            )
            .help("SQL files and a command are two stages"));
        }
        let phase = config.phase.ok_or_else(|| {
            Error::config("`phase` is missing: nobody can see in a command what it means for older code")
                .help(
                    "say `phase: expand` where older code goes on working, else `contract` or `irreversible`",
                )
        })?;
        match (config.compose.is_empty(), &config.service, &config.image) {
            (false, None, _) => {
                return Err(Error::config(
                    "`compose` needs `service`: the one whose environment the command gets",
                ));
            }
            (true, _, None) => {
                return Err(
                    Error::config("`command` needs `image`, or `compose` and `service`")
                        .help("for example `image: \"${{ stages.build.outputs.backend.image }}\"`"),
                );
            }
            _ => {}
        }
        Ok(Self {
            config,
            command,
            phase,
            project: config.project.as_deref(),
            service: config.service.as_deref().unwrap_or(SERVICE),
        })
    }

    /// What `load` of `windlass:containers/compose` is asked; `None` where no compose file says anything.
    pub(crate) fn compose(&self) -> Option<Value> {
        let files: Vec<String> = self.config.compose.iter().map(|file| guest_path(file)).collect();
        let mut options = json!({ "files": files });
        if let Some(project) = self.project {
            options["project"] = project.into();
        }
        if !self.config.variables.is_empty() {
            options["variables"] = json!(self.config.variables);
        }
        (!files.is_empty()).then_some(options)
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.config.timeout
    }

    /// `alembic upgrade head`.
    pub(crate) fn shown(&self) -> String {
        self.command.join(" ")
    }

    /// The project the container belongs to: what the file says, else what the compose files say, else the pipeline.
    pub(crate) fn project(&self, model: Option<&Value>, pipeline: &str) -> String {
        let of_model = model.and_then(|model| model["name"].as_str());
        self.project.or(of_model).unwrap_or(pipeline).to_owned()
    }

    /// One name for all runs: the engine itself then keeps a second migration from starting beside a first.
    pub(crate) fn name(&self, project: &str) -> String {
        match self.service {
            SERVICE => format!("{project}-{SERVICE}"),
            service => format!("{project}-{service}-{SERVICE}"),
        }
    }

    /// What the engine makes. `read` gives the text of a file that a compose file names.
    ///
    /// # Errors
    /// `config.invalid`, `compose.*`, those of `read`.
    pub(crate) fn spec(
        &self,
        project: &str,
        model: Option<&Value>,
        read: &mut dyn FnMut(&str) -> Result<String, Error>,
    ) -> Result<Value, Error> {
        let mut spec = match model {
            Some(model) => Service::new(model, self.service, project)?.spec(&self.config.secrets, read)?,
            None => json!({ "environment": {}, "networks": {} }),
        };
        let set = |spec: &mut Value, key: &str, value: Value| spec[key] = value;
        set(&mut spec, "project", project.into());
        set(&mut spec, "service", self.service.into());
        set(&mut spec, "name", self.name(project).into());
        set(&mut spec, "one-off", true.into());
        set(&mut spec, "command", json!(self.command));
        if let Some(image) = &self.config.image {
            set(&mut spec, "image", image.as_str().into());
        }
        if spec["image"].is_null() {
            let message = format!(
                "the service `{}` of the compose files names no image",
                self.service
            );
            return Err(Error::config(message)
                .help("say which image: `image: \"${{ stages.build.outputs.NAME.image }}\"`"));
        }
        if !spec["env-files"].is_null() && !self.config.variables.is_empty() {
            set(&mut spec, "variables", json!(self.config.variables));
        }
        if let Some(entrypoint) = &self.config.entrypoint {
            set(&mut spec, "entrypoint", json!(entrypoint));
        }
        if let Some(user) = &self.config.user {
            set(&mut spec, "user", user.as_str().into());
        }
        if let Some(network) = &self.config.network {
            spec["networks"][network] = json!({});
        }
        for (name, value) in &self.config.environment {
            spec["environment"][name] = value.as_str().into();
        }
        Ok(spec)
    }
}

/// The path a guest sees: relative paths of the pipeline file live under `/workspace`.
fn guest_path(text: &str) -> String {
    match text.starts_with('/') {
        true => text.to_owned(),
        false => format!("/workspace/{}", text.strip_prefix("./").unwrap_or(text)),
    }
}

/// The image, env files and mounts of a specification, as capabilities with their values.
pub(crate) fn needs(spec: &Value) -> BTreeMap<String, &'static str> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |key: &str| spec[key].as_array().into_iter().flatten();
    let mut needs = BTreeMap::from([(text(&spec["image"]), "containers.run")]);
    needs.extend(list("env-files").map(|file| (format!("{}:ro", text(file)), "containers.mount")));
    let named = list("mounts").filter(|mount| !text(&mount["source"]).is_empty());
    needs.extend(named.map(|mount| {
        let mode = if mount["read-only"] == true { "ro" } else { "rw" };
        (format!("{}:{mode}", text(&mount["source"])), "containers.mount")
    }));
    needs
}
