//! What every edge needs: file operations whose errors name the path.

pub mod fs;
