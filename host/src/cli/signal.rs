//! SIGINT and SIGTERM: the first asks the run to stop in order, the second ends the process at once with the journal intact.

use super::exit_code::ExitCode;
use crate::{lock::Lost, run::Stop};
use std::pin::pin;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Watches the signals, and the run's lock where it holds one, for as long as the returned receiver's run goes on.
pub(super) fn watch(lock: Option<Lost>) -> std::io::Result<watch::Receiver<Option<Stop>>> {
    let (sender, receiver) = watch::channel(None);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let mut lost = pin!(async {
            match lock {
                Some(lock) => lock.wait().await,
                None => std::future::pending().await,
            }
        });
        let mut is_held = true;
        loop {
            let stop = tokio::select! {
                _ = interrupt.recv() => Stop::Interrupted,
                _ = terminate.recv() => Stop::Terminated,
                () = &mut lost, if is_held => {
                    is_held = false;
                    // Nobody left to tell: the run has ended. One that is stopping already hears of it from its journal.
                    let _ = sender.send_if_modified(|stop| stop.is_none() && stop.replace(Stop::LockLost).is_none());
                    continue;
                }
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
