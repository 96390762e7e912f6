//! When a copy has to end, and how a failure travels through code that only knows `io::Error`.

use crate::{
    artifact::storage_failed,
    failure::{Failure, Turn},
};
use std::{fmt, io};
use tokio_util::sync::CancellationToken;

/// Asked between chunks.
#[derive(Clone, Debug)]
pub(super) struct Stop(pub(super) CancellationToken);

impl Stop {
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.0.is_cancelled() {
            let message = "the copy was cancelled; nothing was published";
            return Err(Failure::new(Turn::Operator, "cancelled", message));
        }
        Ok(())
    }

    /// The failure inside the error of a writer of ours, or that of the disk.
    pub(super) fn write_failed(&self, error: io::Error) -> Failure {
        uncarry(error, |error| storage_failed("the copy cannot be written", error))
    }
}

struct Carried(Failure);

/// Wraps a failure for a function that returns `io::Error`.
pub(super) fn carry(failure: Failure) -> io::Error {
    io::Error::other(Carried(failure))
}

/// The carried failure, or what `otherwise` makes of an error that carries none.
pub(super) fn uncarry(error: io::Error, otherwise: impl FnOnce(&io::Error) -> Failure) -> Failure {
    match error.downcast::<Carried>() {
        Ok(Carried(failure)) => failure,
        Err(error) => otherwise(&error),
    }
}

impl fmt::Debug for Carried {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl std::error::Error for Carried {}
