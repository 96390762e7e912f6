//! A PostgreSQL database in a container, by the programs that its image has: dumped, counted, restored into a database of its own, and exchanged.
//!
//! What is said here runs inside of the container. A password goes through the environment, never through arguments.

use std::collections::BTreeMap;

use serde::Deserialize;
use windlass_guest::Error;
use windlass_guest::containers::{Output, Program};

use crate::host::Host;
use crate::service;

/// Where the database is and who asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Postgres {
    /// `service`, or `project/service`.
    pub container: String,
    pub database: String,
    /// Has to be allowed to make databases: a backup is proved in one of its own.
    pub user: String,
    pub password: Option<String>,
}

/// Dumps and restores take as long as they take: the stage's deadline ends them. What the host allows at most.
const LONG: u64 = 24 * 3600 * 1000;
/// How often an exchange is tried while others connect again and again.
const TRIES: u32 = 10;
/// PostgreSQL cuts longer names off.
const LONGEST_NAME: usize = 63;

impl Postgres {
    /// The running container.
    ///
    /// # Errors
    /// As [`service::running`].
    pub fn find(&self, host: &mut dyn Host) -> Result<String, Error> {
        service::running(host, &self.container)
    }

    /// Writes the whole database as SQL.
    pub fn dump(&self) -> Program {
        let argv = ["pg_dump", "-w", "-U", &self.user, "-d", &self.database];
        self.program(argv.map(str::to_owned).into())
    }

    /// Reads such SQL into the database `name`, all or nothing.
    pub fn load(&self, name: &str) -> Program {
        let mut argv = self.psql(name);
        argv.extend(["-1", "-o", "/dev/null"].map(str::to_owned));
        self.program(argv)
    }

    /// Two moments that are the same enclose a time in which nobody changed anything.
    ///
    /// # Errors
    /// `postgres.failed`, and those of the host.
    pub fn moment(&self, host: &mut dyn Host, id: &str, name: &str) -> Result<String, Error> {
        self.ask(host, id, name, "SELECT pg_current_snapshot()")
    }

    /// The tables that a dump of the whole database holds.
    ///
    /// # Errors
    /// As [`Postgres::moment`].
    pub fn names(&self, host: &mut dyn Host, id: &str, name: &str) -> Result<Vec<String>, Error> {
        let listed = self.ask(
            host,
            id,
            name,
            "SELECT coalesce(json_agg(format('%I.%I', n.nspname, c.relname)), '[]') FROM pg_class c \
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relpersistence = 'p' \
             AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'",
        )?;
        serde_json::from_str(&listed).map_err(|_| self.unreadable())
    }

    fn unreadable(&self) -> Error {
        failed(&self.database, "psql answers in a way that is not understood")
    }

    /// Rows by table.
    ///
    /// # Errors
    /// As [`Postgres::moment`].
    pub fn tables(&self, host: &mut dyn Host, id: &str, name: &str) -> Result<BTreeMap<String, u64>, Error> {
        let names = self.names(host, id, name)?;
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let count = |name: &String| format!("SELECT {} AS name, count(*) AS rows FROM {name}", literal(name));
        let counts: Vec<String> = names.iter().map(count).collect();
        let counting = format!(
            "SELECT json_object_agg(name, rows) FROM ({}) AS counted",
            counts.join(" UNION ALL ")
        );
        let counted = self.ask(host, id, name, &counting)?;
        serde_json::from_str(&counted).map_err(|_| self.unreadable())
    }

    /// Whether there is such a database.
    ///
    /// # Errors
    /// As [`Postgres::moment`].
    pub fn exists(&self, host: &mut dyn Host, id: &str) -> Result<bool, Error> {
        let found = format!(
            "SELECT count(*) FROM pg_database WHERE datname = {}",
            literal(&self.database)
        );
        Ok(self.ask(host, id, self.maintenance(), &found)? == "1")
    }

    /// What [`Postgres::exchange`] wrote beside the database, where it did.
    ///
    /// # Errors
    /// As [`Postgres::moment`].
    pub fn mark(&self, host: &mut dyn Host, id: &str) -> Result<String, Error> {
        let found = format!(
            "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = {}",
            literal(&self.database)
        );
        self.ask(host, id, self.maintenance(), &found)
    }

    /// Makes an empty database as the real one was made; one of this name that an attempt has left is gone.
    ///
    /// # Errors
    /// As [`Postgres::moment`].
    pub fn create(&self, host: &mut dyn Host, id: &str, name: &str) -> Result<(), Error> {
        let real = literal(&self.database);
        let script = format!(
            "DROP DATABASE IF EXISTS {name} WITH (FORCE);\n\
             SELECT format('CREATE DATABASE %I TEMPLATE template0 ENCODING %L LC_COLLATE %L LC_CTYPE %L OWNER %I', {text}, \
             pg_encoding_to_char(encoding), datcollate, datctype, pg_get_userbyid(datdba)) FROM pg_database \
             WHERE datname = {real} UNION ALL SELECT format('CREATE DATABASE %I TEMPLATE template0', {text}) \
             WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = {real}) \\gexec\n",
            name = identifier(name),
            text = literal(name),
        );
        self.ask(host, id, self.maintenance(), &script).map(drop)
    }

    /// # Errors
    /// As [`Postgres::moment`].
    pub fn drop(&self, host: &mut dyn Host, id: &str, name: &str) -> Result<(), Error> {
        let script = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name));
        self.ask(host, id, self.maintenance(), &script).map(drop)
    }

    /// Puts the database `name` in the place of the real one, in one transaction: until it commits, and if it does not, the old one is there. The old
    /// one is dropped then. `mark` is written beside the new one.
    ///
    /// # Errors
    /// `postgres.busy` when others come back faster than they are disconnected, else as [`Postgres::moment`].
    pub fn exchange(&self, host: &mut dyn Host, id: &str, name: &str, mark: &str) -> Result<(), Error> {
        let (real, new, old) = (
            identifier(&self.database),
            identifier(name),
            identifier(&shortened(&format!("{name}_old"))),
        );
        let aside = match self.exists(host, id)? {
            true => format!("ALTER DATABASE {real} RENAME TO {old};\n"),
            false => String::new(),
        };
        let disconnect = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ({}, {}) AND pid <> pg_backend_pid();\n",
            literal(&self.database),
            literal(name)
        );
        let script = format!(
            "{disconnect}BEGIN;\n{aside}ALTER DATABASE {new} RENAME TO {real};\nCOMMENT ON DATABASE {real} IS {};\nCOMMIT;\n\
             DROP DATABASE IF EXISTS {old} WITH (FORCE);\n",
            literal(mark)
        );
        for _ in 1..TRIES {
            let output = self.run(host, id, self.maintenance(), &script)?;
            if output.exit == 0 {
                return Ok(());
            }
            if !output.stderr.contains("being accessed by other users") {
                return Err(failed(&self.database, &last_line(&output)));
            }
        }
        let message = format!(
            "`{}` could not be exchanged: others connect to it faster than they are disconnected; it holds what it held",
            self.database
        );
        Err(Error::new("postgres.busy", message)
            .retryable()
            .help("stop what uses the database before it is restored"))
    }

    /// The answer to one statement, or to a script of them.
    fn ask(&self, host: &mut dyn Host, id: &str, name: &str, script: &str) -> Result<String, Error> {
        let output = self.run(host, id, name, script)?;
        match output.exit {
            0 => Ok(output.stdout.trim_end().to_owned()),
            _ => Err(failed(&self.database, &last_line(&output))),
        }
    }

    /// Every attempt makes its own database and exchanges that: nothing here does harm when it is done again.
    fn run(&self, host: &mut dyn Host, id: &str, name: &str, script: &str) -> Result<Output, Error> {
        host.exec(id, &self.program(self.psql(name)).input(script))
    }

    fn psql(&self, name: &str) -> Vec<String> {
        let argv = [
            "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-w",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            &self.user,
            "-d",
            name,
        ];
        argv.map(str::to_owned).into()
    }

    fn program(&self, argv: Vec<String>) -> Program {
        let password = self.password.iter();
        Program {
            argv,
            environment: password
                .map(|text| ("PGPASSWORD".to_owned(), text.clone()))
                .collect(),
            timeout_ms: Some(LONG),
            repeatable: true,
            ..Program::default()
        }
    }

    /// A database to connect to while the real one is made, renamed or dropped.
    fn maintenance(&self) -> &'static str {
        match self.database.as_str() {
            "postgres" => "template1",
            _ => "postgres",
        }
    }
}

/// A name for a database of ours: of this run and attempt, so that no attempt meets what another has left half done.
pub fn scratch_name(what: &str, host: &mut dyn Host, name: &str) -> String {
    let tag = service::tag(host, name);
    shortened(&format!("windlass_{what}_{tag}"))
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(LONGEST_NAME) {
        // The end tells them apart.
        Some(_) => name.chars().skip(name.chars().count() - LONGEST_NAME).collect(),
        None => name.to_owned(),
    }
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Standard strings take a backslash as it is.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn last_line(output: &Output) -> String {
    let text = if output.stderr.trim().is_empty() {
        &output.stdout
    } else {
        &output.stderr
    };
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or("psql ended without a word").to_owned()
}

fn failed(database: &str, why: &str) -> Error {
    Error::new("postgres.failed", format!("the database `{database}`: {why}"))
        .help("`user` has to be one that the server lets in and that may make databases")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's \\"), "'it''s \\'");
        assert_eq!(shortened(&format!("x{}", "a".repeat(63))), "a".repeat(63));
    }

    #[test]
    fn passwords_go_through_the_environment() {
        let postgres = Postgres {
            container: "db".into(),
            database: "app".into(),
            user: "me".into(),
            password: Some("wlsec_1".into()),
        };
        for program in [postgres.dump(), postgres.load("x")] {
            assert_eq!(program.environment["PGPASSWORD"], "wlsec_1");
            assert!(!program.argv.iter().any(|word| word.contains("wlsec_1")));
        }
    }
}
