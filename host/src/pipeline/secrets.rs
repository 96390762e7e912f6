//! `secrets`: where each comes from. Knows no secret.

use super::{
    fields::{Fields, entries, text},
    keys::SECRET,
    model::{Kdf, SecretSource, SecretSpec},
    node::{Entry, Kind, Node},
    problems::{Problems, quoted, suggest},
};
use crate::{
    diagnostic::Diagnostic,
    name::{SecretName, StageName},
    source::Span,
};
use indexmap::{IndexMap, IndexSet};
use std::path::PathBuf;

const KDFS: &[(&str, Kdf)] = &[
    ("evp-sha256", Kdf::EvpSha256),
    ("evp-md5", Kdf::EvpMd5),
    ("pbkdf2", Kdf::Pbkdf2),
];
const FORMS: &str = "env://NAME, file://path, file://path#KEY, docker-secret://name, aws-sm://name, aws-sm://name#key, or stage://stage/name";
const SCHEMES: [&str; 5] = ["env", "file", "docker-secret", "aws-sm", "stage"];

/// The secrets of the file, by name.
pub(crate) fn read(node: Option<Node>, problems: &mut Problems) -> IndexMap<SecretName, SecretSpec> {
    let mut secrets = IndexMap::new();
    for entry in entries(node, "`secrets`", problems) {
        match SecretName::new(&entry.key) {
            Err(error) => problems.error("pipeline.name", &entry.key_span, error.to_string()),
            Ok(name) => {
                if let Some(spec) = secret(&name, entry, problems) {
                    secrets.insert(name, spec);
                }
            }
        }
    }
    secrets
}

/// `stage://` must name a stage.
pub(crate) fn check_stages(
    secrets: &IndexMap<SecretName, SecretSpec>,
    stages: &IndexSet<Box<str>>,
    problems: &mut Problems,
) {
    for spec in secrets.values() {
        if let SecretSource::Stage { stage, .. } = &spec.from
            && !stages.contains(stage.as_str())
        {
            let message = super::expression::unknown(
                "stage",
                stage.as_str(),
                stages.iter().take(1_000).map(|name| &**name),
            );
            problems.error("pipeline.secret", &spec.span, message);
        }
    }
}

/// The files of the root that a stage must not be given with a whole tree.
pub(crate) fn files(secrets: &IndexMap<SecretName, SecretSpec>, env_files: &[(String, Span)]) -> Vec<String> {
    let sources = secrets
        .values()
        .flat_map(|spec| std::iter::once(&spec.from).chain(&spec.key));
    let paths = sources.filter_map(|source| match source {
        SecretSource::File { path, .. } => path.to_str().map(String::from),
        _ => None,
    });
    let all = paths.chain(env_files.iter().map(|(path, _)| path.clone()));
    all.map(|path| path.trim_start_matches("./").to_string())
        .collect()
}

fn secret(name: &SecretName, entry: Entry, problems: &mut Problems) -> Option<SecretSpec> {
    let span = entry.value.span.clone();
    if matches!(entry.value.kind, Kind::Text(_)) {
        let from = source(entry.value, name, problems)?;
        return Some(SecretSpec {
            from,
            key: None,
            kdf: None,
            hosts: Vec::new(),
            span,
        });
    }
    let what = format!("the secret `{name}`");
    let mut fields = Fields::read(entry.value, &what, SECRET, problems)?;
    let key = fields.take("key").and_then(|node| {
        let place = node.span.clone();
        let source = source(node, name, problems)?;
        if matches!(source, SecretSource::Stage { .. }) {
            problems.error("pipeline.secret", &place, "a passphrase cannot come from a stage");
        }
        Some(source)
    });
    let kdf = fields.choice("kdf", KDFS, problems);
    let hosts = fields
        .texts("hosts", problems)
        .into_iter()
        .map(|(host, _)| host)
        .collect();
    let from = fields
        .take("from")
        .and_then(|node| source(node, name, problems))?;
    if key.is_none() && kdf.is_some() {
        problems.error_with_help(
            "pipeline.secret",
            &span,
            format!("the secret `{name}` has a `kdf` and no `key`"),
            "add `key: env://NAME`",
        );
    }
    if key.is_some() && !matches!(from, SecretSource::File { .. }) {
        problems.error(
            "pipeline.secret",
            &span,
            format!("only a file can be encrypted: the secret `{name}` needs no `key`"),
        );
    }
    Some(SecretSpec {
        from,
        key,
        kdf,
        hosts,
        span,
    })
}

fn source(node: Node, name: &SecretName, problems: &mut Problems) -> Option<SecretSource> {
    let (url, span) = text(node, &format!("the source of the secret `{name}`"), problems)?;
    if !url.contains("://") {
        // Without the place: the snippet would show the secret that somebody pasted here.
        let message = format!(
            "{span}: the secret `{name}` is written into the file; this must be the URL of where it comes from"
        );
        problems.push(Diagnostic::error("pipeline.secret", message).help(format!("it can be: {FORMS}")));
        return None;
    }
    match parse(&url) {
        Ok(source) => Some(source),
        Err(message) => {
            refuse(&message, &span, problems);
            None
        }
    }
}

fn refuse(message: &str, span: &Span, problems: &mut Problems) {
    problems.error_with_help("pipeline.secret", span, message, format!("it can be: {FORMS}"));
}

/// The source that a URL names. No message shows the text: it may be a secret that somebody put in the wrong place.
fn parse(url: &str) -> Result<SecretSource, String> {
    let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
    if super::expression::holds_expression(url) {
        return Err("the source of a secret cannot hold an expression".to_string());
    }
    if rest.is_empty() {
        return Err(format!("`{scheme}://` names nothing"));
    }
    match scheme {
        "env" => Ok(SecretSource::Env(rest.to_string())),
        "docker-secret" => match rest.contains('/') || rest.starts_with('.') {
            true => Err("the name of a docker secret has no `/`".to_string()),
            false => Ok(SecretSource::DockerSecret(rest.to_string())),
        },
        "file" => {
            let (path, key) = match rest.split_once('#') {
                Some((path, key)) => (path, Some(key.to_string())),
                None => (rest, None),
            };
            match path.is_empty() || key.as_deref() == Some("") {
                true => Err("`file://` needs a path, and a name after a `#`".to_string()),
                false => Ok(SecretSource::File {
                    path: PathBuf::from(path),
                    key,
                }),
            }
        }
        "aws-sm" => {
            let (name, key) = match rest.split_once('#') {
                Some((name, key)) => (name, Some(key.to_string())),
                None => (rest, None),
            };
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-:".contains(&byte);
            match name.is_empty() || !name.bytes().all(plain) || key.as_deref() == Some("") {
                true => Err("`aws-sm://` takes a secret's name or ARN, and a key after a `#`".to_string()),
                false => Ok(SecretSource::AwsSm {
                    name: name.to_string(),
                    key,
                }),
            }
        }
        "stage" => {
            let parts = rest
                .split_once('/')
                .filter(|(_, name)| !name.is_empty() && !name.contains('/'));
            let (stage, name) = parts.ok_or("`stage://` takes a stage and a name: stage://fetch/database")?;
            let stage = StageName::new(stage).map_err(|error| error.to_string())?;
            Ok(SecretSource::Stage {
                stage,
                name: name.to_string(),
            })
        }
        other => Err(format!(
            "secrets do not come from {}; {}",
            quoted(other),
            suggest(other, SCHEMES)
        )),
    }
}
