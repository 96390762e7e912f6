//! Named, digested blobs that a stage leaves for later stages and for people.

use crate::bindings::artifacts::store;
use crate::{Error, stage};
use serde::{Deserialize, Serialize};
use std::io;

/// The most bytes one call carries.
const CHUNK: usize = 1024 * 1024;

/// A published artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Artifact {
    /// `<run>/<stage>/<name>`.
    pub artifact: String,
    /// `sha256:<hex>`.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
}

/// An artifact being written; nothing is published before [`Writer::finish`].
pub struct Writer(store::Writer);

/// An artifact being read.
pub struct Reader {
    handle: store::Reader,
    /// What the host gave and nobody has taken yet.
    buffer: io::Cursor<Vec<u8>>,
}

/// A new artifact of this stage.
pub fn create(name: &str, media_type: &str) -> Result<Writer, Error> {
    Ok(Writer(store::create(name, media_type)?))
}

/// An artifact by `<stage>/<name>`, or `<run>/<stage>/<name>`.
pub fn open(name: &str) -> Result<Reader, Error> {
    Ok(Reader {
        handle: store::open(name)?,
        buffer: io::Cursor::default(),
    })
}

/// The artifacts this stage may read.
pub fn list() -> Result<Vec<Artifact>, Error> {
    stage::read(&store::list()?)
}

impl Writer {
    /// Appends any number of bytes.
    pub fn append(&mut self, data: &[u8]) -> Result<(), Error> {
        for chunk in data.chunks(CHUNK) {
            self.0.write(chunk)?;
        }
        Ok(())
    }

    /// Publishes it.
    pub fn finish(self) -> Result<Artifact, Error> {
        stage::read(&store::Writer::finish(self.0)?)
    }
}

impl io::Write for Writer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.append(data)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.buffer.position() == self.buffer.get_ref().len() as u64 {
            match self.handle.read(CHUNK as u32).map_err(Error::from)? {
                Some(data) => self.buffer = io::Cursor::new(data),
                None => return Ok(0),
            }
        }
        self.buffer.read(into)
    }
}
