//! The host functions: one file for each import of a plugin. The only way out of the sandbox.
//!
//! A service never reads policy: it asks the [`Granter`](crate::grant::Granter) it was handed, then bounds its input, acts,
//! and maps errors.

pub mod effect;
