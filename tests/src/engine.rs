//! A container engine for tests: the one of this machine where there is one, else one that the first test starts and the others find.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Starting takes a second; loading its own containers' manager on a busy machine a few.
const PATIENCE: Duration = Duration::from_secs(60);
const OF_THE_MACHINE: &str = "/var/run/docker.sock";
/// Sockets have short paths. `tests/run.sh` ends what it finds there.
const OURS: &str = "/run/windlass-test-engine";

/// One engine, for every process of a test run.
pub struct Engine {
    /// `DOCKER_HOST`.
    pub host: String,
}

impl Engine {
    /// `None` after saying why, where no engine can be had.
    pub fn get() -> Option<Self> {
        match started() {
            Ok(host) => Some(Self { host }),
            Err(problem) => {
                eprintln!("\n*** skipped: needs a Docker Engine ({problem}) ***\n");
                None
            }
        }
    }

    /// The `docker` command on this engine.
    pub fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .args(arguments)
            .env("DOCKER_HOST", &self.host)
            .env("DOCKER_BUILDKIT", "0");
        command
    }

    /// What `docker` says; panics where it fails.
    pub fn told(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments).output().expect("docker starts");
        let told = String::from_utf8_lossy(&output.stdout).trim().to_string();
        assert!(
            output.status.success(),
            "docker {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        told
    }

    /// An image with a shell and its tools, `windlass-test-busybox:1`, made of this machine's static busybox.
    pub fn busybox(&self) -> &'static str {
        const NAME: &str = "windlass-test-busybox:1";
        let _lock = lock("busybox.lock");
        let is_there = self
            .docker(&["image", "inspect", NAME])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if is_there.is_ok_and(|status| status.success()) {
            return NAME;
        }
        let context = tempfile::tempdir().expect("temporary");
        let busybox = ["/usr/bin/busybox", "/bin/busybox"]
            .into_iter()
            .find(|path| Path::new(path).is_file());
        fs::copy(
            busybox.expect("busybox-static is installed"),
            context.path().join("busybox"),
        )
        .expect("copied");
        let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nRUN mkdir -p /tmp /run /etc\nCMD [\"sh\"]\n";
        fs::write(context.path().join("Dockerfile"), dockerfile).expect("written");
        self.told(&["build", "-q", "-t", NAME, &context.path().display().to_string()]);
        NAME
    }
}

/// An engine of one test, which may die: beside whatever other engine there is, and without a way to the outside.
pub struct MortalEngine {
    pub engine: Engine,
    directory: tempfile::TempDir,
    bridge: Bridge,
    daemon: Child,
}

/// A network of its own: two engines on `docker0` take it away from each other.
struct Bridge(String);

impl MortalEngine {
    /// `None` after saying why, where no engine can be had.
    pub fn start() -> Option<Self> {
        // Sockets have short paths.
        let directory = tempfile::tempdir_in("/tmp").expect("temporary");
        let made = Bridge::new().and_then(|bridge| Ok((daemon(directory.path(), &bridge)?, bridge)));
        match made {
            Ok((daemon, bridge)) => Some(Self {
                engine: Engine {
                    host: format!("unix://{}", directory.path().join("docker.sock").display()),
                },
                directory,
                bridge,
                daemon,
            }),
            Err(problem) => {
                eprintln!("\n*** skipped: needs a Docker Engine ({problem}) ***\n");
                None
            }
        }
    }

    /// As the system would end it, without a word.
    pub fn die(&mut self) {
        self.daemon.kill().expect("it was there");
        self.daemon.wait().expect("it is gone");
        // The manager of its containers goes with it. Where nobody asks how that ended, its number stays, and the next daemon takes it for alive.
        let _ = fs::remove_file(self.directory.path().join("exec/containerd/containerd.pid"));
    }

    /// Starts again with what is on its disk.
    pub fn rise(&mut self) {
        self.daemon = daemon(self.directory.path(), &self.bridge).expect("it starts again");
    }
}

impl Drop for MortalEngine {
    fn drop(&mut self) {
        // In order, or its containers and mounts would stay.
        let asked = Command::new("kill").arg(self.daemon.id().to_string()).status();
        if asked.is_ok_and(|status| status.success()) {
            let _ = self.daemon.wait();
        }
    }
}

impl Bridge {
    fn new() -> Result<Self, String> {
        let id = std::process::id();
        let bridge = Self(format!("wlt{}", id % 100_000));
        let (x, y) = (id >> 8 & 0xff, id & 0xff);
        ip(&["link", "add", "name", &bridge.0, "type", "bridge"])?;
        ip(&["address", "add", &format!("10.{x}.{y}.1/24"), "dev", &bridge.0])?;
        ip(&["link", "set", &bridge.0, "up"])?;
        Ok(bridge)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = ip(&["link", "delete", &self.0]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|error| format!("`ip` does not start: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "ip {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn daemon(directory: &Path, bridge: &Bridge) -> Result<Child, String> {
    let path = |name: &str| directory.join(name).display().to_string();
    let mut dockerd = Command::new("dockerd");
    dockerd
        .args(["--data-root", &path("data"), "--exec-root", &path("exec")])
        .args(["--pidfile", &path("pid"), "--group", "root"])
        .args(["--host", &format!("unix://{}", path("docker.sock"))])
        .args(["--bridge", &bridge.0, "--iptables=false"])
        .args(["--ip-forward=false", "--ip-masq=false"]);
    launch(dockerd, &path("log"), &path("docker.sock"))
}

/// Removes, in the end, all that carries a project's label.
pub struct Project<'a> {
    pub engine: &'a Engine,
    pub name: String,
}

impl<'a> Project<'a> {
    /// A name that no other test has.
    pub fn new(engine: &'a Engine, what: &str) -> Self {
        Self {
            engine,
            name: format!("windlass-{what}-{}", std::process::id()),
        }
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        let label = format!("label=com.docker.compose.project={}", self.name);
        for (list, remove) in [
            (["ps", "-aq", "--filter"], ["rm", "-fv"].as_slice()),
            (["volume", "ls", "-q"], ["volume", "rm", "-f"].as_slice()),
            (["network", "ls", "-q"], ["network", "rm"].as_slice()),
        ] {
            let mut arguments: Vec<&str> = list.to_vec();
            if arguments.last() != Some(&"--filter") {
                arguments.push("--filter");
            }
            arguments.push(&label);
            let Ok(listed) = self.engine.docker(&arguments).output() else {
                return;
            };
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            let found: Vec<&str> = listed.split_whitespace().collect();
            if !found.is_empty() {
                let _ = self.engine.docker(&[remove, &found].concat()).output();
            }
        }
    }
}

fn started() -> Result<String, String> {
    if let Ok(host) = std::env::var("WINDLASS_TEST_DOCKER_HOST") {
        return Ok(host);
    }
    if answers(OF_THE_MACHINE) {
        return Ok(format!("unix://{OF_THE_MACHINE}"));
    }
    fs::create_dir_all(OURS).map_err(|error| format!("{OURS} cannot be made: {error}"))?;
    let _lock = lock("start.lock");
    let socket = format!("{OURS}/docker.sock");
    if !answers(&socket) {
        start(&socket)?;
    }
    Ok(format!("unix://{socket}"))
}

fn answers(socket: &str) -> bool {
    let mut version = Command::new("docker");
    version
        .args(["version", "--format", "{{.Server.Version}}"])
        .env("DOCKER_HOST", format!("unix://{socket}"));
    Path::new(socket).exists() && version.output().is_ok_and(|output| output.status.success())
}

fn start(socket: &str) -> Result<(), String> {
    let data = data_directory();
    let mut dockerd = Command::new("dockerd");
    dockerd
        .args(["--data-root", &data.display().to_string()])
        .args([
            "--exec-root",
            &format!("{OURS}/exec"),
            "--pidfile",
            &format!("{OURS}/pid"),
        ])
        .args(["--host", &format!("unix://{socket}"), "--group", "root"])
        // Not ended with the test that starts it.
        .process_group(0);
    launch(dockerd, &format!("{OURS}/log"), socket).map(drop)
}

/// Starts it and waits until it answers.
fn launch(mut dockerd: Command, log: &str, socket: &str) -> Result<Child, String> {
    let file = File::create(log).map_err(|error| error.to_string())?;
    let mut child = dockerd
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .spawn()
        .map_err(|error| format!("dockerd does not start: {error}"))?;
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if answers(socket) {
            return Ok(child);
        }
        if let Ok(Some(status)) = child.try_wait() {
            let log = fs::read_to_string(log).unwrap_or_default();
            let last = log.lines().last().unwrap_or_default();
            return Err(format!("dockerd ended with {status}: {last}"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(format!("dockerd did not answer within {} s", PATIENCE.as_secs()))
}

/// Images are large: where the build's own output is, so that it goes with it.
fn data_directory() -> PathBuf {
    Path::new(env!("OUT_DIR"))
        .ancestors()
        .nth(4)
        .expect("cargo's layout")
        .join("test-engine")
}

/// Held until it is dropped, by one process at a time.
fn lock(name: &str) -> File {
    fs::create_dir_all(OURS).expect("made");
    let file = File::create(Path::new(OURS).join(name)).expect("made");
    file.lock().expect("locked");
    file
}
