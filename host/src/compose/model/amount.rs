//! Sizes, spans of time and file modes as numbers.

use super::super::value;
use serde::Deserialize;
use std::time::Duration;

/// A number of bytes; `-1` is "no limit" where a key allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Bytes(pub i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct TimeSpan(pub Duration);

/// Permissions and the three special bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FileMode(pub u32);

impl TryFrom<String> for Bytes {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        value::size(&text).map(Self).ok_or(value::SIZE)
    }
}

impl TryFrom<String> for TimeSpan {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        value::duration(&text).map(Self).ok_or(value::DURATION)
    }
}

impl TryFrom<String> for FileMode {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        value::mode(&text).map(Self).ok_or(value::MODE)
    }
}
