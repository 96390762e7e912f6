//! What a capability is granted for: patterns over values, and the one relation between them, [`Pattern::covers`].
//!
//! A single value is a pattern without wildcards, so the same relation decides a call (grant covers value), the approval
//! (grant covers need) and the ceiling (policy covers grant). Nothing here knows files, networks or policies.

pub mod image;

use crate::capability::Capability;
use std::fmt;

/// Read only, or read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    ReadOnly,
    ReadWrite,
}

/// A pattern of one capability, parsed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    Origin {
        scheme: String,
        host: Host,
        port: u16,
    },
    HostPort {
        host: Host,
        port: u16,
    },
    Files {
        mode: Mode,
        path: String,
    },
    Name(String),
    Sql {
        scheme: String,
        host: Option<Host>,
        port: Option<u16>,
        database: String,
    },
    Process {
        words: Vec<String>,
    },
    Glob(String),
    /// A bucket, or what is below a prefix of it, which is empty or whole parts of a key.
    Object {
        bucket: String,
        prefix: String,
    },
    /// An image: the parts of its name, and, where it is about them, its tag and digest.
    Image {
        name: String,
        tag: Option<String>,
        digest: Option<String>,
    },
    /// A service, network or volume of a compose project; without a project, of any.
    Service {
        project: Option<String>,
        service: String,
    },
    /// A volume by name, or a guest path with all below it.
    Mount {
        mode: Mode,
        source: String,
    },
    /// `None`: any port, also one that the engine chooses.
    Publish {
        address: String,
        port: Option<u16>,
        is_udp: bool,
    },
}

/// A host: exact, or everything below a suffix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Exact(String),
    /// `*.example.com` holds `example.com`; it covers `a.example.com` and not `example.com`.
    Below(String),
}

/// Why a text is not a pattern of its capability.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a value of `{capability}`: {problem}; the form is {form}, for example {example}")]
pub struct PatternError {
    pub capability: Capability,
    pub text: String,
    pub problem: &'static str,
    pub form: &'static str,
    pub example: &'static str,
}

impl Pattern {
    /// # Errors
    /// The text is not of the capability's form. `files` has two parts: see [`Pattern::files`], or `<ro|rw> <path>` here.
    pub fn parse(capability: Capability, text: &str) -> Result<Self, PatternError> {
        let parsed = match capability {
            Capability::Http => parse_origin(text),
            Capability::Tcp => parse_host_port(text),
            Capability::Files => match text.split_once(' ') {
                Some((mode, path)) => parse_files(mode, path),
                None => Err("it needs `ro` or `rw`"),
            },
            Capability::SecretsUse | Capability::SecretsReveal | Capability::SecretsPut | Capability::Env => {
                parse_name(text)
            }
            Capability::Sql => parse_sql(text),
            Capability::Process => parse_process(text),
            Capability::ArtifactsRead => parse_parts(text, 2),
            Capability::ArtifactsWrite => parse_parts(text, 1),
            Capability::Objects => parse_object(text),
            Capability::ContainersBuild
            | Capability::ContainersPush
            | Capability::ContainersPull
            | Capability::ContainersRun => image::parse(text),
            Capability::ContainersExec | Capability::ContainersManage => parse_service(text),
            Capability::ContainersMount => parse_mount(text),
            Capability::ContainersPublish => parse_publish(text),
        };
        parsed.map_err(|problem| error(capability, text, problem))
    }

    /// A `files` pattern from its two parts.
    ///
    /// # Errors
    /// The mode is not `ro` or `rw`, or the path is not absolute and plain.
    pub fn files(mode: &str, path: &str) -> Result<Self, PatternError> {
        parse_files(mode, path)
            .map_err(|problem| error(Capability::Files, &format!("{path}: {mode}"), problem))
    }

    /// The value of a native program call.
    pub fn call(argv: &[String]) -> Self {
        Self::Process {
            words: argv.iter().map(|word| word.replace('*', "\u{fffd}")).collect(),
        }
    }

    /// Whether everything that `other` stands for, this stands for too. Patterns of different forms never cover each other.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Origin { scheme, host, port },
                Self::Origin {
                    scheme: s,
                    host: h,
                    port: p,
                },
            ) => scheme == s && port == p && host.covers(h),
            (Self::HostPort { host, port }, Self::HostPort { host: h, port: p }) => {
                port == p && host.covers(h)
            }
            (Self::Files { mode, path }, Self::Files { mode: m, path: p }) => mode >= m && is_below(path, p),
            (Self::Name(name), Self::Name(other)) => name == other,
            (
                Self::Sql {
                    scheme,
                    host,
                    port,
                    database,
                },
                Self::Sql {
                    scheme: s,
                    host: h,
                    port: p,
                    database: d,
                },
            ) => {
                let hosts = match (host, h) {
                    (None, None) => true,
                    (Some(host), Some(h)) => host.covers(h),
                    _ => false,
                };
                scheme == s && hosts && port == p && glob_covers(database, d)
            }
            (Self::Process { words }, Self::Process { words: other }) => words_cover(words, other),
            (Self::Glob(glob), Self::Glob(other)) => parts_cover(glob, other),
            (Self::Object { bucket, prefix }, Self::Object { bucket: b, prefix: p }) => {
                bucket == b && (prefix.is_empty() || is_below(prefix, p))
            }
            (
                Self::Image { name, tag, digest },
                Self::Image {
                    name: n,
                    tag: t,
                    digest: d,
                },
            ) => parts_cover(name, n) && part_covers(tag, t) && part_covers(digest, d),
            (
                Self::Service { project, service },
                Self::Service {
                    project: p,
                    service: s,
                },
            ) => part_covers(project, p) && glob_covers(service, s),
            (Self::Mount { mode, source }, Self::Mount { mode: m, source: s }) => {
                let is_covered = match source.starts_with('/') {
                    true => is_below(source, s),
                    false => !s.starts_with('/') && glob_covers(source, s),
                };
                mode >= m && is_covered
            }
            (
                Self::Publish {
                    address,
                    port,
                    is_udp,
                },
                Self::Publish {
                    address: a,
                    port: p,
                    is_udp: u,
                },
            ) => address == a && is_udp == u && (port.is_none() || port == p),
            _ => false,
        }
    }
}

impl Host {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let host = text.to_ascii_lowercase();
        if let Some(suffix) = host.strip_prefix("*.") {
            check_host(suffix)?;
            return Ok(Self::Below(suffix.to_string()));
        }
        check_host(&host)?;
        Ok(Self::Exact(host))
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(host), Self::Exact(other)) => host == other,
            (Self::Below(suffix), Self::Exact(host) | Self::Below(host)) => {
                let below = host
                    .strip_suffix(suffix.as_str())
                    .is_some_and(|rest| rest.ends_with('.'));
                below || (matches!(other, Self::Below(_)) && host == suffix)
            }
            (Self::Exact(_), Self::Below(_)) => false,
        }
    }
}

fn error(capability: Capability, text: &str, problem: &'static str) -> PatternError {
    let row = capability.row();
    let text = text.chars().take(200).collect();
    PatternError {
        capability,
        text,
        problem,
        form: row.form,
        example: row.example,
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(inner) = inner {
        return inner
            .parse::<std::net::Ipv6Addr>()
            .map(|_| ())
            .map_err(|_| "the address in brackets is not IPv6");
    }
    if host.is_empty() {
        return Err("the host is missing");
    }
    if host.contains('*') {
        return Err("`*` may only stand for whole labels at the start of a host, `*.example.com`");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if !host.bytes().all(allowed) || host.starts_with('.') || host.ends_with('.') || host.contains("..") {
        return Err("the host has a character that hosts cannot have");
    }
    Ok(())
}

/// Splits `host[:port]`; a bracketed IPv6 address keeps its brackets.
fn split_port(text: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port = port.map(|port| {
        port.parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or("the port is not 1 to 65535")
    });
    Ok((host, port.transpose()?))
}

fn parse_origin(text: &str) -> Result<Pattern, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("the scheme is missing")?;
    let scheme = scheme.to_ascii_lowercase();
    let default = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return Err("the scheme is neither http nor https"),
    };
    if rest.contains(['/', '?', '#', '@']) {
        return Err("an origin has no path, query or user");
    }
    let (host, port) = split_port(rest)?;
    Ok(Pattern::Origin {
        scheme,
        host: Host::parse(host)?,
        port: port.unwrap_or(default),
    })
}

fn parse_host_port(text: &str) -> Result<Pattern, &'static str> {
    let (host, port) = split_port(text)?;
    Ok(Pattern::HostPort {
        host: Host::parse(host)?,
        port: port.ok_or("the port is missing")?,
    })
}

fn parse_files(mode: &str, path: &str) -> Result<Pattern, &'static str> {
    let mode = match mode {
        "ro" => Mode::ReadOnly,
        "rw" => Mode::ReadWrite,
        _ => return Err("the mode is neither ro nor rw"),
    };
    let known = ["/workspace", "/mnt", "/tmp"]
        .iter()
        .any(|root| is_below(root, path));
    if !known {
        return Err("guest paths start with /workspace, /mnt/<directory> or /tmp");
    }
    if path.contains('*') {
        return Err("paths have no wildcards: a directory is granted with all below it");
    }
    if path
        .split('/')
        .skip(1)
        .any(|part| part.is_empty() || part == "." || part == "..")
    {
        return Err("the path is not plain (no `//`, `.`, `..` or `/` at the end)");
    }
    Ok(Pattern::Files {
        mode,
        path: path.to_string(),
    })
}

fn parse_name(text: &str) -> Result<Pattern, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err("names have letters, digits, `_`, `-` and `.` only, and no wildcards");
    }
    Ok(Pattern::Name(text.to_string()))
}

fn parse_sql(text: &str) -> Result<Pattern, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("the scheme is missing")?;
    match scheme {
        "sqlite" => {
            let Pattern::Files { path, .. } = parse_files("rw", rest)? else {
                return Err("it is not a guest path");
            };
            Ok(Pattern::Sql {
                scheme: "sqlite".into(),
                host: None,
                port: None,
                database: path,
            })
        }
        "postgresql" | "postgres" => {
            let (place, database) = rest.split_once('/').ok_or("the database is missing")?;
            if place.contains('@') || database.is_empty() || database.contains(['/', '?', '#']) {
                return Err("it has no user, query or further path");
            }
            let (host, port) = split_port(place)?;
            let host = Some(Host::parse(host)?);
            Ok(Pattern::Sql {
                scheme: "postgresql".into(),
                host,
                port: port.or(Some(5432)),
                database: database.into(),
            })
        }
        _ => Err("the scheme is neither sqlite nor postgresql"),
    }
}

fn parse_process(text: &str) -> Result<Pattern, &'static str> {
    let words: Vec<String> = text.split_whitespace().map(String::from).collect();
    let Some(program) = words.first() else {
        return Err("the program is missing");
    };
    if program.contains('*') {
        return Err("the program has no wildcards");
    }
    if words.iter().rev().skip(1).any(|word| word == "**") {
        return Err("`**` may only be the last word");
    }
    Ok(Pattern::Process { words })
}

fn parse_parts(text: &str, parts: usize) -> Result<Pattern, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*[]=,".contains(&byte);
    let found: Vec<&str> = text.split('/').collect();
    if found.len() != parts {
        return Err(if parts == 2 {
            "it takes the stage and the name, with one `/`"
        } else {
            "it takes a name without `/`"
        });
    }
    if found
        .iter()
        .any(|part| part.is_empty() || part.starts_with('.') || !part.bytes().all(allowed))
    {
        return Err("a part is empty or has a character that names cannot have");
    }
    Ok(Pattern::Glob(text.to_string()))
}

fn parse_object(text: &str) -> Result<Pattern, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("the scheme is missing")?;
    if scheme != "s3" {
        return Err("the scheme is not s3");
    }
    let (bucket, prefix) = match rest.split_once('/') {
        Some((bucket, prefix)) => (bucket, Some(prefix)),
        None => (rest, None),
    };
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(allowed) || bucket.starts_with(['.', '-']) {
        return Err("a bucket's name has 3 to 63 lower-case letters, digits, `-` and `.`");
    }
    let Some(prefix) = prefix else {
        let prefix = String::new();
        return Ok(Pattern::Object {
            bucket: bucket.into(),
            prefix,
        });
    };
    let plain = |letter: char| letter.is_alphanumeric() || "!-_.'()=+@,:&$;~ ".contains(letter);
    if !prefix.chars().all(|letter| letter == '/' || plain(letter)) {
        return Err("a key has letters, digits and !-_.'()=+@,:&$;~ only, and no wildcards");
    }
    if prefix.len() > 1_024 || prefix.split('/').any(|part| ["", ".", ".."].contains(&part)) {
        return Err("the prefix is not plain (no `//`, `.`, `..` or `/` at the end)");
    }
    Ok(Pattern::Object {
        bucket: bucket.into(),
        prefix: prefix.into(),
    })
}

fn parse_service(text: &str) -> Result<Pattern, &'static str> {
    let (project, service) = match text.split_once('/') {
        Some((project, service)) => (Some(project), service),
        None => (None, text),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*".contains(&byte);
    let is_name = |part: &str| !part.is_empty() && part.bytes().all(allowed);
    if !project.is_none_or(is_name) || !is_name(service) {
        return Err(
            "the project and the service have letters, digits, `_`, `-`, `.` and `*` only, with one `/` between them",
        );
    }
    Ok(Pattern::Service {
        project: project.map(String::from),
        service: service.into(),
    })
}

fn parse_mount(text: &str) -> Result<Pattern, &'static str> {
    let (source, mode) = text
        .rsplit_once(':')
        .ok_or("the mode, `:ro` or `:rw`, is missing")?;
    if source.starts_with('/') {
        let Pattern::Files { mode, path } = parse_files(mode, source)? else {
            return Err("it is not a guest path");
        };
        return Ok(Pattern::Mount { mode, source: path });
    }
    let mode = match mode {
        "ro" => Mode::ReadOnly,
        "rw" => Mode::ReadWrite,
        _ => return Err("the mode is neither ro nor rw"),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*".contains(&byte);
    if source.is_empty() || !source.bytes().all(allowed) {
        return Err("a volume's name has letters, digits, `_`, `-`, `.` and `*` only");
    }
    Ok(Pattern::Mount {
        mode,
        source: source.into(),
    })
}

fn parse_publish(text: &str) -> Result<Pattern, &'static str> {
    let (place, is_udp) = match text.split_once('/') {
        Some((place, "udp")) => (place, true),
        Some((place, "tcp")) => (place, false),
        Some(_) => return Err("the protocol is neither tcp nor udp"),
        None => (text, false),
    };
    let (address, port) = place.rsplit_once(':').ok_or("the port is missing")?;
    let inner = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address: std::net::IpAddr = inner
        .unwrap_or(address)
        .parse()
        .map_err(|_| "the address is not an IP address (0.0.0.0 is all of this machine's)")?;
    let port = match port {
        "*" => None,
        port => Some(
            port.parse::<u16>()
                .ok()
                .filter(|port| *port != 0)
                .ok_or("the port is neither 1 to 65535 nor `*`")?,
        ),
    };
    Ok(Pattern::Publish {
        address: address.to_string(),
        port,
        is_udp,
    })
}

/// A part that a pattern does not name may be anything; one that it names has to be there.
fn part_covers(part: &Option<String>, other: &Option<String>) -> bool {
    match (part, other) {
        (None, _) => true,
        (Some(part), Some(other)) => glob_covers(part, other),
        (Some(_), None) => false,
    }
}

fn is_below(directory: &str, path: &str) -> bool {
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn parts_cover(glob: &str, other: &str) -> bool {
    let (left, right): (Vec<_>, Vec<_>) = (glob.split('/').collect(), other.split('/').collect());
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .all(|(glob, other)| glob_covers(glob, other))
}

fn words_cover(words: &[String], other: &[String]) -> bool {
    match (words, other) {
        ([last], _) if last == "**" => true,
        ([], []) => true,
        ([word, words @ ..], [first, other @ ..]) => {
            first != "**" && glob_covers(word, first) && words_cover(words, other)
        }
        _ => false,
    }
}

/// Whether every text that `other` matches, `glob` matches. A `*` in `other` is a character that only a `*` can match.
fn glob_covers(glob: &str, other: &str) -> bool {
    let (glob, other) = (glob.as_bytes(), other.as_bytes());
    let (mut at, mut position) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while position < other.len() {
        if glob.get(at) == Some(&b'*') {
            retry = Some((at, position));
            at += 1;
        } else if glob.get(at) == other.get(position) && other[position] != b'*' {
            at += 1;
            position += 1;
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            at = star + 1;
            position = from + 1;
        } else {
            return false;
        }
    }
    glob[at.min(glob.len())..].iter().all(|byte| *byte == b'*')
}

/// As the pipeline file would have it.
impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Origin { scheme, host, port } => {
                let default = if scheme == "http" { 80 } else { 443 };
                write!(formatter, "{scheme}://{host}")?;
                if *port == default {
                    Ok(())
                } else {
                    write!(formatter, ":{port}")
                }
            }
            Self::HostPort { host, port } => write!(formatter, "{host}:{port}"),
            Self::Files { mode, path } => {
                write!(
                    formatter,
                    "{} {path}",
                    if *mode == Mode::ReadOnly { "ro" } else { "rw" }
                )
            }
            Self::Name(name) | Self::Glob(name) => formatter.write_str(name),
            Self::Sql {
                scheme,
                host,
                port,
                database,
            } => match host {
                None => write!(formatter, "{scheme}://{database}"),
                Some(host) => {
                    let port = port
                        .filter(|port| *port != 5432)
                        .map(|port| format!(":{port}"))
                        .unwrap_or_default();
                    write!(formatter, "{scheme}://{host}{port}/{database}")
                }
            },
            Self::Process { words } => formatter.write_str(&words.join(" ")),
            Self::Object { bucket, prefix } if prefix.is_empty() => write!(formatter, "s3://{bucket}"),
            Self::Object { bucket, prefix } => write!(formatter, "s3://{bucket}/{prefix}"),
            Self::Image { name, tag, digest } => {
                formatter.write_str(name)?;
                tag.iter().try_for_each(|tag| write!(formatter, ":{tag}"))?;
                digest
                    .iter()
                    .try_for_each(|digest| write!(formatter, "@{digest}"))
            }
            Self::Service { project, service } => {
                project
                    .iter()
                    .try_for_each(|project| write!(formatter, "{project}/"))?;
                formatter.write_str(service)
            }
            Self::Mount { mode, source } => {
                let mode = if *mode == Mode::ReadOnly { "ro" } else { "rw" };
                write!(formatter, "{source}:{mode}")
            }
            Self::Publish {
                address,
                port,
                is_udp,
            } => {
                let port = port.map_or("*".to_string(), |port| port.to_string());
                let protocol = if *is_udp { "/udp" } else { "" };
                match address.contains(':') {
                    true => write!(formatter, "[{address}]:{port}{protocol}"),
                    false => write!(formatter, "{address}:{port}{protocol}"),
                }
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => formatter.write_str(host),
            Self::Below(suffix) => write!(formatter, "*.{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Capability::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(capability: Capability, grant: &str, value: &str, covers: bool) {
        let grant = Pattern::parse(capability, grant).expect("the grant parses");
        let value = Pattern::parse(capability, value).expect("the value parses");
        assert_eq!(grant.covers(&value), covers, "{grant} covers {value}");
    }

    #[test]
    fn covering() {
        check(Http, "https://a.example.com", "https://A.example.com:443", true);
        check(Http, "https://a.example.com", "http://a.example.com:443", false);
        check(Http, "https://*.example.com", "https://a.b.example.com", true);
        check(Http, "https://*.example.com", "https://example.com", false);
        check(Http, "https://*.example.com", "https://badexample.com", false);
        check(Http, "https://*.example.com", "https://*.a.example.com", true);
        check(Http, "http://[::1]:80", "http://[::1]", true);
        check(Tcp, "db:5432", "db:5433", false);
        check(Files, "ro /workspace", "ro /workspace/a", true);
        check(Files, "ro /workspace", "rw /workspace/a", false);
        check(Files, "rw /workspace/a", "ro /workspace/a", true);
        check(Files, "rw /workspace/a", "ro /workspace/ab", false);
        check(SecretsUse, "db", "db", true);
        check(SecretsUse, "db", "db2", false);
        check(Sql, "sqlite:///workspace/a.db", "sqlite:///workspace/a.db", true);
        check(Sql, "postgres://db/app", "postgresql://db:5432/app", true);
        check(Sql, "postgresql://db/app*", "postgresql://db/app2", true);
        check(Sql, "postgresql://db/app", "postgresql://other/app", false);
        check(Process, "git rev-parse *", "git rev-parse HEAD", true);
        check(Process, "git rev-parse *", "git rev-parse HEAD x", false);
        check(Process, "git **", "git push --force", true);
        check(Process, "git rev-parse", "git **", false);
        check(ArtifactsRead, "build/*", "build/image.tar", true);
        check(ArtifactsRead, "*/image", "build/x", false);
        check(ArtifactsWrite, "image-*.tar", "image-a*.tar", true);
        check(ArtifactsWrite, "image-a.tar", "image-*.tar", false);
        check(Objects, "s3://backups", "s3://backups/team/a.zst", true);
        check(Objects, "s3://backups", "s3://backups", true);
        check(Objects, "s3://backups", "s3://backups-of-others/a", false);
        check(Objects, "s3://backups/team", "s3://backups/team", true);
        check(Objects, "s3://backups/team", "s3://backups/team/a b/ü.zst", true);
        check(
            Objects,
            "s3://backups/team",
            "s3://backups/team-of-others/a",
            false,
        );
        check(Objects, "s3://backups/team", "s3://backups/Team/a", false);
        check(Objects, "s3://backups/team", "s3://backups", false);
        check(Env, "APP_ENV", "APP_ENV", true);
        check(ContainersBuild, "team-*", "team-backend:1.0", true);
        check(ContainersBuild, "team-*", "registry/team-backend:1.0", false);
        check(
            ContainersPush,
            "127.0.0.1:5000/team-*",
            "127.0.0.1:5000/team-a:2",
            true,
        );
        check(
            ContainersPush,
            "127.0.0.1:5000/team-*",
            "127.0.0.1:5001/team-a:2",
            false,
        );
        check(ContainersRun, "*/team@*", "registry/team@sha256:ab", true);
        check(ContainersRun, "*/team@*", "registry/team:latest", false);
        check(ContainersRun, "postgres:15-*", "postgres:15-alpine", true);
        check(ContainersRun, "postgres:15-alpine", "postgres", false);
        check(ContainersPull, "library/*", "library/a/b", false);
        check(ContainersManage, "backend", "team/backend", true);
        check(ContainersManage, "team/*", "team/backend", true);
        check(ContainersManage, "team/*", "other/backend", false);
        check(ContainersManage, "team/*", "backend", false);
        check(ContainersExec, "postgres", "team/redis", false);
        check(ContainersMount, "team_*:rw", "team_data:ro", true);
        check(ContainersMount, "team_*:ro", "team_data:rw", false);
        check(
            ContainersMount,
            "/workspace/nginx:ro",
            "/workspace/nginx/nginx.conf:ro",
            true,
        );
        check(ContainersMount, "*:rw", "/workspace/nginx:ro", false);
        check(ContainersPublish, "0.0.0.0:443", "0.0.0.0:443", true);
        check(ContainersPublish, "127.0.0.1:443", "0.0.0.0:443", false);
        check(ContainersPublish, "0.0.0.0:*", "0.0.0.0:*", true);
        check(ContainersPublish, "0.0.0.0:53", "0.0.0.0:53/udp", false);
        check(ContainersPublish, "[::1]:80", "[0:0::1]:80/tcp", true);
    }

    #[test]
    fn malformed() {
        let check = |capability, text: &str| {
            let error = Pattern::parse(capability, text).expect_err(text).to_string();
            assert!(error.contains("for example"), "{error}");
        };
        for text in [
            "",
            "example.com",
            "ftp://a",
            "https://",
            "https://a/b",
            "https://u@a",
            "https://*",
            "https://a*.b",
            "https://a:0",
        ] {
            check(Http, text);
        }
        for text in ["db", "db:99999", ":1"] {
            check(Tcp, text);
        }
        for text in [
            "/workspace",
            "rx /workspace",
            "ro /etc",
            "ro /workspace/../x",
            "ro /workspace/",
            "ro workspace",
        ] {
            check(Files, text);
        }
        for text in ["", "*", "a b"] {
            check(SecretsUse, text);
        }
        for text in [
            "mysql://a/b",
            "sqlite://a",
            "postgresql://u:p@a/b",
            "postgresql://a",
        ] {
            check(Sql, text);
        }
        for text in ["", "* x", "git ** x"] {
            check(Process, text);
        }
        for text in [
            "backups",
            "gs://backups",
            "s3://",
            "s3://ab",
            "s3://Backups",
            "s3://backups/",
            "s3://backups/a/",
            "s3://backups//a",
            "s3://backups/../others",
            "s3://backups/a*",
            "s3://user@backups/a",
            "s3://backups/a?versionId=1",
            "s3://-backups",
        ] {
            check(Objects, text);
        }
        check(ArtifactsRead, "a");
        check(ArtifactsWrite, "a/b");
        for text in ["", "a//b", "a:", "a@", "a:b:c", "A b", "https://a/b", "a:b/"] {
            check(ContainersRun, text);
        }
        for text in ["", "a/", "/a", "a/b/c", "a b"] {
            check(ContainersManage, text);
        }
        for text in [
            "data",
            "data:rx",
            ":ro",
            "/etc:ro",
            "/workspace/../x:ro",
            "./a:ro",
        ] {
            check(ContainersMount, text);
        }
        for text in ["80", "host:80", "0.0.0.0:0", "0.0.0.0:x", "0.0.0.0:80/sctp"] {
            check(ContainersPublish, text);
        }
    }

    #[test]
    fn an_argument_with_a_star_is_no_wildcard() {
        let grant = Pattern::parse(Process, "echo a b").expect("valid");
        assert!(!grant.covers(&Pattern::call(&["echo".into(), "*".into(), "b".into()])));
        let any = Pattern::parse(Process, "echo *").expect("valid");
        assert!(any.covers(&Pattern::call(&["echo".into(), "two words *".into()])));
    }

    proptest! {
        #[test]
        fn a_glob_covers_itself_and_what_it_matches(glob in "[ab*]{0,8}", text in "[ab]{0,8}") {
            prop_assert!(glob_covers(&glob, &glob));
            // The oracle: a plain recursive matcher.
            fn matches(glob: &[u8], text: &[u8]) -> bool {
                match glob.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|at| matches(rest, &text[at..])),
                    Some((byte, rest)) => text.first() == Some(byte) && matches(rest, &text[1..]),
                }
            }
            prop_assert_eq!(glob_covers(&glob, &text), matches(glob.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn parsing_never_panics_and_shows_what_parses_again(text in ".{0,40}") {
            for row in crate::capability::TABLE {
                if let Ok(pattern) = Pattern::parse(row.capability, &text) {
                    prop_assert_eq!(Pattern::parse(row.capability, &pattern.to_string()), Ok(pattern));
                }
            }
        }
    }
}
