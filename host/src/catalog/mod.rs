//! From a plugin reference to bytes, their digest, and what the component says of itself. Nothing is executed.

pub mod describe;
pub mod digest;
pub mod locate;
pub mod lock;
pub mod request;

pub use describe::{Descriptor, describe};
pub use digest::Digest;
pub use locate::{Component, locate};
pub use lock::Lock;
