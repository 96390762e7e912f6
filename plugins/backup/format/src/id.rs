//! A run and a stage into the id of its backup, which is also the name of its directory.
//!
//! The run's id comes first and sorts by time; the stage follows, as two stages of one run may back up to one place.

/// The length of a run's id.
const RUN: usize = 26;

/// No file system refuses the sum of both.
const MAX_STAGE: usize = 80;

/// The same run and stage always give the same id, so an interrupted stage finds its own work again.
pub fn derive(run: &str, stage: &str) -> String {
    format!("{run}-{}", slug(stage))
}

/// Whether a directory's name can be an id. Nothing else in a target is ever touched.
pub fn is_id(text: &str) -> bool {
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    match (
        text.get(..RUN),
        text.get(RUN..).and_then(|rest| rest.strip_prefix('-')),
    ) {
        (Some(run), Some(stage)) => {
            let length = (1..=MAX_STAGE).contains(&stage.len());
            run.bytes().all(lower) && length && stage.bytes().all(|b| lower(b) || b == b'-')
        }
        _ => false,
    }
}

/// Whether `id` came from a stage of this name.
pub fn is_of_stage(id: &str, stage: &str) -> bool {
    is_id(id) && id.get(RUN + 1..) == Some(slug(stage).as_str())
}

/// `test[os=debian]` as `test-os-debian`.
fn slug(stage: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let text: String = stage.chars().take(MAX_STAGE).map(plain).collect();
    match text.trim_matches('-') {
        "" => "stage".to_owned(),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN_ID: &str = "01kb0q4z3mv8w5s2tq6n9d7xce";

    fn check(stage: &str, expected: &str) {
        let id = derive(RUN_ID, stage);
        assert_eq!(id, format!("{RUN_ID}-{expected}"));
        assert!(is_id(&id) && is_of_stage(&id, stage));
    }

    #[test]
    fn stages_become_part_of_it() {
        check("backup", "backup");
        check("Backup[os=debian]", "backup-os-debian");
        check("..", "stage");
        check(&"ä/".repeat(90), "stage");
        check(&"x".repeat(200), &"x".repeat(80));
    }

    #[test]
    fn other_directories_are_no_backups() {
        let short = &RUN_ID[1..];
        for name in [
            "lost+found",
            "",
            "..",
            RUN_ID,
            &format!("{RUN_ID}-"),
            &format!("{short}-backup"),
            &format!("{RUN_ID}-a/b"),
        ] {
            assert!(!is_id(name), "{name}");
        }
    }
}
