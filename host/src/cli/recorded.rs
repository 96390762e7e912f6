//! From a run's id to everything that is needed to go on with it: its journal, its plan as it was approved, its plugins as they
//! were. Refuses where one of them is no longer the same.

use super::{
    Result,
    load::{self, Planned},
    print::Printer,
    project::Project,
};
use crate::{
    catalog::{self, Component},
    diagnostic::Diagnostics,
    failure::{Failure, Turn},
    grant::{ApprovedPlan, approve},
    journal::{
        RunHistory, SqliteStore,
        record::WireInputs,
        replay,
        store::{Store, StoreError},
    },
    name::RunId,
    pipeline::model::PluginReference,
    support::fs::private_directory,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A run in its state directory.
pub(super) struct Recorded {
    pub(super) state: PathBuf,
    pub(super) history: RunHistory,
}

/// The run that is named, else the newest that `is_meant`, over all pipelines of the project.
pub(super) fn find(
    project: &Project,
    named: Option<&str>,
    what: &str,
    is_meant: &dyn Fn(&RunHistory) -> bool,
    printer: &Printer,
) -> Result<Recorded> {
    let id = named.map(RunId::parse).transpose().or_else(|error| {
        let failure = Failure::new(Turn::Operator, "runs.id", error.to_string());
        printer.stop(&failure.help("windlass runs list"))
    })?;
    let mut found: Vec<Recorded> = Vec::new();
    for state in project.states() {
        let looked = look(&state, id.as_ref(), is_meant);
        found.extend(looked.or_else(|error| printer.stop(&Failure::from(error)))?);
    }
    // Ids sort by the time of their start.
    if let Some(newest) = found.into_iter().max_by(|a, b| a.history.id.cmp(&b.history.id)) {
        return Ok(newest);
    }
    printer.stop(&match id {
        Some(id) => StoreError::UnknownRun(id).into(),
        None => Failure::new(Turn::Operator, "runs.none", format!("there is no run {what}"))
            .help("`windlass runs list` shows them; the state directory depends on the project's root, see -C and --state-dir"),
    })
}

fn look(
    state: &Path,
    id: Option<&RunId>,
    is_meant: &dyn Fn(&RunHistory) -> bool,
) -> std::result::Result<Option<Recorded>, StoreError> {
    const NEWEST: usize = 50;
    let Some(store) = SqliteStore::open_for_reading(state)? else {
        return Ok(None);
    };
    let recorded = |history| Recorded {
        state: state.to_path_buf(),
        history,
    };
    if let Some(id) = id {
        return match replay::show_run(&store, id) {
            Ok(history) => Ok(Some(recorded(history))),
            Err(StoreError::UnknownRun(_)) => Ok(None),
            Err(error) => Err(error),
        };
    }
    for (run, _) in store.list_runs(NEWEST, &["run-started"])? {
        let history = replay::show_run(&store, &run)?;
        if is_meant(&history) {
            return Ok(Some(recorded(history)));
        }
    }
    Ok(None)
}

/// The plan that the run was approved with: from the texts in its journal, else from the files where they still give the same.
pub(super) fn plan_again(
    project: &Project,
    recorded: &Recorded,
    printer: &Printer,
) -> Result<(Planned, ApprovedPlan)> {
    let history = &recorded.history;
    let Some(inputs) = &history.inputs else {
        let message = format!(
            "the journal of run {} does not hold what its plan was made from",
            history.id
        );
        let failure = Failure::new(Turn::Operator, "resume.plan", message);
        return printer.stop(&failure.help("start a new run"));
    };
    let mut problems = None;
    for from_journal in [true, false] {
        match make(project, recorded, inputs, from_journal) {
            Ok((planned, approved)) if planned.plan.digest() == history.plan_digest => {
                return Ok((planned, approved));
            }
            Ok(_) => {}
            Err(Problem::Failure(failure)) => return printer.stop(&failure),
            Err(Problem::Diagnostics(found)) => problems = problems.or(Some(found)),
        }
    }
    if let Some(problems) = problems {
        printer.problems(&problems);
    }
    let message = format!(
        "the plan of run {} ({}) cannot be made again: this Windlass, or the files it was made from, are not those of its start",
        history.id, history.plan_digest
    );
    let failure = Failure::new(Turn::Operator, "resume.plan", message);
    printer.stop(&failure.help(
        "use the Windlass and the files that the run was started with; `windlass runs show` says what has been done",
    ))
}

enum Problem {
    Failure(Failure),
    Diagnostics(Diagnostics),
}

fn make(
    project: &Project,
    recorded: &Recorded,
    inputs: &WireInputs,
    from_journal: bool,
) -> std::result::Result<(Planned, ApprovedPlan), Problem> {
    let (pipeline, _) = load::read_again(project, inputs, from_journal).map_err(Problem::Diagnostics)?;
    let missing = std::cell::RefCell::new(None);
    let locate = |reference: &PluginReference| {
        plugin(project, &recorded.state, inputs, reference).inspect_err(|failure| {
            missing.borrow_mut().get_or_insert_with(|| failure.clone());
        })
    };
    let planned = load::plan_with(pipeline, &locate);
    if let Some(failure) = missing.into_inner() {
        return Err(Problem::Failure(failure));
    }
    let planned = planned.map_err(Problem::Diagnostics)?;
    let (approved, _) = approve(planned.plan.clone()).map_err(Problem::Diagnostics)?;
    Ok((planned, approved))
}

/// The plugin with the digest of the run's start: as it was kept then, or as it is now if it is the same.
fn plugin(
    project: &Project,
    state: &Path,
    inputs: &WireInputs,
    reference: &PluginReference,
) -> std::result::Result<Component, Failure> {
    let name = reference.to_string();
    let wanted = inputs.plugins.get(&name).map(String::as_str).unwrap_or_default();
    if let Ok(bytes) = fs::read(kept(state, wanted)) {
        let component = Component::new(name.clone(), bytes);
        if component.digest.to_string() == wanted {
            return Ok(component);
        }
    }
    match catalog::locate(reference, &project.root) {
        Ok(component) if component.digest.to_string() == wanted => Ok(component),
        _ => {
            let message = format!("the plugin `{name}` that this run was started with ({wanted}) is gone");
            Err(
                Failure::new(Turn::Operator, "resume.plugin", message).help(format!(
                    "put the component with this digest back (kept in {}), or start a new run",
                    state.join("plugins").display()
                )),
            )
        }
    }
}

/// Keeps the bytes of every plugin of a run, so that it can be resumed after an upgrade.
///
/// # Errors
/// `storage.failed`.
pub(super) fn keep_plugins(state: &Path, planned: &Planned) -> std::result::Result<(), Failure> {
    let directory = private_directory(&state.join("plugins"))?;
    for component in planned.components.values() {
        let path = kept(state, &component.digest.to_string());
        let is_there =
            fs::metadata(&path).is_ok_and(|metadata| metadata.len() == component.bytes.len() as u64);
        if !is_there {
            write(&directory, &path, &component.bytes).map_err(|error| {
                let message = format!("cannot keep a plugin in {}: {error}", directory.display());
                Failure::new(Turn::Environment, "storage.failed", message).help("see that the disk has room")
            })?;
        }
    }
    Ok(())
}

fn write(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = directory.join(format!(".{}-{}", std::process::id(), bytes.len()));
    fs::write(&aside, bytes)?;
    fs::File::open(&aside)?.sync_all()?;
    fs::rename(&aside, path)
}

fn kept(state: &Path, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    state.join("plugins").join(format!("{hex}.wasm"))
}
