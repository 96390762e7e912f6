//! One entry of `stages` to its [`Stage`]s: one, or one for every cell of its matrix.

use super::{
    expression::{Template, TemplateKind},
    fields::{Fields, list, wrong},
    grants,
    keys::{APPROVAL, DEFAULTS, RETRY_KEYS, STAGE},
    matrix::{self, Cell},
    model::{Approval, Grant, PluginReference, Retry, Rollback, SecretSource, Stage},
    node::{Entry, Kind, Node},
    problems::{Problems, quoted},
    reading::{Place, Reading, Uses},
};
use crate::{capability::Capability, name::StageName, pattern::Pattern, source::Span};
use std::{path::PathBuf, time::Duration};

/// What stages use that do not say otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Defaults {
    timeout: Duration,
    retry: Retry,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            // Long enough for a build, short enough to be noticed on the same day.
            timeout: Duration::from_secs(600),
            retry: Retry {
                attempts: 1,
                backoff: Duration::from_secs(2),
                maximum_backoff: Duration::from_secs(60),
                on: Vec::new(),
            },
        }
    }
}

/// A stage, and what it waits for by the names of the file.
pub(crate) struct ReadStage {
    pub(crate) stage: Stage,
    pub(crate) needs: Vec<(String, Span)>,
}

const ROLLBACKS: &[(&str, Rollback)] = &[
    ("auto", Rollback::Auto),
    ("manual", Rollback::Manual),
    ("never", Rollback::Never),
];

/// `defaults`.
pub(crate) fn defaults(node: Option<Node>, problems: &mut Problems) -> Defaults {
    let mut defaults = Defaults::default();
    let Some(mut fields) = node.and_then(|node| Fields::read(node, "`defaults`", DEFAULTS, problems)) else {
        return defaults;
    };
    if let Some(timeout) = fields.duration("timeout", problems) {
        defaults.timeout = timeout;
    }
    defaults.retry = retry(fields.take("retry"), &defaults.retry, problems);
    defaults
}

/// The stages of one entry, in the order of their cells.
pub(crate) fn read(
    entry: Entry,
    defaults: &Defaults,
    secret_files: &[String],
    reading: &mut Reading<'_>,
) -> Vec<ReadStage> {
    let Entry { key, key_span, value } = entry;
    let name = match StageName::new(&key) {
        Ok(name) => name,
        Err(error) => {
            reading
                .problems
                .error("pipeline.name", &key_span, error.to_string());
            return Vec::new();
        }
    };
    let Some(mut fields) = Fields::read(value, &format!("the stage `{name}`"), STAGE, reading.problems)
    else {
        return Vec::new();
    };
    let cells = matrix::cells(fields.take("matrix"), reading);
    let parts = Parts::read(name, key_span, &mut fields, cells.first(), defaults, reading);
    let cells = cells.into_iter();
    cells
        .filter_map(|cell| parts.cell(cell, secret_files, reading))
        .collect()
}

/// The stage before its matrix is applied.
struct Parts {
    name: StageName,
    span: Span,
    description: Option<String>,
    uses: Option<Node>,
    allow: Option<Entry>,
    needs: Vec<Node>,
    with: Template,
    with_span: Option<Span>,
    condition: Option<Template>,
    timeout: Duration,
    retry: Retry,
    rollback: Rollback,
    point_of_no_return: bool,
    approval: Option<Approval>,
    used: Uses,
}

impl Parts {
    fn read(
        name: StageName,
        span: Span,
        fields: &mut Fields,
        cell: Option<&Cell>,
        defaults: &Defaults,
        reading: &mut Reading<'_>,
    ) -> Self {
        let empty = Cell::new();
        let cell = cell.unwrap_or(&empty);
        let mut used = Uses::default();
        let (with, with_span) = with(fields.take("with"), &span, reading);
        reading.check(&with, Place::With, cell, &mut used);
        let condition = fields.take("if").map(|node| condition(node, reading));
        if let Some(TemplateKind::Expression(expression)) = condition.as_ref().map(Template::kind) {
            reading.check_expression(expression, cell, &mut used);
        }
        let problems = &mut *reading.problems;
        Self {
            description: fields.text("description", problems).map(|(text, _)| text),
            uses: fields.take("uses"),
            allow: fields.take_entry("allow"),
            needs: fields
                .take("needs")
                .map(|node| list(node, "`needs`", problems))
                .unwrap_or_default(),
            timeout: fields.duration("timeout", problems).unwrap_or(defaults.timeout),
            retry: retry(fields.take("retry"), &defaults.retry, problems),
            rollback: fields
                .choice("rollback", ROLLBACKS, problems)
                .unwrap_or(Rollback::Auto),
            point_of_no_return: fields.boolean("point-of-no-return", problems).unwrap_or(false),
            approval: approval(fields.take("approval"), problems),
            name,
            span,
            with,
            with_span,
            condition,
            used,
        }
    }

    fn cell(&self, cell: Cell, secret_files: &[String], reading: &mut Reading<'_>) -> Option<ReadStage> {
        let allow = match &self.allow {
            Some(entry) => grants::grants(&entry.value, &cell, reading),
            None => Vec::new(),
        };
        grants::refuse_secret_files(&allow, secret_files, reading);
        let needs = self.needs(&cell, &allow, reading);
        let uses = self.uses.as_ref()?;
        let name = match cell.is_empty() {
            true => self.name.clone(),
            false => self.name.cell(
                cell.iter()
                    .map(|(key, value)| (key.as_str(), matrix::shown(value))),
            ),
        };
        let reference = reading.constant_text(uses, "`uses`", "uses", &cell);
        let condition = self
            .condition
            .as_ref()
            .and_then(|condition| match condition.kind() {
                TemplateKind::Expression(expression) => Some(expression.clone()),
                _ => None,
            });
        let stage = Stage {
            name,
            description: self.description.clone(),
            matrix: cell,
            needs: Vec::new(),
            uses: plugin(&reference?, &uses.span, reading.problems)?,
            condition,
            with: self.with.clone(),
            allow,
            timeout: self.timeout,
            retry: self.retry.clone(),
            rollback: self.rollback,
            point_of_no_return: self.point_of_no_return,
            approval: self.approval.clone(),
            span: self.span.clone(),
            uses_span: uses.span.clone(),
            allow_span: self.allow.as_ref().map(|entry| {
                Span::new(
                    &entry.key_span.file,
                    entry.key_span.range().start..entry.value.span.range().end,
                )
            }),
            with_span: self.with_span.clone(),
        };
        Some(ReadStage { stage, needs })
    }

    /// `needs`, the stages whose outputs are used, and those that put the secrets that are used or granted.
    fn needs(&self, cell: &Cell, allow: &[Grant], reading: &mut Reading<'_>) -> Vec<(String, Span)> {
        let mut needs = Vec::new();
        for node in &self.needs {
            if let Some(name) = reading.constant_text(node, "an element of `needs`", "needs", cell) {
                needs.push((name, node.span.clone()));
            }
        }
        let known = |name: &str| reading.stages.contains(name);
        needs.extend(self.used.stages.iter().filter(|(name, _)| known(name)).cloned());
        needs.extend(
            self.used
                .secrets
                .iter()
                .filter_map(|(name, span)| putter(name, span, reading)),
        );
        // A stage may be granted what it puts itself; to wait for itself for that would be a circle.
        let granted = allow
            .iter()
            .filter_map(|grant| match (grant.capability, &grant.pattern) {
                (Capability::SecretsUse | Capability::SecretsReveal, Pattern::Name(name)) => {
                    putter(name, &grant.span, reading)
                }
                _ => None,
            });
        needs.extend(granted.filter(|(stage, _)| stage != self.name.as_str()));
        needs
    }
}

/// The stage that puts a secret of the run, where one does.
fn putter(secret: &str, span: &Span, reading: &Reading<'_>) -> Option<(String, Span)> {
    match &reading.secrets.get(secret)?.from {
        SecretSource::Stage { stage, .. } if reading.stages.contains(stage.as_str()) => {
            Some((stage.to_string(), span.clone()))
        }
        _ => None,
    }
}

fn with(node: Option<Node>, stage: &Span, reading: &mut Reading<'_>) -> (Template, Option<Span>) {
    let empty = |span| Template::new(TemplateKind::Map(Vec::new()), span);
    match node {
        None => (
            empty(Span::new(&stage.file, stage.range().end..stage.range().end)),
            None,
        ),
        Some(node) => {
            let span = node.span.clone();
            let template = match node.kind {
                Kind::Map(_) => reading.template(node),
                Kind::Null => empty(span.clone()),
                _ => {
                    wrong::<()>(&node, "`with`", "a map", reading.problems);
                    empty(span.clone())
                }
            };
            (template, Some(span))
        }
    }
}

fn condition(node: Node, reading: &mut Reading<'_>) -> Template {
    let node = match node.kind {
        Kind::Bool(value) => Node::new(Kind::Text(format!("${{{{ {value} }}}}")), node.span),
        _ => node,
    };
    let before = reading.problems.count();
    let template = reading.template(node);
    if !matches!(template.kind(), TemplateKind::Expression(_)) && before == reading.problems.count() {
        reading.problems.error_with_help(
            "pipeline.expression",
            template.span(),
            "`if` must be one whole expression",
            "write `if: \"${{ vars.version != 'latest' }}\"`",
        );
    }
    template
}

fn approval(node: Option<Node>, problems: &mut Problems) -> Option<Approval> {
    let mut fields = Fields::read(node?, "`approval`", APPROVAL, problems)?;
    let timeout = fields.duration("timeout", problems);
    let default = fields.choice("default", &[("approve", true), ("reject", false)], problems);
    let (question, _) = fields.text("ask", problems)?;
    Some(Approval {
        question,
        timeout,
        approve_by_default: default.unwrap_or(false),
    })
}

fn retry(node: Option<Node>, defaults: &Retry, problems: &mut Problems) -> Retry {
    /// More attempts than this are not patience but a loop.
    const MAXIMUM: u32 = 100;
    let mut retry = defaults.clone();
    let Some(mut fields) = node.and_then(|node| Fields::read(node, "`retry`", RETRY_KEYS, problems)) else {
        return retry;
    };
    retry.attempts = fields
        .integer("attempts", 1..=MAXIMUM, problems)
        .unwrap_or(retry.attempts);
    retry.backoff = fields.duration("backoff", problems).unwrap_or(retry.backoff);
    retry.maximum_backoff = fields
        .duration("max-backoff", problems)
        .unwrap_or(retry.maximum_backoff);
    let codes = fields.texts("on", problems);
    if !codes.is_empty() {
        retry.on = Vec::with_capacity(codes.len());
        for (code, span) in codes {
            let part =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
            if code.is_empty() || !code.bytes().all(part) {
                let message = format!("{} is not a code of a failure", quoted(&code));
                problems.error_with_help(
                    "pipeline.retry",
                    &span,
                    message,
                    "codes look like upstream.timeout; upstream stands for all below it",
                );
            }
            retry.on.push(code);
        }
    }
    retry
}

fn plugin(reference: &str, span: &Span, problems: &mut Problems) -> Option<PluginReference> {
    let word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    if let Some(oci) = reference.strip_prefix("oci://").filter(|rest| rest.contains('/')) {
        return Some(PluginReference::Oci(oci.to_string()));
    }
    if reference.starts_with("./") || reference.starts_with("../") || reference.starts_with('/') {
        return Some(PluginReference::File(PathBuf::from(reference)));
    }
    if word(reference) {
        return Some(PluginReference::BuiltIn(reference.to_string()));
    }
    let message = format!("{} is not a plugin", quoted(reference));
    let help = if reference.ends_with(".wasm") {
        format!("a file starts with `./`: ./{reference}")
    } else {
        "it can be a built-in plugin's name, ./file.wasm, or oci://registry/repository:tag".to_string()
    };
    problems.error_with_help("pipeline.uses", span, message, help);
    None
}
