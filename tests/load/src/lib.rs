//! Sends requests at a constant rate and counts what was sent, what was answered and what was lost.
//!
//! A client library hides exactly what has to be seen here: it looks for a fresh connection when the old one was closed under a request,
//! and sends again. This one never sends a request twice.

mod answer;
mod connection;
mod failure;
mod load;
mod percentile;
mod report;
mod run;
mod target;
mod tls;

pub use failure::Failure;
pub use load::{Load, Mode, Trust};
pub use report::Report;
pub use run::{Running, start};
pub use target::Target;
