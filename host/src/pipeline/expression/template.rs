//! A value of the file in which texts may hold expressions: YAML nodes to templates, templates to values.

use super::{
    Expression, Scope, join_text,
    parse::{ParseProblem, parse},
    term::{Reference, Term},
};
use crate::{
    pipeline::{
        node::{Kind, Node},
        problems::Problems,
    },
    source::Span,
    value::Value,
};
use serde_json::Number;
use std::{collections::HashMap, sync::Arc};

const OPEN: &str = "${{";
const CLOSE: &str = "}}";

/// A value with expressions in it. Cheap to clone: the cells of a matrix share it.
#[derive(Clone, Debug)]
pub struct Template(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: TemplateKind,
    span: Span,
}

/// What a template is made of.
#[derive(Debug)]
pub enum TemplateKind {
    Null,
    Bool(bool),
    Number(Number),
    /// Text without expressions.
    Text(String),
    /// One whole `${{ }}`: keeps its type.
    Expression(Expression),
    /// Text with expressions in it.
    Mixed(Vec<Piece>),
    List(Vec<Template>),
    Map(Vec<Entry>),
}

/// A piece of a text with expressions.
#[derive(Debug)]
pub enum Piece {
    Text(String),
    Expression(Expression),
}

/// One key of a map.
#[derive(Debug)]
pub struct Entry {
    pub key: String,
    pub key_span: Span,
    pub value: Template,
}

impl Template {
    pub(crate) fn new(kind: TemplateKind, span: Span) -> Self {
        Self(Arc::new(Inner { kind, span }))
    }

    /// The place of the value.
    pub fn span(&self) -> &Span {
        &self.0.span
    }

    pub fn kind(&self) -> &TemplateKind {
        &self.0.kind
    }

    /// The value. What depends on stages that have not run is [`Value::Unknown`], secrets stay handles.
    ///
    /// # Errors
    /// Every expression that has no value: its place, and a sentence.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, Vec<(Span, String)>> {
        let mut problems = Vec::new();
        let value = self.value(scope, &mut problems);
        if problems.is_empty() {
            Ok(value)
        } else {
            Err(problems)
        }
    }

    fn value(&self, scope: &Scope<'_>, problems: &mut Vec<(Span, String)>) -> Value {
        match self.kind() {
            TemplateKind::Null => Value::Null,
            TemplateKind::Bool(value) => Value::Bool(*value),
            TemplateKind::Number(value) => Value::Number(value.clone()),
            TemplateKind::Text(text) => Value::String(text.clone()),
            TemplateKind::Expression(expression) => evaluate(expression, scope, problems),
            TemplateKind::Mixed(pieces) => {
                let values: Vec<Value> = pieces
                    .iter()
                    .map(|piece| match piece {
                        Piece::Text(text) => Value::String(text.clone()),
                        Piece::Expression(expression) => evaluate(expression, scope, problems),
                    })
                    .collect();
                join_text(values).unwrap_or_else(|message| {
                    problems.push((self.span().clone(), message));
                    Value::Unknown
                })
            }
            TemplateKind::List(items) => {
                Value::List(items.iter().map(|item| item.value(scope, problems)).collect())
            }
            TemplateKind::Map(entries) => Value::Map(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.value(scope, problems)))
                    .collect(),
            ),
        }
    }

    /// Calls `visit` for every reference in it, with its place.
    pub fn for_each_reference(&self, visit: &mut impl FnMut(&Reference, Span)) {
        self.for_each_expression(&mut |expression| expression.for_each_reference(visit));
    }

    fn for_each_expression(&self, visit: &mut impl FnMut(&Expression)) {
        match self.kind() {
            TemplateKind::Expression(expression) => visit(expression),
            TemplateKind::Mixed(pieces) => pieces.iter().for_each(|piece| {
                if let Piece::Expression(expression) = piece {
                    visit(expression);
                }
            }),
            TemplateKind::List(items) => items.iter().for_each(|item| item.for_each_expression(visit)),
            TemplateKind::Map(entries) => entries
                .iter()
                .for_each(|entry| entry.value.for_each_expression(visit)),
            _ => {}
        }
    }

    /// The place of the value that a JSON pointer names; where the way ends early (within one `${{ }}`, or at a key that is
    /// not there), `None`.
    pub fn span_at(&self, pointer: &[String]) -> Option<Span> {
        self.descend(pointer).map(|template| template.span().clone())
    }

    /// The place of the key that a JSON pointer ends with.
    pub fn key_span_at(&self, pointer: &[String]) -> Option<Span> {
        let (last, path) = pointer.split_last()?;
        match self.descend(path)?.kind() {
            TemplateKind::Map(entries) => entries
                .iter()
                .find(|entry| entry.key == *last)
                .map(|entry| entry.key_span.clone()),
            _ => None,
        }
    }

    fn descend(&self, pointer: &[String]) -> Option<&Self> {
        pointer
            .iter()
            .try_fold(self, |template, part| match template.kind() {
                TemplateKind::List(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
                TemplateKind::Map(entries) => entries
                    .iter()
                    .find(|entry| entry.key == *part)
                    .map(|entry| &entry.value),
                _ => None,
            })
    }
}

fn evaluate(expression: &Expression, scope: &Scope<'_>, problems: &mut Vec<(Span, String)>) -> Value {
    expression.evaluate(scope).unwrap_or_else(|problem| {
        problems.push(problem);
        Value::Unknown
    })
}

/// Whether a text has an expression in it (or an escape of one).
pub(crate) fn holds_expression(text: &str) -> bool {
    text.contains(OPEN)
}

/// Makes templates. Remembers what it parsed: the stages of a large file say the same things.
#[derive(Default)]
pub(crate) struct Parsers {
    known: HashMap<Box<str>, Result<Arc<Term>, Vec<ParseProblem>>>,
}

impl Parsers {
    /// The template of a node; problems are pushed, and what has one becomes `null`.
    pub(crate) fn template(&mut self, node: Node, problems: &mut Problems) -> Template {
        let span = node.span;
        let kind = match node.kind {
            Kind::Null => TemplateKind::Null,
            Kind::Bool(value) => TemplateKind::Bool(value),
            Kind::Number(value) => TemplateKind::Number(value),
            Kind::Text(text) if holds_expression(&text) => self.text(&text, &span, problems),
            Kind::Text(text) => TemplateKind::Text(text),
            Kind::List(items) => TemplateKind::List(
                items
                    .into_iter()
                    .map(|item| self.template(item, problems))
                    .collect(),
            ),
            Kind::Map(entries) => TemplateKind::Map(
                entries
                    .into_iter()
                    .map(|entry| Entry {
                        key: entry.key.into(),
                        key_span: entry.key_span,
                        value: self.template(entry.value, problems),
                    })
                    .collect(),
            ),
        };
        Template::new(kind, span)
    }

    fn text(&mut self, text: &str, span: &Span, problems: &mut Problems) -> TemplateKind {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(OPEN) {
            let (before, after) = (&rest[..at], &rest[at + OPEN.len()..]);
            if let Some(before) = before.strip_suffix('$') {
                literal.push_str(before);
                literal.push_str(OPEN);
                rest = after;
                continue;
            }
            literal.push_str(before);
            let Some(length) = inside(after) else {
                let message = "this `${{` has no `}}`";
                problems.error_with_help(
                    "pipeline.expression",
                    span,
                    message,
                    "write `$${{` for the text `${{`",
                );
                return TemplateKind::Null;
            };
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            match self.expression(&after[..length], span, problems) {
                Some(expression) => pieces.push(Piece::Expression(expression)),
                None => return TemplateKind::Null,
            }
            rest = &after[length + CLOSE.len()..];
        }
        literal.push_str(rest);
        match (pieces.pop(), literal.is_empty()) {
            (None, _) => TemplateKind::Text(literal),
            (Some(Piece::Expression(only)), true) if pieces.is_empty() => TemplateKind::Expression(only),
            (Some(last), true) => {
                pieces.push(last);
                TemplateKind::Mixed(pieces)
            }
            (Some(last), false) => {
                pieces.extend([last, Piece::Text(literal)]);
                TemplateKind::Mixed(pieces)
            }
        }
    }

    fn expression(&mut self, text: &str, value: &Span, problems: &mut Problems) -> Option<Expression> {
        let (span, exact) = locate(text, value);
        if !self.known.contains_key(text) {
            self.known.insert(text.into(), parse(text).map(Arc::new));
        }
        match self.known.get(text)? {
            Ok(term) => Some(Expression {
                term: term.clone(),
                span,
                exact,
            }),
            Err(found) => {
                for problem in found {
                    let start = span.range().start;
                    let place = problem.at.clone().filter(|_| exact);
                    let place = place.map(|at| Span::new(&span.file, start + at.start..start + at.end));
                    let message = problem.message.as_str();
                    problems.error("pipeline.expression", place.as_ref().unwrap_or(&span), message);
                }
                None
            }
        }
    }
}

/// The expression's own place where the file has it verbatim, else the whole value's (a text with escapes or folded lines).
fn locate(text: &str, value: &Span) -> (Span, bool) {
    let written = format!("{OPEN}{text}{CLOSE}");
    match value.text().find(&written) {
        Some(at) => {
            let start = value.range().start + at + OPEN.len();
            (Span::new(&value.file, start..start + text.len()), true)
        }
        None => (value.clone(), false),
    }
}

/// How long the expression is: up to the `}}` that is not in quotes and closes no `{` of the expression's own.
fn inside(text: &str) -> Option<usize> {
    let mut quote: Option<u8> = None;
    let (mut depth, mut escaped) = (0_usize, false);
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match (quote, byte) {
            _ if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), byte) if open == *byte => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(*byte),
            (None, b'{') => depth += 1,
            (None, b'}') if depth > 0 => depth -= 1,
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
    }
    None
}
