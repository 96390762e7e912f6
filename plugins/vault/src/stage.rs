//! What the stage does: log in, read everything, and only then put everything; or, switched off, hand on local secrets.
//! All of the world is behind [`Ports`].

use crate::client::{Answer, Client};
use crate::config::{Auth, Config};
use crate::secret::{Content, encode};
use serde_json::{Map, Value, json};
use std::time::Duration;
use windlass_guest::http::{Request, Response};
use windlass_guest::{Error, Outcome};

/// What the stage needs of the world.
pub(crate) trait Ports {
    /// Sends one request.
    fn send(&mut self, request: &Request) -> Result<Response, Error>;
    /// Waits; false when the stage is cancelled.
    fn sleep(&mut self, duration: Duration) -> bool;
    /// The bytes behind a placeholder, or the text itself where it is none.
    fn reveal(&mut self, text: &str) -> Result<String, Error>;
    /// Puts what was read under a name.
    fn put(&mut self, name: &str, content: &Content) -> Result<(), Error>;
    /// Puts the secret behind a placeholder, or the text itself, under a name.
    fn put_text(&mut self, name: &str, text: &str) -> Result<(), Error>;
    /// A line that is shown.
    fn info(&mut self, line: &str);
    /// A line that is shown as something to look at.
    fn warn(&mut self, line: &str);
}

/// One secret and where it was.
struct Read<'a> {
    name: &'a str,
    path: String,
    version: u8,
    content: Content,
}

/// Runs the stage.
pub(crate) fn run(config: &Config, ports: &mut impl Ports) -> Result<Outcome, Error> {
    config.check()?;
    let (summary, secrets) = if config.enabled {
        fetch(config, ports)?
    } else {
        fall_back(config, ports)?
    };
    Ok(Outcome::changed(summary).output("secrets", secrets))
}

fn fall_back(config: &Config, ports: &mut impl Ports) -> Result<(String, Map<String, Value>), Error> {
    let mut secrets = Map::new();
    for (name, text) in &config.fallback {
        ports
            .put_text(name, text)
            .map_err(|error| error.context(format!("handing on `{name}`")))?;
        secrets.insert(name.clone(), json!({ "source": "fallback" }));
    }
    Ok((
        format!(
            "Vault is switched off: {} taken from `fallback`",
            count(secrets.len())
        ),
        secrets,
    ))
}

fn fetch(config: &Config, ports: &mut impl Ports) -> Result<(String, Map<String, Value>), Error> {
    let auth = config.auth.as_ref().ok_or_else(|| {
        Error::config("`auth` is missing")
            .help("write auth: { token: ... }, { approle: ... } or { jwt: ... }")
    })?;
    let token = log_in(config, auth, ports)?;
    let mut client = Client::new(ports, &config.address, config.namespace.as_deref()).with_token(token);
    // All before the first put: a later stage never finds half of what it needs.
    let reads: Vec<Read<'_>> = config
        .read
        .iter()
        .map(|(name, path)| read(config, &mut client, name, path))
        .collect::<Result<_, _>>()?;
    let mut secrets = Map::new();
    for read in &reads {
        ports
            .put(read.name, &read.content)
            .map_err(|error| error.context(format!("putting `{}`", read.name)))?;
        ports.info(&format!("{} <- {}", read.name, read.path));
        secrets.insert(read.name.to_owned(), described(read));
    }
    Ok((format!("{} read from Vault", count(reads.len())), secrets))
}

/// The token to ask with: the author's, or one for this attempt that never leaves the plugin.
fn log_in(config: &Config, auth: &Auth, ports: &mut impl Ports) -> Result<String, Error> {
    let (mount, body) = match auth {
        Auth {
            token: Some(token), ..
        } => return Ok(token.clone()),
        Auth {
            approle: Some(approle),
            ..
        } => {
            let secret_id = ports.reveal(&approle.secret_id)?;
            (
                &approle.mount,
                json!({ "role_id": approle.role_id, "secret_id": secret_id.trim() }),
            )
        }
        Auth { jwt: Some(jwt), .. } => (
            &jwt.mount,
            json!({ "role": jwt.role, "jwt": ports.reveal(&jwt.token)?.trim() }),
        ),
        _ => {
            return Err(
                Error::config("`auth` names no way to be let in").help("use `token`, `approle` or `jwt`")
            );
        }
    };
    let path = format!("auth/{}/login", path(mount));
    let mut client = Client::new(ports, &config.address, config.namespace.as_deref());
    match client.post(&path, &body)? {
        Answer::Found(reply) => match reply.pointer("/auth/client_token").and_then(Value::as_str) {
            Some(token) => Ok(token.to_owned()),
            None => Err(Error::new(
                "vault.reply",
                format!("Vault answered `{path}` without a token"),
            )),
        },
        Answer::Missing(_) => Err(
            Error::new("vault.missing", format!("Vault has no login at `{path}`"))
                .help("check `mount` of the login: `vault auth list` shows where each method is mounted"),
        ),
        Answer::Denied(error) => {
            Err(error.help("check the role and its secret: it may have expired or been used up"))
        }
    }
}

fn read<'a, P: Ports>(
    config: &Config,
    client: &mut Client<'_, P>,
    name: &'a str,
    place: &str,
) -> Result<Read<'a>, Error> {
    let mount = config.mount.trim_matches('/');
    let (place, field) = match place.split_once('#') {
        Some((place, field)) => (place, Some(field)),
        None => (place, None),
    };
    let place = place.trim_matches('/');
    let inside = place
        .strip_prefix(mount)
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(place);
    let found = |version, content| Read {
        name,
        path: format!("{mount}/{inside}"),
        version,
        content,
    };
    let first = match config.kv {
        Some(1) => None,
        _ => Some(client.get(&format!("{}/data/{}", path(mount), path(inside)))?),
    };
    if let Some(Answer::Found(reply)) = &first
        && let Some(content) = Content::from_version_2(reply)
    {
        return Ok(found(2, filled(content, field, name, place)?));
    }
    if config.kv == Some(2) {
        return Err(refused(name, &format!("{mount}/{inside}"), first, None));
    }
    let second = client.get(&format!("{}/{}", path(mount), path(inside)))?;
    match &second {
        Answer::Found(reply) if let Some(content) = Content::from_version_1(reply) => {
            Ok(found(1, filled(content, field, name, place)?))
        }
        _ => Err(refused(name, &format!("{mount}/{inside}"), first, Some(second))),
    }
}

/// A secret without fields, or without the one that is asked for, is of no use to anybody, and says so here and not in the stage that wants it.
fn filled(content: Content, field: Option<&str>, name: &str, place: &str) -> Result<Content, Error> {
    if content.fields.is_empty() {
        return Err(missing(name, place, "it has no fields"));
    }
    let Some(field) = field else { return Ok(content) };
    let has = content.field_names().join(", ");
    content
        .only(field)
        .ok_or_else(|| missing(name, place, &format!("it has no field `{field}`, only {has}")))
}

/// Which of the two answers explains why there is nothing: a deleted version, then a missing path, then a refusal.
fn refused(name: &str, place: &str, version_2: Option<Answer>, version_1: Option<Answer>) -> Error {
    // An engine of version 2 answers the path of version 1 with 404 and a warning: that says nothing.
    let version_1 =
        version_1.filter(|answer| !matches!(answer, Answer::Missing(reply) if is_wrong_version(reply)));
    match (&version_2, &version_1) {
        (Some(Answer::Missing(reply)), _) if let Some(when) = deletion(reply) => {
            missing(name, place, &format!("its newest version was deleted at {when}"))
        }
        (Some(Answer::Missing(_)), _) | (_, Some(Answer::Missing(_))) => {
            missing(name, place, "there is nothing at that path")
        }
        (Some(Answer::Denied(error)), _) | (_, Some(Answer::Denied(error))) => error
            .clone()
            .context(format!("reading `{name}`"))
            .help("give the token's policy the capability `read` on that path"),
        _ => Error::new(
            "vault.reply",
            format!("what Vault has at `{place}` for `{name}` is not a KV secret"),
        )
        .help("check `mount` and `kv`: `vault secrets list -detailed` shows the engines"),
    }
}

fn is_wrong_version(reply: &Value) -> bool {
    reply
        .get("warnings")
        .and_then(Value::as_array)
        .is_some_and(|warnings| {
            warnings
                .iter()
                .filter_map(Value::as_str)
                .any(|warning| warning.to_ascii_lowercase().contains("versioned"))
        })
}

fn deletion(reply: &Value) -> Option<&str> {
    reply
        .pointer("/data/metadata/deletion_time")?
        .as_str()
        .filter(|time| !time.is_empty())
}

fn missing(name: &str, place: &str, why: &str) -> Error {
    Error::new(
        "vault.missing",
        format!("Vault has no `{place}` for `{name}`: {why}"),
    )
    .with_details(json!({ "secret": name, "path": place }))
    .help("check the path under `read` (without `data/`), `mount` and `namespace`")
}

fn described(read: &Read<'_>) -> Value {
    let mut entry = json!({
        "source": "vault",
        "path": read.path,
        "kv": read.version,
        "fields": read.content.field_names(),
    });
    if let Some(version) = read.content.version {
        entry["version"] = version.into();
    }
    entry
}

/// A path as it goes into a URL: each part encoded, the slashes kept.
fn path(text: &str) -> String {
    text.trim_matches('/')
        .split('/')
        .map(encode)
        .collect::<Vec<_>>()
        .join("/")
}

fn count(secrets: usize) -> String {
    if secrets == 1 {
        "1 secret".to_owned()
    } else {
        format!("{secrets} secrets")
    }
}

#[cfg(test)]
mod tests;
