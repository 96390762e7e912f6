//! `$X`, `${X:-default}` and their kin to the text that they stand for: the one dialect of env files and compose files.
//! Pure: what a name means is asked of the caller.

/// How deep `${A:-${B:-...}}` may be nested.
const MAXIMUM_DEPTH: usize = 16;
/// A value is at most as long: lines that each double the one before would fill the memory.
const MAXIMUM_VALUE: usize = 1 << 20;

/// What names mean where a text stands.
pub(crate) struct Substitution<'a> {
    pub(crate) look_up: &'a dyn Fn(&str) -> Option<String>,
    /// Is told of each name that has no value and no default: it became nothing.
    pub(crate) unset: &'a dyn Fn(&str),
    /// Whether a backslash means something: in the double quotes of an env file.
    pub(crate) escapes: bool,
}

impl Substitution<'_> {
    /// Replaces `$X`, `${X}`, `${X:-if unset or empty}`, `${X-if unset}`, `${X:?message}`, `${X?message}`, `${X:+if set}`
    /// and `${X+if set}`, nested too; `$$` is a dollar, and so is a `$` before anything else.
    ///
    /// # Errors
    /// What is wrong, without any value.
    pub(crate) fn expand(&self, text: &str) -> Result<String, String> {
        self.nested(text, 0)
    }

    fn nested(&self, text: &str, depth: usize) -> Result<String, String> {
        if depth > MAXIMUM_DEPTH {
            return Err("`${` is nested too deep".to_string());
        }
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(['$', '\\']) {
            expanded.push_str(&rest[..at]);
            let special = &rest[at..];
            let (piece, taken) = match special.as_bytes() {
                [b'\\', ..] if self.escapes => unescape(special),
                [b'\\', ..] => ("\\".to_string(), 1),
                [b'$', b'$', ..] => ("$".to_string(), 2),
                [b'$', b'{', ..] => self
                    .braced(&special[2..], depth)
                    .map(|(piece, taken)| (piece, taken + 2))?,
                _ => self.bare(&special[1..]),
            };
            expanded.push_str(&piece);
            if expanded.len() > MAXIMUM_VALUE {
                return Err("the value is too long".to_string());
            }
            rest = &special[taken..];
        }
        expanded.push_str(rest);
        Ok(expanded)
    }

    /// `$NAME`; a `$` before anything else is a dollar.
    fn bare(&self, text: &str) -> (String, usize) {
        let length = text.bytes().take_while(|byte| is_name_byte(*byte)).count();
        let name = &text[..length];
        if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
            return ("$".to_string(), 1);
        }
        (self.value(name), 1 + length)
    }

    fn value(&self, name: &str) -> String {
        (self.look_up)(name).unwrap_or_else(|| {
            (self.unset)(name);
            String::new()
        })
    }

    /// What stands behind `${`; how much of it that was.
    fn braced(&self, text: &str, depth: usize) -> Result<(String, usize), String> {
        let end = closing_brace(text).ok_or("a `${` has no `}`")?;
        let inner = &text[..end];
        let length = inner.bytes().take_while(|byte| is_name_byte(*byte)).count();
        let (name, operator) = inner.split_at(length);
        if name.is_empty() {
            return Err("a `${` has no name after it".to_string());
        }
        if operator.is_empty() {
            return Ok((self.value(name), end + 1));
        }
        let value = (self.look_up)(name);
        let filled = value.clone().filter(|value| !value.is_empty());
        let deeper = |text: &str| self.nested(text, depth + 1);
        let result = if let Some(default) = operator.strip_prefix(":-") {
            filled.map_or_else(|| deeper(default), Ok)?
        } else if let Some(default) = operator.strip_prefix('-') {
            value.map_or_else(|| deeper(default), Ok)?
        } else if let Some(message) = operator.strip_prefix(":?") {
            filled.ok_or_else(|| required(name, message))?
        } else if let Some(message) = operator.strip_prefix('?') {
            value.ok_or_else(|| required(name, message))?
        } else if let Some(other) = operator.strip_prefix(":+") {
            filled.map_or(Ok(String::new()), |_| deeper(other))?
        } else if let Some(other) = operator.strip_prefix('+') {
            value.map_or(Ok(String::new()), |_| deeper(other))?
        } else {
            return Err(format!(
                "`${{{name}` is followed by something that is not `}}`, `:-`, `-`, `:?`, `?`, `:+` or `+`"
            ));
        };
        Ok((result, end + 1))
    }
}

/// The message is shown as it was written: a value that it refers to could be a secret.
fn required(name: &str, message: &str) -> String {
    if message.is_empty() {
        format!("`{name}` is required and has no value")
    } else {
        format!("`{name}` is required: {message}")
    }
}

pub(crate) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where the brace ends, those of inner `${` not counted.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut before = '\0';
    for (at, character) in text.char_indices() {
        match character {
            '{' if before == '$' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
        before = character;
    }
    None
}

/// What a backslash and the character behind it stand for, and how long both are.
fn unescape(text: &str) -> (String, usize) {
    let Some(character) = text.chars().nth(1) else {
        return ("\\".to_string(), 1);
    };
    let plain = match character {
        'n' => "\n".to_string(),
        'r' => "\r".to_string(),
        't' => "\t".to_string(),
        '"' | '\\' | '$' | '\'' => character.to_string(),
        other => format!("\\{other}"),
    };
    (plain, 1 + character.len_utf8())
}
