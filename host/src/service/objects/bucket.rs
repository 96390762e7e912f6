//! One bucket on one server: each question asked with patience, and each error of the library as a failure that says whose turn it is.

use super::{
    access::Keys,
    not_options,
    transport::{Transport, carried},
};
use crate::{
    failure::{Failure, Turn},
    service::patience::Patience,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use object_store::{
    Attribute, Attributes, BackoffConfig, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    multipart::MultipartStore,
    path::Path,
};
use serde_json::{Value as Json, json};
use std::{fs::File, io, os::unix::fs::FileExt, pin::pin, sync::Arc, time::Duration};

/// What is larger is sent in parts of this size, or of a ten thousandth: no server takes more parts.
pub(super) const PART: u64 = 8 << 20;
const MOST_PARTS: u64 = 10_000;
/// Parts on their way at the same time. Each is in memory.
const AT_ONCE: usize = 4;
/// What a plugin can be told of: its list fits into the 1 MiB of a JSON text where keys are short.
const MOST_LISTED: usize = 10_000;
const RETRIES: usize = 4;
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(10);
const RETRY_IN_ALL: Duration = Duration::from_secs(60);
/// For throwing away what was begun, also when the stage has no time left.
const ABORT: Duration = Duration::from_secs(10);

/// Under `x-amz-meta-`: what was written, and by which effect.
const DIGEST: &str = "windlass-sha256";
const KEY: &str = "windlass-key";

pub(crate) struct Bucket {
    store: AmazonS3,
    transport: Transport,
    patience: Patience,
}

/// What a server says of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    pub(super) size: u64,
    pub(super) modified: i64,
    pub(super) sha256: Option<String>,
    pub(super) written_by: Option<String>,
}

/// Whole on this machine, on its way to become an object.
#[derive(Clone, Copy)]
pub(super) struct Content<'a> {
    pub(super) file: &'a File,
    pub(super) size: u64,
    pub(super) label: &'a Label,
}

/// What an object says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Label {
    /// `sha256:<hex>` of its bytes.
    pub(crate) digest: String,
    /// Of the effect.
    pub(crate) key: String,
}

impl Bucket {
    /// # Errors
    /// `object.options`.
    pub(super) fn new(
        name: &str,
        region: &str,
        is_virtual_host: bool,
        keys: Option<Keys>,
        transport: Transport,
        patience: Patience,
    ) -> Result<Self, Failure> {
        let backoff = BackoffConfig {
            init_backoff: RETRY_FIRST,
            max_backoff: RETRY_LONGEST,
            base: 2.0,
        };
        let retries = RetryConfig {
            backoff,
            max_retries: RETRIES,
            retry_timeout: RETRY_IN_ALL,
        };
        let builder = AmazonS3Builder::new()
            .with_bucket_name(name)
            .with_region(region)
            .with_endpoint(transport.origin())
            .with_virtual_hosted_style_request(is_virtual_host)
            .with_allow_http(true)
            .with_disable_bulk_delete(true)
            .with_retry(retries)
            .with_http_connector(transport.clone());
        let builder = match keys {
            Some(keys) => builder.with_credentials(Arc::new(keys)),
            None => builder.with_skip_signature(true),
        };
        let store = builder.build().map_err(|error| not_options(&error.to_string()))?;
        Ok(Self {
            store,
            transport,
            patience,
        })
    }

    /// `None`: it is not there.
    pub(super) async fn known(&self, path: &Path, url: &str) -> Result<Option<Known>, Failure> {
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let doing = format!("look at `{url}`");
        match self.asked(&doing, self.store.get_opts(path, options)).await {
            Ok(found) => Ok(Some(Known::of(&found.meta, &found.attributes))),
            Err(failure) if failure.code == "object.missing" => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// What is known of it, and its bytes.
    pub(super) async fn get(
        &self,
        path: &Path,
        url: &str,
    ) -> Result<(Known, impl Stream<Item = Result<Bytes, Failure>> + use<>), Failure> {
        let doing = format!("read `{url}`");
        let found = self.asked(&doing, self.store.get_opts(path, GetOptions::default()));
        let found = found.await?;
        let known = Known::of(&found.meta, &found.attributes);
        let transport = self.transport.clone();
        let bytes = found.into_stream();
        let bytes = bytes.map_err(move |error| failure(&transport, &doing, &error));
        Ok((known, bytes))
    }

    pub(super) async fn list(&self, prefix: &Path, url: &str) -> Result<Json, Failure> {
        let below = (!prefix.is_root()).then_some(prefix);
        let root = url.strip_suffix(prefix.as_ref()).unwrap_or(url);
        let root = root.trim_end_matches('/');
        let listing = self.store.list(below).take(MOST_LISTED + 1);
        let mut listed: Vec<ObjectMeta> = self
            .asked(&format!("list `{url}`"), listing.try_collect())
            .await?;
        if listed.len() > MOST_LISTED {
            let message = format!("there are more than {MOST_LISTED} objects below `{url}`");
            return Err(Failure::new(Turn::Operator, "object.too-many", message)
                .help("use a prefix of its own for each purpose"));
        }
        listed.sort_by(|one, other| one.location.cmp(&other.location));
        let shown = listed.iter().map(|meta| {
            json!({ "url": format!("{root}/{}", meta.location), "size": meta.size, "modified": meta.last_modified.timestamp() })
        });
        Ok(Json::Array(shown.collect()))
    }

    pub(super) async fn delete(&self, path: &Path, url: &str) -> Result<(), Failure> {
        self.asked(&format!("delete `{url}`"), self.store.delete(path))
            .await
    }

    /// Where a larger object is put together, by the name that the server gives; an object that is sent at once has none.
    pub(super) async fn begin(
        &self,
        path: &Path,
        url: &str,
        content: Content<'_>,
    ) -> Result<Option<String>, Failure> {
        if content.size <= PART {
            return Ok(None);
        }
        let options = PutMultipartOptions {
            attributes: content.label.attributes(),
            ..PutMultipartOptions::default()
        };
        let begun = self.store.create_multipart_opts(path, options);
        self.asked(&format!("begin `{url}`"), begun).await.map(Some)
    }

    /// Sends it, and asks whether it is there. What failed half-way is thrown away.
    pub(super) async fn put(
        &self,
        path: &Path,
        url: &str,
        content: Content<'_>,
        upload: Option<&String>,
    ) -> Result<(), Failure> {
        let sent = match upload {
            None => self.send(path, url, content).await,
            Some(upload) => self.send_parts(path, url, content, upload).await,
        };
        if let (Err(_), Some(upload)) = (&sent, upload) {
            let aborted = self.store.abort_multipart(path, upload);
            // The failure that led here matters more.
            let _ = tokio::time::timeout(ABORT, aborted).await;
        }
        // An answer may be lost, and a good answer may be wrong: what counts is what is there.
        let is_there = match self.known(path, url).await {
            Ok(known) => known.is_some_and(|known| known.is(content.label) && known.size == content.size),
            Err(failure) if sent.is_ok() => return Err(failure),
            Err(_) => false,
        };
        match (is_there, sent) {
            (true, _) => Ok(()),
            (false, Ok(())) => Err(differs(url)),
            (false, Err(failure)) => Err(failure),
        }
    }

    /// Throws away what an upload has sent so far. One that is gone is fine.
    pub(super) async fn abort(&self, path: &Path, url: &str, upload: &str) -> Result<(), Failure> {
        let upload = upload.to_string();
        let aborted = self.store.abort_multipart(path, &upload);
        match self.asked(&format!("end the upload of `{url}`"), aborted).await {
            Err(failure) if failure.code != "object.missing" => Err(failure),
            _ => Ok(()),
        }
    }

    async fn send(&self, path: &Path, url: &str, content: Content<'_>) -> Result<(), Failure> {
        let options = PutOptions {
            attributes: content.label.attributes(),
            ..PutOptions::default()
        };
        let bytes = content.piece(0, content.size)?;
        let put = self.store.put_opts(path, bytes.into(), options);
        self.asked(&format!("write `{url}`"), put).await.map(drop)
    }

    async fn send_parts(
        &self,
        path: &Path,
        url: &str,
        content: Content<'_>,
        upload: &String,
    ) -> Result<(), Failure> {
        let doing = &format!("write `{url}`");
        let size = PART.max(content.size.div_ceil(MOST_PARTS));
        let send = |number: u64| async move {
            let from = number * size;
            let bytes = content.piece(from, size.min(content.size - from))?;
            let index = usize::try_from(number).expect("there are at most 10,000");
            let put = self.store.put_part(path, upload, index, bytes.into());
            let part = self.asked(doing, put).await;
            failpoint!("object.part");
            part
        };
        let parts = stream::iter(0..content.size.div_ceil(size)).map(send);
        let parts = parts.buffered(AT_ONCE).try_collect::<Vec<_>>().await?;
        let whole = self.store.complete_multipart(path, upload, parts);
        self.asked(doing, whole).await.map(drop)
    }

    async fn asked<T>(
        &self,
        doing: &str,
        asked: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, Failure> {
        let mut asked = pin!(asked);
        tokio::select! {
            biased;
            failure = self.patience.ended() => Err(failure),
            answer = &mut asked => answer.map_err(|error| failure(&self.transport, doing, &error)),
        }
    }
}

impl Known {
    fn of(meta: &ObjectMeta, attributes: &Attributes) -> Self {
        let text = |name: &'static str| {
            let value = attributes.get(&Attribute::Metadata(name.into()));
            value.map(|value| value.as_ref().to_string())
        };
        Self {
            size: meta.size,
            modified: meta.last_modified.timestamp(),
            sha256: text(DIGEST),
            written_by: text(KEY),
        }
    }

    /// Whether it is what this effect has written.
    pub(super) fn is(&self, label: &Label) -> bool {
        self.sha256.as_deref() == Some(&label.digest) && self.written_by.as_deref() == Some(&label.key)
    }

    pub(super) fn to_json(&self) -> Json {
        let mut known = json!({ "size": self.size, "modified": self.modified });
        for (name, value) in [("sha256", &self.sha256), ("written-by", &self.written_by)] {
            if let Some(value) = value {
                known[name] = json!(value);
            }
        }
        known
    }
}

impl Content<'_> {
    fn piece(&self, from: u64, size: u64) -> Result<Vec<u8>, Failure> {
        let size = usize::try_from(size).expect("a part is held in memory");
        let mut bytes = vec![0; size];
        self.file
            .read_exact_at(&mut bytes, from)
            .map_err(|error: io::Error| crate::artifact::storage_failed("the copy cannot be read", &error))?;
        Ok(bytes)
    }
}

impl Label {
    fn attributes(&self) -> Attributes {
        let text = |name: &'static str, value: &str| (Attribute::Metadata(name.into()), value.to_string());
        [text(DIGEST, &self.digest), text(KEY, &self.key)]
            .into_iter()
            .collect()
    }
}

/// Something else is there than was sent, or than it says itself.
pub(super) fn differs(url: &str) -> Failure {
    let message = format!("what the server has at `{url}` is not what was written there");
    Failure::new(Turn::Environment, "object.digest", message)
        .help("look whether somebody else writes there; write it again")
}

fn failure(transport: &Transport, doing: &str, error: &object_store::Error) -> Failure {
    use object_store::Error;
    if let Some(failure) = carried(error) {
        let message = format!("cannot {doing}: {}", failure.message);
        return Failure { message, ..failure };
    }
    let status = transport.last_status();
    let said = said(&error.to_string()).unwrap_or_else(|| match status {
        200..=299 => "its answer makes no sense".into(),
        _ => format!("it answered {status}"),
    });
    let message = format!("cannot {doing} at `{}`: {said}", transport.origin());
    // Of some requests the library leaves the status to itself.
    match (error, status) {
        (Error::NotFound { .. }, _) | (Error::Generic { .. }, 404) => {
            Failure::new(Turn::PipelineAuthor, "object.missing", message)
                .help("look whether the bucket is there, and the object in it")
        }
        (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, _)
        | (Error::Generic { .. }, 401 | 403) => Failure::new(Turn::Operator, "object.denied", message)
            .help("look at the keys, at what they may do with the bucket, and at the clock of this machine"),
        (_, 300..=399) => Failure::new(
            Turn::PipelineAuthor,
            "object.failed",
            format!("{message}, which sends elsewhere"),
        )
        .help("set `region` to that of the bucket, and `endpoint` to its server"),
        // A busy server may also say so in the body of a 200.
        (_, 429 | ..=399 | 500..) => Failure::new(Turn::Environment, "object.failed", message).retryable(),
        _ => Failure::new(Turn::Environment, "object.failed", message),
    }
}

/// What the XML of an error says, or else the library; of both not too much.
fn said(text: &str) -> Option<String> {
    const LONGEST: usize = 300;
    let inner = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        rest.split_once(&format!("</{tag}>"))
            .map(|(inner, _)| inner.chars().take(LONGEST).collect::<String>())
    };
    match (inner("Code"), inner("Message")) {
        (Some(code), Some(message)) => Some(format!("{code}: {message}")),
        (Some(only), None) | (None, Some(only)) => Some(only),
        (None, None) => None,
    }
}
