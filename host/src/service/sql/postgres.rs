//! One PostgreSQL session: connected through our connector, reads in read-only transactions, writes in one each.

mod address;
mod value;
mod words;

use super::{
    Patience,
    options::{Options, Step},
    rows::Rows,
};
use crate::{
    capability::Capability,
    failure::{Failure, Turn},
    grant::Granter,
    service::egress::{ConnectError, Connector, Destination, granted},
};
pub(crate) use address::Address;
use futures::StreamExt;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::{
    future::Future,
    pin::pin,
    time::{Duration, Instant},
};
use tokio::net::TcpStream;
use tokio_postgres::{
    Client, Config, Error, NoTls, SimpleQueryMessage, Statement,
    config::SslMode,
    error::{ErrorPosition, SqlState},
    tls::MakeTlsConnect,
    types::ToSql,
};
use tokio_util::task::AbortOnDropHandle;
use value::Parameter;

/// How often a lock is tried while another holds it.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);
/// How soon the server sees that we are gone, while a statement runs. Servers before 14 do not know the setting.
const WATCH_CLIENT: &str = "SET client_connection_check_interval = '2s'";

/// A session. Dropping it closes the connection, and with it the server releases transaction and locks.
pub(crate) struct Session {
    client: Client,
    /// Moves the bytes of the connection.
    _connection: AbortOnDropHandle<()>,
}

impl Session {
    /// # Errors
    /// `grant.denied`, `sql.unreachable`, `sql.authentication`, `sql.missing`, `sql.failed`.
    pub(crate) async fn open(
        address: &Address,
        options: &Options,
        granter: &Granter,
        connector: &Connector,
        patience: &Patience,
    ) -> Result<Self, Failure> {
        let destination = Destination {
            host: address.host.clone(),
            port: address.port,
            trust: granted(granter, Capability::Sql, &address.pattern)?,
        };
        let timeout = options.connect_timeout();
        let connect = async {
            let stream = connector.connect(&destination, timeout).await;
            let stream = stream.map_err(|error| unreachable(&error))?;
            let session = Self::start(address, stream, connector).await?;
            session.configure(options, patience).await?;
            Ok(session)
        };
        let connected = bounded(patience, tokio::time::timeout(timeout, connect)).await?;
        connected.unwrap_or_else(|_| {
            let message = format!("`{}` did not answer in time", address.pattern);
            Err(Failure::new(Turn::Environment, "sql.unreachable", message).retryable())
        })
    }

    async fn start(address: &Address, stream: TcpStream, connector: &Connector) -> Result<Self, Failure> {
        let mut config = Config::new();
        config
            .user(address.user.as_str())
            .dbname(address.database.as_str())
            .application_name("windlass");
        if let Some(password) = &address.password {
            config.password(password.as_bytes());
        }
        if !address.tls {
            config.ssl_mode(SslMode::Disable);
            let connected = config.connect_raw(stream, NoTls).await;
            return Self::run(connected.map_err(|error| unopened(address, &error))?);
        }
        config.ssl_mode(SslMode::Require);
        // What `origins:` says of the same host and port counts here too.
        let mut tls = (*connector.tls(&format!("https://{}:{}", address.host, address.port))?).clone();
        tls.alpn_protocols = Vec::new();
        let mut tls = tokio_postgres_rustls::MakeRustlsConnect::new(tls);
        let host = address.host.trim_matches(['[', ']']);
        let tls = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut tls, host)
            .map_err(|_| failure("the host of the URL is no name that a certificate can have"))?;
        let connected = config.connect_raw(stream, tls).await;
        Self::run(connected.map_err(|error| unopened(address, &error))?)
    }

    fn run<C>((client, connection): (Client, C)) -> Result<Self, Failure>
    where
        C: Future<Output = Result<(), Error>> + Send + 'static,
    {
        // Its error reaches the client too, in the call that meets it.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok(Self {
            client,
            _connection: AbortOnDropHandle::new(connection),
        })
    }

    async fn configure(&self, options: &Options, patience: &Patience) -> Result<(), Failure> {
        let left = patience
            .deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let statement = options.statement_timeout().or(left).map(milliseconds);
        let lock = milliseconds(options.lock_timeout());
        let set = "SELECT set_config('lock_timeout', $1, false), \
                   set_config('statement_timeout', coalesce($2, current_setting('statement_timeout')), false), \
                   set_config('search_path', coalesce($3, current_setting('search_path')), false), \
                   set_config('default_transaction_read_only', $4, false)";
        let read_only = if options.read_only { "on" } else { "off" };
        let configured = self
            .client
            .query(set, &[&lock, &statement, &options.search_path, &read_only])
            .await;
        configured.map_err(|error| failed(&error))?;
        // An older server only notices later that we are gone.
        let _ = self.client.batch_execute(WATCH_CLIENT).await;
        Ok(())
    }

    pub(crate) async fn query(
        &self,
        statement: &str,
        parameters: Vec<Json>,
        patience: &Patience,
    ) -> Result<Json, Failure> {
        let work = async {
            self.command("BEGIN READ ONLY").await?;
            let answer = self.read(statement, parameters).await;
            // After an error in the connection there is nothing to end.
            let _ = self.client.batch_execute("ROLLBACK").await;
            answer
        };
        bounded(patience, work).await?
    }

    async fn read(&self, statement: &str, parameters: Vec<Json>) -> Result<Json, Failure> {
        words::check(statement)?;
        let prepared = self.prepare(statement).await?;
        check_count(&prepared, parameters.len())?;
        let names = prepared.columns().iter().map(|column| column.name().to_string());
        let mut answer = Rows::new(names.collect());
        let readable = self.readable(statement, prepared).await?;
        let parameters: Vec<_> = parameters.into_iter().map(Parameter).collect();
        let rows = self.client.query_raw(&readable, &parameters).await;
        let mut rows = pin!(rows.map_err(|error| failed(&error))?);
        while let Some(row) = rows.next().await {
            let row = row.map_err(|error| failed(&error))?;
            answer.push(value::row(&row)?)?;
        }
        Ok(answer.into_json())
    }

    /// The same statement with those columns as text that have no JSON form of their own.
    async fn readable(&self, statement: &str, prepared: Statement) -> Result<Statement, Failure> {
        let Some(rewritten) = value::as_text(statement, &prepared) else {
            return Ok(prepared);
        };
        let again = self.client.prepare(&rewritten).await;
        again.map_err(|_| {
            let strange = prepared
                .columns()
                .iter()
                .find(|column| !value::is_plain(column.type_()));
            let (name, kind) = strange.map_or(("", ""), |column| (column.name(), column.type_().name()));
            let message = format!("the column `{name}` has the type `{kind}`, which has no JSON form");
            failure(&message).help(format!("ask for it as text: {name}::text"))
        })
    }

    pub(crate) async fn transact(&self, steps: &[Step], patience: &Patience) -> Result<Json, Failure> {
        for (index, step) in steps.iter().enumerate() {
            words::check(&step.sql).map_err(|failure| super::at_step(failure, index))?;
        }
        let work = async {
            self.command("BEGIN").await?;
            let outcome = self.steps(steps).await;
            if outcome.is_err() {
                let _ = self.client.batch_execute("ROLLBACK").await;
                return outcome;
            }
            self.command("COMMIT").await?;
            outcome
        };
        bounded(patience, work).await?
    }

    async fn steps(&self, steps: &[Step]) -> Result<Json, Failure> {
        let transaction = self.transaction().await?;
        let mut affected = Vec::with_capacity(steps.len());
        for (index, step) in steps.iter().enumerate() {
            let rows = self.step(step).await;
            affected.push(rows.map_err(|failure| super::at_step(failure, index))?);
            // The words of the step were looked at; the server knows better.
            if self.transaction().await? != transaction {
                let message = "the step ended the transaction it ran in";
                return Err(super::at_step(failure(message), index));
            }
        }
        Ok(json!({ "rows-affected": affected }))
    }

    async fn step(&self, step: &Step) -> Result<u64, Failure> {
        if step.parameters.is_empty() {
            return self.script(&step.sql).await.map_err(|error| failed(&error));
        }
        let prepared = self.prepare(&step.sql).await?;
        check_count(&prepared, step.parameters.len())?;
        let parameters = step.parameters.iter().cloned().map(Parameter);
        let executed = self
            .client
            .execute_raw(&prepared, parameters.collect::<Vec<_>>())
            .await;
        executed.map_err(|error| failed(&error))
    }

    /// Runs statements whose rows nobody wants.
    async fn script(&self, sql: &str) -> Result<u64, Error> {
        let mut messages = pin!(self.client.simple_query_raw(sql).await?);
        let mut affected = 0;
        while let Some(message) = messages.next().await {
            if let SimpleQueryMessage::CommandComplete(rows) = message? {
                affected += rows;
            }
        }
        Ok(affected)
    }

    async fn transaction(&self) -> Result<String, Failure> {
        let asked = self.client.query_one("SELECT txid_current()::text", &[]).await;
        asked
            .and_then(|row| row.try_get(0))
            .map_err(|error| failed(&error))
    }

    async fn prepare(&self, statement: &str) -> Result<Statement, Failure> {
        let prepared = self.client.prepare(statement).await;
        prepared.map_err(|error| failed(&error))
    }

    async fn command(&self, statement: &str) -> Result<(), Failure> {
        let done = self.client.batch_execute(statement).await;
        done.map_err(|error| failed(&error))
    }

    /// Takes the advisory lock of `key`, which the server releases with the session.
    pub(crate) async fn lock(
        &self,
        key: &str,
        timeout: Duration,
        patience: &Patience,
    ) -> Result<bool, Failure> {
        let digest = Sha256::digest(key);
        let number = digest
            .iter()
            .take(8)
            .fold(0_i64, |number, byte| (number << 8) | i64::from(*byte));
        let until = Instant::now() + timeout;
        loop {
            let try_lock = "SELECT pg_try_advisory_lock($1)";
            let parameters: [&(dyn ToSql + Sync); 1] = [&number];
            let asked = self.client.query_one(try_lock, &parameters);
            let taken = bounded(patience, asked).await?.and_then(|row| row.try_get(0));
            if taken.map_err(|error| failed(&error))? {
                return Ok(true);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            patience.sleep(left.min(LOCK_INTERVAL)).await?;
        }
    }
}

/// Ends with patience: the attempt is over then, and its connection with it.
async fn bounded<T>(patience: &Patience, work: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::select! {
        biased;
        failure = patience.ended() => Err(failure),
        done = work => Ok(done),
    }
}

fn milliseconds(duration: Duration) -> String {
    // 0 would mean none at all; more than the server can count is as good as the most it can.
    duration.as_millis().clamp(1, i32::MAX as u128).to_string()
}

fn check_count(statement: &Statement, given: usize) -> Result<(), Failure> {
    let wanted = statement.params().len();
    if wanted == given {
        return Ok(());
    }
    Err(failure(&format!(
        "the statement takes {wanted} parameters, and {given} are given"
    )))
}

fn unreachable(error: &ConnectError) -> Failure {
    error.failure("sql.unreachable")
}

/// Why a session did not start.
fn unopened(address: &Address, error: &Error) -> Failure {
    let place = &address.pattern;
    let Some(answer) = error.as_db_error() else {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        let message = format!("`{place}`: {}", cause.unwrap_or_else(|| error.to_string()));
        let failure = Failure::new(Turn::Environment, "sql.unreachable", message).retryable();
        return if address.tls {
            failure.help(
                "if the server speaks no TLS and the network is trusted, add `?sslmode=disable` to the URL",
            )
        } else {
            failure
        };
    };
    let (turn, code) = match answer.code().code() {
        "3D000" => (Turn::PipelineAuthor, "sql.missing"),
        state if state.starts_with("28") => (Turn::Operator, "sql.authentication"),
        _ => (Turn::Environment, "sql.unreachable"),
    };
    let failure = Failure::new(turn, code, format!("`{place}`: {}", answer.message()));
    let failure = failure.details(json!({ "sqlstate": answer.code().code() }));
    if code == "sql.unreachable" {
        failure.retryable()
    } else {
        failure
    }
}

/// The server's own words.
fn failed(error: &Error) -> Failure {
    let Some(answer) = error.as_db_error() else {
        if error.is_closed() {
            let message = "the connection to the database was lost";
            return Failure::new(Turn::Environment, "sql.unreachable", message).retryable();
        }
        let cause = std::error::Error::source(error).map(ToString::to_string);
        return failure(&cause.unwrap_or_else(|| error.to_string()));
    };
    let state = answer.code();
    let mut message = answer.message().to_string();
    if let Some(detail) = answer.detail() {
        message = format!("{message} ({detail})");
    }
    let mut details = json!({ "sqlstate": state.code() });
    if let Some(ErrorPosition::Original(position)) = answer.position() {
        details["position"] = (*position).into();
    }
    let code = match *state {
        SqlState::READ_ONLY_SQL_TRANSACTION => "sql.read-only",
        SqlState::QUERY_CANCELED => "sql.timeout",
        _ => "sql.failed",
    };
    let may_pass = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ];
    let mut failure = Failure::new(Turn::PipelineAuthor, code, message).details(details);
    failure.retryable = may_pass.contains(state);
    failure.help = answer.hint().map(String::from);
    failure
}

fn failure(message: &str) -> Failure {
    Failure::new(Turn::PipelineAuthor, "sql.failed", message)
}

#[cfg(test)]
mod tests;
