//! The `vault` stage against a real server that speaks Vault's interface, RustyVault's `rvault`: what a stage read there reaches
//! the stage that uses it and nobody else, and every way to fail has a code of its own.
//!
//! What `rvault` 0.2.1 does not have is proven against the fake in `plugins/vault/src/stage/tests.rs`: versions of KV 2 and their
//! deletion (here only the shape of its replies and of its paths is real), the JWT login, policies, quotas (429) and standbys.
//! It takes the namespace header and ignores it.

use serde_json::{Value as Json, json};
use windlass_tests::{
    vault::Vault,
    workspace::{Ended, Workspace},
};

const USERNAME: &str = "team_insight_app";
/// With everything that URLs, JSON and YAML treat in a special way.
const PASSWORD: &str = "p@ss/w%rd+1=&ü\"'";
const ENCODED: &str = "p%40ss%2Fw%25rd%2B1%3D%26%C3%BC%22%27";

/// The guide's `get_database_credentials`.
fn credentials() -> Json {
    json!({ "username": USERNAME, "password": PASSWORD, "host": "database.internal", "port": 5432, "database": "team_insight" })
}

/// Writes what it was given to a file that is no sink of Windlass, and prints it, which is.
const CONSUMER: &str = r#"
import json, os, sys
given = {name: os.environ[name] for name in ("DB_USER", "DB_PASSWORD", "DB_URL")}
json.dump(given, open(sys.argv[1], "w"))
print("given", json.dumps(given), *given.values())
print("error", *given.values(), file=sys.stderr)
"#;

/// A project whose `fetch` reads the credentials as `with` says and whose `use` is handed them.
struct Project {
    workspace: Workspace,
    vault: Vault,
}

impl Project {
    fn new() -> Option<Self> {
        let workspace = Workspace::new(env!("CARGO_BIN_EXE_windlass-under-test"));
        let vault = Vault::start(&workspace)?;
        workspace.write("consumer.py", CONSUMER);
        Some(Self { workspace, vault })
    }

    /// Runs the pipeline; `login` is set as a secret of the environment.
    fn run(&mut self, auth: &Auth, more: &[&str], place: &str) -> Ended {
        let (auth, grant, login) = match auth {
            Auth::Token(token) => ("{ token: \"${{ secrets.login }}\" }".to_string(), "use", token),
            Auth::AppRole { role, secret } => (
                format!("{{ approle: {{ role-id: {role}, secret-id: \"${{{{ secrets.login }}}}\" }} }}"),
                "reveal",
                secret,
            ),
            Auth::Jwt(token) => (
                "{ jwt: { role: deploy, token: \"${{ secrets.login }}\" } }".to_string(),
                "reveal",
                token,
            ),
        };
        let address = self.vault.address();
        let more = more.join("\n      ");
        let script = self.workspace.path("consumer.py").display().to_string();
        let received = self.workspace.path("received.json").display().to_string();
        let text = format!(
            r#"windlass: 1
name: credentials
secrets:
  login: env://VAULT_LOGIN
  database: stage://fetch/database
stages:
  fetch:
    uses: vault
    with:
      address: "{address}"
      auth: {auth}
      read: {{ database: "{place}" }}
      {more}
    allow:
      http: ["{address}"]
      secrets: {{ {grant}: [login], put: [database] }}
  use:
    uses: command
    with:
      argv: [python3, "{script}", "{received}"]
      environment:
        DB_USER: "${{{{ secrets.database.username }}}}"
        DB_PASSWORD: "${{{{ secrets.database.password }}}}"
        DB_URL: "${{{{ secrets.database.url }}}}"
    allow:
      process: ["python3 {script} {received}"]
      secrets: {{ use: [database] }}
"#
        );
        self.workspace.write("pipeline.yaml", &text);
        self.workspace.set("VAULT_LOGIN", login);
        let _ = std::fs::remove_file(self.workspace.path("received.json"));
        let reports = ["--report", "junit=report.xml", "--report", "json=report.json"];
        self.workspace.windlass(
            ["run", "pipeline.yaml", "--progress", "json"]
                .iter()
                .chain(&reports),
        )
    }

    /// Whether the second stage got anything.
    fn is_used(&self) -> bool {
        self.workspace.path("received.json").exists()
    }

    /// Everywhere that Windlass wrote to.
    fn sinks(&self, ended: &Ended) -> Vec<(String, Vec<u8>)> {
        let logs = self
            .workspace
            .windlass(["runs", "logs", "--file", "pipeline.yaml"])
            .expect(0);
        let mut sinks = vec![
            ("terminal".to_string(), ended.said().into_bytes()),
            ("logs".into(), logs.said().into_bytes()),
            ("junit".into(), self.workspace.read("report.xml").into_bytes()),
            ("json".into(), self.workspace.read("report.json").into_bytes()),
        ];
        let state = self.workspace.state_files().into_iter();
        sinks.extend(state.map(|(path, bytes)| (path.display().to_string(), bytes)));
        assert!(sinks.iter().any(|(name, _)| name.contains("journal")));
        sinks
    }

    fn approle(&self) -> Auth {
        let (role, secret) = self.vault.approle("team-insight");
        Auth::AppRole { role, secret }
    }
}

enum Auth {
    Token(String),
    AppRole { role: String, secret: String },
    Jwt(String),
}

impl Auth {
    fn secret(&self) -> &str {
        match self {
            Self::Token(secret) | Self::Jwt(secret) | Self::AppRole { secret, .. } => secret,
        }
    }
}

#[test]
fn credentials_reach_the_stage_that_uses_them_and_no_sink() {
    let Some(mut project) = Project::new() else { return };
    let vault = &project.vault;
    vault.must(
        "POST",
        "sys/mounts/kv",
        &json!({ "type": "kv", "options": { "version": "2" } }),
    );
    vault.must("POST", "secret/team-insight/database", &credentials());
    vault.must(
        "POST",
        "kv/data/team-insight/database",
        &json!({ "data": credentials() }),
    );
    let token = vault.root_token.clone();
    let token = || Auth::Token(token.clone());
    let cases = [
        // Found by asking for version 2 first, and by being told.
        (token(), &[][..], "secret/team-insight/database", 1),
        (project.approle(), &["kv: 1"], "team-insight/database", 1),
        (token(), &["mount: kv"], "kv/team-insight/database", 2),
        (
            token(),
            &["mount: kv", "kv: 2", "namespace: admin/team-insight"],
            "team-insight/database",
            2,
        ),
    ];
    for (auth, more, place, version) in &cases {
        let ended = project.run(auth, more, place).expect(0);
        let received: Json = serde_json::from_str(&project.workspace.read("received.json")).expect("JSON");
        let url = format!("postgresql://{USERNAME}:{ENCODED}@database.internal:5432/team_insight");
        assert_eq!(
            received,
            json!({ "DB_USER": USERNAME, "DB_PASSWORD": PASSWORD, "DB_URL": url })
        );
        let outputs = serde_json::from_str::<Json>(&project.workspace.read("report.json")).expect("JSON");
        let fetched = outputs["stages"][0]["outputs"]["secrets"]["database"].clone();
        assert_eq!(
            (&fetched["kv"], &fetched["fields"]),
            (
                &json!(version),
                &json!(["database", "host", "password", "port", "url", "username"])
            ),
            "{outputs}"
        );
        assert!(
            ended.stdout.contains("***"),
            "printed, and masked: {}",
            ended.said()
        );
        for (name, bytes) in project.sinks(&ended) {
            for value in [USERNAME, PASSWORD, ENCODED, auth.secret()] {
                let found = bytes.windows(value.len()).any(|part| part == value.as_bytes());
                assert!(!found, "{value} is in {name} ({more:?})");
            }
        }
    }
}

#[test]
fn refusals_are_told_apart_by_their_codes() {
    let Some(mut project) = Project::new() else { return };
    let vault = &project.vault;
    vault.must("POST", "secret/team-insight/database", &credentials());
    let approle = project.approle();
    let Auth::AppRole { role, .. } = &approle else {
        unreachable!("an AppRole")
    };
    let token = vault.root_token.clone();
    let root = || Auth::Token(token.clone());
    let wrong = Auth::AppRole {
        role: role.clone(),
        secret: "00000000-0000-0000-0000-000000000000".into(),
    };
    let place = "team-insight/database";
    let cases = [
        (Auth::Token("not-the-token".into()), place, "vault.denied"),
        (wrong, place, "vault.denied"),
        (root(), "team-insight/nothing", "vault.missing"),
        // A method that this server does not have: it says nothing about itself to whoever comes without a token.
        (Auth::Jwt("a.json.web-token".into()), place, "vault.denied"),
    ];
    for (auth, place, code) in &cases {
        check(&mut project, auth, place, code, 1);
    }
    project.vault.seal();
    check(&mut project, &root(), place, "vault.sealed", 1);
    project.vault.unseal();
    project.run(&root(), &[], place).expect(0);
}

#[test]
fn a_server_that_is_not_there_is_69() {
    let Some(mut project) = Project::new() else { return };
    let token = Auth::Token(project.vault.root_token.clone());
    project.vault.stop();
    check(
        &mut project,
        &token,
        "team-insight/database",
        "vault.unreachable",
        69,
    );
}

/// The stage fails with this code, the run ends with this one, nothing is used, and the login is nowhere.
#[track_caller]
fn check(project: &mut Project, auth: &Auth, place: &str, code: &str, exit: i32) {
    let ended = project.run(auth, &[], place).expect(exit);
    let events = ended.json_lines();
    let failed = events
        .iter()
        .find(|event| event["event"] == "stage.finished" && event["stage"] == "fetch");
    let failed = failed.unwrap_or_else(|| panic!("`fetch` has ended: {}", ended.said()));
    assert_eq!(failed["error"]["code"], code, "{failed}");
    assert!(!project.is_used(), "{code}");
    for (name, bytes) in project.sinks(&ended) {
        let secret = auth.secret();
        let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!found, "{secret} is in {name}");
    }
}
