//! Bulk bytes that never enter the sandbox: the plugin says what goes where, the host moves it.

use crate::artifacts::Artifact;
use crate::bindings::flow::streams;
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

    /// Nowhere: to count and digest only.
    pub fn discard() -> Self {
        Self(streams::Sink::discard())
    }
}
