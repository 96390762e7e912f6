//! Performs what the schedule decides: one event loop, one store an attempt, every record on disk before what follows from it.

pub mod attempt;
pub mod driver;
pub mod ledger;
mod probe;
pub mod recover;
pub mod scratch;
pub mod wiring;

pub use driver::{Ended, Exit, Options, Run, Start, Stop};
pub use probe::Assumed;
