//! Directories of SQL files against a real SQLite: what is applied, what is refused, and what is left behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use support::Project;
use windlass_guest::{Error, Outcome, PastEffect, Verdict};
use windlass_plugin_migrate::config::Config;
use windlass_plugin_migrate::{reconcile::reconcile, stage};

const USERS: (&str, &str) = (
    "0001_users.sql",
    "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);",
);
const EMAIL: (&str, &str) = (
    "0002_email.sql",
    "ALTER TABLE users ADD email TEXT;\nCREATE INDEX e ON users (email);",
);
const DROP: (&str, &str) = (
    "0003_drop.sql",
    "-- windlass: phase=irreversible\nALTER TABLE users DROP COLUMN name;",
);

fn config(project: &Project, more: Value) -> Config {
    let mut with = json!({ "url": project.database(), "directory": project.directory() });
    with.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    serde_json::from_value(with).unwrap()
}

fn migrate(project: &mut Project, more: Value) -> Result<Outcome, Error> {
    let config = config(project, more);
    stage::run(&config, project)
}

/// The error of a run, and that it left the database with these versions.
fn check_refused(project: &mut Project, more: Value, code: &str, versions: &[&str]) -> Error {
    let error = migrate(project, more).expect_err("it is refused");
    assert_eq!(error.code, code, "{}", error.message);
    if project.database().exists() && !project.query("SELECT name FROM sqlite_master").is_empty() {
        assert_eq!(
            project.query("SELECT version FROM windlass_migrations ORDER BY version"),
            versions
        );
    } else {
        assert!(versions.is_empty());
    }
    error
}

#[test]
fn everything_is_applied_once() {
    let mut project = Project::new(&[DROP, USERS, EMAIL]);
    let first = migrate(&mut project, json!({})).unwrap();
    assert!(first.changed);
    assert_eq!(first.summary, "migrated an empty database to 0003");
    assert_eq!(first.outputs["applied"], json!(["0001", "0002", "0003"]));
    assert_eq!(first.outputs["phases"], json!(["expand", "irreversible"]));
    assert_eq!(
        project.query("SELECT name FROM pragma_table_info('users')"),
        ["id", "email"]
    );
    assert_eq!(
        project.query("SELECT run FROM windlass_migrations"),
        ["run1", "run1", "run1"]
    );
    assert_eq!(
        project.query("SELECT phase FROM windlass_migrations WHERE version = '0003'"),
        ["irreversible"]
    );
    let labels = [
        "migrations table",
        "migration 0001",
        "migration 0002",
        "migration 0003",
    ];
    assert_eq!(*project.labels.borrow(), labels);

    let second = migrate(&mut project, json!({})).unwrap();
    assert!(!second.changed);
    assert_eq!(second.summary, "already at 0003, nothing to do");
    assert_eq!(second.outputs["already"], json!(3));
    assert_eq!(project.labels.borrow().len(), 4, "the second run writes nothing");
}

#[test]
fn a_target_stops_it_and_the_next_run_goes_on() {
    let mut project = Project::new(&[USERS, EMAIL, DROP]);
    assert_eq!(
        migrate(&mut project, json!({ "to": "0002" })).unwrap().outputs["to"],
        "0002"
    );
    let rest = migrate(&mut project, json!({})).unwrap();
    assert_eq!(
        (&rest.outputs["from"], &rest.outputs["applied"]),
        (&json!("0002"), &json!(["0003"]))
    );
    check_refused(
        &mut project,
        json!({ "to": "0002" }),
        "migrate.target",
        &["0001", "0002", "0003"],
    );
}

#[test]
fn a_failing_script_leaves_nothing_of_itself() {
    let broken = (
        "0002_broken.sql",
        "CREATE TABLE half (id INTEGER);\nINSERT INTO absent VALUES (1);",
    );
    let mut project = Project::new(&[USERS, broken, DROP]);
    let error = check_refused(&mut project, json!({}), "migrate.failed", &["0001"]);
    assert!(
        error.message.contains("0002_broken.sql failed"),
        "{}",
        error.message
    );
    assert!(
        error.message.ends_with("the database is at 0001"),
        "{}",
        error.message
    );
    assert_eq!(error.details.unwrap()["cause"], "sql.failed");
    assert!(
        project
            .query("SELECT name FROM sqlite_master WHERE name = 'half'")
            .is_empty()
    );
    project.write("0002_broken.sql", "CREATE TABLE whole (id INTEGER);");
    assert!(migrate(&mut project, json!({})).unwrap().changed);
}

#[test]
fn a_changed_history_is_refused() {
    let mut project = Project::new(&[USERS, EMAIL]);
    migrate(&mut project, json!({})).unwrap();
    project.write(EMAIL.0, "ALTER TABLE users ADD mail TEXT;");
    let error = check_refused(&mut project, json!({}), "migrate.checksum", &["0001", "0002"]);
    assert!(error.message.contains("0002_email.sql") && error.message.matches("sha256:").count() == 2);
    std::fs::remove_file(project.directory().join(EMAIL.0)).unwrap();
    check_refused(&mut project, json!({}), "migrate.missing", &["0001", "0002"]);
}

#[test]
fn a_late_older_file_is_refused() {
    let mut project = Project::new(&[USERS, DROP]);
    migrate(&mut project, json!({})).unwrap();
    project.write(EMAIL.0, EMAIL.1);
    check_refused(&mut project, json!({}), "migrate.out-of-order", &["0001", "0003"]);
}

#[test]
fn a_bad_directory_is_refused_before_the_database_is_touched() {
    for (name, text, code) in [
        ("0002_tx.sql", "BEGIN; SELECT 1; COMMIT;", "migrate.transaction"),
        (
            "0002_vacuum.sql",
            "-- windlass: no-transaction\nVACUUM;",
            "migrate.header",
        ),
        ("0001_again.sql", "SELECT 1;", "migrate.duplicate"),
        ("01.sql", "SELECT 1;", "migrate.duplicate"),
        ("later.sql", "SELECT 1;", "migrate.name"),
        ("0002_empty.sql", "", "migrate.empty-script"),
    ] {
        let mut project = Project::new(&[USERS, (name, text)]);
        check_refused(&mut project, json!({}), code, &[]);
        assert!(!project.database().exists(), "{name}");
    }
    check_refused(
        &mut Project::new(&[("README.md", "x")]),
        json!({}),
        "migrate.no-migrations",
        &[],
    );
    check_refused(
        &mut Project::new(&[]),
        json!({ "directory": "/absent" }),
        "migrate.unreadable",
        &[],
    );
    check_refused(
        &mut Project::new(&[USERS]),
        json!({ "table": "a; b" }),
        "config.invalid",
        &[],
    );
}

#[test]
fn locks_outages_and_cancellation_can_be_tried_again() {
    let mut project = Project::new(&[USERS, EMAIL]);
    project.faults.unreachable = true;
    assert!(check_refused(&mut project, json!({}), "sql.unreachable", &[]).retryable);
    project.faults.unreachable = false;
    project.faults.locked = true;
    assert!(check_refused(&mut project, json!({}), "migrate.locked", &[]).retryable);
    project.faults.locked = false;
    project.faults.cancelled_after = Some(1);
    assert!(check_refused(&mut project, json!({}), "cancelled", &["0001"]).retryable);
    project.faults.cancelled_after = None;
    assert_eq!(
        migrate(&mut project, json!({})).unwrap().outputs["applied"],
        json!(["0002"])
    );
}

#[test]
fn a_missing_database_is_made_only_when_allowed() {
    let mut project = Project::new(&[USERS]);
    check_refused(&mut project, json!({ "create": false }), "sql.missing", &[]);
    assert!(migrate(&mut project, json!({})).unwrap().changed);
}

#[test]
fn a_trigger_is_no_transaction() {
    let trigger = "CREATE TRIGGER t AFTER INSERT ON users BEGIN UPDATE users SET name = 'x'; END;";
    let mut project = Project::new(&[USERS, ("0002_trigger.sql", trigger)]);
    assert!(migrate(&mut project, json!({})).unwrap().changed);
}

#[test]
fn the_plan_lists_what_is_pending_and_writes_nothing() {
    let mut project = Project::new(&[USERS, EMAIL, DROP]);
    let plan = |project: &mut Project, more: Value| {
        let config = config(project, more);
        let effects = stage::plan(&config, project)?;
        Ok::<_, Error>(
            effects
                .into_iter()
                .map(|effect| effect.summary)
                .collect::<Vec<_>>(),
        )
    };
    let all = [
        "apply 0001_users.sql (expand)",
        "apply 0002_email.sql (expand)",
        "apply 0003_drop.sql (irreversible)",
    ];
    assert_eq!(plan(&mut project, json!({})).unwrap(), all);
    assert!(!project.database().exists());
    assert_eq!(
        plan(&mut project, json!({ "create": false })).unwrap_err().code,
        "sql.missing"
    );
    migrate(&mut project, json!({ "to": "0002" })).unwrap();
    assert_eq!(plan(&mut project, json!({})).unwrap(), all[2..]);
}

/// What is answered about a transaction with this label.
#[track_caller]
fn check_reconciled(project: &mut Project, function: &str, label: &str, expected: Verdict) {
    let effect = PastEffect {
        key: "k".into(),
        function: function.into(),
        arguments: json!({ "database": "app.db", "label": label }),
        state: "unknown".into(),
    };
    let config = config(project, json!({}));
    let verdict = reconcile(&config, &effect, project).unwrap();
    assert_eq!(verdict, expected, "{function} {label}");
}

#[test]
fn after_a_crash_the_table_says_what_happened() {
    let mut project = Project::new(&[USERS, EMAIL]);
    for label in ["migrations table", "migration 0001"] {
        check_reconciled(&mut project, "sql.transact", label, Verdict::NotDone);
    }
    assert!(!project.database().exists(), "asking makes nothing");
    migrate(&mut project, json!({ "to": "0001" })).unwrap();
    let labels = project.labels.borrow().len();
    for (label, expected) in [
        ("migrations table", Verdict::Done),
        ("migration 0001", Verdict::Done),
        ("migration 0002", Verdict::NotDone),
        ("something else", Verdict::Unknown),
    ] {
        check_reconciled(&mut project, "sql.transact", label, expected);
    }
    check_reconciled(&mut project, "http.request", "migration 0001", Verdict::Unknown);
    assert_eq!(project.labels.borrow().len(), labels, "asking writes nothing");

    project.query("UPDATE windlass_migrations SET run = 'run0' RETURNING run");
    check_reconciled(&mut project, "sql.transact", "migration 0001", Verdict::NotDone);
    project.faults.locked = true;
    check_reconciled(&mut project, "sql.transact", "migration 0002", Verdict::Unknown);
}
