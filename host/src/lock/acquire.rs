//! Getting a lock: at once or never, or by waiting in order.

use super::{
    Settings,
    keeper::Held,
    lease::{Holder, Standing},
    table::{Answer, Candidate, Obstacle, Table},
    words,
    world::{System, World},
};
use crate::{
    failure::{Failure, Turn},
    name::RunId,
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Who asks for which lock, and how patiently.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The state directory.
    pub state: &'a Path,
    pub group: &'a str,
    pub run: &'a RunId,
    pub pipeline: &'a str,
    /// `run`, `resume`, `rollback`: shown to people.
    pub command: &'a str,
    /// `None`: a lock that is held ends the run at once.
    pub waiting: Option<Waiting>,
    pub settings: Settings,
    /// For people: that it waits, or that it took over.
    pub say: &'a (dyn Fn(&str) + Sync),
}

/// `--lock-wait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub timeout: Duration,
    /// How often it looks.
    pub interval: Duration,
}

/// A place in the queue, left when it is dropped: by the run that got the lock, or by one that was interrupted.
struct Place {
    table: Option<Table>,
    owner: String,
}

/// Gets the lock of a group. Dropped while it waits, it leaves the queue.
///
/// # Errors
/// `lock.held`, `lock.timeout`, `lock.foreign`, `lock.unreadable`; the database cannot be used.
pub async fn acquire(request: Request<'_>) -> Result<Held, Failure> {
    let world: Arc<dyn World> = Arc::new(System::new());
    let candidate = Candidate {
        owner: new_owner()?,
        holder: Holder::new(request.run, request.pipeline, request.command, world.as_ref()),
        length: request.settings.length(),
    };
    let mut place = Place {
        table: Some(Table::open(request.state, world)?),
        owner: candidate.owner.clone(),
    };
    let began = Instant::now();
    let mut said = None;
    loop {
        // The transaction blocks its thread for milliseconds, and nothing else of the run has begun.
        let obstacle = match place.take(&request, &candidate)? {
            Ok(held) => return Ok(held),
            Err(obstacle) => obstacle,
        };
        let wait = request
            .waiting
            .filter(|_| may_pass(&obstacle))
            .and_then(|waiting| {
                let left = waiting.timeout.checked_sub(began.elapsed())?;
                (!left.is_zero()).then_some(left.min(waiting.interval))
            });
        let Some(wait) = wait else {
            return Err(words::blocked(request.group, &obstacle, request.waiting.as_ref()));
        };
        let words = words::waits(request.group, &obstacle);
        if said.as_ref() != Some(&words) {
            (request.say)(&words);
            said = Some(words);
        }
        tokio::time::sleep(wait).await;
    }
}

/// A lock that nobody can read does not become free by waiting.
fn may_pass(obstacle: &Obstacle) -> bool {
    !matches!(obstacle, Obstacle::Lock(Standing::Unreadable { .. }))
}

impl Place {
    fn take(
        &mut self,
        request: &Request<'_>,
        candidate: &Candidate,
    ) -> Result<Result<Held, Obstacle>, Failure> {
        let mut table = self
            .table
            .take()
            .expect("it is given back below until it is kept");
        // Whoever waits asks again after each interval; a lease later it is taken for dead.
        let stay = request
            .waiting
            .map(|waiting| waiting.interval + request.settings.length());
        let answer = table.take(request.group, candidate, stay);
        match answer {
            Ok(Answer::Taken { fence, until, from }) => {
                if let Some((holder, death)) = from {
                    (request.say)(&words::took_over(request.group, &holder, death));
                }
                Held::keep(table, fence, until, request.settings).map(Ok)
            }
            Ok(Answer::Blocked(obstacle)) => {
                self.table = Some(table);
                Ok(Err(obstacle))
            }
            Err(failure) => {
                self.table = Some(table);
                Err(failure)
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(table) = &mut self.table {
            // Where this fails the place is taken for dead after a while.
            let _ = table.leave(&self.owner);
        }
    }
}

fn new_owner() -> Result<String, Failure> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| {
        let message = format!("the system gives no random bytes: {error}");
        Failure::new(Turn::Environment, "system.random", message)
    })?;
    Ok(hex::encode(random))
}
