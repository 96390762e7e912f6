//! A process group: one program and all it starts, which end together.
//!
//! The program is the group's leader. Its end is seen without reaping it, and it is reaped only after the group was killed:
//! until then the system gives its number to nobody else, so a signal never hits a stranger.

use crate::{failure::Failure, service::patience::Patience};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    signal::unix::{Signal as SignalStream, SignalKind, signal},
};

/// How long a program may take to leave by itself after it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// Killed when dropped, unless it has ended.
pub(super) struct Group {
    child: Child,
    leader: Pid,
    /// A child of this process, perhaps ours, has ended.
    children: SignalStream,
    is_reaped: bool,
}

/// The leader's standard streams.
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

/// How it ended.
pub(super) enum Ended {
    By(ExitStatus),
    Stopped(Failure),
    Lost(io::Error),
}

impl Group {
    pub(super) fn spawn(mut command: Command) -> io::Result<(Self, Pipes)> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        // From before the start: no end is missed.
        let children = signal(SignalKind::child())?;
        let mut child = command.spawn()?;
        let gone = || io::Error::other("it was gone at once");
        let number = child.id().and_then(|id| i32::try_from(id).ok());
        let leader = number.and_then(Pid::from_raw).ok_or_else(gone)?;
        let pipes = Pipes {
            stdin: child.stdin.take().ok_or_else(gone)?,
            stdout: child.stdout.take().ok_or_else(gone)?,
            stderr: child.stderr.take().ok_or_else(gone)?,
        };
        let group = Self {
            child,
            leader,
            children,
            is_reaped: false,
        };
        Ok((group, pipes))
    }

    /// Waits for the leader's end, or for the end of patience, and leaves nobody of the group behind.
    pub(super) async fn end(&mut self, patience: &Patience) -> Ended {
        let stopped = tokio::select! {
            biased;
            () = self.leader_ends() => None,
            failure = patience.ended() => Some(failure),
        };
        if stopped.is_some() {
            self.signal(Signal::TERM);
            // Whether it left or not, what remains is killed.
            let _ = tokio::time::timeout(GRACE, self.leader_ends()).await;
        }
        self.signal(Signal::KILL);
        let status = self.child.wait().await;
        self.is_reaped = true;
        match (stopped, status) {
            (Some(failure), _) => Ended::Stopped(failure),
            (None, Ok(status)) => Ended::By(status),
            (None, Err(error)) => Ended::Lost(error),
        }
    }

    async fn leader_ends(&mut self) {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        // An error means that it cannot be watched: then it is ended now rather than never.
        while let Ok(None) = waitid(WaitId::Pid(self.leader), look) {
            if self.children.recv().await.is_none() {
                return;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        // No such group: all have ended already.
        let _ = kill_process_group(self.leader, signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.signal(Signal::KILL);
        }
    }
}
