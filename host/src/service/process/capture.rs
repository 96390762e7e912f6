//! What a program writes: redacted as one stream, then line by line to the log, and the end of it kept. Bounded throughout: a
//! program that writes faster than the report can take is slowed down.

use super::group::{Ended, Group, Pipes};
use crate::{
    event::LogLevel,
    service::{
        events::Log,
        patience::Patience,
        stdio::Lines,
        words::{Pieces, Words},
    },
};
use std::{pin::Pin, time::Duration};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use wasmtime_wasi::cli::StdoutStream;

/// As much of each stream as the WIT says.
const KEPT: usize = 64 << 10;
/// One read of a pipe.
const PIECE: usize = 16 << 10;
/// What is still in the pipes after the end of the group is read in no time; longer only takes a process that has left the
/// group and holds them open.
const DRAIN: Duration = Duration::from_secs(1);

/// The end of both streams.
pub(super) struct Output {
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Feeds and reads the group until it has ended.
pub(super) async fn supervise(
    mut group: Group,
    pipes: Pipes,
    input: &str,
    patience: &Patience,
    log: &Log,
    words: &Words,
) -> (Ended, Output) {
    let mut stdout = Capture::new(log, LogLevel::Info, words);
    let mut stderr = Capture::new(log, LogLevel::Warn, words);
    let ended = {
        let read = async { tokio::join!(stdout.read(pipes.stdout), stderr.read(pipes.stderr)) };
        let feed = feed(pipes.stdin, input);
        let mut streams = std::pin::pin!(async { tokio::join!(read, feed) });
        let mut ended = std::pin::pin!(group.end(patience));
        tokio::select! {
            ended = &mut ended => {
                let _ = tokio::time::timeout(DRAIN, streams).await;
                ended
            }
            _ = &mut streams => ended.await,
        }
    };
    let output = Output {
        stdout: stdout.finish().await,
        stderr: stderr.finish().await,
    };
    (ended, output)
}

async fn feed(mut stdin: impl AsyncWrite + Unpin, input: &str) {
    // A program may end without reading what it was given.
    let _ = stdin.write_all(input.as_bytes()).await;
}

/// One stream.
struct Capture {
    pieces: Pieces,
    lines: Lines,
    writer: Pin<Box<dyn AsyncWrite + Send + Sync>>,
    kept: String,
}

impl Capture {
    fn new(log: &Log, level: LogLevel, words: &Words) -> Self {
        let lines = Lines::new(log.clone(), level);
        Self {
            pieces: words.pieces(),
            writer: Box::into_pin(lines.async_stream()),
            lines,
            kept: String::new(),
        }
    }

    async fn read(&mut self, mut pipe: impl AsyncRead + Unpin) {
        let mut piece = vec![0; PIECE];
        // An error of the pipe is its end: the status says how the program fared.
        while let Ok(length @ 1..) = pipe.read(&mut piece).await {
            let shown = self.pieces.push(piece.get(..length).unwrap_or_default());
            self.show(&shown).await;
        }
    }

    async fn show(&mut self, text: &str) {
        // The log drops what is over its budget by itself, and never fails.
        let _ = self.writer.write_all(text.as_bytes()).await;
        self.kept.push_str(text);
        if self.kept.len() > 2 * KEPT {
            keep_end(&mut self.kept);
        }
    }

    async fn finish(mut self) -> String {
        let held = self.pieces.finish();
        self.show(&held).await;
        self.lines.finish().await;
        keep_end(&mut self.kept);
        self.kept
    }
}

fn keep_end(text: &mut String) {
    let start = text.ceil_char_boundary(text.len().saturating_sub(KEPT));
    text.drain(..start);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept() {
        let mut text = "é".repeat(KEPT);
        text.push('x');
        keep_end(&mut text);
        assert!(text.len() <= KEPT && text.len() > KEPT - 2 && text.ends_with("éx"));
    }
}
