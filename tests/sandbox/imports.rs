//! What a component asks for: undeclared, of another ABI, declared and not needed.

use serde_json::json;
use windlass::{
    capability::Capability,
    service::link::{Interfaces, Kind},
};
use windlass_tests::{
    attempt::Setup,
    component::{component, guest},
};

const NOTHING: &str = r#"(memory (export "memory") 1) (func (export "run") (result i32) i32.const 0)"#;
const LIFECYCLE: &str = "windlass:stage/lifecycle@0.1.0";

#[tokio::test]
async fn refused_before_anything_runs() {
    let check = async |imports: &str, export: &str, code: Option<&str>, part: &str| {
        let ended = Setup::default()
            .run(&component("./p.wasm", imports, NOTHING, export))
            .await;
        let failure = ended.outcome.err();
        assert_eq!(
            failure.as_ref().map(|failure| failure.code.as_str()),
            code,
            "{imports} {failure:?}"
        );
        if let Some(failure) = failure {
            assert!(
                failure.message.contains(part) && failure.message.contains("./p.wasm"),
                "{}",
                failure.message
            );
        }
    };
    let instance = |name: &str| format!(r#"(import "{name}" (instance))"#);
    check("", LIFECYCLE, None, "").await;
    check("", "windlass:stage/lifecycle@0.1.9", None, "").await;
    check(
        "",
        "windlass:stage/other@0.1.0",
        Some("plugin.not-a-stage"),
        "lifecycle",
    )
    .await;
    check(&instance("windlass:stage/context@0.1.0"), LIFECYCLE, None, "").await;
    let undeclared = Some("plugin.undeclared-import");
    check(
        &instance("windlass:sql/database@0.1.0"),
        LIFECYCLE,
        undeclared,
        "windlass:sql/database",
    )
    .await;
    check(
        &instance("windlass:made/up@0.1.0"),
        LIFECYCLE,
        undeclared,
        "windlass:made/up",
    )
    .await;
    let old = "targets ABI 0.2, this Windlass offers 0.1";
    check(
        &instance("windlass:stage/context@0.2.0"),
        LIFECYCLE,
        Some("plugin.abi"),
        old,
    )
    .await;
    let function = r#"(import "wasi:made/up@0.2.0" (instance (export "f" (func))))"#;
    check(function, LIFECYCLE, Some("plugin.unknown-import"), "wasi:made/up").await;
    let function =
        r#"(import "windlass:stage/context@0.1.0" (instance (export "secrets" (func (result string)))))"#;
    check(function, LIFECYCLE, Some("plugin.unknown-import"), "secrets").await;
}

#[tokio::test]
async fn declared_and_not_needed_is_a_stub_that_denies() {
    let setup = Setup::with(json!({ "do": "use-ungranted" }));
    let undeclared = setup
        .run(&guest("hostile"))
        .await
        .outcome
        .expect_err("not linked");
    assert_eq!(undeclared.code, "plugin.undeclared-import");

    let setup = Setup::with(json!({ "do": "use-ungranted" })).stub("windlass:tcp/probe");
    let ended = setup.run(&guest("hostile")).await;
    let written: Vec<_> = ended
        .decisions
        .iter()
        .map(|decision| (decision.capability, decision.value.as_str(), decision.allowed))
        .collect();
    assert_eq!(
        written,
        [(Capability::Tcp, "windlass:tcp/probe.connect", false)],
        "the decision is written down"
    );
    let denied = ended.outcome.expect_err("denied");
    assert_eq!(denied.code, "grant.denied");
    assert!(
        denied.message.contains("windlass:tcp/probe.connect"),
        "{}",
        denied.message
    );
    assert!(denied.help.is_some());
}

/// All interfaces as stubs at once: also those that hand each other's handles on.
#[tokio::test]
async fn every_function_of_every_stub_denies() {
    let stubs = || {
        let mut interfaces = Interfaces::default();
        let names = windlass::capability::TABLE.iter().flat_map(|row| row.interfaces);
        names.for_each(|name| interfaces.add(*name, Kind::Stub));
        interfaces
    };
    for (call, on) in [
        ("secrets.get", "a"),
        ("secrets.put", "a"),
        ("secrets.put-fields", "a"),
        ("artifacts.create", "a"),
        ("artifacts.open", "a/b"),
        ("artifacts.list", ""),
        ("flow.from-file", "/a"),
        ("flow.from-directory", "/a"),
        ("flow.from-sqlite", "sqlite:///a"),
        ("flow.from-artifact", "a/b"),
        ("flow.to-directory", "/a"),
        ("flow.to-sqlite", "sqlite:///a"),
        ("sql.query", "sqlite:///a"),
        ("process.run", "true"),
        ("tcp.connect", "127.0.0.1:1"),
        ("http.get", "http://127.0.0.1:1/"),
    ] {
        let setup = Setup {
            interfaces: stubs(),
            ..Setup::with(json!({ "call": call, "on": on }))
        };
        let outcome = setup
            .run(&guest("probe"))
            .await
            .outcome
            .expect("the probe itself succeeds");
        assert_eq!(
            outcome.outputs["code"], "grant.denied",
            "{call}: {}",
            outcome.outputs["message"]
        );
    }
}
