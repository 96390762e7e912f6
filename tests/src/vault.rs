//! A real Vault-compatible server of one test: `rvault` on a free loopback port, with storage that goes away with it. It is set up
//! over its HTTP interface, as an operator would.

use crate::workspace::Workspace;
use serde_json::{Value as Json, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// Somebody else may take the free port between its choice and the server's start.
const STARTS: usize = 5;
/// Longer than any answer of a server on this machine.
const ANSWER: Duration = Duration::from_secs(10);
const CONFIGURATION: &str = "server.hcl";

/// Killed when dropped.
pub struct Vault {
    server: Child,
    program: PathBuf,
    /// Configuration and storage.
    home: PathBuf,
    port: u16,
    /// The unseal key.
    key: String,
    pub root_token: String,
}

/// What a request was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Json,
}

impl Vault {
    /// A server that is initialised and unsealed. `None`, said aloud, where the tool is missing.
    ///
    /// # Panics
    /// It is there and does not start.
    pub fn start(workspace: &Workspace) -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("skipped: needs rvault (cargo install --locked rusty_vault --version 0.2.1)");
            return None;
        };
        let (server, home, port) = (0..STARTS)
            .find_map(|_| launch(&program, workspace))
            .expect("rvault starts on a free port");
        let mut vault = Self {
            server,
            program,
            home,
            port,
            key: String::new(),
            root_token: String::new(),
        };
        let made = vault.ask(
            "PUT",
            "sys/init",
            &json!({ "secret_shares": 1, "secret_threshold": 1 }),
        );
        vault.key = text(&made.body, "/keys/0");
        vault.root_token = text(&made.body, "/root_token");
        vault.unseal();
        Some(vault)
    }

    /// Where it answers.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn unseal(&self) {
        self.must("PUT", "sys/unseal", &json!({ "key": self.key }));
    }

    /// A role that programs log in with: its id, and a secret for it.
    pub fn approle(&self, name: &str) -> (String, String) {
        let role = format!("auth/approle/role/{name}");
        self.must("POST", "sys/auth/approle", &json!({ "type": "approle" }));
        self.must("POST", &role, &json!({ "policies": "default" }));
        let id = self.must("GET", &format!("{role}/role-id"), &Json::Null);
        let secret = self.must("POST", &format!("{role}/secret-id"), &json!({}));
        (text(&id, "/data/role_id"), text(&secret, "/data/secret_id"))
    }

    pub fn seal(&self) {
        self.must("PUT", "sys/seal", &json!({}));
    }

    /// A request that has to work, with the root token.
    ///
    /// # Panics
    /// It is refused.
    pub fn must(&self, method: &str, path: &str, body: &Json) -> Json {
        let answer = self.ask(method, path, body);
        assert!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        answer.body
    }

    /// Ends the server: from now on nobody listens on its port.
    pub fn stop(&mut self) {
        // It has ended already: that is what is wanted.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// Starts it again after [`Vault::stop`], where it was and with what it held.
    ///
    /// # Panics
    /// Somebody else has taken its port meanwhile.
    pub fn start_again(&mut self) {
        self.server = serve(&self.program, &self.home).expect("rvault starts where it was");
        self.unseal();
    }

    /// One request and its whole answer.
    ///
    /// # Panics
    /// The server is not there, or answers what is not HTTP.
    pub fn ask(&self, method: &str, path: &str, body: &Json) -> Answer {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server listens");
        stream.set_read_timeout(Some(ANSWER)).expect("a time limit");
        let body = if method == "GET" {
            String::new()
        } else {
            body.to_string()
        };
        let request = format!(
            "{method} /v1/{path} HTTP/1.1\r\nhost: vault\r\nconnection: close\r\nx-vault-token: {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.root_token,
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("answered");
        let (head, body) = reply.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Answer {
            status: status.expect("a status"),
            body: serde_json::from_str(body).unwrap_or(Json::Null),
        }
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The text at this place of an answer.
///
/// # Panics
/// There is none.
pub fn text(answer: &Json, pointer: &str) -> String {
    let found = answer.pointer(pointer).and_then(Json::as_str);
    found
        .unwrap_or_else(|| panic!("no {pointer} in {answer}"))
        .to_string()
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join("rvault"))
        .find(|file| file.is_file())
}

/// A home, and a server in it; `None` when it ended at once.
fn launch(program: &Path, workspace: &Workspace) -> Option<(Child, PathBuf, u16)> {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("bound").port();
    drop(free);
    let home = workspace.state().with_file_name(format!("vault-{port}"));
    std::fs::create_dir_all(home.join("data")).expect("made");
    let configuration = format!(
        "storage \"file\" {{\n  path = {:?}\n}}\nlistener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  tls_disable = \"true\"\n}}\nwork_dir = {:?}\nlog_level = \"info\"\n",
        home.join("data"),
        home.join("work"),
    );
    std::fs::write(home.join(CONFIGURATION), configuration).expect("written");
    serve(program, &home).map(|server| (server, home, port))
}

/// Starts it and waits until it listens; `None` when it ended instead.
fn serve(program: &Path, home: &Path) -> Option<Child> {
    let mut server = Command::new(program)
        .args(["server", "--config"])
        .arg(home.join(CONFIGURATION))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("rvault can be started");
    let mut said = BufReader::new(server.stderr.take().expect("piped")).lines();
    // It says so after it has bound the port; from then on connections wait in the queue.
    let listens = said
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.contains("listening on"));
    if !listens {
        let _ = server.wait();
        return None;
    }
    // A full pipe would stop it.
    thread::spawn(move || said.map_while(Result::ok).for_each(drop));
    Some(server)
}
