//! `windlass:tcp/probe`: whether something listens. Connects, and closes at once.

use super::{
    State,
    egress::{ConnectError, Connector, Destination, granted},
};
use crate::{
    capability::Capability,
    failure::{Failure, Turn},
    grant::Granter,
    pattern::Pattern,
    wit::{GuestError, windlass::tcp::probe},
};
use std::time::{Duration, Instant};
use wasmtime::component::{HasSelf, Linker};

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    probe::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl probe::Host for State {
    async fn connect(
        &mut self,
        host: String,
        port: u16,
        timeout_ms: u32,
    ) -> wasmtime::Result<Result<u32, GuestError>> {
        let timeout = Duration::from_millis(timeout_ms.into());
        let connector = match self.connector() {
            Ok(connector) => connector.clone(),
            Err(failure) => return Ok(Err(failure.into())),
        };
        let took = connect(&self.granter.clone(), &connector, &host, port, timeout).await;
        Ok(took.map_err(GuestError::from))
    }
}

/// The milliseconds until the connection stood.
async fn connect(
    granter: &Granter,
    connector: &Connector,
    host: &str,
    port: u16,
    timeout: Duration,
) -> Result<u32, Failure> {
    let value = Pattern::parse(Capability::Tcp, &format!("{host}:{port}"))
        .map_err(|error| Failure::new(Turn::Plugin, "tcp.address", error.to_string()))?;
    let destination = Destination {
        host: host.to_ascii_lowercase(),
        port,
        trust: granted(granter, Capability::Tcp, &value)?,
    };
    let started = Instant::now();
    let stream = connector.connect(&destination, timeout).await;
    drop(stream.map_err(|error| error.failure(code(&error)))?);
    Ok(u32::try_from(started.elapsed().as_millis()).unwrap_or(u32::MAX))
}

fn code(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Unresolved { .. } => "tcp.unresolved",
        ConnectError::TimedOut { .. } => "tcp.timeout",
        ConnectError::Prohibited { .. } => "grant.denied",
        ConnectError::Refused { .. } | ConnectError::Unreachable { .. } => "tcp.refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        grant::{Decision, DecisionLog, StageGrant, stage_grant::Entry},
        name::StageName,
        service::egress::SystemResolver,
    };
    use indexmap::IndexMap;
    use std::{path::Path, sync::Arc};
    use tokio::net::TcpListener;

    struct NoDecisions;

    impl DecisionLog for NoDecisions {
        fn record(&self, _decision: &Decision) {}
    }

    async fn check(granted: &str, host: &str, port: u16, expected: Option<&str>) {
        let entry = Entry {
            capability: Capability::Tcp,
            pattern: Pattern::parse(Capability::Tcp, granted).expect("valid"),
            rule: "a.yaml:1:1".into(),
        };
        let stage = StageName::new("check").expect("valid");
        let grant = StageGrant::new(stage, "health-check".into(), vec![entry]);
        let granter = Granter::new(Arc::new(grant), Arc::new(NoDecisions));
        let connector =
            Connector::new(&IndexMap::new(), Path::new("/"), Arc::new(SystemResolver)).expect("valid");
        let took = connect(&granter, &connector, host, port, Duration::from_secs(5)).await;
        assert_eq!(
            took.err().map(|failure| failure.code).as_deref(),
            expected,
            "{host}:{port}"
        );
    }

    #[tokio::test]
    async fn ports() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let granted = format!("127.0.0.1:{port}");
        check(&granted, "127.0.0.1", port, None).await;
        check(&granted, "127.0.0.1", 1, Some("grant.denied")).await;
        check(&granted, "no host", port, Some("tcp.address")).await;
        drop(listener);
        check(&granted, "127.0.0.1", port, Some("tcp.refused")).await;
    }
}
