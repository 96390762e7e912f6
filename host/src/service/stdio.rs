//! The guest's standard output and error, as one stream each without secrets, then line by line into its log. What is not
//! UTF-8 is shown as U+FFFD.

use super::{
    events::{LONGEST_MESSAGE, Log},
    inert::cut,
    words::Pieces,
};
use crate::event::{LogLevel, RunEvent};
use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};
use tokio::io::AsyncWrite;
use tokio_util::sync::PollSender;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

/// One of the two streams. Clones share the text that is not finished yet.
#[derive(Clone)]
pub(crate) struct Lines {
    log: Log,
    level: LogLevel,
    text: Arc<Mutex<Text>>,
    /// The last lines, for the failure of a guest that panics.
    last: Arc<Mutex<VecDeque<String>>>,
}

struct Text {
    pieces: Pieces,
    /// Without secrets, and not sent yet.
    shown: String,
}

/// One write takes no more, whatever the guest hands over: what it gives is held here until the report has room.
const PIECE: usize = 16 << 10;
/// A panic's message and place are two lines, a note the third.
const LAST_LINES: usize = 4;
const LONGEST_LAST: usize = 500;

impl Lines {
    pub(crate) fn new(log: Log, level: LogLevel) -> Self {
        let text = Text {
            pieces: log.words().pieces(),
            shown: String::new(),
        };
        Self {
            log,
            level,
            text: Arc::new(Mutex::new(text)),
            last: Arc::default(),
        }
    }

    /// The last lines that were written.
    pub(crate) fn last(&self) -> String {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().cloned().collect::<Vec<_>>().join("\n")
    }

    /// Sends what has not been sent yet, also what came after the last newline.
    pub(crate) async fn finish(&self) {
        {
            let mut text = self.text();
            let rest = text.pieces.finish();
            text.shown.push_str(&rest);
        }
        while let Some(line) = self.take_line() {
            self.write(&line).await;
        }
        let rest = std::mem::take(&mut self.text().shown);
        if !rest.is_empty() {
            self.write(&rest).await;
        }
    }

    async fn write(&self, line: &str) {
        self.remember(line);
        self.log.write(self.level, line, &[]).await;
    }

    /// Takes bytes; returns how many.
    fn take(&self, bytes: &[u8]) -> usize {
        let taken = bytes.get(..PIECE).unwrap_or(bytes);
        let mut text = self.text();
        let shown = text.pieces.push(taken);
        text.shown.push_str(&shown);
        taken.len()
    }

    fn has_line(&self) -> bool {
        self.text().line().is_some()
    }

    /// The next whole line, or as much of one as a message may have.
    fn take_line(&self) -> Option<String> {
        let mut text = self.text();
        let (length, skipped) = text.line()?;
        let line = text.shown.drain(..length).collect();
        text.shown.drain(..skipped);
        Some(line)
    }

    fn text(&self) -> MutexGuard<'_, Text> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, line: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(cut(line, LONGEST_LAST));
    }
}

impl Text {
    /// The length of the next line, and how long the newline behind it is.
    fn line(&self) -> Option<(usize, usize)> {
        let newline = self.shown.find('\n').filter(|at| *at <= LONGEST_MESSAGE);
        match newline {
            Some(at) => Some((at, 1)),
            None if self.shown.len() >= LONGEST_MESSAGE => {
                Some((self.shown.floor_char_boundary(LONGEST_MESSAGE), 0))
            }
            None => None,
        }
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

impl Writer {
    /// Sends all whole lines.
    fn drain(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        while self.lines.has_line() {
            let closed = std::task::ready!(self.sender.poll_reserve(context)).is_err();
            let Some(line) = self.lines.take_line() else {
                return Poll::Ready(());
            };
            self.lines.remember(&line);
            let event = self.lines.log.line(self.lines.level, &line, &[]);
            if let Some(event) = event.filter(|_| !closed) {
                // The channel closes only when the run is over: then nobody misses the line.
                let _ = self.sender.send_item(event);
            }
        }
        Poll::Ready(())
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.as_mut().drain(context));
        let taken = self.lines.take(bytes);
        // What there is no room for now goes with the next write, or at the end.
        let _ = self.as_mut().drain(context);
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
    use crate::{
        name::StageName,
        report::redact::Redactor,
        service::{limits::Limits, words::Words},
    };
    use tokio::{io::AsyncWriteExt, sync::mpsc};

    #[tokio::test]
    async fn writes_become_lines() {
        let check = async |writes: &[&[u8]], expected: &[&str]| {
            let (sender, mut receiver) = mpsc::channel(2);
            let redactor = Redactor::new();
            redactor.learn(&[b"correct-horse"]);
            let words = Words::new(Some(Arc::new(redactor)));
            let stage = StageName::new("a").expect("valid");
            let log = Log::new(stage, 1, sender, words, &Limits::default());
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
        // Where a message or a write ends, a secret does not.
        let split = [&long[..LONGEST_MESSAGE - 7], b"correct-horse\n"].concat();
        let hidden = "x".repeat(LONGEST_MESSAGE - 7) + "***";
        check(&[&split], &[&hidden]).await;
        check(&[b"a correct", b"-horse, no correct\n"], &["a ***, no correct"]).await;
        check(&[b"a correct", b"ed one"], &["a corrected one"]).await;
    }
}
