//! Journals that were torn or changed: what is read is a beginning of what was written, or an error in words.

use super::contract::workspace;
use std::{fs, path::Path};
use windlass::{
    journal::{
        SqliteStore, replay,
        store::{Store, StoredRecord},
    },
    name::RunId,
};

/// The two files of the journal of a whole quickstart, and what they hold.
struct Journal {
    files: [Vec<u8>; 2],
    run: RunId,
    records: Vec<StoredRecord>,
}

const NAMES: [&str; 2] = ["journal.db", "journal.db-wal"];

impl Journal {
    fn new() -> Self {
        let workspace = workspace();
        workspace.windlass(["run", "pipelines/quickstart.yaml"]).expect(0);
        let all = workspace.state_files();
        let file = |name: &str| {
            let found = all.iter().find(|(path, _)| path.ends_with(name));
            found.expect("it is there").1.clone()
        };
        let files = NAMES.map(file);
        let directory = tempfile::tempdir().expect("temporary");
        write(directory.path(), &files);
        let store = SqliteStore::open_for_reading(directory.path())
            .expect("opens")
            .expect("is there");
        let (run, _) = store.list_runs(1, &[]).expect("lists").pop().expect("one run");
        let records = store.read_run(&run).expect("reads");
        assert!(records.len() > 20, "{}", records.len());
        Self { files, run, records }
    }

    /// How many records are read after this damage; `None`: it is refused.
    fn read(&self, damage: impl FnOnce(&mut [Vec<u8>; 2])) -> Option<usize> {
        let mut files = self.files.clone();
        damage(&mut files);
        let directory = tempfile::tempdir().expect("temporary");
        write(directory.path(), &files);
        let store = match SqliteStore::open_for_reading(directory.path()) {
            Ok(Some(store)) => store,
            Ok(None) => return Some(0),
            Err(error) => return refused(&error),
        };
        let history = match replay::show_run(&store, &self.run) {
            Ok(history) => history,
            Err(error) => return refused(&error),
        };
        let read = store.read_run(&self.run).expect("it was just read");
        assert_eq!(history.position.sequence, read.len() as u64);
        for (read, written) in read.iter().zip(&self.records) {
            assert_eq!((&read.body, read.chain), (&written.body, written.chain));
        }
        assert!(read.len() <= self.records.len());
        Some(read.len())
    }
}

/// In words that say which journal or which record.
fn refused(error: &windlass::journal::store::StoreError) -> Option<usize> {
    let said = error.to_string();
    assert!(
        said.contains("journal") || said.contains("record ") || said.contains("there is no run"),
        "{said}"
    );
    None
}

fn write(directory: &Path, files: &[Vec<u8>; 2]) {
    for (name, bytes) in NAMES.iter().zip(files) {
        fs::write(directory.join(name), bytes).expect("written");
    }
}

#[test]
fn a_torn_log_is_a_beginning_of_the_run() {
    let journal = Journal::new();
    let length = journal.files[1].len();
    let mut lengths = Vec::new();
    for cut in (0..=length).step_by(4 * 4096 + 17) {
        lengths.push(journal.read(|files| files[1].truncate(cut)).unwrap_or(0));
    }
    assert!(
        lengths.is_sorted(),
        "more of the log is never less of the run: {lengths:?}"
    );
    assert_eq!(lengths.last(), Some(&journal.records.len()));
    assert!(
        lengths
            .iter()
            .any(|length| (1..journal.records.len()).contains(length)),
        "{lengths:?}"
    );
    for cut in (0..journal.files[0].len()).step_by(1_511) {
        journal.read(|files| files[0].truncate(cut));
    }
}

#[test]
fn a_changed_bit_is_never_read_as_something_else() {
    let journal = Journal::new();
    let mut refused = 0;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..600 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let which = number % 2;
        let length = journal.files[which].len() as u64;
        let at = usize::try_from(state % length).expect("small");
        let read = journal.read(|files| files[which][at] ^= 1 << (state % 7));
        refused += usize::from(read.is_none());
    }
    assert!(refused > 0, "some of them hit what is used");
}

/// A disk of its own, unmounted when dropped.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(place: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(place).expect("made");
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(place);
        mount
            .output()
            .is_ok_and(|ended| ended.status.success())
            .then(|| Self(place.into()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_ends_the_run_in_words_and_nothing_is_claimed() {
    let workspace = workspace();
    let place = workspace.path("../disk");
    let Some(disk) = Disk::mount(&place, "size=1m,mode=0700") else {
        eprintln!("skipped: needs the right to mount a file system");
        return;
    };
    let state = place.display().to_string();
    let run = ["run", "pipelines/quickstart.yaml", "--state-dir", &state];
    let full = workspace.windlass(run);
    assert!(![0, 1].contains(&full.code), "{}", full.said());
    assert!(
        full.stderr.contains("see that the disk has room"),
        "{}",
        full.said()
    );
    assert!(!full.said().contains("succeeded"), "{}", full.said());
    assert!(!workspace.path("target/quickstart/data/app.db").exists());
    let remounted = std::process::Command::new("mount")
        .args(["-o", "remount,size=64m,mode=0700"])
        .arg(&disk.0)
        .status();
    assert!(remounted.is_ok_and(|status| status.success()));
    workspace.windlass(run).expect(0);
}
