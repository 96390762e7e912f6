//! `windlass:containers/images`: builds, tags, pulls and pushes. An error inside of a stream that began well is an error, and a push has succeeded
//! when the registry, asked afterwards, has what was pushed.

use super::{Caller, caller, client, context::BuildContext, names, spec};
use crate::{
    capability::{Capability, Leaves},
    event::LogLevel,
    failure::{Failure, Turn},
    pattern::image::Reference,
    service::{State, secret::has_placeholder},
    wit::{GuestError, windlass::containers::images},
};
use bollard::{
    auth::DockerCredentials,
    body_try_stream,
    errors::Error,
    query_parameters::{
        BuildImageOptionsBuilder, CreateImageOptionsBuilder, PushImageOptionsBuilder,
        RemoveImageOptionsBuilder, TagImageOptionsBuilder,
    },
};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};
use wasmtime::component::{HasSelf, Linker};

/// What of a build's output goes into the message of its failure.
const LAST_LINES: usize = 30;
/// Builds and transfers answer in a stream: between two pieces, not from start to end.
const SILENCE: Duration = Duration::from_secs(600);

/// See `build` in the WIT.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct BuildSpec {
    context: String,
    #[serde(default = "dockerfile")]
    dockerfile: String,
    tags: Vec<String>,
    #[serde(default)]
    args: BTreeMap<String, String>,
    target: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    no_cache: bool,
    #[serde(default)]
    pull: bool,
    network: Option<String>,
    platform: Option<String>,
    #[serde(default)]
    cache_from: Vec<String>,
    #[serde(default)]
    extra_hosts: Vec<String>,
}

fn dockerfile() -> String {
    "Dockerfile".into()
}

/// See `pull` and `push` in the WIT.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Transfer {
    username: Option<String>,
    password: Option<String>,
    platform: Option<String>,
    missing_only: bool,
}

impl Caller {
    fn image(&self, capability: Capability, text: &str) -> Result<Reference, Failure> {
        let reference = reference(text)?;
        self.granter.check(capability, &reference.pattern())?;
        Ok(reference)
    }

    async fn build(&self, build: BuildSpec) -> Result<Json, Failure> {
        let tags = build
            .tags
            .iter()
            .map(|tag| self.image(Capability::ContainersBuild, tag));
        let tags: Vec<Reference> = tags.collect::<Result<_, _>>()?;
        if tags.is_empty() {
            return Err(options("a build needs a tag"));
        }
        if let Some(name) = build
            .args
            .iter()
            .find(|(_, value)| has_placeholder(value))
            .map(|(name, _)| name)
        {
            let message = format!(
                "the build argument `{name}` holds a secret, and build arguments stay readable in the image's history"
            );
            return Err(Failure::new(Turn::PipelineAuthor, "image.secret", message)
                .help("give it to the container when it runs, or fetch what it opens in an earlier stage"));
        }
        names::check_labels(&build.labels)?;
        let context = self.context_of(&build)?;
        let arguments = json!({ "spec": build });
        let caller = self.clone();
        let effect = || async move { caller.build_now(&build, context, &tags).await };
        self.effects
            .perform("containers.build", arguments, Leaves::Additive, effect)
            .await
    }

    fn context_of(&self, build: &BuildSpec) -> Result<BuildContext, Failure> {
        self.check(Capability::Files, &format!("ro {}", build.context), "file.path")?;
        let roots = &self.containers.roots;
        let root = roots.host_path(&build.context)?;
        let dockerfile = plain_join(&build.context, &build.dockerfile);
        self.check(Capability::Files, &format!("ro {dockerfile}"), "file.path")?;
        BuildContext::open(&root, &roots.host_path(&dockerfile)?, &build.context)
    }

    async fn build_now(
        &self,
        build: &BuildSpec,
        context: BuildContext,
        tags: &[Reference],
    ) -> Result<Json, Failure> {
        let [first, others @ ..] = tags else {
            return Err(options("a build needs a tag"));
        };
        let plain =
            |map: &BTreeMap<String, String>| map.clone().into_iter().collect::<HashMap<String, String>>();
        let mut labels = plain(&build.labels);
        labels.extend(names::maker(&self.context));
        let mut query = BuildImageOptionsBuilder::default()
            .dockerfile(&context.dockerfile)
            .t(&first.to_string())
            .nocache(build.no_cache)
            .rm(true)
            .forcerm(true)
            .buildargs(&plain(&build.args))
            .labels(&stable(labels));
        if build.pull {
            query = query.pull("true");
        }
        if let Some(target) = &build.target {
            query = query.target(target);
        }
        if let Some(network) = &build.network {
            query = query.networkmode(network);
        }
        if let Some(platform) = &build.platform {
            query = query.platform(platform);
        }
        if !build.cache_from.is_empty() {
            query = query.cachefrom(&build.cache_from);
        }
        if !build.extra_hosts.is_empty() {
            query = query.extrahosts(&build.extra_hosts.join(","));
        }
        let pieces = futures::stream::unfold(context.stream(), |mut pieces| async {
            pieces.recv().await.map(|piece| (piece, pieces))
        });
        self.remove_steps().await;
        let docker = self.docker().await?.clone().with_timeout(SILENCE);
        let engine = &self.containers.engine;
        let mut steps = self.containers.steps.begin(engine.host())?;
        let mut stream =
            std::pin::pin!(docker.build_image(query.build(), None, Some(body_try_stream(pieces))));
        let mut last = Lines::default();
        while let Some(step) = self.patiently(stream.next()).await? {
            match step {
                Ok(step) => {
                    let text = step.stream.or(step.status).unwrap_or_default();
                    for line in last.push(&text) {
                        steps.hear(&line)?;
                        self.log.write(LogLevel::Info, &line, &[]).await;
                    }
                }
                Err(Error::DockerStreamError { error }) => {
                    steps.end();
                    return Err(self.build_failed(first, &error, &last));
                }
                Err(error) => return Err(self.failure(&format!("build `{first}`"), &error)),
            }
        }
        steps.end();
        for tag in others {
            self.tag_now(&first.to_string(), tag).await?;
        }
        let Some(image) = self.look(&first.to_string()).await? else {
            let message = format!("the engine has built `{first}` and does not have it");
            return Err(Failure::new(Turn::Environment, "image.build", message));
        };
        let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
        Ok(json!({ "id": image["id"], "tags": tags, "size": image["size"] }))
    }

    fn build_failed(&self, tag: &Reference, error: &str, last: &Lines) -> Failure {
        let words = self.words();
        let message = format!("`{tag}` cannot be built: {}", words.text(error.trim(), 4 << 10));
        let log: Vec<String> = last.0.iter().map(|line| words.line(line, 1 << 10)).collect();
        Failure::new(Turn::PipelineAuthor, "image.build", message).details(json!({ "log": log.join("\n") }))
    }

    /// Until it has come, unless the stage is over first.
    async fn patiently<T>(&self, coming: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            failure = self.patience.ended() => Err(failure),
            came = coming => Ok(came),
        }
    }

    /// A name to give an image: one that may be built, or pushed.
    fn tagged(&self, text: &str) -> Result<Reference, Failure> {
        let target = reference(text)?;
        let may_push = self
            .granter
            .grant()
            .covering(Capability::ContainersPush, &target.pattern());
        let capability = match may_push {
            Some(_) => Capability::ContainersPush,
            None => Capability::ContainersBuild,
        };
        self.granter.check(capability, &target.pattern())?;
        Ok(target)
    }

    async fn tag(&self, source: &str, target: &str) -> Result<(), Failure> {
        let source = reference(source)?;
        let target = self.tagged(target)?;
        let arguments = json!({ "source": source.to_string(), "target": target.to_string() });
        let caller = self.clone();
        let effect = || async move {
            caller
                .tag_now(&source.to_string(), &target)
                .await
                .map(|()| Json::Null)
        };
        self.effects
            .perform("containers.tag", arguments, Leaves::Additive, effect)
            .await
            .map(drop)
    }

    async fn tag_now(&self, source: &str, target: &Reference) -> Result<(), Failure> {
        let tag = target.tag.clone().unwrap_or_else(|| "latest".into());
        let query = TagImageOptionsBuilder::default()
            .repo(&target.name)
            .tag(&tag)
            .build();
        let tagged = self.docker().await?.tag_image(source, Some(query)).await;
        tagged.map_err(|error| match client::status(&error) {
            Some(404) => missing(source),
            _ => self.failure(&format!("tag `{source}` as `{target}`"), &error),
        })
    }

    pub(super) async fn pull(&self, text: &str, transfer: Transfer) -> Result<Json, Failure> {
        let reference = self.image(Capability::ContainersPull, text)?;
        if transfer.missing_only
            && let Some(found) = self.look(&reference.to_string()).await?
        {
            return Ok(found);
        }
        let credentials = self.credentials(&transfer)?;
        let arguments = json!({ "image": reference.to_string() });
        let caller = self.clone();
        let effect = || async move {
            let mut query = CreateImageOptionsBuilder::default().from_image(&reference.to_string());
            if let Some(platform) = &transfer.platform {
                query = query.platform(platform);
            }
            let docker = caller.docker().await?.clone().with_timeout(SILENCE);
            let mut stream = std::pin::pin!(docker.create_image(Some(query.build()), None, credentials));
            while let Some(step) = caller.patiently(stream.next()).await? {
                step.map_err(|error| caller.refused("pull", &reference, &error))?;
            }
            caller
                .look(&reference.to_string())
                .await?
                .ok_or_else(|| missing(&reference.to_string()))
        };
        self.effects
            .perform("containers.pull", arguments, Leaves::Additive, effect)
            .await
    }

    pub(super) async fn push(&self, text: &str, transfer: Transfer) -> Result<Json, Failure> {
        let reference = self.image(Capability::ContainersPush, text)?;
        let credentials = self.credentials(&transfer)?;
        let Some(local) = self.look(&reference.to_string()).await? else {
            return Err(missing(&reference.to_string()));
        };
        let arguments = json!({ "image": reference.to_string(), "id": local["id"] });
        let caller = self.clone();
        let effect = || async move { caller.push_now(&reference, credentials).await };
        self.effects
            .perform("containers.push", arguments, Leaves::Additive, effect)
            .await
    }

    async fn push_now(
        &self,
        reference: &Reference,
        credentials: Option<DockerCredentials>,
    ) -> Result<Json, Failure> {
        let tag = reference.tag.clone().unwrap_or_else(|| "latest".into());
        let query = PushImageOptionsBuilder::default().tag(&tag).build();
        let docker = self.docker().await?.clone().with_timeout(SILENCE);
        let mut pushed = None;
        let mut stream = std::pin::pin!(docker.push_image(&reference.name, Some(query), credentials.clone()));
        while let Some(step) = self.patiently(stream.next()).await? {
            let step = step.map_err(|error| self.refused("push", reference, &error))?;
            let status = step.status.unwrap_or_default();
            // The engine's last word: `1.0: digest: sha256:… size: 1234`.
            pushed = digest_in(&status).or(pushed);
        }
        // The end of the stream proves nothing: the registry does.
        let answer = docker
            .inspect_registry_image(&reference.to_string(), credentials)
            .await;
        let answer = answer.map_err(|error| self.refused("push", reference, &error))?;
        let held = answer.descriptor.digest.unwrap_or_default();
        let Some(pushed) = pushed else {
            let message = format!("the engine ended the push of `{reference}` without a digest");
            return Err(Failure::new(Turn::Environment, "image.push", message).retryable());
        };
        if held != pushed {
            let message = format!("the registry holds {held} under `{reference}`, and {pushed} was pushed");
            return Err(Failure::new(Turn::Environment, "registry.digest", message)
                .help("somebody else pushed the same tag, or the registry is not what it seems: look before you go on"));
        }
        let digested = format!("{}@{pushed}", reference.name);
        Ok(json!({ "digest": pushed, "reference": digested, "size": answer.descriptor.size }))
    }

    fn credentials(&self, transfer: &Transfer) -> Result<Option<DockerCredentials>, Failure> {
        let (Some(username), Some(password)) = (&transfer.username, &transfer.password) else {
            return Ok(None);
        };
        Ok(Some(DockerCredentials {
            username: Some(self.swap(username)?.to_string()),
            password: Some(self.swap(password)?.to_string()),
            ..DockerCredentials::default()
        }))
    }

    /// What the registry's no means; engines say it in words only.
    fn refused(&self, verb: &str, reference: &Reference, error: &Error) -> Failure {
        let failure = self.failure(&format!("{verb} `{reference}`"), error);
        if failure.is_unreachable() {
            return failure;
        }
        let words = failure.message.to_lowercase();
        let has = |any: &[&str]| any.iter().any(|word| words.contains(word));
        let registry = reference.registry().unwrap_or("the default registry").to_string();
        if has(&["unauthorized", "authentication required", "denied", "forbidden"]) {
            return Failure::new(Turn::Operator, "registry.denied", failure.message).help(format!(
                "give the stage a user and password of {registry} that may {verb}"
            ));
        }
        if has(&["not found", "manifest unknown", "name unknown", "no such image"]) {
            return Failure::new(Turn::PipelineAuthor, "image.missing", failure.message);
        }
        if has(&[
            "dial tcp",
            "connection refused",
            "no such host",
            "timeout",
            "i/o timeout",
            "eof",
            "500",
            "502",
            "503",
            "504",
            "server error",
            "unexpected http",
        ]) {
            return Failure::new(Turn::Environment, "registry.unreachable", failure.message).retryable();
        }
        failure
    }

    async fn look(&self, reference: &str) -> Result<Option<Json>, Failure> {
        let image = match self.docker().await?.inspect_image(reference).await {
            Ok(image) => image,
            Err(error) if client::status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(self.failure(&format!("look at the image `{reference}`"), &error)),
        };
        let config = image.config.unwrap_or_default();
        Ok(Some(json!({
            "id": image.id, "tags": image.repo_tags.unwrap_or_default(), "digests": image.repo_digests.unwrap_or_default(),
            "size": image.size.unwrap_or_default(), "created": image.created.unwrap_or_default(), "labels": config.labels.unwrap_or_default(),
            "architecture": image.architecture.unwrap_or_default(), "os": image.os.unwrap_or_default(), "user": config.user.unwrap_or_default(),
            "healthcheck": config.healthcheck.and_then(|check| check.test).unwrap_or_default(),
        })))
    }

    async fn inspect_image(&self, text: &str) -> Result<Option<Json>, Failure> {
        use Capability::{ContainersBuild, ContainersPull, ContainersPush, ContainersRun};
        let reference = reference(text)?;
        let pattern = reference.pattern();
        let any = [ContainersBuild, ContainersPush, ContainersPull, ContainersRun];
        let covering =
            |capability: &Capability| self.granter.grant().covering(*capability, &pattern).is_some();
        let capability = any.into_iter().find(covering).unwrap_or(ContainersRun);
        self.granter.check(capability, &pattern)?;
        self.look(&reference.to_string()).await
    }

    async fn remove_image(&self, text: &str) -> Result<Json, Failure> {
        let reference = self.image(Capability::ContainersBuild, text)?;
        if self.look(&reference.to_string()).await?.is_none() {
            return Ok(Json::Bool(false));
        }
        let arguments = json!({ "image": reference.to_string() });
        let caller = self.clone();
        let effect = || async move {
            let query = RemoveImageOptionsBuilder::default().force(false).build();
            let removed = caller
                .docker()
                .await?
                .remove_image(&reference.to_string(), Some(query), None)
                .await;
            match removed {
                Ok(_) => Ok(Json::Bool(true)),
                // Gone already, or used.
                Err(error) if matches!(client::status(&error), Some(404 | 409)) => Ok(Json::Bool(false)),
                Err(error) => Err(caller.failure(&format!("remove the image `{reference}`"), &error)),
            }
        };
        self.effects
            .perform("containers.remove-image", arguments, Leaves::State, effect)
            .await
    }
}

/// Whole lines of what comes in pieces, and the last of them.
#[derive(Default)]
struct Lines(VecDeque<String>);

impl Lines {
    fn push(&mut self, text: &str) -> Vec<String> {
        let lines: Vec<String> = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .map(String::from)
            .collect();
        self.0.extend(lines.iter().cloned());
        let surplus = self.0.len().saturating_sub(LAST_LINES);
        self.0.drain(..surplus);
        lines
    }
}

/// Run and stage change with every run, and a label that changes makes the cache useless: only the pipeline's name stays.
fn stable(mut labels: HashMap<String, String>) -> HashMap<String, String> {
    labels.retain(|name, _| name != "windlass.run" && name != "windlass.stage");
    labels
}

fn digest_in(status: &str) -> Option<String> {
    let (_, rest) = status.split_once("digest: ")?;
    let digest = rest.split_whitespace().next()?;
    digest.starts_with("sha256:").then(|| digest.to_string())
}

/// `context/../x` without going through the file system: what is granted is a name.
fn plain_join(context: &str, path: &str) -> String {
    let mut parts: Vec<&str> = context.split('/').filter(|part| !part.is_empty()).collect();
    if path.starts_with('/') {
        parts.clear();
    }
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn reference(text: &str) -> Result<Reference, Failure> {
    let reference = Reference::parse(text).map_err(|problem| {
        Failure::new(
            Turn::Plugin,
            "image.reference",
            format!("`{text}` is no reference of an image: {problem}"),
        )
    })?;
    match text.contains('*') {
        true => Err(Failure::new(
            Turn::Plugin,
            "image.reference",
            format!("`{text}` is a pattern and no reference"),
        )),
        false => Ok(reference.or_latest()),
    }
}

fn options(problem: &str) -> Failure {
    Failure::new(Turn::Plugin, "image.options", problem)
}

fn missing(reference: &str) -> Failure {
    let message = format!("there is no image `{reference}`");
    Failure::new(Turn::PipelineAuthor, "image.missing", message)
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    images::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

type Answer<T> = wasmtime::Result<Result<T, GuestError>>;

fn answer(result: Result<Json, Failure>) -> Answer<String> {
    Ok(result.map(|json| json.to_string()).map_err(GuestError::from))
}

impl images::Host for State {
    async fn build(&mut self, spec: String) -> Answer<String> {
        let caller = caller!(self);
        answer(
            match spec::parse("the specification of the build", "image.options", &spec) {
                Ok(spec) => caller.build(spec).await,
                Err(failure) => Err(failure),
            },
        )
    }

    async fn tag(&mut self, source: String, target: String) -> Answer<()> {
        Ok(caller!(self)
            .tag(&source, &target)
            .await
            .map_err(GuestError::from))
    }

    async fn pull(&mut self, reference: String, options: String) -> Answer<String> {
        let caller = caller!(self);
        answer(
            match spec::parse("the options of `pull`", "image.options", &options) {
                Ok(transfer) => caller.pull(&reference, transfer).await,
                Err(failure) => Err(failure),
            },
        )
    }

    async fn push(&mut self, reference: String, options: String) -> Answer<String> {
        let caller = caller!(self);
        answer(
            match spec::parse("the options of `push`", "image.options", &options) {
                Ok(transfer) => caller.push(&reference, transfer).await,
                Err(failure) => Err(failure),
            },
        )
    }

    async fn inspect(&mut self, reference: String) -> Answer<Option<String>> {
        let found = caller!(self).inspect_image(&reference).await;
        Ok(found
            .map(|found| found.map(|json| json.to_string()))
            .map_err(GuestError::from))
    }

    async fn remove(&mut self, reference: String) -> Answer<bool> {
        let removed = caller!(self).remove_image(&reference).await;
        Ok(removed
            .map(|removed| removed == Json::Bool(true))
            .map_err(GuestError::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_engines() {
        assert_eq!(
            digest_in("1.0: digest: sha256:ab size: 12").as_deref(),
            Some("sha256:ab")
        );
        assert_eq!(digest_in("Pushed"), None);
        assert_eq!(
            plain_join("/workspace/backend", "../infra/Dockerfile.prod"),
            "/workspace/infra/Dockerfile.prod"
        );
        assert_eq!(
            plain_join("/workspace/backend", "./Dockerfile"),
            "/workspace/backend/Dockerfile"
        );
        assert_eq!(plain_join("/workspace", "../../etc/passwd"), "/etc/passwd");
    }

    #[test]
    fn the_last_lines_are_kept() {
        let mut lines = Lines::default();
        for number in 0..100 {
            lines.push(&format!("line {number}\n\n"));
        }
        assert_eq!(lines.0.len(), LAST_LINES);
        assert_eq!(lines.0.back().map(String::as_str), Some("line 99"));
    }
}
