//! From what was asked (a pipeline) and what the plugins are (their descriptors) to what will happen: an immutable, ordered,
//! digested plan with no choices left. Pure; nothing is executed.

pub mod build;
pub mod needs;
pub mod render;
pub mod with;

pub use build::{Plan, PlannedStage, build};
pub use needs::Need;
