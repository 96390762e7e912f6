//! A lock while it is held: a thread that beats, and what everybody else knows of the lease. The thread is its own, so that a
//! runtime whose threads are all busy still beats; it ends, and gives the lock back, when its [`Held`] is dropped.

use super::{Settings, gate::Gate, lease::left, table::Table, words, world::World};
use crate::{
    failure::{Failure, Turn},
    journal::{Journal, store::Fence},
};
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::sync::watch;

/// A lock that this process holds. Dropping it gives the lock back.
pub struct Held {
    lease: Arc<Lease>,
    /// Dropped, it ends the thread.
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Resolves when a lock is lost while it should be held.
#[derive(Clone)]
pub struct Lost(Arc<Lease>);

/// What is known of a lease in this process.
pub(crate) struct Lease {
    fence: Fence,
    settings: Settings,
    world: Arc<dyn World>,
    known: watch::Sender<Known>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// By the clock of this boot.
    until: Duration,
    is_lost: bool,
}

impl Held {
    /// Keeps what `table` has just given.
    ///
    /// # Errors
    /// The system gives no thread; the lock is free again then.
    pub(crate) fn keep(
        mut table: Table,
        fence: Fence,
        until: Duration,
        settings: Settings,
    ) -> Result<Self, Failure> {
        if let Err(failure) = table.without_sync() {
            let _ = table.free(&fence);
            return Err(failure);
        }
        let lease = Arc::new(Lease::new(fence, until, settings, table.world()));
        let (stop, stopped) = sync_channel(0);
        let beating = lease.clone();
        let thread = thread::Builder::new()
            .name("lock".into())
            .spawn(move || beat_until(&stopped, &beating, &mut table))
            .map_err(|error| {
                let message = format!("the system gives no thread for the lock: {error}");
                Failure::new(Turn::Environment, "system.threads", message)
            })?;
        Ok(Self {
            lease,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What every commit of the run has to demand.
    pub fn fence(&self) -> Fence {
        self.lease.fence.clone()
    }

    /// The journal behind a gate that lets no effect start without the lease.
    pub fn gate(&self, journal: Arc<dyn Journal>) -> Arc<dyn Journal> {
        Arc::new(Gate::new(journal, self.lease.clone()))
    }

    /// To hear that the lock was lost.
    pub fn lost(&self) -> Lost {
        Lost(self.lease.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked leaves a lease that ends by itself.
            let _ = thread.join();
        }
    }
}

impl Lost {
    /// Returns when the lock is lost.
    pub async fn wait(self) {
        let mut known = self.0.known.subscribe();
        // The sender is in the lease that we hold, so there is always an end to wait for.
        let _ = known.wait_for(|known| known.is_lost).await;
    }
}

impl Lease {
    pub(crate) fn new(fence: Fence, until: Duration, settings: Settings, world: Arc<dyn World>) -> Self {
        let (known, _) = watch::channel(Known {
            until,
            is_lost: false,
        });
        Self {
            fence,
            settings,
            world,
            known,
        }
    }

    /// Returns once there is enough of the lease left for an effect to start. After a pause of the whole process this waits
    /// for the heartbeat that tells whether the lock is still ours.
    ///
    /// # Errors
    /// `lock.lost`.
    pub(crate) async fn ready(&self) -> Result<(), Failure> {
        let mut known = self.known.subscribe();
        let decided = known.wait_for(|known| known.is_lost || self.is_enough(*known));
        match tokio::time::timeout(self.settings.length(), decided).await {
            // Asked again after the wait: time may have passed between.
            Ok(Ok(known)) if !known.is_lost && self.is_enough(*known) => Ok(()),
            _ => Err(words::lost(&self.fence.group)),
        }
    }

    fn is_enough(&self, known: Known) -> bool {
        left(known.until, &self.world.now()).is_some_and(|left| left >= self.settings.margin())
    }

    /// One heartbeat; `false` when the lock is lost.
    fn beat(&self, renew: impl FnOnce(&Fence, Duration) -> Result<bool, Failure>) -> bool {
        // Before the transaction: a slow one must not make the lease longer than its row says.
        let until = self.world.now().since_boot + self.settings.length();
        let renewed = renew(&self.fence, until);
        let before = *self.known.borrow();
        let is_over = left(before.until, &self.world.now()).is_none();
        match renewed {
            Ok(true) => self.tell(until, false),
            // A database that cannot be written does not end a lease; its time does.
            Err(_) if !is_over => true,
            Ok(false) | Err(_) => self.tell(before.until, true),
        }
    }

    fn tell(&self, until: Duration, is_lost: bool) -> bool {
        self.known.send_replace(Known { until, is_lost });
        !is_lost
    }
}

fn beat_until(stopped: &Receiver<()>, lease: &Lease, table: &mut Table) {
    let heartbeat = lease.settings.heartbeat();
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(heartbeat) {
        if !lease.beat(|fence, until| table.renew(fence, until)) {
            return;
        }
    }
    // Where this fails the lease ends by itself.
    let _ = table.free(&lease.fence);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::world::testing::Fake;

    fn lease(world: &Arc<Fake>) -> Lease {
        let fence = Fence {
            group: "g".into(),
            token: 1,
            owner: "me".into(),
        };
        let until = world.now().since_boot + Duration::from_secs(15);
        Lease::new(fence, until, Settings::default(), world.clone())
    }

    fn failed() -> Failure {
        Failure::new(Turn::Environment, "journal.failed", "the disk is full")
    }

    #[tokio::test]
    async fn an_effect_needs_its_margin() {
        let world = Fake::new();
        let lease = lease(&world);
        lease.ready().await.expect("fresh");
        world.pass(Duration::from_secs(12));
        lease.ready().await.expect("three seconds are enough");
        world.pass(Duration::from_millis(1));
        let waits = tokio::time::timeout(Duration::from_millis(20), lease.ready()).await;
        assert!(waits.is_err(), "it waits for the next heartbeat");
        assert!(lease.beat(|_, _| Ok(true)));
        lease.ready().await.expect("renewed");
    }

    #[tokio::test]
    async fn who_slept_too_long_asks_before_it_acts() {
        for (is_ours, expected) in [(true, None), (false, Some("lock.lost"))] {
            let world = Fake::new();
            let lease = lease(&world);
            // A day, as after a lid was closed; the wall clock is not asked.
            world.pass(Duration::from_secs(86_400));
            let (ready, _) = tokio::join!(lease.ready(), async { lease.beat(|_, _| Ok(is_ours)) });
            assert_eq!(ready.err().map(|failure| failure.code).as_deref(), expected);
        }
    }

    #[tokio::test]
    async fn a_database_that_cannot_be_written_ends_the_lease_only_with_its_time() {
        let world = Fake::new();
        let lease = Arc::new(lease(&world));
        world.pass(Duration::from_secs(14));
        assert!(lease.beat(|_, _| Err(failed())));
        world.pass(Duration::from_secs(1));
        assert!(!lease.beat(|_, _| Err(failed())));
        Lost(lease.clone()).wait().await;
        assert_eq!(lease.ready().await.expect_err("lost").code, "lock.lost");
    }

    #[test]
    fn a_slow_commit_does_not_lengthen_the_lease() {
        let world = Fake::new();
        let lease = lease(&world);
        let asked = std::cell::Cell::new(Duration::ZERO);
        assert!(lease.beat(|_, until| {
            asked.set(until);
            world.pass(Duration::from_secs(10));
            Ok(true)
        }));
        assert_eq!(asked.get(), Duration::from_secs(1_015));
        assert_eq!(lease.known.borrow().until, Duration::from_secs(1_015));
    }
}
