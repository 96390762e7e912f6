//! The main job on the embedded default: what the README's first command promises.

use super::contract::workspace;
use serde_json::Value as Json;
use std::process::Command;

fn stages(run: &Json) -> Vec<(String, String)> {
    let text = |stage: &Json, key: &str| stage[key].as_str().unwrap_or_default().to_string();
    run["stages"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|stage| (text(stage, "name"), text(stage, "status")))
        .collect()
}

#[test]
fn five_stages_succeed_and_the_second_run_finds_them_done() {
    let workspace = workspace();
    let first = workspace.windlass(["run", "pipelines/quickstart.yaml"]).expect(0);
    let shown = workspace
        .windlass([
            "runs",
            "show",
            "--format",
            "json",
            "--file",
            "pipelines/quickstart.yaml",
        ])
        .expect(0)
        .json();
    assert_eq!(shown["status"], "succeeded");
    let all: Vec<String> = stages(&shown)
        .into_iter()
        .map(|(name, status)| format!("{name} {status}"))
        .collect();
    let expected =
        ["fetch", "build", "migrate", "health-check", "backup"].map(|name| format!("{name} succeeded"));
    assert_eq!(all, expected, "{}", first.said());
    assert!(workspace.path("target/quickstart/data/app.db").exists());

    let second = workspace.windlass(["run", "pipelines/quickstart.yaml"]).expect(0);
    assert!(
        second.stderr.contains("nothing to do") || second.stderr.contains("unchanged"),
        "{}",
        second.stderr
    );
    let runs = workspace
        .windlass([
            "runs",
            "list",
            "--format",
            "json",
            "--file",
            "pipelines/quickstart.yaml",
        ])
        .expect(0)
        .json();
    assert_eq!(runs.as_array().map(Vec::len), Some(2));
}

#[test]
fn any_line_of_any_allow_removed_stops_before_the_first_stage_and_names_the_line() {
    let whole = workspace().read("pipelines/quickstart.yaml");
    let lines: Vec<&str> = whole.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut tried = 0;
    for (at, line) in lines
        .iter()
        .enumerate()
        .filter(|(_, line)| line.trim_end() == "    allow:")
    {
        let inside = lines[at + 1..]
            .iter()
            .take_while(|next| indent(next) > indent(line))
            .count();
        for removed in at + 1..=at + inside {
            let is_key_of_nested = lines
                .get(removed + 1)
                .is_some_and(|next| indent(next) > indent(lines[removed]));
            // A key is removed with what it holds.
            let until = match is_key_of_nested {
                true => {
                    removed
                        + 1
                        + lines[removed + 1..]
                            .iter()
                            .take_while(|next| indent(next) > indent(lines[removed]))
                            .count()
                }
                false => removed + 1,
            };
            let mut text = lines.clone();
            text.drain(removed..until);
            let workspace = workspace();
            workspace.write("pipelines/quickstart.yaml", &(text.join("\n") + "\n"));
            let ended = workspace
                .windlass(["run", "pipelines/quickstart.yaml"])
                .expect(77);
            assert!(
                ended.stderr.contains("error[grant.denied]: stage `"),
                "without {:?}:\n{}",
                lines[removed],
                ended.stderr
            );
            assert!(
                ended.stderr.contains("under `allow:`: "),
                "without {:?}:\n{}",
                lines[removed],
                ended.stderr
            );
            assert!(!workspace.path("target").exists(), "nothing has started");
            tried += 1;
        }
    }
    assert!(tried >= 15, "only {tried} lines were tried");
}

#[test]
fn a_misspelt_key_is_found_with_its_place_and_a_suggestion() {
    let workspace = workspace();
    let text = workspace
        .read("pipelines/quickstart.yaml")
        .replace("      retries: 3", "      retires: 3");
    workspace.write("pipelines/quickstart.yaml", &text);
    let ended = workspace
        .windlass(["run", "pipelines/quickstart.yaml"])
        .expect(65);
    let line = text
        .lines()
        .position(|line| line.contains("retires"))
        .expect("there")
        + 1;
    for part in [
        format!("pipelines/quickstart.yaml:{line}:7"),
        "did you mean `retries`?".into(),
    ] {
        assert!(ended.stderr.contains(&part), "{part} in\n{}", ended.stderr);
    }
}

#[test]
fn the_image_is_accepted_by_skopeo_and_the_same_each_time() {
    let workspace = workspace();
    let digest = || {
        workspace
            .windlass(["run", "pipelines/quickstart.yaml", "--only", "build"])
            .expect(0);
        let run = workspace
            .windlass([
                "runs",
                "show",
                "--format",
                "json",
                "--file",
                "pipelines/quickstart.yaml",
            ])
            .expect(0)
            .json();
        let build = run["stages"]
            .as_array()
            .and_then(|stages| stages.iter().find(|stage| stage["name"] == "build").cloned());
        let app = build.expect("the stage")["outputs"]["app"].clone();
        (
            app["digest"].as_str().expect("a digest").to_string(),
            app["artifact"]["digest"].as_str().expect("a digest").to_string(),
        )
    };
    let (image, archive) = digest();
    assert_eq!(digest(), (image.clone(), archive.clone()));

    if Command::new("skopeo").arg("--version").output().is_err() {
        eprintln!("skipped: needs skopeo");
        return;
    }
    let hex = archive.trim_start_matches("sha256:");
    let blob = workspace
        .state_files()
        .into_iter()
        .find(|(path, _)| path.ends_with(hex))
        .expect("the artifact is in the state directory");
    let copied = workspace.path("image.tar");
    std::fs::write(&copied, blob.1).expect("written");
    let inspected = Command::new("skopeo")
        .arg("inspect")
        .arg(format!("oci-archive:{}", copied.display()))
        .output()
        .expect("starts");
    let said =
        String::from_utf8_lossy(&inspected.stdout).into_owned() + &String::from_utf8_lossy(&inspected.stderr);
    assert!(inspected.status.success() && said.contains(&image), "{said}");
}

const RESTORE: &str = r#"
windlass: 1
name: restore
directories: { backups: target/quickstart/backups, new: target/new }
stages:
  restore:
    uses: restore
    with:
      from: /mnt/backups
      into:
        database: { sqlite: "sqlite:///mnt/new/app.db" }
        application: { directory: /mnt/new/app }
    allow:
      sql: ["sqlite:///mnt/new/app.db"]
      files: { /mnt/backups: ro, /mnt/new: rw }
"#;

#[test]
fn what_was_backed_up_is_restored_even_through_a_crash() {
    let mut workspace = workspace();
    workspace.windlass(["run", "pipelines/quickstart.yaml"]).expect(0);
    workspace.write("restore.yaml", RESTORE);
    // Before, between and behind the two copies.
    for place in [
        "effect.ready:1",
        "effect.announced:1",
        "effect.done:1",
        "effect.ready:2",
        "effect.announced:2",
        "effect.done:2",
    ] {
        workspace.set("WINDLASS_FAILPOINT", place);
        assert_eq!(workspace.windlass(["run", "restore.yaml"]).code, -1, "{place}");
        workspace.set("WINDLASS_FAILPOINT", "");
        let resumed = workspace.windlass(["resume"]);
        assert_eq!(resumed.code, 0, "{place}: {}", resumed.said());
        let database = workspace.path("target/new/app.db");
        let projects = rusqlite::Connection::open(&database)
            .and_then(|opened| opened.query_row("SELECT count(*) FROM projects", [], |row| row.get(0)));
        assert_eq!(projects, Ok(1), "{place}");
        assert_eq!(
            workspace.read("target/new/app/server.py"),
            workspace.read("pipelines/quickstart/app/server.py"),
            "{place}"
        );
        std::fs::remove_dir_all(workspace.path("target/new")).expect("removed");
    }
}
