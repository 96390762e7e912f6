//! A URL to the parts that a connection and a request need. Knows `http` and `https`, and nothing of names.

use std::str::FromStr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub secure: bool,
    /// As it stands in the `Host` header.
    pub authority: String,
    pub host: String,
    pub port: u16,
    pub path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("`{url}` is no URL to send load to: {what}");
        let (secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(wrong("it has to begin with `http://` or `https://`")),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let bracket = authority.rfind(']').unwrap_or(0);
        let (host, port) = match authority[bracket..].rfind(':') {
            Some(at) => {
                let (host, port) = authority.split_at(bracket + at);
                let port = port[1..].parse().map_err(|_| wrong("the port is no number"))?;
                (host, port)
            }
            None => (authority, if secure { 443 } else { 80 }),
        };
        if host.is_empty() || url.bytes().any(|byte| byte <= b' ') {
            return Err(wrong("the host is empty, or there are spaces in it"));
        }
        Ok(Self {
            secure,
            authority: authority.to_string(),
            host: host.trim_matches(['[', ']']).to_string(),
            port,
            path: path.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: (bool, &str, u16, &str)) {
        let target: Target = url.parse().unwrap();
        let found = (
            target.secure,
            target.host.as_str(),
            target.port,
            target.path.as_str(),
        );
        assert_eq!(found, expected, "{url}");
    }

    #[test]
    fn urls() {
        check(
            "http://127.0.0.1:8080/api?x=1",
            (false, "127.0.0.1", 8080, "/api?x=1"),
        );
        check("https://team.example.com", (true, "team.example.com", 443, "/"));
        check("http://[::1]:81/", (false, "::1", 81, "/"));
        check("http://[::1]/", (false, "::1", 80, "/"));
    }

    #[test]
    fn no_urls() {
        for url in [
            "ftp://x/",
            "http://",
            "http://x:y/",
            "http://x /",
            "http://x/\r\na: b",
        ] {
            assert!(url.parse::<Target>().is_err(), "{url}");
        }
    }
}
