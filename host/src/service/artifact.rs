//! `windlass:artifacts/store`: what a stage leaves for later stages. Asks the granter, then hands bytes to the artifact store
//! on a blocking thread.

use super::{State, effect::Effects};
use crate::{
    artifact::{self, BlobWriter, Reference, Store, check_name},
    capability::{Capability, Leaves},
    failure::{Failure, Turn},
    name::{RunId, StageName},
    pattern::Pattern,
    wit::{GuestError, windlass::artifacts::store},
};
use serde_json::{Value as Json, json};
use std::{
    collections::HashSet,
    fs::File,
    io::Read,
    sync::{Arc, Mutex, PoisonError},
};
use wasmtime::component::{HasSelf, Linker, Resource};

/// One read or write: large enough that calls do not matter, small enough that a guest cannot hold much of the host.
const LARGEST_CALL: usize = 1 << 20;

/// A media type is a label in listings.
const LONGEST_MEDIA_TYPE: usize = 200;

/// The artifacts of one attempt.
#[derive(Clone)]
pub struct Artifacts {
    pub store: Store,
    /// Names that this attempt has taken.
    taken: Arc<Mutex<HashSet<String>>>,
}

/// An artifact that is being written: its bytes and the name it will have. Dropped, it gives the name back.
pub struct Writer {
    blob: Option<BlobWriter>,
    pub(super) target: Target,
}

/// A name that is reserved for this attempt.
#[derive(Debug)]
pub struct Target {
    pub(super) run: RunId,
    pub(super) stage: StageName,
    pub(super) name: String,
    pub(super) media_type: String,
    taken: Arc<Mutex<HashSet<String>>>,
    published: bool,
}

/// An artifact that is being read, checked already.
pub struct Reader {
    file: Option<File>,
}

impl Artifacts {
    /// For one attempt.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            taken: Arc::default(),
        }
    }
}

impl State {
    /// The run's artifacts.
    pub(super) fn artifacts(&self) -> Result<&Artifacts, Failure> {
        self.services
            .artifacts
            .as_ref()
            .ok_or_else(|| super::unequipped("artifacts"))
    }

    /// Checks the grant and reserves the name.
    pub(super) fn new_artifact(&self, name: String, media_type: String) -> Result<Target, Failure> {
        check_name(&name)?;
        self.granter
            .check(Capability::ArtifactsWrite, &Pattern::Glob(name.clone()))?;
        let plain = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if media_type.len() > LONGEST_MEDIA_TYPE || !media_type.bytes().all(plain) {
            let message = format!("a media type takes up to {LONGEST_MEDIA_TYPE} printable ASCII characters");
            return Err(Failure::new(Turn::Plugin, "artifact.media-type", message));
        }
        let taken = self.artifacts()?.taken.clone();
        if !lock(&taken).insert(name.clone()) {
            let message = format!("this stage has an artifact `{name}` already");
            return Err(Failure::new(Turn::Plugin, "artifact.exists", message));
        }
        Ok(Target {
            run: self.context.run.clone(),
            stage: self.context.stage.clone(),
            name,
            media_type,
            taken,
            published: false,
        })
    }

    /// Checks the grant and finds an artifact.
    pub(super) fn granted_artifact(&self, reference: &str) -> Result<(Store, Reference), Failure> {
        let reference = Reference::parse(&self.context.run, reference)?;
        self.granter
            .check(Capability::ArtifactsRead, &Pattern::Glob(reference.in_run()))?;
        Ok((self.artifacts()?.store.clone(), reference))
    }
}

impl Target {
    /// Publishes, as an effect: a stage that was cut off behind it gets the answer of then.
    pub(super) async fn publish(
        mut self,
        store: Store,
        blob: BlobWriter,
        effects: &Effects,
    ) -> Result<Json, Failure> {
        let arguments = json!({
            "name": self.name, "media-type": self.media_type, "digest": blob.digest(), "size": blob.size(),
        });
        let (run, stage) = (self.run.clone(), self.stage.clone());
        let (name, media_type) = (self.name.clone(), self.media_type.clone());
        let publish = || {
            blocking(move || {
                let artifact = store.publish(blob, &run, &stage, &name, &media_type)?;
                Ok(json!(artifact))
            })
        };
        let published = effects
            .perform("artifacts.write", arguments, Leaves::Additive, publish)
            .await?;
        self.keep();
        Ok(published)
    }

    /// The name stays taken.
    pub(super) fn keep(&mut self) {
        self.published = true;
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.published {
            lock(&self.taken).remove(&self.name);
        }
    }
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    store::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl store::Host for State {
    async fn create(
        &mut self,
        name: String,
        media_type: String,
    ) -> wasmtime::Result<Result<Resource<Writer>, GuestError>> {
        let created = match self.new_artifact(name, media_type) {
            Ok(target) => {
                let store = self.artifacts().map(|artifacts| artifacts.store.clone());
                let blob = blocking(move || store?.create(artifact::LARGEST)).await;
                blob.map(|blob| Writer {
                    blob: Some(blob),
                    target,
                })
            }
            Err(failure) => Err(failure),
        };
        match created {
            Ok(writer) => Ok(Ok(self.table.push(writer)?)),
            Err(failure) => Ok(Err(failure.into())),
        }
    }

    async fn open(&mut self, name: String) -> wasmtime::Result<Result<Resource<Reader>, GuestError>> {
        let opened = match self.granted_artifact(&name) {
            Ok((store, reference)) => blocking(move || store.open(&store.find(&reference)?)).await,
            Err(failure) => Err(failure),
        };
        match opened {
            Ok(file) => Ok(Ok(self.table.push(Reader { file: Some(file) })?)),
            Err(failure) => Ok(Err(failure.into())),
        }
    }

    async fn list(&mut self) -> wasmtime::Result<Result<String, GuestError>> {
        let listed = match self.artifacts() {
            Ok(artifacts) => {
                let (store, run) = (artifacts.store.clone(), self.context.run.clone());
                blocking(move || store.list(&run)).await
            }
            Err(failure) => Err(failure),
        };
        let readable = |artifact: &artifact::Artifact| {
            let in_run = artifact
                .artifact
                .split_once('/')
                .map(|(_, in_run)| in_run.to_string());
            in_run.is_some_and(|in_run| {
                let pattern = Pattern::Glob(in_run);
                self.granter
                    .grant()
                    .covering(Capability::ArtifactsRead, &pattern)
                    .is_some()
            })
        };
        Ok(listed.map_err(GuestError::from).map(|mut all| {
            all.retain(readable);
            json!(all).to_string()
        }))
    }
}

impl store::HostWriter for State {
    async fn write(
        &mut self,
        writer: Resource<Writer>,
        data: Vec<u8>,
    ) -> wasmtime::Result<Result<(), GuestError>> {
        if data.len() > LARGEST_CALL {
            return Ok(Err(too_much().into()));
        }
        let writer = self.table.get_mut(&writer)?;
        let Some(mut blob) = writer.blob.take() else {
            return Ok(Err(broken().into()));
        };
        let written = blocking(move || blob.append(&data).map(|()| blob)).await;
        // After a failed write there is nothing left to finish.
        Ok(written
            .map(|blob| writer.blob = Some(blob))
            .map_err(GuestError::from))
    }

    async fn finish(&mut self, writer: Resource<Writer>) -> wasmtime::Result<Result<String, GuestError>> {
        let Writer { blob, target } = self.table.delete(writer)?;
        let published = match (blob, self.artifacts()) {
            (Some(blob), Ok(artifacts)) => target.publish(artifacts.store.clone(), blob, &self.effects).await,
            (None, _) => Err(broken()),
            (_, Err(failure)) => Err(failure),
        };
        Ok(published.map(|json| json.to_string()).map_err(GuestError::from))
    }

    async fn drop(&mut self, writer: Resource<Writer>) -> wasmtime::Result<()> {
        self.table.delete(writer)?;
        Ok(())
    }
}

impl store::HostReader for State {
    async fn read(
        &mut self,
        reader: Resource<Reader>,
        max_bytes: u32,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, GuestError>> {
        let reader = self.table.get_mut(&reader)?;
        let Some(mut file) = reader.file.take() else {
            return Ok(Err(broken().into()));
        };
        let wanted = usize::try_from(max_bytes)
            .unwrap_or(usize::MAX)
            .clamp(1, LARGEST_CALL);
        let read = blocking(move || {
            let mut buffer = vec![0; wanted];
            let count = file
                .read(&mut buffer)
                .map_err(|error| artifact::storage_failed("the artifact cannot be read", &error))?;
            buffer.truncate(count);
            Ok((file, buffer))
        });
        Ok(read.await.map_err(GuestError::from).map(|(file, buffer)| {
            reader.file = Some(file);
            (!buffer.is_empty()).then_some(buffer)
        }))
    }

    async fn drop(&mut self, reader: Resource<Reader>) -> wasmtime::Result<()> {
        self.table.delete(reader)?;
        Ok(())
    }
}

/// Runs what waits for a disk where it holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new(
            Turn::Windlass,
            "internal.blocking",
            "the work on a disk was broken off",
        )),
    }
}

fn too_much() -> Failure {
    let message = format!("one call takes at most {LARGEST_CALL} bytes");
    Failure::new(Turn::Plugin, "artifact.call-too-large", message)
}

fn broken() -> Failure {
    Failure::new(
        Turn::Plugin,
        "artifact.broken",
        "this handle cannot be used after a call on it has failed",
    )
}

fn lock(taken: &Mutex<HashSet<String>>) -> std::sync::MutexGuard<'_, HashSet<String>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}
