//! Concurrency groups, with real processes that are stopped, killed and woken.

use super::contract::empty;
use serde_json::Value as Json;
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};
use windlass_tests::workspace::{Ended, Workspace};

/// A stage that waits for a file without any effect, then one that leaves a line, then one more.
const PIPELINE: &str = r#"
windlass: 1
name: test
vars: { who: { type: string, default: nobody } }
concurrency: { group: deploy }
directories: { data: data }
stages:
  gate:
    uses: health-check
    with: { retries: 1000, delay: 50ms, checks: { gate: { file: /mnt/data/gate } } }
    allow: { files: { /mnt/data: ro } }
  change:
    needs: [gate]
    uses: command
    with: { argv: [sh, -c, "echo ${{ vars.who }} >> log; until [ -e go ]; do sleep 0.02; done"], directory: /mnt/data }
    allow: { process: ["sh **"], files: { /mnt/data: rw } }
  after:
    needs: [change]
    uses: command
    with: { argv: [sh, -c, "echo ${{ vars.who }}-after >> log"], directory: /mnt/data }
    allow: { process: ["sh **"], files: { /mnt/data: rw } }
finally:
  last:
    uses: health-check
    with: { retries: 1000, delay: 50ms, checks: { gate: { file: /mnt/data/end } } }
    allow: { files: { /mnt/data: ro } }
"#;

/// For tests in which a lease has to run out.
const LEASE: Duration = Duration::from_millis(600);

struct Site {
    workspace: Workspace,
}

/// A run that goes on while the test does.
struct Engine {
    child: Child,
    said: PathBuf,
}

impl Site {
    /// With these of the files that the stages wait for: `gate`, `go`, `end`.
    fn new(open: &[&str]) -> Self {
        let workspace = empty();
        workspace.write("a.yaml", PIPELINE);
        workspace.write("data/log", "");
        let site = Self { workspace };
        open.iter().for_each(|name| site.open(name));
        site
    }

    fn with_short_leases(mut self) -> Self {
        let lease = format!("{}ms", LEASE.as_millis());
        self.workspace.set("WINDLASS_LOCK_LEASE", &lease);
        self
    }

    fn open(&self, name: &str) {
        self.workspace.write(&format!("data/{name}"), "");
    }

    fn log(&self) -> String {
        self.workspace.read("data/log").replace('\n', " ")
    }

    fn arguments(who: &str, more: &[&str]) -> Vec<String> {
        let who = format!("who={who}");
        let all = ["run", "a.yaml", "--progress", "json", "--var", &who];
        all.iter().chain(more).map(ToString::to_string).collect()
    }

    /// Runs to the end.
    fn run(&self, who: &str, more: &[&str]) -> Ended {
        self.workspace.windlass(Self::arguments(who, more))
    }

    fn start(&self, who: &str, more: &[&str]) -> Engine {
        let said = self.workspace.path(&format!("{who}.said"));
        let file = File::create(&said).expect("made");
        let child = self
            .workspace
            .command(Self::arguments(who, more))
            .stderr(file.try_clone().expect("the same file"))
            .stdout(file)
            .spawn()
            .expect("starts");
        Engine { child, said }
    }

    /// Started, and with this stage under way.
    fn start_until(&self, who: &str, stage: &str) -> Engine {
        let mut engine = self.start(who, &[]);
        let wanted = format!("\"stage\":\"{stage}\"");
        until(stage, || {
            let ended = engine.child.try_wait().expect("it can be asked");
            assert!(ended.is_none(), "{}", engine.said());
            let said = engine.said();
            said.lines()
                .any(|line| line.contains("stage.started") && line.contains(&wanted))
        });
        engine
    }

    fn lock(&self) -> Json {
        let shown = self
            .workspace
            .windlass(["lock", "show", "--format", "json", "--file", "a.yaml"])
            .expect(0);
        shown.json()["locks"][0].clone()
    }

    fn release(&self, more: &[&str]) -> Ended {
        let all = ["lock", "release", "deploy", "--file", "a.yaml"];
        self.workspace.windlass(all.iter().chain(more))
    }

    fn wait_for_waiting(&self, count: usize) {
        until("a place in the queue", || {
            self.lock()["waiting"]
                .as_array()
                .is_some_and(|waiting| waiting.len() == count)
        });
    }

    fn database(&self) -> rusqlite::Connection {
        let files = self.workspace.state_files();
        let journal = files.iter().find(|(path, _)| path.ends_with("journal.db"));
        rusqlite::Connection::open(&journal.expect("there is a journal").0).expect("opens")
    }
}

impl Engine {
    fn said(&self) -> String {
        fs::read_to_string(&self.said).expect("readable")
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([format!("-{signal}"), self.child.id().to_string()])
            .status();
        assert!(status.expect("kill is there").success());
    }

    fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_some()
    }

    #[track_caller]
    fn expect(mut self, code: i32) -> String {
        let ended = self.child.wait().expect("ends");
        let said = self.said();
        assert_eq!(ended.code(), Some(code), "{said}");
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

#[test]
fn a_held_lock_is_75_and_names_its_holder() {
    let site = Site::new(&["go", "end"]);
    let holder = site.start_until("A", "gate");
    let lock = site.lock();
    assert_eq!(
        (&lock["group"], &lock["state"], &lock["holder"]["pid"]),
        (&"deploy".into(), &"held".into(), &holder.child.id().into())
    );
    let run = lock["holder"]["run"].as_str().expect("a run").to_string();

    let refused = site.run("B", &[]).expect(75);
    for part in [
        "error[lock.held]",
        &run,
        &format!("pid {}", holder.child.id()),
        "`windlass lock show`",
        "--lock-wait",
    ] {
        assert!(refused.stderr.contains(part), "{part} in\n{}", refused.stderr);
    }
    let patience = [
        "--lock-wait",
        "--lock-wait-timeout",
        "1",
        "--lock-wait-interval",
        "100ms",
    ];
    let impatient = site.run("B", &patience).expect(75);
    assert!(
        impatient.stderr.contains("error[lock.timeout]") && impatient.stderr.contains("waited 1 s"),
        "{}",
        impatient.stderr
    );
    assert_eq!(
        site.lock()["waiting"],
        Json::Array(Vec::new()),
        "who gave up left the queue"
    );
    let refused = site.release(&[]).expect(75);
    assert!(
        refused.stderr.contains("--force` takes the lock away"),
        "{}",
        refused.stderr
    );

    site.open("gate");
    holder.expect(0);
    assert_eq!(site.lock()["state"], "free");
    site.run("B", &[]).expect(0);
    assert_eq!(site.log(), "A A-after B B-after ");
}

#[test]
fn who_waits_follows_in_order() {
    let site = Site::new(&["go", "end"]);
    let first = site.start_until("A", "gate");
    let patience = ["--lock-wait", "--lock-wait-interval", "100ms"];
    let second = site.start("B", &patience);
    site.wait_for_waiting(1);
    let third = site.start("C", &patience);
    site.wait_for_waiting(2);
    site.open("gate");
    first.expect(0);
    let said = second.expect(0);
    assert!(
        said.contains("notice[lock]: waiting for the lock of group `deploy`: held by run"),
        "{said}"
    );
    third.expect(0);
    assert_eq!(site.log(), "A A-after B B-after C C-after ");
}

#[test]
fn the_lock_is_held_through_finally() {
    let site = Site::new(&["gate", "go"]);
    let holder = site.start_until("A", "last");
    site.run("B", &[]).expect(75);
    site.open("end");
    holder.expect(0);
    site.run("B", &[]).expect(0);
}

#[test]
fn after_sigkill_the_next_run_takes_over_and_says_so() {
    let site = Site::new(&["go", "end"]);
    let mut holder = site.start_until("A", "gate");
    holder.signal("KILL");
    holder.child.wait().expect("ends");
    assert_eq!(site.lock()["state"], "dead");
    site.open("gate");
    let next = site.run("B", &[]).expect(0);
    assert!(
        next.stderr
            .contains("notice[lock]: took over the lock of group `deploy` from run ")
            && next.stderr.contains("whose process has ended"),
        "{}",
        next.stderr
    );
    assert_eq!(site.log(), "B B-after ");
}

/// Stops a run at `stage` for three leases, in which another one goes through.
fn stopped_for_three_leases(site: &Site, stage: &str, meanwhile: &str) -> Engine {
    let sleeper = site.start_until("A", stage);
    if stage == "change" {
        until("its effect", || site.log().contains("A "));
    }
    sleeper.signal("STOP");
    let stopped = Instant::now();
    site.open(meanwhile);
    let other = site
        .run("B", &["--lock-wait", "--lock-wait-interval", "100ms"])
        .expect(0);
    assert!(other.stderr.contains("whose lease ran out"), "{}", other.stderr);
    until("three leases", || stopped.elapsed() >= 3 * LEASE);
    sleeper.signal("CONT");
    sleeper
}

#[test]
fn who_was_stopped_before_an_effect_does_nothing_when_it_wakes() {
    let site = Site::new(&["go", "end"]).with_short_leases();
    let sleeper = stopped_for_three_leases(&site, "gate", "gate");
    let said = sleeper.expect(75);
    assert!(said.contains("the lock of group `deploy` was lost"), "{said}");
    assert_eq!(site.log(), "B B-after ", "nothing of A");
    let runs = site
        .workspace
        .windlass(["runs", "list", "--format", "json", "--file", "a.yaml"])
        .expect(0)
        .json();
    let status: Vec<_> = runs
        .as_array()
        .into_iter()
        .flatten()
        .map(|run| run["status"].clone())
        .collect();
    assert_eq!(
        status,
        ["succeeded", "running"],
        "nothing more of A was recorded: it can be resumed"
    );
}

#[test]
fn who_was_stopped_in_an_effect_does_nothing_after_it_and_needs_an_operator() {
    let site = Site::new(&["gate", "end"]).with_short_leases();
    let sleeper = stopped_for_three_leases(&site, "change", "go");
    let said = sleeper.expect(3);
    assert!(said.contains("the lock of group `deploy` was lost"), "{said}");
    assert_eq!(
        site.log(),
        "A B B-after ",
        "the effect in flight, and nothing after it"
    );
}

/// The places that a run with everything open reaches, each as often as it is reached.
fn places() -> Vec<(String, usize)> {
    let mut site = Site::new(&["gate", "go", "end"]);
    let trace = site.workspace.path("trace").display().to_string();
    site.workspace.set("WINDLASS_FAILPOINT_TRACE", &trace);
    site.run("A", &[]).expect(0);
    let mut places: Vec<(String, usize)> = Vec::new();
    for name in site.workspace.read("trace").lines() {
        let before = places.iter().filter(|(known, _)| known == name).count();
        places.push((name.to_string(), before + 1));
    }
    places
}

/// Which lines of the log are of this run.
fn lines_of(site: &Site, who: &str) -> Vec<String> {
    let log = site.log();
    let lines = log.split_whitespace().filter(|line| line.starts_with(who));
    lines.map(String::from).collect()
}

/// Stops a run at one place until another has gone through, wakes it, and goes on with it to its end. False where it was not
/// reached this time: which commits are shared differs from run to run.
fn stopped_at(name: &str, count: usize) -> bool {
    let place = format!("{name}:{count}");
    let site = Site::new(&["gate", "go", "end"]);
    let said = site.workspace.path("A.said");
    let file = File::create(&said).expect("made");
    let child = site
        .workspace
        .command(Site::arguments("A", &[]))
        .env("WINDLASS_FAILPOINT", &place)
        .env("WINDLASS_FAILPOINT_SIGNAL", "STOP")
        // The others keep theirs, however busy this machine is.
        .env("WINDLASS_LOCK_LEASE", format!("{}ms", LEASE.as_millis()))
        .stderr(file.try_clone().expect("the same file"))
        .stdout(file)
        .spawn()
        .expect("starts");
    let mut sleeper = Engine { child, said };
    until(&place, || sleeper.is_stopped() || sleeper.has_ended());
    if sleeper.has_ended() {
        return false;
    }
    let stopped = Instant::now();
    let before = lines_of(&site, "A");
    let other = site.run("B", &["--lock-wait", "--lock-wait-interval", "100ms"]);
    assert_eq!(other.code, 0, "{place}: {}", other.said());
    until("three leases", || stopped.elapsed() >= 3 * LEASE);
    sleeper.signal("CONT");
    let code = sleeper.child.wait().expect("ends").code();
    let said = sleeper.said();
    // 0: everything had been done before it was stopped.
    assert!(
        matches!(code, Some(3 | 75)) || (code == Some(0) && before == ["A", "A-after"]),
        "{place}: {code:?} {said}"
    );
    let after = lines_of(&site, "A");
    // Behind the check of the lease its effect is in flight; everywhere else nothing of it may be accepted.
    let allowed = if name == "effect.announced" {
        before.len() + 1
    } else {
        before.len()
    };
    assert!(
        after.len() <= allowed,
        "{place}: {} then {}",
        before.join(" "),
        after.join(" ")
    );
    let whole: &[&str] = if go_on(&site, &place) {
        &["A", "A-after"]
    } else {
        &[]
    };
    assert_eq!(lines_of(&site, "A"), whole, "{place}: {said}");
    assert_eq!(lines_of(&site, "B"), ["B", "B-after"], "{place}");
    true
}

/// Resumes what has not ended. Whether a native program ran nobody can tell but a person, who looks. False: there is no such
/// run, since it was stopped before its first record, and that was not accepted.
fn go_on(site: &Site, place: &str) -> bool {
    let listed = site
        .workspace
        .windlass(["runs", "list", "--format", "json", "--file", "a.yaml"]);
    if listed.expect(0).json().as_array().map(Vec::len) == Some(1) {
        return false;
    }
    for _ in 0..4 {
        let resumed = site.workspace.windlass(["resume"]);
        match resumed.code {
            0 | 65 => return true,
            3 => {}
            _ => panic!("{place}: {}", resumed.said()),
        }
        let said = resumed.said();
        let stage = ["change", "after"]
            .into_iter()
            .find(|stage| said.contains(&format!("--assume '{stage}=")));
        let stage = stage.unwrap_or_else(|| panic!("{place}: {said}"));
        let line = if stage == "change" { "A" } else { "A-after" };
        let is_done = lines_of(site, "A").iter().any(|known| known == line);
        let answer = format!("{stage}={}", if is_done { "done" } else { "not-done" });
        let answered = site.workspace.windlass(["resume", "--assume", &answer]);
        if answered.code == 0 {
            return true;
        }
        assert_eq!(answered.code, 3, "{place}: {}", answered.said());
    }
    panic!("{place}: it does not come to its end");
}

#[test]
fn who_was_stopped_anywhere_has_nothing_accepted_and_nothing_doubled() {
    let places = places();
    assert!(places.len() > 20, "{places:?}");
    // They mostly wait for leases.
    let next = AtomicUsize::new(0);
    let stopped = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let work = || {
            while let Some((name, count)) = places.get(next.fetch_add(1, Ordering::SeqCst)) {
                stopped.fetch_add(usize::from(stopped_at(name, *count)), Ordering::SeqCst);
            }
        };
        (0..4).for_each(|_| drop(scope.spawn(work)));
    });
    let stopped = stopped.into_inner();
    println!("stopped at {stopped} of {} places", places.len());
    assert!(stopped * 2 > places.len(), "{stopped} of {}", places.len());
}

#[test]
fn a_lock_that_was_taken_away_by_force_ends_its_run() {
    let site = Site::new(&["go", "end"]).with_short_leases();
    let holder = site.start_until("A", "gate");
    site.release(&["--force"]).expect(0);
    holder.expect(75);
    site.open("gate");
    site.run("B", &[]).expect(0);
    assert_eq!(site.log(), "B B-after ");
}

#[test]
fn a_lock_that_nobody_can_read_blocks_and_is_not_overwritten() {
    let site = Site::new(&["gate", "go", "end"]);
    site.run("A", &[]).expect(0);
    let garbage = "UPDATE lock SET owner = 'x', holder = 'garbage'";
    assert_eq!(site.database().execute(garbage, []).expect("changes"), 1);
    let refused = site.run("B", &["--lock-wait"]).expect(75);
    assert!(
        refused.stderr.contains("error[lock.unreadable]") && refused.stderr.contains("it is left as it is"),
        "{}",
        refused.stderr
    );
    site.release(&[]).expect(75);
    let holder: String = site
        .database()
        .query_row("SELECT holder FROM lock", [], |row| row.get(0))
        .expect("there is one");
    assert_eq!(
        (holder.as_str(), site.lock()["state"].as_str()),
        ("garbage", Some("unreadable"))
    );
    site.release(&["--force"]).expect(0);
    site.run("B", &[]).expect(0);
    assert_eq!(site.log(), "A A-after B B-after ");
}

#[test]
fn in_ci_a_throw_away_state_directory_is_warned_of() {
    let mut site = Site::new(&["gate", "go", "end"]);
    let warning = "warning[lock.throw-away]";
    assert!(!site.run("A", &[]).expect(0).stderr.contains(warning));
    site.workspace.set("CI", "true");
    assert!(site.run("A", &[]).expect(0).stderr.contains(warning));
}
