//! From text to a located [`Node`] tree. Knows YAML (its core schema, anchors, `<<`), and of what is
//! written in it no more than a [`Dialect`] says.
//!
//! Bounded in depth, in size and in what anchors expand to, because anybody's file may be validated.

use super::{
    node::{Entry, Kind, Mark, Node},
    problems::{Problems, quoted},
};
use crate::source::{SourceFile, Span};
use serde_saphyr::granit_parser::{
    ErrorKind, Event, Parser, ScalarStyle, Span as YamlSpan, StructureStyle, Tag, options,
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// 100,000 stages of half a kilobyte each are 50 MB.
pub(crate) const MAXIMUM_BYTES: usize = 128 << 20;
/// Deeper than any configuration that a person wrote, and little enough for the stack of a thread.
const MAXIMUM_DEPTH: usize = 64;
/// How many values all aliases of a file may add: a few anchors that refer to each other can stand for billions.
const MAXIMUM_EXPANSION: usize = 100_000;

/// What differs between the kinds of files that are written in YAML.
#[derive(Debug)]
pub(crate) struct Dialect {
    /// What a file of this kind is called, with its article.
    pub(crate) file: &'static str,
    /// The code of problems with the text itself ...
    pub(crate) code: &'static str,
    /// ... and of a key that stands twice.
    pub(crate) duplicate: &'static str,
    /// The tags that have a meaning, and what they do to a value.
    pub(crate) tags: &'static [(&'static str, Mark)],
}

/// Pipeline files and those that go with them.
pub(crate) static PIPELINE: Dialect = Dialect {
    file: "a pipeline file",
    code: "pipeline.yaml",
    duplicate: "pipeline.duplicate-key",
    tags: &[],
};

/// The document in `file`; `None`, with the problem pushed, where it is not YAML at all. An empty file is an empty map.
pub(crate) fn parse(
    file: &Arc<SourceFile>,
    dialect: &'static Dialect,
    problems: &mut Problems,
) -> Option<Node> {
    if file.text.len() > MAXIMUM_BYTES {
        let message = format!("the file is larger than {} MB", MAXIMUM_BYTES >> 20);
        problems.error(dialect.code, &Span::new(file, 0..0), message);
        return None;
    }
    let mut reader = Reader {
        file,
        dialect,
        problems,
        open: Vec::new(),
        anchors: HashMap::new(),
        expanded: 0,
        root: None,
        documents: 0,
    };
    let options = options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        disallow_directives: true,
        flow_nesting_limit: MAXIMUM_DEPTH,
        block_nesting_limit: MAXIMUM_DEPTH,
    };
    for event in Parser::new_from_str_with_options(&file.text, options) {
        match event {
            Ok((event, span)) => reader.event(event, &span)?,
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(file.text.len());
                let span = Span::new(file, at..at + 1);
                let message = format!("this is not valid YAML: {}", explain(error.kind()));
                reader.problems.error(dialect.code, &span, message);
                return None;
            }
        }
    }
    let root = reader.root;
    Some(root.unwrap_or_else(|| Node::new(Kind::Map(Vec::new()), Span::new(file, 0..0))))
}

/// The library's reasons in words that need no knowledge of parsers.
fn explain(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::RecursionLimitExceeded => format!("it is nested deeper than {MAXIMUM_DEPTH} levels"),
        ErrorKind::MissingIncludeResolver
        | ErrorKind::InputOffsetsWithoutSlice
        | ErrorKind::InputSlicingUnavailable => "the text cannot be read".to_string(),
        other => other.to_string(),
    }
}

struct Reader<'a> {
    file: &'a Arc<SourceFile>,
    dialect: &'static Dialect,
    problems: &'a mut Problems,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    expanded: usize,
    root: Option<Node>,
    documents: usize,
}

/// A list or map whose end has not come yet.
struct Open {
    start: usize,
    flow: bool,
    anchor: usize,
    mark: Mark,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        key: Option<(Box<str>, Span)>,
        /// What `<<` brings: it never replaces a key that stands in the map.
        merged: Vec<Entry>,
    },
}

struct Anchored {
    node: Node,
    size: usize,
    depth: usize,
}

impl Reader<'_> {
    /// `None` once going on makes no sense.
    fn event(&mut self, event: Event<'_>, at: &YamlSpan) -> Option<()> {
        let span = self.span(at);
        match event {
            Event::DocumentStart(..) => self.document(&span),
            Event::Scalar(text, style, anchor, tag) => {
                let mark = self.mark(tag.as_deref(), &span);
                let kind = self.scalar(text.into_owned(), style, tag.as_deref(), &span);
                self.value(Node { kind, span, mark }, anchor)
            }
            Event::SequenceStart(style, anchor, tag) => {
                let mark = self.mark(tag.as_deref(), &span);
                self.begin(style, anchor, &span, mark, Content::List(Vec::new()))
            }
            Event::MappingStart(style, anchor, tag) => {
                let mark = self.mark(tag.as_deref(), &span);
                let (entries, key, merged) = (Vec::new(), None, Vec::new());
                let content = Content::Map { entries, key, merged };
                self.begin(style, anchor, &span, mark, content)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(&span),
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::UnresolvedAlias(name) => {
                let message = format!("there is no anchor `&{name}` before this place");
                self.problems.error(self.dialect.code, &span, message);
                self.value(Node::new(Kind::Null, span), 0)
            }
            _ => Some(()),
        }
    }

    fn span(&self, at: &YamlSpan) -> Span {
        let offset = |offset: Option<usize>| offset.unwrap_or(self.file.text.len());
        let (start, end) = (offset(at.start.byte_offset()), offset(at.end.byte_offset()));
        Span::new(self.file, start..end.max(start))
    }

    fn document(&mut self, span: &Span) -> Option<()> {
        self.documents += 1;
        if self.documents == 1 {
            return Some(());
        }
        let message = format!("a second document starts here; {} has one", self.dialect.file);
        self.problems.error(self.dialect.code, span, message);
        None
    }

    /// What a tag does to its value; a tag that means nothing is refused.
    fn mark(&mut self, tag: Option<&Tag>, span: &Span) -> Mark {
        let Some(tag) = tag else { return Mark::None };
        if let Some((_, mark)) = self.dialect.tags.iter().find(|(name, _)| is_local(tag, name)) {
            return *mark;
        }
        // `!!merge <<` is how some tools write `<<`.
        let known = ["map", "seq", "str", "merge"];
        let own = tag.suffix_in_namespace("tag:yaml.org,2002:");
        if !own.is_some_and(|own| known.contains(&&*own)) {
            self.problems.error_with_help(
                self.dialect.code,
                span,
                "YAML tags have no meaning here",
                "remove the word that starts with `!`",
            );
        }
        Mark::None
    }

    fn scalar(&mut self, mut text: String, style: ScalarStyle, tag: Option<&Tag>, span: &Span) -> Kind {
        if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) && self.ends_without_line_break(span) {
            // The library adds one.
            text.truncate(text.trim_end_matches('\n').len());
        }
        if tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str")) || style != ScalarStyle::Plain {
            return Kind::Text(text);
        }
        plain(text).unwrap_or_else(|text| {
            let message = format!("{} is a number that JSON does not have", quoted(&text));
            self.problems
                .error_with_help(self.dialect.code, span, message, "put it in quotes if it is text");
            Kind::Null
        })
    }

    /// Whether the last line of a block is the last of the file, and nothing ends it.
    fn ends_without_line_break(&self, span: &Span) -> bool {
        let last = self.file.text.rsplit('\n').next().unwrap_or_default();
        span.range().end >= self.file.text.len() && !last.trim().is_empty()
    }

    fn begin(
        &mut self,
        style: StructureStyle,
        anchor: usize,
        span: &Span,
        mark: Mark,
        content: Content,
    ) -> Option<()> {
        if self.open.len() >= MAXIMUM_DEPTH {
            let message = format!("this is nested deeper than {MAXIMUM_DEPTH} levels");
            self.problems.error(self.dialect.code, span, message);
            return None;
        }
        self.open.push(Open {
            start: span.range().start,
            flow: style == StructureStyle::Flow,
            anchor,
            mark,
            content,
        });
        Some(())
    }

    fn end(&mut self, span: &Span) -> Option<()> {
        let open = self.open.pop()?;
        // A block's own end is where the next thing starts: what a person sees as the block ends with its last value.
        let last = match &open.content {
            Content::List(items) => items.last().map(|item| &item.span),
            Content::Map { entries, .. } => entries.last().map(|entry| &entry.value.span),
        };
        let same_file = last.filter(|last| last.range().start >= open.start);
        let end = match (open.flow, same_file) {
            (true, _) => span.range().end,
            (false, Some(last)) => last.range().end,
            (false, None) => open.start,
        };
        let kind = match open.content {
            Content::List(mut items) => {
                items.shrink_to_fit();
                Kind::List(items)
            }
            Content::Map { entries, merged, .. } => Kind::Map(self.unique(entries, merged)),
        };
        let (mark, span) = (open.mark, Span::new(self.file, open.start..end));
        self.value(Node { kind, span, mark }, open.anchor)
    }

    /// Reports keys that stand twice, and adds what `<<` brought.
    fn unique(&mut self, mut entries: Vec<Entry>, merged: Vec<Entry>) -> Vec<Entry> {
        let mut seen: HashSet<Box<str>> = HashSet::new();
        let mut twice = Vec::new();
        if entries.len() + merged.len() > 1 {
            entries.retain(|entry| {
                let new = seen.insert(entry.key.clone());
                if !new {
                    twice.push((entry.key.clone(), entry.key_span.clone()));
                }
                new
            });
        }
        for (key, span) in twice {
            let message = format!("the key {} stands here a second time", quoted(&key));
            let mut problem = crate::diagnostic::Diagnostic::error(self.dialect.duplicate, message).at(&span);
            if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                problem = problem.related(&first.key_span, "first here");
            }
            self.problems.push(problem);
        }
        for entry in merged {
            if entries.len() <= 1 {
                seen.extend(entries.iter().map(|entry| entry.key.clone()));
            }
            if seen.insert(entry.key.clone()) {
                entries.push(entry);
            }
        }
        entries.shrink_to_fit();
        entries
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Option<()> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            self.problems.error(
                self.dialect.code,
                &span,
                "this refers to a value that contains it",
            );
            return self.value(Node::new(Kind::Null, span), 0);
        };
        self.expanded += anchored.size;
        if self.expanded > MAXIMUM_EXPANSION || self.open.len() + anchored.depth > MAXIMUM_DEPTH {
            let message = "the aliases of this file stand for too much: copy less, or write it out";
            self.problems.error(self.dialect.code, &span, message);
            return None;
        }
        let node = anchored.node.clone();
        self.value(node, 0)
    }

    /// A complete value: it belongs to the innermost open list or map, or is the document.
    fn value(&mut self, node: Node, anchor: usize) -> Option<()> {
        if anchor != 0 {
            let (size, depth) = measure(&node);
            self.expanded += size;
            self.anchors.insert(
                anchor,
                Anchored {
                    node: node.clone(),
                    size,
                    depth,
                },
            );
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { key, .. }) if key.is_none() => {
                *key = Some(key_text(node, self.dialect, self.problems))
            }
            Some(Content::Map { entries, key, merged }) => {
                let (key, key_span) = key.take().unwrap_or_else(|| ("".into(), node.span.clone()));
                if &*key == "<<" {
                    if let Some(span) = merge_key(node, merged) {
                        self.problems
                            .error(self.dialect.code, &span, "`<<` takes a map, or a list of maps");
                    }
                } else {
                    entries.push(Entry {
                        key,
                        key_span,
                        value: node,
                    });
                }
            }
        }
        Some(())
    }
}

/// Whether a tag is `!name`.
fn is_local(tag: &Tag, name: &str) -> bool {
    tag.handle() == "!" && tag.suffix() == name
}

fn key_text(node: Node, dialect: &Dialect, problems: &mut Problems) -> (Box<str>, Span) {
    let text = match &node.kind {
        Kind::Text(text) => text.clone(),
        Kind::List(_) | Kind::Map(_) => {
            problems.error(dialect.code, &node.span, "a key must be text");
            String::new()
        }
        _ => node.span.text().to_string(),
    };
    (text.into(), node.span)
}

/// Adds what a `<<` refers to; the place of what is no map.
fn merge_key(node: Node, merged: &mut Vec<Entry>) -> Option<Span> {
    match node.kind {
        Kind::Map(entries) => {
            merged.extend(entries);
            None
        }
        Kind::List(items) => items.into_iter().find_map(|item| match item.kind {
            Kind::Map(entries) => {
                merged.extend(entries);
                None
            }
            _ => Some(item.span),
        }),
        _ => Some(node.span),
    }
}

/// How many values there are in a tree, and how deep it is.
fn measure(node: &Node) -> (usize, usize) {
    let add = |total: (usize, usize), (size, depth): (usize, usize)| (total.0 + size, total.1.max(depth + 1));
    match &node.kind {
        Kind::List(items) => items.iter().map(measure).fold((1, 1), add),
        Kind::Map(entries) => entries
            .iter()
            .map(|entry| measure(&entry.value))
            .fold((1, 1), add),
        _ => (1, 0),
    }
}

/// YAML 1.2's core schema for text without quotes; the text again where it is a number that JSON has not.
fn plain(text: String) -> Result<Kind, String> {
    Ok(match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        _ => match number(&text) {
            Some(Some(number)) => Kind::Number(number),
            Some(None) => return Err(text),
            None => Kind::Text(text),
        },
    })
}

/// `None`: text. `Some(None)`: a number, but not one of JSON.
fn number(text: &str) -> Option<Option<serde_json::Number>> {
    let first = text.bytes().next()?;
    if !(first.is_ascii_digit() || b"+-.".contains(&first)) {
        return None;
    }
    let unsigned = text.trim_start_matches(['+', '-']);
    if text.len() - unsigned.len() > 1 {
        return None;
    }
    if matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return Some(None);
    }
    let radix = |prefix: &str, radix| {
        let digits = text.strip_prefix(prefix)?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
        plain.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
    };
    if let Some(value) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Some(Some(value.into()));
    }
    if !unsigned
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte))
        || !unsigned.bytes().any(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    let integer = text.parse::<i64>().map(serde_json::Number::from).ok();
    if let Some(number) = integer.or_else(|| text.parse::<u64>().map(Into::into).ok()) {
        return Some(Some(number));
    }
    let float = text.parse::<f64>().ok()?;
    Some(serde_json::Number::from_f64(float))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> (Option<Node>, Vec<String>) {
        let file = Arc::new(SourceFile::new("a.yaml", "a.yaml", text));
        let mut problems = Problems::default();
        let node = parse(&file, &PIPELINE, &mut problems);
        let shown = |problem: &&crate::diagnostic::Diagnostic| {
            let place = problem.span.as_ref().map(ToString::to_string);
            format!("{} {}", place.unwrap_or_default(), problem.message)
        };
        let diagnostics = problems.into_diagnostics();
        (node, diagnostics.sorted().iter().map(shown).collect())
    }

    #[track_caller]
    fn check(text: &str, expected: serde_json::Value) {
        let (node, problems) = read(text);
        assert_eq!(problems, Vec::<String>::new());
        let value = node.expect("valid").to_value();
        assert_eq!(value.to_json(&mut |_| String::new()), expected);
    }

    #[track_caller]
    fn check_problem(text: &str, expected: &str) {
        let (_, problems) = read(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(expected), "{problems:?}");
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        check("", json!({}));
        check(
            "[1, -2, 0x1f, 1.5, 1e3, +7, .5]",
            json!([1, -2, 31, 1.5, 1000.0, 7, 0.5]),
        );
        check(
            "[yes, on, 1.2.3, 10m, '1', \"true\", 1-2, 12:30, --1]",
            json!(["yes", "on", "1.2.3", "10m", "1", "true", "1-2", "12:30", "--1"]),
        );
        check(
            "a: ~\nb: null\nc:\nd: True",
            json!({"a": null, "b": null, "c": null, "d": true}),
        );
        check("a: |\n  x\n  y\nb: !!str 5", json!({"a": "x\ny\n", "b": "5"}));
        for (text, expected) in [
            ("a: |\n  x", "x"),
            ("a: |+\n  x", "x"),
            ("a: >\n  x\n  y", "x y"),
            ("a: |\n  x\n", "x\n"),
            ("a: |\n  x\n  ", "x\n"),
            ("a: |\n  x\n# end", "x\n"),
        ] {
            check(text, json!({ "a": expected }));
        }
    }

    #[test]
    fn anchors_and_merge_keys() {
        check("a: &x {k: 1}\nb: *x\n", json!({"a": {"k": 1}, "b": {"k": 1}}));
        check(
            "a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\n",
            json!({"a": {"k": 1, "l": 2}, "b": {"k": 3, "l": 2}}),
        );
        check_problem("a: *x\n", "a.yaml:1:4 there is no anchor `&x`");
        check_problem("a: &x [*x]\n", "contains it");
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = level - 1;
            bomb += &format!(
                "a{level}: &a{level} [{}]\n",
                vec![format!("*a{before}"); 10].join(", ")
            );
        }
        check_problem(&bomb, "stand for too much");
    }

    #[test]
    fn what_is_refused() {
        check_problem(
            "a: 1\nb: 2\na: 3\n",
            "a.yaml:3:1 the key `a` stands here a second time",
        );
        check_problem("a: !!set {}\n", "tags have no meaning");
        check_problem("a: !ruby/object {}\n", "tags have no meaning");
        check_problem("a: 1\n---\nb: 1\n", "second document");
        check_problem("[a]: 1\n", "a key must be text");
        check_problem("a: .inf\n", "JSON does not have");
        check_problem("a: {b\n", "not valid YAML");
        check_problem(&"[".repeat(10_000), "deeper than 64 levels");
        check_problem(&format!("{}1", "- ".repeat(10_000)), "deeper than 64 levels");
    }

    #[test]
    fn places() {
        let (node, _) = read("a:\n  é: [1, 2]\n  c: 'x'\nd: 1\n");
        let Kind::Map(entries) = node.expect("valid").kind else {
            panic!("a map")
        };
        assert_eq!(entries[0].value.span.text(), "é: [1, 2]\n  c: 'x'");
        let Kind::Map(inner) = &entries[0].value.kind else {
            panic!("a map")
        };
        assert_eq!(inner[0].value.span.text(), "[1, 2]");
        assert_eq!(inner[1].value.span.to_string(), "a.yaml:3:6");
        assert_eq!(inner[1].key_span.text(), "c");
    }
}
