//! Secrets: from where they are kept to bytes in memory, for the length of one run.
//!
//! Nothing here prints: no type that holds a value is `Debug`, `Display` or `Serialize`, buffers are zeroised when dropped,
//! and every value is made known to the [`Mask`] before anyone can ask for it. Who may use a secret is not decided here.

mod mask;
mod openssl;
mod source;
mod store;
mod text;

pub use mask::{Mask, MaskStream};
pub use source::{AwsSm, ReadFile, Sources, Variables, read_bounded};
pub use store::{MAXIMUM_FIELDS, Store};

/// The largest secret, in bytes: as much as one text may hold on its way through the plugin interface.
pub const MAXIMUM_VALUE: usize = 1 << 20;

/// A value in memory, overwritten when dropped.
pub type Bytes = zeroize::Zeroizing<Vec<u8>>;
