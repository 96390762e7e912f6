//! The plugin interface in Rust, generated from `wit/`: the only `bindgen!`. Knows no policy and no state.
//!
//! The optional exports are bound one world each, so that a component that lacks one still binds the others.

use crate::failure::{Failure, Turn};

wasmtime::component::bindgen!({
    path: "../wit",
    world: "windlass:worlds/host",
    imports: { default: async | trappable },
    exports: { default: async },
    // A service that keeps something behind a handle names its type here.
    with: {
        "windlass:artifacts/store.writer": crate::service::artifact::Writer,
        "windlass:flow/streams.source": crate::service::flow::Source,
        "windlass:flow/streams.sink": crate::service::flow::Sink,
        "windlass:artifacts/store.reader": crate::service::artifact::Reader,
        "windlass:secrets/store.secret": crate::service::secret::Handle,
        "windlass:sql/database.connection": crate::service::sql::Connection,
    },
});

/// `planner`, where a component exports it.
pub mod planner {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "windlass:worlds/host-planner",
        exports: { default: async },
        with: { "windlass:stage/types": crate::wit::windlass::stage::types },
    });
}

/// `compensator`, where a component exports it.
pub mod compensator {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "windlass:worlds/host-compensator",
        exports: { default: async },
        with: { "windlass:stage/types": crate::wit::windlass::stage::types },
    });
}

/// `reconciler`, where a component exports it.
pub mod reconciler {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "windlass:worlds/host-reconciler",
        exports: { default: async },
        with: { "windlass:stage/types": crate::wit::windlass::stage::types },
    });
}

/// What every plugin exports.
pub use Host_ as Lifecycle;
pub use windlass::stage::types::{Error as GuestError, Outcome as GuestOutcome};

/// What a host function answers when it fails: the failure without whose turn it is, which the guest cannot use.
impl From<Failure> for GuestError {
    fn from(failure: Failure) -> Self {
        let mut details = match failure.details {
            Some(serde_json::Value::Object(details)) => details,
            Some(other) => serde_json::Map::from_iter([("value".to_string(), other)]),
            None => serde_json::Map::new(),
        };
        if let Some(help) = failure.help {
            details.insert("help".into(), help.into());
        }
        Self {
            code: failure.code,
            message: failure.message,
            retryable: failure.retryable,
            details: (!details.is_empty()).then(|| serde_json::Value::Object(details).to_string()),
        }
    }
}

/// A failure that ends the guest at once, through a trap: for host functions without a result.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub struct Abort(pub Failure);

impl Abort {
    /// The plugin is at fault.
    pub fn plugin(code: &'static str, message: impl Into<String>) -> wasmtime::Error {
        wasmtime::Error::new(Self(Failure::new(Turn::Plugin, code, message)))
    }
}
