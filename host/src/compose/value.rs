//! Words for amounts to amounts: sizes, spans of time, truths, modes of files. And back, in one spelling each.

use serde_json::Number;
use std::time::Duration;

pub(super) const SIZE: &str =
    "a size is a number with a unit: b, k, m, g or t, also kb, mb, gb, tb (each 1024 times the one before)";
pub(super) const DURATION: &str =
    "a span of time is numbers with units: us, ms, s, m, h, d or w, as in 90s or 1m30s";
pub(super) const MODE: &str = "the mode of a file is an octal number such as 0440";

/// What the specification takes for true and false in text, which is where a variable puts it.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "t" | "1" => Some(true),
        "false" | "no" | "off" | "n" | "f" | "0" => Some(false),
        _ => None,
    }
}

/// A number in text, which is where a variable puts it.
pub(super) fn number(text: &str) -> Option<Number> {
    let text = text.trim();
    let integer = text.parse::<i64>().ok().map(Number::from);
    integer.or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64))
}

/// `2.0` is `2`.
pub(super) fn plain(number: Number) -> Number {
    /// Above this, floating-point numbers leave whole ones out.
    const EXACT: f64 = 9.0e15;
    let float = number.as_f64().filter(|_| number.is_f64());
    match float.filter(|float| float.fract() == 0.0 && float.abs() < EXACT) {
        Some(whole) => Number::from(whole as i64),
        None => number,
    }
}

/// Bytes; -1 is "no limit" for some keys.
pub(super) fn size(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(bytes) = text.parse::<i64>() {
        return (bytes >= -1).then_some(bytes);
    }
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic() || letter == ' ');
    let unit = text[digits.len()..].trim().to_lowercase();
    let power = match unit.as_str() {
        "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let unit = 1024_i64.pow(power);
    if let Ok(whole) = digits.parse::<u32>() {
        return i64::from(whole).checked_mul(unit);
    }
    let amount = digits
        .parse::<f64>()
        .ok()
        .filter(|amount| amount.is_finite() && *amount >= 0.0)?;
    /// Half of what 64 bits hold: far above every machine, and no rounding can leave the range.
    const MOST: f64 = 4.0e18;
    let bytes = amount * unit as f64;
    (bytes < MOST).then_some(bytes as i64)
}

/// `1h30m`, `1.5s`, `100ms`; `0` needs no unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let unit = rest.find(|letter: char| letter.is_ascii_alphabetic() || letter == 'µ')?;
        let amount = rest[..unit]
            .parse::<f64>()
            .ok()
            .filter(|amount| amount.is_finite())?;
        rest = &rest[unit..];
        let end = rest
            .find(|letter: char| !letter.is_ascii_alphabetic() && letter != 'µ')
            .unwrap_or(rest.len());
        let seconds = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(amount * seconds).ok()?)?;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(total)
}

/// `1m30s`: hours, minutes and seconds, those that are not zero.
pub(super) fn show_duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let mut shown = String::new();
    for (amount, unit) in [(seconds / 3_600, "h"), (seconds % 3_600 / 60, "m")] {
        if amount > 0 {
            shown += &format!("{amount}{unit}");
        }
    }
    let (rest, nanoseconds) = (seconds % 60, u64::from(span.subsec_nanos()));
    if nanoseconds == 0 && (rest > 0 || shown.is_empty()) {
        shown += &format!("{rest}s");
    } else if nanoseconds > 0 && seconds == 0 && nanoseconds % 1_000_000 == 0 {
        shown += &format!("{}ms", nanoseconds / 1_000_000);
    } else if nanoseconds > 0 {
        let fraction = format!("{nanoseconds:09}");
        shown += &format!("{rest}.{}s", fraction.trim_end_matches('0'));
    }
    shown
}

/// A mode as it was written: octal where it starts with `0` or `0o`, else the decimal number that YAML made of it.
pub(super) fn mode(text: &str) -> Option<u32> {
    /// Permissions with the three special bits.
    const MOST: u32 = 0o7777;
    let octal = text
        .strip_prefix("0o")
        .or_else(|| text.strip_prefix('0').filter(|rest| !rest.is_empty()));
    let mode = match octal {
        Some(digits) => u32::from_str_radix(digits, 8).ok()?,
        None => text.parse().ok()?,
    };
    (mode <= MOST).then_some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("512m", Some(512 << 20)),
            ("1.5GB", Some(3 << 29)),
            ("64", Some(64)),
            ("10 kb", Some(10 << 10)),
            ("-1", Some(-1)),
            ("-2", None),
            ("1x", None),
            ("", None),
            ("m", None),
            ("99999999p", None),
            ("1e40p", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
    }

    #[test]
    fn spans_of_time() {
        for (text, expected) in [
            ("30s", Some("30s")),
            ("90s", Some("1m30s")),
            ("1h0m5s", Some("1h5s")),
            ("100ms", Some("100ms")),
            ("1.5s", Some("1.5s")),
            ("0", Some("0s")),
            ("1d", Some("24h")),
            ("1m0.25s", Some("1m0.25s")),
            ("30", None),
            ("", None),
            ("s", None),
            ("-5s", None),
            ("1y", None),
            ("1e300h", None),
        ] {
            let shown = duration(text).map(show_duration);
            assert_eq!(shown.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn modes_and_truths() {
        for (text, expected) in [
            ("0440", Some(0o440)),
            ("0o440", Some(0o440)),
            ("288", Some(288)),
            ("9", Some(9)),
            ("0999", None),
            ("99999", None),
            ("0", Some(0)),
        ] {
            assert_eq!(mode(text), expected, "{text}");
        }
        assert_eq!(
            [truth("Yes"), truth("off"), truth("maybe")],
            [Some(true), Some(false), None]
        );
    }
}
