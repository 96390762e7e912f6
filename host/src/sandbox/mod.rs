//! From a component to the outcome of one attempt: compiled under limits, linked as granted, run in a store of its own.
//!
//! Wasmtime lives here and in `service`, nowhere else. This module knows no pipeline, no policy and no journal.

mod cache;
pub mod call;
pub mod compile;
mod engine;
pub mod load;
mod trap;

pub use call::{Answer, Attempt, AttemptResult, Call, Outcome, Reconciled};
pub use load::Loaded;

use crate::{catalog, failure::Failure};
use engine::Engines;
use std::{collections::HashMap, path::PathBuf, sync::Arc, sync::Mutex};
use tokio::sync::OnceCell;

/// How the sandbox is set up.
#[derive(Clone, Debug, Default)]
pub struct SandboxSettings {
    /// Where compiled code is kept, private to this user. Without one, every component is compiled in each process.
    pub cache_directory: Option<PathBuf>,
    /// The executable that compiles, called as `<it> __compile` under limits. Without one, this process compiles: for tests
    /// with components of their own.
    pub compile_command: Option<PathBuf>,
}

/// Engines, the cache, and what is loaded. One for a process; cheap to clone.
#[derive(Clone)]
pub struct Sandbox(Arc<Shared>);

struct Shared {
    engines: Engines,
    cache: Option<cache::Cache>,
    compile_command: Option<PathBuf>,
    loaded: Mutex<HashMap<catalog::Digest, Arc<OnceCell<Loaded>>>>,
}

impl Sandbox {
    /// # Errors
    /// `sandbox.engine`: this machine cannot run plugins. `cache.unusable`: the cache directory is not private.
    pub fn new(settings: SandboxSettings) -> Result<Self, Failure> {
        let engines = Engines::new()?;
        // Either engine takes the other's code; the pooled one is there already.
        let engine = match engines.pooled() {
            Some(base) => base,
            None => engines.on_demand()?,
        };
        let open = |directory| cache::Cache::open(directory, &engine.engine);
        let cache = settings.cache_directory.map(open).transpose()?;
        Ok(Self(Arc::new(Shared {
            engines,
            cache,
            compile_command: settings.compile_command,
            loaded: Mutex::default(),
        })))
    }

    /// The component, ready to be instantiated; compiled once in a process, and once in a cache.
    ///
    /// # Errors
    /// `plugin.invalid`: it does not compile. `limit.compile`: not within its limits.
    pub async fn load(&self, component: &catalog::Component) -> Result<Loaded, Failure> {
        let cell = {
            let mut loaded = self
                .0
                .loaded
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            loaded.entry(component.digest).or_default().clone()
        };
        let load = || load::load(self, component);
        cell.get_or_try_init(load).await.cloned()
    }

    /// One attempt: a fresh store, instantiated, called once, dropped.
    pub async fn call(&self, loaded: &Loaded, attempt: Attempt, call: Call) -> AttemptResult {
        call::call(self, loaded, attempt, call).await
    }
}
