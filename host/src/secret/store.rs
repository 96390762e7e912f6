//! The secrets of one run, in memory: loaded from their sources up front, or put by stages on the way.

use super::{Bytes, MAXIMUM_VALUE, Mask, Sources, text};
use crate::{
    failure::{Failure, Turn},
    name::{SecretName, StageName},
    pattern::Pattern,
    pipeline::model::{SecretSource, SecretSpec},
    value::SecretText,
};
use indexmap::IndexMap;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

/// Values shorter than this are not masked: hiding `prod` or `1234` everywhere would make mush of a log.
const MASKED_FROM: usize = 6;

/// The most fields of one secret.
pub const MAXIMUM_FIELDS: usize = 100;

/// All secrets of a run.
pub struct Store {
    specs: IndexMap<SecretName, SecretSpec>,
    sources: Sources,
    mask: Arc<dyn Mask>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    loaded: HashMap<SecretName, Arc<Secret>>,
    /// By stage (without its matrix cell) and the name the stage gave.
    put: HashMap<(String, String), Arc<Secret>>,
    /// What is too short to be masked, for the warning.
    short: BTreeSet<String>,
}

#[derive(Clone)]
struct Secret {
    content: Content,
    expires: Option<Instant>,
}

#[derive(Clone)]
enum Content {
    Text(Bytes),
    Fields(IndexMap<String, Bytes>),
}

impl Store {
    /// A store that has read nothing yet. Every value goes through `mask` before it can be had.
    pub fn new(specs: IndexMap<SecretName, SecretSpec>, sources: Sources, mask: Arc<dyn Mask>) -> Self {
        Self {
            specs,
            sources,
            mask,
            held: Mutex::default(),
        }
    }

    /// Reads all of `names` that have a source outside the run, in one batch.
    ///
    /// # Errors
    /// Every one that cannot be had: `secret.missing`, `secret.unavailable`, `secret.decrypt`, `secret.declaration`,
    /// `secret.not-text`, `secret.too-large`, `secret.undeclared`.
    pub fn load<'a>(&self, names: impl IntoIterator<Item = &'a SecretName>) -> Result<(), Vec<Failure>> {
        let (mut read, mut failures) = (Vec::new(), Vec::new());
        for name in names {
            match self.read(name) {
                Ok(Some(secret)) => read.push((name.clone(), secret)),
                Ok(None) => {}
                Err(failure) => failures.push(failure),
            }
        }
        let named = read.iter().map(|(name, secret)| (name.as_str(), secret));
        self.learn(named);
        let loaded = read.into_iter().map(|(name, secret)| (name, Arc::new(secret)));
        self.held().loaded.extend(loaded);
        if failures.is_empty() {
            Ok(())
        } else {
            Err(failures)
        }
    }

    /// What hides the values that are held here.
    pub fn mask(&self) -> Arc<dyn Mask> {
        self.mask.clone()
    }

    /// The names of secrets with a value too short to be masked.
    pub fn short_values(&self) -> Vec<String> {
        self.held().short.iter().cloned().collect()
    }

    /// A secret's value, or that of one of its fields.
    ///
    /// # Errors
    /// Those of [`Store::load`]; `secret.missing` for one that no stage has put yet; `secret.no-field`; `secret.expired`.
    pub fn get(&self, name: &SecretName, field: Option<&str>) -> Result<Bytes, Failure> {
        let secret = self.secret(name)?;
        if secret.expires.is_some_and(|expires| expires <= Instant::now()) {
            let message = format!("secret `{name}`: it was put with a time to live and that is over");
            let failure = Failure::new(Turn::Environment, "secret.expired", message);
            return Err(failure.help("run again: the stage that puts it fetches a fresh one"));
        }
        match (&secret.content, field) {
            (Content::Text(value), None) => Ok(value.clone()),
            (Content::Fields(fields), Some(field)) => {
                let value = fields.get(field).cloned();
                value.ok_or_else(|| no_field(name, &format!("it has no field `{field}`"), Some(fields)))
            }
            (Content::Text(_), Some(field)) => {
                let problem = format!("it is one text and has no field `{field}`");
                Err(no_field(name, &problem, None))
            }
            (Content::Fields(fields), None) => Err(no_field(name, "it has fields: name one", Some(fields))),
        }
    }

    /// Whether the secret is there, whole or with fields.
    ///
    /// # Errors
    /// Those of [`Store::load`]; `secret.missing` for one that no stage has put yet.
    pub fn ensure(&self, name: &SecretName) -> Result<(), Failure> {
        self.secret(name).map(drop)
    }

    /// The bytes of a text with secrets in it.
    ///
    /// # Errors
    /// Those of [`Store::get`].
    pub fn resolve(&self, text: &SecretText) -> Result<Bytes, Failure> {
        let mut derived = Vec::new();
        let get = |name: &SecretName, field: Option<&str>| self.get(name, field);
        let resolved = text::resolve(text, &get, &mut derived)?;
        if !derived.is_empty() {
            let derived: Vec<&[u8]> = derived.iter().map(|value| &value[..]).collect();
            self.mask.learn(&derived);
        }
        Ok(resolved)
    }

    /// As [`Store::resolve`], where only text will do: headers, URLs, arguments.
    ///
    /// # Errors
    /// Those of [`Store::get`], and `secret.not-text`.
    pub fn resolve_text(&self, text: &SecretText) -> Result<Zeroizing<String>, Failure> {
        let mut resolved = self.resolve(text)?;
        match String::from_utf8(std::mem::take(&mut *resolved)) {
            Ok(text) => Ok(Zeroizing::new(text)),
            Err(error) => {
                drop(Zeroizing::new(error.into_bytes()));
                let mut names = BTreeSet::new();
                text.for_each(&mut |name, _| {
                    names.insert(format!("`{name}`"));
                });
                let names = names.into_iter().collect::<Vec<_>>().join(", ");
                let message =
                    format!("secret {names}: its bytes are not UTF-8 and cannot go where text is wanted");
                Err(Failure::new(Turn::Operator, "secret.not-text", message)
                    .help("store it as text, base64 for example"))
            }
        }
    }

    /// Whether every secret in `text` may be sent to this host in a request header. A secret without `hosts` may go to any
    /// host that the stage may reach.
    pub fn may_go_to(&self, text: &SecretText, host: &str, port: u16) -> bool {
        let mut allowed = true;
        text.for_each(&mut |name, _| {
            let hosts = self.specs.get(name).map_or(&[][..], |spec| &spec.hosts);
            allowed &= hosts.is_empty() || hosts.iter().any(|bound| host_covers(bound, host, port));
        });
        allowed
    }

    /// Puts a secret that other stages reach as `stage://<stage>/<name>`.
    ///
    /// # Errors
    /// `secret.too-large`.
    pub fn put(
        &self,
        stage: &StageName,
        name: &str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<(), Failure> {
        self.hold(stage, name, Content::Text(value), ttl)
    }

    /// Puts a secret with fields.
    ///
    /// # Errors
    /// `secret.too-large`: more than [`MAXIMUM_FIELDS`], or more bytes than [`MAXIMUM_VALUE`] in all.
    pub fn put_fields(
        &self,
        stage: &StageName,
        name: &str,
        fields: IndexMap<String, Bytes>,
        ttl: Option<Duration>,
    ) -> Result<(), Failure> {
        self.hold(stage, name, Content::Fields(fields), ttl)
    }

    /// Puts a secret of the pipeline under another name. A whole secret keeps its fields and its time to live.
    ///
    /// # Errors
    /// Those of [`Store::resolve`] and [`Store::put`].
    pub fn put_alias(&self, stage: &StageName, name: &str, of: &SecretText) -> Result<(), Failure> {
        if let SecretText::Secret {
            name: of,
            field: None,
        } = of
        {
            let secret = self.secret(of)?;
            self.held().put.insert(place(stage, name), secret);
            return Ok(());
        }
        self.put(stage, name, self.resolve(of)?, None)
    }

    fn hold(
        &self,
        stage: &StageName,
        name: &str,
        content: Content,
        ttl: Option<Duration>,
    ) -> Result<(), Failure> {
        if content.size() > MAXIMUM_VALUE || content.fields() > MAXIMUM_FIELDS {
            let message = format!("secret `{name}` is larger than 1 MiB or {MAXIMUM_FIELDS} fields");
            return Err(Failure::new(Turn::Plugin, "secret.too-large", message));
        }
        let expires = ttl.and_then(|ttl| Instant::now().checked_add(ttl));
        let secret = Secret { content, expires };
        self.learn([(name, &secret)]);
        self.held().put.insert(place(stage, name), Arc::new(secret));
        Ok(())
    }

    fn secret(&self, name: &SecretName) -> Result<Arc<Secret>, Failure> {
        if let Some(secret) = self.held().loaded.get(name) {
            return Ok(secret.clone());
        }
        let spec = self.spec(name)?;
        if let SecretSource::Stage { stage, name: put_as } = &spec.from {
            let found = self.held().put.get(&place(stage, put_as)).cloned();
            return found.ok_or_else(|| {
                let message = format!("secret `{name}`: stage `{stage}` has not put `{put_as}`");
                Failure::new(Turn::PipelineAuthor, "secret.missing", message).help(format!(
                    "see what `{stage}` reads, and that it has `secrets: {{ put: [{put_as}] }}`"
                ))
            });
        }
        self.load([name]).map_err(|mut failures| failures.remove(0))?;
        let loaded = self.held().loaded.get(name).cloned();
        Ok(loaded.expect("it was loaded a line above, and nothing is ever removed"))
    }

    fn read(&self, name: &SecretName) -> Result<Option<Secret>, Failure> {
        let spec = self.spec(name)?;
        let value = self.sources.value(spec).map_err(|error| {
            let message = format!("secret `{name}` ({}): {error}", spec.span);
            Failure::new(error.turn(), error.code(), message).help(error.help())
        })?;
        Ok(value.map(|value| Secret {
            content: Content::Text(value),
            expires: None,
        }))
    }

    fn spec(&self, name: &SecretName) -> Result<&SecretSpec, Failure> {
        self.specs.get(name).ok_or_else(|| {
            let message = format!("the pipeline has no secret `{name}`");
            let known: Vec<&str> = self.specs.keys().map(SecretName::as_str).collect();
            Failure::new(Turn::PipelineAuthor, "secret.undeclared", message)
                .help(format!("`secrets:` has: {}", known.join(", ")))
        })
    }

    fn learn<'a>(&self, secrets: impl IntoIterator<Item = (&'a str, &'a Secret)>) {
        let (mut values, mut short) = (Vec::new(), Vec::new());
        for (name, secret) in secrets {
            for (field, value) in secret.content.values() {
                if value.len() < MASKED_FROM {
                    short.push(field.map_or(name.to_string(), |field| format!("{name}.{field}")));
                }
                values.push(value);
            }
        }
        self.mask.learn(&values);
        self.held().short.extend(short);
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn values(&self) -> Vec<(Option<&str>, &[u8])> {
        match self {
            Self::Text(value) => vec![(None, value)],
            Self::Fields(fields) => fields
                .iter()
                .map(|(name, value)| (Some(name.as_str()), &value[..]))
                .collect(),
        }
    }

    fn size(&self) -> usize {
        self.values().iter().map(|(_, value)| value.len()).sum()
    }

    fn fields(&self) -> usize {
        match self {
            Self::Text(_) => 0,
            Self::Fields(fields) => fields.len(),
        }
    }
}

fn place(stage: &StageName, name: &str) -> (String, String) {
    (stage.base().to_string(), name.to_string())
}

fn no_field(name: &SecretName, problem: &str, fields: Option<&IndexMap<String, Bytes>>) -> Failure {
    let message = format!("secret `{name}`: {problem}");
    let failure = Failure::new(Turn::PipelineAuthor, "secret.no-field", message);
    match fields {
        None => failure,
        Some(fields) => {
            let known: Vec<&str> = fields.keys().map(String::as_str).collect();
            failure.help(format!("its fields are: {}", known.join(", ")))
        }
    }
}

/// `bound` is `host`, `host:port` or `*.suffix` as in `hosts:`.
fn host_covers(bound: &str, host: &str, port: u16) -> bool {
    use crate::capability::Capability::Tcp;
    let value = Pattern::parse(Tcp, &format!("{host}:{port}"));
    let pattern = Pattern::parse(Tcp, bound).or_else(|_| Pattern::parse(Tcp, &format!("{bound}:{port}")));
    matches!((pattern, value), (Ok(pattern), Ok(value)) if pattern.covers(&value))
}

#[cfg(test)]
mod tests;
