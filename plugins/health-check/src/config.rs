//! The `with:` block: named checks in the order of the file, each of exactly one kind.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use windlass_guest::{Error, duration};

/// The `with:` block.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    #[serde(deserialize_with = "in_order")]
    pub(crate) checks: Vec<(String, Check)>,
    #[serde(default = "thirty")]
    pub(crate) retries: u32,
    #[serde(default = "ten_seconds", deserialize_with = "duration::deserialize")]
    pub(crate) delay: Duration,
    #[serde(default = "five_seconds", deserialize_with = "duration::deserialize")]
    pub(crate) timeout: Duration,
}

/// One check as it is written; [`Check::kind`] tells what it is.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Check {
    http: Option<String>,
    headers: BTreeMap<String, String>,
    expect: Expect,
    tcp: Option<String>,
    sql: Option<String>,
    query: Option<String>,
    #[serde(deserialize_with = "even_null")]
    equals: Option<Value>,
    file: Option<String>,
    contains: Option<String>,
    container: Option<String>,
    /// Whose last output is shown when another check of it fails.
    pub(crate) logs: Option<String>,
    pub(crate) retries: Option<u32>,
    #[serde(deserialize_with = "duration::deserialize_option")]
    pub(crate) delay: Option<Duration>,
    #[serde(deserialize_with = "duration::deserialize_option")]
    pub(crate) timeout: Option<Duration>,
}

/// What a reply has to be like.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Expect {
    pub(crate) status: Vec<u16>,
    pub(crate) json: BTreeMap<String, Value>,
    pub(crate) header: BTreeMap<String, String>,
    #[serde(deserialize_with = "duration::deserialize_option")]
    pub(crate) latency: Option<Duration>,
}

/// A check, understood.
pub(crate) enum Kind<'a> {
    Http {
        url: &'a str,
        headers: &'a BTreeMap<String, String>,
        expect: &'a Expect,
    },
    Tcp {
        host: &'a str,
        port: u16,
    },
    Sql {
        url: &'a str,
        query: &'a str,
        equals: Option<&'a Value>,
    },
    File {
        path: &'a str,
        contains: Option<&'a str>,
    },
    /// `service`, or `project/service`.
    Container {
        service: &'a str,
    },
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            status: vec![200],
            json: BTreeMap::new(),
            header: BTreeMap::new(),
            latency: None,
        }
    }
}

impl Check {
    /// What is checked.
    ///
    /// # Errors
    /// `config.invalid` where the schema let something pass that means nothing.
    pub(crate) fn kind(&self, name: &str) -> Result<Kind<'_>, Error> {
        match (&self.http, &self.tcp, &self.sql, &self.file, &self.container) {
            (Some(url), None, None, None, None) => Ok(Kind::Http {
                url,
                headers: &self.headers,
                expect: &self.expect,
            }),
            (None, Some(target), None, None, None) => {
                let (host, port) = host_and_port(target).ok_or_else(|| {
                    Error::config(format!("check `{name}`: `{target}` is not a host and a port"))
                        .help("write host:port, for example redis:6379")
                })?;
                Ok(Kind::Tcp { host, port })
            }
            (None, None, Some(url), None, None) => {
                let query = self.query.as_deref().ok_or_else(|| {
                    Error::config(format!("check `{name}` has `sql` and no `query`"))
                        .help("add query: SELECT 1")
                })?;
                Ok(Kind::Sql {
                    url,
                    query,
                    equals: self.equals.as_ref(),
                })
            }
            (None, None, None, Some(path), None) => Ok(Kind::File {
                path,
                contains: self.contains.as_deref(),
            }),
            (None, None, None, None, Some(service)) => Ok(Kind::Container { service }),
            _ => Err(Error::config(format!(
                "check `{name}` is not exactly one of http, tcp, sql, file and container"
            ))
            .help("make a check of its own for each of them")),
        }
    }
}

/// `host:port` or `[v6]:port`.
fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .map_or(Some(host), |rest| rest.strip_suffix(']'))?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty()).then_some((host, port))
}

/// A map as the list of its entries: checks are made in the order they are written.
fn in_order<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, Check)>, D::Error> {
    struct Entries;

    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<(String, Check)>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("checks by name")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }

    from.deserialize_map(Entries)
}

/// `equals: null` is a value to compare with, not the lack of one.
fn even_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

fn thirty() -> u32 {
    30
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use windlass_guest::metadata::Metadata;

    #[test]
    fn metadata_and_configuration_agree() {
        let metadata = Metadata::parse(include_str!("../plugin.json"));
        let check = "/schema/properties/checks/additionalProperties";
        metadata.describes_fields_of::<Config>("/schema");
        metadata.describes_fields_of::<Check>(check);
        metadata.describes_fields_of::<Expect>(&format!("{check}/properties/expect"));
        metadata.is_fully_described();
        assert_eq!(metadata.examples_parse::<Config>(), 3);
    }

    #[test]
    fn defaults_are_those_of_the_guide_and_checks_keep_their_order() {
        let text = r#"{"checks": {"b": {"http": "http://x"}, "a": {"tcp": "x:1"}}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(
            (config.retries, config.delay, config.timeout),
            (30, ten_seconds(), five_seconds())
        );
        assert_eq!(
            config
                .checks
                .iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>(),
            ["b", "a"]
        );
        assert_eq!(config.checks[0].1.expect.status, [200]);
    }

    fn check(check: Value, message: Option<&str>) {
        let check: Check = serde_json::from_value(check).unwrap();
        match (check.kind("x"), message) {
            (Ok(_), None) => {}
            (Err(error), Some(part)) => assert!(error.message.contains(part), "{error}"),
            (found, expected) => panic!("{:?}, expected {expected:?}", found.err()),
        }
    }

    #[test]
    fn a_check_is_of_exactly_one_kind() {
        check(json!({"http": "http://x"}), None);
        check(json!({"tcp": "[::1]:80"}), None);
        check(
            json!({"sql": "sqlite:///x", "query": "SELECT 1", "equals": null}),
            None,
        );
        check(json!({"file": "/x"}), None);
        check(json!({"container": "team/backend"}), None);
        check(
            json!({"container": "backend", "http": "http://x"}),
            Some("not exactly one"),
        );
        check(json!({}), Some("not exactly one"));
        check(json!({"file": "/x", "tcp": "x:1"}), Some("not exactly one"));
        check(json!({"sql": "sqlite:///x"}), Some("no `query`"));
        for target in ["x", "x:", ":80", "x:0", "x:65536", "[::1:80"] {
            check(json!({"tcp": target}), Some("is not a host and a port"));
        }
    }
}
