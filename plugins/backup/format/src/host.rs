//! What backing up and restoring need from outside, and the sandbox's own answer to it.
//!
//! Small files and directory listings go through the standard library; everything big moves on the host's side.

use std::time::{SystemTime, UNIX_EPOCH};

use windlass_guest::containers::Program;
use windlass_guest::flow::{self, Copied, FileOptions, Options};
use windlass_guest::objects::{self, Access, Deletion, Listed};
use windlass_guest::sql::{self, Rows};
use windlass_guest::{Error, context, log};

use crate::engine::Engine;

/// Where bytes come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Source<'a> {
    File(&'a str),
    Directory(&'a str),
    Sqlite(&'a str),
    Bytes(&'a [u8]),
    /// What a program in a container writes.
    Program {
        container: &'a str,
        program: &'a Program,
    },
    /// A path in a container, as a tar stream.
    Inside {
        container: &'a str,
        path: &'a str,
    },
    /// An object of a bucket.
    Object {
        url: &'a str,
        access: &'a Access,
    },
}

/// Where bytes go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sink<'a> {
    File(&'a str),
    Directory(&'a str),
    Sqlite(&'a str),
    /// The input of a program in a container.
    Program {
        container: &'a str,
        program: &'a Program,
    },
    /// A directory of a container, from a tar stream.
    Inside {
        container: &'a str,
        path: &'a str,
    },
    /// One file of a container, with its owner.
    FileInside {
        container: &'a str,
        path: &'a str,
        owner: (u32, u32),
    },
    /// An object of a bucket.
    Object {
        url: &'a str,
        access: &'a Access,
    },
    /// To count and digest only.
    Nowhere,
}

/// The world around a stage.
pub trait Host: Engine {
    /// Moves everything or publishes nothing. Digests in the answer are `sha256:<hex>`.
    ///
    /// # Errors
    /// Those of `windlass:flow/streams`.
    fn copy(&mut self, from: Source<'_>, to: Sink<'_>, options: &Options) -> Result<Copied, Error>;

    /// The objects below a prefix, in the order of their keys.
    ///
    /// # Errors
    /// `object.*`
    fn objects(&mut self, prefix: &str, access: &Access) -> Result<Vec<Listed>, Error>;

    /// Deletes an object that no backup needs any more. One that is not there is fine.
    ///
    /// # Errors
    /// `object.*`
    fn delete(&mut self, url: &str, access: &Access) -> Result<(), Error>;

    /// One reading statement on a connection of its own.
    ///
    /// # Errors
    /// `sql.*`
    fn query(&mut self, url: &str, statement: &str) -> Result<Rows, Error>;

    fn pipeline(&mut self) -> String;
    fn stage(&mut self) -> String;
    fn run_id(&mut self) -> String;

    /// Seconds since 1970. For information and for retention, never for names.
    fn now(&mut self) -> u64;

    fn info(&mut self, message: &str);
    fn warn(&mut self, message: &str);
    fn is_cancelled(&mut self) -> bool;

    /// The private directory of this attempt, without a `/` at its end.
    fn scratch(&mut self) -> String;
}

/// The capabilities of the sandbox.
pub struct Sandbox;

impl Host for Sandbox {
    fn copy(&mut self, from: Source<'_>, to: Sink<'_>, options: &Options) -> Result<Copied, Error> {
        let from = match from {
            Source::File(path) => flow::Source::file(path)?,
            Source::Directory(path) => flow::Source::directory(path)?,
            Source::Sqlite(url) => flow::Source::sqlite(url)?,
            Source::Bytes(bytes) => flow::Source::bytes(bytes)?,
            Source::Program { container, program } => flow::Source::exec(container, program)?,
            Source::Inside { container, path } => flow::Source::container(container, path)?,
            Source::Object { url, access } => flow::Source::object(url, access)?,
        };
        let to = match to {
            Sink::File(path) => flow::Sink::file(path)?,
            Sink::Directory(path) => flow::Sink::directory(path)?,
            Sink::Sqlite(url) => flow::Sink::sqlite(url)?,
            Sink::Program { container, program } => flow::Sink::exec(container, program)?,
            Sink::Inside { container, path } => flow::Sink::container(container, path)?,
            Sink::FileInside {
                container,
                path,
                owner,
            } => file_in(container, path, owner)?,
            Sink::Object { url, access } => flow::Sink::object(url, access)?,
            Sink::Nowhere => flow::Sink::discard(),
        };
        let mut copied = flow::copy(from, to, options)?;
        copied.sha256_in = prefixed(copied.sha256_in);
        copied.sha256_out = prefixed(copied.sha256_out);
        Ok(copied)
    }

    fn objects(&mut self, prefix: &str, access: &Access) -> Result<Vec<Listed>, Error> {
        objects::list(prefix, access)
    }

    fn delete(&mut self, url: &str, access: &Access) -> Result<(), Error> {
        // What keeps a backup is that nobody deletes it: whoever does has another.
        let deletion = Deletion {
            is_additive: true,
            ..Deletion::default()
        };
        objects::delete(url, access, &deletion).map(drop)
    }

    fn query(&mut self, url: &str, statement: &str) -> Result<Rows, Error> {
        let options = sql::Options {
            read_only: true,
            ..sql::Options::default()
        };
        sql::open(url, &options)?.query(statement, &[])
    }

    fn pipeline(&mut self) -> String {
        context::pipeline()
    }

    fn stage(&mut self) -> String {
        context::stage()
    }

    fn run_id(&mut self) -> String {
        context::run_id()
    }

    fn now(&mut self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }

    fn info(&mut self, message: &str) {
        log::info(message);
    }

    fn warn(&mut self, message: &str) {
        log::warn(message);
    }

    fn is_cancelled(&mut self) -> bool {
        context::is_cancelled()
    }

    fn scratch(&mut self) -> String {
        "/tmp".to_owned()
    }
}

/// One file in a container that only its owner reads.
fn file_in(container: &str, path: &str, owner: (u32, u32)) -> Result<flow::Sink, Error> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let directory = if directory.is_empty() { "/" } else { directory };
    let file = FileOptions {
        file: name.to_owned(),
        mode: 0o600,
        uid: owner.0.into(),
        gid: owner.1.into(),
    };
    flow::Sink::container_file(container, directory, &file)
}

/// A digest with its algorithm in front, whether the host wrote that or not.
fn prefixed(digest: String) -> String {
    if digest.starts_with("sha256:") {
        digest
    } else {
        format!("sha256:{digest}")
    }
}

/// # Errors
/// `cancelled`, once the run wants this stage to end.
pub fn check_cancelled(host: &mut dyn Host) -> Result<(), Error> {
    if host.is_cancelled() {
        return Err(Error::new("cancelled", "the run wants this stage to end").retryable());
    }
    Ok(())
}
