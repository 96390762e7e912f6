//! `wasi:http`: the guest's requests, over our own connector. One request, one connection; redirects are the guest's to
//! follow, with another request that is checked again.
//!
//! GET and HEAD read. Every other method is an effect: announced before it is sent, its status written after. A reply's body
//! is not journalled, since it may hold what nobody has called a secret yet; a replayed effect answers with its status alone.

pub(super) mod body;
mod target;

use super::{
    effect::Effects,
    egress::{ConnectError, Connector, OpenError, Stream},
    events::Log,
    secret::Secrets,
    wasi::HttpSender,
};
use crate::{
    capability::Leaves,
    event::LogLevel,
    failure::{Failure, Turn},
    grant::Granter,
};
use body::ReplyBody;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, Uri, request::Parts};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use target::{Target, swap_headers};
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody};

/// How long to wait for a connection, for the first byte and between bytes, where the guest does not say.
const CONNECT: Duration = Duration::from_secs(10);
const FIRST_BYTE: Duration = Duration::from_secs(60);
const BETWEEN_BYTES: Duration = Duration::from_secs(60);
/// However long the guest wants to wait: slower services are asked again.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Says in a replayed reply that the request was sent by an earlier attempt.
const REPLAYED: &str = "windlass-replayed";

/// What one attempt may send and receive.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A health check every second for an hour is under 4,000.
    pub requests: u32,
    /// Headers of a request or a reply: what common servers take.
    pub headers: usize,
    pub header_bytes: usize,
    /// Held in memory to be digested: bigger uploads belong to artifacts.
    pub request_body: usize,
    /// Streamed, so it may be larger than the guest's memory.
    pub reply_body: u64,
}

/// Sends the requests of one attempt.
#[derive(Clone)]
pub struct Http {
    pub granter: Granter,
    pub connector: Arc<Connector>,
    pub effects: Arc<Effects>,
    /// `None`: no placeholder is ever swapped.
    pub secrets: Option<Arc<Secrets>>,
    /// Where refusals are explained: the errors of `wasi:http` have no room for it.
    pub log: Log,
    /// The plugin's request row says that sending twice does no harm (a login): no method is an effect.
    pub idempotent: bool,
    pub limits: Limits,
    /// How many requests were sent.
    pub sent: Arc<AtomicU32>,
}

/// Why a request failed: as the guest sees it, and for people where there is more to say.
#[derive(Debug)]
enum Problem {
    Silent(HttpError),
    Told(Failure, HttpError),
}

type Reply = Response<WasiBody>;

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: 10_000,
            headers: 100,
            header_bytes: 64 << 10,
            request_body: 16 << 20,
            reply_body: 256 << 20,
        }
    }
}

impl HttpSender for Http {
    fn send(
        &self,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> BoxFuture<'static, Result<Reply, HttpError>> {
        let sender = self.clone();
        Box::pin(async move {
            match sender.answer(request, options).await {
                Ok(reply) => Ok(reply),
                Err(Problem::Silent(error)) => Err(error),
                Err(Problem::Told(failure, error)) => {
                    let help = failure.help.iter().map(|help| ("help".to_string(), help.clone()));
                    let fields: Vec<_> = help.collect();
                    sender.log.write(LogLevel::Error, &failure.message, &fields).await;
                    Err(error)
                }
            }
        })
    }
}

impl Http {
    async fn answer(&self, request: Request<WasiBody>, options: RequestOptions) -> Result<Reply, Problem> {
        if self.sent.fetch_add(1, Ordering::Relaxed) >= self.limits.requests {
            let message = format!(
                "the stage has sent {} requests, which is its limit",
                self.limits.requests
            );
            let failure = Failure::new(Turn::Plugin, "limit.http-requests", message);
            return Err(Problem::Told(failure, HttpError::ConnectionLimitReached));
        }
        let (mut parts, body) = request.into_parts();
        let target = Target::new(&self.granter, &parts.uri)?;
        let url = parts.uri.to_string();
        swap_headers(
            &mut parts.headers,
            &target,
            self.secrets.as_deref(),
            &self.granter,
            &self.limits,
        )?;
        let body = collect(body, self.limits.request_body).await?;
        let reads = parts.method == Method::GET || parts.method == Method::HEAD;
        if reads || self.idempotent {
            return self.exchange(target, parts, body, options).await;
        }
        let arguments = json!({
            "method": parts.method.as_str(),
            "url": url,
            "body": format!("sha256:{}", hex::encode(Sha256::digest(&body))),
        });
        self.effect(arguments, self.exchange(target, parts, body, options))
            .await
    }

    /// Sends as an effect: its journalled outcome is the status.
    async fn effect(
        &self,
        arguments: Json,
        exchange: impl Future<Output = Result<Reply, Problem>>,
    ) -> Result<Reply, Problem> {
        let ended = Mutex::new(None);
        let perform = || async {
            let result = exchange.await;
            let outcome = match &result {
                Ok(reply) => Ok(json!({ "status": reply.status().as_u16() })),
                Err(problem) => Err(problem.failure()),
            };
            *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            outcome
        };
        let outcome = self
            .effects
            .perform("http.request", arguments, Leaves::State, perform)
            .await;
        match (
            ended.into_inner().unwrap_or_else(PoisonError::into_inner),
            outcome,
        ) {
            // It was sent, but the journal could not write that down: the run must not go on as if it had.
            (Some(Ok(_)), Err(failure)) => Err(Problem::refused(failure)),
            (Some(result), _) => result,
            (None, Ok(outcome)) => replayed(&outcome),
            (None, Err(failure)) => Err(Problem::refused(failure)),
        }
    }

    async fn exchange(
        &self,
        target: Target,
        parts: Parts,
        body: Bytes,
        options: RequestOptions,
    ) -> Result<Reply, Problem> {
        let wait = |asked: Option<Duration>, default: Duration| asked.unwrap_or(default).min(LONGEST_WAIT);
        let stream = self
            .connect(&target, wait(options.connect_timeout, CONNECT))
            .await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_headers(self.limits.headers)
            .max_buf_size(self.limits.header_bytes)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // A broken connection shows in the reply that is waited for.
        let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
        let request = origin_form(parts, body)?;
        let replied = tokio::time::timeout(
            wait(options.first_byte_timeout, FIRST_BYTE),
            sender.send_request(request),
        );
        let reply = replied
            .await
            .map_err(|_| Problem::Silent(HttpError::HttpResponseTimeout))?
            .map_err(broken)?;
        let between = wait(options.between_bytes_timeout, BETWEEN_BYTES);
        Ok(reply.map(|incoming| {
            ReplyBody::new(incoming, self.limits.reply_body, between, connection).boxed_unsync()
        }))
    }

    async fn connect(&self, target: &Target, timeout: Duration) -> Result<Box<dyn Stream>, Problem> {
        let opened = self
            .connector
            .open(&target.origin, target.is_tls, &target.destination, timeout);
        opened.await.map_err(unopened)
    }
}

impl Problem {
    fn refused(failure: Failure) -> Self {
        Self::Told(failure, HttpError::HttpRequestDenied)
    }

    /// For the journal.
    fn failure(&self) -> Failure {
        match self {
            Self::Told(failure, _) => failure.clone(),
            Self::Silent(error) => Failure::new(Turn::Environment, "http.failed", error.to_string()),
        }
    }
}

async fn collect(body: WasiBody, limit: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::Silent(HttpError::HttpRequestBodySize(
            Some(limit as u64),
        ))),
        Err(error) => match error.downcast::<HttpError>() {
            Ok(error) => Err(Problem::Silent(*error)),
            Err(error) => Err(Problem::Silent(HttpError::InternalError(Some(error.to_string())))),
        },
    }
}

/// The request as it goes to the server itself: the host is in its header, not in the first line.
fn origin_form(mut parts: Parts, body: Bytes) -> Result<Request<Full<Bytes>>, Problem> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path
        .parse::<Uri>()
        .map_err(|_| Problem::Silent(HttpError::HttpRequestUriInvalid))?;
    Ok(Request::from_parts(parts, Full::new(body)))
}

/// The reply to a request that an interrupted attempt has sent.
fn replayed(outcome: &Json) -> Result<Reply, Problem> {
    let status = outcome["status"]
        .as_u64()
        .and_then(|status| u16::try_from(status).ok());
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    let empty = Full::new(Bytes::new())
        .map_err(|never| match never {})
        .boxed_unsync();
    Response::builder()
        .status(status.unwrap_or(StatusCode::OK))
        .header(REPLAYED, "true")
        .body(empty)
        .map_err(|_| Problem::Silent(HttpError::InternalError(None)))
}

fn unopened(error: OpenError) -> Problem {
    match error {
        OpenError::Connect(error) => unconnected(error),
        OpenError::Authority(_) => Problem::Told(error.failure("http.tls"), HttpError::ConfigurationError),
        OpenError::Name(_) => Problem::Silent(HttpError::HttpRequestUriInvalid),
        OpenError::Untrusted { .. } => {
            Problem::Told(error.failure("http.tls"), HttpError::TlsCertificateError)
        }
        OpenError::Tls { .. } => Problem::Silent(HttpError::TlsProtocolError),
    }
}

fn unconnected(error: ConnectError) -> Problem {
    match &error {
        ConnectError::Prohibited { .. } => Problem::Told(
            error.failure("http.unreachable"),
            HttpError::DestinationIpProhibited,
        ),
        ConnectError::Unresolved { .. } => Problem::Silent(HttpError::DnsError {
            rcode: None,
            info_code: None,
        }),
        ConnectError::Refused { .. } => Problem::Silent(HttpError::ConnectionRefused),
        ConnectError::Unreachable { .. } => Problem::Silent(HttpError::DestinationUnavailable),
        ConnectError::TimedOut { .. } => Problem::Silent(HttpError::ConnectionTimeout),
    }
}

fn broken(error: hyper::Error) -> Problem {
    Problem::Silent(if error.is_parse_too_large() {
        HttpError::HttpResponseHeaderSectionSize(None)
    } else if error.is_parse() {
        HttpError::HttpProtocolError
    } else if error.is_incomplete_message() {
        HttpError::HttpResponseIncomplete
    } else {
        HttpError::ConnectionTerminated
    })
}

#[cfg(test)]
mod tests;
