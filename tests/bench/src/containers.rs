//! P9: what Windlass adds to the work of a container engine, beside the engine's API called directly and beside the `docker` command.
//!
//! Three ways to the same outcome, on the same engine. Each round takes them in turn, and the medians of all rounds are compared:
//!
//! | | Windlass, a stage | the raw API | the `docker` command |
//! | --- | --- | --- | --- |
//! | build | `build` | `/build` | `docker build` |
//! | build and push | `build` with `push-to` | `/build`, `/tag`, `/push`, and the registry's digest | `docker build`, `docker tag`, `docker push` |
//! | run | `migrate` with a command | create, start, wait, logs, remove | `docker run --rm` |
//!
//! A **stage** is the time from the end of one stage of a chain to the end of the next, in a durable run as `windlass run` makes
//! it. Nothing is taken off: the plugin's start, its questions to the engine before and after, and the journal's syncs are in it. The
//! connection and the loading of the plugin belong to the run and not to the stage, as a client's connection does not belong to a call.
//!
//! The **raw API** is bollard, as the host has it, with the requests that the outcome cannot do without and the same options. The
//! registry is asked what it holds, because without that nobody knows that a push has succeeded. Each request's stream is read to its
//! end.
//!
//! The **command** is started once a call, and has to take 30 ms longer than Windlass for each of its calls.
//!
//! What is built is small and cached, what is pushed is there already, and what runs does nothing: all that stays is the cost of asking.
//! Each of the three has an image of its own name with as many steps, so that none finds what another has made.

use crate::{
    docker,
    project::{Project, Ready, Result, Shape},
    statistics::{median, timed},
    table::{Quantity, Row, Wanted},
};
use bollard::{
    Docker, body_full,
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{
        BuildImageOptionsBuilder, CreateContainerOptions, LogsOptionsBuilder, PushImageOptionsBuilder,
        TagImageOptionsBuilder,
    },
};
use futures::{Stream, TryStreamExt};
use std::{
    collections::HashMap,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const ROUNDS: usize = 10;
/// Calls of each way in a round: a stage more than that, as the first one's end only starts the clock.
const CALLS: usize = 4;

/// Of everything that is made here.
const NAME: &str = "windlass-bench";
/// What the `build` plugin calls its labels: as many steps for all three.
const LABEL: (&str, &str) = ("windlass.pipeline", "bench");
const PROGRAM: [&str; 2] = ["/busybox", "true"];

/// How much longer the `docker` command has to take, for each of its calls.
const LONGER: Duration = Duration::from_millis(30);

/// What is asked of the engine.
struct Task<'a> {
    what: &'a str,
    /// One stage.
    body: String,
    raw: &'a dyn Fn() -> Result<()>,
    /// The calls of the `docker` command.
    commands: &'a [&'a [&'a str]],
}

pub(crate) fn all(project: &Project, rows: &mut Vec<Row>) -> Result<()> {
    let raw = Raw {
        docker: docker::api(project)?,
        project,
    };
    make_context(&project.root().join("context"))?;
    let registry = Registry::start(project.root())?;
    let _images = Images(&registry.address);
    let remote = format!("{}/{NAME}", registry.address);
    let context = project.root().join("context").display().to_string();
    let label = format!("{}={}", LABEL.0, LABEL.1);
    let tag = |name: &str| format!("{name}:docker");
    let (local_tag, remote_tag) = (tag(NAME), tag(&remote));
    let build = [
        "build", "--quiet", "--label", &label, "--tag", &local_tag, &context,
    ];
    let memory = TASK_MEMORY.to_string();
    let pids = TASK_PIDS.to_string();
    let run = [
        ["run", "--rm", "--network", "none", "--cap-drop", "ALL"].as_slice(),
        &["--security-opt", "no-new-privileges:true", "--pids-limit", &pids],
        &["--memory", &memory, "--cpus", "2", &local_tag],
        &PROGRAM,
    ]
    .concat();
    let tasks = [
        Task {
            what: "build an image, cached",
            body: build_stage(None),
            raw: &|| raw.build(),
            commands: &[&build],
        },
        Task {
            what: "build and push an image, cached",
            body: build_stage(Some(&registry.address)),
            raw: &|| raw.build().and_then(|()| raw.push(&remote)),
            commands: &[
                &build,
                &["tag", &local_tag, &remote_tag],
                &["push", "--quiet", &remote_tag],
            ],
        },
        Task {
            what: "run a container",
            body: format!(
                "    uses: migrate\n    \
                 with: {{ image: '{NAME}:windlass', command: {PROGRAM:?}, phase: expand, project: {NAME} }}\n    \
                 allow: {{ containers: {{ run: [{NAME}], manage: ['{NAME}/*'] }} }}\n"
            ),
            raw: &|| raw.run(),
            commands: &[&run],
        },
    ];
    tasks.iter().try_for_each(|task| task.measure(project, rows))
}

fn build_stage(registry: Option<&str>) -> String {
    let image = format!("{{ app: {{ context: context, repository: {NAME} }} }}");
    let (push_to, push) = match registry {
        Some(registry) => (
            format!(", push-to: '{registry}'"),
            format!(", push: ['{registry}/{NAME}']"),
        ),
        None => Default::default(),
    };
    format!(
        "    uses: build\n    with: {{ tag: windlass, images: {image}{push_to} }}\n    \
         allow: {{ files: {{ /workspace/context: ro }}, containers: {{ build: [{NAME}]{push} }} }}\n"
    )
}

impl Task<'_> {
    fn measure(&self, project: &Project, rows: &mut Vec<Row>) -> Result<()> {
        let ready = project.ready(&Shape {
            stages: CALLS + 1,
            is_chain: true,
            body: &self.body,
        })?;
        // Fills the engine's caches, the registry's, and ours.
        self.round(project, &ready)?;
        let (mut stages, mut raws, mut commands) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let [stage, raw, command] = self.round(project, &ready)?;
            stages.extend(stage);
            raws.extend(raw);
            commands.extend(command);
        }
        let [stage, raw, command] = [&stages, &raws, &commands].map(|samples| median(samples));
        rows.push(Row::ratio(
            "P9",
            self.what,
            Quantity::Time(stage),
            ("the raw API", Quantity::Time(raw)),
            Wanted::AtMost(1.03),
        ));
        let calls = u32::try_from(self.commands.len()).unwrap_or(u32::MAX);
        let longer = command.saturating_sub(stage) / calls;
        let all = Quantity::Time(command);
        rows.push(Row::ratio(
            "P9",
            format!("{}: `docker` ({all}) takes longer, a call", self.what),
            Quantity::Time(longer),
            ("the bound", Quantity::Time(LONGER)),
            Wanted::AtLeast(1.0),
        ));
        Ok(())
    }

    /// Windlass, the raw API, the command.
    fn round(&self, project: &Project, ready: &Ready) -> Result<[Vec<Duration>; 3]> {
        let stages = project.run(ready, 1, true)?.steps();
        let raw = || {
            let (time, done) = timed(self.raw);
            done.map(|()| time)
        };
        let command = || {
            let times = self.commands.iter().map(|call| docker::run(call));
            times.map(|done| done.map(|(time, _)| time)).sum()
        };
        Ok([
            stages,
            (0..CALLS).map(|_| raw()).collect::<Result<_>>()?,
            (0..CALLS).map(|_| command()).collect::<Result<_>>()?,
        ])
    }
}

/// As the host limits one-off containers.
const TASK_PIDS: i64 = 512;
const TASK_MEMORY: i64 = 1 << 30;
const TASK_NANO_CPUS: i64 = 2_000_000_000;

/// The engine's API, called as directly as it can be.
struct Raw<'a> {
    docker: Docker,
    project: &'a Project,
}

impl Raw<'_> {
    fn build(&self) -> Result<()> {
        let options = BuildImageOptionsBuilder::default()
            .t(&format!("{NAME}:raw"))
            .rm(true)
            .forcerm(true)
            .labels(&HashMap::from([LABEL]))
            .build();
        let context = packed(&self.project.root().join("context"))?;
        self.drain(
            self.docker
                .build_image(options, None, Some(body_full(context.into()))),
        )
    }

    fn push(&self, remote: &str) -> Result<()> {
        const TAG: &str = "raw";
        let tag = TagImageOptionsBuilder::default().repo(remote).tag(TAG).build();
        self.wait(self.docker.tag_image(&format!("{NAME}:{TAG}"), Some(tag)))?;
        let push = PushImageOptionsBuilder::default().tag(TAG).build();
        self.drain(self.docker.push_image(remote, Some(push), None))?;
        let pushed = format!("{remote}:{TAG}");
        self.wait(self.docker.inspect_registry_image(&pushed, None))
            .map(drop)
    }

    fn run(&self) -> Result<()> {
        let body = ContainerCreateBody {
            image: Some(format!("{NAME}:raw")),
            cmd: Some(PROGRAM.map(String::from).into()),
            host_config: Some(HostConfig {
                network_mode: Some("none".into()),
                security_opt: Some(vec!["no-new-privileges:true".into()]),
                cap_drop: Some(vec!["ALL".into()]),
                pids_limit: Some(TASK_PIDS),
                memory: Some(TASK_MEMORY),
                nano_cpus: Some(TASK_NANO_CPUS),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let made = self.docker.create_container(None::<CreateContainerOptions>, body);
        let id = self.wait(made)?.id;
        self.wait(self.docker.start_container(&id, None))?;
        // It fails where the container's status is not 0.
        self.drain(self.docker.wait_container(&id, None))?;
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
        self.drain(self.docker.logs(&id, Some(options)))?;
        self.wait(self.docker.remove_container(&id, None))
    }

    fn wait<T>(
        &self,
        call: impl Future<Output = std::result::Result<T, bollard::errors::Error>>,
    ) -> Result<T> {
        let answer = self.project.runtime.block_on(call);
        answer.map_err(|error| format!("the raw API: {error}"))
    }

    fn drain<T>(
        &self,
        answer: impl Stream<Item = std::result::Result<T, bollard::errors::Error>>,
    ) -> Result<()> {
        self.wait(answer.try_for_each(|_| std::future::ready(Ok(()))))
    }
}

/// Nothing but a static BusyBox.
fn make_context(directory: &Path) -> Result<()> {
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].map(Path::new);
    let busybox = busybox.iter().find(|path| path.is_file());
    let busybox = busybox.ok_or("needs busybox-static")?;
    let make = || {
        std::fs::create_dir_all(directory)?;
        std::fs::copy(busybox, directory.join("busybox"))?;
        std::fs::write(
            directory.join("Dockerfile"),
            "FROM scratch\nCOPY busybox /busybox\n",
        )
    };
    make().map_err(|error| format!("no context to build from: {error}"))
}

fn packed(directory: &Path) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    // As the host packs it: a new time would be a new layer.
    archive.mode(tar::HeaderMode::Deterministic);
    let packed = archive
        .append_dir_all("", directory)
        .and_then(|()| archive.into_inner());
    packed.map_err(|error| format!("the context cannot be packed: {error}"))
}

/// A registry on a loopback port, gone with this.
struct Registry {
    address: String,
    child: Child,
}

impl Registry {
    fn start(directory: &Path) -> Result<Self> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| error.to_string())?.to_string();
        let file = directory.join("registry.yaml");
        let configuration = format!(
            "version: 0.1\nlog: {{ level: error }}\nhttp: {{ addr: '{address}' }}\n\
             storage: {{ filesystem: {{ rootdirectory: '{}' }} }}\n",
            directory.join("registry").display()
        );
        std::fs::write(&file, configuration).map_err(|error| error.to_string())?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("needs docker-registry: {error}"))?;
        let registry = Self { address, child };
        let began = Instant::now();
        while TcpStream::connect(&registry.address).is_err() {
            if began.elapsed() > PATIENCE {
                return Err("docker-registry does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is left in the engine is removed with this.
struct Images<'a>(&'a str);

impl Drop for Images<'_> {
    fn drop(&mut self) {
        let tags = ["windlass", "raw", "docker"];
        let names = [NAME.to_string(), format!("{}/{NAME}", self.0)];
        let names: Vec<String> = names
            .iter()
            .flat_map(|name| tags.map(|tag| format!("{name}:{tag}")))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        // What was never made is not there to be removed.
        let _ = docker::run(&[&["image", "rm", "--force"], names.as_slice()].concat());
    }
}
