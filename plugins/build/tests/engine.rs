//! Images of an engine in memory: what it is asked for, what is pushed, and what is never called a success.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use windlass_guest::containers::{Image, Pushed};
use windlass_guest::{Error, Outcome};
use windlass_plugin_build::config::Config;
use windlass_plugin_build::engine::{self, Engine};

/// An engine whose images are told by the text of what they were built from.
#[derive(Default)]
struct Fake {
    images: BTreeMap<String, Image>,
    /// What the sources are now.
    sources: u32,
    calls: Vec<String>,
    specs: Vec<Value>,
    model: Value,
    /// What the registry answers instead of a digest.
    digest: Option<&'static str>,
    refuses: Option<&'static str>,
    cancelled: bool,
}

impl Engine for Fake {
    fn image(&mut self, reference: &str) -> Result<Option<Image>, Error> {
        Ok(self.images.get(reference).cloned())
    }

    fn build(&mut self, spec: &Value) -> Result<Image, Error> {
        self.specs.push(spec.clone());
        let tag = spec["tags"][0].as_str().unwrap().to_owned();
        self.calls.push(format!("build {tag}"));
        let id = format!("sha256:{:064x}", self.sources);
        let known = self.images.get(&tag).filter(|known| known.id == id).cloned();
        let image = known.unwrap_or(Image {
            id,
            size: 7,
            ..Image::default()
        });
        self.images.insert(tag, image.clone());
        Ok(image)
    }

    fn tag(&mut self, source: &str, target: &str) -> Result<(), Error> {
        self.calls.push(format!("tag {target}"));
        assert!(self.images.contains_key(source));
        Ok(())
    }

    fn push(&mut self, reference: &str, options: &Value) -> Result<Pushed, Error> {
        self.calls.push(format!("push {reference} {options}"));
        if let Some(code) = self.refuses {
            return Err(Error::new(code, "no"));
        }
        let digest = self
            .digest
            .map_or_else(|| format!("sha256:{:064x}", self.sources), str::to_owned);
        let (name, _) = reference.rsplit_once(':').unwrap();
        let pushed = format!("{name}@{digest}");
        for image in self.images.values_mut() {
            image.digests.push(pushed.clone());
        }
        Ok(Pushed {
            digest,
            reference: pushed,
            size: 3,
        })
    }

    fn load(&mut self, options: &Value) -> Result<Value, Error> {
        assert_eq!(options["files"], json!(["/workspace/docker-compose.yml"]));
        assert_eq!(options["variables"], json!({ "VERSION": "2.0" }));
        Ok(self.model.clone())
    }

    fn pipeline(&mut self) -> String {
        "team-insight".into()
    }

    fn info(&mut self, _: &str) {}

    fn is_cancelled(&mut self) -> bool {
        self.cancelled
    }
}

fn config(with: Value) -> Config {
    serde_json::from_value(with).unwrap()
}

fn build(fake: &mut Fake, with: Value) -> Result<Outcome, Error> {
    engine::run(&config(with), fake)
}

fn backend() -> Value {
    json!({
        "tag": "1.0.0", "push-to": "127.0.0.1:5000",
        "images": { "backend": { "context": "./backend", "dockerfile": "../docker/Dockerfile.prod" } },
    })
}

#[test]
fn an_image_is_built_tagged_and_pushed_and_known_by_its_digest() {
    let mut fake = Fake::default();
    let mut with = backend();
    with["images"]["backend"]["args"] = json!({ "A": "1" });
    with["registry"] = json!({ "username": "ci", "password": "wlsec_1" });
    let outcome = build(&mut fake, with).unwrap();
    assert!(outcome.changed);
    let remote = "127.0.0.1:5000/team-insight-backend";
    assert_eq!(
        fake.calls,
        [
            "build team-insight-backend:1.0.0".to_owned(),
            format!("tag {remote}:1.0.0"),
            format!(
                "push {remote}:1.0.0 {}",
                json!({ "username": "ci", "password": "wlsec_1" })
            ),
        ]
    );
    let expected = json!({
        "context": "/workspace/backend", "dockerfile": "../docker/Dockerfile.prod", "args": { "A": "1" },
        "tags": ["team-insight-backend:1.0.0"],
    });
    assert_eq!(fake.specs, [expected]);
    let digest = format!("sha256:{:064x}", 0);
    let output = json!({
        "image": format!("{remote}@{digest}"), "digest": digest, "id": digest, "tag": "1.0.0", "size": 7,
    });
    assert_eq!(outcome.outputs["backend"], output);
}

#[test]
fn only_what_is_new_is_a_change() {
    let mut fake = Fake::default();
    assert!(build(&mut fake, backend()).unwrap().changed);
    let again = build(&mut fake, backend()).unwrap();
    assert!(!again.changed, "{}", again.summary);
    assert_eq!(fake.calls.len(), 6, "the registry is asked again all the same");

    fake.images.values_mut().for_each(|image| image.digests.clear());
    assert!(
        build(&mut fake, backend()).unwrap().changed,
        "the registry had lost it"
    );
    fake.sources = 1;
    assert!(build(&mut fake, backend()).unwrap().changed);
}

#[test]
fn without_a_registry_it_stays_in_the_engine() {
    let mut fake = Fake::default();
    let with = json!({ "tag": "1", "images": { "web": { "context": "/workspace", "repository": "site" } } });
    let outcome = build(&mut fake, with).unwrap();
    assert_eq!(fake.calls, ["build site:1"]);
    assert_eq!(outcome.outputs["web"]["image"], "site:1");
    assert_eq!(outcome.outputs["web"].get("digest"), None);
}

#[test]
fn a_push_without_a_digest_is_no_success() {
    for digest in ["", "sha256:12", "latest"] {
        let mut fake = Fake {
            digest: Some(digest),
            ..Fake::default()
        };
        let error = build(&mut fake, backend()).unwrap_err();
        assert_eq!(error.code, "build.digest", "{digest}");
    }
    let mut fake = Fake {
        refuses: Some("registry.unreachable"),
        ..Fake::default()
    };
    let error = build(&mut fake, backend()).unwrap_err();
    assert_eq!(error.code, "registry.unreachable");
    assert!(error.message.starts_with("image `backend`"), "{}", error.message);
}

#[test]
fn a_run_that_ends_starts_no_further_image() {
    let mut fake = Fake {
        cancelled: true,
        ..Fake::default()
    };
    assert_eq!(build(&mut fake, backend()).unwrap_err().code, "cancelled");
    assert_eq!(fake.calls, [""; 0]);
}

fn compose() -> Value {
    json!({
        "tag": "2.0", "compose": ["docker-compose.yml"], "variables": { "VERSION": "2.0" },
        "push-to": "registry.example.com/team",
    })
}

#[test]
fn every_service_with_a_build_is_built() {
    let mut fake = Fake {
        model: json!({ "name": "insight", "services": {
            "backend": { "build": { "context": "/workspace/backend", "dockerfile": "Dockerfile", "args": {}, "target": null } },
            "frontend": {
                "image": "registry:5000/team-frontend:latest",
                "build": {
                    "context": "/workspace/frontend", "args": { "URL": "https://x", "N": 1, "NONE": null },
                    "platforms": ["linux/amd64"], "no_cache": true, "cache_from": ["a"], "extra_hosts": { "h": "1.2.3.4" },
                },
            },
            "redis": { "image": "redis:7" },
        } }),
        ..Fake::default()
    };
    let outcome = build(&mut fake, compose()).unwrap();
    let names: Vec<&String> = outcome.outputs.keys().collect();
    assert_eq!(names, ["backend", "frontend"]);
    let backend = json!({ "context": "/workspace/backend", "dockerfile": "Dockerfile", "tags": ["insight-backend:2.0"] });
    let frontend = json!({
        "context": "/workspace/frontend", "args": { "URL": "https://x", "N": "1" }, "platform": "linux/amd64",
        "no-cache": true, "cache-from": ["a"], "extra-hosts": ["h:1.2.3.4"], "tags": ["team-frontend:2.0"],
    });
    assert_eq!(fake.specs, [backend, frontend]);
    assert!(fake.calls[2].starts_with("push registry.example.com/team/insight-backend:2.0 "));
}

#[track_caller]
fn check_refused(model: Value, with: Value, text: &str) {
    let mut fake = Fake {
        model,
        ..Fake::default()
    };
    let error = build(&mut fake, with).unwrap_err();
    assert_eq!(error.code, "config.invalid");
    assert!(error.message.contains(text), "{}", error.message);
    assert_eq!(fake.calls, [""; 0], "nothing was built");
}

#[test]
fn what_would_be_left_out_is_refused() {
    let service = |build: Value| json!({ "name": "p", "services": { "a": { "build": build } } });
    check_refused(
        service(json!({ "context": "/c", "secrets": ["x"] })),
        compose(),
        "services.a.build.secrets",
    );
    check_refused(
        service(json!({ "context": "/c", "platforms": ["a/b", "c/d"] })),
        compose(),
        "platforms",
    );
    check_refused(
        json!({ "services": { "a": { "image": "x" } } }),
        compose(),
        "`build`",
    );
    let same = json!({ "name": "p", "services": {
        "a": { "image": "x:1", "build": { "context": "/a" } }, "b": { "image": "x:2", "build": { "context": "/b" } },
    } });
    check_refused(same, compose(), "would both be x:2.0");
    let both = json!({ "tag": "1", "images": { "a": { "context": "c", "archive": { "layers": [{ "from": "a", "to": "/" }] } } } });
    check_refused(json!({}), both, "exactly one");
    check_refused(json!({}), json!({ "tag": "1" }), "no `compose`");
    let prefix =
        |prefix: &str| json!({ "tag": "1", "images": { "a": { "context": "c" } }, "push-to": prefix });
    for wrong in ["", "https://registry", "registry/", "a b", "registry/Team"] {
        check_refused(json!({}), prefix(wrong), "`push-to`");
    }
}

#[test]
fn the_plan_names_every_value() {
    let mut with = backend();
    with["images"]["backend"]["network"] = json!("host");
    let effects = engine::plan(&config(with), &mut Fake::default()).unwrap();
    let shown = effects.iter().map(|effect| {
        (
            effect.capability.as_deref().unwrap(),
            effect.value.as_deref().unwrap(),
        )
    });
    let expected = [
        ("containers.build", "team-insight-backend:1.0.0"),
        ("files", "ro /workspace/backend"),
        ("containers.push", "127.0.0.1:5000/team-insight-backend:1.0.0"),
    ];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
    assert!(effects[0].summary.contains("the network of the engine's machine"));
}

#[test]
fn archives_and_images_are_one_outcome() {
    let archives = Outcome::changed("built a").output("a", "x");
    let both = engine::together(Some(archives), Outcome::unchanged("pushed b").output("b", "y"));
    assert!(both.changed);
    assert_eq!(both.summary, "built a; pushed b");
    assert_eq!(both.outputs.len(), 2);
}
