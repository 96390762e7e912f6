//! The backups of a target into those that may go.
//!
//! Pure. Never the last verified one, never one of another pipeline or stage, never one whose manifest cannot be read.

use windlass_backup_format::clock::DAY;
use windlass_backup_format::id;
use windlass_backup_format::manifest::Manifest;
use windlass_backup_format::shelf::{Entry, State};

use crate::config::Keep;

/// Whose backups are looked at, and when.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) pipeline: String,
    pub(crate) stage: String,
    /// The backup of this run, which stays whatever it is.
    pub(crate) current: String,
    /// Seconds since 1970.
    pub(crate) now: u64,
}

/// A backup being written is younger than this, or nobody writes it any more.
const PARTIAL_AGE: u64 = DAY;

/// The ids that may go, oldest first. `entries` oldest first, as [`windlass_backup_format::shelf::list`] gives them.
pub(crate) fn expired<'a>(entries: &'a [Entry], keep: Keep, scope: &Scope) -> Vec<&'a str> {
    let own: Vec<&Manifest> = entries
        .iter()
        .rev()
        .filter_map(|entry| own(entry, scope))
        .collect();
    let last_verified = own
        .iter()
        .find(|manifest| manifest.verified)
        .map(|manifest| manifest.id.as_str());
    let is_expired = |entry: &Entry| {
        if entry.id == scope.current || Some(entry.id.as_str()) == last_verified {
            return false;
        }
        match &entry.state {
            State::Unreadable(_) => false,
            State::Partial { changed } => {
                id::is_of_stage(&entry.id, &scope.stage) && changed.saturating_add(PARTIAL_AGE) < scope.now
            }
            State::Published(manifest) => {
                let rank = own.iter().position(|other| other.id == manifest.id);
                rank.is_some_and(|rank| is_beyond(manifest, rank, keep, scope.now))
            }
        }
    };
    entries
        .iter()
        .filter(|entry| is_expired(entry))
        .map(|entry| entry.id.as_str())
        .collect()
}

/// `rank` 0 is the newest.
fn is_beyond(manifest: &Manifest, rank: usize, keep: Keep, now: u64) -> bool {
    let old = |days: u32| manifest.created().saturating_add(u64::from(days) * DAY) < now;
    let many = |last: u32| rank as u64 >= u64::from(last);
    match (keep.days, keep.last) {
        (Some(days), Some(last)) => old(days) && many(last),
        (Some(days), None) => old(days),
        (None, Some(last)) => many(last),
        (None, None) => false,
    }
}

fn own<'a>(entry: &'a Entry, scope: &Scope) -> Option<&'a Manifest> {
    match &entry.state {
        State::Published(manifest)
            if manifest.pipeline == scope.pipeline && manifest.stage == scope.stage =>
        {
            Some(manifest)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use windlass_backup_format::manifest::About;

    const NOW: u64 = 1_000 * DAY;

    /// Backups by age in days, oldest first: `9` verified, `9u` unverified, `9x` unreadable, `9p` partial, `9o` of
    /// another stage. Answers those that go.
    fn check(entries: &str, days: Option<u32>, last: Option<u32>, expected: &str) {
        let words: Vec<&str> = entries.split_whitespace().collect();
        let listed: Vec<Entry> = words
            .iter()
            .enumerate()
            .map(|(at, word)| entry(at, word))
            .collect();
        let scope = Scope {
            pipeline: "p".into(),
            stage: "backup".into(),
            current: id::derive(&run(99), "backup"),
            now: NOW,
        };
        let gone = expired(&listed, Keep { days, last }, &scope);
        let position = |id: &&str| listed.iter().position(|entry| entry.id == **id).unwrap();
        let gone: Vec<&str> = gone.iter().map(|id| words[position(id)]).collect();
        assert_eq!(
            gone.join(" "),
            expected,
            "{entries} keeping {days:?} days, last {last:?}"
        );
    }

    fn run(number: usize) -> String {
        format!("{number:026}")
    }

    fn entry(at: usize, word: &str) -> Entry {
        let (age, mark) = word.split_at(word.find(|c: char| c.is_alphabetic()).unwrap_or(word.len()));
        let created = NOW - age.parse::<u64>().unwrap() * DAY - 1;
        let stage = if mark == "o" { "other" } else { "backup" };
        let id = id::derive(&run(at), stage);
        let about = About {
            id: id.clone(),
            pipeline: "p".into(),
            stage: stage.into(),
            run: run(at),
            created,
        };
        let mut manifest = Manifest::new(about, BTreeMap::new());
        manifest.verified = mark != "u";
        let state = match mark {
            "x" => State::Unreadable("broken".into()),
            "p" => State::Partial { changed: created },
            _ => State::Published(manifest),
        };
        Entry { id, state }
    }

    #[test]
    fn age_and_count_go_together() {
        check("9 8 7 6", None, Some(2), "9 8");
        check("9 8 7 6", Some(8), None, "9 8");
        check("9 8 7 6", Some(9), Some(2), "9");
        check("9 8 7 6", Some(1), Some(10), "");
        check("9 8 7 6", Some(30), Some(1), "");
    }

    #[test]
    fn the_last_verified_one_stays() {
        check("9 8u 7u 6u", None, Some(1), "8u 7u");
        check("9 8 7u", Some(1), Some(1), "9");
        check("400", Some(1), None, "");
        check("9u 8u", Some(1), None, "9u 8u");
    }

    #[test]
    fn what_is_not_ours_stays() {
        check("9x 8o 7o 6 5", None, Some(1), "6");
        check("9 8x", None, Some(1), "");
    }

    #[test]
    fn old_leftovers_go() {
        check("3p 1p 0p 0", None, Some(1), "3p 1p");
    }
}
