//! Whole backups on a machine with real files and databases: what is published, what is refused, what is removed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use serde_json::{Value, json};
use windlass_backup_format::clock::DAY;
use windlass_backup_format::id;
use windlass_backup_format::testing::{Machine, RUN};
use windlass_guest::{Error, Outcome};
use windlass_plugin_backup::config::Config;
use windlass_plugin_backup::stage;

const USERS: &str = "CREATE TABLE users (id INTEGER PRIMARY KEY); INSERT INTO users VALUES (1), (2);";

/// A database with two users and a directory with two files.
fn machine() -> Machine {
    let machine = Machine::new();
    machine.write("files/a.txt", "one");
    machine.write("files/sub/b.txt", "two");
    machine.database("app.db", USERS);
    machine
}

fn config(machine: &Machine, more: Value) -> Config {
    let mut with = json!({
        "sources": {
            "app": { "sqlite": format!("sqlite://{}", machine.at("app.db")) },
            "files": { "directory": machine.at("files") },
        },
        "to": [machine.at("one"), machine.at("two")],
        "keep": { "last": 2 },
    });
    with.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    serde_json::from_value(with).unwrap()
}

fn back_up(machine: &mut Machine, more: Value) -> Result<Outcome, Error> {
    let config = config(machine, more);
    stage::run(&config, machine)
}

fn current(machine: &Machine) -> String {
    id::derive(&machine.run, &machine.stage)
}

fn manifest(machine: &Machine, target: &str) -> Value {
    let path = machine.at(&format!("{target}/{}/manifest.json", current(machine)));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A failing backup, after which no target holds anything and scratch is clear.
fn check_refused(machine: &mut Machine, more: Value, code: &str) -> Error {
    let error = back_up(machine, more).expect_err("it is refused");
    assert_eq!(error.code, code, "{}", error.message);
    for place in ["one", "two", "scratch"] {
        assert_eq!(machine.names(place), [""; 0], "{place} after {code}");
    }
    error
}

#[test]
fn a_backup_is_complete_in_every_target() {
    let mut machine = machine();
    let outcome = back_up(&mut machine, json!({})).unwrap();
    assert!(outcome.changed);
    assert_eq!(outcome.outputs["verified"], true);
    for target in ["one", "two"] {
        let files = ["app.sqlite.zst", "files.tar.zst", "manifest.json"];
        assert_eq!(machine.names(&format!("{target}/{}", current(&machine))), files);
        let manifest = manifest(&machine, target);
        assert_eq!(manifest["windlass-backup"], 1);
        assert_eq!(manifest["run"], RUN);
        assert_eq!(manifest["verified"], true);
        assert_eq!(manifest["sources"]["app"]["tables"], json!({ "users": 2 }));
        let app = &manifest["sources"]["app"];
        let file = fs::read(machine.at(&format!("{target}/{}/app.sqlite.zst", current(&machine)))).unwrap();
        assert_eq!(app["size"], file.len());
        assert_eq!(app["content-size"], fs::read(machine.at("app.db")).unwrap().len());
    }
    let last: Vec<&String> = machine.moves.iter().rev().take(2).collect();
    assert!(
        last.iter().all(|what| what.contains("manifest.json")),
        "manifests come last: {last:?}"
    );
    assert_eq!(machine.names("scratch"), [""; 0]);
}

#[test]
fn the_same_run_finds_its_own_backup() {
    let mut machine = machine();
    back_up(&mut machine, json!({})).unwrap();
    let before = manifest(&machine, "one");
    machine.write("files/a.txt", "changed since");
    let again = back_up(&mut machine, json!({})).unwrap();
    assert!(!again.changed);
    assert_eq!(manifest(&machine, "one"), before);

    // One copy lost, as by a crash between two manifests: the other is its source.
    fs::remove_dir_all(machine.at(&format!("two/{}", current(&machine)))).unwrap();
    assert!(back_up(&mut machine, json!({})).unwrap().changed);
    assert_eq!(manifest(&machine, "two"), before);

    // One copy damaged: made again from the whole one.
    machine.write(&format!("one/{}/files.tar.zst", current(&machine)), "rotten");
    assert!(back_up(&mut machine, json!({})).unwrap().changed);
    assert!(!back_up(&mut machine, json!({})).unwrap().changed);
}

#[test]
fn another_stage_of_the_run_has_its_own() {
    let mut machine = machine();
    back_up(&mut machine, json!({})).unwrap();
    machine.stage = "backup-late".to_owned();
    assert!(back_up(&mut machine, json!({})).unwrap().changed);
    assert_eq!(machine.names("one").len(), 2);
    machine.stage = "Backup.late".to_owned();
    assert_eq!(
        back_up(&mut machine, json!({})).unwrap_err().code,
        "backup.id-taken"
    );
}

#[test]
fn compression_is_a_choice() {
    for (compress, file) in [("gzip", "files.tar.gz"), ("none", "files.tar")] {
        let mut machine = machine();
        back_up(&mut machine, json!({ "compress": compress })).unwrap();
        assert!(
            machine
                .names(&format!("one/{}", current(&machine)))
                .contains(&file.to_owned())
        );
    }
}

#[test]
fn what_cannot_be_restored_is_not_published() {
    let mut machine = machine();
    machine.rot = Some("-> file".to_owned());
    let error = check_refused(&mut machine, json!({}), "backup.unverified");
    assert!(error.message.contains("`app`"), "{}", error.message);
    machine.rot = Some("-> directory".to_owned());
    let error = check_refused(&mut machine, json!({}), "backup.unverified");
    assert!(error.message.contains("`files`"), "{}", error.message);
}

#[test]
fn a_database_must_be_whole() {
    let mut machine = machine();
    // Pages past the header are noise: the snapshot copies them faithfully, only a restore can tell.
    let path = machine.at("app.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes.iter_mut().skip(4096).for_each(|byte| *byte = 0xff);
    fs::write(&path, bytes).unwrap();
    check_refused(&mut machine, json!({}), "backup.unverified");
    let unverified = back_up(&mut machine, json!({ "verify": false })).unwrap();
    assert_eq!(unverified.outputs["verified"], false);
    assert_eq!(manifest(&machine, "one")["verified"], false);
}

#[test]
fn a_damaged_index_is_found() {
    let mut machine = machine();
    let names = "CREATE TABLE names (name TEXT); CREATE INDEX by_name ON names (name); INSERT INTO names VALUES ('alice');";
    let url = machine.database("names.db", names);
    // The name stands in the table and in the index. Every table can still be counted when the index says something else.
    let path = machine.at("names.db");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(5).rposition(|window| window == b"alice").unwrap();
    bytes[at] = b'm';
    fs::write(path, bytes).unwrap();
    let error = check_refused(
        &mut machine,
        json!({ "sources": { "names": { "sqlite": url } } }),
        "backup.unverified",
    );
    assert!(error.message.contains("not whole"), "{}", error.message);
}

#[test]
fn nothing_is_no_backup() {
    let mut machine = machine();
    fs::create_dir(machine.at("hollow")).unwrap();
    let directory = |path: String| json!({ "sources": { "files": { "directory": path } } });
    let hollow = directory(machine.at("hollow"));
    check_refused(&mut machine, hollow, "backup.empty");
    let absent = directory(machine.at("absent"));
    check_refused(&mut machine, absent, "backup.missing");
    fs::write(machine.at("app.db"), "").unwrap();
    check_refused(&mut machine, json!({}), "backup.empty");
    fs::remove_file(machine.at("app.db")).unwrap();
    check_refused(&mut machine, json!({}), "sql.missing");
    let url = machine.database("tableless.db", "CREATE TABLE t (a); DROP TABLE t;");
    check_refused(
        &mut machine,
        json!({ "sources": { "app": { "sqlite": url } } }),
        "backup.empty",
    );
}

#[test]
fn faults_leave_nothing_behind() {
    let full = || Error::new("storage.failed", "no space left on device").retryable();
    for place in [
        "-> file",
        "files.tar.zst -> file",
        "-> sqlite",
        "-> directory",
        "bytes",
    ] {
        let mut machine = machine();
        machine.fault = Some((place.to_owned(), full()));
        let error = check_refused(&mut machine, json!({}), "storage.failed");
        assert!(
            error.retryable && error.message.contains("no space left"),
            "{}",
            error.message
        );
        assert!(
            back_up(&mut machine, json!({})).unwrap().changed,
            "the next attempt works"
        );
    }
    let mut machine = machine();
    machine.cancelled = true;
    check_refused(&mut machine, json!({}), "cancelled");
}

#[test]
fn a_copy_is_checked_against_the_first() {
    let mut machine = machine();
    machine.rot = Some("-> file".to_owned());
    check_refused(&mut machine, json!({ "verify": false }), "flow.digest");
}

#[test]
fn old_backups_go_when_the_new_one_is_published() {
    let mut machine = machine();
    let mut ids = Vec::new();
    for number in 0..4 {
        machine.run = format!("{number}{}", &RUN[1..]);
        machine.now += DAY;
        ids.push(current(&machine));
        machine.write(&format!("one/keep-{number}/manifest.json"), "not ours");
        back_up(&mut machine, json!({})).unwrap();
    }
    let mut expected: Vec<String> = (0..4).map(|number| format!("keep-{number}")).collect();
    expected.extend(ids[2..].iter().cloned());
    expected.sort();
    assert_eq!(machine.names("one"), expected);
    assert_eq!(machine.names("two"), ids[2..]);

    // The backups before an unverified one: the last verified stays beyond the count.
    for number in 4..7 {
        machine.run = format!("{number}{}", &RUN[1..]);
        ids.push(current(&machine));
        back_up(&mut machine, json!({ "verify": false })).unwrap();
    }
    assert_eq!(
        machine.names("two"),
        [&ids[3], &ids[5], &ids[6]].map(String::clone)
    );
}

#[test]
fn a_failed_backup_removes_no_old_one() {
    let mut machine = machine();
    for number in 0..2 {
        machine.run = format!("{number}{}", &RUN[1..]);
        back_up(&mut machine, json!({})).unwrap();
    }
    machine.run = format!("2{}", &RUN[1..]);
    machine.rot = Some("-> file".to_owned());
    assert_eq!(
        back_up(&mut machine, json!({ "keep": { "last": 1 } }))
            .unwrap_err()
            .code,
        "backup.unverified"
    );
    assert_eq!(machine.names("one").len(), 2);
}

#[test]
fn the_plan_says_what_comes_and_what_goes() {
    let mut machine = machine();
    let first = current(&machine);
    back_up(&mut machine, json!({})).unwrap();
    machine.run = format!("1{}", &RUN[1..]);
    let config = config(
        &machine,
        json!({ "keep": { "last": 1 }, "to": [machine.at("one")] }),
    );
    machine.moves.clear();
    let effects = stage::plan(&config, &mut machine).unwrap();
    let shown: Vec<(&str, &str)> = effects
        .iter()
        .map(|effect| (effect.action, effect.target.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("create", machine.at("one").as_str()),
            ("delete", machine.at(&format!("one/{first}")).as_str())
        ]
    );
    assert!(machine.moves.is_empty(), "a plan moves nothing");
}

const BUCKET: &str = "s3://backups/team";

/// Into a bucket, and nowhere else unless said so.
fn bucket(more: Value) -> Value {
    let mut with = json!({
        "to": [BUCKET],
        "s3": { "endpoint": "http://store:9000", "access-key-id": "wlsec_1", "secret-access-key": "wlsec_2" },
    });
    with.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    with
}

fn urls(machine: &Machine) -> Vec<&str> {
    machine.objects.keys().map(String::as_str).collect()
}

#[test]
fn a_bucket_gets_a_complete_copy_with_its_manifest_last() {
    let mut machine = machine();
    let both = bucket(json!({ "to": [BUCKET, machine.at("one")] }));
    let outcome = back_up(&mut machine, both).unwrap();
    let id = current(&machine);
    let at = |name: &str| format!("{BUCKET}/{id}/{name}");
    assert_eq!(
        urls(&machine),
        [at("app.sqlite.zst"), at("files.tar.zst"), at("manifest.json")]
    );
    assert_eq!(outcome.outputs["targets"][0], format!("{BUCKET}/{id}"));
    let there: Value = serde_json::from_slice(&machine.objects[&at("manifest.json")].0).unwrap();
    assert_eq!(there, manifest(&machine, "one"));
    assert_eq!(
        machine.access.clone().unwrap().access_key_id.as_deref(),
        Some("wlsec_1")
    );
    // Made on the disk, copied from there, read back from the bucket, and only then published.
    let position = |what: &str| machine.moves.iter().position(|done| done.contains(what));
    let read_back = position(&format!("object {} -> nowhere", at("files.tar.zst"))).unwrap();
    let published = position("manifest").map(|first| machine.moves[first].clone());
    assert!(read_back < position(&format!("-> object {}", at("manifest.json"))).unwrap());
    assert!(published.unwrap().starts_with("bytes"), "{:?}", machine.moves);
    assert_eq!(machine.names("scratch"), [""; 0]);
    let again = back_up(&mut machine, bucket(json!({}))).unwrap();
    assert!(!again.changed, "it is found there");
}

#[test]
fn what_a_bucket_has_is_proved_from_it() {
    for place in [format!("-> object {BUCKET}"), "-> sqlite".to_owned()] {
        let mut machine = machine();
        machine.rot = Some(place);
        let error = back_up(&mut machine, bucket(json!({}))).unwrap_err();
        assert_eq!(error.code, "backup.unverified", "{}", error.message);
        assert_eq!(urls(&machine), [""; 0]);
    }
    // The copy beside a good one rots: the good one is not published either.
    let mut machine = machine();
    machine.rot = Some(format!("-> object {BUCKET}"));
    let both = bucket(json!({ "to": [machine.at("one"), BUCKET] }));
    let error = check_refused(&mut machine, both, "flow.digest");
    assert!(error.message.contains("reading back"), "{}", error.message);
    assert_eq!(urls(&machine), [""; 0]);
}

#[test]
fn an_interrupted_upload_is_no_backup_and_is_made_again() {
    let mut machine = machine();
    machine.fault = Some((
        "bytes".to_owned(),
        Error::new("object.unreachable", "no answer").retryable(),
    ));
    let error = back_up(&mut machine, bucket(json!({}))).unwrap_err();
    assert!(error.retryable && error.code == "object.unreachable", "{error}");
    assert_eq!(urls(&machine), [""; 0]);
    // A process that is killed tidies nothing: what it left has no manifest, and the next attempt writes over it.
    let left = format!("{BUCKET}/{}/app.sqlite.zst", current(&machine));
    machine.objects.insert(left.clone(), (b"half".to_vec(), 1));
    assert!(back_up(&mut machine, bucket(json!({}))).unwrap().changed);
    assert_ne!(machine.objects[&left].0, b"half");
}

#[test]
fn old_backups_in_a_bucket_go_too() {
    let mut machine = machine();
    let mut ids = Vec::new();
    machine
        .objects
        .insert(format!("{BUCKET}-of-others/x"), (b"not ours".to_vec(), 1));
    machine
        .objects
        .insert(format!("{BUCKET}/notes.txt"), (b"not ours".to_vec(), 1));
    for number in 0..3 {
        machine.run = format!("{number}{}", &RUN[1..]);
        machine.now += DAY;
        ids.push(current(&machine));
        if number == 2 {
            // What cannot be deleted is said and left.
            let broken = Error::new("object.denied", "AccessDenied");
            machine.fault = Some((format!("delete {BUCKET}/{}/app", ids[0]), broken));
        }
        back_up(&mut machine, bucket(json!({}))).unwrap();
    }
    let said = machine
        .lines
        .iter()
        .any(|line| line.starts_with("warning: could not remove"));
    assert!(said, "{:?}", machine.lines);
    assert!(!urls(&machine).contains(&format!("{BUCKET}/{}/manifest.json", ids[0]).as_str()));
    // A day later what is left of it is nobody's.
    machine.run = format!("3{}", &RUN[1..]);
    machine.now += 2 * DAY;
    ids.push(current(&machine));
    back_up(&mut machine, bucket(json!({}))).unwrap();
    let kept = ["s3://backups/team-of-others/x", "s3://backups/team/notes.txt"];
    let is_expected = |url: &&str| kept.contains(url) || ids[2..].iter().any(|id| url.contains(id.as_str()));
    assert!(urls(&machine).iter().all(is_expected), "{:?}", urls(&machine));
    assert_eq!(urls(&machine).len(), 2 + 2 * 3);
}
