//! Backups of what lives in containers, restored there: what is exchanged, and what is still there when something fails.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use windlass_backup_format::testing::Machine;
use windlass_backup_format::testing::service::Database;
use windlass_guest::{Error, Outcome};
use windlass_plugin_restore::{config::Config, stage};

fn places() -> Value {
    json!({
        "app": { "postgres": { "container": "team/db", "database": "app", "user": "me" } },
        "cache": { "redis": { "container": "team/redis" } },
        "uploads": { "container-path": { "container": "team/backend", "path": "/app/uploads" } },
    })
}

/// A machine with a backup of everything, after which everything has changed.
fn machine(change: fn(&mut Machine)) -> Machine {
    let mut machine = Machine::new();
    let with = json!({ "sources": places(), "to": [machine.at("backups")], "keep": { "last": 1 } });
    let config: windlass_plugin_backup::config::Config = serde_json::from_value(with).unwrap();
    windlass_plugin_backup::stage::run(&config, &mut machine).unwrap();
    machine.moves.clear();
    machine.service.programs.clear();
    change(&mut machine);
    machine
}

fn destroyed(machine: &mut Machine) {
    machine
        .service
        .databases
        .insert("app".into(), Database::default());
    machine.service.keys.clear();
    machine.service.files.retain(|path, _| !path.starts_with("/app"));
}

fn in_use(machine: &mut Machine) {
    let service = &mut machine.service;
    service
        .databases
        .get_mut("app")
        .unwrap()
        .tables
        .insert("public.new".into(), 9);
    service.keys.insert("db1".into(), 7);
    service.files.insert("/app/uploads/new.txt".into(), "new".into());
}

fn restore(machine: &mut Machine, only: Option<&str>, more: Value) -> Result<Outcome, Error> {
    let mut into = places();
    into.as_object_mut()
        .unwrap()
        .retain(|name, _| only.is_none_or(|only| only == name));
    let mut with = json!({ "from": machine.at("backups"), "into": into });
    with.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let config: Config = serde_json::from_value(with).unwrap();
    stage::run(&config, machine)
}

type State = (
    BTreeMap<String, BTreeMap<String, u64>>,
    BTreeMap<String, u64>,
    BTreeMap<String, String>,
);

fn state(machine: &Machine) -> State {
    let service = &machine.service;
    let tables = service.databases.iter();
    let tables = tables.map(|(name, database)| (name.clone(), database.tables.clone()));
    (
        tables.collect(),
        service.keys.clone(),
        service.below("/app/uploads"),
    )
}

#[test]
fn what_was_destroyed_comes_back() {
    for append_only in [true, false] {
        let before = state(&machine(|_| {}));
        let mut machine = machine(destroyed);
        machine.service.append_only = append_only;
        let outcome = restore(&mut machine, None, json!({})).unwrap();
        assert!(outcome.changed);
        assert_eq!(outcome.outputs["restored"]["app"]["rows"], 3);
        assert_eq!(state(&machine), before, "with an append-only file: {append_only}");
        assert!(machine.service.is_running);
    }
}

#[test]
fn where_root_is_nobody_the_owner_of_a_directory_puts_it_back() {
    let before = machine(|_| {}).service.below("/app");
    let mut machine = machine(destroyed);
    machine.service.rootless = true;
    restore(&mut machine, Some("uploads"), json!({})).unwrap();
    assert_eq!(machine.service.below("/app"), before);
}

#[test]
fn what_is_there_is_replaced_only_when_told() {
    let mut machine = machine(in_use);
    let before = state(&machine);
    let error = restore(&mut machine, None, json!({})).unwrap_err();
    assert_eq!(error.code, "restore.target-not-empty");
    assert!(error.message.contains("app, cache, uploads"), "{}", error.message);
    assert_eq!(state(&machine), before);

    restore(&mut machine, None, json!({ "replace": true })).unwrap();
    assert_eq!(state(&machine), state(&self::machine(|_| {})));
}

#[test]
fn an_append_only_file_is_begun_anew_above_the_old_one() {
    let mut machine = machine(destroyed);
    restore(&mut machine, Some("cache"), json!({})).unwrap();
    let log = machine.service.below("/data/appendonlydir");
    let names: Vec<&str> = log.keys().map(String::as_str).collect();
    let expected = [
        "appendonly.aof.2.base.rdb",
        "appendonly.aof.2.incr.aof",
        "appendonly.aof.manifest",
    ];
    assert_eq!(
        names, expected,
        "the old files are gone, which nothing names any more"
    );
    assert_eq!(log["appendonly.aof.2.incr.aof"], "");
    assert_eq!(
        log["appendonly.aof.manifest"],
        "file appendonly.aof.2.base.rdb seq 2 type b\nfile appendonly.aof.2.incr.aof seq 2 type i\n"
    );
    let stopped = machine.moves.iter().position(|what| what == "stop").unwrap();
    let started = machine.moves.iter().position(|what| what == "start").unwrap();
    let manifest = machine
        .moves
        .iter()
        .rposition(|what| what.contains("manifest"))
        .unwrap();
    assert!(stopped < manifest && manifest < started, "{:?}", machine.moves);
}

#[test]
fn a_failure_leaves_what_was_there() {
    for (fault, only) in [
        ("windlass_restore", "app"),
        ("appendonly.aof.2.base.rdb", "cache"),
        ("appendonly.aof.manifest", "cache"),
        ("-> inside", "uploads"),
    ] {
        let mut machine = machine(in_use);
        let before = state(&machine);
        machine.fault = Some((fault.into(), Error::new("storage.failed", "no room")));
        let error = restore(&mut machine, Some(only), json!({ "replace": true })).unwrap_err();
        assert_eq!(error.code, "storage.failed", "{fault}: {}", error.message);
        assert!(machine.fault.is_none(), "{fault} was never met");
        let (tables, keys, files) = state(&machine);
        assert_eq!((tables, keys), (before.0, before.1), "{fault}");
        let own = files
            .into_iter()
            .filter(|(path, _)| !path.starts_with(".windlass"));
        assert_eq!(own.collect::<BTreeMap<_, _>>(), before.2, "{fault}");
        assert!(machine.service.is_running, "{fault}: the server runs again");
    }
}

#[test]
fn a_damaged_backup_stops_everything_before_the_first_write() {
    let mut machine = machine(in_use);
    let before = state(&machine);
    machine.rot = Some("dd".into());
    let error = restore(&mut machine, None, json!({ "replace": true })).unwrap_err();
    assert_eq!(error.code, "restore.damaged", "{}", error.message);
    assert!(error.message.contains("nothing was written"), "{}", error.message);
    assert_eq!(state(&machine), before);
    assert!(!machine.moves.iter().any(|what| what == "stop"));
}

#[test]
fn connections_that_come_back_do_not_keep_a_database_from_being_exchanged() {
    let mut machine = machine(in_use);
    machine.service.busy = 3;
    restore(&mut machine, Some("app"), json!({ "replace": true })).unwrap();
    assert_eq!(machine.service.databases.len(), 1);

    let mut machine = self::machine(in_use);
    machine.service.busy = 100;
    let before = state(&machine);
    let error = restore(&mut machine, Some("app"), json!({ "replace": true })).unwrap_err();
    assert_eq!((error.code.as_str(), error.retryable), ("postgres.busy", true));
    assert_eq!(state(&machine), before);
}

#[test]
fn an_attempt_that_was_cut_off_behind_the_exchange_is_found_out_about() {
    let mut machine = machine(destroyed);
    assert!(restore(&mut machine, Some("app"), json!({})).unwrap().changed);
    let again = restore(&mut machine, Some("app"), json!({})).unwrap();
    assert!(!again.changed, "{}", again.summary);
    // To another run it is a database like any other.
    machine.run = machine.run.replace("01kb", "01kc");
    let error = restore(&mut machine, Some("app"), json!({})).unwrap_err();
    assert_eq!(error.code, "restore.target-not-empty");
}

#[test]
fn a_database_that_is_gone_is_made() {
    let mut machine = machine(|machine| machine.service.databases.clear());
    restore(&mut machine, Some("app"), json!({})).unwrap();
    assert_eq!(machine.service.databases["app"].tables["public.users"], 2);
}
