//! The approval: every need of every stage against its `allow:`, all denials at once. Only an [`ApprovedPlan`] can be run.

use super::stage_grant::{Entry, StageGrant, allow_line};
use crate::{
    capability::Capability,
    diagnostic::{Diagnostic, Diagnostics},
    pattern::{Mode, Pattern},
    plan::{Need, Plan, PlannedStage},
};
use std::sync::Arc;

/// A plan whose every need is granted. It has one constructor: [`approve`].
#[derive(Clone)]
pub struct ApprovedPlan {
    plan: Arc<Plan>,
    grants: Vec<Arc<StageGrant>>,
}

impl ApprovedPlan {
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// What a stage may touch, by its number in the plan.
    pub fn grant(&self, stage: usize) -> &Arc<StageGrant> {
        &self.grants[stage]
    }
}

/// request ∩ grant. (The ceiling, an administrator's policy, will be a third argument and one more reason to deny.)
///
/// # Errors
/// All denials of all stages, each with the line to add.
pub fn approve(plan: Arc<Plan>) -> Result<(ApprovedPlan, Diagnostics), Diagnostics> {
    let mut problems = Diagnostics::new();
    let grants = plan
        .stages
        .iter()
        .map(|stage| Arc::new(approve_stage(stage, &mut problems)))
        .collect();
    problems.into_result(ApprovedPlan { plan, grants })
}

fn approve_stage(planned: &PlannedStage, problems: &mut Diagnostics) -> StageGrant {
    let stage = &planned.stage;
    let plugin = planned.plugin.id.clone();
    let requested = |capability: Capability| {
        planned
            .plugin
            .requests
            .iter()
            .any(|row| row.capability == capability)
    };
    let mut entries = Vec::new();
    for grant in &stage.allow {
        if requested(grant.capability) {
            let rule = grant.span.to_string();
            entries.push(Entry {
                capability: grant.capability,
                pattern: grant.pattern.clone(),
                rule,
            });
        } else {
            let message = format!(
                "stage `{}` grants `{}`, which plugin `{plugin}` does not request: it has no effect",
                stage.name, grant.capability
            );
            let help = format!("remove the line; `windlass plugin inspect {plugin}` lists the requests");
            problems.push(
                Diagnostic::warning("grant.unrequested", message)
                    .at(&grant.span)
                    .help(help),
            );
        }
    }
    let granted = StageGrant::new(stage.name.clone(), plugin, entries);
    for need in planned.needs.iter().filter(|need| !need.is_free()) {
        if !is_met(&granted, need) {
            problems.push(denial(planned, need));
        }
    }
    check_sqlite_files(planned, &granted, problems);
    granted
}

fn is_met(granted: &StageGrant, need: &Need) -> bool {
    match &need.pattern {
        Some(pattern) => granted.covering(need.capability, pattern).is_some(),
        None => granted.has(need.capability),
    }
}

fn denial(planned: &PlannedStage, need: &Need) -> Diagnostic {
    let stage = &planned.stage;
    let capability = need.capability;
    let (value, line) = match &need.pattern {
        Some(pattern) => (format!("for `{pattern}`"), allow_line(capability, pattern)),
        None => {
            let row = capability.row();
            (
                "for a value that is known only while it runs".into(),
                format!("{}: [\"{}\"] (for example)", row.name, row.example),
            )
        }
    };
    let message = format!(
        "stage `{}` needs `{capability}` {value}, and its `allow:` does not grant it",
        stage.name
    );
    Diagnostic::error("grant.denied", message)
        .at(stage.grants_span())
        .label(format!(
            "plugin `{}` {}",
            planned.plugin.id,
            need.reason.trim_end_matches('.')
        ))
        .help(format!(
            "if it should, add to `{}` under `allow:`: {line}",
            stage.name.base()
        ))
}

/// A SQLite database is a file: granting its URL is no use without the directory it lies in.
fn check_sqlite_files(planned: &PlannedStage, granted: &StageGrant, problems: &mut Diagnostics) {
    for entry in granted.of(Capability::Sql) {
        let Pattern::Sql {
            host: None, database, ..
        } = &entry.pattern
        else {
            continue;
        };
        let directory = database
            .rsplit_once('/')
            .map_or(database.as_str(), |(directory, _)| directory);
        let needed = Pattern::Files {
            mode: Mode::ReadOnly,
            path: directory.to_string(),
        };
        let is_covered = granted.covering(Capability::Files, &needed).is_some();
        let known = |need: &Need| {
            need.capability == Capability::Files
                && need.pattern.as_ref().is_some_and(|known| known.covers(&needed))
        };
        if is_covered || planned.needs.iter().any(known) || directory.starts_with("/tmp") {
            continue;
        }
        let stage = &planned.stage;
        let wanted = Pattern::Files {
            mode: Mode::ReadWrite,
            path: directory.to_string(),
        };
        let message = format!(
            "stage `{}` needs `files` for `{wanted}`, where the database {} lies, and its `allow:` does not grant it",
            stage.name, entry.pattern
        );
        problems.push(
            Diagnostic::error("grant.denied", message)
                .at(stage.grants_span())
                .help(format!(
                    "if it should, add to `{}` under `allow:`: {} (`ro` where it only reads)",
                    stage.name.base(),
                    allow_line(Capability::Files, &wanted)
                )),
        );
    }
}
