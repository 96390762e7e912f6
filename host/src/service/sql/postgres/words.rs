//! Finds statements that would end our transaction or start another, without understanding SQL: the first words of each
//! statement, with comments and everything in quotes left out.

use crate::failure::{Failure, Turn};

/// The first word of a statement that only we may send.
const OURS: &[&str] = &[
    "BEGIN",
    "START",
    "COMMIT",
    "END",
    "ROLLBACK",
    "ABORT",
    "SAVEPOINT",
    "RELEASE",
];

/// # Errors
/// `sql.refused`.
pub(super) fn check(script: &str) -> Result<(), Failure> {
    let mut words = Words { rest: script };
    let (mut previous, mut is_first, mut in_body) = (String::new(), true, false);
    while let Some(word) = words.next() {
        if word == ";" {
            is_first = true;
            previous.clear();
            continue;
        }
        let word = word.to_ascii_uppercase();
        if is_first && in_body && word == "END" {
            // Of a function's body, `BEGIN ATOMIC ...; END`.
            in_body = false;
        } else if is_first && OURS.contains(&word.as_str()) {
            return Err(refused(&word));
        } else if previous == "PREPARE" && word == "TRANSACTION" {
            return Err(refused("PREPARE TRANSACTION"));
        } else if previous == "BEGIN" && word == "ATOMIC" {
            in_body = true;
        }
        is_first = false;
        previous = word;
    }
    Ok(())
}

fn refused(word: &str) -> Failure {
    let message = format!("{word} is refused: all steps are one transaction already");
    Failure::new(Turn::PipelineAuthor, "sql.refused", message).help("leave it out")
}

/// Words and `;`.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        loop {
            let text = self.rest;
            let first = text.chars().next()?;
            if let Some(skipped) = skip(text) {
                self.rest = skipped;
                continue;
            }
            let is_word = |character: char| character.is_alphanumeric() || matches!(character, '_' | '$');
            let length = match first {
                first if is_word(first) => text.find(|character| !is_word(character)).unwrap_or(text.len()),
                other => other.len_utf8(),
            };
            let (word, rest) = text.split_at(length);
            self.rest = rest;
            // `E'...'` has escapes that a plain quote has not.
            if word.eq_ignore_ascii_case("e") && rest.starts_with('\'') {
                self.rest = after_quote(rest, '\'', true);
            } else if first == ';' || is_word(first) {
                return Some(word);
            }
        }
    }
}

/// What follows a comment, a quoted text or blanks, if the text starts with one.
fn skip(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix("--") {
        return Some(rest.split_once('\n').map_or("", |(_, rest)| rest));
    }
    if text.starts_with("/*") {
        return Some(after_comment(text));
    }
    match text.chars().next()? {
        quote @ ('\'' | '"') => Some(after_quote(text, quote, false)),
        '$' => after_dollars(text),
        blank if blank.is_whitespace() => Some(text.trim_start()),
        _ => None,
    }
}

/// PostgreSQL's comments nest.
fn after_comment(text: &str) -> &str {
    let (mut depth, mut rest) = (0_usize, text);
    loop {
        if let Some(inner) = rest.strip_prefix("/*") {
            (depth, rest) = (depth + 1, inner);
        } else if let Some(outer) = rest.strip_prefix("*/") {
            (depth, rest) = (depth - 1, outer);
            if depth == 0 {
                return rest;
            }
        } else {
            let mut characters = rest.chars();
            if characters.next().is_none() {
                return "";
            }
            rest = characters.as_str();
        }
    }
}

/// A doubled quote ends one text and starts the next: nothing of either is a word.
fn after_quote(text: &str, quote: char, has_escapes: bool) -> &str {
    let mut characters = text.chars();
    characters.next();
    while let Some(character) = characters.next() {
        if character == quote {
            return match characters.as_str().strip_prefix(quote) {
                Some(_) if has_escapes => after_quote(characters.as_str(), quote, true),
                _ => characters.as_str(),
            };
        }
        if has_escapes && character == '\\' {
            characters.next();
        }
    }
    ""
}

/// `$tag$ ... $tag$`; `$1` is a parameter.
fn after_dollars(text: &str) -> Option<&str> {
    let end = 1 + text.get(1..)?.find('$')?;
    let tag = text.get(..=end)?;
    let name = tag.get(1..end)?;
    let is_tag = !name.starts_with(|first: char| first.is_ascii_digit())
        && name
            .chars()
            .all(|character| character.is_alphanumeric() || character == '_');
    let body = text.get(end + 1..).filter(|_| is_tag)?;
    Some(body.split_once(tag).map_or("", |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::check as check_words;

    #[test]
    fn statements_that_are_ours() {
        let check = |script: &str, allowed: bool| {
            assert_eq!(check_words(script).is_ok(), allowed, "{script}");
        };
        check("CREATE TABLE t (a int); INSERT INTO t VALUES (1)", true);
        check("commit", false);
        check("SELECT 1; -- x\n /* a /* b */ c */ COMMIT", false);
        check("SELECT ';COMMIT', \";COMMIT\", $$;COMMIT$$, $x$;COMMIT;$x$", true);
        check("SELECT 'it''s; COMMIT'", true);
        check("SELECT E'\\'; COMMIT; --'", true);
        check("SELECT '\\'; COMMIT; --'", false);
        check("SELECT E'a''\\'; COMMIT; --'", true);
        check("DO $$ BEGIN PERFORM 1; END $$", true);
        check("SELECT $1; ROLLBACK", false);
        check("PREPARE TRANSACTION 'x'", false);
        check("START TRANSACTION", false);
        check("SELECT 1 AS begin", true);
        check(
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; SELECT 2",
            true,
        );
        check(
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; END",
            false,
        );
        check("/* not closed", true);
        check("'not closed; COMMIT", true);
    }
}
