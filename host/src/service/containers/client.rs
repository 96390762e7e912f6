//! The container engine: where it is, one connection for the run, and its errors in our words.

use crate::failure::{Failure, Turn};
use bollard::{API_DEFAULT_VERSION, Docker, errors::Error};
use std::path::{Path, PathBuf};
use tokio::sync::OnceCell;

/// Where the engine is when nobody says otherwise.
const DEFAULT_SOCKET: &str = "unix:///var/run/docker.sock";
/// Seconds until an answer has begun. What takes longer streams.
const TIMEOUT: u64 = 120;

/// Where an engine listens, as `DOCKER_HOST` and its companions say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    /// The directory of `ca.pem`, `cert.pem` and `key.pem`, where TLS is spoken.
    certificates: Option<PathBuf>,
}

/// One engine. Nothing is connected before the first call.
pub struct Engine {
    address: Address,
    docker: OnceCell<Docker>,
}

impl Address {
    /// From `DOCKER_HOST`, `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`; else Docker's socket, else Podman's of this user where only that is there.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let host = given("DOCKER_HOST").unwrap_or_else(|| {
            let podman = given("XDG_RUNTIME_DIR").map(|directory| format!("{directory}/podman/podman.sock"));
            let is_there = |path: &str| Path::new(path).exists();
            match podman {
                Some(podman) if !is_there("/var/run/docker.sock") && is_there(&podman) => {
                    format!("unix://{podman}")
                }
                _ => DEFAULT_SOCKET.into(),
            }
        });
        let certificates = given("DOCKER_TLS_VERIFY").map(|_| {
            let home = || given("HOME").map(|home| format!("{home}/.docker"));
            PathBuf::from(given("DOCKER_CERT_PATH").or_else(home).unwrap_or_default())
        });
        Self { host, certificates }
    }
}

impl Engine {
    pub fn new(address: Address) -> Self {
        Self {
            address,
            docker: OnceCell::new(),
        }
    }

    /// Its address, as `DOCKER_HOST` has it.
    pub(super) fn host(&self) -> &str {
        &self.address.host
    }

    /// The connection, with the version that both sides know.
    ///
    /// # Errors
    /// `engine.address`, `engine.unreachable`.
    pub async fn docker(&self) -> Result<&Docker, Failure> {
        self.docker
            .get_or_try_init(|| async {
                let docker = self.connect()?;
                docker
                    .negotiate_version()
                    .await
                    .map_err(|error| self.unreachable(&error.to_string()))
            })
            .await
    }

    fn connect(&self) -> Result<Docker, Failure> {
        let Address { host, certificates } = &self.address;
        let connected = match (host.split_once("://"), certificates) {
            (Some(("unix", path)), _) => Docker::connect_with_unix(path, TIMEOUT, API_DEFAULT_VERSION),
            (Some(("tcp" | "https", _)), Some(directory)) => Docker::connect_with_ssl(
                host,
                &pem(directory, "key"),
                &pem(directory, "cert"),
                &pem(directory, "ca"),
                TIMEOUT,
                API_DEFAULT_VERSION,
            ),
            (Some(("tcp" | "http", _)), None) => {
                Docker::connect_with_http(host, TIMEOUT, API_DEFAULT_VERSION)
            }
            _ => {
                let message =
                    format!("DOCKER_HOST is `{host}`, and this is no address of a container engine");
                let failure = Failure::new(Turn::Operator, "engine.address", message);
                return Err(failure.help("write unix:///path/of/docker.sock or tcp://host:2376"));
            }
        };
        connected.map_err(|error| self.unreachable(&error.to_string()))
    }

    fn unreachable(&self, problem: &str) -> Failure {
        let message = format!(
            "the container engine at {} cannot be reached: {problem}",
            self.address.host
        );
        Failure::new(Turn::Environment, "engine.unreachable", message)
            .retryable()
            .help("start it, or set DOCKER_HOST; `windlass doctor` looks whether it answers")
    }

    /// An error of the client, told from what was asked of the engine: `doing` completes "cannot …".
    pub(super) fn failure(&self, doing: &str, error: &Error) -> Failure {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                let message = format!(
                    "cannot {doing}: the engine answers {status_code}: {}",
                    message.trim()
                );
                Failure::new(Turn::Environment, "engine.failed", message)
                    .details(serde_json::json!({ "status": status_code }))
            }
            Error::DockerStreamError { error } => {
                let message = format!("cannot {doing}: {}", error.trim());
                Failure::new(Turn::Environment, "engine.failed", message)
            }
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => {
                let message = format!("cannot {doing}: the engine's answer is not understood: {error}");
                Failure::new(Turn::Environment, "engine.failed", message)
            }
            _ => self.unreachable(&format!("while it was asked to {doing}: {error}")),
        }
    }
}

/// As Docker names the files of its certificates.
fn pem(directory: &Path, name: &str) -> PathBuf {
    directory.join(name).with_extension("pem")
}

/// The status of an answer that says no.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let address = |pairs: &[(&str, &str)]| {
            let find = |name: &str| {
                pairs
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| value.to_string())
            };
            let address = Address::from_variables(find);
            (address.host, address.certificates)
        };
        assert_eq!(address(&[]), (DEFAULT_SOCKET.into(), None));
        assert_eq!(address(&[("DOCKER_HOST", "")]), (DEFAULT_SOCKET.into(), None));
        let tls = [
            ("DOCKER_HOST", "tcp://h:2376"),
            ("DOCKER_TLS_VERIFY", "1"),
            ("HOME", "/home/a"),
        ];
        assert_eq!(
            address(&tls),
            ("tcp://h:2376".into(), Some("/home/a/.docker".into()))
        );
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_says_where_it_was_looked_for() {
        for (host, code) in [
            ("unix:///nowhere/x.sock", "engine.unreachable"),
            ("nonsense", "engine.address"),
        ] {
            let find = |name: &str| (name == "DOCKER_HOST").then(|| host.to_string());
            let engine = Engine::new(Address::from_variables(find));
            let failure = engine.docker().await.expect_err("nothing is there");
            assert_eq!(failure.code, code);
            assert!(failure.message.contains(host), "{}", failure.message);
            assert!(failure.help.is_some());
        }
    }
}
