//! Against a real server, started here in a temporary directory. Without its programs the tests say so, loudly.

use super::super::{Connection, Opener};
use super::*;
use crate::service::{
    egress::SystemResolver,
    files::Mounts,
    testing::{Journal, granter},
};
use indexmap::IndexMap;
use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Arc,
};

/// A server, stopped when dropped.
struct Server {
    process: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

const PASSWORD: &str = "s3cret&pass";

impl Server {
    fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("\n*** skipped: needs PostgreSQL (apt-get install postgresql-15) ***\n");
            return None;
        };
        let directory = tempfile::tempdir().expect("temporary");
        let data = directory.path().join("data");
        let password = directory.path().join("password");
        std::fs::write(&password, PASSWORD).expect("written");
        give_away(directory.path());
        let mut initdb = as_postgres(&programs.join("initdb"));
        initdb.args([
            "--username=me",
            "--auth=scram-sha-256",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        ]);
        initdb.arg(format!("--pwfile={}", password.display()));
        let made = initdb.arg("-D").arg(&data).output().expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
            listener.local_addr().expect("bound").port()
        };
        let mut server = as_postgres(&programs.join("postgres"));
        server.arg("-D").arg(&data).arg("-k").arg(directory.path());
        server.args([
            "-p",
            &port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "fsync=off",
        ]);
        let output = std::fs::File::create(directory.path().join("log")).expect("made");
        let process = server.stderr(output).spawn().expect("postgres runs");
        Some(Self {
            process,
            port,
            _directory: directory,
        })
    }

    fn url(&self, login: &str, database: &str) -> String {
        format!("postgresql://{login}@127.0.0.1:{}/{database}", self.port)
    }

    async fn open(&self, url: &str, options: &str) -> Result<Connection, Failure> {
        let grant = format!("postgresql://127.0.0.1:{}/*", self.port);
        let connector = Connector::new(&IndexMap::new(), Path::new("/"), Arc::new(SystemResolver));
        let opener = Opener {
            granter: granter(&[(Capability::Sql, &grant)]),
            mounts: Arc::new(Mounts::default()),
            effects: Arc::new(Journal::default()).attempt(false),
            secrets: None,
            connector: Some(Arc::new(connector.expect("valid"))),
            patience: Patience::default(),
        };
        opener.open(url, options).await
    }

    /// The first connection waits for the server.
    async fn app(&self) -> Connection {
        let url = self.url("me:s3cret%26pass", "postgres");
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match self.open(&url, "{}").await {
                Ok(connection) => return connection,
                Err(failure) if failure.code == "sql.unreachable" && Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(failure) => panic!("{failure:?}"),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Immediate shutdown: its children go with it.
        let pid = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = self.process.wait();
    }
}

fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let programs = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    programs.into_iter().find(|path| path.join("initdb").exists())
}

/// The server refuses to run as root: then it runs as the user that its package made.
fn postgres_user() -> Option<(u32, u32)> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("reads");
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let mut fields = line.expect("the package made the user").split(':').skip(2);
    let mut number = || fields.next().expect("a field").parse().expect("a number");
    Some((number(), number()))
}

fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").current_dir("/");
    if let Some((user, group)) = postgres_user() {
        command.uid(user).gid(group);
    }
    command
}

fn give_away(directory: &Path) {
    if let Some((user, group)) = postgres_user() {
        std::os::unix::fs::chown(directory, Some(user), Some(group)).expect("given");
    }
}

fn code<T>(outcome: &Result<T, Failure>) -> &str {
    outcome.as_ref().err().map_or("ok", |failure| &failure.code)
}

async fn ask(connection: &Connection, sql: &str, parameters: Json) -> Result<Json, Failure> {
    connection.query(sql.into(), &parameters.to_string()).await
}

async fn run(connection: &Connection, steps: Json) -> Result<Json, Failure> {
    connection.transact("test", &steps.to_string()).await
}

#[tokio::test]
async fn against_a_server() {
    let Some(server) = Server::start() else { return };
    let app = server.app().await;
    values(&app).await;
    reads_only(&app).await;
    transactions(&app).await;
    locks(&server, &app).await;
    refusals(&server).await;
}

async fn values(app: &Connection) {
    let sql = "SELECT true, 1::int2, 2::int4, 9007199254740993::int8, 1.5::float8, 'NaN'::float4, 'é'::text, \
               '{\"a\":[1]}'::jsonb, '\\x00ff'::bytea, null::int, 1.10::numeric, '2026-01-02'::date, \
               '{1,2}'::int[], '00000000-0000-0000-0000-000000000001'::uuid -- all; -- of them";
    let answer = ask(app, sql, json!([])).await.expect("answers");
    let expected = json!([
        true, 1, 2, 9_007_199_254_740_993_i64, 1.5, "NaN", "é", { "a": [1] }, "AP8=", null, "1.10", "2026-01-02",
        "{1,2}", "00000000-0000-0000-0000-000000000001"
    ]);
    assert_eq!(answer["rows"], json!([expected]));
    let sql = "SELECT $1::int + 1 AS n, $2::text AS t, $3::jsonb AS j, $4::bytea AS b, $5::numeric AS d, $6::bool AS x";
    let parameters = json!([41, "it's", { "k": "v" }, "AP8=", "2.50", null]);
    let answer = ask(app, sql, parameters).await.expect("answers");
    assert_eq!(answer["columns"], json!(["n", "t", "j", "b", "d", "x"]));
    assert_eq!(
        answer["rows"],
        json!([[42, "it's", { "k": "v" }, "AP8=", "2.50", null]])
    );
    let many = ask(app, "SELECT generate_series(1, 20000)", json!([])).await;
    assert_eq!(code(&many), "sql.too-large");
    assert_eq!(code(&ask(app, "SELECT $1::int", json!([])).await), "sql.failed");
    assert_eq!(
        code(&ask(app, "SELECT $1::int", json!(["x"])).await),
        "sql.failed"
    );
    assert_eq!(code(&ask(app, "SHOW server_version", json!([])).await), "ok");
}

async fn reads_only(app: &Connection) {
    let check = async |sql: &str, expected: &str| {
        assert_eq!(code(&ask(app, sql, json!([])).await), expected, "{sql}");
    };
    check("CREATE TABLE t (a int)", "sql.read-only").await;
    check("SELECT 1; CREATE TABLE t (a int)", "sql.failed").await;
    check("COMMIT", "sql.refused").await;
    check("SELECT nothing", "sql.failed").await;
    check("SELECT 1", "ok").await;
}

async fn transactions(app: &Connection) {
    let steps = json!([
        { "sql": "CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1), (2)" },
        { "sql": "INSERT INTO t SELECT generate_series($1::int, $2::int)", "parameters": [10, 12] },
    ]);
    assert_eq!(run(app, steps).await, Ok(json!({ "rows-affected": [2, 3] })));
    let count = async || {
        ask(app, "SELECT count(*) FROM t", json!([]))
            .await
            .expect("answers")["rows"]
            .clone()
    };
    let check = async |sql: &str, expected: &str, position: Option<u64>| {
        let failure = run(app, json!([{ "sql": "DELETE FROM t" }, { "sql": sql }]))
            .await
            .expect_err("fails");
        let details = failure.details.clone().unwrap_or_default();
        assert_eq!(
            (failure.code.as_str(), details["step"].as_u64()),
            (expected, Some(1)),
            "{failure:?}"
        );
        assert_eq!(details["position"].as_u64(), position, "{sql}");
        assert_eq!(count().await, json!([[5]]), "{sql}");
        details
    };
    let details = check("INSERT INTO t VALUES (7), (7)", "sql.failed", None).await;
    assert_eq!(details["sqlstate"], "23505");
    check("SELECT 1;\nSELEC 2", "sql.failed", Some(11)).await;
    check("COMMIT", "sql.refused", None).await;
    check("SELECT 1; ROLLBACK; SELECT 2", "sql.refused", None).await;
}

async fn locks(server: &Server, app: &Connection) {
    let url = server.url("me:s3cret%26pass", "postgres");
    let mut first = server.open(&url, "{}").await.expect("opens");
    let mut second = server
        .open(&url, r#"{"lock-timeout-ms":100}"#)
        .await
        .expect("opens");
    let short = Duration::from_millis(150);
    assert_eq!(first.lock("key", short).await, Ok(true));
    assert_eq!(second.lock("key", short).await, Ok(false));
    assert_eq!(second.lock("other", short).await, Ok(true));
    drop(first);
    assert_eq!(second.lock("key", Duration::from_secs(10)).await, Ok(true));
    let slow = server
        .open(&url, r#"{"statement-timeout-ms":100}"#)
        .await
        .expect("opens");
    assert_eq!(
        code(&ask(&slow, "SELECT pg_sleep(30)", json!([])).await),
        "sql.timeout"
    );
    let reading = server.open(&url, r#"{"read-only":true}"#).await.expect("opens");
    assert_eq!(
        code(&run(&reading, json!([{ "sql": "DELETE FROM t" }])).await),
        "sql.read-only"
    );
    assert_eq!(code(&ask(app, "SELECT 1", json!([])).await), "ok");
    assert_eq!(app.dialect(), "postgresql");
}

async fn refusals(server: &Server) {
    let check = async |url: &str, expected: &str| {
        let opened = server.open(url, "{}").await;
        let failure = opened.err().expect("refused");
        assert_eq!(failure.code, expected, "{url}: {failure:?}");
        assert!(!format!("{failure:?}").contains("wrong-password"), "{failure:?}");
    };
    check(&server.url("me:wrong-password", "postgres"), "sql.authentication").await;
    check(&server.url("me", "postgres"), "sql.unreachable").await;
    check(&server.url("me:s3cret%26pass", "none"), "sql.missing").await;
    check(
        &(server.url("me:wrong-password", "postgres") + "?sslmode=require"),
        "sql.unreachable",
    )
    .await;
    check(
        "postgresql://me:wrong-password@127.0.0.1:1/postgres",
        "grant.denied",
    )
    .await;
    check("postgresql://me:wrong-password@/postgres", "sql.url").await;
}
