//! A directory inside of a container: taken out and put back as the engine's tar stream, with owners, modes and times.

use serde::Deserialize;
use windlass_guest::Error;
use windlass_guest::containers::{Output, Program};

use crate::host::Host;
use crate::redis::program;
use crate::service;

/// Where the directory is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Inside {
    /// `service`, or `project/service`.
    pub container: String,
    /// An absolute path there.
    pub path: String,
}

impl Inside {
    /// A running container. Replicas that have the directory from one volume are all the same.
    ///
    /// # Errors
    /// As [`service::running_with`].
    pub fn find(&self, host: &mut dyn Host) -> Result<String, Error> {
        service::running_with(host, &self.container, &self.path)
    }

    /// Whether the directory is there and what is in it: nothing of both is `None`.
    ///
    /// # Errors
    /// Those of the host.
    pub fn is_empty(&self, host: &mut dyn Host, id: &str) -> Result<Option<bool>, Error> {
        let entries = ["find", &self.path, "-mindepth", "1", "-maxdepth", "1"];
        let found = self.run(host, id, &entries)?;
        Ok((found.exit == 0).then(|| found.stdout.trim().is_empty()))
    }

    /// A place on the same disk as the directory, for what will be in it.
    pub fn aside(&self, tag: &str) -> String {
        format!("{}/.windlass-{tag}", self.path)
    }

    /// Makes that place.
    ///
    /// # Errors
    /// `container.failed`, and those of the host.
    pub fn prepare(&self, host: &mut dyn Host, id: &str, aside: &str) -> Result<(), Error> {
        self.each(host, id, &[&["rm", "-rf", aside], &["mkdir", "-p", aside]])
    }

    /// Exchanges what is in the directory for what the engine has unpacked in the place beside it. The directory itself stays: it may be a volume.
    ///
    /// # Errors
    /// As [`Inside::prepare`].
    pub fn exchange(&self, host: &mut dyn Host, id: &str, aside: &str) -> Result<(), Error> {
        let kept = aside.rsplit('/').next().unwrap_or(aside);
        let name = self.path.rsplit('/').next().unwrap_or(&self.path);
        let (path, new) = (self.path.as_str(), format!("{aside}/{name}"));
        let all = ["-mindepth", "1", "-maxdepth", "1"];
        let old = [
            &["find", path],
            &all[..],
            &["!", "-name", kept, "-exec", "rm", "-rf", "{}", "+"],
        ]
        .concat();
        let target = format!("{path}/");
        // `find` does not tell how a program of `-exec ;` ended: what could not be moved is handed to `false`.
        let moving = [
            "!", "-exec", "mv", "{}", &target, ";", "-exec", "false", "{}", "+",
        ];
        let moved = [&["find", &new], &all[..], &moving[..]].concat();
        // Nothing is thrown away that was not moved.
        let exchanged = self.each(host, id, &[&old, &moved, &["rmdir", &new, aside]]);
        exchanged.map_err(|error| {
            error.help(format!(
                "nothing that was saved is lost: what is not in {path} yet is in {new} of that container, and in the backup; mend what is said above, and restore again with `replace: true`"
            ))
        })
    }

    /// As root, since what is put back may belong to anybody. In a container of another user root has no power over others' files: there, as whom
    /// the directory belongs to. What is run may be run twice.
    fn run(&self, host: &mut dyn Host, id: &str, argv: &[&str]) -> Result<Output, Error> {
        let output = host.exec(id, &run_as("0", argv))?;
        if output.exit == 0 {
            return Ok(output);
        }
        let owner = host.exec(id, &run_as("0", &["stat", "-c", "%u:%g", &self.path]))?;
        match owner.stdout.trim() {
            "0:0" => Ok(output),
            owner_and_group if owner.exit == 0 => host.exec(id, &run_as(owner_and_group, argv)),
            _ => Ok(output),
        }
    }

    fn each(&self, host: &mut dyn Host, id: &str, commands: &[&[&str]]) -> Result<(), Error> {
        for command in commands {
            let output = self.run(host, id, command)?;
            if output.exit != 0 {
                let message = format!("{} of {}: {}", self.path, self.container, output.stderr.trim());
                return Err(Error::new("container.failed", message));
            }
        }
        Ok(())
    }
}

/// A program that somebody else than the container's user runs.
fn run_as(user: &str, argv: &[&str]) -> Program {
    Program {
        user: Some(user.to_owned()),
        ..program(argv)
    }
}
