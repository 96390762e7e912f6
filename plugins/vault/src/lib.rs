//! The standard plugin `vault`: secrets from a Vault server into the run's store. This file ties the logic to the
//! host; `stage` decides, `client` talks to Vault, `secret` knows the shapes of its replies.

mod client;
mod config;
mod secret;
mod stage;

use secret::Content;
use std::time::Duration;
use windlass_guest::http::{Request, Response};
use windlass_guest::{Error, Outcome, Stage, context, log, secrets};

/// The stage.
pub struct Vault;

impl Stage for Vault {
    type Config = config::Config;

    fn run(config: config::Config) -> Result<Outcome, Error> {
        stage::run(&config, &mut Host)
    }
}

/// The real world behind [`stage::Ports`].
struct Host;

impl stage::Ports for Host {
    fn send(&mut self, request: &Request) -> Result<Response, Error> {
        request.send()
    }

    fn sleep(&mut self, duration: Duration) -> bool {
        context::sleep(duration)
    }

    fn reveal(&mut self, text: &str) -> Result<String, Error> {
        if !is_placeholder(text) {
            return Ok(text.to_owned());
        }
        String::from_utf8(secrets::get(text)?.reveal()?)
            .map_err(|_| Error::new("secret.invalid", "a secret that the login needs is not text"))
    }

    fn put(&mut self, name: &str, content: &Content) -> Result<(), Error> {
        let time_to_live = content.time_to_live;
        match content.only_value() {
            Some(value) => secrets::put(name, value, time_to_live),
            None => secrets::put_fields(name, &content.fields, time_to_live),
        }
    }

    fn put_text(&mut self, name: &str, text: &str) -> Result<(), Error> {
        if is_placeholder(text) {
            secrets::put_handle(name, &secrets::get(text)?)
        } else {
            secrets::put(name, text.as_bytes(), None)
        }
    }

    fn info(&mut self, line: &str) {
        log::info(line);
    }

    fn warn(&mut self, line: &str) {
        log::warn(line);
    }
}

/// Whether the host stands a secret behind this text; otherwise the author wrote the text itself.
fn is_placeholder(text: &str) -> bool {
    text.strip_prefix("wlsec_")
        .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

windlass_guest::export!(Vault, metadata: "../plugin.json");

#[cfg(test)]
mod tests {
    use super::is_placeholder;

    #[test]
    fn placeholders_are_told_from_texts() {
        assert!(is_placeholder("wlsec_0123456789abcdef0123456789abcdef"));
        for text in [
            "",
            "wlsec_",
            "wlsec_0123456789abcdef0123456789abcde",
            "xwlsec_0123456789abcdef0123456789abcdef",
        ] {
            assert!(!is_placeholder(text), "{text}");
        }
    }
}
