//! The conversation with `wasi:http`: writes the request, waits for the reply with one deadline, reads the body.

use super::{Request, Response, Target};
use crate::Error;
use std::time::{Duration, Instant};
use wasip2::clocks::monotonic_clock;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::poll::{self, Pollable};
use wasip2::io::streams::{InputStream, StreamError};

/// The most that `blocking-write-and-flush` takes in one call.
const WRITE_CHUNK: usize = 4096;
/// How much of a body is asked for at once.
const READ_CHUNK: u64 = 64 * 1024;

/// One moment for the whole exchange, whatever part of it takes the time.
struct Deadline {
    started: Instant,
    limit: Duration,
}

pub(super) fn send(request: &Request, target: &Target<'_>) -> Result<Response, Error> {
    let deadline = Deadline {
        started: Instant::now(),
        limit: request.timeout,
    };
    let outgoing = head(request, target)?;
    let body = outgoing.body().map_err(|()| failed("its body was refused"))?;
    let pending =
        outgoing_handler::handle(outgoing, Some(options(request.timeout))).map_err(|code| refused(&code))?;
    write(body, &request.body)?;
    let incoming = wait(&pending, &deadline)?;
    let mut response = Response {
        status: incoming.status(),
        headers: headers(&incoming),
        ..Response::default()
    };
    let body = incoming.consume().map_err(|()| failed("its reply has no body"))?;
    (response.body, response.truncated) = read(&body, request.body_limit, &deadline)?;
    response.elapsed_ms = u64::try_from(deadline.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(response)
}

impl Deadline {
    /// Waits for `ready`, or fails once the time is over.
    fn wait(&self, ready: &Pollable) -> Result<(), Error> {
        let left = self.limit.saturating_sub(self.started.elapsed());
        let timer = monotonic_clock::subscribe_duration(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX));
        // Whoever is ready first is named; when both are, the reply wins.
        if poll::poll(&[ready, &timer]).contains(&0) {
            Ok(())
        } else {
            Err(timeout(self.limit))
        }
    }
}

fn head(request: &Request, target: &Target<'_>) -> Result<OutgoingRequest, Error> {
    let fields = Fields::new();
    for (name, value) in &request.headers {
        fields.append(name, value.as_bytes()).map_err(|_| {
            Error::new(
                "http.header",
                format!("`{name}` is not a header that can be sent with that value"),
            )
        })?;
    }
    if !request.body.is_empty() {
        // Without a length the body goes out in chunks, which some servers refuse.
        let length = request.body.len().to_string();
        fields
            .set("content-length", &[length.into_bytes()])
            .map_err(|_| failed("its length was refused"))?;
    }
    let outgoing = OutgoingRequest::new(fields);
    let scheme = if target.secure {
        Scheme::Https
    } else {
        Scheme::Http
    };
    outgoing
        .set_method(&method(&request.method))
        .and_then(|()| outgoing.set_scheme(Some(&scheme)))
        .and_then(|()| outgoing.set_authority(Some(target.authority)))
        .and_then(|()| outgoing.set_path_with_query(Some(&target.path_with_query)))
        .map_err(|()| {
            Error::new(
                "http.url",
                format!("`{}` is not a URL that can be asked", request.url),
            )
        })?;
    Ok(outgoing)
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

fn options(timeout: Duration) -> RequestOptions {
    let options = RequestOptions::new();
    let limit = Some(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
    // A host may not know these limits; ours holds all the same, by `Deadline`.
    let _ = options.set_connect_timeout(limit);
    let _ = options.set_first_byte_timeout(limit);
    let _ = options.set_between_bytes_timeout(limit);
    options
}

fn write(body: OutgoingBody, data: &[u8]) -> Result<(), Error> {
    if !data.is_empty() {
        let stream = body.write().map_err(|()| failed("its body was refused"))?;
        for chunk in data.chunks(WRITE_CHUNK) {
            stream
                .blocking_write_and_flush(chunk)
                .map_err(|_| failed("its body was not taken").retryable())?;
        }
    }
    OutgoingBody::finish(body, None).map_err(|code| refused(&code))
}

fn wait(pending: &FutureIncomingResponse, deadline: &Deadline) -> Result<IncomingResponse, Error> {
    loop {
        match pending.get() {
            Some(Ok(reply)) => return reply.map_err(|code| refused(&code)),
            Some(Err(())) => return Err(failed("its reply was taken before")),
            None => deadline.wait(&pending.subscribe())?,
        }
    }
}

fn headers(incoming: &IncomingResponse) -> Vec<(String, String)> {
    let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
    incoming
        .headers()
        .entries()
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), text(value)))
        .collect()
}

fn read(body: &IncomingBody, limit: usize, deadline: &Deadline) -> Result<(Vec<u8>, bool), Error> {
    let stream = body.stream().map_err(|()| failed("its reply cannot be read"))?;
    let mut data = Vec::new();
    while let Some(chunk) = next(&stream, deadline)? {
        let room = limit - data.len();
        if chunk.len() > room {
            data.extend_from_slice(&chunk[..room]);
            return Ok((data, true));
        }
        data.extend_from_slice(&chunk);
    }
    Ok((data, false))
}

/// The next bytes, `None` at the end.
fn next(stream: &InputStream, deadline: &Deadline) -> Result<Option<Vec<u8>>, Error> {
    deadline.wait(&stream.subscribe())?;
    match stream.read(READ_CHUNK) {
        Ok(chunk) => Ok(Some(chunk)),
        Err(StreamError::Closed) => Ok(None),
        Err(StreamError::LastOperationFailed(cause)) => {
            Err(match wasip2::http::types::http_error_code(&cause) {
                Some(code) => refused(&code),
                None => failed("its reply broke off").retryable(),
            })
        }
    }
}

fn failed(why: &str) -> Error {
    Error::new("http.failed", format!("the request did not go through: {why}"))
}

fn timeout(limit: Duration) -> Error {
    let shown = crate::duration::show(limit);
    Error::new("http.timeout", format!("no complete reply within {shown}")).retryable()
}

/// Puts the host's error in words. What the network may cure by itself is worth another try, a refusal is not.
fn refused(code: &ErrorCode) -> Error {
    let unreachable = |what: &str| Error::new("http.unreachable", what.to_owned()).retryable();
    match code {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => {
            Error::new("grant.denied", "this stage is not allowed to ask that host")
        }
        ErrorCode::DnsTimeout | ErrorCode::DnsError(_) | ErrorCode::DestinationNotFound => {
            unreachable("the name of the host was not found")
        }
        ErrorCode::ConnectionRefused => unreachable("the connection was refused"),
        ErrorCode::DestinationUnavailable | ErrorCode::DestinationIpUnroutable => {
            unreachable("the host cannot be reached")
        }
        ErrorCode::ConnectionTerminated | ErrorCode::HttpResponseIncomplete => {
            unreachable("the connection was closed before the reply was complete")
        }
        ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => {
            Error::new("http.timeout", "the host did not answer in time").retryable()
        }
        ErrorCode::TlsCertificateError => Error::new("http.tls", "the host's certificate is not trusted"),
        ErrorCode::TlsProtocolError | ErrorCode::TlsAlertReceived(_) => {
            Error::new("http.tls", "no secure connection could be agreed on")
        }
        ErrorCode::HttpRequestUriInvalid | ErrorCode::HttpRequestUriTooLong => {
            Error::new("http.url", "the URL was refused")
        }
        ErrorCode::InternalError(Some(what)) => failed(what).retryable(),
        _ => failed("the reply was not understood").retryable(),
    }
}
