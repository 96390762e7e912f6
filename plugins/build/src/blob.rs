//! One content-addressed part of an image, wherever its bytes are, and its descriptor.
//!
//! Refuses to know what a blob means.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::digest::Digest;

#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
    pub(crate) content: Content,
}

/// Where the bytes are. Layers never come into the guest's memory.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Bytes(Vec<u8>),
    File { path: PathBuf, offset: u64 },
}

impl Blob {
    pub(crate) fn of_json(media_type: &str, document: &Value) -> Self {
        let bytes = document.to_string().into_bytes();
        Self {
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            media_type: media_type.to_owned(),
            content: Content::Bytes(bytes),
        }
    }

    /// What a manifest or an index says about this blob.
    pub(crate) fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest.as_str(), "size": self.size })
    }

    /// The bytes, never more than `size`.
    pub(crate) fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        match &self.content {
            Content::Bytes(bytes) => Ok(Box::new(bytes.as_slice())),
            Content::File { path, offset } => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(*offset))?;
                Ok(Box::new(BufReader::new(file).take(self.size)))
            }
        }
    }
}
