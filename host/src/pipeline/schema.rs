//! The JSON Schema of the pipeline file, for editors. Made from the table of keys that the reader goes by.

use super::{
    grants,
    keys::{APPROVAL, CONCURRENCY, DEFAULTS, ENV, Key, MATRIX, ORIGIN, RETRY_KEYS, SECRET, STAGE, TOP, VAR},
};
use crate::capability::{Capability, TABLE};
use serde_json::{Map, Value as Json, json};

/// The schema, in draft 2020-12.
pub fn schema() -> Json {
    let mut schema = object(TOP, true);
    if let Some(fields) = schema.as_object_mut() {
        fields.insert(
            "$schema".into(),
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        fields.insert("title".into(), json!("Windlass pipeline"));
        fields.insert("$defs".into(), definitions());
    }
    schema
}

fn definitions() -> Json {
    json!({
        "name": { "type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$" },
        "duration": {
            "type": "string",
            "pattern": "^([0-9]+(ms|s|m|h|d))+$",
            "description": "A number and a unit: 500ms, 10s, 5m, 1h30m, 1d.",
        },
        "var": object(VAR, false),
        "env": object(ENV, false),
        "secret": object(SECRET, false),
        "retry": object(RETRY_KEYS, false),
        "defaults": object(DEFAULTS, false),
        "concurrency": object(CONCURRENCY, false),
        "origin": object(ORIGIN, false),
        "stage": object(STAGE, true),
        "approval": object(APPROVAL, false),
        "matrix": matrix(),
        "allow": allow(),
    })
}

/// The schema of a map with known keys; `extensions`: keys that start with `x-` are ignored.
fn object(keys: &[Key], extensions: bool) -> Json {
    let mut schema = json!({
        "type": "object",
        "properties": properties(keys),
        "additionalProperties": false,
    });
    let required: Vec<&str> = keys
        .iter()
        .filter(|key| key.required)
        .map(|key| key.name)
        .collect();
    if let Some(fields) = schema.as_object_mut() {
        if !required.is_empty() {
            fields.insert("required".into(), json!(required));
        }
        if extensions {
            fields.insert("patternProperties".into(), json!({ "^x-": {} }));
        }
    }
    schema
}

fn properties(keys: &[Key]) -> Map<String, Json> {
    let property = |key: &Key| {
        let mut schema: Json =
            serde_json::from_str(key.schema).expect("a test parses the schema of every key");
        if let Some(fields) = schema.as_object_mut() {
            fields.insert("description".into(), json!(key.description));
        }
        (key.name.to_string(), schema)
    };
    keys.iter().map(property).collect()
}

/// Any key is an axis.
fn matrix() -> Json {
    json!({
        "type": "object",
        "properties": properties(MATRIX),
        "additionalProperties": {
            "anyOf": [
                { "type": "array", "minItems": 1, "items": { "type": ["string", "number", "boolean"] } },
                { "type": "string", "pattern": "^\\$\\{\\{" },
            ],
        },
    })
}

fn allow() -> Json {
    let row = |capability: Capability| {
        let row = capability.row();
        let description = format!(
            "{}{}. Form: {}. Example: {}",
            row.summary[..1].to_uppercase(),
            &row.summary[1..],
            row.form,
            row.example
        );
        if capability == Capability::Files {
            let modes =
                json!({ "type": "string", "anyOf": [{ "enum": ["ro", "rw"] }, { "pattern": "\\$\\{\\{" }] });
            return json!({ "type": ["object", "null"], "description": description, "additionalProperties": modes });
        }
        json!({ "type": ["array", "null"], "description": description, "items": { "type": "string" } })
    };
    let mut properties = Map::new();
    for outer in grants::outer_names() {
        let inner: Map<String, Json> = TABLE
            .iter()
            .filter_map(|one| Some((one.name.split_once('.')?, one.capability)))
            .filter(|((name, _), _)| *name == outer)
            .map(|((_, inner), capability)| (inner.to_string(), row(capability)))
            .collect();
        let schema = match Capability::from_name(outer) {
            Some(capability) => row(capability),
            None => json!({ "type": ["object", "null"], "properties": inner, "additionalProperties": false }),
        };
        properties.insert(outer.to_string(), schema);
    }
    json!({ "type": ["object", "null"], "properties": properties, "additionalProperties": false })
}
