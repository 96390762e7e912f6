//! From the text of a pipeline file to a typed [`Pipeline`], with all problems at once. Pure: files come in through a reader.

pub mod expression;
pub mod model;

pub use model::Pipeline;
