//! From what a guest wrote to text that does nothing where it is shown: no escape sequences, no control characters, no
//! commands that a CI system reads from a job's output.

/// Prefixes of a line that CI systems obey: GitHub and Azure take them at the start of a line, blanks before it ignored;
/// Azure takes `##vso[` and GitHub's old form `##[` anywhere in the line.
const COMMANDS: [&str; 1] = ["::"];
const COMMANDS_ANYWHERE: [&str; 2] = ["##[", "##vso["];

/// A character without width that parts a command's prefix: the text reads the same and is no command any more.
const PART: char = '\u{200b}';

/// The text made inert. Tabs and newlines stay; carriage returns become newlines; other control characters, C0 and C1, and
/// marks that turn the direction of the text are shown as U+FFFD; escape sequences go as a whole.
pub fn inert(text: &str) -> String {
    let plain = without_controls(text);
    let mut safe = String::with_capacity(plain.len());
    for line in plain.split_inclusive('\n') {
        push_line(&mut safe, line);
    }
    safe
}

/// As [`inert`], on one line: newlines and tabs become spaces.
pub fn inert_line(text: &str) -> String {
    inert(&text.replace(['\r', '\n', '\t'], " "))
}

/// The text cut to at most `maximum` bytes at a character boundary, marked where it was cut.
pub fn cut(text: &str, maximum: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= maximum {
        return text.into();
    }
    let end = text.floor_char_boundary(maximum.saturating_sub(MARK.len()));
    format!("{}{MARK}", &text[..end])
}

fn without_controls(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\u{1b}' => skip_sequence(&mut rest),
            // C1's own "control sequence introducer".
            '\u{9b}' => skip_parameters(&mut rest),
            '\n' | '\t' => plain.push(character),
            '\r' => {
                if rest.peek() != Some(&'\n') {
                    plain.push('\n');
                }
            }
            _ if character.is_control() || turns_direction(character) => plain.push('\u{fffd}'),
            _ => plain.push(character),
        }
    }
    plain
}

fn skip_sequence(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match rest.next_if(|next| ('\u{20}'..='\u{7e}').contains(next)) {
        Some('[') => skip_parameters(rest),
        // A string for the terminal (title, link, ...): up to BEL or the string terminator, never past the line.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(next) = rest.next_if(|next| *next != '\n') {
                if next == '\u{7}' || next == '\u{9c}' {
                    return;
                }
                if next == '\u{1b}' {
                    rest.next_if_eq(&'\\');
                    return;
                }
            }
        }
        _ => {}
    }
}

fn skip_parameters(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while rest
        .next_if(|next| ('\u{20}'..='\u{3f}').contains(next))
        .is_some()
    {}
    rest.next_if(|next| ('\u{40}'..='\u{7e}').contains(next));
}

/// Embeddings, overrides and isolates let a line read otherwise than it is ("Trojan Source").
fn turns_direction(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

fn push_line(safe: &mut String, line: &str) {
    let words = line.trim_start();
    let (blanks, words) = line.split_at(line.len() - words.len());
    safe.push_str(blanks);
    let mut rest = words;
    if COMMANDS.iter().any(|command| words.starts_with(command)) {
        safe.push(PART);
    }
    while let Some(at) = find_command(rest) {
        let (before, command) = rest.split_at(at + 1);
        safe.push_str(before);
        safe.push(PART);
        rest = command;
    }
    safe.push_str(rest);
}

fn find_command(text: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    COMMANDS_ANYWHERE
        .iter()
        .filter_map(|command| lower.find(command))
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_it_makes_of_text() {
        let check = |text: &str, expected: &str| assert_eq!(inert(text), expected, "{text:?}");
        check("plain: a::b ## c\n\tindented", "plain: a::b ## c\n\tindented");
        check("\u{1b}[31mred\u{1b}[0m", "red");
        check("\u{1b}]0;title\u{7}after", "after");
        check("\u{1b}]8;;http://x\u{1b}\\link", "link");
        check("\u{1b}]never ends\nnext", "\nnext");
        check("\u{9b}2Jgone", "gone");
        check("a\u{1b}", "a");
        check("a\u{8}b\u{0}c\u{85}", "a\u{fffd}b\u{fffd}c\u{fffd}");
        check("over\rwritten\r\n", "over\nwritten\n");
        check("::set-env name=A::b", "\u{200b}::set-env name=A::b");
        check("one\n  ::error::x", "one\n  \u{200b}::error::x");
        check("one\r::error::x", "one\n\u{200b}::error::x");
        check("\u{1b}[1m::error::x", "\u{200b}::error::x");
        check("x ##[command]y", "x #\u{200b}#[command]y");
        check("##VSO[task.setvariable]y", "#\u{200b}#VSO[task.setvariable]y");
        check("a \u{202e}b", "a \u{fffd}b");
        assert_eq!(inert_line("a\r\n::x\tb"), "a  ::x b");
        assert_eq!(cut("äöü", 5), "ä…");
        assert_eq!(cut("abc", 3), "abc");
    }

    proptest! {
        #[test]
        fn no_text_stays_active(text in "[ \\n\\r\\t\u{1b}\u{9b}\\[\\]#:vsoVa0-9;\u{7}\\\\é]{0,60}") {
            let safe = inert(&text);
            prop_assert!(!safe.contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
            let lower = safe.to_lowercase();
            prop_assert!(!lower.contains("##[") && !lower.contains("##vso["));
            prop_assert!(safe.lines().all(|line| !line.trim_start().starts_with("::")));
            prop_assert_eq!(inert(&safe), safe.clone(), "what is inert stays as it is");
        }
    }
}
