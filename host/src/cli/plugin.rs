//! `windlass plugin list|inspect`: what plugins are and ask for. Reads components and executes nothing.

use super::{
    Result,
    arguments::{Format, PluginArguments, PluginCommand, ProjectArguments},
    exit_code::ExitCode,
    load::describe,
    print::Printer,
    project::Project,
};
use crate::{
    catalog::{
        self, Descriptor,
        request::{Origin, Pointer, RequestRow, Segment},
    },
    pipeline::model::PluginReference,
};
use serde_json::{Value as Json, json};
use std::fmt::Write;

pub(super) fn plugin(
    project: &ProjectArguments,
    command: &PluginArguments,
    printer: &Printer,
) -> Result<ExitCode> {
    let project = Project::find(project, printer)?;
    match &command.command {
        PluginCommand::List { format } => list(&project, *format, printer),
        PluginCommand::Inspect { plugin, format } => inspect(&project, plugin, *format, printer),
    }
}

fn list(project: &Project, format: Format, printer: &Printer) -> Result<ExitCode> {
    let mut shown = Vec::new();
    for name in catalog::locate::built_in() {
        match describe(project, &PluginReference::BuiltIn(name.to_string())) {
            Ok((_, descriptor)) => shown.push(descriptor),
            Err(failure) => return printer.stop(&failure),
        }
    }
    match format {
        Format::Json => printer.data(&format!("{:#}", Json::Array(shown.iter().map(to_json).collect()))),
        Format::Text => {
            let line = |one: &Descriptor| {
                format!(
                    "{:<14} {:<8} {}",
                    one.id,
                    one.version,
                    first_sentence(&one.description)
                )
            };
            printer.data(&shown.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
    }
    Ok(ExitCode::SUCCEEDED)
}

fn inspect(project: &Project, plugin: &str, format: Format, printer: &Printer) -> Result<ExitCode> {
    let is_file = plugin.contains(['/', '.']);
    let reference = match is_file {
        true => PluginReference::File(project.open_path(plugin.as_ref())),
        false => PluginReference::BuiltIn(plugin.to_string()),
    };
    match describe(project, &reference) {
        Ok((_, descriptor)) => {
            match format {
                Format::Json => printer.data(&format!("{:#}", to_json(&descriptor))),
                Format::Text => printer.data(&to_text(&descriptor)),
            }
            Ok(ExitCode::SUCCEEDED)
        }
        Err(failure) => printer.stop(&failure),
    }
}

/// The shape of `plugin inspect --format json`.
fn to_json(plugin: &Descriptor) -> Json {
    let requests = plugin
        .requests
        .iter()
        .map(|row| json!({ "capability": row.capability, "scope": scope(row), "reason": row.reason }));
    json!({
        "id": plugin.id,
        "version": plugin.version,
        "abi": plugin.abi,
        "digest": plugin.digest.to_string(),
        "size": plugin.size,
        "requests": requests.collect::<Vec<_>>(),
        "imports": plugin.imports.iter().map(|name| json!({ "name": name, "state": state(plugin, name) })).collect::<Vec<_>>(),
        "exports": plugin.exports,
        "schema": plugin.schema,
        "findings": findings(plugin),
    })
}

/// `request`: there is a row for it. `inert`: WASI, whose power comes from grants only, and what every plugin has. `undeclared`: it will be refused.
fn state(plugin: &Descriptor, import: &str) -> &'static str {
    let name = import.split('@').next().unwrap_or(import);
    if plugin.undeclared().any(|undeclared| undeclared == import) {
        "undeclared"
    } else if plugin.requested_interfaces().any(|requested| requested == name) {
        "request"
    } else {
        "inert"
    }
}

fn findings(plugin: &Descriptor) -> Vec<Json> {
    let risky = plugin.requests.iter().filter_map(|row| {
        let risk = row.capability.row().risk?;
        Some(json!({ "id": format!("risk.{}", row.capability), "severity": "warning", "message": risk }))
    });
    let undeclared = plugin.undeclared().map(|import| {
        json!({ "id": "import.undeclared", "severity": "error", "message": format!("imports {import} without a request") })
    });
    let mut findings: Vec<Json> = undeclared.chain(risky).collect();
    findings.dedup();
    findings
}

/// Where a row's values come from, for a person.
fn scope(row: &RequestRow) -> String {
    let from = match &row.from {
        Origin::Constant(text) => format!("\"{text}\""),
        Origin::Pointer(pointer) => format!("{} of with.{}", row.part.name(), shown(pointer)),
    };
    let list = |word: &str, pointers: &[Pointer]| match pointers {
        [] => String::new(),
        pointers => format!(
            ", {word} {}",
            pointers.iter().map(shown).collect::<Vec<_>>().join(" and ")
        ),
    };
    format!("{from}{}{}", list("when", &row.when), list("unless", &row.unless))
}

fn shown(pointer: &Pointer) -> String {
    let segment = |segment: &Segment| match segment {
        Segment::Every => "*".to_string(),
        Segment::Key(key) => key.clone(),
    };
    pointer.0.iter().map(segment).collect::<Vec<_>>().join(".")
}

/// A page of documentation, generated from the metadata.
fn to_text(plugin: &Descriptor) -> String {
    let mut page = String::new();
    let mut line = |text: String| writeln!(page, "{}", text.trim_end()).expect("a String takes all");
    line(format!("{} {}  (ABI {})", plugin.id, plugin.version, plugin.abi));
    line(format!("{}  {} bytes", plugin.digest, plugin.size));
    line(String::new());
    line(plugin.description.clone());
    line(String::new());
    line("It asks for".into());
    for row in &plugin.requests {
        let risk = row
            .capability
            .row()
            .risk
            .map(|risk| format!("  ! {risk}"))
            .unwrap_or_default();
        line(format!("  {:<16} {}{risk}", row.capability.name(), scope(row)));
        line(format!("  {:<16} {}", "", row.reason));
    }
    if plugin.requests.is_empty() {
        line("  nothing".into());
    }
    line(String::new());
    line("with:".into());
    properties(&plugin.schema, 1, &mut line);
    line(String::new());
    line("Outputs".into());
    properties(&plugin.outputs, 1, &mut line);
    line(String::new());
    line("Imports".into());
    for import in &plugin.imports {
        line(format!("  {:<10} {import}", state(plugin, import)));
    }
    page
}

/// The keys of an object schema with their types, defaults and descriptions, as deep as plain properties go.
fn properties(schema: &Json, depth: usize, line: &mut impl FnMut(String)) {
    /// Deeper than this a page is no help any more.
    const DEEPEST: usize = 6;
    if depth > DEEPEST {
        return;
    }
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect();
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        describe_property(key, property, required.contains(&key.as_str()), depth, line);
    }
    if schema["additionalProperties"].is_object() {
        describe_property("NAME", &schema["additionalProperties"], false, depth, line);
    }
    for one in schema["oneOf"].as_array().into_iter().flatten() {
        properties(one, depth, line);
    }
}

fn describe_property(
    key: &str,
    property: &Json,
    required: bool,
    depth: usize,
    line: &mut impl FnMut(String),
) {
    let mut notes = vec![property["type"].as_str().unwrap_or("any of several").to_string()];
    notes.extend(required.then(|| "required".to_string()));
    notes.extend(
        property
            .get("default")
            .map(|default| format!("default {default}")),
    );
    notes.extend((property["x-windlass-secret"] == true).then(|| "may be a secret".to_string()));
    let indent = "  ".repeat(depth);
    line(format!("{indent}{key}  ({})", notes.join(", ")));
    if let Some(description) = property["description"].as_str() {
        line(format!("{indent}    {description}"));
    }
    properties(property, depth + 1, line);
    if property["items"].is_object() {
        properties(&property["items"], depth + 1, line);
    }
}

fn first_sentence(text: &str) -> &str {
    text.split_inclusive(". ").next().unwrap_or(text).trim_end()
}
