//! Values between JSON and PostgreSQL. Parameters go as text, which the server reads for every type; results come as they
//! are for the types that JSON has, and as the server's own text for all others.

use super::super::rows;
use crate::failure::Failure;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::BytesMut;
use serde_json::Value as Json;
use std::error::Error;
use tokio_postgres::{
    Row, Statement,
    types::{Format, FromSql, IsNull, ToSql, Type, to_sql_checked},
};

/// A JSON value on its way to the server.
#[derive(Debug)]
pub(super) struct Parameter(pub(super) Json);

impl ToSql for Parameter {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let is_json = matches!(*kind, Type::JSON | Type::JSONB);
        match &self.0 {
            Json::Null => return Ok(IsNull::Yes),
            Json::String(text) if *kind == Type::BYTEA => {
                let bytes = BASE64_STANDARD
                    .decode(text)
                    .map_err(|_| "a parameter of type bytea is no base64 text")?;
                out.extend_from_slice(b"\\x");
                out.extend_from_slice(hex::encode(bytes).as_bytes());
            }
            Json::String(text) if !is_json => out.extend_from_slice(text.as_bytes()),
            other => out.extend_from_slice(other.to_string().as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_kind: &Type) -> bool {
        true
    }

    fn encode_format(&self, _kind: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// Types that come as they are.
pub(super) fn is_plain(kind: &Type) -> bool {
    matches!(
        *kind,
        Type::BOOL
            | Type::INT2
            | Type::INT4
            | Type::INT8
            | Type::FLOAT4
            | Type::FLOAT8
            | Type::TEXT
            | Type::VARCHAR
            | Type::BPCHAR
            | Type::NAME
            | Type::UNKNOWN
            | Type::JSON
            | Type::JSONB
            | Type::BYTEA
            | Type::VOID
    )
}

/// `statement` with every column that is not plain as text, where there is one.
pub(super) fn as_text(statement: &str, prepared: &Statement) -> Option<String> {
    let columns = prepared.columns();
    if columns.iter().all(|column| is_plain(column.type_())) {
        return None;
    }
    let names: Vec<_> = (0..columns.len()).map(|index| format!("c{index}")).collect();
    let shown = columns
        .iter()
        .zip(&names)
        .map(|(column, name)| match column.type_() {
            kind if is_plain(kind) => name.clone(),
            _ => format!("{name}::text"),
        });
    let shown = shown.collect::<Vec<_>>().join(", ");
    let inner = statement.trim_end().trim_end_matches(';');
    // On lines of their own: the statement may end in a comment.
    Some(format!(
        "SELECT {shown} FROM (\n{inner}\n) AS answer({})",
        names.join(", ")
    ))
}

/// # Errors
/// `sql.failed`: the server sent what its type cannot be.
pub(super) fn row(row: &Row) -> Result<Vec<Json>, Failure> {
    let value = |index| row.try_get::<_, Value>(index).map(|value| value.0);
    let values: Result<_, _> = (0..row.len()).map(value).collect();
    values.map_err(|error| super::failed(&error))
}

/// A value of a plain type.
struct Value(Json);

impl<'a> FromSql<'a> for Value {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(match *kind {
            Type::BOOL => bool::from_sql(kind, raw)?.into(),
            Type::INT2 => i16::from_sql(kind, raw)?.into(),
            Type::INT4 => i32::from_sql(kind, raw)?.into(),
            Type::INT8 => i64::from_sql(kind, raw)?.into(),
            Type::FLOAT4 => rows::float(f32::from_sql(kind, raw)?.into()),
            Type::FLOAT8 => rows::float(f64::from_sql(kind, raw)?),
            Type::JSON | Type::JSONB => Json::from_sql(kind, raw)?,
            Type::BYTEA => rows::bytes(raw),
            Type::VOID => Json::Null,
            _ => std::str::from_utf8(raw)?.into(),
        }))
    }

    fn from_sql_null(_kind: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(Json::Null))
    }

    fn accepts(kind: &Type) -> bool {
        is_plain(kind)
    }
}
