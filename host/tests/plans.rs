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

/// The pipeline that the README starts with.
fn quickstart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/quickstart.yaml")
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
        recorded_env: None,
        missing: MissingValues::Refuse,
    })
}

fn render(diagnostics: &Diagnostics) -> String {
    let shown: Vec<String> = diagnostics.sorted().iter().map(|one| one.render(false)).collect();
    shown.join("\n\n") + "\n"
}

#[test]
fn valid_plans_load_without_a_word() {
    for path in plans("valid").into_iter().chain([quickstart()]) {
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

#[test]
fn six_unrelated_mistakes_are_six_problems_of_one_run() {
    let path = plans("invalid")
        .into_iter()
        .find(|path| path.ends_with("six-mistakes.yaml"));
    let problems = load_file(&path.expect("the file")).expect_err("it has mistakes");
    assert_eq!(problems.len(), 6, "{}", render(&problems));
}

/// Words that only a programmer of Windlass should read.
const INTERNAL: &[&str] = &[
    "::",
    "Option<",
    "Some(",
    "serde",
    "expected struct",
    "invalid type",
    "Vec<",
    "granit",
    "unwrap",
];

/// A small generator of its own: the mutations of a seed are the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % u64::try_from(bound.max(1)).expect("small"))
            .expect("below the bound")
    }
}

fn mutate(text: &str, random: &mut Random) -> String {
    const ODD: &[char] = &[
        '\0', '\u{feff}', '\t', '"', '\'', '{', '}', '[', ']', ':', '#', '&', '*', '!', '|', '-', 'é',
        '\u{202e}', '$', '\\',
    ];
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    for _ in 0..=random.below(3) {
        let (at, other) = (random.below(lines.len()), random.below(lines.len()));
        match random.below(7) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(other, lines[at].clone()),
            2 => lines.swap(at, other),
            3 => lines.truncate(at + 1),
            4 => lines[at].insert_str(0, &" ".repeat(1 + random.below(4))),
            _ => {
                let mut line: Vec<char> = lines[at].chars().collect();
                let (place, odd) = (random.below(line.len() + 1), ODD[random.below(ODD.len())]);
                match line.get_mut(place) {
                    Some(character) if random.below(2) == 0 => *character = odd,
                    _ => line.insert(place, odd),
                }
                lines[at] = line.into_iter().collect();
            }
        }
        if lines.is_empty() {
            break;
        }
    }
    lines.join("\n")
}

#[test]
fn a_thousand_mutations_never_panic_and_never_name_a_type() {
    let whole = plans("valid")
        .into_iter()
        .find(|path| path.ends_with("whole.yaml"));
    for path in [whole.expect("the file"), quickstart()] {
        mutations(&fs::read_to_string(path).expect("readable"));
    }
}

fn mutations(text: &str) {
    let mut random = Random(7);
    let mut refused = 0;
    for round in 0..1_000 {
        let mutated = mutate(text, &mut random);
        let loaded = load(&LoadRequest {
            root: Path::new("/project"),
            file: Path::new("/project/mutated.yaml"),
            shown: "mutated.yaml".into(),
            overlay: None,
            vars: Vec::new(),
            var_files: Vec::new(),
            env_files: Vec::new(),
            reader: &|_| Ok(mutated.clone()),
            process_env: &|_| None,
            recorded_env: None,
            missing: MissingValues::Refuse,
        });
        let Err(problems) = loaded else { continue };
        refused += 1;
        for problem in problems.sorted() {
            let said = format!(
                "{} {} {:?}",
                problem.message,
                problem.help.as_deref().unwrap_or(""),
                problem.label
            );
            let said = said.replace("Some(\"", "\"");
            for word in INTERNAL {
                // What the file says itself may be quoted.
                assert!(
                    !said.contains(word) || mutated.contains(word),
                    "round {round}: {word} in {said}"
                );
            }
            problem.render(false);
        }
    }
    assert!(refused > 500, "only {refused} of 1,000 mutations were noticed");
}

mod schema {
    use super::{plans, quickstart};
    use std::fs;
    use windlass::pipeline::schema::schema;

    fn json(path: &std::path::Path) -> Option<serde_json::Value> {
        let text = fs::read_to_string(path).expect("readable");
        serde_saphyr::from_str(&text).ok()
    }

    fn validator() -> jsonschema::Validator {
        jsonschema::draft202012::new(&schema()).expect("the schema is one")
    }

    #[test]
    fn editors_accept_what_windlass_accepts() {
        for path in plans("valid").into_iter().chain([quickstart()]) {
            let document = json(&path).expect("valid YAML");
            let problems: Vec<String> = validator()
                .iter_errors(&document)
                .map(|error| format!("{} at {}", error, error.instance_path()))
                .collect();
            assert_eq!(problems, Vec::<String>::new(), "{}", path.display());
        }
    }

    #[test]
    fn editors_refuse_what_a_schema_can_know() {
        for name in [
            "six-mistakes",
            "top-level",
            "stage-values",
            "grants",
            "matrix",
            "empty",
            "a-list",
        ] {
            let path = plans("invalid")
                .into_iter()
                .find(|path| path.file_stem().is_some_and(|stem| stem == name));
            let document = json(&path.expect("the file")).expect("valid YAML");
            assert!(!validator().is_valid(&document), "{name}");
        }
    }
}
