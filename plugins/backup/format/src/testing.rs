//! A host of real files and real SQLite databases, and of a service and a bucket in memory, with faults to order. For tests of the plugins only.
//!
//! Compression is a mark in front of the bytes: enough to see that it was asked for and undone.

pub mod service;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use windlass_guest::Error;
use windlass_guest::flow::{Copied, Options};
use windlass_guest::objects::{Access, Listed};
use windlass_guest::sql::Rows;

use crate::host::{Host, Sink, Source};

/// The run all tests start in.
pub const RUN: &str = "01kb0q4z3mv8w5s2tq6n9d7xce";

/// A machine of its own, in a temporary directory.
pub struct Machine {
    place: tempfile::TempDir,
    pub run: String,
    pub stage: String,
    pub now: u64,
    /// What was said.
    pub lines: Vec<String>,
    /// What was moved, as `file A -> sqlite B`.
    pub moves: Vec<String>,
    /// The first move whose description holds the text fails so.
    pub fault: Option<(String, Error)>,
    /// A letter of whatever a move that holds the text writes is changed on the way, as a bad disk does.
    pub rot: Option<String>,
    pub cancelled: bool,
    pub service: service::Service,
    /// Every object by its URL, and when it was written.
    pub objects: BTreeMap<String, (Vec<u8>, u64)>,
    /// With which keys buckets were asked.
    pub access: Option<Access>,
}

impl Machine {
    /// # Panics
    /// When there is no room for tests.
    pub fn new() -> Self {
        let place = tempfile::tempdir().expect("there is a temporary directory");
        fs::create_dir(place.path().join("scratch")).expect("it can be written to");
        Self {
            place,
            run: RUN.to_owned(),
            stage: "backup".to_owned(),
            now: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            lines: Vec::new(),
            moves: Vec::new(),
            fault: None,
            rot: None,
            cancelled: false,
            service: service::Service::default(),
            objects: BTreeMap::new(),
            access: None,
        }
    }

    /// A path of this machine.
    pub fn at(&self, path: &str) -> String {
        self.place.path().join(path).to_string_lossy().into_owned()
    }

    /// # Panics
    /// When it cannot.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.place.path().join(path);
        fs::create_dir_all(path.parent().expect("it is in the machine's directory")).expect("it can be made");
        fs::write(path, text).expect("it can be written");
    }

    /// Makes a database with these statements and answers its URL.
    ///
    /// # Panics
    /// When it cannot.
    pub fn database(&self, path: &str, statements: &str) -> String {
        let path = self.at(path);
        let connection = rusqlite::Connection::open(&path).expect("it can be made");
        connection
            .execute_batch(statements)
            .expect("the statements are right");
        format!("sqlite://{path}")
    }

    fn fault_of(&mut self, what: &str) -> Option<Error> {
        if self.fault.as_ref().is_none_or(|(text, _)| !what.contains(text)) {
            return None;
        }
        self.fault.take().map(|(_, error)| error)
    }

    /// Names in a directory, sorted.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn read(&mut self, from: Source<'_>) -> Result<Vec<u8>, Error> {
        let missing = |path: &str| Error::new("file.missing", format!("there is no {path}"));
        match from {
            Source::File(path) => fs::read(path).map_err(|_| missing(path)),
            Source::Bytes(bytes) => Ok(bytes.to_vec()),
            Source::Program { program, .. } => self.service.output_of(program),
            Source::Object { url, access } => {
                self.access = Some(access.clone());
                let found = self.objects.get(url).map(|(bytes, _)| bytes.clone());
                found.ok_or_else(|| Error::new("object.missing", format!("there is no {url}")))
            }
            Source::Inside { path, .. } => Ok(json!(self.service.below(path)).to_string().into_bytes()),
            Source::Sqlite(url) => {
                fs::read(file_of(url)).map_err(|_| Error::new("sql.missing", "there is no such database"))
            }
            Source::Directory(path) => {
                let mut files = BTreeMap::new();
                pack(Path::new(path), "", &mut files).map_err(|_| missing(path))?;
                Ok(json!(files).to_string().into_bytes())
            }
        }
    }

    fn store(&mut self, to: Sink<'_>, bytes: &[u8], replace: bool) -> Result<(), Error> {
        let failed = |error: std::io::Error| Error::new("storage.failed", error.to_string());
        let corrupt = || Error::new("flow.corrupt", "the stream is not what it should be");
        let occupied = || Error::new("target.not-empty", "there is something already");
        match to {
            Sink::Nowhere => Ok(()),
            Sink::Program { program, .. } => self.service.input_of(program, bytes),
            Sink::FileInside { path, .. } => {
                let text = String::from_utf8_lossy(bytes).into_owned();
                self.service.files.insert(path.to_owned(), text);
                Ok(())
            }
            Sink::Inside { path, .. } => {
                let files: BTreeMap<String, String> = serde_json::from_slice(bytes).map_err(|_| corrupt())?;
                let name = |rest: String| format!("{path}/uploads/{rest}");
                self.service
                    .files
                    .extend(files.into_iter().map(|(rest, text)| (name(rest), text)));
                Ok(())
            }
            Sink::File(path) => fs::write(path, bytes).map_err(failed),
            Sink::Object { url, access } => {
                self.access = Some(access.clone());
                self.objects.insert(url.to_owned(), (bytes.to_vec(), self.now));
                Ok(())
            }
            Sink::Sqlite(url) => {
                let path = file_of(url);
                if !bytes.starts_with(b"SQLite format 3\0") {
                    return Err(corrupt());
                }
                if !replace && Path::new(path).exists() {
                    return Err(occupied());
                }
                fs::write(path, bytes).map_err(failed)
            }
            Sink::Directory(path) => {
                let files: BTreeMap<String, String> = serde_json::from_slice(bytes).map_err(|_| corrupt())?;
                if fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
                    if !replace {
                        return Err(occupied());
                    }
                    fs::remove_dir_all(path).map_err(failed)?;
                }
                fs::create_dir_all(path).map_err(failed)?;
                for (name, text) in files {
                    let file = Path::new(path).join(name);
                    file.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
                    fs::write(file, text).map_err(failed)?;
                }
                Ok(())
            }
        }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Host for Machine {
    fn copy(&mut self, from: Source<'_>, to: Sink<'_>, options: &Options) -> Result<Copied, Error> {
        let from_words = match from {
            Source::Object { url, .. } => format!("object {url}"),
            from => describe(format!("{from:?}")),
        };
        let to_words = match to {
            Sink::Object { url, .. } => format!("object {url}"),
            to => describe(format!("{to:?}")),
        };
        let what = format!("{from_words} -> {to_words}");
        self.moves.push(what.clone());
        if let Some(error) = self.fault_of(&what) {
            return Err(error);
        }
        let read = self.read(from)?;
        if options
            .expect
            .as_ref()
            .is_some_and(|digest| *digest != sha256(&read))
        {
            return Err(Error::new("flow.digest", "the bytes have another digest"));
        }
        let marks = |name: &Option<String>| name.as_ref().map(|name| format!("{name}:").into_bytes());
        let mut written = match (marks(&options.compress), marks(&options.decompress)) {
            (Some(mark), _) => [mark, read.clone()].concat(),
            (None, Some(mark)) => match read.strip_prefix(mark.as_slice()) {
                Some(plain) => plain.to_vec(),
                None => return Err(Error::new("flow.corrupt", "the stream is not compressed")),
            },
            (None, None) => read.clone(),
        };
        let copied = Copied {
            bytes_in: read.len() as u64,
            bytes_out: written.len() as u64,
            sha256_in: sha256(&read),
            sha256_out: sha256(&written),
            source_exit: None,
            artifact: None,
        };
        if self.rot.as_ref().is_some_and(|text| what.contains(text)) {
            // A letter: the stream keeps its form, only what it says is wrong.
            written
                .iter_mut()
                .rev()
                .find(|byte| byte.is_ascii_alphanumeric())
                .into_iter()
                .for_each(|byte| *byte ^= 1);
        }
        self.store(to, &written, options.replace)?;
        Ok(copied)
    }

    fn objects(&mut self, prefix: &str, access: &Access) -> Result<Vec<Listed>, Error> {
        self.access = Some(access.clone());
        if let Some(error) = self.fault_of(&format!("list {prefix}")) {
            return Err(error);
        }
        let below = format!("{prefix}/");
        let found = self.objects.iter().filter(|(url, _)| url.starts_with(&below));
        let listed = found.map(|(url, (bytes, modified))| Listed {
            url: url.clone(),
            size: bytes.len() as u64,
            modified: *modified,
        });
        Ok(listed.collect())
    }

    fn delete(&mut self, url: &str, access: &Access) -> Result<(), Error> {
        self.access = Some(access.clone());
        if let Some(error) = self.fault_of(&format!("delete {url}")) {
            return Err(error);
        }
        self.objects.remove(url);
        Ok(())
    }

    fn query(&mut self, url: &str, statement: &str) -> Result<Rows, Error> {
        let path = file_of(url);
        if !Path::new(path).exists() {
            return Err(Error::new("sql.missing", "there is no such database"));
        }
        let failed = |error: rusqlite::Error| Error::new("sql.failed", error.to_string());
        let connection = rusqlite::Connection::open(path).map_err(failed)?;
        let mut prepared = connection.prepare(statement).map_err(failed)?;
        let mut rows = prepared.query([]).map_err(failed)?;
        let mut answer = Rows::default();
        while let Some(row) = rows.next().map_err(failed)? {
            let value = match row.get_ref(0).map_err(failed)? {
                rusqlite::types::ValueRef::Integer(number) => json!(number),
                other => json!(other.as_str().unwrap_or_default()),
            };
            answer.rows.push(vec![value]);
        }
        Ok(answer)
    }

    fn pipeline(&mut self) -> String {
        "team".to_owned()
    }

    fn stage(&mut self) -> String {
        self.stage.clone()
    }

    fn run_id(&mut self) -> String {
        self.run.clone()
    }

    fn now(&mut self) -> u64 {
        self.now
    }

    fn info(&mut self, message: &str) {
        self.lines.push(message.to_owned());
    }

    fn warn(&mut self, message: &str) {
        self.lines.push(format!("warning: {message}"));
    }

    fn is_cancelled(&mut self) -> bool {
        self.cancelled
    }

    fn scratch(&mut self) -> String {
        self.at("scratch")
    }
}

/// `File("/a/b")` as `file /a/b`.
fn describe(debug: String) -> String {
    debug.replace("(\"", " ").replace("\")", "").to_lowercase()
}

fn file_of(url: &str) -> &str {
    url.strip_prefix("sqlite://").unwrap_or(url)
}

fn pack(directory: &Path, prefix: &str, files: &mut BTreeMap<String, String>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            pack(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.insert(name, fs::read_to_string(entry.path())?);
        }
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}
