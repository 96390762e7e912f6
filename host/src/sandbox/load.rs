//! From a component's bytes to code that can be instantiated: from the cache, or compiled and put there.

use super::{
    Sandbox, Shared, compile,
    engine::{Base, Engines},
};
use crate::{
    catalog,
    failure::{Failure, Turn},
    service::{
        State,
        link::{self, Interfaces},
    },
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::{
    Engine,
    component::{Component, InstancePre},
};

/// A component ready to run. Cheap to clone.
#[derive(Clone)]
pub struct Loaded(Arc<Inner>);

struct Inner {
    plugin: String,
    /// `None` where it does not fit into a slot of the pool.
    pooled: Option<Component>,
    on_demand: OnceLock<Component>,
    /// Kept for the other engine.
    code: Vec<u8>,
    /// Linked already: for the pool, and on demand.
    prepared: [Mutex<HashMap<Interfaces, InstancePre<State>>>; 2],
}

/// What one attempt instantiates, and the slot it holds while it lives.
pub(super) struct Prepared {
    pub(super) instance: InstancePre<State>,
    pub(super) engine: Engine,
    /// Held as long as the store lives, never read.
    pub(super) _slot: Option<OwnedSemaphorePermit>,
}

pub(super) async fn load(sandbox: &Sandbox, component: &catalog::Component) -> Result<Loaded, Failure> {
    let shared = &sandbox.0;
    let kept = shared
        .cache
        .as_ref()
        .and_then(|cache| cache.get(&component.digest));
    if let Some(code) = kept
        && let Ok(loaded) = make(&shared.engines, component, code)
    {
        return Ok(loaded);
    }
    let code = match &shared.compile_command {
        Some(executable) => compile::in_child(executable, component).await?,
        None => compile::in_process(component).await?,
    };
    if let Some(cache) = &shared.cache {
        cache.put(&component.digest, &code);
    }
    make(&shared.engines, component, code)
}

fn make(engines: &Engines, component: &catalog::Component, code: Vec<u8>) -> Result<Loaded, Failure> {
    let pooled = engines
        .pooled()
        .and_then(|base| deserialize(&base.engine, &code).ok());
    let on_demand = OnceLock::new();
    if pooled.is_none() {
        // Code that neither engine takes is a failure now, not in the middle of a run.
        let made = deserialize(&engines.on_demand()?.engine, &code).map_err(|error| {
            let message = format!("plugin `{}` cannot be loaded: {error:#}", component.reference);
            Failure::new(Turn::Plugin, "plugin.invalid", message)
        })?;
        on_demand.get_or_init(|| made);
    }
    Ok(Loaded(Arc::new(Inner {
        plugin: component.reference.clone(),
        pooled,
        on_demand,
        code,
        prepared: Default::default(),
    })))
}

/// The only `unsafe` of this crate. Why it is sound:
///
/// `Component::deserialize` runs whatever machine code `code` holds, so `code` must be what `precompile_component` returned
/// for this version of wasmtime. It has two callers' sources and no other: bytes that this process or its own child (the same
/// executable, over a pipe that nobody else holds) has just compiled, and bytes that [`super::cache::Cache::get`] has
/// authenticated with a key only this user can read. Nothing a user, a plugin or a pipeline names ever gets here: a component
/// is always compiled first. Another version or configuration of the engine is refused by wasmtime's own header check; the
/// cache's file names keep them apart before.
#[allow(unsafe_code)]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` is what wasmtime compiled, from ourselves or authenticated: see above.
    unsafe { Component::deserialize(engine, code) }
}

impl Loaded {
    /// The plugin's reference.
    pub fn plugin(&self) -> &str {
        &self.0.plugin
    }

    /// The component linked as the stage's grants say; linked once for each set of interfaces.
    pub(super) fn prepare(
        &self,
        shared: &Shared,
        interfaces: &Interfaces,
        fits_pool: bool,
    ) -> Result<Prepared, Failure> {
        let slot = match &self.0.pooled {
            Some(_) if fits_pool => shared.engines.slot(),
            _ => None,
        };
        let (base, component) = match (&slot, &self.0.pooled, shared.engines.pooled()) {
            (Some(_), Some(component), Some(base)) => (base, component),
            _ => self.component_on_demand(&shared.engines)?,
        };
        let instance = self.linked(base, component, interfaces, slot.is_some())?;
        Ok(Prepared {
            instance,
            engine: base.engine.clone(),
            _slot: slot,
        })
    }

    fn component_on_demand<'a>(&'a self, engines: &'a Engines) -> Result<(&'a Base, &'a Component), Failure> {
        let base = engines.on_demand()?;
        if let Some(component) = self.0.on_demand.get() {
            return Ok((base, component));
        }
        let made = deserialize(&base.engine, &self.0.code).map_err(|error| {
            let message = format!("plugin `{}` cannot be loaded: {error:#}", self.0.plugin);
            Failure::new(Turn::Windlass, "sandbox.engine", message)
        })?;
        Ok((base, self.0.on_demand.get_or_init(|| made)))
    }

    fn linked(
        &self,
        base: &Base,
        component: &Component,
        interfaces: &Interfaces,
        is_pooled: bool,
    ) -> Result<InstancePre<State>, Failure> {
        let [pooled, on_demand] = &self.0.prepared;
        let prepared = if is_pooled { pooled } else { on_demand };
        let mut prepared = prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(instance) = prepared.get(interfaces) {
            return Ok(instance.clone());
        }
        let mut linker = (*base.linker).clone();
        link::link(&mut linker, component, &self.0.plugin, interfaces)?;
        let instance = linker.instantiate_pre(component).map_err(|error| {
            let message = format!(
                "plugin `{}` asks for what is not offered: {error:#}",
                self.0.plugin
            );
            Failure::new(Turn::Plugin, "plugin.unknown-import", message)
                .help("build it against the WIT of this Windlass and WASI 0.2 or 0.3")
        })?;
        prepared.insert(interfaces.clone(), instance.clone());
        Ok(instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"(component
        (core module $module (memory 1) (func (export "f") (result i32) i32.const 1))
        (core instance (instantiate $module)))"#;

    fn compiled() -> (catalog::Component, Vec<u8>) {
        let component = catalog::Component::new("p", wat::parse_str(TEXT).expect("valid text"));
        let engine = super::super::engine::compiler().expect("starts");
        let code = engine.precompile_component(&component.bytes).expect("compiles");
        (component, code)
    }

    #[test]
    fn code_runs_in_the_pool_and_on_demand() {
        let engines = Engines::new().expect("starts");
        let (component, code) = compiled();
        let loaded = make(&engines, &component, code).expect("loads");
        assert!(loaded.0.pooled.is_some(), "both engines take the same code");
        assert!(loaded.component_on_demand(&engines).is_ok());
    }

    /// The second line behind the cache's MAC: wasmtime's own header.
    #[test]
    fn what_this_engine_has_not_compiled_is_refused() {
        let engine = super::super::engine::compiler().expect("starts");
        let (_, code) = compiled();
        assert!(deserialize(&engine, &code).is_ok());
        assert!(deserialize(&engine, b"garbage").is_err());
        assert!(deserialize(&engine, &code[..100]).is_err());
        let other = Engine::new(wasmtime::Config::new().wasm_component_model(true)).expect("starts");
        let foreign = other
            .precompile_component(&wat::parse_str(TEXT).expect("valid text"))
            .expect("compiles");
        assert!(
            deserialize(&engine, &foreign).is_err(),
            "compiled without interruption by epochs"
        );
    }
}
