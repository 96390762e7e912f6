//! AWS Secrets Manager, or what speaks its protocol: from a secret's name to its value. Reached as other tools reach it, by the
//! standard variables of the process (keys, region, endpoint), over our own connector. No host function: the run's store asks.

use super::{
    egress::{Connector, Destination, trust_of},
    objects::{
        Keys,
        transport::{Transport, carried},
    },
};
use crate::{
    capability::Capability,
    failure::{Failure, Turn},
    pattern::{Host, Pattern},
    secret,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Method, Request, header::CONTENT_TYPE};
use object_store::{
    aws::AwsAuthorizer,
    client::{HttpRequest, HttpService},
};
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use zeroize::{Zeroize, Zeroizing};

/// How often a busy service is asked, and how long the first pause is; each next is twice as long.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(200);
const TARGET: &str = "secretsmanager.GetSecretValue";

/// Looks a variable of the process up.
pub type Variables = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// For one run. A secret is fetched once, so that two keys of it are of one version.
pub struct SecretsManager {
    variable: Variables,
    connector: Arc<Connector>,
    fetched: Mutex<HashMap<String, secret::Bytes>>,
}

/// Where to ask, and as whom.
struct Access {
    keys: Keys,
    region: String,
    origin: String,
    destination: Destination,
}

/// Of `GetSecretValue`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    secret_string: Option<String>,
    secret_binary: Option<String>,
}

/// Of a request that was refused.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    #[serde(rename = "__type")]
    kind: String,
    #[serde(alias = "Message")]
    message: String,
}

impl SecretsManager {
    pub fn new(variable: Variables, connector: Arc<Connector>) -> Self {
        Self {
            variable,
            connector,
            fetched: Mutex::default(),
        }
    }

    /// The value of a secret, by its name or ARN. Waits for the network.
    ///
    /// # Errors
    /// `secret.missing`, `secret.denied`, `secret.unavailable`.
    pub fn fetch(&self, name: &str) -> Result<secret::Bytes, Failure> {
        let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = fetched.get(name) {
            return Ok(value.clone());
        }
        let access = self.access(name)?;
        let value = elsewhere(|| self.ask(name, &access))?;
        fetched.insert(name.into(), value.clone());
        Ok(value)
    }

    fn access(&self, name: &str) -> Result<Access, Failure> {
        let set = |name: &str| (self.variable)(name).filter(|value| !value.is_empty());
        let needed = |name: &str| set(name).ok_or_else(|| unset(name));
        let id = needed("AWS_ACCESS_KEY_ID")?;
        let secret = Zeroizing::new(needed("AWS_SECRET_ACCESS_KEY")?);
        let token = set("AWS_SESSION_TOKEN").map(Zeroizing::new);
        for (name, value) in [
            ("AWS_ACCESS_KEY_ID", Some(id.as_str())),
            ("AWS_SECRET_ACCESS_KEY", Some(secret.as_str())),
            ("AWS_SESSION_TOKEN", token.as_ref().map(|token| token.as_str())),
        ] {
            if value.is_some_and(|value| !value.bytes().all(|byte| byte.is_ascii_graphic())) {
                let message =
                    format!("the environment variable `{name}` has a character that no header can hold");
                return Err(unavailable(&message).help("a newline at its end is the usual cause"));
            }
        }
        let region = of_arn(name)
            .or_else(|| set("AWS_REGION"))
            .or_else(|| set("AWS_DEFAULT_REGION"))
            .ok_or_else(|| unset("AWS_REGION"))?;
        let endpoint = set("AWS_ENDPOINT_URL_SECRETS_MANAGER").or_else(|| set("AWS_ENDPOINT_URL"));
        let endpoint = endpoint.unwrap_or_else(|| format!("https://secretsmanager.{region}.amazonaws.com"));
        let (origin, destination) = place(&endpoint)?;
        Ok(Access {
            keys: Keys::new(&id, &secret, token.as_ref().map(|token| token.as_str())),
            region,
            origin,
            destination,
        })
    }

    async fn ask(&self, name: &str, access: &Access) -> Result<secret::Bytes, Failure> {
        let transport = Transport::new(
            self.connector.clone(),
            access.origin.clone(),
            access.destination.clone(),
        );
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match asked(name, access, &transport).await {
                Err(failure) if failure.retryable => tokio::time::sleep(pause).await,
                answer => return answer,
            }
            pause *= 2;
        }
        asked(name, access, &transport).await
    }
}

async fn asked(name: &str, access: &Access, transport: &Transport) -> Result<secret::Bytes, Failure> {
    let request = request(name, access)?;
    let unreached = |error: object_store::client::HttpError| {
        let problem = carried(&error).map_or_else(|| error.to_string(), |failure| failure.message);
        unavailable(&format!("AWS Secrets Manager cannot be reached: {problem}"))
            .retryable()
            .help("look at AWS_ENDPOINT_URL and AWS_REGION, and at the network")
    };
    let reply = transport.call(request).await.map_err(unreached)?;
    let status = reply.status();
    let body = reply.into_body().bytes().await.map_err(unreached)?;
    let answer = match status.is_success() {
        true => value(name, &body),
        false => Err(refused(name, access, status.as_u16(), &body)),
    };
    // It held the value too. The library keeps no other copy.
    if let Ok(mut body) = body.try_into_mut() {
        body.as_mut().zeroize();
    }
    answer
}

fn request(name: &str, access: &Access) -> Result<HttpRequest, Failure> {
    let body = json!({ "SecretId": name }).to_string();
    let built = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/", access.origin))
        .header(CONTENT_TYPE, "application/x-amz-json-1.1")
        .header("x-amz-target", TARGET)
        .body(body.into());
    let mut request: HttpRequest =
        built.map_err(|error| unavailable(&format!("the request cannot be made: {error}")))?;
    AwsAuthorizer::new(access.keys.credential(), "secretsmanager", &access.region)
        .try_authorize(&mut request, None)
        .map_err(|error| unavailable(&format!("the request cannot be signed: {error}")))?;
    Ok(request)
}

fn value(name: &str, body: &[u8]) -> Result<secret::Bytes, Failure> {
    let senseless = || unavailable(&format!("the answer about `{name}` makes no sense"));
    let answer: Answer = serde_json::from_slice(body).map_err(|_| senseless())?;
    match (answer.secret_string, answer.secret_binary) {
        (Some(text), _) => Ok(Zeroizing::new(text.into_bytes())),
        (None, Some(encoded)) => {
            let encoded = Zeroizing::new(encoded);
            let decoded = BASE64_STANDARD.decode(encoded.as_bytes());
            decoded.map(Zeroizing::new).map_err(|_| senseless())
        }
        (None, None) => Err(senseless()),
    }
}

fn refused(name: &str, access: &Access, status: u16, body: &[u8]) -> Failure {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let kind = refusal.kind.rsplit('#').next().unwrap_or_default();
    let said: String = refusal.message.chars().take(300).collect();
    match (kind, status) {
        ("ResourceNotFoundException", _) => {
            let message = format!("AWS Secrets Manager has no secret `{name}` in {}", access.region);
            Failure::new(Turn::Operator, "secret.missing", message).help(
                "look at the name and at AWS_REGION; `aws secretsmanager list-secrets` shows what there is",
            )
        }
        (
            "AccessDeniedException"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "ExpiredTokenException"
            | "MissingAuthenticationTokenException"
            | "DecryptionFailure",
            _,
        )
        | (_, 401 | 403) => {
            let message = format!("AWS Secrets Manager refuses `{name}`: {kind}: {said}");
            Failure::new(Turn::Operator, "secret.denied", message)
                .help("let these keys call secretsmanager:GetSecretValue for it, and look at the clock of this machine")
        }
        (_, 429 | 500..) | ("ThrottlingException" | "InternalServiceError", _) => {
            let message = format!("AWS Secrets Manager answered {status} about `{name}`: {kind} {said}");
            unavailable(message.trim_end()).retryable()
        }
        _ => unavailable(&format!(
            "AWS Secrets Manager answered {status} about `{name}`: {kind}: {said}"
        )),
    }
}

/// `arn:aws:secretsmanager:<region>:...` says where it is.
fn of_arn(name: &str) -> Option<String> {
    let mut parts = name.split(':');
    let is_arn = parts.next() == Some("arn");
    parts.nth(2).filter(|_| is_arn).map(String::from)
}

fn place(endpoint: &str) -> Result<(String, Destination), Failure> {
    let refused = |problem: &str| {
        unavailable(&format!(
            "the endpoint of AWS Secrets Manager, `{endpoint}`, is not valid: {problem}"
        ))
        .help("AWS_ENDPOINT_URL is <http|https>://<host>[:<port>]")
    };
    let pattern = Pattern::parse(Capability::Http, endpoint.trim_end_matches('/'))
        .map_err(|error| refused(error.problem))?;
    let Pattern::Origin {
        host: Host::Exact(host),
        port,
        ..
    } = &pattern
    else {
        return Err(refused("it is not one host"));
    };
    // Whoever runs this named the host, as exactly as a grant would.
    let destination = Destination {
        trust: trust_of(host),
        host: host.clone(),
        port: *port,
    };
    Ok((pattern.to_string(), destination))
}

fn unset(variable: &str) -> Failure {
    unavailable(&format!(
        "AWS Secrets Manager cannot be asked: the environment variable `{variable}` is not set"
    ))
    .help("set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and AWS_ENDPOINT_URL where it is not AWS")
}

fn unavailable(message: &str) -> Failure {
    Failure::new(Turn::Operator, "secret.unavailable", message)
        .help("look at AWS_ENDPOINT_URL and AWS_REGION, and at the service itself")
}

/// Waits on a thread of its own: whoever asks for a secret may be inside of a runtime.
fn elsewhere<F>(work: impl FnOnce() -> F + Send) -> Result<secret::Bytes, Failure>
where
    F: Future<Output = Result<secret::Bytes, Failure>>,
{
    let broken = || unavailable("the system gives no thread for asking AWS Secrets Manager");
    std::thread::scope(|scope| {
        let asking = std::thread::Builder::new().spawn_scoped(scope, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|_| broken())?.block_on(work())
        });
        let asked = asking.map_err(|_| broken())?.join();
        asked.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{
        egress::SystemResolver,
        testing::server::{Reply, Server},
    };
    use indexmap::IndexMap;
    use std::path::Path;

    fn manager(server: &Server, variables: &[(&str, &str)]) -> SecretsManager {
        let mut known: HashMap<String, String> = [
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ENDPOINT_URL", &server.origin),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into();
        known.extend(
            variables
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string())),
        );
        let connector = Connector::new(&IndexMap::new(), Path::new("/"), Arc::new(SystemResolver));
        let variable = Box::new(move |name: &str| known.get(name).cloned());
        SecretsManager::new(variable, Arc::new(connector.expect("valid")))
    }

    /// The value or the code, and how often the service was asked.
    async fn check(
        replies: Vec<Reply>,
        variables: &[(&str, &str)],
        expected: Result<&str, &str>,
        asked: usize,
    ) {
        let server = Server::start(replies).await;
        let manager = manager(&server, variables);
        let fetched = tokio::task::spawn_blocking(move || manager.fetch("team/db"))
            .await
            .expect("ends");
        let shown = fetched
            .as_ref()
            .map(|value| std::str::from_utf8(value).expect("text"))
            .map_err(|failure| failure.code.as_str());
        assert_eq!(shown, expected, "{:?}", fetched.as_ref().err());
        let requests = server.requests();
        assert_eq!(requests.len(), asked);
        if let Err(failure) = &fetched {
            assert!(failure.help.is_some() || failure.retryable, "{failure:?}");
            assert!(!failure.message.contains("secret\""), "{failure:?}");
        }
        for request in requests {
            assert!(
                request
                    .head
                    .contains("x-amz-target: secretsmanager.GetSecretValue"),
                "{}",
                request.head
            );
            let scope = "/eu-central-1/secretsmanager/aws4_request";
            assert!(
                request.head.contains("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"),
                "{}",
                request.head
            );
            assert!(request.head.contains(scope), "{}", request.head);
            assert_eq!(request.body, br#"{"SecretId":"team/db"}"#);
        }
    }

    fn refusal(status: u16, kind: &str) -> Reply {
        Reply::new(
            status,
            &json!({ "__type": kind, "Message": "because" }).to_string(),
        )
    }

    #[tokio::test]
    async fn values_and_refusals() {
        let text = || Reply::new(200, r#"{"Name":"team/db","SecretString":"correct horse"}"#);
        check(vec![text()], &[], Ok("correct horse"), 1).await;
        let binary = Reply::new(200, r#"{"SecretBinary":"Y29ycmVjdCBob3JzZQ=="}"#);
        check(vec![binary], &[], Ok("correct horse"), 1).await;
        check(
            vec![
                Reply::new(500, "oops"),
                refusal(400, "ThrottlingException"),
                text(),
            ],
            &[],
            Ok("correct horse"),
            3,
        )
        .await;
        check(
            vec![refusal(400, "ResourceNotFoundException")],
            &[],
            Err("secret.missing"),
            1,
        )
        .await;
        check(
            vec![refusal(400, "com.amazon#AccessDeniedException")],
            &[],
            Err("secret.denied"),
            1,
        )
        .await;
        check(vec![Reply::new(403, "")], &[], Err("secret.denied"), 1).await;
        check(
            vec![refusal(400, "InvalidRequestException")],
            &[],
            Err("secret.unavailable"),
            1,
        )
        .await;
        check(vec![Reply::new(200, "{}")], &[], Err("secret.unavailable"), 1).await;
        let busy = || Reply::new(503, "busy");
        check(
            vec![busy(), busy(), busy(), busy()],
            &[],
            Err("secret.unavailable"),
            4,
        )
        .await;
        for (name, value) in [
            ("AWS_SECRET_ACCESS_KEY", ""),
            ("AWS_REGION", ""),
            ("AWS_ACCESS_KEY_ID", "AKID\n"),
            ("AWS_ENDPOINT_URL", "http://a/b"),
        ] {
            check(Vec::new(), &[(name, value)], Err("secret.unavailable"), 0).await;
        }
    }

    #[tokio::test]
    async fn a_secret_is_fetched_once_and_an_arn_names_its_region() {
        let server = Server::start(vec![Reply::new(200, r#"{"SecretString":"value"}"#)]).await;
        let manager = manager(&server, &[("AWS_REGION", "")]);
        let arn = "arn:aws:secretsmanager:us-west-2:123456789012:secret:db-AbCdEf";
        let twice = move || (manager.fetch(arn), manager.fetch(arn));
        let (one, other) = tokio::task::spawn_blocking(twice).await.expect("ends");
        assert!(one.is_ok_and(|one| other.is_ok_and(|other| one == other)));
        let requests = server.requests();
        assert_eq!(requests.len(), 1);
        assert!(
            requests[0].head.contains("/us-west-2/secretsmanager/"),
            "{}",
            requests[0].head
        );
    }
}
