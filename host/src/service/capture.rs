//! What a program writes: redacted as one stream, then line by line to the log, and the end of it kept. Bounded throughout: a
//! program that writes faster than the report can take is slowed down.

use super::{
    events::Log,
    stdio::Lines,
    words::{Pieces, Words},
};
use crate::event::LogLevel;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use wasmtime_wasi::cli::StdoutStream;

/// As much of each stream as the WIT says.
const KEPT: usize = 64 << 10;
/// One read of a pipe.
const PIECE: usize = 16 << 10;

/// One stream.
pub(crate) struct Capture {
    pieces: Pieces,
    shown: Option<Shown>,
    kept: String,
}

/// The log that lines go to.
struct Shown {
    lines: Lines,
    writer: Pin<Box<dyn AsyncWrite + Send + Sync>>,
}

impl Capture {
    pub(crate) fn new(log: &Log, level: LogLevel, words: &Words) -> Self {
        let lines = Lines::new(log.clone(), level);
        Self {
            shown: Some(Shown {
                writer: Box::into_pin(lines.async_stream()),
                lines,
            }),
            ..Self::silent(words)
        }
    }

    /// Keeps the end and shows nothing.
    pub(crate) fn silent(words: &Words) -> Self {
        Self {
            pieces: words.pieces(),
            shown: None,
            kept: String::new(),
        }
    }

    /// Takes a piece of the stream.
    pub(crate) async fn push(&mut self, piece: &[u8]) {
        let text = self.pieces.push(piece);
        self.show(&text).await;
    }

    pub(crate) async fn read(&mut self, mut pipe: impl AsyncRead + Unpin) {
        let mut piece = vec![0; PIECE];
        // An error of the pipe is its end: the status says how the program fared.
        while let Ok(length @ 1..) = pipe.read(&mut piece).await {
            self.push(piece.get(..length).unwrap_or_default()).await;
        }
    }

    async fn show(&mut self, text: &str) {
        // The log drops what is over its budget by itself, and never fails.
        if let Some(shown) = &mut self.shown {
            let _ = shown.writer.write_all(text.as_bytes()).await;
        }
        self.kept.push_str(text);
        if self.kept.len() > 2 * KEPT {
            keep_end(&mut self.kept);
        }
    }

    pub(crate) async fn finish(mut self) -> String {
        let held = self.pieces.finish();
        self.show(&held).await;
        if let Some(shown) = &mut self.shown {
            shown.lines.finish().await;
        }
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
