//! Images that a container engine builds: one after another, each tagged with the version and, with `push-to`, pushed.
//!
//! An image counts as pushed when the registry answered with its digest, and the stage as a change only where an image or a digest is new: the layer
//! cache makes a second run of the same sources one that changes nothing.

use serde_json::{Value, json};
use windlass_guest::containers::{Image, Pushed};
use windlass_guest::{Effect, Error, Outcome};

use crate::config::{Config, guest_path};
use crate::wanted::{self, Wanted};

/// What building needs of the engine. All errors are those of `windlass:containers/images`.
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
pub trait Engine {
    fn image(&mut self, reference: &str) -> Result<Option<Image>, Error>;
    fn build(&mut self, spec: &Value) -> Result<Image, Error>;
    fn tag(&mut self, source: &str, target: &str) -> Result<(), Error>;
    fn push(&mut self, reference: &str, options: &Value) -> Result<Pushed, Error>;
    /// The model of compose files.
    fn load(&mut self, options: &Value) -> Result<Value, Error>;
    fn pipeline(&mut self) -> String;
    fn info(&mut self, message: &str);
    fn is_cancelled(&mut self) -> bool;
}

/// Builds every image that is not an archive.
///
/// # Errors
/// `config.invalid`, `build.digest`, `cancelled`, and those of the engine.
pub fn run(config: &Config, engine: &mut dyn Engine) -> Result<Outcome, Error> {
    let wanted = prepare(config, engine)?;
    let mut outcome = Outcome::default();
    for one in &wanted {
        if engine.is_cancelled() {
            return Err(Error::new("cancelled", "the run wants this stage to end").retryable());
        }
        let made = make(one, config, engine).map_err(|error| Error {
            message: format!("image `{}`: {}", one.name, error.message),
            ..error
        })?;
        outcome.changed |= made.is_new;
        outcome.outputs.insert(one.name.clone(), made.output);
    }
    let count = match wanted.len() {
        1 => "1 image".to_owned(),
        many => format!("{many} images"),
    };
    outcome.summary = match (&config.push_to, outcome.changed) {
        (Some(registry), true) => format!("built and pushed {count} to {registry} as {}", config.tag),
        (Some(registry), false) => format!("{registry} has the same {count} as {} already", config.tag),
        (None, true) => format!("built {count} as {}", config.tag),
        (None, false) => format!("the engine has the same {count} as {} already", config.tag),
    };
    Ok(outcome)
}

/// What [`run`] would do, with every value that only planning knows.
///
/// # Errors
/// `config.invalid`, those of compose files.
pub fn plan(config: &Config, engine: &mut dyn Engine) -> Result<Vec<Effect>, Error> {
    let mut effects = Vec::new();
    for one in prepare(config, engine)? {
        let effect = |action, target: String, summary: String, capability: &str, value: String| Effect {
            action,
            target,
            summary,
            capability: Some(capability.to_owned()),
            value: Some(value),
        };
        let context = one.spec["context"].as_str().unwrap_or_default();
        let network = match one.spec["network"].as_str() {
            Some("host") => ", with the network of the engine's machine",
            _ => "",
        };
        let summary = format!("build {} from {context}{network}", one.local);
        let image = format!("image {}", one.local);
        effects.push(effect(
            "create",
            image.clone(),
            summary,
            "containers.build",
            one.local.clone(),
        ));
        let reads = format!("read {context} for it");
        effects.push(effect("run", image, reads, "files", format!("ro {context}")));
        if let Some(remote) = one.remote {
            let summary = format!("push {remote}");
            effects.push(effect(
                "create",
                format!("image {remote}"),
                summary,
                "containers.push",
                remote,
            ));
        }
    }
    Ok(effects)
}

/// The outcomes of archives and of images as one.
pub fn together(archives: Option<Outcome>, mut images: Outcome) -> Outcome {
    if let Some(archives) = archives {
        images.changed |= archives.changed;
        images.summary = format!("{}; {}", archives.summary, images.summary);
        images.outputs.extend(archives.outputs);
    }
    images
}

fn prepare(config: &Config, engine: &mut dyn Engine) -> Result<Vec<Wanted>, Error> {
    config.check()?;
    let model = match config.compose.is_empty() {
        true => None,
        false => {
            let paths = config
                .compose
                .iter()
                .map(|file| guest_path(file).display().to_string());
            let mut options = json!({ "files": paths.collect::<Vec<_>>() });
            if let Some(project) = &config.project {
                options["project"] = project.as_str().into();
            }
            if !config.variables.is_empty() {
                options["variables"] = json!(config.variables);
            }
            Some(engine.load(&options)?)
        }
    };
    let pipeline = config.project.clone().unwrap_or_else(|| engine.pipeline());
    wanted::all(config, &pipeline, model.as_ref())
}

struct Made {
    output: Value,
    is_new: bool,
}

fn make(one: &Wanted, config: &Config, engine: &mut dyn Engine) -> Result<Made, Error> {
    let before = engine.image(&one.local)?.unwrap_or_default();
    let built = engine.build(&one.spec)?;
    if built.id.is_empty() {
        return Err(Error::new(
            "build.digest",
            "the engine built it and gave it no id",
        ));
    }
    let mut made = Made {
        is_new: built.id != before.id,
        output: json!({ "image": one.local, "id": built.id, "tag": config.tag, "size": built.size }),
    };
    let Some(remote) = &one.remote else {
        engine.info(&format!("{}: {} is {}", one.name, one.local, built.id));
        return Ok(made);
    };
    engine.tag(&one.local, remote)?;
    let options = match &config.registry {
        Some(login) => json!({ "username": login.username, "password": login.password }),
        None => json!({}),
    };
    let pushed = engine.push(remote, &options)?;
    if !is_digest(&pushed.digest) {
        let message =
            format!("the registry took {remote} and answered with no digest: it is not known to be there");
        return Err(Error::new("build.digest", message).retryable());
    }
    let name = remote.rsplit_once(':').map_or(remote.as_str(), |(name, _)| name);
    let reference = format!("{name}@{}", pushed.digest);
    made.is_new |= !before.digests.contains(&reference);
    engine.info(&format!("{}: pushed {remote}, {}", one.name, pushed.digest));
    made.output["image"] = reference.into();
    made.output["digest"] = pushed.digest.into();
    Ok(made)
}

fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    hex.len() == 64
        && hex
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
