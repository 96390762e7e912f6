//! Compiling in a child, and what the cache keeps of it.

use std::{
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};
use windlass::{
    catalog::Component,
    sandbox::{Sandbox, SandboxSettings, compile::ARGUMENT},
};
use windlass_tests::component::{guest, module};

fn sandbox(compile_command: &str, cache: Option<PathBuf>) -> Sandbox {
    let settings = SandboxSettings {
        cache_directory: cache,
        compile_command: Some(compile_command.into()),
    };
    Sandbox::new(settings).expect("starts")
}

#[tokio::test]
async fn the_child_compiles_and_the_cache_remembers() {
    let directory = tempfile::tempdir().expect("temporary");
    let cache = directory.path().join("cache");
    let child = env!("CARGO_BIN_EXE_windlass-under-test");
    let component = guest("hostile");
    let load = async |command: &str| {
        let sandbox = sandbox(command, Some(cache.clone()));
        sandbox
            .load(&component)
            .await
            .map(drop)
            .map_err(|failure| failure.code)
    };
    assert_eq!(load("/no/such/compiler").await, Err("sandbox.compiler".into()));
    assert_eq!(load(child).await, Ok(()));
    assert_eq!(load("/no/such/compiler").await, Ok(()), "it comes from the cache");

    let entries = std::fs::read_dir(&cache).expect("made").flatten();
    let code = entries
        .map(|entry| entry.path())
        .find(|path| !path.ends_with("key"));
    let code = code.expect("one component is kept");
    let mut bytes = std::fs::read(&code).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&code, bytes).expect("written");
    assert_eq!(
        load("/no/such/compiler").await,
        Err("sandbox.compiler".into()),
        "changed code is never used"
    );
}

#[tokio::test]
async fn what_does_not_compile() {
    let child = sandbox(env!("CARGO_BIN_EXE_windlass-under-test"), None);
    let check = async |bytes: Vec<u8>, code: &str, part: &str| {
        let failure = child
            .load(&Component::new("./p.wasm", bytes))
            .await
            .err()
            .expect("refused");
        assert_eq!(failure.code, code, "{failure:?}");
        assert!(
            failure.message.contains("./p.wasm") && failure.message.contains(part),
            "{failure:?}"
        );
    };
    check(b"not wasm".to_vec(), "plugin.invalid", "").await;
    let mut cut = guest("hostile").bytes.to_vec();
    cut.truncate(cut.len() / 2);
    check(cut, "plugin.invalid", "").await;
    let refused = [
        (
            r#"(memory (export "memory") 1) (memory i64 1) (func (export "run") (result i32) i32.const 0)"#,
            "memory64",
        ),
        (
            r#"(memory (export "memory") 1) (func $f (export "run") (result i32) return_call $f)"#,
            "tail calls",
        ),
        (
            r#"(memory (export "memory") 1) (tag $t) (func (export "run") (result i32) throw $t)"#,
            "exceptions",
        ),
        (
            r#"(memory (export "memory") 1) (type (struct)) (func (export "run") (result i32) i32.const 0)"#,
            "gc",
        ),
    ];
    for (body, part) in refused {
        check(module("./p.wasm", body).bytes.to_vec(), "plugin.invalid", part).await;
    }
}

/// Whatever kills the child (memory, processor time), the host has a failure in its hand.
#[tokio::test]
async fn a_compiler_that_is_killed() {
    let script = tempfile::NamedTempFile::new().expect("temporary");
    let path = script.into_temp_path();
    std::fs::write(&path, "#!/bin/sh\nkill -9 $$\n").expect("written");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("changed");
    let killed = sandbox(path.to_str().expect("text"), None);
    let failure = killed.load(&guest("hostile")).await.err().expect("killed");
    assert_eq!(failure.code, "limit.compile");
}

/// The child puts itself under its limits before it reads a byte: they are seen from outside while it waits.
#[test]
fn the_child_is_limited() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_windlass-under-test"))
        .arg(ARGUMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let path = format!("/proc/{}/limits", child.id());
    let limited = |limits: &str| {
        ["Max address space", "Max cpu time", "Max open files"]
            .iter()
            .all(|name| {
                limits
                    .lines()
                    .any(|line| line.starts_with(name) && !line.contains("unlimited"))
            })
            && limits
                .lines()
                .any(|line| line.starts_with("Max file size             0"))
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut limits = String::new();
    while !limited(&limits) && Instant::now() < deadline {
        limits = std::fs::read_to_string(&path).expect("it runs");
        std::thread::yield_now();
    }
    drop(child.stdin.take());
    let status = child.wait().expect("ends");
    assert!(limited(&limits), "{limits}");
    assert_eq!(status.code(), Some(1), "nothing is no component");
}
