//! A specification, checked and hardened, as the engine's request. The boundary between a plugin and root on the engine's machine: nothing of
//! the request comes from the guest but the fields that are put into it here one by one.

use super::{
    Caller, client, names,
    names::Owner,
    spec::{ContainerSpec, Healthcheck, MountKind, MountSpec, Port},
};
use crate::{
    capability::{Capability, Leaves},
    failure::{Failure, Turn},
    pattern::image::Reference,
    pipeline::env_file,
};
use bollard::{
    body_full,
    models::{
        ContainerCreateBody, EndpointSettings, HealthConfig, HostConfig, HostConfigLogConfig, Mount,
        MountType, NetworkConnectRequest, NetworkingConfig, PortBinding, ResourcesUlimits, RestartPolicy,
        RestartPolicyNameEnum,
    },
    query_parameters::{
        CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, UploadToContainerOptionsBuilder,
    },
};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use zeroize::Zeroizing;

/// What entrypoints of the usual server images need before they drop to a user of their own (measured with those of PostgreSQL, Redis and nginx).
const SERVICE_CAPABILITIES: [&str; 7] = [
    "CHOWN",
    "SETUID",
    "SETGID",
    "DAC_OVERRIDE",
    "FOWNER",
    "KILL",
    "NET_BIND_SERVICE",
];
/// With these a process leaves its container: they are granted by nobody.
const NEVER: [&str; 9] = [
    "ALL",
    "SYS_ADMIN",
    "SYS_MODULE",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_BOOT",
    "DAC_READ_SEARCH",
    "MKNOD",
    "BPF",
];
const SERVICE_PIDS: i64 = 4096;
const TASK_PIDS: i64 = 512;
const TASK_MEMORY: i64 = 1 << 30;
const TASK_NANO_CPUS: i64 = 2_000_000_000;
/// An env file is read into memory.
const LARGEST_ENV_FILE: u64 = 1 << 20;

/// A container that may be made: every value checked, every path found.
pub(super) struct Checked {
    spec: ContainerSpec,
    /// Source on this machine, for bind mounts.
    sources: Vec<String>,
    /// NAME and value, secrets not yet swapped in `spec.environment`, of env files already read.
    env_files: Vec<(String, String)>,
}

impl Caller {
    /// Everything that can be said no to before the engine is asked.
    ///
    /// # Errors
    /// `container.spec`, `grant.denied`, `file.path`, `file.missing`.
    pub(super) fn check_spec(&self, spec: ContainerSpec) -> Result<Checked, Failure> {
        let owner = Owner::parse(&format!("{}/{}", spec.project, spec.service))?;
        names::check(&spec.container_name())?;
        names::check_labels(&spec.labels)?;
        // A task belongs to its stage: who may run its image may make it.
        if !spec.one_off {
            self.granter
                .check(Capability::ContainersManage, &owner.pattern())?;
        }
        let image = Reference::parse(&spec.image)
            .map_err(|problem| invalid(&format!("image `{}`: {problem}", spec.image)))?;
        self.granter
            .check(Capability::ContainersRun, &image.or_latest().pattern())?;
        for port in &spec.ports {
            self.check(Capability::ContainersPublish, &published(port), "container.spec")?;
        }
        check_capabilities(&spec.cap_add)?;
        let sources = spec.mounts.iter().map(|mount| self.source(mount));
        let sources = sources.collect::<Result<_, _>>()?;
        for file in &spec.secrets {
            check_secret_target(&file.target)?;
        }
        let mut env_files = Vec::new();
        for file in &spec.env_files {
            self.check(
                Capability::ContainersMount,
                &format!("{file}:ro"),
                "container.spec",
            )?;
            env_files.extend(self.env_file(file, &spec.variables)?);
        }
        Ok(Checked {
            spec,
            sources,
            env_files,
        })
    }

    /// Where a mount's content comes from, as the engine is told.
    fn source(&self, mount: &MountSpec) -> Result<String, Failure> {
        let target = &mount.target;
        if !target.starts_with('/') || target.contains(':') || target.split('/').any(|part| part == "..") {
            return Err(invalid(&format!(
                "the target `{target}` of a mount is no plain absolute path"
            )));
        }
        let mode = if mount.read_only { "ro" } else { "rw" };
        match mount.r#type {
            MountKind::Tmpfs => Ok(String::new()),
            // An anonymous volume is the container's own.
            MountKind::Volume if mount.source.is_empty() => Ok(String::new()),
            MountKind::Volume => {
                names::check(&mount.source)?;
                self.check(
                    Capability::ContainersMount,
                    &format!("{}:{mode}", mount.source),
                    "container.spec",
                )?;
                Ok(mount.source.clone())
            }
            MountKind::Bind => {
                self.check(
                    Capability::ContainersMount,
                    &format!("{}:{mode}", mount.source),
                    "container.spec",
                )?;
                let path = self.containers.roots.host_path(&mount.source)?;
                refuse_socket(&mount.source, &path)?;
                Ok(path.display().to_string())
            }
        }
    }

    fn env_file(
        &self,
        guest: &str,
        variables: &BTreeMap<String, String>,
    ) -> Result<Vec<(String, String)>, Failure> {
        let path = self.containers.roots.host_path(guest)?;
        let refused = |problem: String| {
            let message = format!("the env file `{guest}`: {problem}");
            Failure::new(Turn::PipelineAuthor, "container.env-file", message)
        };
        let metadata = std::fs::metadata(&path).map_err(|error| refused(error.to_string()))?;
        if metadata.len() > LARGEST_ENV_FILE {
            return Err(refused("it is larger than 1 MiB".into()));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| refused(error.to_string()))?;
        let outer = |name: &str| variables.get(name).cloned();
        let pairs = env_file::parse(&text, &outer);
        pairs.map_err(|lines| {
            let shown = lines
                .iter()
                .map(|line| format!("line {}: {}", line.line, line.message));
            refused(shown.collect::<Vec<_>>().join("; "))
        })
    }

    /// Makes the container, as an effect that its label shows.
    ///
    /// # Errors
    /// See the WIT.
    pub(super) async fn create(&self, spec: ContainerSpec) -> Result<Json, Failure> {
        let arguments = self.arguments(&spec)?;
        let checked = self.check_spec(spec)?;
        let caller = self.clone();
        let effect = |key: String| async move { caller.create_labelled(checked, key).await };
        self.effects
            .perform_labelled("containers.create", arguments, Leaves::State, effect)
            .await
    }

    fn arguments(&self, spec: &ContainerSpec) -> Result<Json, Failure> {
        let mut shown = spec.clone();
        shown.map_texts(&mut |text| Ok(self.describe(text)))?;
        Ok(json!({ "name": spec.container_name(), "spec": shown }))
    }

    async fn create_labelled(&self, checked: Checked, key: String) -> Result<Json, Failure> {
        let docker = self.docker().await?;
        let name = checked.spec.container_name();
        let body = self.body(&checked, key)?;
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let made = docker.create_container(Some(options), body).await;
        let id = made.map_err(|error| self.not_made(&checked.spec, &error))?.id;
        if let Err(failure) = self.complete(&checked, &id).await {
            // Half a container is none.
            let force = RemoveContainerOptionsBuilder::default()
                .force(true)
                .v(true)
                .build();
            let _ = docker.remove_container(&id, Some(force)).await;
            return Err(failure);
        }
        Ok(json!({ "id": id, "name": name }))
    }

    /// Further networks (engines before 25 take one with the request) and the secrets' files.
    async fn complete(&self, checked: &Checked, id: &str) -> Result<(), Failure> {
        let docker = self.docker().await?;
        for (network, endpoint) in checked.spec.networks.iter().skip(1) {
            let request = NetworkConnectRequest {
                container: id.into(),
                endpoint_config: Some(EndpointSettings {
                    aliases: Some(endpoint.aliases.clone()),
                    ..EndpointSettings::default()
                }),
            };
            let connected = docker.connect_network(network, request).await;
            connected
                .map_err(|error| self.failure(&format!("connect to the network `{network}`"), &error))?;
        }
        if checked.spec.secrets.is_empty() {
            return Ok(());
        }
        let archive = self.secret_files(&checked.spec)?;
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        let uploaded = docker
            .upload_to_container(id, Some(options), body_full(archive.into()))
            .await;
        uploaded.map_err(|error| self.failure("put the secrets' files into the container", &error))
    }

    fn secret_files(&self, spec: &ContainerSpec) -> Result<Vec<u8>, Failure> {
        let internal = |error: std::io::Error| {
            let message = format!("the secrets' files cannot be packed: {error}");
            Failure::new(Turn::Windlass, "internal.archive", message)
        };
        let mut archive = tar::Builder::new(Vec::new());
        let mut known_directories = std::collections::BTreeSet::new();
        for file in &spec.secrets {
            let inside = file.target.trim_start_matches('/');
            let parents = inside.match_indices('/').map(|(end, _)| &inside[..end]);
            // `/run` and its like are there; what is below them may not be.
            for parent in parents
                .skip(1)
                .filter(|parent| known_directories.insert(parent.to_string()))
            {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                header.set_size(0);
                archive
                    .append_data(&mut header, format!("{parent}/"), std::io::empty())
                    .map_err(internal)?;
            }
            let value = self.swap(&file.value)?;
            let mut header = tar::Header::new_gnu();
            header.set_mode(file.mode & 0o777);
            header.set_uid(file.uid);
            header.set_gid(file.gid);
            header.set_size(value.len() as u64);
            archive
                .append_data(&mut header, inside, value.as_bytes())
                .map_err(internal)?;
        }
        archive.into_inner().map_err(internal)
    }

    fn not_made(&self, spec: &ContainerSpec, error: &bollard::errors::Error) -> Failure {
        let name = spec.container_name();
        let doing = format!("make the container `{name}`");
        let failure = self.failure(&doing, error);
        let with = |turn, code: &str, message: String| Failure::new(turn, code, message);
        match client::status(error) {
            Some(404) if failure.message.to_lowercase().contains("image") => with(
                Turn::PipelineAuthor,
                "image.missing",
                format!("the engine has no image `{}`, which `{name}` needs", spec.image),
            )
            .help("build it or pull it in an earlier stage"),
            Some(409) => with(
                Turn::Environment,
                "container.exists",
                format!("there is a container `{name}` already"),
            ),
            _ => failure,
        }
    }

    /// What the engine is asked for, secrets and all.
    fn body(&self, checked: &Checked, key: String) -> Result<ContainerCreateBody, Failure> {
        let spec = &checked.spec;
        let mut labels: HashMap<String, String> = spec.labels.clone().into_iter().collect();
        labels.extend(names::maker(&self.context));
        labels.extend([
            (names::PROJECT.into(), spec.project.clone()),
            (names::SERVICE.into(), spec.service.clone()),
            (names::NUMBER.into(), spec.number.to_string()),
            (
                names::ONE_OFF.into(),
                if spec.one_off { "True" } else { "False" }.into(),
            ),
            (names::EFFECT.into(), key),
        ]);
        let words = |words: &Option<Vec<String>>| -> Result<Option<Vec<String>>, Failure> {
            let swapped = words
                .as_ref()
                .map(|words| words.iter().map(|word| self.plain(word)).collect());
            swapped.transpose()
        };
        let networks = spec.networks.iter().take(1).map(|(name, endpoint)| {
            let settings = EndpointSettings {
                aliases: Some(endpoint.aliases.clone()),
                ..EndpointSettings::default()
            };
            (name.clone(), settings)
        });
        let healthcheck = spec.healthcheck.as_ref().map(|check| self.health(check));
        Ok(ContainerCreateBody {
            image: Some(spec.image.clone()),
            cmd: words(&spec.command)?,
            entrypoint: words(&spec.entrypoint)?,
            env: Some(self.environment(checked)?),
            user: spec.user.clone(),
            working_dir: spec.working_dir.clone(),
            hostname: spec.hostname.clone(),
            labels: Some(labels),
            tty: Some(spec.tty),
            exposed_ports: Some(spec.ports.iter().map(target).collect()),
            healthcheck: healthcheck.transpose()?,
            stop_signal: spec.stop_signal.clone(),
            stop_timeout: spec
                .stop_grace_ms
                .map(|grace| i64::try_from(grace.div_ceil(1000)).unwrap_or(i64::MAX)),
            host_config: Some(host_config(checked)),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(networks.collect()),
            }),
            ..ContainerCreateBody::default()
        })
    }

    fn plain(&self, text: &str) -> Result<String, Failure> {
        self.swap(text).map(|swapped| swapped.to_string())
    }

    /// Env files first, `environment` over them.
    fn environment(&self, checked: &Checked) -> Result<Vec<String>, Failure> {
        let mut all: BTreeMap<&str, Zeroizing<String>> = BTreeMap::new();
        for (name, value) in &checked.env_files {
            all.insert(name, self.swap(value)?);
        }
        for (name, value) in &checked.spec.environment {
            all.insert(name, self.swap(value)?);
        }
        if let Some(name) = all
            .keys()
            .find(|name| name.is_empty() || name.contains(['=', '\0']))
        {
            return Err(invalid(&format!("{name:?} is no name of a variable")));
        }
        Ok(all
            .iter()
            .map(|(name, value)| format!("{name}={}", value.as_str()))
            .collect())
    }

    fn health(&self, check: &Healthcheck) -> Result<HealthConfig, Failure> {
        let nanoseconds =
            |milliseconds: Option<i64>| milliseconds.map(|value| value.saturating_mul(1_000_000));
        let test: Vec<String> = match check.disable {
            true => vec!["NONE".into()],
            false => check
                .test
                .iter()
                .map(|word| self.plain(word))
                .collect::<Result<_, _>>()?,
        };
        Ok(HealthConfig {
            test: (!test.is_empty()).then_some(test),
            interval: nanoseconds(check.interval_ms),
            timeout: nanoseconds(check.timeout_ms),
            start_period: nanoseconds(check.start_period_ms),
            retries: check.retries,
            start_interval: None,
        })
    }

    /// The digest over all that decides what the container is, and nothing that differs from run to run.
    ///
    /// # Errors
    /// As `create`, before the engine is asked.
    pub(super) fn fingerprint(&self, spec: ContainerSpec) -> Result<String, Failure> {
        let checked = self.check_spec(spec)?;
        let mut body = self.body(&checked, String::new())?;
        if let Some(labels) = &mut body.labels {
            labels.retain(|name, _| checked.spec.labels.contains_key(name));
        }
        // By way of a value, whose maps are sorted.
        let body = serde_json::to_value(&body).map_err(|error| {
            let message = format!("the container's request cannot be written: {error}");
            Failure::new(Turn::Windlass, "internal.request", message)
        })?;
        let mut digest = Sha256::new();
        digest.update(sorted(body).to_string());
        for (network, endpoint) in checked.spec.networks.iter().skip(1) {
            digest.update(json!([network, endpoint]).to_string());
        }
        for file in &checked.spec.secrets {
            digest.update(json!([file.target, file.uid, file.gid, file.mode]).to_string());
            digest.update(Sha256::digest(self.swap(&file.value)?.as_bytes()));
        }
        Ok(hex::encode(digest.finalize()))
    }
}

/// With the keys of every object in order: the library's maps have none.
fn sorted(value: Json) -> Json {
    match value {
        Json::Object(entries) => {
            let entries: BTreeMap<String, Json> = entries
                .into_iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            Json::Object(entries.into_iter().collect())
        }
        Json::Array(items) => Json::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

fn host_config(checked: &Checked) -> HostConfig {
    let spec = &checked.spec;
    let nano_cpus = spec.cpus.map(|cpus| (cpus * 1e9) as i64);
    let task = |limit: i64| spec.one_off.then_some(limit);
    let base: &[&str] = if spec.one_off { &[] } else { &SERVICE_CAPABILITIES };
    let dropped = |name: &&str| {
        !spec
            .cap_drop
            .iter()
            .any(|drop| plain_capability(drop) == *name || drop == "ALL")
    };
    let kept = base.iter().copied().filter(dropped).map(String::from);
    let added = spec.cap_add.iter().map(|name| plain_capability(name));
    let mut cap_add: Vec<String> = kept.chain(added).collect();
    cap_add.sort();
    cap_add.dedup();
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &spec.ports {
        let binding = PortBinding {
            host_ip: Some(port.host_ip.clone()),
            host_port: Some(port.published.map_or_else(String::new, |port| port.to_string())),
        };
        let list = bindings.entry(target(port)).or_default();
        list.get_or_insert_default().push(binding);
    }
    let ulimits = spec.ulimits.iter().map(|(name, limit)| ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    });
    let mounts = spec.mounts.iter().zip(&checked.sources);
    HostConfig {
        network_mode: Some(
            spec.networks
                .keys()
                .next()
                .cloned()
                .unwrap_or_else(|| "none".into()),
        ),
        privileged: Some(false),
        security_opt: Some(vec!["no-new-privileges:true".into()]),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(cap_add),
        pids_limit: Some(
            spec.pids
                .unwrap_or(if spec.one_off { TASK_PIDS } else { SERVICE_PIDS }),
        ),
        memory: spec.memory.or(task(TASK_MEMORY)),
        nano_cpus: nano_cpus.or(task(TASK_NANO_CPUS)),
        shm_size: spec.shm_size,
        readonly_rootfs: Some(spec.read_only),
        init: spec.init,
        ulimits: Some(ulimits.collect()),
        sysctls: Some(spec.sysctls.clone().into_iter().collect()),
        extra_hosts: Some(spec.extra_hosts.clone()),
        dns: Some(spec.dns.clone()),
        mounts: Some(
            mounts
                .map(|(mount, source)| engine_mount(mount, source))
                .collect(),
        ),
        port_bindings: Some(bindings),
        restart_policy: Some(restart(spec.restart.as_deref())),
        log_config: spec.logging.as_ref().map(|logging| HostConfigLogConfig {
            typ: Some(logging.driver.clone().unwrap_or_else(|| "json-file".into())),
            config: Some(logging.options.clone().into_iter().collect()),
        }),
        ..HostConfig::default()
    }
}

fn engine_mount(mount: &MountSpec, source: &str) -> Mount {
    let typ = match mount.r#type {
        MountKind::Volume => MountType::VOLUME,
        MountKind::Bind => MountType::BIND,
        MountKind::Tmpfs => MountType::TMPFS,
    };
    Mount {
        target: Some(mount.target.clone()),
        source: (!source.is_empty()).then(|| source.to_string()),
        typ: Some(typ),
        read_only: Some(mount.read_only),
        ..Mount::default()
    }
}

fn restart(policy: Option<&str>) -> RestartPolicy {
    let (name, count) = match policy.unwrap_or("no").split_once(':') {
        Some((name, count)) => (name, count.parse().ok()),
        None => (policy.unwrap_or("no"), None),
    };
    let name = match name {
        "always" => RestartPolicyNameEnum::ALWAYS,
        "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
        "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
        _ => RestartPolicyNameEnum::NO,
    };
    RestartPolicy {
        name: Some(name),
        maximum_retry_count: count,
    }
}

/// `8000/tcp`.
fn target(port: &Port) -> String {
    format!("{}/{}", port.target, port.protocol)
}

/// As a grant of `containers.publish` has it.
fn published(port: &Port) -> String {
    let number = port
        .published
        .map_or_else(|| "*".to_string(), |port| port.to_string());
    let protocol = if port.protocol == "tcp" {
        String::new()
    } else {
        format!("/{}", port.protocol)
    };
    match port.host_ip.contains(':') && !port.host_ip.starts_with('[') {
        true => format!("[{}]:{number}{protocol}", port.host_ip),
        false => format!("{}:{number}{protocol}", port.host_ip),
    }
}

fn plain_capability(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("CAP_").unwrap_or(&name).to_string()
}

fn check_capabilities(names: &[String]) -> Result<(), Failure> {
    let found = names
        .iter()
        .map(|name| plain_capability(name))
        .find(|name| NEVER.contains(&name.as_str()));
    match found {
        None => Ok(()),
        Some(name) => {
            let message = format!(
                "`cap_add: {name}` would let the container's processes out of it, and is never given"
            );
            Err(Failure::new(Turn::PipelineAuthor, "container.privilege", message)
                .help("remove it; what really needs it has to be started outside of Windlass"))
        }
    }
}

fn check_secret_target(target: &str) -> Result<(), Failure> {
    let is_plain = target.starts_with('/')
        && !target.ends_with('/')
        && !target
            .split('/')
            .skip(1)
            .any(|part| part.is_empty() || part == "." || part == "..");
    match is_plain {
        true => Ok(()),
        false => Err(invalid(&format!(
            "the target `{target}` of a secret is no plain absolute path"
        ))),
    }
}

/// A container with the engine's socket is root on the machine; so it is with a directory that holds one.
fn refuse_socket(guest: &str, path: &std::path::Path) -> Result<(), Failure> {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let known = ["/var/run", "/run", "/", "/proc", "/sys", "/dev", "/etc"];
    if is_socket
        || known
            .iter()
            .any(|directory| path == std::path::Path::new(directory))
    {
        let message = format!(
            "`{guest}` leads to {}, which no container is given",
            path.display()
        );
        return Err(Failure::new(Turn::PipelineAuthor, "container.privilege", message));
    }
    Ok(())
}

pub(super) fn invalid(problem: &str) -> Failure {
    Failure::new(Turn::Plugin, "container.spec", problem)
}
