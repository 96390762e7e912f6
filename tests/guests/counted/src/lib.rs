//! A plugin that has effects over HTTP, each under an idempotency key of its own, undoes them, and asks the server about those that
//! a crash has cut off, unless it was told to know of none. What it does is counted by `tests/src/counter.rs`; it does not look
//! itself whether an effect is there.

use serde_json::Value;
use std::collections::BTreeMap;
use windlass_guest::{
    Compensator, Error, Outcome, PastEffect, Reconciler, Stage, Verdict, context,
    http::{Request, Response},
};

/// The stage.
pub struct Counted;

/// Its `with:`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    server: String,
    effects: Vec<String>,
    #[serde(default)]
    fail_after: Option<usize>,
    #[serde(default)]
    forgets: bool,
}

impl Stage for Counted {
    type Config = Config;

    fn run(config: Config) -> Result<Outcome, Error> {
        let count = config.fail_after.unwrap_or(config.effects.len());
        for (number, name) in config.effects.iter().take(count).enumerate() {
            let method = if number % 2 == 0 { "PUT" } else { "POST" };
            send(method, &format!("{}/{name}", config.server))?;
        }
        match config.fail_after {
            Some(count) => Err(Error::new(
                "counted.failed",
                format!("fails after {count} effects, as it was told"),
            )),
            None => Ok(Outcome::changed(format!("{count} effects")).output("effects", config.effects)),
        }
    }
}

impl Compensator for Counted {
    fn compensate(
        _config: Config,
        _outputs: BTreeMap<String, Value>,
        effects: Vec<PastEffect>,
    ) -> Result<Outcome, Error> {
        for effect in effects.iter().rev() {
            send("DELETE", target(effect)?)?;
        }
        Ok(Outcome::changed(format!("{} effects undone", effects.len())))
    }
}

impl Reconciler for Counted {
    fn reconcile(config: Config, effect: PastEffect) -> Result<Verdict, Error> {
        if config.forgets {
            return Ok(Verdict::Unknown);
        }
        let counted = answered(Request::get(target(&effect)?))?;
        let counted: Value = serde_json::from_slice(&counted.body)
            .map_err(|error| Error::new("counted.reply", error.to_string()))?;
        let part = match effect.arguments["method"].as_str() {
            Some("DELETE") => "undone",
            _ => "done",
        };
        Ok(match counted[part].as_u64() {
            Some(0) => Verdict::NotDone,
            Some(_) => Verdict::Done,
            None => Verdict::Unknown,
        })
    }
}

fn send(method: &str, url: &str) -> Result<(), Error> {
    let key = format!("{}/{}/{method}/{url}", context::run_id(), context::stage());
    answered(Request::new(method, url).header("idempotency-key", key)).map(drop)
}

fn answered(request: Request) -> Result<Response, Error> {
    let reply = request.send()?;
    match reply.status {
        200..=299 => Ok(reply),
        status => Err(Error::new(
            "counted.status",
            format!("the server answered {status}"),
        )),
    }
}

fn target(effect: &PastEffect) -> Result<&str, Error> {
    effect.arguments["url"]
        .as_str()
        .ok_or_else(|| Error::new("counted.effect", "an effect without a URL"))
}

windlass_guest::export!(Counted, metadata: "../plugin.json", compensator, reconciler);
