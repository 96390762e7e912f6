//! Performs what the schedule decides: one event loop, one store an attempt, every record on disk before what follows from it.

pub mod attempt;
pub mod driver;
pub mod ledger;
pub mod scratch;
pub mod wiring;

pub use driver::{Ended, Exit, Options, Run, Stop};
