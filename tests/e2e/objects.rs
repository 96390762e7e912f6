//! Backups in S3 and secrets of AWS Secrets Manager, against a real server that speaks both protocols: `moto`. It checks no signature; what
//! is signed, and every fault of a server, is proven against the fake in `host/src/service/objects/tests.rs`.

use std::fs;
use windlass_tests::{
    moto::{ACCESS_KEY_ID, Moto, SECRET_ACCESS_KEY},
    workspace::{Ended, Workspace},
};

const BUCKET: &str = "team-insight-backups";

/// A database, a directory, and pipelines that back both up and restore them.
struct Project {
    workspace: Workspace,
    moto: Moto,
}

impl Project {
    fn new() -> Option<Self> {
        let mut workspace = Workspace::new(env!("CARGO_BIN_EXE_windlass-under-test"));
        let moto = Moto::start()?;
        moto.make_bucket(BUCKET);
        workspace.set("S3_ID", ACCESS_KEY_ID);
        workspace.set("S3_KEY", SECRET_ACCESS_KEY);
        workspace.write("data/uploads/a.txt", "one");
        workspace.write("data/uploads/deep/b.txt", "two");
        let rows = "CREATE TABLE users (name TEXT); INSERT INTO users VALUES ('ada'), ('grace');";
        let database = rusqlite::Connection::open(workspace.path("data/app.db")).expect("made");
        database.execute_batch(rows).expect("filled");
        let project = Self { workspace, moto };
        project.write("backup.yaml", &project.moto.origin());
        Some(project)
    }

    fn write(&self, file: &str, origin: &str) {
        let reached = format!(
            r#"{{ endpoint: "{origin}", region: eu-central-1, access-key-id: "${{{{ secrets.id }}}}", secret-access-key: "${{{{ secrets.key }}}}" }}"#
        );
        let allow = format!(
            r#"      objects: ["s3://{BUCKET}/production"]
      http: ["{origin}"]
      sql: ["sqlite:///workspace/data/app.db"]
      files: {{ /workspace/data: rw }}
      secrets: {{ use: [id, key] }}"#
        );
        let stage = match file {
            "backup.yaml" => format!(
                r#"  save:
    uses: backup
    with:
      sources:
        app: {{ sqlite: "sqlite:///workspace/data/app.db" }}
        uploads: {{ directory: data/uploads }}
      to: ["s3://{BUCKET}/production"]
      s3: {reached}
      keep: {{ last: 2 }}"#
            ),
            _ => format!(
                r#"  bring-back:
    uses: restore
    with:
      from: "s3://{BUCKET}/production"
      s3: {reached}
      into:
        app: {{ sqlite: "sqlite:///workspace/data/app.db" }}
        uploads: {{ directory: data/uploads }}"#
            ),
        };
        let text = format!(
            "windlass: 1\nname: objects\nsecrets: {{ id: env://S3_ID, key: env://S3_KEY }}\nstages:\n{stage}\n    allow:\n{allow}\n"
        );
        self.workspace.write(file, &text);
    }

    fn run(&self, file: &str) -> Ended {
        self.workspace.windlass(["run", file])
    }

    /// The keys of whole backups and of anything else, without the id.
    fn files(&self) -> Vec<String> {
        let keys = self.moto.keys(BUCKET);
        let name = |key: &String| key.rsplit('/').next().unwrap_or_default().to_string();
        keys.iter().map(name).collect()
    }

    fn users(&self) -> Vec<String> {
        let database = rusqlite::Connection::open(self.workspace.path("data/app.db")).expect("opens");
        let mut statement = database
            .prepare("SELECT name FROM users ORDER BY name")
            .expect("valid");
        let names = statement.query_map([], |row| row.get(0)).expect("runs");
        names.map(|name| name.expect("a text")).collect()
    }
}

const WHOLE: [&str; 3] = ["app.sqlite.zst", "manifest.json", "uploads.tar.zst"];

#[test]
fn what_is_backed_up_to_a_bucket_comes_back_from_it() {
    let Some(project) = Project::new() else { return };
    let ended = project.run("backup.yaml").expect(0);
    assert!(
        ended.said().contains("uploads: restored and compared"),
        "{}",
        ended.said()
    );
    assert_eq!(project.files(), WHOLE);
    let left = project.workspace.state_files();
    assert!(
        left.iter()
            .any(|(path, _)| path.to_string_lossy().contains("journal"))
    );
    for (path, bytes) in left {
        let secret = SECRET_ACCESS_KEY.as_bytes();
        assert!(
            !bytes.windows(secret.len()).any(|part| part == secret),
            "the key is in {}",
            path.display()
        );
    }

    fs::remove_dir_all(project.workspace.path("data")).expect("removed");
    fs::create_dir(project.workspace.path("data")).expect("made");
    project.write("restore.yaml", &project.moto.origin());
    project.run("restore.yaml").expect(0);
    assert_eq!(project.users(), ["ada", "grace"]);
    assert_eq!(project.workspace.read("data/uploads/deep/b.txt"), "two");

    // A flipped bit is found before anything is written.
    let key = project
        .moto
        .keys(BUCKET)
        .into_iter()
        .find(|key| key.ends_with("uploads.tar.zst"));
    let path = format!("/{BUCKET}/{}", key.expect("it is there"));
    let mut bytes = project.moto.get(&path);
    bytes[9] ^= 1;
    project.moto.put(&path, &bytes);
    fs::remove_dir_all(project.workspace.path("data/uploads")).expect("removed");
    let refused = project.run("restore.yaml").expect(1);
    assert!(refused.said().contains("restore.damaged"), "{}", refused.said());
    assert!(!project.workspace.path("data/uploads").exists());
}

#[test]
fn old_backups_in_a_bucket_go_and_what_is_beside_them_stays() {
    let Some(project) = Project::new() else { return };
    project
        .moto
        .put(&format!("/{BUCKET}/production-of-others/x"), b"not ours");
    for _ in 0..3 {
        project.run("backup.yaml").expect(0);
    }
    let expected = [&WHOLE[..], &WHOLE[..], &["x"]].concat();
    let mut files = project.files();
    files.sort();
    let mut sorted = expected.clone();
    sorted.sort_unstable();
    assert_eq!(files, sorted);
    let planned = project.workspace.windlass(["plan", "backup.yaml"]).expect(0);
    assert!(
        planned.said().contains("no longer to be kept"),
        "{}",
        planned.said()
    );
    assert_eq!(project.files().len(), expected.len(), "a plan deletes nothing");
}

/// Killed between the parts of a large file: nothing is to be seen of it, and `resume` makes it whole and leaves nothing half-way.
#[test]
fn an_upload_that_is_killed_is_no_backup_and_is_resumed() {
    let Some(mut project) = Project::new() else { return };
    // What no compression makes small.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(20 << 20)
    .collect();
    fs::write(project.workspace.path("data/uploads/noise"), &noise).expect("written");
    project.workspace.set("WINDLASS_FAILPOINT", "object.part:1");
    let killed = project.run("backup.yaml");
    assert_eq!(killed.code, -1, "{}", killed.said());
    assert_eq!(
        project.files(),
        ["app.sqlite.zst"],
        "without a manifest it is no backup"
    );
    assert_eq!(project.moto.uploads(BUCKET), 1);
    project.workspace.set("WINDLASS_FAILPOINT", "");
    project.workspace.windlass(["resume"]).expect(0);
    assert_eq!(project.files(), WHOLE);
    assert_eq!(project.moto.uploads(BUCKET), 0);
}

/// At every place at which an effect can be cut off.
#[test]
fn a_backup_killed_anywhere_is_resumed_to_one_whole_backup() {
    let Some(mut project) = Project::new() else { return };
    for place in [
        "effect.ready",
        "effect.announced",
        "effect.done",
        "effect.written",
    ] {
        for count in 1..=3 {
            project
                .workspace
                .set("WINDLASS_FAILPOINT", &format!("{place}:{count}"));
            let killed = project.run("backup.yaml");
            assert_eq!(killed.code, -1, "{place}:{count}: {}", killed.said());
            project.workspace.set("WINDLASS_FAILPOINT", "");
            let resumed = project.workspace.windlass(["resume"]);
            assert_eq!(resumed.code, 0, "{place}:{count}: {}", resumed.said());
            let keys = project.moto.keys(BUCKET);
            assert_eq!(project.files(), WHOLE, "{place}:{count}: {keys:?}");
            for key in keys {
                project.moto.delete(&format!("/{BUCKET}/{key}"));
            }
        }
    }
}

#[test]
fn refusals_say_what_is_missing() {
    let Some(mut project) = Project::new() else { return };
    let text = project.workspace.read("backup.yaml");
    // Nothing starts without a grant for the bucket, or for the server.
    let grant = format!("      objects: [\"s3://{BUCKET}/production\"]\n");
    project.workspace.write("backup.yaml", &text.replace(&grant, ""));
    let denied = project.run("backup.yaml").expect(77);
    let line = format!("objects: [\"s3://{BUCKET}/production\"]");
    assert!(denied.said().contains(&line), "{}", denied.said());
    let grant = format!("      http: [\"{}\"]\n", project.moto.origin());
    project.workspace.write("backup.yaml", &text.replace(&grant, ""));
    project.run("backup.yaml").expect(77);
    project
        .workspace
        .write("backup.yaml", &text.replace(BUCKET, "no-such-bucket"));
    let missing = project.run("backup.yaml").expect(1);
    assert!(missing.said().contains("NoSuchBucket"), "{}", missing.said());
    project.workspace.write("backup.yaml", &text);
    project.moto.stop();
    let unreachable = project.run("backup.yaml").expect(69);
    assert!(
        unreachable.said().contains("refuses connections"),
        "{}",
        unreachable.said()
    );
}

/// Writes what it was given to a file that is no sink of Windlass, and prints it, which is.
const CONSUMER: &str = "import os, sys\nopen(sys.argv[1], \"w\").write(os.environ[\"GIVEN\"])\nprint(\"given\", os.environ[\"GIVEN\"])\n";
const PASSWORD: &str = "p@ss/w%rd+1=&";

fn secret_pipeline(workspace: &Workspace, source: &str) {
    let script = workspace.path("consumer.py").display().to_string();
    let received = workspace.path("received").display().to_string();
    let text = format!(
        r#"windlass: 1
name: credentials
secrets: {{ it: "{source}" }}
stages:
  use:
    uses: command
    with: {{ argv: [python3, "{script}", "{received}"], environment: {{ GIVEN: "${{{{ secrets.it }}}}" }} }}
    allow: {{ process: ["python3 {script} {received}"], secrets: {{ use: [it] }} }}
"#
    );
    workspace.write("consumer.py", CONSUMER);
    workspace.write("secret.yaml", &text);
    let _ = fs::remove_file(workspace.path("received"));
}

#[test]
fn secrets_of_aws_reach_the_stage_that_uses_them() {
    let Some(mut moto) = Moto::start() else { return };
    let mut workspace = Workspace::new(env!("CARGO_BIN_EXE_windlass-under-test"));
    let database = format!("{{\"username\": \"team\", \"password\": \"{PASSWORD}\", \"port\": 5432}}");
    moto.make_secret("team-insight/database", &database);
    moto.make_secret("team-insight/smtp", PASSWORD);
    let run = |workspace: &Workspace, source: &str, code: i32| {
        secret_pipeline(workspace, source);
        workspace
            .windlass(["run", "secret.yaml", "--progress", "json"])
            .expect(code)
            .said()
    };
    let unset = run(&workspace, "aws-sm://team-insight/smtp", 69);
    assert!(unset.contains("`AWS_ACCESS_KEY_ID` is not set"), "{unset}");
    workspace.set("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID);
    workspace.set("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY);
    workspace.set("AWS_REGION", "us-east-1");
    workspace.set("AWS_ENDPOINT_URL", &moto.origin());
    for (source, value) in [
        ("aws-sm://team-insight/smtp", PASSWORD),
        ("aws-sm://team-insight/database#password", PASSWORD),
        ("aws-sm://team-insight/database#port", "5432"),
        ("aws-sm://team-insight/database", &database),
    ] {
        let said = run(&workspace, source, 0);
        assert_eq!(workspace.read("received"), value, "{source}");
        assert!(
            value.len() < 6 || !said.contains(value) && said.contains("***"),
            "{source}: {said}"
        );
    }
    let missing = run(&workspace, "aws-sm://team-insight/nothing", 69);
    assert!(
        missing.contains("has no secret `team-insight/nothing`"),
        "{missing}"
    );
    let no_key = run(&workspace, "aws-sm://team-insight/database#pasword", 69);
    assert!(no_key.contains("has no key `pasword`"), "{no_key}");
    run(&workspace, "aws-sm://team-insight/smtp#key", 65);
    moto.stop();
    let unreachable = run(&workspace, "aws-sm://team-insight/smtp", 69);
    assert!(unreachable.contains("cannot be reached"), "{unreachable}");
    assert!(!workspace.path("received").exists(), "nothing started");
}
