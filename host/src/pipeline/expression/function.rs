//! The functions and operators of expressions, on values. Each is total: an error is a sentence, never a panic.

use crate::value::{SecretText, Value};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Number;
use std::cmp::Ordering;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Negate,
    Not,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    ToText,
    ToInteger,
    ToDouble,
    ToBool,
    Lower,
    Upper,
    Trim,
    Replace,
    Split,
    Join,
    UrlEncode,
    Basic,
}

/// One function: its name in CEL's tree, the name people write, how many values it takes (its target is the first).
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) function: Function,
    name: &'static str,
    pub(crate) shown: &'static str,
    pub(crate) arguments: &'static [usize],
}

const fn row(
    function: Function,
    name: &'static str,
    shown: &'static str,
    arguments: &'static [usize],
) -> Row {
    Row {
        function,
        name,
        shown,
        arguments,
    }
}

const TABLE: &[Row] = &[
    row(Function::Add, "_+_", "+", &[2]),
    row(Function::Subtract, "_-_", "-", &[2]),
    row(Function::Multiply, "_*_", "*", &[2]),
    row(Function::Divide, "_/_", "/", &[2]),
    row(Function::Remainder, "_%_", "%", &[2]),
    row(Function::Negate, "-_", "-", &[1]),
    row(Function::Not, "!_", "!", &[1]),
    row(Function::Equal, "_==_", "==", &[2]),
    row(Function::NotEqual, "_!=_", "!=", &[2]),
    row(Function::Less, "_<_", "<", &[2]),
    row(Function::LessOrEqual, "_<=_", "<=", &[2]),
    row(Function::Greater, "_>_", ">", &[2]),
    row(Function::GreaterOrEqual, "_>=_", ">=", &[2]),
    row(Function::In, "@in", "in", &[2]),
    row(Function::Size, "size", "size", &[1]),
    row(Function::Contains, "contains", "contains", &[2]),
    row(Function::StartsWith, "startsWith", "startsWith", &[2]),
    row(Function::EndsWith, "endsWith", "endsWith", &[2]),
    row(Function::Matches, "matches", "matches", &[2]),
    row(Function::ToText, "string", "string", &[1]),
    row(Function::ToInteger, "int", "int", &[1]),
    row(Function::ToDouble, "double", "double", &[1]),
    row(Function::ToBool, "bool", "bool", &[1]),
    row(Function::Lower, "lowerAscii", "lowerAscii", &[1]),
    row(Function::Upper, "upperAscii", "upperAscii", &[1]),
    row(Function::Trim, "trim", "trim", &[1]),
    row(Function::Replace, "replace", "replace", &[3]),
    row(Function::Split, "split", "split", &[2]),
    row(Function::Join, "join", "join", &[1, 2]),
    row(Function::UrlEncode, "urlencode", "urlencode", &[1]),
    row(Function::Basic, "basic", "basic", &[2]),
];

/// The largest compiled pattern of `matches`.
const PATTERN_BYTES: usize = 1 << 20;
/// The longest text that an expression may build.
pub(super) const MAXIMUM_TEXT: usize = 4 << 20;

impl Function {
    pub(crate) fn find(name: &str) -> Option<&'static Row> {
        TABLE.iter().find(|row| row.name == name)
    }

    /// The names that people can type.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        TABLE
            .iter()
            .map(|row| row.name)
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphabetic()))
    }

    fn shown(self) -> &'static str {
        TABLE
            .iter()
            .find(|row| row.function == self)
            .map_or("", |row| row.shown)
    }

    /// Whether it may be given a secret: it hands the secret on and learns nothing of it.
    fn takes_secrets(self) -> bool {
        matches!(self, Self::Add | Self::UrlEncode | Self::Basic | Self::ToText)
    }

    /// # Errors
    /// The values are not of the kinds it takes, a secret would be looked into, or the result is too large.
    pub(crate) fn apply(self, arguments: Vec<Value>) -> Result<Value, String> {
        if !self.takes_secrets() && arguments.iter().any(has_secret) {
            let shown = self.shown();
            return Err(format!(
                "`{shown}` would look into a secret; a secret can only be handed on, joined with `+`, urlencode() or basic()"
            ));
        }
        // Texts and numbers are decided by what is known; a list with an unknown part is as unknown as that part.
        if arguments.iter().any(Value::has_unknown) {
            return Ok(Value::Unknown);
        }
        let mut arguments = arguments.into_iter();
        let mut next = || arguments.next().unwrap_or(Value::Null);
        let first = next();
        match self {
            Self::Negate
            | Self::Not
            | Self::Size
            | Self::ToText
            | Self::ToInteger
            | Self::ToDouble
            | Self::ToBool => self.one(first),
            Self::Lower | Self::Upper | Self::Trim | Self::UrlEncode => self.text_to_text(first),
            Self::Replace => self.replace(&first, &next(), &next()),
            Self::Join => {
                let separator = next();
                let separator = if separator == Value::Null {
                    Value::String(String::new())
                } else {
                    separator
                };
                self.join(&first, &separator)
            }
            Self::Add => self.add(first, next()),
            Self::Subtract | Self::Multiply | Self::Divide | Self::Remainder => {
                self.arithmetic(&first, &next())
            }
            Self::Equal => Ok(Value::Bool(equal(&first, &next()))),
            Self::NotEqual => Ok(Value::Bool(!equal(&first, &next()))),
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual => {
                self.order(&first, &next())
            }
            Self::In => self.is_in(&first, &next()),
            Self::Basic => self.basic(first, next()),
            Self::Contains | Self::StartsWith | Self::EndsWith | Self::Matches | Self::Split => {
                self.of_two_texts(&first, &next())
            }
        }
    }

    fn wrong(self, values: &[&Value]) -> String {
        let kinds: Vec<&str> = values.iter().map(|value| describe(value)).collect();
        let help = match self {
            Self::Add if kinds.contains(&"text") => "; string() makes text of a number",
            Self::Add | Self::Subtract | Self::Multiply | Self::Divide
                if kinds == ["a whole number", "a number with a fraction"]
                    || kinds == ["a number with a fraction", "a whole number"] =>
            {
                "; int() and double() convert"
            }
            _ => "",
        };
        format!("`{}` does not take {}{help}", self.shown(), kinds.join(" and "))
    }

    fn one(self, value: Value) -> Result<Value, String> {
        let wrong = self.wrong(&[&value]);
        let integer = |value: Option<i64>| value.map(|value| Value::Number(value.into()));
        let result = match (self, value) {
            (Self::Not, Value::Bool(value)) => Some(Value::Bool(!value)),
            (Self::Negate, Value::Number(number)) => match number.as_i64() {
                Some(value) => integer(value.checked_neg()),
                None => number.as_f64().and_then(|value| float(-value)),
            },
            (Self::Size, Value::String(text)) => integer(i64::try_from(text.chars().count()).ok()),
            (Self::Size, Value::List(items)) => integer(i64::try_from(items.len()).ok()),
            (Self::Size, Value::Map(entries)) => integer(i64::try_from(entries.len()).ok()),
            (Self::ToText, value @ (Value::String(_) | Value::Secret(_))) => Some(value),
            (Self::ToText, Value::Number(number)) => Some(Value::String(number.to_string())),
            (Self::ToText, Value::Bool(value)) => Some(Value::String(value.to_string())),
            (Self::ToInteger, Value::String(text)) => integer(text.parse().ok()),
            (Self::ToInteger, Value::Number(number)) => match number.as_i64() {
                Some(value) => integer(Some(value)),
                None => integer(number.as_f64().and_then(whole)),
            },
            (Self::ToDouble, Value::String(text)) => text.parse().ok().and_then(float),
            (Self::ToDouble, Value::Number(number)) => number.as_f64().and_then(float),
            (Self::ToBool, value @ Value::Bool(_)) => Some(value),
            (Self::ToBool, Value::String(text)) => text.parse().ok().map(Value::Bool),
            _ => None,
        };
        result.ok_or(wrong)
    }

    fn text_to_text(self, value: Value) -> Result<Value, String> {
        match (self, value) {
            (Self::UrlEncode, Value::Secret(text)) => {
                Ok(Value::Secret(SecretText::UrlEncode(Box::new(text))))
            }
            (Self::UrlEncode, Value::String(text)) => bounded(url_encode(&text)),
            (Self::Lower, Value::String(text)) => Ok(Value::String(text.to_ascii_lowercase())),
            (Self::Upper, Value::String(text)) => Ok(Value::String(text.to_ascii_uppercase())),
            (Self::Trim, Value::String(text)) => Ok(Value::String(text.trim().to_string())),
            (_, value) => Err(self.wrong(&[&value])),
        }
    }

    fn of_two_texts(self, first: &Value, second: &Value) -> Result<Value, String> {
        let (Value::String(text), Value::String(part)) = (first, second) else {
            return Err(self.wrong(&[first, second]));
        };
        Ok(match self {
            Self::Contains => Value::Bool(text.contains(part.as_str())),
            Self::StartsWith => Value::Bool(text.starts_with(part.as_str())),
            Self::EndsWith => Value::Bool(text.ends_with(part.as_str())),
            Self::Split => Value::List(
                text.split(part.as_str())
                    .map(|part| Value::String(part.to_string()))
                    .collect(),
            ),
            _ => {
                let pattern = regex::RegexBuilder::new(part).size_limit(PATTERN_BYTES).build();
                let pattern = pattern
                    .map_err(|_| "the pattern of `matches` is not a regular expression".to_string())?;
                Value::Bool(pattern.is_match(text))
            }
        })
    }

    fn replace(self, text: &Value, from: &Value, to: &Value) -> Result<Value, String> {
        let (Value::String(text), Value::String(from), Value::String(to)) = (text, from, to) else {
            return Err(self.wrong(&[text, from, to]));
        };
        let growth = text.matches(from.as_str()).count().saturating_mul(to.len());
        if growth > MAXIMUM_TEXT {
            return Err(too_long());
        }
        bounded(text.replace(from.as_str(), to))
    }

    fn join(self, list: &Value, separator: &Value) -> Result<Value, String> {
        let (Value::List(items), Value::String(between)) = (list, separator) else {
            return Err(self.wrong(&[list, separator]));
        };
        let mut joined = String::new();
        for (index, item) in items.iter().enumerate() {
            let Value::String(item) = item else {
                return Err(self.wrong(&[item]));
            };
            if index > 0 {
                joined.push_str(between);
            }
            joined.push_str(item);
            if joined.len() > MAXIMUM_TEXT {
                return Err(too_long());
            }
        }
        Ok(Value::String(joined))
    }

    fn add(self, left: Value, right: Value) -> Result<Value, String> {
        match (left, right) {
            (Value::List(mut items), Value::List(more)) => {
                items.extend(more);
                Ok(Value::List(items))
            }
            (Value::String(mut text), Value::String(more)) => {
                text.push_str(&more);
                bounded(text)
            }
            (left @ (Value::String(_) | Value::Secret(_)), right @ (Value::String(_) | Value::Secret(_))) => {
                Ok(Value::Secret(concat(
                    [left, right].into_iter().filter_map(secret_text),
                )))
            }
            (left, right) => self.arithmetic(&left, &right),
        }
    }

    fn arithmetic(self, left: &Value, right: &Value) -> Result<Value, String> {
        let (Value::Number(first), Value::Number(second)) = (left, right) else {
            return Err(self.wrong(&[left, right]));
        };
        let result = match (first.as_i64(), second.as_i64()) {
            (Some(first), Some(second)) => match self {
                Self::Add => first.checked_add(second),
                Self::Subtract => first.checked_sub(second),
                Self::Multiply => first.checked_mul(second),
                Self::Divide => first.checked_div(second),
                _ => first.checked_rem(second),
            }
            .map(|value| Value::Number(value.into())),
            (None, None) => {
                let (first, second) = (first.as_f64().unwrap_or(0.0), second.as_f64().unwrap_or(0.0));
                match self {
                    Self::Add => float(first + second),
                    Self::Subtract => float(first - second),
                    Self::Multiply => float(first * second),
                    Self::Divide => float(first / second),
                    _ => return Err(self.wrong(&[left, right])),
                }
            }
            _ => return Err(self.wrong(&[left, right])),
        };
        result.ok_or_else(|| {
            format!(
                "`{}` has no result here: too large, or divided by zero",
                self.shown()
            )
        })
    }

    fn order(self, left: &Value, right: &Value) -> Result<Value, String> {
        let order = match (left, right) {
            (Value::Number(left), Value::Number(right)) => compare(left, right),
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            _ => None,
        };
        let order = order.ok_or_else(|| self.wrong(&[left, right]))?;
        Ok(Value::Bool(match self {
            Self::Less => order == Ordering::Less,
            Self::LessOrEqual => order != Ordering::Greater,
            Self::Greater => order == Ordering::Greater,
            _ => order != Ordering::Less,
        }))
    }

    fn is_in(self, value: &Value, container: &Value) -> Result<Value, String> {
        match (value, container) {
            (value, Value::List(items)) => Ok(Value::Bool(items.iter().any(|item| equal(item, value)))),
            (Value::String(key), Value::Map(entries)) => Ok(Value::Bool(entries.contains_key(key))),
            _ => Err(self.wrong(&[value, container])),
        }
    }

    fn basic(self, user: Value, password: Value) -> Result<Value, String> {
        if let (Value::String(user), Value::String(password)) = (&user, &password) {
            return bounded(STANDARD.encode(format!("{user}:{password}")));
        }
        let wrong = self.wrong(&[&user, &password]);
        match (secret_text(user), secret_text(password)) {
            (Some(user), Some(password)) => Ok(Value::Secret(SecretText::Basic {
                user: Box::new(user),
                password: Box::new(password),
            })),
            _ => Err(wrong),
        }
    }
}

/// What a value is, in words.
pub(super) fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a whole number",
        Value::String(_) => "text",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
        Value::Secret(_) => "a secret",
        Value::Unknown => "a value that is not known yet",
    }
}

fn has_secret(value: &Value) -> bool {
    match value {
        Value::Secret(_) => true,
        Value::List(items) => items.iter().any(has_secret),
        Value::Map(entries) => entries.values().any(has_secret),
        _ => false,
    }
}

fn secret_text(value: Value) -> Option<SecretText> {
    match value {
        Value::String(text) => Some(SecretText::Literal(text)),
        Value::Secret(text) => Some(text),
        _ => None,
    }
}

/// One text of several, flat, without empty pieces.
pub(super) fn concat(parts: impl IntoIterator<Item = SecretText>) -> SecretText {
    let mut flat = Vec::new();
    for part in parts {
        match part {
            SecretText::Concat(inner) => flat.extend(inner),
            SecretText::Literal(text) if text.is_empty() => {}
            SecretText::Literal(text) => match flat.last_mut() {
                Some(SecretText::Literal(before)) => before.push_str(&text),
                _ => flat.push(SecretText::Literal(text)),
            },
            other => flat.push(other),
        }
    }
    match <[SecretText; 1]>::try_from(flat) {
        Ok([only]) => only,
        Err(flat) => SecretText::Concat(flat),
    }
}

/// Everything but the unreserved characters of a URL, percent-encoded.
fn url_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn bounded(text: String) -> Result<Value, String> {
    if text.len() > MAXIMUM_TEXT {
        Err(too_long())
    } else {
        Ok(Value::String(text))
    }
}

fn too_long() -> String {
    format!("the text would be longer than {} MB", MAXIMUM_TEXT >> 20)
}

fn float(value: f64) -> Option<Value> {
    Number::from_f64(value).map(Value::Number)
}

fn whole(value: f64) -> Option<i64> {
    /// Beyond this, a float's neighbours are more than one apart.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "bounded on the line before")]
    (value.abs() <= EXACT).then_some(value.trunc() as i64)
}

fn compare(left: &Number, right: &Number) -> Option<Ordering> {
    match (left.as_i64(), right.as_i64()) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare(left, right) == Some(Ordering::Equal),
        (Value::List(left), Value::List(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Map(left), Value::Map(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, value)| right.get(key).is_some_and(|other| equal(value, other)))
        }
        (left, right) => left == right,
    }
}
