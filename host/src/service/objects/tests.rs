//! Objects of a server that the tests make themselves, which can be told to fail.

use super::{Caller, bucket::PART, flow::*, probe};
use crate::{
    capability::{Capability, Leaves},
    failure::Failure,
    name::SecretName,
    pipeline::model::{SecretSource, SecretSpec},
    report::redact::Redactor,
    secret::{Sources, Store},
    service::{
        egress::{Connector, SystemResolver},
        flow::probe::Became,
        patience::Patience,
        secret::Secrets,
        testing::{
            Journal, granter,
            server::{Reply, Request, Server},
        },
    },
    source::{SourceFile, Span},
    value::SecretText,
};
use indexmap::IndexMap;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
};

const URL: &str = "s3://backups/team/a.zst";
const KEY: &str = "the-key-of-the-effect";
const SECRET: &str = "a/secret+access/key";

type Metadata = Vec<(String, String)>;

/// As much of S3 as is spoken here.
#[derive(Default)]
struct Fake {
    /// By path: `/bucket/key`.
    objects: BTreeMap<String, (Vec<u8>, Metadata)>,
    uploads: BTreeMap<String, (Metadata, BTreeMap<u32, Vec<u8>>)>,
    /// What is answered instead, once each, to a request whose `METHOD target` starts so.
    faults: Vec<(&'static str, Reply)>,
    begun: usize,
}

impl Fake {
    fn answer(&mut self, request: &Request) -> Reply {
        let asked = format!("{} {}", request.method, request.target);
        if let Some(at) = self.faults.iter().position(|(start, _)| asked.starts_with(start)) {
            return self.faults.remove(at).1;
        }
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let query: BTreeMap<&str, &str> = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .collect();
        let metadata = || {
            let lines = request.head.lines().filter_map(|line| line.split_once(": "));
            let ours = lines.filter(|(name, _)| name.starts_with("x-amz-meta-"));
            ours.map(|(name, value)| (name.to_string(), value.to_string()))
                .collect::<Metadata>()
        };
        match (request.method.as_str(), query.get("uploadId")) {
            ("POST", None) => {
                self.begun += 1;
                let id = format!("upload-{}", self.begun);
                self.uploads.insert(id.clone(), (metadata(), BTreeMap::new()));
                let told = format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                );
                Reply::new(200, &told)
            }
            ("PUT", Some(id)) => {
                let Some((_, parts)) = self.uploads.get_mut(*id) else {
                    return missing("NoSuchUpload");
                };
                let number = query["partNumber"].parse().expect("a number");
                parts.insert(number, request.body.clone());
                Reply::new(200, "").header("etag", &format!("\"part-{number}\""))
            }
            ("POST", Some(id)) => match self.uploads.remove(*id) {
                Some((metadata, parts)) => {
                    let bytes = parts.into_values().flatten().collect();
                    self.objects.insert(path.into(), (bytes, metadata));
                    Reply::new(
                        200,
                        "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>",
                    )
                }
                None => missing("NoSuchUpload"),
            },
            ("DELETE", Some(id)) => match self.uploads.remove(*id) {
                Some(_) => Reply::new(204, ""),
                None => missing("NoSuchUpload"),
            },
            ("PUT", None) => {
                self.objects
                    .insert(path.into(), (request.body.clone(), metadata()));
                Reply::new(200, "").header("etag", "\"one\"")
            }
            ("DELETE", None) => {
                self.objects.remove(path);
                Reply::new(204, "")
            }
            ("GET", None) if query.contains_key("list-type") => self.list(path, &query),
            ("GET" | "HEAD", None) => match self.objects.get(path) {
                Some((bytes, metadata)) => found(request, bytes, metadata),
                None => missing("NoSuchKey"),
            },
            _ => Reply::new(501, ""),
        }
    }

    /// Two a page.
    fn list(&self, bucket: &str, query: &BTreeMap<&str, &str>) -> Reply {
        let prefix = query.get("prefix").unwrap_or(&"").replace("%2F", "/");
        let from: usize = query
            .get("continuation-token")
            .map_or(0, |token| token.parse().expect("ours"));
        let root = format!("{}/", bucket.trim_end_matches('/'));
        let keys: Vec<&str> = self
            .objects
            .keys()
            .filter_map(|path| path.strip_prefix(&root))
            .filter(|key| key.starts_with(&prefix))
            .collect();
        let mut told = String::from("<ListBucketResult>");
        for key in keys.iter().skip(from).take(2) {
            told += &format!(
                "<Contents><Key>{key}</Key><Size>3</Size><LastModified>2026-11-23T21:00:00.000Z</LastModified></Contents>"
            );
        }
        if keys.len() > from + 2 {
            told += &format!("<NextContinuationToken>{}</NextContinuationToken>", from + 2);
        }
        Reply::new(200, &(told + "</ListBucketResult>"))
    }
}

fn found(request: &Request, bytes: &[u8], metadata: &Metadata) -> Reply {
    let range = request.header("range").and_then(|range| {
        let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()?))
    });
    let reply = match range {
        Some((from, to)) => Reply::bytes(206, bytes[from..=to].to_vec())
            .header("content-range", &format!("bytes {from}-{to}/{}", bytes.len())),
        None => Reply::bytes(200, bytes.to_vec()),
    };
    let reply = reply
        .header("etag", "\"one\"")
        .header("last-modified", "Mon, 23 Nov 2026 21:00:00 GMT");
    metadata
        .iter()
        .fold(reply, |reply, (name, value)| reply.header(name, value))
}

fn error(status: u16, code: &str) -> Reply {
    Reply::new(
        status,
        &format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>because</Message></Error>"),
    )
}

fn missing(code: &str) -> Reply {
    error(404, code)
}

/// A server, who may ask it, and how.
struct Bench {
    server: Server,
    store: Arc<Mutex<Fake>>,
    caller: Caller,
    access: Json,
}

impl Bench {
    async fn new() -> Self {
        Self::with_secrets(&[]).await
    }

    /// The secrets may go to these hosts; none: to all.
    async fn with_secrets(hosts: &[&str]) -> Self {
        let store = Arc::new(Mutex::new(Fake::default()));
        let answering = store.clone();
        let server =
            Server::answering(move |request| answering.lock().expect("not poisoned").answer(request)).await;
        let secrets = secrets(hosts);
        let allow = [
            (Capability::Objects, "s3://backups/team"),
            (Capability::Http, server.origin.as_str()),
            (Capability::SecretsUse, "id"),
            (Capability::SecretsUse, "key"),
            (Capability::SecretsUse, "broken"),
        ];
        let connector = Connector::new(&IndexMap::new(), Path::new("/"), Arc::new(SystemResolver));
        let placeholder = |name: &str| {
            let name = SecretName::new(name).expect("valid");
            secrets.placeholder(&SecretText::Secret { name, field: None })
        };
        let access = json!({
            "endpoint": server.origin, "access-key-id": placeholder("id"), "secret-access-key": placeholder("key"),
        });
        let caller = Caller {
            granter: granter(&allow),
            connector: Arc::new(connector.expect("valid")),
            secrets: Some(secrets),
            patience: Patience::default(),
        };
        Self {
            server,
            store,
            caller,
            access,
        }
    }

    fn store(&self) -> std::sync::MutexGuard<'_, Fake> {
        self.store.lock().expect("not poisoned")
    }

    fn fault(&self, start: &'static str, reply: Reply) {
        self.store().faults.push((start, reply));
    }

    fn object(&self) -> Object {
        let place = self.caller.object(URL, &self.access.to_string());
        Object::new(place.expect("granted"))
    }

    /// As a copy does it: set aside, begun, sent.
    async fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        let (object, label) = (self.object(), label(bytes));
        let mut file = tempfile::tempfile().expect("temporary");
        file.write_all(bytes).expect("written");
        let write = move || {
            let upload = object.begin(&file, &label)?;
            object.put(&file, &label, upload.as_ref())
        };
        tokio::task::spawn_blocking(write).await.expect("ends")
    }

    async fn read(&self) -> Result<Vec<u8>, Failure> {
        let object = self.object();
        let read = move || {
            let mut bytes = Vec::new();
            object.pour(&mut |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })?;
            Ok(bytes)
        };
        tokio::task::spawn_blocking(read).await.expect("ends")
    }

    fn asked(&self, start: &str) -> usize {
        let requests = self.server.requests();
        let asked = requests
            .iter()
            .map(|request| format!("{} {}", request.method, request.target));
        asked.filter(|asked| asked.starts_with(start)).count()
    }
}

fn label(bytes: &[u8]) -> Label {
    Label {
        digest: format!("sha256:{}", hex::encode(Sha256::digest(bytes))),
        key: KEY.into(),
    }
}

fn secrets(hosts: &[&str]) -> Arc<Secrets> {
    let file = Arc::new(SourceFile::new("a.yaml", "a.yaml", ""));
    let specs = ["id", "key", "broken"].map(|name| {
        let spec = SecretSpec {
            from: SecretSource::Env(name.into()),
            key: None,
            kdf: None,
            hosts: hosts.iter().map(ToString::to_string).collect(),
            span: Span::new(&file, 0..0),
        };
        (SecretName::new(name).expect("valid"), spec)
    });
    let value = |name: &str| match name {
        "id" => Some("AKIDEXAMPLE".to_string()),
        "key" => Some(SECRET.to_string()),
        _ => Some("two\nlines".to_string()),
    };
    let sources = Sources {
        root: "/".into(),
        variable: Box::new(value),
        docker_secrets: "/".into(),
        read: Box::new(|_| Err(std::io::ErrorKind::NotFound.into())),
        aws_sm: None,
    };
    let store = Store::new(specs.into_iter().collect(), sources, Arc::new(Redactor::new()));
    Arc::new(Secrets::new(Arc::new(store)))
}

fn large() -> Vec<u8> {
    (0..PART + PART / 2).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn an_object_says_what_it_is_and_who_wrote_it() {
    let bench = Bench::new().await;
    assert_eq!(bench.caller.head(URL, &bench.access.to_string()).await, Ok(None));
    bench.write(b"bytes").await.expect("written");
    assert_eq!(bench.read().await.expect("read"), b"bytes");
    let known = bench
        .caller
        .head(URL, &bench.access.to_string())
        .await
        .expect("asked");
    assert_eq!(
        known,
        Some(
            json!({ "size": 5, "modified": 1_795_467_600, "sha256": label(b"bytes").digest, "written-by": KEY })
        )
    );
    for request in bench.server.requests() {
        let signed = request.header("authorization").expect("signed");
        assert!(
            signed.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"),
            "{signed}"
        );
        assert!(signed.contains("/us-east-1/s3/aws4_request"), "{signed}");
        assert!(!request.head.contains(SECRET), "{}", request.head);
    }
    let written = bench
        .server
        .requests()
        .into_iter()
        .find(|request| request.method == "PUT")
        .expect("asked");
    assert_eq!(written.target, "/backups/team/a.zst");
    assert_eq!(
        written.header("x-amz-content-sha256"),
        Some(hex::encode(Sha256::digest(b"bytes")))
    );
}

#[tokio::test]
async fn a_large_object_is_sent_in_parts() {
    let bench = Bench::new().await;
    bench.write(&large()).await.expect("written");
    assert_eq!(bench.asked("PUT "), 2);
    assert!(bench.store().uploads.is_empty());
    assert!(bench.read().await.expect("read") == large());
}

/// A write that meets these faults, and what became of it: fine, or its code and whether it may be tried again.
async fn check(
    bytes: &[u8],
    faults: &[(&'static str, Reply)],
    expected: Result<(), (&str, bool)>,
    says: &str,
) {
    let bench = Bench::new().await;
    faults
        .iter()
        .for_each(|(start, reply)| bench.fault(start, reply.clone()));
    let written = bench.write(bytes).await;
    let code = written
        .as_ref()
        .copied()
        .map_err(|failure| (failure.code.as_str(), failure.retryable));
    assert_eq!(code, expected, "{says}: {written:?}");
    if let Err(failure) = &written {
        let told = format!("{} {}", failure.message, failure.help.clone().unwrap_or_default());
        assert!(told.contains(says) && told.contains(URL), "{told}");
    }
    let store = bench.store();
    assert!(store.uploads.is_empty(), "nothing is left half-way: {says}");
    let is_there = store
        .objects
        .get("/backups/team/a.zst")
        .is_some_and(|(there, _)| there == bytes);
    assert_eq!(is_there, expected.is_ok(), "{says}");
}

#[tokio::test]
async fn a_busy_server_is_asked_again() {
    let busy = || Reply::new(500, "");
    check(
        b"bytes",
        &[("PUT ", busy()), ("PUT ", error(503, "SlowDown"))],
        Ok(()),
        "500",
    )
    .await;
    check(b"bytes", &[("PUT ", Reply::new(429, ""))], Ok(()), "429").await;
    let whole = "POST /backups/team/a.zst?uploadId";
    check(
        &large(),
        &[("PUT ", busy()), ("POST ", busy()), (whole, busy())],
        Ok(()),
        "parts",
    )
    .await;
    check(
        &large(),
        &[(whole, error(200, "InternalError"))],
        Ok(()),
        "an error in a 200",
    )
    .await;
    let always = vec![("PUT ", error(503, "SlowDown")); 5];
    check(b"bytes", &always, Err(("object.failed", true)), "SlowDown").await;
}

#[tokio::test]
async fn what_fails_is_never_published() {
    let whole = "POST /backups/team/a.zst?uploadId";
    check(
        &large(),
        &[(whole, error(200, "AccessDenied"))],
        Err(("object.failed", true)),
        "makes no sense",
    )
    .await;
    check(
        &large(),
        &[("PUT ", error(403, "AccessDenied"))],
        Err(("object.denied", false)),
        "AccessDenied: because",
    )
    .await;
    check(
        b"bytes",
        &[("PUT ", error(403, "SignatureDoesNotMatch"))],
        Err(("object.denied", false)),
        "the clock",
    )
    .await;
    check(
        b"bytes",
        &[("PUT ", missing("NoSuchBucket"))],
        Err(("object.missing", false)),
        "NoSuchBucket",
    )
    .await;
    check(
        &large(),
        &[("POST ", missing("NoSuchBucket"))],
        Err(("object.missing", false)),
        "NoSuchBucket",
    )
    .await;
    let elsewhere = Reply::new(301, "").header("location", "http://example.com");
    check(
        b"bytes",
        &[("PUT ", elsewhere)],
        Err(("object.failed", false)),
        "set `region`",
    )
    .await;
    // It says that it has it, and has not.
    check(
        b"bytes",
        &[("PUT ", Reply::new(200, "").header("etag", "\"x\""))],
        Err(("object.digest", false)),
        "not what was written",
    )
    .await;
    check(
        b"bytes",
        &[("PUT ", error(400, "EntityTooSmall"))],
        Err(("object.failed", false)),
        "EntityTooSmall",
    )
    .await;
}

#[tokio::test]
async fn an_answer_that_is_lost_is_looked_for() {
    let bench = Bench::new().await;
    bench.write(b"bytes").await.expect("written");
    // Written by this very effect before; now the server only fails.
    (0..5).for_each(|_| bench.fault("PUT ", Reply::new(500, "")));
    bench.write(b"bytes").await.expect("it is there");
}

#[tokio::test]
async fn reading_goes_on_where_it_was_cut_off() {
    let bench = Bench::new().await;
    bench.write(b"0123456789").await.expect("written");
    let whole = Reply::new(200, "0123456789").header("last-modified", "Mon, 23 Nov 2026 21:00:00 GMT");
    let cut = Reply {
        sent: 4,
        ..whole.clone()
    };
    bench.fault("GET ", cut.clone().header("etag", "\"one\""));
    assert_eq!(bench.read().await.expect("read"), b"0123456789");
    assert_eq!(bench.asked("GET "), 2);
    // Without a mark of its version nobody knows whether the rest belongs to it.
    bench.fault("GET ", cut);
    assert_eq!(
        bench.read().await.expect_err("cut off").code,
        "object.unreachable"
    );
}

#[tokio::test]
async fn damaged_objects_are_refused_and_those_of_others_read() {
    let bench = Bench::new().await;
    bench.write(b"bytes").await.expect("written");
    bench
        .store()
        .objects
        .values_mut()
        .for_each(|(bytes, _)| bytes[0] ^= 1);
    assert_eq!(bench.read().await.expect_err("damaged").code, "object.digest");
    bench
        .store()
        .objects
        .values_mut()
        .for_each(|(_, metadata)| metadata.clear());
    assert_eq!(bench.read().await.expect("read"), b"cytes");
    bench.store().objects.clear();
    assert_eq!(bench.read().await.expect_err("gone").code, "object.missing");
}

#[tokio::test]
async fn lists_go_by_whole_parts_of_keys() {
    let bench = Bench::new().await;
    for key in ["team/b/2", "team/a", "team/b/1", "team-of-others/x", "team/c"] {
        let path = format!("/backups/{key}");
        bench.store().objects.insert(path, (b"abc".to_vec(), Vec::new()));
    }
    let list = async |prefix: &str| {
        let listed = bench
            .caller
            .list(prefix, &bench.access.to_string())
            .await
            .expect("listed");
        let listed = listed.as_array().expect("a list").clone();
        let url = |one: &Json| one["url"].as_str().expect("a text").to_string();
        listed.iter().map(url).collect::<Vec<_>>().join(" ")
    };
    let all = "s3://backups/team/a s3://backups/team/b/1 s3://backups/team/b/2 s3://backups/team/c";
    assert_eq!(list("s3://backups/team").await, all);
    assert_eq!(
        list("s3://backups/team/b").await,
        "s3://backups/team/b/1 s3://backups/team/b/2"
    );
    assert_eq!(list("s3://backups/team/nothing").await, "");
    bench.fault("GET ", missing("NoSuchBucket"));
    let failure = bench
        .caller
        .list("s3://backups/team", &bench.access.to_string())
        .await;
    assert_eq!(failure.expect_err("no bucket").code, "object.missing");
}

#[tokio::test]
async fn deleting_is_an_effect_and_spares_what_another_has_written() {
    let bench = Bench::new().await;
    let journal = Arc::new(Journal::default());
    let access = bench.access.to_string();
    let delete = async |options: Json| {
        let effects = journal.attempt(false);
        let deleted = bench
            .caller
            .delete(&effects, URL, &access, &options.to_string())
            .await;
        deleted.map_err(|failure| failure.code)
    };
    assert_eq!(delete(json!({})).await, Ok(false));
    bench.write(b"bytes").await.expect("written");
    assert_eq!(delete(json!({ "written-by": "another" })).await, Ok(false));
    assert_eq!(
        delete(json!({ "written-by": KEY, "leaves": "additive" })).await,
        Ok(true)
    );
    assert!(bench.store().objects.is_empty());
    assert_eq!(
        delete(json!({ "leaves": "nothing" })).await,
        Err("object.options".into())
    );
    let intents = journal.intents.lock().expect("not poisoned").clone();
    let leaves: Vec<Leaves> = intents.iter().map(|intent| intent.leaves).collect();
    assert_eq!(leaves, [Leaves::State, Leaves::State, Leaves::Additive]);
    let told = intents[2].arguments.to_string();
    assert!(
        told.contains("<id>") && !told.contains("wlsec_"),
        "secrets by name: {told}"
    );
    let planning = journal.attempt(true);
    let refused = bench.caller.delete(&planning, URL, &access, "").await;
    assert_eq!(refused.expect_err("refused").code, "plan.read-only");
}

/// How far a call comes, with other options and another URL.
async fn refused(bench: &Bench, url: &str, more: Json) -> String {
    let mut access = bench.access.clone();
    access
        .as_object_mut()
        .expect("an object")
        .extend(more.as_object().expect("an object").clone());
    let answer = bench.caller.head(url, &access.to_string()).await;
    answer.map_or_else(|failure| failure.code, |_| "ok".into())
}

#[tokio::test]
async fn nobody_gets_further_than_the_grants() {
    let bench = Bench::new().await;
    assert_eq!(refused(&bench, URL, json!({})).await, "ok");
    for (url, code) in [
        ("s3://backups/team-of-others/a", "grant.denied"),
        ("s3://others/team/a", "grant.denied"),
        ("s3://backups", "grant.denied"),
        ("s3://backups/team/../others/a", "object.url"),
        ("https://backups/team/a", "object.url"),
    ] {
        assert_eq!(refused(&bench, url, json!({})).await, code, "{url}");
    }
    let asked = bench.server.requests().len();
    for (more, code) in [
        (json!({ "endpoint": "http://127.0.0.1:1" }), "grant.denied"),
        (json!({ "endpoint": "http://169.254.169.254" }), "grant.denied"),
        (
            json!({ "endpoint": format!("{}/path", bench.server.origin) }),
            "object.options",
        ),
        (json!({ "endpoint": "https://*.example.com" }), "object.options"),
        (json!({ "region": "x.example.com/" }), "object.options"),
        (json!({ "access-key-id": null }), "object.options"),
        (json!({ "acess": "x" }), "object.options"),
        (
            json!({ "secret-access-key": format!("wlsec_{}", "0".repeat(32)) }),
            "secret.placeholder",
        ),
        (json!({ "session-token": "two\nlines" }), "object.credentials"),
    ] {
        assert_eq!(refused(&bench, URL, more.clone()).await, code, "{more}");
    }
    assert_eq!(bench.server.requests().len(), asked, "nothing of it was sent");
    let bound = Bench::with_secrets(&["s3.example.com"]).await;
    assert_eq!(refused(&bound, URL, json!({})).await, "secret.host");
    let open = json!({ "access-key-id": null, "secret-access-key": null });
    assert_eq!(refused(&bound, URL, open).await, "ok");
    let unsigned = bound.server.requests();
    assert_eq!(unsigned[0].header("authorization"), None);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let bench = Bench::new().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let origin = format!("http://{}", closed.local_addr().expect("bound"));
    drop(closed);
    let allow = [
        (Capability::Objects, "s3://backups"),
        (Capability::Http, origin.as_str()),
    ];
    let caller = Caller {
        granter: granter(&allow),
        ..bench.caller.clone()
    };
    let failure = caller
        .head(URL, &json!({ "endpoint": origin }).to_string())
        .await
        .expect_err("closed");
    assert!(failure.is_unreachable() && failure.retryable, "{failure:?}");
    assert!(
        failure.message.contains("refuses connections"),
        "{}",
        failure.message
    );
    // The stage ends in the middle of it.
    let cancelled = Caller {
        patience: Patience::default(),
        ..caller
    };
    cancelled.patience.cancel.cancel();
    let failure = cancelled
        .head(URL, &json!({ "endpoint": origin }).to_string())
        .await;
    assert_eq!(failure.expect_err("cancelled").code, "cancelled");
}

#[tokio::test]
async fn a_copy_that_was_cut_off_is_found_or_thrown_away() {
    let bench = Bench::new().await;
    let described = bench.object().name();
    let noted = |upload: Option<&str>| json!({ "to": described, "aside": { "digest": label(b"bytes").digest, "upload": upload, "copied": { "bytes-out": 5 } } });
    let look =
        async |key: &str, arguments: Json| probe::look(&bench.caller, key, &arguments).await.expect("asked");
    assert_eq!(look(KEY, noted(None)).await, Became::NotDone);
    // Killed between two parts: what was sent goes, and going again is fine.
    bench
        .store()
        .uploads
        .insert("upload-7".into(), (Vec::new(), BTreeMap::new()));
    assert_eq!(look(KEY, noted(Some("upload-7"))).await, Became::NotDone);
    assert!(bench.store().uploads.is_empty());
    assert_eq!(look(KEY, noted(Some("upload-7"))).await, Became::NotDone);
    bench.write(b"bytes").await.expect("written");
    assert_eq!(
        look(KEY, noted(None)).await,
        Became::Done(json!({ "bytes-out": 5 }))
    );
    assert_eq!(
        look("another", noted(None)).await,
        Became::NotDone,
        "somebody else wrote the same"
    );
    // Keys in plain text are not kept: nobody can look.
    let mut plain = noted(None);
    plain["to"]["access"]["secret-access-key"] = Json::Null;
    assert_eq!(look(KEY, plain).await, Became::Unknown);
}
