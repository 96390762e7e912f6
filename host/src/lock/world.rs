//! What the rules of a lease need to know of the world: which boot of which machine this is, how long ago it began, and whether
//! a process still runs. The wall clock is not among it.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::{fs, path::Path, sync::Arc, time::Duration};

/// One boot of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Boot {
    /// Made anew by the kernel whenever it starts; containers share that of their host.
    pub(crate) id: String,
    /// Of the installation. Empty where it has none, as in most containers.
    pub(crate) machine: String,
    pub(crate) host: String,
}

/// A moment on one boot. Moments of different boots cannot be compared.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) boot: Arc<Boot>,
    /// By CLOCK_BOOTTIME: nobody can set it, and it goes on while the machine sleeps.
    pub(crate) since_boot: Duration,
}

/// A process, told apart from a later one with the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// In the kernel's ticks since the boot.
    pub(crate) started: u64,
    /// The pid is a number of this namespace only. Empty where the system does not say.
    pub(crate) namespace: String,
}

/// Whether a process of this boot still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Running,
    Gone,
    /// It lives in another container.
    Unknown,
}

/// The edge to the system; tests have one of their own.
pub(crate) trait World: Send + Sync {
    fn now(&self) -> Moment;
    fn presence(&self, process: &Process) -> Presence;
}

/// This machine.
pub(crate) struct System {
    boot: Arc<Boot>,
}

impl System {
    pub(crate) fn new() -> Self {
        let line = |path: &str| {
            fs::read_to_string(path)
                .map(|text| text.trim().to_string())
                .unwrap_or_default()
        };
        let boot = Boot {
            id: line("/proc/sys/kernel/random/boot_id"),
            machine: line("/etc/machine-id"),
            host: line("/proc/sys/kernel/hostname"),
        };
        Self { boot: Arc::new(boot) }
    }
}

impl World for System {
    fn now(&self) -> Moment {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Moment {
            boot: self.boot.clone(),
            since_boot: Duration::new(seconds, nanos),
        }
    }

    fn presence(&self, process: &Process) -> Presence {
        if process.namespace.is_empty() || process.namespace != namespace() {
            return Presence::Unknown;
        }
        match fs::read_to_string(format!("/proc/{}/stat", process.pid)) {
            Ok(stat) => match read_stat(&stat) {
                Some((is_over, started)) if is_over || started != process.started => Presence::Gone,
                Some(_) => Presence::Running,
                None => Presence::Unknown,
            },
            // Without /proc for this process itself, a missing entry proves nothing.
            Err(_) if Path::new("/proc/self/stat").exists() => Presence::Gone,
            Err(_) => Presence::Unknown,
        }
    }
}

impl Process {
    /// The process that asks.
    pub(crate) fn this() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        match read_stat(&stat) {
            Some((_, started)) => Self {
                pid: std::process::id(),
                started,
                namespace: namespace(),
            },
            None => Self {
                pid: std::process::id(),
                started: 0,
                namespace: String::new(),
            },
        }
    }
}

/// `pid:[4026531836]`.
fn namespace() -> String {
    fs::read_link("/proc/self/ns/pid")
        .map(|link| link.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Whether the process has ended, and when it started: fields 3 and 22 of `/proc/<pid>/stat`. The second field is the
/// program's name, which may hold anything, so the fields are counted from its last parenthesis.
fn read_stat(stat: &str) -> Option<(bool, u64)> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace();
    let is_over = matches!(fields.next()?, "Z" | "X");
    let started = fields.nth(18)?.parse().ok()?;
    Some((is_over, started))
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// A world that stands still until a test moves it.
    pub(crate) struct Fake(Mutex<(Moment, Presence)>);

    impl Fake {
        pub(crate) fn new() -> Arc<Self> {
            let moment = Moment {
                boot: Arc::new(boot("boot-1")),
                since_boot: Duration::from_secs(1_000),
            };
            Arc::new(Self(Mutex::new((moment, Presence::Running))))
        }

        fn state(&self) -> MutexGuard<'_, (Moment, Presence)> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn pass(&self, time: Duration) {
            self.state().0.since_boot += time;
        }

        pub(crate) fn set(&self, presence: Presence) {
            self.state().1 = presence;
        }

        pub(crate) fn restart(&self, boot: Boot) {
            self.state().0 = Moment {
                boot: Arc::new(boot),
                since_boot: Duration::from_secs(1),
            };
        }
    }

    impl World for Fake {
        fn now(&self) -> Moment {
            self.state().0.clone()
        }

        fn presence(&self, _: &Process) -> Presence {
            self.state().1
        }
    }

    pub(crate) fn boot(id: &str) -> Boot {
        Boot {
            id: id.into(),
            machine: "machine".into(),
            host: "host".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_one_that_ended_is_gone() {
        let system = System::new();
        let this = Process::this();
        assert_eq!(system.presence(&this), Presence::Running);
        let later = Process {
            started: this.started + 1,
            ..this.clone()
        };
        assert_eq!(
            system.presence(&later),
            Presence::Gone,
            "the number was given again"
        );
        let elsewhere = Process {
            namespace: "pid:[1]".into(),
            ..this.clone()
        };
        assert_eq!(system.presence(&elsewhere), Presence::Unknown);
        let mut child = std::process::Command::new("true").spawn().expect("starts");
        let pid = child.id();
        child.wait().expect("ends");
        assert_eq!(system.presence(&Process { pid, ..this }), Presence::Gone);
    }

    #[test]
    fn the_clock_of_the_boot_is_that_of_the_kernel() {
        let uptime = fs::read_to_string("/proc/uptime").expect("Linux has it");
        let seconds: f64 = uptime
            .split(' ')
            .next()
            .and_then(|text| text.parse().ok())
            .expect("a number");
        let now = System::new().now();
        // Read one after the other.
        assert!((now.since_boot.as_secs_f64() - seconds).abs() < 60.0);
        assert!(!now.boot.id.is_empty());
    }

    #[test]
    fn a_programs_name_cannot_disturb_the_fields() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(read_stat(&format!("7 (a) Z) {fields}")), Some((false, 4711)));
        assert_eq!(
            read_stat(&format!("7 (a) {}", fields.replacen('S', "Z", 1))),
            Some((true, 4711))
        );
        assert_eq!(read_stat("7 (a) S 1 2"), None);
        assert_eq!(read_stat(""), None);
    }
}
