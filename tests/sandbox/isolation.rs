//! What a guest cannot reach: files, network, environment, and the memory of those before it.

use serde_json::json;
use std::{net::TcpListener, os::unix::fs::symlink};
use windlass::{catalog::Component, pattern::Mode};
use windlass_tests::{
    attempt::Setup,
    component::{guest, module},
};

fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("temporary");
    let workspace = root.path().join("workspace");
    std::fs::create_dir_all(workspace.join("sub")).expect("made");
    std::fs::create_dir(root.path().join("scratch")).expect("made");
    std::fs::write(workspace.join("file"), "contents").expect("written");
    symlink("/etc", workspace.join("link-out")).expect("linked");
    symlink("/etc/passwd", workspace.join("absolute-link")).expect("linked");
    root
}

#[tokio::test]
async fn files_are_those_granted() {
    let check = async |mount: Option<Mode>, written: &[&str], changed: &[&str]| {
        let tree = tree();
        let mut setup = Setup::with(json!({ "do": "open-everything" })).stub("windlass:tcp/probe");
        if let Some(mode) = mount {
            setup = setup
                .mount("/workspace", &tree.path().join("workspace"), mode)
                .mount("/tmp", &tree.path().join("scratch"), Mode::ReadWrite);
        }
        let outcome = setup.run(&guest("hostile")).await.outcome.expect("it only looks");
        assert_eq!(outcome.outputs["opened"], json!([]));
        assert_eq!(outcome.outputs["written"], json!(written));
        assert_eq!(outcome.outputs["changed"], json!(changed));
        assert_eq!(outcome.outputs["granted"], json!(mount == Some(Mode::ReadOnly)));
        assert_eq!(outcome.outputs["scratch"], json!(mount.is_some()));
    };
    check(None, &[], &[]).await;
    check(Some(Mode::ReadOnly), &[], &[]).await;
    // The control: with write access the same calls succeed, so the refusals above are the mode's doing. (The file is removed
    // in between, hence no rename, link or truncation of it.)
    let written = ["/workspace/new", "/workspace/file", "/workspace/sub/new"];
    check(Some(Mode::ReadWrite), &written, &["remove", "make"]).await;
}

#[tokio::test]
async fn the_network_is_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.set_nonblocking(true).expect("set");
    let port = listener.local_addr().expect("bound").port();
    let setup = Setup {
        environment: vec![("PORT".into(), port.to_string())],
        ..Setup::with(json!({ "do": "reach-out" })).stub("windlass:tcp/probe")
    };
    let outcome = setup.run(&guest("hostile")).await.outcome.expect("it only tries");
    assert_eq!(outcome.outputs["reached"], json!([]));
    assert!(listener.accept().is_err(), "nobody came");
}

#[tokio::test]
async fn the_environment_is_what_was_granted() {
    let setup = Setup {
        environment: vec![("APP_ENV".into(), "test".into())],
        ..Setup::with(json!({ "do": "show-environment" })).stub("windlass:tcp/probe")
    };
    let outcome = setup.run(&guest("hostile")).await.outcome.expect("shown");
    assert_eq!(outcome.outputs["variables"], json!([["APP_ENV", "test"]]));
    assert_eq!(outcome.outputs["arguments"], json!([]));
}

/// Ten thousand instances in the slots of the pool: each looks for the mark of those before it, through all of its memory
/// and table, and leaves its own.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_the_instance_before() {
    const ROUNDS: usize = 10_000;
    let looked_twice = Setup::default().run(&canary(2)).await.outcome;
    assert_eq!(
        looked_twice.expect_err("the canary sees its own mark").code,
        "plugin.trap"
    );
    let canary = canary(1);
    let mut running = tokio::task::JoinSet::new();
    for round in 0..ROUNDS {
        if running.len() >= 8 {
            running.join_next().await.expect("some").expect("joins");
        }
        let canary = canary.clone();
        running.spawn(async move {
            let ended = Setup::default().run(&canary).await;
            assert!(ended.outcome.is_ok(), "round {round}: {:?}", ended.outcome);
        });
    }
    while let Some(joined) = running.join_next().await {
        joined.expect("joins");
    }
}

/// Looks through its memory and table for marks, and leaves them everywhere; so many times.
fn canary(times: u32) -> Component {
    let body = format!(
        r#"(memory (export "memory") 8)
           (table $table 64 funcref)
           (elem declare func $mark)
           (func $mark)
           (func $look (local $at i32)
             (loop $next
               (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
               (i64.store (local.get $at) (i64.const 0xCA9A_12CA_9A12_CA9A))
               (local.set $at (i32.add (local.get $at) (i32.const 8)))
               (br_if $next (i32.lt_u (local.get $at) (i32.const 524288))))
             (if (i32.eqz (ref.is_null (table.get $table (i32.const 63)))) (then unreachable))
             (table.set $table (i32.const 63) (ref.func $mark))
             ;; Grown memory comes from the slot too.
             (if (i32.ne (memory.grow (i32.const 8)) (i32.const 8)) (then unreachable))
             (if (i64.ne (i64.load (i32.const 1048568)) (i64.const 0)) (then unreachable))
             (i64.store (i32.const 1048568) (i64.const -1)))
           (func (export "run") (result i32)
             {}
             (memory.fill (i32.const 0) (i32.const 0) (i32.const 64))
             i32.const 0)"#,
        "call $look\n".repeat(times as usize)
    );
    module("canary", &body)
}
