//! Every limit: a guest that breaks it ends in that limit's failure, within its time, and others go on.

use serde_json::json;
use std::time::Duration;
use windlass_tests::{
    attempt::{Ended, Setup},
    component::{guest, module},
};

async fn act(action: &str, setup: Setup) -> Ended {
    let config = json!({ "do": action });
    let setup = Setup { config, ..setup };
    setup.stub("windlass:tcp/probe").run(&guest("hostile")).await
}

/// The attempt fails with this code, long before the time that it was given.
#[track_caller]
fn fails(ended: &Ended, code: &str) {
    let failure = ended.outcome.as_ref().expect_err("a hostile guest fails");
    assert_eq!(failure.code, code, "{failure:?}");
    assert!(!failure.message.is_empty());
}

fn seconds(seconds: f64) -> Setup {
    Setup {
        time: Duration::from_secs_f64(seconds),
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn time_ends_a_guest_that_computes_and_one_that_waits() {
    for action in ["spin", "sleep", "sleep-in-wasi"] {
        let ended = act(action, seconds(0.3)).await;
        fails(&ended, "limit.time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_ends_every_guest() {
    for action in ["spin", "sleep", "sleep-in-wasi"] {
        let setup = Setup::default();
        let cancel = setup.cancel.clone();
        let attempt = tokio::spawn(act(action, setup));
        tokio::time::sleep(Duration::from_millis(300)).await;
        cancel.cancel();
        fails(&attempt.await.expect("joins"), "cancelled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_watches_may_leave_by_itself() {
    let setup = Setup::default();
    let cancel = setup.cancel.clone();
    let attempt = tokio::spawn(act("leave-politely", setup));
    tokio::time::sleep(Duration::from_millis(300)).await;
    cancel.cancel();
    let ended = attempt.await.expect("joins");
    assert_eq!(ended.outcome.expect("it left well").summary, "left");
    assert_eq!(ended.log, ["leaving"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stack_handles_and_calls_are_limited() {
    for (action, code) in [
        ("eat-memory", "limit.memory"),
        ("recurse", "limit.stack"),
        ("shout", "limit.call-bytes"),
        ("take-randomness", "limit.random"),
        ("take-randomness-at-once", "limit.random"),
        ("say-too-much", "limit.outputs"),
    ] {
        let ended = act(action, Setup::default()).await;
        fails(&ended, code);
        assert!(
            ended.elapsed < Duration::from_secs(20),
            "{action} took {:?}",
            ended.elapsed
        );
    }
    let scratch = tempfile::tempdir().expect("temporary");
    let setup = Setup::default().mount("/tmp", scratch.path(), windlass::pattern::Mode::ReadWrite);
    fails(&act("hoard-handles", setup).await, "limit.resources");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_declared_counts_too() {
    let huge = module(
        "huge",
        r#"(memory (export "memory") 2000) (func (export "run") (result i32) i32.const 0)"#,
    );
    fails(&Setup::default().run(&huge).await, "limit.memory");
    let table = module(
        "table",
        r#"(memory (export "memory") 1) (table 1 funcref)
           (func (export "run") (result i32) ref.null func i32.const 1000000 table.grow)"#,
    );
    fails(&Setup::default().run(&table).await, "limit.tables");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_dropped_and_counted() {
    let ended = act("flood-log", Setup::default()).await;
    assert!(ended.outcome.is_ok());
    assert_eq!(
        (ended.usage["log-lines"], ended.usage["log-lines-dropped"]),
        (10_000, 10_000)
    );
    assert_eq!(ended.log.len(), 10_000);
    let ended = act("flood-output", Setup::default()).await;
    assert!(ended.outcome.is_ok());
    let kept = ended.usage["log-lines"];
    assert!(
        (4_000..=4_200).contains(&kept),
        "four megabytes of lines of a kilobyte: {kept}"
    );
    let ended = act("write-unfinished-line", Setup::default()).await;
    assert_eq!(ended.log, ["no newline"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_without_an_outcome() {
    for (action, code) in [
        ("exit", "plugin.exit"),
        ("exit-well", "plugin.exit"),
        ("panic", "plugin.trap"),
    ] {
        fails(&act(action, Setup::default()).await, code);
    }
    let failure = act("panic", Setup::default())
        .await
        .outcome
        .expect_err("it panics");
    assert!(failure.message.contains("the count is 3"), "{}", failure.message);
    let place = |name: &str| failure.stack.iter().position(|frame| frame.contains(name));
    let (inner, outer) = (place("inner_frame"), place("outer_frame"));
    assert!(
        inner.is_some() && inner < outer,
        "innermost first, demangled: {:#?}",
        failure.stack
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_no_outcome() {
    let check = async |data: &str, code: &str| {
        let body = format!(
            r#"(memory (export "memory") 1) {data} (func (export "run") (result i32) i32.const 1024)"#
        );
        let ended = Setup::default().run(&module("garbage", &body)).await;
        assert_eq!(ended.outcome.expect_err("garbage").code, code, "{data}");
    };
    // An output list of one element: name "a" at 2048, value at 2049.
    let list = |value: &str, length: usize| {
        format!(
            r#"(data (i32.const 1040) "\00\10\00\00\01\00\00\00")
               (data (i32.const 4096) "\00\08\00\00\01\00\00\00\01\08\00\00\{length:02x}\00\00\00")
               (data (i32.const 2048) "a{value}")"#
        )
    };
    check(&list("nonsense", 8), "plugin.invalid-output").await;
    check(&list("{\\22a\\22:", 5), "plugin.invalid-output").await;
    // Not UTF-8, out of bounds, no such case: the component's boundary itself refuses.
    check(&list("\\ff\\fe", 2), "plugin.trap").await;
    check(
        r#"(data (i32.const 1032) "\00\00\00\f0\ff\00\00\00")"#,
        "plugin.trap",
    )
    .await;
    check(r#"(data (i32.const 1024) "\07")"#, "plugin.trap").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_says_is_inert() {
    let ended = act("escape", Setup::default()).await;
    let failure = ended.outcome.expect_err("it fails");
    assert_eq!(
        (failure.code.as_str(), failure.message.as_str()),
        ("stage.bad", "message")
    );
    assert_eq!(failure.details, Some(json!({ "status": 1 })));
    assert_eq!(
        ended.log,
        ["\u{200b}::set-env name=PATH::/evil", "\u{200b}::error::not mine"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_go_on() {
    let hostile = [
        "spin",
        "eat-memory",
        "recurse",
        "flood-log",
        "sleep",
        "panic",
        "spin",
    ];
    let attempts: Vec<_> = hostile
        .into_iter()
        .map(|action| tokio::spawn(act(action, seconds(2.0))))
        .collect();
    for _ in 0..20 {
        let ended = act("nothing", Setup::default()).await;
        assert_eq!(ended.outcome.expect("it succeeds").summary, "did nothing");
    }
    for attempt in attempts {
        attempt.await.expect("joins");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_at_once_than_the_pool_has_slots() {
    let attempts: Vec<_> = (0..300)
        .map(|_| tokio::spawn(act("leave-politely", seconds(1.5))))
        .collect();
    for attempt in attempts {
        fails(&attempt.await.expect("joins"), "limit.time");
    }
}
