//! The floors and peers that are not the runtime: syncing a file, starting a program, `make`.

use crate::{project::Result, statistics::timed};
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// Appending 256 bytes and waiting for the disk, `count` times.
pub(crate) fn appends(directory: &Path, count: usize) -> Result<Vec<Duration>> {
    let file = open(directory, "appends")?;
    let end = file.metadata().map_err(io)?.len();
    write(&file, count, |number| end + 256 * number, &[b'x'; 256])
}

/// Writing a page over bytes that are in the file already, `count` times: a sync that need not grow the file.
pub(crate) fn overwrites(directory: &Path, count: usize) -> Result<Vec<Duration>> {
    let file = open(directory, "overwrites")?;
    write(&file, count, |number| 4_096 * number, &[b'x'; 4_096])?;
    write(&file, count, |number| 4_096 * number, &[b'y'; 4_096])
}

fn write(file: &File, count: usize, place: impl Fn(u64) -> u64, bytes: &[u8]) -> Result<Vec<Duration>> {
    let write = |number| {
        let (time, done) = timed(|| {
            file.write_all_at(bytes, place(number))
                .and_then(|()| file.sync_data())
        });
        done.map(|()| time).map_err(io)
    };
    (0..count as u64).map(write).collect()
}

fn open(directory: &Path, name: &str) -> Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(false);
    options.open(directory.join(name)).map_err(io)
}

fn io(error: std::io::Error) -> String {
    format!("cannot write: {error}")
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
