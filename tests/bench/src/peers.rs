//! The floors and peers that are not the runtime: syncing a file, starting a program, `make`.

use crate::{project::Result, statistics::timed};
use std::{
    fs::OpenOptions,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// Appending 256 bytes and waiting for the disk, `count` times.
pub(crate) fn syncs(directory: &Path, count: usize) -> Result<Vec<Duration>> {
    let io = |error: std::io::Error| format!("cannot append: {error}");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("syncs"))
        .map_err(io)?;
    let append = |_| -> Result<Duration> {
        let (time, done) = timed(|| file.write_all(&[b'x'; 256]).and_then(|()| file.sync_data()));
        done.map(|()| time).map_err(io)
    };
    (0..count).map(append).collect()
}

/// Starting `/bin/true` and waiting for its end: `posix_spawn` where the system has it.
pub(crate) fn spawn() -> Result<Duration> {
    let (time, status) = timed(|| Command::new("/bin/true").stdin(Stdio::null()).status());
    status
        .map(|_| time)
        .map_err(|error| format!("/bin/true cannot be started: {error}"))
}

/// A makefile of as many targets as a pipeline has stages; none where there is no `make`.
pub(crate) fn make(directory: &Path, targets: usize, is_chain: bool, jobs: usize) -> Option<Duration> {
    let file = directory.join(if is_chain { "chain.mk" } else { "wide.mk" });
    let mut text = format!(
        ".PHONY: all\nall:{}\n",
        (0..targets)
            .map(|number| format!(" t{number}"))
            .collect::<String>()
    );
    for number in 0..targets {
        let needs = if is_chain && number > 0 {
            format!(" t{}", number - 1)
        } else {
            String::new()
        };
        // A program without a shell: the least that make can run.
        text += &format!("t{number}:{needs}\n\t@true\n");
    }
    std::fs::write(&file, text).ok()?;
    let mut command = Command::new("make");
    command
        .arg("-f")
        .arg(&file)
        .arg(format!("-j{jobs}"))
        .current_dir(directory)
        .stdout(Stdio::null())
        .env_remove("MAKEFLAGS");
    let (time, status) = timed(|| command.status());
    status.is_ok_and(|status| status.success()).then_some(time)
}
