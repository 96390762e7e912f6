//! From what a guest said to what may be shown of it: without secrets, then cut, then inert. In this order: of a secret that
//! was cut, or changed to do nothing, the rest would not be known for one.

use super::inert::{cut, inert, inert_line};
use crate::secret::{Mask, MaskStream};
use std::sync::Arc;

/// What every text of a guest goes through. Clones share the secrets.
#[derive(Clone, Default)]
pub struct Words(Option<Arc<dyn Mask>>);

/// A text of bytes that come in pieces, on its way to whoever cuts it into lines.
pub(crate) struct Pieces {
    /// The start of a character whose rest has not come yet.
    unfinished: Vec<u8>,
    mask: Option<Box<dyn MaskStream>>,
}

impl Words {
    pub fn new(mask: Option<Arc<dyn Mask>>) -> Self {
        Self(mask)
    }

    /// As it may be shown, at most `maximum` bytes and what makes it inert.
    pub(crate) fn text(&self, text: &str, maximum: usize) -> String {
        inert(&self.cut(text, maximum))
    }

    /// As [`Words::text`], on one line.
    pub(crate) fn line(&self, text: &str, maximum: usize) -> String {
        inert_line(&self.cut(text, maximum))
    }

    pub(crate) fn pieces(&self) -> Pieces {
        Pieces {
            unfinished: Vec::new(),
            mask: self.0.as_ref().map(|mask| mask.stream()),
        }
    }

    fn cut(&self, text: &str, maximum: usize) -> String {
        match &self.0 {
            Some(mask) => cut(&mask.redact(text), maximum),
            None => cut(text, maximum),
        }
    }
}

impl Pieces {
    /// What can be shown after this piece. What is not UTF-8 becomes U+FFFD.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.unfinished.extend_from_slice(bytes);
        let text = take_text(&mut self.unfinished);
        match &mut self.mask {
            Some(mask) => mask.push(&text),
            None => text,
        }
    }

    /// The rest.
    pub(crate) fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&std::mem::take(&mut self.unfinished)).into_owned();
        match &mut self.mask {
            Some(mask) => mask.push(&rest) + &mask.finish(),
            None => rest,
        }
    }
}

/// All whole characters. The start of a character at the end stays in `bytes`.
fn take_text(bytes: &mut Vec<u8>) -> String {
    let last = bytes
        .utf8_chunks()
        .last()
        .map_or(&[][..], |chunk| chunk.invalid());
    let may_go_on = matches!(std::str::from_utf8(last), Err(error) if error.error_len().is_none());
    let kept = if may_go_on { last.len() } else { 0 };
    let rest = bytes.split_off(bytes.len() - kept);
    let whole = std::mem::replace(bytes, rest);
    String::from_utf8_lossy(&whole).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::redact::Redactor;

    #[test]
    fn characters_that_are_split_over_pieces_stay_whole() {
        let check = |pieces: &[&[u8]], expected: &str| {
            let mut text = Words::default().pieces();
            let mut shown: String = pieces.iter().map(|piece| text.push(piece)).collect();
            shown += &text.finish();
            assert_eq!(shown, expected);
        };
        check(&[b"a\xc3", b"\xa9b"], "aéb");
        check(&[b"\xf0\x9f", b"\x98", b"\x80"], "\u{1f600}");
        check(&[b"\xff\xc3", b"\xa9"], "\u{fffd}é");
        check(&[b"\xffa"], "\u{fffd}a");
        check(&[b"a\xc3"], "a\u{fffd}");
        check(&[b"\xff", b"\xff"], "\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_secret_is_hidden_before_anything_is_cut_or_made_inert() {
        let check = |secret: &str, text: &str, expected: &str| {
            let redactor = Redactor::new();
            redactor.learn(&[secret.as_bytes()]);
            assert_eq!(Words::new(Some(Arc::new(redactor))).text(text, 12), expected);
        };
        check("correct-horse", "it is correct-horse", "it is ***");
        check("correct-horse", "it is correct-horse, a pass", "it is ***…");
        check("bell\u{7}\u{7}s", "bell\u{7}\u{7}s", "***");
    }
}
