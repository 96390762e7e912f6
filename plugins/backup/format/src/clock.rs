//! Seconds since 1970 into `2026-11-23T21:00:00Z` and back. Refuses to know time zones and what time it is.

/// A day, in seconds.
pub const DAY: u64 = 86_400;

/// UTC, to the second.
pub fn format(seconds: u64) -> String {
    let (year, month, day) = date(seconds / DAY);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// What [`format()`] wrote; anything else is `None`.
pub fn parse(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let days = (0..=366)
        .map(|day| days_before(year) + day)
        .find(|days| date(*days) == (year, month, day))?;
    let seconds = days * DAY + hour * 3600 + minute * 60 + second;
    // Writing it again refuses signs, other separators, and a 25th hour.
    (format(seconds) == text).then_some(seconds)
}

/// Days from 1970 to the first of January of `year`.
fn days_before(year: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let before = year.saturating_sub(1);
    (year.saturating_sub(1970)) * 365 + leap_days(before).saturating_sub(leap_days(1969))
}

fn date(days: u64) -> (u64, u64, u64) {
    // A first guess that is never too late, then at most a few steps.
    let mut year = 1970 + days / 366;
    while days_before(year + 1) <= days {
        year += 1;
    }
    let mut left = days - days_before(year);
    let leap = days_before(year + 1) - days_before(year) == 366;
    let lengths = [
        31,
        if leap { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 1;
    for length in lengths {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    (year, month, left + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seconds: u64, text: &str) {
        assert_eq!(format(seconds), text);
        assert_eq!(parse(text), Some(seconds));
    }

    #[test]
    fn both_ways() {
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(1_735_689_599, "2024-12-31T23:59:59Z");
        check(1_795_467_661, "2026-11-23T21:01:01Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
    }

    #[test]
    fn anything_else_is_no_time() {
        let wrong = [
            "",
            "yesterday",
            "2026-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01 00:00:00Z",
            "1969-01-01T00:00:00Z",
            "+026-01-01T00:00:00Z",
        ];
        for text in wrong {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
