//! What the crash harness kills: a pipeline in a workspace of its own with a counting server of its own, and what is there once
//! everything has ended.

use serde_json::Value as Json;
use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};
use windlass_tests::{
    component::guest,
    counter::Counter,
    workspace::{Ended, Workspace},
};

const WINDLASS: &str = env!("CARGO_BIN_EXE_windlass-under-test");
pub(super) const FILE: &str = "pipelines/quickstart.yaml";

/// A pipeline, and whether its last stage fails so that the others are undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scene {
    pub(super) shape: Shape,
    pub(super) fails: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The repository's, with two more stages at its end whose effects are counted.
    Quickstart,
    /// Twelve stages: one, five beside each other, one, four beside each other, one.
    Fan,
    /// Four stages: one, two beside each other, one.
    Diamond,
}

/// A stage of a made pipeline.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) needs: Vec<String>,
}

/// One scene being played.
pub(super) struct Case {
    pub(super) workspace: Workspace,
    pub(super) counter: Counter,
}

/// What is there in the end. Two cases of a scene have to be equal in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) status: String,
    pub(super) exit: i64,
    stages: BTreeMap<String, String>,
    /// How often each effect was done and undone.
    pub(super) effects: BTreeMap<String, (usize, usize)>,
    /// Every row of the quickstart's database.
    rows: Vec<String>,
    /// Every file of project and state, with its size where that is the same in every run.
    files: BTreeMap<String, Option<u64>>,
}

impl Shape {
    /// The stages whose effects are counted.
    pub(super) fn parts(self) -> Vec<Part> {
        let part = |name: &str, needs: &[&str]| Part {
            name: name.into(),
            needs: needs.iter().map(|need| (*need).to_string()).collect(),
        };
        match self {
            Self::Quickstart => vec![part("announce", &["backup"]), part("last", &["announce"])],
            Self::Diamond => vec![
                part("first", &[]),
                part("left", &["first"]),
                part("right", &["first"]),
                part("last", &["left", "right"]),
            ],
            Self::Fan => {
                let mut parts = vec![part("first", &[])];
                let wide = ["wide-1", "wide-2", "wide-3", "wide-4", "wide-5"];
                parts.extend(wide.map(|name| part(name, &["first"])));
                parts.push(part("join", &wide));
                let deep = ["deep-1", "deep-2", "deep-3", "deep-4"];
                parts.extend(deep.map(|name| part(name, &["join"])));
                parts.push(part("last", &deep));
                parts
            }
        }
    }
}

impl Scene {
    /// A case of it in which `last` fails half-way where the scene says so.
    pub(super) fn set(self) -> Case {
        let failing = self.fails.then_some(("last", 1));
        self.set_with(failing)
    }

    /// A case in which a stage fails after so many of its effects.
    pub(super) fn set_with(self, failing: Option<(&str, usize)>) -> Case {
        let counter = Counter::start();
        let workspace = match self.shape {
            Shape::Quickstart => Workspace::quickstart(WINDLASS),
            Shape::Fan | Shape::Diamond => Workspace::new(WINDLASS),
        };
        let mut text = match self.shape {
            Shape::Quickstart => workspace.read(FILE),
            Shape::Fan | Shape::Diamond => "windlass: 1\nname: made\nstages:\n".to_string(),
        };
        text = text.replace("\nstages:\n", "\nconcurrency: { group: crash }\nstages:\n");
        for part in self.shape.parts() {
            let fails = failing.filter(|(name, _)| *name == part.name);
            text += &stage(&part, &counter.url(), fails.map(|(_, after)| after));
        }
        workspace.write(FILE, &text);
        fs::write(workspace.path("pipelines/counted.wasm"), guest("counted").bytes).expect("written");
        Case { workspace, counter }
    }
}

fn stage(part: &Part, server: &str, fail_after: Option<usize>) -> String {
    let Part { name, needs } = part;
    let mut text = String::new();
    let _ = writeln!(text, "  {name}:\n    uses: ./pipelines/counted.wasm");
    let _ = writeln!(text, "    needs: [{}]\n    rollback: auto", needs.join(", "));
    let fails = fail_after.map_or(String::new(), |after| format!(", fail-after: {after}"));
    let _ = writeln!(
        text,
        "    with: {{ server: \"{server}\", effects: [{name}-put, {name}-post]{fails} }}\n    allow: {{ http: [\"{server}\"] }}"
    );
    text
}

impl Case {
    pub(super) fn run(&self) -> Ended {
        self.workspace.windlass(["run", FILE])
    }

    /// What runs it with its events on standard output.
    pub(super) fn run_as_json(&self) -> [&'static str; 4] {
        ["run", FILE, "--progress", "json"]
    }

    /// A whole run of the one stage that leaves nothing.
    pub(super) fn first_stage_only(&self) {
        self.workspace
            .windlass(["run", FILE, "--only", "fetch"])
            .expect(0);
    }

    /// How many runs there are.
    pub(super) fn runs(&self) -> usize {
        let list = ["runs", "list", "--file", FILE, "--format", "json"];
        let listed = self.workspace.windlass(list).expect(0).json();
        listed.as_array().map_or(0, Vec::len)
    }

    pub(super) fn resume(&self) -> Ended {
        self.workspace.windlass(["resume"])
    }

    /// Runs the rest with a failpoint, or without.
    pub(super) fn arm(&mut self, failpoint: Option<&str>) {
        self.workspace
            .set("WINDLASS_FAILPOINT", failpoint.unwrap_or_default());
    }

    /// The places that the next processes reach are written down.
    pub(super) fn trace(&mut self) {
        let trace = self.workspace.path("../trace").display().to_string();
        self.workspace.set("WINDLASS_FAILPOINT_TRACE", &trace);
    }

    /// What was written down since it was last asked: each place with how often it has been reached by then.
    pub(super) fn traced(&self) -> Vec<String> {
        let trace = self.workspace.path("../trace");
        let text = fs::read_to_string(&trace).unwrap_or_default();
        let _ = fs::remove_file(trace);
        let mut counts = BTreeMap::<&str, usize>::new();
        text.lines()
            .map(|name| {
                let count = counts.entry(name).or_default();
                *count += 1;
                format!("{name}:{count}")
            })
            .collect()
    }

    /// What is there. `None`: no run has begun.
    pub(super) fn left(&self) -> Option<Left> {
        let shown = self
            .workspace
            .windlass(["runs", "show", "--file", FILE, "--format", "json"]);
        if shown.said().contains("there are no runs yet") {
            return None;
        }
        let shown = shown.expect(0).json();
        let id = text(&shown["id"]);
        let effects = self.counter.effects().into_iter();
        let stages = shown["stages"].as_array().expect("a list").iter();
        Some(Left {
            status: text(&shown["status"]),
            exit: shown["exit"]["code"].as_i64().unwrap_or(-1),
            stages: stages
                .map(|stage| (text(&stage["name"]), text(&stage["status"])))
                .collect(),
            effects: effects
                .map(|(path, effect)| (path, (effect.done, effect.undone)))
                .filter(|(_, counts)| *counts != (0, 0))
                .collect(),
            rows: rows(&self.workspace.path("target/quickstart/data/app.db"))
                .iter()
                .map(|row| row.replace(&id, "RUN"))
                .collect(),
            files: self.files(&id),
        })
    }

    /// Whether no lock is held.
    pub(super) fn is_unlocked(&self) -> bool {
        let shown = self
            .workspace
            .windlass(["lock", "show", "--format", "json", "--file", FILE])
            .expect(0);
        !shown.stdout.contains("\"holder\": {")
    }

    fn files(&self, id: &str) -> BTreeMap<String, Option<u64>> {
        let mut found = BTreeMap::new();
        let mut keep = |root: &str, path: &str, size: u64| {
            let is_read_only = path.starts_with("pipelines/") || path.contains("/plugins/");
            let is_database = path.contains("journal.db") || path.contains("app.db");
            // Empty: the OS lock in it ended with the process.
            let is_live = path.starts_with("/live/");
            if !is_read_only && !is_live && !is_database {
                // These hold the times of the run.
                let varies = path.ends_with("manifest.json") || path.ends_with("database.sqlite.zst");
                found.insert(
                    format!("{root}/{}", path.replace(id, "RUN")),
                    (!varies).then_some(size),
                );
            }
        };
        walk(&self.workspace.path(""), "", &mut |path, size| {
            keep("project", path, size)
        });
        walk(&self.workspace.state(), "", &mut |path, size| {
            // The directory of a pipeline's state has a hash of the project's place in its name.
            let (_, inside) = path
                .trim_start_matches("windlass/")
                .split_once('/')
                .unwrap_or(("", path));
            keep("state", &format!("/{inside}"), size);
        });
        found
    }
}

fn text(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_string()
}

/// Every row of every table, without those of SQLite and without times.
fn rows(database: &Path) -> Vec<String> {
    if !database.exists() {
        return Vec::new();
    }
    let database = rusqlite::Connection::open(database).expect("opens");
    let names = |query: &str| -> Vec<String> {
        let mut statement = database.prepare(query).expect("valid");
        let names = statement.query_map([], |row| row.get(0)).expect("runs");
        names.map(|name| name.expect("text")).collect()
    };
    let mut found = Vec::new();
    for table in
        names("select name from sqlite_schema where type = 'table' and name not like 'sqlite_%' order by 1")
    {
        let columns = names(&format!(
            "select name from pragma_table_info('{table}') where name not like '%\\_at' escape '\\' and name not like '%duration%'"
        ));
        let columns: Vec<String> = columns
            .iter()
            .map(|column| format!("quote(\"{column}\")"))
            .collect();
        let shown = columns.join(" || ',' || ");
        let rows = names(&format!("select {shown} from \"{table}\" order by 1"));
        found.extend(rows.into_iter().map(|row| format!("{table}: {row}")));
    }
    found
}

fn walk(directory: &Path, inside: &str, visit: &mut dyn FnMut(&str, u64)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = format!("{inside}{}", entry.file_name().to_string_lossy());
        match entry.metadata().expect("readable") {
            metadata if metadata.is_dir() => walk(&entry.path(), &format!("{path}/"), visit),
            metadata => visit(&path, metadata.len()),
        }
    }
}
