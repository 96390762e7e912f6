//! `plugin.json` says exactly what the code reads: its examples are valid and parse, and every key is described.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use windlass_guest::metadata::Metadata;
use windlass_plugin_deploy::config::{Check, Config, Expect, Router};

const TEXT: &str = include_str!("../plugin.json");

#[test]
fn metadata_and_code_tell_the_same_story() {
    let document: Value = serde_json::from_str(TEXT).expect("the metadata is JSON");
    let schema = &document["schema"];
    let validator = jsonschema::draft202012::new(schema).expect("the schema is one");
    for example in schema["examples"].as_array().expect("there are examples") {
        assert!(validator.is_valid(example), "{example}");
    }
    let metadata = Metadata::parse(TEXT);
    assert_eq!(metadata.examples_parse::<Config>(), 2);
    metadata.describes_fields_of::<Config>("/schema");
    metadata.describes_fields_of::<Router>("/schema/properties/router");
    let check = "/schema/properties/checks/additionalProperties";
    metadata.describes_fields_of::<Check>(check);
    metadata.describes_fields_of::<Expect>(&format!("{check}/properties/expect"));
    metadata.is_fully_described();
}

#[test]
fn defaults_of_schema_and_code_are_the_same() {
    let document: Value = serde_json::from_str(TEXT).expect("the metadata is JSON");
    let short = serde_json::json!({ "compose": ["c"], "project": "p" });
    let mut long = short.clone();
    for (key, property) in document["schema"]["properties"].as_object().expect("properties") {
        if let Some(default) = property.get("default") {
            long[key] = default.clone();
        }
    }
    let read = |value: Value| {
        format!(
            "{:?}",
            serde_json::from_value::<Config>(value).expect("it parses")
        )
    };
    assert_eq!(read(short), read(long));
}
