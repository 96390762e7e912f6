//! A plugin that calls one host function, named in `call`, on the value in `on`, and says what it answered: `ok`, or the
//! error's code. With it the tests fill the matrix of capabilities and grants.

mod engine;

use std::time::Duration;
use windlass_guest::{
    Error, Outcome, Stage, artifacts,
    flow::{self, Sink, Source},
    http,
    process::Program,
    secrets,
    sql::{self, Step},
    tcp,
};

/// The stage.
pub struct Probe;

/// Its `with:`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    call: String,
    on: String,
    /// Read by the host only.
    #[serde(default)]
    #[allow(dead_code, reason = "the host computes needs from it")]
    needs: serde_json::Value,
}

impl Stage for Probe {
    type Config = Config;

    fn run(config: Config) -> Result<Outcome, Error> {
        let answer = probe(&config.call, &config.on).map(drop);
        let told = engine::told();
        let code = match &answer {
            Ok(()) => "ok".to_string(),
            Err(error) => error.code.clone(),
        };
        let message = answer.err().map(|error| error.message).unwrap_or_default();
        Ok(Outcome::unchanged(code.clone())
            .output("code", code)
            .output("message", message)
            .output("told", told))
    }
}

fn probe(call: &str, on: &str) -> Result<(), Error> {
    match call {
        "secrets.get" => secrets::get(on).map(drop),
        "secrets.field" => secrets::get(on)?.field("password").map(drop),
        "secrets.reveal" => secrets::get(on)?.reveal().map(drop),
        "secrets.put" => secrets::put(on, b"a value", None),
        "secrets.put-fields" => secrets::put_fields(on, &[("a".into(), b"a value".to_vec())], None),
        "secrets.put-handle" => {
            let (name, secret) = on.split_once('=').ok_or_else(|| Error::config("NAME=SECRET"))?;
            secrets::put_handle(name, &secrets::get(secret)?)
        }
        "artifacts.create" => {
            let mut writer = artifacts::create(on, "text/plain")?;
            writer.append(b"bytes")?;
            writer.finish().map(drop)
        }
        "artifacts.open" => artifacts::open(on).map(drop),
        "artifacts.list" => artifacts::list().map(drop),
        "flow.from-file" => copy(Source::file(on)?),
        "flow.from-directory" => copy(Source::directory(on)?),
        "flow.from-sqlite" => copy(Source::sqlite(on)?),
        "flow.from-artifact" => copy(Source::artifact(on)?),
        "flow.to-file" => fill(Sink::file(on)?),
        "flow.to-artifact" => fill(Sink::artifact(on, "text/plain")?),
        "flow.to-directory" => Sink::directory(on).map(drop),
        "flow.to-sqlite" => Sink::sqlite(on).map(drop),
        "sql.query" => sql::open(on, &sql::Options::default())?
            .query("SELECT 1", &[])
            .map(drop),
        "sql.transact" => {
            let connection = sql::open(on, &sql::Options::default())?;
            let steps = [Step::new("CREATE TABLE IF NOT EXISTS probe (a INTEGER)")];
            connection.transact("probe", &steps).map(drop)
        }
        "process.run" => {
            let argv = on.split(' ').map(String::from).collect();
            Program {
                argv,
                ..Program::default()
            }
            .run()
            .map(drop)
        }
        "tcp.connect" => {
            let (host, port) = on.rsplit_once(':').ok_or_else(|| Error::config("host:port"))?;
            let port = port.parse().map_err(|_| Error::config("host:port"))?;
            tcp::connect(host, port, Duration::from_secs(5)).map(drop)
        }
        "http.get" => http::Request::get(on).send().map(drop),
        "files.read" => std::fs::read(on).map(drop).map_err(|error| file_error(&error)),
        "files.write" => std::fs::write(on, "x").map_err(|error| file_error(&error)),
        "env.read" => std::env::var(on)
            .map(drop)
            .map_err(|_| Error::new("env.missing", "not there")),
        other => engine::probe(other, on),
    }
}

fn copy(source: Source) -> Result<(), Error> {
    flow::copy(source, Sink::discard(), &flow::Options::default()).map(drop)
}

fn fill(sink: Sink) -> Result<(), Error> {
    flow::copy(Source::bytes(b"bytes")?, sink, &flow::Options::default()).map(drop)
}

fn file_error(error: &std::io::Error) -> Error {
    Error::new("files.refused", error.to_string())
}

windlass_guest::export!(Probe, metadata: "../plugin.json");
