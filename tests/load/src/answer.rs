//! Bytes of a connection to one answer, read to its end. Knows what ends an answer in HTTP/1.1, and keeps no body.

use crate::Failure;
use std::io::ErrorKind;
use tokio::io::{AsyncRead, AsyncReadExt};

/// An answer's head that is longer is no answer of a server that is tested here.
const LONGEST_HEAD: usize = 64 * 1024;
const MOST_HEADERS: usize = 96;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The value of the header that is counted.
    pub(crate) counted: Option<String>,
    /// Whether the server leaves the connection open.
    pub(crate) reusable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked,
    UntilEnd,
}

struct Head {
    answer: Answer,
    body: Body,
    length: usize,
}

/// Reads one answer to the request `method`. `buffer` is empty before, and holds nothing that counts afterwards.
pub(crate) async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    method: &str,
    counted: Option<&str>,
) -> Result<Answer, Failure> {
    loop {
        let head = loop {
            if let Some(head) = head(buffer, method, counted)? {
                break head;
            }
            more(stream, buffer, Failure::Closed).await?;
        };
        buffer.drain(..head.length);
        // 100 and 103 announce the answer.
        if head.answer.status < 200 {
            continue;
        }
        let rest = match head.body {
            Body::Length(length) => exactly(stream, buffer, length).await?,
            Body::Chunked => chunks(stream, buffer).await?,
            Body::UntilEnd => {
                while stream.read_buf(buffer).await.map_err(broken)? > 0 {
                    buffer.clear();
                }
                0
            }
        };
        // More than was asked for: nobody can say what the next answer would be.
        if rest > 0 {
            return Err(Failure::Malformed);
        }
        buffer.clear();
        return Ok(head.answer);
    }
}

fn broken(error: std::io::Error) -> Failure {
    match error.kind() {
        // rustls: the end of the connection without the end of TLS.
        ErrorKind::UnexpectedEof => Failure::Truncated,
        _ => Failure::Reset,
    }
}

/// Reads at least one byte; the end is `at_start` if there is none before, else an answer that was cut off.
async fn more<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    at_start: Failure,
) -> Result<(), Failure> {
    match stream.read_buf(buffer).await {
        Ok(0) if buffer.is_empty() => Err(at_start),
        Ok(0) => Err(Failure::Truncated),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof && buffer.is_empty() => Err(at_start),
        Err(error) => Err(broken(error)),
    }
}

fn head(bytes: &[u8], method: &str, counted: Option<&str>) -> Result<Option<Head>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes).map_err(|_| Failure::Malformed)? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial if bytes.len() > LONGEST_HEAD => return Err(Failure::Malformed),
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.ok_or(Failure::Malformed)?;
    let value = |name: &str| {
        let header = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(header.value).trim().to_string())
    };
    let body = match (value("transfer-encoding"), value("content-length")) {
        _ if method == "HEAD" || status < 200 || status == 204 || status == 304 => Body::Length(0),
        (Some(encoding), _) if encoding.eq_ignore_ascii_case("chunked") => Body::Chunked,
        (Some(_), _) => return Err(Failure::Malformed),
        (None, Some(length)) => Body::Length(length.parse().map_err(|_| Failure::Malformed)?),
        (None, None) => Body::UntilEnd,
    };
    let closes = value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let answer = Answer {
        status,
        counted: counted.and_then(value),
        reusable: !closes && body != Body::UntilEnd && response.version == Some(1),
    };
    Ok(Some(Head { answer, body, length }))
}

/// Takes `length` bytes away; answers how many bytes there are beyond them.
async fn exactly<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    length: usize,
) -> Result<usize, Failure> {
    let mut missing = length;
    loop {
        let taken = missing.min(buffer.len());
        missing -= taken;
        buffer.drain(..taken);
        if missing == 0 {
            return Ok(buffer.len());
        }
        more(stream, buffer, Failure::Truncated).await?;
    }
}

/// Reads chunks up to the last one and its trailer; answers how many bytes there are beyond.
async fn chunks<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Result<usize, Failure> {
    loop {
        let line = line(stream, buffer).await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| Failure::Malformed)?;
        if size == 0 {
            break;
        }
        // The data, and the line end behind it.
        exactly(stream, buffer, size).await?;
        exactly(stream, buffer, 2).await?;
    }
    while !line(stream, buffer).await?.is_empty() {}
    Ok(buffer.len())
}

async fn line<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Result<String, Failure> {
    loop {
        if let Some(end) = buffer.windows(2).position(|pair| pair == b"\r\n") {
            let line = String::from_utf8_lossy(&buffer[..end]).into_owned();
            buffer.drain(..end + 2);
            return Ok(line);
        }
        if buffer.len() > LONGEST_HEAD {
            return Err(Failure::Malformed);
        }
        more(stream, buffer, Failure::Truncated).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an answer that comes byte by byte, which is every way of splitting it at once.
    fn check(bytes: &str, expected: Result<(u16, Option<&str>, bool), Failure>) {
        let mut stream = tokio_test(bytes);
        let mut buffer = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(read(&mut stream, &mut buffer, "GET", Some("x-colour")));
        let expected = expected.map(|(status, counted, reusable)| Answer {
            status,
            counted: counted.map(str::to_string),
            reusable,
        });
        assert_eq!(found, expected, "{bytes}");
    }

    struct ByteByByte(std::collections::VecDeque<u8>);

    fn tokio_test(bytes: &str) -> ByteByByte {
        ByteByByte(bytes.bytes().collect())
    }

    impl AsyncRead for ByteByByte {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            if let Some(byte) = self.0.pop_front() {
                buffer.put_slice(&[byte]);
            }
            std::task::Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn whole_answers() {
        check(
            "HTTP/1.1 200 OK\r\nX-Colour: blue\r\nContent-Length: 2\r\n\r\nok",
            Ok((200, Some("blue"), true)),
        );
        check(
            "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            Ok((502, None, false)),
        );
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\nA\r\n0123456789\r\n0\r\nt: r\r\n\r\n",
            Ok((200, None, true)),
        );
        check("HTTP/1.1 200 OK\r\n\r\nuntil the end", Ok((200, None, false)));
        check(
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            Ok((200, None, false)),
        );
        check(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
            Ok((204, None, true)),
        );
    }

    #[test]
    fn answers_that_are_cut_off() {
        check("", Err(Failure::Closed));
        check("HTTP/1.1 200", Err(Failure::Truncated));
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            Err(Failure::Truncated),
        );
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no",
            Err(Failure::Truncated),
        );
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
            Err(Failure::Truncated),
        );
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            Err(Failure::Truncated),
        );
    }

    #[test]
    fn what_is_no_answer() {
        check("SSH-2.0-OpenSSH\r\n", Err(Failure::Malformed));
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            Err(Failure::Malformed),
        );
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            Err(Failure::Malformed),
        );
    }
}
