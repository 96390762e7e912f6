//! The exit codes: a contract with every script that calls `windlass`.

/// How a command ended. One constant for each row of the table in `windlass run --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitCode {
    pub code: u8,
    /// `exit.reason` in JSON.
    pub reason: &'static str,
    pub meaning: &'static str,
}

macro_rules! exit_codes {
    ($($name:ident = $code:literal, $reason:literal, $meaning:literal;)*) => {
        impl ExitCode {
            $(
                #[doc = $meaning]
                pub const $name: Self = Self { code: $code, reason: $reason, meaning: $meaning };
            )*

            /// All of them, by code.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

exit_codes! {
    SUCCEEDED = 0, "succeeded", "succeeded";
    FAILED = 1, "failed", "a stage failed and the state is safe: nothing changed, or everything was rolled back";
    CHANGES = 2, "changes", "only `plan --detailed-exitcode`: there are changes";
    NOT_CLEAN = 3, "needs-operator", "failed and not clean: an operator is needed";
    PAUSED = 4, "paused", "paused: `windlass resume` goes on";
    USAGE = 64, "usage", "wrong usage";
    INVALID = 65, "invalid", "a file is not valid (pipeline, policy, plugin, lock)";
    UNAVAILABLE = 69, "unavailable", "a needed service is unreachable (Docker, Vault, registry, database)";
    INTERNAL = 70, "internal", "a bug in Windlass";
    LOCKED = 75, "locked", "the lock is held: try later";
    DENIED = 77, "denied", "denied: a capability or a policy said no";
    TIMED_OUT = 124, "timed-out", "the run's own time ran out";
    INTERRUPTED = 130, "interrupted", "interrupted, after an orderly stop";
    TERMINATED = 143, "terminated", "terminated, after an orderly stop";
}

impl ExitCode {
    /// The constant of a code.
    pub fn of(code: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.code == code)
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(exit: ExitCode) -> Self {
        Self::from(exit.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the published table, written out again: a change of one of them breaks scripts.
    #[test]
    fn the_contract() {
        let published = [0, 1, 2, 3, 4, 64, 65, 69, 70, 75, 77, 124, 130, 143];
        let codes: Vec<u8> = ExitCode::ALL.iter().map(|one| one.code).collect();
        assert_eq!(codes, published);
        for one in ExitCode::ALL {
            assert_eq!(ExitCode::of(one.code), Some(*one));
        }
        assert_eq!(ExitCode::of(5), None);
    }
}
