//! The guide's deployment, whole: real images, a real engine, registry, PostgreSQL, Redis and nginx, under load. One test, since all of it is about one
//! project that goes from nothing to a version, to the next one, and back from a third.

use serde_json::Value as Json;
use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::Duration,
};
use windlass_load::{Load, Mode, Report, Running, Target, Trust, start};
use windlass_tests::{
    engine::Engine,
    registry::{Registry, free_address},
    workspace::{Ended, Workspace, repository},
};

const HOST: &str = "team-insight.example.com";
const PROJECT: &str = "team-insight";

struct Site<'a> {
    engine: &'a Engine,
    registry: Registry,
    workspace: Workspace,
    https: String,
    http: String,
}

impl<'a> Site<'a> {
    fn new(engine: &'a Engine) -> Option<Self> {
        let registry = Registry::start()?;
        let images = Command::new("bash").arg(repository().join("tests/images/build.sh")).env("DOCKER_HOST", &engine.host).status();
        assert!(images.is_ok_and(|status| status.success()), "the base images are built");
        let mut workspace = Workspace::quickstart(env!("CARGO_BIN_EXE_windlass-under-test"));
        let [http, https] = [free_address(), free_address()];
        let port = |address: &str| address.rsplit(':').next().unwrap_or_default().to_string();
        let prepared = Command::new("sh").arg(workspace.path("pipelines/team-insight/prepare-trial.sh")).status();
        assert!(prepared.is_ok_and(|status| status.success()), "passwords and a certificate are made");
        let deploy = workspace.read("pipelines/team-insight/deploy.yaml");
        workspace.write("pipelines/team-insight/deploy.yaml", &deploy.replace("127.0.0.1:443", &https));
        workspace.set("DOCKER_HOST", &engine.host);
        workspace.set("HTTP_PORT", &port(&http));
        workspace.set("HTTPS_PORT", &port(&https));
        let site = Self {
            engine,
            registry,
            workspace,
            https,
            http,
        };
        site.remove();
        Some(site)
    }

    /// Everything of the project: this test's, and what an earlier one that was killed has left.
    fn remove(&self) {
        let label = format!("label=com.docker.compose.project={PROJECT}");
        for (list, remove) in [
            (vec!["ps", "-aq"], vec!["rm", "-fv"]),
            (vec!["volume", "ls", "-q"], vec!["volume", "rm", "-f"]),
            (vec!["network", "ls", "-q"], vec!["network", "rm"]),
        ] {
            let listed = self.engine.told(&[list, vec!["--filter", &label]].concat());
            let found: Vec<&str> = listed.split_whitespace().collect();
            if !found.is_empty() {
                self.engine.told(&[remove, found].concat());
            }
        }
    }

    fn deploy(&self, version: &str) -> Ended {
        let registry = format!("registry={}", self.registry.address);
        let version = format!("version={version}");
        let file = "pipelines/team-insight/deploy.yaml";
        self.workspace.windlass(["run", file, "--var", &version, "--var", &registry, "--progress", "json"])
    }

    fn authority(&self) -> PathBuf {
        self.workspace.path("pipelines/team-insight/nginx/ssl/ca.pem")
    }

    /// Status, headers in lower case, body.
    fn get(&self, url: &str) -> (u16, String, String) {
        let output = Command::new("curl")
            .args(["-sS", "-i", "--http1.1", "--max-time", "20", "--cacert"])
            .arg(self.authority())
            .args(["--connect-to", &format!("{HOST}:443:{}", self.https), "--connect-to", &format!("{HOST}:80:{}", self.http), url])
            .output()
            .expect("curl starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), head.to_lowercase(), body.to_string())
    }

    /// Version and colour that answer.
    fn live(&self) -> (String, String) {
        let (status, _, body) = self.get(&format!("https://{HOST}/health"));
        assert_eq!(status, 200, "{body}");
        let body: Json = serde_json::from_str(&body).expect("JSON");
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_string();
        assert_eq!(text("status"), "healthy", "{body}");
        (text("version"), text("color"))
    }

    fn load(&self, mode: Mode) -> Running {
        let target = Target::parse(&format!("https://{HOST}/health")).expect("a URL");
        start(Load {
            connect: Some(self.https.parse().expect("an address")),
            mode,
            rate: Some(40),
            duration: Duration::from_secs(900),
            timeout: Duration::from_secs(20),
            trust: Some(Trust::Authority(self.authority())),
            ..Load::of(target)
        })
        .expect("the load starts")
    }

    fn containers(&self, service: &str) -> Vec<String> {
        let labels = [format!("label=com.docker.compose.project={PROJECT}"), format!("label=com.docker.compose.service={service}")];
        let told = self.engine.told(&["ps", "-a", "--filter", &labels[0], "--filter", &labels[1], "--format", "{{.Names}} {{.State}} {{.Status}}"]);
        told.lines().map(String::from).collect()
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}

#[track_caller]
fn nothing_failed(report: &Report) {
    assert_eq!((report.failures(), report.lost), (0, 0), "{report:?}");
    assert!(report.answered > 100, "{report:?}");
}

#[test]
fn from_nothing_to_a_version_to_the_next_and_back_from_a_third() {
    let Some(engine) = Engine::get() else { return };
    let Some(site) = Site::new(&engine) else { return };

    // From nothing.
    site.deploy("1.0.0").expect(0);
    assert_eq!(site.live(), ("1.0.0".into(), "blue".into()));
    for service in ["nginx", "router", "frontend", "backend", "postgres", "redis"] {
        let found = site.containers(service);
        assert!(!found.is_empty() && found.iter().all(|line| line.contains("running") && line.contains("(healthy)")), "{service}: {found:?}");
    }
    what_the_front_answers(&site);

    // The next one, while requests come in on new and on kept connections.
    let running = [site.load(Mode::Close), site.load(Mode::KeepAlive { connections: 8 })];
    site.deploy("2.0.0").expect(0);
    assert_eq!(site.live(), ("2.0.0".into(), "green".into()));
    // One whose health check fails: the live colour keeps its traffic.
    let health = site.workspace.read("pipelines/team-insight/backend/app/api/health.py");
    let broken = health.replace("200 if healthy else 503", "418");
    assert_ne!(health, broken);
    site.workspace.write("pipelines/team-insight/backend/app/api/health.py", &broken);
    let failed = site.deploy("3.0.0").expect(1);
    assert_eq!(site.live(), ("2.0.0".into(), "green".into()));
    assert!(failed.said().contains("418"), "the reply is shown: {}", failed.stderr);
    for report in running.map(|running| running.stop()) {
        nothing_failed(&report);
    }

    // And back, by hand.
    site.workspace.write("pipelines/team-insight/backend/app/api/health.py", &health);
    let file = "pipelines/team-insight/deploy.yaml";
    let runs = site.workspace.windlass(["runs", "list", "--file", file, "--format", "json"]).expect(0).json();
    let runs = runs.as_array().cloned().unwrap_or_default();
    let succeeded = runs.iter().find(|run| run["status"] == "succeeded").expect("version 2");
    let id = succeeded["id"].as_str().expect("an id").to_string();
    let running = site.load(Mode::Close);
    site.workspace.windlass(["rollback", &id, "--file", file, "--yes"]).expect(0);
    nothing_failed(&running.stop());
    assert_eq!(site.live(), ("1.0.0".into(), "blue".into()));
}

/// TLS, headers, the redirect, the endpoints that the guide checks, and the rate limit.
fn what_the_front_answers(site: &Site<'_>) {
    let https = format!("https://{HOST}");
    let (status, head, body) = site.get(&format!("{https}/"));
    assert_eq!(status, 200, "{head}\n{body}");
    for header in [
        "x-frame-options: sameorigin",
        "x-content-type-options: nosniff",
        "x-xss-protection: 1; mode=block",
        "strict-transport-security: max-age=31536000; includesubdomains",
    ] {
        assert!(head.contains(header), "{header} is not in {head}");
    }
    let (status, head, _) = site.get(&format!("http://{HOST}/x"));
    assert!(status == 301 && head.contains(&format!("location: https://{HOST}/x")), "{head}");
    for (path, expected) in [("projects", vec![200, 401]), ("users/me", vec![401]), ("sync/connection/status", vec![200, 401])] {
        let (status, _, body) = site.get(&format!("{https}/api/v1/{path}"));
        assert!(expected.contains(&status), "{path}: {status} {body}");
    }
    let statuses: Vec<u16> = (0..40).map(|_| site.get(&format!("{https}/api/v1/version")).0).collect();
    assert!(statuses.contains(&429), "the rate limit bites: {statuses:?}");
    let static_file = fs::read_to_string(site.workspace.path("pipelines/team-insight/frontend/public/robots.txt"));
    assert_eq!(site.get(&format!("{https}/robots.txt")).2, static_file.expect("a file of the frontend"));
}
