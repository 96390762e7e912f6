//! A plan as text for people and as JSON for programs.

use super::{Plan, PlannedStage};
use crate::value::SecretText;
use serde_json::{Value as Json, json};
use std::fmt::Write;

/// What a planner said a stage would do, by the stage's number. Empty where the plugin has none.
pub type Effects = std::collections::BTreeMap<usize, Vec<Json>>;

/// The shape of `plan --format json`.
pub fn to_json(plan: &Plan, effects: &Effects) -> Json {
    let stages = plan.stages.iter().enumerate().map(|(number, stage)| {
        let mut shown = stage_json(stage);
        shown["effects"] = Json::Array(effects.get(&number).cloned().unwrap_or_default());
        shown
    });
    json!({ "pipeline": plan.pipeline.name, "digest": plan.digest(), "stages": stages.collect::<Vec<_>>() })
}

/// What the digest covers: everything that is decided before the run.
pub fn canonical(plan: &Plan) -> Json {
    let stages = plan.stages.iter().map(|stage| {
        let mut shown = stage_json(stage);
        shown["with"] = stage.with.to_json(&mut secret_names);
        shown["timeout-ms"] = json!(stage.stage.timeout.as_millis() as u64);
        shown["attempts"] = json!(stage.stage.retry.attempts);
        shown["rollback"] = json!(format!("{:?}", stage.stage.rollback).to_lowercase());
        shown["point-of-no-return"] = json!(stage.stage.point_of_no_return);
        let allowed = stage.stage.allow.iter();
        shown["allow"] = allowed
            .map(|grant| json!([grant.capability, grant.pattern.to_string()]))
            .collect();
        shown
    });
    json!({ "pipeline": plan.pipeline.name, "finally-from": plan.finally_from, "stages": stages.collect::<Vec<_>>() })
}

fn stage_json(planned: &PlannedStage) -> Json {
    let capabilities = planned.needs.iter().filter(|need| !need.is_free()).map(|need| {
        let value = need.pattern.as_ref().map(ToString::to_string);
        json!({ "capability": need.capability, "value": value, "reason": need.reason })
    });
    json!({
        "name": planned.stage.name,
        "needs": planned.stage.needs,
        "plugin": { "name": planned.plugin.id, "digest": planned.plugin.digest.to_string() },
        "capabilities": capabilities.collect::<Vec<_>>(),
    })
}

fn secret_names(text: &SecretText) -> String {
    let mut names = Vec::new();
    text.for_each(&mut |name, field| {
        names.push(field.map_or(name.to_string(), |field| format!("{name}.{field}")))
    });
    format!("<secret {}>", names.join(", "))
}

/// The plan for a person.
pub fn to_text(plan: &Plan, effects: &Effects) -> String {
    let mut text = String::new();
    let line = |text: &mut String, content: std::fmt::Arguments<'_>| {
        writeln!(text, "{content}").expect("a String takes all")
    };
    line(
        &mut text,
        format_args!("pipeline {}  {}", plan.pipeline.name, plan.digest()),
    );
    for (number, planned) in plan.stages.iter().enumerate() {
        if number == plan.finally_from {
            line(&mut text, format_args!("finally"));
        }
        let short: String = planned.plugin.digest.to_string().chars().take(19).collect();
        let after = match planned.stage.needs.as_slice() {
            [] => String::new(),
            needs => format!(
                "  after {}",
                needs
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        };
        line(
            &mut text,
            format_args!("  {}  {} {short}{after}", planned.stage.name, planned.plugin.id),
        );
        if planned.stage.condition.is_some() {
            line(&mut text, format_args!("    if a condition holds"));
        }
        for need in planned.needs.iter().filter(|need| !need.is_free()) {
            let value = need
                .pattern
                .as_ref()
                .map_or("(known while running)".to_string(), ToString::to_string);
            let risk = need
                .capability
                .row()
                .risk
                .map(|risk| format!("  ! {risk}"))
                .unwrap_or_default();
            line(
                &mut text,
                format_args!("    may   {:<16} {value}{risk}", need.capability.name()),
            );
        }
        for effect in effects.get(&number).into_iter().flatten() {
            let part = |key: &str| effect.get(key).and_then(Json::as_str).unwrap_or_default();
            line(
                &mut text,
                format_args!(
                    "    would {:<16} {}  {}",
                    part("action"),
                    part("target"),
                    part("summary")
                ),
            );
        }
        if planned.with.has_unknown() {
            line(
                &mut text,
                format_args!("    (some values come from earlier stages)"),
            );
        }
    }
    text
}
