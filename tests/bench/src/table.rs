//! From measurements to the table that people read and the JSON that programs read. Knows no benchmark.

use serde_json::{Value as Json, json};
use std::time::Duration;

/// One figure: what was measured, beside what, and how far that is from what is wanted.
pub(crate) struct Row {
    figure: &'static str,
    what: String,
    measured: Quantity,
    /// What the ratio is to. Without one, the measured quantity itself is compared.
    base: Option<(String, Quantity)>,
    reached: f64,
    wanted: Wanted,
}

/// A number with its unit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Quantity {
    Time(Duration),
    Bytes(u64),
    /// Bytes a second.
    Speed(f64),
    Number(f64),
}

/// The bound on what is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    AtMost(f64),
    AtLeast(f64),
    /// It is only to be known.
    Nothing,
}

impl Row {
    /// The measured quantity over its base.
    pub(crate) fn ratio(
        figure: &'static str,
        what: impl Into<String>,
        measured: Quantity,
        base: (impl Into<String>, Quantity),
        wanted: Wanted,
    ) -> Self {
        let reached = measured.number() / base.1.number();
        Self {
            figure,
            what: what.into(),
            measured,
            base: Some((base.0.into(), base.1)),
            reached,
            wanted,
        }
    }

    /// How many times faster than a peer.
    pub(crate) fn faster(
        figure: &'static str,
        what: impl Into<String>,
        measured: Quantity,
        peer: (impl Into<String>, Quantity),
        times: f64,
    ) -> Self {
        let reached = peer.1.number() / measured.number();
        let base = Some((peer.0.into(), peer.1));
        Self {
            figure,
            what: what.into(),
            measured,
            base,
            reached,
            wanted: Wanted::AtLeast(times),
        }
    }

    /// A quantity against a fixed bound.
    pub(crate) fn at_most(
        figure: &'static str,
        what: impl Into<String>,
        measured: Quantity,
        bound: Quantity,
    ) -> Self {
        let reached = measured.number() / bound.number();
        let base = Some(("the bound".to_string(), bound));
        Self {
            figure,
            what: what.into(),
            measured,
            base,
            reached,
            wanted: Wanted::AtMost(1.0),
        }
    }

    pub(crate) fn is_reached(&self) -> bool {
        match self.wanted {
            Wanted::AtMost(bound) => self.reached <= bound,
            Wanted::AtLeast(bound) => self.reached >= bound,
            Wanted::Nothing => true,
        }
    }

    fn cells(&self) -> [String; 7] {
        let (name, base) = match &self.base {
            Some((name, base)) => (name.clone(), base.to_string()),
            None => Default::default(),
        };
        let ok = match self.wanted {
            Wanted::Nothing => "",
            _ if self.is_reached() => "ok",
            _ => "missed",
        };
        let reached = format!("{:.2}", self.reached);
        [
            self.figure.into(),
            self.what.clone(),
            self.measured.to_string(),
            format!("{name}: {base}"),
            reached,
            self.wanted.to_string(),
            ok.into(),
        ]
    }

    fn to_json(&self) -> Json {
        let base = self
            .base
            .as_ref()
            .map(|(name, base)| json!({ "name": name, "value": base.number(), "shown": base.to_string() }));
        json!({
            "figure": self.figure,
            "what": self.what,
            "measured": { "value": self.measured.number(), "shown": self.measured.to_string() },
            "base": base,
            "reached": self.reached,
            "wanted": self.wanted.to_string(),
            "ok": self.is_reached(),
        })
    }
}

impl Quantity {
    /// Seconds, bytes, bytes a second, or the number.
    fn number(self) -> f64 {
        match self {
            Self::Time(time) => time.as_secs_f64(),
            Self::Bytes(bytes) => bytes as f64,
            Self::Speed(number) | Self::Number(number) => number,
        }
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Time(time) if time.as_secs() >= 10 => write!(formatter, "{:.1} s", time.as_secs_f64()),
            Self::Time(time) if time.as_millis() >= 10 => {
                write!(formatter, "{:.1} ms", time.as_secs_f64() * 1e3)
            }
            Self::Time(time) => write!(formatter, "{:.1} µs", time.as_secs_f64() * 1e6),
            Self::Bytes(bytes) if *bytes >= 1 << 20 => write!(formatter, "{:.1} MB", *bytes as f64 / 1e6),
            Self::Bytes(bytes) => write!(formatter, "{:.1} KB", *bytes as f64 / 1e3),
            Self::Speed(speed) => write!(formatter, "{:.0} MB/s", speed / 1e6),
            Self::Number(number) => write!(formatter, "{number:.3}"),
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(bound) => write!(formatter, "≤ {bound}"),
            Self::AtLeast(bound) => write!(formatter, "≥ {bound}"),
            Self::Nothing => Ok(()),
        }
    }
}

/// The table as Markdown, columns aligned.
pub(crate) fn render(rows: &[Row]) -> String {
    const HEAD: [&str; 7] = ["", "what", "measured", "against", "reached", "wanted", ""];
    let lines: Vec<[String; 7]> = std::iter::once(HEAD.map(String::from))
        .chain(rows.iter().map(Row::cells))
        .collect();
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let show = |cells: &[String; 7]| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>();
    let rule = format!("| {} |\n", rule.join(" | "));
    let body: String = lines.iter().skip(1).map(show).collect();
    lines.first().map(show).unwrap_or_default() + &rule + &body
}

/// The rows as JSON.
pub(crate) fn to_json(rows: &[Row], notes: &[String]) -> Json {
    json!({ "windlass-bench": 1, "rows": rows.iter().map(Row::to_json).collect::<Vec<_>>(), "notes": notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_in_their_direction() {
        let time = |micros| Quantity::Time(Duration::from_micros(micros));
        let check = |row: Row, reached: f64, ok: bool| {
            assert!((row.reached - reached).abs() < 1e-9, "{}", row.reached);
            assert_eq!(row.is_reached(), ok);
            assert_eq!(render(&[row]).contains("missed"), !ok);
        };
        check(
            Row::ratio("P", "", time(30), ("floor", time(20)), Wanted::AtMost(2.0)),
            1.5,
            true,
        );
        check(
            Row::ratio("P", "", time(30), ("floor", time(10)), Wanted::AtMost(2.0)),
            3.0,
            false,
        );
        check(Row::faster("P", "", time(10), ("peer", time(90)), 9.0), 9.0, true);
        check(
            Row::faster("P", "", time(20), ("peer", time(90)), 9.0),
            4.5,
            false,
        );
        check(Row::at_most("P", "", time(20), time(10)), 2.0, false);
    }
}
