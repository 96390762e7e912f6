//! `10m`, `1h30m`, `500ms`: text to a duration.

use std::time::Duration;

/// The longest duration: a year is not a timeout.
const MAXIMUM: Duration = Duration::from_secs(366 * 24 * 3600);
const UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// The form, for messages.
pub(crate) const FORM: &str = "a number and a unit: 500ms, 10s, 5m, 1h30m, 1d";

/// `None` where the text is not a duration, or a longer one than a year.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, after) = after.split_at(letters);
        let (_, milliseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let number: u64 = number.parse().ok()?;
        total = total.checked_add(Duration::from_millis(number.checked_mul(*milliseconds)?))?;
        rest = after;
    }
    (!text.is_empty() && total <= MAXIMUM).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, milliseconds: Option<u64>| {
            assert_eq!(parse(text), milliseconds.map(Duration::from_millis), "{text}");
        };
        check("10m", Some(600_000));
        check("1h30m", Some(5_400_000));
        check("500ms", Some(500));
        check("0s", Some(0));
        check("2d", Some(172_800_000));
        for bad in [
            "",
            "10",
            "m",
            "1.5s",
            "-1s",
            "1x",
            "99999999999999999999s",
            "9999999d",
            "1s ",
            "é",
        ] {
            check(bad, None);
        }
    }
}
