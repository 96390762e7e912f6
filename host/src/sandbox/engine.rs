//! The engines: hardened, pooled for the many small plugins and on demand for the rest, and the clock that interrupts guests.

use crate::failure::{Failure, Turn};
use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, component::Linker,
};

use crate::service::{State, limits::Limits, link};

/// Instances that find a prepared slot. More stages in parallel than this run on demand; more slots cost start-up time (a
/// millisecond at 200) and stay resident.
const SLOTS: u32 = 100;
/// Memory that a slot keeps between attempts instead of giving it back: most guests touch less than a megabyte.
const KEPT_MEMORY: usize = 1 << 20;
const KEPT_TABLE: usize = 16 << 10;
const KEPT_STACK: usize = 32 << 10;
/// Memories and tables of one component: a Rust guest has one memory and two tables, a QuickJS guest two memories.
const MEMORIES_EACH: u32 = 2;
const TABLES_EACH: u32 = 4;
/// Core instances of one component: the guest, and an adapter or two for its imports.
const CORE_INSTANCES_EACH: u32 = 8;

/// A guest that spins gives way this often. A cancellation is seen at one tick, and the end of its grace at another: with the
/// grace between them, a guest that computes for ever is dead within 20 ms.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// The stack of a guest. Deep recursion ends here; the fiber around it has as much again for host functions.
pub(super) const STACK: usize = 512 << 10;
const FIBER_STACK: usize = 2 << 20;

/// Both kinds of engine and a linker with WASI for each.
pub(super) struct Engines {
    pooled: Option<Pooled>,
    on_demand: OnceLock<Base>,
    ticker: Arc<Ticker>,
}

struct Pooled {
    base: Base,
    slots: Arc<Semaphore>,
}

/// An engine and what every component is linked with.
#[derive(Clone)]
pub(super) struct Base {
    pub(super) engine: Engine,
    pub(super) linker: Arc<Linker<State>>,
}

impl Engines {
    pub(super) fn new() -> Result<Self, Failure> {
        let ticker = Ticker::start()?;
        // A machine that forbids large reservations of address space still runs everything on demand.
        let pooled = match Engine::new(&config(Some(pool()))) {
            Ok(engine) => Some(Pooled {
                base: Base::new(engine, &ticker)?,
                slots: Arc::new(Semaphore::new(SLOTS as usize)),
            }),
            Err(error) => {
                tracing::debug!(%error, "no pooled engine");
                None
            }
        };
        Ok(Self {
            pooled,
            on_demand: OnceLock::new(),
            ticker,
        })
    }

    pub(super) fn pooled(&self) -> Option<&Base> {
        self.pooled.as_ref().map(|pooled| &pooled.base)
    }

    /// A slot, if one is free now.
    pub(super) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let pooled = self.pooled.as_ref()?;
        pooled.slots.clone().try_acquire_owned().ok()
    }

    /// Made when it is first needed.
    pub(super) fn on_demand(&self) -> Result<&Base, Failure> {
        if let Some(base) = self.on_demand.get() {
            return Ok(base);
        }
        let engine = compiler()?;
        let base = Base::new(engine, &self.ticker)?;
        Ok(self.on_demand.get_or_init(|| base))
    }
}

impl Base {
    fn new(engine: Engine, ticker: &Ticker) -> Result<Self, Failure> {
        let linker = link::base(&engine).map_err(failed)?;
        ticker.add(&engine);
        Ok(Self {
            engine,
            linker: Arc::new(linker),
        })
    }
}

/// An engine without a pool: compiles, and runs what finds no slot.
pub(super) fn compiler() -> Result<Engine, Failure> {
    Engine::new(&config(None)).map_err(failed)
}

fn failed(error: wasmtime::Error) -> Failure {
    let message = format!("the WebAssembly engine does not start: {error:#}");
    Failure::new(Turn::Windlass, "sandbox.engine", message)
        .help("`windlass doctor` shows what this machine lacks")
}

fn config(pool: Option<PoolingAllocationConfig>) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .wasm_component_model_async(true)
        .epoch_interruption(true)
        .max_wasm_stack(STACK)
        .async_stack_size(FIBER_STACK)
        // For debuggers of the host: no panic unwinds through a guest, and what is compiled has to be authenticated and loaded.
        .native_unwind_info(false)
        // What no guest language needs is off: less to attack. Multi-memory stays on: without it the compiler panics on
        // QuickJS components.
        .wasm_multi_memory(true)
        .wasm_memory64(false)
        .wasm_gc(false)
        .wasm_exceptions(false)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false)
        .wasm_function_references(false);
    if let Some(pool) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

fn pool() -> PoolingAllocationConfig {
    let limits = Limits::default();
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(SLOTS)
        .total_core_instances(SLOTS * CORE_INSTANCES_EACH)
        .total_memories(SLOTS * MEMORIES_EACH)
        .total_tables(SLOTS * TABLES_EACH)
        .total_stacks(SLOTS * 2)
        .max_core_instances_per_component(CORE_INSTANCES_EACH)
        .max_memories_per_component(MEMORIES_EACH)
        .max_tables_per_component(TABLES_EACH)
        .max_memory_size(limits.memory)
        .table_elements(limits.table_elements)
        .max_unused_warm_slots(SLOTS)
        .linear_memory_keep_resident(KEPT_MEMORY)
        .table_keep_resident(KEPT_TABLE)
        .async_stack_keep_resident(KEPT_STACK)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// Moves the epoch of all engines on, from one thread that ends with the sandbox.
struct Ticker(std::sync::Mutex<Vec<wasmtime::EngineWeak>>);

impl Ticker {
    fn start() -> Result<Arc<Self>, Failure> {
        let ticker = Arc::new(Self(std::sync::Mutex::default()));
        let watched: Weak<Self> = Arc::downgrade(&ticker);
        let tick = move || {
            while let Some(ticker) = watched.upgrade() {
                ticker.tick();
                drop(ticker);
                std::thread::sleep(TICK);
            }
        };
        std::thread::Builder::new()
            .name("windlass-ticker".into())
            .spawn(tick)
            .map_err(|error| failed(error.into()))?;
        Ok(ticker)
    }

    fn add(&self, engine: &Engine) {
        self.engines().push(engine.weak());
    }

    fn tick(&self) {
        self.engines()
            .iter()
            .filter_map(wasmtime::EngineWeak::upgrade)
            .for_each(|engine| engine.increment_epoch());
    }

    fn engines(&self) -> std::sync::MutexGuard<'_, Vec<wasmtime::EngineWeak>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
