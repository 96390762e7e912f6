//! Builds the plan: order, `with:` as far as it is known, needs. All problems of the whole file at once.

use super::{
    needs::{self, Need},
    with::{Places, Schema},
};
use crate::{
    capability::Capability,
    catalog::Descriptor,
    diagnostic::{Diagnostic, Diagnostics},
    name::{SecretName, StageName},
    pattern::Pattern,
    pipeline::{
        Pipeline,
        expression::RunScope,
        model::{PluginReference, Rollback, SecretSource, Stage},
    },
    schedule::Shape,
    source::Span,
    value::Value,
};
use indexmap::IndexMap;
use sha2::{Digest, Sha256};
use std::{collections::HashMap, sync::Arc};

/// What will happen. Immutable.
pub struct Plan {
    pub pipeline: Arc<Pipeline>,
    /// All stages, those of `finally` last; within each part in the order of the file.
    pub stages: Vec<PlannedStage>,
    /// Where `finally` begins in `stages`.
    pub finally_from: usize,
    schemas: HashMap<String, Arc<Schema>>,
}

/// One stage with everything that is known before it runs.
pub struct PlannedStage {
    pub stage: Stage,
    pub plugin: Arc<Descriptor>,
    /// With the schema's defaults; parts that depend on earlier stages are unknown.
    pub with: Arc<Value>,
    pub needs: Vec<Need>,
    /// Numbers of the stages it needs.
    pub after: Vec<usize>,
}

/// Checks every stage against its plugin and computes what it needs.
///
/// # Errors
/// All problems of all stages.
pub fn build(
    pipeline: Arc<Pipeline>,
    plugins: &IndexMap<PluginReference, Arc<Descriptor>>,
) -> Result<(Plan, Diagnostics), Diagnostics> {
    let mut problems = Diagnostics::new();
    let schemas = compile_schemas(plugins, &mut problems);
    let numbers: HashMap<&StageName, usize> = pipeline
        .stages
        .iter()
        .chain(&pipeline.finally)
        .enumerate()
        .map(|(number, stage)| (&stage.name, number))
        .collect();
    let mut stages = Vec::with_capacity(numbers.len());
    for stage in pipeline.stages.iter().chain(&pipeline.finally) {
        // Whoever calls has reported plugins that could not be read.
        let Some(plugin) = plugins.get(&stage.uses) else {
            continue;
        };
        let Some(schema) = schemas.get(&plugin.digest.to_string()) else {
            continue;
        };
        let after = stage
            .needs
            .iter()
            .filter_map(|name| numbers.get(name).copied())
            .collect();
        if let Some((with, needs)) = plan_stage(&pipeline, stage, plugin, schema, &mut problems) {
            stages.push(PlannedStage {
                stage: stage.clone(),
                plugin: plugin.clone(),
                with: Arc::new(with),
                needs,
                after,
            });
        }
    }
    let finally_from = pipeline.stages.len();
    problems.into_result(Plan {
        pipeline,
        stages,
        finally_from,
        schemas,
    })
}

fn compile_schemas(
    plugins: &IndexMap<PluginReference, Arc<Descriptor>>,
    problems: &mut Diagnostics,
) -> HashMap<String, Arc<Schema>> {
    let mut schemas = HashMap::new();
    for plugin in plugins.values() {
        match Schema::new(&plugin.schema) {
            Ok(schema) => {
                schemas.insert(plugin.digest.to_string(), Arc::new(schema));
            }
            Err(problem) => {
                let message = format!(
                    "the schema of plugin `{}` is not a JSON Schema: {problem}",
                    plugin.id
                );
                problems.push(
                    Diagnostic::error("plugin.schema", message).help("its author has to mend plugin.json"),
                );
            }
        }
    }
    schemas
}

fn plan_stage(
    pipeline: &Pipeline,
    stage: &Stage,
    plugin: &Descriptor,
    schema: &Schema,
    problems: &mut Diagnostics,
) -> Option<(Value, Vec<Need>)> {
    let mut with = match stage
        .with
        .evaluate(&pipeline.scope(stage, RunScope::default(), None))
    {
        Ok(with) => with,
        Err(errors) => {
            for (span, message) in errors {
                problems.push(Diagnostic::error("expression.failed", message).at(&span));
            }
            return None;
        }
    };
    schema.fill_defaults(&mut with);
    problems.append(schema.check(&plugin.id, &with, &InFile(stage)));
    for (pointer, name) in needs::unrequested_secrets(&plugin.requests, &with) {
        if schema.takes_secret(&pointer) {
            let message = format!(
                "plugin `{}` requests no secret for `with.{}`, so stage `{}` cannot give it `{name}`",
                plugin.id,
                pointer.join("."),
                stage.name
            );
            problems.push(
                Diagnostic::error("grant.unrequested-secret", message)
                    .at(&InFile(stage).value_span(&pointer)),
            );
        }
    }
    let (needs, unfit) = needs::of(&plugin.requests, &with);
    for one in unfit {
        let message = format!(
            "`with.{}` of stage `{}`: {}",
            one.pointer.join("."),
            stage.name,
            one.message
        );
        problems.push(Diagnostic::error("with.invalid", message).at(&InFile(stage).value_span(&one.pointer)));
    }
    Some((with, needs))
}

/// Places in the file; what a default filled in is where `with` is, or the stage.
pub(crate) struct InFile<'a>(pub(crate) &'a Stage);

impl Places for InFile<'_> {
    fn value_span(&self, pointer: &[String]) -> Span {
        let block = || self.0.with_span.clone().unwrap_or_else(|| self.0.span.clone());
        if pointer.is_empty() {
            block()
        } else {
            self.0.with.span_at(pointer).unwrap_or_else(block)
        }
    }

    fn key_span(&self, pointer: &[String]) -> Span {
        self.0
            .with
            .key_span_at(pointer)
            .unwrap_or_else(|| self.value_span(pointer))
    }
}

impl Plan {
    /// What the schedule needs to know.
    pub fn shape(&self, jobs: usize) -> Shape {
        Shape {
            needs: self.stages.iter().map(|stage| stage.after.clone()).collect(),
            finally_from: self.finally_from,
            compensable: self.stages.iter().map(PlannedStage::is_compensable).collect(),
            undoable: self.stages.iter().map(PlannedStage::is_undoable).collect(),
            secrets_of: self.stages.iter().map(|stage| self.providers(stage)).collect(),
            point_of_no_return: self
                .stages
                .iter()
                .map(|stage| stage.stage.point_of_no_return)
                .collect(),
            jobs,
        }
    }

    /// The stages that put secrets which this one may use.
    fn providers(&self, planned: &PlannedStage) -> Vec<usize> {
        let names = planned
            .needs
            .iter()
            .filter_map(|need| match (&need.capability, &need.pattern) {
                (Capability::SecretsUse | Capability::SecretsReveal, Some(Pattern::Name(name))) => {
                    SecretName::new(name).ok()
                }
                _ => None,
            });
        let sources = names.filter_map(|name| match &self.pipeline.secrets.get(&name)?.from {
            SecretSource::Stage { stage, .. } => Some(stage.clone()),
            _ => None,
        });
        let sources: Vec<StageName> = sources.collect();
        if sources.is_empty() {
            return Vec::new();
        }
        let is_one = |stage: &PlannedStage| {
            sources
                .iter()
                .any(|source| source.as_str() == stage.stage.name.base())
        };
        (0..self.stages.len())
            .filter(|number| is_one(&self.stages[*number]))
            .collect()
    }

    /// The compiled schema of a stage's plugin.
    pub fn schema(&self, stage: usize) -> Option<&Schema> {
        self.schemas
            .get(&self.stages.get(stage)?.plugin.digest.to_string())
            .map(Arc::as_ref)
    }

    pub fn digest(&self) -> String {
        format!(
            "sha256:{}",
            hex::encode(Sha256::digest(super::render::canonical(self).to_string()))
        )
    }
}

impl PlannedStage {
    /// Whether the plugin undoes this stage when the run fails.
    pub fn is_compensable(&self) -> bool {
        self.stage.rollback == Rollback::Auto && self.plugin.has_compensator
    }

    /// Whether the plugin undoes this stage when a person asks for it.
    pub fn is_undoable(&self) -> bool {
        self.stage.rollback != Rollback::Never && self.plugin.has_compensator
    }
}
