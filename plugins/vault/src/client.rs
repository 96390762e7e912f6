//! One question to Vault, asked until there is an answer that means something: retries what passes by itself, and tells
//! sealed, denied, missing and unreachable apart. It knows neither logins nor the shapes of secrets.

use crate::stage::Ports;
use serde_json::{Value, json};
use std::time::Duration;
use windlass_guest::http::{Request, Response};
use windlass_guest::{Error, duration};

/// How often a question is asked. With the waits between that is about 16 seconds: a leader election, not an outage.
const ATTEMPTS: usize = 6;
/// The first wait; each one after is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest that a `Retry-After` of the server is obeyed.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How long one reply may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much of what Vault says an error shows.
const SHOWN: usize = 512;

/// Where Vault is and what every request carries.
pub(crate) struct Client<'a, P> {
    pub(crate) ports: &'a mut P,
    address: &'a str,
    namespace: Option<&'a str>,
    token: Option<String>,
}

/// An answer of Vault itself.
pub(crate) enum Answer {
    /// 200 or 204, with its JSON (`null` for none).
    Found(Value),
    /// 404, with whatever came along: warnings, or what is known of a deleted version.
    Missing(Value),
    /// 403, or 400 as logins get it, with Vault's words.
    Denied(Error),
}

impl<'a, P: Ports> Client<'a, P> {
    pub(crate) fn new(ports: &'a mut P, address: &'a str, namespace: Option<&'a str>) -> Self {
        Self {
            ports,
            address: address.trim_end_matches('/'),
            namespace,
            token: None,
        }
    }

    /// From now on every request carries this token, or this placeholder of one.
    pub(crate) fn with_token(mut self, token: String) -> Self {
        self.token = Some(token);
        self
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<Answer, Error> {
        let request = self.carry(Request::get(self.url(path)));
        self.ask(&request, path)
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Result<Answer, Error> {
        let request = self.carry(Request::post_json(self.url(path), body));
        self.ask(&request, path)
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v1/{path}", self.address)
    }

    fn carry(&self, mut request: Request) -> Request {
        request = request.header("x-vault-request", "true").timeout(TIMEOUT);
        if let Some(namespace) = self.namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        if let Some(token) = &self.token {
            request = request.header("x-vault-token", token);
        }
        request
    }

    fn ask(&mut self, request: &Request, path: &str) -> Result<Answer, Error> {
        let mut wait = FIRST_WAIT;
        for attempt in 1.. {
            let (error, asked_for) = match self.ports.send(request) {
                Ok(response) if passes(&response) => (busy(&response, path), retry_after(&response)),
                Ok(response) => return answer(&response, path),
                Err(error) if error.retryable => (unreachable(&error, self.address), None),
                Err(error) => return Err(error.context(format!("asking Vault at {}", self.address))),
            };
            if attempt == ATTEMPTS {
                return Err(error.with_details(json!({ "attempts": ATTEMPTS })));
            }
            let pause = asked_for.unwrap_or(wait);
            self.ports.warn(&format!(
                "{}; trying again in {}",
                error.message,
                duration::show(pause)
            ));
            if !self.ports.sleep(pause) {
                return Err(Error::new("cancelled", "the run ended while waiting for Vault"));
            }
            wait *= 2;
        }
        unreachable!("the loop has no end but a return")
    }
}

/// Whether this reply says that the next one may be another.
fn passes(response: &Response) -> bool {
    match response.status {
        // 412: a replica lags behind; 429: quota; 472 and 473: a standby that cannot forward.
        412 | 429 | 472 | 473 => true,
        501 => false,
        status => status >= 500 && !is_sealed(response),
    }
}

fn is_sealed(response: &Response) -> bool {
    matches!(response.status, 400 | 500 | 503) && words(response).to_ascii_lowercase().contains("sealed")
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.header("retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

fn answer(response: &Response, path: &str) -> Result<Answer, Error> {
    if is_sealed(response) {
        let error = failure(
            "vault.sealed",
            "Vault is sealed: it answers nothing until somebody unseals it".into(),
            response,
        );
        return Err(error.help("unseal it with `vault operator unseal`, then run the pipeline again"));
    }
    match response.status {
        204 => Ok(Answer::Found(Value::Null)),
        200 => match serde_json::from_slice(&response.body) {
            Ok(reply) => Ok(Answer::Found(reply)),
            // No excerpt: the reply was meant to hold a secret.
            Err(_) => Err(Error::new(
                "vault.reply",
                format!("what Vault sent for `{path}` is not complete JSON"),
            )
            .with_details(
                json!({ "status": 200, "bytes": response.body.len(), "truncated": response.truncated }),
            )
            .help("check that `address` is a Vault server and not a page in front of it")),
        },
        404 => Ok(Answer::Missing(
            serde_json::from_slice(&response.body).unwrap_or(Value::Null),
        )),
        400 | 401 | 403 => {
            let message = format!("Vault denied `{path}` ({}): {}", response.status, words(response));
            Ok(Answer::Denied(failure("vault.denied", message, response)))
        }
        501 => Err(
            failure("vault.sealed", "Vault is not initialised yet".into(), response)
                .help("initialise it with `vault operator init`"),
        ),
        300..=399 => Err(redirected(response)),
        status => Err(failure(
            "vault.reply",
            format!("Vault answered `{path}` with {status}: {}", words(response)),
            response,
        )),
    }
}

fn redirected(response: &Response) -> Error {
    let target = response.header("location").unwrap_or("nowhere");
    failure(
        "vault.unreachable",
        format!("Vault answered {} and points to {target}", response.status),
        response,
    )
    .help("redirects are not followed: write the active node's address into `address` and into `allow: http`")
}

fn busy(response: &Response, path: &str) -> Error {
    let message = format!(
        "Vault answered `{path}` with {}: {}",
        response.status,
        words(response)
    );
    failure("vault.unreachable", message, response).retryable()
}

fn unreachable(cause: &Error, address: &str) -> Error {
    Error::new(
        "vault.unreachable",
        format!("Vault at {address} cannot be reached: {}", cause.message),
    )
    .retryable()
    .with_details(json!({ "cause": cause.code }))
    .help("check `address`, and that Vault runs and can be reached from this machine")
}

fn failure(code: &str, message: String, response: &Response) -> Error {
    Error::new(code, message).with_details(json!({ "status": response.status, "reply": words(response) }))
}

/// What an error reply says, in one line. Vault sends `errors`, its relatives `error`.
fn words(response: &Response) -> String {
    let reply: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
    let said: Vec<&str> = match (reply.get("errors"), reply.get("error")) {
        (Some(Value::Array(errors)), _) => errors.iter().filter_map(Value::as_str).map(str::trim).collect(),
        (_, Some(Value::String(error))) => vec![error],
        _ => Vec::new(),
    };
    let text = if said.is_empty() {
        response.text().into_owned()
    } else {
        said.join("; ")
    };
    let line: String = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(SHOWN)
        .collect();
    if line.is_empty() {
        "no reason given".to_owned()
    } else {
        line
    }
}
