//! What a backup looks like on disk, and how one is proved.
//!
//! A target directory holds one directory per backup, named by its [`id`]; the files in it are listed in a
//! [`manifest`], which is written last: where it is, the backup is published. [`prove`] restores into scratch and compares.
//! Bytes move through the [`host`]; the plugins `backup` and `restore` decide what for.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod clock;
pub mod engine;
pub mod host;
pub mod id;
pub mod inside;
pub mod location;
pub mod manifest;
pub mod place;
pub mod postgres;
pub mod prove;
pub mod redis;
pub mod service;
pub mod shelf;
#[cfg(feature = "testing")]
pub mod testing;
