//! The value of a `with:` block after its expressions were evaluated: JSON in which secrets are still handles.

use crate::name::SecretName;
use indexmap::IndexMap;
use serde_json::Value as Json;

/// JSON, and two things that JSON has not: a secret, and what is known only once an earlier stage has run.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    String(String),
    List(Vec<Value>),
    Map(IndexMap<String, Value>),
    /// A text with at least one secret in it.
    Secret(SecretText),
    /// Depends on the outputs of a stage that has not run.
    Unknown,
}

/// How a text is made from secrets. Holds names, never values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretText {
    Literal(String),
    Secret {
        name: SecretName,
        field: Option<String>,
    },
    Concat(Vec<SecretText>),
    /// Percent-encoded for a URL.
    UrlEncode(Box<SecretText>),
    /// `base64(user:password)`, for an `Authorization: Basic` header.
    Basic {
        user: Box<SecretText>,
        password: Box<SecretText>,
    },
}

impl SecretText {
    /// Calls `visit` for each secret in the text.
    pub fn for_each<'a>(&'a self, visit: &mut impl FnMut(&'a SecretName, Option<&'a str>)) {
        match self {
            Self::Literal(_) => {}
            Self::Secret { name, field } => visit(name, field.as_deref()),
            Self::Concat(parts) => parts.iter().for_each(|part| part.for_each(visit)),
            Self::UrlEncode(inner) => inner.for_each(visit),
            Self::Basic { user, password } => {
                user.for_each(visit);
                password.for_each(visit);
            }
        }
    }
}

impl Value {
    /// The value as JSON; a secret becomes what `placeholder` gives for it, an unknown value `null`.
    pub fn to_json(&self, placeholder: &mut impl FnMut(&SecretText) -> String) -> Json {
        match self {
            Self::Null | Self::Unknown => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Number(value) => Json::Number(value.clone()),
            Self::String(value) => Json::String(value.clone()),
            Self::List(items) => items.iter().map(|item| item.to_json(placeholder)).collect(),
            Self::Map(entries) => Json::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.clone(), value.to_json(placeholder)))
                    .collect(),
            ),
            Self::Secret(text) => Json::String(placeholder(text)),
        }
    }

    /// Whether anything in it is not known yet.
    pub fn has_unknown(&self) -> bool {
        match self {
            Self::Unknown => true,
            Self::List(items) => items.iter().any(Self::has_unknown),
            Self::Map(entries) => entries.values().any(Self::has_unknown),
            _ => false,
        }
    }

    /// Calls `visit` for every secret text in it, with the JSON pointer to where it stands.
    pub fn for_each_secret<'a>(
        &'a self,
        pointer: &mut Vec<String>,
        visit: &mut impl FnMut(&[String], &'a SecretText),
    ) {
        match self {
            Self::Secret(text) => visit(pointer, text),
            Self::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    pointer.push(index.to_string());
                    item.for_each_secret(pointer, visit);
                    pointer.pop();
                }
            }
            Self::Map(entries) => {
                for (key, item) in entries {
                    pointer.push(key.clone());
                    item.for_each_secret(pointer, visit);
                    pointer.pop();
                }
            }
            _ => {}
        }
    }
}

impl From<Json> for Value {
    fn from(json: Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(value),
            Json::Number(value) => Self::Number(value),
            Json::String(value) => Self::String(value),
            Json::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Json::Object(entries) => Self::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, Self::from(value)))
                    .collect(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_become_placeholders_and_are_found() {
        let name = SecretName::new("db").expect("valid");
        let secret = Value::Secret(SecretText::Concat(vec![
            SecretText::Literal("postgres://u:".into()),
            SecretText::UrlEncode(Box::new(SecretText::Secret {
                name,
                field: Some("password".into()),
            })),
        ]));
        let value = Value::Map(IndexMap::from([
            ("url".into(), secret),
            ("n".into(), Value::Unknown),
        ]));
        assert_eq!(
            value.to_json(&mut |_| "P".into()),
            serde_json::json!({ "url": "P", "n": null })
        );
        assert!(value.has_unknown());
        let mut found = Vec::new();
        value.for_each_secret(&mut Vec::new(), &mut |pointer, text| {
            text.for_each(&mut |name, field| {
                found.push((pointer.join("/"), name.to_string(), field.map(String::from)))
            });
        });
        assert_eq!(
            found,
            [("url".to_string(), "db".to_string(), Some("password".to_string()))]
        );
    }
}
