//! A Redis server in a container, by the programs that its image has: dumped, looked into, proved in a second server beside it, and filled.
//!
//! A password goes through the environment, never through arguments.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use windlass_guest::Error;
use windlass_guest::containers::{Output, Program};

use crate::host::Host;
use crate::service;

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Redis {
    /// `service`, or `project/service`.
    pub container: String,
    pub password: Option<String>,
}

const LONG: u64 = 24 * 3600 * 1000;
/// While a server loads it is asked so often.
const PAUSE: Duration = Duration::from_millis(500);
/// An hour of loading.
const MOST_LOOKS: u32 = 7200;

/// What a server holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Keys by database: `db0`.
    pub keys: BTreeMap<String, u64>,
    /// Keys that go by themselves.
    pub expires: u64,
    /// Changes that it counts.
    pub changes: u64,
}

impl Redis {
    /// The running container.
    ///
    /// # Errors
    /// As [`service::running`].
    pub fn find(&self, host: &mut dyn Host) -> Result<String, Error> {
        service::running(host, &self.container)
    }

    /// Writes everything into a file in the container, as a replica would get it. The server's own dump stays what it is.
    ///
    /// # Errors
    /// `redis.failed`, and those of the host.
    pub fn dump(&self, host: &mut dyn Host, id: &str, path: &str) -> Result<(), Error> {
        self.run(host, id, &["redis-cli", "--rdb", path]).map(drop)
    }

    /// # Errors
    /// As [`Redis::dump`].
    pub fn contents(&self, host: &mut dyn Host, id: &str) -> Result<Contents, Error> {
        self.contents_at(host, id, None)
    }

    fn contents_at(&self, host: &mut dyn Host, id: &str, socket: Option<&str>) -> Result<Contents, Error> {
        let mut contents = Contents::default();
        let keyspace = self.cli(host, id, socket, &["INFO", "keyspace"])?;
        for line in keyspace.lines().filter(|line| line.starts_with("db")) {
            let (database, fields) = line.split_once(':').unwrap_or((line, ""));
            let number = |field: &str| {
                let found = fields
                    .split(',')
                    .find_map(|pair| pair.strip_prefix(field)?.strip_prefix('='));
                found
                    .and_then(|text| text.trim().parse::<u64>().ok())
                    .unwrap_or(0)
            };
            contents.keys.insert(database.to_owned(), number("keys"));
            contents.expires += number("expires");
        }
        let persistence = self.cli(host, id, socket, &["INFO", "persistence"])?;
        contents.changes = field(&persistence, "rdb_changes_since_last_save")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        Ok(contents)
    }

    /// One setting of the server.
    ///
    /// # Errors
    /// As [`Redis::dump`].
    pub fn setting(&self, host: &mut dyn Host, id: &str, name: &str) -> Result<String, Error> {
        let answer = self.cli(host, id, None, &["CONFIG", "GET", name])?;
        Ok(answer.lines().nth(1).unwrap_or_default().to_owned())
    }

    /// Checks the RDB file in the container and loads it into a second server there, which only its socket knows and which the system ends first when
    /// memory is short. Answers what that server held.
    ///
    /// # Errors
    /// `redis.damaged` when the file is none, else as [`Redis::dump`].
    pub fn try_out(&self, host: &mut dyn Host, id: &str, directory: &str) -> Result<Contents, Error> {
        let file = format!("{directory}/dump.rdb");
        let checked = host.exec(id, &program(&["redis-check-rdb", &file]))?;
        if checked.exit != 0 {
            let reason = checked
                .stdout
                .lines()
                .find(|line| line.contains("[offset") && !line.contains("AUX"));
            let reason = reason.unwrap_or("redis-check-rdb refuses it").to_owned();
            return Err(Error::new("redis.damaged", reason));
        }
        let socket = format!("{directory}/socket");
        let server = [
            "redis-server",
            "--port",
            "0",
            "--unixsocket",
            &socket,
            "--dir",
            directory,
            "--dbfilename",
            "dump.rdb",
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "yes",
            "--logfile",
            &format!("{directory}/log"),
            "--oom-score-adj",
            "absolute",
            "--oom-score-adj-values",
            "1000",
            "1000",
            "1000",
        ];
        let started = host.exec(id, &program(&server))?;
        if started.exit != 0 {
            return Err(failed(&started));
        }
        let contents = self
            .until_loaded(host, id, Some(&socket))
            .and_then(|()| self.contents_at(host, id, Some(&socket)));
        // It saves nothing: the file is as it was.
        let ended = host.exec(
            id,
            &program(&[
                "env",
                "-u",
                "REDISCLI_AUTH",
                "redis-cli",
                "-s",
                &socket,
                "SHUTDOWN",
                "NOSAVE",
            ]),
        );
        if let Err(error) = ended {
            host.warn(&format!(
                "a scratch server may still run in the container: {}",
                error.message
            ));
        }
        contents
    }

    /// # Errors
    /// `redis.damaged` when it does not come up, `cancelled`, and those of the host.
    pub fn until_loaded(&self, host: &mut dyn Host, id: &str, socket: Option<&str>) -> Result<(), Error> {
        let mut refused = 0;
        for _ in 0..MOST_LOOKS {
            match self.cli(host, id, socket, &["INFO", "persistence"]) {
                Ok(answer) if field(&answer, "loading") == Some("0") => return Ok(()),
                Ok(_) => {}
                // A server that starts does not listen yet; one that ended never will.
                Err(error) if error.code == "redis.failed" && refused < 60 => refused += 1,
                Err(error) if error.code == "redis.failed" => {
                    return Err(Error::new(
                        "redis.damaged",
                        "a server that is given it does not come up",
                    ));
                }
                Err(error) => return Err(error),
            }
            if !host.sleep(PAUSE) {
                return Err(Error::new("cancelled", "the run wants this stage to end").retryable());
            }
        }
        Err(Error::new("redis.failed", "the server is still loading after an hour").retryable())
    }

    fn cli(
        &self,
        host: &mut dyn Host,
        id: &str,
        socket: Option<&str>,
        words: &[&str],
    ) -> Result<String, Error> {
        // The scratch server has no password, also where the container's environment has one.
        let mut argv = match socket {
            Some(_) => vec!["env", "-u", "REDISCLI_AUTH", "redis-cli", "--raw"],
            None => vec!["redis-cli", "--raw"],
        };
        argv.extend(socket.iter().flat_map(|socket| ["-s", socket]));
        argv.extend(words);
        match socket {
            Some(_) => answer(host.exec(id, &program(&argv))?),
            None => self.run(host, id, &argv),
        }
    }

    fn run(&self, host: &mut dyn Host, id: &str, argv: &[&str]) -> Result<String, Error> {
        let password = self.password.iter();
        let program = Program {
            environment: password
                .map(|text| ("REDISCLI_AUTH".to_owned(), text.clone()))
                .collect(),
            ..program(argv)
        };
        answer(host.exec(id, &program)?)
    }
}

/// A program that may be run twice.
pub fn program(argv: &[&str]) -> Program {
    Program {
        timeout_ms: Some(LONG),
        ..Program::new(argv.iter().copied()).repeatable()
    }
}

/// `redis-cli` ends with 0 whatever the server says: what it says counts.
fn answer(output: Output) -> Result<String, Error> {
    let refusals = [
        "NOAUTH",
        "WRONGPASS",
        "ERR ",
        "NOPERM",
        "AUTH failed",
        "Could not connect",
    ];
    let refused = output
        .stdout
        .lines()
        .chain(output.stderr.lines())
        .any(|line| refusals.iter().any(|refusal| line.starts_with(refusal)));
    match output.exit == 0 && !refused {
        true => Ok(output.stdout.replace('\r', "")),
        false => Err(failed(&output)),
    }
}

fn failed(output: &Output) -> Error {
    let mut lines = output.stderr.lines().chain(output.stdout.lines());
    let told = lines
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("it ended without a word");
    Error::new("redis.failed", format!("redis: {told}"))
        .help("`password` has to be the server's: `password: \"${{ secrets.NAME }}\"`")
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(exit: i64, stdout: &str, stderr: &str, expected: Option<&str>) {
        let output = Output {
            exit,
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        assert_eq!(answer(output).ok().as_deref(), expected);
    }

    #[test]
    fn what_the_server_says_counts() {
        check(0, "# Keyspace\r\n", "", Some("# Keyspace\n"));
        check(0, "NOAUTH Authentication required.\n", "", None);
        check(0, "", "AUTH failed: WRONGPASS invalid\n", None);
        check(1, "", "Could not connect to Redis\n", None);
        check(1, "", "", None);
    }

    #[test]
    fn fields_are_found() {
        let info = "# Persistence\nloading:0\nasync_loading:1\n";
        assert_eq!(field(info, "loading"), Some("0"));
        assert_eq!(field(info, "load"), None);
    }
}
