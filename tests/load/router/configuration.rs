//! A candidate to the texts of its configuration. Starts nothing.

use std::path::Path;

/// What clients connect to.
pub(crate) const FRONT: u16 = 19080;
/// The router behind the front, where there is one.
pub(crate) const ROUTER: u16 = 19081;
/// HAProxy's command line.
pub(crate) const COMMANDS: u16 = 19082;
/// Says which colour is live.
pub(crate) const ANSWERS: u16 = 19083;
const BLUE: u16 = 19090;
const GREEN: u16 = 19091;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// The guide's way: the front itself has a generated upstream file and is reloaded.
    Front,
    /// An nginx that is reloaded, behind a front that is not.
    Behind,
    /// HAProxy behind the front; the live colour is an entry of a map. A connection to the server for each request.
    Map,
    /// The same with connections to the servers kept and shared.
    MapKept,
    /// HAProxy behind the front; one backend, whose servers are drained and made ready.
    Drain,
}

impl Candidate {
    pub(crate) const ALL: [Self; 5] = [Self::Front, Self::Behind, Self::Map, Self::MapKept, Self::Drain];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Front => "nginx, reload",
            Self::Behind => "nginx behind nginx, reload",
            Self::Map => "haproxy, map entry",
            Self::MapKept => "haproxy, map entry, kept connections",
            Self::Drain => "haproxy, drain and ready",
        }
    }

    pub(crate) fn is_nginx(self) -> bool {
        matches!(self, Self::Front | Self::Behind)
    }

    /// The port of the nginx that is reloaded, or of HAProxy.
    fn router_port(self) -> u16 {
        match self {
            Self::Front => FRONT,
            _ => ROUTER,
        }
    }
}

/// Two colours; each answers with its name at once.
pub(crate) fn backends(directory: &Path) -> String {
    let server = |port: u16, colour: &str| {
        format!(
            "server {{ listen 127.0.0.1:{port} backlog=4096; default_type text/plain; add_header x-colour {colour}; \
             location / {{ return 200 \"{colour}\\n\"; }} }}\n"
        )
    };
    let servers = server(BLUE, "blue") + &server(GREEN, "green");
    // As the guide's backend, which gives up an idle connection after five seconds.
    nginx(
        directory,
        "backends",
        &format!("keepalive_timeout 5s;\n{servers}"),
    )
}

/// The front that is never reloaded.
pub(crate) fn front(directory: &Path) -> String {
    let upstream = format!("upstream router {{ server 127.0.0.1:{ROUTER}; keepalive 32; }}\n");
    nginx(directory, "front", &(upstream + &proxy(FRONT, "router")))
}

/// The configuration of the router, whose live colour stands in the file of `live`.
pub(crate) fn router(candidate: Candidate, directory: &Path) -> String {
    let port = candidate.router_port();
    let file = directory.join("live").display().to_string();
    match candidate {
        Candidate::Front | Candidate::Behind => {
            let answers = format!(
                "server {{ listen 127.0.0.1:{ANSWERS}; default_type text/plain; location / {{ return 200 $live; }} }}\n"
            );
            let text = format!("include {file};\n{}{answers}", proxy(port, "backend"));
            nginx(directory, "router", &text)
        }
        Candidate::Map => haproxy("option http-server-close", &by_map(port, &file)),
        Candidate::MapKept => haproxy("http-reuse safe", &by_map(port, &file)),
        Candidate::Drain => haproxy("option http-server-close", &by_state(port)),
    }
}

/// What stands in the file when `colour` is live; `None` if the router has no file.
pub(crate) fn live(candidate: Candidate, colour: &str, generation: u64) -> Option<String> {
    let port = if colour == "blue" { BLUE } else { GREEN };
    match candidate {
        Candidate::Front | Candidate::Behind => Some(format!(
            "upstream backend {{ server 127.0.0.1:{port}; keepalive 32; }}\n\
             map \"\" $live {{ default \"{colour} {generation}\"; }}\n"
        )),
        Candidate::Map | Candidate::MapKept => Some(format!("backend {colour} {generation}\n")),
        Candidate::Drain => None,
    }
}

fn nginx(directory: &Path, name: &str, text: &str) -> String {
    let directory = directory.display();
    format!(
        "worker_processes 2;\npid {directory}/{name}.pid;\nerror_log {directory}/{name}.log warn;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\naccess_log off;\nclient_body_temp_path {directory}/{name}.body;\nproxy_temp_path {directory}/{name}.proxy;\n{text}}}\n"
    )
}

/// The guide's settings for a backend, with `Connection: upgrade` left out.
fn proxy(port: u16, upstream: &str) -> String {
    format!(
        "server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ proxy_pass http://{upstream}; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; proxy_set_header Host $host; proxy_connect_timeout 30s; proxy_send_timeout 30s; \
         proxy_read_timeout 30s; }} }}\n"
    )
}

/// As `pipelines/team-insight/router/haproxy.cfg`, without what needs Docker.
fn haproxy(connections: &str, text: &str) -> String {
    format!(
        "global\n maxconn 4096\n stats socket ipv4@127.0.0.1:{COMMANDS} level admin\n\
         defaults\n mode http\n timeout connect 3s\n timeout server 30s\n timeout client 30s\n timeout http-keep-alive 75s\n \
         retries 3\n option redispatch 1\n {connections}\n default-server check inter 1s\n{text}"
    )
}

fn by_map(port: u16, file: &str) -> String {
    format!(
        "frontend traffic\n bind 127.0.0.1:{port} backlog 4096\n use_backend \"backend-%[str(backend),map({file}),word(1,' ')]\"\n\
         backend backend-blue\n server blue 127.0.0.1:{BLUE}\n\
         backend backend-green\n server green 127.0.0.1:{GREEN}\n\
         frontend answers\n bind 127.0.0.1:{ANSWERS}\n \
         http-request return status 200 content-type text/plain lf-string \"%[str(backend),map({file})]\"\n"
    )
}

/// There is no generation to ask for: what is live has to be read from the states of the servers.
fn by_state(port: u16) -> String {
    format!(
        "frontend traffic\n bind 127.0.0.1:{port} backlog 4096\n default_backend backend\n\
         backend backend\n server blue 127.0.0.1:{BLUE}\n server green 127.0.0.1:{GREEN} weight 0\n"
    )
}
