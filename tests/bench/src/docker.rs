//! The container engine that P9 and P11 are measured on: that of `DOCKER_HOST`, else of `/var/run/docker.sock`, and the `docker`
//! command there.

use crate::{
    project::{Project, Result},
    statistics::timed,
};
use bollard::Docker;
use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};

/// Its API, without Windlass. One engine for all: what has no engine says so.
pub(crate) fn api(project: &Project) -> Result<Docker> {
    const NEEDED: &str = "needs a Docker Engine";
    let docker = Docker::connect_with_defaults().map_err(|error| format!("{NEEDED}: {error}"))?;
    let negotiated = project.runtime.block_on(docker.negotiate_version());
    negotiated.map_err(|error| format!("{NEEDED}: {error}"))
}

/// The command, to be given more than arguments. With the builder that every engine has, and that the API's `/build` is.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command
        .args(arguments)
        .env("DOCKER_BUILDKIT", "0")
        .stdin(Stdio::null());
    command
}

/// From the command's start to its end, and what it said.
pub(crate) fn run(arguments: &[&str]) -> Result<(Duration, String)> {
    let (time, output) = timed(|| command(arguments).output());
    let what = || format!("docker {}", arguments.join(" "));
    let output = output.map_err(|error| format!("{} cannot be started: {error}", what()))?;
    said(&what(), &output).map(|text| (time, text))
}

/// What a command has written; the end of its complaint where it failed.
pub(crate) fn said(what: &str, output: &Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let last = complaint.trim().lines().last().unwrap_or("not a word");
    Err(format!("{what}: {last}"))
}
