//! What SQLite asks while it prepares and runs a guest's statements: may it, should it go on, does it wait for a lock.

use crate::{
    failure::{Failure, Turn},
    service::sql::Patience,
};
use rusqlite::{
    Connection,
    hooks::{AuthAction, AuthContext, Authorization},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Instructions between two looks at the clock: about ten thousand looks a second.
const INSTRUCTIONS: i32 = 1_000;
/// Between two tries to get a lock of another connection.
const BUSY_INTERVAL: Duration = Duration::from_millis(10);

/// Pragmas that only tell something, or that belong to the transaction and the file: the rest would change how this
/// connection works under us.
const PRAGMAS: &[&str] = &[
    "application_id",
    "collation_list",
    "compile_options",
    "data_version",
    "database_list",
    "defer_foreign_keys",
    "foreign_key_check",
    "foreign_key_list",
    "freelist_count",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "legacy_alter_table",
    "module_list",
    "page_count",
    "page_size",
    "pragma_list",
    "quick_check",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version",
];
/// Pragmas that may be asked and not set.
const ASKED: &[&str] = &[
    "auto_vacuum",
    "encoding",
    "foreign_keys",
    "journal_mode",
    "schema_version",
    "synchronous",
];

/// Shared by the handlers of one connection.
#[derive(Clone)]
pub(crate) struct Guard(Arc<Mutex<Watch>>);

struct Watch {
    patience: Patience,
    statement_until: Option<Instant>,
    lock_timeout: Duration,
    waiting_since: Instant,
    phase: Phase,
    /// Why the authorizer said no, last.
    refused: Option<String>,
}

/// Whose statement runs.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Guest,
    /// Our own BEGIN.
    Beginning,
    /// Our own COMMIT or ROLLBACK, which nothing interrupts.
    Ending,
}

impl Guard {
    /// Puts the handlers in place.
    pub(crate) fn install(connection: &mut Connection, lock_timeout: Duration) -> rusqlite::Result<Self> {
        let guard = Self(Arc::new(Mutex::new(Watch {
            patience: Patience::default(),
            statement_until: None,
            lock_timeout,
            waiting_since: Instant::now(),
            phase: Phase::Guest,
            refused: None,
        })));
        let (progress, busy, authorizer) = (guard.clone(), guard.clone(), guard.clone());
        connection.progress_handler(INSTRUCTIONS, Some(move || progress.watch().is_over()))?;
        connection.busy_handler(Some(move |tries| busy.wait(tries)))?;
        connection.authorizer(Some(move |context: AuthContext<'_>| {
            authorizer.watch().authorize(&context.action)
        }))?;
        Ok(guard)
    }

    /// A new call of the guest.
    pub(crate) fn start(&self, patience: Patience) {
        let mut watch = self.watch();
        watch.patience = patience;
        watch.statement_until = None;
        watch.refused = None;
    }

    /// The next statement of the call.
    pub(crate) fn start_statement(&self, timeout: Option<Duration>) {
        self.watch().statement_until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    }

    /// Runs our own statement, which the guest may not.
    pub(crate) fn begin<T>(&self, statement: impl FnOnce() -> T) -> T {
        self.own(Phase::Beginning, statement)
    }

    /// As [`Guard::begin`], for what must not be stopped half way.
    pub(crate) fn end<T>(&self, statement: impl FnOnce() -> T) -> T {
        self.own(Phase::Ending, statement)
    }

    /// Why a statement was stopped or refused, where that was done here.
    pub(crate) fn reason(&self, interrupted: bool) -> Option<Failure> {
        let mut watch = self.watch();
        if let Some(refused) = watch.refused.take() {
            return Some(Failure::new(Turn::PipelineAuthor, "sql.refused", refused));
        }
        if !interrupted {
            return None;
        }
        let timeout = || {
            let message = "the statement took longer than its timeout, and was stopped";
            Failure::new(Turn::Environment, "sql.timeout", message).help("raise `statement-timeout`")
        };
        Some(watch.patience.over().unwrap_or_else(timeout))
    }

    fn own<T>(&self, phase: Phase, statement: impl FnOnce() -> T) -> T {
        self.watch().phase = phase;
        let outcome = statement();
        self.watch().phase = Phase::Guest;
        outcome
    }

    /// Whether SQLite should try again. Sleeps without holding the watch.
    fn wait(&self, tries: i32) -> bool {
        let mut watch = self.watch();
        if tries == 0 {
            watch.waiting_since = Instant::now();
        }
        let goes_on = watch.waiting_since.elapsed() < watch.lock_timeout && !watch.is_over();
        drop(watch);
        if goes_on {
            std::thread::sleep(BUSY_INTERVAL);
        }
        goes_on
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    fn is_over(&self) -> bool {
        let late = self.statement_until.is_some_and(|until| until <= Instant::now());
        self.phase != Phase::Ending && (late || self.patience.over().is_some())
    }

    fn authorize(&mut self, action: &AuthAction<'_>) -> Authorization {
        match self.objection(action) {
            None => Authorization::Allow,
            Some(objection) => {
                self.refused = Some(objection);
                Authorization::Deny
            }
        }
    }

    fn objection(&self, action: &AuthAction<'_>) -> Option<String> {
        match action {
            AuthAction::Attach { .. } | AuthAction::Detach { .. } => Some(
                "ATTACH, DETACH and VACUUM INTO are refused: a connection reaches its own database only"
                    .into(),
            ),
            AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } if self.phase == Phase::Guest => {
                let transactions = "BEGIN, COMMIT, ROLLBACK, SAVEPOINT and RELEASE";
                Some(format!(
                    "{transactions} are refused: all steps are one transaction already"
                ))
            }
            AuthAction::Function { function_name }
                if function_name.eq_ignore_ascii_case("load_extension") =>
            {
                Some("load_extension is refused: it would run native code".into())
            }
            AuthAction::Pragma {
                pragma_name,
                pragma_value,
            } => objection_to_pragma(&pragma_name.to_ascii_lowercase(), pragma_value.is_some()),
            AuthAction::Unknown { code, .. } => Some(format!("an action unknown here is refused ({code})")),
            _ => None,
        }
    }
}

fn objection_to_pragma(name: &str, is_set: bool) -> Option<String> {
    if PRAGMAS.contains(&name) || (ASKED.contains(&name) && !is_set) {
        return None;
    }
    let hint = match name {
        "foreign_keys" => ": it has no effect inside a transaction; `PRAGMA defer_foreign_keys = on` has",
        _ => ": it would change how this connection works",
    };
    Some(format!("PRAGMA {name} is refused{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pragmas() {
        let check = |name: &str, is_set: bool, allowed: bool| {
            assert_eq!(objection_to_pragma(name, is_set).is_none(), allowed, "{name}");
        };
        check("table_info", true, true);
        check("user_version", true, true);
        check("journal_mode", false, true);
        check("journal_mode", true, false);
        check("foreign_keys", true, false);
        check("writable_schema", true, false);
        check("writable_schema", false, false);
        check("temp_store_directory", true, false);
        check("busy_timeout", true, false);
    }
}
