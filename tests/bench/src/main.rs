//! What Windlass costs: every figure beside a floor or a peer that is measured in the same run, as a table and as JSON.
//!
//! `cargo run --release -p windlass-bench [-- --json FILE] [--directory DIR] [--only P1,P5]`. Not a test: nothing fails because
//! a machine is slow.

mod backup;
mod bare;
mod cancel;
mod cold;
mod containers;
mod docker;
mod engine;
mod loading;
mod peers;
mod project;
mod reading;
mod redaction;
mod resume;
mod statistics;
mod table;

use project::{Project, Result};
use std::{path::PathBuf, process::ExitCode, time::Duration};
use table::{Quantity, Row};

/// What was asked on the command line.
struct Arguments {
    json: Option<PathBuf>,
    /// On the disk that is measured.
    directory: PathBuf,
    /// Empty for all.
    only: Vec<String>,
    /// A measurement that needs a process of its own.
    measure: Option<String>,
}

fn main() -> ExitCode {
    let done = Arguments::read().and_then(|arguments| match &arguments.measure {
        Some(what) => measure_here(what, &arguments),
        None => bench(&arguments),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("windlass-bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    fn read() -> Result<Self> {
        let mut arguments = Self {
            json: None,
            directory: beside_this_program(),
            only: Vec::new(),
            measure: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(flag) = words.next() {
            let value = words.next().ok_or_else(|| format!("{flag} takes a value"))?;
            match flag.as_str() {
                "--json" => arguments.json = Some(value.into()),
                "--directory" => arguments.directory = value.into(),
                "--only" => arguments.only = value.split(',').map(String::from).collect(),
                "--measure" => arguments.measure = Some(value),
                _ => {
                    return Err(format!(
                        "there is no {flag}: --json FILE, --directory DIR, --only P1,P5"
                    ));
                }
            }
        }
        Ok(arguments)
    }

    fn wants(&self, figures: &[&str]) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| figures.contains(&one.as_str()))
    }
}

/// The target directory: on a disk, where `/tmp` may be memory.
fn beside_this_program() -> PathBuf {
    let this = std::env::current_exe().ok();
    this.and_then(|path| path.parent().map(PathBuf::from))
        .unwrap_or_else(std::env::temp_dir)
}

fn bench(arguments: &Arguments) -> Result<()> {
    let project = Project::new(&arguments.directory)?;
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    // A figure that cannot be measured is said, and the others are measured all the same.
    let mut note = |figure: &str, done: Result<()>| {
        notes.extend(done.err().map(|problem| format!("{figure}: {problem}")))
    };
    let mut stage = None;
    if arguments.wants(&["P1", "P2", "P6"]) {
        note(
            "P1",
            engine::chain(&project, &mut rows).map(|measured| stage = Some(measured)),
        );
    }
    if arguments.wants(&["P3"]) {
        note("P3", cold::one_stage(&project, &mut rows));
    }
    if arguments.wants(&["P2", "P4"]) {
        note("P4", engine::wide(&project, &mut rows));
    }
    if arguments.wants(&["P5"]) {
        note("P5", reading::large(&project, &mut rows));
        note(
            "P5",
            in_own_process("P5", arguments).map(|bytes| rows.push(stage_memory(bytes))),
        );
    }
    if let (Some(stage), true) = (stage, arguments.wants(&["P6"])) {
        note("P6", engine::process(&project, stage, &mut rows));
    }
    if arguments.wants(&["P7"]) {
        note("P7", loading::known_plugin(&project, &mut rows));
    }
    if arguments.wants(&["P8"]) {
        note(
            "P8",
            in_own_process("P8", arguments).map(|bytes| rows.push(live_memory(bytes))),
        );
    }
    if arguments.wants(&["P9"]) {
        note("P9", containers::all(&project, &mut rows));
    }
    if arguments.wants(&["P10"]) {
        note("P10", redaction::hundred_secrets(&mut rows));
    }
    if arguments.wants(&["P11"]) {
        note("P11", backup::postgres(&project, &mut rows));
    }
    if arguments.wants(&["P15"]) {
        note("P15", cancel::all(&project, &mut rows));
        note("P15", resume::thousand_records(&project, &mut rows));
    }
    print!("{}", table::render(&rows));
    notes.iter().for_each(|note| println!("not measured: {note}"));
    match &arguments.json {
        Some(path) => {
            let text = format!("{:#}\n", table::to_json(&rows, &notes));
            std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
        }
        None => Ok(()),
    }
}

fn stage_memory(bytes: u64) -> Row {
    Row::at_most(
        "P5",
        "memory of a planned stage",
        Quantity::Bytes(bytes),
        Quantity::Bytes(8 << 10),
    )
}

fn live_memory(bytes: u64) -> Row {
    Row::at_most(
        "P8",
        "memory of 1,000 live instances",
        Quantity::Bytes(bytes),
        Quantity::Bytes(100 << 20),
    )
}

/// Calls this program again for one number.
fn in_own_process(what: &str, arguments: &Arguments) -> Result<u64> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = std::process::Command::new(this);
    command
        .args(["--measure", what, "--directory"])
        .arg(&arguments.directory);
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim()
        .parse()
        .map_err(|_| String::from_utf8_lossy(&output.stderr).trim().to_string())
}

fn measure_here(what: &str, arguments: &Arguments) -> Result<()> {
    let project = Project::new(&arguments.directory)?;
    let number = match what {
        "P5" => reading::memory(&project)?,
        "P8" => engine::live_memory(&project)?,
        "P1" => u64::try_from(engine::chains(&project, false)?.as_nanos()).unwrap_or(u64::MAX),
        "P2" => u64::try_from(engine::chains(&project, true)?.as_nanos()).unwrap_or(u64::MAX),
        _ => return Err(format!("nothing measures {what}")),
    };
    println!("{number}");
    // Threads of a runtime that are still idle are not waited for.
    project.runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}
