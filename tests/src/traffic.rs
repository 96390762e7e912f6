//! Requests at a constant rate, on new and on kept connections, while something else happens: none may fail.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};
use windlass_load::{Load, Mode, Running, Target, Trust};

/// Longer than any test.
const DURATION: Duration = Duration::from_secs(4 * 3600);
const KEPT: u32 = 10;

/// A load that is being sent.
pub struct Traffic {
    running: Vec<(&'static str, Running)>,
}

impl Traffic {
    /// Sends `rate` requests a second, half of them on new connections.
    ///
    /// # Panics
    /// The target cannot be reached.
    pub fn start(target: &Target, connect: SocketAddr, trust: Option<Trust>, rate: u32) -> Self {
        let modes = [
            ("new connections", Mode::Close),
            ("kept connections", Mode::KeepAlive { connections: KEPT }),
        ];
        let running = modes.map(|(name, mode)| {
            let load = Load {
                connect: Some(connect),
                mode,
                rate: Some(rate / 2),
                duration: DURATION,
                trust: trust.clone(),
                ..Load::of(target.clone())
            };
            (name, windlass_load::start(load).expect("the load starts"))
        });
        Self {
            running: running.into(),
        }
    }

    /// Ends it. How many requests failed.
    pub fn failed(self) -> u64 {
        let reports = self.running.into_iter().map(|(_, running)| running.stop());
        reports.map(|report| report.failures()).sum()
    }

    /// Ends it. How many requests were sent; each was answered, and none by an error of the server.
    ///
    /// # Panics
    /// One was not.
    pub fn expect_all_answered(self) -> u64 {
        let mut sent = 0;
        for (name, running) in self.running {
            let report = running.stop();
            println!(
                "{name}: {} sent, {} failed, {} lost, p99 {} ms, longest {} ms",
                report.sent,
                report.failures(),
                report.lost,
                report.p99_ms,
                report.max_ms
            );
            assert!(report.sent > 0, "{name}: {report:?}");
            assert_eq!((report.failures(), report.lost), (0, 0), "{name}: {report:?}");
            sent += report.sent;
        }
        sent
    }
}

/// A client that nobody here wrote, sending until it is asked to end.
pub struct Client {
    name: &'static str,
    process: Child,
}

impl Client {
    /// # Panics
    /// It is not installed.
    pub fn start(name: &'static str, arguments: &[&str]) -> Self {
        let process = Command::new(name)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} (apt-get install {name}): {error}"));
        Self { name, process }
    }

    /// What it says when it is interrupted.
    ///
    /// # Panics
    /// It had ended by itself.
    pub fn report(self) -> String {
        let id = self.process.id().to_string();
        let asked = Command::new("kill").args(["-INT", &id]).status();
        assert!(
            asked.is_ok_and(|status| status.success()),
            "{} has ended",
            self.name
        );
        let output = self.process.wait_with_output().expect("it ends");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ends `hey`. How many responses it had.
    ///
    /// # Panics
    /// One was not a 200, or did not come.
    pub fn expect_only_200(self) -> String {
        let report = self.report();
        let statuses = report.split_once("Status code distribution:");
        let statuses = statuses.map_or("", |(_, rest)| rest).trim();
        // One line, and no errors below it.
        assert!(
            statuses.starts_with("[200]") && !statuses.contains('\n'),
            "{report}"
        );
        statuses.to_string()
    }

    /// Ends `wrk`. What it says.
    ///
    /// # Panics
    /// A request was lost, too late, or answered by an error.
    pub fn expect_no_errors(self) -> String {
        let report = self.report();
        assert!(
            !report.contains("Socket errors") && !report.contains("Non-2xx"),
            "{report}"
        );
        report
    }
}
