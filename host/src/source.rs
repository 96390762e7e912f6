//! Where a thing stands in a file that was read.

use std::{fmt, ops::Range, path::PathBuf, sync::Arc};

/// A file's text under the name that messages give it.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// As a person would type it: relative to where they stand.
    pub name: String,
    /// Where it was read from.
    pub path: PathBuf,
    pub text: String,
}

/// A piece of a file. Cheap to clone; never outside the text (see [`Span::new`]).
#[derive(Clone, PartialEq, Eq)]
pub struct Span {
    pub file: Arc<SourceFile>,
    range: Range<usize>,
}

impl Span {
    /// A range of bytes, moved to lie inside the text and on character boundaries.
    pub fn new(file: &Arc<SourceFile>, range: Range<usize>) -> Self {
        let text = &file.text;
        let start = text.floor_char_boundary(range.start.min(text.len()));
        let end = text.ceil_char_boundary(range.end.clamp(start, text.len()));
        Self {
            file: file.clone(),
            range: start..end,
        }
    }

    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    pub fn text(&self) -> &str {
        &self.file.text[self.range.clone()]
    }

    /// Line and column, both from 1, the column in characters.
    pub fn line_column(&self) -> (usize, usize) {
        let before = &self.file.text[..self.range.start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }
}

/// `file:line:col`.
impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_column();
        write!(formatter, "{}:{line}:{column}", self.file.name)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        let file = Arc::new(SourceFile {
            name: "a.yaml".into(),
            path: "a.yaml".into(),
            text: "é: 1\nb: 2\n".into(),
        });
        let check = |range, text: &str, shown: &str| {
            let span = Span::new(&file, range);
            assert_eq!((span.text(), span.to_string().as_str()), (text, shown));
        };
        check(0..2, "é", "a.yaml:1:1");
        check(1..2, "é", "a.yaml:1:1");
        check(6..7, "b", "a.yaml:2:1");
        check(9..10, "2", "a.yaml:2:4");
        check(900..1_000, "", "a.yaml:3:1");
    }
}
