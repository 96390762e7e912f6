//! What a program writes: redacted as one stream, then line by line to the log, and the end of it kept. Bounded throughout: a
//! program that writes faster than the report can take is slowed down.

use super::group::{Ended, Group, Pipes};
use crate::{
    event::LogLevel,
    secret::{Mask, MaskStream},
    service::{events::Log, patience::Patience, stdio::Lines},
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
    mask: Option<&dyn Mask>,
) -> (Ended, Output) {
    let mut stdout = Capture::new(log, LogLevel::Info, mask);
    let mut stderr = Capture::new(log, LogLevel::Warn, mask);
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
    /// The start of a character whose rest has not come yet.
    unfinished: Vec<u8>,
    mask: Option<Box<dyn MaskStream>>,
    lines: Lines,
    writer: Pin<Box<dyn AsyncWrite + Send + Sync>>,
    kept: String,
}

impl Capture {
    fn new(log: &Log, level: LogLevel, mask: Option<&dyn Mask>) -> Self {
        let lines = Lines::new(log.clone(), level);
        Self {
            unfinished: Vec::new(),
            mask: mask.map(Mask::stream),
            writer: Box::into_pin(lines.async_stream()),
            lines,
            kept: String::new(),
        }
    }

    async fn read(&mut self, mut pipe: impl AsyncRead + Unpin) {
        let mut piece = vec![0; PIECE];
        // An error of the pipe is its end: the status says how the program fared.
        while let Ok(length @ 1..) = pipe.read(&mut piece).await {
            self.unfinished.extend(piece.iter().take(length));
            let text = take_text(&mut self.unfinished);
            let shown = match &mut self.mask {
                Some(mask) => mask.push(&text),
                None => text,
            };
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
        let rest = String::from_utf8_lossy(&std::mem::take(&mut self.unfinished)).into_owned();
        let held = match &mut self.mask {
            Some(mask) => mask.push(&rest) + &mask.finish(),
            None => rest,
        };
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

/// All whole characters; what is not UTF-8 becomes U+FFFD. The start of a character at the end stays in `bytes`.
fn take_text(bytes: &mut Vec<u8>) -> String {
    let last = bytes
        .utf8_chunks()
        .last()
        .map_or(&[][..], |chunk| chunk.invalid());
    let may_go_on = matches!(std::str::from_utf8(last), Err(error) if error.error_len().is_none());
    let kept = if may_go_on { last.len() } else { 0 };
    let rest = bytes.split_off(bytes.len() - kept);
    let whole = std::mem::replace(bytes, rest);
    String::from_utf8_lossy(&whole).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_are_split_over_pieces_stay_whole() {
        let check = |pieces: &[&[u8]], expected: &str| {
            let mut bytes = Vec::new();
            let mut text = String::new();
            for piece in pieces {
                bytes.extend_from_slice(piece);
                text += &take_text(&mut bytes);
            }
            text += &String::from_utf8_lossy(&bytes);
            assert_eq!(text, expected);
        };
        check(&[b"a\xc3", b"\xa9b"], "aéb");
        check(&[b"\xf0\x9f", b"\x98", b"\x80"], "\u{1f600}");
        check(&[b"\xff\xc3", b"\xa9"], "\u{fffd}é");
        check(&[b"\xffa"], "\u{fffd}a");
        check(&[b"a\xc3"], "a\u{fffd}");
        check(&[b"\xff", b"\xff"], "\u{fffd}\u{fffd}");
    }

    #[test]
    fn the_end_is_kept() {
        let mut text = "é".repeat(KEPT);
        text.push('x');
        keep_end(&mut text);
        assert!(text.len() <= KEPT && text.len() > KEPT - 2 && text.ends_with("éx"));
    }
}
