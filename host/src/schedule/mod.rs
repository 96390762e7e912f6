//! What to do now: pure, without clock or I/O. Events go in, actions come out.
//!
//! [`transition`] is the one table of what may follow what; the live run and the replay of a journal both go through it.

pub mod transition;

pub use transition::{Action, Ending, Event, Illegal, Schedule, Shape, StageState};
