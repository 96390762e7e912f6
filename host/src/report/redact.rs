//! From a text to the same text without secrets. Stands before every sink.
//!
//! Every value is looked for in a closed list of forms, all at once, by one automaton that is built anew for each
//! batch of new values. Overlapping finds are masked as one; a text that comes in pieces is held back only as far as its end
//! could still become a value. Nothing here knows whose secrets they are.

mod forms;
mod scan;

use crate::secret::{Mask, MaskStream};
use forms::forms;
use scan::{Finds, Scanner};
use serde_json::Value as Json;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use zeroize::Zeroizing;

/// What stands where a secret stood.
pub const STARS: &str = "***";

/// The handle everyone shares. Cheap to clone, and cheap to use while there are no secrets.
#[derive(Clone, Default)]
pub struct Redactor(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Sorted, each once.
    patterns: Mutex<Vec<Zeroizing<Vec<u8>>>>,
    /// `None` while nothing has to be hidden.
    scanner: RwLock<Option<Arc<Scanner>>>,
}

/// A text that comes in pieces.
pub struct RedactStream {
    redactor: Redactor,
    /// The end of the text so far that may be the start of a secret.
    held: String,
    /// How much of `held` is masked already; stars for it have been shown.
    masked: usize,
}

impl Redactor {
    pub fn new() -> Self {
        Self::default()
    }

    /// Hides `values` from now on. What is shorter than six characters is left alone.
    pub fn learn(&self, values: &[&[u8]]) {
        let mut patterns = self.0.patterns.lock().unwrap_or_else(PoisonError::into_inner);
        let known = patterns.len();
        patterns.extend(values.iter().flat_map(|value| forms(value)));
        patterns.sort_unstable_by(|left, right| left[..].cmp(&right[..]));
        patterns.dedup_by(|left, right| left[..] == right[..]);
        if patterns.len() == known {
            return;
        }
        let scanner = Scanner::new(patterns.clone());
        *self.0.scanner.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(scanner));
    }

    /// The text without secrets.
    pub fn redact(&self, text: &str) -> String {
        let Some(scanner) = self.scanner() else {
            return text.to_string();
        };
        let finds = scanner.find(text, 0, true);
        let mut shown = String::with_capacity(text.len());
        mask(text, &finds, text.len(), false, &mut shown);
        shown
    }

    /// Hides secrets in all texts, keys and numbers of a document.
    pub fn redact_json(&self, json: &mut Json) {
        if self.scanner().is_none() {
            return;
        }
        match json {
            Json::Null | Json::Bool(_) => {}
            Json::String(text) => *text = self.redact(text),
            Json::Number(number) => {
                let shown = number.to_string();
                let redacted = self.redact(&shown);
                if redacted != shown {
                    *json = Json::String(redacted);
                }
            }
            Json::Array(items) => items.iter_mut().for_each(|item| self.redact_json(item)),
            Json::Object(entries) => {
                let redacted = std::mem::take(entries).into_iter().map(|(key, mut value)| {
                    self.redact_json(&mut value);
                    (self.redact(&key), value)
                });
                *entries = redacted.collect();
            }
        }
    }

    /// For a text that comes in pieces.
    pub fn stream(&self) -> RedactStream {
        RedactStream {
            redactor: self.clone(),
            held: String::new(),
            masked: 0,
        }
    }

    fn scanner(&self) -> Option<Arc<Scanner>> {
        self.0
            .scanner
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl RedactStream {
    /// What can be shown after this piece.
    pub fn push(&mut self, piece: &str) -> String {
        self.advance(piece, false)
    }

    /// What was held back; the stream can be used for another text afterwards.
    pub fn finish(&mut self) -> String {
        self.advance("", true)
    }

    fn advance(&mut self, piece: &str, last: bool) -> String {
        let Some(scanner) = self.redactor.scanner() else {
            return piece.to_string();
        };
        let joined;
        let text = if self.held.is_empty() {
            piece
        } else {
            joined = std::mem::take(&mut self.held) + piece;
            &joined
        };
        let finds = scanner.find(text, self.masked, last);
        let mut shown = String::with_capacity(text.len());
        self.masked = mask(text, &finds, finds.hold, self.masked > 0, &mut shown);
        self.held = text[finds.hold..].to_string();
        shown
    }
}

/// Writes `text[..end]` with stars for every find; `continued`: the stars of a find at 0 have been shown before.
/// Returns how far the last of them reaches beyond `end`.
fn mask(text: &str, finds: &Finds, end: usize, continued: bool, shown: &mut String) -> usize {
    let mut at = 0;
    let mut beyond = 0;
    for find in &finds.masked {
        if find.start >= end {
            // Nothing more is shown; stars that were shown before still stand for this find.
            if find.start == 0 && continued {
                beyond = find.end;
            }
            break;
        }
        shown.push_str(&text[at..find.start]);
        if find.start > 0 || !continued {
            shown.push_str(STARS);
        }
        at = find.end.min(end);
        beyond = find.end - at;
    }
    shown.push_str(&text[at..end]);
    beyond
}

impl Mask for Redactor {
    fn learn(&self, values: &[&[u8]]) {
        Redactor::learn(self, values);
    }

    fn redact(&self, text: &str) -> String {
        Redactor::redact(self, text)
    }

    fn stream(&self) -> Box<dyn MaskStream> {
        Box::new(Redactor::stream(self))
    }
}

impl MaskStream for RedactStream {
    fn push(&mut self, piece: &str) -> String {
        RedactStream::push(self, piece)
    }

    fn finish(&mut self) -> String {
        RedactStream::finish(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::STANDARD};
    use proptest::prelude::*;
    use serde_json::json;

    fn redactor(values: &[&str]) -> Redactor {
        let redactor = Redactor::new();
        let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
        redactor.learn(&values);
        redactor
    }

    #[track_caller]
    fn check(values: &[&str], text: &str, expected: &str) {
        let redactor = redactor(values);
        assert_eq!(redactor.redact(text), expected);
        for cut in (0..=text.len()).filter(|cut| text.is_char_boundary(*cut)) {
            let mut stream = redactor.stream();
            let shown = stream.push(&text[..cut]) + &stream.push(&text[cut..]) + &stream.finish();
            assert_eq!(shown, expected, "cut at {cut}");
        }
        let mut stream = redactor.stream();
        let pieces: String = text.chars().map(|one| stream.push(&one.to_string())).collect();
        assert_eq!(pieces + &stream.finish(), expected, "character by character");
    }

    #[test]
    fn texts() {
        check(&[], "anything", "anything");
        check(&["hunter22"], "the password is hunter22.", "the password is ***.");
        check(
            &["hunter22"],
            "hunter2 is not all of it",
            "hunter2 is not all of it",
        );
        check(&["hunter22"], "hunterhunter22", "hunter***");
        check(&["hunter22"], "hunter22hunter22", "******");
        check(&["hunter22", "22andmore"], "a hunter22andmore b", "a *** b");
        check(&["abcdefgh", "cdefgh", "defghijk"], "-abcdefghijk-", "-***-");
        check(&["aaaaaa"], "aaaaaaaaaaaaaaaaaaaab", "***b");
        check(&["abc", "12345"], "abc 12345", "abc 12345");
        check(&["grün-geheim"], "ü grün-geheim ü", "ü *** ü");
        check(&["line one\nline two\n"], "line one\nline two\n", "***");
        check(
            &["line one\nline two\n"],
            "> line two\n> line one\n",
            "> ***\n> ***\n",
        );
        check(&["with\ttab"], r#"{"a":"with\ttab"}"#, r#"{"a":"***"}"#);
        check(&["it's me"], r"'it'\''s me' it%27s%20me", "'***' ***");
        check(&["hunter22"], "68756e7465723232 68756E7465723232", "*** ***");
    }

    #[test]
    fn base64_at_every_offset_and_wrapped() {
        for before in ["", "a", "ab", "abc"] {
            let text = STANDARD.encode(format!("{before}correct horse battery{before}"));
            let shown = redactor(&["correct horse battery"]).redact(&text);
            assert!(
                shown.contains(STARS) && shown.len() <= 12,
                "{text} became {shown}"
            );
        }
        let long: String = (0..200)
            .map(|index| char::from(b'!' + (index * 7 % 90) as u8))
            .collect();
        let encoded = STANDARD.encode(&long);
        let lines: Vec<String> = encoded
            .as_bytes()
            .chunks(76)
            .map(|line| String::from_utf8_lossy(line).into())
            .collect();
        check(&[&long], &lines.join("\n"), "***\n***\n***\n***");
    }

    #[test]
    fn long_values_and_parts_of_them() {
        let long: String = (0..10_000)
            .map(|index: u32| char::from(b'!' + (index * index % 89) as u8))
            .collect();
        let redactor = redactor(&[&long, &format!("{}other", &long[..300])]);
        assert_eq!(
            redactor.redact(&format!("<{long}>")),
            "<******>".replace("******", &redactor.redact(&long))
        );
        assert!(!redactor.redact(&long).contains(&long[..40]));
        assert!(redactor.redact(&long[..5_000]).starts_with(STARS), "a part of it");
        let mut stream = redactor.stream();
        let shown: String = long
            .as_bytes()
            .chunks(700)
            .map(|piece| stream.push(&String::from_utf8_lossy(piece)))
            .collect();
        assert_eq!(shown + &stream.finish(), redactor.redact(&long));
        let near = format!("{}X", &long[..200]);
        assert_eq!(
            redactor.redact(&near),
            near,
            "the same start is not the same secret"
        );
    }

    #[test]
    fn only_what_may_become_a_secret_is_held_back() {
        let mut stream = redactor(&["hunter22"]).stream();
        assert_eq!(stream.push("nothing to hide"), "nothing to hide");
        assert_eq!(stream.push(" hun"), " ");
        assert_eq!(stream.push("t"), "");
        assert_eq!(stream.push("s"), "hunts");
        assert_eq!(stream.push("hunter22"), "***", "a whole one is not held back");
        assert_eq!(stream.push("hunt"), "");
        assert_eq!(stream.finish(), "hunt");
    }

    #[test]
    fn secrets_learned_on_the_way() {
        let redactor = redactor(&["first-one"]);
        let mut stream = redactor.stream();
        assert_eq!(stream.push("second-one fir"), "second-one ");
        redactor.learn(&[b"second-one"]);
        assert_eq!(stream.push("st-one second-one"), "*** ***");
    }

    #[test]
    fn documents() {
        let mut document = json!({ "hunter22": ["a hunter22", 12345678, null, true, { "x": 1 }] });
        redactor(&["hunter22", "12345678"]).redact_json(&mut document);
        assert_eq!(
            document,
            json!({ "***": ["a ***", "***", null, true, { "x": 1 }] })
        );
    }

    proptest! {
        /// However a text is cut, what is shown is what is shown of the whole, and no secret is in it.
        #[test]
        fn pieces_show_what_the_whole_shows(
            secrets in proptest::collection::vec("[ab]{6,9}", 1..4),
            parts in proptest::collection::vec("[abcé]{0,12}", 1..12),
        ) {
            let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let redactor = redactor(&secrets);
            let whole = redactor.redact(&parts.concat());
            let mut stream = redactor.stream();
            let shown: String = parts.iter().map(|part| stream.push(part)).collect();
            prop_assert_eq!(shown + &stream.finish(), whole.clone());
            for secret in secrets {
                prop_assert!(!whole.contains(secret));
            }
        }
    }
}
