//! SQLite as a guest sees it, hostile ones included.

use super::*;
use crate::service::{
    files::Mount,
    testing::{Journal, granter},
};
use std::{os::unix::fs::symlink, path::Path, time::Instant};
use tokio_util::sync::CancellationToken;

/// A project with one writable and one readable directory, and a scratch.
struct Project {
    root: tempfile::TempDir,
    journal: Arc<Journal>,
    cancel: CancellationToken,
}

const DATABASE: &str = "sqlite:///workspace/data/app.db";

impl Project {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("temporary");
        for directory in ["data/inner", "read", "tmp", "outside"] {
            std::fs::create_dir_all(root.path().join(directory)).expect("made");
        }
        Self {
            root,
            journal: Arc::default(),
            cancel: CancellationToken::new(),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join(name)
    }

    fn opener(&self, allow: &[&str], planning: bool) -> Opener {
        let allow: Vec<_> = allow.iter().map(|text| (Capability::Sql, *text)).collect();
        let mount =
            |guest, host: &str, mode| Mount::open(guest, &self.path(host), mode).expect("a directory");
        let mounts = vec![
            mount("/workspace/data", "data", Mode::ReadWrite),
            mount("/workspace/read", "read", Mode::ReadOnly),
            mount("/tmp", "tmp", Mode::ReadWrite),
        ];
        Opener {
            granter: granter(&allow),
            mounts: Arc::new(Mounts::new(mounts).expect("apart")),
            effects: self.journal.attempt(planning),
            secrets: None,
            connector: None,
            patience: Patience {
                deadline: None,
                cancel: self.cancel.clone(),
            },
        }
    }

    async fn open(&self, url: &str, options: &str) -> Result<Connection, Failure> {
        let allow = ["sqlite:///workspace/data/app.db", url];
        let allow = if url.starts_with("sqlite:///workspace") {
            &allow[..]
        } else {
            &allow[..1]
        };
        self.opener(allow, false).open(url, options).await
    }

    async fn app(&self) -> Connection {
        let connection = self
            .open(DATABASE, r#"{"create":true,"lock-timeout-ms":50}"#)
            .await;
        connection.expect("opens")
    }
}

/// The code of a failure, or `ok`.
fn code<T>(outcome: &Result<T, Failure>) -> &str {
    outcome.as_ref().err().map_or("ok", |failure| &failure.code)
}

async fn run(connection: &Connection, sql: &str) -> Result<Json, Failure> {
    let steps = json!([{ "sql": sql }]).to_string();
    connection.transact("test", &steps).await
}

async fn ask(connection: &Connection, sql: &str) -> Result<Json, Failure> {
    connection.query(sql.into(), "[]").await
}

#[tokio::test]
async fn values_go_in_and_come_out() {
    let project = Project::new();
    let app = project.app().await;
    run(
        &app,
        "CREATE TABLE t (a, b); INSERT INTO t VALUES (x'00ff', 9e999), ('é', NULL)",
    )
    .await
    .expect("writes");
    let steps = json!([
        { "sql": "INSERT INTO t VALUES (?, ?)", "parameters": [true, 9_007_199_254_740_993_i64] },
        { "sql": "UPDATE t SET b = 0 WHERE a = 'none'" },
        { "sql": "CREATE TABLE u (a); INSERT INTO u VALUES (1), (2); INSERT INTO u VALUES (3)" },
    ]);
    let affected = app.transact("rows", &steps.to_string()).await;
    assert_eq!(affected, Ok(json!({ "rows-affected": [1, 0, 3] })));
    let answer = ask(&app, "SELECT a, b FROM t ORDER BY rowid").await;
    let rows = json!([["AP8=", "Infinity"], ["é", null], [1, 9_007_199_254_740_993_i64]]);
    assert_eq!(answer, Ok(json!({ "columns": ["a", "b"], "rows": rows })));
    let answer = app.query("SELECT ? + 1".into(), "[1.5]").await.expect("answers");
    assert_eq!(answer["rows"], json!([[2.5]]));
}

#[tokio::test]
async fn places() {
    let project = Project::new();
    drop(project.app().await);
    std::fs::copy(project.path("data/app.db"), project.path("read/app.db")).expect("copied");
    std::fs::write(project.path("outside/app.db"), "").expect("written");
    symlink("../outside/app.db", project.path("data/link.db")).expect("linked");
    symlink("app.db", project.path("data/near.db")).expect("linked");
    symlink("../outside", project.path("data/away")).expect("linked");
    symlink("inner", project.path("data/alias")).expect("linked");
    let check = async |url: &str, options: &str, expected: &str| {
        let opened = project.open(url, options).await;
        let failed = opened.as_ref().err();
        assert_eq!(code(&opened), expected, "{url} {options}: {failed:?}");
    };
    check(DATABASE, "{}", "ok").await;
    check("sqlite:///workspace/read/app.db", r#"{"read-only":true}"#, "ok").await;
    check("sqlite:///workspace/read/app.db", "{}", "grant.denied").await;
    check("sqlite:///workspace/data/none.db", "{}", "sql.missing").await;
    check(
        "sqlite:///workspace/data/none/a.db",
        r#"{"create":true}"#,
        "sql.missing",
    )
    .await;
    check("sqlite:///workspace/data/inner/a.db", r#"{"create":true}"#, "ok").await;
    check("sqlite:///workspace/data/alias/a.db", "{}", "ok").await;
    check("sqlite:///workspace/data/link.db", "{}", "sql.refused").await;
    check("sqlite:///workspace/data/near.db", "{}", "sql.refused").await;
    check("sqlite:///workspace/data/away/app.db", "{}", "sql.missing").await;
    check("sqlite:///workspace/data/inner", "{}", "sql.refused").await;
    check("sqlite:///tmp/x.db", r#"{"create":true}"#, "ok").await;
    check("sqlite:///tmp/../data/app.db", "{}", "file.path").await;
    check("sqlite:///tmp/x.db?mode=memory", "{}", "sql.url").await;
    check("sqlite://:memory:", "{}", "sql.url").await;
    check("mysql://a/b", "{}", "sql.url").await;
    check("", "{}", "sql.url").await;
    check(DATABASE, r#"{"creat":true}"#, "sql.options").await;
    let ungranted = project.opener(&[], false).open(DATABASE, "{}").await;
    assert_eq!(code(&ungranted), "grant.denied");
}

#[tokio::test]
async fn a_guest_cannot_leave_its_database_or_its_transaction() {
    let project = Project::new();
    let app = project.app().await;
    let outside = project.path("outside/new.db");
    let outside = outside.display();
    let check = async |sql: &str, expected: &str| {
        let refused = run(&app, sql).await;
        assert_eq!(code(&refused), expected, "{sql}: {refused:?}");
        if let Err(failure) = refused {
            assert_eq!(failure.details.expect("has details")["step"], 0, "{sql}");
        }
    };
    check(&format!("ATTACH '{outside}' AS o"), "sql.refused").await;
    check("DETACH main", "sql.refused").await;
    check(&format!("VACUUM INTO '{outside}'"), "sql.failed").await;
    check("SELECT load_extension('/tmp/x.so')", "sql.refused").await;
    check("PRAGMA writable_schema = on", "sql.refused").await;
    check("PRAGMA temp_store_directory = '/'", "sql.refused").await;
    check("PRAGMA foreign_keys = off", "sql.refused").await;
    for word in ["BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT a", "RELEASE a"] {
        check(&format!("CREATE TABLE half (a); {word}"), "sql.refused").await;
    }
    check("UPDATE sqlite_master SET sql = ''", "sql.failed").await;
    assert!(!project.path("outside/new.db").exists());
    for sql in [
        format!("ATTACH '{outside}' AS o"),
        format!("VACUUM INTO '{outside}'"),
    ] {
        assert_ne!(code(&ask(&app, &sql).await), "ok", "{sql}");
    }
    assert!(!project.path("outside/new.db").exists());
    let tables = ask(&app, "SELECT name FROM sqlite_master")
        .await
        .expect("answers");
    assert_eq!(
        tables["rows"],
        json!([]),
        "nothing of a refused transaction stays"
    );
}

#[tokio::test]
async fn a_query_is_one_reading_statement() {
    let project = Project::new();
    let app = project.app().await;
    run(&app, "CREATE TABLE t (a)").await.expect("writes");
    let check = async |sql: &str, expected: &str| {
        let answer = ask(&app, sql).await;
        assert_eq!(code(&answer), expected, "{sql}: {answer:?}");
    };
    check("SELECT 1; -- and no more", "ok").await;
    check("PRAGMA table_info(t)", "ok").await;
    check("INSERT INTO t VALUES (1) RETURNING a", "sql.read-only").await;
    check("DELETE FROM t", "sql.read-only").await;
    check("PRAGMA user_version = 5", "sql.read-only").await;
    check("SELECT 1; DELETE FROM t", "sql.failed").await;
    check("BEGIN", "sql.refused").await;
    check("", "sql.failed").await;
    check("SELECT ?", "sql.failed").await;
    check("SELECT randomblob(100000000)", "sql.failed").await;
    check("SELECT randomblob(4000000)", "sql.too-large").await;
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    check(many, "sql.too-large").await;
}

#[tokio::test]
async fn a_failed_step_undoes_all_and_says_where() {
    let project = Project::new();
    let app = project.app().await;
    run(
        &app,
        "CREATE TABLE p (a PRIMARY KEY); CREATE TABLE c (a REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
    )
    .await
    .expect("writes");
    let check = async |sql: &str, message: &str, position: Option<u64>| {
        let steps = json!([{ "sql": "INSERT INTO p VALUES (1)" }, { "sql": sql }]);
        let failure = app.transact("x", &steps.to_string()).await.expect_err("fails");
        let details = failure.details.unwrap_or_default();
        assert_eq!(
            (failure.code.as_str(), failure.message.as_str()),
            ("sql.failed", message)
        );
        assert_eq!(details["position"].as_u64(), position, "{sql}");
        let left = ask(&app, "SELECT count(*) FROM p").await.expect("answers");
        assert_eq!(left["rows"], json!([[0]]), "{sql}");
        details["step"].as_u64()
    };
    let step = check("INSERT INTO p VALUES (1)", "UNIQUE constraint failed: p.a", None).await;
    assert_eq!(step, Some(1));
    check("-- é\nSELEC 1", "near \"SELEC\": syntax error", Some(6)).await;
    check("SELECT 1;\nSELECT b FROM p", "no such column: b", Some(18)).await;
    check("DELETE FROM nowhere", "no such table: nowhere", None).await;
    let step = check("INSERT INTO c VALUES (9)", "FOREIGN KEY constraint failed", None).await;
    assert_eq!(step, None, "the commit failed, no step");
}

#[tokio::test]
async fn effects_are_journalled_and_not_repeated() {
    let project = Project::new();
    let app = project.app().await;
    run(&app, "CREATE TABLE t (a)").await.expect("writes");
    assert_eq!(project.journal.functions(), ["sql.create", "sql.transact"]);
    let again = project.open(DATABASE, "{}").await.expect("opens");
    let repeated = run(&again, "CREATE TABLE t (a)").await;
    assert_eq!(
        code(&repeated),
        "ok",
        "a later attempt gets the journalled result"
    );
    let planner = project
        .opener(&[DATABASE], true)
        .open(DATABASE, "{}")
        .await
        .expect("opens");
    assert_eq!(code(&run(&planner, "DROP TABLE t").await), "plan.read-only");
    let reading = project
        .open(DATABASE, r#"{"read-only":true}"#)
        .await
        .expect("opens");
    assert_eq!(code(&run(&reading, "DROP TABLE t").await), "sql.read-only");
    let intents = project.journal.functions().len();
    let scratch = project
        .open("sqlite:///tmp/x.db", r#"{"create":true}"#)
        .await
        .expect("opens");
    run(&scratch, "CREATE TABLE t (a)").await.expect("writes");
    assert_eq!(project.journal.functions().len(), intents, "scratch is no effect");
}

#[tokio::test]
async fn statements_end_in_time() {
    const ENDLESS: &str =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let project = Project::new();
    let started = Instant::now();
    let slow = project
        .open(DATABASE, r#"{"create":true,"statement-timeout-ms":50}"#)
        .await
        .expect("opens");
    assert_eq!(code(&ask(&slow, ENDLESS).await), "sql.timeout");
    assert_eq!(code(&run(&slow, ENDLESS).await), "sql.timeout");
    let app = project.open(DATABASE, "{}").await.expect("opens");
    let dropped = tokio::time::timeout(Duration::from_millis(50), ask(&app, ENDLESS)).await;
    assert!(dropped.is_err());
    assert_eq!(
        code(&ask(&app, "SELECT 1").await),
        "ok",
        "the dropped statement has ended"
    );
    let cancel = project.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cancel.cancel();
    });
    assert_eq!(
        code(&run(&app, &format!("CREATE TABLE t AS {ENDLESS}")).await),
        "cancelled"
    );
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn another_writer_is_waited_for_and_then_named() {
    let project = Project::new();
    let app = project.app().await;
    let other = rusqlite::Connection::open(project.path("data/app.db")).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let locked = run(&app, "CREATE TABLE t (a)").await.expect_err("locked");
    assert_eq!((locked.code.as_str(), locked.retryable), ("sql.failed", true));
    other.execute_batch("ROLLBACK").expect("unlocks");
    assert_eq!(code(&run(&app, "CREATE TABLE u (a)").await), "ok");
}

/// The lock file that `lock` uses, as another process would find it.
fn lock_file(directory: &Path) -> std::path::PathBuf {
    let entries = std::fs::read_dir(directory).expect("lists");
    let mut paths = entries.map(|entry| entry.expect("an entry").path());
    let is_lock = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "lock");
    paths.find(is_lock).expect("a lock file")
}

#[tokio::test]
async fn locks_exclude_other_connections_and_other_processes() {
    let project = Project::new();
    let mut first = project.app().await;
    let mut second = project.open(DATABASE, "{}").await.expect("opens");
    let short = Duration::from_millis(60);
    assert_eq!(first.lock("key", short).await, Ok(true));
    assert_eq!(first.lock("key", short).await, Ok(true), "it has it already");
    assert_eq!(second.lock("key", short).await, Ok(false));
    assert_eq!(second.lock("other", short).await, Ok(true));
    drop(first);
    assert_eq!(second.lock("key", short).await, Ok(true));
    drop(second);

    let file = lock_file(&project.path("data"));
    let mut holder = std::process::Command::new("flock")
        .arg("--no-fork")
        .arg(&file)
        .args(["sh", "-c", "echo held; exec sleep 60"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("flock of util-linux runs");
    let mut line = String::new();
    let stdout = holder.stdout.take().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("reads");
    assert_eq!(line, "held\n");
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .expect("text")
        .to_string();
    let mut third = project.open(DATABASE, "{}").await.expect("opens");
    let mut taken = Vec::new();
    for key in ["key", "other"] {
        taken.push(third.lock(key, short).await.expect("answers"));
    }
    assert_eq!(
        taken.iter().filter(|taken| !**taken).count(),
        1,
        "{name} is held by another process"
    );
    holder.kill().expect("killed");
    holder.wait().expect("ends");
}

#[tokio::test]
async fn a_lock_file_that_is_a_trap_is_not_followed() {
    let project = Project::new();
    let mut app = project.app().await;
    assert_eq!(app.lock("key", Duration::ZERO).await, Ok(true));
    drop(app);
    let file = lock_file(&project.path("data"));
    std::fs::remove_file(&file).expect("removed");
    symlink("../outside/made", &file).expect("linked");
    let mut app = project.open(DATABASE, "{}").await.expect("opens");
    assert_eq!(code(&app.lock("key", Duration::ZERO).await), "sql.failed");
    assert!(!project.path("outside/made").exists());
}
