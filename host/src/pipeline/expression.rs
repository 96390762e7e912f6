//! `${{ }}`.

#[derive(Clone, Debug)]
pub struct Expression;
#[derive(Clone, Debug)]
pub struct Template;
