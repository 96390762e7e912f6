//! Compiling, where a hostile component hurts the host most (1.5 MB took 18 s and 1.9 GB): in a child process with limits.

use super::engine;
use crate::{
    catalog,
    failure::{Failure, Turn},
};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::{
    io::{Read, Write},
    path::Path,
    process::{ExitCode, Stdio},
    time::Duration,
};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, process::Command};

/// The hidden argument of the executable.
pub const ARGUMENT: &str = "__compile";

/// Address space of the child. The largest honest component known (Python, 18 MB) takes under 1.5 GiB.
const MEMORY: u64 = 3 << 30;
/// Processor time of the child, over all its threads. The largest honest component takes 25 s unoptimised.
const CPU_SECONDS: u64 = 120;
/// And by the clock on the wall.
const WALL: Duration = Duration::from_secs(180);
/// Compiled code is about ten times the component at worst.
const LARGEST_CODE: u64 = 512 << 20;
/// What is shown of the child's messages.
const LONGEST_MESSAGE: usize = 2_000;

/// Compiles in a child process.
pub(super) async fn in_child(executable: &Path, component: &catalog::Component) -> Result<Vec<u8>, Failure> {
    let started = |error: std::io::Error| {
        let message = format!("the compiler `{}` cannot be run: {error}", executable.display());
        Failure::new(Turn::Environment, "sandbox.compiler", message)
    };
    let mut child = Command::new(executable)
        .arg(ARGUMENT)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(started)?;
    let mut input = child.stdin.take().expect("piped");
    let output = child.stdout.take().expect("piped");
    let errors = child.stderr.take().expect("piped");
    let (mut code, mut message) = (Vec::new(), Vec::new());
    let exchange = async {
        let write = async {
            // A child that died early says why on its own: a broken pipe is not the news.
            let _ = input.write_all(&component.bytes).await;
            drop(input);
        };
        let mut output = output.take(LARGEST_CODE);
        let mut errors = errors.take(LONGEST_MESSAGE as u64);
        let (_, read, told) = tokio::join!(
            write,
            output.read_to_end(&mut code),
            errors.read_to_end(&mut message)
        );
        read.and(told)?;
        child.wait().await
    };
    let status = tokio::time::timeout(WALL, exchange)
        .await
        .map_err(|_| over(component, "three minutes"))?
        .map_err(started)?;
    match status.code() {
        Some(0) => Ok(code),
        Some(1) => Err(invalid(component, &String::from_utf8_lossy(&message))),
        // Killed by a signal (processor time), or aborted when memory ran out, or a panic of the compiler.
        _ => Err(over(component, "its memory or processor time")),
    }
}

/// Compiles in this process, on a thread that may block.
pub(super) async fn in_process(component: &catalog::Component) -> Result<Vec<u8>, Failure> {
    let bytes = component.bytes.clone();
    let compiled = tokio::task::spawn_blocking(move || {
        engine::compiler()?.precompile_component(&bytes).map_err(describe)
    });
    match compiled.await {
        Ok(Ok(code)) => Ok(code),
        Ok(Err(Problem::Invalid(message))) => Err(invalid(component, &message)),
        Ok(Err(Problem::Engine(failure))) => Err(failure),
        Err(_) => Err(invalid(component, "the compiler gave up on it")),
    }
}

enum Problem {
    Invalid(String),
    Engine(Failure),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::Engine(failure)
    }
}

fn describe(error: wasmtime::Error) -> Problem {
    Problem::Invalid(format!("{error:#}"))
}

/// The child: a component on standard input becomes compiled code on standard output.
pub fn child() -> ExitCode {
    let result = limit().and_then(|()| {
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .map_err(|error| error.to_string())?;
        let engine = engine::compiler().map_err(|failure| failure.message)?;
        let code = engine
            .precompile_component(&bytes)
            .map_err(|error| format!("{error:#}"))?;
        std::io::stdout()
            .lock()
            .write_all(&code)
            .map_err(|error| error.to_string())
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Puts this process under its limits before it has read a byte.
fn limit() -> Result<(), String> {
    let limits = [
        (Resource::As, MEMORY),
        (Resource::Cpu, CPU_SECONDS),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, 16),
    ];
    for (resource, maximum) in limits {
        let limit = Rlimit {
            current: Some(maximum),
            maximum: Some(maximum),
        };
        setrlimit(resource, limit).map_err(|error| format!("a limit cannot be set: {error}"))?;
    }
    Ok(())
}

fn invalid(component: &catalog::Component, problem: &str) -> Failure {
    let problem = crate::service::inert::inert(problem.trim());
    let message = format!("plugin `{}` does not compile: {problem}", component.reference);
    Failure::new(Turn::Plugin, "plugin.invalid", message).help(
        "the sandbox has no 64-bit memories, garbage collection, exceptions, relaxed SIMD, tail calls or typed function references",
    )
}

fn over(component: &catalog::Component, what: &str) -> Failure {
    let message = format!(
        "plugin `{}` was not compiled within the limits: it took more than {what}",
        component.reference
    );
    Failure::new(Turn::Plugin, "limit.compile", message)
        .help("build it smaller: optimised, without unused code")
}
