//! Guests against the sandbox: each does one thing that no plugin should, and ends in its own failure.

mod compile;
mod containers;
mod hostile;
mod imports;
mod isolation;
mod matrix;
