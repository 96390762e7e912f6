//! What to send, and how.

use crate::Target;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A new connection for each request, with `Connection: close`.
    Close,
    /// So many connections, each used until the server closes it. Nothing is sent twice.
    KeepAlive { connections: u32 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The certificates of this PEM file.
    Authority(PathBuf),
    /// Anybody; only for a loopback address.
    Anybody,
}

#[derive(Debug, Clone)]
pub struct Load {
    pub target: Target,
    /// Where to connect to instead of what the URL's host resolves to.
    pub connect: Option<SocketAddr>,
    pub mode: Mode,
    /// Requests a second. `None`: each connection sends its next request as soon as it has the answer to the last one.
    pub rate: Option<u32>,
    pub duration: Duration,
    /// For the connection, and for the answer.
    pub timeout: Duration,
    /// Sent with an empty body if it is not GET or HEAD.
    pub method: String,
    /// The header of an answer whose values are counted, as `x-colour`.
    pub count_header: Option<String>,
    /// Needed for `https`.
    pub trust: Option<Trust>,
}

impl Load {
    /// 100 GET a second on new connections, for ten seconds.
    pub fn of(target: Target) -> Self {
        Self {
            target,
            connect: None,
            mode: Mode::Close,
            rate: Some(100),
            duration: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
            method: "GET".into(),
            count_header: None,
            trust: None,
        }
    }

    /// The bytes of request number `number`. The number goes out as a header, so that a server can count what it got twice.
    pub(crate) fn request(&self, number: u64) -> Vec<u8> {
        let connection = match self.mode {
            Mode::Close => "close",
            Mode::KeepAlive { .. } => "keep-alive",
        };
        let length = match self.method.as_str() {
            "GET" | "HEAD" => "",
            _ => "content-length: 0\r\n",
        };
        format!(
            "{} {} HTTP/1.1\r\nhost: {}\r\nuser-agent: windlass-load\r\nx-load-request: {number}\r\nconnection: {connection}\r\n{length}\r\n",
            self.method, self.target.path, self.target.authority
        )
        .into_bytes()
    }
}
