//! The request rows of a plugin's metadata: what it may need, for what, under which condition, and why. Parsed strictly; what
//! a row asks for is computed elsewhere, from the row and a `with:` block.

use crate::{
    capability::{Capability, TABLE},
    diagnostic::did_you_mean,
    pattern::Mode,
};
use serde_json::{Map, Value as Json};

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRow {
    pub capability: Capability,
    /// `files` only.
    pub mode: Option<Mode>,
    pub from: Origin,
    pub part: Part,
    /// `{}` stands for the part.
    pub format: Option<String>,
    /// Pointers that must be present, not null and not false.
    pub when: Vec<Pointer>,
    /// Pointers that must not.
    pub unless: Vec<Pointer>,
    /// `http` only: sending a request twice does no harm (a login), so that none is an effect, whatever its method.
    pub idempotent: bool,
    /// One sentence for the auditor.
    pub reason: String,
}

/// Where the value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Pointer(Pointer),
    Constant(String),
}

/// A JSON pointer into `with:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(pub Vec<Segment>);

/// One step of a pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    Key(String),
    /// `*`: every element of a list, every key of an object.
    Every,
}

/// What of the value is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Value,
    /// The map key of the element pointed at.
    Key,
    /// `scheme://host[:port]` of a URL.
    Origin,
    HostPort,
    /// A SQL URL without user, password and query.
    Database,
    Path,
    /// The first element of an argv list.
    Program,
    /// The directory a `sqlite:` URL's file lies in; nothing for other URLs.
    SqliteDirectory,
    /// The `s3:` URL of a bucket or a prefix; nothing for other texts.
    Object,
    /// Something that only the plugin can tell from it, while planning or running: a need of the capability for a value not known yet.
    Later,
    /// As `Later`, for what may not be needed at all: granted, it is there; what is needed and not granted the planner tells.
    Planned,
}

const PARTS: [(&str, Part); 11] = [
    ("value", Part::Value),
    ("key", Part::Key),
    ("origin", Part::Origin),
    ("host-port", Part::HostPort),
    ("database", Part::Database),
    ("path", Part::Path),
    ("program", Part::Program),
    ("sqlite-directory", Part::SqliteDirectory),
    ("object", Part::Object),
    ("later", Part::Later),
    ("planned", Part::Planned),
];

const KEYS: [&str; 10] = [
    "capability",
    "mode",
    "from",
    "value",
    "part",
    "format",
    "when",
    "unless",
    "idempotent",
    "reason",
];

impl Part {
    /// As in the metadata.
    pub fn name(self) -> &'static str {
        PARTS
            .iter()
            .find(|(_, part)| *part == self)
            .map_or("value", |(name, _)| name)
    }
}

/// The row, or every problem it has.
pub(super) fn parse(row: &Json) -> Result<RequestRow, Vec<String>> {
    let Json::Object(row) = row else {
        return Err(vec!["it has to be an object".into()]);
    };
    let mut problems = Problems::default();
    for key in row.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        problems.0.push(unknown("key", key, KEYS));
    }
    let capability = problems.keep(capability(row));
    let mode = problems.keep(mode(row));
    let from = problems.keep(origin(row));
    let part = problems.keep(part(row));
    let format = problems.keep(format(row));
    let when = problems.keep(pointers(row, "when"));
    let unless = problems.keep(pointers(row, "unless"));
    let idempotent = problems.keep(idempotent(row));
    let reason = problems.keep(reason(row));
    let complete = || {
        Some(RequestRow {
            capability: capability?,
            mode: mode?,
            from: from?,
            part: part?,
            format: format?,
            when: when?,
            unless: unless?,
            idempotent: idempotent?,
            reason: reason?,
        })
    };
    match complete() {
        Some(row) if problems.0.is_empty() => Ok(row),
        _ => Err(problems.0),
    }
}

#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn keep<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.0.push(problem)).ok()
    }
}

fn unknown<'a>(what: &str, word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let word: String = word.chars().take(80).collect();
    match did_you_mean(&word, known.clone()) {
        Some(near) => format!("unknown {what} `{word}`: did you mean `{near}`?"),
        None => {
            let known: Vec<&str> = known.into_iter().collect();
            format!("unknown {what} `{word}`: it is one of {}", known.join(", "))
        }
    }
}

/// A text of the row, where it is there.
fn text<'a>(row: &'a Map<String, Json>, key: &str) -> Result<Option<&'a str>, String> {
    match row.get(key) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("`{key}` has to be a text")),
    }
}

fn capability(row: &Map<String, Json>) -> Result<Capability, String> {
    let name = text(row, "capability")?.ok_or("`capability` is missing")?;
    Capability::from_name(name).ok_or_else(|| {
        let known: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
        unknown("capability", name, known)
    })
}

fn mode(row: &Map<String, Json>) -> Result<Option<Mode>, String> {
    let is_files = row.get("capability").is_some_and(|name| name == "files");
    match (text(row, "mode")?, is_files) {
        (Some("ro"), true) => Ok(Some(Mode::ReadOnly)),
        (Some("rw"), true) => Ok(Some(Mode::ReadWrite)),
        (_, true) => Err("`mode` of a `files` request has to be `ro` or `rw`".into()),
        (Some(_), false) => Err("`mode` belongs to `files` only".into()),
        (None, false) => Ok(None),
    }
}

fn origin(row: &Map<String, Json>) -> Result<Origin, String> {
    match (text(row, "from")?, text(row, "value")?) {
        (Some(from), None) => Pointer::parse(from).map(Origin::Pointer),
        (None, Some(value)) => Ok(Origin::Constant(value.into())),
        _ => Err("exactly one of `from` and `value` is needed".into()),
    }
}

fn part(row: &Map<String, Json>) -> Result<Part, String> {
    let Some(name) = text(row, "part")? else {
        return Ok(Part::Value);
    };
    let found = PARTS.iter().find(|(known, _)| *known == name);
    found
        .map(|(_, part)| *part)
        .ok_or_else(|| unknown("part", name, PARTS.map(|(known, _)| known)))
}

fn format(row: &Map<String, Json>) -> Result<Option<String>, String> {
    match text(row, "format")? {
        Some(format) if format.matches("{}").count() != 1 => {
            Err("`format` has to hold `{}` exactly once".into())
        }
        format => Ok(format.map(String::from)),
    }
}

fn pointers(row: &Map<String, Json>, key: &str) -> Result<Vec<Pointer>, String> {
    let wrong = || format!("`{key}` has to be a JSON pointer or a list of them");
    match row.get(key) {
        None => Ok(Vec::new()),
        Some(Json::String(pointer)) => Ok(vec![Pointer::parse(pointer)?]),
        Some(Json::Array(items)) => {
            let one = |item: &Json| Pointer::parse(item.as_str().ok_or_else(wrong)?);
            items.iter().map(one).collect()
        }
        Some(_) => Err(wrong()),
    }
}

fn idempotent(row: &Map<String, Json>) -> Result<bool, String> {
    let is_http = row.get("capability").is_some_and(|name| name == "http");
    match row.get("idempotent") {
        None => Ok(false),
        Some(Json::Bool(idempotent)) if is_http => Ok(*idempotent),
        Some(Json::Bool(_)) => Err("`idempotent` belongs to `http` only".into()),
        Some(_) => Err("`idempotent` has to be true or false".into()),
    }
}

fn reason(row: &Map<String, Json>) -> Result<String, String> {
    /// An auditor reads it in a table.
    const LONGEST: usize = 300;
    match text(row, "reason")?.map(str::trim) {
        Some(reason) if !reason.is_empty() && reason.len() <= LONGEST => Ok(reason.into()),
        _ => Err(format!(
            "`reason` has to be one sentence of at most {LONGEST} bytes"
        )),
    }
}

impl Pointer {
    /// # Errors
    /// It does not start with `/`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            let shown: String = text.chars().take(80).collect();
            return Err(format!(
                "`{shown}` is no JSON pointer into `with:`, such as `/checks/*/http`"
            ));
        };
        let segment = |part: &str| match part {
            "*" => Segment::Every,
            key => Segment::Key(key.replace("~1", "/").replace("~0", "~")),
        };
        Ok(Self(rest.split('/').map(segment).collect()))
    }
}

/// As in the metadata.
impl std::fmt::Display for Pointer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for segment in &self.0 {
            match segment {
                Segment::Every => formatter.write_str("/*")?,
                Segment::Key(key) => write!(formatter, "/{}", key.replace('~', "~0").replace('/', "~1"))?,
            }
        }
        Ok(())
    }
}

/// What a listing shows in the scope column: `/checks/*/http (origin)`, or the constant.
impl std::fmt::Display for RequestRow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.mode {
            Some(Mode::ReadOnly) => formatter.write_str("ro ")?,
            Some(Mode::ReadWrite) => formatter.write_str("rw ")?,
            None => {}
        }
        match &self.from {
            Origin::Constant(value) => formatter.write_str(value)?,
            Origin::Pointer(pointer) => write!(formatter, "with:{pointer}")?,
        }
        if self.part != Part::Value {
            write!(formatter, " ({})", self.part.name())?;
        }
        if let Some(format) = &self.format {
            write!(formatter, " as {format}")?;
        }
        if self.idempotent {
            formatter.write_str(", idempotent")?;
        }
        for (word, pointers) in [("when", &self.when), ("unless", &self.unless)] {
            for pointer in pointers {
                write!(formatter, ", {word} with:{pointer}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows() {
        let check = |row: Json, expected: Result<&str, &[&str]>| match (parse(&row), expected) {
            (Ok(row), Ok(shown)) => assert_eq!(row.to_string(), shown),
            (Err(problems), Err(parts)) => {
                assert_eq!(problems.len(), parts.len(), "{problems:?}");
                for (problem, part) in problems.iter().zip(parts) {
                    assert!(problem.contains(part), "{problem}");
                }
            }
            (found, _) => panic!("{row}: {found:?}"),
        };
        check(
            json!({ "capability": "http", "from": "/checks/*/http", "part": "origin", "reason": "r" }),
            Ok("with:/checks/*/http (origin)"),
        );
        check(
            json!({ "capability": "http", "from": "/address", "idempotent": true, "reason": "r" }),
            Ok("with:/address, idempotent"),
        );
        check(
            json!({ "capability": "env", "from": "/a", "idempotent": true, "reason": "r" }),
            Err(&["belongs to `http` only"]),
        );
        check(
            json!({ "capability": "files", "mode": "ro", "value": "/workspace", "reason": "r" }),
            Ok("ro /workspace"),
        );
        check(
            json!({ "capability": "artifacts.write", "from": "/images/*", "part": "key", "format": "image-{}.tar",
                    "when": ["/a", "/b"], "unless": "/c~1d", "reason": "r" }),
            Ok("with:/images/* (key) as image-{}.tar, when with:/a, when with:/b, unless with:/c~1d"),
        );
        check(json!([]), Err(&["an object"]));
        check(
            json!({}),
            Err(&["`capability` is missing", "exactly one", "`reason`"]),
        );
        check(
            json!({ "capability": "htp", "from": "x", "part": "orign", "format": "a", "reason": 1, "wen": "" }),
            Err(&[
                "`when`?",
                "`http`?",
                "no JSON pointer",
                "`origin`?",
                "`{}`",
                "a text",
            ]),
        );
        check(
            json!({ "capability": "files", "value": "/w", "reason": "r" }),
            Err(&["`ro` or `rw`"]),
        );
        check(
            json!({ "capability": "env", "mode": "ro", "value": "A", "reason": "r", "when": 3 }),
            Err(&["`files` only", "a list of them"]),
        );
    }
}
