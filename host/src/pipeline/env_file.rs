//! The text of an env file, in the dialect of Docker Compose, to names and values. Pure: what a `${X}` means outside of the
//! file is asked of the caller.

use super::substitute::{Substitution, is_name_byte};
use std::collections::HashMap;

/// A line that is not `NAME=value`.
#[derive(Debug, PartialEq, Eq)]
pub struct EnvFileProblem {
    /// From 1.
    pub line: usize,
    pub message: String,
}

/// All values together.
const MAXIMUM_TOTAL: usize = 16 << 20;

/// The lines of `text`, in order; a name that stands twice comes twice, and the later wins.
///
/// - `# comment`, also behind a value after a blank; `export NAME=value`
/// - `NAME` alone: the value of outside, and nothing where it has none
/// - `'single quotes'`: as written, over several lines; `\'` is a quote
/// - `"double quotes"`: with `\n \r \t \" \\ \$`, over several lines
/// - outside of single quotes `$X`, `${X}`, `${X:-if unset or empty}`, `${X-if unset}`, `${X:?message}`, `${X?message}`,
///   `${X:+if set}`, `${X+if set}`; `$$` is a dollar. Names are looked up in the lines before, then with `outer`;
///   `X=${X}` reads the outer one
///
/// # Errors
/// Every line that cannot be read. No message holds a value.
pub fn parse(
    text: &str,
    outer: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>, Vec<EnvFileProblem>> {
    let mut reader = Reader {
        rest: text,
        line: 1,
        outer,
        found: Vec::new(),
        latest: HashMap::new(),
        total: 0,
        problems: Vec::new(),
    };
    reader.rest = reader.rest.strip_prefix('\u{feff}').unwrap_or(reader.rest);
    while !reader.rest.is_empty() {
        let line = reader.line;
        if let Err(message) = reader.entry() {
            reader.problems.push(EnvFileProblem { line, message });
            reader.skip_line();
        }
    }
    if reader.problems.is_empty() {
        Ok(reader.found)
    } else {
        Err(reader.problems)
    }
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
    outer: &'a dyn Fn(&str) -> Option<String>,
    found: Vec<(String, String)>,
    /// Where in `found` each name stands last.
    latest: HashMap<String, usize>,
    total: usize,
    problems: Vec<EnvFileProblem>,
}

impl Reader<'_> {
    /// One line, or several where a quoted value has them.
    fn entry(&mut self) -> Result<(), String> {
        let line = self.rest.lines().next().unwrap_or("");
        let start = line.trim_start();
        if start.is_empty() || start.starts_with('#') {
            self.skip_line();
            return Ok(());
        }
        let start = match start.strip_prefix("export") {
            Some(after) if after.starts_with([' ', '\t']) => after.trim_start(),
            _ => start,
        };
        let length = start.bytes().take_while(|byte| is_name_byte(*byte)).count();
        let (name, after) = start.split_at(length);
        if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(
                "this line does not start with a name: letters, digits and `_`, as in NAME=value".to_string(),
            );
        }
        let Some(value) = after.trim_start().strip_prefix('=') else {
            if !without_comment(after).trim().is_empty() {
                return Err(format!("`{name}` has no `=` after it"));
            }
            if let Some(value) = (self.outer)(name) {
                let name = name.to_string();
                self.set(name, value)?;
            }
            self.skip_line();
            return Ok(());
        };
        let name = name.to_string();
        let taken = self.rest.len() - self.rest_from(value);
        self.rest = &self.rest[taken..];
        let value = self.value(&name)?;
        self.set(name, value)
    }

    fn set(&mut self, name: String, value: String) -> Result<(), String> {
        self.total += value.len();
        if self.total > MAXIMUM_TOTAL {
            self.rest = "";
            return Err("the values of this file are too long".to_string());
        }
        self.latest.insert(name.clone(), self.found.len());
        self.found.push((name, value));
        Ok(())
    }

    /// How much is left from where `part`, a piece of the current line, starts.
    fn rest_from(&self, part: &str) -> usize {
        let line = self.rest.lines().next().unwrap_or("");
        self.rest.len() - (line.len() - part.len())
    }

    fn skip_line(&mut self) {
        self.rest = self.rest.split_once('\n').map_or("", |(_, after)| after);
        self.line += 1;
    }

    fn value(&mut self, name: &str) -> Result<String, String> {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
        match self.rest.chars().next() {
            Some('\'') => self.quoted(name, '\''),
            Some('"') => self.quoted(name, '"'),
            _ => {
                let line = self.rest.lines().next().unwrap_or("");
                let value = without_comment(line).trim_end();
                let value = self.expand(name, value, false)?;
                self.skip_line();
                Ok(value)
            }
        }
    }

    fn quoted(&mut self, name: &str, quote: char) -> Result<String, String> {
        let inner = &self.rest[1..];
        let Some(end) = closing(inner, quote) else {
            return Err(format!("the quote of `{name}` has no end"));
        };
        let (raw, after) = (&inner[..end], &inner[end + 1..]);
        let behind = after.lines().next().unwrap_or("").trim();
        if !behind.is_empty() && !behind.starts_with('#') {
            return Err(format!("there is something behind the closing quote of `{name}`"));
        }
        let value = match quote {
            '\'' => raw.replace("\\'", "'"),
            _ => self.expand(name, raw, true)?,
        };
        self.line += raw.matches('\n').count();
        self.rest = after;
        self.skip_line();
        Ok(value)
    }

    /// Replaces `$X` and its kin; a name that is being set refers to the outer one.
    fn expand(&self, own: &str, text: &str, escapes: bool) -> Result<String, String> {
        let look_up = |name: &str| self.look_up(name, own);
        Substitution {
            look_up: &look_up,
            unset: &|_| {},
            escapes,
        }
        .expand(text)
    }

    fn look_up(&self, name: &str, own: &str) -> Option<String> {
        let earlier = self.latest.get(name).and_then(|at| self.found.get(*at));
        match earlier {
            Some((_, value)) if own != name => Some(value.clone()),
            _ => (self.outer)(name),
        }
    }
}

/// A value without quotes up to the `#` that follows a blank.
fn without_comment(line: &str) -> &str {
    let comment = line
        .char_indices()
        .find(|(at, character)| *character == '#' && (*at == 0 || line[..*at].ends_with([' ', '\t'])));
    comment.map_or(line, |(at, _)| &line[..at])
}

/// Where the quote ends, `\` before it not counted.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, character)| {
        let ends = character == quote && !escaped;
        escaped = character == '\\' && !escaped;
        ends.then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outer(name: &str) -> Option<String> {
        match name {
            "OUTER" => Some("from outside".to_string()),
            "SECRET_KEY" => Some("outer key".to_string()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let owned: Vec<(String, String)> = expected
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        assert_eq!(parse(text, &outer), Ok(owned), "{text}");
    }

    #[track_caller]
    fn check_problem(text: &str, line: usize, part: &str) {
        let problems = parse(text, &outer).expect_err(text);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].line, line);
        assert!(problems[0].message.contains(part), "{problems:?}");
    }

    #[test]
    fn lines_and_comments() {
        check(
            "A=1\n\n# no\n  B = two words  \nexport C=3 # yes\n",
            &[("A", "1"), ("B", "two words"), ("C", "3")],
        );
        check(
            "A=a#b\nB=#c\nC=\r\nD=x\r\n",
            &[("A", "a#b"), ("B", ""), ("C", ""), ("D", "x")],
        );
        check(
            "OUTER\nNOTHING # here\nexport EMPTY",
            &[("OUTER", "from outside"), ("EMPTY", "")],
        );
        check("exported=1\nA=b=c", &[("exported", "1"), ("A", "b=c")]);
        check("A=1\nA=2\n", &[("A", "1"), ("A", "2")]);
    }

    #[test]
    fn quotes() {
        check(
            "A='$X # \"x\"' # c\nB=\"a\\n\\\"b\\\" \\$x\"\n",
            &[("A", "$X # \"x\""), ("B", "a\n\"b\" $x")],
        );
        check("A='one\ntwo'\nB=3\n", &[("A", "one\ntwo"), ("B", "3")]);
        check(
            "KEY=\"-----BEGIN\nabc\n-----END\"\nB=1",
            &[("KEY", "-----BEGIN\nabc\n-----END"), ("B", "1")],
        );
        check(
            "A=C:\\new\nB=\"C:\\\\new\"",
            &[("A", "C:\\new"), ("B", "C:\\new")],
        );
        check("A=it's\nB='it\\'s'", &[("A", "it's"), ("B", "it's")]);
    }

    #[test]
    fn references() {
        check(
            "A=1\nB=${A}2$A\nC=\"<$A>\"",
            &[("A", "1"), ("B", "121"), ("C", "<1>")],
        );
        check(
            "A=${OUTER}\nSECRET_KEY=${SECRET_KEY}",
            &[("A", "from outside"), ("SECRET_KEY", "outer key")],
        );
        check(
            "SECRET_KEY=1\nSECRET_KEY=${SECRET_KEY}",
            &[("SECRET_KEY", "1"), ("SECRET_KEY", "outer key")],
        );
        check(
            "A=${NO:-d}\nB=${EMPTY:-d}\nC=${EMPTY-d}\nD=${NO-d}",
            &[("A", "d"), ("B", "d"), ("C", ""), ("D", "d")],
        );
        check(
            "A=${NO:-${OUTER}}\nB=${NO}\nC=$$x\nD=5$",
            &[("A", "from outside"), ("B", ""), ("C", "$x"), ("D", "5$")],
        );
        check(
            "A=${OUTER:+set}\nB=${NO+set}\nC=${OUTER:?no}",
            &[("A", "set"), ("B", ""), ("C", "from outside")],
        );
    }

    #[test]
    fn mistakes() {
        check_problem("A=1\nno equals\nB=2", 2, "`no` has no `=`");
        check_problem("=1", 1, "does not start with a name");
        check_problem("A='x", 1, "has no end");
        check_problem("A='x' y", 1, "behind the closing quote");
        check_problem("A=${X", 1, "has no `}`");
        check_problem("A=1\nB=${NO:?set it}", 2, "`NO` is required: set it");
        check_problem("A=${A!x}", 1, "is followed by something");
        check_problem(
            &format!("A={}{}", "${X:-".repeat(50), "}".repeat(50)),
            1,
            "too deep",
        );
        let mut doubling = "A0=xxxxxxxxxxxxxxxx\n".to_string();
        for line in 1..20 {
            doubling += &format!("A{line}=${{A{0}}}${{A{0}}}\n", line - 1);
        }
        assert!(parse(&doubling, &outer).is_err());
    }
}
