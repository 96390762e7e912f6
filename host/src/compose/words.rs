//! A line to words, with the quotes of a POSIX shell and nothing else of it.

/// # Errors
/// A quote without an end, or a backslash at the end.
pub(super) fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            letter if letter.is_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                single(&mut letters, word)?;
            }
            '"' => {
                let word = word.get_or_insert_default();
                double(&mut letters, word)?;
            }
            '\\' => match letters.next() {
                Some('\n') => {}
                Some(letter) => word.get_or_insert_default().push(letter),
                None => return Err("there is nothing behind the last backslash"),
            },
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

const NO_END: &str = "a quote has no end";

fn single(letters: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), &'static str> {
    loop {
        match letters.next().ok_or(NO_END)? {
            '\'' => return Ok(()),
            letter => word.push(letter),
        }
    }
}

/// Only `$`, `` ` ``, `"`, `\` and the end of a line lose their backslash.
fn double(letters: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), &'static str> {
    loop {
        match letters.next().ok_or(NO_END)? {
            '"' => return Ok(()),
            '\\' => match letters.next().ok_or(NO_END)? {
                '\n' => {}
                letter @ ('$' | '`' | '"' | '\\') => word.push(letter),
                letter => word.extend(['\\', letter]),
            },
            letter => word.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (line, expected) in [
            (
                "redis-server --requirepass x",
                &["redis-server", "--requirepass", "x"][..],
            ),
            ("echo \"a b\" 'c  d' e\\ f", &["echo", "a b", "c  d", "e f"]),
            ("a'b'\"c\"d", &["abcd"]),
            ("'' \"\"", &["", ""]),
            ("\"a\\\"b\\n\"", &["a\"b\\n"]),
            ("  ", &[]),
            ("a\\\nb c\n d", &["ab", "c", "d"]),
        ] {
            let words = split(line).expect(line);
            assert_eq!(words, expected, "{line}");
        }
        for line in ["'a", "\"a", "a\\", "\"a\\"] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}
