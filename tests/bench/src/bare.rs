//! The floor below a stage: the same component in the runtime alone, pooled, with a WASI context and through one task, and
//! nothing else. No limits, no grants, no deadline, no log.

use crate::{
    project::{NOOP, Result},
    statistics::timed,
};
use std::{sync::Arc, time::Duration};
use tokio::runtime::Runtime;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
    component::{Component, InstancePre, Linker, ResourceTable},
};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use windlass::wit::Lifecycle;

/// The component, linked.
#[derive(Clone)]
pub(crate) struct Bare {
    engine: Engine,
    instance: Arc<InstancePre<Context>>,
}

/// What one instance is given.
struct Context {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Context {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl Bare {
    pub(crate) fn new() -> Result<Self> {
        Self::make().map_err(|error| format!("the bare runtime: {error:#}"))
    }

    fn make() -> wasmtime::Result<Self> {
        let engine = Engine::new(&config())?;
        let component = Component::new(&engine, NOOP)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        let mut context = linker.instance("windlass:stage/context@0.1.0")?;
        context.func_wrap("config", |_, ()| Ok(("{}".to_string(),)))?;
        // Imported, and never called without `wait-ms`.
        context.func_wrap("sleep-ms", |_, (_,): (u32,)| Ok((true,)))?;
        context.func_wrap("is-cancelled", |_, ()| Ok((false,)))?;
        let instance = Arc::new(linker.instantiate_pre(&component)?);
        Ok(Self { engine, instance })
    }

    /// The time of each of `count` steps, one after another, each through a task of its own.
    pub(crate) fn steps(&self, runtime: &Runtime, count: usize) -> Result<Duration> {
        let (time, done) = timed(|| {
            runtime.block_on(async {
                for _ in 0..count {
                    let bare = self.clone();
                    let step = tokio::spawn(async move { bare.step().await });
                    step.await
                        .map_err(|error| error.to_string())?
                        .map_err(|error| format!("{error:#}"))?;
                }
                Ok(())
            })
        });
        done.map(|()| time / u32::try_from(count).unwrap_or(u32::MAX))
    }

    async fn step(&self) -> wasmtime::Result<()> {
        let context = Context {
            wasi: WasiCtxBuilder::new().build(),
            table: ResourceTable::new(),
        };
        let mut store = Store::new(&self.engine, context);
        store.set_epoch_deadline(u64::MAX >> 1);
        let instance = self.instance.instantiate_async(&mut store).await?;
        let export = Lifecycle::new(&mut store, &instance)?;
        let answer = export.windlass_stage_lifecycle().call_run(&mut store).await?;
        answer
            .map(drop)
            .map_err(|error| wasmtime::Error::msg(error.message))
    }
}

/// As the sandbox sets its engine up: the same machine code runs in both.
fn config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(100)
        .total_core_instances(800)
        .total_memories(200)
        .total_tables(400)
        .total_stacks(200)
        .max_unused_warm_slots(100)
        .linear_memory_keep_resident(1 << 20)
        .table_keep_resident(16 << 10)
        .async_stack_keep_resident(32 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .epoch_interruption(true)
        .max_wasm_stack(512 << 10)
        .async_stack_size(2 << 20)
        .native_unwind_info(false)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}
