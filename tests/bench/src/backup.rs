//! P11: a database in a container by the `backup` plugin, beside the shell's pipe and beside `pg_dump -Fc`, both run in that container.
//!
//! The database is that of `data.sql`: about 1 GB of SQL, or as many megabytes as `WINDLASS_BENCH_MEGABYTES` says. All three read it
//! in turn, after one dump that nobody measures, and the medians are compared:
//!
//! - **Windlass**: a whole durable run of one stage, from its first record to its last. The plugin looks for the container, dumps,
//!   compresses with zstd -3, digests what it reads and what it writes, syncs, counts all rows where nobody wrote meanwhile, publishes a manifest,
//!   and removes the backup before.
//! - **the pipe**: `pg_dump | zstd -1 | sha256sum`. It keeps nothing, counts nothing and syncs nothing.
//! - **`pg_dump -Fc`**: its bytes are counted and kept nowhere.
//!
//! A run with `verify: true` is measured too: it restores the backup into a database of its own and compares. No peer does that, so
//! there is no bound.

use crate::{
    docker,
    project::{Project, Ready, Result, Shape},
    statistics::median,
    table::{Quantity, Row, Wanted},
};
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const ROUNDS: usize = 3;
const DATA: &str = include_str!("../data.sql");
const MEGABYTES: &str = "WINDLASS_BENCH_MEGABYTES";

/// That of the tests, under the name of the one that pipelines use.
const IMAGE: &str = "postgres:15-alpine";
const CONTAINER: &str = "windlass-bench-postgres";
/// What makes it a service that the plugin finds.
const LABELS: [&str; 2] = [
    "com.docker.compose.project=windlass-bench",
    "com.docker.compose.service=postgres",
];
const DUMP: &str = "pg_dump -w -U bench -d bench";

pub(crate) fn postgres(project: &Project, rows: &mut Vec<Row>) -> Result<()> {
    docker::api(project)?;
    make_image()?;
    let database = Database::start()?;
    database.fill(&std::env::var(MEGABYTES).unwrap_or_else(|_| "1000".into()))?;
    let (_, dumped) = database.shell(&format!("{DUMP} | wc -c"))?;
    let directory = project.root().join("backups");
    std::fs::create_dir(&directory).map_err(|error| error.to_string())?;
    let (plain, verified) = (stage(project, false)?, stage(project, true)?);
    let (mut pipes, mut customs, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut size, mut custom_size) = (0, 0);
    for _ in 0..ROUNDS {
        pipes.push(database.shell(&format!("{DUMP} | zstd -q -1 | sha256sum"))?.0);
        runs.push(project.run(&plain, 1, true)?.total);
        size = size_of(&directory)?;
        let (time, bytes) = database.shell(&format!("{DUMP} -Fc | wc -c"))?;
        customs.push(time);
        custom_size = number(&bytes)?;
    }
    let proved = project.run(&verified, 1, true)?.total;
    let [pipe, custom, run] = [&pipes, &customs, &runs].map(|times| Quantity::Time(median(times)));
    // No table takes its bars.
    let pipe = ("the shell's pipe", pipe);
    let what = format!("back up {} of SQL", Quantity::Bytes(number(&dumped)?));
    let row = |what: String, measured, base, wanted| Row::ratio("P11", what, measured, base, wanted);
    rows.push(row(what.clone(), run, pipe, Wanted::AtMost(1.15)));
    rows.push(row(
        what.clone(),
        run,
        ("pg_dump -Fc", custom),
        Wanted::AtMost(1.0),
    ));
    rows.push(row(
        format!("{what}: its size"),
        Quantity::Bytes(size),
        ("pg_dump -Fc", Quantity::Bytes(custom_size)),
        Wanted::AtMost(1.0),
    ));
    rows.push(row(
        format!("{what} and restore it to verify"),
        Quantity::Time(proved),
        pipe,
        Wanted::Nothing,
    ));
    Ok(())
}

fn stage(project: &Project, verify: bool) -> Result<Ready> {
    let body = format!(
        "    uses: backup\n    with:\n      \
           sources: {{ app: {{ postgres: {{ container: windlass-bench/postgres, database: bench, user: bench }} }} }}\n      \
           to: [backups]\n      keep: {{ last: 1 }}\n      verify: {verify}\n    \
         allow: {{ files: {{ /workspace/backups: rw }}, containers: {{ exec: [windlass-bench/postgres] }} }}\n"
    );
    project.ready(&Shape {
        stages: 1,
        is_chain: true,
        body: &body,
    })
}

/// An image that is there already is left alone.
fn make_image() -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/build.sh");
    let made = Command::new(script).arg("postgres").stdin(Stdio::null()).output();
    let made = made.map_err(|error| format!("tests/images/build.sh cannot be started: {error}"))?;
    docker::said("tests/images/build.sh postgres", &made).map(drop)
}

/// A server in a container, gone with this.
struct Database;

impl Database {
    fn start() -> Result<Self> {
        // One that a bench which was killed has left.
        remove();
        let database = Self;
        let labels = LABELS.map(|label| ["--label", label]);
        let settings = [
            "--env=POSTGRES_USER=bench",
            "--env=POSTGRES_HOST_AUTH_METHOD=trust",
            // Several processes build an index of so many rows, and share a little more than the 64 MB of a container.
            "--shm-size=256m",
            IMAGE,
        ];
        // Nobody reaches it but through its own programs, and nothing goes on in it beside what is measured.
        let server = ["-c", "max_wal_size=8GB", "-c", "autovacuum=off"];
        let start = ["run", "--detach", "--name", CONTAINER, "--network", "none"];
        docker::run(&[&start, labels.as_flattened(), &settings, &server].concat())?;
        database.wait()?;
        Ok(database)
    }

    fn wait(&self) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(60);
        let began = Instant::now();
        // While its cluster is made the server listens on no address.
        let ready = [
            "exec",
            CONTAINER,
            "pg_isready",
            "-q",
            "-h",
            "127.0.0.1",
            "-U",
            "bench",
        ];
        while let Err(problem) = docker::run(&ready) {
            if began.elapsed() > PATIENCE {
                return Err(format!("the database does not start: {problem}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn fill(&self, megabytes: &str) -> Result<()> {
        let variable = format!("megabytes={megabytes}");
        let psql = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", &variable];
        let database = ["-U", "bench", "-d", "bench"];
        let mut command =
            docker::command(&[&["exec", "--interactive", CONTAINER], &psql[..], &database].concat());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let mut input = child.stdin.take().ok_or("psql takes no script")?;
        // A psql that does not read to the end says why itself.
        let _ = input.write_all(DATA.as_bytes());
        drop(input);
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        docker::said("data.sql", &output).map(drop)
    }

    /// A line for the shell of the container: how long it took, and what it said.
    fn shell(&self, line: &str) -> Result<(Duration, String)> {
        docker::run(&["exec", CONTAINER, "bash", "-o", "pipefail", "-c", line])
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        remove();
    }
}

fn remove() {
    // It may not be there.
    let _ = docker::run(&["rm", "--force", "--volumes", CONTAINER]);
}

/// Of everything in it: the one backup that is kept, with its manifest.
fn size_of(directory: &Path) -> Result<u64> {
    let mut size = 0;
    let entries = std::fs::read_dir(directory).map_err(|error| error.to_string())?;
    for entry in entries {
        let entry = entry.map_err(|error| error.to_string())?;
        let metadata = entry.metadata().map_err(|error| error.to_string())?;
        size += match metadata.is_dir() {
            true => size_of(&entry.path())?,
            false => metadata.len(),
        };
    }
    Ok(size)
}

fn number(text: &str) -> Result<u64> {
    text.trim()
        .parse()
        .map_err(|_| format!("`{text}` is no number of bytes"))
}
