//! A registry of images on a loopback port, gone with its handle.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);

pub struct Registry {
    /// `127.0.0.1:<port>`, which engines reach without TLS.
    pub address: String,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Registry {
    /// `None` after saying why, where it is not installed.
    pub fn start() -> Option<Self> {
        let directory = tempfile::tempdir().expect("temporary");
        let address = free_address();
        let storage = directory.path().join("storage");
        let configuration = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {} }}, delete: {{ enabled: true }} }}\nhttp: {{ addr: \"{address}\" }}\n",
            storage.display()
        );
        let file = directory.path().join("registry.yaml");
        fs::write(&file, configuration).expect("written");
        let spawned = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = spawned else {
            eprintln!("\n*** skipped: needs docker-registry ***\n");
            return None;
        };
        let registry = Self {
            address,
            child,
            _directory: directory,
        };
        let began = Instant::now();
        while TcpStream::connect(&registry.address).is_err() {
            assert!(began.elapsed() < PATIENCE, "the registry did not listen in time");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address that nobody listens on now.
pub fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("bound").to_string()
}
