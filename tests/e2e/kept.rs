//! What a resume needs of what was kept: a journal in an older form, plugins by their digest, secrets that are read again.

use super::contract::empty;
use rusqlite::Connection;
use serde_json::{Value as Json, json};
use std::{fs, path::PathBuf};
use windlass::journal::{
    record::{CHAIN_START, chain},
    store::StoredRecord,
};
use windlass_tests::{vault::Vault, workspace::Workspace};

/// Pauses before its second stage; holds a lock, which the first layout of the journal did not have.
const PAUSES: &str = r#"
windlass: 1
name: kept
concurrency: { group: kept }
directories: { data: data }
stages:
  first:
    uses: command
    with: { argv: [sh, -c, "echo first >> log"], directory: /mnt/data }
    allow: { process: ["sh **"], files: { /mnt/data: rw } }
  second:
    needs: [first]
    approval: { ask: "go on?" }
    uses: ./mine.wasm
    with: { argv: [sh, -c, "echo second >> log"], directory: /mnt/data }
    allow: { process: ["sh **"], files: { /mnt/data: rw } }
"#;

/// A run that waits and is approved, with a plugin of the project's own.
fn paused() -> Workspace {
    let workspace = empty();
    let first = "windlass: 1\nname: other\nstages: { a: { uses: command, with: { argv: [\"true\"] }, allow: { process: [\"true\"] } } }\n";
    workspace.write("other.yaml", first);
    workspace.windlass(["run", "other.yaml"]).expect(0);
    let (plugin, _) = plugins(&workspace, "other").pop().expect("it was kept");
    fs::copy(plugin, workspace.path("mine.wasm")).expect("copied");
    workspace.write("windlass.yaml", PAUSES);
    workspace.windlass(["run"]).expect(4);
    workspace.windlass(["approve", "--reason", "yes"]).expect(0);
    workspace
}

fn state_of(workspace: &Workspace, pipeline: &str) -> PathBuf {
    let states = fs::read_dir(workspace.state().join("windlass")).expect("readable");
    let mut states = states.flatten().map(|entry| entry.path());
    let is_meant = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(pipeline))
    };
    states.find(is_meant).expect("it has a state directory")
}

/// The plugins that a state directory keeps.
fn plugins(workspace: &Workspace, pipeline: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let kept = fs::read_dir(state_of(workspace, pipeline).join("plugins")).expect("readable");
    let read = |path: PathBuf| (path.clone(), fs::read(path).expect("readable"));
    kept.flatten().map(|entry| read(entry.path())).collect()
}

fn journal(workspace: &Workspace) -> Connection {
    Connection::open(state_of(workspace, "kept").join("journal.db")).expect("opens")
}

fn layout(workspace: &Workspace) -> i64 {
    let read = |row: &rusqlite::Row<'_>| row.get(0);
    journal(workspace)
        .pragma_query_value(None, "user_version", read)
        .expect("it has one")
}

/// Changes every record of the run, and makes the chain over what has become of them, as a Windlass of that version would have.
fn rewrite(workspace: &Workspace, version: u32, change: impl Fn(&mut Json)) {
    let connection = journal(workspace);
    let mut select = connection
        .prepare("SELECT sequence, at, kind, body FROM record ORDER BY sequence")
        .expect("prepared");
    let read = |row: &rusqlite::Row<'_>| {
        Ok(StoredRecord {
            sequence: row.get::<_, i64>(0)?.cast_unsigned(),
            version,
            at_ms: row.get(1)?,
            kind: row.get(2)?,
            body: row.get(3)?,
            chain: CHAIN_START,
        })
    };
    let rows = select.query_map([], read).expect("read");
    let rows: Vec<StoredRecord> = rows.collect::<Result<_, _>>().expect("whole");
    let mut before = CHAIN_START;
    for mut stored in rows {
        let mut record: Json = serde_json::from_str(&stored.body).expect("a record");
        change(&mut record);
        stored.body = record.to_string();
        before = chain(&before, &stored);
        let written = connection.execute(
            "UPDATE record SET version = ?1, body = ?2, chain = ?3 WHERE sequence = ?4",
            (version, stored.body, before, stored.sequence.cast_signed()),
        );
        assert_eq!(written, Ok(1));
    }
}

/// The versions of the records, in order.
fn versions(workspace: &Workspace) -> Vec<u32> {
    let connection = journal(workspace);
    let mut select = connection
        .prepare("SELECT version FROM record ORDER BY run, sequence")
        .expect("prepared");
    let rows = select.query_map([], |row| row.get(0)).expect("read");
    rows.map(|version| version.expect("a number")).collect()
}

#[test]
fn a_journal_of_the_first_layout_is_gone_on_with() {
    let workspace = paused();
    rewrite(&workspace, 1, |_| {});
    let back = "DROP TABLE lock; DROP TABLE waiter; PRAGMA user_version = 1;
        CREATE TABLE first (run INTEGER NOT NULL REFERENCES run(number), sequence INTEGER NOT NULL, version INTEGER NOT NULL,
            at INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, chain BLOB NOT NULL,
            PRIMARY KEY (run, sequence)) STRICT, WITHOUT ROWID;
        INSERT INTO first SELECT run, sequence, version, at, kind, body, chain FROM record;
        DROP TABLE record; ALTER TABLE first RENAME TO record";
    journal(&workspace).execute_batch(back).expect("changed");
    workspace.windlass(["runs", "show"]).expect(0);
    assert_eq!(layout(&workspace), 1, "reading changes nothing");
    let old = versions(&workspace);
    workspace.windlass(["resume"]).expect(0);
    assert_eq!(layout(&workspace), 4);
    assert_eq!(workspace.read("data/log"), "first\nsecond\n");
    // What was written stays as it was, and one chain goes through all of it.
    let new = versions(&workspace);
    assert!(
        old.iter().all(|version| *version == 1) && new.starts_with(&old),
        "{new:?}"
    );
    assert!(new[old.len()..].iter().all(|version| *version == 2), "{new:?}");
    workspace.windlass(["journal"]).expect(0);
}

#[test]
fn a_kind_or_a_version_that_was_changed_is_damage() {
    for version in [1, 2] {
        let workspace = paused();
        rewrite(&workspace, version, |_| {});
        for (change, back) in [
            ("kind = 'run-resumed'", "kind = 'stage-started'"),
            ("version = 3 - version", "version = 3 - version"),
            (
                "version = 0",
                if version == 1 {
                    "version = 1"
                } else {
                    "version = 2"
                },
            ),
        ] {
            let set = |what: &str| {
                let one = "(SELECT min(sequence) FROM record WHERE body LIKE '%stage-started%')";
                let changed = journal(&workspace)
                    .execute(&format!("UPDATE record SET {what} WHERE sequence = {one}"), []);
                assert_eq!(changed, Ok(1));
            };
            set(change);
            for command in [
                &["resume"][..],
                &["runs", "show"],
                &["journal"],
                &["rollback", "--yes"],
            ] {
                let refused = workspace.windlass(command).expect(69);
                let said = &refused.stderr;
                assert!(
                    said.contains("error[journal.damaged]: record ")
                        && said.contains("restore it from a copy"),
                    "{version}, {change}, {command:?}: {said}"
                );
            }
            set(back);
        }
        assert_eq!(workspace.read("data/log"), "first\n");
        workspace.windlass(["resume"]).expect(0);
    }
}

#[test]
fn a_run_from_before_its_inputs_were_kept_is_shown_and_not_gone_on_with() {
    let workspace = paused();
    rewrite(&workspace, 1, |record| {
        let fields = record.as_object_mut().expect("an object");
        fields.remove("inputs");
    });
    workspace.windlass(["runs", "show"]).expect(0);
    let refused = workspace.windlass(["resume"]).expect(65);
    let words = "does not hold what its plan was made from";
    assert!(refused.stderr.contains(words), "{}", refused.stderr);
    assert_eq!(workspace.read("data/log"), "first\n");
}

#[test]
fn a_newer_journal_is_refused_in_words_and_left_as_it_is() {
    let newer_records = "UPDATE record SET version = 9 WHERE kind = 'stage-parked'";
    for (change, words) in [
        ("PRAGMA user_version = 9", "(format 9; this one knows 4)"),
        (newer_records, "it has version 9; this Windlass knows up to 2"),
    ] {
        let workspace = paused();
        journal(&workspace).execute_batch(change).expect("changed");
        for command in [
            &["resume"][..],
            &["approve", "--reason", "x"],
            &["runs", "show"],
            &["journal"],
        ] {
            let refused = workspace.windlass(command).expect(65);
            let said = &refused.stderr;
            assert!(
                said.contains("error[journal.newer]")
                    && said.contains(words)
                    && said.contains("use that newer Windlass"),
                "{command:?}: {said}"
            );
        }
        assert_eq!(workspace.read("data/log"), "first\n");
    }
}

#[test]
fn a_plugin_is_the_one_of_the_start_or_the_resume_is_refused() {
    let workspace = paused();
    let kept = plugins(&workspace, "kept");
    let mut other = fs::read(workspace.path("mine.wasm")).expect("readable");
    // A custom section of no bytes, named `x`: another component that does the same.
    other.extend([0, 2, 1, b'x']);
    fs::write(workspace.path("mine.wasm"), other).expect("written");
    for damage in [
        |path: &PathBuf| fs::write(path, b"\0asm").expect("written"),
        |path: &PathBuf| fs::remove_file(path).expect("removed"),
    ] {
        kept.iter().for_each(|(path, _)| damage(path));
        let refused = workspace.windlass(["resume"]).expect(65);
        let said = &refused.stderr;
        assert!(
            said.contains(
                "error[resume.plugin]: the plugin `./mine.wasm` that this run was started with (sha256:"
            ) && said.contains("is gone"),
            "{said}"
        );
    }
    assert_eq!(workspace.read("data/log"), "first\n");
    for (path, bytes) in kept {
        fs::write(path, bytes).expect("written");
    }
    workspace.windlass(["resume"]).expect(0);
    assert_eq!(workspace.read("data/log"), "first\nsecond\n");
}

/// `fetch` puts a secret that only `use` takes; `between` has nothing to do with it.
fn fetching(address: &str) -> String {
    format!(
        r#"
windlass: 1
name: fetching
directories: {{ data: data }}
secrets:
  login: env://VAULT_LOGIN
  database: stage://fetch/database
stages:
  fetch:
    uses: vault
    with:
      address: "{address}"
      auth: {{ token: "${{{{ secrets.login }}}}" }}
      read: {{ database: secret/kept }}
    allow: {{ http: ["{address}"], secrets: {{ use: [login], put: [database] }} }}
  between:
    needs: [fetch]
    uses: command
    with: {{ argv: [sh, -c, "echo between >> log"], directory: /mnt/data }}
    allow: {{ process: ["sh **"], files: {{ /mnt/data: rw }} }}
  use:
    needs: [between]
    uses: command
    with:
      argv: [sh, -c, "echo \"use $WORD\" | tr a-z A-Z >> log"]
      directory: /mnt/data
      environment: {{ WORD: "${{{{ secrets.database.word }}}}" }}
    allow: {{ process: ["sh **"], files: {{ /mnt/data: rw }}, secrets: {{ use: [database] }} }}
"#
    )
}

/// Stage, attempt and reason of everything that was started.
fn starts(workspace: &Workspace) -> Vec<(String, u64, Option<String>)> {
    let text = |record: &Json, key: &str| record[key].as_str().map(String::from);
    let journal = workspace.windlass(["journal", "--format", "json"]).expect(0);
    let records = journal.json_lines().into_iter();
    let records = records.map(|line| line["record"].clone());
    let records = records.filter(|record| record["record"] == "stage-started");
    records
        .map(|record| {
            let attempt = record["attempt"].as_u64().expect("a number");
            let stage = text(&record, "stage").expect("a name");
            (stage, attempt, text(&record, "reason"))
        })
        .collect()
}

#[test]
fn secrets_are_fetched_again_once_their_source_is_there() {
    let mut workspace = empty();
    let Some(mut vault) = Vault::start(&workspace) else {
        return;
    };
    vault.must("POST", "secret/kept", &json!({ "word": "correct-horse" }));
    workspace.set("VAULT_LOGIN", &vault.root_token);
    workspace.write("windlass.yaml", &fetching(&vault.address()));
    workspace.set("WINDLASS_FAILPOINT", "stage.before-call:3");
    assert_eq!(workspace.windlass(["run"]).code, -1, "killed before `use`");
    workspace.set("WINDLASS_FAILPOINT", "");

    vault.stop();
    let gone = workspace.windlass(["resume"]).expect(69);
    assert!(gone.said().contains("windlass resume"), "{}", gone.said());
    let shown = workspace.windlass(["runs", "show", "--format", "json"]).expect(0);
    assert_eq!(shown.json()["status"], "paused");
    vault.start_again();
    workspace.windlass(["resume"]).expect(0);
    assert_eq!(workspace.read("data/log"), "between\nUSE CORRECT-HORSE\n");
    let again = |attempt| ("fetch".to_string(), attempt, Some("secrets-needed".to_string()));
    let started = starts(&workspace);
    let expected = [
        ("fetch".into(), 1, None),
        ("between".into(), 1, None),
        ("use".into(), 1, None),
        again(2),
        again(3),
        ("use".into(), 2, Some("interrupted".into())),
    ];
    assert_eq!(started, expected);
}
