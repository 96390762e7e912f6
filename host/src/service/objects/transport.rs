//! The requests of `object_store`, over connections of ours: one request, one connection; nowhere but to the one origin. Redirects are not followed.

use crate::{
    failure::{Failure, Turn},
    service::{
        egress::{Connector, Destination},
        http::body::ReplyBody,
    },
};
use async_trait::async_trait;
use http::{HeaderValue, Method, Uri, header::HOST};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
        HttpService,
    },
};
use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};
use tokio_util::task::AbortOnDropHandle;

/// How long to wait for a connection, for the beginning of an answer (a part of 8 MiB is sent in this time, at 30 KB/s), and
/// between pieces of it.
const CONNECT: Duration = Duration::from_secs(10);
const FIRST_BYTE: Duration = Duration::from_secs(300);
const BETWEEN_BYTES: Duration = Duration::from_secs(60);
/// An answer that is held in memory: lists have 1,000 entries a page, of keys of up to 1 KiB.
const LARGEST_ANSWER: u64 = 16 << 20;
/// Servers send about twenty.
const HEADERS: usize = 100;
const HEADER_BYTES: usize = 64 << 10;

/// Sends to one origin.
#[derive(Clone)]
pub(crate) struct Transport {
    connector: Arc<Connector>,
    origin: String,
    destination: Destination,
    status: Arc<AtomicU16>,
}

/// A failure of ours inside of an error of the library's.
#[derive(Debug)]
pub(crate) struct Carried(pub(crate) Failure);

impl Transport {
    /// `origin` as a grant of `http` has it.
    pub(crate) fn new(connector: Arc<Connector>, origin: String, destination: Destination) -> Self {
        Self {
            connector,
            origin,
            destination,
            status: Arc::default(),
        }
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// The status of the last answer; 0 before there was one.
    pub(crate) fn last_status(&self) -> u16 {
        self.status.load(Ordering::Relaxed)
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let request = self.addressed(request)?;
        let is_tls = self.origin.starts_with("https:");
        let opened = self
            .connector
            .open(&self.origin, is_tls, &self.destination, CONNECT)
            .await;
        let stream = opened.map_err(|error| {
            let failure = error.failure("object.unreachable");
            let kind = match failure.retryable {
                true => HttpErrorKind::Connect,
                false => HttpErrorKind::Unknown,
            };
            HttpError::new(kind, Carried(failure))
        })?;
        let handshake = http1::Builder::new()
            .max_headers(HEADERS)
            .max_buf_size(HEADER_BYTES)
            .handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|error| self.broken(&error))?;
        // A broken connection shows in the reply that is waited for.
        let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
        let is_content = request.method() == Method::GET && request.uri().query().is_none();
        let replied = tokio::time::timeout(FIRST_BYTE, sender.send_request(request)).await;
        let reply = replied
            .map_err(|_| self.late())?
            .map_err(|error| self.broken(&error))?;
        self.status.store(reply.status().as_u16(), Ordering::Relaxed);
        let limit = match is_content && reply.status().is_success() {
            true => u64::MAX,
            false => LARGEST_ANSWER,
        };
        let origin = self.origin.clone();
        Ok(reply.map(|incoming| {
            let body = ReplyBody::new(incoming, limit, BETWEEN_BYTES, connection);
            HttpResponseBody::new(body.map_err(move |error| cut_off(&origin, &error)))
        }))
    }

    /// As it goes to the server itself: the host is in its header, as it was signed, and not in the first line.
    fn addressed(&self, request: HttpRequest) -> Result<HttpRequest, HttpError> {
        let (mut parts, body) = request.into_parts();
        let uri = parts.uri.to_string();
        let path = uri
            .strip_prefix(self.origin.as_str())
            .filter(|path| path.starts_with('/'));
        let host = self.origin.split_once("://").map(|(_, host)| host);
        let (Some(path), Some(host)) = (path, host) else {
            return Err(self.strayed(&uri));
        };
        let host = HeaderValue::from_str(host).map_err(|_| self.strayed(&uri))?;
        parts.uri = path.parse::<Uri>().map_err(|_| self.strayed(&uri))?;
        parts.headers.insert(HOST, host);
        Ok(HttpRequest::from_parts(parts, body))
    }

    fn strayed(&self, uri: &str) -> HttpError {
        let message = format!(
            "a request to `{uri}` was not sent: it is not for `{}`",
            self.origin
        );
        let failure = Failure::new(Turn::Windlass, "internal.object", message);
        HttpError::new(HttpErrorKind::Unknown, Carried(failure))
    }

    fn late(&self) -> HttpError {
        let message = format!(
            "`{}` did not answer within {} s",
            self.origin,
            FIRST_BYTE.as_secs()
        );
        HttpError::new(HttpErrorKind::Timeout, Carried(unreachable(message)))
    }

    fn broken(&self, error: &hyper::Error) -> HttpError {
        let message = format!("the connection to `{}` broke: {error}", self.origin);
        HttpError::new(HttpErrorKind::Interrupted, Carried(unreachable(message)))
    }
}

fn cut_off(origin: &str, error: &dyn fmt::Display) -> HttpError {
    let message = format!("the answer of `{origin}` is cut off: {error}");
    HttpError::new(HttpErrorKind::Interrupted, Carried(unreachable(message)))
}

fn unreachable(message: String) -> Failure {
    Failure::new(Turn::Environment, "object.unreachable", message).retryable()
}

/// The failure of ours that an error of the library's holds.
pub(crate) fn carried(error: &(dyn Error + 'static)) -> Option<Failure> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(Carried(failure)) = error.downcast_ref::<Carried>() {
            return Some(failure.clone());
        }
        next = error.source();
    }
    None
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.exchange(request).await
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.origin)
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl Error for Carried {}
