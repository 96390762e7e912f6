//! S3 and AWS Secrets Manager of one test: `moto`, on a free loopback port and with data that go away with it. Its programs are installed once for a build, beside
//! what cargo makes.

use serde_json::{Value as Json, json};
use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What is known to work. `flask` and `flask-cors` are all that its server needs of its own list for these two services.
const PACKAGES: [&str; 3] = ["moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5"];
/// Importing takes seconds on a busy machine.
const START: Duration = Duration::from_secs(60);
/// Longer than any answer of a server on this machine.
const ANSWER: Duration = Duration::from_secs(30);
pub const ACCESS_KEY_ID: &str = "AKIDOFTHETESTS";
pub const SECRET_ACCESS_KEY: &str = "secret-key-of-the-tests";

/// Killed when dropped.
pub struct Moto {
    server: Child,
    port: u16,
}

impl Moto {
    /// A server that answers. `None`, said aloud, where it cannot be had.
    ///
    /// # Panics
    /// It is there and does not start.
    pub fn start() -> Option<Self> {
        let program = match program() {
            Ok(program) => program,
            Err(problem) => {
                eprintln!(
                    "\n*** skipped: needs moto, which needs python3 with venv and PyPI ({problem}) ***\n"
                );
                return None;
            }
        };
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let server = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto_server can be started");
        let server = Self { server, port };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < START, "moto does not answer");
            thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }

    /// Where it answers.
    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn make_bucket(&self, bucket: &str) {
        self.must("PUT", &format!("/{bucket}"), "s3", &[], b"");
    }

    /// The keys in a bucket, sorted.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let listed = self.must("GET", &format!("/{bucket}?list-type=2"), "s3", &[], b"");
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let keys = listed.split("<Key>").skip(1);
        keys.map(|rest| rest.split("</Key>").next().unwrap_or_default().to_string())
            .collect()
    }

    /// How many uploads are begun and not put together.
    pub fn uploads(&self, bucket: &str) -> usize {
        let listed = self.must("GET", &format!("/{bucket}?uploads"), "s3", &[], b"");
        String::from_utf8_lossy(&listed).matches("<UploadId>").count()
    }

    pub fn get(&self, path: &str) -> Vec<u8> {
        self.must("GET", path, "s3", &[], b"")
    }

    pub fn put(&self, path: &str, bytes: &[u8]) {
        self.must("PUT", path, "s3", &[], bytes);
    }

    pub fn delete(&self, path: &str) {
        self.must("DELETE", path, "s3", &[], b"");
    }

    pub fn make_secret(&self, name: &str, value: &str) {
        let body: Json = json!({ "Name": name, "SecretString": value, "ClientRequestToken": "0".repeat(32) });
        let headers = [
            ("x-amz-target", "secretsmanager.CreateSecret"),
            ("content-type", "application/x-amz-json-1.1"),
        ];
        self.must(
            "POST",
            "/",
            "secretsmanager",
            &headers,
            body.to_string().as_bytes(),
        );
    }

    /// Ends the server: from now on nobody listens on its port.
    pub fn stop(&mut self) {
        // It has ended already: that is what is wanted.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    /// A request that has to work. The scope in the header tells the server which service is meant; it checks no signature.
    fn must(
        &self,
        method: &str,
        path: &str,
        service: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Vec<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server listens");
        stream.set_read_timeout(Some(ANSWER)).expect("a time limit");
        let headers: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\nauthorization: AWS4-HMAC-SHA256 Credential={ACCESS_KEY_ID}/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0\r\n{headers}content-length: {}\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).expect("sent");
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).expect("answered");
        let end = reply
            .windows(4)
            .position(|part| part == b"\r\n\r\n")
            .expect("a head");
        let (head, body) = reply.split_at(end + 4);
        let head = String::from_utf8_lossy(head);
        let status: u16 = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {head}{}",
            String::from_utf8_lossy(body)
        );
        body.to_vec()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.stop();
    }
}

/// `moto_server`, installed by the first test that asks; the others wait for it.
fn program() -> Result<PathBuf, String> {
    let home = Path::new(env!("OUT_DIR"))
        .ancestors()
        .nth(4)
        .expect("cargo's layout")
        .join("test-moto");
    fs::create_dir_all(&home).map_err(|error| error.to_string())?;
    let lock = File::create(home.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let (venv, done) = (home.join("venv"), home.join("done"));
    let wanted = PACKAGES.join(" ");
    if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(venv.join("bin/moto_server"));
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    let mut pip = Command::new(venv.join("bin/pip"));
    run(pip
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(PACKAGES))?;
    fs::write(done, wanted).map_err(|error| error.to_string())?;
    Ok(venv.join("bin/moto_server"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false => Err(told.lines().last().unwrap_or("it failed").to_string()),
    }
}
