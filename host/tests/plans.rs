//! Golden files: pipelines that are valid, and those that are not with what is said about them, word by word.
//! `WINDLASS_BLESS=1` writes the expectations anew.

use std::{
    fs,
    path::{Path, PathBuf},
};
use windlass::{
    diagnostic::{Diagnostics, Severity},
    pipeline::{LoadRequest, MissingValues, Pipeline, load},
};

fn plans(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/plans")
        .join(kind);
    let entries = fs::read_dir(directory).expect("the directory of plans");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

fn load_file(path: &Path) -> Result<(Pipeline, Diagnostics), Diagnostics> {
    let shown = path.file_name().expect("a file").to_string_lossy().into_owned();
    load(&LoadRequest {
        root: path.parent().expect("a directory"),
        file: path,
        shown,
        overlay: None,
        vars: Vec::new(),
        var_files: Vec::new(),
        env_files: Vec::new(),
        reader: &|path| fs::read_to_string(path),
        process_env: &|_| None,
        missing: MissingValues::Refuse,
    })
}

fn render(diagnostics: &Diagnostics) -> String {
    let shown: Vec<String> = diagnostics.sorted().iter().map(|one| one.render(false)).collect();
    shown.join("\n\n") + "\n"
}

#[test]
fn valid_plans_load_without_a_word() {
    for path in plans("valid") {
        let loaded = load_file(&path);
        let said = match &loaded {
            Ok((_, warnings)) => render(warnings),
            Err(problems) => render(problems),
        };
        assert_eq!(said.trim(), "", "{}", path.display());
    }
}

#[test]
fn invalid_plans_are_explained() {
    let bless = std::env::var_os("WINDLASS_BLESS").is_some();
    for path in plans("invalid") {
        let problems = load_file(&path).expect_err(&path.display().to_string());
        assert!(
            problems
                .sorted()
                .iter()
                .any(|one| one.severity == Severity::Error)
        );
        let (said, expected) = (render(&problems), path.with_extension("err"));
        if bless {
            fs::write(&expected, &said).expect("written");
        }
        let wanted = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(
            said,
            wanted,
            "{}: WINDLASS_BLESS=1 accepts what is said",
            path.display()
        );
    }
}
