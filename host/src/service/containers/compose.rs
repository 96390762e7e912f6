//! `windlass:containers/compose`: compose files as the guest's model, with guest paths for paths. Env files stay unread: their values go from the host
//! to the engine and never through a plugin.

use super::{Caller, caller, spec};
use crate::{
    capability::Capability,
    compose::{self, LoadRequest},
    diagnostic::Diagnostics,
    failure::{Failure, Turn},
    pattern::Pattern,
    service::State,
    wit::{GuestError, windlass::containers::compose as files},
};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::{cell::RefCell, collections::BTreeMap, io, path::Path};
use wasmtime::component::{HasSelf, Linker};

/// As every JSON text that goes to a guest.
const LARGEST: usize = 1 << 20;

/// See `load` in the WIT.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Options {
    files: Vec<String>,
    project: Option<String>,
    profiles: Vec<String>,
    variables: BTreeMap<String, String>,
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    files::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl files::Host for State {
    async fn load(&mut self, options: String) -> wasmtime::Result<Result<String, GuestError>> {
        let caller = caller!(self);
        let loaded = spec::parse::<Options>("the options of `load`", "container.spec", &options)
            .and_then(|options| caller.load(&options));
        Ok(loaded.map(|json| json.to_string()).map_err(GuestError::from))
    }
}

impl Caller {
    fn load(&self, options: &Options) -> Result<Json, Failure> {
        let roots = &self.containers.roots;
        let outside = |file: &String| {
            let message =
                format!("`{file}` is neither below /workspace nor below a directory of the pipeline");
            Failure::new(Turn::Plugin, "file.path", message)
        };
        let paths = options
            .files
            .iter()
            .map(|file| roots.lexical(file).ok_or_else(|| outside(file)));
        let paths: Vec<_> = paths.collect::<Result<_, _>>()?;
        if paths.is_empty() {
            return Err(Failure::new(
                Turn::Plugin,
                "container.spec",
                "`files` names no compose file",
            ));
        }
        // A denial is the whole answer, and no problem of the files.
        let denied: RefCell<Option<Failure>> = RefCell::default();
        let read = |path: &Path| {
            self.read_compose_file(path).map_err(|failure| {
                let error = match failure.code.as_str() {
                    "file.missing" => io::Error::from(io::ErrorKind::NotFound),
                    _ => io::Error::other(failure.message.clone()),
                };
                if failure.code == "grant.denied" {
                    denied.borrow_mut().get_or_insert(failure);
                }
                error
            })
        };
        let own = &self.containers.variables;
        let look_up = |name: &str| options.variables.get(name).or_else(|| own.get(name)).cloned();
        let loaded = compose::load(&LoadRequest {
            files: paths,
            directory: None,
            name: options.project.clone(),
            profiles: options.profiles.clone(),
            reader: &read,
            shown: &|path| {
                roots
                    .guest_path(path)
                    .unwrap_or_else(|| path.display().to_string())
            },
            environment: &look_up,
            keeps_env_files: true,
        });
        if let Some(failure) = denied.into_inner() {
            return Err(failure);
        }
        let (resolved, warnings) = loaded.map_err(|problems| {
            let message = format!(
                "the compose files are not valid:\n{}",
                texts(&problems).join("\n")
            );
            Failure::new(Turn::PipelineAuthor, "compose.invalid", message)
                .help("`windlass compose config -f FILE...` shows them with their lines")
        })?;
        let mut model = resolved.document;
        self.with_guest_paths(&mut model);
        let answer = json!({ "model": model, "warnings": texts(&warnings) });
        if answer.to_string().len() > LARGEST {
            let message = "the resolved compose files are larger than 1 MiB";
            return Err(Failure::new(Turn::PipelineAuthor, "compose.invalid", message));
        }
        Ok(answer)
    }

    fn read_compose_file(&self, path: &Path) -> Result<String, Failure> {
        let Some(guest) = self.containers.roots.guest_path(path) else {
            let message = format!("{} is outside of the project", path.display());
            return Err(Failure::new(Turn::PipelineAuthor, "file.path", message));
        };
        let pattern = Pattern::files("ro", &guest)
            .map_err(|error| Failure::new(Turn::Plugin, "file.path", error.to_string()))?;
        self.granter.check(Capability::Files, &pattern)?;
        let path = self.containers.roots.host_path(&guest)?;
        std::fs::read_to_string(&path).map_err(|error| {
            let message = format!("`{guest}` cannot be read: {error}");
            Failure::new(Turn::PipelineAuthor, "file.missing", message)
        })
    }

    /// Paths of this machine, where the model has paths, as the guest knows them.
    fn with_guest_paths(&self, model: &mut Json) {
        let roots = &self.containers.roots;
        let map = |value: Option<&mut Json>| {
            let Some(value) = value else { return };
            if let Some(guest) = value.as_str().and_then(|path| roots.guest_path(Path::new(path))) {
                *value = Json::String(guest);
            }
        };
        let each = |value: Option<&mut Json>, change: &dyn Fn(&mut Json)| match value {
            Some(Json::Object(entries)) => entries.values_mut().for_each(change),
            Some(Json::Array(items)) => items.iter_mut().for_each(change),
            _ => {}
        };
        each(model.get_mut("services"), &|service| {
            each(service.get_mut("volumes"), &|volume| {
                if volume["type"] == "bind" {
                    map(volume.get_mut("source"));
                }
            });
            each(service.get_mut("env_file"), &|file| map(file.get_mut("path")));
            map(service
                .get_mut("build")
                .and_then(|build| build.get_mut("context")));
        });
        for kind in ["secrets", "configs"] {
            each(model.get_mut(kind), &|file| map(file.get_mut("file")));
        }
    }
}

fn texts(problems: &Diagnostics) -> Vec<String> {
    let sorted = problems.sorted();
    let shown = sorted.iter().map(|problem| {
        let place = problem
            .span
            .as_ref()
            .map(|span| format!("{span}: "))
            .unwrap_or_default();
        let help = problem
            .help
            .as_ref()
            .map(|help| format!(" ({help})"))
            .unwrap_or_default();
        format!("{place}{}{help}", problem.message)
    });
    shown.collect()
}
