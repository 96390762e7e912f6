//! Sources without a disk, and what stages put.

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

fn aws_sm(name: &str) -> Result<Bytes, Failure> {
    match name {
        "team/db" => Ok(bytes(r#"{"password":"db-password","port":5432}"#)),
        "team/smtp" => Ok(bytes("smtp-password\n")),
        _ => Err(Failure::new(Turn::Operator, "secret.denied", "refused").help("ask for it")),
    }
}

fn aws(name: &str, key: Option<&str>) -> SecretSpec {
    spec(SecretSource::AwsSm {
        name: name.into(),
        key: key.map(String::from),
    })
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
        aws_sm: Some(Box::new(aws_sm)),
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
fn secrets_of_aws_are_whole_or_one_of_their_keys() {
    check(aws("team/smtp", None), Ok("smtp-password\n"));
    check(aws("team/db", Some("password")), Ok("db-password"));
    check(aws("team/db", Some("port")), Ok("5432"));
    check(aws("team/db", Some("user")), Err("secret.missing"));
    check(aws("team/smtp", Some("password")), Err("secret.not-text"));
    check(aws("team/other", None), Err("secret.denied"));
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
    let failure = store.get(&name("it"), None).expect_err("has no kdf");
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
        store.get(&name("one"), None).expect_err("not put").code,
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
