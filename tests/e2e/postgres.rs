//! Migrations of a real PostgreSQL server, killed wherever a crash can make a difference and gone on with: none twice, all of them
//! in the end, and nobody is asked but about what may still be going on.

use super::contract::empty;
use std::{
    process::Child,
    time::{Duration, Instant},
};
use windlass_tests::{
    postgres::Postgres,
    workspace::{Ended, Workspace},
};

/// Each leaves a line that nothing keeps it from leaving twice.
const MIGRATIONS: [(&str, &str); 3] = [
    (
        "0001_ledger.sql",
        "create table if not exists ledger (line text);\ninsert into ledger values ('one');\n",
    ),
    ("0002_two.sql", "insert into ledger values ('two');\n"),
    (
        "0003_three.sql",
        "-- windlass: phase=contract\ninsert into ledger values ('three');\n",
    ),
];

const ALL: [&str; 3] = ["one", "three", "two"];

struct Site<'a> {
    workspace: Workspace,
    server: &'a Postgres,
}

impl<'a> Site<'a> {
    /// A database in which nothing has been done, and a project of its own.
    fn new(server: &'a Postgres) -> Self {
        server.ask("drop schema public cascade");
        server.ask("create schema public");
        let mut workspace = empty();
        workspace.set("DB", &server.url());
        let place = server.place();
        workspace.write(
            "windlass.yaml",
            &format!(
                "windlass: 1\nname: migrated\nsecrets: {{ db: env://DB }}\nstages:\n  schema:\n    uses: migrate\n    with: {{ url: \"${{{{ secrets.db }}}}\", directory: migrations, lock-timeout: 200ms }}\n    allow:\n      secrets: {{ use: [db] }}\n      sql: [\"{place}\"]\n      files: {{ /workspace/migrations: ro }}\n"
            ),
        );
        for (name, text) in MIGRATIONS {
            workspace.write(&format!("migrations/{name}"), text);
        }
        Self { workspace, server }
    }

    /// What the migrations have left.
    fn ledger(&self) -> Vec<String> {
        match self
            .server
            .ask("select to_regclass('ledger') is not null")
            .as_slice()
        {
            [one] if one == "t" => self.server.ask("select line from ledger order by line"),
            _ => Vec::new(),
        }
    }

    /// Goes on until the run has ended. How often it stopped because of what may still be going on.
    #[track_caller]
    fn go_on(&self) -> usize {
        let began = Instant::now();
        let mut stopped = 0;
        loop {
            let resumed = self.workspace.windlass(["resume"]);
            match resumed.code {
                0 => return stopped,
                3 if resumed.said().contains("--assume 'schema=done'") => stopped += 1,
                // Killed before its first record: there is no run yet.
                65 if resumed.said().contains("error[runs.none]") && self.ledger().is_empty() => {
                    self.workspace.windlass(["run"]).expect(0);
                    return stopped;
                }
                65 if resumed.said().contains("error[runs.none]") => return stopped,
                _ => panic!("{}", resumed.said()),
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{}", resumed.said());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn status(&self) -> String {
        let shown = self
            .workspace
            .windlass(["runs", "show", "--format", "json"])
            .expect(0);
        shown.json()["status"].as_str().expect("a word").to_string()
    }
}

/// The places that an undisturbed run reaches, each with how often it has been reached by then.
fn places(server: &Postgres) -> Vec<String> {
    let mut site = Site::new(server);
    let trace = site.workspace.path("../trace").display().to_string();
    site.workspace.set("WINDLASS_FAILPOINT_TRACE", &trace);
    site.workspace.windlass(["run"]).expect(0);
    assert_eq!(site.ledger(), ALL);
    let mut places = Vec::new();
    for name in site.workspace.read("../trace").lines() {
        let before = places.iter().filter(|(known, _)| known == name).count();
        places.push((name.to_string(), before + 1));
    }
    places
        .iter()
        .map(|(name, count)| format!("{name}:{count}"))
        .collect()
}

#[test]
fn a_migration_killed_anywhere_is_applied_once() {
    let Some(server) = Postgres::start() else { return };
    let places = places(&server);
    let of_effects = places.iter().filter(|place| place.starts_with("effect.")).count();
    // The table of migrations and three migrations: announced, done, written.
    assert_eq!(of_effects, 12, "{places:?}");
    let mut kills = 0;
    for place in &places {
        let mut site = Site::new(&server);
        site.workspace.set("WINDLASS_FAILPOINT", place);
        let killed = site.workspace.windlass(["run"]);
        site.workspace.set("WINDLASS_FAILPOINT", "");
        if killed.code == 0 && !place.starts_with("effect.") {
            // Which commits are shared differs from run to run: the last of a kind may not be reached.
            continue;
        }
        assert_eq!(killed.code, -1, "{place}: {}", killed.said());
        kills += 1;
        assert_eq!(site.go_on(), 0, "{place}: nobody has to be asked");
        assert_eq!(site.ledger(), ALL, "{place}");
        assert_eq!(site.status(), "succeeded", "{place}");
        let again = site.workspace.windlass(["run"]).expect(0);
        assert!(
            again.said().contains("nothing to do"),
            "{place}: {}",
            again.said()
        );
        assert_eq!(site.ledger(), ALL, "{place}");
    }
    println!(
        "{kills} kills of {} places, 0 migrations applied twice, all completed",
        places.len()
    );
    assert!(kills * 10 >= places.len() * 9, "{kills} of {}", places.len());
}

/// Killed while the server works on a migration, which it finishes or drops by itself: as long as it does, nobody knows.
#[test]
fn a_migration_that_the_server_still_works_on_is_waited_for() {
    let Some(server) = Postgres::start() else { return };
    let site = Site::new(&server);
    site.workspace.write(
        "migrations/0002_two.sql",
        "insert into ledger values ('two');\nselect pg_sleep(3);\n",
    );
    let mut run = site.workspace.command(["run"]).spawn().expect("starts");
    let sleeping = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    let began = Instant::now();
    while server.ask(sleeping) != ["1"] {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it does not come to the second one"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    kill(&mut run);
    let first = site.workspace.windlass(["resume"]);
    asks_while_it_works(&site, &first);
    site.go_on();
    assert_eq!(site.ledger(), ALL);
    assert_eq!(site.status(), "succeeded");
}

fn kill(run: &mut Child) {
    run.kill().expect("it runs");
    run.wait().expect("it ends");
}

fn asks_while_it_works(site: &Site<'_>, resumed: &Ended) {
    assert_eq!(resumed.code, 3, "{}", resumed.said());
    assert!(
        resumed.said().contains("was cut off during `sql.transact`"),
        "{}",
        resumed.said()
    );
    assert_eq!(site.status(), "needs-operator");
    assert_eq!(site.ledger(), ["one"], "nothing before it is known");
}
