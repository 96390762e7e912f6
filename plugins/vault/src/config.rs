//! The `with:` block, and what a schema cannot say about it.

use serde::Deserialize;
use std::collections::BTreeMap;
use windlass_guest::Error;

/// The `with:` block.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub(crate) address: String,
    #[serde(default)]
    pub(crate) auth: Option<Auth>,
    #[serde(default)]
    pub(crate) namespace: Option<String>,
    #[serde(default = "secret")]
    pub(crate) mount: String,
    #[serde(default)]
    pub(crate) kv: Option<u8>,
    pub(crate) read: BTreeMap<String, String>,
    #[serde(default = "yes")]
    pub(crate) enabled: bool,
    #[serde(default)]
    pub(crate) fallback: BTreeMap<String, String>,
}

/// How to be let in; the schema sees to it that there is exactly one.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Auth {
    pub(crate) token: Option<String>,
    pub(crate) approle: Option<AppRole>,
    pub(crate) jwt: Option<Jwt>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct AppRole {
    pub(crate) role_id: String,
    pub(crate) secret_id: String,
    #[serde(default = "approle")]
    pub(crate) mount: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Jwt {
    pub(crate) role: String,
    pub(crate) token: String,
    #[serde(default = "jwt")]
    pub(crate) mount: String,
}

impl Config {
    /// What the names in `read` and `fallback` have to do with each other.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let unread: Vec<&str> = missing(&self.fallback, &self.read);
        if !unread.is_empty() {
            return Err(Error::config(format!(
                "`fallback` names what `read` does not: {}",
                unread.join(", ")
            ))
            .help("use the same names in both"));
        }
        let uncovered: Vec<&str> = missing(&self.read, &self.fallback);
        if !self.enabled && !uncovered.is_empty() {
            return Err(Error::config(format!(
                "`enabled` is false and there is no `fallback` for {}",
                uncovered.join(", ")
            ))
            .help("add a line to `fallback` for each of them, for example `database: ${{ secrets.local-database }}`"));
        }
        Ok(())
    }
}

/// The names in `these` that are not in `those`.
fn missing<'a>(these: &'a BTreeMap<String, String>, those: &BTreeMap<String, String>) -> Vec<&'a str> {
    these
        .keys()
        .filter(|name| !those.contains_key(*name))
        .map(String::as_str)
        .collect()
}

fn yes() -> bool {
    true
}

fn secret() -> String {
    "secret".to_owned()
}

fn approle() -> String {
    "approle".to_owned()
}

fn jwt() -> String {
    "jwt".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use windlass_guest::metadata::Metadata;

    #[test]
    fn metadata_and_configuration_agree() {
        let metadata = Metadata::parse(include_str!("../plugin.json"));
        metadata.describes_fields_of::<Config>("/schema");
        metadata.describes_fields_of::<Auth>("/schema/properties/auth");
        metadata.describes_fields_of::<AppRole>("/schema/properties/auth/properties/approle");
        metadata.describes_fields_of::<Jwt>("/schema/properties/auth/properties/jwt");
        metadata.is_fully_described();
        assert_eq!(metadata.examples_parse::<Config>(), 3);
    }

    fn check(with: Value, part: Option<&str>) {
        let config: Config = serde_json::from_value(with).unwrap();
        match (config.check(), part) {
            (Ok(()), None) => {}
            (Err(error), Some(part)) => {
                assert_eq!(error.code, "config.invalid");
                assert!(error.message.contains(part), "{error}");
            }
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn names_in_read_and_fallback_belong_together() {
        let read = json!({"a": "x", "b": "y", "c": "z"});
        check(json!({"read": read}), None);
        check(
            json!({"read": read, "enabled": false}),
            Some("no `fallback` for a, b, c"),
        );
        check(
            json!({"read": read, "enabled": false, "fallback": {"b": "1"}}),
            Some("no `fallback` for a, c"),
        );
        check(
            json!({"read": read, "enabled": false, "fallback": {"a": "1", "b": "1", "c": "1"}}),
            None,
        );
        check(
            json!({"read": read, "fallback": {"d": "1"}}),
            Some("`read` does not: d"),
        );
    }
}
