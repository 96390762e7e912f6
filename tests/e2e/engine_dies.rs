//! The engine's daemon is killed in the middle of a build, a push and a start: Windlass says so, and the next run finds a way and leaves nothing over.

use std::{
    io::Read,
    net::TcpListener,
    process::{Child, Stdio},
    time::{Duration, Instant},
};
use windlass_tests::{
    engine::MortalEngine,
    registry::Registry,
    workspace::{Ended, Workspace},
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Also the pipelines' name.
const PROJECT: &str = "mortal";

struct Scene {
    workspace: Workspace,
    mortal: MortalEngine,
    image: &'static str,
}

impl Scene {
    fn new() -> Option<Self> {
        let mortal = MortalEngine::start()?;
        let mut workspace = Workspace::new(env!("CARGO_BIN_EXE_windlass-under-test"));
        workspace.set("DOCKER_HOST", &mortal.engine.host);
        let image = mortal.engine.busybox();
        Some(Self {
            workspace,
            mortal,
            image,
        })
    }

    /// An image that takes as long to build as one likes, and where it goes.
    fn write_build(&self, seconds: u32, registry: &str) {
        let dockerfile = format!(
            "FROM {}\nRUN sleep {seconds}\nRUN echo {seconds} >/built\n",
            self.image
        );
        self.workspace.write("image/Dockerfile", &dockerfile);
        self.workspace.write(
            "windlass.yaml",
            &format!(
                r#"windlass: 1
name: mortal
stages:
  build:
    uses: build
    with:
      tag: "1"
      push-to: "{registry}"
      images: {{ app: {{ context: image, network: none }} }}
    allow:
      files: {{ /workspace/image: ro }}
      containers: {{ build: ["mortal-app", "{registry}/mortal-app"], push: ["{registry}/mortal-app"] }}
"#
            ),
        );
    }

    /// A service that is healthy after so many seconds.
    fn write_deploy(&self, seconds: u32) {
        let image = self.image;
        self.workspace.write(
            "compose.yaml",
            &format!(
                r#"services:
  app:
    image: {image}
    command: [sh, -c, "sleep {seconds}; touch /well; exec sleep 1000"]
    init: true
    healthcheck: {{ test: [CMD, test, -e, /well], interval: 500ms, retries: 1, start_period: 60s }}
    stop_grace_period: 1s
"#
            ),
        );
        self.workspace.write(
            "windlass.yaml",
            &format!(
                r#"windlass: 1
name: mortal
stages:
  deploy:
    uses: deploy
    with: {{ project: {PROJECT}, compose: [compose.yaml] }}
    allow:
      files: {{ /workspace/compose.yaml: ro }}
      containers: {{ run: ["{image}"], pull: ["{image}"], manage: ["{PROJECT}/*"] }}
"#
            ),
        );
    }

    fn begin(&self) -> Child {
        let mut command = self.workspace.command(["run"]);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    }

    fn containers(&self, more: &[&str], format: &str) -> String {
        self.mortal
            .engine
            .told(&[&["ps", "--no-trunc", "--format", format], more].concat())
    }

    /// The daemon dies, and Windlass has to say so.
    fn die_under(&mut self, run: Child) {
        self.mortal.die();
        let ended = Ended::from(run.wait_with_output().expect("it ends"));
        let said = ended.said();
        assert!([1, 3, 69].contains(&ended.code), "{}: {said}", ended.code);
        for words in ["engine", "help:"] {
            assert!(said.contains(words), "no {words} in {said}");
        }
        self.mortal.rise();
    }
}

/// Waits for what the run does.
fn until(run: &mut Child, what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        let ended = run.try_wait().expect("it can be asked");
        if ended.is_some() || began.elapsed() > PATIENCE {
            let mut said = String::new();
            let stderr = run.stderr.as_mut().expect("piped");
            stderr.read_to_string(&mut said).expect("text");
            panic!("{what}, {ended:?}: {said}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn killed_in_the_middle_of_build_push_and_start() {
    let Some(mut scene) = Scene::new() else { return };
    let Some(registry) = Registry::start() else {
        return;
    };

    // In a step of the build.
    scene.write_build(600, &registry.address);
    let mut run = scene.begin();
    until(&mut run, "the build's container runs", || {
        !scene.containers(&[], "{{.ID}}").is_empty()
    });
    scene.die_under(run);

    // In a push: a registry that takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = silent.local_addr().expect("bound").to_string();
    scene.write_build(0, &address);
    let run = scene.begin();
    let connection = silent.accept().expect("the engine calls");
    scene.die_under(run);
    drop(connection);

    scene.write_build(0, &registry.address);
    Ended::from(scene.begin().wait_with_output().expect("it ends")).expect(0);
    let left = scene.containers(&["--all"], "{{.ID}} {{.Command}} {{.State}}");
    assert_eq!(left, "", "the step of the first build is gone, too");
    let reference = format!("{}/mortal-app:1", registry.address);
    scene.mortal.engine.told(&["image", "rm", &reference]);
    scene.mortal.engine.told(&["pull", &reference]);

    // Started, and not yet well.
    scene.write_deploy(600);
    let mut run = scene.begin();
    until(&mut run, "the service's container runs", || {
        scene.containers(&[], "{{.Names}}").contains(PROJECT)
    });
    scene.die_under(run);
    scene.write_deploy(0);
    Ended::from(scene.begin().wait_with_output().expect("it ends")).expect(0);
    let left = scene.containers(&["--all"], "{{.Names}} {{.State}}");
    let (running, others): (Vec<&str>, Vec<&str>) = left.lines().partition(|line| line.ends_with(" running"));
    assert_eq!(running, [format!("{PROJECT}-app-1 running")], "{left}");
    // The way back, and nothing else.
    let is_before = |line: &&str| line.starts_with(&format!("{PROJECT}-app-1-before-"));
    assert!(others.len() <= 1 && others.iter().all(is_before), "{left}");
}
