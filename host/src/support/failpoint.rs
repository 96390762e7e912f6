//! Named places where the crash harness stops this process as the system would: with SIGKILL, nothing flushed, nothing said.
//!
//! Without the feature `failpoints` the macro is nothing. With it, `WINDLASS_FAILPOINT=<name>:<n>` kills at the n-th time the place
//! is reached, counted from 1 (with `WINDLASS_FAILPOINT_SIGNAL=STOP` it stops there until it is woken, with `PANIC` the code there panics, as a bug would), and `WINDLASS_FAILPOINT_TRACE=<file>` appends the name of every place that is reached.

/// A place where a crash is tried.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::support::failpoint::reached($name);
    };
}

#[cfg(feature = "failpoints")]
pub use armed::reached;

#[cfg(feature = "failpoints")]
mod armed {
    use rustix::process::{Signal, getpid, kill_process};
    use std::{
        env,
        fs::OpenOptions,
        io::Write,
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    static REACHED: AtomicU64 = AtomicU64::new(0);

    /// Called by the macro.
    pub fn reached(name: &str) {
        if let Some(path) = env::var_os("WINDLASS_FAILPOINT_TRACE") {
            let file = OpenOptions::new().create(true).append(true).open(path);
            // The trace is the harness's: where it cannot be written, the harness finds no kill points and fails.
            let _ = file.and_then(|mut file| writeln!(file, "{name}"));
        }
        let Ok(armed) = env::var("WINDLASS_FAILPOINT") else {
            return;
        };
        let Some((wanted, count)) = armed.rsplit_once(':') else {
            return;
        };
        if wanted == name && count.parse() == Ok(REACHED.fetch_add(1, Ordering::SeqCst) + 1) {
            let asked = env::var("WINDLASS_FAILPOINT_SIGNAL").unwrap_or_default();
            assert!(asked != "PANIC", "the failpoint `{name}` was asked to panic");
            let is_stop = asked == "STOP";
            let signal = if is_stop { Signal::STOP } else { Signal::KILL };
            let _ = kill_process(getpid(), signal);
            // The signal is on its way.
            if is_stop {
                // Another thread may be given the signal: this one waits for it here, and not in the middle of a commit.
                return std::thread::park_timeout(Duration::from_millis(50));
            }
            loop {
                std::thread::park();
            }
        }
    }
}
