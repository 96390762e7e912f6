//! A real PostgreSQL server of one test, on a free loopback port and with data that go away with it.

use std::{
    env, fs,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Starting takes a second on an idle machine.
const START: Duration = Duration::from_secs(60);
const USER: &str = "deployer";
const PASSWORD: &str = "pg-pass-4711";

/// Stopped when dropped.
pub struct Postgres {
    server: Child,
    programs: PathBuf,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Postgres {
    /// A server that answers. `None`, said aloud, where its programs are missing.
    ///
    /// # Panics
    /// They are there, and it does not start.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("skipped: needs PostgreSQL (apt-get install postgresql-15)");
            return None;
        };
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (data, password) = (directory.path().join("data"), directory.path().join("password"));
        fs::write(&password, PASSWORD).expect("written");
        if let Some((user, group)) = account() {
            for path in [directory.path(), &password] {
                chown(path, Some(user), Some(group)).expect("root may give it away");
            }
        }
        let mut initdb = as_its_user(&programs.join("initdb"));
        initdb.args([
            "--auth=scram-sha-256",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        ]);
        initdb.arg(format!("--username={USER}"));
        initdb.arg(format!("--pwfile={}", password.display()));
        let made = initdb.arg("-D").arg(&data).output().expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let log = fs::File::create(directory.path().join("log")).expect("made");
        let mut server = as_its_user(&programs.join("postgres"));
        server.arg("-D").arg(&data).arg("-k").arg(directory.path());
        server.args([
            "-p",
            &port.to_string(),
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "fsync=off",
        ]);
        let server = Self {
            server: server.stderr(log).spawn().expect("postgres runs"),
            programs,
            port,
            _directory: directory,
        };
        let began = Instant::now();
        while !server.psql("select 1").status.success() {
            assert!(began.elapsed() < START, "it does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }

    /// Its one database, without who logs in: what a grant names.
    pub fn place(&self) -> String {
        format!("postgres://127.0.0.1:{}/postgres", self.port)
    }

    /// The same, with who logs in.
    pub fn url(&self) -> String {
        self.place().replacen("//", &format!("//{USER}:{PASSWORD}@"), 1)
    }

    /// One statement that has to work: its rows, a line each.
    ///
    /// # Panics
    /// It fails.
    #[track_caller]
    pub fn ask(&self, statement: &str) -> Vec<String> {
        let Output {
            status,
            stdout,
            stderr,
        } = self.psql(statement);
        assert!(
            status.success(),
            "{statement}: {}",
            String::from_utf8_lossy(&stderr)
        );
        String::from_utf8_lossy(&stdout)
            .lines()
            .map(String::from)
            .collect()
    }

    fn psql(&self, statement: &str) -> Output {
        Command::new(self.programs.join("psql"))
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-U",
                USER,
                "-d",
                "postgres",
            ])
            .args(["--no-psqlrc", "-At", "-c", statement])
            .env_clear()
            .env("PGPASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .output()
            .expect("psql is beside the server")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Immediate shutdown: its children go with it.
        let pid = self.server.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &pid]).status();
        let _ = self.server.wait();
    }
}

fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let packaged = versions.map(|version| version.path().join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let all: Vec<PathBuf> = packaged.chain(env::split_paths(&path)).collect();
    let is_whole = |place: &PathBuf| {
        ["initdb", "postgres", "psql"]
            .iter()
            .all(|name| place.join(name).exists())
    };
    all.into_iter().find(is_whole)
}

/// The server refuses to run as root: then it runs as the user that its package made.
fn account() -> Option<(u32, u32)> {
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    let is_root = status.lines().any(|line| line.starts_with("Uid:\t0\t"));
    if !is_root {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("readable");
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let mut fields = line.expect("the package made the user").split(':').skip(2);
    let mut number = || fields.next().expect("a field").parse().expect("a number");
    Some((number(), number()))
}

fn as_its_user(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").current_dir("/");
    if let Some((user, group)) = account() {
        command.uid(user).gid(group);
    }
    command
}
