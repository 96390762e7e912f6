//! A plugin that does what no plugin should: one thing for each word in `do`. The sandbox's tests say how each ends.

use serde_json::json;
use std::{hint::black_box, io::Write, time::Duration};
use windlass_guest::{Error, Outcome, Stage, context, http, log, tcp};

/// The stage.
pub struct Hostile;

/// Its `with:`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    r#do: String,
}

impl Stage for Hostile {
    type Config = Config;

    fn run(config: Config) -> Result<Outcome, Error> {
        match config.r#do.as_str() {
            "nothing" => Ok(Outcome::unchanged("did nothing")),
            "spin" => spin(),
            "eat-memory" => eat_memory(),
            "recurse" => Ok(Outcome::changed(recurse(0).to_string())),
            "flood-log" => flood_log(),
            "flood-output" => flood_output(),
            "write-unfinished-line" => write_unfinished_line(),
            "open-everything" => Ok(open_everything()),
            "reach-out" => Ok(reach_out()),
            "show-environment" => Ok(show_environment()),
            "take-randomness" => take_randomness(),
            "take-randomness-at-once" => {
                black_box(wasip2::random::random::get_random_bytes(1 << 30));
                Ok(Outcome::unchanged("taken"))
            }
            "hoard-handles" => hoard_handles(),
            "shout" => {
                log::info("x".repeat(20 << 20));
                Ok(Outcome::unchanged("shouted"))
            }
            "sleep" => sleep(),
            "sleep-in-wasi" => {
                std::thread::sleep(Duration::from_secs(3_600));
                Ok(Outcome::unchanged("slept"))
            }
            "leave-politely" => leave_politely(),
            "exit" => std::process::exit(1),
            "exit-well" => std::process::exit(0),
            "panic" => outer_frame(),
            "say-too-much" => Ok(Outcome::changed("much").output("much", "x".repeat(70_000))),
            "escape" => {
                log::info("\u{1b}[2J::set-env name=PATH::/evil");
                println!("::error::not mine");
                Err(Error::new("stage.bad", "\u{1b}]0;title\u{7}message")
                    .with_details(json!({ "status": 1 })))
            }
            "use-ungranted" => {
                tcp::connect("127.0.0.1", 1, Duration::from_secs(1))?;
                Ok(Outcome::unchanged("connected"))
            }
            other => Err(Error::config(format!("unknown: {other}"))),
        }
    }
}

fn spin() -> ! {
    let mut count = 0_u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

fn eat_memory() -> ! {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(black_box(vec![1; 1 << 20]));
    }
}

#[expect(unconditional_recursion, reason = "that is what it is for")]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth + 1))) + black_box(1)
}

fn flood_log() -> Result<Outcome, Error> {
    for line in 0..20_000 {
        log::info(format!("line {line}"));
    }
    Ok(Outcome::unchanged("flooded"))
}

fn flood_output() -> Result<Outcome, Error> {
    let line = "x".repeat(1_000);
    for _ in 0..20_000 {
        println!("{line}");
    }
    Ok(Outcome::unchanged("flooded"))
}

fn write_unfinished_line() -> Result<Outcome, Error> {
    print!("no newline");
    std::io::stdout()
        .flush()
        .map_err(|error| Error::new("storage.failed", error.to_string()))?;
    Ok(Outcome::unchanged("wrote"))
}

/// Every way to a file that a guest could think of; answers with those that led somewhere.
fn open_everything() -> Outcome {
    let paths = [
        "/",
        ".",
        "..",
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/self/fd/0",
        "/dev/null",
        "/workspace/../etc/passwd",
        "/workspace/../../etc/passwd",
        "/workspace/link-out",
        "/workspace/link-out/passwd",
        "/workspace/absolute-link",
        "/tmp/../etc/passwd",
        "//etc/passwd",
        "/workspace/sub/../../etc/passwd",
    ];
    let opened: Vec<&str> = paths
        .into_iter()
        .filter(|path| {
            std::fs::read(path).is_ok() || std::fs::read_dir(path).is_ok_and(|mut all| all.next().is_some())
        })
        .collect();
    let written: Vec<&str> = [
        "/workspace/new",
        "/workspace/file",
        "/new",
        "/etc/new",
        "/workspace/sub/new",
    ]
    .into_iter()
    .filter(|path| std::fs::write(path, "x").is_ok())
    .collect();
    let changed: Vec<&str> = [
        ("remove", std::fs::remove_file("/workspace/file").is_ok()),
        (
            "rename",
            std::fs::rename("/workspace/file", "/workspace/other").is_ok(),
        ),
        ("link", std::fs::hard_link("/workspace/file", "/tmp/file").is_ok()),
        ("make", std::fs::create_dir("/workspace/made").is_ok()),
        (
            "truncate",
            std::fs::OpenOptions::new()
                .write(true)
                .open("/workspace/file")
                .is_ok(),
        ),
    ]
    .into_iter()
    .filter_map(|(name, done)| done.then_some(name))
    .collect();
    Outcome::unchanged("tried")
        .output("opened", json!(opened))
        .output("written", json!(written))
        .output("changed", json!(changed))
        .output(
            "granted",
            json!(std::fs::read_to_string("/workspace/file").is_ok()),
        )
        .output("scratch", json!(std::fs::write("/tmp/own", "x").is_ok()))
}

/// Every way to the network.
fn reach_out() -> Outcome {
    let port = std::env::var("PORT")
        .ok()
        .and_then(|port| port.parse().ok())
        .unwrap_or(80);
    let reached: Vec<&str> = [
        ("tcp", std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()),
        ("listen", std::net::TcpListener::bind(("127.0.0.1", 0)).is_ok()),
        ("udp", std::net::UdpSocket::bind(("127.0.0.1", 0)).is_ok()),
        (
            "names",
            std::net::ToSocketAddrs::to_socket_addrs(&("localhost", port)).is_ok(),
        ),
        (
            "http",
            http::Request::get(format!("http://127.0.0.1:{port}/"))
                .send()
                .is_ok(),
        ),
    ]
    .into_iter()
    .filter_map(|(name, done)| done.then_some(name))
    .collect();
    Outcome::unchanged("tried").output("reached", json!(reached))
}

fn show_environment() -> Outcome {
    let variables: Vec<(String, String)> = std::env::vars().collect();
    let arguments: Vec<String> = std::env::args().collect();
    Outcome::unchanged("shown")
        .output("variables", json!(variables))
        .output("arguments", json!(arguments))
}

/// A megabyte is the limit; sleeps afterwards, so that the end is not the guest's own doing.
fn take_randomness() -> Result<Outcome, Error> {
    for _ in 0..100 {
        black_box(wasip2::random::random::get_random_bytes(64 << 10));
    }
    context::sleep(Duration::from_secs(5));
    Ok(Outcome::unchanged("taken"))
}

fn hoard_handles() -> Result<Outcome, Error> {
    let mut files = Vec::new();
    for index in 0..5_000 {
        match std::fs::File::create(format!("/tmp/{index}")) {
            Ok(file) => files.push(file),
            Err(error) => return Err(Error::new("storage.failed", error.to_string())),
        }
    }
    Ok(Outcome::unchanged(format!("{} files", files.len())))
}

fn sleep() -> Result<Outcome, Error> {
    loop {
        context::sleep(Duration::from_secs(3_600));
    }
}

fn leave_politely() -> Result<Outcome, Error> {
    while context::sleep(Duration::from_secs(60)) {}
    log::info("leaving");
    Ok(Outcome::unchanged("left"))
}

#[inline(never)]
fn outer_frame() -> Result<Outcome, Error> {
    black_box(inner_frame(black_box(3)));
    Ok(Outcome::unchanged("never"))
}

#[inline(never)]
fn inner_frame(count: usize) -> usize {
    assert!(black_box(count) > 5, "the count is {count}");
    count
}

windlass_guest::export!(Hostile, metadata: "../plugin.json");
