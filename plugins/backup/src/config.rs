//! The `with:` block of a `backup` stage into checked values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;
use windlass_backup_format::location::{Location, check_name};
use windlass_backup_format::manifest::Compression;
use windlass_backup_format::place::Place;
use windlass_guest::Error;
use windlass_guest::objects::Access;

/// The whole block, as `plugin.json` describes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    pub sources: BTreeMap<String, Location>,
    pub to: Vec<String>,
    pub s3: Option<Access>,
    pub keep: Keep,
    #[serde(default = "yes")]
    pub verify: bool,
    #[serde(default = "zstd")]
    pub compress: Compression,
}

/// Which backups stay. Both given: whatever either of them wants to stay.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Keep {
    pub days: Option<u32>,
    pub last: Option<u32>,
}

fn yes() -> bool {
    true
}

fn zstd() -> Compression {
    Compression::Zstd
}

impl Config {
    /// The targets.
    ///
    /// # Errors
    /// `config.invalid`: nothing says how a bucket is reached.
    pub(crate) fn targets(&self) -> Result<Vec<Place>, Error> {
        let s3 = self.s3.as_ref();
        self.to.iter().map(|text| Place::new(text, s3)).collect()
    }

    /// Everything that can be wrong with the block before anything is read.
    ///
    /// # Errors
    /// `config.invalid`, naming the key.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.sources.is_empty() {
            return Err(Error::config("`sources` names nothing to back up"));
        }
        self.sources
            .keys()
            .try_for_each(|name| check_name("sources", name))?;
        self.check_keep()?;
        let targets = self.targets()?;
        if targets.is_empty() {
            return Err(Error::config("`to` names no directory and no bucket"));
        }
        let different: BTreeSet<&str> = targets.iter().map(Place::shown).collect();
        if different.len() < targets.len() {
            return Err(Error::config("`to` names the same place twice")
                .help("a second copy is worth something on another disk only"));
        }
        self.sources.iter().try_for_each(|(name, source)| {
            source
                .check(name)
                .and_then(|()| check_outside(name, source, &targets))
        })
    }

    fn check_keep(&self) -> Result<(), Error> {
        match (self.keep.days, self.keep.last) {
            (None, None) => Err(
                Error::config("`keep` is empty: it would never end, or end everything")
                    .help("say how long backups stay: `keep: { days: 30, last: 7 }`, or one of them"),
            ),
            (Some(0), _) | (_, Some(0)) => {
                Err(Error::config("`keep` must not be zero: it would keep nothing"))
            }
            _ => Ok(()),
        }
    }
}

/// A target inside of a source would back itself up, growing every time.
fn check_outside(name: &str, source: &Location, targets: &[Place]) -> Result<(), Error> {
    let Location::Directory(directory) = source.resolved() else {
        return Ok(());
    };
    match targets
        .iter()
        .find(|target| target.is_on_disk() && Path::new(target.shown()).starts_with(&directory))
    {
        None => Ok(()),
        Some(target) => Err(Error::config(format!(
            "the target {target} lies in the source `{name}` ({directory})"
        ))
        .help("put backups outside of what is backed up")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(patch: Value, wrong: Option<&str>) {
        let mut with = json!({ "sources": { "app": { "sqlite": "sqlite:///workspace/app.db" } }, "to": ["/mnt/a"], "keep": { "last": 3 } });
        with.as_object_mut()
            .unwrap()
            .extend(patch.as_object().unwrap().clone());
        let config: Config = serde_json::from_value(with).expect("it has the right shape");
        match (config.check(), wrong) {
            (Ok(()), None) => {}
            (Err(error), Some(text)) => assert!(error.message.contains(text), "{}", error.message),
            (answer, wrong) => panic!("{answer:?} is not {wrong:?}"),
        }
    }

    #[test]
    fn blocks_are_checked() {
        check(json!({}), None);
        check(json!({ "keep": { "days": 30, "last": 7 } }), None);
        check(json!({ "keep": {} }), Some("`keep` is empty"));
        check(json!({ "keep": { "days": 0, "last": 1 } }), Some("zero"));
        check(json!({ "sources": {} }), Some("`sources`"));
        check(
            json!({ "sources": { "a/b": { "directory": "data" } } }),
            Some("a/b"),
        );
        check(json!({ "to": [] }), Some("`to`"));
        check(json!({ "to": ["/mnt/a", "/mnt/a/"] }), Some("twice"));
        let bucket = json!({ "to": ["/mnt/a", "s3://backups/team"], "s3": { "region": "eu-central-1" } });
        check(bucket, None);
        check(json!({ "to": ["s3://backups/team"] }), Some("`s3` does not say"));
    }

    #[test]
    fn a_backup_does_not_hold_itself() {
        let data = json!({ "files": { "directory": "data" } });
        check(
            json!({ "sources": data, "to": ["data/backups"] }),
            Some("lies in the source `files`"),
        );
        check(
            json!({ "sources": data, "to": ["/workspace/data"] }),
            Some("lies in"),
        );
        check(json!({ "sources": data, "to": ["/workspace/database"] }), None);
    }
}
