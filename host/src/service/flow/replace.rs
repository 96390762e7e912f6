//! Puts a directory in the place of another so that the old content is never lost: all of it is exchanged, or the old is where
//! it was. What was interrupted half-way is put back by whoever writes there next; readers refuse it until then.
//!
//! A directory that has a name is exchanged by its name. The root of a mount has none that could be changed, so what is in it
//! moves: the old to `<fresh>-leaving`, which is then called `<fresh>-left`, and after that the new in. Either name says
//! what is in the root: under the first only what is left of the old, under the second only some of the new.

use super::place::{OURS, sync_directory};
use cap_std::fs::Dir;
use rustix::{
    fs::{FlockOperation, Mode, OFlags, RenameFlags},
    io::Errno,
};
use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

const LEAVING: &str = "-leaving";
const LEFT: &str = "-left";

/// Where the old directory is while the new one takes its name, on a file system that cannot exchange the two at once.
const PUT_ASIDE: &str = ".windlass-was-";

/// How names are changed. Tests have one that fails.
pub(super) trait Rename {
    fn rename(&self, from: &Dir, name: &Path, to: &Dir, new: &Path) -> io::Result<()>;

    /// Both names change at once, or none.
    fn exchange(&self, directory: &Dir, one: &Path, other: &Path) -> io::Result<()>;
}

/// The system's own.
pub(super) struct System;

impl Rename for System {
    fn rename(&self, from: &Dir, name: &Path, to: &Dir, new: &Path) -> io::Result<()> {
        from.rename(name, to, new)
    }

    fn exchange(&self, directory: &Dir, one: &Path, other: &Path) -> io::Result<()> {
        let exchanged = rustix::fs::renameat_with(directory, one, directory, other, RenameFlags::EXCHANGE);
        Ok(exchanged?)
    }
}

/// `fresh` gets the name `name` in their directory. What had the name gets that of `fresh`, for the caller to remove.
pub(super) fn by_name(system: &dyn Rename, directory: &Dir, fresh: &Path, name: &Path) -> io::Result<()> {
    recover_name(system, directory, name)?;
    if !is_there(directory, name) {
        system.rename(directory, fresh, directory, name)?;
        return sync_directory(directory);
    }
    match system.exchange(directory, fresh, name) {
        Err(error) if is_unsupported(&error) => return in_two_steps(system, directory, fresh, name),
        exchanged => exchanged?,
    }
    sync_directory(directory).inspect_err(|_| {
        // What cannot be made to last must not be taken for done.
        let _ = system.exchange(directory, fresh, name);
    })
}

fn in_two_steps(system: &dyn Rename, directory: &Dir, fresh: &Path, name: &Path) -> io::Result<()> {
    let aside = put_aside(name);
    let put = || {
        system.rename(directory, name, directory, &aside)?;
        system.rename(directory, fresh, directory, name)?;
        sync_directory(directory)?;
        // This ends it: under its own name the old directory would be put back.
        system.rename(directory, &aside, directory, fresh)
    };
    let done = put();
    if done.is_err() {
        recover_name(system, directory, name)?;
    }
    done
}

/// Puts back what was put aside, unless its replacement came to its end.
pub(super) fn recover_name(system: &dyn Rename, directory: &Dir, name: &Path) -> io::Result<()> {
    let aside = put_aside(name);
    if !is_there(directory, &aside) {
        return Ok(());
    }
    if is_there(directory, name) && directory.remove_file(name).is_err() {
        directory.remove_dir_all(name)?;
    }
    system.rename(directory, &aside, directory, name)?;
    sync_directory(directory)
}

/// Everything in `root` is exchanged for everything in its directory `fresh`, where the old content is in the end, for the
/// caller to remove. Needs the [`lock`] of `root`, and nothing to [`recover`] there.
pub(super) fn by_content(system: &dyn Rename, root: &Dir, fresh: &Path) -> io::Result<()> {
    let exchanged = exchange_content(system, root, fresh);
    if exchanged.is_err() {
        recover(system, root)?;
    }
    exchanged
}

fn exchange_content(system: &dyn Rename, root: &Dir, fresh: &Path) -> io::Result<()> {
    let (leaving, left) = (with_ending(fresh, LEAVING), with_ending(fresh, LEFT));
    root.create_dir(&leaving)?;
    move_all(system, root, &root.open_dir(&leaving)?)?;
    sync_directory(root)?;
    system.rename(root, &leaving, root, &left)?;
    sync_directory(root)?;
    move_all(system, &root.open_dir(fresh)?, root)?;
    sync_directory(root)?;
    // The directory of the new is empty now, and a rename may replace it. This ends the exchange.
    system.rename(root, &left, root, fresh)?;
    sync_directory(root)
}

/// Puts the old content of a root back where an exchange did not come to its end. Needs the [`lock`] of `root`.
pub(super) fn recover(system: &dyn Rename, root: &Dir) -> io::Result<()> {
    for (left, fresh) in unfinished(root, LEFT)? {
        if !is_there(root, &fresh) {
            root.create_dir(&fresh)?;
        }
        move_all(system, root, &root.open_dir(&fresh)?)?;
        sync_directory(root)?;
        system.rename(root, &left, root, &with_ending(&fresh, LEAVING))?;
        sync_directory(root)?;
    }
    for (leaving, fresh) in unfinished(root, LEAVING)? {
        move_all(system, &root.open_dir(&leaving)?, root)?;
        sync_directory(root)?;
        root.remove_dir(&leaving)?;
        if is_there(root, &fresh) {
            root.remove_dir_all(&fresh)?;
        }
    }
    Ok(())
}

/// Where the old content is of a directory that was being replaced when something stopped that.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn interrupted(place: &Dir, path: &Path) -> io::Result<Option<PathBuf>> {
    if let Some(name) = path.file_name() {
        let aside = path.with_file_name(put_aside(Path::new(name)));
        if is_there(place, &aside) {
            return Ok(Some(aside));
        }
    }
    let root = match place.open_dir(path) {
        Ok(root) => root,
        // Whoever reads it says so.
        Err(_) => return Ok(None),
    };
    let mut found = unfinished(&root, LEAVING)?;
    found.extend(unfinished(&root, LEFT)?);
    Ok(found.into_iter().next().map(|(aside, _)| path.join(aside)))
}

/// Held while the content of a root is exchanged, also against other processes; `None`: somebody else does that now. The
/// system lets it go with its holder, whatever happens to that.
pub(super) fn lock(root: &Dir) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(root.as_fd(), ".", flags, Mode::empty())?;
    match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(opened)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Moves everything that is not the machinery of a copy.
fn move_all(system: &dyn Rename, from: &Dir, to: &Dir) -> io::Result<()> {
    // All names first: what moves while a directory is read may be read twice, or not at all.
    let names: Vec<OsString> = from
        .entries()?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<_>>()?;
    for name in names.iter().filter(|name| !is_ours(name)) {
        system.rename(from, Path::new(name), to, Path::new(name))?;
    }
    Ok(())
}

/// The directories with this ending, and the name each had before.
fn unfinished(root: &Dir, ending: &str) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    for entry in root.entries()? {
        let name = entry?.file_name();
        let fresh = name.to_str().filter(|name| name.starts_with(OURS));
        if let Some(fresh) = fresh.and_then(|name| name.strip_suffix(ending)) {
            found.push((PathBuf::from(&name), PathBuf::from(fresh)));
        }
    }
    Ok(found)
}

fn with_ending(fresh: &Path, ending: &str) -> PathBuf {
    let mut name = fresh.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn put_aside(name: &Path) -> PathBuf {
    let mut aside = OsString::from(PUT_ASIDE);
    aside.push(name);
    aside.into()
}

fn is_there(directory: &Dir, name: &Path) -> bool {
    directory.symlink_metadata(name).is_ok()
}

fn is_ours(name: &OsString) -> bool {
    name.as_encoded_bytes().starts_with(OURS.as_bytes())
}

/// Some network and layered file systems cannot exchange two names.
fn is_unsupported(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        code,
        Some(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::XDEV)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use cap_std::ambient_authority;
    use std::{cell::Cell, fs};

    /// Does `left` renames, then fails: once, or from then on, as when the process is killed.
    struct Failing {
        left: Cell<u32>,
        is_killed: bool,
        can_exchange: bool,
    }

    impl Failing {
        fn step(&self) -> io::Result<()> {
            match self.left.get() {
                0 => {
                    if !self.is_killed {
                        self.left.set(u32::MAX);
                    }
                    Err(io::Error::other("no more"))
                }
                left => {
                    self.left.set(left.saturating_sub(1));
                    Ok(())
                }
            }
        }
    }

    impl Rename for Failing {
        fn rename(&self, from: &Dir, name: &Path, to: &Dir, new: &Path) -> io::Result<()> {
            self.step()?;
            System.rename(from, name, to, new)
        }

        fn exchange(&self, directory: &Dir, one: &Path, other: &Path) -> io::Result<()> {
            if !self.can_exchange {
                return Err(Errno::INVAL.into());
            }
            self.step()?;
            System.exchange(directory, one, other)
        }
    }

    const OLD: [&str; 3] = ["a", "b", "old"];
    const NEW: [&str; 3] = ["a", "c", "new"];

    /// A directory `place` with old content; the directory of the new one is beside it, or in it where it is a root.
    fn ground(is_root: bool) -> (tempfile::TempDir, Dir, Dir) {
        let ground = tempfile::tempdir().expect("temporary");
        let place = ground.path().join("place");
        fs::create_dir(&place).expect("made");
        let fresh = if is_root {
            place.join(FRESH)
        } else {
            ground.path().join(FRESH)
        };
        fs::create_dir(&fresh).expect("made");
        OLD.iter()
            .for_each(|name| fs::write(place.join(name), format!("old {name}")).expect("written"));
        NEW.iter()
            .for_each(|name| fs::write(fresh.join(name), format!("new {name}")).expect("written"));
        let open = |path: &Path| Dir::open_ambient_dir(path, ambient_authority()).expect("opens");
        let (parent, root) = (open(ground.path()), open(&place));
        (ground, parent, root)
    }

    const FRESH: &str = ".windlass-0";

    /// Names and texts in `place`, ours aside.
    fn content(ground: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(ground.path().join("place")).expect("is there");
        let mut texts: Vec<String> = entries
            .map(|entry| entry.expect("readable"))
            .filter(|entry| !is_ours(&entry.file_name()))
            .map(|entry| fs::read_to_string(entry.path()).expect("a file"))
            .collect();
        texts.sort();
        texts
    }

    fn all_of(word: &str, names: [&str; 3]) -> Vec<String> {
        names.iter().map(|name| format!("{word} {name}")).collect()
    }

    /// Fails at every single rename there is, once and for good. Returns how many there were.
    fn check(is_root: bool, can_exchange: bool) -> u32 {
        for is_killed in [false, true] {
            for steps in 0.. {
                let (ground, parent, root) = ground(is_root);
                let system = Failing {
                    left: Cell::new(steps),
                    is_killed,
                    can_exchange,
                };
                let replace = |system: &dyn Rename| {
                    if is_root {
                        by_content(system, &root, Path::new(FRESH))
                    } else {
                        by_name(system, &parent, Path::new(FRESH), Path::new("place"))
                    }
                };
                let replaced = replace(&system);
                let why = format!("root {is_root}, killed {is_killed}, after {steps} steps");
                if replaced.is_ok() {
                    assert_eq!(content(&ground), all_of("new", NEW), "{why}");
                    if is_killed {
                        return steps;
                    }
                    break;
                }
                if is_killed {
                    recover_killed(is_root, &parent, &root, &why);
                }
                assert_eq!(content(&ground), all_of("old", OLD), "{why}");
            }
        }
        unreachable!("the loop returns when a replacement needs no more steps")
    }

    /// As the next one to write there does, itself killed at every step first.
    fn recover_killed(is_root: bool, parent: &Dir, root: &Dir, why: &str) {
        let recover = |system: &dyn Rename| {
            if is_root {
                recover(system, root)
            } else {
                recover_name(system, parent, Path::new("place"))
            }
        };
        for steps in 0.. {
            let system = Failing {
                left: Cell::new(steps),
                is_killed: true,
                can_exchange: true,
            };
            if recover(&system).is_ok() {
                break;
            }
            let seen = interrupted(parent, Path::new("place")).expect("readable");
            assert!(seen.is_some(), "{why}: a reader sees that it is not whole");
        }
        assert_eq!(interrupted(parent, Path::new("place")).expect("readable"), None);
    }

    #[test]
    fn the_old_content_is_never_lost() {
        assert_eq!(check(false, true), 1);
        assert_eq!(check(false, false), 3);
        let each_name_and_two_of_the_directories = 8;
        assert_eq!(check(true, true), each_name_and_two_of_the_directories);
    }

    #[test]
    fn one_replaces_a_root_at_a_time() {
        let (_ground, _, root) = ground(true);
        let held = lock(&root).expect("locks");
        assert!(held.is_some() && lock(&root).expect("tries").is_none());
        drop(held);
        assert!(lock(&root).expect("locks").is_some());
    }
}
