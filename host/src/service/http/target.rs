//! Where a guest's request goes: from its URL and the grants to a destination, and from its headers to those that are sent.

use super::{Limits, Problem};
use crate::{
    capability::Capability,
    failure::{Failure, Turn},
    grant::Granter,
    pattern::Pattern,
    service::{
        egress::{Destination, granted},
        secret::{Place, Secrets, has_placeholder},
    },
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, uri::Scheme};
use wasmtime_wasi_http::Error as HttpError;

/// A URL that the stage may send to.
#[derive(Debug)]
pub(super) struct Target {
    /// `https://host` or `https://host:port`, as grants and `origins:` name it.
    pub(super) origin: String,
    pub(super) destination: Destination,
    pub(super) is_tls: bool,
}

impl Target {
    /// Takes the URL apart once: what the granter is asked for is what is dialled.
    ///
    /// # Errors
    /// No absolute URL of http or https, one with a user in it, or one that is not granted.
    pub(super) fn new(granter: &Granter, uri: &Uri) -> Result<Self, Problem> {
        let invalid = || Problem::Silent(HttpError::HttpRequestUriInvalid);
        let authority = uri.authority().ok_or_else(invalid)?;
        let is_tls = uri.scheme() == Some(&Scheme::HTTPS);
        if authority.as_str().contains('@') || !(is_tls || uri.scheme() == Some(&Scheme::HTTP)) {
            return Err(invalid());
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let scheme = if is_tls { "https" } else { "http" };
        let host = authority.host().to_ascii_lowercase();
        let value =
            Pattern::parse(Capability::Http, &format!("{scheme}://{host}:{port}")).map_err(|_| invalid())?;
        let trust = granted(granter, Capability::Http, &value)
            .map_err(|failure| Problem::Told(failure, HttpError::HttpRequestDenied))?;
        Ok(Self {
            origin: value.to_string(),
            destination: Destination { host, port, trust },
            is_tls,
        })
    }
}

/// Puts the values of placeholders into headers. Secrets go to the host that the guest named, wherever `origins:` leads.
///
/// # Errors
/// Too many headers; a secret that may not go to this host; a value that no header can hold.
pub(super) fn swap_headers(
    headers: &mut HeaderMap,
    target: &Target,
    secrets: Option<&Secrets>,
    granter: &Granter,
    limits: &Limits,
) -> Result<(), Problem> {
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if headers.len() > limits.headers || bytes > limits.header_bytes {
        let size = u32::try_from(bytes).ok();
        return Err(Problem::Silent(HttpError::HttpRequestHeaderSectionSize(size)));
    }
    let Some(secrets) = secrets else {
        return Ok(());
    };
    let place = Place::Header {
        host: &target.destination.host,
        port: target.destination.port,
    };
    for (name, value) in headers.iter_mut() {
        let Ok(text) = value.to_str() else {
            continue;
        };
        if !has_placeholder(text) {
            continue;
        }
        let swapped = secrets
            .swap(granter, text, place)
            .map_err(|failure| Problem::Told(failure, HttpError::HttpRequestDenied))?;
        *value = header_value(name, &swapped)?;
    }
    Ok(())
}

fn header_value(name: &HeaderName, text: &str) -> Result<HeaderValue, Problem> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        let message = format!("a secret for the header `{name}` has a character that no header can hold");
        let failure = Failure::new(Turn::Operator, "secret.header", message)
            .help("a newline at its end is the usual cause: store the secret without it");
        Problem::Told(failure, HttpError::ConfigurationError)
    })?;
    // Keeps it out of what the HTTP library itself would show or compress.
    value.set_sensitive(true);
    Ok(value)
}
