//! What one attempt may use, and the counter that stops it: every limit ends in its own failure and shows in the report.

use crate::failure::{Failure, Turn};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use wasmtime::ResourceLimiter;

/// The limits of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All linear memories together. 64 MiB holds Rust, JavaScript and Python guests; a Python guest starts at 13 MiB.
    pub memory: usize,
    /// Elements of one table. The largest known guest (Python) has about 9,000 functions in its table.
    pub table_elements: usize,
    /// Core instances of the component. JavaScript guests have about ten, composed ones more.
    pub instances: usize,
    /// Linear memories, and tables. QuickJS components have two memories.
    pub memories: usize,
    pub tables: usize,
    /// Handles that are open at the same time. A directory walk holds one a level, HTTP about ten a request.
    pub handles: usize,
    /// Lines and bytes of the log, after which lines are counted and dropped: see `events.log` in the WIT.
    pub log_lines: u64,
    pub log_bytes: u64,
    /// All outputs together, as the WIT says.
    pub output_bytes: usize,
    /// Random bytes. A TLS session takes under a kilobyte; what takes more wants to keep the host busy.
    pub random_bytes: u64,
    /// Bytes that may pass to the host in one call: 1 MiB chunks and 1 MiB JSON texts, with room for lists.
    pub call_bytes: usize,
    /// How long a cancelled guest may take to notice and leave by itself.
    pub cancel_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            table_elements: 20_000,
            instances: 64,
            memories: 4,
            tables: 16,
            handles: 1_000,
            log_lines: 10_000,
            log_bytes: 4 << 20,
            output_bytes: 64 << 10,
            random_bytes: 1 << 20,
            call_bytes: 16 << 20,
            cancel_grace: Duration::from_millis(10),
        }
    }
}

/// Which limit was reached. Travels through the guest's trap as an error of its own type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reached {
    #[error("the plugin needs {wanted} bytes of memory, over its limit of {limit}")]
    Memory { wanted: usize, limit: usize },
    #[error("the plugin needs a table of {wanted} elements, over its limit of {limit}")]
    Table { wanted: usize, limit: usize },
    #[error("the plugin holds {limit} open handles, which is its limit")]
    Handles { limit: usize },
    #[error("the plugin asked for more than {limit} random bytes, which is its limit")]
    Random { limit: u64 },
    #[error("the plugin handed more than {limit} bytes to the host in one call")]
    Call { limit: usize },
    #[error("the plugin's calls are nested too deeply: its stack of {limit} bytes is used up")]
    Stack { limit: usize },
    #[error("the plugin's outputs take {size} bytes, over their limit of {limit}")]
    Outputs { size: usize, limit: usize },
}

impl Reached {
    /// The failure's code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Memory { .. } => "limit.memory",
            Self::Table { .. } => "limit.tables",
            Self::Handles { .. } => "limit.resources",
            Self::Random { .. } => "limit.random",
            Self::Call { .. } => "limit.call-bytes",
            Self::Stack { .. } => "limit.stack",
            Self::Outputs { .. } => "limit.outputs",
        }
    }

    pub fn failure(&self) -> Failure {
        let help = match self {
            Self::Outputs { .. } => "big results belong in artifacts",
            Self::Handles { .. } => "the plugin has to close handles it no longer uses",
            _ => "the plugin has to do with less: limits are the same for every plugin",
        };
        Failure::new(Turn::Plugin, self.code(), self.to_string()).help(help)
    }
}

/// Stops an attempt from where nothing can be returned: the call is dropped as soon as the guest waits or a tick passes.
#[derive(Clone, Default)]
pub struct Tripwire {
    reached: Arc<std::sync::OnceLock<Reached>>,
    token: CancellationToken,
}

impl Tripwire {
    pub fn trip(&self, reached: Reached) {
        if self.reached.set(reached).is_ok() {
            self.token.cancel();
        }
    }

    /// Waits until something trips it.
    pub async fn tripped(&self) -> Failure {
        self.token.cancelled().await;
        let reached = self.reached.get().expect("set before the token is cancelled");
        reached.failure()
    }
}

/// Counts memory and tables of a store as they grow.
pub struct Limiter {
    limits: Limits,
    memory: usize,
    peak: Arc<AtomicU64>,
}

impl Limiter {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            memory: 0,
            peak: Arc::default(),
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The most memory in use so far. Outlives the store.
    pub fn peak(&self) -> Arc<AtomicU64> {
        self.peak.clone()
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = self.memory.saturating_add(desired.saturating_sub(current));
        if wanted > self.limits.memory {
            let limit = self.limits.memory;
            return Err(wasmtime::Error::new(Reached::Memory { wanted, limit }));
        }
        self.memory = wanted;
        self.peak.fetch_max(wanted as u64, Ordering::Relaxed);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > self.limits.table_elements {
            let limit = self.limits.table_elements;
            return Err(wasmtime::Error::new(Reached::Table {
                wanted: desired,
                limit,
            }));
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.limits.instances
    }

    fn tables(&self) -> usize {
        self.limits.tables
    }

    fn memories(&self) -> usize {
        self.limits.memories
    }
}

/// What an attempt used, by the names that reports show.
pub type Usage = BTreeMap<String, u64>;
