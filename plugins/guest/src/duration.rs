//! Durations as people write them, `500ms`, `10s`, `5m`, `2h`, `1d`, to [`Duration`] and back. It knows no `1h30m`.

use crate::Error;
use std::time::Duration;

/// Units, small to big, with their milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Reads a duration: digits and a unit.
///
/// # Errors
/// `config.invalid`, with the units there are.
pub fn parse(text: &str) -> Result<Duration, Error> {
    let trimmed = text.trim();
    let (digits, unit) = trimmed.split_at(
        trimmed
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(trimmed.len()),
    );
    UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .and_then(|(_, scale)| digits.parse::<u64>().ok()?.checked_mul(*scale))
        .map(Duration::from_millis)
        .ok_or_else(|| {
            Error::config(format!("`{text}` is not a duration"))
                .help("write a whole number and a unit: 500ms, 10s, 5m, 2h or 1d")
        })
}

/// Writes a duration in the biggest unit that divides it; less than a millisecond is left out.
pub fn show(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (name, scale) = UNITS
        .iter()
        .rev()
        .find(|(_, scale)| milliseconds >= *scale && milliseconds.is_multiple_of(*scale))
        .unwrap_or(&UNITS[0]);
    format!("{}{name}", milliseconds / scale)
}

/// For `#[serde(deserialize_with = ...)]` on a field of a configuration.
pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = <String as serde::Deserialize>::deserialize(from)?;
    parse(&text).map_err(|error| serde::de::Error::custom(error.message))
}

/// As [`deserialize`], for a field that may be left out.
pub fn deserialize_option<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = <Option<String> as serde::Deserialize>::deserialize(from)?;
    text.map(|text| parse(&text).map_err(|error| serde::de::Error::custom(error.message)))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, milliseconds: Option<u64>) {
        let parsed = parse(text).ok().map(|duration| duration.as_millis() as u64);
        assert_eq!(parsed, milliseconds, "{text}");
        if milliseconds.is_some() {
            assert_eq!(show(parse(text).unwrap()), text.trim());
        }
    }

    #[test]
    fn durations_go_both_ways() {
        check("500ms", Some(500));
        check("10s", Some(10_000));
        check(" 5m ", Some(300_000));
        check("2h", Some(7_200_000));
        check("1d", Some(86_400_000));
        check("0ms", Some(0));
        for wrong in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "1h30m",
            "10 s",
            "99999999999999999999d",
            "18446744073709551615d",
        ] {
            check(wrong, None);
        }
    }
}
