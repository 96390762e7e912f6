//! What every edge needs: file operations whose errors name the path.

#[macro_use]
pub mod failpoint;
pub mod fs;
