//! One SQLite database behind an async face: statements run on a blocking thread, one at a time.
//!
//! A call that is dropped or cancelled stops its statement at the next look of the [`Guard`]; a transaction that is
//! stopped is rolled back.

mod guard;

use super::{
    Patience, at_step,
    file::{DatabaseFile, unopened},
    options::{Options, Step},
    rows::{self, Rows},
};
use crate::failure::{Failure, Turn};
use guard::Guard;
use rusqlite::{
    Batch, Connection, ErrorCode, OpenFlags, Statement, config::DbConfig,
    fallible_iterator::FallibleIterator, limits::Limit, types::ValueRef,
};
use serde_json::{Value as Json, json};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The longest text or blob: what a guest computes (`randomblob`, `printf`) must not fill the host's memory, and what real
/// tables hold must still pass through.
const LONGEST_VALUE: i32 = 64 << 20;

/// An open database.
pub(crate) struct Database {
    connection: Arc<Mutex<Connection>>,
    guard: Guard,
    statement_timeout: Option<Duration>,
}

impl Database {
    /// Opens a file that is there.
    ///
    /// # Errors
    /// `sql.missing`, `sql.refused`, `sql.failed`.
    pub(crate) async fn open(file: &DatabaseFile, options: &Options) -> Result<Self, Failure> {
        let (file, options) = (file.clone(), options.clone());
        let access = if options.read_only {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        } else {
            OpenFlags::SQLITE_OPEN_READ_WRITE
        };
        let opened = blocking(move || {
            let mut connection = file.connect(access)?;
            let guard = prepare(&mut connection, &options).map_err(|error| unopened(&error))?;
            Ok((connection, guard, options.statement_timeout()))
        });
        let (connection, guard, statement_timeout) = opened.await?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            guard,
            statement_timeout,
        })
    }

    pub(crate) async fn query(
        &self,
        statement: String,
        parameters: Vec<Json>,
        patience: &Patience,
    ) -> Result<Json, Failure> {
        let work = move |call: Call<'_>| call.query(&statement, &parameters);
        self.call(patience, work).await
    }

    pub(crate) async fn transact(&self, steps: Vec<Step>, patience: &Patience) -> Result<Json, Failure> {
        self.call(patience, move |call: Call<'_>| call.transact(&steps))
            .await
    }

    /// Runs `work` on a blocking thread. Dropping the future stops the work, which then ends by itself.
    async fn call<T: Send + 'static>(
        &self,
        patience: &Patience,
        work: impl FnOnce(Call<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (patience, _stop) = patience.until_dropped();
        let (connection, guard) = (self.connection.clone(), self.guard.clone());
        let statement_timeout = self.statement_timeout;
        blocking(move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            guard.start(patience);
            work(Call {
                connection: &connection,
                guard: &guard,
                statement_timeout,
            })
        })
        .await
    }
}

/// What no guest may loosen. Then the handlers, so that nothing of the guest's ever runs without them.
fn prepare(connection: &mut Connection, options: &Options) -> rusqlite::Result<Guard> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, LONGEST_VALUE)?;
    Guard::install(connection, options.lock_timeout())
}

/// One call of the guest, on the blocking thread.
struct Call<'a> {
    connection: &'a Connection,
    guard: &'a Guard,
    statement_timeout: Option<Duration>,
}

impl Call<'_> {
    fn query(&self, statement: &str, parameters: &[Json]) -> Result<Json, Failure> {
        self.guard.start_statement(self.statement_timeout);
        let mut batch = Batch::new(self.connection, statement);
        let first = batch.next().map_err(|error| self.failed(error, statement))?;
        let mut prepared = first.ok_or_else(|| failure("there is no statement in the query"))?;
        if !matches!(batch.next(), Ok(None)) {
            return Err(failure("a query is one statement, and this is more"));
        }
        if !prepared.readonly() {
            let message = "a query only reads, and this statement writes";
            let failure = Failure::new(Turn::Plugin, "sql.read-only", message);
            return Err(failure.help("the plugin has to write through `transact`"));
        }
        bind(&mut prepared, parameters).map_err(|error| error.into_failure(self, statement))?;
        let columns = prepared.column_names().map(String::from).collect();
        let width = prepared.column_count();
        let mut answer = Rows::new(columns);
        let mut rows = prepared.raw_query();
        while let Some(row) = rows.next().map_err(|error| self.failed(error, statement))? {
            let value = |column| row.get_ref(column).map(json_value);
            let values: Result<_, _> = (0..width).map(value).collect();
            answer.push(values.map_err(|error| self.failed(error, statement))?)?;
        }
        Ok(answer.into_json())
    }

    fn transact(&self, steps: &[Step]) -> Result<Json, Failure> {
        let begun = self
            .guard
            .begin(|| self.connection.execute_batch("BEGIN IMMEDIATE"));
        begun.map_err(|error| self.failed(error, ""))?;
        let outcome = self.steps(steps).and_then(|affected| {
            let committed = self.guard.end(|| self.connection.execute_batch("COMMIT"));
            committed.map_err(|error| self.failed(error, ""))?;
            Ok(json!({ "rows-affected": affected }))
        });
        if outcome.is_err() && !self.connection.is_autocommit() {
            // Where even that fails, closing the connection rolls back.
            let _ = self.guard.end(|| self.connection.execute_batch("ROLLBACK"));
        }
        outcome
    }

    fn steps(&self, steps: &[Step]) -> Result<Vec<u64>, Failure> {
        let step = |(index, step)| self.step(step).map_err(|failure| at_step(failure, index));
        steps.iter().enumerate().map(step).collect()
    }

    /// All statements of one step; returns how many rows they wrote.
    fn step(&self, step: &Step) -> Result<u64, Failure> {
        let mut batch = Batch::new(self.connection, &step.sql);
        let mut affected = 0;
        let mut statements = 0;
        loop {
            self.guard.start_statement(self.statement_timeout);
            let next = batch.next().map_err(|error| self.failed(error, &step.sql))?;
            let Some(mut statement) = next else {
                return Ok(affected);
            };
            statements += 1;
            if statements > 1 && !step.parameters.is_empty() {
                return Err(failure(
                    "a step with parameters is one statement, and this is more",
                ));
            }
            bind(&mut statement, &step.parameters).map_err(|error| error.into_failure(self, &step.sql))?;
            affected += self
                .run(&mut statement)
                .map_err(|error| self.failed(error, &step.sql))?;
        }
    }

    fn run(&self, statement: &mut Statement<'_>) -> rusqlite::Result<u64> {
        // `changes` keeps its value through statements that write no row.
        let before = self.connection.total_changes();
        let mut rows = statement.raw_query();
        while rows.next()?.is_some() {}
        drop(rows);
        let wrote = self.connection.total_changes() != before;
        Ok(if wrote { self.connection.changes() } else { 0 })
    }

    /// The database's own words, or why it was stopped. `text` is what was prepared, to say where in it.
    fn failed(&self, error: rusqlite::Error, text: &str) -> Failure {
        let interrupted = error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted);
        let busy = matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        );
        if let Some(reason) = self
            .guard
            .reason(interrupted || busy)
            .filter(|reason| !busy || reason.code != "sql.timeout")
        {
            return reason;
        }
        if busy {
            let failure = failure("the database is locked by another connection").retryable();
            return failure.help("wait for it, or raise `lock-timeout`");
        }
        explain(error, text)
    }
}

/// Why parameters cannot be bound.
enum BindError {
    Count { wanted: usize, given: usize },
    Number,
    Sqlite(rusqlite::Error),
}

impl BindError {
    fn into_failure(self, call: &Call<'_>, text: &str) -> Failure {
        match self {
            Self::Count { wanted, given } => failure(&format!(
                "the statement takes {wanted} parameters, and {given} are given"
            )),
            Self::Number => failure("a number is larger than SQLite's integers, which have 64 bits"),
            Self::Sqlite(error) => call.failed(error, text),
        }
    }
}

fn bind(statement: &mut Statement<'_>, parameters: &[Json]) -> Result<(), BindError> {
    let (wanted, given) = (statement.parameter_count(), parameters.len());
    if wanted != given {
        return Err(BindError::Count { wanted, given });
    }
    for (index, parameter) in parameters.iter().enumerate() {
        let index = index + 1;
        match parameter {
            Json::Null => statement.raw_bind_parameter(index, rusqlite::types::Null),
            Json::Bool(value) => statement.raw_bind_parameter(index, value),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) => statement.raw_bind_parameter(index, integer),
                (None, Some(float)) if !number.is_u64() => statement.raw_bind_parameter(index, float),
                _ => return Err(BindError::Number),
            },
            Json::String(text) => statement.raw_bind_parameter(index, text),
            // SQLite's JSON functions take text.
            Json::Array(_) | Json::Object(_) => statement.raw_bind_parameter(index, parameter.to_string()),
        }
        .map_err(BindError::Sqlite)?;
    }
    Ok(())
}

fn json_value(value: ValueRef<'_>) -> Json {
    match value {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(value) => value.into(),
        ValueRef::Real(value) => rows::float(value),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(blob) => rows::bytes(blob),
    }
}

fn explain(error: rusqlite::Error, text: &str) -> Failure {
    match error {
        rusqlite::Error::SqlInputError { msg, sql, offset, .. } => {
            let position = position(text, &sql, offset);
            failure(&msg).details(json!({ "position": position }))
        }
        rusqlite::Error::SqliteFailure(error, message) => match error.code {
            ErrorCode::NotADatabase => {
                failure("the file is no SQLite database").help("is it the right file, or is it encrypted?")
            }
            _ => failure(&message.unwrap_or_else(|| error.to_string())),
        },
        other => failure(&other.to_string()),
    }
}

/// The character of `text`, from 1, at `offset` bytes into `tail`, which is its end.
fn position(text: &str, tail: &str, offset: i32) -> usize {
    let start = if text.ends_with(tail) {
        text.len() - tail.len()
    } else {
        0
    };
    let bytes = start + usize::try_from(offset).unwrap_or(0);
    let before = text.get(..bytes).unwrap_or_default();
    before.chars().count() + 1
}

fn failure(message: &str) -> Failure {
    Failure::new(Turn::PipelineAuthor, "sql.failed", message)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| {
        let message = format!("the thread of a database ended early: {error}");
        Err(Failure::new(Turn::Windlass, "internal.sql", message))
    })
}
