//! A directory of the workspace into the sorted list of entries of one layer.
//!
//! Reads names and kinds, never contents. Refuses what cannot be in an image the same way everywhere: sockets, devices,
//! names that are not Unicode, links that point outside of the image.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use windlass_guest::Error;

/// What a layer holds at one place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// In the image, without the leading `/`.
    pub(crate) path: String,
    pub(crate) kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File { source: PathBuf, size: u64 },
    Link { target: String },
}

/// More entries than any application has; fewer than fill the guest's 64 MiB with names.
const MAX_ENTRIES: usize = 100_000;

/// Lists what `from` (a directory, or one file) becomes under `to`. With `parents`, the directories above `to` are entries
/// too: an image without a base has none, while over a base they would reset the base's permissions.
///
/// # Errors
/// `build.missing`, `build.unsupported-file`, `build.link`, `build.too-many-files`, `build.unreadable`.
pub(crate) fn list(from: &Path, to: &str, parents: bool) -> Result<Vec<Entry>, Error> {
    let found = fs::symlink_metadata(from).map_err(|error| missing(from, &error))?;
    let mut entries = Vec::new();
    if found.is_file() {
        let path = file_place(from, to)?;
        add_parents(&mut entries, parents, &path);
        entries.push(Entry {
            path,
            kind: Kind::File {
                source: from.to_owned(),
                size: found.len(),
            },
        });
    } else if found.is_dir() {
        let root = normalise(to)?;
        add_parents(&mut entries, parents, &root);
        if parents && !root.is_empty() {
            entries.push(Entry {
                path: root.clone(),
                kind: Kind::Directory,
            });
        }
        walk(from, root, &mut entries)?;
    } else {
        return Err(unsupported(from, "neither a directory nor a file"));
    }
    // A parent is a prefix of its children, so byte order also puts it first.
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// The place of a single file: `to` itself, or in `to` when that ends with `/`.
fn file_place(from: &Path, to: &str) -> Result<String, Error> {
    let mut path = normalise(to)?;
    if to.ends_with('/') {
        let name = from
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| not_unicode(from))?;
        path = join(&path, name);
    }
    Ok(path)
}

fn add_parents(entries: &mut Vec<Entry>, wanted: bool, path: &str) {
    if wanted {
        let cuts = path.match_indices('/').map(|(cut, _)| cut);
        entries.extend(cuts.map(|cut| Entry {
            path: path[..cut].to_owned(),
            kind: Kind::Directory,
        }));
    }
}

fn walk(from: &Path, to: String, entries: &mut Vec<Entry>) -> Result<(), Error> {
    // A list of what is left instead of recursion: a deep tree cannot end the guest's stack.
    let mut left = vec![(from.to_owned(), to)];
    while let Some((directory, place)) = left.pop() {
        for item in fs::read_dir(&directory).map_err(|error| unreadable(&directory, &error))? {
            let item = item.map_err(|error| unreadable(&directory, &error))?;
            let source = item.path();
            let name = item.file_name().into_string().map_err(|_| not_unicode(&source))?;
            let entry = entry(&source, join(&place, &name))?;
            if entry.kind == Kind::Directory {
                left.push((source, entry.path.clone()));
            }
            entries.push(entry);
            if entries.len() > MAX_ENTRIES {
                let message = format!("{} holds more than {MAX_ENTRIES} files", from.display());
                return Err(
                    Error::new("build.too-many-files", message).help("narrow `from` to what the image needs")
                );
            }
        }
    }
    Ok(())
}

fn entry(source: &Path, path: String) -> Result<Entry, Error> {
    let found = fs::symlink_metadata(source).map_err(|error| unreadable(source, &error))?;
    let kind = if found.is_dir() {
        Kind::Directory
    } else if found.is_file() {
        Kind::File {
            source: source.to_owned(),
            size: found.len(),
        }
    } else if found.is_symlink() {
        Kind::Link {
            target: link_target(source, &path)?,
        }
    } else {
        return Err(unsupported(source, "a socket, a pipe or a device"));
    };
    Ok(Entry { path, kind })
}

/// The text of a link, when it stays inside of the image.
fn link_target(source: &Path, path: &str) -> Result<String, Error> {
    let refuse = |why: &str| {
        Error::new("build.link", format!("the link {} {why}", source.display()))
            .with_details(json!({ "file": source.to_string_lossy() }))
            .help("make it a relative link to something inside of the layer, or leave it out of `from`")
    };
    // The sandbox does not hand out absolute targets at all: they are an error of `read_link` there.
    let target = fs::read_link(source)
        .map_err(|_| refuse("cannot be read: absolute links are outside of what this stage may see"))?;
    let target = target.to_str().ok_or_else(|| not_unicode(source))?;
    if target.starts_with('/') {
        return Err(refuse("is absolute"));
    }
    let mut depth = path.matches('/').count();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                depth = depth
                    .checked_sub(1)
                    .ok_or_else(|| refuse("leaves the image's root"))?
            }
            _ => depth += 1,
        }
    }
    Ok(target.to_owned())
}

/// `/srv//app/` as `srv/app`.
fn normalise(to: &str) -> Result<String, Error> {
    let parts: Vec<&str> = to
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if !to.starts_with('/') || parts.contains(&"..") {
        let message = format!("`to: {to}` is not an absolute path in the image");
        return Err(Error::new("config.invalid", message).help("write it like `/app`"));
    }
    Ok(parts.join("/"))
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() {
        name.to_owned()
    } else {
        format!("{directory}/{name}")
    }
}

fn missing(from: &Path, error: &io::Error) -> Error {
    if error.kind() != io::ErrorKind::NotFound {
        return unreadable(from, error);
    }
    Error::new("build.missing", format!("there is no {}", from.display()))
        .with_details(json!({ "file": from.to_string_lossy() }))
        .help("make it before this stage, or correct `from`")
}

fn unsupported(path: &Path, what: &str) -> Error {
    Error::new(
        "build.unsupported-file",
        format!("{} is {what}: an image cannot hold it", path.display()),
    )
    .with_details(json!({ "file": path.to_string_lossy() }))
}

fn not_unicode(path: &Path) -> Error {
    Error::new(
        "build.unsupported-file",
        format!("the name of {} is not UTF-8", path.display()),
    )
}

pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(
        "build.unreadable",
        format!("cannot read {}: {error}", path.display()),
    )
    .with_details(json!({ "file": path.to_string_lossy() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A tree of `path` or `path -> target`, listed to `path` with `/`, `@target` or a size behind.
    fn check(tree: &[&str], to: &str, expected: Result<&[&str], &str>) {
        let place = tempfile::tempdir().unwrap();
        for line in tree {
            let (path, target) = line
                .split_once(" -> ")
                .map_or((*line, None), |(a, b)| (a, Some(b)));
            let path = place.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match target {
                Some(target) => symlink(target, path).unwrap(),
                None => fs::write(path, "four").unwrap(),
            }
        }
        let listed = list(place.path(), to, true).map(|entries| entries.iter().map(show).collect::<Vec<_>>());
        match (listed, expected) {
            (Ok(listed), Ok(expected)) => assert_eq!(listed, expected),
            (Err(error), Err(code)) => assert_eq!(error.code, code, "{}", error.message),
            (listed, expected) => panic!("{listed:?} is not {expected:?}"),
        }
    }

    fn show(entry: &Entry) -> String {
        match &entry.kind {
            Kind::Directory => format!("{}/", entry.path),
            Kind::File { size, .. } => format!("{} {size}", entry.path),
            Kind::Link { target } => format!("{} @{target}", entry.path),
        }
    }

    #[test]
    fn entries_are_sorted_with_parents_first() {
        let expected = [
            "srv/",
            "srv/app/",
            "srv/app/a/",
            "srv/app/a-b 4",
            "srv/app/a/z 4",
            "srv/app/b 4",
        ];
        check(&["b", "a-b", "a/z"], "/srv/app", Ok(&expected));
        check(&["b"], "/", Ok(&["b 4"]));
    }

    #[test]
    fn links_stay_inside_of_the_image() {
        check(
            &["bin/x -> ../lib/x"],
            "/app",
            Ok(&["app/", "app/bin/", "app/bin/x @../lib/x"]),
        );
        check(&["x -> ../../etc/passwd"], "/app", Err("build.link"));
        check(&["x -> a/../../../b"], "/app", Err("build.link"));
        check(&["x -> /etc/passwd"], "/app", Err("build.link"));
    }

    #[test]
    fn places_are_absolute() {
        check(&["b"], "app", Err("config.invalid"));
        check(&["b"], "/app/../../x", Err("config.invalid"));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(place.path().join("s")).unwrap();
        assert_eq!(
            list(place.path(), "/", true).unwrap_err().code,
            "build.unsupported-file"
        );
        assert_eq!(
            list(&place.path().join("absent"), "/", true).unwrap_err().code,
            "build.missing"
        );
    }

    #[test]
    fn a_single_file_goes_to_its_place() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("run.sh");
        fs::write(&file, "#!").unwrap();
        let paths = |to| {
            list(&file, to, false)
                .unwrap()
                .into_iter()
                .map(|entry| entry.path)
                .collect::<Vec<_>>()
        };
        assert_eq!(paths("/bin/"), ["bin/run.sh"]);
        assert_eq!(paths("/bin/start"), ["bin/start"]);
    }
}
