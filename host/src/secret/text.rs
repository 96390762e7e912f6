//! From a [`SecretText`] and a way to look secrets up, to the bytes it stands for.

use super::Bytes;
use crate::{failure::Failure, name::SecretName, value::SecretText};
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

/// The bytes of `text`. What cannot be seen in them from the secrets alone (a base64 of several) goes to `derived` too.
///
/// # Errors
/// The first failure of `get`.
pub(super) fn resolve(
    text: &SecretText,
    get: &impl Fn(&SecretName, Option<&str>) -> Result<Bytes, Failure>,
    derived: &mut Vec<Bytes>,
) -> Result<Bytes, Failure> {
    match text {
        SecretText::Literal(literal) => Ok(Zeroizing::new(literal.as_bytes().to_vec())),
        SecretText::Secret { name, field } => get(name, field.as_deref()),
        SecretText::Concat(parts) => {
            let mut whole = Zeroizing::new(Vec::new());
            for part in parts {
                append(&mut whole, &resolve(part, get, derived)?);
            }
            Ok(whole)
        }
        SecretText::UrlEncode(inner) => Ok(url_encode(&resolve(inner, get, derived)?)),
        SecretText::Basic { user, password } => {
            let mut whole = resolve(user, get, derived)?;
            append(&mut whole, b":");
            append(&mut whole, &resolve(password, get, derived)?);
            let encoded = Zeroizing::new(STANDARD.encode(&whole[..]).into_bytes());
            derived.push(encoded.clone());
            Ok(encoded)
        }
    }
}

/// Appends without leaving a copy behind: a growing `Vec` frees its old buffer as it is.
fn append(whole: &mut Bytes, part: &[u8]) {
    if whole.capacity() - whole.len() < part.len() {
        let mut larger = Zeroizing::new(Vec::with_capacity(2 * (whole.len() + part.len())));
        larger.extend_from_slice(whole);
        *whole = larger;
    }
    whole.extend_from_slice(part);
}

/// Percent-encodes everything but the unreserved characters of RFC 3986, as `urlencode()` promises.
fn url_encode(bytes: &[u8]) -> Bytes {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = Zeroizing::new(Vec::with_capacity(bytes.len() * 3));
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(byte) {
            encoded.push(*byte);
        } else {
            let digit = |bits: u8| DIGITS[usize::from(bits & 15)];
            encoded.extend_from_slice(&[b'%', digit(byte >> 4), digit(*byte)]);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, field: Option<&str>) -> SecretText {
        let name = SecretName::new(name).expect("valid");
        let field = field.map(String::from);
        SecretText::Secret { name, field }
    }

    #[track_caller]
    fn check(text: &SecretText, expected: &str, expected_derived: &[&str]) {
        let get = |name: &SecretName, field: Option<&str>| {
            let value = format!("<{name}{}>", field.unwrap_or_default());
            Ok(Zeroizing::new(value.into_bytes()))
        };
        let mut derived = Vec::new();
        let resolved = resolve(text, &get, &mut derived).expect("resolves");
        assert_eq!(String::from_utf8_lossy(&resolved), expected);
        let derived: Vec<_> = derived.iter().map(|one| String::from_utf8_lossy(one)).collect();
        assert_eq!(derived, expected_derived);
    }

    #[test]
    fn texts() {
        check(&secret("db", None), "<db>", &[]);
        check(&secret("db", Some("p")), "<dbp>", &[]);
        let encoded = SecretText::UrlEncode(Box::new(secret("a", None)));
        check(&encoded, "%3Ca%3E", &[]);
        let url = SecretText::Concat(vec![SecretText::Literal("u:".into()), encoded]);
        check(&url, "u:%3Ca%3E", &[]);
        let basic = SecretText::Basic {
            user: Box::new(SecretText::Literal("u".into())),
            password: Box::new(secret("a", None)),
        };
        check(&basic, "dTo8YT4=", &["dTo8YT4="]);
    }
}
