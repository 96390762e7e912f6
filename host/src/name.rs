//! Names: text that was checked once, so that nobody checks again.

use std::fmt;

/// Why a text is not a name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{what} {text:?} is not valid: {rule}")]
pub struct NameError {
    pub what: &'static str,
    pub text: String,
    pub rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The longest such name, in bytes.
            pub const MAXIMUM: usize = $max;

            /// # Errors
            /// The text is empty, too long, or has a character outside `a-z A-Z 0-9 _ -`, or starts with `-`.
            pub fn new(text: &str) -> Result<Self, NameError> {
                if is_word(text, $max) {
                    return Ok(Self(text.into()));
                }
                Err(NameError {
                    what: $what,
                    text: text.chars().take(80).collect(),
                    rule: concat!("it takes 1 to ", $max, " characters of a-z A-Z 0-9 _ -, not starting with -"),
                })
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A pipeline's name: part of the path of its state directory.
    PipelineName, "pipeline name", 64
);
name!(
    /// A stage's name, or that of one of its matrix cells: `test[os=debian]`.
    StageName, "stage name", 64
);
name!(
    /// A secret's name in the pipeline file.
    SecretName, "secret name", 64
);

impl StageName {
    /// The name of one cell of a matrix, `name[key=value,...]`.
    pub fn cell<'a>(&self, values: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let inside: Vec<String> = values
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        Self(format!("{self}[{}]", inside.join(",")).into())
    }

    /// The name as the file has it, without the matrix cell.
    pub fn base(&self) -> &str {
        self.0.split('[').next().unwrap_or(&self.0)
    }
}

fn is_word(text: &str, maximum: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !text.is_empty() && text.len() <= maximum && !text.starts_with('-') && text.bytes().all(allowed)
}

/// A run's id: 26 lower-case letters and digits that sort by start time (48 bits of milliseconds, 80 of randomness, base 32).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(std::sync::Arc<str>);

impl RunId {
    /// Crockford's alphabet: no letter that is read as a digit.
    const ALPHABET: &'static [u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

    /// The id of a run that started `milliseconds` after 1970.
    pub fn new(milliseconds: u64, random: [u8; 10]) -> Self {
        let mut bits = u128::from(milliseconds & 0xffff_ffff_ffff) << 80;
        for (index, byte) in random.iter().enumerate() {
            bits |= u128::from(*byte) << (8 * index);
        }
        let digit = |index: u32| char::from(Self::ALPHABET[((bits >> (5 * index)) & 31) as usize]);
        Self((0..26).rev().map(digit).collect::<String>().into())
    }

    /// # Errors
    /// The text is not 26 letters and digits.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.len() == 26 && text.bytes().all(|byte| Self::ALPHABET.contains(&byte)) {
            return Ok(Self(text.into()));
        }
        Err(NameError {
            what: "run id",
            text: text.chars().take(80).collect(),
            rule: "it takes 26 lower-case letters and digits, as `windlass runs list` shows them",
        })
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for RunId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_names() {
        for good in ["a", "build", "health-check", "X_1", "0"] {
            assert!(StageName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a b", "a/b", "é", &"x".repeat(65)] {
            assert!(StageName::new(bad).is_err(), "{bad}");
        }
        let cell = StageName::new("test")
            .expect("valid")
            .cell([("os", "debian".into()), ("v", "1".into())]);
        assert_eq!(cell.as_str(), "test[os=debian,v=1]");
        assert_eq!(cell.base(), "test");
    }

    #[test]
    fn run_ids_sort_by_time() {
        let early = RunId::new(1_000, [0xff; 10]);
        let late = RunId::new(1_001, [0; 10]);
        assert!(early < late);
        assert_eq!(RunId::parse(early.as_str()), Ok(early));
        assert!(RunId::parse("short").is_err());
    }
}
