//! One proved file of a backup into its place. Each place is whole at every moment: it holds what it held, or the whole backup.

use windlass_backup_format::host::{Host, Sink, Source};
use windlass_backup_format::inside::Inside;
use windlass_backup_format::location::Location;
use windlass_backup_format::manifest::Record;
use windlass_backup_format::place::Place;
use windlass_backup_format::postgres::{Postgres, scratch_name};
use windlass_backup_format::redis::{self, Redis};
use windlass_backup_format::service;
use windlass_guest::Error;
use windlass_guest::containers::Program;
use windlass_guest::flow::Options;

/// A file of a backup and where it goes.
pub(crate) struct Write<'a> {
    pub(crate) name: &'a str,
    /// The file, in the backup's place.
    pub(crate) file: Place,
    pub(crate) record: &'a Record,
    pub(crate) replace: bool,
}

/// What an exchanged database is marked with: by whom, and with what.
pub(crate) fn mark(record: &Record, host: &mut dyn Host) -> String {
    format!(
        "restored by windlass in run {} from {}",
        host.run_id(),
        record.content_sha256
    )
}

impl Write<'_> {
    /// # Errors
    /// `restore.incomplete` when what was written is not what was backed up, and those of the host.
    pub(crate) fn perform(&self, location: &Location, host: &mut dyn Host) -> Result<(), Error> {
        match location {
            Location::Sqlite(url) => self.copy(Sink::Sqlite(url), host),
            Location::Directory(path) => self.copy(Sink::Directory(path), host),
            Location::Postgres(postgres) => self.fill_postgres(postgres, host),
            Location::Redis(redis) => self.fill_redis(redis, host),
            Location::ContainerPath(inside) => self.fill_directory(inside, host),
        }
    }

    fn copy(&self, to: Sink<'_>, host: &mut dyn Host) -> Result<(), Error> {
        let options = Options {
            decompress: self.record.compression.for_flow(),
            expect: Some(self.record.sha256.clone()),
            replace: self.replace,
            ..Options::default()
        };
        host.copy(self.file.source(), to, &options).map(drop)
    }

    /// Into a database of its own, which is counted and then takes the place of the real one.
    fn fill_postgres(&self, postgres: &Postgres, host: &mut dyn Host) -> Result<(), Error> {
        let id = postgres.find(host)?;
        let fresh = scratch_name("restore", host, self.name);
        postgres.create(host, &id, &fresh)?;
        let filled = self.fill(postgres, &id, &fresh, host);
        let exchanged = filled.and_then(|()| {
            let mark = mark(self.record, host);
            postgres.exchange(host, &id, &fresh, &mark)
        });
        if exchanged.is_err()
            && let Err(error) = postgres.drop(host, &id, &fresh)
        {
            host.warn(&format!("could not drop {fresh}: {}", error.message));
        }
        exchanged
    }

    fn fill(&self, postgres: &Postgres, id: &str, fresh: &str, host: &mut dyn Host) -> Result<(), Error> {
        // Not to be taken for a scratch database: this one is going to be the real one.
        let program = Program {
            repeatable: false,
            ..postgres.load(fresh)
        };
        let to = Sink::Program {
            container: id,
            program: &program,
        };
        self.copy(to, host)?;
        let found = postgres.tables(host, id, fresh)?;
        let is_whole = match &self.record.tables {
            Some(tables) => *tables == found,
            None => !found.is_empty(),
        };
        self.whole(is_whole)
    }

    /// A server that is given a dump while it has an append-only file reads the old one and never looks at the dump. So the server is stopped, and
    /// where it keeps an append-only file, the dump becomes the base of a new one, with a manifest that says so. Until that manifest is
    /// written, the old file counts.
    fn fill_redis(&self, redis: &Redis, host: &mut dyn Host) -> Result<(), Error> {
        let id = redis.find(host)?;
        let layout = Layout::read(redis, &id, host)?;
        host.stop(&id)?;
        let written = self.place(&layout, &id, host);
        // Whatever happened, the server runs again: with the old data, or with the new.
        let started = host.start(&id).and_then(|()| redis.until_loaded(host, &id, None));
        written?;
        started.map_err(|error| {
            let message = format!(
                "the dump is in place, and the server does not come up with it: {}",
                error.message
            );
            Error {
                message,
                code: "restore.incomplete".into(),
                ..error
            }
        })?;
        let found = redis.contents(host, &id)?.keys;
        let is_whole = match &self.record.tables {
            Some(keys) => {
                keys.keys().all(|database| found.contains_key(database))
                    || keys.values().all(|count| *count == 0)
            }
            None => true,
        };
        self.whole(is_whole)?;
        layout.tidy(&id, host);
        Ok(())
    }

    fn place(&self, layout: &Layout, id: &str, host: &mut dyn Host) -> Result<(), Error> {
        let file = |path| Sink::FileInside {
            container: id,
            path,
            owner: layout.owner,
        };
        let Some(log) = &layout.log else {
            return self.copy(file(&layout.dump), host);
        };
        let (base, increment) = (log.path(&log.base), log.path(&log.increment));
        let (manifest, text) = (log.path(&log.manifest), log.text());
        let plain = Options::default();
        self.copy(file(&base), host)?;
        host.copy(Source::Bytes(b""), file(&increment), &plain)?;
        host.copy(Source::Bytes(text.as_bytes()), file(&manifest), &plain)
            .map(drop)
    }

    fn fill_directory(&self, inside: &Inside, host: &mut dyn Host) -> Result<(), Error> {
        let id = inside.find(host)?;
        let aside = inside.aside(&service::tag(host, self.name));
        inside.prepare(host, &id, &aside)?;
        self.copy(
            Sink::Inside {
                container: &id,
                path: &aside,
            },
            host,
        )?;
        inside.exchange(host, &id, &aside)
    }

    fn whole(&self, is_whole: bool) -> Result<(), Error> {
        if is_whole {
            return Ok(());
        }
        let message = format!("what was restored of `{}` is not what was backed up", self.name);
        Err(Error::new("restore.incomplete", message).help("take another backup with `id`"))
    }
}

/// Where a Redis server keeps its data, as it says itself.
struct Layout {
    dump: String,
    /// What the new files belong to: as the directory does.
    owner: (u32, u32),
    log: Option<AppendLog>,
}

/// A new append-only file beside the old one.
struct AppendLog {
    directory: String,
    manifest: String,
    /// Higher than any of the old one: the server must never append to an old increment.
    sequence: u64,
    base: String,
    increment: String,
    /// Files of the old one.
    old: Vec<String>,
}

impl Layout {
    fn read(redis: &Redis, id: &str, host: &mut dyn Host) -> Result<Self, Error> {
        let mut setting = |name: &str| redis.setting(host, id, name);
        let directory = setting("dir")?;
        let directory = directory.trim_end_matches('/');
        let dump = format!("{directory}/{}", setting("dbfilename")?);
        let log = match setting("appendonly")?.as_str() {
            "yes" => Some((setting("appenddirname")?, setting("appendfilename")?)),
            _ => None,
        };
        let owner = owner(id, directory, host)?;
        let log = log.map(|(name, file)| AppendLog::read(&format!("{directory}/{name}"), &file, id, host));
        Ok(Self {
            dump,
            owner,
            log: log.transpose()?,
        })
    }

    /// The old files, which no manifest names any more. They would stay for ever.
    fn tidy(&self, id: &str, host: &mut dyn Host) {
        for old in self
            .log
            .iter()
            .flat_map(|log| log.old.iter().map(|name| log.path(name)))
        {
            if let Err(error) = host.exec(id, &redis::program(&["rm", "-f", &old])) {
                host.warn(&format!("could not remove {old}: {}", error.message));
            }
        }
    }
}

impl AppendLog {
    fn read(directory: &str, file: &str, id: &str, host: &mut dyn Host) -> Result<Self, Error> {
        let manifest = format!("{file}.manifest");
        let text = host.exec(id, &redis::program(&["cat", &format!("{directory}/{manifest}")]))?;
        if text.exit != 0 {
            let message = format!(
                "the server's append-only file cannot be read: {}",
                text.stderr.trim()
            );
            return Err(Error::new("redis.failed", message).help(
                "a server before Redis 7 keeps it in another form: set `appendonly no` before the restore",
            ));
        }
        let (old, last) = entries(&text.stdout);
        let sequence = last + 1;
        Ok(Self {
            directory: directory.to_owned(),
            manifest,
            sequence,
            base: format!("{file}.{sequence}.base.rdb"),
            increment: format!("{file}.{sequence}.incr.aof"),
            old,
        })
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.directory)
    }

    /// Of the manifest.
    fn text(&self) -> String {
        let (base, increment, sequence) = (&self.base, &self.increment, self.sequence);
        format!("file {base} seq {sequence} type b\nfile {increment} seq {sequence} type i\n")
    }
}

/// The files that a manifest names, and the highest sequence.
fn entries(manifest: &str) -> (Vec<String>, u64) {
    let mut files = Vec::new();
    let mut last = 0;
    for line in manifest.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = |key: &str| {
            let at = words.iter().position(|word| *word == key)?;
            words.get(at + 1).copied()
        };
        // A name with a `/` would leave the directory.
        files.extend(
            value("file")
                .filter(|name| !name.contains('/'))
                .map(str::to_owned),
        );
        last = last.max(value("seq").and_then(|text| text.parse().ok()).unwrap_or(0));
    }
    (files, last)
}

fn owner(id: &str, directory: &str, host: &mut dyn Host) -> Result<(u32, u32), Error> {
    let output = host.exec(id, &redis::program(&["stat", "-c", "%u %g", directory]))?;
    let mut numbers = output.stdout.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(user)), Some(Ok(group))) => Ok((user, group)),
        _ => Err(Error::new(
            "redis.failed",
            format!(
                "it cannot be seen whom {directory} belongs to: {}",
                output.stderr.trim()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_log_is_above_the_old_one() {
        let text =
            "file appendonly.aof.3.base.rdb seq 3 type b\nfile appendonly.aof.4.incr.aof seq 4 type i\n";
        let (files, last) = entries(text);
        assert_eq!(files, ["appendonly.aof.3.base.rdb", "appendonly.aof.4.incr.aof"]);
        assert_eq!(last, 4);
        assert_eq!(entries("file ../../etc/x seq 1 type b"), (vec![], 1));
    }
}
