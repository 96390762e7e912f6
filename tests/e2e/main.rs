//! The real binary against whole projects.

mod contract;
mod quickstart;
mod secrets;
mod vault;
