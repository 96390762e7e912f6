//! `${{ }}`: the language of expressions. Text becomes a [`Template`] when the file is loaded; a template becomes a value when
//! its stage is planned, and once more when it runs. Secrets are handles throughout: no value of a secret ever comes near.

mod evaluate;
mod function;
mod parse;
mod scope;
mod template;
mod term;

pub use scope::{Outputs, RunScope, Scope};
pub use template::{Entry, Template, TemplateKind};
pub use term::{Reference, Root};

pub(crate) use scope::unknown;
pub(crate) use template::{Parsers, holds_expression};

use crate::{
    source::Span,
    value::{SecretText, Value},
};
use std::{ops::Range, sync::Arc};
use term::Term;

/// One `${{ }}`.
#[derive(Clone, Debug)]
pub struct Expression {
    term: Arc<Term>,
    /// The text between the braces; the whole value where that is written with escapes.
    span: Span,
    /// Whether `span` is the text itself, so that places in the text are places in the file.
    exact: bool,
}

impl Expression {
    /// The text between the braces.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// # Errors
    /// A name has no value, or values do not fit their operators: where, and a sentence.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, (Span, String)> {
        evaluate::evaluate(&self.term, scope).map_err(|problem| (self.place(problem.at), problem.message))
    }

    /// The expression as a condition; `None` while it is not known.
    ///
    /// # Errors
    /// As [`Expression::evaluate`], or it is neither true nor false.
    pub fn condition(&self, scope: &Scope<'_>) -> Result<Option<bool>, (Span, String)> {
        match self.evaluate(scope)? {
            Value::Bool(value) => Ok(Some(value)),
            Value::Unknown => Ok(None),
            other => {
                let message = format!("`if` must be true or false, not {}", function::describe(&other));
                Err((self.span.clone(), message))
            }
        }
    }

    /// Calls `visit` for every reference, with its place.
    pub fn for_each_reference(&self, visit: &mut impl FnMut(&Reference, Span)) {
        self.term
            .for_each_reference(&mut |reference| visit(reference, self.place(Some(reference.at.clone()))));
    }

    fn place(&self, at: Option<Range<usize>>) -> Span {
        match at.filter(|_| self.exact) {
            Some(at) => {
                let start = self.span.range().start;
                Span::new(&self.span.file, start + at.start..start + at.end)
            }
            None => self.span.clone(),
        }
    }
}

/// Several values as one text; `Err` says what is not text.
fn join_text(values: impl IntoIterator<Item = Value>) -> Result<Value, String> {
    let mut parts: Vec<SecretText> = Vec::new();
    let mut unknown = false;
    for value in values {
        match value {
            Value::String(text) => parts.push(SecretText::Literal(text)),
            Value::Number(number) => parts.push(SecretText::Literal(number.to_string())),
            Value::Bool(value) => parts.push(SecretText::Literal(value.to_string())),
            Value::Secret(text) => parts.push(text),
            Value::Unknown => unknown = true,
            other => return Err(format!("{} cannot stand within text", function::describe(&other))),
        }
    }
    Ok(match function::concat(parts) {
        _ if unknown => Value::Unknown,
        SecretText::Literal(text) => Value::String(text),
        SecretText::Concat(parts) if parts.is_empty() => Value::String(String::new()),
        text => Value::Secret(text),
    })
}

#[cfg(test)]
mod tests;
