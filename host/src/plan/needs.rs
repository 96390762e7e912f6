//! needs = request rows × `with:`: what a stage must be granted, computed without running anything.

use crate::{
    capability::Capability,
    catalog::request::{Origin, Part, Pointer, RequestRow, Segment},
    pattern::{Mode, Pattern},
    value::Value,
};

/// One thing a stage needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    pub capability: Capability,
    /// `None`: known only while running (a secret, an output of an earlier stage); then any grant of the capability will do
    /// for the plan, and the call is checked.
    pub pattern: Option<Pattern>,
    /// Where in `with:` it comes from; empty for a constant.
    pub pointer: Vec<String>,
    /// The author's sentence.
    pub reason: String,
}

/// A value of `with:` that cannot be what a row takes it for.
#[derive(Clone, Debug, PartialEq)]
pub struct Unfit {
    pub pointer: Vec<String>,
    pub message: String,
}

/// All needs of a stage, in the order of the rows, each once.
pub fn of(rows: &[RequestRow], with: &Value) -> (Vec<Need>, Vec<Unfit>) {
    let (mut needs, mut unfit): (Vec<Need>, Vec<Unfit>) = (Vec::new(), Vec::new());
    for row in rows {
        for (pointer, found) in places(row, with) {
            for part in parts(row, &pointer, found) {
                match need(row, part) {
                    Ok(pattern) => {
                        let known =
                            |need: &Need| need.capability == row.capability && need.pattern == pattern;
                        if !needs.iter().any(known) {
                            let reason = row.reason.clone();
                            needs.push(Need {
                                capability: row.capability,
                                pattern,
                                pointer: pointer.clone(),
                                reason,
                            });
                        }
                    }
                    Err(message) => unfit.push(Unfit {
                        pointer: pointer.clone(),
                        message,
                    }),
                }
            }
        }
    }
    (needs, unfit)
}

/// Secrets in `with:` at places for which the plugin requests neither `secrets.use` nor `secrets.reveal`.
pub fn unrequested_secrets(rows: &[RequestRow], with: &Value) -> Vec<(Vec<String>, String)> {
    let secret_rows = || {
        rows.iter()
            .filter(|row| matches!(row.capability, Capability::SecretsUse | Capability::SecretsReveal))
    };
    let mut unrequested = Vec::new();
    with.for_each_secret(&mut Vec::new(), &mut |pointer, text| {
        let covered = secret_rows().any(|row| match &row.from {
            Origin::Pointer(from) => leads_to(&from.0, pointer),
            Origin::Constant(_) => false,
        });
        if !covered {
            text.for_each(&mut |name, _| unrequested.push((pointer.to_vec(), name.to_string())));
        }
    });
    unrequested
}

/// What a row's part gives for one value.
enum Found {
    Text(String),
    Argv(Vec<String>),
    Later,
}

fn places<'a>(row: &RequestRow, with: &'a Value) -> Vec<(Vec<String>, &'a Value)> {
    let Origin::Pointer(from) = &row.from else {
        let holds = conditions_hold(row, with, &[]);
        return if holds {
            vec![(Vec::new(), with)]
        } else {
            Vec::new()
        };
    };
    let mut found = Vec::new();
    walk(
        with,
        &from.0,
        &mut Vec::new(),
        &mut Vec::new(),
        &mut |pointer, bound, value| {
            if conditions_hold(row, with, bound) {
                found.push((pointer.to_vec(), value));
            }
        },
    );
    found
}

/// Visits every value that the segments lead to, with its pointer and the keys bound to each `*`.
fn walk<'a>(
    value: &'a Value,
    segments: &[Segment],
    pointer: &mut Vec<String>,
    bound: &mut Vec<String>,
    visit: &mut impl FnMut(&[String], &[String], &'a Value),
) {
    let Some((segment, rest)) = segments.split_first() else {
        visit(pointer, bound, value);
        return;
    };
    let mut step = |key: String, child: &'a Value, is_bound: bool| {
        pointer.push(key.clone());
        if is_bound {
            bound.push(key);
        }
        walk(child, rest, pointer, bound, visit);
        if is_bound {
            bound.pop();
        }
        pointer.pop();
    };
    match (segment, value) {
        (Segment::Key(key), Value::Map(entries)) => {
            if let Some(child) = entries.get(key) {
                step(key.clone(), child, false);
            }
        }
        (Segment::Key(key), Value::List(items)) => {
            if let Some(child) = key.parse::<usize>().ok().and_then(|index| items.get(index)) {
                step(key.clone(), child, false);
            }
        }
        (Segment::Every, Value::Map(entries)) => {
            entries
                .iter()
                .for_each(|(key, child)| step(key.clone(), child, true));
        }
        (Segment::Every, Value::List(items)) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, child)| step(index.to_string(), child, true));
        }
        _ => {}
    }
}

fn conditions_hold(row: &RequestRow, with: &Value, bound: &[String]) -> bool {
    row.when.iter().all(|pointer| is_set(with, pointer, bound))
        && !row.unless.iter().any(|pointer| is_set(with, pointer, bound))
}

/// Present, not null and not false. An unknown value counts as set: the need is then asked for rather than forgotten.
fn is_set(with: &Value, pointer: &Pointer, bound: &[String]) -> bool {
    let mut keys = bound.iter();
    let segments: Vec<Segment> = pointer
        .0
        .iter()
        .map(|segment| match segment {
            Segment::Every => keys
                .next()
                .map_or(Segment::Every, |key| Segment::Key(key.clone())),
            Segment::Key(key) => Segment::Key(key.clone()),
        })
        .collect();
    let mut set = false;
    walk(
        with,
        &segments,
        &mut Vec::new(),
        &mut Vec::new(),
        &mut |_, _, value| {
            set |= !matches!(value, Value::Null | Value::Bool(false));
        },
    );
    set
}

fn leads_to(from: &[Segment], pointer: &[String]) -> bool {
    from.len() == pointer.len()
        && from.iter().zip(pointer).all(|(segment, key)| match segment {
            Segment::Every => true,
            Segment::Key(known) => known == key,
        })
}

fn parts(row: &RequestRow, pointer: &[String], value: &Value) -> Vec<Found> {
    if let Origin::Constant(text) = &row.from {
        return vec![Found::Text(text.clone())];
    }
    if row.part == Part::Key {
        return pointer
            .last()
            .map(|key| Found::Text(key.clone()))
            .into_iter()
            .collect();
    }
    if row.part == Part::Planned {
        return Vec::new();
    }
    if row.part == Part::Later {
        let is_there = !matches!(value, Value::Null | Value::Bool(false));
        return is_there.then_some(Found::Later).into_iter().collect();
    }
    match value {
        Value::Secret(text)
            if matches!(row.capability, Capability::SecretsUse | Capability::SecretsReveal) =>
        {
            let mut names = Vec::new();
            text.for_each(&mut |name, _| names.push(Found::Text(name.to_string())));
            names
        }
        // A plain text where a secret may stand needs no secret.
        _ if matches!(row.capability, Capability::SecretsUse | Capability::SecretsReveal) => Vec::new(),
        Value::Secret(_) | Value::Unknown => later(row).into_iter().collect(),
        Value::String(text) => part_of(row.part, text).into_iter().collect(),
        Value::List(items) if row.capability == Capability::Process => vec![argv(items)],
        _ => Vec::new(),
    }
}

/// Whether a database is a file cannot be seen in a secret, nor whether a place is in a bucket; what it needs beside is then
/// checked at the call.
fn later(row: &RequestRow) -> Option<Found> {
    (!matches!(row.part, Part::SqliteDirectory | Part::Object)).then_some(Found::Later)
}

fn argv(items: &[Value]) -> Found {
    let words = items.iter().map(|item| match item {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        _ => None,
    });
    match words.collect::<Option<Vec<_>>>() {
        Some(words) => Found::Argv(words),
        None => Found::Later,
    }
}

fn part_of(part: Part, text: &str) -> Option<Found> {
    let without_query = text.split(['?', '#']).next().unwrap_or(text);
    let (scheme, rest) = without_query.split_once("://").unwrap_or(("", without_query));
    let text = match part {
        Part::Value | Part::Key | Part::Program | Part::HostPort | Part::Later | Part::Planned => {
            text.to_string()
        }
        Part::Origin => {
            let authority = rest.split('/').next().unwrap_or(rest);
            format!("{scheme}://{}", without_user(authority))
        }
        Part::Database if scheme == "sqlite" => format!("sqlite://{rest}"),
        Part::Database => {
            let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
            format!("{scheme}://{}/{database}", without_user(authority))
        }
        Part::Path if is_object(text) => return None,
        Part::Path => guest_path(text),
        Part::Object if !is_object(text) => return None,
        Part::Object => text.trim_end_matches('/').to_string(),
        Part::SqliteDirectory if scheme != "sqlite" => return None,
        Part::SqliteDirectory => rest
            .rsplit_once('/')
            .map(|(directory, _)| directory.to_string())?,
    };
    Some(Found::Text(text))
}

fn is_object(text: &str) -> bool {
    text.starts_with("s3://")
}

fn without_user(authority: &str) -> &str {
    authority.rsplit('@').next().unwrap_or(authority)
}

/// `dist`, `./dist` and `/workspace/dist` are one place.
fn guest_path(text: &str) -> String {
    let plain = |path: &str| {
        let parts: Vec<&str> = path
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        parts.join("/")
    };
    match text.strip_prefix('/') {
        Some(absolute) => format!("/{}", plain(absolute)),
        None => format!("/workspace/{}", plain(text))
            .trim_end_matches('/')
            .to_string(),
    }
}

/// `Ok(None)`: known only while running.
fn need(row: &RequestRow, part: Found) -> Result<Option<Pattern>, String> {
    let text = match part {
        Found::Text(text) => text,
        Found::Argv(words) => return Ok(Some(Pattern::call(&words))),
        Found::Later => return Ok(None),
    };
    let text = row
        .format
        .as_ref()
        .map_or(text.clone(), |format| format.replace("{}", &text));
    let parsed = match row.mode {
        Some(Mode::ReadOnly) => Pattern::files("ro", &text),
        Some(Mode::ReadWrite) => Pattern::files("rw", &text),
        None => Pattern::parse(row.capability, &text),
    };
    parsed.map(Some).map_err(|error| error.to_string())
}

impl Need {
    /// Whether it is met without a grant: the attempt's private `/tmp`, and databases in it.
    pub fn is_free(&self) -> bool {
        let in_scratch = |path: &str| path == "/tmp" || path.starts_with("/tmp/");
        match &self.pattern {
            Some(Pattern::Files { path, .. }) => in_scratch(path),
            Some(Pattern::Sql {
                host: None, database, ..
            }) => in_scratch(database),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{name::SecretName, value::SecretText};
    use serde_json::json;

    fn pointer(text: &str) -> Pointer {
        let segment = |text: &str| {
            if text == "*" {
                Segment::Every
            } else {
                Segment::Key(text.into())
            }
        };
        Pointer(text.split('/').skip(1).map(segment).collect())
    }

    fn row(capability: Capability, from: &str, part: Part) -> RequestRow {
        RequestRow {
            capability,
            mode: (capability == Capability::Files).then_some(Mode::ReadWrite),
            from: Origin::Pointer(pointer(from)),
            part,
            format: None,
            when: Vec::new(),
            unless: Vec::new(),
            idempotent: false,
            reason: "because".into(),
        }
    }

    #[track_caller]
    fn check(row: RequestRow, with: impl Into<Value>, expected: &[&str]) {
        let (needs, unfit) = of(&[row], &with.into());
        let shown = |need: &Need| {
            need.pattern
                .as_ref()
                .map_or("later".to_string(), ToString::to_string)
        };
        let free = needs.iter().filter(|need| !need.is_free());
        let mut all: Vec<String> = free.map(shown).collect();
        all.extend(
            unfit
                .iter()
                .map(|one| format!("unfit at /{}", one.pointer.join("/"))),
        );
        assert_eq!(all, expected);
    }

    #[test]
    fn parts_of_values() {
        use Capability::*;
        let address = json!({ "address": "https://user@vault:8200/v1?x" });
        check(
            row(Http, "/address", Part::Origin),
            address,
            &["https://vault:8200"],
        );
        check(row(Http, "/address", Part::Origin), json!({}), &[]);
        check(
            row(Http, "/address", Part::Origin),
            json!({ "address": "nonsense" }),
            &["unfit at /address"],
        );
        let two = json!({ "checks": { "a": { "tcp": "x:1" }, "b": { "http": "y" }, "c": { "tcp": "z:2" } } });
        check(row(Tcp, "/checks/*/tcp", Part::HostPort), two, &["x:1", "z:2"]);
        let url = json!({ "url": "postgres://me:secret@db/app?sslmode=require" });
        check(
            row(Sql, "/url", Part::Database),
            url.clone(),
            &["postgresql://db/app"],
        );
        check(row(Files, "/url", Part::SqliteDirectory), url, &[]);
        let file = json!({ "url": "sqlite:///mnt/data/app.db" });
        check(
            row(Sql, "/url", Part::Database),
            file.clone(),
            &["sqlite:///mnt/data/app.db"],
        );
        check(row(Files, "/url", Part::SqliteDirectory), file, &["rw /mnt/data"]);
        check(
            row(Sql, "/url", Part::Database),
            json!({ "url": "sqlite:///tmp/x.db" }),
            &[],
        );
        check(
            row(Files, "/dir", Part::Path),
            json!({ "dir": "./a//b/" }),
            &["rw /workspace/a/b"],
        );
        let to = json!({ "to": ["s3://backups/team/", "./backups"] });
        check(
            row(Objects, "/to/*", Part::Object),
            to.clone(),
            &["s3://backups/team"],
        );
        check(row(Files, "/to/*", Part::Path), to, &["rw /workspace/backups"]);
        check(
            row(Process, "/argv", Part::Program),
            json!({ "argv": ["git", "log", "*"] }),
            &["git log \u{fffd}"],
        );
        let images = RequestRow {
            format: Some("image-{}.tar".into()),
            ..row(ArtifactsWrite, "/images/*", Part::Key)
        };
        let files = row(ContainersRun, "/compose", Part::Later);
        check(
            files.clone(),
            json!({ "compose": ["a.yaml", "b.yaml"] }),
            &["later"],
        );
        check(files, json!({}), &[]);
        let files = row(ContainersExec, "/compose", Part::Planned);
        check(files, json!({ "compose": ["a.yaml"] }), &[]);
        check(
            images,
            json!({ "images": { "a": {}, "b": {} } }),
            &["image-a.tar", "image-b.tar"],
        );
    }

    #[test]
    fn conditions() {
        let http = |when: &[&str], unless: &[&str]| RequestRow {
            when: when.iter().map(|text| pointer(text)).collect(),
            unless: unless.iter().map(|text| pointer(text)).collect(),
            ..row(Capability::Http, "/a", Part::Value)
        };
        let on = json!({ "a": "http://x", "on": true });
        check(http(&["/on"], &[]), on.clone(), &["http://x"]);
        check(http(&[], &["/on"]), on, &[]);
        check(http(&["/on"], &[]), json!({ "a": "http://x", "on": false }), &[]);
        check(http(&["/on"], &[]), json!({ "a": "http://x" }), &[]);
        let cells = row(Capability::Tcp, "/list/*/at", Part::Value);
        let cells = RequestRow {
            when: vec![pointer("/list/*/on")],
            ..cells
        };
        check(
            cells,
            json!({ "list": [{ "at": "a:1", "on": true }, { "at": "b:2" }] }),
            &["a:1"],
        );
    }

    #[test]
    fn secrets_need_their_names() {
        let secret = |name: &str| {
            let name = SecretName::new(name).expect("valid");
            Value::Secret(SecretText::Secret { name, field: None })
        };
        let with = Value::Map(
            [
                ("url".to_string(), secret("db")),
                ("other".to_string(), secret("x")),
            ]
            .into(),
        );
        check(
            row(Capability::SecretsUse, "/url", Part::Value),
            with.clone(),
            &["db"],
        );
        check(
            row(Capability::Sql, "/url", Part::Database),
            with.clone(),
            &["later"],
        );
        let rows = [row(Capability::SecretsReveal, "/url", Part::Value)];
        assert_eq!(
            unrequested_secrets(&rows, &with),
            [(vec!["other".to_string()], "x".to_string())]
        );
    }
}
