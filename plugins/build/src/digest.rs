//! Bytes into the SHA-256 that names them, while they pass by.
//!
//! Refuses to know what the bytes are.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

/// A checked `sha256:<64 hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Digest(String);

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut meter = Meter::new(io::sink());
        meter.count(bytes);
        meter.finish().1.digest
    }

    /// `None` unless the text is a complete SHA-256 digest in lower case: it becomes part of a path.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        let valid = hex.len() == 64
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        valid.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Where an image layout keeps the blob of this digest.
    pub(crate) fn blob_path(&self) -> String {
        format!("blobs/{}", self.0.replacen(':', "/", 1))
    }
}

/// How much went through a [`Meter`], and what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// A writer that digests and counts what it hands on.
pub(crate) struct Meter<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Meter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            size: 0,
        }
    }

    pub(crate) fn finish(self) -> (W, Measured) {
        let mut text = String::from("sha256:");
        for byte in self.hash.finalize() {
            text.push_str(&format!("{byte:02x}"));
        }
        (
            self.inner,
            Measured {
                digest: Digest(text),
                size: self.size,
            },
        )
    }

    fn count(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
    }
}

impl<W: Write> Write for Meter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.count(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_known_one() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        let mut meter = Meter::new(Vec::new());
        meter.write_all(b"abc").unwrap();
        let (bytes, measured) = meter.finish();
        assert_eq!(bytes, b"abc");
        assert_eq!(
            measured,
            Measured {
                digest: Digest::of(b"abc"),
                size: 3
            }
        );
    }

    #[test]
    fn only_complete_digests_are_read() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(
            Digest::parse(&good).unwrap().blob_path(),
            format!("blobs/sha256/{}", "0a".repeat(32))
        );
        for bad in [
            "",
            "sha256:",
            "sha512:00",
            "sha256:../../etc/passwd",
            &good.to_uppercase(),
            &good[..70],
        ] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }
}
