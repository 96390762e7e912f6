//! A project of its own in a temporary directory, and the real binary run in it with an environment of its own.

use serde_json::Value as Json;
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// The repository: where the pipelines under test are.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is in the workspace's directory")
}

/// A project that goes away with the test.
pub struct Workspace {
    directory: tempfile::TempDir,
    binary: &'static str,
    environment: Vec<(String, String)>,
}

/// What the binary said and how it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Workspace {
    /// An empty project. `binary` is `env!("CARGO_BIN_EXE_windlass-under-test")`, which only tests know.
    pub fn new(binary: &'static str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(directory.path().join("project/.git")).expect("made");
        Self {
            directory,
            binary,
            environment: Vec::new(),
        }
    }

    /// A project with the repository's quickstart in it.
    pub fn quickstart(binary: &'static str) -> Self {
        let workspace = Self::new(binary);
        copy(&repository().join("pipelines"), &workspace.path("pipelines"));
        workspace
    }

    /// A path of the project.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join("project").join(relative)
    }

    /// Where journal, artifacts and caches are.
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub fn write(&self, relative: &str, content: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("it is in the project")).expect("made");
        fs::write(path, content).expect("written");
    }

    pub fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.path(relative)).expect("readable")
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.into(), value.into()));
    }

    /// The binary with these arguments, not yet started. Compiled plugins are shared by all tests: they are the same bytes.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(self.binary);
        command
            .args(arguments)
            .current_dir(self.path(""))
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.directory.path())
            .env("XDG_STATE_HOME", self.state())
            .env("XDG_CACHE_HOME", cache())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub fn windlass<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ended {
        Ended::from(self.command(arguments).output().expect("the binary starts"))
    }

    /// Every file below the state directory, with its bytes.
    pub fn state_files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        walk(&self.state(), &mut |path| {
            found.push((path.to_path_buf(), fs::read(path).expect("readable")))
        });
        found
    }
}

impl Ended {
    /// Standard output as one JSON document.
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in\n{}\n{}", self.stdout, self.stderr))
    }

    /// Standard output as one JSON document a line.
    pub fn json_lines(&self) -> Vec<Json> {
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        self.stdout.lines().map(parse).collect()
    }

    /// Fails with everything that was said.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// Both streams.
    pub fn said(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// One for all tests of a build: what is in it depends on plugin bytes and engine only, and the cache authenticates it.
fn cache() -> PathBuf {
    let cache = Path::new(env!("OUT_DIR")).join("compile-cache");
    fs::create_dir_all(&cache).expect("made");
    cache
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("copied");
        }
    }
}

fn walk(directory: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, visit)
        } else {
            visit(&path)
        }
    }
}
