//! The ways in which a request fails, and which of them are a loss.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// No connection: refused, unreachable, or reset before it stood.
    Connect,
    ConnectTimeout,
    Tls,
    /// More requests in flight than the load allows: this client was too slow, or the server far too slow.
    TooManyInFlight,
    /// The request could not be written, or only a part of it.
    Write,
    /// The server closed the connection in order, without one byte of an answer.
    Closed,
    /// The connection was reset before or within the answer.
    Reset,
    /// The connection ended within the answer.
    Truncated,
    AnswerTimeout,
    /// What came is no answer in HTTP/1.
    Malformed,
}

impl Failure {
    /// Whether bytes of the request had gone out: only then can a server have acted on it, and only then was anything lost.
    pub fn is_loss(self) -> bool {
        !matches!(
            self,
            Self::Connect | Self::ConnectTimeout | Self::Tls | Self::TooManyInFlight
        )
    }
}
