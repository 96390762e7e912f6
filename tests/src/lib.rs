//! What the tests of this package share. Knows no single test.

pub mod attempt;
pub mod component;
pub mod counter;
pub mod engine;
pub mod moto;
pub mod postgres;
pub mod registry;
pub mod traffic;
pub mod vault;
pub mod workspace;
