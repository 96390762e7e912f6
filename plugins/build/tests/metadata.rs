//! `plugin.json` says exactly what the code reads: its examples are valid and parse, and every key is described.

use serde_json::Value;
use windlass_guest::metadata::Metadata;
use windlass_plugin_build::config::{Archive, Config, Image, LayerSource, Registry};

const TEXT: &str = include_str!("../plugin.json");

#[test]
fn the_examples_are_valid_and_parse() {
    let document: Value = serde_json::from_str(TEXT).expect("the metadata is JSON");
    let schema = &document["schema"];
    let validator = jsonschema::draft202012::new(schema).expect("the schema is one");
    for example in schema["examples"].as_array().expect("there are examples") {
        assert!(validator.is_valid(example), "{example}");
        let config: Config = serde_json::from_value(example.clone()).expect("the example parses");
        assert_eq!(config.check(), Ok(()));
    }
    assert_eq!(Metadata::parse(TEXT).examples_parse::<Config>(), 4);
}

#[test]
fn every_key_of_the_code_is_a_described_key_of_the_schema() {
    let metadata = Metadata::parse(TEXT);
    let image = "/schema/properties/images/additionalProperties";
    metadata.describes_fields_of::<Config>("/schema");
    metadata.describes_fields_of::<Image>(image);
    metadata.describes_fields_of::<Archive>(&format!("{image}/properties/archive"));
    metadata
        .describes_fields_of::<LayerSource>(&format!("{image}/properties/archive/properties/layers/items"));
    metadata.describes_fields_of::<Registry>("/schema/properties/registry");
    metadata.is_fully_described();
}
