//! P10: the redactor with a hundred secrets, beside one automaton's scan of the same bytes for patterns of the same number.

use crate::{
    project::Result,
    statistics::{minimum, timed},
    table::{Quantity, Row, Wanted},
};
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use std::time::Duration;
use windlass::report::redact::Redactor;

const SECRETS: usize = 100;
const LINES: usize = 100_000;
/// A secret stands in one line of so many.
const EVERY: usize = 1_000;
const ROUNDS: usize = 5;

pub(crate) fn hundred_secrets(rows: &mut Vec<Row>) -> Result<()> {
    let secrets: Vec<String> = (0..SECRETS).map(secret).collect();
    let redactor = Redactor::new();
    redactor.learn(&secrets.iter().map(String::as_bytes).collect::<Vec<_>>());
    let lines: Vec<String> = (0..LINES).map(|number| line(number, &secrets)).collect();
    let text = lines.concat();
    let scanner = AhoCorasick::builder()
        .kind(Some(AhoCorasickKind::DFA))
        .match_kind(MatchKind::Standard)
        .prefilter(false)
        .build(secrets.iter().flat_map(|secret| forms(secret)))
        .map_err(|error| error.to_string())?;
    let (mut scans, mut by_line, mut in_pieces) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (time, found) = timed(|| scanner.find_iter(&text).count());
        scans.push(time);
        let (time, shown) = timed(|| lines.iter().map(|line| redactor.redact(line)).collect::<Vec<_>>());
        by_line.push(time);
        check(&shown.concat(), &secrets, found)?;
        let (time, shown) = timed(|| streamed(&redactor, &text));
        in_pieces.push(time);
        check(&shown, &secrets, found)?;
    }
    let speed = |time: Duration| Quantity::Speed(text.len() as f64 / time.as_secs_f64());
    let peer = || ("aho-corasick scan", speed(minimum(&scans)));
    let pieces = speed(minimum(&in_pieces));
    rows.push(Row::ratio(
        "P10",
        "redact with 100 secrets, pieces of 64 KiB",
        pieces,
        peer(),
        Wanted::AtLeast(0.6),
    ));
    let single = speed(minimum(&by_line));
    rows.push(Row::ratio(
        "P10",
        "redact with 100 secrets, line by line",
        single,
        peer(),
        Wanted::AtLeast(0.6),
    ));
    Ok(())
}

fn streamed(redactor: &Redactor, text: &str) -> String {
    let mut stream = redactor.stream();
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(64 << 10));
        shown.push_str(&stream.push(piece));
        rest = after;
    }
    shown + &stream.finish()
}

/// No miss: none is left, and as many were hidden as the peer found.
fn check(shown: &str, secrets: &[String], found: usize) -> Result<()> {
    let hidden = shown.matches("***").count();
    match secrets.iter().find(|secret| shown.contains(secret.as_str())) {
        Some(_) => Err("the redactor missed a secret".into()),
        None if hidden != found => Err(format!("{hidden} hidden, {found} found")),
        None => Ok(()),
    }
}

/// Thirty characters that look random and are the same each time.
fn secret(number: usize) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/";
    let mut state = number as u64 + 1;
    let letter = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(LETTERS[(state >> 58) as usize])
    };
    (0..30).map(letter).collect()
}

fn line(number: usize, secrets: &[String]) -> String {
    let common = format!(
        "2026-01-01T00:00:00Z info request {number} to /api/v1/teams took {} ms and was answered with 200",
        number % 97
    );
    match number % EVERY {
        0 => format!(
            "{common} password={}\n",
            secrets[(number / EVERY) % secrets.len()]
        ),
        _ => format!("{common}\n"),
    }
}

/// About as many patterns for a secret as the redactor has: plain, hexadecimal, base64 at each offset.
fn forms(secret: &str) -> Vec<String> {
    let hexadecimal = hex::encode(secret);
    let mut forms = vec![secret.to_string(), hexadecimal.to_uppercase(), hexadecimal];
    for offset in 0..3 {
        let skipped = &secret[offset..];
        let whole = &skipped[..skipped.len() / 3 * 3];
        forms.extend([STANDARD_NO_PAD.encode(whole), URL_SAFE_NO_PAD.encode(whole)]);
    }
    forms
}
