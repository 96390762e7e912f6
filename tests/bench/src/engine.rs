//! P1, P2, P4, P6 and P8: what a stage costs in a chain, in parallel, with a journal and without, and in memory.

use crate::{
    bare::Bare,
    peers,
    project::{Project, Ready, Result, Shape},
    statistics::{mean, median, minimum, resident},
    table::{Quantity, Row, Wanted},
};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

/// Stages of a chain and of a wide pipeline.
const STAGES: usize = 1_000;
/// Rounds of each measurement, its floor and its peer in turn: what disturbs one disturbs the others.
const ROUNDS: usize = 5;
/// The same where syncs are measured, which take half as long or twice as long from one second to the next.
const SYNCED_ROUNDS: usize = 12;

const NOOP: &str = "    uses: ./noop.wasm\n";

/// P1 and P2; the time of an ephemeral stage is what P6 builds on.
pub(crate) fn chain(project: &Project, rows: &mut Vec<Row>) -> Result<Duration> {
    let ready = project.ready(&Shape {
        stages: STAGES,
        is_chain: true,
        body: NOOP,
    })?;
    let bare = Bare::new()?;
    bare.steps(&project.runtime, 100)?;
    let (mut floors, mut stages, mut makes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floors.push(bare.steps(&project.runtime, STAGES)?);
        stages.push(each(project.run(&ready, 2, false)?.total));
        makes.extend(peers::make(project.root(), STAGES, true, 2).map(each));
    }
    let stage = minimum(&stages);
    let floor = ("bare wasmtime", Quantity::Time(minimum(&floors)));
    rows.push(Row::ratio(
        "P1",
        "a stage of a chain, ephemeral",
        Quantity::Time(stage),
        floor,
        Wanted::AtMost(2.0),
    ));
    if !makes.is_empty() {
        let peer = ("make, a target", Quantity::Time(minimum(&makes)));
        rows.push(Row::faster(
            "P1",
            "a stage of a chain, ephemeral",
            Quantity::Time(stage),
            peer,
            9.0,
        ));
    }
    durable_chain(project, &ready, stage, rows)?;
    Ok(stage)
}

fn durable_chain(project: &Project, ready: &Ready, ephemeral: Duration, rows: &mut Vec<Row>) -> Result<()> {
    let (mut appends, mut overwrites) = (Vec::new(), Vec::new());
    let (mut steps, mut commits) = (Vec::new(), u64::MAX);
    for _ in 0..SYNCED_ROUNDS {
        appends.extend(peers::appends(project.root(), STAGES)?);
        let measured = project.run(ready, 2, true)?;
        commits = commits.min(measured.commits);
        steps.extend(measured.steps());
        overwrites.extend(peers::overwrites(project.root(), STAGES)?);
    }
    for (word, of) in [("p50", median as fn(&[Duration]) -> Duration), ("mean", mean)] {
        for (floor, syncs) in [("append", &appends), ("overwrite", &overwrites)] {
            let base = Quantity::Time(of(syncs) + ephemeral);
            rows.push(Row::ratio(
                "P2",
                format!("a stage of a chain, durable, {word}"),
                Quantity::Time(of(&steps)),
                (format!("{floor} + fdatasync {word} + P1"), base),
                Wanted::AtMost(1.3),
            ));
        }
    }
    // None shares another's sync: the outcome of each is on disk before the next one starts.
    let one = ("one each", Quantity::Number(1.0));
    let each = Quantity::Number(commits as f64 / STAGES as f64);
    rows.push(Row::ratio(
        "P2",
        "syncs a stage of a chain",
        each,
        one,
        Wanted::AtLeast(1.0),
    ));
    Ok(())
}

/// P2 and P4: a thousand stages that need nothing of each other.
pub(crate) fn wide(project: &Project, rows: &mut Vec<Row>) -> Result<()> {
    const JOBS: usize = 32;
    let ready = project.ready(&Shape {
        stages: STAGES,
        is_chain: false,
        body: NOOP,
    })?;
    let (mut ephemeral, mut durable, mut makes, mut commits) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ephemeral.push(project.run(&ready, JOBS, false)?.total);
        let measured = project.run(&ready, JOBS, true)?;
        durable.push(measured.total);
        commits.push(measured.commits);
        makes.extend(peers::make(project.root(), STAGES, false, JOBS));
    }
    commits.sort_unstable();
    let commits = commits.get(commits.len() / 2).copied().unwrap_or_default();
    let syncs = Quantity::Number(commits as f64 / STAGES as f64);
    rows.push(Row::at_most(
        "P2",
        format!("syncs a stage, {JOBS} in parallel, p50 of {ROUNDS}"),
        syncs,
        Quantity::Number(0.1),
    ));
    let bound = |milliseconds| Quantity::Time(Duration::from_millis(milliseconds));
    let (ephemeral, durable) = (
        Quantity::Time(minimum(&ephemeral)),
        Quantity::Time(minimum(&durable)),
    );
    let what = |kind: &str| format!("{STAGES} stages wide, {kind}, {JOBS} in parallel");
    rows.push(Row::at_most("P4", what("ephemeral"), ephemeral, bound(80)));
    rows.push(Row::at_most("P4", what("durable"), durable, bound(150)));
    if !makes.is_empty() {
        let peer = (format!("make -j{JOBS}"), Quantity::Time(minimum(&makes)));
        rows.push(Row::faster("P4", what("durable"), durable, peer, 1.0));
    }
    Ok(())
}

/// P6: a native program by the `command` plugin.
pub(crate) fn process(project: &Project, stage: Duration, rows: &mut Vec<Row>) -> Result<()> {
    const CHAIN: usize = 200;
    let body = "    uses: command\n    with: { argv: [/bin/true] }\n    allow: { process: [/bin/true] }\n";
    let ready = project.ready(&Shape {
        stages: CHAIN,
        is_chain: true,
        body,
    })?;
    let (mut spawns, mut steps) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        spawns.extend((0..CHAIN).map(|_| peers::spawn()).collect::<Result<Vec<_>>>()?);
        steps.extend(project.run(&ready, 1, false)?.steps());
    }
    let floor = ("posix_spawn + P1", Quantity::Time(median(&spawns) + stage));
    rows.push(Row::ratio(
        "P6",
        "a `process` stage, p50",
        Quantity::Time(median(&steps)),
        floor,
        Wanted::AtMost(1.15),
    ));
    Ok(())
}

/// For a profiler: nothing but chains, ephemeral or durable, for as long as it takes to see where their time goes. The best time of a stage.
pub(crate) fn chains(project: &Project, is_durable: bool) -> Result<Duration> {
    let ready = project.ready(&Shape {
        stages: STAGES,
        is_chain: true,
        body: NOOP,
    })?;
    let stages = (0..40).map(|_| {
        project
            .run(&ready, 2, is_durable)
            .map(|measured| each(measured.total))
    });
    Ok(minimum(&stages.collect::<Result<Vec<_>>>()?))
}

/// P8: a thousand instances that are alive at once. In a process that has done nothing before, so that no freed memory hides it.
pub(crate) fn live_memory(project: &Project) -> Result<u64> {
    let body = "    uses: ./noop.wasm\n    with: { wait-ms: 3000 }\n";
    let warm = project.ready(&Shape {
        stages: 1,
        is_chain: false,
        body: NOOP,
    })?;
    project.run(&warm, 1, false)?;
    let ready = project.ready(&Shape {
        stages: STAGES,
        is_chain: false,
        body,
    })?;
    let before = resident();
    let highest = highest_while(|| project.run(&ready, STAGES, false).map(drop))?;
    drop::<Ready>(ready);
    Ok(highest.saturating_sub(before))
}

/// The most memory that was resident while `work` went on.
fn highest_while(work: impl FnOnce() -> Result<()>) -> Result<u64> {
    let (ended, highest) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                highest.fetch_max(resident(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let done = work();
        ended.store(true, Ordering::Relaxed);
        done
    })?;
    Ok(highest.into_inner())
}

fn each(total: Duration) -> Duration {
    total / u32::try_from(STAGES).unwrap_or(u32::MAX)
}
