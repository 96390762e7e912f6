//! The failure of a stage or of a host call, in both directions across the boundary.

use crate::bindings::stage::types;
use serde_json::{Map, Value};
use std::fmt;

/// A failure with a stable code. Never holds a secret's value.
#[derive(Debug, Clone, PartialEq)]
pub struct Error {
    /// Dotted lower case, for example `config.invalid`. `retry.on` of a stage matches it by prefix.
    pub code: String,
    /// One sentence for a person.
    pub message: String,
    /// True when the same call may succeed later with nothing changed.
    pub retryable: bool,
    /// A JSON object with whatever more is known; `help` in it is shown as the next thing to do.
    pub details: Option<Value>,
}

impl Error {
    /// A failure that trying again does not cure.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            retryable: false,
            details: None,
        }
    }

    /// The failure of a `with:` block: the pipeline's author has to change it.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new("config.invalid", message)
    }

    /// Marks it as one that may pass by itself.
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Adds the members of a JSON object; anything else is kept under `value`.
    pub fn with_details(mut self, details: Value) -> Self {
        let added = match details {
            Value::Object(members) => members,
            other => Map::from_iter([("value".to_owned(), other)]),
        };
        match &mut self.details {
            Some(Value::Object(known)) => known.extend(added),
            known => *known = Some(Value::Object(added)),
        }
        self
    }

    /// Adds the next thing to do.
    pub fn help(self, help: impl Into<String>) -> Self {
        let help = Value::String(help.into());
        self.with_details(Value::Object(Map::from_iter([("help".to_owned(), help)])))
    }

    /// Puts words in front of the message: what was being done when it happened.
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for Error {}

impl From<types::Error> for Error {
    fn from(from: types::Error) -> Self {
        Self {
            code: from.code,
            message: from.message,
            retryable: from.retryable,
            details: from
                .details
                .map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
        }
    }
}

impl From<Error> for types::Error {
    fn from(from: Error) -> Self {
        Self {
            code: from.code,
            message: from.message,
            retryable: from.retryable,
            details: from.details.map(|details| details.to_string()),
        }
    }
}

impl From<Error> for std::io::Error {
    fn from(from: Error) -> Self {
        std::io::Error::other(from)
    }
}

impl From<std::io::Error> for Error {
    /// A capability used as a reader or writer comes back out as it went in; anything else is a file's failure.
    fn from(from: std::io::Error) -> Self {
        match from.downcast::<Error>() {
            Ok(inner) => inner,
            Err(other) => Self::new("file.failed", other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn details_grow_and_survive_the_boundary() {
        let error = Error::new("a.b", "no")
            .retryable()
            .with_details(json!({"status": 503}))
            .help("wait");
        let there: types::Error = error.clone().into();
        let details = there
            .details
            .as_deref()
            .map(serde_json::from_str::<serde_json::Value>);
        assert_eq!(
            details.and_then(Result::ok),
            Some(json!({ "help": "wait", "status": 503 }))
        );
        assert_eq!(Error::from(there), error);
    }

    #[test]
    fn a_capability_error_comes_back_out_of_an_io_error() {
        let error = Error::new("storage.failed", "disk full");
        assert_eq!(Error::from(std::io::Error::from(error.clone())), error);
        let file = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(Error::from(file).code, "file.failed");
    }
}
