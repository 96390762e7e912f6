//! `windlass:sql/database`: connections to SQLite and PostgreSQL, reads and transactions as JSON text.
//!
//! A URL becomes a place, the place is checked against the grants, and only then opened. Every transaction is an effect,
//! except in the attempt's own `/tmp`: what is there is gone with the attempt, so no later attempt may rely on it.

mod file;
mod options;
mod postgres;
mod rows;
mod sqlite;

use super::{
    State,
    effect::Effects,
    egress::Connector,
    files::Mounts,
    patience::Patience,
    secret::{Place, Secrets},
};
use crate::{
    capability::{Capability, Leaves},
    failure::{Failure, Turn},
    grant::Granter,
    pattern::{Mode, Pattern},
    wit::{GuestError, windlass::sql::database},
};
pub(crate) use file::DatabaseFile;
use options::Options;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::{collections::HashMap, os::fd::OwnedFd, sync::Arc, time::Duration};
use wasmtime::component::{HasSelf, Linker, Resource};
use zeroize::Zeroizing;

/// The longest statement, label or key list that is looked at: as the WIT says for JSON texts, and as much for SQL.
const LONGEST_TEXT: usize = 4 << 20;

/// What opening a database needs of an attempt.
pub(crate) struct Opener {
    pub(crate) granter: Granter,
    pub(crate) mounts: Arc<Mounts>,
    pub(crate) effects: Arc<Effects>,
    pub(crate) secrets: Option<Arc<Secrets>>,
    pub(crate) connector: Option<Arc<Connector>>,
    pub(crate) patience: Patience,
}

/// A guest's connection.
pub struct Connection {
    /// The URL without user, password and query: what the journal and messages say.
    name: String,
    read_only: bool,
    backend: Backend,
    /// Nothing of a scratch database outlives the attempt: not an effect.
    effects: Option<Arc<Effects>>,
    patience: Patience,
}

enum Backend {
    Sqlite {
        database: sqlite::Database,
        file: DatabaseFile,
        locks: HashMap<String, OwnedFd>,
    },
    Postgres(postgres::Session),
}

impl Opener {
    fn of(state: &State) -> Self {
        Self {
            granter: state.granter.clone(),
            mounts: state.mounts.clone(),
            effects: state.effects.clone(),
            secrets: state.services.secrets.clone(),
            connector: state.services.connector.clone(),
            patience: Patience::of(&state.context),
        }
    }

    /// # Errors
    /// `sql.options`, `sql.url`, `grant.denied`, and those of the database.
    pub(crate) async fn open(self, url: &str, options: &str) -> Result<Connection, Failure> {
        let options = Options::parse(options)?;
        let url = match &self.secrets {
            Some(secrets) => secrets.swap(&self.granter, url, Place::Local)?,
            None => Zeroizing::new(url.to_string()),
        };
        match url.split_once("://") {
            Some(("sqlite", path)) => self.open_sqlite(path, &options).await,
            Some(("postgresql" | "postgres", rest)) => self.open_postgres(rest, &options).await,
            _ => Err(invalid_url("its scheme is not sqlite or postgresql")),
        }
    }

    async fn open_sqlite(self, path: &str, options: &Options) -> Result<Connection, Failure> {
        if path.contains(['?', '#']) {
            return Err(invalid_url("a SQLite URL has nothing behind the path"));
        }
        let name = format!("sqlite://{path}");
        let is_scratch = path.starts_with("/tmp/");
        if !is_scratch {
            let value = Pattern::parse(Capability::Sql, &name).map_err(|error| invalid_url(error.problem))?;
            self.granter.check(Capability::Sql, &value)?;
        }
        let mode = if options.read_only {
            Mode::ReadOnly
        } else {
            Mode::ReadWrite
        };
        let file = DatabaseFile::locate(&self.mounts, path, mode)?;
        let effects = (!is_scratch).then_some(self.effects);
        if options.create && !options.read_only && file.identity()?.is_none() {
            create(&name, &file, effects.as_deref()).await?;
        }
        let database = sqlite::Database::open(&file, options).await?;
        Ok(Connection {
            name,
            read_only: options.read_only,
            backend: Backend::Sqlite {
                database,
                file,
                locks: HashMap::new(),
            },
            effects,
            patience: self.patience,
        })
    }

    async fn open_postgres(self, rest: &str, options: &Options) -> Result<Connection, Failure> {
        let address = postgres::Address::parse(rest)?;
        let Some(connector) = &self.connector else {
            return Err(super::unequipped("sql"));
        };
        let opened = postgres::Session::open(&address, options, &self.granter, connector, &self.patience);
        Ok(Connection {
            backend: Backend::Postgres(opened.await?),
            name: address.pattern.to_string(),
            read_only: options.read_only,
            effects: Some(self.effects),
            patience: self.patience,
        })
    }
}

async fn create(name: &str, file: &DatabaseFile, effects: Option<&Effects>) -> Result<(), Failure> {
    let Some(effects) = effects else {
        return file.make();
    };
    let arguments = json!({ "database": name });
    let make = || async { file.make().map(|()| Json::Null) };
    effects
        .perform("sql.create", arguments, Leaves::Additive, make)
        .await?;
    Ok(())
}

impl Connection {
    /// # Errors
    /// `sql.options`, `sql.read-only`, `sql.too-large`, `sql.refused`, `sql.timeout`, `sql.failed`, `cancelled`.
    pub(crate) async fn query(&self, statement: String, parameters: &str) -> Result<Json, Failure> {
        check_length(statement.len())?;
        check_length(parameters.len())?;
        let parameters = options::parameters(parameters)?;
        match &self.backend {
            Backend::Sqlite { database, .. } => database.query(statement, parameters, &self.patience).await,
            Backend::Postgres(session) => session.query(&statement, parameters, &self.patience).await,
        }
    }

    /// # Errors
    /// As [`Connection::query`], `details.step` says in which step.
    pub(crate) async fn transact(&self, label: &str, steps: &str) -> Result<Json, Failure> {
        check_length(steps.len())?;
        options::check_label(label)?;
        let steps = options::steps(steps)?;
        if self.read_only {
            let message = format!("the connection to `{}` was opened read only", self.name);
            return Err(Failure::new(Turn::Plugin, "sql.read-only", message));
        }
        let leaves = options::leaves(&steps);
        let digest = Sha256::digest(serde_json::to_vec(&steps).expect("steps are plain values"));
        let arguments = json!({ "database": self.name, "label": label, "steps-sha256": hex::encode(digest) });
        let transact = || async {
            match &self.backend {
                Backend::Sqlite { database, .. } => database.transact(steps, &self.patience).await,
                Backend::Postgres(session) => session.transact(&steps, &self.patience).await,
            }
        };
        match &self.effects {
            Some(effects) => effects.perform("sql.transact", arguments, leaves, transact).await,
            None => transact().await,
        }
    }

    /// # Errors
    /// `sql.read-only`, `sql.failed`, `cancelled`.
    pub(crate) async fn lock(&mut self, key: &str, timeout: Duration) -> Result<bool, Failure> {
        check_length(key.len())?;
        match &mut self.backend {
            Backend::Sqlite { file, locks, .. } => {
                if locks.contains_key(key) {
                    return Ok(true);
                }
                let lock = file.lock(key, timeout, &self.patience).await?;
                let taken = lock.is_some();
                locks.extend(lock.map(|lock| (key.to_string(), lock)));
                Ok(taken)
            }
            Backend::Postgres(session) => session.lock(key, timeout, &self.patience).await,
        }
    }

    pub(crate) fn dialect(&self) -> &'static str {
        match &self.backend {
            Backend::Sqlite { .. } => "sqlite",
            Backend::Postgres(_) => "postgresql",
        }
    }
}

/// Adds to a failure in which step it was.
fn at_step(failure: Failure, step: usize) -> Failure {
    let mut details = match failure.details.clone() {
        Some(Json::Object(details)) => details,
        _ => serde_json::Map::new(),
    };
    details.insert("step".into(), step.into());
    failure.details(Json::Object(details))
}

/// Says what is wrong and never what the URL is: it may hold a password.
fn invalid_url(problem: &str) -> Failure {
    Failure::new(
        Turn::PipelineAuthor,
        "sql.url",
        format!("the database URL is not valid: {problem}"),
    )
    .help("write sqlite:///workspace/<path> or postgresql://<user>:<password>@<host>:<port>/<database>")
}

fn check_length(length: usize) -> Result<(), Failure> {
    if length > LONGEST_TEXT {
        let message = "a text for the database is longer than 4 MiB";
        return Err(Failure::new(Turn::Plugin, "sql.too-large", message));
    }
    Ok(())
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    database::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl database::Host for State {
    async fn open(
        &mut self,
        url: String,
        options: String,
    ) -> wasmtime::Result<Result<Resource<Connection>, GuestError>> {
        match Opener::of(self).open(&url, &options).await {
            Ok(connection) => Ok(Ok(self.table.push(connection)?)),
            Err(failure) => Ok(Err(failure.into())),
        }
    }
}

impl database::HostConnection for State {
    async fn query(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: String,
    ) -> wasmtime::Result<Result<String, GuestError>> {
        let connection = self.table.get(&connection)?;
        Ok(answer(connection.query(statement, &parameters).await))
    }

    async fn transact(
        &mut self,
        connection: Resource<Connection>,
        label: String,
        steps: String,
    ) -> wasmtime::Result<Result<String, GuestError>> {
        let connection = self.table.get(&connection)?;
        Ok(answer(connection.transact(&label, &steps).await))
    }

    async fn lock(
        &mut self,
        connection: Resource<Connection>,
        key: String,
        timeout_ms: u32,
    ) -> wasmtime::Result<Result<bool, GuestError>> {
        let connection = self.table.get_mut(&connection)?;
        let timeout = Duration::from_millis(timeout_ms.into());
        Ok(connection.lock(&key, timeout).await.map_err(GuestError::from))
    }

    async fn dialect(&mut self, connection: Resource<Connection>) -> wasmtime::Result<String> {
        Ok(self.table.get(&connection)?.dialect().into())
    }

    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

fn answer(outcome: Result<Json, Failure>) -> Result<String, GuestError> {
    outcome.map(|json| json.to_string()).map_err(GuestError::from)
}

#[cfg(test)]
mod tests;
