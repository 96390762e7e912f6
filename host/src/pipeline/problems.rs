//! Collects what is wrong with a pipeline file, so that reading goes on after the first mistake.

use crate::{
    diagnostic::{Diagnostic, Diagnostics, did_you_mean},
    source::Span,
};

/// The problems found so far.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: Diagnostics,
    left_out: usize,
}

impl Problems {
    /// A file with more problems than this is not a pipeline file with mistakes in it; nobody reads further.
    const MAXIMUM: usize = 1_000;

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        if self.found.len() < Self::MAXIMUM {
            self.found.push(diagnostic);
        } else {
            self.left_out += 1;
        }
    }

    pub(crate) fn error(&mut self, code: &'static str, span: &Span, message: impl Into<String>) {
        self.push(Diagnostic::error(code, message).at(span));
    }

    /// An error with the next thing to type.
    pub(crate) fn error_with_help(
        &mut self,
        code: &'static str,
        span: &Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.push(Diagnostic::error(code, message).at(span).help(help));
    }

    /// How many there are: whoever compares two counts knows whether something was reported in between.
    pub(crate) fn count(&self) -> usize {
        self.found.len() + self.left_out
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.left_out > 0 || self.found.has_errors()
    }

    /// Everything that was found, with a last line where that was too much.
    pub(crate) fn into_diagnostics(mut self) -> Diagnostics {
        if self.left_out > 0 {
            let message = format!("{} more problems are not shown", self.left_out);
            self.found.push(Diagnostic::error("pipeline.too-many", message));
        }
        self.found
    }
}

/// What to say about a word that is not one of the known ones: the near one, else all of them.
pub(crate) fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    /// A list longer than this is no help.
    const SHOWN: usize = 20;
    let known: Vec<&str> = known.into_iter().collect();
    if let Some(near) = did_you_mean(word, known.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    if known.is_empty() {
        return "there is none".to_string();
    }
    let more = if known.len() > SHOWN { ", ..." } else { "" };
    let shown: Vec<&str> = known.into_iter().take(SHOWN).collect();
    format!("it can be: {}{more}", shown.join(", "))
}

/// Text from a file as a message quotes it: short, on one line.
pub(crate) fn quoted(text: &str) -> String {
    /// Enough to recognise it.
    const SHOWN: usize = 60;
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().count() > SHOWN {
        shown.push_str("...");
    }
    format!("`{shown}`")
}
