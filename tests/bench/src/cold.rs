//! P3: the command itself, from its start to its end, one stage, everything it caches in place.

use crate::{
    peers,
    project::{Project, Result, Shape},
    statistics::{median, timed},
    table::{Quantity, Row, Wanted},
};
use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

const SAMPLES: usize = 30;

pub(crate) fn one_stage(project: &Project, rows: &mut Vec<Row>) -> Result<()> {
    let file = project.write(&Shape {
        stages: 1,
        is_chain: true,
        body: "    uses: ./noop.wasm\n",
    })?;
    let (mut runs, mut syncs) = (Vec::new(), Vec::new());
    for sample in 0..=SAMPLES {
        let mut command = Command::new(executable()?);
        command
            .arg("-C")
            .arg(project.root())
            .arg("--state-dir")
            .arg(project.root().join("cold"))
            .args(["run", "--progress", "plain"])
            .arg(&file)
            .env_remove("CI")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let (time, status) = timed(|| command.status());
        if !status.is_ok_and(|status| status.success()) {
            return Err("`windlass run` of one stage failed".into());
        }
        // The first one compiles the plugin.
        if sample > 0 {
            runs.push(time);
            syncs.extend(peers::appends(&project.root().join("cold"), 3)?);
        }
    }
    let floor = Duration::from_millis(12) + median(&syncs) * 4;
    let floor = ("12 ms + 4 fdatasync", Quantity::Time(floor));
    let run = Quantity::Time(median(&runs));
    rows.push(Row::ratio(
        "P3",
        "cold `windlass run`, one stage, p50 of 30",
        run,
        floor,
        Wanted::AtMost(1.0),
    ));
    Ok(())
}

/// Beside this program: the same package builds it.
pub(crate) fn executable() -> Result<PathBuf> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = this.with_file_name("windlass-bench-command");
    if path.exists() {
        Ok(path)
    } else {
        Err(format!("{} is missing: build the whole package", path.display()))
    }
}
