//! Checks that a plugin's `plugin.json` and its configuration types tell the same story: for the plugin's own tests.
//! It validates no instance against a schema; that is the host's work.

use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde_json::Value;
use std::cell::Cell;

/// A `plugin.json`, read.
pub struct Metadata(Value);

impl Metadata {
    /// Reads it.
    ///
    /// # Panics
    /// When it is not a JSON object with the members every plugin has: it is called by tests only.
    pub fn parse(text: &str) -> Self {
        let document: Value = serde_json::from_str(text).expect("plugin.json is JSON");
        for member in [
            "id",
            "version",
            "abi",
            "description",
            "requests",
            "schema",
            "outputs",
        ] {
            assert!(document.get(member).is_some(), "plugin.json lacks `{member}`");
        }
        Self(document)
    }

    /// Every example of the schema is a configuration. Returns how many there are.
    ///
    /// # Panics
    /// With the example that is not.
    pub fn examples_parse<C: DeserializeOwned>(&self) -> usize {
        let examples = self
            .at("/schema/examples")
            .as_array()
            .expect("`examples` is a list");
        for example in examples {
            if let Err(cause) = C::deserialize(example) {
                panic!("the schema's example {example} is no configuration: {cause}");
            }
        }
        examples.len()
    }

    /// The schema at `pointer` (`/schema`, or deeper) describes exactly the fields that the struct `C` reads.
    ///
    /// # Panics
    /// With the fields that only one of them has.
    pub fn describes_fields_of<C: DeserializeOwned>(&self, pointer: &str) {
        let schema = self.at(pointer);
        let properties = schema["properties"]
            .as_object()
            .expect("`properties` is an object");
        let mut described: Vec<&str> = properties.keys().map(String::as_str).collect();
        let mut read = fields_of::<C>().to_vec();
        described.sort_unstable();
        read.sort_unstable();
        assert_eq!(
            described, read,
            "schema (left) and configuration type (right) differ at {pointer}"
        );
        assert_eq!(
            schema["additionalProperties"], false,
            "{pointer} lets unknown keys pass"
        );
    }

    /// Every property at every depth has a `description`, and every request a `reason`.
    ///
    /// # Panics
    /// With the place that has none.
    pub fn is_fully_described(&self) {
        for row in self.at("/requests").as_array().expect("`requests` is a list") {
            let reason = row["reason"].as_str().unwrap_or_default();
            assert!(reason.len() > 10, "a request without a reason: {row}");
            assert!(
                row.get("from").is_some() != row.get("value").is_some(),
                "`from` or `value`, not both: {row}"
            );
        }
        described("/schema", self.at("/schema"));
        described("/outputs", self.at("/outputs"));
    }

    fn at(&self, pointer: &str) -> &Value {
        self.0
            .pointer(pointer)
            .unwrap_or_else(|| panic!("plugin.json has nothing at {pointer}"))
    }
}

fn described(place: &str, schema: &Value) {
    match schema {
        Value::Object(members) => {
            for (name, property) in members
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                let text = property["description"].as_str().unwrap_or_default();
                assert!(!text.is_empty(), "{place}/properties/{name} has no description");
            }
            // What stands under these is data or a condition: neither describes a property.
            let schemas = members
                .iter()
                .filter(|(name, _)| !["examples", "default", "const", "enum", "if"].contains(&name.as_str()));
            for (name, member) in schemas {
                described(&format!("{place}/{name}"), member);
            }
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(at, item)| described(&format!("{place}/{at}"), item)),
        _ => {}
    }
}

/// The names of the fields that a struct's `Deserialize` asks for.
fn fields_of<C: DeserializeOwned>() -> &'static [&'static str] {
    let seen = Cell::new(&[][..]);
    let _ = C::deserialize(Listener(&seen));
    seen.get()
}

/// A source of nothing that notes which fields it is asked for.
struct Listener<'seen>(&'seen Cell<&'static [&'static str]>);

impl<'de> Deserializer<'de> for Listener<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.set(fields);
        self.deserialize_any(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("there is nothing to read"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code)]
        role_id: String,
    }

    fn metadata(property: &str, description: &str, example: &str) -> Metadata {
        Metadata::parse(&format!(
            r#"{{"id":"x","version":"1","abi":"0.1","description":"d","requests":[],"outputs":{{}},
               "schema":{{"properties":{{"{property}":{{"description":"{description}"}}}},
               "additionalProperties":false,"examples":[{example}]}}}}"#
        ))
    }

    #[test]
    fn one_story_passes() {
        let same = metadata("role-id", "who", r#"{"role-id":"a"}"#);
        same.describes_fields_of::<Sample>("/schema");
        same.is_fully_described();
        assert_eq!(same.examples_parse::<Sample>(), 1);
    }

    #[test]
    #[should_panic(expected = "differ at /schema")]
    fn another_field_fails() {
        metadata("role", "who", "{}").describes_fields_of::<Sample>("/schema");
    }

    #[test]
    #[should_panic(expected = "has no description")]
    fn a_silent_property_fails() {
        metadata("role-id", "", "{}").is_fully_described();
    }

    #[test]
    #[should_panic(expected = "is no configuration")]
    fn a_wrong_example_fails() {
        metadata("role-id", "who", r#"{"role":"a"}"#).examples_parse::<Sample>();
    }
}
