//! From the text of a PostgreSQL URL to where to connect and as whom. Never shows the URL: it may hold a password.

use super::super::invalid_url;
use crate::{capability::Capability, failure::Failure, pattern::Pattern};
use zeroize::Zeroizing;

/// Where to connect, and as whom. Not `Debug`: it holds a password.
pub(crate) struct Address {
    /// For the grant, the journal and messages.
    pub(crate) pattern: Pattern,
    /// As in the URL, lower case; an IPv6 address has its brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Option<Zeroizing<String>>,
    pub(crate) database: String,
    pub(crate) tls: bool,
}

impl Address {
    /// Parses what follows `postgresql://`.
    ///
    /// TLS is spoken, and the certificate checked, unless `sslmode=disable` says no or the host is this machine: a mode
    /// that tries and falls back protects nobody.
    ///
    /// # Errors
    /// `sql.url`.
    pub(crate) fn parse(rest: &str) -> Result<Self, Failure> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, database) = rest
            .split_once('/')
            .ok_or_else(|| invalid_url("the database is missing"))?;
        let (login, place) = place.rsplit_once('@').unwrap_or(("", place));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(decode(password)?)),
            None => (login, None),
        };
        if user.is_empty() {
            return Err(invalid_url("the user is missing"));
        }
        let database = decode(database)?;
        let pattern = Pattern::parse(
            Capability::Sql,
            &format!("postgresql://{place}/{}", database.as_str()),
        )
        .map_err(|error| invalid_url(error.problem))?;
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().unwrap_or(5432)),
            _ => (place, 5432),
        };
        let host = host.to_ascii_lowercase();
        let is_here = matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]");
        Ok(Self {
            tls: wants_tls(query)?.unwrap_or(!is_here),
            pattern,
            host,
            port,
            user: decode(user)?.to_string(),
            password,
            database: database.to_string(),
        })
    }
}

fn wants_tls(query: &str) -> Result<Option<bool>, Failure> {
    let mut wanted = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        wanted = match pair {
            "sslmode=disable" => Some(false),
            "sslmode=require" | "sslmode=verify-full" => Some(true),
            _ => {
                return Err(invalid_url(
                    "behind `?` only sslmode=disable, sslmode=require and sslmode=verify-full are known",
                ));
            }
        };
    }
    Ok(wanted)
}

fn decode(text: &str) -> Result<Zeroizing<String>, Failure> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| invalid_url("a `%` is not followed by two hexadecimal digits"))?);
        rest = rest.get(2..).unwrap_or_default();
    }
    let decoded = String::from_utf8(std::mem::take(&mut *bytes));
    decoded
        .map(Zeroizing::new)
        .map_err(|_| invalid_url("an encoded part is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |rest: &str, expected: Option<(&str, &str, &str, bool)>| {
            let parsed = Address::parse(rest).ok();
            let shown = parsed.map(|address| {
                let password = address.password.map(|password| password.to_string());
                (
                    address.pattern.to_string(),
                    address.user,
                    password.unwrap_or_default(),
                    address.tls,
                )
            });
            let expected = expected.map(|(pattern, user, password, tls)| {
                (pattern.to_string(), user.to_string(), password.to_string(), tls)
            });
            assert_eq!(shown, expected, "{rest}");
        };
        check(
            "me:p%40s@DB:5433/app",
            Some(("postgresql://db:5433/app", "me", "p@s", true)),
        );
        check(
            "me@localhost/app",
            Some(("postgresql://localhost/app", "me", "", false)),
        );
        check(
            "me:a@b@db/app?sslmode=disable",
            Some(("postgresql://db/app", "me", "a@b", false)),
        );
        check(
            "me@[::1]:5/app?sslmode=require",
            Some(("postgresql://[::1]:5/app", "me", "", true)),
        );
        check("db/app", None);
        check("me@db", None);
        check("me@db/", None);
        check("me@db/app?sslmode=prefer", None);
        check("me@db/app?host=other", None);
        check("me:%4@db/app", None);
        check("me@db:0/app", None);
        check("me@one,two/app", None);
    }
}
