//! What no compiler checks: which module may use which, and that nothing is left lying about.

use std::{
    fs,
    path::{Path, PathBuf},
};
use windlass_tests::workspace::repository;

const VOCABULARY: &[&str] = &[
    "capability",
    "diagnostic",
    "event",
    "failure",
    "name",
    "pattern",
    "source",
    "value",
];

/// Each module of the host and what it may use beside the vocabulary. `host/ARCHITECTURE.md` says why.
const MAY_USE: &[(&str, &[&str])] = &[
    ("pipeline", &[]),
    ("catalog", &["pipeline"]),
    ("compose", &["pipeline"]),
    ("plan", &["pipeline", "catalog", "schedule"]),
    ("grant", &["plan"]),
    ("schedule", &[]),
    ("secret", &["pipeline"]),
    ("artifact", &["support"]),
    ("wit", &["service"]),
    (
        "service",
        &[
            "grant", "wit", "secret", "artifact", "pipeline", "compose", "support",
        ],
    ),
    ("sandbox", &["service", "wit", "catalog", "grant", "support"]),
    ("journal", &["schedule", "service", "grant"]),
    ("lock", &["journal", "service", "grant"]),
    ("report", &["secret"]),
    ("support", &[]),
    (
        "run",
        &[
            "sandbox", "schedule", "journal", "grant", "plan", "catalog", "pipeline", "service", "secret",
            "artifact", "support",
        ],
    ),
    (
        "cli",
        &[
            "artifact", "catalog", "compose", "grant", "journal", "lock", "pipeline", "plan", "report",
            "run", "sandbox", "schedule", "secret", "service", "support",
        ],
    ),
];

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(&repository().join("host/src"), &mut found);
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    found
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, found)
        } else {
            found.push(path)
        }
    }
}

/// The first part of the path below `host/src`, without `.rs`.
fn module(path: &Path) -> String {
    let below = path
        .strip_prefix(repository().join("host/src"))
        .expect("it is there");
    let first = below
        .components()
        .next()
        .expect("a name")
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    first.trim_end_matches(".rs").to_string()
}

/// The modules that `crate::…` names in code that is not a test; `use crate::{a, b::c}` too.
fn used(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    let mut modules = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => modules.push(word(rest)),
            Some(list) => modules.extend(top_level(list)),
        }
    }
    modules
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect()
}

/// The first words of the entries of a list, up to the brace that closes it.
fn top_level(list: &str) -> Vec<String> {
    let (mut depth, mut start, mut words) = (0, true, Vec::new());
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            letter if start && letter.is_alphanumeric() => {
                words.push(word(&list[at..]));
                start = false;
            }
            _ => {}
        }
    }
    words
}

#[test]
fn modules_use_only_what_they_may() {
    let known: Vec<&str> = MAY_USE
        .iter()
        .map(|(name, _)| *name)
        .chain(VOCABULARY.iter().copied())
        .collect();
    let mut wrong = Vec::new();
    for path in sources() {
        let module = module(&path);
        let is_test = path
            .file_name()
            .is_some_and(|name| ["tests.rs", "testing.rs"].contains(&name.to_string_lossy().as_ref()));
        if is_test || module == "lib" || module == "main" {
            continue;
        }
        let allowed = MAY_USE
            .iter()
            .find(|(name, _)| *name == module)
            .map_or(&[][..], |(_, allowed)| allowed);
        let text = fs::read_to_string(&path).expect("readable");
        for used in used(&text) {
            let is_fine =
                used == module || VOCABULARY.contains(&used.as_str()) || allowed.contains(&used.as_str());
            if known.contains(&used.as_str()) && !is_fine {
                wrong.push(format!("{}: `{module}` may not use `{used}`", path.display()));
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn wasmtime_stays_in_its_modules() {
    for path in sources() {
        let text = fs::read_to_string(&path).expect("readable");
        let is_home = ["wit", "sandbox", "service"].contains(&module(&path).as_str());
        assert!(
            is_home || !text.contains("wasmtime::"),
            "{} names wasmtime",
            path.display()
        );
    }
}

#[test]
fn every_module_says_what_it_is() {
    for path in sources() {
        let text = fs::read_to_string(&path).expect("readable");
        assert!(
            text.starts_with("//!"),
            "{} has no //! at its top",
            path.display()
        );
    }
}

#[test]
fn every_item_of_the_interface_is_documented() {
    let mut files = Vec::new();
    walk(&repository().join("wit"), &mut files);
    for path in files {
        let text = fs::read_to_string(&path).expect("readable");
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let is_item = ["interface ", "world ", "resource ", "record ", "enum "]
                .iter()
                .any(|word| line.starts_with(word))
                || line.contains(": func(")
                || line.contains(": static func(");
            let is_documented = at > 0 && lines[at - 1].starts_with("///");
            assert!(!is_item || is_documented, "{}:{}: {line}", path.display(), at + 1);
        }
    }
}

/// First words of codes that no function of ours answers: they end an attempt, refuse a plugin or a file before anything starts, or are
/// bugs of Windlass; `http`, which answers in the codes of WASI; `windlass`, with which our labels begin, and `containers`, with
/// which the names of effects do.
const NOT_ANSWERED: [&str; 8] = [
    "internal",
    "limit",
    "plugin",
    "origin",
    "http",
    "files",
    "windlass",
    "containers",
];

#[test]
fn every_code_that_a_service_answers_is_documented() {
    let mut interface = Vec::new();
    walk(&repository().join("wit"), &mut interface);
    let manual: String = interface
        .iter()
        .map(|path| fs::read_to_string(path).expect("readable"))
        .collect();
    let mut found = 0;
    let mut wrong = Vec::new();
    for path in sources().into_iter().filter(|path| answers(path)) {
        let text = fs::read_to_string(&path).expect("readable");
        for code in codes(&text) {
            found += 1;
            let first = code.split('.').next().unwrap_or_default();
            if !NOT_ANSWERED.contains(&first) && !manual.contains(&format!("`{code}`")) {
                wrong.push(format!("{}: `{code}` is not in wit/", path.display()));
            }
        }
    }
    assert!(found > 50, "the codes are looked for where they are not: {found}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether the file has failures that a host function may answer.
fn answers(path: &Path) -> bool {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let is_test = ["tests.rs", "testing.rs"].contains(&name.as_str());
    // A header's secret is a matter of `wasi:http`.
    let is_http =
        path.ends_with("service/http.rs") || path.parent().is_some_and(|parent| parent.ends_with("http"));
    !is_test && !is_http && (module(path) == "service" || path.ends_with("secret/store.rs"))
        || module(path) == "artifact"
}

/// The texts that look like a code. Names of effects and of failpoints look the same, and are no codes.
fn codes(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    let names_effect = |line: &str| {
        [
            "perform(",
            "perform_labelled(",
            "refuse_while_planning(",
            "failpoint!(",
        ]
        .iter()
        .any(|call| line.contains(call))
    };
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//") && !names_effect(line));
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let is_code = |text: &&str| text.split('.').count() == 2 && text.split('.').all(is_word);
    // Between any two quotes: what looks like a code there is one.
    let quoted = lines.flat_map(|line| line.split('"'));
    quoted.filter(is_code).map(String::from).collect()
}
