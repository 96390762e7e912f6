//! `compose config` against `docker-compose config`: both resolve the same files, and mean the same. Docker's old tool is no
//! judge of errors (it accepts a network that does not exist), so errors have tests of their own beside the loader.

#[path = "../compose/keys.rs"]
mod keys;

use serde_json::{Value as Json, json};
use std::{collections::BTreeMap, fs, path::Path, process::Command};
use windlass_tests::workspace::{Workspace, repository};

/// A directory of `tests/compose`, the files in it that are resolved together, and active profiles.
const CASES: &[(&str, &[&str], &[&str])] = &[
    ("guide", &["docker-compose.yml"], &[]),
    (
        "guide",
        &["docker-compose.yml", "docker-compose.secrets.yml"],
        &[],
    ),
    ("guide", &["docker-compose.blue-green.yml"], &[]),
    ("guide", &["docker-compose.monitoring.yml"], &[]),
    ("guide", &["docker-compose.logging.yml"], &[]),
    ("forms", &["compose.yaml"], &[]),
    ("merge", &["compose.yaml", "over.yaml"], &[]),
    ("variables", &["compose.yaml"], &["extra"]),
    ("extends", &["compose.yaml"], &[]),
];

/// Keys of a service that both print in one form: they are compared as they are.
const SAME_FORM: &[&str] = &[
    "cap_add",
    "cap_drop",
    "container_name",
    "environment",
    "hostname",
    "image",
    "init",
    "ipc",
    "labels",
    "network_mode",
    "pid",
    "privileged",
    "read_only",
    "restart",
    "security_opt",
    "stop_signal",
    "user",
    "working_dir",
];

/// Where the two differ in form, and why that is right: `*` stands for any name or element.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "/x-everywhere",
        "docker-compose drops extensions at the top level",
    ),
    (
        "/services/third/healthcheck",
        "docker-compose says `test: [NONE]` for `disable: true`; the specification keeps both",
    ),
    (
        "/services/*/ports/*/mode",
        "of a short form docker-compose prints no mode; the specification's is `ingress`",
    ),
    (
        "/services/*/ports/*/protocol",
        "of a short form docker-compose prints no protocol; the specification's is `tcp`",
    ),
];

/// In env files docker-compose 1.29 sees the process's variables, and not those of `.env`: it gets these as both.
const PROCESS: &[(&str, &str)] = &[
    ("DB_NAME", "teaminsight"),
    ("DB_USER", "teaminsight"),
    ("SECRET_KEY", "from outside"),
];

/// Lists whose order means nothing: docker-compose sorts what it merges.
const SETS: &[&str] = &[
    "configs",
    "dns",
    "dns_search",
    "expose",
    "ports",
    "secrets",
    "tmpfs",
    "volumes",
];

#[test]
fn resolved_files_mean_the_same_as_to_docker_compose() {
    if Command::new("docker-compose").arg("version").output().is_err() {
        println!("skipped: needs docker-compose");
        return;
    }
    for (directory, files, profiles) in CASES {
        let workspace = empty();
        copy(
            &repository().join("tests/compose").join(directory),
            &workspace.path(""),
        );
        let case = format!("{directory} {files:?}");
        let mut ours = resolve(&workspace, files, profiles);
        let printed = docker_compose(&workspace, files, profiles, &case);
        let theirs: Json = serde_saphyr::from_str(&printed).expect("docker-compose prints YAML");
        compare_same_form(&ours, &theirs, &case);
        workspace.write("theirs.yaml", &printed);
        let mut read_back = resolve(&workspace, &["theirs.yaml"], profiles);
        for document in [&mut ours, &mut read_back] {
            DIFFERENCES.iter().for_each(|(place, _)| remove(document, place));
            sort(document);
        }
        assert_eq!(
            ours, read_back,
            "{case}:\n{ours:#}\n--- docker-compose:\n{read_back:#}"
        );
    }
}

#[test]
fn what_is_wrong_is_named_with_file_and_key() {
    let workspace = empty();
    workspace.write(
        "a.yaml",
        "services:\n  a:\n    image: x\n    netwroks: [n]\n    volumes: [\"v:/v\"]\n",
    );
    let ended = workspace
        .windlass(["compose", "config", "-f", "a.yaml"])
        .expect(65);
    for part in [
        "a.yaml:4:5",
        "`netwroks`",
        "did you mean `networks`?",
        "a.yaml:5:15",
        "there is no volume `v`",
    ] {
        assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
    }
    assert_eq!(ended.stdout, "");
    workspace
        .windlass(["compose", "config", "-f", "missing.yaml"])
        .expect(65);
    workspace.windlass(["compose", "config"]).expect(65);
}

#[test]
fn what_is_printed_can_be_read_again() {
    for format in ["yaml", "json"] {
        let workspace = empty();
        let command = "[echo, $$HOME, \"yes\", \"0440\", \"\", \"1\", \"null\", \"a: b\"]";
        workspace.write(
            "compose.yaml",
            &format!(
                "services: {{ a: {{ image: x, command: {command}, environment: {{ A: \"1\", B: }} }} }}\n"
            ),
        );
        let first = workspace
            .windlass(["compose", "config", "--format", format])
            .expect(0)
            .stdout;
        workspace.write("again.yaml", &first);
        let again = workspace
            .windlass(["compose", "config", "-f", "again.yaml", "--format", format])
            .expect(0);
        assert_eq!(again.stdout, first);
        assert!(first.contains("$$HOME"), "{first}");
    }
}

#[test]
fn the_project_is_named_and_its_variables_come_in_layers() {
    let mut workspace = empty();
    workspace.write(
        "compose.yaml",
        "services: { a: { image: \"$ONE-$TWO-$THREE\" } }\n",
    );
    workspace.write(".env", "ONE=.env\nTWO=.env\nTHREE=.env\n");
    workspace.write("other.env", "ONE=other\nTWO=other\nTHREE=\n");
    workspace.set("TWO", "process");
    let image = |arguments: &[&str]| {
        let all = ["compose", "config", "--format", "json"].iter().chain(arguments);
        let document = workspace.windlass(all).expect(0).json();
        (
            document["name"].clone(),
            document["services"]["a"]["image"].clone(),
        )
    };
    assert_eq!(image(&[]), ("project".into(), ".env-process-.env".into()));
    assert_eq!(
        image(&["--env-file", "other.env", "-p", "named"]),
        ("named".into(), "other-process-".into())
    );
}

/// What becomes part of something else on the way.
const FOLDED: &[&str] = &["/extends", "/env_file", "/label_file", "/external/name"];

#[test]
fn every_key_of_the_schema_is_accepted_and_kept() {
    let workspace = empty();
    workspace.write("a.env", "A=1\n");
    workspace.write("include.yaml", "services: { included: { image: x } }\n");
    workspace.write("extended.yaml", "services: { a: { image: x } }\n");
    let mut document = json!({
        "services": { "a": { "image": "x" } }, "networks": { "a": {} }, "volumes": { "a": {}, "b": {} },
        "secrets": { "a": { "file": "/a" } }, "configs": { "a": { "file": "/a" } }, "models": { "a": { "model": "m" } },
    });
    let mut kept = Vec::new();
    for (number, sample) in keys::samples(false).into_iter().enumerate() {
        let keys::Sample {
            document: sample,
            place,
        } = sample;
        let section = place[0].as_str();
        let Some(value) = sample[section].get("a") else {
            let before = document[section].as_array().cloned().unwrap_or_default();
            document[section] = match sample[section].as_array() {
                Some(more) => [before.as_slice(), more].concat().into(),
                None => sample[section].clone(),
            };
            continue;
        };
        // In a section of names, every sample gets a name of its own.
        let name = format!("sample-{number}");
        document[section][&name] = value.clone();
        let inside = place.get(2..).unwrap_or_default();
        let inside: String = inside.iter().map(|key| format!("/{key}")).collect();
        let is_given = value.pointer(&inside).is_some_and(|value| !value.is_null());
        if is_given && !FOLDED.iter().any(|folded| inside.starts_with(folded)) {
            kept.push(format!("/{section}/{name}{inside}"));
        }
    }
    assert!(kept.len() > 400, "{} samples", kept.len());
    workspace.write("compose.yaml", &document.to_string());
    let resolved = workspace
        .windlass(["compose", "config", "--profile", "a", "--format", "json"])
        .expect(0)
        .json();
    let lost: Vec<&String> = kept
        .iter()
        .filter(|place| resolved.pointer(place).is_none())
        .collect();
    assert!(lost.is_empty(), "{lost:#?}");
}

fn empty() -> Workspace {
    Workspace::new(env!("CARGO_BIN_EXE_windlass-under-test"))
}

fn resolve(workspace: &Workspace, files: &[&str], profiles: &[&str]) -> Json {
    let mut arguments = vec!["compose", "config", "--format", "json", "--project-name", "case"];
    files.iter().for_each(|file| arguments.extend(["-f", file]));
    profiles
        .iter()
        .for_each(|profile| arguments.extend(["--profile", profile]));
    workspace.windlass(arguments).expect(0).json()
}

fn docker_compose(workspace: &Workspace, files: &[&str], profiles: &[&str], case: &str) -> String {
    let mut command = Command::new("docker-compose");
    for file in files {
        command.args(["-f", file]);
    }
    for profile in profiles {
        command.args(["--profile", profile]);
    }
    let output = command
        .args(["-p", "case", "config"])
        .current_dir(workspace.path(""))
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .envs(PROCESS.iter().copied())
        .output()
        .expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker-compose refuses {case}: {errors}");
    String::from_utf8(output.stdout).expect("docker-compose prints UTF-8")
}

/// Without a detour over our own reader.
fn compare_same_form(ours: &Json, theirs: &Json, case: &str) {
    let services = ours["services"].as_object().expect("a project has services");
    assert!(!services.is_empty(), "{case}");
    for (name, service) in services {
        for key in SAME_FORM.iter().filter(|key| service.get(**key).is_some()) {
            let theirs = numbers_as_text(theirs["services"][name][*key].clone());
            assert_eq!(
                numbers_as_text(service[*key].clone()),
                theirs,
                "{case}: `{key}` of {name}"
            );
        }
    }
}

/// docker-compose leaves a number in an environment a number.
fn numbers_as_text(value: Json) -> Json {
    match value {
        Json::Number(number) => number.to_string().into(),
        Json::Object(entries) => entries
            .into_iter()
            .map(|(key, value)| (key, numbers_as_text(value)))
            .collect(),
        other => other,
    }
}

/// Removes what a place with `*` stands for.
fn remove(document: &mut Json, place: &str) {
    let place = place.trim_start_matches('/');
    let Some((first, rest)) = place.split_once('/') else {
        if let Json::Object(entries) = document {
            entries.remove(place);
        }
        return;
    };
    match document {
        Json::Object(entries) => entries
            .iter_mut()
            .filter(|(key, _)| first == "*" || first == *key)
            .for_each(|(_, value)| remove(value, rest)),
        Json::Array(items) => items.iter_mut().for_each(|item| remove(item, rest)),
        _ => {}
    }
}

fn sort(document: &mut Json) {
    let services = document["services"].as_object_mut();
    for service in services.into_iter().flat_map(|all| all.values_mut()) {
        for key in SETS {
            if let Some(items) = service.get_mut(*key).and_then(Json::as_array_mut) {
                items.sort_by_key(|item| ordered(item).to_string());
            }
        }
    }
}

/// With the keys of maps in one order.
fn ordered(value: &Json) -> Json {
    match value {
        Json::Object(entries) => {
            let sorted: BTreeMap<_, _> = entries.iter().collect();
            sorted
                .into_iter()
                .map(|(key, value)| (key.clone(), ordered(value)))
                .collect()
        }
        other => other.clone(),
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("copied");
        }
    }
}
