//! The `with:` block of a `restore` stage into checked values.

use std::collections::BTreeMap;

use serde::Deserialize;
use windlass_backup_format::id;
use windlass_backup_format::location::{Location, check_name};
use windlass_backup_format::place::Place;
use windlass_guest::Error;
use windlass_guest::objects::Access;

/// The whole block, as `plugin.json` describes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    pub from: String,
    pub s3: Option<Access>,
    /// Of a backup, or `latest`.
    #[serde(default = "latest")]
    pub id: String,
    pub into: BTreeMap<String, Location>,
    #[serde(default)]
    pub replace: bool,
}

/// The latest verified backup that holds all that is wanted.
const LATEST: &str = "latest";

fn latest() -> String {
    LATEST.to_owned()
}

impl Config {
    /// `None`: the latest.
    pub(crate) fn id(&self) -> Option<&str> {
        Some(self.id.as_str()).filter(|id| *id != LATEST)
    }

    /// Where the backups are.
    ///
    /// # Errors
    /// `config.invalid`: nothing says how a bucket is reached.
    pub(crate) fn from(&self) -> Result<Place, Error> {
        Place::new(&self.from, self.s3.as_ref())
    }

    /// Everything that can be wrong with the block before anything is read.
    ///
    /// # Errors
    /// `config.invalid`, naming the key.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.into.is_empty() {
            return Err(Error::config("`into` names nothing to restore"));
        }
        self.from()?;
        self.into.keys().try_for_each(|name| check_name("into", name))?;
        self.into
            .iter()
            .try_for_each(|(name, location)| location.check(name))?;
        if let Some(id) = self.id().filter(|id| !id::is_id(id)) {
            return Err(Error::config(format!("`id: {id}` is not the id of a backup"))
                .help("an id is the name of a backup's directory; `latest` is the latest verified backup"));
        }
        let places: Vec<Location> = self.into.values().map(Location::resolved).collect();
        match places
            .iter()
            .enumerate()
            .find(|(at, place)| places.iter().take(*at).any(|other| other == *place))
        {
            Some(_) => Err(Error::config(
                "two names of `into` are restored to the same place",
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(patch: Value, wrong: Option<&str>) {
        let mut with =
            json!({ "from": "/mnt/backups", "into": { "app": { "sqlite": "sqlite:///workspace/app.db" } } });
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
        check(json!({ "id": "01kb0q4z3mv8w5s2tq6n9d7xce-backup" }), None);
        check(json!({ "id": "../../etc" }), Some("is not the id of a backup"));
        check(json!({ "id": "latest" }), None);
        check(json!({ "id": "newest" }), Some("is not the id of a backup"));
        check(json!({ "into": {} }), Some("`into`"));
        check(json!({ "from": "s3://backups/team", "s3": {} }), None);
        check(json!({ "from": "s3://backups/team" }), Some("`s3` does not say"));
        check(json!({ "into": { "a/b": { "directory": "x" } } }), Some("a/b"));
        check(
            json!({ "into": { "a": { "directory": "x" }, "b": { "directory": "./x/" } } }),
            Some("same place"),
        );
    }
}
