//! SQL text into the one question a migration has to answer: does it start or end transactions itself?
//!
//! Knows just enough of SQLite's and PostgreSQL's lexical rules to tell statements from what is inside of strings,
//! comments and bodies. Refuses to know what statements mean.

/// A statement that would break the transaction the whole script runs in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Control {
    /// `COMMIT`, as written.
    pub(crate) word: String,
    /// From 1.
    pub(crate) line: usize,
}

/// What a script holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Statements, and the script's transaction stays whole.
    Statements,
    /// Comments and blanks only.
    Nothing,
    Control(Control),
}

pub(crate) fn inspect(script: &str) -> Finding {
    let mut statement = Statement::default();
    let mut any = false;
    for (token, offset) in Tokens::new(script) {
        any |= token != Token::Semicolon;
        if let Some(word) = statement.step(&token) {
            let line = 1 + script.get(..offset).unwrap_or(script).matches('\n').count();
            return Finding::Control(Control { word, line });
        }
    }
    if any {
        Finding::Statements
    } else {
        Finding::Nothing
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Semicolon,
    /// A string, a number, an operator: nothing that could begin a statement.
    Other,
}

/// How far into the current statement the text is.
#[derive(Default)]
struct Statement {
    place: Place,
    first: String,
}

#[derive(Default, PartialEq, Eq)]
enum Place {
    /// Nothing of it was seen yet.
    #[default]
    Start,
    /// After `START` or `PREPARE`: the next word tells.
    Second,
    /// After `CREATE` and its modifiers.
    Create,
    /// In a statement that may hold a body: `CREATE TRIGGER`, `FUNCTION`, `PROCEDURE`.
    BeforeBody,
    /// At the start of a statement of a body.
    BodyStart,
    InBody,
    Inside,
}

impl Statement {
    /// Takes one token; answers the word when it controls transactions.
    fn step(&mut self, token: &Token<'_>) -> Option<String> {
        let word = match token {
            Token::Word(word) => word.to_ascii_uppercase(),
            Token::Semicolon => {
                let in_body = matches!(self.place, Place::InBody | Place::BodyStart);
                self.place = if in_body { Place::BodyStart } else { Place::Start };
                return None;
            }
            Token::Other => String::new(),
        };
        self.place = match (&self.place, word.as_str()) {
            (Place::Start, "BEGIN" | "COMMIT" | "ROLLBACK" | "END" | "ABORT" | "SAVEPOINT" | "RELEASE") => {
                return Some(word);
            }
            (Place::Start, "START" | "PREPARE") => {
                self.first = word;
                Place::Second
            }
            (Place::Second, "TRANSACTION") => return Some(format!("{} {word}", self.first)),
            (Place::Start, "CREATE") => Place::Create,
            (Place::Create, "OR" | "REPLACE" | "TEMP" | "TEMPORARY" | "CONSTRAINT" | "EVENT") => {
                Place::Create
            }
            (Place::Create, "TRIGGER" | "FUNCTION" | "PROCEDURE") => Place::BeforeBody,
            (Place::BeforeBody, "BEGIN") => Place::BodyStart,
            (Place::BeforeBody, _) => Place::BeforeBody,
            (Place::BodyStart, "ATOMIC") => Place::BodyStart,
            // What ends a body ends it; after it only a semicolon can follow.
            (Place::BodyStart, "END") => Place::Inside,
            (Place::BodyStart | Place::InBody, _) => Place::InBody,
            _ => Place::Inside,
        };
        None
    }
}

/// Splits SQL into [`Token`]s with their byte offsets.
struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Moves behind `end`, or to the end of the text when it is not closed.
    fn skip_past(&mut self, start: usize, end: &str) {
        let rest = self.rest().get(start..).unwrap_or_default();
        self.at = rest
            .find(end)
            .map_or(self.text.len(), |found| self.at + start + found + end.len());
    }

    /// Skips a quoted piece that starts here. A doubled quote continues it, which reads as two pieces in a row: the same.
    /// With `escapes`, a backslash hides what follows it.
    fn skip_quoted(&mut self, quote: u8, escapes: bool) {
        let mut bytes = self.rest().bytes().enumerate().skip(1);
        while let Some((offset, byte)) = bytes.next() {
            if escapes && byte == b'\\' {
                bytes.next();
            } else if byte == quote {
                self.at += offset + 1;
                return;
            }
        }
        self.at = self.text.len();
    }

    /// `$tag$ … $tag$`, or just the `$` of a parameter.
    fn skip_dollar(&mut self) {
        let rest = self.rest();
        let tag_end = rest
            .bytes()
            .skip(1)
            .position(|b| !is_word(b) || b == b'$')
            .map(|end| end + 1);
        let opening = tag_end
            .filter(|end| rest.as_bytes().get(*end) == Some(&b'$'))
            .and_then(|end| rest.get(..=end));
        match opening {
            Some(tag) if !tag.as_bytes().get(1).is_some_and(u8::is_ascii_digit) => {
                self.skip_past(tag.len(), tag)
            }
            _ => self.at += 1,
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (Token<'a>, usize);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.rest();
            let start = self.at;
            let first = *rest.as_bytes().first()?;
            if first.is_ascii_whitespace() {
                self.at += 1;
            } else if rest.starts_with("--") {
                self.skip_past(2, "\n");
            } else if rest.starts_with("/*") {
                // PostgreSQL nests comments, SQLite does not. Not nesting finds more, never less.
                self.skip_past(2, "*/");
            } else if first == b';' {
                self.at += 1;
                return Some((Token::Semicolon, start));
            } else if is_word(first) && first != b'$' {
                let length = rest.bytes().position(|b| !is_word(b)).unwrap_or(rest.len());
                self.at += length;
                let word = rest.get(..length).unwrap_or_default();
                if word.eq_ignore_ascii_case("E") && rest.as_bytes().get(length) == Some(&b'\'') {
                    self.skip_quoted(b'\'', true);
                    return Some((Token::Other, start));
                }
                return Some((Token::Word(word), start));
            } else {
                match first {
                    b'\'' | b'"' | b'`' => self.skip_quoted(first, false),
                    b'$' => self.skip_dollar(),
                    _ => self.at += 1,
                }
                return Some((Token::Other, start));
            }
        }
    }
}

/// Bytes of a word. What is not ASCII belongs to words too, so offsets stay between characters.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(script: &str, control: Option<(&str, usize)>) {
        let expected = match control {
            Some((word, line)) => Finding::Control(Control {
                word: word.to_owned(),
                line,
            }),
            None => Finding::Statements,
        };
        assert_eq!(inspect(script), expected, "{script}");
    }

    #[test]
    fn transaction_statements_are_found() {
        check("BEGIN;", Some(("BEGIN", 1)));
        check("-- x\ncreate table a (b);\ncommit;", Some(("COMMIT", 3)));
        check("select 1; /* x */ Rollback to s", Some(("ROLLBACK", 1)));
        check("start  transaction;", Some(("START TRANSACTION", 1)));
        check("select 1;\n;\nEND", Some(("END", 3)));
        check(
            "create table trigger_log (trigger text, begin text);\ncommit",
            Some(("COMMIT", 2)),
        );
        check("/* /* */ commit; /* */", Some(("COMMIT", 1)));
        check(
            "create trigger t after insert on a begin delete from b; end; commit;",
            Some(("COMMIT", 1)),
        );
        check("select 'it''s'; commit", Some(("COMMIT", 1)));
        check("select E'\\''; commit", Some(("COMMIT", 1)));
        check("select $1; commit", Some(("COMMIT", 1)));
        check("select $x$ ; $y$ $x$; commit", Some(("COMMIT", 1)));
    }

    #[test]
    fn words_elsewhere_are_not() {
        check("select 'x; commit;'", None);
        check("insert into commit values (1)", None);
        check("-- begin;\nselect 1 -- ; commit", None);
        check("create table \"begin; commit\" (a text)", None);
        check(
            "create temp trigger t after update on a begin insert into b values (1); select 2; end;",
            None,
        );
        check(
            "create trigger t begin update a set b = case when c then 1 else 2 end; end;",
            None,
        );
        check(
            "create or replace function f() returns int as $$ begin; commit; end $$ language plpgsql;",
            None,
        );
        check(
            "create function f() returns int begin atomic; select 1; end; select 2",
            None,
        );
        check("prepare x as select 1", None);
        check("select 'unterminated; commit", None);
        check("insert into straße values ('ü'); select 1", None);
    }

    #[test]
    fn empty_scripts_are_seen() {
        for script in ["", " \n", "-- only words\n", ";;", "/* open"] {
            assert_eq!(inspect(script), Finding::Nothing, "{script}");
        }
    }
}
