//! Servers that lose requests in known ways, and the figures of them.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use windlass_load::{Failure, Load, Mode, Report, start};

/// Whether the connection stays open.
type Handler = fn(u64, &mut TcpStream) -> bool;

/// Answers each connection on a thread of its own; the handler is told which request of the connection it is. Also counts requests.
fn server(handler: Handler) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let requests = Arc::new(AtomicU64::new(0));
    let counter = requests.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, counter) = (stream.expect("a connection"), counter.clone());
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
                for number in 0.. {
                    if !request(&mut reader) {
                        return;
                    }
                    counter.fetch_add(1, Ordering::SeqCst);
                    if !handler(number, &mut stream) {
                        return;
                    }
                }
            });
        }
    });
    (port, requests)
}

/// Whether a whole head came.
fn request(reader: &mut BufReader<TcpStream>) -> bool {
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return false,
            Ok(_) if line == "\r\n" => return true,
            Ok(_) => {}
        }
    }
}

/// In one piece: behind a first small one, the second would wait for an acknowledgement.
fn answer(stream: &mut TcpStream, colour: &str) -> bool {
    let text = format!("HTTP/1.1 200 OK\r\nx-colour: {colour}\r\ncontent-length: 2\r\n\r\nok");
    stream.write_all(text.as_bytes()).is_ok()
}

fn load(port: u16, mode: Mode) -> Load {
    Load {
        mode,
        rate: Some(200),
        duration: Duration::from_millis(500),
        timeout: Duration::from_millis(300),
        count_header: Some("X-Colour".into()),
        ..Load::of(format!("http://127.0.0.1:{port}/").parse().expect("a URL"))
    }
}

fn run(load: Load) -> Report {
    start(load).expect("it starts").wait()
}

const TWO: Mode = Mode::KeepAlive { connections: 2 };

#[test]
fn a_good_server_loses_nothing_and_the_rate_is_kept() {
    for mode in [Mode::Close, TWO] {
        let (port, requests) = server(|_, stream| answer(stream, "blue"));
        let report = run(load(port, mode));
        assert_eq!(report.sent, 100, "{report:?}");
        assert_eq!(
            (report.answered, report.lost, report.failures()),
            (100, 0, 0),
            "{report:?}"
        );
        assert_eq!(report.values["blue"], 100);
        assert_eq!(report.statuses[&200], 100);
        assert_eq!(requests.load(Ordering::SeqCst), 100);
        assert!(report.seconds >= 0.49, "{report:?}");
    }
}

#[test]
fn a_request_under_which_the_server_closes_is_lost_and_never_sent_again() {
    let (port, requests) = server(|number, stream| number != 4 && answer(stream, "blue"));
    let report = run(load(port, TWO));
    // Each fifth request of a connection.
    assert_eq!((report.answered, report.lost), (80, 20), "{report:?}");
    assert_eq!(report.failed[&Failure::Closed], 20, "{report:?}");
    assert_eq!(requests.load(Ordering::SeqCst), 100);
}

#[test]
fn a_connection_that_was_closed_before_the_next_request_is_replaced_and_nothing_is_lost() {
    let (port, requests) = server(|number, stream| answer(stream, "blue") && number < 4);
    // Slowly: between two requests of a connection there is time to see that it was closed.
    let report = run(Load {
        rate: Some(40),
        ..load(port, TWO)
    });
    assert_eq!((report.answered, report.lost), (20, 0), "{report:?}");
    // Ten requests on either connection, five until it is closed; behind the last one nobody looks.
    assert_eq!(report.closed_idle, 2, "{report:?}");
    assert_eq!(requests.load(Ordering::SeqCst), 20);
}

#[test]
fn an_answer_that_is_cut_off_or_never_comes_is_lost() {
    let (port, _) = server(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf");
        false
    });
    let report = run(load(port, Mode::Close));
    assert_eq!(report.failed[&Failure::Truncated], 100, "{report:?}");

    let (port, _) = server(|_, _| {
        thread::sleep(Duration::from_millis(600));
        false
    });
    let report = run(load(port, Mode::Close));
    assert_eq!(report.failed[&Failure::AnswerTimeout], 100, "{report:?}");
    assert_eq!((report.sent, report.lost), (100, 100));
}

#[test]
fn a_refused_connection_is_a_failure_but_nothing_was_sent() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let report = run(load(free, Mode::Close));
    assert_eq!(report.failed[&Failure::Connect], 100, "{report:?}");
    assert_eq!((report.sent, report.lost, report.failures()), (0, 0, 100));
    assert!(report.words[&Failure::Connect].contains("refused"), "{report:?}");
}

#[test]
fn an_error_of_the_server_is_answered_and_a_failure() {
    let (port, _) = server(|_, stream| {
        stream
            .write_all(b"HTTP/1.1 502 Bad\r\ncontent-length: 0\r\n\r\n")
            .is_ok()
    });
    let report = run(load(port, TWO));
    assert_eq!(
        (report.answered, report.lost, report.failures()),
        (100, 0, 100),
        "{report:?}"
    );
}

#[test]
fn latencies_are_those_of_a_user_who_came_when_the_request_was_due() {
    // The one connection is held up for 200 ms by the first request: those that were due then came late as well.
    let (port, _) = server(|number, stream| {
        if number == 0 {
            thread::sleep(Duration::from_millis(200));
        }
        answer(stream, "blue")
    });
    let report = run(load(port, Mode::KeepAlive { connections: 1 }));
    assert_eq!(report.answered, 100, "{report:?}");
    assert!(report.max_ms >= 200.0 && report.p99_ms >= 150.0, "{report:?}");
}

#[test]
fn stopping_ends_before_the_duration() {
    let (port, _) = server(|_, stream| answer(stream, "green"));
    let started = Instant::now();
    let running = start(Load {
        duration: Duration::from_secs(600),
        rate: None,
        ..load(port, TWO)
    })
    .unwrap();
    thread::sleep(Duration::from_millis(100));
    let report = running.stop();
    assert!(started.elapsed() < Duration::from_secs(60));
    assert!(report.answered > 0 && report.failures() == 0, "{report:?}");
}
