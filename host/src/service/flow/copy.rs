//! One copy on a thread that may block: source → digest → (de)compression → digest → aside, and from there in its place.

use super::{
    sink::{Aside, Filling, Ready, Sink},
    source::{Bounded, Digested, Source},
    stop::{Stop, uncarry},
};
use crate::{
    artifact::Artifact,
    failure::{Failure, Turn},
    service::objects::flow::Label,
};
use cap_std::fs::Dir;
use flate2::write::{GzDecoder, GzEncoder};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Write},
    sync::Arc,
};
use zstd::stream::{raw, write::Encoder, zio};

/// Decompressing may give this much without asking ...
const FREE: u64 = 1 << 30;

/// ... and this many bytes for each byte read: gzip cannot do more than 1,032, real data is far below.
const RATIO: u64 = 1_100;

/// What happens on the way.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Options {
    pub(super) compress: Option<Codec>,
    pub(super) decompress: Option<Codec>,
    pub(super) level: Option<i32>,
    pub(super) expect: Option<String>,
    pub(super) replace: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Codec {
    Zstd,
    Gzip,
}

/// What was moved.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Copied {
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) sha256_in: String,
    pub(super) sha256_out: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) artifact: Option<Artifact>,
}

impl Options {
    /// # Errors
    /// `flow.options`.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let text = if text.is_empty() { "{}" } else { text };
        let options: Self = serde_json::from_str(text).map_err(|_| {
            refused("they take `compress`, `decompress` (zstd or gzip), `level`, `expect` and `replace`")
        })?;
        if options.compress.is_some() && options.decompress.is_some() {
            return Err(refused("`compress` and `decompress` exclude each other"));
        }
        if options.level.is_some_and(|level| !(0..=22).contains(&level)) {
            return Err(refused("`level` is 0 to 22"));
        }
        Ok(options)
    }
}

fn refused(problem: &str) -> Failure {
    Failure::new(
        Turn::Plugin,
        "flow.options",
        format!("the options of the copy are not valid: {problem}"),
    )
}

/// What a copy has set aside.
pub(super) struct Prepared {
    ready: Ready,
    replace: bool,
    copied: Copied,
}

impl Prepared {
    /// How to find out about it after a crash, where that is possible.
    pub(super) fn aside(&self) -> Option<(Aside, &Copied)> {
        let aside = self.ready.aside(&self.copied.sha256_out)?;
        Some((aside, &self.copied))
    }

    /// Puts it in its place.
    pub(super) fn put(self, stop: &Stop) -> Result<Copied, Failure> {
        stop.check()?;
        let artifact = self.ready.put(self.replace, stop)?;
        Ok(Copied {
            artifact,
            ..self.copied
        })
    }
}

/// Moves everything to beside its place; nothing is seen of it there yet.
pub(super) fn prepare(
    from: &Source,
    to: Sink,
    options: &Options,
    scratch: &Arc<Dir>,
    key: &str,
    stop: &Stop,
) -> Result<Prepared, Failure> {
    let out = Digested::new(to.open(scratch, options.replace)?);
    let transform = Transform::new(out, options).map_err(|error| stop.write_failed(error))?;
    let mut input = Digested::new(transform);
    from.pour(&mut input, scratch, stop)?;
    let (bytes_in, sha256_in) = (input.count, input.digest());
    if let Some(expected) = options.expect.as_ref().filter(|expected| **expected != sha256_in) {
        let message = format!("what was read has the digest {sha256_in}, expected {expected}");
        return Err(Failure::new(Turn::Environment, "flow.digest", message)
            .help("take another copy; this one is not whole"));
    }
    let out = input.into_inner().finish()?;
    let (bytes_out, sha256_out) = (out.count, out.digest());
    stop.check()?;
    let label = Label {
        digest: sha256_out.clone(),
        key: key.into(),
    };
    let ready = to.ready(out.into_inner(), label, options.replace, stop)?;
    let copied = Copied {
        bytes_in,
        bytes_out,
        sha256_in,
        sha256_out,
        artifact: None,
    };
    Ok(Prepared {
        ready,
        replace: options.replace,
        copied,
    })
}

type Out = Digested<Filling>;

enum Transform {
    None(Out),
    ZstdIn(Encoder<'static, Out>),
    GzipIn(GzEncoder<Out>),
    ZstdOut(Box<zio::Writer<Bounded<Out>, raw::Decoder<'static>>>),
    GzipOut(Box<GzDecoder<Bounded<Out>>>),
}

impl Transform {
    fn new(out: Out, options: &Options) -> io::Result<Self> {
        let bounded = |inner| Bounded { inner, left: FREE };
        Ok(match (options.compress, options.decompress) {
            (Some(Codec::Zstd), _) => {
                let mut encoder = Encoder::new(out, options.level.unwrap_or(3))?;
                encoder.include_checksum(true)?;
                Self::ZstdIn(encoder)
            }
            (Some(Codec::Gzip), _) => {
                let level = options.level.unwrap_or(6).clamp(0, 9).unsigned_abs();
                Self::GzipIn(GzEncoder::new(out, flate2::Compression::new(level)))
            }
            (None, Some(Codec::Zstd)) => {
                Self::ZstdOut(Box::new(zio::Writer::new(bounded(out), raw::Decoder::new()?)))
            }
            (None, Some(Codec::Gzip)) => Self::GzipOut(Box::new(GzDecoder::new(bounded(out)))),
            (None, None) => Self::None(out),
        })
    }

    fn finish(self) -> Result<Out, Failure> {
        let finished = match self {
            Self::None(out) => Ok(out),
            Self::ZstdIn(encoder) => encoder.finish(),
            Self::GzipIn(encoder) => encoder.finish(),
            Self::ZstdOut(mut decoder) => decoder.finish().map(|()| decoder.into_inner().0.inner),
            Self::GzipOut(decoder) => decoder.finish().map(|bounded| bounded.inner),
        };
        finished.map_err(|error| uncarry(error, corrupt))
    }
}

impl Write for Transform {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let more = (data.len() as u64).saturating_mul(RATIO);
        let decompressed = |error: io::Error| super::stop::carry(uncarry(error, corrupt));
        match self {
            Self::None(out) => out.write_all(data)?,
            Self::ZstdIn(encoder) => encoder.write_all(data)?,
            Self::GzipIn(encoder) => encoder.write_all(data)?,
            Self::ZstdOut(decoder) => {
                let bounded = decoder.writer_mut();
                bounded.left = bounded.left.saturating_add(more);
                decoder.write_all(data).map_err(decompressed)?;
            }
            Self::GzipOut(decoder) => {
                let bounded = decoder.get_mut();
                bounded.left = bounded.left.saturating_add(more);
                decoder.write_all(data).map_err(decompressed)?;
            }
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn corrupt(error: &io::Error) -> Failure {
    if matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) {
        return crate::artifact::storage_failed("the copy cannot be written", error);
    }
    let message = format!("what was read cannot be decompressed: {error}");
    Failure::new(Turn::Environment, "flow.corrupt", message).help("take another copy; this one is not whole")
}
