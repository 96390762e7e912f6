//! What a value of a compose file can look like, as data. Knows no key: [`super::keys`] is the table that is made of this,
//! and reading and merging both follow it.

use super::{canonical::Canonical, short::Json};
use crate::pipeline::node::Node;

/// The forms that a value can be written in; each becomes the one form named first.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// Anything, as it is.
    Any,
    Text,
    /// Text; a number, `true` and `false` become text as they are written.
    Scalar,
    Bool,
    Integer,
    Number,
    /// Bytes as text, from `64m`, `1.5gb` or a number.
    Size,
    /// `1m30s`.
    Duration,
    /// A file's mode: `"0440"`, from that or from YAML's octal number.
    Mode,
    /// One of these words.
    Word(&'static [&'static str]),
    /// An absolute path; relative ones belong to the directory of the project.
    Path,
    /// A path, or what stands in its place: a URL, another image.
    Context,
    /// A map of scalars, from that or from a list of `NAME=value`.
    Pairs(Bare),
    /// A map with keys of the author's choice.
    Map(&'static Shape),
    /// The same; or a list of the keys, whose values are then as given.
    Named(&'static Shape, &'static [(&'static str, &'static str)]),
    Object(&'static Object),
    List(&'static Shape, Merge),
    /// A list, from that or from one element.
    OneOrList(&'static Shape, Merge),
    /// A form of its own; an override takes its place.
    Special(Special),
}

/// Reads a form of its own; the text names the place for messages.
pub(crate) type Special = fn(&mut Canonical<'_>, Node, &str) -> Option<Node>;

/// What `NAME` without `=value` in a list means.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bare {
    /// No value: it is taken from where the project is started.
    Inherited,
    /// An empty one.
    Empty,
}

/// What becomes of two lists.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Merge {
    /// The later one takes the place of the earlier.
    Replace,
    Append,
    /// Appended, but an element that was there before is not there twice.
    Set,
    /// Appended, but an element takes the place of one that is equal in these fields.
    By(&'static [&'static str]),
}

/// A map with known keys; keys that start with `x-` are allowed everywhere.
#[derive(Debug)]
pub(crate) struct Object {
    /// As in "unknown key in a service".
    pub(crate) what: &'static str,
    pub(crate) keys: &'static [Key],
    /// Text that stands for such a map, or for several.
    pub(crate) short: Option<Short>,
    /// Completes a map that was read.
    pub(crate) finish: Option<Finish>,
    /// An override with another value in this key is not merged, but takes the place.
    pub(crate) identity: Option<&'static str>,
}

/// The maps that a short form stands for.
pub(crate) type Short = fn(&str) -> Result<Vec<Json>, String>;

pub(crate) type Finish = fn(&mut Canonical<'_>, &mut Node);

#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) required: bool,
}

pub(crate) const fn key(name: &'static str, shape: Shape) -> Key {
    Key {
        name,
        shape,
        required: false,
    }
}

pub(crate) const fn required(name: &'static str, shape: Shape) -> Key {
    Key {
        name,
        shape,
        required: true,
    }
}

impl Object {
    pub(crate) const fn new(what: &'static str, keys: &'static [Key]) -> Self {
        Self {
            what,
            keys,
            short: None,
            finish: None,
            identity: None,
        }
    }

    pub(crate) const fn short(mut self, short: Short) -> Self {
        self.short = Some(short);
        self
    }

    pub(crate) const fn finish(mut self, finish: Finish) -> Self {
        self.finish = Some(finish);
        self
    }

    pub(crate) const fn identity(mut self, key: &'static str) -> Self {
        self.identity = Some(key);
        self
    }

    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}
