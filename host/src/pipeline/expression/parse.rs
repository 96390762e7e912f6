//! From the text inside `${{ }}` to a [`Term`]. Knows CEL's grammar through the `cel` crate and rewrites `a.b-c` for it.

use super::{
    function::Function,
    term::{Fold, Reference, Root, Term},
};
use crate::{pipeline::problems::suggest, value::Value};
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, MapExpr, SelectExpr, SourceInfo,
    operators,
};
use std::ops::Range;

/// Longer expressions belong into a plugin. Keeps the parser's time in the milliseconds.
const MAXIMUM_BYTES: usize = 2_048;
/// How deep an expression may be nested.
const MAXIMUM_DEPTH: u16 = 24;
/// How many operators it may have, those in its texts counted too.
const MAXIMUM_OPERATORS: usize = 128;
/// The parser takes tens of kilobytes of stack for each level. Up to so many levels any thread has that; beyond, the parser
/// gets a thread of its own.
const SHALLOW: usize = 12;
/// What the deepest expression takes, ten times over.
const PARSER_STACK: usize = 64 << 20;

/// Why a text is not an expression, and which bytes of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ParseProblem {
    pub(crate) message: String,
    pub(crate) at: Option<Range<usize>>,
}

impl ParseProblem {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            at: None,
        }
    }
}

/// # Errors
/// The text is not CEL, or uses a name, function or literal that expressions do not have.
pub(crate) fn parse(text: &str) -> Result<Term, Vec<ParseProblem>> {
    if text.trim().is_empty() {
        return Err(vec![ParseProblem::new("the expression is empty")]);
    }
    if text.len() > MAXIMUM_BYTES {
        let message = format!("the expression is longer than {MAXIMUM_BYTES} bytes");
        return Err(vec![ParseProblem::new(message)]);
    }
    let (depth, operators) = complexity(text);
    if depth > usize::from(MAXIMUM_DEPTH) || operators > MAXIMUM_OPERATORS {
        let message = format!(
            "the expression is nested deeper than {MAXIMUM_DEPTH} levels, or has more than {MAXIMUM_OPERATORS} operators"
        );
        return Err(vec![ParseProblem::new(message)]);
    }
    if depth <= SHALLOW && operators <= SHALLOW {
        return parse_here(text);
    }
    let parser = std::thread::Builder::new().stack_size(PARSER_STACK);
    std::thread::scope(|scope| match parser.spawn_scoped(scope, || parse_here(text)) {
        Ok(thread) => thread
            .join()
            .unwrap_or_else(|_| Err(vec![ParseProblem::new("this is not an expression")])),
        Err(_) => Err(vec![ParseProblem::new(
            "there is no memory left to read this expression",
        )]),
    })
}

fn parse_here(text: &str) -> Result<Term, Vec<ParseProblem>> {
    let rewritten = Rewritten::new(text);
    let parser = cel::parser::Parser::new().max_recursion_depth(MAXIMUM_DEPTH * 3);
    let (expression, info) = parser
        .parse_with_source_info(&rewritten.text)
        .map_err(|errors| rewritten.explain(errors))?;
    let mut lowering = Lowering {
        rewritten: &rewritten,
        info,
        locals: Vec::new(),
        problems: Vec::new(),
    };
    let term = lowering.term(expression);
    if lowering.problems.is_empty() {
        Ok(term)
    } else {
        Err(lowering.problems)
    }
}

/// How often the grammar recurses at most: for every bracket that is open at once, and for every operator, as `a + b + c` is
/// a tree as deep as it is long.
fn complexity(text: &str) -> (usize, usize) {
    let (mut depth, mut deepest, mut operators) = (0_usize, 0, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
        operators += usize::from(b"+-*/%<>=!&|?.[".contains(&byte));
    }
    (deepest, operators)
}

/// The text as CEL takes it, and the way back to the places in the original.
struct Rewritten<'a> {
    original: &'a str,
    text: String,
    /// Positions in `text` from which on that many bytes were added.
    added: Vec<(usize, usize)>,
}

impl<'a> Rewritten<'a> {
    /// `a.b-c` becomes `a['b-c']`; texts in quotes stay as they are.
    fn new(original: &'a str) -> Self {
        let mut rewritten = Self {
            original,
            text: String::with_capacity(original.len() + 8),
            added: Vec::new(),
        };
        let mut quote: Option<char> = None;
        let mut rest = original;
        let mut total = 0;
        while let Some(character) = rest.chars().next() {
            let name = match (quote, rest.strip_prefix('.')) {
                (None, Some(after)) => hyphenated(after),
                _ => None,
            };
            if let Some(name) = name {
                rewritten.text.push_str("['");
                rewritten.text.push_str(name);
                rewritten.text.push_str("']");
                total += 3;
                rewritten.added.push((rewritten.text.len(), total));
                rest = &rest[1 + name.len()..];
                continue;
            }
            let escaped = quote.is_some() && character == '\\';
            let taken = if escaped {
                rest.chars().take(2).map(char::len_utf8).sum()
            } else {
                character.len_utf8()
            };
            match quote {
                Some(open) if open == character => quote = None,
                None if character == '\'' || character == '"' => quote = Some(character),
                _ => {}
            }
            rewritten.text.push_str(&rest[..taken]);
            rest = &rest[taken..];
        }
        rewritten
    }

    /// The place in the original of a byte of the rewritten text.
    fn original_position(&self, byte: usize) -> usize {
        let added = self.added.iter().rev().find(|(from, _)| *from <= byte);
        let added = added.map_or(0, |(_, total)| *total);
        self.original.floor_char_boundary(byte.saturating_sub(added))
    }

    /// The words of a reference that starts there, or of a call whose bracket that is.
    fn reference_range(&self, byte: usize) -> Range<usize> {
        let position = self.original_position(byte);
        let part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
        let (before, after) = self.original.split_at(position);
        if after.starts_with('(') {
            let name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            let length = before.bytes().rev().take_while(name).count();
            return position - length..position;
        }
        let length = after.bytes().take_while(part).count();
        position..position + length.max(1)
    }

    fn explain(&self, errors: cel::ParseErrors) -> Vec<ParseProblem> {
        let first = errors.errors.into_iter().next();
        let at = first.as_ref().and_then(|error| {
            let line = usize::try_from(error.pos.0).ok()?.checked_sub(1)?;
            let column = usize::try_from(error.pos.1).ok()?.checked_sub(1)?;
            // The parser counts columns in characters, and offsets in bytes.
            let mut lines = self.text.split_inclusive('\n');
            let before: usize = lines.by_ref().take(line).map(str::len).sum();
            let columns: usize = lines
                .next()
                .unwrap_or("")
                .chars()
                .take(column)
                .map(char::len_utf8)
                .sum();
            let start = self.original_position(before + columns);
            Some(start..(start + 1).min(self.original.len()))
        });
        let message = match first.map(|error| error.msg) {
            Some(message) if message.starts_with(RESERVED) => unknown_name(message[RESERVED.len()..].trim()),
            Some(message) if message.contains("recursion") => "the expression is nested too deep".to_string(),
            Some(message) if message.contains("'<EOF>'") => "the expression ends too early".to_string(),
            _ => "this is not an expression: something is missing or stands here by mistake".to_string(),
        };
        vec![ParseProblem { message, at }]
    }
}

/// How the parser says that a word such as `var` is not for names.
const RESERVED: &str = "reserved identifier:";

fn unknown_name(name: &str) -> String {
    let known = Root::ALL.iter().map(|(name, _)| *name);
    format!("unknown name `{name}`; {}", suggest(name, known))
}

/// The name with a `-` in it at the start of the text.
fn hyphenated(text: &str) -> Option<&str> {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
    let name = &text[..text.bytes().take_while(part).count()];
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    (starts && name.contains('-')).then_some(name)
}

struct Lowering<'a> {
    rewritten: &'a Rewritten<'a>,
    info: SourceInfo,
    locals: Vec<String>,
    problems: Vec<ParseProblem>,
}

impl Lowering<'_> {
    fn term(&mut self, expression: IdedExpr) -> Term {
        let id = expression.id;
        match expression.expr {
            Expr::Literal(literal) => self.literal(id, literal),
            Expr::Ident(name) => self.identifier(id, name),
            Expr::Select(select) => self.select(select),
            Expr::List(list) => Term::List(list.elements.into_iter().map(|one| self.term(one)).collect()),
            Expr::Map(map) => self.map(map),
            Expr::Call(call) => self.call(id, call),
            Expr::Comprehension(comprehension) => self.comprehension(*comprehension),
            Expr::Struct(_) | Expr::Unspecified => self.problem(id, "expressions have no such value"),
        }
    }

    fn problem(&mut self, id: u64, message: impl Into<String>) -> Term {
        let at = self.range(id);
        self.problems.push(ParseProblem {
            message: message.into(),
            at,
        });
        Term::Constant(Value::Null)
    }

    fn range(&self, id: u64) -> Option<Range<usize>> {
        let (start, _) = self.info.offset_for(id)?;
        Some(self.rewritten.reference_range(start as usize))
    }

    fn literal(&mut self, id: u64, literal: LiteralValue) -> Term {
        Term::Constant(match literal {
            LiteralValue::Null => Value::Null,
            LiteralValue::Boolean(value) => Value::Bool(*value.inner()),
            LiteralValue::Int(value) => Value::Number((*value.inner()).into()),
            LiteralValue::UInt(value) => Value::Number((*value.inner()).into()),
            LiteralValue::String(value) => Value::String(value.inner().to_string()),
            LiteralValue::Double(value) => match serde_json::Number::from_f64(*value.inner()) {
                Some(number) => Value::Number(number),
                None => return self.problem(id, "this number is too large"),
            },
            LiteralValue::Bytes(_) => {
                return self.problem(id, "expressions have no bytes; leave out the `b`");
            }
        })
    }

    fn identifier(&mut self, id: u64, name: String) -> Term {
        if self.locals.contains(&name) {
            return Term::Local(name);
        }
        if let Some(root) = Root::from_name(&name) {
            let at = self.range(id).unwrap_or(0..self.rewritten.original.len());
            return Term::Reference(Reference {
                root,
                path: Vec::new(),
                at,
                optional: false,
            });
        }
        self.problem(id, unknown_name(&name))
    }

    fn select(&mut self, select: SelectExpr) -> Term {
        let SelectExpr { operand, field, test } = select;
        match (self.term(*operand), test) {
            (Term::Reference(reference), true) => Term::Exists(with_field(
                Reference {
                    optional: true,
                    ..reference
                },
                field,
            )),
            (Term::Reference(reference), false) => Term::Reference(with_field(reference, field)),
            (operand, true) => Term::Has(Box::new(operand), field),
            (operand, false) => Term::Field(Box::new(operand), field),
        }
    }

    fn map(&mut self, map: MapExpr) -> Term {
        let entry = |entry: cel::common::ast::IdedEntryExpr| match entry.expr {
            EntryExpr::MapEntry(entry) => (self.term(entry.key), self.term(entry.value)),
            EntryExpr::StructField(field) => {
                (Term::Constant(Value::String(field.field)), self.term(field.value))
            }
        };
        Term::Map(map.entries.into_iter().map(entry).collect())
    }

    fn call(&mut self, id: u64, call: CallExpr) -> Term {
        let CallExpr {
            func_name,
            target,
            args,
        } = call;
        let arguments: Vec<Term> = target
            .map(|target| *target)
            .into_iter()
            .chain(args)
            .map(|one| self.term(one))
            .collect();
        match func_name.as_str() {
            operators::LOGICAL_AND => two(arguments, Term::And),
            operators::LOGICAL_OR => two(arguments, Term::Or),
            operators::INDEX => two(arguments, |pair| index(*pair)),
            operators::CONDITIONAL => match <[Term; 3]>::try_from(arguments) {
                Ok(three) => Term::If(Box::new(three)),
                Err(_) => self.problem(id, "`?` takes a condition and two values"),
            },
            operators::NOT_STRICTLY_FALSE => arguments
                .into_iter()
                .next()
                .unwrap_or(Term::Constant(Value::Null)),
            name => self.function(id, name, arguments),
        }
    }

    fn function(&mut self, id: u64, name: &str, arguments: Vec<Term>) -> Term {
        match Function::find(name) {
            Some(row) if row.arguments.contains(&arguments.len()) => Term::Call(row.function, arguments),
            Some(row) => {
                let wanted: Vec<String> = row.arguments.iter().map(ToString::to_string).collect();
                let message = format!(
                    "`{}` takes {} values, not {}",
                    row.shown,
                    wanted.join(" or "),
                    arguments.len()
                );
                self.problem(id, message)
            }
            None => {
                let message = format!("unknown function `{name}`; {}", suggest(name, Function::names()));
                self.problem(id, message)
            }
        }
    }

    fn comprehension(&mut self, comprehension: ComprehensionExpr) -> Term {
        let ComprehensionExpr {
            iter_range,
            iter_var,
            accu_var,
            accu_init,
            loop_cond,
            loop_step,
            result,
            ..
        } = comprehension;
        let (range, start) = (self.term(iter_range), self.term(accu_init));
        self.locals.extend([iter_var.clone(), accu_var.clone()]);
        let (condition, step) = (self.term(loop_cond), self.term(loop_step));
        let result = self.term(result);
        self.locals.truncate(self.locals.len() - 2);
        Term::Fold(Box::new(Fold {
            range,
            variable: iter_var,
            accumulator: accu_var,
            start,
            condition,
            step,
            result,
        }))
    }
}

fn with_field(mut reference: Reference, field: String) -> Reference {
    reference.path.push(field);
    reference
}

fn two(arguments: Vec<Term>, make: impl FnOnce(Box<[Term; 2]>) -> Term) -> Term {
    match <[Term; 2]>::try_from(arguments) {
        Ok(pair) => make(Box::new(pair)),
        // The grammar gives these operators two operands always.
        Err(_) => Term::Constant(Value::Null),
    }
}

/// `vars['a']` is `vars.a`.
fn index([operand, index]: [Term; 2]) -> Term {
    match (operand, index) {
        (Term::Reference(reference), Term::Constant(Value::String(field))) => {
            Term::Reference(with_field(reference, field))
        }
        (operand, index) => Term::Index(Box::new(operand), Box::new(index)),
    }
}
