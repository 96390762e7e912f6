//! Faults of a Vault server, by script: each test names the replies in order and what must come of them.

use super::*;
use std::collections::VecDeque;

/// A Vault that answers by script and remembers everything.
#[derive(Default)]
struct Script {
    replies: VecDeque<Result<Response, Error>>,
    asked: Vec<Request>,
    slept: Vec<Duration>,
    /// Name, fields and seconds to live of each.
    put: Vec<Value>,
    handed_on: Vec<(String, String)>,
    shown: Vec<String>,
    cancelled: bool,
}

impl Ports for Script {
    fn send(&mut self, request: &Request) -> Result<Response, Error> {
        assert!(self.put.is_empty(), "asked after the first put");
        self.asked.push(request.clone());
        self.replies
            .pop_front()
            .unwrap_or_else(|| panic!("one request too many: {}", request.url))
    }

    fn sleep(&mut self, duration: Duration) -> bool {
        self.slept.push(duration);
        !self.cancelled
    }

    fn reveal(&mut self, text: &str) -> Result<String, Error> {
        Ok(format!("revealed {text}\n"))
    }

    fn put(&mut self, name: &str, content: &Content) -> Result<(), Error> {
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        let fields: Map<_, _> = content
            .fields
            .iter()
            .map(|(name, value)| (name.clone(), json!(text(value))))
            .collect();
        self.put.push(json!([
            name,
            fields,
            content.time_to_live.map(|time| time.as_secs())
        ]));
        Ok(())
    }

    fn put_text(&mut self, name: &str, text: &str) -> Result<(), Error> {
        self.handed_on.push((name.to_owned(), text.to_owned()));
        Ok(())
    }

    fn info(&mut self, line: &str) {
        self.shown.push(line.to_owned());
    }

    fn warn(&mut self, line: &str) {
        self.shown.push(line.to_owned());
    }
}

fn reply(status: u16, body: Value) -> Result<Response, Error> {
    Ok(Response {
        status,
        body: body.to_string().into_bytes(),
        ..Response::default()
    })
}

fn down() -> Result<Response, Error> {
    Err(Error::new("http.unreachable", "the connection was refused").retryable())
}

fn version_2() -> Value {
    json!({"data": {"data": {"password": "hunter22"}, "metadata": {"version": 4}}})
}

/// A configuration that reads `database`, with `changes` on top.
fn with(changes: Value) -> Value {
    let mut with = json!({
        "address": "https://vault:8200/",
        "auth": {"token": "wlsec_token"},
        "read": {"database": "secret/team/database"},
    });
    with.as_object_mut()
        .unwrap()
        .extend(changes.as_object().unwrap().clone());
    with
}

fn play(changes: Value, replies: Vec<Result<Response, Error>>) -> (Result<Outcome, Error>, Script) {
    let config: Config = serde_json::from_value(with(changes)).unwrap();
    let mut script = Script {
        replies: replies.into(),
        ..Script::default()
    };
    let outcome = run(&config, &mut script);
    (outcome, script)
}

/// What was asked, after the address, for these replies; and the code of the failure, or `ok`.
fn check(changes: Value, replies: Vec<Result<Response, Error>>, asked: &[&str], code: &str) -> Option<Error> {
    let (outcome, script) = play(changes, replies);
    let urls: Vec<&str> = script
        .asked
        .iter()
        .map(|request| &request.url["https://vault:8200/v1/".len()..])
        .collect();
    assert_eq!(urls, asked);
    assert_eq!(
        outcome
            .as_ref()
            .map_or_else(|error| error.code.as_str(), |_| "ok"),
        code
    );
    assert!(
        outcome.is_ok() || script.put.is_empty(),
        "put something before it failed"
    );
    outcome.err()
}

const DATA: &str = "secret/data/team/database";
const PLAIN: &str = "secret/team/database";

#[test]
fn version_2_is_read_and_its_value_stays_out_of_the_outputs() {
    let (outcome, script) = play(json!({}), vec![reply(200, version_2())]);
    let outcome = outcome.unwrap();
    assert_eq!(script.put, [json!(["database", {"password": "hunter22"}, null])]);
    assert_eq!(
        outcome.outputs["secrets"],
        json!({"database": {"source": "vault", "path": PLAIN, "kv": 2, "version": 4, "fields": ["password"]}})
    );
    assert_eq!(outcome.summary, "1 secret read from Vault");
    let said = format!("{outcome:?}{:?}", script.shown);
    assert!(!said.contains("hunter22"));
    assert_eq!(
        script.asked[0]
            .headers
            .iter()
            .find(|(name, _)| name == "x-vault-token")
            .unwrap()
            .1,
        "wlsec_token"
    );
}

#[test]
fn a_field_can_stand_for_the_secret() {
    let with = |field: &str| json!({ "read": { "database": format!("team/database#{field}") } });
    let (outcome, script) = play(with("password"), vec![reply(200, version_2())]);
    assert_eq!(outcome.unwrap().outputs["secrets"]["database"]["path"], PLAIN);
    assert_eq!(script.put, [json!(["database", {"value": "hunter22"}, null])]);
    let error = check(
        with("user"),
        vec![reply(200, version_2())],
        &[DATA],
        "vault.missing",
    );
    assert!(error.unwrap().message.contains("no field `user`, only password"));
}

#[test]
fn version_1_is_found_when_version_2_has_nothing() {
    let version_1 = json!({"lease_duration": 3600, "data": {"value": "x"}});
    let (outcome, script) = play(
        json!({}),
        vec![reply(404, json!({"errors": []})), reply(200, version_1.clone())],
    );
    assert_eq!(outcome.unwrap().outputs["secrets"]["database"]["kv"], 1);
    assert_eq!(script.put, [json!(["database", {"value": "x"}, 3600])]);
    check(json!({"kv": 1}), vec![reply(200, version_1)], &[PLAIN], "ok");
}

#[test]
fn the_mount_may_stand_in_front_of_the_path_or_not() {
    check(
        json!({"read": {"a": "team/database"}}),
        vec![reply(200, version_2())],
        &[DATA],
        "ok",
    );
    let changes = json!({"mount": "kv/ops", "read": {"a": "/kv/ops/x y/z?1"}});
    check(
        changes,
        vec![reply(200, version_2())],
        &["kv/ops/data/x%20y/z%3F1"],
        "ok",
    );
    check(
        json!({"read": {"a": "secrets/x"}}),
        vec![reply(200, version_2())],
        &["secret/data/secrets/x"],
        "ok",
    );
}

#[test]
fn missing_denied_and_sealed_are_told_apart() {
    let nothing = || reply(404, json!({"errors": []}));
    let denied = || {
        reply(
            403,
            json!({"errors": ["1 error occurred:\n\t* permission denied\n\n"]}),
        )
    };
    let wrong_version = || {
        reply(
            404,
            json!({"errors": [], "warnings": ["Invalid path for a versioned K/V secrets engine."]}),
        )
    };
    let both = &[DATA, PLAIN];
    check(json!({}), vec![nothing(), nothing()], both, "vault.missing");
    check(json!({}), vec![nothing(), denied()], both, "vault.missing");
    check(json!({}), vec![denied(), nothing()], both, "vault.missing");
    check(json!({"kv": 2}), vec![nothing()], &[DATA], "vault.missing");
    check(json!({"kv": 1}), vec![nothing()], &[PLAIN], "vault.missing");
    check(json!({}), vec![denied(), wrong_version()], both, "vault.denied");
    let error = check(json!({}), vec![denied(), denied()], both, "vault.denied").unwrap();
    assert_eq!(
        error.message,
        "reading `database`: Vault denied `secret/data/team/database` (403): 1 error occurred: * permission denied"
    );
    for (status, body) in [
        (503, json!({"errors": ["Vault is sealed"]})),
        (503, json!({"error": "Barrier has been sealed."})),
        (500, json!({"errors": ["error: core: Sealed"]})),
    ] {
        let error = check(json!({}), vec![reply(status, body)], &[DATA], "vault.sealed").unwrap();
        assert!(
            !error.retryable
                && error.details.unwrap()["help"]
                    .as_str()
                    .unwrap()
                    .contains("unseal")
        );
    }
}

#[test]
fn a_deleted_version_says_so() {
    let deleted = json!({"data": {"data": null, "metadata": {"deletion_time": "2026-11-01T00:00:00Z"}}});
    let nothing = reply(404, json!({}));
    let error = check(
        json!({}),
        vec![reply(404, deleted), nothing],
        &[DATA, PLAIN],
        "vault.missing",
    )
    .unwrap();
    assert!(error.message.contains("deleted at 2026-11-01"), "{error}");
    let empty = json!({"data": {"data": {}, "metadata": {}}});
    let error = check(json!({}), vec![reply(200, empty)], &[DATA], "vault.missing").unwrap();
    assert!(error.message.contains("no fields"), "{error}");
}

#[test]
fn what_passes_by_itself_is_waited_for() {
    let (outcome, script) = play(
        json!({}),
        vec![
            Ok(Response {
                status: 429,
                headers: vec![("retry-after".into(), "3".into())],
                ..Response::default()
            }),
            down(),
            reply(502, json!("bad gateway")),
            reply(503, json!({"errors": ["no leader"]})),
            reply(200, version_2()),
        ],
    );
    assert!(outcome.is_ok());
    assert_eq!(
        script.slept,
        [3_000, 1_000, 2_000, 4_000].map(Duration::from_millis)
    );
    assert!(
        script.shown[0].ends_with("trying again in 3s"),
        "{}",
        script.shown[0]
    );
}

#[test]
fn patience_has_an_end() {
    let error = check(json!({}), vec![down(); 6], &[DATA; 6], "vault.unreachable").unwrap();
    assert!(error.retryable);
    assert_eq!(error.details.unwrap()["attempts"], 6);
    check(
        json!({}),
        vec![reply(500, json!({"errors": ["x"]})); 6],
        &[DATA; 6],
        "vault.unreachable",
    );
    let denied = Error::new("grant.denied", "this stage is not allowed to ask that host");
    check(json!({}), vec![Err(denied)], &[DATA], "grant.denied");
}

#[test]
fn a_cancelled_wait_ends_the_stage() {
    let config: Config = serde_json::from_value(with(json!({}))).unwrap();
    let mut script = Script {
        replies: [down()].into(),
        cancelled: true,
        ..Script::default()
    };
    assert_eq!(run(&config, &mut script).unwrap_err().code, "cancelled");
}

#[test]
fn replies_that_are_none_show_nothing_of_themselves() {
    let half = Response {
        status: 200,
        body: b"{\"data\":{\"password\":\"hunter22".to_vec(),
        ..Response::default()
    };
    let error = check(json!({}), vec![Ok(half)], &[DATA], "vault.reply").unwrap();
    assert!(!format!("{error:?}").contains("hunter22"));
    let list = || reply(200, json!({"data": ["x"]}));
    check(json!({}), vec![list(), list()], &[DATA, PLAIN], "vault.reply");
}

#[test]
fn redirects_name_their_target() {
    let headers = vec![("location".to_owned(), "https://active:8200/v1/x".to_owned())];
    let moved = Response {
        status: 307,
        headers,
        ..Response::default()
    };
    let error = check(json!({}), vec![Ok(moved)], &[DATA], "vault.unreachable").unwrap();
    assert!(error.message.contains("points to https://active:8200"), "{error}");
}

#[test]
fn logins_reveal_their_secret_into_the_body_and_keep_the_token() {
    let token = || reply(200, json!({"auth": {"client_token": "s.abc"}}));
    for (auth, url, body) in [
        (
            json!({"approle": {"role-id": "r", "secret-id": "wlsec_s"}}),
            "auth/approle/login",
            json!({"role_id": "r", "secret_id": "revealed wlsec_s"}),
        ),
        (
            json!({"jwt": {"role": "r", "token": "wlsec_j", "mount": "kubernetes"}}),
            "auth/kubernetes/login",
            json!({"role": "r", "jwt": "revealed wlsec_j"}),
        ),
    ] {
        let (outcome, script) = play(
            json!({"auth": auth, "namespace": "admin"}),
            vec![token(), reply(200, version_2())],
        );
        let [login, read] = script.asked.as_slice() else {
            panic!("{:?}", script.asked)
        };
        assert_eq!(
            (login.method.as_str(), login.url.as_str()),
            ("POST", format!("https://vault:8200/v1/{url}").as_str())
        );
        assert_eq!(serde_json::from_slice::<Value>(&login.body).unwrap(), body);
        assert!(!login.headers.iter().any(|(name, _)| name == "x-vault-token"));
        for request in [login, read] {
            assert!(
                request
                    .headers
                    .contains(&("x-vault-namespace".into(), "admin".into()))
            );
        }
        assert!(read.headers.contains(&("x-vault-token".into(), "s.abc".into())));
        assert!(!format!("{outcome:?}").contains("s.abc"));
    }
}

#[test]
fn logins_fail_in_words() {
    let auth = json!({"auth": {"approle": {"role-id": "r", "secret-id": "s"}}});
    let login = &["auth/approle/login"];
    let refused = || reply(400, json!({"errors": ["invalid role or secret ID"]}));
    let error = check(auth.clone(), vec![refused()], login, "vault.denied").unwrap();
    assert!(
        error.message.ends_with("(400): invalid role or secret ID"),
        "{error}"
    );
    check(auth.clone(), vec![reply(404, json!({}))], login, "vault.missing");
    check(
        auth.clone(),
        vec![reply(200, json!({"auth": null}))],
        login,
        "vault.reply",
    );
    check(
        auth,
        vec![reply(503, json!({"errors": ["Vault is sealed"]}))],
        login,
        "vault.sealed",
    );
    check(json!({"auth": null}), vec![], &[], "config.invalid");
    check(json!({"auth": {}}), vec![], &[], "config.invalid");
}

#[test]
fn nothing_is_put_when_one_of_many_is_missing() {
    let read = json!({"read": {"a": "x", "b": "y"}, "kv": 2});
    let replies = vec![reply(200, version_2()), reply(404, json!({}))];
    check(
        read,
        replies,
        &["secret/data/x", "secret/data/y"],
        "vault.missing",
    );
}

#[test]
fn switched_off_it_contacts_nobody() {
    let changes = json!({"enabled": false, "fallback": {"database": "wlsec_local"}});
    let (outcome, script) = play(changes, vec![]);
    let outcome = outcome.unwrap();
    assert_eq!(
        script.handed_on,
        [("database".to_owned(), "wlsec_local".to_owned())]
    );
    assert_eq!(
        outcome.outputs["secrets"],
        json!({"database": {"source": "fallback"}})
    );
    assert_eq!(
        outcome.summary,
        "Vault is switched off: 1 secret taken from `fallback`"
    );
    check(json!({"enabled": false}), vec![], &[], "config.invalid");
}
