//! `pipelines/team-insight`, whole, on a real engine with a real registry and a real Vault: from nothing to the first version, the next one by
//! blue-green while requests come in, back by hand and by itself, and a backup that brings back what was destroyed. `WINDLASS_TEST_SWITCHES=5` asks
//! for more switches, and for `hey` and `wrk` beside them.

use serde_json::{Value as Json, json};
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use windlass_load::{Target, Trust};
use windlass_tests::{
    engine::{Engine, Project},
    moto::{ACCESS_KEY_ID, Moto, SECRET_ACCESS_KEY},
    registry::{Registry, free_address},
    traffic::{Client, Traffic},
    vault::Vault,
    workspace::{Ended, Workspace, repository},
};

const HOST: &str = "team-insight.example.com";
/// Requests a second while versions are exchanged. They go to the backend, on a path that the front does not limit.
const RATE: u32 = 60;
/// Prometheus asks every 15 s.
const PATIENCE: Duration = Duration::from_secs(90);
const UPLOAD: &[u8] = b"\x00\xffan upload\r\n";

/// A project with the pipelines in it, and the addresses of one test.
struct Site<'a> {
    workspace: Workspace,
    engine: &'a Engine,
    project: &'a str,
    registry: String,
    http: u16,
    https: u16,
}

impl<'a> Site<'a> {
    fn new(engine: &'a Engine, project: &'a str, registry: &Registry) -> Self {
        let mut workspace = Workspace::quickstart(env!("CARGO_BIN_EXE_windlass-under-test"));
        let port = || free_address().parse::<SocketAddr>().expect("an address").port();
        let (http, https) = (port(), port());
        for file in ["deploy", "rollback", "backup", "restore", "monitoring", "logging"] {
            let path = format!("pipelines/team-insight/{file}.yaml");
            let text = own_project(&workspace.read(&path), project);
            workspace.write(
                &path,
                &text.replace("127.0.0.1:443", &format!("127.0.0.1:{https}")),
            );
        }
        let trial = workspace.path("pipelines/team-insight/prepare-trial.sh");
        let prepared = Command::new("sh").arg(trial).status().expect("a shell");
        assert!(prepared.success(), "prepare-trial.sh");
        workspace.set("DOCKER_HOST", &engine.host);
        workspace.set("HTTP_PORT", &http.to_string());
        workspace.set("HTTPS_PORT", &https.to_string());
        Self {
            workspace,
            engine,
            project,
            registry: registry.address.clone(),
            http,
            https,
        }
    }

    fn command(&self, pipeline: &str, variables: &[&str]) -> Command {
        let file = format!("pipelines/team-insight/{pipeline}.yaml");
        let mut command = self.workspace.command(["run", &file]);
        for variable in variables {
            command.args(["--var", variable]);
        }
        command
    }

    fn run(&self, pipeline: &str, variables: &[&str]) -> Ended {
        println!("{pipeline} {variables:?}");
        Ended::from(self.command(pipeline, variables).output().expect("it starts"))
    }

    fn deploy(&self, version: &str) -> Ended {
        let registry = format!("registry={}", self.registry);
        self.run(
            "deploy",
            &[&format!("version={version}"), &registry, "build-network=host"],
        )
    }

    /// Puts a version in place that the registry has.
    fn put(&self, version: &str) -> Ended {
        let registry = format!("registry={}", self.registry);
        self.run("rollback", &[&format!("version={version}"), &registry])
    }

    /// What curl says of a path behind the front.
    fn curl(&self, arguments: &[&str], url: &str) -> String {
        let authority = self.workspace.path("pipelines/team-insight/nginx/ssl/ca.pem");
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "30", "--cacert"])
            .arg(authority)
            .args(["--resolve", &format!("{HOST}:{}:127.0.0.1", self.https)])
            .args(["--resolve", &format!("{HOST}:{}:127.0.0.1", self.http)])
            .args(arguments)
            .arg(url)
            .output()
            .expect("curl starts");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    fn get(&self, arguments: &[&str], path: &str) -> String {
        self.curl(arguments, &format!("https://{HOST}:{}{path}", self.https))
    }

    /// Version and colour that answer.
    fn live(&self) -> (String, String) {
        let answer = self.get(&[], "/api/v1/version");
        let answer: Json =
            serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error} in {answer}"));
        let word = |name: &str| answer[name].as_str().expect("a text").to_string();
        (word("version"), word("color"))
    }

    /// The running containers of a service.
    fn containers(&self, service: &str) -> Vec<String> {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let service = format!("label=com.docker.compose.service={service}");
        let told = self
            .engine
            .told(&["ps", "-q", "--filter", &project, "--filter", &service]);
        told.split_whitespace().map(String::from).collect()
    }

    /// A program in the container of a service.
    fn exec(&self, service: &str, program: &[&str]) -> String {
        let containers = self.containers(service);
        self.engine.told(&[&["exec", &containers[0]], program].concat())
    }

    fn psql(&self, database: &str, statement: &str) -> String {
        self.exec(
            "postgres",
            &["psql", "-U", "teaminsight", "-d", database, "-Atc", statement],
        )
    }

    /// Every container of the project, running or not, with its state.
    fn states(&self) -> BTreeMap<String, String> {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let format = "{{.Names}} {{.Status}}";
        let told = self
            .engine
            .told(&["ps", "-a", "--filter", &project, "--format", format]);
        told.lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, status)| (name.to_string(), status.to_string()))
            .collect()
    }

    fn traffic(&self) -> Traffic {
        let target: Target = format!("https://{HOST}/health").parse().expect("a URL");
        let authority = self.workspace.path("pipelines/team-insight/nginx/ssl/ca.pem");
        let connect = SocketAddr::from(([127, 0, 0, 1], self.https));
        Traffic::start(&target, connect, Some(Trust::Authority(authority)), RATE)
    }

    /// One version exchanged, and one that is put back by itself.
    fn back_and_forth(&self, turn: usize) {
        let (version, colour) = [("1.0.0", "blue"), ("2.0.0", "green")][turn % 2];
        self.put(version).expect(0);
        assert_eq!(self.live(), (version.into(), colour.into()));
        self.put("4.0.0").expect(1);
        assert_eq!(self.live(), (version.into(), colour.into()));
    }

    /// So many times, while `hey` sends; the last time `wrk` does.
    fn under_foreign_clients(&self, count: usize) {
        let url = self.unlimited();
        let hey = Client::start("hey", &["-z", "4h", "-c", "10", "-q", "3", "-host", HOST, &url]);
        for turn in 1..count {
            self.back_and_forth(turn - 1);
        }
        println!(
            "hey, {} switches and as many back: {}",
            count - 1,
            hey.expect_only_200()
        );
        let busy = self.wrk();
        self.back_and_forth(count - 1);
        println!(
            "wrk, a switch, and one there and back:\n{}",
            busy.expect_no_errors()
        );
    }

    /// What the same `wrk` loses while the front is reloaded as often as the traffic moved.
    fn beside_plain_reloads(&self) {
        let busy = self.wrk();
        for _ in 0..3 {
            std::thread::sleep(Duration::from_secs(2));
            self.exec("nginx", &["nginx", "-s", "reload"]);
        }
        std::thread::sleep(Duration::from_secs(2));
        println!("wrk, three plain reloads of the front:\n{}", busy.report());
    }

    fn wrk(&self) -> Client {
        let host = format!("Host: {HOST}");
        let how = ["-t1", "-c4", "-d4h", "--timeout", "30s", "-H", &host];
        Client::start("wrk", &[&how[..], &[&self.unlimited()]].concat())
    }

    /// A path of the backend that the front does not limit.
    fn unlimited(&self) -> String {
        format!("https://127.0.0.1:{}/health", self.https)
    }

    /// What the users have: the dump of the database without the words that differ each time, the keys of Redis, the uploads.
    fn data(&self) -> (String, String, String) {
        let dump = self.exec("postgres", &["pg_dump", "-U", "teaminsight", "teaminsight"]);
        let dump = dump
            .lines()
            .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
            .map(|line| format!("{line}\n"))
            .collect();
        let keys = "for key in $(redis-cli --scan | sort); do echo \"$key\"; redis-cli dump \"$key\"; done";
        let uploads = "cd /app/uploads && find . -type f | sort | xargs sha256sum";
        (
            dump,
            self.exec("redis", &["sh", "-c", keys]),
            self.exec("backend", &["sh", "-c", uploads]),
        )
    }

    fn backups(&self) -> Vec<String> {
        let mut found: Vec<String> = fs::read_dir(self.workspace.path("pipelines/team-insight/backups"))
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().join("manifest.json").is_file())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        found.sort();
        found
    }
}

/// The same pipeline for a project of another name: nothing that runs on this engine already is touched.
fn own_project(text: &str, project: &str) -> String {
    let mut text = text.replace("project: team-insight\n", &format!("project: {project}\n"));
    for before in ["\"", "[", " "] {
        for after in ["/", "_"] {
            text = text.replace(
                &format!("{before}team-insight{after}"),
                &format!("{before}{project}{after}"),
            );
        }
    }
    text
}

fn base_images(engine: &Engine) {
    let made = Command::new(repository().join("tests/images/build.sh"))
        .env("DOCKER_HOST", &engine.host)
        .stdout(Stdio::null())
        .status();
    assert!(made.is_ok_and(|status| status.success()), "the base images");
}

#[test]
fn the_guides_deployment() {
    let Some(engine) = Engine::get() else { return };
    let Some(registry) = Registry::start() else {
        return;
    };
    base_images(&engine);
    let project = Project::new(&engine, "ti");
    let mut site = Site::new(&engine, &project.name, &registry);
    let Some(vault) = Vault::start(&site.workspace) else {
        return;
    };

    site.deploy("1.0.0").expect(0);
    let states = site.states();
    assert_eq!(states.len(), 7, "{states:#?}");
    assert!(
        states.values().all(|state| state.contains("(healthy)")),
        "{states:#?}"
    );
    assert_eq!(site.live(), ("1.0.0".into(), "blue".into()));
    the_front(&site);
    fill(&site);
    around(&mut site);

    let traffic = site.traffic();
    with_vault(&mut site, &vault);
    site.deploy("2.0.0").expect(0);
    site.workspace.set("USE_VAULT", "false");
    assert_eq!(site.live(), ("2.0.0".into(), "green".into()));
    site.workspace.windlass(["rollback", "--yes"]).expect(0);
    assert_eq!(site.live(), ("1.0.0".into(), "blue".into()));
    site.put("2.0.0").expect(0);
    assert_eq!(site.live(), ("2.0.0".into(), "green".into()));

    ill_before_the_switch(&site);
    ill_behind_the_front(&site);
    let asked = std::env::var("WINDLASS_TEST_SWITCHES").ok();
    match &asked {
        Some(count) => site.under_foreign_clients(count.parse().expect("a number")),
        None => site.back_and_forth(0),
    }
    let sent = traffic.expect_all_answered();
    println!("{sent} requests while versions were exchanged and put back, 0 failed");
    if asked.is_some() {
        site.beside_plain_reloads();
    }

    backups(&site);
}

/// TLS, headers, the redirect and the limits of the guide's nginx.
fn the_front(site: &Site<'_>) {
    let headers = site
        .get(&["--include", "--http1.1"], "/api/v1/version")
        .to_lowercase();
    for header in [
        "http/1.1 200",
        "x-frame-options: sameorigin",
        "x-content-type-options: nosniff",
        "x-xss-protection: 1; mode=block",
        "strict-transport-security: max-age=31536000; includesubdomains",
    ] {
        assert!(headers.contains(header), "no {header} in {headers}");
    }
    let plain = format!("http://{HOST}:{}/a?b=c", site.http);
    let redirected = site.curl(&["--include"], &plain);
    assert!(redirected.starts_with("HTTP/1.1 301"), "{redirected}");
    assert!(
        redirected.contains(&format!("https://{HOST}/a?b=c")),
        "{redirected}"
    );
    assert!(site.get(&[], "/").contains("Team Insight"));
    let burst = [
        "--parallel",
        "--parallel-max",
        "30",
        "--output",
        "/dev/null",
        "--no-progress-meter",
        "--write-out",
        "%{http_code}\\n",
    ];
    let answers = site.get(&burst, "/api/v1/version?[1-60]");
    let count = |status: &str| answers.lines().filter(|line| *line == status).count();
    // Ten a second, and twenty at once of which others have had some.
    assert!(count("200") >= 10 && count("429") >= 10, "{answers}");
}

/// Something to lose.
fn fill(site: &Site<'_>) {
    let token = site.exec("backend", &["python", "-m", "app.token", "--account", "checker"]);
    let bearer = format!("authorization: Bearer {token}");
    let project = json!({ "key": "KEEP", "name": "残る" }).to_string();
    let data = ["--header", "content-type: application/json", "--data", &project];
    let made = site.get(&[&["--header", &bearer], &data[..]].concat(), "/api/v1/projects");
    assert!(made.contains("残る"), "{made}");
    let file = site.workspace.path("upload.bin");
    fs::write(&file, UPLOAD).expect("written");
    let file = file.display().to_string();
    let sent = site.get(
        &["--header", &bearer, "--upload-file", &file],
        "/api/v1/uploads/kept.bin",
    );
    assert!(sent.contains("kept.bin"), "{sent}");
    let fill = "redis-cli set kept value; redis-cli hset hash a 1 b 2; redis-cli rpush list x y z";
    site.exec("redis", &["sh", "-c", fill]);
}

/// The stacks around the product. Prometheus really asks the backend; the others are stand-ins with the same ports, health and log-in.
fn around(site: &mut Site<'_>) {
    for name in ["PROMETHEUS_PORT", "GRAFANA_PORT", "KIBANA_PORT"] {
        let address: SocketAddr = free_address().parse().expect("an address");
        site.workspace.set(name, &address.port().to_string());
    }
    site.run("monitoring", &[]).expect(0);
    site.run("logging", &[]).expect(0);
    let states = site.states();
    for service in ["prometheus", "grafana", "elasticsearch", "logstash", "kibana"] {
        let state = &states[&format!("{}-{service}-1", site.project)];
        assert!(state.contains("(healthy)"), "{service}: {state}");
    }
    let query = "http://127.0.0.1:9090/api/v1/query?query=sum(up{job=\"backend\"})";
    let began = Instant::now();
    loop {
        let answer = site.exec("prometheus", &["wget", "-qO-", query]);
        if answer.contains("\"2\"") {
            break;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "Prometheus does not see both replicas: {answer}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// From here on the passwords come from Vault. They are the same: the databases have them.
fn with_vault(site: &mut Site<'_>, vault: &Vault) {
    let settings: BTreeMap<String, String> = site
        .workspace
        .read("pipelines/team-insight/.env")
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    for (path, field, name) in [
        ("database", "password", "DB_PASSWORD"),
        ("redis", "password", "REDIS_PASSWORD"),
        ("application", "secret-key", "SECRET_KEY"),
    ] {
        let path = format!("secret/team-insight/{path}");
        vault.must("POST", &path, &json!({ field: settings[name] }));
    }
    let (role, secret) = vault.approle("team-insight");
    site.workspace.set("USE_VAULT", "true");
    site.workspace.set("VAULT_ADDR", &vault.address());
    site.workspace.set("VAULT_ROLE", &role);
    site.workspace.set("VAULT_SECRET_ID", &secret);
}

/// Never has traffic; the screen shows what its health check was told.
fn ill_before_the_switch(site: &Site<'_>) {
    let health = "pipelines/team-insight/backend/app/api/health.py";
    let good = site.workspace.read(health);
    let ill = good.replace("200 if healthy else 503", "418");
    assert_ne!(good, ill);
    site.workspace.write(health, &ill);
    let said = site.deploy("3.0.0").expect(1).said();
    for words in ["418", "the last", "gunicorn"] {
        assert!(said.contains(words), "no {words} in {said}");
    }
    assert_eq!(site.live(), ("2.0.0".into(), "green".into()));
    site.workspace.write(health, &good);
}

/// Passes every check of its own, and fails one through the front: the traffic goes back.
fn ill_behind_the_front(site: &Site<'_>) {
    let users = "pipelines/team-insight/backend/app/api/users.py";
    let good = site.workspace.read(users);
    let ill = "from fastapi import APIRouter, HTTPException\n\nrouter = APIRouter(prefix=\"/api/v1/users\")\n\n\n@router.get(\"/me\")\ndef me():\n    raise HTTPException(500, \"version 4 knows nobody\")\n";
    site.workspace.write(users, ill);
    let said = site.deploy("4.0.0").expect(1).said();
    for words in ["version 4 knows nobody", "the router sends the traffic to green"] {
        assert!(said.contains(words), "no {words} in {said}");
    }
    assert_eq!(site.live(), ("2.0.0".into(), "green".into()));
    site.workspace.write(users, &good);
}

/// Saved, destroyed, restored; and what is no backup is never taken for one.
fn backups(site: &Site<'_>) {
    site.run("backup", &[]).expect(0);
    let (saved, data) = (site.backups(), site.data());
    assert_eq!(saved.len(), 1, "{saved:?}");
    assert!(
        data.0.contains("残る") && data.1.contains("kept") && data.2.contains("kept.bin"),
        "{data:?}"
    );

    let refused = site.run("restore", &[]);
    assert_ne!(refused.code, 0, "there are data in the way: {}", refused.said());
    assert_eq!(site.data(), data);

    destroy(site);
    site.run("restore", &["replace=true"]).expect(0);
    assert_eq!(site.data(), data);

    no_dump_is_no_backup(site, "exit 0", &saved);
    no_dump_is_no_backup(site, "/usr/bin/pg_dump.real \"$@\" | head -c 2000", &saved);
    no_room_is_no_backup(site, &saved);

    flip_a_bit(
        &site
            .workspace
            .path("pipelines/team-insight/backups")
            .join(&saved[0]),
    );
    let damaged = site.run("restore", &["replace=true"]);
    assert_ne!(damaged.code, 0, "{}", damaged.said());
    assert!(damaged.said().contains("restore.damaged"), "{}", damaged.said());
    assert_eq!(site.data(), data);

    in_a_bucket(site);
}

/// What the comment in backup.yaml says: the same backup in a bucket too, and back from there.
fn in_a_bucket(site: &Site<'_>) {
    const BUCKET: &str = "team-insight-backups";
    let Some(moto) = Moto::start() else { return };
    moto.make_bucket(BUCKET);
    let folder = "pipelines/team-insight";
    let dotenv = format!("{folder}/.env");
    let known = site.workspace.read(&dotenv);
    let keys = format!("{known}\nS3_ID={ACCESS_KEY_ID}\nS3_KEY={SECRET_ACCESS_KEY}\n");
    site.workspace.write(&dotenv, &keys);
    let origin = moto.origin();
    let server = format!(
        r#"s3: {{ endpoint: "{origin}", region: eu-central-1, access-key-id: "${{{{ secrets.id }}}}", secret-access-key: "${{{{ secrets.key }}}}" }}"#
    );
    let changes = [
        (
            "to: [/mnt/backups]",
            format!("to: [/mnt/backups, \"s3://{BUCKET}\"]\n      {server}"),
        ),
        (
            "from: /mnt/backups",
            format!("from: \"s3://{BUCKET}\"\n      {server}"),
        ),
        (
            "\nsecrets:\n",
            format!("\nsecrets:\n  id: file://{dotenv}#S3_ID\n  key: file://{dotenv}#S3_KEY\n"),
        ),
        (
            "redis-password] }\n      containers:",
            format!(
                "redis-password, id, key] }}\n      objects: [\"s3://{BUCKET}\"]\n      http: [\"{origin}\"]\n      containers:"
            ),
        ),
    ];
    for pipeline in ["backup", "restore"] {
        let mut text = site.workspace.read(&format!("{folder}/{pipeline}.yaml"));
        for (from, to) in &changes {
            text = text.replace(from, to);
        }
        site.workspace
            .write(&format!("{folder}/{pipeline}-bucket.yaml"), &text);
    }

    let data = site.data();
    site.run("backup-bucket", &[]).expect(0);
    let newest = site.backups().pop().expect("a backup");
    let kept = site
        .workspace
        .path("pipelines/team-insight/backups")
        .join(&newest);
    let stored = moto.keys(BUCKET);
    assert_eq!(
        stored.len(),
        fs::read_dir(&kept).expect("readable").count(),
        "{stored:?}"
    );
    for key in stored {
        let name = key
            .strip_prefix(&format!("{newest}/"))
            .expect("of the newest backup");
        let is_same = moto.get(&format!("/{BUCKET}/{key}")) == fs::read(kept.join(name)).expect("a file");
        assert!(is_same, "{key}");
    }

    destroy(site);
    fs::remove_dir_all(&kept).expect("removed");
    site.run("restore-bucket", &["replace=true"]).expect(0);
    assert_eq!(site.data(), data);
}

fn destroy(site: &Site<'_>) {
    site.psql("postgres", "DROP DATABASE teaminsight WITH (FORCE)");
    site.exec("redis", &["redis-cli", "flushall"]);
    site.exec("backend", &["sh", "-c", "rm -rf /app/uploads/*"]);
    assert_eq!(site.exec("redis", &["redis-cli", "dbsize"]), "0");
}

/// In the place of `pg_dump` a script that does not do its work, and is content.
fn no_dump_is_no_backup(site: &Site<'_>, script: &str, saved: &[String]) {
    let path = site.exec("postgres", &["sh", "-c", "readlink -f $(command -v pg_dump)"]);
    let replaced = format!(
        "mv {path} {path}.real && printf '#!/bin/sh\\n%s\\n' '{}' >{path} && chmod 755 {path}",
        script.replace("/usr/bin/pg_dump", &path)
    );
    site.exec("postgres", &["sh", "-c", &replaced]);
    let ended = site.run("backup", &[]);
    site.exec("postgres", &["mv", &format!("{path}.real"), &path]);
    assert_ne!(ended.code, 0, "{script}: {}", ended.said());
    assert_eq!(site.backups(), saved, "{script}: {}", ended.said());
}

/// The backups' disk is full.
fn no_room_is_no_backup(site: &Site<'_>, saved: &[String]) {
    let directory = site.workspace.path("pipelines/team-insight/backups");
    let aside = site.workspace.path("pipelines/team-insight/backups-aside");
    fs::rename(&directory, &aside).expect("moved");
    fs::create_dir(&directory).expect("made");
    let tmpfs = ["-t", "tmpfs", "-o", "size=8k", "tmpfs"];
    let mounted = Command::new("mount").args(tmpfs).arg(&directory).status();
    assert!(
        mounted.is_ok_and(|status| status.success()),
        "whoever starts engines mounts disks"
    );
    let ended = site.run("backup", &[]);
    let published = site.backups();
    let unmounted = Command::new("umount").arg(&directory).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    fs::remove_dir(&directory).expect("removed");
    fs::rename(&aside, &directory).expect("moved back");
    assert_ne!(ended.code, 0, "{}", ended.said());
    assert_eq!(published, [] as [String; 0], "{}", ended.said());
    assert_eq!(site.backups(), saved);
}

/// One bit of the largest file of a backup.
fn flip_a_bit(backup: &Path) {
    let files = fs::read_dir(backup).expect("readable").flatten();
    let largest = files
        .filter(|file| file.file_name() != "manifest.json")
        .max_by_key(|file| file.metadata().expect("readable").len())
        .expect("a file")
        .path();
    let mut bytes = fs::read(&largest).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).expect("written");
}
