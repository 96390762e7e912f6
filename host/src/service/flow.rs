//! `windlass:flow/streams`: bulk bytes that never enter the sandbox. Each handle is checked against the grant when it is
//! made; a copy that changes something outside is one effect, and publishes nothing unless it succeeds. What it writes is
//! set aside before the effect is announced, so that the effect itself is one step that `probe` can look for after a crash.

mod archive;
mod copy;
mod place;
pub mod probe;
mod replace;
mod sink;
mod source;
mod stop;
#[cfg(test)]
mod tests;

pub use sink::Sink;
pub use source::Source;

use super::{
    State,
    artifact::blocking,
    containers::{self, flow::Inside},
    objects::{self, flow::Object},
};
use crate::{
    capability::{Capability, Leaves},
    failure::{Failure, Turn},
    pattern::{Mode, Pattern},
    wit::{GuestError, windlass::flow::streams},
};
use copy::{Options, Prepared, prepare};
use place::{Maker, Place};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use stop::Stop;
use wasmtime::component::{HasSelf, Linker, Resource};

/// What a plugin hands over itself; more goes through a file or an artifact.
const LARGEST_BYTES: usize = 1 << 20;

impl State {
    /// A guest path that the stage may use so.
    fn granted_place(&self, path: &str, mode: Mode) -> Result<Place, Failure> {
        if !is_scratch(path) {
            let word = if mode == Mode::ReadOnly { "ro" } else { "rw" };
            let pattern = Pattern::files(word, path)
                .map_err(|error| Failure::new(Turn::Plugin, "file.path", error.to_string()))?;
            self.granter.check(Capability::Files, &pattern)?;
        }
        self.place(path, path, mode)
    }

    /// A SQLite database that the stage may use. The URL may hold a secret's placeholder, as for `sql`.
    fn granted_database(&self, url: &str, mode: Mode) -> Result<Place, Failure> {
        let refused = |problem: &str| Failure::new(Turn::Plugin, "sql.url", problem);
        let url = match &self.services.secrets {
            Some(secrets) => secrets.swap(&self.granter, url, super::secret::Place::Local)?,
            None => url.to_string().into(),
        };
        // The words of the problem would repeat the URL, and with it perhaps a password.
        let pattern = Pattern::parse(Capability::Sql, &url)
            .map_err(|error| refused(&format!("the database's URL is not valid: {}", error.problem)))?;
        let Pattern::Sql { scheme, database, .. } = &pattern else {
            return Err(refused("the URL names no database"));
        };
        if scheme != "sqlite" {
            return Err(refused(
                "only a SQLite database, `sqlite://<guest path>`, can be copied as a whole",
            ));
        }
        if !is_scratch(database) {
            self.granter.check(Capability::Sql, &pattern)?;
        }
        self.place(database, &format!("sqlite://{database}"), mode)
    }

    fn place(&self, path: &str, shown: &str, mode: Mode) -> Result<Place, Failure> {
        let resolved = self.mounts.resolve(path, mode)?;
        Ok(Place {
            directory: resolved.directory,
            path: resolved.path,
            shown: shown.into(),
            maker: Maker {
                run: self.context.run.to_string(),
                stage: self.context.stage.to_string(),
                attempt: self.context.attempt,
            },
        })
    }

    async fn copy(&mut self, from: Source, mut to: Sink, options: &str) -> Result<Json, Failure> {
        let options = Options::parse(options)?;
        if let Sink::Object(object) = &mut to {
            object.look().await?;
        }
        let scratch = self.mounts.resolve("/tmp", Mode::ReadWrite)?.directory;
        // An attempt that is dropped at its deadline takes the thread with it: nothing is published after it has ended.
        let token = self.context.cancel.child_token();
        let _dropped = token.clone().drop_guard();
        let stop = Stop(token);
        let (leaves, arguments) = (
            to.leaves(),
            json!({ "from": from.name(), "to": to.name(), "options": named(&options) }),
        );
        let ready = {
            let stop = stop.clone();
            move |key: String| blocking(move || prepare(&from, to, &options, &scratch, &key, &stop))
        };
        let put = |prepared: Prepared| blocking(move || Ok(json!(prepared.put(&stop)?)));
        if leaves == Leaves::Nothing {
            return put(ready(String::new()).await?).await;
        }
        let noted = |key| async {
            let prepared = ready(key).await?;
            let aside = probe::note(prepared.aside());
            Ok((prepared, aside))
        };
        self.effects
            .perform_aside("flow.copy", arguments, leaves, noted, put)
            .await
    }
}

impl Source {
    fn name(&self) -> Json {
        match self {
            Self::File(place) => json!({ "file": place.shown }),
            Self::Directory(place) => json!({ "directory": place.shown }),
            Self::Sqlite(place) => json!({ "sqlite": place.shown }),
            Self::Artifact { reference, .. } => json!({ "artifact": reference.in_run() }),
            Self::Container(inside) => inside.name(),
            Self::Object(object) => object.name(),
            Self::Bytes(bytes) => json!({ "sha256": hex::encode(Sha256::digest(bytes)) }),
        }
    }
}

impl Sink {
    fn name(&self) -> Json {
        match self {
            Self::Artifact { target, .. } => json!({ "artifact": target.name }),
            Self::File(place) => json!({ "file": place.shown }),
            Self::Directory(place) => json!({ "directory": place.shown }),
            Self::Sqlite(place) => json!({ "sqlite": place.shown }),
            Self::Container(inside) => inside.name(),
            Self::Object(object) => object.name(),
            Self::Discard => json!("discard"),
        }
    }

    /// A place of its own is something new; one that is taken is changed.
    fn leaves(&self) -> Leaves {
        match self {
            Self::Artifact { .. } => Leaves::Additive,
            Self::File(place) | Self::Directory(place) | Self::Sqlite(place) => {
                let path = place.shown.strip_prefix("sqlite://").unwrap_or(&place.shown);
                if is_scratch(path) {
                    Leaves::Nothing
                } else if place.directory.symlink_metadata(&place.path).is_ok() {
                    Leaves::State
                } else {
                    Leaves::Additive
                }
            }
            Self::Container(inside) => inside.leaves(),
            Self::Object(object) => object.leaves(),
            Self::Discard => Leaves::Nothing,
        }
    }
}

/// The options as the effect's arguments have them.
fn named(options: &Options) -> Json {
    json!({
        "compress": options.compress.map(|codec| format!("{codec:?}").to_lowercase()),
        "decompress": options.decompress.map(|codec| format!("{codec:?}").to_lowercase()),
        "level": options.level, "expect": options.expect, "replace": options.replace,
    })
}

/// `/tmp` is private to the attempt and needs no grant.
fn is_scratch(path: &str) -> bool {
    path == "/tmp" || path.starts_with("/tmp/")
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    streams::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

/// A handle for what was made, or the guest's error.
macro_rules! handle {
    ($state:expr, $made:expr) => {
        match $made {
            Ok(made) => Ok(Ok($state.table.push(made)?)),
            Err(failure) => Ok(Err(GuestError::from(failure))),
        }
    };
}

type Handle<T> = wasmtime::Result<Result<Resource<T>, GuestError>>;

impl streams::Host for State {
    async fn copy(
        &mut self,
        from: Resource<Source>,
        to: Resource<Sink>,
        options: String,
    ) -> wasmtime::Result<Result<String, GuestError>> {
        let from = self.table.delete(from)?;
        let to = self.table.delete(to)?;
        let copied = State::copy(self, from, to, &options).await;
        Ok(copied.map(|copied| copied.to_string()).map_err(GuestError::from))
    }
}

impl streams::HostSource for State {
    async fn file(&mut self, path: String) -> Handle<Source> {
        handle!(self, self.granted_place(&path, Mode::ReadOnly).map(Source::File))
    }

    async fn directory(&mut self, path: String) -> Handle<Source> {
        handle!(
            self,
            self.granted_place(&path, Mode::ReadOnly).map(Source::Directory)
        )
    }

    async fn sqlite(&mut self, url: String) -> Handle<Source> {
        handle!(
            self,
            self.granted_database(&url, Mode::ReadOnly).map(Source::Sqlite)
        )
    }

    async fn artifact(&mut self, reference: String) -> Handle<Source> {
        let granted = self.granted_artifact(&reference);
        handle!(
            self,
            granted.map(|(store, reference)| Source::Artifact { store, reference })
        )
    }

    async fn exec(&mut self, container: String, argv: Vec<String>, options: String) -> Handle<Source> {
        let caller = containers::caller!(self);
        let inside = Inside::program(caller, &container, argv, &options).await;
        handle!(self, inside.map(|inside| Source::Container(Box::new(inside))))
    }

    async fn container(&mut self, container: String, path: String, options: String) -> Handle<Source> {
        let caller = containers::caller!(self);
        let inside = Inside::path(caller, &container, path, &options, true).await;
        handle!(self, inside.map(|inside| Source::Container(Box::new(inside))))
    }

    async fn object(&mut self, url: String, access: String) -> Handle<Source> {
        let place = objects::caller!(self).object(&url, &access);
        handle!(
            self,
            place.map(|place| Source::Object(Box::new(Object::new(place))))
        )
    }

    async fn bytes(&mut self, data: Vec<u8>) -> Handle<Source> {
        if data.len() > LARGEST_BYTES {
            let message = format!("a plugin hands over at most {LARGEST_BYTES} bytes");
            return Ok(Err(Failure::new(Turn::Plugin, "flow.too-large", message).into()));
        }
        Ok(Ok(self.table.push(Source::Bytes(data))?))
    }

    async fn drop(&mut self, source: Resource<Source>) -> wasmtime::Result<()> {
        self.table.delete(source)?;
        Ok(())
    }
}

impl streams::HostSink for State {
    async fn artifact(&mut self, name: String, media_type: String) -> Handle<Sink> {
        let made = self.new_artifact(name, media_type).and_then(|target| {
            let store = self.artifacts()?.store.clone();
            Ok(Sink::Artifact { store, target })
        });
        handle!(self, made)
    }

    async fn file(&mut self, path: String) -> Handle<Sink> {
        handle!(self, self.granted_place(&path, Mode::ReadWrite).map(Sink::File))
    }

    async fn directory(&mut self, path: String) -> Handle<Sink> {
        handle!(
            self,
            self.granted_place(&path, Mode::ReadWrite).map(Sink::Directory)
        )
    }

    async fn sqlite(&mut self, url: String) -> Handle<Sink> {
        handle!(
            self,
            self.granted_database(&url, Mode::ReadWrite).map(Sink::Sqlite)
        )
    }

    async fn exec(&mut self, container: String, argv: Vec<String>, options: String) -> Handle<Sink> {
        let caller = containers::caller!(self);
        let inside = Inside::program(caller, &container, argv, &options).await;
        handle!(self, inside.map(|inside| Sink::Container(Box::new(inside))))
    }

    async fn container(&mut self, container: String, path: String, options: String) -> Handle<Sink> {
        let caller = containers::caller!(self);
        let inside = Inside::path(caller, &container, path, &options, false).await;
        handle!(self, inside.map(|inside| Sink::Container(Box::new(inside))))
    }

    async fn object(&mut self, url: String, access: String) -> Handle<Sink> {
        let place = objects::caller!(self).object(&url, &access);
        handle!(
            self,
            place.map(|place| Sink::Object(Box::new(Object::new(place))))
        )
    }

    async fn discard(&mut self) -> wasmtime::Result<Resource<Sink>> {
        Ok(self.table.push(Sink::Discard)?)
    }

    async fn drop(&mut self, sink: Resource<Sink>) -> wasmtime::Result<()> {
        self.table.delete(sink)?;
        Ok(())
    }
}
