//! SQL migrations when their run is undone: nothing takes them back, so what counts is whether older code can live with them.

use std::fs;

use windlass_guest::{Error, Outcome, PastEffect};

use crate::config::Config;
use crate::script::{Migration, Phase};
use crate::stage::MIGRATION_LABEL;

/// Changes nothing.
///
/// # Errors
/// `migrate.not-undone`, naming the migrations of other phases than expand.
pub(crate) fn check(config: &Config, effects: &[PastEffect]) -> Result<Outcome, Error> {
    let applied: Vec<&str> = effects
        .iter()
        .filter(|effect| effect.function == "sql.transact")
        .filter_map(|effect| effect.arguments["label"].as_str()?.strip_prefix(MIGRATION_LABEL))
        .collect();
    if applied.is_empty() {
        return Ok(Outcome::unchanged("no migration was applied"));
    }
    let harmless = harmless(config);
    let others: Vec<&str> = applied
        .iter()
        .copied()
        .filter(|version| !harmless.iter().any(|known| known == version))
        .collect();
    if others.is_empty() {
        let what = format!("{} stay: older code works beside them", applied.join(", "));
        return Ok(Outcome::unchanged(what));
    }
    let message = format!("the migrations {} cannot be taken back", others.join(", "));
    Err(Error::new("migrate.not-undone", message)
        .help("look at the database; a backup from before this run is the way back"))
}

/// The versions of the phase expand. A file that is gone or has become another says nothing good.
fn harmless(config: &Config) -> Vec<String> {
    let files = fs::read_dir(config.directory()).into_iter().flatten().flatten();
    let read = |file: fs::DirEntry| {
        let name = file.file_name().to_string_lossy().into_owned();
        let bytes = fs::read(file.path()).ok()?;
        Migration::read(&name, &bytes).ok().flatten()
    };
    files
        .filter_map(read)
        .filter(|migration| migration.phase == Phase::Expand)
        .map(|migration| migration.version.as_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(versions: &[&str], code: Option<&str>) {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("0001_a.sql"), "CREATE TABLE a (id INTEGER);").unwrap();
        let drop = "-- windlass: phase=contract\nDROP TABLE a;";
        fs::write(place.path().join("0002_b.sql"), drop).unwrap();
        let with = json!({ "url": "sqlite:///a.db", "directory": place.path() });
        let config: Config = serde_json::from_value(with).unwrap();
        let effect = |version: &&str| PastEffect {
            key: String::new(),
            function: "sql.transact".into(),
            arguments: json!({ "label": format!("{MIGRATION_LABEL}{version}") }),
            state: "done".into(),
        };
        let effects: Vec<PastEffect> = versions.iter().map(effect).collect();
        let answer = super::check(&config, &effects);
        assert_eq!(
            answer.err().map(|error| error.code).as_deref(),
            code,
            "{versions:?}"
        );
    }

    #[test]
    fn what_older_code_cannot_live_with_is_not_undone() {
        check(&[], None);
        check(&["0001"], None);
        check(&["0001", "0002"], Some("migrate.not-undone"));
        check(&["0003"], Some("migrate.not-undone"));
    }
}
