//! Copies between real directories, without a guest.

use super::{
    copy::{Copied, Options, prepare},
    place::{Maker, Place},
    probe::{self, Became},
    sink::Sink,
    source::Source,
    stop::Stop,
};
use crate::{
    failure::Failure,
    pattern::Mode,
    service::{
        files::{Mount, Mounts},
        objects::flow::Label,
    },
};
use cap_std::{ambient_authority, fs::Dir};
use rusqlite::Connection;
use serde_json::{Value as Json, json};
use std::{fs, io::Write, os::unix::fs::symlink, path::Path, sync::Arc};
use tokio_util::sync::CancellationToken;

struct Ground {
    root: tempfile::TempDir,
    directory: Arc<Dir>,
    stop: Stop,
}

impl Ground {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(root.path().join("scratch")).expect("made");
        let directory = Dir::open_ambient_dir(root.path(), ambient_authority()).expect("opens");
        Self {
            root,
            directory: Arc::new(directory),
            stop: Stop(CancellationToken::new()),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join(name)
    }

    fn place(&self, name: &str) -> Place {
        Place {
            directory: self.directory.clone(),
            path: name.into(),
            shown: format!("/workspace/{name}"),
            maker: Maker::default(),
        }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("has one")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn copy(&self, from: Source, to: Sink, options: &str) -> Result<Copied, Failure> {
        let scratch = Arc::new(self.directory.open_dir("scratch").expect("opens"));
        let prepared = prepare(&from, to, &Options::parse(options)?, &scratch, "", &self.stop);
        let copied = prepared.and_then(|prepared| prepared.put(&self.stop));
        let left = fs::read_dir(self.path("scratch")).expect("reads").count();
        assert_eq!(left, 0, "the scratch directory is left empty");
        let aside = fs::read_dir(self.root.path())
            .expect("reads")
            .filter_map(Result::ok);
        let ours = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".windlass-");
        assert!(
            aside.map(|entry| entry.file_name()).all(|name| !ours(&name)),
            "nothing is left beside"
        );
        copied
    }

    fn code(&self, from: Source, to: Sink, options: &str) -> String {
        self.copy(from, to, options).expect_err("refused").code
    }
}

fn bytes(text: &str) -> Source {
    Source::Bytes(text.as_bytes().to_vec())
}

const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

#[test]
fn files_are_replaced_whole_or_not_at_all() {
    let ground = Ground::new();
    ground.write("a", "hello");
    let to = || Sink::File(ground.place("deep/b"));
    let copied = ground
        .copy(Source::File(ground.place("a")), to(), "")
        .expect("copied");
    assert_eq!((copied.bytes_in, copied.bytes_out), (5, 5));
    assert_eq!(
        (copied.sha256_in.as_str(), copied.sha256_out.as_str()),
        (HELLO, HELLO)
    );
    let shown = || fs::read_to_string(ground.path("deep/b")).expect("reads");
    assert_eq!(shown(), "hello");
    let expect = format!(r#"{{"expect":"sha256:{}"}}"#, "0".repeat(64));
    assert_eq!(ground.code(bytes("other"), to(), &expect), "flow.digest");
    assert_eq!(
        ground.code(Source::File(ground.place("none")), to(), ""),
        "file.missing"
    );
    assert_eq!(
        ground.code(Source::File(ground.place("deep")), to(), ""),
        "file.missing"
    );
    ground.stop.0.cancel();
    assert_eq!(
        ground.code(Source::File(ground.place("a")), to(), ""),
        "cancelled"
    );
    assert_eq!(shown(), "hello");
}

#[test]
fn compression_there_and_back() {
    for codec in ["zstd", "gzip"] {
        let ground = Ground::new();
        let text = "windlass ".repeat(10_000);
        ground.write("a", &text);
        let packed = ground
            .copy(
                Source::File(ground.place("a")),
                Sink::File(ground.place("b")),
                &format!(r#"{{"compress":"{codec}"}}"#),
            )
            .expect("copied");
        assert!(packed.bytes_out < packed.bytes_in / 10, "{packed:?}");
        let decompress = format!(r#"{{"decompress":"{codec}"}}"#);
        let to = || Sink::File(ground.place("c"));
        let back = ground
            .copy(Source::File(ground.place("b")), to(), &decompress)
            .expect("copied");
        assert_eq!(
            (back.sha256_in, back.sha256_out),
            (packed.sha256_out, packed.sha256_in)
        );
        let whole = fs::read(ground.path("b")).expect("reads");
        fs::remove_file(ground.path("c")).expect("removed");
        for cut in [whole.len() / 2, whole.len() - 1] {
            fs::write(ground.path("b"), &whole[..cut]).expect("written");
            let code = ground.code(Source::File(ground.place("b")), to(), &decompress);
            assert_eq!(code, "flow.corrupt", "{codec} cut at {cut}");
        }
        assert_eq!(
            ground.code(bytes("neither of them"), to(), &decompress),
            "flow.corrupt"
        );
        assert!(!ground.path("c").exists());
    }
    let options = |text: &str| Options::parse(text).expect_err("refused").code;
    assert_eq!(options(r#"{"compress":"zip"}"#), "flow.options");
    assert_eq!(
        options(r#"{"compress":"zstd","decompress":"gzip"}"#),
        "flow.options"
    );
    assert_eq!(options(r#"{"unknown":1}"#), "flow.options");
}

#[test]
fn directories_there_and_back() {
    let ground = Ground::new();
    ground.write("from/b/one.txt", "1");
    ground.write("from/a.sh", "#!/bin/sh");
    fs::create_dir(ground.path("from/empty")).expect("made");
    symlink("b/one.txt", ground.path("from/link")).expect("made");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(ground.path("from/a.sh"), mode).expect("set");
    let from = |name: &str| Source::Directory(ground.place(name));
    let packed = ground
        .copy(from("from"), Sink::File(ground.place("one.tar")), "")
        .expect("packed");
    let tar = || Source::File(ground.place("one.tar"));
    ground
        .copy(tar(), Sink::Directory(ground.place("to")), "")
        .expect("unpacked");
    let again = ground.copy(from("to"), Sink::Discard, "").expect("packed");
    assert_eq!(
        again.sha256_in, packed.sha256_in,
        "the same tree is the same stream"
    );
    assert_eq!(
        ground.code(tar(), Sink::Directory(ground.place("to")), ""),
        "target.not-empty"
    );
    ground.write("to/more", "x");
    ground
        .copy(tar(), Sink::Directory(ground.place("to")), r#"{"replace":true}"#)
        .expect("replaced");
    assert!(!ground.path("to/more").exists());
    // What was granted as a whole cannot be renamed: its parts are exchanged.
    let root = || Place {
        directory: Arc::new(ground.directory.open_dir("to").expect("opens")),
        path: ".".into(),
        shown: "/mnt/to".into(),
        maker: Maker::default(),
    };
    ground.write("to/more", "x");
    assert_eq!(
        ground.code(tar(), Sink::Directory(root()), ""),
        "target.not-empty"
    );
    ground
        .copy(tar(), Sink::Directory(root()), r#"{"replace":true}"#)
        .expect("replaced");
    let again = ground.copy(from("to"), Sink::Discard, "").expect("packed");
    assert_eq!(again.sha256_in, packed.sha256_in);
    symlink("../../etc/passwd", ground.path("from/out")).expect("made");
    assert_eq!(ground.code(from("from"), Sink::Discard, ""), "flow.source-failed");
}

#[test]
fn archives_that_lead_out_are_refused_and_leave_nothing() {
    let entry = |kind: tar::EntryType, name: &str, link: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(0);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        if !link.is_empty() {
            header.set_link_name_literal(link).expect("fits");
        }
        header.set_cksum();
        header
    };
    let check = |headers: &[tar::Header]| {
        let ground = Ground::new();
        let mut builder = tar::Builder::new(Vec::new());
        for header in headers {
            builder.append(header, std::io::empty()).expect("appends");
        }
        let archive = Source::Bytes(builder.into_inner().expect("finishes"));
        assert_eq!(
            ground.code(archive, Sink::Directory(ground.place("to")), ""),
            "flow.corrupt"
        );
        assert!(!ground.path("to").exists());
    };
    use tar::EntryType as Kind;
    check(&[entry(Kind::Regular, "../out", "")]);
    check(&[entry(Kind::Regular, "/etc/out", "")]);
    check(&[entry(Kind::Symlink, "a", "/etc")]);
    check(&[entry(Kind::Symlink, "a", "../out")]);
    check(&[entry(Kind::Link, "a", "b")]);
    check(&[entry(Kind::Char, "a", "")]);
    check(&[entry(Kind::Fifo, "a", "")]);
    check(&[entry(Kind::Regular, "a", ""), entry(Kind::Regular, "a", "")]);
}

fn rows(path: &Path) -> i64 {
    let connection = Connection::open(path).expect("opens");
    connection
        .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .expect("counts")
}

#[test]
fn databases_there_and_back() {
    let ground = Ground::new();
    let app = Connection::open(ground.path("app.db")).expect("opens");
    app.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n); INSERT INTO t VALUES (1), (2)")
        .expect("made");
    let from = || Source::Sqlite(ground.place("app.db"));
    ground
        .copy(from(), Sink::File(ground.place("copy.db")), "")
        .expect("copied");
    let copy = || Source::File(ground.place("copy.db"));
    ground
        .copy(copy(), Sink::Sqlite(ground.place("new.db")), "")
        .expect("restored");
    assert_eq!(rows(&ground.path("new.db")), 2);
    assert_eq!(
        ground.code(copy(), Sink::Sqlite(ground.place("new.db")), ""),
        "target.not-empty"
    );
    app.execute_batch("INSERT INTO t VALUES (3)").expect("written");
    ground
        .copy(
            copy(),
            Sink::Sqlite(ground.place("app.db")),
            r#"{"replace":true}"#,
        )
        .expect("restored");
    assert_eq!(rows(&ground.path("app.db")), 2);
    for damaged in [
        "",
        "this is no database at all, whatever its name may say about it",
    ] {
        let to = Sink::Sqlite(ground.place("other.db"));
        assert_eq!(ground.code(bytes(damaged), to, ""), "flow.corrupt", "{damaged}");
        assert!(!ground.path("other.db").exists());
    }
    symlink("app.db", ground.path("link.db")).expect("made");
    let linked = Source::Sqlite(ground.place("link.db"));
    assert_eq!(ground.code(linked, Sink::Discard, ""), "sql.refused");
}

#[test]
fn a_database_that_fails_half_way_leaves_no_file() {
    let ground = Ground::new();
    Connection::open(ground.path("app.db"))
        .expect("opens")
        .execute_batch("CREATE TABLE t (n)")
        .expect("made");
    let to = || Sink::Sqlite(ground.place("new.db"));
    let scratch = Arc::new(ground.directory.open_dir("scratch").expect("opens"));
    let mut filling = to().open(&scratch, false).expect("opens");
    let bytes = fs::read(ground.path("app.db")).expect("reads");
    filling.write_all(&bytes).expect("spooled");
    ground.stop.0.cancel();
    let failure = to().ready(filling, Label::default(), false, &ground.stop).err();
    assert_eq!(failure.map(|failure| failure.code).as_deref(), Some("cancelled"));
    assert!(!ground.path("new.db").exists());
}

#[test]
fn a_new_database_does_not_inherit_the_journal_of_another() {
    let ground = Ground::new();
    let app = Connection::open(ground.path("app.db")).expect("opens");
    app.execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1)")
        .expect("made");
    ground.write("new.db-wal", "of a database that is gone");
    let (from, to) = (
        || Source::Sqlite(ground.place("app.db")),
        || Sink::Sqlite(ground.place("new.db")),
    );
    assert_eq!(ground.code(from(), to(), ""), "target.not-empty");
    ground.copy(from(), to(), r#"{"replace":true}"#).expect("copied");
    assert!(!ground.path("new.db-wal").exists());
    assert_eq!(rows(&ground.path("new.db")), 1);
}

#[test]
fn what_was_interrupted_is_put_back_before_anything_else() {
    let ground = Ground::new();
    ground.write("new/a", "new");
    let from = || Source::Directory(ground.place("new"));
    let root = || Place {
        directory: Arc::new(ground.directory.open_dir("to").expect("opens")),
        path: ".".into(),
        shown: "/mnt/to".into(),
        maker: Maker::default(),
    };
    for named in [true, false] {
        let to = || if named { ground.place("to") } else { root() };
        // The process was killed while the new content moved in.
        ground.write("to/a", "new");
        ground.write("to/.windlass-0-left/old", "old");
        let read = ground.code(Source::Directory(to()), Sink::Discard, "");
        assert_eq!(read, "flow.source-failed");
        assert_eq!(ground.code(from(), Sink::Directory(to()), ""), "target.not-empty");
        let old = fs::read_to_string(ground.path("to/old"));
        assert_eq!(old.expect("put back"), "old");
        assert!(!ground.path("to/a").exists() && !ground.path("to/.windlass-0-left").exists());
        ground
            .copy(from(), Sink::Directory(to()), r#"{"replace":true}"#)
            .expect("replaced");
        assert_eq!(fs::read_dir(ground.path("to")).expect("reads").count(), 1);
        fs::remove_dir_all(ground.path("to")).expect("removed");
    }
    ground.write("deep/.windlass-was-to/old", "old");
    assert_eq!(
        ground.code(Source::Directory(ground.place("deep/to")), Sink::Discard, ""),
        "flow.source-failed"
    );
    assert_eq!(
        ground.code(from(), Sink::Directory(ground.place("deep/to")), ""),
        "target.not-empty"
    );
    assert!(ground.path("deep/to/old").exists());
}

/// What is found about a copy to `name` that was cut off: with everything aside, and once it was in its place.
fn check_found(ground: &Ground, to: &dyn Fn() -> Sink, name: &str, from: &dyn Fn() -> Source) {
    let place = match to() {
        Sink::File(place) => json!({ "file": place.shown }),
        Sink::Directory(place) => json!({ "directory": place.shown }),
        Sink::Sqlite(place) => json!({ "sqlite": format!("sqlite://{}", place.shown) }),
        Sink::Artifact { .. } | Sink::Container(_) | Sink::Object(_) | Sink::Discard => {
            unreachable!("they are not in directories")
        }
    };
    let mount = |guest: &str, path: &Path| Mount::open(guest, path, Mode::ReadWrite).expect("opens");
    let mounts = [
        mount("/workspace", ground.root.path()),
        mount("/mnt/root", &ground.path("root")),
    ];
    let mounts = Mounts::new(mounts.into()).expect("apart");
    let scratch = Arc::new(ground.directory.open_dir("scratch").expect("opens"));
    let prepare = || {
        let options = Options::parse(r#"{"replace":true}"#).expect("valid");
        let prepared = prepare(&from(), to(), &options, &scratch, "", &ground.stop).expect("aside");
        let arguments = json!({ "to": place, "aside": probe::note(prepared.aside()) });
        (prepared, arguments)
    };
    let look = |arguments: &Json| probe::look(&mounts, arguments).expect("looks");
    let before = content(&ground.path(name));

    let (prepared, arguments) = prepare();
    // As a kill does: nothing is dropped.
    std::mem::forget(prepared);
    assert_eq!(look(&arguments), Became::NotDone, "{name}");
    assert_eq!(content(&ground.path(name)), before, "{name}");
    assert_eq!(
        look(&arguments),
        Became::Unknown,
        "{name}: gone, and not in its place"
    );

    let (prepared, arguments) = prepare();
    let copied = prepared.put(&ground.stop).expect("put");
    for _ in 0..2 {
        assert_eq!(look(&arguments), Became::Done(json!(copied)), "{name}");
    }
    assert_ne!(content(&ground.path(name)), before, "{name}");
    let ours = |path: &Path| {
        let entries = fs::read_dir(path).expect("reads").filter_map(Result::ok);
        entries
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b".windlass-"))
            .count()
    };
    assert_eq!(ours(ground.root.path()) + ours(&ground.path("root")), 0, "{name}");

    let other = match ground.path(name).is_dir() {
        true => format!("{name}/more"),
        false => name.to_string(),
    };
    ground.write(&other, "somebody else's");
    assert_eq!(look(&arguments), Became::Unknown, "{name}");
    let mut foreign = arguments.clone();
    for (key, value) in [
        ("scratch", json!("../a")),
        ("scratch", json!("app.db")),
        ("digest", Json::Null),
    ] {
        foreign["aside"][key] = value;
        assert_eq!(look(&foreign), Became::Unknown, "{key}");
    }
    assert!(ground.path("app.db").exists());
}

/// Names and texts; `None` where nothing is.
fn content(path: &Path) -> Option<Vec<(String, Vec<u8>)>> {
    if path.is_file() {
        return Some(vec![(String::new(), fs::read(path).expect("reads"))]);
    }
    let entries = fs::read_dir(path).ok()?.filter_map(Result::ok);
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, fs::read(entry.path()).unwrap_or_default())
    };
    Some(entries.map(read).collect())
}

#[test]
fn after_a_crash_a_copy_is_found_aside_or_in_its_place() {
    let ground = Ground::new();
    ground.write("new/a", "new");
    ground.write("old/a", "old");
    ground.write("root/a", "old");
    ground.write("old.txt", "old");
    Connection::open(ground.path("app.db"))
        .expect("opens")
        .execute_batch("CREATE TABLE t (n); INSERT INTO t VALUES (1)")
        .expect("made");
    let file = |name: &'static str| move |ground: &Ground| Sink::File(ground.place(name));
    let text = || bytes("new");
    for name in ["fresh.txt", "old.txt"] {
        check_found(&ground, &|| file(name)(&ground), name, &text);
    }
    let tree = || Source::Directory(ground.place("new"));
    for name in ["fresh", "old"] {
        check_found(&ground, &|| Sink::Directory(ground.place(name)), name, &tree);
    }
    let root = || Place {
        directory: Arc::new(ground.directory.open_dir("root").expect("opens")),
        path: ".".into(),
        shown: "/mnt/root".into(),
        maker: Maker::default(),
    };
    check_found(&ground, &|| Sink::Directory(root()), "root", &tree);
    let database = || Source::Sqlite(ground.place("app.db"));
    check_found(
        &ground,
        &|| Sink::Sqlite(ground.place("fresh.db")),
        "fresh.db",
        &database,
    );
}
