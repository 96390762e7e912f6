//! Builds the guests of the tests for wasm32-wasip2 and writes `guests.rs`, which embeds them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "wasm32-wasip2";

fn main() {
    let tests = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    let root = tests
        .parent()
        .expect("the package is in the workspace's directory");
    for input in ["tests/guests", "plugins/guest", "wit", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    // The directory in which host/build.rs builds the plugins: the dependencies are the same.
    let target_directory = out.ancestors().nth(4).expect("cargo's layout").join("plugins");
    let mut table = String::from("const GUESTS: &[(&str, &[u8])] = &[\n");
    for name in guests(&tests.join("guests")) {
        let component = build(root, &target_directory, &name);
        table += &format!("    ({name:?}, include_bytes!({:?})),\n", component.display());
    }
    table += "];\n";
    fs::write(out.join("guests.rs"), table).expect("OUT_DIR can be written");
}

fn guests(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("tests/guests exists");
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("Cargo.toml").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn build(root: &Path, target_directory: &Path, name: &str) -> PathBuf {
    let package = format!("windlass-guest-{name}");
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
    // What concerns the compilation of the tests must not reach the guest's.
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
            "the guest `{name}` does not build:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let file = format!("{}.wasm", package.replace('-', "_"));
    target_directory.join(TARGET).join("plugin").join(file)
}
