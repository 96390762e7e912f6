//! What people and machines see of a run: pure consumers of events that write to what they are given.

pub mod redact;
