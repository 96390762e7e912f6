//! Services that are not well, by script: each test names what they answer and what must come of it.

use super::*;
use std::collections::VecDeque;

/// A world that answers by script and remembers everything.
#[derive(Default)]
struct Script {
    replies: VecDeque<Result<Response, Error>>,
    rows: VecDeque<Result<Value, Error>>,
    connections: VecDeque<Result<(), Error>>,
    file: Option<&'static str>,
    containers: VecDeque<Vec<Container>>,
    remaining: Option<Duration>,
    asked: Vec<Request>,
    slept: Vec<Duration>,
    log: Vec<(Level, String)>,
    clock: u64,
}

impl Ports for Script {
    fn send(&mut self, request: &Request) -> Result<Response, Error> {
        self.asked.push(request.clone());
        self.replies.pop_front().expect("one request too many")
    }

    fn connect(&mut self, host: &str, port: u16, timeout: Duration) -> Result<(), Error> {
        assert_eq!((host, port, timeout), ("redis", 6379, Duration::from_secs(5)));
        self.connections.pop_front().expect("one connection too many")
    }

    fn query(&mut self, _: &str, _: &str, _: Duration) -> Result<sql::Rows, Error> {
        let value = self.rows.pop_front().expect("one query too many")?;
        let rows = if value == json!("nothing") {
            vec![]
        } else {
            vec![vec![value, json!("more")]]
        };
        Ok(sql::Rows {
            columns: vec![],
            rows,
        })
    }

    fn read(&mut self, _: &str, _: u64) -> std::io::Result<Vec<u8>> {
        self.file
            .map(|text| text.as_bytes().to_vec())
            .ok_or(std::io::ErrorKind::NotFound.into())
    }

    fn containers(&mut self, service: &str) -> Result<Vec<Container>, Error> {
        assert_eq!(service, "team/backend");
        Ok(self.containers.pop_front().expect("one look too many"))
    }

    fn output(&mut self, container: &str, _: u32) -> Result<String, Error> {
        Ok(format!("Traceback of {container}\nboom\n"))
    }

    fn clock(&mut self) -> Duration {
        self.clock += 7;
        Duration::from_millis(self.clock)
    }

    fn sleep(&mut self, duration: Duration) -> bool {
        self.slept.push(duration);
        duration != Duration::from_secs(99)
    }

    fn remaining(&mut self) -> Option<Duration> {
        self.remaining
    }

    fn log(&mut self, level: Level, line: &str) {
        self.log.push((level, line.to_owned()));
    }

    fn progress(&mut self, done: u64, total: u64, _: &str) {
        assert!(done <= total);
    }
}

fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Result<Response, Error> {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    Ok(Response {
        status,
        headers,
        body: body.into(),
        elapsed_ms: 120,
        ..Response::default()
    })
}

/// Runs `check` under the name `web`, with `with` beside it.
fn play(check: Value, with: Value, script: &mut Script) -> Result<Outcome, Error> {
    let mut config = json!({"checks": {"web": check}});
    config
        .as_object_mut()
        .unwrap()
        .extend(with.as_object().unwrap().clone());
    run(&serde_json::from_value(config).unwrap(), script)
}

/// The message of a single try of an HTTP check, without the URL; `ok` where it passes.
fn check(expect: Value, reply: Result<Response, Error>, message: &str) {
    let mut script = Script {
        replies: [reply].into(),
        ..Script::default()
    };
    let outcome = play(
        json!({"http": "http://web/up", "expect": expect}),
        json!({"retries": 1}),
        &mut script,
    );
    let found = outcome.map_or_else(|error| error.message, |_| "ok".to_owned());
    assert_eq!(found.replace("check `web`: GET http://web/up -> ", ""), message);
}

#[test]
fn http_replies_are_judged() {
    let json_body = || {
        reply(
            200,
            &[("x-app", "a")],
            r#"{"status": "degraded", "data": {"items": [{"n": 1}]}}"#,
        )
    };
    check(json!({}), reply(200, &[], ""), "ok");
    check(json!({"status": [200, 401]}), reply(401, &[], ""), "ok");
    check(
        json!({}),
        reply(301, &[("location", "/up/")], ""),
        "301 Location: /up/, expected 200",
    );
    check(
        json!({"status": [200, 401]}),
        reply(500, &[], ""),
        "500, expected 200 or 401",
    );
    check(
        json!({"json": {"data.items.0.n": 1, "/data/items/0/n": "1"}}),
        json_body(),
        "ok",
    );
    check(
        json!({"json": {"status": "healthy"}}),
        json_body(),
        "200, `status` is \"degraded\", expected \"healthy\"",
    );
    check(
        json!({"json": {"data.items.1.n": 1}}),
        json_body(),
        "200, no field `data.items.1.n`, expected 1",
    );
    check(
        json!({"json": {"status": "ok"}}),
        reply(200, &[], "<html>"),
        "200, expected JSON, and the body is none",
    );
    check(json!({"header": {"X-App": "a"}}), json_body(), "ok");
    check(
        json!({"header": {"X-App": "b"}}),
        json_body(),
        "200, header `X-App` is `a`, expected `b`",
    );
    check(
        json!({"header": {"X-Other": "b"}}),
        json_body(),
        "200, no header `X-Other`, expected `b`",
    );
    check(json!({"latency": "120ms"}), reply(200, &[], ""), "ok");
    check(
        json!({"latency": "100ms"}),
        reply(200, &[], ""),
        "200 after 120 ms, expected at most 100ms",
    );
    let late = Error::new("http.timeout", "no complete reply within 5s").retryable();
    check(json!({}), Err(late), "no complete reply within 5s");
}

#[test]
fn a_failure_shows_the_real_reply() {
    let headers = [("location", "/login"), ("Set-Cookie", "session=abc")];
    let mut script = Script {
        replies: [reply(302, &headers, &"x".repeat(600))].into(),
        ..Script::default()
    };
    let error = play(
        json!({"http": "http://web/up"}),
        json!({"retries": 0}),
        &mut script,
    )
    .unwrap_err();
    assert_eq!((error.code.as_str(), error.retryable), ("check.failed", true));
    let details = error.details.unwrap();
    assert_eq!(
        (&details["check"], &details["attempts"], &details["status"]),
        (&json!("web"), &json!(1), &json!(302))
    );
    assert_eq!(
        details["reply"].as_str().unwrap(),
        format!(
            "HTTP 302\nlocation: /login\nSet-Cookie: (not shown)\n\n{}… (600 bytes)",
            "x".repeat(512)
        )
    );
    assert!(!details.to_string().contains("session=abc"));
}

#[test]
fn it_tries_again_until_it_passes() {
    let refused = || Err(Error::new("http.unreachable", "the connection was refused").retryable());
    let mut script = Script {
        replies: [refused(), refused(), reply(503, &[], ""), reply(200, &[], "")].into(),
        ..Script::default()
    };
    let check = json!({"http": "http://web/up", "headers": {"authorization": "Bearer wlsec_1"}});
    let outcome = play(check, json!({"delay": "2s"}), &mut script).unwrap();
    assert_eq!(
        outcome.outputs["web"],
        json!({"status": "passed", "latency_ms": 120, "attempts": 4, "http_status": 200})
    );
    assert!(!outcome.changed);
    assert_eq!(script.slept, [Duration::from_secs(2); 3]);
    assert!(
        script.asked[0]
            .headers
            .contains(&("authorization".into(), "Bearer wlsec_1".into()))
    );
    assert_eq!(script.asked[0].timeout, Duration::from_secs(5));
    let levels: Vec<Level> = script.log.iter().map(|(level, _)| *level).collect();
    assert_eq!(levels, [Level::Info, Level::Debug, Level::Info, Level::Info]);
    assert_eq!(script.log[3].1, "✓ web: 200 in 120 ms (after 4 tries)");
}

#[test]
fn it_gives_up_after_the_last_try_and_before_the_deadline() {
    let busy = || reply(503, &[], "");
    let mut script = Script {
        replies: [busy(), busy(), busy()].into(),
        ..Script::default()
    };
    let error = play(json!({"http": "http://web/"}), json!({"retries": 3}), &mut script).unwrap_err();
    assert_eq!(
        error.message,
        "check `web`: GET http://web/ -> 503, expected 200 (after 3 tries)"
    );
    assert_eq!(script.slept, [Duration::from_secs(10); 2]);

    let mut script = Script {
        replies: [busy()].into(),
        remaining: Some(Duration::from_secs(15)),
        ..Script::default()
    };
    let error = play(json!({"http": "http://web/"}), json!({}), &mut script).unwrap_err();
    assert!(
        error
            .message
            .ends_with("expected 200; the stage's time is nearly over"),
        "{error}"
    );
    assert!(script.slept.is_empty());
}

#[test]
fn what_will_not_change_is_not_tried_again() {
    let denied = Error::new("grant.denied", "this stage is not allowed to ask that host");
    let mut script = Script {
        replies: [Err(denied)].into(),
        ..Script::default()
    };
    let error = play(json!({"http": "http://web/"}), json!({}), &mut script).unwrap_err();
    assert_eq!(error.code, "grant.denied");
    assert!(
        error
            .message
            .starts_with("check `web`: GET http://web/: this stage"),
        "{error}"
    );
}

#[test]
fn a_cancelled_wait_ends_the_stage() {
    let mut script = Script {
        replies: [reply(503, &[], "")].into(),
        ..Script::default()
    };
    let error = play(
        json!({"http": "http://web/"}),
        json!({"delay": "99s"}),
        &mut script,
    )
    .unwrap_err();
    assert_eq!(error.code, "cancelled");
}

#[test]
fn databases_are_asked() {
    let sql = |equals: Value, found: Value| {
        let mut script = Script {
            rows: [Ok(found)].into(),
            ..Script::default()
        };
        let check = json!({"sql": "sqlite:///x", "query": "SELECT n", "equals": equals});
        play(check, json!({"retries": 1}), &mut script)
            .map_or_else(|error| error.message, |_| "ok".to_owned())
    };
    assert_eq!(sql(json!(3), json!(3)), "ok");
    assert_eq!(sql(json!(3), json!("3")), "ok");
    assert_eq!(sql(json!(null), json!(null)), "ok");
    assert_eq!(sql(json!(3), json!(4)), "check `web`: SELECT n -> 4, expected 3");
    assert_eq!(
        sql(json!("a"), json!("nothing")),
        "check `web`: SELECT n -> no rows, expected \"a\""
    );
    assert_eq!(
        sql(json!(null), json!(0)),
        "check `web`: SELECT n -> 0, expected null"
    );

    let missing = Error::new("sql.failed", "no such table: t").with_details(json!({"sqlstate": "42P01"}));
    let mut script = Script {
        rows: [Err(missing), Ok(json!(1))].into(),
        ..Script::default()
    };
    let outcome = play(
        json!({"sql": "sqlite:///x", "query": "SELECT 1"}),
        json!({}),
        &mut script,
    )
    .unwrap();
    assert_eq!(
        outcome.outputs["web"],
        json!({"status": "passed", "latency_ms": 7, "attempts": 2})
    );
    assert_eq!(
        script.log[0].1,
        "· web: SELECT 1 -> no such table: t (try 1 of 30)"
    );
}

#[test]
fn ports_are_connected_to() {
    let refused = Error::new("tcp.refused", "the connection was refused");
    let mut script = Script {
        connections: [Err(refused), Ok(())].into(),
        ..Script::default()
    };
    let outcome = play(json!({"tcp": "redis:6379"}), json!({}), &mut script).unwrap();
    assert_eq!(outcome.outputs["web"]["attempts"], 2);
    assert_eq!(
        script.log[0].1,
        "· web: connecting to redis:6379 -> the connection was refused (try 1 of 30)"
    );
}

#[test]
fn files_are_looked_at() {
    let file = |contains: Option<&str>, file| {
        let mut script = Script {
            file,
            ..Script::default()
        };
        let mut check = json!({"file": "/workspace/ready"});
        if let Some(text) = contains {
            check["contains"] = text.into();
        }
        play(check, json!({"retries": 1}), &mut script)
            .map_or_else(|error| error.message, |_| "ok".to_owned())
    };
    assert_eq!(file(None, Some("")), "ok");
    assert_eq!(file(Some("ready"), Some("it is ready.")), "ok");
    assert_eq!(
        file(Some("ready"), Some("not yet")),
        "check `web`: /workspace/ready does not contain `ready`"
    );
    assert_eq!(file(None, None), "check `web`: /workspace/ready: it is not there");
}

#[test]
fn all_checks_are_understood_before_the_first_is_made() {
    let config = json!({"checks": {"a": {"tcp": "redis:6379"}, "b": {"sql": "sqlite:///x"}}});
    let error = run(&serde_json::from_value(config).unwrap(), &mut Script::default()).unwrap_err();
    assert_eq!(error.code, "config.invalid");
}

fn container(state: &str, health: &str) -> Container {
    Container {
        id: "id1".into(),
        name: "team-backend-1".into(),
        state: state.into(),
        health: health.into(),
        exit_code: 3,
        ..Container::default()
    }
}

#[test]
fn containers_have_to_be_healthy_every_one() {
    let look = |containers: Vec<Container>| {
        let mut script = Script {
            containers: [containers].into(),
            ..Script::default()
        };
        play(
            json!({"container": "team/backend", "retries": 1}),
            json!({}),
            &mut script,
        )
        .map_or_else(|error| error.message, |_| script.log[0].1.clone())
    };
    let well = || container("running", "healthy");
    let task = || Container {
        one_off: true,
        ..container("exited", "none")
    };
    assert_eq!(look(vec![well()]), "✓ web: healthy in 7 ms");
    assert_eq!(
        look(vec![container("running", "none"), task()]),
        "✓ web: running in 7 ms"
    );
    assert_eq!(look(vec![well(), well()]), "✓ web: all 2 healthy in 7 ms");
    let coloured = |colour: &str, found: Container| Container {
        labels: [("windlass.colour".to_string(), colour.to_string())].into(),
        ..found
    };
    let resting = || coloured("blue", container("exited", "none"));
    assert_eq!(
        look(vec![resting(), coloured("green", well())]),
        "✓ web: healthy in 7 ms"
    );
    assert!(look(vec![resting()]).contains("is exited"));
    assert!(
        look(vec![
            coloured("green", container("exited", "none")),
            coloured("green", well())
        ])
        .contains("is exited")
    );
    assert_eq!(look(vec![task()]), "check `web`: team/backend has no container");
    let output = "; the last of its output:\nTraceback of id1\nboom";
    assert_eq!(
        look(vec![well(), container("running", "unhealthy")]),
        format!("check `web`: `team-backend-1` of team/backend is unhealthy, expected healthy{output}")
    );
    assert_eq!(
        look(vec![container("exited", "none")]),
        format!(
            "check `web`: `team-backend-1` of team/backend is exited with status 3, expected healthy{output}"
        )
    );
}

#[test]
fn a_check_has_its_own_patience_and_shows_whose_output_it_is_told_to() {
    let mut script = Script {
        replies: [reply(500, &[], ""), reply(500, &[], "")].into(),
        containers: [vec![container("running", "none")]].into(),
        ..Script::default()
    };
    let check = json!({
        "http": "http://backend.team.compose:8000/health", "logs": "team/backend", "retries": 2, "delay": "1s", "timeout": "10s",
    });
    let error = play(check, json!({}), &mut script).unwrap_err();
    assert_eq!(
        error.message,
        "check `web`: GET http://backend.team.compose:8000/health -> 500, expected 200 (after 2 tries); the last of its output:\n\
         Traceback of id1\nboom"
    );
    assert_eq!(script.slept, [Duration::from_secs(1)]);
    assert_eq!(script.asked[0].timeout, Duration::from_secs(10));
}

/// Both checks of the guide's `health_check.py`, as a pipeline says them.
#[test]
fn the_guides_checks_pass_and_fail_as_the_guide_has_them() {
    let config = || {
        let endpoint = |path: &str| {
            json!({
                "http": format!("https://host{path}"), "headers": {"authorization": "Bearer wlsec_1"},
                "expect": {"status": [200, 401]}, "retries": 1, "timeout": "10s",
            })
        };
        json!({"checks": {
            "health": {"http": "https://host/health", "expect": {"json": {"status": "healthy"}}},
            "me": endpoint("/api/v1/users/me"),
            "projects": endpoint("/api/v1/projects"),
            "sync": endpoint("/api/v1/sync/connection/status"),
        }})
    };
    let healthy = || reply(200, &[], r#"{"status": "healthy"}"#);
    let run_guide = |replies: Vec<Result<Response, Error>>| {
        let mut script = Script {
            replies: replies.into(),
            ..Script::default()
        };
        let outcome = run(&serde_json::from_value(config()).unwrap(), &mut script);
        (outcome.map_err(|error| error.message), script)
    };
    let (outcome, script) = run_guide(vec![
        reply(200, &[], r#"{"status": "starting"}"#),
        healthy(),
        reply(200, &[], "[]"),
        reply(401, &[], ""),
        reply(200, &[], "{}"),
    ]);
    assert_eq!(outcome.unwrap().summary, "4 checks passed");
    assert_eq!(script.slept, [Duration::from_secs(10)]);
    let timeouts: Vec<u64> = script.asked.iter().map(|asked| asked.timeout.as_secs()).collect();
    assert_eq!(timeouts, [5, 5, 10, 10, 10]);

    // The guide does not try an endpoint again.
    let (outcome, _) = run_guide(vec![healthy(), reply(301, &[("location", "/login")], "")]);
    assert_eq!(
        outcome.unwrap_err(),
        "check `me`: GET https://host/api/v1/users/me -> 301 Location: /login, expected 200 or 401"
    );
    let (outcome, script) = run_guide((0..30).map(|_| reply(503, &[], "")).collect());
    assert_eq!(
        outcome.unwrap_err(),
        "check `health`: GET https://host/health -> 503, expected 200 (after 30 tries)"
    );
    assert_eq!(script.slept, [Duration::from_secs(10); 29]);
}
