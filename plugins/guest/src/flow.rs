//! Bulk bytes that never enter the sandbox: the plugin says what goes where, the host moves it.

use crate::artifacts::Artifact;
use crate::bindings::flow::streams;
use crate::containers::Program;
use crate::objects::Access;
use crate::{Error, stage};
use serde::{Deserialize, Serialize};

/// Where bytes come from. Nothing is read before [`copy`].
pub struct Source(streams::Source);

/// Where bytes go. Nothing is visible there until [`copy`] has succeeded.
pub struct Sink(streams::Sink);

/// What happens on the way.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Options {
    /// `zstd` or `gzip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compress: Option<String>,
    /// `zstd` or `gzip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decompress: Option<String>,
    /// The compression level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<u32>,
    /// `sha256:<hex>` of the bytes read; with another digest nothing is published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// Replace what is there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// A file to make in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileOptions {
    /// Its name.
    pub file: String,
    /// Its permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u64,
    /// Its group.
    pub gid: u64,
}

/// What was moved.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Copied {
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// The digest of what was read, as the host writes it.
    pub sha256_in: String,
    /// The digest of what was written.
    pub sha256_out: String,
    /// The exit status of the program that made the bytes.
    #[serde(default)]
    pub source_exit: Option<i32>,
    /// The artifact they went to.
    #[serde(default)]
    pub artifact: Option<Artifact>,
}

/// Moves everything, or publishes nothing.
pub fn copy(from: Source, to: Sink, options: &Options) -> Result<Copied, Error> {
    let options = serde_json::to_string(options).expect("options are plain values");
    stage::read(&streams::copy(from.0, to.0, &options)?)
}

impl Source {
    /// One file, by guest path.
    pub fn file(path: &str) -> Result<Self, Error> {
        Ok(Self(streams::Source::file(path)?))
    }

    /// A directory as a reproducible tar stream.
    pub fn directory(path: &str) -> Result<Self, Error> {
        Ok(Self(streams::Source::directory(path)?))
    }

    /// A consistent snapshot of a SQLite database.
    pub fn sqlite(url: &str) -> Result<Self, Error> {
        Ok(Self(streams::Source::sqlite(url)?))
    }

    /// An artifact.
    pub fn artifact(reference: &str) -> Result<Self, Error> {
        Ok(Self(streams::Source::artifact(reference)?))
    }

    /// What a program in a running container writes to its standard output. Its `input` and `log` mean nothing here.
    pub fn exec(container: &str, program: &Program) -> Result<Self, Error> {
        let options = program.stream_options();
        Ok(Self(streams::Source::exec(container, &program.argv, &options)?))
    }

    /// A path of a container as a tar stream.
    pub fn container(container: &str, path: &str) -> Result<Self, Error> {
        Ok(Self(streams::Source::container(container, path, "")?))
    }

    /// The bytes of one file of a container.
    pub fn container_file(container: &str, path: &str) -> Result<Self, Error> {
        Ok(Self(streams::Source::container(
            container,
            path,
            r#"{"file":true}"#,
        )?))
    }

    /// An object of a bucket, `s3://<bucket>/<key>`.
    pub fn object(url: &str, access: &Access) -> Result<Self, Error> {
        Ok(Self(streams::Source::object(url, &access.text())?))
    }

    /// Bytes of the plugin, at most 1 MiB.
    pub fn bytes(data: &[u8]) -> Result<Self, Error> {
        Ok(Self(streams::Source::bytes(data)?))
    }
}

impl Sink {
    /// A new artifact of this stage.
    pub fn artifact(name: &str, media_type: &str) -> Result<Self, Error> {
        Ok(Self(streams::Sink::artifact(name, media_type)?))
    }

    /// One file, replaced as a whole.
    pub fn file(path: &str) -> Result<Self, Error> {
        Ok(Self(streams::Sink::file(path)?))
    }

    /// A directory, from a tar stream.
    pub fn directory(path: &str) -> Result<Self, Error> {
        Ok(Self(streams::Sink::directory(path)?))
    }

    /// A SQLite database, from a snapshot.
    pub fn sqlite(url: &str) -> Result<Self, Error> {
        Ok(Self(streams::Sink::sqlite(url)?))
    }

    /// The standard input of a program in a running container.
    pub fn exec(container: &str, program: &Program) -> Result<Self, Error> {
        let options = program.stream_options();
        Ok(Self(streams::Sink::exec(container, &program.argv, &options)?))
    }

    /// A directory of a container, from a tar stream.
    pub fn container(container: &str, path: &str) -> Result<Self, Error> {
        Ok(Self(streams::Sink::container(container, path, "")?))
    }

    /// One file in a directory of a container, from its bytes.
    pub fn container_file(container: &str, directory: &str, file: &FileOptions) -> Result<Self, Error> {
        let options = serde_json::to_string(file).expect("options are plain values");
        Ok(Self(streams::Sink::container(container, directory, &options)?))
    }

    /// An object of a bucket, replaced as a whole.
    pub fn object(url: &str, access: &Access) -> Result<Self, Error> {
        Ok(Self(streams::Sink::object(url, &access.text())?))
    }

    /// Nowhere: to count and digest only.
    pub fn discard() -> Self {
        Self(streams::Sink::discard())
    }
}
