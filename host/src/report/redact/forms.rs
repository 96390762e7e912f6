//! From a value to all the texts in which it may show up: a closed list, so that it can be tested and relied on.
//!
//! Raw; base64, standard and URL-safe, alone or anywhere inside something longer, whole or wrapped as command line tools do;
//! hex in both cases; escaped for URLs, JSON and shells. A value of several lines also line by line.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use zeroize::Zeroizing;

type Form = Zeroizing<Vec<u8>>;

/// Shorter forms are not looked for: masking `prod` or `1234` everywhere would make mush of a log.
const SHORTEST: usize = 6;

/// Longer forms are cut, so that a part of a large secret is masked too and no more than this is ever held back.
const LONGEST: usize = 4096;

/// At how many characters `base64` of coreutils and `openssl base64` break lines.
const WRAPPED_AT: [usize; 2] = [76, 64];

/// Every form of `value` that is worth looking for.
pub(super) fn forms(value: &[u8]) -> Vec<Form> {
    let mut forms = Vec::new();
    let trimmed = value.trim_ascii();
    if trimmed.len() < SHORTEST {
        return forms;
    }
    whole(value, &mut forms);
    if trimmed.len() < value.len() {
        whole(trimmed, &mut forms);
    }
    if trimmed.contains(&b'\n') {
        for line in trimmed.split(|byte| *byte == b'\n') {
            escaped(line.trim_ascii(), &mut forms);
        }
    }
    forms.into_iter().flat_map(cut).collect()
}

fn whole(value: &[u8], forms: &mut Vec<Form>) {
    escaped(value, forms);
    forms.push(hex(value, b"0123456789abcdef"));
    forms.push(hex(value, b"0123456789ABCDEF"));
    for engine in [STANDARD, URL_SAFE] {
        let alone = Zeroizing::new(engine.encode(value).into_bytes());
        for width in WRAPPED_AT {
            if alone.len() > width {
                forms.extend(alone.chunks(width).map(|line| Zeroizing::new(line.to_vec())));
            }
        }
        forms.push(alone);
        forms.extend((0..3).map(|offset| base64_inside(value, offset, &engine)));
    }
}

/// The value as it is, and escaped for the places where text is put.
fn escaped(value: &[u8], forms: &mut Vec<Form>) {
    forms.push(Zeroizing::new(value.to_vec()));
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    forms.push(replaced(value, |byte, form| {
        if unreserved(byte) {
            form.push(byte);
        } else {
            form.push(b'%');
            form.extend_from_slice(&hex(&[byte], b"0123456789ABCDEF"));
        }
    }));
    if let Some(json) = std::str::from_utf8(value)
        .ok()
        .and_then(|text| serde_json::to_vec(text).ok())
    {
        let json = Zeroizing::new(json);
        let inside = &json[1..json.len() - 1];
        forms.push(Zeroizing::new(inside.to_vec()));
        forms.push(ascii_json(inside));
    }
    let single_quoted = |byte: u8, form: &mut Vec<u8>| match byte {
        b'\'' => form.extend_from_slice(br"'\''"),
        _ => form.push(byte),
    };
    forms.push(replaced(value, single_quoted));
    let backslashed = |safe: fn(u8) -> bool| {
        replaced(value, move |byte, form| {
            if !safe(byte) {
                form.push(b'\\');
            }
            form.push(byte);
        })
    };
    forms.push(backslashed(|byte| !b"$`\"\\".contains(&byte)));
    forms.push(backslashed(|byte| {
        byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&byte) || !byte.is_ascii()
    }));
}

fn replaced(value: &[u8], write: impl Fn(u8, &mut Vec<u8>)) -> Form {
    /// No escape takes more than this many bytes for one.
    const WIDEST: usize = 4;
    let mut form = Zeroizing::new(Vec::with_capacity(value.len() * WIDEST));
    value.iter().for_each(|byte| write(*byte, &mut form));
    form
}

fn hex(value: &[u8], digits: &[u8; 16]) -> Form {
    let mut form = Zeroizing::new(Vec::with_capacity(value.len() * 2));
    for byte in value {
        form.push(digits[usize::from(byte >> 4)]);
        form.push(digits[usize::from(byte & 15)]);
    }
    form
}

/// The characters that the value alone decides when `offset` bytes (modulo three) stand before it and anything after it.
fn base64_inside(value: &[u8], offset: usize, engine: &impl Engine) -> Form {
    let mut shifted = Zeroizing::new(Vec::with_capacity(offset + value.len()));
    shifted.resize(offset, 0);
    shifted.extend_from_slice(value);
    let encoded = Zeroizing::new(engine.encode(&shifted[..]).into_bytes());
    let first = (8 * offset).div_ceil(6);
    let end = 8 * shifted.len() / 6;
    Zeroizing::new(encoded[first..end].to_vec())
}

/// Pieces of at most [`LONGEST`] bytes that cover the form; nothing of a form that is too short.
fn cut(form: Form) -> Vec<Form> {
    if form.len() < SHORTEST {
        return Vec::new();
    }
    if form.len() <= LONGEST {
        return vec![form];
    }
    let last = form[form.len() - LONGEST..].to_vec();
    let pieces = form.chunks_exact(LONGEST).map(<[u8]>::to_vec).chain([last]);
    pieces.map(Zeroizing::new).collect()
}

/// JSON as writers make it that keep to ASCII (Python's `json.dumps`): `\\u` and four digits for each UTF-16 unit.
fn ascii_json(json: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut form = Zeroizing::new(Vec::new());
    for letter in String::from_utf8_lossy(json).chars() {
        let mut units = [0; 2];
        match letter.is_ascii() {
            true => form.push(letter as u8),
            false => {
                for unit in letter.encode_utf16(&mut units) {
                    form.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                }
            }
        }
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: &[&str]) {
        let forms = forms(value.as_bytes());
        for text in expected {
            let found = forms.iter().any(|form| &form[..] == text.as_bytes());
            assert!(found, "{text} is a form of {value}");
        }
    }

    #[test]
    fn the_closed_list() {
        check(
            "hunter22",
            &["hunter22", "68756e7465723232", "68756E7465723232", "aHVudGVyMjI="],
        );
        check(
            "pass>?word",
            &[
                "cGFzcz4/d29yZA==",
                "cGFzcz4_d29yZA==",
                "pass%3E%3Fword",
                r"pass\>\?word",
            ],
        );
        check(
            "it's \"me\"",
            &[r#"it's \"me\""#, r#"it'\''s "me""#, r#"it\'s\ \"me\""#],
        );
        check(
            "first line\nshort\nlast line\n",
            &["first line", "last line", r"first line\nshort\nlast line"],
        );
        assert!(forms(b"12345").is_empty() && forms(b" 12345\n").is_empty());
    }

    #[test]
    fn base64_inside_something_longer() {
        let secret = b"swordfish";
        for offset in 0..3 {
            let mut longer = vec![b'x'; offset];
            longer.extend_from_slice(secret);
            longer.extend_from_slice(b"yz");
            let encoded = STANDARD.encode(longer);
            let form = base64_inside(secret, offset, &STANDARD);
            assert!(
                encoded.contains(std::str::from_utf8(&form).expect("ASCII")),
                "{offset}"
            );
            assert!(form.len() >= 10);
        }
    }
}
