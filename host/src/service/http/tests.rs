//! Requests against servers on loopback that the tests make themselves.

use super::*;
use crate::{
    capability::Capability,
    event::RunEvent,
    grant::{Decision, DecisionLog, StageGrant, stage_grant::Entry},
    name::{SecretName, StageName},
    pattern::Pattern,
    pipeline::model::{Origin, SecretSource, SecretSpec},
    report::redact::Redactor,
    secret::{Sources, Store},
    service::{
        effect::{Begun, EffectLog, Intent},
        egress::SystemResolver,
        limits::Limits as StageLimits,
        words::Words,
    },
    source::{SourceFile, Span},
    value::SecretText,
};
use indexmap::IndexMap;
use std::{io, path::Path};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

struct NoDecisions;

impl DecisionLog for NoDecisions {
    fn record(&self, _decision: &Decision) {}
}

/// Remembers intents; says that everything was done before when told so.
#[derive(Default)]
struct Journal {
    intents: Mutex<Vec<Json>>,
    outcomes: Mutex<Vec<Result<Json, String>>>,
    done: Option<Json>,
}

impl EffectLog for Journal {
    fn recall(&self, _: &str) -> Option<Json> {
        None
    }

    fn begin(&self, intent: Intent) -> BoxFuture<'_, Result<Begun, Failure>> {
        self.intents.lock().expect("not poisoned").push(intent.arguments);
        let begun = self.done.clone().map_or(Begun::Proceed, Begun::AlreadyDone);
        Box::pin(async { Ok(begun) })
    }

    fn finish(&self, _key: String, outcome: Result<Json, Failure>) -> BoxFuture<'_, Result<(), Failure>> {
        let outcome = outcome.map_err(|failure| failure.code);
        self.outcomes.lock().expect("not poisoned").push(outcome);
        Box::pin(async { Ok(()) })
    }
}

/// A sender with these grants, the secret `token` (bound to `hosts`), and what it logs.
struct Bench {
    http: Http,
    journal: Arc<Journal>,
    lines: mpsc::Receiver<RunEvent>,
    placeholder: String,
}

fn bench(
    allow: &[(Capability, &str)],
    hosts: &[&str],
    origins: IndexMap<String, Origin>,
    root: &Path,
) -> Bench {
    let entries = allow.iter().map(|(capability, text)| Entry {
        capability: *capability,
        pattern: Pattern::parse(*capability, text).expect("valid"),
        rule: "a.yaml:1:1".into(),
    });
    let stage = StageName::new("check").expect("valid");
    let grant = StageGrant::new(stage.clone(), "health-check".into(), entries.collect());
    let file = SourceFile::new("a.yaml", "a.yaml", "");
    let spec = SecretSpec {
        from: SecretSource::Env("TOKEN".into()),
        key: None,
        kdf: None,
        hosts: hosts.iter().map(|host| host.to_string()).collect(),
        span: Span::new(&Arc::new(file), 0..0),
    };
    let name = SecretName::new("token").expect("valid");
    let sources = Sources {
        root: "/".into(),
        variable: Box::new(|_| Some("the-real-token".into())),
        docker_secrets: "/".into(),
        read: Box::new(|_| Err(io::ErrorKind::NotFound.into())),
        aws_sm: None,
    };
    let store = Store::new(
        IndexMap::from([(name.clone(), spec)]),
        sources,
        Arc::new(Redactor::new()),
    );
    let secrets = Secrets::new(Arc::new(store));
    let placeholder = secrets.placeholder(&SecretText::Secret { name, field: None });
    let journal = Arc::new(Journal::default());
    let (sender, lines) = mpsc::channel(100);
    let connector = Connector::new(&origins, root, Arc::new(SystemResolver)).expect("valid");
    let http = Http {
        granter: Granter::new(Arc::new(grant), Arc::new(NoDecisions)),
        connector: Arc::new(connector),
        effects: Arc::new(Effects::new("run".into(), stage.clone(), journal.clone(), false)),
        secrets: Some(Arc::new(secrets)),
        log: Log::new(stage, 1, sender, Words::default(), &StageLimits::default()),
        idempotent: false,
        limits: Limits::default(),
        sent: Arc::default(),
    };
    Bench {
        http,
        journal,
        lines,
        placeholder,
    }
}

/// Answers every connection with `reply` after it has read a request; returns the origin and what was received.
async fn server(reply: &'static [u8]) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let origin = format!("http://{}", listener.local_addr().expect("bound"));
    let (sender, received) = mpsc::channel(10);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream, reply, &sender).await;
        }
    });
    (origin, received)
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    reply: &[u8],
    received: &mpsc::Sender<String>,
) {
    let mut request = vec![0; 16 << 10];
    let length = stream.read(&mut request).await.unwrap_or(0);
    let text = String::from_utf8_lossy(&request[..length]).into_owned();
    let _ = received.send(text).await;
    if reply.is_empty() {
        std::future::pending::<()>().await;
    }
    let _ = stream.write_all(reply).await;
    let _ = stream.shutdown().await;
}

fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &'static str) -> Request<WasiBody> {
    let mut builder = Request::builder()
        .method(method)
        .uri(url)
        .header("host", "as-granted");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let body = Full::new(Bytes::from_static(body.as_bytes())).map_err(|never| match never {});
    builder.body(body.boxed_unsync()).expect("valid")
}

/// Status and body, or the error in the words of the library.
async fn outcome(http: &Http, request: Request<WasiBody>) -> Result<(u16, String), String> {
    let short = Some(Duration::from_millis(300));
    let options = RequestOptions {
        connect_timeout: None,
        first_byte_timeout: short,
        between_bytes_timeout: short,
    };
    let reply = http
        .send(request, options)
        .await
        .map_err(|error| format!("{error:?}"))?;
    let status = reply.status().as_u16();
    let body = reply
        .into_body()
        .collect()
        .await
        .map_err(|error| format!("{error:?}"))?;
    Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[tokio::test]
async fn placeholders_are_swapped_in_headers_and_nowhere_else() {
    let (origin, mut received) = server(OK).await;
    let allow = [
        (Capability::Http, origin.as_str()),
        (Capability::SecretsUse, "token"),
    ];
    let bench = bench(&allow, &["127.0.0.1"], IndexMap::new(), Path::new("/"));
    let header = format!("Bearer {}", bench.placeholder);
    let url = format!("{origin}/up?key={}", bench.placeholder);
    let reply = outcome(
        &bench.http,
        request("GET", &url, &[("authorization", &header)], ""),
    )
    .await;
    assert_eq!(reply, Ok((200, "hello".into())));
    let request = received.recv().await.expect("was asked");
    assert!(
        request.starts_with(&format!("GET /up?key={} HTTP/1.1", bench.placeholder)),
        "{request}"
    );
    assert!(
        request.contains("authorization: Bearer the-real-token\r\n"),
        "{request}"
    );
    assert!(
        bench.journal.intents.lock().expect("not poisoned").is_empty(),
        "GET is no effect"
    );
}

#[tokio::test]
async fn refusals_are_explained_in_the_log() {
    let (origin, mut received) = server(OK).await;
    let use_token = (Capability::SecretsUse, "token");
    let check = async |allow: &[(Capability, &str)], hosts: &[&str], header: &str, explained: &str| {
        let mut bench = bench(allow, hosts, IndexMap::new(), Path::new("/"));
        let header = header.replace("TOKEN", &bench.placeholder);
        let refused = outcome(&bench.http, request("GET", &origin, &[("x-token", &header)], "")).await;
        assert_eq!(refused, Err("HttpRequestDenied".into()));
        let Some(RunEvent::StageLog { message, .. }) = bench.lines.recv().await else {
            panic!("a refusal is explained");
        };
        assert!(message.contains(explained), "{message}");
    };
    let granted = (Capability::Http, origin.as_str());
    check(
        &[use_token],
        &[],
        "none",
        "may not use `http` for `http://127.0.0.1",
    )
    .await;
    check(
        &[(Capability::Http, "https://127.0.0.1"), use_token],
        &[],
        "none",
        "may not use `http`",
    )
    .await;
    check(&[granted], &[], "TOKEN", "may not use `secrets.use` for `token`").await;
    check(
        &[granted, use_token],
        &["other.example.com"],
        "TOKEN",
        "is not bound to `127.0.0.1`",
    )
    .await;
    let stale = format!("wlsec_{}", "0".repeat(32));
    check(&[granted, use_token], &[], &stale, "is not of this attempt").await;
    assert!(received.try_recv().is_err(), "nothing was sent");
}

#[tokio::test]
async fn replies_are_bounded_and_redirects_are_handed_back() {
    let check = async |reply: &'static [u8], expected: Result<(u16, String), &str>| {
        let (origin, _received) = server(reply).await;
        let mut bench = bench(
            &[(Capability::Http, &origin)],
            &[],
            IndexMap::new(),
            Path::new("/"),
        );
        bench.http.limits.reply_body = 10;
        let reply = outcome(&bench.http, request("GET", &origin, &[], "")).await;
        assert_eq!(reply, expected.map_err(String::from));
    };
    let text = |status, body: &str| Ok((status, body.to_string()));
    check(OK, text(200, "hello")).await;
    check(
        b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
        text(302, ""),
    )
    .await;
    check(
        b"HTTP/1.1 200 OK\r\n\r\n0123456789+",
        Err("HttpResponseBodySize(Some(10))"),
    )
    .await;
    check(
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
        Err("HttpResponseIncomplete"),
    )
    .await;
    check(b"not http at all\r\n\r\n", Err("HttpProtocolError")).await;
    check(b"", Err("HttpResponseTimeout")).await;
    let headers = "HTTP/1.1 200 OK\r\n".to_string() + &"x: y\r\n".repeat(200) + "\r\n";
    check(
        headers.leak().as_bytes(),
        Err("HttpResponseHeaderSectionSize(None)"),
    )
    .await;
}

#[tokio::test]
async fn requests_are_bounded() {
    let (origin, mut received) = server(OK).await;
    let mut bench = bench(
        &[(Capability::Http, &origin)],
        &[],
        IndexMap::new(),
        Path::new("/"),
    );
    bench.http.limits = Limits {
        requests: 3,
        headers: 4,
        request_body: 3,
        ..Limits::default()
    };
    let check = async |request: Request<WasiBody>, expected: &str| {
        let refused = outcome(&bench.http, request).await.expect_err("refused");
        assert!(refused.starts_with(expected), "{refused}");
    };
    check(
        request("PUT", &origin, &[], "four"),
        "HttpRequestBodySize(Some(3))",
    )
    .await;
    let many = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")];
    check(request("GET", &origin, &many, ""), "HttpRequestHeaderSectionSize").await;
    check(
        request("GET", "http://user@127.0.0.1/", &[], ""),
        "HttpRequestUriInvalid",
    )
    .await;
    check(request("GET", &origin, &[], ""), "ConnectionLimitReached").await;
    assert!(received.try_recv().is_err(), "nothing was sent");
}

#[tokio::test]
async fn other_methods_are_effects() {
    let (origin, mut received) = server(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").await;
    let mut bench = bench(
        &[(Capability::Http, &origin)],
        &[],
        IndexMap::new(),
        Path::new("/"),
    );
    let url = format!("{origin}/deployments");
    let post = || request("POST", &url, &[], "body");
    assert_eq!(outcome(&bench.http, post()).await, Ok((201, String::new())));
    assert!(received.recv().await.expect("was asked").ends_with("body"));
    let digest = hex::encode(Sha256::digest("body"));
    let intent = json!({ "method": "POST", "url": url, "body": format!("sha256:{digest}") });
    assert_eq!(*bench.journal.intents.lock().expect("not poisoned"), [intent]);
    assert_eq!(
        *bench.journal.outcomes.lock().expect("not poisoned"),
        [Ok(json!({ "status": 201 }))]
    );

    let stage = StageName::new("check").expect("valid");
    let done = Journal {
        done: Some(json!({ "status": 201 })),
        ..Journal::default()
    };
    bench.http.effects = Arc::new(Effects::new("run".into(), stage.clone(), Arc::new(done), false));
    let replayed = bench
        .http
        .send(post(), RequestOptions::default())
        .await
        .expect("answers");
    assert_eq!(
        (
            replayed.status().as_u16(),
            replayed.headers().contains_key(REPLAYED)
        ),
        (201, true)
    );
    assert!(received.try_recv().is_err(), "nothing is sent twice");

    bench.http.effects = Arc::new(Effects::new(
        "run".into(),
        stage,
        Arc::new(Journal::default()),
        true,
    ));
    assert_eq!(
        outcome(&bench.http, post()).await,
        Err("HttpRequestDenied".into()),
        "a planner only reads"
    );
    bench.http.idempotent = true;
    assert_eq!(outcome(&bench.http, post()).await, Ok((201, String::new())));
}

/// An authority and a certificate for `web.example.com`, by the real `openssl`.
fn certificates(directory: &Path) {
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ])
            .args(arguments)
            .current_dir(directory)
            .output()
            .expect("openssl is installed");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run(&[
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-subj",
        "/CN=Test CA",
        "-days",
        "2",
    ]);
    run(&[
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-keyout",
        "web.key",
        "-out",
        "web.pem",
        "-subj",
        "/CN=web",
        "-days",
        "2",
        "-addext",
        "subjectAltName=DNS:web.example.com",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ]);
}

async fn tls_server(directory: &Path) -> String {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let certificate = CertificateDer::from_pem_file(directory.join("web.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(directory.join("web.key")).expect("a key");
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("supported")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("they match");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let place = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        let (sender, _received) = mpsc::channel(10);
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, OK, &sender).await;
            }
        }
    });
    place
}

#[tokio::test]
async fn private_authorities_and_other_addresses_come_from_origins() {
    let directory = tempfile::tempdir().expect("a directory");
    certificates(directory.path());
    let place = tls_server(directory.path()).await;
    let check = async |origin: &str, ca: Option<&str>, expected: Result<(u16, String), &str>| {
        let entry = Origin {
            connect: Some(place.clone()),
            ca: ca.map(Into::into),
        };
        let origins = IndexMap::from([(origin.to_string(), entry)]);
        let bench = bench(&[(Capability::Http, origin)], &[], origins, directory.path());
        let reply = outcome(&bench.http, request("GET", origin, &[], "")).await;
        assert_eq!(reply, expected.map_err(String::from), "{origin} {ca:?}");
    };
    check(
        "https://web.example.com",
        Some("ca.pem"),
        Ok((200, "hello".into())),
    )
    .await;
    check("https://web.example.com", None, Err("TlsCertificateError")).await;
    check(
        "https://other.example.com",
        Some("ca.pem"),
        Err("TlsCertificateError"),
    )
    .await;
    check(
        "https://web.example.com",
        Some("web.key"),
        Err("ConfigurationError"),
    )
    .await;
}
