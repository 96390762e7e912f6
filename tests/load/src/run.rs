//! Performs a load on a thread of its own. Knows when which request is due; keeps no request that was due back for one that is late.

use crate::{
    Failure, Load, Mode, Report,
    answer::Answer,
    connection::{Connection, Peer},
    report::Tally,
    tls,
};
use rustls::pki_types::ServerName;
use std::{
    net::{SocketAddr, ToSocketAddrs},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// New connections at once. Each is a file descriptor here and one more in every proxy on the way.
const MOST_IN_FLIGHT: usize = 2_000;

/// A load that is being sent. Dropping it does not end it; it ends when its duration is over.
pub struct Running {
    stop: watch::Sender<bool>,
    thread: JoinHandle<Report>,
}

impl Running {
    /// Waits until the duration is over and every request has its answer or its failure.
    pub fn wait(self) -> Report {
        self.thread.join().expect("the thread of a load does not panic")
    }

    /// Sends nothing new, and waits for what is in flight.
    pub fn stop(self) -> Report {
        // It may have ended by itself.
        let _ = self.stop.send(true);
        self.wait()
    }
}

/// Starts sending.
///
/// # Errors
/// If the target does not resolve or the certificates cannot be read, in words.
pub fn start(load: Load) -> Result<Running, String> {
    let address = address(&load)?;
    let tls = match tls::settings(&load, address)? {
        None => None,
        Some(config) => {
            let name = ServerName::try_from(load.target.host.clone())
                .map_err(|_| format!("`{}` is no name for TLS", load.target.host))?;
            Some((config, name))
        }
    };
    let (stop, stopped) = watch::channel(false);
    let sender = Arc::new(Sender {
        peer: Peer {
            address,
            tls,
            patience: load.timeout,
        },
        load,
        number: AtomicU64::new(0),
        tally: Mutex::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime for the load: {error}"))?;
    let thread = std::thread::spawn(move || runtime.block_on(send(sender, stopped)));
    Ok(Running { stop, thread })
}

fn address(load: &Load) -> Result<SocketAddr, String> {
    if let Some(address) = load.connect {
        return Ok(address);
    }
    let target = &load.target;
    (target.host.as_str(), target.port)
        .to_socket_addrs()
        .map_err(|error| format!("`{}` cannot be resolved: {error}", target.host))?
        .next()
        .ok_or_else(|| format!("`{}` has no address", target.host))
}

struct Sender {
    load: Load,
    peer: Peer,
    number: AtomicU64,
    tally: Mutex<Tally>,
}

impl Sender {
    fn add(&self, outcome: Result<Answer, Failure>, took: Duration) {
        self.tally().add(outcome, took, self.load.count_header.is_some());
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, connection: &mut Connection) -> Result<Answer, Failure> {
        let request = self.load.request(self.number.fetch_add(1, Ordering::Relaxed));
        let counted = self.load.count_header.as_deref();
        connection.ask(&request, &self.load.method, counted).await
    }
}

async fn send(sender: Arc<Sender>, mut stopped: watch::Receiver<bool>) -> Report {
    let started = Instant::now();
    let ends = started + sender.load.duration;
    let mut tasks = JoinSet::new();
    match (sender.load.mode, sender.load.rate) {
        (Mode::KeepAlive { connections }, rate) => {
            for index in 0..connections {
                let clock = Clock::of_one(rate, started, index, connections);
                tasks.spawn(keep_alive(sender.clone(), clock, ends, stopped.clone()));
            }
        }
        (Mode::Close, Some(rate)) => {
            close(
                &sender,
                Clock::of_one(Some(rate), started, 0, 1),
                ends,
                &mut stopped,
                &mut tasks,
            )
            .await;
        }
        // As many in flight as `keep-alive` usually has.
        (Mode::Close, None) => {
            for _ in 0..50 {
                tasks.spawn(close_in_turn(sender.clone(), ends, stopped.clone()));
            }
        }
    }
    while tasks.join_next().await.is_some() {}
    std::mem::take(&mut *sender.tally()).report(started.elapsed())
}

/// When the next request of one sender is due.
struct Clock {
    next: Instant,
    /// `None`: at once.
    every: Option<Duration>,
}

impl Clock {
    /// The clock of sender `index` of `count` that share `rate`.
    fn of_one(rate: Option<u32>, started: Instant, index: u32, count: u32) -> Self {
        match rate {
            None => Self {
                next: started,
                every: None,
            },
            Some(rate) => {
                let one = Duration::from_secs(1) / rate.max(1);
                Self {
                    next: started + one * index,
                    every: Some(one * count),
                }
            }
        }
    }

    /// Waits for the next moment, and answers when it was due; `None` at the end. Who is late is not waited for, so that a slow
    /// answer makes neither the rate lower nor the latencies of what follows look better.
    async fn tick(&mut self, ends: Instant, stopped: &mut watch::Receiver<bool>) -> Option<Instant> {
        let due = match self.every {
            None => Instant::now(),
            Some(every) => {
                let due = self.next;
                self.next += every;
                due
            }
        };
        if due >= ends || *stopped.borrow() {
            return None;
        }
        tokio::select! {
            () = sleep_until(due) => Some(due),
            _ = stopped.wait_for(|stopped| *stopped) => None,
        }
    }
}

async fn close(
    sender: &Arc<Sender>,
    mut clock: Clock,
    ends: Instant,
    stopped: &mut watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) {
    let places = Arc::new(Semaphore::new(MOST_IN_FLIGHT));
    while let Some(due) = clock.tick(ends, stopped).await {
        while tasks.try_join_next().is_some() {}
        let Ok(place) = places.clone().try_acquire_owned() else {
            sender.add(Err(Failure::TooManyInFlight), Duration::ZERO);
            continue;
        };
        let sender = sender.clone();
        tasks.spawn(async move {
            once(&sender, due).await;
            drop(place);
        });
    }
}

async fn close_in_turn(sender: Arc<Sender>, ends: Instant, mut stopped: watch::Receiver<bool>) {
    let mut clock = Clock {
        next: ends,
        every: None,
    };
    while let Some(due) = clock.tick(ends, &mut stopped).await {
        once(&sender, due).await;
    }
}

async fn once(sender: &Sender, due: Instant) {
    match Connection::open(&sender.peer).await {
        Ok(mut connection) => sender.add(sender.ask(&mut connection).await, due.elapsed()),
        Err(unconnected) => sender.tally().unconnected(unconnected),
    }
}

async fn keep_alive(
    sender: Arc<Sender>,
    mut clock: Clock,
    ends: Instant,
    mut stopped: watch::Receiver<bool>,
) {
    let mut open: Option<Connection> = None;
    while let Some(due) = clock.tick(ends, &mut stopped).await {
        if let Some(connection) = &mut open
            && connection.is_closed().await
        {
            sender.tally().closed_idle();
            open = None;
        }
        let mut connection = match open.take() {
            Some(connection) => connection,
            None => match Connection::open(&sender.peer).await {
                Ok(connection) => connection,
                Err(unconnected) => {
                    sender.tally().unconnected(unconnected);
                    // A refused connection must not become a loop without a pause.
                    let _ = timeout(Duration::from_millis(10), stopped.wait_for(|stopped| *stopped)).await;
                    continue;
                }
            },
        };
        let outcome = sender.ask(&mut connection).await;
        if outcome.as_ref().is_ok_and(|answer| answer.reusable) {
            open = Some(connection);
        }
        sender.add(outcome, due.elapsed());
    }
}
