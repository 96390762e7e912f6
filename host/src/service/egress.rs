//! The one way to a network: http, tcp and sql all connect here.
//!
//! A name is resolved once, its addresses are filtered, and exactly those that passed are dialled, in their order:
//! what was checked is what is connected to. Nothing here knows grants or protocols.

mod address;
mod tls;

pub use address::{Kind, Trust, canonical, kind, permits};

use crate::{
    capability::Capability,
    failure::{Failure, Turn},
    grant::Granter,
    pattern::{Host, Pattern},
    pipeline::model::Origin,
};
use futures::future::BoxFuture;
use indexmap::IndexMap;
use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::TlsConnector;

/// No connection waits longer, whatever a guest asks for.
pub const LONGEST_CONNECT: Duration = Duration::from_secs(60);

/// How names become addresses.
pub trait Resolver: Send + Sync {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The operating system's.
pub struct SystemResolver;

/// Dials, for all stages of a run.
pub struct Connector {
    resolver: Arc<dyn Resolver>,
    /// By canonical origin, `https://host` or `https://host:port`.
    origins: HashMap<String, Route>,
    /// The system's authorities take milliseconds to read: only when the first connection needs them.
    tls: OnceLock<Arc<ClientConfig>>,
}

/// What an entry of `origins:` says.
struct Route {
    connect: Option<(String, u16)>,
    ca: Option<PathBuf>,
    tls: OnceLock<Arc<ClientConfig>>,
}

/// Where to, and how exactly the grant names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub host: String,
    pub port: u16,
    pub trust: Trust,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the name `{host}` has no address: {problem}")]
    Unresolved { host: String, problem: String },
    #[error("`{host}` is at {address}, which is {what}, and the grant does not allow that")]
    Prohibited {
        host: String,
        address: IpAddr,
        what: &'static str,
    },
    #[error("{address} refuses connections")]
    Refused { address: SocketAddr },
    #[error("{address} cannot be reached: {problem}")]
    Unreachable { address: SocketAddr, problem: String },
    #[error("`{host}:{port}` did not answer within {seconds} s")]
    TimedOut { host: String, port: u16, seconds: f32 },
}

/// A connection that HTTP can be spoken over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why there is no connection to an origin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// What `origins:` says of its authority.
    #[error("{}", .0.message)]
    Authority(Failure),
    #[error("`{0}` is no name that a certificate could have")]
    Name(String),
    #[error("the certificate of `{origin}` is not trusted: {problem}")]
    Untrusted { origin: String, problem: String },
    #[error("`{origin}` does not speak TLS as it should: {problem}")]
    Tls { origin: String, problem: String },
}

impl Connector {
    /// `origins` as in the pipeline file, its paths relative to `root`.
    ///
    /// # Errors
    /// `origin.connect`, `origin.name`: an entry is not valid.
    pub fn new(
        origins: &IndexMap<String, Origin>,
        root: &Path,
        resolver: Arc<dyn Resolver>,
    ) -> Result<Self, Failure> {
        let routes = origins.iter().map(|(name, origin)| route(name, origin, root));
        Ok(Self {
            resolver,
            origins: routes.collect::<Result<_, _>>()?,
            tls: OnceLock::new(),
        })
    }

    /// Where a request to `origin` has to be sent: `destination`, or where `origins:` says.
    pub fn route(&self, origin: &str, destination: Destination) -> Destination {
        let connect = self.origins.get(origin).and_then(|route| route.connect.as_ref());
        match connect {
            None => destination,
            // The pipeline's author named this host, as exactly as a grant would.
            Some((host, port)) => Destination {
                trust: trust_of(host),
                host: host.clone(),
                port: *port,
            },
        }
    }

    /// TLS as it is to be spoken with `origin`.
    ///
    /// # Errors
    /// `origin.ca`.
    pub fn tls(&self, origin: &str) -> Result<Arc<ClientConfig>, Failure> {
        let route = self.origins.get(origin).filter(|route| route.ca.is_some());
        let (cell, ca) = match route {
            Some(route) => (&route.tls, route.ca.as_deref()),
            None => (&self.tls, None),
        };
        if let Some(config) = cell.get() {
            return Ok(config.clone());
        }
        let config = tls::client(ca)?;
        Ok(cell.get_or_init(|| config).clone())
    }

    /// Connects to an origin, or where `origins:` says, within `timeout`, and speaks TLS where it is `is_tls`.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        &self,
        origin: &str,
        is_tls: bool,
        to: &Destination,
        timeout: Duration,
    ) -> Result<Box<dyn Stream>, OpenError> {
        let opening = async {
            let stream = self.connect(&self.route(origin, to.clone()), timeout).await?;
            match is_tls {
                true => self.secured(origin, to, stream).await,
                false => Ok(Box::new(stream) as Box<dyn Stream>),
            }
        };
        let opened = tokio::time::timeout(timeout.min(LONGEST_CONNECT), opening).await;
        opened.unwrap_or_else(|_| Err(OpenError::Connect(timed_out(to, timeout))))
    }

    async fn secured(
        &self,
        origin: &str,
        to: &Destination,
        stream: TcpStream,
    ) -> Result<Box<dyn Stream>, OpenError> {
        let config = self.tls(origin).map_err(OpenError::Authority)?;
        // The name that was asked for is the name that the certificate has to have.
        let host = to.host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_string()).map_err(|_| OpenError::Name(host.into()))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        Ok(Box::new(stream.map_err(|error| not_secured(origin, &error))?))
    }

    /// Connects within `timeout` (at most [`LONGEST_CONNECT`]).
    ///
    /// # Errors
    /// See [`ConnectError`]; of several addresses the first one's.
    pub async fn connect(&self, to: &Destination, timeout: Duration) -> Result<TcpStream, ConnectError> {
        let timeout = timeout.min(LONGEST_CONNECT);
        let deadline = Instant::now() + timeout;
        let timed_out = || timed_out(to, timeout);
        let resolved = tokio::time::timeout_at(deadline, self.addresses(to)).await;
        let addresses = resolved.map_err(|_| timed_out())??;
        let mut first = None;
        for (index, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            // A dead address must not use up the time of those behind it.
            let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
            match dial(*address, share).await {
                Ok(Some(stream)) => return Ok(stream),
                Ok(None) => first = first.or_else(|| Some(timed_out())),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(timed_out))
    }

    /// The addresses that may be dialled.
    async fn addresses(&self, to: &Destination) -> Result<Vec<SocketAddr>, ConnectError> {
        let found = match literal(&to.host) {
            Some(address) => vec![address],
            None => self
                .resolver
                .resolve(&to.host)
                .await
                .map_err(|error| unresolved(&to.host, &error.to_string()))?,
        };
        let (permitted, refused): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|address| permits(to.trust, *address));
        match (permitted.is_empty(), refused.first()) {
            (false, _) => Ok(permitted
                .into_iter()
                .map(|address| SocketAddr::new(plain(address), to.port))
                .collect()),
            (true, None) => Err(unresolved(&to.host, "the look-up gave none")),
            (true, Some(address)) => Err(ConnectError::Prohibited {
                host: to.host.clone(),
                address: *address,
                what: describe(kind(*address)),
            }),
        }
    }
}

/// Asks the granter for `value` and says how exactly the rule names its host.
///
/// # Errors
/// `grant.denied`.
pub fn granted(granter: &Granter, capability: Capability, value: &Pattern) -> Result<Trust, Failure> {
    granter.check(capability, value)?;
    let entry = granter.grant().covering(capability, value);
    Ok(match entry.and_then(|entry| host_of(&entry.pattern)) {
        Some(Host::Exact(host)) => trust_of(host),
        Some(Host::Below(_)) | None => Trust::Below,
    })
}

fn host_of(pattern: &Pattern) -> Option<&Host> {
    match pattern {
        Pattern::Origin { host, .. } | Pattern::HostPort { host, .. } => Some(host),
        Pattern::Sql { host, .. } => host.as_ref(),
        _ => None,
    }
}

/// Of a host that a person has named exactly.
pub(crate) fn trust_of(host: &str) -> Trust {
    literal(host).map_or(Trust::Named, Trust::Literal)
}

/// The address, where a host is one. An IPv6 address may have brackets.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// An address as it is dialled: an IPv4 address in IPv6 clothes goes out as itself.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// `None`: out of time.
async fn dial(address: SocketAddr, timeout: Duration) -> Result<Option<TcpStream>, ConnectError> {
    match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        Err(_) => Ok(None),
        Ok(Ok(stream)) => {
            // Small requests must not wait for a full packet; where it cannot be set, they are only slower.
            let _ = stream.set_nodelay(true);
            Ok(Some(stream))
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(ConnectError::Refused { address })
        }
        Ok(Err(error)) => Err(ConnectError::Unreachable {
            address,
            problem: error.to_string(),
        }),
    }
}

fn timed_out(to: &Destination, timeout: Duration) -> ConnectError {
    ConnectError::TimedOut {
        host: to.host.clone(),
        port: to.port,
        seconds: timeout.min(LONGEST_CONNECT).as_secs_f32(),
    }
}

fn not_secured(origin: &str, error: &io::Error) -> OpenError {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let (origin, problem) = (origin.to_string(), error.to_string());
    match inner {
        Some(rustls::Error::InvalidCertificate(_)) => OpenError::Untrusted { origin, problem },
        _ => OpenError::Tls { origin, problem },
    }
}

fn unresolved(host: &str, problem: &str) -> ConnectError {
    ConnectError::Unresolved {
        host: host.into(),
        problem: problem.into(),
    }
}

fn describe(kind: Kind) -> &'static str {
    match kind {
        Kind::Public => "public",
        Kind::Loopback => "this machine (a grant of `*.` never reaches it)",
        Kind::Private => "in a private network (a grant of `*.` never reaches it)",
        Kind::LinkLocal => "link-local (it has to be granted by its address)",
        Kind::Metadata => "a cloud's metadata service (it has to be granted by its address)",
        Kind::Unusable => "not an address of one host",
    }
}

fn route(name: &str, origin: &Origin, root: &Path) -> Result<(String, Route), Failure> {
    let refused = |code: &str, problem: String| Failure::new(Turn::PipelineAuthor, code, problem);
    let pattern = Pattern::parse(Capability::Http, name)
        .map_err(|error| refused("origin.name", format!("`origins:` has `{name}`: {error}")))?;
    let connect = origin.connect.as_deref().map(|place| {
        let pattern = Pattern::parse(Capability::Tcp, place);
        match pattern {
            Ok(Pattern::HostPort {
                host: Host::Exact(host),
                port,
            }) => Ok((host, port)),
            _ => Err(refused(
                "origin.connect",
                format!("`connect: {place}` of `{name}` is not `host:port`"),
            )),
        }
    });
    let route = Route {
        connect: connect.transpose()?,
        ca: origin.ca.as_ref().map(|path| root.join(path)),
        tls: OnceLock::new(),
    };
    Ok((pattern.to_string(), route))
}

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

impl ConnectError {
    /// The same for a person. `code` is the service's word for "cannot be reached".
    pub fn failure(&self, code: &str) -> Failure {
        match self {
            Self::Prohibited { host, .. } => {
                Failure::new(Turn::PipelineAuthor, "grant.denied", self.to_string()).help(format!(
                    "grant `{host}` by its exact name, or its address, if that is meant"
                ))
            }
            _ => Failure::new(Turn::Environment, code, self.to_string()).retryable(),
        }
    }
}

impl OpenError {
    /// As [`ConnectError::failure`].
    pub fn failure(&self, code: &str) -> Failure {
        match self {
            Self::Connect(error) => error.failure(code),
            Self::Authority(failure) => failure.clone(),
            Self::Untrusted { origin, .. } => Failure::new(Turn::Operator, "http.tls", self.to_string())
                .help(format!(
                    "for a private authority add under `origins:`: \"{origin}\": {{ ca: path/to/ca.pem }}"
                )),
            Self::Name(_) | Self::Tls { .. } => Failure::new(Turn::Environment, code, self.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Names(Vec<(&'static str, Vec<&'static str>)>);

    impl Resolver for Names {
        fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
            let found = self.0.iter().find(|(name, _)| *name == host);
            let found = found.map(|(_, list)| {
                list.iter()
                    .map(|text| text.parse().expect("an address"))
                    .collect()
            });
            Box::pin(async move { found.ok_or_else(|| io::Error::other("no such name")) })
        }
    }

    fn connector(origins: &[(&str, &str)]) -> Connector {
        let names = vec![
            ("local", vec!["127.0.0.1"]),
            ("rebinding", vec!["169.254.169.254", "127.0.0.1"]),
            ("metadata", vec!["169.254.169.254"]),
            ("nothing", vec![]),
        ];
        let origins = origins.iter().map(|(name, connect)| {
            let origin = Origin {
                connect: Some(connect.to_string()),
                ca: None,
            };
            (name.to_string(), origin)
        });
        Connector::new(&origins.collect(), Path::new("/"), Arc::new(Names(names))).expect("valid")
    }

    /// What is dialled, or why nothing is.
    async fn check(host: &str, trust: Trust, expected: &str) {
        let to = Destination {
            host: host.into(),
            port: 80,
            trust,
        };
        let shown = match connector(&[]).addresses(&to).await {
            Ok(addresses) => addresses
                .iter()
                .map(SocketAddr::to_string)
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.to_string(),
        };
        assert!(shown.starts_with(expected), "{host}: {shown}");
    }

    #[tokio::test]
    async fn only_addresses_that_passed_are_dialled() {
        check("local", Trust::Named, "127.0.0.1:80").await;
        check(
            "local",
            Trust::Below,
            "`local` is at 127.0.0.1, which is this machine",
        )
        .await;
        check("rebinding", Trust::Named, "127.0.0.1:80").await;
        check(
            "metadata",
            Trust::Named,
            "`metadata` is at 169.254.169.254, which is a cloud's",
        )
        .await;
        check(
            "169.254.169.254",
            trust_of("169.254.169.254"),
            "169.254.169.254:80",
        )
        .await;
        check(
            "[::ffff:127.0.0.1]",
            trust_of("[::ffff:127.0.0.1]"),
            "127.0.0.1:80",
        )
        .await;
        check("nothing", Trust::Named, "the name `nothing` has no address").await;
        check(
            "absent",
            Trust::Named,
            "the name `absent` has no address: no such name",
        )
        .await;
    }

    #[tokio::test]
    async fn origins_say_where_to_connect() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback");
        let place = listener.local_addr().expect("bound");
        let connector = connector(&[("https://Web.example.com:443", &place.to_string())]);
        let destination = Destination {
            host: "web.example.com".into(),
            port: 443,
            trust: Trust::Named,
        };
        let routed = connector.route("https://web.example.com", destination.clone());
        assert_eq!(routed.port, place.port());
        let stream = connector
            .connect(&routed, Duration::from_secs(5))
            .await
            .expect("connects");
        assert_eq!(stream.peer_addr().expect("connected"), place);
        assert_eq!(
            connector.route("http://web.example.com", destination.clone()),
            destination
        );
        drop(listener);
        let refused = connector
            .connect(&routed, Duration::from_secs(5))
            .await
            .expect_err("closed");
        assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
    }
}
