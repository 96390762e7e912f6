//! Backups of what lives in containers: PostgreSQL, Redis and a directory, of a service in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use serde_json::{Value, json};
use windlass_backup_format::id;
use windlass_backup_format::testing::Machine;
use windlass_guest::{Error, Outcome};
use windlass_plugin_backup::config::Config;
use windlass_plugin_backup::stage;

fn postgres() -> Value {
    json!({ "app": { "postgres": { "container": "team/db", "database": "app", "user": "me", "password": "wlsec_1" } } })
}

fn redis() -> Value {
    json!({ "cache": { "redis": { "container": "team/redis", "password": "wlsec_2" } } })
}

fn uploads() -> Value {
    json!({ "uploads": { "container-path": { "container": "team/backend", "path": "/app/uploads/" } } })
}

fn back_up(machine: &mut Machine, sources: &Value, more: Value) -> Result<Outcome, Error> {
    let mut with = json!({ "sources": sources, "to": [machine.at("one")], "keep": { "last": 2 } });
    with.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let config: Config = serde_json::from_value(with).unwrap();
    stage::run(&config, machine)
}

fn manifest(machine: &Machine) -> Value {
    let id = id::derive(&machine.run, &machine.stage);
    let path = machine.at(&format!("one/{id}/manifest.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A failing backup, after which the target is empty and the containers hold nothing of it.
#[track_caller]
fn check_refused(machine: &mut Machine, sources: &Value, code: &str, text: &str) {
    let error = back_up(machine, sources, json!({})).unwrap_err();
    assert_eq!(error.code, code, "{}", error.message);
    assert!(error.message.contains(text), "{}", error.message);
    assert_eq!(machine.names("one"), [""; 0]);
    check_tidy(machine);
}

#[track_caller]
fn check_tidy(machine: &Machine) {
    let service = &machine.service;
    let databases: Vec<&String> = service.databases.keys().collect();
    assert!(databases.iter().all(|name| *name == "app"), "{databases:?}");
    let left: Vec<&String> = service
        .files
        .keys()
        .filter(|path| path.contains("windlass"))
        .collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn everything_is_dumped_proved_and_described() {
    let mut machine = Machine::new();
    let mut sources = postgres();
    for more in [redis(), uploads()] {
        sources
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
    }
    let outcome = back_up(&mut machine, &sources, json!({})).unwrap();
    assert_eq!(outcome.outputs["verified"], true);
    let id = id::derive(&machine.run, &machine.stage);
    let names = ["app.sql.zst", "cache.rdb.zst", "manifest.json", "uploads.tar.zst"];
    assert_eq!(machine.names(&format!("one/{id}")), names);
    let sources = &manifest(&machine)["sources"];
    assert_eq!(
        sources["app"]["tables"],
        json!({ "public.users": 2, "public.projects": 1 })
    );
    assert_eq!(sources["cache"]["tables"], json!({ "db0": 3 }));
    assert_eq!(sources["uploads"].get("tables"), None);
    assert_eq!(outcome.outputs["sources"]["app"]["rows"], 3);
    check_tidy(&machine);
    let programs = machine.service.programs.join("\n");
    assert!(
        !programs.contains("wlsec_"),
        "a secret is an argument: {programs}"
    );
    assert!(
        !back_up(&mut machine, &postgres_and_more(), json!({}))
            .unwrap()
            .changed
    );
}

fn postgres_and_more() -> Value {
    let mut all = postgres();
    for more in [redis(), uploads()] {
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
    }
    all
}

#[test]
fn a_database_in_use_is_counted_in_its_copy() {
    let mut machine = Machine::new();
    machine.service.in_use = true;
    back_up(&mut machine, &postgres(), json!({})).unwrap();
    assert_eq!(manifest(&machine)["sources"]["app"]["tables"]["public.users"], 2);
    // Unproved, nobody knows what is in it.
    let mut machine = Machine::new();
    machine.service.in_use = true;
    back_up(&mut machine, &postgres(), json!({ "verify": false })).unwrap();
    assert_eq!(manifest(&machine)["sources"]["app"].get("tables"), None);
    let mut machine = Machine::new();
    back_up(&mut machine, &postgres(), json!({ "verify": false })).unwrap();
    assert_eq!(manifest(&machine)["sources"]["app"]["tables"]["public.users"], 2);
}

#[test]
fn what_does_not_end_well_is_never_published() {
    let failed = || Error::new("flow.source-failed", "pg_dump ended with 1: connection lost");
    let mut machine = Machine::new();
    machine.fault = Some(("pg_dump".into(), failed()));
    check_refused(&mut machine, &postgres(), "flow.source-failed", "connection lost");

    let mut machine = Machine::new();
    machine.fault = Some((
        "redis-cli --rdb".into(),
        Error::new("exec.timeout", "it did not end"),
    ));
    check_refused(&mut machine, &redis(), "exec.timeout", "backing up `cache`");

    let mut machine = Machine::new();
    machine.service.databases.get_mut("app").unwrap().tables.clear();
    check_refused(&mut machine, &postgres(), "backup.empty", "without a table");
    machine.service.databases.clear();
    check_refused(&mut machine, &postgres(), "postgres.failed", "does not exist");

    let mut machine = Machine::new();
    machine
        .service
        .files
        .retain(|path, _| !path.starts_with("/app/uploads"));
    check_refused(&mut machine, &uploads(), "backup.missing", "/app/uploads");

    let mut machine = Machine::new();
    machine.service.is_running = false;
    for sources in [postgres(), redis(), uploads()] {
        check_refused(&mut machine, &sources, "container.stopped", "is running");
    }
}

#[test]
fn a_dump_that_holds_something_else_is_never_published() {
    // The stream rots on its way to the disk: its digest says so.
    for (sources, file) in [
        (postgres(), "app.sql"),
        (redis(), "cache.rdb"),
        (uploads(), "uploads.tar"),
    ] {
        let mut machine = Machine::new();
        machine.rot = Some(file.into());
        check_refused(&mut machine, &sources, "backup.unverified", "cannot be restored");
    }
    // It rots on its way into the scratch database: the programs there say so.
    let mut machine = Machine::new();
    machine.rot = Some("psql".into());
    let error = back_up(&mut machine, &postgres(), json!({})).unwrap_err();
    assert_eq!(error.code, "backup.unverified", "{}", error.message);
    check_tidy(&machine);
    let mut machine = Machine::new();
    machine.rot = Some("dd".into());
    let error = back_up(&mut machine, &redis(), json!({})).unwrap_err();
    assert_eq!(error.code, "backup.unverified", "{}", error.message);
    check_tidy(&machine);
}

#[test]
fn what_means_nothing_is_refused() {
    for path in ["uploads", "/", "/app/../etc", "/app//x"] {
        let sources = json!({ "a": { "container-path": { "container": "c", "path": path } } });
        let error = back_up(&mut Machine::new(), &sources, json!({})).unwrap_err();
        assert_eq!(error.code, "config.invalid", "{path}");
    }
}
