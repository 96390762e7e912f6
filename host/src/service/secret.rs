//! `windlass:secrets`: handles to secrets, the placeholders that stand for them in texts, and the way into the run's store.

use super::State;
use crate::{
    capability::Capability,
    failure::{Failure, Turn},
    grant::Granter,
    name::SecretName,
    pattern::Pattern,
    secret::Store,
    value::SecretText,
    wit::{
        GuestError,
        windlass::secrets::{reveal, sink, store},
    },
};
use indexmap::IndexMap;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use wasmtime::component::{HasSelf, Linker, Resource};
use zeroize::Zeroizing;

/// What every placeholder starts with.
const PREFIX: &str = "wlsec_";
/// Hexadecimal digits behind it: 128 bits, never guessed.
const DIGITS: usize = 32;
/// The longest name a stage may put a secret under, as for secrets of the pipeline file.
const LONGEST_NAME: usize = SecretName::MAXIMUM;

/// The secrets as one attempt sees them: the run's store, and this attempt's placeholders.
pub struct Secrets {
    store: Arc<Store>,
    texts: Mutex<HashMap<String, SecretText>>,
}

/// A guest's handle. Holds names, never values.
pub struct Handle(SecretText);

/// Where placeholders are swapped.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A header of a request to this host.
    Header { host: &'a str, port: u16 },
    /// A SQL URL; arguments, environment or input of a process.
    Local,
}

impl Secrets {
    pub fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            texts: Mutex::default(),
        }
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// A placeholder for `text`, always the same one in this attempt.
    pub fn placeholder(&self, text: &SecretText) -> String {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = texts.iter().find(|(_, known)| *known == text);
        if let Some((placeholder, _)) = known {
            return placeholder.clone();
        }
        let mut random = [0; DIGITS / 2];
        getrandom::fill(&mut random).expect("the operating system has a source of randomness");
        let placeholder = format!("{PREFIX}{}", hex::encode(random));
        texts.insert(placeholder.clone(), text.clone());
        placeholder
    }

    /// `text` with the values of its placeholders: each checked against the grants, and against the hosts it is bound to.
    ///
    /// # Errors
    /// `grant.denied`; `secret.placeholder` for one that this attempt does not have; `secret.host`; those of the store.
    pub fn swap(
        &self,
        granter: &Granter,
        text: &str,
        place: Place<'_>,
    ) -> Result<Zeroizing<String>, Failure> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, placeholder, after)) = next_placeholder(rest) {
            pieces.push(Zeroizing::new(before.to_string()));
            pieces.push(self.value(granter, placeholder, place)?);
            rest = after;
        }
        pieces.push(Zeroizing::new(rest.to_string()));
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let mut whole = Zeroizing::new(String::with_capacity(length));
        pieces.iter().for_each(|piece| whole.push_str(piece));
        Ok(whole)
    }

    /// `text` for people and for the journal: `<name>` where a placeholder stands.
    pub fn describe(&self, text: &str) -> String {
        let mut described = String::new();
        let mut rest = text;
        while let Some((before, placeholder, after)) = next_placeholder(rest) {
            described.push_str(before);
            match self.text(placeholder) {
                Some(text) => described.push_str(&show(&text)),
                None => described.push_str(placeholder),
            }
            rest = after;
        }
        described + rest
    }

    /// A placeholder for what [`Secrets::describe`] has made of one, where that is one secret and nothing else.
    pub(crate) fn placeholder_of(&self, described: &str) -> Option<String> {
        let inner = described.strip_prefix('<')?.strip_suffix('>')?;
        let (name, field) = match inner.split_once('.') {
            Some((name, field)) => (name, Some(field.to_string())),
            None => (inner, None),
        };
        let name = SecretName::new(name).ok()?;
        Some(self.placeholder(&SecretText::Secret { name, field }))
    }

    fn text(&self, placeholder: &str) -> Option<SecretText> {
        let texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        texts.get(placeholder).cloned()
    }

    fn value(
        &self,
        granter: &Granter,
        placeholder: &str,
        place: Place<'_>,
    ) -> Result<Zeroizing<String>, Failure> {
        let text = self.text(placeholder).ok_or_else(|| unknown(placeholder))?;
        check(granter, Capability::SecretsUse, &text)?;
        if let Place::Header { host, port } = place
            && !self.store.may_go_to(&text, host, port)
        {
            let message = format!("{} is not bound to `{host}` and is not sent there", show(&text));
            return Err(
                Failure::new(Turn::PipelineAuthor, "secret.host", message).help(format!(
                    "if it should be, add `{host}` to its `hosts:` under `secrets:`"
                )),
            );
        }
        self.store.resolve_text(&text)
    }

    fn handle(&self, granter: &Granter, name: &str) -> Result<Handle, Failure> {
        let text = if name.starts_with(PREFIX) {
            self.text(name).ok_or_else(|| unknown(name))?
        } else {
            let name = SecretName::new(name)
                .map_err(|error| Failure::new(Turn::Plugin, "secret.name", error.to_string()))?;
            SecretText::Secret { name, field: None }
        };
        check(granter, Capability::SecretsUse, &text)?;
        match &text {
            SecretText::Secret { name, field: None } => self.store.ensure(name)?,
            text => drop(self.store.resolve(text)?),
        }
        Ok(Handle(text))
    }

    fn field(&self, of: &SecretText, field: &str) -> Result<Handle, Failure> {
        let SecretText::Secret { name, field: None } = of else {
            let message = format!("{} has no fields", show(of));
            return Err(Failure::new(Turn::Plugin, "secret.no-field", message));
        };
        self.store.get(name, Some(field))?;
        Ok(Handle(SecretText::Secret {
            name: name.clone(),
            field: Some(field.into()),
        }))
    }
}

/// The capability for every secret in a text.
fn check(granter: &Granter, capability: Capability, text: &SecretText) -> Result<(), Failure> {
    let mut checked = Ok(());
    text.for_each(&mut |name, _| {
        if checked.is_ok() {
            checked = granter.check(capability, &Pattern::Name(name.to_string()));
        }
    });
    checked
}

/// Whether there is anything to swap.
pub(crate) fn has_placeholder(text: &str) -> bool {
    next_placeholder(text).is_some()
}

/// The text before the next placeholder, the placeholder, and the text behind it.
fn next_placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let mut from = 0;
    while let Some(found) = text[from..].find(PREFIX) {
        let start = from + found;
        let end = start + PREFIX.len() + DIGITS;
        let digits = text.as_bytes().get(start + PREFIX.len()..end);
        if digits.is_some_and(|digits| digits.iter().all(is_digit)) {
            return Some((&text[..start], &text[start..end], &text[end..]));
        }
        from = start + PREFIX.len();
    }
    None
}

/// A secret text for people: literal words, and `<name>` or `<name.field>` for secrets.
fn show(text: &SecretText) -> String {
    match text {
        SecretText::Literal(literal) => literal.clone(),
        SecretText::Secret { name, field: None } => format!("<{name}>"),
        SecretText::Secret {
            name,
            field: Some(field),
        } => format!("<{name}.{field}>"),
        SecretText::Concat(parts) => parts.iter().map(show).collect(),
        SecretText::UrlEncode(inner) => show(inner),
        SecretText::Basic { user, password } => format!("{}:{}", show(user), show(password)),
    }
}

fn unknown(placeholder: &str) -> Failure {
    let message = format!("the placeholder `{placeholder}` is not of this attempt");
    Failure::new(Turn::Plugin, "secret.placeholder", message)
        .help("placeholders are for passing on at once, not for keeping: ask for a new one in each attempt")
}

pub(crate) fn link_store(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    store::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

pub(crate) fn link_reveal(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    reveal::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

pub(crate) fn link_sink(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    sink::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl State {
    /// Who asks for `secrets.put` under this name.
    fn may_put(&self, name: &str) -> Result<&Store, Failure> {
        if name.is_empty() || name.len() > LONGEST_NAME {
            let message = format!("the name of a secret has 1 to {LONGEST_NAME} characters");
            return Err(Failure::new(Turn::Plugin, "secret.name", message));
        }
        let value = Pattern::parse(Capability::SecretsPut, name)
            .map_err(|error| Failure::new(Turn::Plugin, "secret.name", error.to_string()))?;
        self.granter.check(Capability::SecretsPut, &value)?;
        self.effects.refuse_while_planning("secrets.put")?;
        Ok(self.secrets()?.store())
    }
}

impl store::Host for State {
    async fn get(&mut self, name: String) -> wasmtime::Result<Result<Resource<Handle>, GuestError>> {
        let handle = self
            .secrets()
            .and_then(|secrets| secrets.handle(&self.granter, &name));
        match handle {
            Ok(handle) => Ok(Ok(self.table.push(handle)?)),
            Err(failure) => Ok(Err(failure.into())),
        }
    }

    async fn field(
        &mut self,
        of: Resource<Handle>,
        name: String,
    ) -> wasmtime::Result<Result<Resource<Handle>, GuestError>> {
        let of = &self.table.get(&of)?.0;
        match self.secrets().and_then(|secrets| secrets.field(of, &name)) {
            Ok(handle) => Ok(Ok(self.table.push(handle)?)),
            Err(failure) => Ok(Err(failure.into())),
        }
    }
}

impl store::HostSecret for State {
    async fn name(&mut self, secret: Resource<Handle>) -> wasmtime::Result<String> {
        Ok(match &self.table.get(&secret)?.0 {
            SecretText::Secret { name, field: None } => name.to_string(),
            text => show(text),
        })
    }

    async fn placeholder(&mut self, secret: Resource<Handle>) -> wasmtime::Result<String> {
        let text = &self.table.get(&secret)?.0;
        let secrets = self
            .secrets()
            .map_err(|failure| wasmtime::Error::new(crate::wit::Abort(failure)))?;
        Ok(secrets.placeholder(text))
    }

    async fn drop(&mut self, secret: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete(secret)?;
        Ok(())
    }
}

impl reveal::Host for State {
    async fn reveal(&mut self, of: Resource<Handle>) -> wasmtime::Result<Result<Vec<u8>, GuestError>> {
        let text = &self.table.get(&of)?.0;
        let value = check(&self.granter, Capability::SecretsReveal, text)
            .and_then(|()| self.secrets())
            .and_then(|secrets| secrets.store.resolve(text));
        // The copy goes into the guest's memory, which is gone with the attempt.
        Ok(value
            .map(|mut value| std::mem::take(&mut *value))
            .map_err(GuestError::from))
    }
}

impl sink::Host for State {
    async fn put(
        &mut self,
        name: String,
        value: Vec<u8>,
        ttl_seconds: Option<u64>,
    ) -> wasmtime::Result<Result<(), GuestError>> {
        let value = Zeroizing::new(value);
        let ttl = ttl_seconds.map(Duration::from_secs);
        let put = self
            .may_put(&name)
            .and_then(|store| store.put(&self.context.stage, &name, value, ttl));
        Ok(put.map_err(GuestError::from))
    }

    async fn put_fields(
        &mut self,
        name: String,
        fields: Vec<(String, Vec<u8>)>,
        ttl_seconds: Option<u64>,
    ) -> wasmtime::Result<Result<(), GuestError>> {
        let fields: IndexMap<_, _> = fields
            .into_iter()
            .map(|(field, value)| (field, Zeroizing::new(value)))
            .collect();
        let ttl = ttl_seconds.map(Duration::from_secs);
        let put = self
            .may_put(&name)
            .and_then(|store| store.put_fields(&self.context.stage, &name, fields, ttl));
        Ok(put.map_err(GuestError::from))
    }

    async fn put_handle(
        &mut self,
        name: String,
        of: Resource<Handle>,
    ) -> wasmtime::Result<Result<(), GuestError>> {
        let text = &self.table.get(&of)?.0;
        let put = check(&self.granter, Capability::SecretsUse, text)
            .and_then(|()| self.may_put(&name))
            .and_then(|store| store.put_alias(&self.context.stage, &name, text));
        Ok(put.map_err(GuestError::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        grant::{Decision, DecisionLog, StageGrant, stage_grant::Entry},
        name::StageName,
        pipeline::model::{SecretSource, SecretSpec},
        report::redact::Redactor,
        secret::Sources,
        source::{SourceFile, Span},
    };

    struct NoDecisions;

    impl DecisionLog for NoDecisions {
        fn record(&self, _decision: &Decision) {}
    }

    fn granter(names: &[&str]) -> Granter {
        let entries = names.iter().map(|name| Entry {
            capability: Capability::SecretsUse,
            pattern: Pattern::Name(name.to_string()),
            rule: "a.yaml:1:1".into(),
        });
        let stage = StageName::new("check").expect("valid");
        let grant = StageGrant::new(stage, "p".into(), entries.collect());
        Granter::new(Arc::new(grant), Arc::new(NoDecisions))
    }

    fn secrets() -> Secrets {
        let spec = |variable: &str| SecretSpec {
            from: SecretSource::Env(variable.into()),
            key: None,
            kdf: None,
            hosts: Vec::new(),
            span: Span::new(&Arc::new(SourceFile::new("a.yaml", "a.yaml", "")), 0..0),
        };
        let specs = ["user", "password"].map(|text| (name(text), spec(text)));
        let sources = Sources {
            root: "/".into(),
            variable: Box::new(|name| Some(format!("{name}/value"))),
            docker_secrets: "/".into(),
            read: Box::new(|_| Err(std::io::ErrorKind::NotFound.into())),
            aws_sm: None,
        };
        let redactor = Arc::new(Redactor::new());
        Secrets::new(Arc::new(Store::new(
            specs.into_iter().collect(),
            sources,
            redactor,
        )))
    }

    fn name(text: &str) -> SecretName {
        SecretName::new(text).expect("valid")
    }

    fn secret(text: &str) -> SecretText {
        SecretText::Secret {
            name: name(text),
            field: None,
        }
    }

    /// What a text with a placeholder for `user:urlencode(password)` becomes, and how it is shown.
    #[track_caller]
    fn check(granted: &[&str], expected: Result<&str, &str>) {
        let secrets = secrets();
        let encoded = SecretText::UrlEncode(Box::new(secret("password")));
        let derived = SecretText::Concat(vec![secret("user"), SecretText::Literal(":".into()), encoded]);
        let text = format!("sql://{}@host", secrets.placeholder(&derived));
        assert_eq!(secrets.describe(&text), "sql://<user>:<password>@host");
        let swapped = secrets.swap(&granter(granted), &text, Place::Local);
        let swapped = swapped
            .as_ref()
            .map(|text| text.as_str())
            .map_err(|failure| failure.code.as_str());
        assert_eq!(swapped, expected);
    }

    #[test]
    fn a_derived_text_needs_every_secret_in_it() {
        check(
            &["user", "password"],
            Ok("sql://user/value:password%2Fvalue@host"),
        );
        check(&["user"], Err("grant.denied"));
        check(&["password"], Err("grant.denied"));
        check(&[], Err("grant.denied"));
    }

    #[test]
    fn placeholders_are_of_one_attempt() {
        let (one, other) = (secrets(), secrets());
        let placeholder = one.placeholder(&secret("user"));
        assert_eq!(one.placeholder(&secret("user")), placeholder);
        assert_ne!(other.placeholder(&secret("user")), placeholder);
        let refused = other.swap(&granter(&["user"]), &placeholder, Place::Local);
        assert_eq!(
            refused.err().map(|failure| failure.code).as_deref(),
            Some("secret.placeholder")
        );
    }

    #[test]
    fn handles_by_name_and_by_placeholder() {
        let secrets = secrets();
        let placeholder = secrets.placeholder(&secret("user"));
        let code = |granted: &[&str], text: &str| {
            secrets
                .handle(&granter(granted), text)
                .err()
                .map(|failure| failure.code)
        };
        assert_eq!(code(&["user"], "user"), None);
        assert_eq!(code(&["user"], &placeholder), None);
        assert_eq!(code(&[], "user").as_deref(), Some("grant.denied"));
        assert_eq!(code(&[], &placeholder).as_deref(), Some("grant.denied"));
        assert_eq!(code(&["absent"], "absent").as_deref(), Some("secret.undeclared"));
        assert_eq!(code(&["user"], "not a name").as_deref(), Some("secret.name"));
    }

    #[test]
    fn a_described_secret_is_found_again_where_it_is_one() {
        let secrets = secrets();
        let again = |text: &str| secrets.placeholder_of(text).map(|text| secrets.describe(&text));
        assert_eq!(again("<user>").as_deref(), Some("<user>"));
        assert_eq!(again("<user.key>").as_deref(), Some("<user.key>"));
        for text in ["user", "<user>:<password>", "x<user>", "<>", "<not a name>"] {
            assert_eq!(again(text), None, "{text}");
        }
    }

    #[test]
    fn placeholders_are_found_whole() {
        let placeholder = format!("{PREFIX}{}", "0123456789abcdef".repeat(2));
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = next_placeholder(text).map(|(before, _, after)| (before, after));
            assert_eq!(found, expected, "{text}");
        };
        check(&placeholder, Some(("", "")));
        check(&format!("Bearer {placeholder}!"), Some(("Bearer ", "!")));
        check(
            &format!("wlsec_wlsec_ é {placeholder}é"),
            Some(("wlsec_wlsec_ é ", "é")),
        );
        check(&placeholder[..placeholder.len() - 1], None);
        check(&placeholder.to_uppercase(), None);
        check("wlsec_", None);
    }
}
