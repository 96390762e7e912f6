//! An object as a source or a sink of `windlass:flow`. Called on a thread that may block; the server is waited for there.

pub(crate) use super::bucket::Label;
use super::{
    Place,
    bucket::{Content, differs},
};
use crate::{capability::Leaves, failure::Failure};
use futures::StreamExt;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::{fs::File, pin::pin};
use tokio::runtime::Handle;

/// One object, named and granted, not touched yet.
pub struct Object {
    place: Place,
    is_there: bool,
}

impl Object {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place,
            is_there: false,
        }
    }

    /// Whether writing it will change something that is there.
    pub(crate) async fn look(&mut self) -> Result<(), Failure> {
        self.is_there = self.place.known().await?.is_some();
        Ok(())
    }

    pub(crate) fn leaves(&self) -> Leaves {
        match self.is_there {
            true => Leaves::State,
            false => Leaves::Additive,
        }
    }

    /// For the journal.
    pub(crate) fn name(&self) -> Json {
        json!({ "object": self.place.url, "access": self.place.access })
    }

    /// Gives everything to `take`, piece by piece, and checks that it was everything.
    pub(crate) fn pour(&self, take: &mut dyn FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        let Place {
            bucket, path, url, ..
        } = &self.place;
        Handle::current().block_on(async {
            let (known, bytes) = bucket.get(path, url).await?;
            let mut bytes = pin!(bytes);
            let (mut count, mut digest) = (0, Sha256::new());
            while let Some(piece) = bytes.next().await {
                let piece = piece?;
                count += piece.len() as u64;
                digest.update(&piece);
                take(&piece)?;
            }
            let digest = format!("sha256:{}", hex::encode(digest.finalize()));
            let is_whole = count == known.size && known.sha256.is_none_or(|expected| expected == digest);
            match is_whole {
                true => Ok(()),
                false => Err(differs(url)),
            }
        })
    }

    /// Where it is put together, where it is large: its name for [`Object::put`], and to find it after a crash.
    pub(crate) fn begin(&self, file: &File, label: &Label) -> Result<Option<String>, Failure> {
        let place = &self.place;
        let content = content(file, label)?;
        Handle::current().block_on(place.bucket.begin(&place.path, &place.url, content))
    }

    /// Sends all of it. There is nothing of it to be seen before all of it is there.
    pub(crate) fn put(&self, file: &File, label: &Label, upload: Option<&String>) -> Result<(), Failure> {
        let place = &self.place;
        let content = content(file, label)?;
        let put = place.bucket.put(&place.path, &place.url, content, upload);
        Handle::current().block_on(put)
    }
}

fn content<'a>(file: &'a File, label: &'a Label) -> Result<Content<'a>, Failure> {
    let metadata = file.metadata();
    let size = metadata
        .map_err(|error| crate::artifact::storage_failed("the copy cannot be read", &error))?
        .len();
    Ok(Content { file, size, label })
}
