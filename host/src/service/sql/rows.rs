//! The answer to a query as JSON, bounded while it grows: a huge table is an error, never a full memory.

use crate::failure::{Failure, Turn};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value as Json, json};

/// As the WIT says.
const MOST_ROWS: usize = 10_000;
const MOST_BYTES: usize = 4 << 20;

/// Rows so far.
pub(crate) struct Rows {
    columns: Vec<String>,
    rows: Vec<Json>,
    bytes: usize,
}

impl Rows {
    pub(crate) fn new(columns: Vec<String>) -> Self {
        let bytes = columns.iter().map(|column| column.len() + 3).sum();
        Self {
            columns,
            rows: Vec::new(),
            bytes,
        }
    }

    /// # Errors
    /// `sql.too-large`.
    pub(crate) fn push(&mut self, row: Vec<Json>) -> Result<(), Failure> {
        let row = Json::Array(row);
        self.bytes += row.to_string().len() + 1;
        if self.rows.len() >= MOST_ROWS || self.bytes > MOST_BYTES {
            let message = format!("the answer has more than {MOST_ROWS} rows or 4 MiB");
            let failure = Failure::new(Turn::Plugin, "sql.too-large", message);
            return Err(failure.help("ask for less: LIMIT, or fewer columns"));
        }
        self.rows.push(row);
        Ok(())
    }

    pub(crate) fn into_json(self) -> Json {
        json!({ "columns": self.columns, "rows": self.rows })
    }
}

pub(crate) fn bytes(value: &[u8]) -> Json {
    Json::String(BASE64_STANDARD.encode(value))
}

/// JSON has no infinities: they are shown as PostgreSQL shows them.
pub(crate) fn float(value: f64) -> Json {
    match serde_json::Number::from_f64(value) {
        Some(number) => Json::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let check = |count: usize, size: usize, fits: bool| {
            let mut rows = Rows::new(vec!["a".into()]);
            let pushed = (0..count).try_for_each(|_| rows.push(vec!["x".repeat(size).into()]));
            assert_eq!(pushed.is_ok(), fits, "{count} rows of {size} bytes");
        };
        check(MOST_ROWS, 1, true);
        check(MOST_ROWS + 1, 1, false);
        check(4, (1 << 20) - 10, true);
        check(4, 1 << 20, false);
    }

    #[test]
    fn floats() {
        assert_eq!(float(1.5), json!(1.5));
        assert_eq!(float(f64::NEG_INFINITY), json!("-Infinity"));
        assert_eq!(float(f64::NAN), json!("NaN"));
    }
}
