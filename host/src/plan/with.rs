//! A `with:` block against its plugin's JSON Schema: defaults filled in, problems with the place in the file, secrets only where
//! the schema says so.

use crate::{
    diagnostic::{Diagnostic, Diagnostics, did_you_mean},
    source::Span,
    value::Value,
};
use indexmap::IndexMap;
use jsonschema::{ValidationError, Validator, error::ValidationErrorKind, paths::LocationSegment};
use serde_json::Value as Json;

/// The mark of a field that may hold a secret.
const SECRET: &str = "x-windlass-secret";

/// A plugin's schema, compiled once for all its stages.
pub struct Schema {
    json: Json,
    validator: Validator,
}

/// Finds the place of a value, or of its key, in the file.
pub trait Places {
    fn value_span(&self, pointer: &[String]) -> Span;
    fn key_span(&self, pointer: &[String]) -> Span;
}

impl Schema {
    /// # Errors
    /// Why it is not a JSON Schema.
    pub fn new(json: &Json) -> Result<Self, String> {
        let validator = jsonschema::validator_for(json).map_err(|error| error.to_string())?;
        Ok(Self {
            json: json.clone(),
            validator,
        })
    }

    /// Fills in the defaults of the schema, at every depth that `properties` and `additionalProperties` reach.
    pub fn fill_defaults(&self, with: &mut Value) {
        fill(&self.json, with);
    }

    /// Whether a secret may stand at `pointer`.
    pub fn takes_secret(&self, pointer: &[String]) -> bool {
        marked(&self.json, &self.json, pointer)
    }

    /// Checks a block. Values not known yet are left out.
    pub fn check(&self, plugin: &str, with: &Value, places: &dyn Places) -> Diagnostics {
        let mut problems = Diagnostics::new();
        with.for_each_secret(&mut Vec::new(), &mut |pointer, _| {
            if !self.takes_secret(pointer) {
                let place = pointer.join(".");
                let message =
                    format!("`{place}` of plugin `{plugin}` takes no secret: it would be seen in plain text");
                problems.push(
                    Diagnostic::error("with.secret", message)
                        .at(&places.value_span(pointer))
                        .help(format!(
                            "`windlass plugin inspect {plugin}` shows which fields take secrets"
                        )),
                );
            }
        });
        let json = with.to_json(&mut |_| "wlsec_00000000000000000000000000000000".to_string());
        for error in self.validator.iter_errors(&json) {
            self.explain(plugin, &error, with, places, &mut problems);
        }
        problems
    }

    fn explain(
        &self,
        plugin: &str,
        error: &ValidationError<'_>,
        with: &Value,
        places: &dyn Places,
        problems: &mut Diagnostics,
    ) {
        let pointer = pointer_of(error);
        if is_unknown(with, &pointer) {
            return;
        }
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                let known = known_keys(&self.json, &self.json, &pointer);
                for key in unexpected {
                    problems.push(unknown_key(plugin, &pointer, key, &known, places));
                }
            }
            ValidationErrorKind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                let message = format!("{} of plugin `{plugin}` needs the key `{key}`", shown(&pointer));
                problems
                    .push(Diagnostic::error("with.missing-key", message).at(&places.value_span(&pointer)));
            }
            ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context } => {
                for error in nearest(context) {
                    self.explain(plugin, error, with, places, problems);
                }
            }
            _ => {
                let message = format!("{} of plugin `{plugin}`: {error}", shown(&pointer));
                problems.push(Diagnostic::error("with.invalid", message).at(&places.value_span(&pointer)));
            }
        }
    }
}

fn unknown_key(
    plugin: &str,
    pointer: &[String],
    key: &str,
    known: &[&str],
    places: &dyn Places,
) -> Diagnostic {
    let mut place = pointer.to_vec();
    place.push(key.to_string());
    let message = format!("{} of plugin `{plugin}` has no key `{key}`", shown(pointer));
    let help = match did_you_mean(key, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("`windlass plugin inspect {plugin}` shows what it takes"),
        None => format!("it takes: {}", known.join(", ")),
    };
    Diagnostic::error("with.unknown-key", message)
        .at(&places.key_span(&place))
        .help(help)
}

/// The errors of the alternative that the author most likely meant: a wrong key or a missing one is worse than a wrong value, and an
/// alternative whose deepest error lies deeper fits better.
fn nearest<'a>(context: &'a [Vec<ValidationError<'static>>]) -> &'a [ValidationError<'static>] {
    let misfit = |errors: &&Vec<ValidationError<'static>>| {
        let structural = |error: &&ValidationError<'_>| {
            matches!(
                error.kind(),
                ValidationErrorKind::Required { .. }
                    | ValidationErrorKind::Type { .. }
                    | ValidationErrorKind::FalseSchema
            )
        };
        let depth = errors
            .iter()
            .map(|error| pointer_of(error).len())
            .max()
            .unwrap_or(0);
        (
            errors.iter().filter(structural).count(),
            errors.len(),
            usize::MAX - depth,
        )
    };
    context
        .iter()
        .filter(|errors| !errors.is_empty())
        .min_by_key(misfit)
        .map_or(&[], Vec::as_slice)
}

fn shown(pointer: &[String]) -> String {
    if pointer.is_empty() {
        "`with`".to_string()
    } else {
        format!("`with.{}`", pointer.join("."))
    }
}

fn pointer_of(error: &ValidationError<'_>) -> Vec<String> {
    error
        .instance_path()
        .iter()
        .map(|segment| match segment {
            LocationSegment::Property(key) => key.to_string(),
            LocationSegment::Index(index) => index.to_string(),
        })
        .collect()
}

/// Whether the value, or one it lies in, is not known yet.
fn is_unknown(with: &Value, pointer: &[String]) -> bool {
    match (with, pointer.split_first()) {
        (Value::Unknown, _) => true,
        (Value::Map(entries), Some((key, rest))) => {
            entries.get(key).is_some_and(|child| is_unknown(child, rest))
        }
        (Value::List(items), Some((key, rest))) => {
            let child = key.parse::<usize>().ok().and_then(|index| items.get(index));
            child.is_some_and(|child| is_unknown(child, rest))
        }
        _ => false,
    }
}

fn fill(schema: &Json, with: &mut Value) {
    match with {
        Value::Map(entries) => {
            if let Some(properties) = schema.get("properties").and_then(Json::as_object) {
                for (key, property) in properties {
                    if let (None, Some(default)) = (entries.get(key), property.get("default"))
                        && is_wanted(schema, key, entries)
                    {
                        entries.insert(key.clone(), Value::from(default.clone()));
                    }
                }
            }
            for (key, child) in entries.iter_mut() {
                if let Some(schema) = child_schema(schema, key) {
                    fill(schema, child);
                }
            }
        }
        Value::List(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| fill(schema, item));
            }
        }
        _ => {}
    }
}

/// A key that may only stand beside others gets no default where those are missing.
fn is_wanted(schema: &Json, key: &str, entries: &IndexMap<String, Value>) -> bool {
    let required = schema
        .get("dependentRequired")
        .and_then(|rules| rules.get(key))
        .and_then(Json::as_array);
    required
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .all(|other| entries.contains_key(other))
}

fn child_schema<'a>(schema: &'a Json, key: &str) -> Option<&'a Json> {
    let named = schema
        .get("properties")
        .and_then(|properties| properties.get(key));
    named
        .or_else(|| schema.get("additionalProperties"))
        .filter(|schema| schema.is_object())
}

/// Alternatives a schema may be read through: itself, `$ref`, `oneOf`, `anyOf`, `allOf`.
fn alternatives<'a>(root: &'a Json, schema: &'a Json) -> Vec<&'a Json> {
    /// `$ref` chains longer than this are cycles.
    const DEEPEST: usize = 16;
    let mut found = vec![schema];
    let mut at = 0;
    while at < found.len() && found.len() < 10 * DEEPEST {
        let schema = found[at];
        at += 1;
        let reference = schema
            .get("$ref")
            .and_then(Json::as_str)
            .and_then(|text| text.strip_prefix('#'));
        found.extend(reference.and_then(|pointer| root.pointer(pointer)));
        for keyword in ["oneOf", "anyOf", "allOf"] {
            found.extend(schema.get(keyword).and_then(Json::as_array).into_iter().flatten());
        }
    }
    found
}

fn below<'a>(root: &'a Json, schema: &'a Json, key: &str) -> Vec<&'a Json> {
    alternatives(root, schema)
        .into_iter()
        .flat_map(|schema| {
            let item = schema.get("items").filter(|_| key.parse::<usize>().is_ok());
            child_schema(schema, key).into_iter().chain(item)
        })
        .collect()
}

fn marked(root: &Json, schema: &Json, pointer: &[String]) -> bool {
    match pointer.split_first() {
        None => alternatives(root, schema)
            .iter()
            .any(|schema| schema.get(SECRET) == Some(&Json::Bool(true))),
        Some((key, rest)) => below(root, schema, key)
            .iter()
            .any(|schema| marked(root, schema, rest)),
    }
}

fn known_keys<'a>(root: &'a Json, schema: &'a Json, pointer: &[String]) -> Vec<&'a str> {
    let Some((key, rest)) = pointer.split_first() else {
        let properties = alternatives(root, schema)
            .into_iter()
            .filter_map(|schema| schema.get("properties"));
        let keys: IndexMap<&str, ()> = properties
            .filter_map(Json::as_object)
            .flat_map(|map| map.keys())
            .map(|key| (key.as_str(), ()))
            .collect();
        return keys.into_keys().collect();
    };
    below(root, schema, key)
        .into_iter()
        .flat_map(|schema| known_keys(root, schema, rest))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{name::SecretName, source::SourceFile, value::SecretText};
    use serde_json::json;
    use std::sync::Arc;

    struct Nowhere(Arc<SourceFile>);

    impl Places for Nowhere {
        fn value_span(&self, _: &[String]) -> Span {
            Span::new(&self.0, 0..1)
        }

        fn key_span(&self, _: &[String]) -> Span {
            Span::new(&self.0, 0..1)
        }
    }

    fn schema() -> Schema {
        let json = json!({
            "type": "object", "additionalProperties": false, "required": ["address"],
            "properties": {
                "address": { "type": "string" },
                "retries": { "type": "integer", "default": 30 },
                "token": { "type": "string", "x-windlass-secret": true },
                "auth": { "oneOf": [
                    { "type": "object", "additionalProperties": false, "required": ["key"], "properties": { "key": { "$ref": "#/$defs/secret" } } },
                    { "type": "object", "additionalProperties": false, "required": ["user"], "properties": { "user": { "type": "string" } } }
                ] },
                "checks": { "type": "object", "additionalProperties": {
                    "type": "object", "additionalProperties": false, "properties": { "tcp": { "type": "string" }, "delay": { "type": "string", "default": "1s" }, "expect": { "type": "object", "default": {} } },
                    "dependentRequired": { "expect": ["http"] } } }
            },
            "$defs": { "secret": { "type": "string", "x-windlass-secret": true } }
        });
        Schema::new(&json).expect("a schema")
    }

    #[track_caller]
    fn check(with: impl Into<Value>, expected: &[&str]) {
        let places = Nowhere(Arc::new(SourceFile::new("a", "a", "x")));
        let problems = schema().check("p", &with.into(), &places);
        let shown: Vec<String> = problems
            .sorted()
            .iter()
            .map(|one| {
                format!("{} {}", one.message, one.help.clone().unwrap_or_default())
                    .trim()
                    .to_string()
            })
            .collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn problems() {
        check(json!({ "address": "x" }), &[]);
        check(
            json!({ "address": "x", "retires": 3 }),
            &["`with` of plugin `p` has no key `retires` did you mean `retries`?"],
        );
        check(json!({}), &["`with` of plugin `p` needs the key `address`"]);
        check(
            json!({ "address": 1 }),
            &["`with.address` of plugin `p`: 1 is not of type \"string\""],
        );
        check(
            json!({ "address": "x", "checks": { "a": { "tpc": "y" } } }),
            &["`with.checks.a` of plugin `p` has no key `tpc` did you mean `tcp`?"],
        );
        check(
            json!({ "address": "x", "auth": { "user": "u", "kex": 1 } }),
            &["`with.auth` of plugin `p` has no key `kex` did you mean `key`?"],
        );
    }

    #[test]
    fn secrets_only_where_marked_and_unknown_values_are_left_out() {
        let secret = || {
            let name = SecretName::new("s").expect("valid");
            Value::Secret(SecretText::Secret { name, field: None })
        };
        let with = |entries: Vec<(&str, Value)>| {
            Value::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| (key.to_string(), value))
                    .collect(),
            )
        };
        check(
            with(vec![
                ("address", Value::Unknown),
                ("token", secret()),
                ("auth", with(vec![("key", secret())])),
            ]),
            &[],
        );
        check(
            with(vec![("address", secret())]),
            &[
                "`address` of plugin `p` takes no secret: it would be seen in plain text `windlass plugin inspect p` shows which fields take secrets",
            ],
        );
    }

    #[test]
    fn defaults_at_every_depth() {
        let mut with = Value::from(json!({ "address": "x", "checks": { "a": { "tcp": "y" } } }));
        schema().fill_defaults(&mut with);
        let filled = with.to_json(&mut |_| String::new());
        assert_eq!(
            filled,
            json!({ "address": "x", "checks": { "a": { "tcp": "y", "delay": "1s" } }, "retries": 30 })
        );
    }
}
