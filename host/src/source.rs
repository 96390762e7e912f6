//! Where a thing stands in a file that was read.

use std::{
    fmt,
    ops::Range,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

/// A file's text under the name that messages give it.
#[derive(Debug)]
pub struct SourceFile {
    /// As a person would type it: relative to where they stand.
    pub name: String,
    /// Where it was read from.
    pub path: PathBuf,
    pub text: String,
    /// Where each line begins; made when the first place is asked for. Without it, the rules of 10,000 stages would read
    /// the file 10,000 times.
    lines: OnceLock<Vec<usize>>,
}

impl SourceFile {
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            text: text.into(),
            lines: OnceLock::new(),
        }
    }

    fn lines(&self) -> &[usize] {
        self.lines.get_or_init(|| {
            let after = self.text.match_indices('\n').map(|(newline, _)| newline + 1);
            std::iter::once(0).chain(after).collect()
        })
    }
}

impl PartialEq for SourceFile {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.path, &self.text) == (&other.name, &other.path, &other.text)
    }
}

impl Eq for SourceFile {}

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

    /// The start of a line, counted from 1.
    pub fn line(file: &Arc<SourceFile>, number: usize) -> Self {
        let starts = file.lines();
        let start = starts.get(number.saturating_sub(1)).copied();
        let start = start.unwrap_or(file.text.len());
        Self::new(file, start..start)
    }

    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    pub fn text(&self) -> &str {
        &self.file.text[self.range.clone()]
    }

    /// Line and column, both from 1, the column in characters.
    pub fn line_column(&self) -> (usize, usize) {
        let lines = self.file.lines();
        let line = lines.partition_point(|start| *start <= self.range.start);
        let start = line.checked_sub(1).and_then(|index| lines.get(index));
        let before = &self.file.text[start.copied().unwrap_or(0)..self.range.start];
        (line, before.chars().count() + 1)
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
        let file = Arc::new(SourceFile::new("a.yaml", "a.yaml", "é: 1\nb: 2\n"));
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
