//! The guest's standard output and error, line by line into its log. What is not UTF-8 is shown as U+FFFD.

use super::{
    events::{LONGEST_MESSAGE, Log},
    inert::cut,
};
use crate::event::{LogLevel, RunEvent};
use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tokio::io::AsyncWrite;
use tokio_util::sync::PollSender;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

/// One of the two streams. Clones share the line that is not finished yet.
#[derive(Clone)]
pub(crate) struct Lines {
    log: Log,
    level: LogLevel,
    unfinished: Arc<Mutex<Vec<u8>>>,
    /// The last lines, for the failure of a guest that panics.
    last: Arc<Mutex<VecDeque<String>>>,
}

/// A panic's message and place are two lines, a note the third.
const LAST_LINES: usize = 4;
const LONGEST_LAST: usize = 500;

impl Lines {
    pub(crate) fn new(log: Log, level: LogLevel) -> Self {
        Self {
            log,
            level,
            unfinished: Arc::default(),
            last: Arc::default(),
        }
    }

    /// The last lines that were written.
    pub(crate) fn last(&self) -> String {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().cloned().collect::<Vec<_>>().join("\n")
    }

    /// Sends what came after the last newline.
    pub(crate) async fn finish(&self) {
        let rest = std::mem::take(&mut *self.unfinished.lock().unwrap_or_else(PoisonError::into_inner));
        if !rest.is_empty() {
            self.log.write(self.level, &self.remember(&rest), &[]).await;
        }
    }

    /// Takes bytes up to the end of a line; returns how many, and the line where it is complete.
    fn take(&self, bytes: &[u8]) -> (usize, Option<RunEvent>) {
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        let room = LONGEST_MESSAGE.saturating_sub(unfinished.len());
        let newline = bytes.iter().take(room).position(|byte| *byte == b'\n');
        let length = newline.unwrap_or(bytes.len().min(room));
        unfinished.extend(bytes.iter().take(length));
        if newline.is_none() && unfinished.len() < LONGEST_MESSAGE {
            return (length, None);
        }
        let line = std::mem::take(&mut *unfinished);
        let event = self.log.line(self.level, &self.remember(&line), &[]);
        (length + usize::from(newline.is_some()), event)
    }

    fn remember(&self, line: &[u8]) -> String {
        let line = String::from_utf8_lossy(line).into_owned();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(cut(&line, LONGEST_LAST));
        line
    }
}

impl IsTerminal for Lines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Lines {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Writer {
            sender: PollSender::new(self.log.sender()),
            lines: self.clone(),
        })
    }
}

/// Waits for room in the channel before it takes a line.
struct Writer {
    lines: Lines,
    sender: PollSender<RunEvent>,
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let closed = std::task::ready!(self.sender.poll_reserve(context)).is_err();
        let (taken, line) = self.lines.take(bytes);
        if let Some(line) = line.filter(|_| !closed) {
            // The channel closes only when the run is over: then nobody misses the line.
            let _ = self.sender.send_item(line);
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{name::StageName, service::limits::Limits};
    use tokio::{io::AsyncWriteExt, sync::mpsc};

    #[tokio::test]
    async fn writes_become_lines() {
        let check = async |writes: &[&[u8]], expected: &[&str]| {
            let (sender, mut receiver) = mpsc::channel(2);
            let log = Log::new(StageName::new("a").expect("valid"), 1, sender, &Limits::default());
            let lines = Lines::new(log, LogLevel::Info);
            let writes: Vec<Vec<u8>> = writes.iter().map(|bytes| bytes.to_vec()).collect();
            let writer = tokio::spawn(async move {
                let mut stream = Box::into_pin(lines.async_stream());
                for bytes in writes {
                    stream.write_all(&bytes).await.expect("never fails");
                }
                lines.finish().await;
            });
            let mut received = Vec::new();
            while let Some(RunEvent::StageLog { message, .. }) = receiver.recv().await {
                received.push(message);
            }
            writer.await.expect("ends");
            assert_eq!(received, expected);
        };
        check(
            &[b"one\ntwo", b" parts\n\nlast"],
            &["one", "two parts", "", "last"],
        )
        .await;
        check(&[b"a\nb\nc\nd\n"], &["a", "b", "c", "d"]).await;
        check(&[b"\xff\n"], &["\u{fffd}"]).await;
        let long = vec![b'x'; LONGEST_MESSAGE + 5];
        check(&[&long], &[&"x".repeat(LONGEST_MESSAGE), "xxxxx"]).await;
    }
}
