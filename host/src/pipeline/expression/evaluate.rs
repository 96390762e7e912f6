//! A [`Term`] in a [`Scope`] to a [`Value`], in a bounded number of steps.

use super::{
    function::{Function, describe},
    scope::{Found, Scope},
    term::{Fold, Reference, Term},
};
use crate::value::Value;
use indexmap::IndexMap;
use std::ops::Range;

/// What an expression may cost, in values visited and bytes copied, 16 bytes a step: comprehensions within comprehensions
/// would otherwise run for hours.
const MAXIMUM_STEPS: usize = 2_000_000;

/// Why there is no value, and which bytes of the expression say so.
#[derive(Debug, PartialEq)]
pub(crate) struct EvaluationProblem {
    pub(crate) message: String,
    pub(crate) at: Option<Range<usize>>,
}

impl From<String> for EvaluationProblem {
    fn from(message: String) -> Self {
        Self { message, at: None }
    }
}

/// # Errors
/// A name has no value, values do not fit their operator, or it costs too much.
pub(crate) fn evaluate(term: &Term, scope: &Scope<'_>) -> Result<Value, EvaluationProblem> {
    Evaluation {
        scope,
        locals: Vec::new(),
        steps: MAXIMUM_STEPS,
    }
    .value(term)
}

type Evaluated = Result<Value, EvaluationProblem>;

struct Evaluation<'a> {
    scope: &'a Scope<'a>,
    locals: Vec<(&'a str, Value)>,
    steps: usize,
}

impl<'a> Evaluation<'a> {
    fn value(&mut self, term: &'a Term) -> Evaluated {
        let value = self.compute(term)?;
        self.spend(1 + weight(&value))?;
        Ok(value)
    }

    fn spend(&mut self, steps: usize) -> Result<(), EvaluationProblem> {
        match self.steps.checked_sub(steps) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => Err("the expression takes too many steps".to_string().into()),
        }
    }

    fn compute(&mut self, term: &'a Term) -> Evaluated {
        match term {
            Term::Constant(value) => Ok(value.clone()),
            Term::Reference(reference) => self.reference(reference),
            Term::Exists(reference) => Ok(match self.scope.look_up(reference) {
                Found::Value(Value::Unknown) => Value::Unknown,
                Found::Value(_) => Value::Bool(true),
                Found::Missing(_) => Value::Bool(false),
            }),
            Term::Local(name) => {
                let local = self.locals.iter().rev().find(|(known, _)| known == name);
                Ok(local.map_or(Value::Null, |(_, value)| value.clone()))
            }
            Term::Field(operand, field) => field_of(self.value(operand)?, field),
            Term::Has(operand, field) => match self.value(operand)? {
                Value::Map(entries) => Ok(Value::Bool(entries.contains_key(field))),
                Value::Unknown => Ok(Value::Unknown),
                other => Err(format!("has() takes a part of a map, not of {}", describe(&other)).into()),
            },
            Term::Index(operand, index) => {
                let operand = self.value(operand)?;
                element(operand, self.value(index)?)
            }
            Term::List(items) => {
                let items: Result<Vec<Value>, _> = items.iter().map(|item| self.value(item)).collect();
                Ok(Value::List(items?))
            }
            Term::Map(entries) => self.map(entries),
            Term::Call(function, arguments) => self.call(*function, arguments),
            Term::And(pair) => self.logical(pair, false),
            Term::Or(pair) => self.logical(pair, true),
            Term::If(three) => self.condition(three),
            Term::Fold(fold) => self.fold(fold),
        }
    }

    fn reference(&mut self, reference: &Reference) -> Evaluated {
        match self.scope.look_up(reference) {
            Found::Value(value) => Ok(value),
            Found::Missing(message) => Err(EvaluationProblem {
                message,
                at: Some(reference.at.clone()),
            }),
        }
    }

    fn map(&mut self, entries: &'a [(Term, Term)]) -> Evaluated {
        let mut map = IndexMap::with_capacity(entries.len());
        for (key, value) in entries {
            let key = match self.value(key)? {
                Value::String(key) => key,
                Value::Unknown => return Ok(Value::Unknown),
                other => return Err(format!("a key must be text, not {}", describe(&other)).into()),
            };
            map.insert(key, self.value(value)?);
        }
        Ok(Value::Map(map))
    }

    fn call(&mut self, function: Function, arguments: &'a [Term]) -> Evaluated {
        let arguments: Result<Vec<Value>, _> =
            arguments.iter().map(|argument| self.value(argument)).collect();
        Ok(function.apply(arguments?)?)
    }

    /// `&&` and `||`: `decisive` on either side decides, whatever the other side is or lacks, as CEL has it.
    fn logical(&mut self, pair: &'a [Term; 2], decisive: bool) -> Evaluated {
        let [left, right] = pair;
        let left = self.boolean(left);
        if left == Ok(Some(decisive)) {
            return Ok(Value::Bool(decisive));
        }
        let right = self.boolean(right);
        if right == Ok(Some(decisive)) {
            return Ok(Value::Bool(decisive));
        }
        match (left?, right?) {
            (Some(_), Some(_)) => Ok(Value::Bool(!decisive)),
            _ => Ok(Value::Unknown),
        }
    }

    /// `None`: not known yet.
    fn boolean(&mut self, term: &'a Term) -> Result<Option<bool>, EvaluationProblem> {
        match self.value(term)? {
            Value::Bool(value) => Ok(Some(value)),
            Value::Unknown => Ok(None),
            other => Err(format!("a condition must be true or false, not {}", describe(&other)).into()),
        }
    }

    fn condition(&mut self, [condition, yes, no]: &'a [Term; 3]) -> Evaluated {
        match self.boolean(condition)? {
            Some(true) => self.value(yes),
            Some(false) => self.value(no),
            None => Ok(Value::Unknown),
        }
    }

    fn fold(&mut self, fold: &'a Fold) -> Evaluated {
        let items = match self.value(&fold.range)? {
            Value::List(items) => items,
            Value::Map(entries) => entries.into_keys().map(Value::String).collect(),
            Value::Unknown => return Ok(Value::Unknown),
            other => {
                return Err(format!(
                    "only a list or a map can be walked over, not {}",
                    describe(&other)
                )
                .into());
            }
        };
        let depth = self.locals.len();
        let start = self.value(&fold.start)?;
        self.locals.push((&fold.accumulator, start));
        for item in items {
            self.locals.truncate(depth + 1);
            if self.boolean(&fold.condition)? == Some(false) {
                break;
            }
            self.locals.push((&fold.variable, item));
            let next = self.value(&fold.step)?;
            self.locals.truncate(depth);
            self.locals.push((&fold.accumulator, next));
        }
        self.locals.truncate(depth + 1);
        let result = self.value(&fold.result);
        self.locals.truncate(depth);
        result
    }
}

fn field_of(value: Value, field: &str) -> Evaluated {
    match value {
        Value::Map(mut entries) => {
            let known = crate::pipeline::problems::suggest(field, entries.keys().map(String::as_str));
            let value = entries.swap_remove(field);
            value.ok_or_else(|| format!("there is no `{field}`; {known}").into())
        }
        Value::Unknown => Ok(Value::Unknown),
        other => Err(format!("{} has no `{field}`", describe(&other)).into()),
    }
}

fn element(operand: Value, index: Value) -> Evaluated {
    match (operand, index) {
        (Value::Unknown, _) | (_, Value::Unknown) => Ok(Value::Unknown),
        (operand @ Value::Map(_), Value::String(field)) => field_of(operand, &field),
        (Value::List(mut items), Value::Number(number)) => {
            let index = number.as_u64().and_then(|index| usize::try_from(index).ok());
            match index {
                Some(index) if index < items.len() => Ok(items.swap_remove(index)),
                _ => Err(format!("the list has {} elements, there is none at {number}", items.len()).into()),
            }
        }
        (operand, index) => {
            Err(format!("{} cannot be indexed by {}", describe(&operand), describe(&index)).into())
        }
    }
}

/// What it costs to copy a value.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() / 16,
        Value::List(items) => items.iter().map(|item| 1 + weight(item)).sum(),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, item)| 1 + key.len() / 16 + weight(item))
            .sum(),
        // Bounded by the expression's own length, as no function repeats them.
        Value::Secret(_) => 4,
        _ => 0,
    }
}
