//! A file and what surrounds it in; a pipeline, or what is wrong with it, out.

use super::*;
use crate::{name::StageName, pattern::Pattern};
use model::{PluginReference, SecretSource};
use serde_json::json;
use std::{collections::HashMap, time::Duration};

/// Files by name, and the process's environment.
#[derive(Default)]
struct World {
    files: HashMap<&'static str, String>,
    process: HashMap<&'static str, &'static str>,
    vars: Vec<(&'static str, &'static str)>,
    var_files: Vec<&'static str>,
    env_files: Vec<&'static str>,
    overlay: Option<&'static str>,
    lenient: bool,
}

impl World {
    fn new(pipeline: &str) -> Self {
        Self {
            files: HashMap::from([("p.yaml", pipeline.to_string())]),
            ..Self::default()
        }
    }

    fn file(mut self, name: &'static str, text: &str) -> Self {
        self.files.insert(name, text.to_string());
        self
    }

    fn load(&self) -> Result<Pipeline, Vec<String>> {
        let reader = |path: &Path| {
            let name = path
                .strip_prefix("/project")
                .unwrap_or(path)
                .to_string_lossy()
                .into_owned();
            self.files
                .get(name.as_str())
                .cloned()
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect();
        let loaded = load(&LoadRequest {
            root: Path::new("/project"),
            file: Path::new("p.yaml"),
            shown: "p.yaml".into(),
            overlay: self.overlay.map(String::from),
            vars: self
                .vars
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            var_files: paths(&self.var_files),
            env_files: paths(&self.env_files),
            reader: &reader,
            process_env: &|name| self.process.get(name).map(ToString::to_string),
            recorded_env: None,
            missing: if self.lenient {
                MissingValues::Unknown
            } else {
                MissingValues::Refuse
            },
        });
        match loaded {
            Ok((pipeline, _)) => Ok(pipeline),
            Err(problems) => Err(problems
                .sorted()
                .iter()
                .map(|one| {
                    let place = one
                        .span
                        .as_ref()
                        .map(|span| format!("{span} "))
                        .unwrap_or_default();
                    format!("{place}{}", one.message)
                })
                .collect()),
        }
    }

    #[track_caller]
    fn pipeline(&self) -> Pipeline {
        self.load().expect("valid")
    }

    #[track_caller]
    fn check_problem(&self, expected: &str) {
        let problems = self.load().map(|_| ()).expect_err(expected);
        assert!(
            problems.iter().any(|problem| problem.contains(expected)),
            "{problems:#?}"
        );
    }
}

/// A pipeline with one stage, and these lines before it.
fn with_head(head: &str) -> World {
    World::new(&format!(
        "windlass: 1\nname: p\n{head}\nstages: {{ a: {{ uses: x }} }}\n"
    ))
}

fn with_stages(stages: &str) -> World {
    World::new(&format!("windlass: 1\nname: p\nstages:\n{stages}\n"))
}

fn needs(pipeline: &Pipeline, stage: &str) -> Vec<String> {
    let found = pipeline
        .stages
        .iter()
        .chain(&pipeline.finally)
        .find(|one| one.name.as_str() == stage);
    found
        .expect(stage)
        .needs
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn variables_and_their_layers() {
    let head = "vars: { a: x, n: 1, on: false, must: { required: true }, free: { type: number } }";
    with_head(head).check_problem("p.yaml:3:32 the variable `must` is required and has no value");
    let mut world = with_head(head).file("v.yaml", "{ must: from-file, n: 5 }");
    world.var_files = vec!["v.yaml"];
    world.vars = vec![("n", "7"), ("on", "true"), ("a", "a=b")];
    let vars = serde_json::to_value(world.pipeline().vars).expect("JSON");
    assert_eq!(
        vars,
        json!({ "a": "a=b", "n": 7, "on": true, "must": "from-file", "free": null })
    );
    world.vars = vec![("n", "seven")];
    world.check_problem("--var: `n` must be a number, not `seven`");
    world.vars = vec![("nn", "1")];
    world.check_problem("--var: there is no variable `nn`");
    world.vars = vec![("must", "x")];
    world.var_files = vec!["none.yaml"];
    world.check_problem("there is no file `none.yaml`");
    let choice = with_head("vars: { color: { default: red, enum: [green] } }");
    choice.check_problem("the variable `color` cannot be `\\\"red\\\"`");
}

#[test]
fn the_later_layer_of_env_wins() {
    let head = "env: { A: { default: d, process: true }, B: b, C: { process: true }, D: { default: d } }\nenv-files: [one.env]";
    let mut world = with_head(head)
        .file("one.env", "B=file-$A\nC=${C}\nE=e\n")
        .file("two.env", "D=${B}+\n");
    world.process = HashMap::from([
        ("A", "process"),
        ("C", "c"),
        ("D", "not asked"),
        ("E", "not asked"),
    ]);
    world.env_files = vec!["two.env"];
    let env = world.pipeline().env;
    let check = |name: &str, value: &str, layer: &str| {
        assert_eq!(
            (env[name].value.as_str(), env[name].layer.as_str()),
            (value, layer),
            "{name}"
        );
    };
    check("A", "process", "process");
    check("B", "file-process", "one.env");
    check("C", "c", "process");
    check("D", "file-process+", "--env-file two.env");
    check("E", "e", "one.env");
    with_head("env-files: [one.env]")
        .file("one.env", "A=1\n\nbad line\n")
        .check_problem("one.env:3:1 `bad` has no `=` after it");
}

#[test]
fn without_values_a_file_can_still_be_checked() {
    let text = "windlass: 1\nname: p\nvars: { v: { required: true } }\nenv: { E: { process: true } }\nstages:\n  a: { uses: x, with: { v: \"${{ vars.v }}\", e: \"${{ env.E }}\" }, allow: { http: [\"https://${{ vars.v }}\"] } }\n";
    let mut world = World::new(text);
    world.check_problem("`env.E` has no value in any layer");
    world.lenient = true;
    assert_eq!(world.pipeline().stages[0].allow, Vec::new());
}

#[test]
fn an_overlay_is_laid_over_the_file() {
    let base = "windlass: 1\nname: p\nvars: { a: 1, b: 2 }\nstages:\n  a: { uses: x, needs: [], with: { list: [1, 2], keep: 1, drop: 1 } }\n";
    let overlay = "vars: { b: 3 }\nstages:\n  a: { with: { list: [9], drop: null } }\n  b: { uses: y }\n";
    let mut world = World::new(base).file("p.production.yaml", overlay);
    world.overlay = Some("production");
    let pipeline = world.pipeline();
    assert_eq!(
        serde_json::to_value(&pipeline.vars).expect("JSON"),
        json!({ "a": 1, "b": 3 })
    );
    let stage = &pipeline.stages[0];
    let value = stage
        .with
        .evaluate(&pipeline.scope(stage, expression::RunScope::default(), None))
        .expect("a value");
    assert_eq!(
        value.to_json(&mut |_| String::new()),
        json!({ "list": [9], "keep": 1 })
    );
    assert_eq!(pipeline.stages[1].span.to_string(), "p.production.yaml:4:3");
    assert_eq!(pipeline.sources.len(), 2);
    world.overlay = Some("staging");
    world.check_problem("there is no file `p.staging.yaml`");
    world.overlay = Some("../x");
    world.check_problem("cannot be the name of an overlay");
}

#[test]
fn a_stage_waits_for_what_it_uses() {
    let text = "windlass: 1\nname: p\nsecrets: { db: stage://fetch/db }\nstages:\n  fetch: { uses: vault }\n  build: { uses: b, matrix: { os: [x, y] } }\n  use: { uses: c, with: { url: \"${{ secrets.db.url }}\" } }\n  out: { uses: c, with: { all: \"${{ stages.build.outputs }}\" }, if: \"${{ stages.use.outputs.ok }}\" }\n  last: { uses: d, needs: [build, out] }\n  granted: { uses: d, allow: { secrets: { use: [db] } } }\nfinally:\n  tidy: { uses: e, with: { x: \"${{ stages.last.outputs.x }}\" } }\n  after: { uses: e, needs: [tidy] }\n";
    let pipeline = World::new(text).pipeline();
    let check = |stage: &str, expected: &[&str]| assert_eq!(needs(&pipeline, stage), expected, "{stage}");
    check("fetch", &[]);
    check("build[os=x]", &[]);
    check("use", &["fetch"]);
    check("out", &["build[os=x]", "build[os=y]", "use"]);
    check("last", &["build[os=x]", "build[os=y]", "out"]);
    check("granted", &["fetch"]);
    check("tidy", &[]);
    check("after", &["tidy"]);
    assert_eq!(pipeline.cells["build"].len(), 2);
    let db = pipeline.secrets.values().next().expect("a secret");
    let stage = StageName::new("fetch").expect("valid");
    assert_eq!(
        db.from,
        SecretSource::Stage {
            stage,
            name: "db".into()
        }
    );
}

#[test]
fn a_stage_cannot_use_the_secret_that_it_puts() {
    let text = |stage: &str| {
        World::new(&format!(
            "windlass: 1\nname: p\nsecrets: {{ s: stage://a/s }}\nstages:\n  a: {{ uses: x, {stage} }}\n"
        ))
    };
    text("with: { s: \"${{ secrets.s }}\" }").check_problem("these stages wait for each other: a -> a");
    assert_eq!(
        needs(
            &text("allow: { secrets: { put: [s], use: [s] } }").pipeline(),
            "a"
        ),
        Vec::<String>::new()
    );
}

#[test]
fn a_matrix_makes_cells() {
    let pipeline = with_stages(
        "  t: { uses: \"./${{ matrix.os }}.wasm\", matrix: { os: [a, b], v: [1, 2], exclude: [{ os: a, v: 2 }], include: [{ os: c }] }, allow: { process: [\"t ${{ matrix.os }}\"] } }\n  after: { uses: x, needs: [t] }",
    )
    .pipeline();
    let names: Vec<&str> = pipeline.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(
        names,
        ["t[os=a,v=1]", "t[os=b,v=1]", "t[os=b,v=2]", "t[os=c]", "after"]
    );
    assert_eq!(pipeline.stages[3].uses, PluginReference::File("./c.wasm".into()));
    let argv = ["t".to_string(), "b".to_string()];
    assert!(pipeline.stages[1].allow[0].pattern.covers(&Pattern::call(&argv)));
    assert_eq!(needs(&pipeline, "after").len(), 4);
}

#[test]
fn defaults_and_what_a_stage_says() {
    let pipeline = World::new(
        "windlass: 1\nname: p\ndefaults: { timeout: 1m, retry: { attempts: 3, on: [upstream] } }\nstages:\n  a: { uses: x }\n  b: { uses: x, timeout: 2m, retry: { attempts: 5 }, rollback: never, point-of-no-return: true, allow: { files: { /workspace: ro } } }\n",
    )
    .pipeline();
    let [a, b] = &pipeline.stages[..] else {
        panic!("two stages")
    };
    assert_eq!(
        (a.timeout, a.retry.attempts, a.retry.on.as_slice()),
        (Duration::from_secs(60), 3, &["upstream".to_string()][..])
    );
    assert_eq!(
        (b.timeout, b.retry.attempts, b.retry.on.len()),
        (Duration::from_secs(120), 5, 1)
    );
    assert!(b.point_of_no_return && b.rollback == model::Rollback::Never);
    assert_eq!(b.grants_span().text(), "allow: { files: { /workspace: ro } }");
    assert_eq!(b.allow[0].span.text(), "/workspace: ro");
    assert_eq!(a.grants_span().text(), "a");
}

#[test]
fn a_secret_in_the_file_is_not_shown() {
    let world =
        World::new("windlass: 1\nname: p\nsecrets: { a: hunter2-hunter2 }\nstages: { a: { uses: x } }\n");
    let problems = world.load().map(|_| ()).expect_err("refused");
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("p.yaml:3:15: the secret `a` is written into the file"),
        "{problems:?}"
    );
    assert!(!problems[0].contains("hunter2"));
}

#[test]
fn a_mistake_has_no_followers() {
    let problems = with_stages("  a: { with: {} }\n  b: { uses: x, needs: [a] }\n  c: { uses: x, matrix: { os: 1 }, with: { os: \"${{ matrix.os }}\" } }")
        .load()
        .map(|_| ())
        .expect_err("refused");
    assert_eq!(
        problems,
        [
            "p.yaml:4:6 the stage `a` has no `uses`",
            "p.yaml:6:31 the matrix key `os` must be a list, not a number"
        ]
    );
}

#[test]
fn a_chain_of_many_stages_is_read() {
    let stage = |index: usize| match index {
        0 => "  s0: { uses: x }\n".to_string(),
        _ => format!("  s{index}: {{ uses: x, needs: [s{}] }}\n", index - 1),
    };
    let text: String = (0..5_000).map(stage).collect();
    assert_eq!(with_stages(&text).pipeline().stages.len(), 5_000);
    let circle = format!("{text}  last: {{ uses: x }}\n")
        .replace("s0: { uses: x }", "s0: { uses: x, needs: [s4999] }");
    with_stages(&circle).check_problem("s0 -> s4999 -> s4998 -> s4997 -> ... ");
}
