//! HTTP requests over `wasi:http` 0.2: one request, one reply, bounded in time and size. Redirects are handed back and
//! never followed. It knows nothing about retries: who sends decides that.

mod send;

use crate::Error;
use serde_json::json;
use std::time::Duration;

/// Of a longer reply the beginning is kept: nothing a stage decides on is bigger, and a guest's memory is small.
pub const BODY_LIMIT: usize = 1024 * 1024;

/// Long enough for a busy service, short enough that a stage can try again before its deadline.
const TIMEOUT: Duration = Duration::from_secs(30);

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// `GET`, `POST`, ...
    pub method: String,
    /// Absolute; `http` or `https`.
    pub url: String,
    /// Values may be or hold a secret's placeholder.
    pub headers: Vec<(String, String)>,
    /// Empty for none. Placeholders are not swapped here.
    pub body: Vec<u8>,
    /// For everything from the look-up of the name to the last byte of the reply.
    pub timeout: Duration,
    /// How much of the reply's body is kept.
    pub body_limit: usize,
}

/// One reply, of whatever status.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Response {
    /// 100 to 599.
    pub status: u16,
    /// In the order they came, names in lower case.
    pub headers: Vec<(String, String)>,
    /// At most the request's `body_limit`.
    pub body: Vec<u8>,
    /// True when there was more.
    pub truncated: bool,
    /// From sending to the last byte.
    pub elapsed_ms: u64,
}

impl Request {
    /// A request without a body.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: TIMEOUT,
            body_limit: BODY_LIMIT,
        }
    }

    /// A `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// A `POST` of JSON.
    pub fn post_json(url: impl Into<String>, body: &serde_json::Value) -> Self {
        let mut request = Self::new("POST", url).header("content-type", "application/json");
        request.body = body.to_string().into_bytes();
        request
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the time for everything.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends it and waits for the whole reply.
    ///
    /// # Errors
    /// `http.url`, `http.header`, `grant.denied`, and, worth another try, `http.timeout`, `http.unreachable`, `http.failed`.
    pub fn send(&self) -> Result<Response, Error> {
        let target = Target::parse(&self.url)?;
        send::send(self, &target)
            .map_err(|error| error.with_details(json!({ "method": self.method, "url": self.url })))
    }
}

impl Response {
    /// The first value of a header, its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

/// A URL, taken apart as far as `wasi:http` wants it. The host parses again and decides.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'url> {
    secure: bool,
    authority: &'url str,
    path_with_query: String,
}

impl<'url> Target<'url> {
    fn parse(url: &'url str) -> Result<Self, Error> {
        let wrong = |why: &str| {
            Error::new(
                "http.url",
                format!("`{url}` is not a URL that can be asked: {why}"),
            )
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(wrong("the scheme is neither http nor https")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err(wrong("it names no host"));
        }
        if authority.contains('@') {
            return Err(wrong("credentials belong into a header"));
        }
        let path_with_query = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        Ok(Self {
            secure,
            authority,
            path_with_query,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: Result<(bool, &str, &str), &str>) {
        match (Target::parse(url), expected) {
            (Ok(target), Ok((secure, authority, path))) => assert_eq!(
                (target.secure, target.authority, target.path_with_query.as_str()),
                (secure, authority, path)
            ),
            (Err(error), Err(part)) => assert!(error.message.contains(part), "{error}"),
            (found, expected) => panic!("{url}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        check("http://h", Ok((false, "h", "/")));
        check("HTTPS://h:8443/a/b?c=d#e", Ok((true, "h:8443", "/a/b?c=d")));
        check("http://[::1]:80?x", Ok((false, "[::1]:80", "/?x")));
        check("h:80/x", Err("no scheme"));
        check("ftp://h/x", Err("neither http nor https"));
        check("http:///x", Err("no host"));
        check("http://user:word@h/", Err("credentials"));
    }

    #[test]
    fn headers_are_found_in_any_case() {
        let response = Response {
            headers: vec![("location".into(), "/x".into())],
            ..Response::default()
        };
        assert_eq!(response.header("Location"), Some("/x"));
        assert_eq!(response.header("locatio"), None);
    }
}
