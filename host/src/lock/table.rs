//! The rows of the locks and of those who wait, in the journal's database. Each change is one transaction that first reads what
//! it changes, so two processes never both believe that they took a lock.

use super::{
    lease::{self, Death, Holder, Row, Standing},
    world::{System, World},
};
use crate::{
    failure::Failure,
    journal::{
        SqliteStore,
        store::{Fence, StoreError},
    },
};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// A lock as `windlass lock show` has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Lock {
    pub group: String,
    pub token: i64,
    pub standing: Standing,
    /// Who waits, in order.
    pub waiting: Vec<Arc<Holder>>,
}

/// What became of `windlass lock release`.
#[derive(Clone, Debug, PartialEq)]
pub enum Released {
    /// There was nothing to release.
    WasFree,
    Done,
    /// It may be alive, and nobody said `--force`.
    Refused(Standing),
}

/// Who wants a lock.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// Random, one for each acquisition.
    pub(crate) owner: String,
    pub(crate) holder: Holder,
    pub(crate) length: Duration,
}

/// What the table says to a candidate.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Taken {
        fence: Fence,
        until: Duration,
        /// From whom it was taken, where it was not free.
        from: Option<(Arc<Holder>, Death)>,
    },
    Blocked(Obstacle),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Obstacle {
    Lock(Standing),
    /// The lock is free, but others have waited longer.
    Queue {
        ahead: usize,
        next: Arc<Holder>,
    },
}

/// One connection to the locks of a state directory.
pub(crate) struct Table {
    connection: Connection,
    path: PathBuf,
    world: Arc<dyn World>,
}

/// All locks of a state directory, by name. Changes nothing.
///
/// # Errors
/// The database cannot be read.
pub fn show(state: &Path) -> Result<Vec<Lock>, Failure> {
    match SqliteStore::open_for_reading(state)? {
        None => Ok(Vec::new()),
        Some(store) => Table::new(store, state, Arc::new(System::new())).locks(),
    }
}

/// Gives a lock back in its holder's place. The token grows, so a holder that is alive after all is shut out.
///
/// # Errors
/// The database cannot be written.
pub fn release(state: &Path, group: &str, force: bool) -> Result<Released, Failure> {
    Table::open(state, Arc::new(System::new()))?.release(group, force)
}

impl Table {
    pub(crate) fn open(state: &Path, world: Arc<dyn World>) -> Result<Self, Failure> {
        Ok(Self::new(SqliteStore::open(state)?, state, world))
    }

    fn new(store: SqliteStore, state: &Path, world: Arc<dyn World>) -> Self {
        Self {
            connection: store.into_connection(),
            path: SqliteStore::path_in(state),
            world,
        }
    }

    pub(crate) fn world(&self) -> Arc<dyn World> {
        self.world.clone()
    }

    /// From now on commits are not forced to disk: right for heartbeats, which mean nothing after a crash of the machine.
    pub(crate) fn without_sync(&mut self) -> Result<(), Failure> {
        let set = self.connection.pragma_update(None, "synchronous", "NORMAL");
        set.map_err(|error| self.explain(&error))
    }

    /// Takes the lock if it is free or its holder dead, and nobody has waited longer. Otherwise, with `stay`, the candidate is
    /// in the queue from now on and stays there for so long, unless it asks again.
    pub(crate) fn take(
        &mut self,
        group: &str,
        candidate: &Candidate,
        stay: Option<Duration>,
    ) -> Result<Answer, Failure> {
        let world = self.world.clone();
        self.change(|transaction| take(transaction, world.as_ref(), group, candidate, stay))
    }

    /// Moves the end of a lease; `false` when the lock was given away.
    pub(crate) fn renew(&mut self, fence: &Fence, until: Duration) -> Result<bool, Failure> {
        self.change(|transaction| {
            let changed = transaction
                .prepare_cached("UPDATE lock SET until = ?4 WHERE name = ?1 AND token = ?2 AND owner = ?3")?
                .execute(params![
                    fence.group,
                    fence.token.cast_signed(),
                    fence.owner,
                    milliseconds(until)
                ])?;
            Ok(changed == 1)
        })
    }

    /// Gives back what the fence names, if it is still held.
    pub(crate) fn free(&mut self, fence: &Fence) -> Result<(), Failure> {
        self.change(|transaction| {
            transaction.execute(
                "UPDATE lock SET owner = NULL, holder = NULL, until = 0 WHERE name = ?1 AND token = ?2 AND owner = ?3",
                params![fence.group, fence.token.cast_signed(), fence.owner],
            )?;
            Ok(())
        })
    }

    /// Leaves the queue.
    pub(crate) fn leave(&mut self, owner: &str) -> Result<(), Failure> {
        self.change(|transaction| {
            transaction.execute("DELETE FROM waiter WHERE owner = ?1", [owner])?;
            Ok(())
        })
    }

    fn release(&mut self, group: &str, force: bool) -> Result<Released, Failure> {
        let world = self.world.clone();
        self.change(|transaction| {
            let Some(row) = select(transaction, group)? else {
                return Ok(Released::WasFree);
            };
            let standing = lease::standing(&row, world.as_ref());
            match standing {
                Standing::Free => return Ok(Released::WasFree),
                Standing::Dead { .. } => {}
                _ if force => {}
                standing => return Ok(Released::Refused(standing)),
            }
            transaction.execute(
                "UPDATE lock SET token = ?2, owner = NULL, holder = NULL, until = 0 WHERE name = ?1",
                params![group, row.token.max(0).saturating_add(1).min(i64::MAX - 1)],
            )?;
            Ok(Released::Done)
        })
    }

    fn locks(&mut self) -> Result<Vec<Lock>, Failure> {
        let world = self.world.clone();
        let read = read_all(&self.connection, world.as_ref());
        read.map_err(|error| self.explain(&error))
    }

    fn change<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Failure> {
        let result = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|transaction| {
                let result = work(&transaction)?;
                transaction.commit()?;
                Ok(result)
            });
        result.map_err(|error| self.explain(&error))
    }

    fn explain(&self, error: &rusqlite::Error) -> Failure {
        let path = self.path.clone();
        let problem = error.to_string();
        StoreError::Unusable { path, problem }.into()
    }
}

fn take(
    transaction: &Transaction<'_>,
    world: &dyn World,
    group: &str,
    candidate: &Candidate,
    stay: Option<Duration>,
) -> rusqlite::Result<Answer> {
    let now = world.now().since_boot;
    let row = select(transaction, group)?;
    let token = row.as_ref().map_or(0, |row| row.token);
    let standing = row.map_or(Standing::Free, |row| lease::standing(&row, world));
    let ahead = ahead_of(transaction, world, group, &candidate.owner)?;
    let from = match (standing, ahead.first()) {
        (Standing::Free, None) => None,
        (Standing::Dead { holder, death }, None) => Some((holder, death)),
        (Standing::Free | Standing::Dead { .. }, Some(next)) => {
            let (ahead, next) = (ahead.len(), next.clone());
            wait(transaction, group, candidate, stay.map(|stay| now + stay))?;
            return Ok(Answer::Blocked(Obstacle::Queue { ahead, next }));
        }
        (standing, _) => {
            wait(transaction, group, candidate, stay.map(|stay| now + stay))?;
            return Ok(Answer::Blocked(Obstacle::Lock(standing)));
        }
    };
    let until = now + candidate.length;
    transaction.execute("DELETE FROM waiter WHERE owner = ?1", [&candidate.owner])?;
    transaction.execute(
        "INSERT OR REPLACE INTO lock (name, token, owner, holder, until) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            group,
            token + 1,
            candidate.owner,
            text(&candidate.holder),
            milliseconds(until)
        ],
    )?;
    let fence = Fence {
        group: group.into(),
        token: (token + 1).cast_unsigned(),
        owner: candidate.owner.clone(),
    };
    Ok(Answer::Taken { fence, until, from })
}

/// Enters the queue, or stays in it at the same place.
fn wait(
    transaction: &Transaction<'_>,
    group: &str,
    candidate: &Candidate,
    until: Option<Duration>,
) -> rusqlite::Result<()> {
    let Some(until) = until.map(milliseconds) else {
        return Ok(());
    };
    let stayed = transaction.execute(
        "UPDATE waiter SET until = ?2 WHERE owner = ?1",
        params![candidate.owner, until],
    )?;
    if stayed == 0 {
        transaction.execute(
            "INSERT INTO waiter (name, owner, holder, until) VALUES (?1, ?2, ?3, ?4)",
            params![group, candidate.owner, text(&candidate.holder), until],
        )?;
    }
    Ok(())
}

/// Who has waited longer than `owner`, or at all where `owner` does not wait. Those that are dead leave the queue.
fn ahead_of(
    transaction: &Transaction<'_>,
    world: &dyn World,
    group: &str,
    owner: &str,
) -> rusqlite::Result<Vec<Arc<Holder>>> {
    let mut ahead = Vec::new();
    for (ticket, row) in waiters(transaction, group)? {
        if row.owner.as_deref() == Some(owner) {
            break;
        }
        match lease::standing(&row, world) {
            Standing::Held { holder, .. } => ahead.push(holder),
            // Nothing depends on who waits, so a row that nobody can read goes as well.
            _ => drop(transaction.execute("DELETE FROM waiter WHERE ticket = ?1", [ticket])?),
        }
    }
    Ok(ahead)
}

fn read_all(connection: &Connection, world: &dyn World) -> rusqlite::Result<Vec<Lock>> {
    let has_locks = connection
        .prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'waiter'")?
        .exists([])?;
    if !has_locks {
        // A journal of the layout before locks.
        return Ok(Vec::new());
    }
    let mut select =
        connection.prepare("SELECT token, owner, holder, until, name FROM lock ORDER BY name")?;
    let rows = select.query_map([], |row| Ok((read_row(row)?, row.get::<_, String>(4)?)))?;
    let mut locks = Vec::new();
    for found in rows {
        let (row, group) = found?;
        let alive = |(_, row): (i64, Row)| match lease::standing(&row, world) {
            Standing::Held { holder, .. } => Some(holder),
            _ => None,
        };
        locks.push(Lock {
            token: row.token,
            standing: lease::standing(&row, world),
            waiting: waiters(connection, &group)?
                .into_iter()
                .filter_map(alive)
                .collect(),
            group,
        });
    }
    Ok(locks)
}

fn select(connection: &Connection, group: &str) -> rusqlite::Result<Option<Row>> {
    connection
        .prepare_cached("SELECT token, owner, holder, until FROM lock WHERE name = ?1")?
        .query_row([group], read_row)
        .optional()
}

/// In the order in which they came. A waiter's row is read by the same rules as a lock's.
fn waiters(connection: &Connection, group: &str) -> rusqlite::Result<Vec<(i64, Row)>> {
    connection
        .prepare_cached("SELECT 1, owner, holder, until, ticket FROM waiter WHERE name = ?1 ORDER BY ticket")?
        .query_map([group], |row| Ok((row.get(4)?, read_row(row)?)))?
        .collect()
}

fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row {
        token: row.get(0)?,
        owner: row.get(1)?,
        holder: row.get(2)?,
        until: row.get(3)?,
    })
}

fn text(holder: &Holder) -> String {
    serde_json::to_string(holder).expect("texts and numbers are always JSON")
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
