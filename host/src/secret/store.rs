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
    pub fn mask(&self) -> &dyn Mask {
        &*self.mask
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
mod tests {
    use super::*;
    use crate::{
        pipeline::model::Kdf,
        secret::MaskStream,
        source::{SourceFile, Span},
    };
    use std::{io, path::Path};

    #[derive(Default)]
    struct Learned(Mutex<Vec<Vec<u8>>>);

    impl Mask for Learned {
        fn learn(&self, values: &[&[u8]]) {
            let values = values.iter().map(|value| value.to_vec());
            self.0.lock().expect("not poisoned").extend(values);
        }

        fn redact(&self, text: &str) -> String {
            text.into()
        }

        fn stream(&self) -> Box<dyn MaskStream> {
            unreachable!("a store never prints")
        }
    }

    fn spec(from: SecretSource) -> SecretSpec {
        let file = SourceFile::new("windlass.yaml", "windlass.yaml", "secrets:\n");
        SecretSpec {
            from,
            key: None,
            kdf: None,
            hosts: Vec::new(),
            span: Span::new(&Arc::new(file), 0..7),
        }
    }

    fn file(path: &str, key: Option<&str>) -> SecretSource {
        SecretSource::File {
            path: path.into(),
            key: key.map(String::from),
        }
    }

    fn read(path: &Path) -> io::Result<Vec<u8>> {
        let content: &[u8] = match path.to_str() {
            Some("/root/token") => b"file-token\n",
            Some("/root/.env") => b"# a comment\nA=first-value\nB=\"second-value\" # why\nD=${SIGNING_KEY}\n",
            Some("/run/secrets/vault-id") => b"docker-value",
            Some("/elsewhere") => b"elsewhere-value",
            Some("/root/sealed") => b"Salted__12345678................",
            Some("/root/locked") => return Err(io::ErrorKind::PermissionDenied.into()),
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(content.to_vec())
    }

    fn name(text: &str) -> SecretName {
        SecretName::new(text).expect("valid")
    }

    fn store(specs: Vec<(&str, SecretSpec)>) -> (Store, Arc<Learned>) {
        let specs = specs.into_iter().map(|(text, spec)| (name(text), spec)).collect();
        let variable = |name: &str| match name {
            "SIGNING_KEY" => Some("signing-value".to_string()),
            "PIN" => Some("1234".to_string()),
            "MOVED_FILE" => Some("/elsewhere".to_string()),
            _ => None,
        };
        let sources = Sources {
            root: "/root".into(),
            variable: Box::new(variable),
            docker_secrets: "/run/secrets".into(),
            read: Box::new(read),
        };
        let learned = Arc::new(Learned::default());
        (Store::new(specs, sources, learned.clone()), learned)
    }

    fn stage(text: &str) -> StageName {
        StageName::new(text).expect("valid")
    }

    fn bytes(text: &str) -> Bytes {
        Zeroizing::new(text.as_bytes().to_vec())
    }

    /// One secret: its value, or the code of its failure.
    #[track_caller]
    fn check(spec: SecretSpec, expected: Result<&str, &str>) {
        let (store, learned) = store(vec![("it", spec)]);
        let loaded = store.load([&name("it")]).and_then(|()| {
            let value = store.get(&name("it"), None).map_err(|failure| vec![failure])?;
            Ok(String::from_utf8_lossy(&value).into_owned())
        });
        match (loaded, expected) {
            (Ok(value), expected) => {
                assert_eq!(Ok(value.as_str()), expected);
                let learned = learned.0.lock().expect("not poisoned");
                assert_eq!(*learned, [value.into_bytes()], "the mask knows it");
            }
            (Err(failures), expected) => {
                assert_eq!(expected, Err(failures[0].code.as_str()));
                assert!(failures[0].help.is_some() && failures[0].message.contains("windlass.yaml:1:1"));
            }
        }
    }

    #[test]
    fn sources() {
        check(spec(SecretSource::Env("SIGNING_KEY".into())), Ok("signing-value"));
        check(spec(SecretSource::Env("ABSENT".into())), Err("secret.missing"));
        check(spec(file("token", None)), Ok("file-token"));
        check(spec(file(".env", Some("B"))), Ok("second-value"));
        check(spec(file(".env", Some("D"))), Ok("signing-value"));
        check(spec(file(".env", Some("C"))), Err("secret.missing"));
        check(spec(file("token", Some("C"))), Err("secret.not-text"));
        check(spec(file("nothing", None)), Err("secret.missing"));
        check(spec(file("locked", None)), Err("secret.unavailable"));
        check(
            spec(SecretSource::DockerSecret("vault-id".into())),
            Ok("docker-value"),
        );
        check(
            spec(SecretSource::DockerSecret("moved".into())),
            Ok("elsewhere-value"),
        );
        check(
            spec(SecretSource::DockerSecret("absent".into())),
            Err("secret.missing"),
        );
    }

    #[test]
    fn declarations_of_encrypted_files() {
        let key = Some(SecretSource::Env("SIGNING_KEY".into()));
        check(spec(file("sealed", None)), Err("secret.declaration"));
        let without_kdf = SecretSpec {
            key: key.clone(),
            ..spec(file("sealed", None))
        };
        check(without_kdf.clone(), Err("secret.declaration"));
        let (store, _) = store(vec![("it", without_kdf.clone())]);
        let failure = store.get(&name("it"), None).err().expect("has no kdf");
        let help = failure.help.expect("says what to add");
        assert!(
            ["evp-sha256", "evp-md5", "pbkdf2"]
                .iter()
                .all(|kdf| help.contains(kdf)),
            "{help}"
        );
        let wrong = SecretSpec {
            kdf: Some(Kdf::EvpMd5),
            ..without_kdf
        };
        check(wrong, Err("secret.decrypt"));
        check(
            SecretSpec {
                key,
                ..spec(file("token", None))
            },
            Err("secret.declaration"),
        );
    }

    #[test]
    fn all_problems_at_once_and_short_values_are_named() {
        let (store, learned) = store(vec![
            ("a", spec(SecretSource::Env("ABSENT".into()))),
            ("b", spec(file("nothing", None))),
            ("pin", spec(SecretSource::Env("PIN".into()))),
        ]);
        let failures = store
            .load([&name("a"), &name("b"), &name("pin")])
            .expect_err("two are missing");
        assert_eq!(failures.len(), 2);
        assert_eq!(store.short_values(), ["pin"]);
        assert_eq!(learned.0.lock().expect("not poisoned").len(), 1);
    }

    #[test]
    fn stages_put_secrets_for_other_stages() {
        let from = |text: &str| {
            spec(SecretSource::Stage {
                stage: stage("fetch"),
                name: text.into(),
            })
        };
        let (store, learned) = store(vec![
            ("db", from("database")),
            ("one", from("one")),
            ("copy", from("copy")),
        ]);
        assert_eq!(store.load([&name("db")]), Ok(()), "not there yet is no problem");
        assert_eq!(
            store.get(&name("one"), None).err().expect("not put").code,
            "secret.missing"
        );

        let fetch = stage("fetch").cell([("os", "debian".into())]);
        let fields = IndexMap::from([
            ("user".to_string(), bytes("teamuser")),
            ("pin".into(), bytes("12")),
        ]);
        store.put_fields(&fetch, "database", fields, None).expect("fits");
        store
            .put(&fetch, "one", bytes("one-value"), Some(Duration::ZERO))
            .expect("fits");
        let whole = SecretText::Secret {
            name: name("db"),
            field: None,
        };
        store.put_alias(&fetch, "copy", &whole).expect("is there");

        let get = |text: &str, field: Option<&str>| match store.get(&name(text), field) {
            Ok(value) => String::from_utf8_lossy(&value).into_owned(),
            Err(failure) => failure.code,
        };
        assert_eq!(get("db", Some("user")), "teamuser");
        assert_eq!(get("copy", Some("user")), "teamuser");
        assert_eq!(get("db", Some("host")), "secret.no-field");
        assert_eq!(get("db", None), "secret.no-field");
        assert_eq!(get("one", None), "secret.expired");
        assert_eq!(store.short_values(), ["database.pin"]);
        assert!(
            learned
                .0
                .lock()
                .expect("not poisoned")
                .contains(&b"teamuser".to_vec())
        );
        let large = Zeroizing::new(vec![b'x'; MAXIMUM_VALUE + 1]);
        let refused = store.put(&fetch, "large", large, None).expect_err("too large");
        assert_eq!(refused.code, "secret.too-large");
    }

    #[test]
    fn derived_texts_are_masked_and_bound_to_hosts() {
        let bound = SecretSpec {
            hosts: vec!["api.example.com".into(), "*.example.org:8443".into()],
            ..spec(SecretSource::Env("SIGNING_KEY".into()))
        };
        let (store, learned) = store(vec![("key", bound)]);
        let key = SecretText::Secret {
            name: name("key"),
            field: None,
        };
        let basic = SecretText::Basic {
            user: Box::new(SecretText::Literal("u".into())),
            password: Box::new(key),
        };
        let resolved = store.resolve_text(&basic).expect("resolves");
        assert_eq!(*resolved, "dTpzaWduaW5nLXZhbHVl");
        assert!(
            learned
                .0
                .lock()
                .expect("not poisoned")
                .contains(&resolved.as_bytes().to_vec())
        );
        for (host, port, allowed) in [
            ("api.example.com", 443, true),
            ("API.example.com", 1, true),
            ("other.example.com", 443, false),
            ("a.example.org", 8443, true),
            ("a.example.org", 443, false),
        ] {
            assert_eq!(store.may_go_to(&basic, host, port), allowed, "{host}:{port}");
        }
    }
}
