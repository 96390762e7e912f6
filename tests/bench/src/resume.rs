//! P15: a run of a thousand records is killed, and `windlass resume` goes on with it: from the start of the command until it says
//! that the stage that was cut off has started again.

use crate::{
    cold,
    project::{Project, Result, Shape, yaml},
    statistics::p99,
    table::{Quantity, Row},
};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Each writes that it started and that it ended.
const STAGES: usize = 500;
const SAMPLES: usize = 30;
/// The stage that is killed again and again.
const LAST: &str = "last";

pub(crate) fn thousand_records(project: &Project, rows: &mut Vec<Row>) -> Result<()> {
    let file = project.root().join("resume.yaml");
    let chain = yaml(&Shape {
        stages: STAGES,
        is_chain: true,
        body: "    uses: ./noop.wasm\n",
    });
    let needs = format!("    needs: [s{:06}]\n", STAGES - 1);
    let text = format!("{chain}  {LAST}:\n    uses: ./noop.wasm\n    with: {{ wait-ms: 600000 }}\n{needs}");
    std::fs::write(&file, text).map_err(|error| error.to_string())?;
    let run = killed(project, &["run".as_ref(), file.as_ref()])?.run;
    let run = run.ok_or("`windlass run` did not say which run it is")?;
    let resume = || killed(project, &["resume".as_ref(), run.as_ref()]).map(|killed| killed.started);
    let times = (0..SAMPLES).map(|_| resume()).collect::<Result<Vec<_>>>()?;
    rows.push(Row::at_most(
        "P15",
        format!(
            "resume of {} records → first stage started, p99 of {SAMPLES}",
            2 * STAGES
        ),
        Quantity::Time(p99(&times)),
        Quantity::Time(Duration::from_millis(100)),
    ));
    Ok(())
}

/// A command that was killed once its last stage had started.
struct Killed {
    run: Option<String>,
    /// From the command's start to the stage's.
    started: Duration,
}

fn killed(project: &Project, arguments: &[&Path]) -> Result<Killed> {
    let began = Instant::now();
    let mut child = Command::new(cold::executable()?)
        .arg("-C")
        .arg(project.root())
        .arg("--state-dir")
        .arg(project.root().join("resume"))
        .args(arguments)
        .args(["--progress", "plain"])
        .env_remove("CI")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let seen = watch(&mut child, began);
    // With SIGKILL: it cannot tidy up.
    let ended = child.kill().and_then(|()| child.wait());
    ended.map_err(|error| error.to_string())?;
    seen
}

fn watch(child: &mut Child, began: Instant) -> Result<Killed> {
    let (mut run, mut said) = (None, Vec::new());
    let started = format!("[{LAST}] started");
    let stderr = child.stderr.take().ok_or("the command has no output")?;
    for line in BufReader::new(stderr).lines().map_while(std::io::Result::ok) {
        if line.starts_with(&started) {
            let started = began.elapsed();
            return Ok(Killed { run, started });
        }
        if let Some(rest) = line.strip_prefix("run ") {
            run = run.or(rest.split(' ').next().map(String::from));
        }
        said.push(line);
    }
    Err(format!("the last stage did not start: {}", said.join("; ")))
}
