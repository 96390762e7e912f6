//! A service in memory that is PostgreSQL, Redis and a directory at once, as far as the programs of a backup ask. For tests of the plugins only.

use std::collections::BTreeMap;
use std::time::Duration;

use windlass_guest::Error;
use windlass_guest::containers::{Container, Output, Program};

use super::Machine;
use crate::engine::Engine;

/// Where the append-only file is.
const LOG: &str = "/data/appendonlydir";

/// One database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Database {
    pub tables: BTreeMap<String, u64>,
    pub mark: String,
}

/// The one container of every service.
#[derive(Debug)]
pub struct Service {
    pub is_running: bool,
    pub databases: BTreeMap<String, Database>,
    pub keys: BTreeMap<String, u64>,
    pub append_only: bool,
    pub files: BTreeMap<String, String>,
    /// Somebody writes while a dump is made.
    pub in_use: bool,
    /// So many exchanges meet somebody who has come back.
    pub busy: u32,
    /// The containers run as somebody else than root: there root may not touch what belongs to others.
    pub rootless: bool,
    /// Every program that was run, with its arguments.
    pub programs: Vec<String>,
    moment: u32,
    scratch: BTreeMap<String, u64>,
}

impl Default for Service {
    fn default() -> Self {
        let tables = [("public.users".to_owned(), 2), ("public.projects".to_owned(), 1)];
        let database = Database {
            tables: tables.into(),
            mark: String::new(),
        };
        let manifest =
            "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n";
        let files = [
            ("/app/uploads/a.png", "picture"),
            ("/app/uploads/sub/b.txt", "text"),
            ("/data/appendonlydir/appendonly.aof.manifest", manifest),
            ("/data/appendonlydir/appendonly.aof.1.base.rdb", "RDB {}"),
            ("/data/appendonlydir/appendonly.aof.1.incr.aof", "old commands"),
        ];
        Self {
            is_running: true,
            databases: [("app".to_owned(), database)].into(),
            keys: [("db0".to_owned(), 3)].into(),
            append_only: true,
            rootless: false,
            files: files
                .map(|(path, text)| (path.to_owned(), text.to_owned()))
                .into(),
            in_use: false,
            busy: 0,
            programs: Vec::new(),
            moment: 1,
            scratch: BTreeMap::new(),
        }
    }
}

impl Service {
    /// The files below a directory, by the rest of their paths.
    pub fn below(&self, directory: &str) -> BTreeMap<String, String> {
        let prefix = format!("{directory}/");
        let inside = self.files.iter().filter_map(|(path, text)| {
            let rest = path.strip_prefix(&prefix)?;
            Some((rest.to_owned(), text.clone()))
        });
        inside.collect()
    }

    pub(super) fn output_of(&mut self, program: &Program) -> Result<Vec<u8>, Error> {
        self.programs.push(program.argv.join(" "));
        let after = |key: &str| word_after(&program.argv, key);
        match program.argv[0].as_str() {
            "pg_dump" => {
                let database = &self.databases[after("-d")];
                let text = format!("SQL {}", serde_json::to_string(&database.tables).expect("plain"));
                if self.in_use {
                    let users = self
                        .databases
                        .get_mut("app")
                        .and_then(|app| app.tables.get_mut("public.users"));
                    *users.expect("they are there") += 1;
                    self.moment += 1;
                }
                Ok(text.into_bytes())
            }
            "cat" => Ok(self.files[&program.argv[1]].clone().into_bytes()),
            other => panic!("{other} is no source"),
        }
    }

    pub(super) fn input_of(&mut self, program: &Program, bytes: &[u8]) -> Result<(), Error> {
        self.programs.push(program.argv.join(" "));
        let text = String::from_utf8_lossy(bytes).into_owned();
        if let Some(path) = program.argv[1].strip_prefix("of=") {
            self.files.insert(path.to_owned(), text);
            return Ok(());
        }
        assert_eq!(program.argv[0], "psql");
        let tables = text
            .strip_prefix("SQL ")
            .and_then(|text| serde_json::from_str(text).ok());
        let refused = || Error::new("target.failed", "psql ended with 3: syntax error");
        let name = word_after(&program.argv, "-d");
        self.databases.get_mut(name).expect("it was made").tables = tables.ok_or_else(refused)?;
        Ok(())
    }

    fn psql(&mut self, database: &str, script: &str) -> Output {
        let Some(found) = self.databases.get(database).cloned().or_else(|| {
            let is_own = matches!(database, "postgres" | "template1");
            is_own.then(Database::default)
        }) else {
            return output(2, "", &format!("FATAL:  database \"{database}\" does not exist"));
        };
        let words: Vec<&str> = script.split('"').collect();
        let named = script.rsplit('\'').nth(1).unwrap_or_default();
        if script.starts_with("SELECT pg_current_snapshot") {
            return output(0, &format!("{0}:{0}:\n", self.moment), "");
        } else if script.starts_with("SELECT coalesce(json_agg") {
            let names: Vec<&String> = found.tables.keys().collect();
            return output(0, &serde_json::to_string(&names).expect("plain"), "");
        } else if script.starts_with("SELECT json_object_agg") {
            return output(0, &serde_json::to_string(&found.tables).expect("plain"), "");
        } else if script.starts_with("SELECT count(*) FROM pg_database") {
            return output(
                0,
                if self.databases.contains_key(named) {
                    "1"
                } else {
                    "0"
                },
                "",
            );
        } else if script.starts_with("SELECT coalesce(shobj_description") {
            return output(0, &self.databases[named].mark, "");
        } else if script.starts_with("DROP DATABASE IF EXISTS") {
            self.databases.remove(words[1]);
            if script.contains("\\gexec") {
                self.databases.insert(words[1].to_owned(), Database::default());
            }
            return output(0, "", "");
        }
        assert!(script.starts_with("SELECT pg_terminate_backend"), "{script}");
        if self.busy > 0 {
            self.busy -= 1;
            return output(3, "", "ERROR:  database \"app\" is being accessed by other users");
        }
        for renamed in script.lines().filter(|line| line.contains(" RENAME TO ")) {
            let words: Vec<&str> = renamed.split('"').collect();
            let moved = self.databases.remove(words[1]).expect("it is there");
            assert!(!self.databases.contains_key(words[3]), "the name is taken");
            self.databases.insert(words[3].to_owned(), moved);
        }
        let comment = script
            .lines()
            .find(|line| line.starts_with("COMMENT"))
            .expect("it is marked");
        let mark = comment.rsplit('\'').nth(1).expect("a text");
        self.databases
            .get_mut(comment.split('"').nth(1).expect("a name"))
            .expect("it is there")
            .mark = mark.to_owned();
        let dropped = script
            .lines()
            .last()
            .expect("a line")
            .split('"')
            .nth(1)
            .expect("a name");
        self.databases.remove(dropped);
        output(0, "", "")
    }

    fn redis_cli(&mut self, argv: &[String]) -> Output {
        let last: Vec<&str> = argv.iter().rev().take(2).map(String::as_str).collect();
        let is_scratch = argv.iter().any(|word| word == "-s");
        let keys = if is_scratch { &self.scratch } else { &self.keys };
        match (last[1], last[0]) {
            ("--rdb", path) => {
                let text = format!("RDB {}", serde_json::to_string(&self.keys).expect("plain"));
                self.files.insert(path.to_owned(), text);
                output(0, "", "Transfer finished with success")
            }
            ("INFO", "keyspace") => {
                let lines = keys
                    .iter()
                    .map(|(name, count)| format!("{name}:keys={count},expires=0,avg_ttl=0\r\n"));
                output(0, &format!("# Keyspace\r\n{}", lines.collect::<String>()), "")
            }
            ("INFO", "persistence") => output(0, "loading:0\r\nrdb_changes_since_last_save:0\r\n", ""),
            ("GET", name) => {
                let value = match name {
                    "dir" => "/data",
                    "dbfilename" => "dump.rdb",
                    "appenddirname" => "appendonlydir",
                    "appendfilename" => "appendonly.aof",
                    _ if self.append_only => "yes",
                    _ => "no",
                };
                output(0, &format!("{name}\n{value}\n"), "")
            }
            _ => output(0, "", ""),
        }
    }

    /// What counts for the server: its append-only file where it keeps one, else the dump.
    fn data(&self) -> String {
        if !self.append_only {
            return "/data/dump.rdb".to_owned();
        }
        let manifest = &self.files[&format!("{LOG}/appendonly.aof.manifest")];
        let base = manifest.split_whitespace().nth(1).expect("a base");
        format!("{LOG}/{base}")
    }

    fn save(&mut self) {
        let text = format!("RDB {}", serde_json::to_string(&self.keys).expect("plain"));
        self.files.insert(self.data(), text);
    }

    fn load(&mut self) {
        let base = self.data();
        let text = self.files[&base].strip_prefix("RDB ").expect("it is a dump");
        self.keys = serde_json::from_str(text).expect("it is whole");
    }

    fn find(&mut self, argv: &[String]) -> Output {
        let directory = &argv[1];
        let inside = self.below(directory);
        let Some(action) = argv.iter().position(|word| word == "-exec") else {
            let names: Vec<&String> = inside.keys().collect();
            return match names.is_empty() {
                true => output(1, "", "No such file or directory"),
                false => output(0, &format!("{names:?}\n"), ""),
            };
        };
        let kept = argv
            .iter()
            .position(|word| word == "-name")
            .map(|at| argv[at + 1].clone());
        for (rest, text) in inside {
            if kept.as_ref().is_some_and(|kept| rest.starts_with(kept)) {
                continue;
            }
            self.files.remove(&format!("{directory}/{rest}"));
            if argv[action + 1] == "mv" {
                self.files.insert(format!("{}{rest}", argv[action + 3]), text);
            }
        }
        output(0, "", "")
    }
}

impl Engine for Machine {
    fn containers(&mut self, service: &str) -> Result<Vec<Container>, Error> {
        let state = if self.service.is_running {
            "running"
        } else {
            "exited"
        };
        Ok(vec![Container {
            id: format!("id-of-{service}"),
            state: state.into(),
            ..Container::default()
        }])
    }

    fn exec(&mut self, container: &str, program: &Program) -> Result<Output, Error> {
        assert!(container.starts_with("id-of-"));
        if !self.service.is_running {
            return Err(Error::new("container.stopped", "it does not run"));
        }
        let argv = &program.argv;
        let what = argv.join(" ");
        if let Some(error) = self.fault_of(&what) {
            return Err(error);
        }
        let service = &mut self.service;
        service.programs.push(what);
        let is_root = program.user.as_deref() == Some("0");
        Ok(match argv[0].as_str() {
            "find" | "mkdir" | "rmdir" if is_root && service.rootless => output(1, "", "Permission denied"),
            "stat" if service.rootless => output(0, "1000:1000\n", ""),
            "psql" => service.psql(
                word_after(argv, "-d"),
                program.input.as_deref().expect("a script"),
            ),
            "redis-cli" | "env" => service.redis_cli(argv),
            "redis-check-rdb" => match service.files[&argv[1]].starts_with("RDB {") {
                true => output(0, "RDB looks OK", ""),
                false => output(1, "[offset 55] Unexpected EOF reading RDB file", ""),
            },
            "redis-server" => {
                let text = &service.files[&format!("{}/dump.rdb", word_after(argv, "--dir"))];
                service.scratch = serde_json::from_str(&text[4..]).unwrap_or_default();
                output(0, "", "")
            }
            "cat" => match service.files.get(&argv[1]) {
                Some(text) => output(0, text, ""),
                None => output(1, "", "No such file or directory"),
            },
            "rm" => {
                let path = argv.last().expect("a path");
                let below = format!("{path}/");
                service
                    .files
                    .retain(|known, _| known != path && !known.starts_with(&below));
                output(0, "", "")
            }
            "find" => service.find(argv),
            "stat" => output(0, "999 1000\n", ""),
            "mkdir" | "rmdir" => output(0, "", ""),
            other => panic!("there is no {other}"),
        })
    }

    fn stop(&mut self, _: &str) -> Result<(), Error> {
        self.moves.push("stop".into());
        self.service.save();
        self.service.is_running = false;
        Ok(())
    }

    fn start(&mut self, _: &str) -> Result<(), Error> {
        self.moves.push("start".into());
        self.service.is_running = true;
        self.service.load();
        Ok(())
    }

    fn attempt(&mut self) -> u32 {
        1
    }

    fn sleep(&mut self, _: Duration) -> bool {
        !self.cancelled
    }
}

fn word_after<'a>(argv: &'a [String], key: &str) -> &'a str {
    let at = argv
        .iter()
        .position(|word| word == key)
        .expect("the key is there");
    &argv[at + 1]
}

fn output(exit: i64, stdout: &str, stderr: &str) -> Output {
    Output {
        exit,
        stdout: stdout.into(),
        stderr: stderr.into(),
    }
}
