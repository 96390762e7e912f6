//! The interface of `wit/` as Rust, generated. One module for everything a plugin may import and one for each export:
//! a component must export all that its world exports, so an export nobody implements must not be in the same world.
//! Imports nobody calls are dropped by the linker, which keeps the audit of a plugin exact.
#![allow(
    unsafe_code,
    unreachable_pub,
    missing_docs,
    clippy::all,
    reason = "generated from wit/"
)]

pub use imports::windlass::*;

/// Everything a plugin may import.
mod imports {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: r#"
            package windlass:guest@0.1.0;
            world imports {
                import windlass:stage/types@0.1.0;
                import windlass:stage/context@0.1.0;
                import windlass:stage/events@0.1.0;
                import windlass:secrets/store@0.1.0;
                import windlass:secrets/reveal@0.1.0;
                import windlass:secrets/sink@0.1.0;
                import windlass:artifacts/store@0.1.0;
                import windlass:flow/streams@0.1.0;
                import windlass:objects/store@0.1.0;
                import windlass:sql/database@0.1.0;
                import windlass:process/runner@0.1.0;
                import windlass:tcp/probe@0.1.0;
                import windlass:containers/images@0.1.0;
                import windlass:containers/engine@0.1.0;
                import windlass:containers/exec@0.1.0;
                import windlass:containers/compose@0.1.0;
            }
        "#,
        world: "windlass:guest/imports",
        generate_all,
    });
}

/// The mandatory export.
pub mod lifecycle {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: r#"
            package windlass:guest@0.1.0;
            world only-lifecycle { export windlass:stage/lifecycle@0.1.0; }
        "#,
        world: "windlass:guest/only-lifecycle",
        with: { "windlass:stage/types@0.1.0": crate::bindings::stage::types },
        pub_export_macro: true,
        export_macro_name: "export_lifecycle",
        default_bindings_module: "windlass_guest::bindings::lifecycle",
    });
}

/// The optional export `planner`.
pub mod planner {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "windlass:worlds/host-planner",
        with: { "windlass:stage/types@0.1.0": crate::bindings::stage::types },
        pub_export_macro: true,
        export_macro_name: "export_planner",
        default_bindings_module: "windlass_guest::bindings::planner",
    });
}

/// The optional export `compensator`.
pub mod compensator {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "windlass:worlds/host-compensator",
        with: { "windlass:stage/types@0.1.0": crate::bindings::stage::types },
        pub_export_macro: true,
        export_macro_name: "export_compensator",
        default_bindings_module: "windlass_guest::bindings::compensator",
    });
}

/// The optional export `reconciler`.
pub mod reconciler {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "windlass:worlds/host-reconciler",
        with: { "windlass:stage/types@0.1.0": crate::bindings::stage::types },
        pub_export_macro: true,
        export_macro_name: "export_reconciler",
        default_bindings_module: "windlass_guest::bindings::reconciler",
    });
}
