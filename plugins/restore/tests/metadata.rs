//! `plugin.json` says exactly what the code reads: its examples are valid and parse, and every key is described.

use serde_json::{Value, json};
use windlass_backup_format::inside::Inside;
use windlass_backup_format::location::Location;
use windlass_backup_format::postgres::Postgres;
use windlass_backup_format::redis::Redis;
use windlass_guest::metadata::Metadata;
use windlass_guest::objects::Access;
use windlass_plugin_restore::config::Config;

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
    assert_eq!(metadata.examples_parse::<Config>(), 4);
    metadata.describes_fields_of::<Config>("/schema");
    metadata.describes_fields_of::<Access>("/schema/properties/s3");
    metadata.is_fully_described();
    let kinds = "/schema/properties/into/additionalProperties/properties";
    metadata.describes_fields_of::<Postgres>(&format!("{kinds}/postgres"));
    metadata.describes_fields_of::<Redis>(&format!("{kinds}/redis"));
    metadata.describes_fields_of::<Inside>(&format!("{kinds}/container-path"));
    for kind in ["sqlite", "directory"] {
        let location = serde_json::from_value::<Location>(json!({ kind: "x" }));
        assert!(location.is_ok(), "{kind}");
    }
    let wrong = json!({ "from": "x", "id": "../x", "into": { "a": { "directory": "b" } } });
    assert!(!validator.is_valid(&wrong));
}
