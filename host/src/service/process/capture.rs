//! Feeds a program and takes what it writes, until it has ended.

use super::group::{Ended, Group, Pipes};
use crate::{
    event::LogLevel,
    service::{capture::Capture, events::Log, patience::Patience, words::Words},
};
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};

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
