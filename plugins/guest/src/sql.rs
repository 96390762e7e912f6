//! Databases: SQLite and PostgreSQL behind one connection.

use crate::bindings::sql::database;
use crate::{Error, stage};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// How to connect; `None` and `false` leave the host's default.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Options {
    /// Make the file of a SQLite database that is not there.
    #[serde(skip_serializing_if = "is_false")]
    pub create: bool,
    /// Refuse every write.
    #[serde(skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// How long to wait for the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout_ms: Option<u64>,
    /// How long to wait for locks of others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_timeout_ms: Option<u64>,
    /// How long one statement may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement_timeout_ms: Option<u64>,
    /// PostgreSQL's `search_path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search_path: Option<String>,
}

/// One connection, closed when dropped.
pub struct Connection(database::Connection);

/// The answer to a query.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Rows {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The values, row by row.
    pub rows: Vec<Vec<Value>>,
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// The statement; without parameters it may be many statements.
    pub sql: String,
    /// Its parameters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Value>,
    /// It only adds what an older program does not mind. A transaction of such steps does not count as a change that a failed
    /// run leaves behind.
    #[serde(
        rename = "leaves",
        skip_serializing_if = "is_false",
        serialize_with = "as_leaves"
    )]
    pub is_additive: bool,
}

impl Step {
    /// A step without parameters.
    pub fn new(sql: impl Into<String>) -> Self {
        Self {
            sql: sql.into(),
            parameters: Vec::new(),
            is_additive: false,
        }
    }

    /// A step with parameters.
    pub fn with(sql: impl Into<String>, parameters: Vec<Value>) -> Self {
        Self {
            sql: sql.into(),
            parameters,
            is_additive: false,
        }
    }

    /// The same step, which is additive where that is so.
    #[must_use]
    pub fn additive(self, is_additive: bool) -> Self {
        Self { is_additive, ..self }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Affected {
    rows_affected: Vec<u64>,
}

/// Connects. `url` may be or hold a secret's placeholder.
pub fn open(url: &str, options: &Options) -> Result<Connection, Error> {
    let options = serde_json::to_string(options).expect("options are plain values");
    Ok(Connection(database::open(url, &options)?))
}

impl Connection {
    /// Reads: one statement.
    pub fn query(&self, statement: &str, parameters: &[Value]) -> Result<Rows, Error> {
        let parameters = serde_json::to_string(parameters).expect("JSON values are JSON");
        stage::read(&self.0.query(statement, &parameters)?)
    }

    /// Writes: all steps in one transaction or none. The rows each step touched.
    pub fn transact(&self, label: &str, steps: &[Step]) -> Result<Vec<u64>, Error> {
        let steps = serde_json::to_string(steps).expect("JSON values are JSON");
        let affected: Affected = stage::read(&self.0.transact(label, &steps)?)?;
        Ok(affected.rows_affected)
    }

    /// Takes an advisory lock for as long as the connection lives. False: held by another.
    pub fn lock(&self, key: &str, timeout: Duration) -> Result<bool, Error> {
        Ok(self
            .0
            .lock(key, u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX))?)
    }

    /// `sqlite` or `postgresql`.
    pub fn dialect(&self) -> String {
        self.0.dialect()
    }
}

/// Only called for what is additive.
fn as_leaves<S: serde::Serializer>(_: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("additive")
}

fn is_false(value: &bool) -> bool {
    !value
}
