//! Problems in files: collected, all reported at once, shown with file:line:col and a snippet.

use crate::source::Span;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

/// Whether a problem stops the command. `validate --strict` makes warnings stop it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Warning,
    Error,
}

/// One problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Stable, dotted, lower case: `pipeline.unknown-key`.
    pub code: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    pub span: Option<Span>,
    /// What is said beside the marked text.
    pub label: Option<String>,
    /// Further places that explain it.
    pub related: Vec<(Span, String)>,
    /// The next thing to type.
    pub help: Option<String>,
}

impl Diagnostic {
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            span: None,
            label: None,
            related: Vec::new(),
            help: None,
        }
    }

    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, message)
        }
    }

    pub fn at(mut self, span: &Span) -> Self {
        self.span = Some(span.clone());
        self
    }

    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub fn related(mut self, span: &Span, label: impl Into<String>) -> Self {
        self.related.push((span.clone(), label.into()));
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The text for a person, several lines, without a newline at the end.
    pub fn render(&self, colour: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = level
            .primary_title(self.message.as_str())
            .id(self.code)
            .elements(self.snippets());
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        renderer.render(&[group]).trim_end().to_string()
    }

    /// One snippet a file with all of its places; places that are far apart get one each.
    fn snippets(&self) -> Vec<Snippet<'_, annotate_snippets::Annotation<'_>>> {
        let primary = self
            .span
            .iter()
            .map(|span| (AnnotationKind::Primary, span, self.label.as_deref()));
        let related = self
            .related
            .iter()
            .map(|(span, label)| (AnnotationKind::Context, span, Some(label.as_str())));
        let mut groups: Vec<Vec<Place<'_>>> = Vec::new();
        for place in primary.chain(related) {
            let together = |group: &&mut Vec<Place<'_>>| {
                let lines = whole_lines(group.iter().chain([&place]));
                group[0].1.file == place.1.file && lines.len() <= NEARBY
            };
            match groups.iter_mut().find(together) {
                Some(group) => group.push(place),
                None => groups.push(vec![place]),
            }
        }
        groups.iter().map(|group| snippet(group)).collect()
    }
}

/// Text that is marked: how, where, and what is said beside it.
type Place<'a> = (AnnotationKind, &'a Span, Option<&'a str>);

/// How much of a file one snippet is made from. The renderer walks over all of it: a thousand problems in a file of 40 MB
/// would take minutes.
const NEARBY: usize = 64 << 10;

fn snippet<'a>(places: &[Place<'a>]) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let file = &places[0].1.file;
    let lines = whole_lines(places);
    let first = Span::new(file, lines.start..lines.start).line_column().0;
    let mut snippet = Snippet::source(&file.text[lines.clone()])
        .line_start(first)
        .path(file.name.as_str());
    for (kind, span, label) in places {
        let range = span.range();
        let annotation = kind.span(range.start - lines.start..range.end - lines.start);
        snippet = snippet.annotation(match label {
            Some(label) => annotation.label(*label),
            None => annotation,
        });
    }
    snippet
}

/// The lines on which the places stand, and those between.
fn whole_lines<'p, 'a: 'p>(places: impl IntoIterator<Item = &'p Place<'a>>) -> std::ops::Range<usize> {
    let (mut start, mut end) = (usize::MAX, 0);
    for (_, span, _) in places {
        let (text, range) = (&span.file.text, span.range());
        start = start.min(text[..range.start].rfind('\n').map_or(0, |newline| newline + 1));
        let rest = text[range.end..].find('\n');
        end = end.max(rest.map_or(text.len(), |newline| range.end + newline));
    }
    start.min(end)..end
}

/// Many problems, in the order of their places.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, diagnostic: Diagnostic) {
        if !self.0.contains(&diagnostic) {
            self.0.push(diagnostic);
        }
    }

    pub fn append(&mut self, other: Diagnostics) {
        other.0.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    pub fn has_errors(&self) -> bool {
        self.0
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// By file and place; what has no place comes last.
    pub fn sorted(&self) -> Vec<&Diagnostic> {
        let mut all: Vec<&Diagnostic> = self.0.iter().collect();
        all.sort_by_key(|diagnostic| {
            let place = diagnostic.span.as_ref();
            place.map_or((1, String::new(), 0), |span| {
                (0, span.file.name.clone(), span.range().start)
            })
        });
        all
    }

    /// `Ok(value)` without errors, else the problems.
    ///
    /// # Errors
    /// There is at least one problem of severity error.
    pub fn into_result<T>(self, value: T) -> Result<(T, Diagnostics), Diagnostics> {
        if self.has_errors() {
            Err(self)
        } else {
            Ok((value, self))
        }
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

/// `did you mean` for an unknown word, where one of the known ones is near.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this Jaro-Winkler similarity, suggestions read as noise.
    const NEAR: f64 = 0.8;
    let score = |candidate: &str| {
        let (word, candidate) = (word.to_lowercase(), candidate.to_lowercase());
        // One slip of the fingers is near, however short the word is: `tpc` for `tcp`.
        let is_slip = word.len() > 2 && strsim::damerau_levenshtein(&word, &candidate) == 1;
        let similarity = strsim::jaro_winkler(&word, &candidate);
        if is_slip { similarity.max(NEAR) } else { similarity }
    };
    let best = known.into_iter().map(|candidate| (score(candidate), candidate));
    best.filter(|(score, _)| *score >= NEAR)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceFile;
    use std::sync::Arc;

    #[test]
    fn a_problem_shows_place_snippet_and_help() {
        let text = "name: x\nstags:\n  a: 1\n".to_string();
        let file = Arc::new(SourceFile::new("windlass.yaml", "windlass.yaml", text));
        let problem = Diagnostic::error("pipeline.unknown-key", "unknown key `stags`")
            .at(&Span::new(&file, 8..13))
            .label("here")
            .help("did you mean `stages`?");
        let shown = problem.render(false);
        for part in [
            "error[pipeline.unknown-key]: unknown key `stags`",
            "windlass.yaml:2:1",
            "stags:",
            "here",
            "did you mean `stages`?",
        ] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
    }

    #[test]
    fn suggestions() {
        assert_eq!(
            did_you_mean("stags", ["name", "stages", "secrets"]),
            Some("stages")
        );
        assert_eq!(did_you_mean("zzz", ["name", "stages"]), None);
    }
}
