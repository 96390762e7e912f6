//! A server of one test that counts what is done to it: the ledger against which a crash is judged. It does nothing a second
//! time by itself and forgives nothing, so an effect that is sent twice is counted twice.
//!
//! It can be told to lose its answers: then it does what it is asked, and hangs up.
//!
//! It serves one connection after the other, in the order in which they came: what a killed process has sent is counted before
//! anybody can ask about it.

use serde_json::json;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// Stops when dropped.
pub struct Counter {
    port: u16,
    effects: Arc<Mutex<Effects>>,
    is_over: Arc<AtomicBool>,
    is_silent: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

/// By path.
pub type Effects = BTreeMap<String, Effect>;

/// How often it was done, and undone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    pub done: usize,
    pub undone: usize,
    /// What the requests said: a repeated one has the key of the first.
    pub keys: Vec<String>,
}

impl Counter {
    /// A server on a free port.
    ///
    /// # Panics
    /// There is none.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let effects = Arc::<Mutex<Effects>>::default();
        let (is_over, is_silent) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (counted, over, silent) = (effects.clone(), is_over.clone(), is_silent.clone());
        let server = thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                // A client that was killed has no use for an answer.
                let _ = serve(&connection, &counted, &silent);
            }
        });
        Self {
            port,
            effects,
            is_over,
            is_silent,
            server: Some(server),
        }
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on it loses its answers to deletions, or no longer.
    pub fn lose_answers(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::SeqCst);
    }

    /// What was done so far.
    pub fn effects(&self) -> Effects {
        lock(&self.effects).clone()
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes it up.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

/// One request. `None`: it did not come whole, so nothing was done.
fn serve(connection: &TcpStream, effects: &Mutex<Effects>, is_silent: &AtomicBool) -> Option<()> {
    let mut reader = BufReader::new(connection);
    let first = line(&mut reader)?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let mut key = String::new();
    loop {
        let header = line(&mut reader)?;
        match header.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("idempotency-key") => key = value.trim().into(),
            Some(_) => {}
            None => break,
        }
    }
    let reply = {
        let mut effects = lock(effects);
        let effect = effects.entry(path.to_string()).or_default();
        match method {
            "PUT" | "POST" => effect.done += 1,
            "DELETE" => effect.undone += 1,
            _ => {}
        }
        if method != "GET" {
            effect.keys.push(key);
        }
        json!({ "done": effect.done, "undone": effect.undone }).to_string()
    };
    if method == "DELETE" && is_silent.load(Ordering::SeqCst) {
        return None;
    }
    let mut writer = connection;
    write!(
        writer,
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{reply}",
        reply.len()
    )
    .ok()?;
    connection.shutdown(Shutdown::Write).ok()
}

fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    line.ends_with('\n').then(|| line.trim_end().to_string())
}

fn lock(effects: &Mutex<Effects>) -> MutexGuard<'_, Effects> {
    effects.lock().unwrap_or_else(PoisonError::into_inner)
}
