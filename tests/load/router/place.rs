//! The processes of one candidate, in a directory of their own, and how its colours are switched.

use crate::configuration::{self, ANSWERS, COMMANDS, Candidate, FRONT, ROUTER};
use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Place {
    candidate: Candidate,
    directory: PathBuf,
    processes: Vec<Process>,
    generation: u64,
}

impl Place {
    pub(crate) fn start(candidate: Candidate) -> Result<Self, String> {
        let directory = std::env::temp_dir().join(format!("router-experiment-{}", std::process::id()));
        fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let mut place = Self {
            candidate,
            directory,
            processes: Vec::new(),
            generation: 1,
        };
        place.write_live()?;
        place.launch("backends", configuration::backends(&place.directory), true)?;
        place.launch(
            "router",
            configuration::router(candidate, &place.directory),
            candidate.is_nginx(),
        )?;
        if candidate != Candidate::Front {
            wait_for(ROUTER)?;
            place.launch("front", configuration::front(&place.directory), true)?;
        }
        wait_for(FRONT)?;
        Ok(place)
    }

    pub(crate) fn switches(&self) -> u64 {
        self.generation - 1
    }

    /// Makes the other colour live, and waits until the router says so.
    pub(crate) fn switch(&mut self) -> Result<(), String> {
        self.generation += 1;
        self.write_live()?;
        let (colour, other) = self.colours();
        let generation = self.generation;
        match self.candidate {
            Candidate::Front | Candidate::Behind => {
                let pid = fs::read_to_string(self.directory.join("router.pid"))
                    .map_err(|error| format!("the router's process is not known: {error}"))?;
                run(Command::new("kill").args(["-HUP", pid.trim()]))?;
            }
            Candidate::Map | Candidate::MapKept => {
                let file = self.directory.join("live");
                command(&format!(
                    "set map {} backend {colour}\\ {generation}",
                    file.display()
                ))?;
            }
            Candidate::Drain => {
                command(&format!(
                    "set server backend/{colour} weight 1; set server backend/{colour} state ready"
                ))?;
                command(&format!("set server backend/{other} state drain"))?;
                return Ok(());
            }
        }
        let expected = format!("{colour} {generation}");
        let started = Instant::now();
        while get(ANSWERS)? != expected {
            if started.elapsed() > PATIENCE {
                return Err(format!(
                    "the router does not say `{expected}` within {PATIENCE:?}"
                ));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The live one, and the other.
    fn colours(&self) -> (&'static str, &'static str) {
        match self.generation % 2 {
            1 => ("blue", "green"),
            _ => ("green", "blue"),
        }
    }

    fn write_live(&self) -> Result<(), String> {
        let Some(text) = configuration::live(self.candidate, self.colours().0, self.generation) else {
            return Ok(());
        };
        let (new, file) = (self.directory.join("live.new"), self.directory.join("live"));
        write(&new, &text)?;
        fs::rename(&new, &file).map_err(|error| format!("{}: {error}", file.display()))
    }

    fn launch(&mut self, name: &str, configuration: String, is_nginx: bool) -> Result<(), String> {
        let file = self.directory.join(format!("{name}.conf"));
        write(&file, &configuration)?;
        let mut command = match is_nginx {
            true => Command::new("nginx"),
            false => Command::new("haproxy"),
        };
        match is_nginx {
            true => command
                .args(["-g", "daemon off;", "-e"])
                .arg(self.directory.join("start.log"))
                .arg("-c"),
            false => command.args(["-q", "-db", "-f"]),
        };
        let child = command.arg(&file).stdin(Stdio::null()).spawn();
        let child = child.map_err(|error| format!("{name} does not start: {error}"))?;
        self.processes.push(Process(child));
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.processes.clear();
        // Nothing depends on it.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Ended in order, so that an nginx takes its workers with it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = run(Command::new("kill").args(["-TERM", &self.0.id().to_string()]));
        let _ = self.0.wait();
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?} ended with {status}")),
        Err(error) => Err(format!("{command:?} does not start: {error}")),
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn wait_for(port: u16) -> Result<(), String> {
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if started.elapsed() > PATIENCE {
            return Err(format!("nothing listens on port {port} within {PATIENCE:?}"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// One command to HAProxy; it says nothing if all is well.
fn command(text: &str) -> Result<(), String> {
    let answer = exchange(COMMANDS, &format!("{text}\n"))?;
    match answer.trim() {
        "" => Ok(()),
        words => Err(format!("haproxy answers `{text}` with `{words}`")),
    }
}

/// The body of an answer on a fresh connection.
fn get(port: u16) -> Result<String, String> {
    let answer = exchange(port, "GET /live/backend HTTP/1.0\r\n\r\n")?;
    Ok(answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_string())
}

fn exchange(port: u16, text: &str) -> Result<String, String> {
    let wrong = |error: std::io::Error| format!("port {port}: {error}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(wrong)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(wrong)?;
    stream.write_all(text.as_bytes()).map_err(wrong)?;
    stream.shutdown(Shutdown::Write).map_err(wrong)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(wrong)?;
    Ok(answer)
}
