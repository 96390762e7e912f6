//! SIGINT and SIGTERM: the first asks the run to stop in order, the second ends the process at once with the journal intact.

use super::exit_code::ExitCode;
use crate::run::Stop;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Watches the signals for as long as the returned receiver's run goes on.
pub(super) fn watch() -> std::io::Result<watch::Receiver<Option<Stop>>> {
    let (sender, receiver) = watch::channel(None);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            let stop = tokio::select! {
                _ = interrupt.recv() => Stop::Interrupted,
                _ = terminate.recv() => Stop::Terminated,
            };
            if sender.borrow().is_some() {
                let code = if stop == Stop::Interrupted {
                    ExitCode::INTERRUPTED
                } else {
                    ExitCode::TERMINATED
                };
                // Whatever is in memory only is given up: the journal has what happened, and `resume` what is to be done.
                std::process::exit(code.code.into());
            }
            // Nobody left to tell: the run has ended.
            let _ = sender.send(Some(stop));
        }
    });
    Ok(receiver)
}
