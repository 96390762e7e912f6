//! Questions to a candidate, asked from inside the router's container: the way that its requests will come. One more reason for asking there:
//! a candidate is on no port of the machine, and under no name but the colour's.

use serde_json::Value;
use windlass_guest::Error;
use windlass_guest::containers::{Output, Program};

use crate::config::{Check, Expect};
use crate::host::Host;
use crate::names::{self, Colour};
use crate::router::{At, repeatable};

/// `curl` where there is one; `wget` shows no body of a reply that it takes for a failure. Neither follows a redirect into the verdict: the first
/// reply counts. Both take `--header`.
const ASK: &str = "t=$1; shift; if command -v curl >/dev/null; then exec curl -sS -i --max-time \"$t\" \"$@\"; fi; exec timeout \"$t\" wget -q -S -O - \"$@\"";
const SECONDS: &str = "10";
const SHOWN_BODY: usize = 512;

/// What came back.
#[derive(Debug, PartialEq)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// Asks once.
///
/// # Errors
/// `deploy.check`, with the reply.
pub(crate) fn ask(
    host: &mut dyn Host,
    at: &At,
    colour: Colour,
    name: &str,
    check: &Check,
) -> Result<(), Error> {
    let url = format!(
        "http://{}:{}{}",
        names::alias(&at.service, colour),
        at.port,
        check.http
    );
    let mut argv: Vec<String> = ["sh", "-c", ASK, "ask", SECONDS].map(String::from).to_vec();
    for (header, value) in &check.headers {
        argv.extend(["--header".to_owned(), format!("{header}: {value}")]);
    }
    argv.push(url.clone());
    let program = Program {
        timeout_ms: Some(15_000),
        ..repeatable(Program::new(argv))
    };
    let output = host.exec(&at.container, &program)?;
    let failed = |words: String| Error::new("deploy.check", format!("check `{name}`: GET {url} {words}"));
    let Some(reply) = read(&output) else {
        return Err(failed(format!("got no answer: {}", output.stderr.trim())).retryable());
    };
    judge(&reply, &check.expect).map_err(|difference| {
        let body: String = reply.body.chars().take(SHOWN_BODY).collect();
        failed(format!(
            "-> {}{difference}; the reply was: {}",
            reply.status,
            body.trim()
        ))
        .retryable()
    })
}

/// `curl` has all on its standard output, `wget` the head on its standard error.
fn read(output: &Output) -> Option<Reply> {
    let (head, body) = match output.stdout.starts_with("HTTP/") {
        true => {
            let text = output.stdout.as_str();
            let end = ["\r\n\r\n", "\n\n"]
                .iter()
                .filter_map(|gap| Some((text.find(gap)?, gap.len())))
                .min();
            let (end, gap) = end.unwrap_or((text.len(), 0));
            (&text[..end], &text[end + gap..])
        }
        false => (output.stderr.as_str(), output.stdout.as_str()),
    };
    let mut lines = head
        .lines()
        .map(str::trim)
        .skip_while(|line| !line.starts_with("HTTP/"));
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.take_while(|line| !line.starts_with("HTTP/"));
    let headers = headers.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()));
    Some(Reply {
        status,
        headers: headers.collect(),
        body: body.to_owned(),
    })
}

/// What is not as expected.
fn judge(reply: &Reply, expect: &Expect) -> Result<(), String> {
    if !expect.status.contains(&reply.status) {
        let wanted: Vec<String> = expect.status.iter().map(u16::to_string).collect();
        return Err(format!(", expected {}", wanted.join(" or ")));
    }
    for (name, wanted) in &expect.header {
        let found = reply
            .headers
            .iter()
            .find(|(known, _)| *known == name.to_lowercase());
        if found.is_none_or(|(_, value)| value != wanted) {
            let found = found.map_or("not there".to_owned(), |(_, value)| format!("`{value}`"));
            return Err(format!(", header `{name}` is {found}, expected `{wanted}`"));
        }
    }
    if expect.json.is_empty() {
        return Ok(());
    }
    let body: Value =
        serde_json::from_str(&reply.body).map_err(|_| ", expected JSON, and the body is none".to_owned())?;
    for (field, wanted) in &expect.json {
        let found = look_up(&body, field);
        if found != Some(wanted) {
            let found = found.map_or("not there".to_owned(), Value::to_string);
            return Err(format!(", `{field}` is {found}, expected {wanted}"));
        }
    }
    Ok(())
}

/// A dotted name, or a JSON pointer.
fn look_up<'a>(body: &'a Value, field: &str) -> Option<&'a Value> {
    let pointer = match field.starts_with('/') {
        true => field.to_owned(),
        false => format!("/{}", field.replace('.', "/")),
    };
    body.pointer(&pointer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn output(stdout: &str, stderr: &str) -> Output {
        Output {
            exit: 0,
            stdout: stdout.into(),
            stderr: stderr.into(),
        }
    }

    #[test]
    fn both_programs_are_understood() {
        let expected = |body: &str| {
            let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
            Some(Reply {
                status: 503,
                headers,
                body: body.into(),
            })
        };
        let curl = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\r\n{\"a\": 1}";
        assert_eq!(read(&output(curl, "")), expected("{\"a\": 1}"));
        let wget = "  HTTP/1.1 503 Service Unavailable\n  Content-Type: application/json\n  \nwget: server returned error: HTTP/1.1 503\n";
        let found = read(&output("", wget)).expect("a reply");
        assert_eq!(
            (found.status, found.headers[0].1.as_str()),
            (503, "application/json")
        );
        let redirect = "  HTTP/1.1 302 Found\n  Location: /x\n  HTTP/1.1 200 OK\n";
        assert_eq!(read(&output("", redirect)).map(|reply| reply.status), Some(302));
        assert_eq!(
            read(&output(
                "",
                "wget: can't connect to remote host: Connection refused"
            )),
            None
        );
    }

    #[test]
    fn replies_are_judged() {
        let reply = Reply {
            status: 200,
            headers: vec![("x-version".into(), "2".into())],
            body: r#"{"status":"healthy","parts":[{"name":"db"}]}"#.into(),
        };
        let check = |expect: Value, wrong: Option<&str>| {
            let expect: Expect = serde_json::from_value(expect).unwrap();
            match (judge(&reply, &expect), wrong) {
                (Ok(()), None) => {}
                (Err(words), Some(wrong)) => assert!(words.contains(wrong), "{words}"),
                (found, wrong) => panic!("{found:?} is not {wrong:?}"),
            }
        };
        check(json!({}), None);
        check(
            json!({ "status": [200, 401], "json": { "status": "healthy", "parts.0.name": "db" } }),
            None,
        );
        check(json!({ "status": [204] }), Some("expected 204"));
        check(json!({ "json": { "status": "ill" } }), Some("expected \"ill\""));
        check(json!({ "json": { "/no": 1 } }), Some("not there"));
        check(json!({ "header": { "X-Version": "2" } }), None);
        check(json!({ "header": { "X-Version": "3" } }), Some("`2`"));
    }
}
