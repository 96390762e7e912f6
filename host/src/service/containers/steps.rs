//! The containers that a build's steps run in. The engine makes them itself, without a label of ours, and removes them itself; only when it dies in the
//! middle of a step one stays. Each build writes down which one it is in, in a file that it keeps locked: a file that nobody has locked tells the next
//! build what to remove.

use super::{Caller, Containers, client};
use crate::{artifact::storage_failed, failure::Failure, support::fs::private_directory};
use bollard::{
    models::{ContainerInspectResponse, ContainerStateStatusEnum},
    query_parameters::RemoveContainerOptionsBuilder,
};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

/// How the engine says that a step has begun, in a line of its own.
const BEGUN: &str = "---> Running in ";
/// Of the ids in such lines: the first half of a container's id, or all of it.
const ID_LENGTHS: std::ops::RangeInclusive<usize> = 12..=64;

/// Where builds write down what they are in.
#[derive(Clone)]
pub struct Steps {
    directory: PathBuf,
}

/// A build that goes on. Its file stays where it was dropped before its end.
pub(super) struct Build {
    file: File,
    path: PathBuf,
}

/// A build that was cut off, by this Windlass or another.
struct CutOff {
    path: PathBuf,
    /// What its last step ran in, if there was one.
    container: Option<String>,
    _locked: File,
}

impl Steps {
    /// In a state directory.
    pub fn new(state: &Path) -> Self {
        Self {
            directory: state.join("builds"),
        }
    }

    /// For a build that begins on the engine at an address.
    pub(super) fn begin(&self, engine: &str) -> Result<Build, Failure> {
        private_directory(&self.directory)?;
        let failed = |error: io::Error| storage_failed("a build cannot be written down", &error);
        let (path, mut file) = (0..)
            .find_map(|number| {
                let path = self.directory.join(format!("{}-{number}", std::process::id()));
                match File::create_new(&path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                    made => Some(made.map(|file| (path, file))),
                }
            })
            .unwrap_or_else(|| Err(io::ErrorKind::AlreadyExists.into()))
            .map_err(failed)?;
        // Somebody who looks for files that nobody has locked may have it for a moment.
        file.lock()
            .and_then(|()| writeln!(file, "{engine}"))
            .map_err(failed)?;
        Ok(Build { file, path })
    }

    /// What was cut off on the engine at an address. A file that cannot be read is left.
    fn cut_off(&self, engine: &str) -> Vec<CutOff> {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return Vec::new();
        };
        let read = |path: PathBuf| {
            let mut file = File::open(&path).ok()?;
            file.try_lock().ok()?;
            let mut text = String::new();
            file.read_to_string(&mut text).ok()?;
            let mut lines = text.lines();
            (lines.next() == Some(engine)).then_some(())?;
            Some(CutOff {
                path,
                container: lines.next_back().filter(|id| is_id(id)).map(String::from),
                _locked: file,
            })
        };
        let found = entries.flatten().filter_map(|entry| read(entry.path()));
        found.collect()
    }
}

impl Build {
    /// Takes in a line of what the engine says.
    pub(super) fn hear(&mut self, line: &str) -> Result<(), Failure> {
        let Some(id) = line.trim().strip_prefix(BEGUN).filter(|id| is_id(id)) else {
            return Ok(());
        };
        writeln!(self.file, "{id}").map_err(|error| storage_failed("a build cannot be written down", &error))
    }

    /// The engine has ended it, well or not, and tidied up.
    pub(super) fn end(self) {
        // What stays names a container that is gone.
        let _ = fs::remove_file(&self.path);
    }
}

impl Caller {
    /// Removes what builds that were cut off have left. The engine may be asked again by the next build: nothing fails here.
    pub(super) async fn remove_steps(&self) {
        let Containers { engine, steps, .. } = &self.containers;
        for build in steps.cut_off(engine.host()) {
            let is_gone = match &build.container {
                None => true,
                Some(container) => self.remove_step(container).await.unwrap_or(false),
            };
            if is_gone {
                let _ = fs::remove_file(&build.path);
            }
        }
    }

    /// Whether there is nothing more to do for it.
    async fn remove_step(&self, container: &str) -> Result<bool, Failure> {
        let docker = self.docker().await?;
        let found = match docker.inspect_container(container, None).await {
            Ok(found) => found,
            Err(error) if client::status(&error) == Some(404) => return Ok(true),
            Err(error) => return Err(self.failure("look for the container of a build's step", &error)),
        };
        // A step may print whatever it likes, the name of somebody's container too.
        if !may_be_a_step(&found) {
            return Ok(true);
        }
        let force = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        match docker.remove_container(container, Some(force)).await {
            Ok(()) => Ok(true),
            Err(error) if client::status(&error) == Some(404) => Ok(true),
            Err(error) => Err(self.failure("remove the container of a build's step", &error)),
        }
    }
}

/// Nobody's service, and at rest.
fn may_be_a_step(found: &ContainerInspectResponse) -> bool {
    let config = found.config.as_ref();
    let labels = config.and_then(|config| config.labels.as_ref());
    let is_labelled = labels.into_iter().flatten().any(|(name, _)| {
        let made_by = ["windlass.run", "com.docker.compose."];
        made_by.iter().any(|word| name.starts_with(word))
    });
    let status = found.state.as_ref().and_then(|state| state.status);
    let rests = matches!(
        status,
        Some(
            ContainerStateStatusEnum::EXITED
                | ContainerStateStatusEnum::CREATED
                | ContainerStateStatusEnum::DEAD
        )
    );
    let host = found.host_config.as_ref();
    let is_published = host.and_then(|host| host.port_bindings.as_ref());
    let is_bound = host.and_then(|host| host.binds.as_ref());
    rests
        && !is_labelled
        && is_published.is_none_or(|ports| ports.is_empty())
        && is_bound.is_none_or(|binds| binds.is_empty())
}

fn is_id(text: &str) -> bool {
    ID_LENGTHS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789ab";

    #[test]
    fn a_build_that_was_cut_off_is_found_with_its_last_step() {
        let directory = tempfile::tempdir().expect("temporary");
        let steps = Steps::new(directory.path());
        let found = |engine: &str| {
            let found = steps.cut_off(engine).into_iter();
            found.map(|build| build.container).collect::<Vec<_>>()
        };
        let mut first = steps.begin("unix:///a").expect("begins");
        for line in [
            "Step 2/3 : RUN x",
            " ---> Running in ba9876543210\n",
            &format!(" ---> Running in {ID}"),
            " ---> Running in /etc",
        ] {
            first.hear(line).expect("written");
        }
        assert_eq!(found("unix:///a"), [], "it goes on");
        drop(first);
        assert_eq!(found("unix:///b"), [], "another engine's");
        assert_eq!(found("unix:///a"), [Some(ID.to_string())]);
        steps.begin("unix:///b").expect("begins").end();
        assert_eq!(found("unix:///b"), []);
    }

    #[test]
    fn only_what_may_be_a_step_is_removed() {
        let check = |change: serde_json::Value, expected: bool| {
            let mut found = serde_json::json!({
                "State": { "Status": "exited" }, "Config": { "Labels": { "a": "b" } }, "HostConfig": {},
            });
            for (key, value) in change.as_object().expect("an object") {
                found[key] = value.clone();
            }
            let found = serde_json::from_value(found).expect("an answer");
            assert_eq!(may_be_a_step(&found), expected, "{change}");
        };
        check(serde_json::json!({}), true);
        check(serde_json::json!({ "State": { "Status": "running" } }), false);
        check(
            serde_json::json!({ "Config": { "Labels": { "windlass.run": "r" } } }),
            false,
        );
        check(
            serde_json::json!({ "Config": { "Labels": { "com.docker.compose.project": "p" } } }),
            false,
        );
        check(
            serde_json::json!({ "HostConfig": { "Binds": ["/data:/data"] } }),
            false,
        );
    }
}
