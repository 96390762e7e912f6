//! A server with a certificate of its own, and whom the client believes.

use std::{fs, net::TcpListener, path::Path, process::Command, thread, time::Duration};
use windlass_load::{Failure, Load, Mode, Report, Trust, start};

/// Makes a key and a certificate for `localhost` with the openssl program, which the tests need anyway. It signs itself, but is no
/// authority: as a server's certificate such a one would be refused.
fn certificate(directory: &Path) {
    const SETTINGS: &str = "[req]\ndistinguished_name = name\nx509_extensions = extensions\n[name]\n[extensions]\n\
        basicConstraints = CA:FALSE\nsubjectAltName = DNS:localhost\n";
    fs::write(directory.join("settings"), SETTINGS).expect("what the test needs");
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ])
        .args([
            "-config",
            "settings",
            "-keyout",
            "key.pem",
            "-out",
            "certificate.pem",
        ])
        .current_dir(directory)
        .output()
        .expect("what the test needs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// `openssl s_server -www` answers each request with a page, on a connection of its own.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn server(directory: &Path) -> (Server, u16) {
    let port = TcpListener::bind("127.0.0.1:0")
        .expect("what the test needs")
        .local_addr()
        .expect("what the test needs")
        .port();
    let child = Command::new("openssl")
        .args([
            "s_server",
            "-www",
            "-quiet",
            "-key",
            "key.pem",
            "-cert",
            "certificate.pem",
        ])
        .args(["-accept", &format!("127.0.0.1:{port}")])
        .current_dir(directory)
        .spawn()
        .expect("what the test needs");
    let server = Server(child);
    for _ in 0..500 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return (server, port);
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("openssl s_server did not listen within five seconds");
}

fn run(port: u16, trust: Trust) -> Report {
    let load = Load {
        connect: Some(([127, 0, 0, 1], port).into()),
        mode: Mode::Close,
        rate: Some(20),
        duration: Duration::from_millis(500),
        trust: Some(trust),
        ..Load::of("https://localhost/".parse().expect("what the test needs"))
    };
    start(load).expect("what the test needs").wait()
}

#[test]
fn a_certificate_counts_if_its_authority_is_named() {
    let directory = std::env::temp_dir().join(format!("windlass-load-{}", std::process::id()));
    fs::create_dir_all(directory.join("other")).unwrap();
    certificate(&directory);
    certificate(&directory.join("other"));
    let (_server, port) = server(&directory);

    let report = run(port, Trust::Authority(directory.join("certificate.pem")));
    assert_eq!((report.answered, report.failures()), (10, 0), "{report:?}");
    let report = run(port, Trust::Anybody);
    assert_eq!((report.answered, report.failures()), (10, 0), "{report:?}");
    let report = run(port, Trust::Authority(directory.join("other/certificate.pem")));
    assert_eq!(report.failed.get(&Failure::Tls), Some(&10), "{report:?}");
    assert!(report.words[&Failure::Tls].contains("certificate"), "{report:?}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn anybody_is_trusted_on_this_machine_only() {
    let load = Load {
        connect: Some(([192, 0, 2, 1], 443).into()),
        trust: Some(Trust::Anybody),
        ..Load::of("https://localhost/".parse().unwrap())
    };
    let error = start(load).err().unwrap();
    assert!(error.contains("192.0.2.1:443 is no loopback address"), "{error}");
}
