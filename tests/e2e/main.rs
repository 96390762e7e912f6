//! The real binary against whole projects.

mod clocks;
mod compose;
mod contract;
mod crash;
mod damage;
mod engine_dies;
mod exit_codes;
mod hostile;
mod kept;
mod locks;
mod mutations;
mod objects;
mod postgres;
mod quickstart;
mod resume;
mod secrets;
mod switches;
mod team_insight;
mod undo;
mod vault;
