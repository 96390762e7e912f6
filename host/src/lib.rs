//! Windlass runs deployment pipelines whose every step is a sandboxed WebAssembly component.
//!
//! The modules stand in the order in which a run passes through them; `ARCHITECTURE.md` says what may depend on what.
//! The library exists for the `windlass` binary and its tests: it follows the binary's version and promises no API of its own.

#[macro_use]
pub mod support;

// Vocabulary: data only.
pub mod capability;
pub mod diagnostic;
pub mod event;
pub mod failure;
pub mod name;
pub mod pattern;
pub mod source;
pub mod value;

// The way of a pipeline.
pub mod artifact;
pub mod catalog;
pub mod cli;
pub mod compose;
pub mod grant;
pub mod journal;
pub mod lock;
pub mod pipeline;
pub mod plan;
pub mod report;
pub mod run;
pub mod sandbox;
pub mod schedule;
pub mod secret;
pub mod service;
pub mod wit;
