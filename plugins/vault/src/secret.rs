//! From Vault's replies to what is put into the run's store. It sends nothing and knows no statuses.

use serde_json::{Map, Value};
use std::time::Duration;

/// The fields that make a connection handle, in the order of its parts.
const CONNECTION: [&str; 5] = ["username", "password", "host", "port", "database"];

/// One secret as it was read. Deliberately without `Debug`: it holds values.
#[derive(PartialEq)]
pub(crate) struct Content {
    /// Sorted by name.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    /// How long it is good for, where Vault says so.
    pub(crate) time_to_live: Option<Duration>,
    /// Its version, where the engine keeps versions.
    pub(crate) version: Option<u64>,
}

impl Content {
    /// Reads the reply of a KV version 1 engine. `None` when it is of another shape.
    pub(crate) fn from_version_1(reply: &Value) -> Option<Self> {
        Some(Self {
            fields: fields(reply.get("data")?.as_object()?),
            time_to_live: lease(reply),
            version: None,
        })
    }

    /// Reads the reply of a KV version 2 engine. `None` when it is of another shape.
    pub(crate) fn from_version_2(reply: &Value) -> Option<Self> {
        Some(Self {
            fields: fields(reply.pointer("/data/data")?.as_object()?),
            time_to_live: lease(reply),
            version: reply.pointer("/data/metadata/version").and_then(Value::as_u64),
        })
    }

    /// The value of a secret that has one field only, named `value`: it stands for the secret itself.
    pub(crate) fn only_value(&self) -> Option<&[u8]> {
        match self.fields.as_slice() {
            [(name, value)] if name == "value" => Some(value),
            _ => None,
        }
    }

    /// One field, as the secret itself. `None` when it has none of that name.
    pub(crate) fn only(self, field: &str) -> Option<Self> {
        let mut fields = self.fields;
        fields.retain(|(name, _)| name == field);
        let (_, value) = fields.pop()?;
        Some(Self {
            fields: vec![("value".to_owned(), value)],
            ..self
        })
    }

    pub(crate) fn field_names(&self) -> Vec<&str> {
        self.fields.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// Texts as they are, anything else as JSON; with a connection URL where its parts are there and it is not.
fn fields(data: &Map<String, Value>) -> Vec<(String, Vec<u8>)> {
    let mut fields: Vec<_> = data
        .iter()
        .map(|(name, value)| (name.clone(), text(value).into_bytes()))
        .collect();
    if let Some(url) = connection_url(data).filter(|_| !data.contains_key("url")) {
        fields.push(("url".to_owned(), url.into_bytes()));
    }
    fields.sort();
    fields
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `postgresql://user:password@host:port/database`, from the five fields.
fn connection_url(data: &Map<String, Value>) -> Option<String> {
    let mut parts = CONNECTION.iter().map(|name| {
        data.get(*name)
            .filter(|value| value.is_string() || value.is_number())
            .map(text)
    });
    let mut next = || parts.next().flatten();
    let (user, password, host, port, database) = (next()?, next()?, next()?, next()?, next()?);
    let host = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host
    };
    Some(format!(
        "postgresql://{}:{}@{host}:{port}/{}",
        encode(&user),
        encode(&password),
        encode(&database)
    ))
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
pub(crate) fn encode(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut encoded, byte| {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    encoded.push(byte.into())
                }
                other => encoded.push_str(&format!("%{other:02X}")),
            }
            encoded
        })
}

fn lease(reply: &Value) -> Option<Duration> {
    reply
        .get("lease_duration")
        .and_then(Value::as_u64)
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The fields as texts, of a reply in either version.
    fn check(reply: Value, version: u8, expected: Option<&[(&str, &str)]>) {
        let content = match version {
            1 => Content::from_version_1(&reply),
            _ => Content::from_version_2(&reply),
        };
        let found = content.map(|content| {
            content
                .fields
                .into_iter()
                .map(|(name, value)| (name, String::from_utf8(value).unwrap()))
                .collect::<Vec<_>>()
        });
        let expected = expected.map(|fields| {
            fields
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect()
        });
        assert_eq!(found, expected, "{reply}");
    }

    #[test]
    fn both_versions_have_their_shape() {
        check(
            json!({"data": {"b": "2", "a": 1, "c": {"d": true}}}),
            1,
            Some(&[("a", "1"), ("b", "2"), ("c", r#"{"d":true}"#)]),
        );
        check(
            json!({"data": {"data": {"a": "x"}, "metadata": {"version": 3}}}),
            2,
            Some(&[("a", "x")]),
        );
        check(json!({"data": {"a": "x"}}), 2, None);
        check(json!({"data": {"data": null, "metadata": {}}}), 2, None);
        check(json!({"data": {"data": "text"}}), 2, None);
        check(json!({"errors": []}), 1, None);
        check(json!([]), 1, None);
    }

    #[test]
    fn lease_and_version_are_kept() {
        let content = Content::from_version_1(&json!({"lease_duration": 60, "data": {}})).unwrap();
        assert_eq!(
            (content.time_to_live, content.version),
            (Some(Duration::from_secs(60)), None)
        );
        let reply =
            json!({"lease_duration": 0, "data": {"data": {"value": "v"}, "metadata": {"version": 3}}});
        let content = Content::from_version_2(&reply).unwrap();
        assert_eq!((content.time_to_live, content.version), (None, Some(3)));
        assert_eq!(content.only_value(), Some(&b"v"[..]));
    }

    #[test]
    fn five_fields_make_a_connection_url() {
        let url = |data: Value| connection_url(data.as_object().unwrap());
        let mut data =
            json!({"username": "a@b", "password": "p/w:ü %", "host": "db", "port": 5432, "database": "x y"});
        assert_eq!(
            url(data.clone()).as_deref(),
            Some("postgresql://a%40b:p%2Fw%3A%C3%BC%20%25@db:5432/x%20y")
        );
        data["host"] = json!("::1");
        data["port"] = json!("1");
        assert_eq!(
            url(data.clone()).as_deref(),
            Some("postgresql://a%40b:p%2Fw%3A%C3%BC%20%25@[::1]:1/x%20y")
        );
        data["port"] = Value::Null;
        assert_eq!(url(data), None);
    }

    #[test]
    fn a_url_that_is_there_is_kept() {
        let data =
            json!({"username": "u", "password": "p", "host": "h", "port": 1, "database": "d", "url": "mine"});
        let fields = fields(data.as_object().unwrap());
        assert_eq!(fields.iter().find(|(name, _)| name == "url").unwrap().1, b"mine");
        assert_eq!(fields.len(), 6);
    }
}
