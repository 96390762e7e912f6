//! nginx, the guide's way: the live colour is a generated file, and a switch is a reload. Clients that keep connections may lose a request to
//! each reload.

use windlass_guest::Error;
use windlass_guest::containers::{Container, Program};

use super::{At, Live, Router, changing, expect_success, repeatable};
use crate::host::Host;
use crate::names::{self, Colour};

/// A file that nginx refuses never gets its name.
const WRITE: &str = "f=\"/router/$1.conf\"; cat > \"$f.new\" && sync \"$f.new\" && sed \"s#$f;#$f.new;#\" /etc/nginx/nginx.conf > /tmp/try.conf \
    && nginx -q -t -c /tmp/try.conf && mv \"$f.new\" \"$f\" && sync /router";
const OLD_WORKERS: &str = "grep -l '[s]hutting down' /proc/[0-9]*/cmdline 2>/dev/null | wc -l";

#[derive(Debug)]
pub(crate) struct Nginx;

/// What stands in the file of a service.
fn text(at: &At, live: Option<&Live>) -> String {
    let service = &at.service;
    let server = match live {
        Some(live) => format!(
            "server {}:{}; keepalive 32;",
            names::alias(service, live.colour),
            at.port
        ),
        None => "server 127.0.0.1:1;".to_owned(),
    };
    let said = live.map(Live::to_string).unwrap_or_default();
    let variable = service.replace('-', "_");
    format!("upstream {service} {{ {server} }}\nmap \"\" $live_{variable} {{ default \"{said}\"; }}\n")
}

impl Router for Nginx {
    fn recorded(&self, host: &mut dyn Host, at: &At) -> Result<Option<Live>, Error> {
        let file = format!("/router/{}.conf", at.service);
        let output = host.exec(&at.container, &repeatable(Program::new(["cat", &file])))?;
        let said = output
            .stdout
            .split_once("default \"")
            .and_then(|(_, rest)| rest.split('"').next());
        Ok(said.and_then(Live::parse))
    }

    /// nginx checks nobody's health: the containers' own counts, and the stage's checks go the way that its requests will go.
    fn ready(&self, _: &mut dyn Host, _: &At, _: Colour, containers: &[Container]) -> Result<usize, Error> {
        Ok(containers
            .iter()
            .filter(|container| container.is_healthy())
            .count())
    }

    fn record(&self, host: &mut dyn Host, at: &At, live: Option<&Live>) -> Result<(), Error> {
        let program = Program::new(["sh", "-c", WRITE, "record", &at.service]).input(text(at, live));
        let output = host.exec(&at.container, &repeatable(program))?;
        expect_success("wrote and tested the live colour", &output)
    }

    /// nginx does not read its input: it is there to tell one reload from another.
    fn turn(&self, host: &mut dyn Host, at: &At, live: Option<&Live>) -> Result<(), Error> {
        let what = live.map_or_else(|| "nothing".to_owned(), Live::to_string);
        let program =
            changing(Program::new(["nginx", "-s", "reload"])).input(format!("{} {what}\n", at.service));
        let output = host.exec(&at.container, &program)?;
        expect_success("reloaded it", &output)
    }

    /// Old workers are there as long as they serve.
    fn in_flight(&self, host: &mut dyn Host, at: &At, _: Colour) -> Result<u64, Error> {
        let output = host.exec(
            &at.container,
            &repeatable(Program::new(["sh", "-c", OLD_WORKERS])),
        )?;
        expect_success("counted its old workers", &output)?;
        Ok(output.stdout.trim().parse().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let at = At {
            container: "r".into(),
            service: "backend".into(),
            port: 8000,
        };
        let live = Live {
            colour: Colour::Green,
            generation: 8,
            digest: "sha256:ab".into(),
        };
        assert_eq!(
            text(&at, Some(&live)),
            "upstream backend { server backend-green:8000; keepalive 32; }\nmap \"\" $live_backend { default \"green 8 sha256:ab\"; }\n"
        );
        assert_eq!(
            text(&at, None),
            "upstream backend { server 127.0.0.1:1; }\nmap \"\" $live_backend { default \"\"; }\n"
        );
    }
}
