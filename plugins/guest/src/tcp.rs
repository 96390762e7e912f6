//! Whether something listens on a port.

use crate::Error;
use crate::bindings::tcp::probe;
use std::time::Duration;

/// Connects and closes; the time it took.
pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<Duration, Error> {
    let limit = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    Ok(Duration::from_millis(probe::connect(host, port, limit)?.into()))
}
