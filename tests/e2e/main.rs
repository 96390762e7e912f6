//! The real binary against whole projects.

mod clocks;
mod compose;
mod contract;
mod crash;
mod damage;
mod exit_codes;
mod hostile;
mod kept;
mod locks;
mod mutations;
mod postgres;
mod quickstart;
mod resume;
mod secrets;
mod undo;
mod vault;
