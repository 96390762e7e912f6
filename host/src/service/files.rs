//! The directories that a guest sees, and nothing else: opened once through `cap-std`, handed to WASI by descriptor and to
//! other services by guest path.

use crate::{
    failure::{Failure, Turn},
    pattern::Mode,
};
use cap_std::{ambient_authority, fs::Dir};
use std::{
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

/// One directory of the host under the path that the guest has for it.
#[derive(Clone, Debug)]
pub struct Mount {
    guest: String,
    mode: Mode,
    directory: Arc<Dir>,
    /// Where the descriptor really is, links resolved: to see whether two mounts share a tree.
    real: PathBuf,
}

/// All directories of an attempt.
#[derive(Debug, Default)]
pub struct Mounts(Vec<Mount>);

/// A guest path as a host service may use it: the directory and the path below it.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub directory: Arc<Dir>,
    /// Relative, without `..`; `.` is the directory itself. Links in it are still to be followed: `cap-std` does that safely.
    pub path: PathBuf,
    pub mode: Mode,
}

impl Mount {
    /// Opens a directory of the host.
    ///
    /// # Errors
    /// `files.missing`: it does not exist, is no directory, or may not be opened.
    pub fn open(guest: &str, host: &Path, mode: Mode) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            let message = format!(
                "the directory `{}`, which the stage sees as `{guest}`, cannot be opened: {error}",
                host.display()
            );
            Failure::new(Turn::Operator, "files.missing", message)
                .help(format!("make it: mkdir -p {}", host.display()))
        };
        let directory = Dir::open_ambient_dir(host, ambient_authority()).map_err(failed)?;
        let real = std::fs::read_link(descriptor_path(&directory)).map_err(failed)?;
        Ok(Self {
            guest: guest.trim_end_matches('/').into(),
            mode,
            directory: Arc::new(directory),
            real,
        })
    }
}

impl Mounts {
    /// # Errors
    /// `files.shared-tree`: a read-only directory is inside a writable one or the other way round. What is written through one
    /// path could then be read, or linked to, through the other, and no permission on a path can hold.
    pub fn new(mounts: Vec<Mount>) -> Result<Self, Failure> {
        for first in &mounts {
            for second in &mounts {
                let shared = second.real.starts_with(&first.real);
                if shared && first.mode != second.mode {
                    let (read_only, writable) = match first.mode {
                        Mode::ReadOnly => (first, second),
                        Mode::ReadWrite => (second, first),
                    };
                    let message = format!(
                        "`{}` (read only) and `{}` (writable) share a directory tree",
                        read_only.guest, writable.guest
                    );
                    return Err(
                        Failure::new(Turn::PipelineAuthor, "files.shared-tree", message).help(format!(
                            "grant the parts of `{}` that the stage reads, without `{}`",
                            read_only.guest, writable.guest
                        )),
                    );
                }
            }
        }
        Ok(Self(mounts))
    }

    /// The directory that holds `guest_path`, by the longest mount that is its beginning.
    ///
    /// # Errors
    /// `file.path`: not absolute and plain. `grant.denied`: in no mount, or it is to be written and the mount is read only.
    pub fn resolve(&self, guest_path: &str, mode: Mode) -> Result<Resolved, Failure> {
        let plain =
            guest_path.starts_with('/') && !guest_path.split('/').any(|part| part == ".." || part == ".");
        if !plain || guest_path.contains('\0') {
            let message = format!("`{guest_path}` is no absolute path without `.` and `..`");
            return Err(Failure::new(Turn::Plugin, "file.path", message));
        }
        let holds = |mount: &&Mount| below(&mount.guest, guest_path).is_some();
        let found = self.0.iter().filter(holds).max_by_key(|mount| mount.guest.len());
        let Some(mount) = found.filter(|mount| mount.mode >= mode) else {
            let access = if mode == Mode::ReadOnly { "ro" } else { "rw" };
            let message = format!("the stage has no `{access}` access to `{guest_path}`");
            return Err(
                Failure::new(Turn::PipelineAuthor, "grant.denied", message).help(format!(
                    "if it should, add to its `allow:`: files: {{ {guest_path}: {access} }}"
                )),
            );
        };
        let rest = below(&mount.guest, guest_path)
            .filter(|rest| !rest.is_empty())
            .unwrap_or(".");
        Ok(Resolved {
            directory: mount.directory.clone(),
            path: rest.trim_start_matches('/').into(),
            mode: mount.mode,
        })
    }

    /// Hands the directories to WASI by descriptor, so that nothing can be exchanged between check and use.
    pub(crate) fn preopen(&self, builder: &mut WasiCtxBuilder) -> Result<(), Failure> {
        for mount in &self.0 {
            let permissions = match mount.mode {
                Mode::ReadOnly => FsPerms::ReadOnly,
                Mode::ReadWrite => FsPerms::ReadWrite,
            };
            builder
                .preopened_dir(descriptor_path(&mount.directory), &mount.guest, permissions)
                .map_err(|error| {
                    let message = format!("the directory behind `{}` cannot be opened: {error}", mount.guest);
                    Failure::new(Turn::Environment, "files.missing", message)
                })?;
        }
        Ok(())
    }
}

/// The rest of `path` below `directory`; `/workspace` holds `/workspace/a` and not `/workspaces`.
fn below<'a>(directory: &str, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(directory)?;
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_matches('/'))
}

/// Linux names an open directory by its descriptor, whatever happens to its path.
fn descriptor_path(directory: &Dir) -> PathBuf {
    format!("/proc/self/fd/{}", directory.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(root: &Path, list: &[(&str, &str, Mode)]) -> Result<Mounts, Failure> {
        let open = |(guest, host, mode): &(&str, &str, Mode)| Mount::open(guest, &root.join(host), *mode);
        Mounts::new(list.iter().map(open).collect::<Result<_, _>>()?)
    }

    #[test]
    fn read_only_and_writable_trees_never_overlap() {
        let root = tempfile::tempdir().expect("temporary");
        std::fs::create_dir_all(root.path().join("a/b")).expect("made");
        std::fs::create_dir_all(root.path().join("c")).expect("made");
        std::os::unix::fs::symlink("a", root.path().join("link")).expect("made");
        let check = |list: &[(&str, &str, Mode)], code: Option<&str>| {
            let failed = mounts(root.path(), list).err();
            assert_eq!(failed.as_ref().map(|failure| failure.code.as_str()), code);
        };
        let (ro, rw) = (Mode::ReadOnly, Mode::ReadWrite);
        check(&[("/a", "a", ro), ("/c", "c", rw)], None);
        check(&[("/a", "a", rw), ("/a/b", "a/b", rw)], None);
        check(&[("/a", "a", ro), ("/b", "a/b", rw)], Some("files.shared-tree"));
        check(&[("/b", "a/b", ro), ("/a", "a", rw)], Some("files.shared-tree"));
        check(
            &[("/a", "a", ro), ("/l", "link/b", rw)],
            Some("files.shared-tree"),
        );
        check(&[("/x", "missing", ro)], Some("files.missing"));
    }

    #[test]
    fn guest_paths() {
        let root = tempfile::tempdir().expect("temporary");
        for name in ["w", "s"] {
            std::fs::create_dir(root.path().join(name)).expect("made");
        }
        let list = [
            ("/workspace", "w", Mode::ReadOnly),
            ("/tmp", "s", Mode::ReadWrite),
        ];
        let mounts = mounts(root.path(), &list).expect("opens");
        let check = |path: &str, mode, expected: Result<&str, &str>| {
            let resolved = mounts.resolve(path, mode);
            let shown = resolved
                .as_ref()
                .map(|resolved| resolved.path.to_str().expect("text"));
            assert_eq!(shown.map_err(|failure| failure.code.as_str()), expected, "{path}");
        };
        check("/workspace", Mode::ReadOnly, Ok("."));
        check("/workspace/a/b", Mode::ReadOnly, Ok("a/b"));
        check("/workspace/a", Mode::ReadWrite, Err("grant.denied"));
        check("/workspaces/a", Mode::ReadOnly, Err("grant.denied"));
        check("/tmp/x", Mode::ReadWrite, Ok("x"));
        check("/etc/passwd", Mode::ReadOnly, Err("grant.denied"));
        check("/workspace/../etc", Mode::ReadOnly, Err("file.path"));
        check("workspace", Mode::ReadOnly, Err("file.path"));
    }
}
