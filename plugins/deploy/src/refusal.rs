//! What a compose file asks for and this plugin cannot do: gathered with its place, told at once, never ignored.

use serde_json::Value;
use windlass_guest::Error;

#[derive(Debug, Default)]
pub(crate) struct Refusals(Vec<String>);

impl Refusals {
    /// `place` is a path of keys: `services.backend.privileged`.
    pub(crate) fn add(&mut self, place: &str, why: &str) {
        self.0.push(format!("`{place}`: {why}"));
    }

    /// A key that has no meaning here, unless it asks for nothing: `privileged: false`.
    pub(crate) fn unsupported(&mut self, place: &str, value: &Value) {
        if asks_for_something(value) {
            self.add(place, "this cannot be applied");
        }
    }

    /// # Errors
    /// `deploy.unsupported`, with all of them.
    pub(crate) fn into_result(self) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let all = self.0.join("; ");
        Err(Error::new(
            "deploy.unsupported",
            format!("the compose files ask for what cannot be deployed: {all}"),
        )
        .with_details(serde_json::json!({ "refused": self.0 }))
        .help("take these keys out, or leave the service out with `services:` or a profile"))
    }
}

pub(crate) fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => entries.values().any(asks_for_something),
        Value::Bool(true) | Value::Number(_) => true,
    }
}
