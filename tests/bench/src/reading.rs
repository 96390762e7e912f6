//! P5: reading, checking and planning large pipelines, beside the YAML reader alone on the same file.

use crate::{
    project::{Project, Result, Shape},
    statistics::{minimum, resident, timed},
    table::{Quantity, Row, Wanted},
};
use serde_json::Value as Json;
use std::time::Duration;

const STAGES: usize = 10_000;
const ROUNDS: usize = 3;
/// As people write a stage.
const BODY: &str =
    "    uses: ./noop.wasm\n    timeout: 5m\n    retry: { attempts: 2 }\n    with: { wait-ms: 0 }\n";

/// Times of one file.
struct Times {
    reader: Duration,
    /// Reading and checking, describing the plugin, planning, approving.
    whole: Duration,
    /// What of it comes after the file was read.
    plan: Duration,
}

pub(crate) fn large(project: &Project, rows: &mut Vec<Row>) -> Result<()> {
    let times = measure(project, STAGES, ROUNDS)?;
    let reader = ("serde-saphyr alone", Quantity::Time(times.reader));
    let whole = Quantity::Time(times.whole);
    rows.push(Row::ratio(
        "P5",
        format!("validate and plan {STAGES} stages"),
        whole,
        reader,
        Wanted::AtMost(1.5),
    ));
    let bound = Quantity::Time(Duration::from_millis(100));
    rows.push(Row::at_most(
        "P5",
        format!("plan {STAGES} stages after reading"),
        Quantity::Time(times.plan),
        bound,
    ));
    let ten = measure(project, 10 * STAGES, 1)?;
    let base = (format!("10 × {STAGES}"), Quantity::Time(times.whole * 10));
    let what = format!("validate and plan {} stages", 10 * STAGES);
    rows.push(Row::ratio(
        "P5",
        what,
        Quantity::Time(ten.whole),
        base,
        Wanted::AtMost(1.3),
    ));
    Ok(())
}

/// Memory of a planned pipeline, a stage. In a process that has done nothing before.
pub(crate) fn memory(project: &Project) -> Result<u64> {
    let file = project.write(&Shape {
        stages: STAGES,
        is_chain: true,
        body: BODY,
    })?;
    // What the first use of a plugin costs is no stage's.
    let one = project.write(&Shape {
        stages: 1,
        is_chain: true,
        body: BODY,
    })?;
    drop(project.approve(project.read(&one)?)?);
    let before = resident();
    let kept = project.approve(project.read(&file)?)?;
    let after = resident();
    drop(kept);
    Ok(after.saturating_sub(before) / STAGES as u64)
}

fn measure(project: &Project, stages: usize, rounds: usize) -> Result<Times> {
    let file = project.write(&Shape {
        stages,
        is_chain: true,
        body: BODY,
    })?;
    let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
    let (mut readers, mut wholes, mut plans) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        // Its default budget is for small files; the peer is only compared where it takes the file.
        let (time, read) = timed(|| serde_saphyr::from_str::<Json>(&text));
        if read.is_ok() {
            readers.push(time);
        }
        let (reading, pipeline) = timed(|| project.read(&file));
        let pipeline = pipeline?;
        let (planning, planned) = timed(|| project.approve(pipeline));
        drop(planned?);
        plans.push(planning);
        wholes.push(reading + planning);
    }
    Ok(Times {
        reader: minimum(&readers),
        whole: minimum(&wholes),
        plan: minimum(&plans),
    })
}
