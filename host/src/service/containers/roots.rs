//! From guest paths to paths of this machine, for what containers are given: bind mounts, env files, build contexts. What is answered lies
//! really below the directory it is named in: a link that leads elsewhere is refused.

use crate::failure::{Failure, Turn};
use cap_std::{ambient_authority, fs::Dir};
use std::{
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

/// `/workspace` and the `/mnt/<name>` of the pipeline.
#[derive(Clone, Debug, Default)]
pub struct Roots(Vec<(String, PathBuf)>);

impl Roots {
    /// Guest paths and where they are.
    pub fn new(roots: impl IntoIterator<Item = (String, PathBuf)>) -> Self {
        Self(roots.into_iter().collect())
    }

    /// The canonical path of what a guest path names.
    ///
    /// # Errors
    /// `file.path`, `file.missing`.
    pub fn host_path(&self, guest: &str) -> Result<PathBuf, Failure> {
        let below = |root: &str| {
            guest
                .strip_prefix(root)
                .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let found = self.0.iter().find_map(|(name, path)| Some((below(name)?, path)));
        let Some((rest, root)) = found else {
            let message =
                format!("`{guest}` is neither below /workspace nor below a directory of the pipeline");
            return Err(Failure::new(Turn::Plugin, "file.path", message));
        };
        let rest = rest.trim_start_matches('/');
        let unfit = |error: std::io::Error| unfit(guest, &error);
        let directory = Dir::open_ambient_dir(root, ambient_authority()).map_err(unfit)?;
        let inside = directory
            .canonicalize(if rest.is_empty() { "." } else { rest })
            .map_err(unfit)?;
        // By descriptor: the root itself may be a link.
        let root = std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).map_err(unfit)?;
        Ok(match inside == Path::new(".") {
            true => root,
            false => root.join(inside),
        })
    }

    /// The guest path of a path below one of the roots.
    pub fn guest_path(&self, path: &Path) -> Option<String> {
        self.0.iter().find_map(|(name, root)| {
            let rest = path.strip_prefix(root).ok()?;
            Some(match rest.as_os_str().is_empty() {
                true => name.clone(),
                false => format!("{name}/{}", rest.display()),
            })
        })
    }

    /// Where a guest path would be, whether it is there or not.
    pub fn lexical(&self, guest: &str) -> Option<PathBuf> {
        self.0.iter().find_map(|(name, root)| {
            let rest = guest.strip_prefix(name.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| root.join(rest.trim_start_matches('/')))
        })
    }
}

fn unfit(guest: &str, error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            let message = format!("there is no `{guest}`");
            Failure::new(Turn::PipelineAuthor, "file.missing", message).help("make it, or correct the path")
        }
        _ => Failure::new(
            Turn::PipelineAuthor,
            "file.path",
            format!("`{guest}` cannot be used: {error}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_out_of_a_root_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("nginx")).expect("made");
        std::fs::write(root.join("nginx/nginx.conf"), "").expect("written");
        std::os::unix::fs::symlink("/etc", root.join("out")).expect("linked");
        std::os::unix::fs::symlink("nginx", root.join("in")).expect("linked");
        let roots = Roots::new([("/workspace".to_string(), root.clone())]);
        let check = |guest: &str, expected: Result<&str, &str>| {
            let found = roots.host_path(guest);
            let expected = expected.map(|inside| match inside {
                "" => root.clone(),
                inside => root.join(inside),
            });
            assert_eq!(
                found.as_ref().map_err(|failure| failure.code.as_str()),
                expected.as_ref().map_err(|code| *code)
            );
        };
        check("/workspace", Ok(""));
        check("/workspace/nginx/nginx.conf", Ok("nginx/nginx.conf"));
        check("/workspace/in/nginx.conf", Ok("nginx/nginx.conf"));
        check("/workspace/absent", Err("file.missing"));
        check("/workspace/out/passwd", Err("file.path"));
        check("/workspace/../root", Err("file.path"));
        check("/workspacex", Err("file.path"));
        assert_eq!(
            roots.guest_path(&root.join("a/b")).as_deref(),
            Some("/workspace/a/b")
        );
        assert_eq!(roots.guest_path(Path::new("/etc")), None);
    }
}
