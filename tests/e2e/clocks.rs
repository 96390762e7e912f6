//! Clocks that jump by a day, forwards and backwards, under the whole binary: `libfaketime` stands between it and the wall clock.
//! Leases, the order of the history, what a resume goes on with and what a rollback undoes do not depend on it.

use super::contract::empty;
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command},
    time::{Duration, Instant},
};
use windlass_tests::{
    component::guest,
    counter::Counter,
    workspace::{Ended, Workspace},
};

const JUMPS: [&str; 2] = ["+1d", "-1d"];
const DAY: i64 = 24 * 3600;
const LEASE: Duration = Duration::from_millis(600);

/// Has an effect, sets the clock, waits for a file, has another effect.
const PIPELINE: &str = r#"
windlass: 1
name: clocks
concurrency: { group: clocks }
directories: { data: data }
stages:
  first:
    uses: command
    with: { argv: [sh, -c, "echo first >> log"], directory: /mnt/data }
    allow: { process: ["sh **"], files: { /mnt/data: rw } }
  jump:
    needs: [first]
    uses: command
    with: { argv: [cp, jump, clock], directory: /mnt/data }
    allow: { process: ["cp jump clock"], files: { /mnt/data: rw } }
  gate:
    needs: [jump]
    uses: health-check
    with: { retries: 1000, delay: 50ms, checks: { gate: { file: /mnt/data/go } } }
    allow: { files: { /mnt/data: ro } }
  last:
    needs: [gate]
    uses: command
    with: { argv: [sh, -c, "echo last >> log"], directory: /mnt/data }
    allow: { process: ["sh **"], files: { /mnt/data: rw } }
"#;

struct Site {
    workspace: Workspace,
    library: PathBuf,
}

/// A run that goes on while the test does.
struct Engine {
    child: Child,
    said: PathBuf,
}

impl Site {
    /// `None`, said aloud, where the library is missing.
    fn new(jump: &str) -> Option<Self> {
        let libraries = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let mut libraries = libraries.map(|place| place.path().join("faketime/libfaketimeMT.so.1"));
        let Some(library) = libraries.find(|path| path.exists()) else {
            eprintln!("skipped: needs libfaketime");
            return None;
        };
        let workspace = empty();
        workspace.write("windlass.yaml", PIPELINE);
        workspace.write("data/log", "");
        workspace.write("data/jump", jump);
        let site = Self { workspace, library };
        site.set("+0");
        Some(site)
    }

    /// By how much the clock is wrong, for everybody under it, from now on.
    fn set(&self, offset: &str) {
        // Renamed over the other: it is read while it is written.
        self.workspace.write("data/next", offset);
        fs::rename(
            self.workspace.path("data/next"),
            self.workspace.path("data/clock"),
        )
        .expect("renamed");
    }

    /// The binary under that clock.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.workspace.command(arguments);
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", self.workspace.path("data/clock"))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
        command
    }

    fn windlass(&self, arguments: &[&str]) -> Ended {
        Ended::from(self.command(arguments).output().expect("starts"))
    }

    /// Started, with a short lease, and waiting behind the jump.
    fn start_until_gate(&self) -> Engine {
        let said = self.workspace.path("../said");
        let file = File::create(&said).expect("made");
        let child = self
            .command(&["run", "--progress", "json"])
            .env("WINDLASS_LOCK_LEASE", format!("{}ms", LEASE.as_millis()))
            .stderr(file.try_clone().expect("the same file"))
            .stdout(file)
            .spawn()
            .expect("starts");
        let mut engine = Engine { child, said };
        until("the gate", || {
            let ended = engine.child.try_wait().expect("it can be asked");
            assert!(ended.is_none(), "{}", engine.said());
            let said = engine.said();
            said.lines()
                .any(|line| line.contains("stage.started") && line.contains("\"stage\":\"gate\""))
        });
        engine
    }

    fn lock_state(&self) -> String {
        let shown = self
            .windlass(&["lock", "show", "--format", "json"])
            .expect(0)
            .json();
        shown["locks"][0]["state"]
            .as_str()
            .unwrap_or_default()
            .to_string()
    }

    fn log(&self) -> String {
        self.workspace.read("data/log").replace('\n', " ")
    }

    /// The ids of all runs, as they are listed.
    fn runs(&self) -> Vec<String> {
        let listed = self
            .windlass(&["runs", "list", "--format", "json"])
            .expect(0)
            .json();
        let runs = listed.as_array().expect("a list").iter();
        runs.map(|run| run["id"].as_str().expect("an id").to_string())
            .collect()
    }
}

impl Engine {
    fn said(&self) -> String {
        fs::read_to_string(&self.said).expect("readable")
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        assert!(sent.expect("kill is there").success());
    }

    #[track_caller]
    fn expect(mut self, codes: &[i32]) -> String {
        let ended = self.child.wait().expect("ends");
        let said = self.said();
        assert!(
            codes.iter().any(|code| ended.code() == Some(*code)),
            "{ended}: {said}"
        );
        said
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // After a test that failed half-way; it has ended otherwise.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// By how many seconds the clock of a run has gone between its first and its last event.
fn gone_by(said: &str) -> i64 {
    let times: Vec<i64> = said
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|event| event["ts"].as_str().map(seconds))
        .collect();
    times.last().expect("events") - times.first().expect("events")
}

/// Of `2026-11-25T…Z`: days and time are enough within a month, and months are taken as long ones.
fn seconds(time: &str) -> i64 {
    let mut numbers = time
        .split(|letter: char| !letter.is_ascii_digit())
        .map(|part| part.parse::<i64>().unwrap_or(0));
    let mut next = || numbers.next().expect("a time");
    let (year, month, day) = (next(), next(), next());
    let days = rusqlite::Connection::open_in_memory()
        .and_then(|database| {
            database.query_row(
                "SELECT CAST(julianday(printf('%04d-%02d-%02d', ?1, ?2, ?3)) + 0.5 AS INTEGER)",
                (year, month, day),
                |row| row.get::<_, i64>(0),
            )
        })
        .expect("a date");
    days * DAY + next() * 3600 + next() * 60 + next()
}

#[test]
fn a_lease_is_held_whatever_the_clocks_say() {
    for jump in JUMPS {
        let Some(site) = Site::new(jump) else { return };
        let holder = site.start_until_gate();
        let began = Instant::now();
        // Three leases long: it is renewed behind the jump, and nobody takes it for one that has run out.
        while began.elapsed() < 3 * LEASE {
            for clock in ["+0", "+1d", "-1d"] {
                site.set(clock);
                assert_eq!(site.lock_state(), "held", "{jump}, {clock}");
                let refused = site.windlass(&["run"]).expect(75);
                assert!(refused.stderr.contains("error[lock.held]"), "{}", refused.stderr);
            }
            site.set(jump);
        }
        site.workspace.write("data/go", "");
        let said = holder.expect(&[0]);
        let gone = gone_by(&said).abs();
        assert!(
            (DAY - 600..DAY + 600).contains(&gone),
            "its clock jumped: {gone} s, {said}"
        );
        assert_eq!(site.log(), "first last ");
        site.windlass(&["run"]).expect(0);
    }
}

#[test]
fn a_lease_runs_out_whatever_the_clocks_say() {
    for jump in JUMPS {
        let Some(site) = Site::new(jump) else { return };
        let sleeper = site.start_until_gate();
        sleeper.signal("STOP");
        let stopped = Instant::now();
        site.workspace.write("data/go", "");
        // The other's clock says that the lease was given in a day, or a day ago.
        site.set("+0");
        let other = site
            .windlass(&["run", "--lock-wait", "--lock-wait-interval", "100ms"])
            .expect(0);
        assert!(other.stderr.contains("whose lease ran out"), "{}", other.stderr);
        until("three leases", || stopped.elapsed() >= 3 * LEASE);
        assert_eq!(site.log(), "first first last ");
        sleeper.signal("CONT");
        let said = sleeper.expect(&[3]);
        assert!(said.contains("the lock of group `clocks` was lost"), "{said}");
        assert_eq!(
            site.log(),
            "first first last ",
            "nothing more of the one that slept"
        );
    }
}

#[test]
fn a_run_is_gone_on_with_and_listed_whatever_the_clocks_say() {
    for jump in JUMPS {
        let Some(site) = Site::new(jump) else { return };
        let killed = site.start_until_gate();
        killed.signal("KILL");
        drop(killed);
        site.workspace.write("data/go", "");
        // Back again, by a day, in the process that goes on.
        site.set("+0");
        let resumed = site.windlass(&["resume", "--progress", "json"]).expect(0);
        assert_eq!(site.log(), "first last ", "{}", resumed.said());
        let last = resumed.json_lines().pop().expect("events");
        let took = last["duration-ms"].as_u64().expect("a time");
        assert!(took < 60_000, "{last}");
        site.windlass(&["journal"]).expect(0);

        // The newest run is the one that began last, not the one with the greatest time in its name.
        let mut begun = site.runs();
        for clock in ["+1d", "-1d", "+0"] {
            site.set(clock);
            site.workspace.write("data/jump", clock);
            site.windlass(&["run"]).expect(0);
            let listed = site.runs();
            assert_eq!(listed[1..], begun, "{jump}, {clock}");
            begun = listed;
            let shown = site
                .windlass(&["runs", "show", "--format", "json"])
                .expect(0)
                .json();
            assert_eq!(shown["id"], *begun[0], "{jump}, {clock}");
        }
        let mut by_name = begun.clone();
        by_name.sort();
        by_name.reverse();
        assert_ne!(begun, by_name, "the clocks have jumped");
    }
}

#[test]
fn what_is_undone_first_is_what_was_done_last_whatever_the_clocks_say() {
    for jump in JUMPS {
        let Some(site) = Site::new(jump) else { return };
        let counter = Counter::start();
        let server = counter.url();
        let stage = |name: &str, needs: &str| {
            format!(
                "  {name}:\n    uses: ./counted.wasm\n    needs: [{needs}]\n    with: {{ server: \"{server}\", effects: [{name}] }}\n    allow: {{ http: [\"{server}\"] }}\n    rollback: auto\n"
            )
        };
        let text = format!("{PIPELINE}{}{}", stage("b-before", ""), stage("a-after", "last"));
        let text = text.replace("needs: [jump]", "needs: [jump, b-before]");
        site.workspace.write(
            "windlass.yaml",
            &text.replace(
                "  jump:\n    needs: [first]",
                "  jump:\n    needs: [first, b-before]",
            ),
        );
        site.workspace.write("data/go", "");
        fs::write(site.workspace.path("counted.wasm"), guest("counted").bytes).expect("written");
        site.windlass(&["run"]).expect(0);
        let shown = site.windlass(&["rollback"]);
        let place = |name: &str| shown.stderr.find(&format!("  undo  {name}\n"));
        assert!(
            place("a-after").is_some() && place("a-after") < place("b-before"),
            "{jump}: {}",
            shown.said()
        );
        site.windlass(&["rollback", "--yes"]).expect(3);
        let effects = counter.effects();
        assert!(
            effects
                .values()
                .all(|effect| (effect.done, effect.undone) == (1, 1)),
            "{effects:?}"
        );
    }
}
