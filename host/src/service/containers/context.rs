//! A directory as the tar stream that an engine builds from: what `.dockerignore` leaves, names and modes as they are, no times. Written on a thread
//! that may block, and taken piece by piece as the engine reads.

use crate::failure::{Failure, Turn};
use bytes::Bytes;
use cap_std::{ambient_authority, fs::Dir};
use globset::{GlobBuilder, GlobMatcher};
use std::{
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use tokio::sync::mpsc;

/// Pieces on their way: what is packed waits for what is sent.
const PIECES: usize = 8;
const PIECE: usize = 256 << 10;
/// A Dockerfile is text.
const LARGEST_DOCKERFILE: u64 = 1 << 20;
/// Under this name a Dockerfile from outside of the context goes along.
const OUTSIDE: &str = ".windlass.Dockerfile";

/// What to build from.
#[derive(Clone, Debug)]
pub(super) struct BuildContext {
    root: PathBuf,
    /// Relative to the context, as the engine is told.
    pub(super) dockerfile: String,
    /// Its text, where it lies outside of the context.
    outside: Option<Vec<u8>>,
    ignore: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    matcher: GlobMatcher,
    is_exception: bool,
}

impl BuildContext {
    /// `dockerfile` is a path of this machine.
    ///
    /// # Errors
    /// `file.missing`, `file.path`, `image.options` (a pattern of `.dockerignore`).
    pub(super) fn open(root: &Path, dockerfile: &Path, shown: &str) -> Result<Self, Failure> {
        let failed = |path: &Path, error: io::Error| {
            let message = format!(
                "`{}` of the context `{shown}` cannot be read: {error}",
                path.display()
            );
            Failure::new(Turn::PipelineAuthor, "file.path", message)
        };
        let inside = dockerfile
            .strip_prefix(root)
            .ok()
            .map(|path| path.display().to_string());
        let outside = match &inside {
            Some(_) => None,
            None => Some(
                read_bounded(dockerfile, LARGEST_DOCKERFILE).map_err(|error| failed(dockerfile, error))?,
            ),
        };
        let beside = PathBuf::from(format!("{}.dockerignore", dockerfile.display()));
        let own = root.join(".dockerignore");
        let ignore = [beside, own].into_iter().find(|path| path.is_file());
        let ignore = match ignore {
            Some(path) => {
                let text = std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
                rules(&text, shown)?
            }
            None => Vec::new(),
        };
        Ok(Self {
            root: root.into(),
            dockerfile: inside.unwrap_or_else(|| OUTSIDE.into()),
            outside,
            ignore,
        })
    }

    /// Starts packing. The receiver ends with an error when a file cannot be read.
    pub(super) fn stream(self) -> mpsc::Receiver<io::Result<Bytes>> {
        let (sender, receiver) = mpsc::channel(PIECES);
        tokio::task::spawn_blocking(move || {
            let mut out = Pieces {
                sender: sender.clone(),
                piece: Vec::with_capacity(PIECE),
            };
            if let Err(error) = self.pack(&mut out).and_then(|()| out.flush()) {
                // Nobody takes it any more when the engine has hung up.
                let _ = sender.blocking_send(Err(error));
            }
        });
        receiver
    }

    fn pack(&self, out: &mut impl Write) -> io::Result<()> {
        let root = Dir::open_ambient_dir(&self.root, ambient_authority())?;
        let mut archive = tar::Builder::new(out);
        if let Some(text) = &self.outside {
            let mut header = header(tar::EntryType::Regular, 0o644, text.len() as u64);
            archive.append_data(&mut header, OUTSIDE, text.as_slice())?;
        }
        self.pack_directory(&root, Path::new(""), &mut archive)?;
        archive.finish()
    }

    fn pack_directory(
        &self,
        directory: &Dir,
        path: &Path,
        archive: &mut tar::Builder<impl Write>,
    ) -> io::Result<()> {
        let mut entries = directory.entries()?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(cap_std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let path = path.join(&name);
            let kind = entry.file_type()?;
            let is_out = self.is_ignored(&path);
            if kind.is_dir() {
                // An exception may be below a directory that is left out.
                if is_out && !self.ignore.iter().any(|rule| rule.is_exception) {
                    continue;
                }
                if !is_out {
                    let mode = entry.metadata()?.permissions();
                    let mode = cap_std::fs::PermissionsExt::mode(&mode) & 0o7777;
                    archive.append_data(
                        &mut header(tar::EntryType::Directory, mode, 0),
                        &path,
                        io::empty(),
                    )?;
                }
                self.pack_directory(&entry.open_dir()?, &path, archive)?;
            } else if is_out {
                continue;
            } else if kind.is_symlink() {
                // As it is written: what it leads to is looked up in the image, never here.
                let target = directory.read_link_contents(&name)?;
                archive.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), &path, &target)?;
            } else if kind.is_file() {
                let file = entry.open()?.into_std();
                let metadata = file.metadata()?;
                let mut header = header(
                    tar::EntryType::Regular,
                    metadata.permissions().mode() & 0o7777,
                    metadata.len(),
                );
                archive.append_data(&mut header, &path, file.take(metadata.len()))?;
            }
        }
        Ok(())
    }

    /// The last pattern that says something of a path, or of a directory it is in, decides. The engine needs the Dockerfile in any case.
    fn is_ignored(&self, path: &Path) -> bool {
        if path == Path::new(&self.dockerfile) || path == Path::new(".dockerignore") {
            return false;
        }
        let mut is_ignored = false;
        for rule in &self.ignore {
            let is_about = path
                .ancestors()
                .any(|part| !part.as_os_str().is_empty() && rule.matcher.is_match(part));
            if is_about {
                is_ignored = !rule.is_exception;
            }
        }
        is_ignored
    }
}

fn rules(text: &str, shown: &str) -> Result<Vec<Rule>, Failure> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rules = lines.map(|line| {
        let (is_exception, pattern) = match line.strip_prefix('!') {
            Some(pattern) => (true, pattern.trim()),
            None => (false, line),
        };
        let plain = pattern.trim_start_matches("./").trim_matches('/');
        let glob = GlobBuilder::new(plain)
            .literal_separator(true)
            .backslash_escape(true)
            .build();
        let glob = glob.map_err(|error| {
            let message = format!("`{line}` in the .dockerignore of `{shown}` is no pattern: {error}");
            Failure::new(Turn::PipelineAuthor, "image.options", message)
        })?;
        Ok(Rule {
            matcher: glob.compile_matcher(),
            is_exception,
        })
    });
    rules.collect()
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header
}

fn read_bounded(path: &Path, maximum: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    std::fs::File::open(path)?
        .take(maximum + 1)
        .read_to_end(&mut content)?;
    match content.len() as u64 > maximum {
        true => Err(io::Error::other("it is larger than 1 MiB")),
        false => Ok(content),
    }
}

/// Gathers what is written to pieces.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(data);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let sent = self.sender.blocking_send(Ok(piece.into()));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    async fn names(context: BuildContext) -> Vec<String> {
        let mut pieces = context.stream();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.recv().await {
            bytes.extend_from_slice(&piece.expect("packed"));
        }
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().expect("an archive");
        let name = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
            entry
                .expect("an entry")
                .path()
                .expect("a path")
                .display()
                .to_string()
        };
        entries.map(name).collect()
    }

    #[tokio::test]
    async fn what_is_ignored_stays_out_and_the_dockerfile_comes_along() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("context");
        for file in [
            "a.py",
            "deep/b.pyc",
            "deep/c.py",
            "node_modules/x/y.js",
            "node_modules/keep.me",
            "docs/a.md",
            "docs/README.md",
        ] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, file).expect("written");
        }
        fs::write(root.join(".dockerignore"), "# a comment\n**/*.pyc\n/node_modules\n!node_modules/keep.me\ndocs/*\n!docs/README.md\nDockerfile\n").expect("written");
        fs::write(root.join("Dockerfile"), "FROM scratch").expect("written");
        fs::write(directory.path().join("Other"), "FROM scratch").expect("written");
        let context = BuildContext::open(&root, &root.join("Dockerfile"), "c").expect("opens");
        assert_eq!(context.dockerfile, "Dockerfile");
        let inside = [
            ".dockerignore",
            "Dockerfile",
            "a.py",
            "deep",
            "deep/c.py",
            "docs",
            "docs/README.md",
            "node_modules/keep.me",
        ];
        assert_eq!(names(context).await, inside);
        let context = BuildContext::open(&root, &directory.path().join("Other"), "c").expect("opens");
        assert_eq!(names(context).await[0], OUTSIDE);
        let missing =
            BuildContext::open(&root, &directory.path().join("absent"), "c").expect_err("not there");
        assert_eq!(missing.code, "file.path");
    }
}
