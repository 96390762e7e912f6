//! The calls of the interfaces to containers and objects. `on` is the JSON text that the call takes, or `{ "container", ... }`, or
//! `{ "url", "endpoint" }`.

use serde_json::{Value, json};
use std::{cell::RefCell, time::Duration};
use windlass_guest::{
    Error,
    containers::{self, Program},
    flow::{self, FileOptions, Sink, Source},
    objects::{self, Access, Deletion},
};

thread_local! {
    static TOLD: RefCell<Value> = const { RefCell::new(Value::Null) };
}

/// What the last call answered.
pub(crate) fn told() -> Value {
    TOLD.with(|told| told.borrow().clone())
}

fn tell(value: Value) {
    TOLD.with(|told| *told.borrow_mut() = value);
}

pub(crate) fn probe(call: &str, on: &str) -> Result<(), Error> {
    let on: Value = serde_json::from_str(on).unwrap_or_else(|_| Value::String(on.into()));
    let text = |key: &str| on[key].as_str().unwrap_or_default().to_string();
    let name = match on.as_str() {
        Some(name) => name.to_string(),
        None => text("container"),
    };
    let access = Access {
        endpoint: Some(text("endpoint")),
        ..Access::default()
    };
    let answer = match call {
        "objects.head" => {
            objects::head(&text("url"), &access).map(|known| json!(known.map(|known| known.size)))
        }
        "objects.list" => objects::list(&text("url"), &access).map(|listed| json!(listed.len())),
        "objects.delete" => objects::delete(&text("url"), &access, &Deletion::default()).map(Value::from),
        "flow.from-object" => count(Source::object(&text("url"), &access)?),
        "flow.to-object" => fill(Sink::object(&text("url"), &access)?, "ok"),
        "containers.create" => containers::create(&on).map(|made| json!(made.name)),
        "containers.fingerprint" => containers::fingerprint(&on).map(Value::from),
        "containers.start" => containers::start(&name).map(Value::from),
        "containers.stop" => containers::stop(&name, Duration::from_secs(1)).map(Value::from),
        "containers.remove" => containers::remove(&name, true).map(Value::from),
        "containers.rename" => containers::rename(&name, &text("name")).map(Value::from),
        "containers.inspect" => containers::inspect(&name).map(|found| json!(found)),
        "containers.list" => containers::list(&name).map(|found| json!(found)),
        "containers.logs" => containers::logs(&name, 100).map(Value::from),
        "containers.wait-exit" => {
            containers::wait_for_exit(&name, true, Duration::from_secs(20)).map(|found| json!(found))
        }
        "containers.wait-health" => {
            containers::wait_for_health(&name, Duration::from_secs(20)).map(|found| json!(found))
        }
        "containers.network" => containers::ensure_network(&on).map(Value::from),
        "containers.volume" => containers::ensure_volume(&on).map(Value::from),
        "containers.tidy" => containers::tidy(&text("kind"), &text("name")).map(Value::from),
        "containers.exec" => program(&on)
            .run(&name)
            .map(|output| json!([output.exit, output.stdout, output.stderr])),
        "images.build" => containers::build(&on).map(|image| json!(image.id)),
        "images.tag" => containers::tag(&text("source"), &text("target")).map(Value::from),
        "images.push" => containers::push(&text("image"), &json!({})).map(|pushed| json!(pushed.reference)),
        "images.pull" => containers::pull(&text("image"), &json!({})).map(|image| json!(image.id)),
        "images.inspect" => containers::image(&text("image")).map(|image| json!(image.map(|image| image.id))),
        "images.remove" => containers::remove_image(&text("image")).map(Value::from),
        "compose.load" => containers::load_compose(&on),
        "flow.from-exec" => count(Source::exec(&name, &program(&on))?),
        "flow.from-container" => count(Source::container_file(&name, &text("path"))?),
        "flow.to-exec" => fill(Sink::exec(&name, &program(&on))?, &text("bytes")),
        "flow.to-container" => {
            let file = FileOptions {
                file: text("file"),
                mode: 0o640,
                uid: 7,
                gid: 8,
            };
            fill(Sink::container_file(&name, &text("path"), &file)?, &text("bytes"))
        }
        other => Err(Error::config(format!("unknown call: {other}"))),
    };
    answer.map(tell)
}

fn program(on: &Value) -> Program {
    let argv = on["argv"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    Program {
        input: on["input"].as_str().map(String::from),
        repeatable: on["repeatable"] == true,
        ..Program::new(argv)
    }
}

fn count(source: Source) -> Result<Value, Error> {
    flow::copy(source, Sink::discard(), &flow::Options::default())
        .map(|copied| json!([copied.bytes_in, copied.sha256_in]))
}

fn fill(sink: Sink, bytes: &str) -> Result<Value, Error> {
    flow::copy(Source::bytes(bytes.as_bytes())?, sink, &flow::Options::default())
        .map(|copied| json!(copied.bytes_out))
}
