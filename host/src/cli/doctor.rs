//! `windlass doctor`: what is missing on this machine, and what to type about it.

use super::{Result, arguments::ProjectArguments, exit_code::ExitCode, print::Printer, project::Project};
use crate::{
    catalog,
    sandbox::{Sandbox, SandboxSettings},
    support::fs::private_directory,
};
use std::{path::Path, time::Duration};

/// One look at the machine.
struct Finding {
    what: &'static str,
    state: State,
    detail: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Fine,
    /// Some pipelines need it.
    Optional,
    Missing,
}

pub(super) fn doctor(project: &ProjectArguments, printer: &Printer) -> Result<ExitCode> {
    let project = Project::find(project, printer)?;
    let findings = [plugins(), sandbox(), cache(&project), terminal_user(), docker()];
    for Finding { what, state, detail } in &findings {
        let word = match state {
            State::Fine => "ok      ",
            State::Optional => "optional",
            State::Missing => "MISSING ",
        };
        printer.data(&format!("{word}  {what:<16} {detail}"));
    }
    let is_missing = findings.iter().any(|finding| finding.state == State::Missing);
    Ok(if is_missing {
        ExitCode::UNAVAILABLE
    } else {
        ExitCode::SUCCEEDED
    })
}

fn plugins() -> Finding {
    let names: Vec<&str> = catalog::locate::built_in().collect();
    let state = if names.is_empty() {
        State::Missing
    } else {
        State::Fine
    };
    Finding {
        what: "built-in plugins",
        state,
        detail: names.join(", "),
    }
}

fn sandbox() -> Finding {
    match Sandbox::new(SandboxSettings::default()) {
        Ok(_) => Finding {
            what: "sandbox",
            state: State::Fine,
            detail: "the WebAssembly engine starts".into(),
        },
        Err(failure) => Finding {
            what: "sandbox",
            state: State::Missing,
            detail: failure.message,
        },
    }
}

fn cache(project: &Project) -> Finding {
    match project.cache() {
        Some(path) => Finding {
            what: "compile cache",
            state: State::Fine,
            detail: path.display().to_string(),
        },
        None => Finding {
            what: "compile cache",
            state: State::Missing,
            detail: "cannot be made: set XDG_CACHE_HOME or HOME to a directory of yours".into(),
        },
    }
}

fn terminal_user() -> Finding {
    let scratch = std::env::temp_dir().join(format!("windlass-doctor-{}", std::process::id()));
    let detail = match private_directory(&scratch) {
        Ok(_) => {
            // Empty and ours; one that stays is in nobody's way.
            let _ = std::fs::remove_dir(&scratch);
            return Finding {
                what: "temporary files",
                state: State::Fine,
                detail: std::env::temp_dir().display().to_string(),
            };
        }
        Err(failure) => failure.message,
    };
    Finding {
        what: "temporary files",
        state: State::Missing,
        detail,
    }
}

fn docker() -> Finding {
    let socket = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "/var/run/docker.sock".into());
    let found = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| {
            runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(5), ping())
                    .await
                    .map_err(|_| "no answer in 5 s".to_string())?
            })
        });
    match found {
        Ok(version) => Finding {
            what: "container engine",
            state: State::Fine,
            detail: format!("{version} at {socket}"),
        },
        Err(problem) => {
            let hint = if Path::new(&socket).exists() {
                ""
            } else {
                " (start Docker or Podman, or set DOCKER_HOST)"
            };
            Finding {
                what: "container engine",
                state: State::Optional,
                detail: format!("{problem}{hint}: pipelines without containers do not need it"),
            }
        }
    }
}

async fn ping() -> std::result::Result<String, String> {
    let docker = bollard::Docker::connect_with_defaults().map_err(|error| error.to_string())?;
    let version = docker
        .version()
        .await
        .map_err(|_| "does not answer".to_string())?;
    Ok(format!("version {}", version.version.unwrap_or_default()))
}
