//! `windlass:objects/store`: objects of S3 and of what speaks its protocol. Requests are signed here, with keys that the guest has
//! handles of, and sent over our own connector to an address that passed. Bytes of objects go through `flow` only.

mod access;
mod bucket;
pub(crate) mod flow;
pub mod probe;
#[cfg(test)]
mod tests;
pub(crate) mod transport;

use super::{State, effect::Effects, egress::Connector, patience::Patience, secret::Secrets};
use crate::{
    capability::{Capability, Leaves},
    failure::{Failure, Turn},
    grant::Granter,
    pattern::Pattern,
    wit::{GuestError, windlass::objects::store},
};
use access::Access;
pub(crate) use access::Keys;
use bucket::{Bucket, Known};
use object_store::path::Path;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::sync::Arc;
use wasmtime::component::{HasSelf, Linker};

/// Who asks for objects.
#[derive(Clone)]
pub struct Caller {
    pub(crate) granter: Granter,
    pub(crate) connector: Arc<Connector>,
    pub(crate) secrets: Option<Arc<Secrets>>,
    pub(crate) patience: Patience,
}

/// An object, or all below a prefix: granted, not asked for yet.
pub(crate) struct Place {
    bucket: Bucket,
    path: Path,
    url: String,
    /// How it is reached, for the journal: secrets by name.
    access: Json,
}

/// Of `delete`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct OfDelete {
    written_by: Option<String>,
    leaves: Option<LeavesWord>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LeavesWord {
    Additive,
}

impl Caller {
    /// # Errors
    /// `internal.service`.
    pub(crate) fn of(state: &State) -> Result<Self, Failure> {
        Ok(Self {
            granter: state.granter.clone(),
            connector: state.connector()?.clone(),
            secrets: state.services.secrets.clone(),
            patience: Patience::of(&state.context),
        })
    }

    /// One object.
    ///
    /// # Errors
    /// `object.url`, `object.options`, `object.credentials`, `grant.denied`, those of placeholders.
    pub(crate) fn object(&self, url: &str, access: &str) -> Result<Place, Failure> {
        let place = self.place(url, access)?;
        match place.path.is_root() {
            true => Err(not_a_url(&format!("`{url}` names a bucket and no object"))),
            false => Ok(place),
        }
    }

    fn place(&self, url: &str, access: &str) -> Result<Place, Failure> {
        let pattern =
            Pattern::parse(Capability::Objects, url).map_err(|error| not_a_url(&error.to_string()))?;
        self.granter.check(Capability::Objects, &pattern)?;
        let Pattern::Object { bucket, prefix } = &pattern else {
            return Err(not_a_url("it names no bucket"));
        };
        let access = Access::parse(access)?;
        Ok(Place {
            bucket: access.open(self, bucket)?,
            path: Path::parse(prefix).map_err(|error| not_a_url(&error.to_string()))?,
            url: url.into(),
            access: access.described(self.secrets.as_deref()),
        })
    }

    async fn head(&self, url: &str, access: &str) -> Result<Option<Json>, Failure> {
        let known = self.object(url, access)?.known().await?;
        Ok(known.map(|known| known.to_json()))
    }

    async fn list(&self, prefix: &str, access: &str) -> Result<Json, Failure> {
        let place = self.place(prefix, access)?;
        place.bucket.list(&place.path, &place.url).await
    }

    async fn delete(
        &self,
        effects: &Effects,
        url: &str,
        access: &str,
        options: &str,
    ) -> Result<bool, Failure> {
        let place = self.object(url, access)?;
        let text = if options.is_empty() { "{}" } else { options };
        let options: OfDelete = serde_json::from_str(text)
            .map_err(|_| not_options("those of `delete` are `written-by` and `leaves`: \"additive\""))?;
        let leaves = match options.leaves {
            Some(LeavesWord::Additive) => Leaves::Additive,
            None => Leaves::State,
        };
        let arguments = json!({ "object": url, "access": place.access, "written-by": options.written_by });
        let delete = || async { place.delete(options.written_by.as_deref()).await.map(Json::from) };
        let deleted = effects
            .perform("objects.delete", arguments, leaves, delete)
            .await?;
        // `Null` is what a person gave who said that it was done.
        Ok(deleted.as_bool().unwrap_or(true))
    }
}

impl Place {
    pub(crate) async fn known(&self) -> Result<Option<Known>, Failure> {
        self.bucket.known(&self.path, &self.url).await
    }

    async fn delete(&self, written_by: Option<&str>) -> Result<bool, Failure> {
        let known = self.known().await?;
        let is_meant = |known: &Known| written_by.is_none() || known.written_by.as_deref() == written_by;
        match known.is_some_and(|known| is_meant(&known)) {
            true => self.bucket.delete(&self.path, &self.url).await.map(|()| true),
            false => Ok(false),
        }
    }
}

fn not_a_url(problem: &str) -> Failure {
    Failure::new(Turn::Plugin, "object.url", problem)
}

fn not_options(problem: &str) -> Failure {
    let message = format!("the options for an object are not valid: {problem}");
    Failure::new(Turn::Plugin, "object.options", message)
}

pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    store::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

/// The attempt's caller, or its failure as the guest's error.
macro_rules! caller {
    ($state:expr) => {
        match $crate::service::objects::Caller::of($state) {
            Ok(caller) => caller,
            Err(failure) => return Ok(Err(failure.into())),
        }
    };
}
pub(crate) use caller;

impl store::Host for State {
    async fn head(
        &mut self,
        url: String,
        access: String,
    ) -> wasmtime::Result<Result<Option<String>, GuestError>> {
        let found = caller!(self).head(&url, &access).await;
        Ok(found
            .map(|known| known.map(|known| known.to_string()))
            .map_err(GuestError::from))
    }

    async fn list(&mut self, prefix: String, access: String) -> wasmtime::Result<Result<String, GuestError>> {
        let found = caller!(self).list(&prefix, &access).await;
        Ok(found.map(|found| found.to_string()).map_err(GuestError::from))
    }

    async fn delete(
        &mut self,
        url: String,
        access: String,
        options: String,
    ) -> wasmtime::Result<Result<bool, GuestError>> {
        let caller = caller!(self);
        let deleted = caller.delete(&self.effects, &url, &access, &options).await;
        Ok(deleted.map_err(GuestError::from))
    }
}
