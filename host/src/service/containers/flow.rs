//! Bulk bytes into and out of containers, for `windlass:flow`: a program's streams, and paths. Called on a thread that may block; the engine's streams
//! are waited for there.

use super::{
    Caller, client,
    exec::{Options, Started},
    inspect, names, spec,
};
use crate::{
    capability::{Capability, Leaves},
    event::LogLevel,
    failure::{Failure, Turn},
    service::capture::Capture,
};
use bollard::{
    body_try_stream,
    container::LogOutput,
    query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder},
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::{
    io::{self, Read},
    pin::Pin,
    time::Duration,
};
use tokio::{io::AsyncWriteExt, runtime::Handle};

/// Bytes moved at a time.
const CHUNK: usize = 256 << 10;
/// Without a limit of its own a program has until the stage's deadline.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A program in a container, or a path: named and granted, not touched yet.
pub struct Inside {
    caller: Caller,
    id: String,
    container: String,
    what: What,
}

enum What {
    Program { argv: Vec<String>, options: Options },
    Path { path: String, file: Option<File> },
}

/// One file, as its bytes.
#[derive(Clone, Debug)]
struct File {
    name: String,
    mode: u32,
    uid: u64,
    gid: u64,
}

/// Of a source.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct OfSource {
    file: bool,
}

/// Of a sink.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct OfSink {
    file: Option<String>,
    mode: u32,
    uid: u64,
    gid: u64,
}

impl Default for OfSink {
    fn default() -> Self {
        Self {
            file: None,
            mode: 0o644,
            uid: 0,
            gid: 0,
        }
    }
}

impl Inside {
    /// # Errors
    /// As `run` of `windlass:containers/exec`.
    pub(crate) async fn program(
        caller: Caller,
        container: &str,
        argv: Vec<String>,
        options: &str,
    ) -> Result<Self, Failure> {
        let options: Options = spec::parse("the options of the program", "exec.options", or_empty(options))?;
        if argv.first().is_none_or(String::is_empty) {
            return Err(Failure::new(
                Turn::Plugin,
                "exec.options",
                "the argument list names no program",
            ));
        }
        let (id, name) = caller.enterable(container).await?;
        Ok(Self {
            caller,
            id,
            container: name,
            what: What::Program { argv, options },
        })
    }

    /// What a program that says so may do twice is no effect of its own.
    pub(crate) fn leaves(&self) -> Leaves {
        match &self.what {
            What::Program { options, .. } if options.repeatable => Leaves::Nothing,
            _ => Leaves::State,
        }
    }

    /// # Errors
    /// `container.missing`, `container.foreign`, `file.path`, `grant.denied`.
    pub(crate) async fn path(
        caller: Caller,
        container: &str,
        path: String,
        options: &str,
        is_source: bool,
    ) -> Result<Self, Failure> {
        let is_plain = path.starts_with('/') && !path.split('/').any(|part| part == "..");
        if !is_plain {
            let message = format!("`{path}` is no plain absolute path in a container");
            return Err(Failure::new(Turn::Plugin, "file.path", message));
        }
        let file = match is_source {
            true => spec::parse::<OfSource>("the options of the source", "flow.options", or_empty(options))?
                .file
                .then(|| {
                    File::of(
                        path.rsplit('/').next().unwrap_or_default().into(),
                        &OfSink::default(),
                    )
                }),
            false => {
                let options: OfSink =
                    spec::parse("the options of the sink", "flow.options", or_empty(options))?;
                options.file.clone().map(|name| File::of(name, &options))
            }
        };
        if file
            .as_ref()
            .is_some_and(|file| file.name.is_empty() || file.name.contains('/'))
        {
            return Err(Failure::new(
                Turn::Plugin,
                "file.path",
                "a file's name is one part of a path",
            ));
        }
        let found = caller.find(container).await?;
        caller
            .granter
            .check(Capability::ContainersExec, &names::owner(&found)?.pattern())?;
        let name = inspect::to_json(&found)["name"]
            .as_str()
            .unwrap_or_default()
            .to_string();
        Ok(Self {
            caller,
            id: found.id.unwrap_or_else(|| container.into()),
            container: name,
            what: What::Path { path, file },
        })
    }

    /// For the journal.
    pub(crate) fn name(&self) -> Json {
        match &self.what {
            What::Program { argv, .. } => {
                let argv: Vec<String> = argv.iter().map(|word| self.caller.describe(word)).collect();
                json!({ "container": self.container, "argv": argv })
            }
            What::Path { path, file } => {
                json!({ "container": self.container, "path": path, "file": file.as_ref().map(|file| &file.name) })
            }
        }
    }

    /// Gives everything to `take`, piece by piece.
    pub(crate) fn pour(&self, take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        let handle = Handle::current();
        match &self.what {
            What::Program { argv, options } => handle.block_on(self.run(argv, options, None, take)),
            What::Path { path, file } => {
                let download = DownloadFromContainerOptionsBuilder::default().path(path).build();
                let docker = handle.block_on(self.caller.docker())?;
                let stream = docker.download_from_container(&self.id, Some(download));
                let mut reader = Pieces {
                    handle,
                    stream: Box::pin(stream.map(|piece| piece.map_err(io::Error::other))),
                    piece: Bytes::new(),
                };
                let poured = match file {
                    Some(_) => first_file(&mut reader, path, take),
                    None => {
                        pump(&mut reader, take).map_err(|error| error.or(|error| unreadable(path, &error)))
                    }
                };
                poured.map_err(|failure| self.sharpened(failure, path))
            }
        }
    }

    /// The engine says only in words that a path is not there.
    fn sharpened(&self, failure: Failure, path: &str) -> Failure {
        let is_missing = failure.code == "flow.source-failed" && failure.message.contains("404");
        match is_missing {
            true => missing(&self.container, path),
            false => failure,
        }
    }

    /// Hands over what was set aside.
    pub(crate) fn put(&self, mut file: std::fs::File) -> Result<(), Failure> {
        let handle = Handle::current();
        match &self.what {
            What::Program { argv, options } => {
                handle.block_on(self.run(argv, options, Some(&mut file), &mut |_| Ok(())))
            }
            What::Path { path, file: None } => handle.block_on(self.upload(path, file)),
            What::Path {
                path,
                file: Some(name),
            } => {
                let packed = name
                    .pack(&mut file)
                    .map_err(|error| crate::artifact::storage_failed("the copy cannot be packed", &error))?;
                handle.block_on(self.upload(path, packed))
            }
        }
    }

    async fn upload(&self, path: &str, mut file: std::fs::File) -> Result<(), Failure> {
        let pieces = futures::stream::poll_fn(move |_| {
            let mut piece = vec![0; CHUNK];
            std::task::Poll::Ready(match file.read(&mut piece) {
                Ok(0) => None,
                Ok(count) => {
                    piece.truncate(count);
                    Some(Ok(Bytes::from(piece)))
                }
                Err(error) => Some(Err(error)),
            })
        });
        let options = UploadToContainerOptionsBuilder::default().path(path).build();
        let docker = self.caller.docker().await?.clone().with_timeout(LONGEST);
        let uploaded = docker.upload_to_container(&self.id, Some(options), body_try_stream(pieces));
        tokio::select! {
            biased;
            failure = self.caller.patience.ended() => Err(failure),
            uploaded = uploaded => uploaded.map_err(|error| match client::status(&error) {
                Some(404) => missing(&self.container, path),
                _ => self.caller.failure(&format!("copy into `{}`", self.container), &error),
            }),
        }
    }

    async fn run(
        &self,
        argv: &[String],
        options: &Options,
        input: Option<&mut std::fs::File>,
        take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let timeout = options.timeout_ms.map_or(LONGEST, Duration::from_millis);
        tokio::select! {
            biased;
            failure = self.caller.patience.ended() => Err(failure),
            ran = tokio::time::timeout(timeout, self.piped(argv, options, input, take)) => ran.unwrap_or_else(|_| {
                let message = format!("`{}` in `{}` did not end in time", argv[0], self.container);
                Err(Failure::new(Turn::Environment, "exec.timeout", message))
            }),
        }
    }

    async fn piped(
        &self,
        argv: &[String],
        options: &Options,
        input: Option<&mut std::fs::File>,
        take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let caller = &self.caller;
        let is_sink = input.is_some();
        let started = caller
            .started(&self.id, &self.container, argv, options, is_sink)
            .await?;
        let Started {
            exec,
            mut output,
            input: mut pipe,
        } = started;
        let words = caller.words();
        let mut stderr = Capture::new(&caller.log, LogLevel::Warn, &words);
        // What a sink's program writes is for people; what a source's program writes is the data.
        let mut stdout = match is_sink {
            true => Capture::new(&caller.log, LogLevel::Info, &words),
            false => Capture::silent(&words),
        };
        let feed = async {
            let Some(file) = input else { return Ok(()) };
            let mut piece = vec![0; CHUNK];
            loop {
                let count = file.read(&mut piece)?;
                // A program may end without reading all: its status says how it fared.
                if count == 0
                    || pipe
                        .write_all(piece.get(..count).unwrap_or_default())
                        .await
                        .is_err()
                {
                    break;
                }
            }
            let _ = pipe.shutdown().await;
            Ok::<_, io::Error>(())
        };
        let read = async {
            while let Some(piece) = output.next().await {
                let piece = piece.map_err(|error| {
                    caller.failure(&format!("read from a program in `{}`", self.container), &error)
                })?;
                match piece {
                    LogOutput::StdErr { message } => stderr.push(&message).await,
                    other if is_sink => stdout.push(other.as_ref()).await,
                    other => take(other.as_ref())?,
                }
            }
            Ok::<_, Failure>(())
        };
        let (fed, read) = tokio::join!(feed, read);
        read?;
        fed.map_err(|error| crate::artifact::storage_failed("the copy cannot be read", &error))?;
        let exit = caller.exit_of(&exec, &self.container).await?;
        let said = (stdout.finish().await, stderr.finish().await);
        if exit == 0 {
            return Ok(());
        }
        let code = if is_sink {
            "target.failed"
        } else {
            "flow.source-failed"
        };
        let last = if said.1.trim().is_empty() {
            &said.0
        } else {
            &said.1
        };
        let last: Vec<&str> = last.trim().lines().rev().take(10).collect();
        let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
        let message = format!("`{}` in `{}` ended with {exit}: {last}", argv[0], self.container);
        Err(Failure::new(Turn::Environment, code, message).details(json!({ "exit": exit, "stderr": said.1 })))
    }
}

impl File {
    fn of(name: String, options: &OfSink) -> Self {
        Self {
            name,
            mode: options.mode & 0o7777,
            uid: options.uid,
            gid: options.gid,
        }
    }

    /// As the archive with which an engine takes a file.
    fn pack(&self, file: &mut std::fs::File) -> io::Result<std::fs::File> {
        use std::io::Seek;
        let mut header = tar::Header::new_gnu();
        header.set_mode(self.mode);
        header.set_uid(self.uid);
        header.set_gid(self.gid);
        header.set_size(file.metadata()?.len());
        let mut archive = tar::Builder::new(anonymous_file()?);
        archive.append_data(&mut header, &self.name, file)?;
        let mut packed = archive.into_inner()?;
        packed.rewind()?;
        Ok(packed)
    }
}

/// A file without a name, gone with its handle.
fn anonymous_file() -> io::Result<std::fs::File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)?;
    Ok(file.into())
}

fn or_empty(options: &str) -> &str {
    if options.is_empty() { "{}" } else { options }
}

fn missing(container: &str, path: &str) -> Failure {
    let message = format!("there is no `{path}` in `{container}`");
    Failure::new(Turn::PipelineAuthor, "file.missing", message)
}

fn unreadable(path: &str, error: &io::Error) -> Failure {
    let message = format!("`{path}` cannot be read: {error}");
    Failure::new(Turn::Environment, "flow.source-failed", message)
}

/// What the other side says, or what reading says.
enum Ended {
    Taken(Failure),
    Read(io::Error),
}

impl Ended {
    fn or(self, read: impl FnOnce(io::Error) -> Failure) -> Failure {
        match self {
            Self::Taken(failure) => failure,
            Self::Read(error) => read(error),
        }
    }
}

fn pump(from: &mut impl Read, take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Ended> {
    let mut piece = vec![0; CHUNK];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => take(piece.get(..count).unwrap_or_default()).map_err(Ended::Taken)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Ended::Read(error)),
        }
    }
}

/// The one file of an archive.
fn first_file(
    from: &mut impl Read,
    path: &str,
    take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let unreadable = |error: io::Error| unreadable(path, &error);
    let mut archive = tar::Archive::new(from);
    let mut entries = archive.entries().map_err(unreadable)?;
    let Some(entry) = entries.next() else {
        return Err(unreadable(io::Error::from(io::ErrorKind::UnexpectedEof)));
    };
    let mut entry = entry.map_err(unreadable)?;
    if !entry.header().entry_type().is_file() {
        let message = format!("`{path}` is no file");
        return Err(Failure::new(Turn::PipelineAuthor, "file.missing", message));
    }
    let size = entry.header().size().map_err(unreadable)?;
    let mut count = 0;
    let mut counted = |piece: &[u8]| {
        count += piece.len() as u64;
        take(piece)
    };
    pump(&mut entry, &mut counted).map_err(|ended| ended.or(unreadable))?;
    match count == size {
        true => Ok(()),
        false => Err(unreadable(io::Error::from(io::ErrorKind::UnexpectedEof))),
    }
}

/// A stream, read by a thread that waits for it.
struct Pieces<'a> {
    handle: Handle,
    stream: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + 'a>>,
    piece: Bytes,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.handle.block_on(self.stream.next()) {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = self.piece.len().min(buffer.len());
        let taken = self.piece.split_to(count);
        if let Some(place) = buffer.get_mut(..count) {
            place.copy_from_slice(&taken);
        }
        Ok(count)
    }
}
