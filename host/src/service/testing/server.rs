//! An HTTP server on loopback that answers as a test says, and remembers what it was asked.

use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Of the body, this much is sent before the connection breaks.
    pub(crate) sent: usize,
}

type Answer = dyn Fn(&Request) -> Reply + Send + Sync;

pub(crate) struct Server {
    pub(crate) origin: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Request {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_string())
    }
}

impl Reply {
    pub(crate) fn new(status: u16, body: &str) -> Self {
        Self::bytes(status, body.as_bytes().to_vec())
    }

    pub(crate) fn bytes(status: u16, body: Vec<u8>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            sent: body.len(),
            body,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

impl Server {
    /// Answers in this order, and then with a status that nobody expects.
    pub(crate) async fn start(replies: Vec<Reply>) -> Self {
        let replies = Mutex::new(replies.into_iter());
        Self::answering(move |_| {
            let next = replies.lock().expect("not poisoned").next();
            next.unwrap_or_else(|| Reply::new(418, "asked too often"))
        })
        .await
    }

    pub(crate) async fn answering(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let origin = format!("http://{}", listener.local_addr().expect("bound"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer): (_, Arc<Answer>) = (requests.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, seen.clone(), answer.clone()));
            }
        });
        Self { origin, requests }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("not poisoned").clone()
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Vec<Request>>>, answer: Arc<Answer>) {
    let Some(request) = read(&mut stream).await else {
        return;
    };
    seen.lock().expect("not poisoned").push(request.clone());
    let reply = answer(&request);
    let mut head = format!("HTTP/1.1 {} as said\r\nconnection: close\r\n", reply.status);
    let has_length = reply.headers.iter().any(|(name, _)| name == "content-length");
    if !has_length {
        head += &format!("content-length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let body = if request.method == "HEAD" {
        &[][..]
    } else {
        &reply.body[..reply.sent]
    };
    let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
    let _ = stream.shutdown().await;
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut body = bytes.split_off(end + 4);
    let mut words = head.split(' ').map(String::from);
    let mut request = Request {
        method: words.next()?,
        target: words.next()?,
        head,
        body: Vec::new(),
    };
    let length = request
        .header("content-length")
        .map_or(0, |text| text.parse().expect("a number"));
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    request.body = body;
    Some(request)
}
