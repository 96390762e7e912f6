//! What a Windlass plugin is written against. A plugin is a type with a `run` function and a metadata file:
//!
//! ```
//! use windlass_guest::{Error, Outcome, Stage};
//!
//! struct Greet;
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     name: String,
//! }
//!
//! impl Stage for Greet {
//!     type Config = Config;
//!     fn run(config: Config) -> Result<Outcome, Error> {
//!         windlass_guest::log::info(format!("greeting {}", config.name));
//!         Ok(Outcome::unchanged(format!("hello, {}", config.name)))
//!     }
//! }
//! // In the plugin's `lib.rs`: windlass_guest::export!(Greet, metadata: "../plugin.json");
//! ```
//!
//! Crates stay `rlib` and are built with
//! `cargo rustc -p NAME --profile plugin --target wasm32-wasip2 --crate-type cdylib`. Everything builds natively too,
//! so that logic can be unit-tested; the host functions behind it exist only inside the sandbox.

pub mod artifacts;
pub mod bindings;
pub mod containers;
pub mod context;
pub mod duration;
pub mod flow;
pub mod http;
pub mod log;
pub mod metadata;
pub mod objects;
pub mod process;
pub mod secrets;
pub mod sql;
pub mod tcp;

mod error;
#[doc(hidden)]
pub mod stage;

pub use error::Error;
pub use stage::{Compensator, Effect, Outcome, PastEffect, Planner, Reconciler, Stage, Verdict};

/// Exports a [`Stage`] as the component's `lifecycle` and embeds its metadata (a path relative to the calling file)
/// as the custom section `windlass:plugin`. Optional exports are named after it: `planner`, `compensator`,
/// `reconciler`. Outside of Wasm it expands to nothing.
///
/// `windlass_guest::export!(Migrate, metadata: "../plugin.json", planner);`
#[macro_export]
macro_rules! export {
    ($stage:ty, metadata: $metadata:literal $(, $part:ident)* $(,)?) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code)]
        const _: () = {
            struct Glue;
            impl $crate::bindings::lifecycle::exports::windlass::stage::lifecycle::Guest for Glue {
                fn run() -> ::core::result::Result<
                    $crate::bindings::stage::types::Outcome,
                    $crate::bindings::stage::types::Error,
                > {
                    $crate::stage::run::<$stage>()
                }
            }
            $crate::bindings::lifecycle::export_lifecycle!(Glue);
            $( $crate::export_optional!($part, $stage); )*

            #[used]
            #[unsafe(link_section = "windlass:plugin")]
            static METADATA: [u8; include_bytes!($metadata).len()] = *include_bytes!($metadata);
        };
    };
}

/// One optional export; called by [`export!`].
#[doc(hidden)]
#[macro_export]
macro_rules! export_optional {
    (planner, $stage:ty) => {
        impl $crate::bindings::planner::exports::windlass::stage::planner::Guest for Glue {
            fn plan() -> ::core::result::Result<String, $crate::bindings::stage::types::Error> {
                $crate::stage::plan::<$stage>()
            }
        }
        $crate::bindings::planner::export_planner!(Glue);
    };
    (compensator, $stage:ty) => {
        impl $crate::bindings::compensator::exports::windlass::stage::compensator::Guest for Glue {
            fn compensate(
                outputs: Vec<(String, String)>,
                effects: String,
            ) -> ::core::result::Result<
                $crate::bindings::stage::types::Outcome,
                $crate::bindings::stage::types::Error,
            > {
                $crate::stage::compensate::<$stage>(outputs, effects)
            }
        }
        $crate::bindings::compensator::export_compensator!(Glue);
    };
    (reconciler, $stage:ty) => {
        impl $crate::bindings::reconciler::exports::windlass::stage::reconciler::Guest for Glue {
            fn reconcile(
                effect: String,
            ) -> ::core::result::Result<String, $crate::bindings::stage::types::Error> {
                $crate::stage::reconcile::<$stage>(effect)
            }
        }
        $crate::bindings::reconciler::export_reconciler!(Glue);
    };
}
