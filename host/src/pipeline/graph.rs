//! From the names that stages wait for to the cells they wait for; refuses unknown names and circles.

use super::{
    problems::{Problems, suggest},
    stage::ReadStage,
};
use crate::{diagnostic::Diagnostic, name::StageName, source::Span};
use indexmap::{IndexMap, IndexSet};

/// The longest list of names that is searched for a near one.
const SEARCHED: usize = 1_000;

/// The two sections of stages, by the names that stand in the file: also of stages that had mistakes.
#[derive(Clone, Copy)]
pub(crate) struct Sections<'a> {
    /// The names of the section that is resolved.
    pub(crate) own: &'a IndexSet<Box<str>>,
    /// Those of the other one.
    pub(crate) other: &'a IndexSet<Box<str>>,
    /// Whether the section runs after the other: it may then look at everything there.
    pub(crate) is_last: bool,
}

/// Fills in `needs` of every stage.
pub(crate) fn resolve(stages: &mut [ReadStage], sections: Sections<'_>, problems: &mut Problems) {
    let mut cells: IndexMap<String, Vec<StageName>> = IndexMap::new();
    for one in stages.iter() {
        cells
            .entry(one.stage.name.base().to_string())
            .or_default()
            .push(one.stage.name.clone());
    }
    for one in stages.iter_mut() {
        let mut needs: IndexSet<StageName> = IndexSet::new();
        for (name, span) in &one.needs {
            match cells.get(name) {
                Some(names) => needs.extend(names.iter().cloned()),
                None if sections.own.contains(name.as_str()) => {}
                None if sections.other.contains(name.as_str()) && sections.is_last => {}
                None => unknown(name, span, sections, problems),
            }
        }
        one.stage.needs = needs.into_iter().collect();
    }
    refuse_circles(stages, &cells, problems);
}

fn unknown(name: &str, span: &Span, sections: Sections<'_>, problems: &mut Problems) {
    if sections.other.contains(name) {
        let message =
            format!("`{name}` stands in `finally`: it runs after all stages, so no stage can wait for it");
        return problems.error("pipeline.needs", span, message);
    }
    let help = suggest(name, sections.own.iter().take(SEARCHED).map(|known| &**known));
    problems.error_with_help("pipeline.needs", span, format!("unknown stage `{name}`"), help);
}

/// Where a walk stands: the stage, and which of its needs comes next.
struct Step {
    stage: usize,
    next: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    Open,
    Done,
}

/// Walks along the needs, deepest first and without recursion: a chain of 100,000 stages is a valid file.
fn refuse_circles(stages: &[ReadStage], cells: &IndexMap<String, Vec<StageName>>, problems: &mut Problems) {
    // One edge a pair of names: all cells of a stage have the same neighbours, but for what `needs` takes from the matrix.
    let mut edges: Vec<Vec<(usize, Span)>> = vec![Vec::new(); cells.len()];
    for one in stages {
        let Some(from) = cells.get_index_of(one.stage.name.base()) else {
            continue;
        };
        for (name, span) in &one.needs {
            if let Some(to) = cells.get_index_of(name) {
                edges[from].push((to, span.clone()));
            }
        }
    }
    let mut marks = vec![Mark::New; cells.len()];
    for start in 0..cells.len() {
        if marks[start] == Mark::New {
            walk(start, &edges, &mut marks, cells, problems);
        }
    }
}

fn walk(
    start: usize,
    edges: &[Vec<(usize, Span)>],
    marks: &mut [Mark],
    cells: &IndexMap<String, Vec<StageName>>,
    problems: &mut Problems,
) {
    let mut path = vec![Step {
        stage: start,
        next: 0,
    }];
    marks[start] = Mark::Open;
    while let Some(step) = path.last_mut() {
        let Some((to, span)) = edges[step.stage].get(step.next) else {
            marks[step.stage] = Mark::Done;
            path.pop();
            continue;
        };
        step.next += 1;
        match marks[*to] {
            Mark::Done => {}
            Mark::New => {
                marks[*to] = Mark::Open;
                path.push(Step { stage: *to, next: 0 });
            }
            Mark::Open => report(*to, span, &path, edges, cells, problems),
        }
    }
}

fn report(
    to: usize,
    span: &Span,
    path: &[Step],
    edges: &[Vec<(usize, Span)>],
    cells: &IndexMap<String, Vec<StageName>>,
    problems: &mut Problems,
) {
    /// A longer circle is shown by its ends.
    const SHOWN: usize = 8;
    let from = path.iter().position(|step| step.stage == to).unwrap_or(0);
    let name = |stage: usize| cells.get_index(stage).map_or("", |(name, _)| name.as_str());
    let circle = &path[from..];
    let mut names: Vec<&str> = circle.iter().map(|step| name(step.stage)).collect();
    if names.len() > SHOWN {
        names.splice(SHOWN / 2..names.len() - SHOWN / 2, ["..."]);
    }
    names.push(name(to));
    let message = format!("these stages wait for each other: {}", names.join(" -> "));
    let mut problem = Diagnostic::error("pipeline.cycle", message)
        .at(span)
        .label("this closes the circle");
    for step in circle.iter().take(circle.len() - 1).take(SHOWN) {
        if let Some((next, place)) = edges[step.stage].get(step.next - 1) {
            problem = problem.related(
                place,
                format!("`{}` waits for `{}`", name(step.stage), name(*next)),
            );
        }
    }
    problems.push(
        problem
            .help("remove one of these; outputs and secrets of another stage make a stage wait for it, too"),
    );
}
