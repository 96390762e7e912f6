//! An expression after parsing: closed, checked for names and functions that exist. The `cel` crate reads the text; what it
//! reads is lowered to this, so that secrets, unknown values and bounds are part of the language and not an afterthought.

use super::function::Function;
use crate::value::Value;
use std::ops::Range;

/// The names an expression may start with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    Vars,
    Env,
    Stages,
    Secrets,
    Run,
    Matrix,
}

impl Root {
    pub(crate) const ALL: [(&'static str, Self); 6] = [
        ("vars", Self::Vars),
        ("env", Self::Env),
        ("stages", Self::Stages),
        ("secrets", Self::Secrets),
        ("run", Self::Run),
        ("matrix", Self::Matrix),
    ];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|(known, _)| *known == name)
            .map(|(_, root)| root)
    }

    pub(crate) fn name(self) -> &'static str {
        let row = Self::ALL.into_iter().find(|(_, root)| *root == self);
        row.map_or("", |(name, _)| name)
    }
}

/// `vars.version`, `stages.build.outputs.image`: a path from a root.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    pub root: Root,
    pub path: Vec<String>,
    /// Where it stands in the expression's text, in bytes.
    pub(crate) at: Range<usize>,
    /// Inside `has()`: the last part may be missing.
    pub(crate) optional: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Term {
    Constant(Value),
    Reference(Reference),
    /// A variable of a comprehension such as `map(x, ...)`.
    Local(String),
    Field(Box<Term>, String),
    Has(Box<Term>, String),
    /// `has()` of a reference.
    Exists(Reference),
    Index(Box<Term>, Box<Term>),
    List(Vec<Term>),
    Map(Vec<(Term, Term)>),
    Call(Function, Vec<Term>),
    And(Box<[Term; 2]>),
    Or(Box<[Term; 2]>),
    If(Box<[Term; 3]>),
    Fold(Box<Fold>),
}

/// What `all`, `exists`, `map`, `filter` and `exists_one` stand for: a walk over a list with an accumulator.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fold {
    pub(crate) range: Term,
    pub(crate) variable: String,
    pub(crate) accumulator: String,
    pub(crate) start: Term,
    pub(crate) condition: Term,
    pub(crate) step: Term,
    pub(crate) result: Term,
}

impl Term {
    /// Calls `visit` for every reference in it.
    pub(crate) fn for_each_reference<'a>(&'a self, visit: &mut impl FnMut(&'a Reference)) {
        let mut all = |terms: &mut dyn Iterator<Item = &'a Term>| {
            terms.for_each(|term| term.for_each_reference(&mut *visit));
        };
        match self {
            Self::Constant(_) | Self::Local(_) => {}
            Self::Reference(reference) | Self::Exists(reference) => visit(reference),
            Self::Field(term, _) | Self::Has(term, _) => all(&mut std::iter::once(&**term)),
            Self::Index(term, index) => all(&mut [&**term, index].into_iter()),
            Self::List(terms) | Self::Call(_, terms) => all(&mut terms.iter()),
            Self::Map(entries) => all(&mut entries.iter().flat_map(|(key, value)| [key, value])),
            Self::And(terms) | Self::Or(terms) => all(&mut terms.iter()),
            Self::If(terms) => all(&mut terms.iter()),
            Self::Fold(fold) => {
                let Fold {
                    range,
                    start,
                    condition,
                    step,
                    result,
                    ..
                } = &**fold;
                all(&mut [range, start, condition, step, result].into_iter());
            }
        }
    }
}
