//! Amounts in the one spelling that the resolved model has for them.

use std::time::Duration;

use serde_json::Value;

/// `1h2m3.5s`, `500ms`.
pub(crate) fn duration(value: &Value) -> Option<Duration> {
    let mut rest = value.as_str()?;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let unit = rest.find(|letter: char| letter.is_ascii_alphabetic())?;
        let (amount, behind) = rest.split_at(unit);
        let end = behind
            .find(|letter: char| !letter.is_ascii_alphabetic())
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let amount: f64 = amount.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(amount * seconds).ok()?)?;
        rest = behind;
    }
    Some(total)
}

/// Bytes: a number, or its text.
pub(crate) fn size(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// `0400`.
pub(crate) fn mode(value: &Value) -> Option<u32> {
    u32::from_str_radix(value.as_str()?, 8).ok()
}

/// A text, or what is written like one.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// A whole number, or its text.
pub(crate) fn number<T: std::str::FromStr>(value: &Value) -> Option<T> {
    text(value)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts() {
        let check = |text: &str, expected: Option<u64>| {
            let found = duration(&json!(text)).map(|found| found.as_millis() as u64);
            assert_eq!(found, expected, "{text}");
        };
        check("1m30s", Some(90_000));
        check("500ms", Some(500));
        check("2h0.25s", Some(7_200_250));
        check("0s", Some(0));
        for wrong in ["", "10", "s", "1y", "-1s"] {
            check(wrong, None);
        }
        assert_eq!(size(&json!("536870912")), Some(536_870_912));
        assert_eq!(mode(&json!("0440")), Some(0o440));
        assert_eq!(number::<u16>(&json!("8000")), Some(8000));
        assert_eq!(number::<u16>(&json!(70_000)), None);
    }
}
