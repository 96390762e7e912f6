//! Builds the built-in plugins for wasm32-wasip2, in a target directory of their own, and writes `built_in.rs`, which embeds
//! them: so that `cargo build` is all that it takes.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Directories of `plugins/` that are no plugins.
const LIBRARIES: [&str; 2] = ["guest", "compose"];

const TARGET: &str = "wasm32-wasip2";

fn main() {
    let host = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    let root = host
        .parent()
        .expect("the package is in the workspace's directory");
    for input in ["plugins", "wit", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    // <target>/<profile>/build/<package>/out: the plugins are the same for every profile, so they are built once.
    let target_directory = out.ancestors().nth(4).expect("cargo's layout").join("plugins");
    let mut table = String::from("pub(super) const BUILT_IN: &[(&str, &[u8])] = &[\n");
    for name in plugins(&root.join("plugins")) {
        let component = build(root, &target_directory, &name);
        table += &format!("    ({name:?}, include_bytes!({:?})),\n", component.display());
    }
    table += "];\n";
    fs::write(out.join("built_in.rs"), table).expect("OUT_DIR can be written");
}

/// The names of the plugins, sorted.
fn plugins(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("the workspace has plugins/");
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("plugin.json").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !LIBRARIES.contains(&name.as_str()))
        .collect();
    names.sort();
    names
}

/// `--crate-type` takes one package at a time; the dependencies are compiled by the first and found by the others.
fn build(root: &Path, target_directory: &Path, name: &str) -> PathBuf {
    let package = format!("windlass-plugin-{name}");
    let mut cargo = Command::new(env::var("CARGO").expect("cargo sets it"));
    cargo
        .current_dir(root)
        .args([
            "rustc",
            "--package",
            &package,
            "--profile",
            "plugin",
            "--target",
            TARGET,
        ])
        .args(["--crate-type", "cdylib", "--target-dir"])
        .arg(target_directory);
    // What concerns the host's compilation must not reach the plugin's: flags, wrappers, and cargo's own variables.
    for (variable, _) in env::vars() {
        let is_own = variable.starts_with("CARGO_")
            && !["CARGO_HOME", "CARGO_NET_OFFLINE"].contains(&variable.as_str());
        if is_own || ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"].contains(&variable.as_str()) {
            cargo.env_remove(variable);
        }
    }
    let output = cargo.output().expect("cargo can be started: it started this");
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let help =
            match errors.contains("may not be installed") || errors.contains("can't find crate for `core`") {
                true => {
                    format!("\n\nThe target {TARGET} is missing. Install it with: rustup target add {TARGET}")
                }
                false => String::new(),
            };
        panic!("the plugin `{name}` does not build:\n{errors}{help}");
    }
    let file = format!("{}.wasm", package.replace('-', "_"));
    target_directory.join(TARGET).join("plugin").join(file)
}
