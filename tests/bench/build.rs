//! Builds the plugin that does nothing for wasm32-wasip2.

use std::{env, path::PathBuf, process::Command};

const TARGET: &str = "wasm32-wasip2";

fn main() {
    let bench = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    let root = bench
        .ancestors()
        .nth(2)
        .expect("the package is in tests/ of the workspace");
    for input in ["tests/bench/noop", "plugins/guest", "wit", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    // The directory in which host/build.rs builds the plugins: the dependencies are the same.
    let target_directory = out.ancestors().nth(4).expect("cargo's layout").join("plugins");
    let mut cargo = Command::new(env::var("CARGO").expect("cargo sets it"));
    cargo
        .current_dir(root)
        .args([
            "rustc",
            "--package",
            "windlass-guest-noop",
            "--profile",
            "plugin",
            "--target",
            TARGET,
        ])
        .args(["--crate-type", "cdylib", "--target-dir"])
        .arg(&target_directory);
    // What concerns the compilation of the benchmarks must not reach the guest's.
    for (variable, _) in env::vars() {
        let is_own = variable.starts_with("CARGO_")
            && !["CARGO_HOME", "CARGO_NET_OFFLINE"].contains(&variable.as_str());
        if is_own || ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"].contains(&variable.as_str()) {
            cargo.env_remove(variable);
        }
    }
    let output = cargo.output().expect("cargo can be started: it started this");
    if !output.status.success() {
        panic!(
            "the guest does not build:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let component = target_directory
        .join(TARGET)
        .join("plugin")
        .join("windlass_guest_noop.wasm");
    println!("cargo::rustc-env=NOOP_COMPONENT={}", component.display());
}
