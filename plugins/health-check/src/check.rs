//! One try of one check: from what a service answers to "it passes", or to an error that shows the real reply.

use crate::config::{Expect, Kind};
use crate::stage::Ports;
use serde_json::{Map, Value, json};
use std::time::Duration;
use windlass_guest::containers::Container;
use windlass_guest::http::{Request, Response};
use windlass_guest::{Error, duration};

/// How much of a body is shown.
const SHOWN_BODY: usize = 512;
/// How much of a container's output is shown.
const SHOWN_LINES: u32 = 20;
/// How much of a file is looked at.
const FILE_LIMIT: u64 = 1024 * 1024;
/// Headers that open doors: their values are not shown.
const HIDDEN_HEADERS: [&str; 3] = ["set-cookie", "authorization", "proxy-authenticate"];

/// A try that passed.
#[derive(Debug, PartialEq)]
pub(crate) struct Passed {
    pub(crate) latency: Duration,
    pub(crate) http_status: Option<u16>,
    /// What was seen, for the log.
    pub(crate) seen: String,
}

/// Makes one try. An error that is `retryable` may be another the next time; any other will not.
pub(crate) fn attempt(kind: &Kind<'_>, timeout: Duration, ports: &mut impl Ports) -> Result<Passed, Error> {
    let started = ports.clock();
    let (http_status, seen) = match kind {
        Kind::Http { url, headers, expect } => {
            let mut request = Request::get(*url)
                .header("user-agent", "windlass")
                .timeout(timeout);
            request
                .headers
                .extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
            let response = ports
                .send(&request)
                .map_err(|cause| unanswered(&format!("GET {url}"), cause))?;
            judge(url, &response, expect)?;
            let latency = Duration::from_millis(response.elapsed_ms);
            return Ok(Passed {
                latency,
                http_status: Some(response.status),
                seen: response.status.to_string(),
            });
        }
        Kind::Tcp { host, port } => {
            ports
                .connect(host, *port, timeout)
                .map_err(|cause| unanswered(&format!("connecting to {host}:{port}"), cause))?;
            (None, "connected".to_owned())
        }
        Kind::Sql { url, query, equals } => {
            let rows = ports
                .query(url, query, timeout)
                .map_err(|cause| unanswered(query, cause))?;
            (
                None,
                compare(query, rows.rows.first().and_then(|row| row.first()), *equals)?,
            )
        }
        Kind::Container { service } => {
            let containers = ports
                .containers(service)
                .map_err(|cause| unanswered(&format!("looking at {service}"), cause))?;
            (None, well(service, &containers, ports)?)
        }
        Kind::File { path, contains } => {
            let data = ports
                .read(path, FILE_LIMIT)
                .map_err(|cause| unreadable(path, &cause))?;
            (None, search(path, &data, *contains)?)
        }
    };
    Ok(Passed {
        latency: ports.clock().saturating_sub(started),
        http_status,
        seen,
    })
}

/// Compares a reply with what was expected, status first.
fn judge(url: &str, response: &Response, expect: &Expect) -> Result<(), Error> {
    let failure = |difference: String| {
        failed(format!("GET {url} -> {}{difference}", response.status)).with_details(shown(response))
    };
    if !expect.status.contains(&response.status) {
        let wanted: Vec<String> = expect.status.iter().map(u16::to_string).collect();
        let location = response
            .header("location")
            .map(|target| format!(" Location: {target}"))
            .unwrap_or_default();
        return Err(failure(format!("{location}, expected {}", wanted.join(" or "))));
    }
    for (name, wanted) in &expect.header {
        match response.header(name) {
            Some(found) if found == wanted => {}
            Some(found) => {
                return Err(failure(format!(
                    ", header `{name}` is `{found}`, expected `{wanted}`"
                )));
            }
            None => return Err(failure(format!(", no header `{name}`, expected `{wanted}`"))),
        }
    }
    if !expect.json.is_empty() {
        let body: Value = serde_json::from_slice(&response.body)
            .map_err(|_| failure(", expected JSON, and the body is none".to_owned()))?;
        for (field, wanted) in &expect.json {
            match lookup(&body, field) {
                Some(found) if same(found, wanted) => {}
                Some(found) => return Err(failure(format!(", `{field}` is {found}, expected {wanted}"))),
                None => return Err(failure(format!(", no field `{field}`, expected {wanted}"))),
            }
        }
    }
    match expect.latency {
        Some(limit) if Duration::from_millis(response.elapsed_ms) > limit => Err(failure(format!(
            " after {} ms, expected at most {}",
            response.elapsed_ms,
            duration::show(limit)
        ))),
        _ => Ok(()),
    }
}

fn compare(query: &str, found: Option<&Value>, wanted: Option<&Value>) -> Result<String, Error> {
    match (found, wanted) {
        (Some(found), Some(wanted)) if same(found, wanted) => Ok(found.to_string()),
        (Some(found), None) => Ok(found.to_string()),
        (None, None) => Ok("no rows".to_owned()),
        (found, Some(wanted)) => {
            let found = found.map_or("no rows".to_owned(), Value::to_string);
            Err(failed(format!("{query} -> {found}, expected {wanted}"))
                .with_details(json!({ "reply": found })))
        }
    }
}

fn search(path: &str, data: &[u8], wanted: Option<&str>) -> Result<String, Error> {
    let Some(wanted) = wanted else {
        return Ok("it is there".to_owned());
    };
    if data
        .windows(wanted.len())
        .any(|window| window == wanted.as_bytes())
    {
        return Ok(format!("contains `{wanted}`"));
    }
    Err(failed(format!("{path} does not contain `{wanted}`"))
        .with_details(json!({ "reply": beginning(data) })))
}

/// Every container of a service has to run and be healthy, and there has to be one.
fn well(service: &str, containers: &[Container], ports: &mut impl Ports) -> Result<String, Error> {
    let mut containers: Vec<&Container> = containers.iter().filter(|found| !found.one_off).collect();
    leave_out_resting(&mut containers);
    if containers.is_empty() {
        return Err(failed(format!("{service} has no container")));
    }
    let Some(ill) = containers.iter().find(|found| !found.is_healthy()) else {
        let health = containers.iter().any(|found| found.health == "healthy");
        let word = if health { "healthy" } else { "running" };
        return Ok(match containers.len() {
            1 => word.to_owned(),
            many => format!("all {many} {word}"),
        });
    };
    let state = match ill.state.as_str() {
        "running" => ill.health.clone(),
        "exited" | "dead" => format!("{} with status {}", ill.state, ill.exit_code),
        other => other.to_owned(),
    };
    let log = ports.output(&ill.id, SHOWN_LINES).unwrap_or_default();
    let message = format!("`{}` of {service} is {state}, expected healthy", ill.name);
    Err(failed(message).with_details(json!({ "container": ill.name, "state": state, "log": log.trim_end() })))
}

/// Of two colours, the one that has no running container while the other has is kept for a rollback, and is meant to rest.
fn leave_out_resting(containers: &mut Vec<&Container>) {
    fn colour(container: &Container) -> Option<&String> {
        container.labels.get("windlass.colour")
    }
    let running = containers.iter().filter(|found| found.is_running());
    let awake: Vec<String> = running.filter_map(|found| colour(found).cloned()).collect();
    if !awake.is_empty() {
        containers.retain(|found| colour(found).is_none_or(|colour| awake.contains(colour)));
    }
}

/// The last output of the newest container of a service; nothing where that cannot be had: the check has failed already, and for another reason.
pub(crate) fn last_output(service: &str, ports: &mut impl Ports) -> String {
    let containers = ports.containers(service).unwrap_or_default();
    let newest = containers.iter().rev().find(|found| !found.one_off);
    newest
        .and_then(|found| ports.output(&found.id, SHOWN_LINES).ok())
        .map_or_else(String::new, |log| log.trim_end().to_owned())
}

/// A field by JSON pointer or dotted name.
fn lookup<'a>(body: &'a Value, field: &str) -> Option<&'a Value> {
    if field.starts_with('/') {
        return body.pointer(field);
    }
    field.split('.').try_fold(body, |value, part| match value {
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        other => other.get(part),
    })
}

/// Whether two values are the same to a person: `1`, `1.0` and `"1"` are.
fn same(found: &Value, wanted: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    if found == wanted {
        return true;
    }
    let one_is_a_number = found.is_number() || wanted.is_number();
    one_is_a_number && number(found).is_some() && number(found) == number(wanted)
}

/// A service that gave no reply to judge. Refusals of the host and mistakes of the file stay what they are.
fn unanswered(doing: &str, cause: Error) -> Error {
    let last = cause.code.rsplit('.').next().unwrap_or_default();
    let settled = cause.code.starts_with("grant.")
        || cause.code.starts_with("config.")
        || ["secret.missing", "http.header", "sql.read-only"].contains(&cause.code.as_str())
        || last == "url";
    if settled {
        return Error {
            retryable: false,
            ..cause.context(doing)
        };
    }
    let error = failed(format!("{doing} -> {}", cause.message));
    error
        .with_details(json!({ "cause": cause.code }))
        .with_details(cause.details.unwrap_or(json!({})))
}

fn unreadable(path: &str, cause: &std::io::Error) -> Error {
    let why = match cause.kind() {
        std::io::ErrorKind::NotFound => "it is not there".to_owned(),
        std::io::ErrorKind::PermissionDenied => "it may not be read".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => format!("it cannot be read: {cause}"),
    };
    failed(format!("{path}: {why}")).help("the stage sees only what `allow: files` grants it")
}

fn failed(message: String) -> Error {
    Error::new("check.failed", message).retryable()
}

/// The reply as a person would want to see it.
fn shown(response: &Response) -> Value {
    let mut reply = format!("HTTP {}\n", response.status);
    let mut headers = Map::new();
    for (name, value) in &response.headers {
        let hidden = HIDDEN_HEADERS
            .iter()
            .any(|hidden| name.eq_ignore_ascii_case(hidden));
        let value = if hidden { "(not shown)" } else { value.as_str() };
        reply.push_str(&format!("{name}: {value}\n"));
        headers.insert(name.clone(), value.into());
    }
    let body = beginning(&response.body);
    reply.push_str(&format!("\n{body}"));
    json!({ "status": response.status, "headers": headers, "body": body, "reply": reply.trim_end() })
}

/// The first bytes as text, with a word about what was left out.
fn beginning(data: &[u8]) -> String {
    let shown = data.get(..SHOWN_BODY).unwrap_or(data);
    let text = String::from_utf8_lossy(shown).into_owned();
    if shown.len() < data.len() {
        format!("{text}… ({} bytes)", data.len())
    } else {
        text
    }
}
