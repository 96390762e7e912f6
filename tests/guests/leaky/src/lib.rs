//! A plugin that is let see a secret and says it in many forms, wherever a plugin can say anything: its streams, its log with
//! fields, its progress, its summary and outputs, its error with details and help.

use serde_json::json;
use std::{fmt::Write as _, io::Write};
use windlass_guest::{
    Error, Outcome, Stage,
    log::{self, Level},
    secrets,
};

/// The stage.
pub struct Leaky;

/// Its `with:`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    secret: String,
    fail: bool,
}

impl Stage for Leaky {
    type Config = Config;

    fn run(config: Config) -> Result<Outcome, Error> {
        let secret = secrets::get(&config.secret)?.reveal()?;
        let secret = String::from_utf8(secret).map_err(|error| Error::config(error.to_string()))?;
        let forms = forms(&secret);
        for (form, text) in &forms {
            println!("{form} {text}");
            eprintln!("{form} {text}");
            log::line(
                Level::Warn,
                format!("{form} {text}"),
                &[("field", text.clone()), (text, "key".into())],
            );
            log::progress(1, Some(2), Some(text));
        }
        say_in_two(&secret)?;
        let all = json!(forms);
        if config.fail {
            return Err(Error::new("leak.failed", format!("it is {secret}, or {all}"))
                .with_details(json!({ "it": secret, "all": all, (secret.as_str()): 1 }))
                .help(format!("do not use {secret}")));
        }
        Ok(Outcome::changed(format!("it is {secret}, or {all}"))
            .output("it", secret)
            .output("all", all))
    }
}

fn forms(secret: &str) -> Vec<(&'static str, String)> {
    let mut forms = vec![("plain", secret.to_string()), ("json", json!(secret).to_string())];
    let bytes = secret.as_bytes();
    for shift in 0..3 {
        let shifted = [&b"xx"[..shift], bytes].concat();
        forms.push(("base64", base64(&shifted)));
    }
    forms.push(("hex", hex(bytes)));
    forms.push(("url", percent(bytes)));
    forms
}

/// Two writes of one stream, with the end of the first in the middle of it.
fn say_in_two(secret: &str) -> Result<(), Error> {
    let middle = secret.floor_char_boundary(secret.len() / 2);
    let (start, end) = secret.split_at(middle);
    let failed = |error: std::io::Error| Error::new("storage.failed", error.to_string());
    let mut stdout = std::io::stdout();
    for piece in [start, end, "\n"] {
        stdout.write_all(piece.as_bytes()).map_err(failed)?;
        stdout.flush().map_err(failed)?;
    }
    Ok(())
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .enumerate()
            .fold(0_u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for digit in 0..4_usize {
            let place = (bits >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit <= chunk.len() {
                char::from(ALPHABET[place])
            } else {
                '='
            });
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn percent(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

windlass_guest::export!(Leaky, metadata: "../plugin.json");
