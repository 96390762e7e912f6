//! Backups made by the plugin `backup`, restored on a machine with real files and databases.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use serde_json::{Value, json};
use windlass_backup_format::id;
use windlass_backup_format::testing::{Machine, RUN};
use windlass_guest::{Error, Outcome};
use windlass_plugin_restore::{config::Config, stage};

const USERS: &str = "CREATE TABLE users (id INTEGER PRIMARY KEY); INSERT INTO users VALUES (1), (2);";

/// A machine with a backup of a database with two users and a directory with two files.
fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.write("files/a.txt", "one");
    machine.write("files/sub/b.txt", "two");
    machine.database("app.db", USERS);
    back_up(&mut machine, json!({}));
    machine
}

fn back_up(machine: &mut Machine, more: Value) -> String {
    let mut with = json!({
        "sources": {
            "app": { "sqlite": format!("sqlite://{}", machine.at("app.db")) },
            "files": { "directory": machine.at("files") },
        },
        "to": [machine.at("backups")],
        "keep": { "last": 10 },
    });
    with.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let config: windlass_plugin_backup::config::Config = serde_json::from_value(with).unwrap();
    windlass_plugin_backup::stage::run(&config, machine).unwrap();
    machine.moves.clear();
    id::derive(&machine.run, &machine.stage)
}

fn config(machine: &Machine, more: Value) -> Config {
    let mut with = json!({
        "from": machine.at("backups"),
        "into": {
            "app": { "sqlite": format!("sqlite://{}", machine.at("new.db")) },
            "files": { "directory": machine.at("new") },
        },
    });
    with.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    serde_json::from_value(with).unwrap()
}

fn restore(machine: &mut Machine, more: Value) -> Result<Outcome, Error> {
    let config = config(machine, more);
    stage::run(&config, machine)
}

/// A refused restore, after which both targets are as they were.
fn check_refused(machine: &mut Machine, more: Value, code: &str) -> Error {
    let state = |machine: &Machine| {
        (
            fs::read(machine.at("new.db")).ok(),
            machine.names("new"),
            machine.names("scratch"),
        )
    };
    let before = state(machine);
    let error = restore(machine, more).expect_err("it is refused");
    assert_eq!(error.code, code, "{}", error.message);
    assert_eq!(state(machine), before, "something was written in spite of {code}");
    error
}

fn damage(machine: &Machine, file: &str) {
    let path = machine.at(&format!("backups/{}/{file}", id::derive(RUN, "backup")));
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn everything_comes_back() {
    let mut machine = machine();
    let outcome = restore(&mut machine, json!({})).unwrap();
    assert!(outcome.changed);
    assert_eq!(outcome.outputs["restored"]["app"]["rows"], 2);
    assert_eq!(
        fs::read(machine.at("new.db")).unwrap(),
        fs::read(machine.at("app.db")).unwrap()
    );
    assert_eq!(fs::read_to_string(machine.at("new/sub/b.txt")).unwrap(), "two");
    let first_write = machine
        .moves
        .iter()
        .position(|what| what.contains("new"))
        .unwrap();
    let last_check = machine
        .moves
        .iter()
        .rposition(|what| what.contains("scratch"))
        .unwrap();
    assert!(last_check < first_write, "{:?}", machine.moves);

    let again = restore(&mut machine, json!({})).unwrap();
    assert!(!again.changed, "{}", again.summary);
}

#[test]
fn only_what_is_named_comes_back() {
    let mut machine = machine();
    let only = json!({ "into": { "files": { "directory": machine.at("new") } } });
    assert_eq!(
        restore(&mut machine, only).unwrap().outputs["restored"]
            .as_object()
            .unwrap()
            .len(),
        1
    );
    assert!(!fs::exists(machine.at("new.db")).unwrap());
}

#[test]
fn one_damaged_file_stops_everything() {
    for file in ["app.sqlite.zst", "files.tar.zst"] {
        let mut machine = machine();
        damage(&machine, file);
        let error = check_refused(&mut machine, json!({ "replace": true }), "restore.damaged");
        assert!(
            error.message.contains(file) && error.message.contains("nothing was written"),
            "{}",
            error.message
        );
        fs::remove_file(machine.at(&format!("backups/{}/{file}", id::derive(RUN, "backup")))).unwrap();
        check_refused(&mut machine, json!({}), "restore.damaged");
    }
}

#[test]
fn a_whole_file_with_other_data_is_damaged() {
    let mut machine = machine();
    let path = machine.at(&format!("backups/{}/manifest.json", id::derive(RUN, "backup")));
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["sources"]["app"]["content-sha256"] = manifest["sources"]["files"]["content-sha256"].clone();
    fs::write(path, manifest.to_string()).unwrap();
    let error = check_refused(&mut machine, json!({}), "restore.damaged");
    assert!(error.message.contains("other data"), "{}", error.message);
}

#[test]
fn targets_that_hold_something_are_refused_together() {
    let mut machine = machine();
    machine.write("new/precious.txt", "mine");
    machine.database("new.db", "CREATE TABLE mine (a)");
    let error = check_refused(&mut machine, json!({}), "restore.target-not-empty");
    assert_eq!(error.details.unwrap()["names"], json!(["app", "files"]));
    assert!(restore(&mut machine, json!({ "replace": true })).unwrap().changed);
    assert_eq!(machine.names("new"), ["a.txt", "sub"]);
    machine.write("new.db", "not a database, but somebody's");
    check_refused(&mut machine, json!({}), "restore.target-not-empty");
}

#[test]
fn empty_targets_are_fine() {
    let mut machine = machine();
    fs::create_dir(machine.at("new")).unwrap();
    assert!(restore(&mut machine, json!({})).unwrap().changed);
}

#[test]
fn the_latest_verified_backup_is_the_default() {
    let mut machine = machine();
    machine.write("files/a.txt", "newer");
    machine.run = format!("1{}", &RUN[1..]);
    let newer = back_up(&mut machine, json!({}));
    machine.run = format!("2{}", &RUN[1..]);
    let unverified = back_up(&mut machine, json!({ "verify": false }));
    machine.run = format!("3{}", &RUN[1..]);
    let only_files = json!({ "sources": { "files": { "directory": machine.at("files") } } });
    back_up(&mut machine, only_files);
    assert_eq!(restore(&mut machine, json!({})).unwrap().outputs["id"], newer);
    assert_eq!(fs::read_to_string(machine.at("new/a.txt")).unwrap(), "newer");
    let older = json!({ "id": id::derive(RUN, "backup"), "replace": true });
    restore(&mut machine, older).unwrap();
    assert_eq!(fs::read_to_string(machine.at("new/a.txt")).unwrap(), "one");
    let outcome = restore(&mut machine, json!({ "id": unverified, "replace": true })).unwrap();
    assert_eq!(outcome.outputs["id"], unverified);
}

#[test]
fn what_is_not_there_is_named() {
    let mut machine = machine();
    let other = json!({ "into": { "mail": { "directory": machine.at("new") } } });
    let error = check_refused(&mut machine, other, "restore.missing");
    assert_eq!(error.details.unwrap()["help"], "it holds app, files");
    let swapped = json!({ "into": { "app": { "directory": machine.at("new") } } });
    check_refused(&mut machine, swapped, "restore.missing");
    let absent = json!({ "id": format!("{RUN}-other") });
    check_refused(&mut machine, absent, "restore.missing");
    let nowhere = json!({ "from": machine.at("nowhere") });
    check_refused(&mut machine, nowhere, "restore.missing");

    let manifest = machine.at(&format!("backups/{}/manifest.json", id::derive(RUN, "backup")));
    fs::write(&manifest, "{}").unwrap();
    check_refused(
        &mut machine,
        json!({ "id": id::derive(RUN, "backup") }),
        "restore.damaged",
    );
    check_refused(&mut machine, json!({}), "restore.missing");
    fs::remove_file(manifest).unwrap();
    check_refused(
        &mut machine,
        json!({ "id": id::derive(RUN, "backup") }),
        "restore.missing",
    );
}

#[test]
fn faults_say_how_far_it_came() {
    let full = || Error::new("storage.failed", "no space left on device").retryable();
    let mut machine = machine();
    machine.fault = Some(("scratch".to_owned(), full()));
    assert!(check_refused(&mut machine, json!({}), "storage.failed").retryable);
    machine.fault = Some(("new.db".to_owned(), full()));
    let error = check_refused(&mut machine, json!({}), "storage.failed");
    assert!(error.message.contains("nothing was written"), "{}", error.message);

    let into_files = format!("-> directory {}", machine.at("new"));
    machine.fault = Some((into_files.to_lowercase(), full()));
    let error = restore(&mut machine, json!({})).unwrap_err();
    assert_eq!((error.code.as_str(), error.retryable), ("restore.failed", true));
    assert_eq!(error.details.unwrap()["restored"], json!(["app"]));
    assert!(
        restore(&mut machine, json!({})).unwrap().changed,
        "the next attempt goes on"
    );
    machine.cancelled = true;
    fs::remove_dir_all(machine.at("new")).unwrap();
    check_refused(&mut machine, json!({}), "cancelled");
}

#[test]
fn the_plan_reads_manifests_only() {
    let mut machine = machine();
    let effects = stage::plan(&config(&machine, json!({ "replace": true })), &mut machine).unwrap();
    let targets: Vec<&str> = effects.iter().map(|effect| effect.target.as_str()).collect();
    assert_eq!(targets, ["the database of `app`", machine.at("new").as_str()]);
    assert!(
        effects
            .iter()
            .all(|effect| effect.summary.starts_with("replace with"))
    );
}

#[test]
fn a_bucket_gives_back_what_was_written_there() {
    let s3 = || json!({ "endpoint": "http://store:9000" });
    let mut machine = machine();
    let to_bucket = json!({ "to": ["s3://backups/team"], "s3": s3() });
    let id = back_up(&mut machine, to_bucket);
    let from_bucket = || json!({ "from": "s3://backups/team/", "s3": s3() });
    let effects = stage::plan(&config(&machine, from_bucket()), &mut machine).unwrap();
    assert!(effects[0].summary.contains(&id), "{effects:?}");
    restore(&mut machine, from_bucket()).unwrap();
    assert_eq!(
        fs::read(machine.at("new.db")).unwrap(),
        fs::read(machine.at("app.db")).unwrap()
    );
    assert_eq!(fs::read_to_string(machine.at("new/sub/b.txt")).unwrap(), "two");

    // A flipped bit, and a file that is gone: found before anything is written.
    let url = format!("s3://backups/team/{id}/files.tar.zst");
    let whole = machine.objects[&url].clone();
    *machine.objects.get_mut(&url).unwrap().0.last_mut().unwrap() ^= 1;
    machine.write("new/a.txt", "changed since");
    let again = || {
        let mut more = from_bucket();
        more["replace"] = json!(true);
        more
    };
    check_refused(&mut machine, again(), "restore.damaged");
    machine.objects.remove(&url);
    check_refused(&mut machine, again(), "restore.damaged");
    machine.objects.insert(url, whole);
    // Without its manifest it was never finished.
    machine
        .objects
        .remove(&format!("s3://backups/team/{id}/manifest.json"));
    let error = check_refused(&mut machine, again(), "restore.missing");
    assert!(
        error.message.contains("no verified backup in s3://"),
        "{}",
        error.message
    );
}
