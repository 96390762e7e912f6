//! Directories into archives and back: digests, reproducibility, bases, and what happens when something is wrong.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::{Memory, members, pack};
use windlass_guest::Error;
use windlass_plugin_build::config::Config;
use windlass_plugin_build::stage;

/// A small application in `place`, with everything a layer can hold.
fn application(place: &Path) {
    fs::create_dir_all(place.join("app/lib/empty")).unwrap();
    fs::write(place.join("app/server"), "#!/bin/sh\necho up\n").unwrap();
    fs::write(place.join("app/lib/data.json"), "{}").unwrap();
    std::os::unix::fs::symlink("../server", place.join("app/lib/start")).unwrap();
}

fn config(place: &Path, more: Value) -> Config {
    let mut archive = json!({
        "layers": [{ "from": place.join("app"), "to": "/srv/app" }],
        "entrypoint": ["/srv/app/server"],
        "labels": { "b": "2", "a": "1" },
    });
    archive
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({ "tag": "1.0", "images": { "web": { "archive": archive } } })).unwrap()
}

fn build(config: &Config) -> Result<Vec<u8>, Error> {
    let scratch = tempfile::tempdir().unwrap();
    let mut memory = Memory::default();
    stage::run(config, scratch.path(), &mut memory)?;
    let built = memory
        .published
        .borrow_mut()
        .remove("image-web.tar")
        .expect("it was published");
    Ok(built)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn document(members: &BTreeMap<String, Vec<u8>>, name: &str) -> Value {
    serde_json::from_slice(&members[name]).unwrap()
}

fn blob_path(descriptor: &Value) -> String {
    format!(
        "blobs/{}",
        descriptor["digest"].as_str().unwrap().replace(':', "/")
    )
}

/// From the index to the manifest and the configuration, checking every digest and size on the way.
fn walk(members: &BTreeMap<String, Vec<u8>>) -> (Value, Value) {
    for (name, bytes) in members
        .iter()
        .filter(|(name, _)| name.starts_with("blobs/sha256/") && !name.ends_with('/'))
    {
        assert_eq!(format!("blobs/{}", sha256(bytes).replace(':', "/")), *name);
    }
    let index = document(members, "index.json");
    let manifest = document(members, &blob_path(&index["manifests"][0]));
    let configuration = document(members, &blob_path(&manifest["config"]));
    for descriptor in manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .chain([&manifest["config"]])
    {
        assert_eq!(descriptor["size"], members[&blob_path(descriptor)].len());
    }
    (manifest, configuration)
}

#[test]
fn an_archive_holds_what_its_digests_say() {
    let place = tempfile::tempdir().unwrap();
    application(place.path());
    let members = members(&build(&config(place.path(), json!({ "exposed-ports": ["8080"] }))).unwrap());
    let (manifest, configuration) = walk(&members);
    assert_eq!(document(&members, "oci-layout")["imageLayoutVersion"], "1.0.0");
    let index = document(&members, "index.json");
    assert_eq!(
        index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"],
        "1.0"
    );
    assert_eq!(configuration["config"]["Entrypoint"], json!(["/srv/app/server"]));
    assert_eq!(configuration["config"]["ExposedPorts"], json!({ "8080/tcp": {} }));
    assert_eq!(configuration["created"], "1970-01-01T00:00:00Z");

    let docker = document(&members, "manifest.json");
    assert_eq!(docker[0]["RepoTags"], json!(["web:1.0"]));
    assert_eq!(docker[0]["Layers"], json!([blob_path(&manifest["layers"][0])]));

    let mut plain = Vec::new();
    let mut gzip = flate2::read::GzDecoder::new(members[&blob_path(&manifest["layers"][0])].as_slice());
    std::io::Read::read_to_end(&mut gzip, &mut plain).unwrap();
    assert_eq!(configuration["rootfs"]["diff_ids"], json!([sha256(&plain)]));
    let expected = [
        "srv/",
        "srv/app/",
        "srv/app/lib/",
        "srv/app/lib/data.json",
        "srv/app/lib/empty/",
        "srv/app/lib/start",
        "srv/app/server",
    ];
    assert_eq!(support::members(&plain).into_keys().collect::<Vec<_>>(), expected);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    application(one.path());
    application(other.path());
    // Neither times nor permissions may show; only contents.
    let touched = fs::File::open(other.path().join("app/server")).unwrap();
    touched
        .set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(86_400))
        .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(other.path().join("app/lib/data.json"), mode).unwrap();
    let build = |place: &Path| {
        let layers = |members: BTreeMap<String, Vec<u8>>| walk(&members).0["layers"].clone();
        layers(members(&build(&config(place, json!({}))).unwrap()))
    };
    assert_eq!(build(one.path()), build(other.path()));
    let twice = || self::build(&config(one.path(), json!({}))).unwrap();
    assert!(twice() == twice(), "two builds of one directory differ");
    fs::write(other.path().join("app/lib/data.json"), "[]").unwrap();
    assert_ne!(build(one.path()), build(other.path()));
}

#[test]
fn a_base_comes_first() {
    let place = tempfile::tempdir().unwrap();
    application(place.path());
    let base = build(&config(
        place.path(),
        json!({ "environment": { "A": "1" }, "user": "app" }),
    ))
    .unwrap();
    let base_path = place.path().join("base.tar");
    fs::write(&base_path, &base).unwrap();
    fs::write(place.path().join("app/server"), "#!/bin/sh\necho newer\n").unwrap();
    let on_top = json!({ "base": base_path, "environment": { "B": "2" }, "entrypoint": null });
    let members = members(&build(&config(place.path(), on_top)).unwrap());
    let (manifest, configuration) = walk(&members);
    let (base_manifest, base_configuration) = walk(&support::members(&base));
    assert_eq!(manifest["layers"][0], base_manifest["layers"][0]);
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 2);
    assert_eq!(
        configuration["rootfs"]["diff_ids"][0],
        base_configuration["rootfs"]["diff_ids"][0]
    );
    assert_eq!(configuration["history"].as_array().unwrap().len(), 2);
    assert_eq!(configuration["config"]["Env"], json!(["A=1", "B=2"]));
    assert_eq!(configuration["config"]["Entrypoint"], json!(["/srv/app/server"]));
    assert_eq!(configuration["config"]["User"], "app");
}

/// Builds on a base that `damage` has changed.
fn check_base(damage: impl Fn(&mut BTreeMap<String, Vec<u8>>), code: &str, text: &str) {
    let place = tempfile::tempdir().unwrap();
    application(place.path());
    let mut parts = members(&build(&config(place.path(), json!({}))).unwrap());
    damage(&mut parts);
    let base = place.path().join("base.tar");
    fs::write(&base, pack(&parts)).unwrap();
    let error = build(&config(place.path(), json!({ "base": base }))).expect_err("the base is damaged");
    assert_eq!(error.code, code, "{}", error.message);
    assert!(error.message.contains(text), "{}", error.message);
}

fn rewrite(parts: &mut BTreeMap<String, Vec<u8>>, name: &str, change: impl Fn(&mut Value)) {
    let mut value = document(parts, name);
    change(&mut value);
    parts.insert(name.to_owned(), value.to_string().into_bytes());
}

#[test]
fn damaged_and_hostile_bases_are_refused() {
    let layer = |parts: &BTreeMap<String, Vec<u8>>| blob_path(&walk(parts).0["layers"][0]);
    let manifest =
        |parts: &BTreeMap<String, Vec<u8>>| blob_path(&document(parts, "index.json")["manifests"][0]);
    let flip = |parts: &mut BTreeMap<String, Vec<u8>>, name: String| {
        *parts.get_mut(&name).unwrap().last_mut().unwrap() ^= 1
    };
    check_base(|parts| flip(parts, layer(parts)), "build.changed", "other bytes");
    check_base(
        |parts| flip(parts, manifest(parts)),
        "build.base-invalid",
        "damaged",
    );
    check_base(
        |parts| drop(parts.remove(&layer(parts))),
        "build.base-invalid",
        "it has no `blobs/",
    );
    check_base(
        |parts| drop(parts.remove("index.json")),
        "build.base-invalid",
        "it has no `index.json`",
    );
    check_base(
        |parts| drop(parts.insert("index.json".into(), vec![b' '; 5 << 20])),
        "build.base-invalid",
        "larger",
    );
    check_base(
        |parts| drop(parts.insert("index.json".into(), b"[]".to_vec())),
        "build.base-invalid",
        "JSON object",
    );
    let traversal = |index: &mut Value| index["manifests"][0]["digest"] = json!("sha256:../../../etc/passwd");
    check_base(
        |parts| rewrite(parts, "index.json", traversal),
        "build.base-invalid",
        "is not a SHA-256 digest",
    );
    let other = json!([{ "platform": { "os": "linux", "architecture": "s390x" } }, {}]);
    let platform = |index: &mut Value| index["manifests"] = other.clone();
    check_base(
        |parts| rewrite(parts, "index.json", platform),
        "build.base-invalid",
        "no image for linux/amd64",
    );
}

#[test]
fn what_is_no_archive_is_refused() {
    let place = tempfile::tempdir().unwrap();
    application(place.path());
    let base = place.path().join("base.tar");
    let at = |bytes: &[u8]| {
        fs::write(&base, bytes).unwrap();
        build(&config(place.path(), json!({ "base": base })))
            .unwrap_err()
            .code
    };
    assert_eq!(
        at(b"\x1f\x8b\x08 something compressed, longer than nothing"),
        "build.base-invalid"
    );
    assert_eq!(at(b""), "build.base-invalid");
    let whole = build(&config(place.path(), json!({}))).unwrap();
    assert_eq!(at(&whole[..whole.len() / 2]), "build.base-invalid");
    fs::remove_file(&base).unwrap();
    let gone = build(&config(place.path(), json!({ "base": base }))).unwrap_err();
    assert_eq!(gone.code, "build.base-missing");
}

#[test]
fn nothing_is_published_when_something_fails() {
    let place = tempfile::tempdir().unwrap();
    application(place.path());
    let check = |memory: &mut Memory, config: &Config, code: &str| {
        let scratch = tempfile::tempdir().unwrap();
        let error = stage::run(config, scratch.path(), memory).expect_err("it must fail");
        assert_eq!(error.code, code, "{}", error.message);
        assert!(memory.published.borrow().is_empty());
    };
    let good = config(place.path(), json!({}));
    check(
        &mut Memory {
            room: 700,
            ..Memory::default()
        },
        &good,
        "storage.failed",
    );
    check(
        &mut Memory {
            cancelled: true,
            ..Memory::default()
        },
        &good,
        "cancelled",
    );
    let absent = json!([{ "from": place.path().join("absent"), "to": "/x" }]);
    check(
        &mut Memory::default(),
        &config(place.path(), json!({ "layers": absent })),
        "build.missing",
    );
    let missing_scratch = stage::run(&good, &place.path().join("no/scratch"), &mut Memory::default());
    assert_eq!(missing_scratch.unwrap_err().code, "storage.failed");
}

#[test]
fn the_plan_names_the_artifacts() {
    let effects = stage::plan(&config(Path::new("/workspace"), json!({}))).unwrap();
    assert_eq!(effects.len(), 1);
    assert_eq!(effects[0].value.as_deref(), Some("image-web.tar"));
    assert_eq!(effects[0].action, "create");
}

#[test]
fn skopeo_accepts_the_archive() {
    let place = tempfile::tempdir().unwrap();
    application(place.path());
    let archive = place.path().join("image-web.tar");
    fs::write(&archive, build(&config(place.path(), json!({}))).unwrap()).unwrap();
    let inspect = |reference: String| Command::new("skopeo").arg("inspect").arg(reference).output();
    for transport in ["oci-archive", "docker-archive"] {
        let output = match inspect(format!("{transport}:{}", archive.display())) {
            Ok(output) => output,
            Err(error) => {
                eprintln!("skipped: needs skopeo ({error})");
                return;
            }
        };
        assert!(
            output.status.success(),
            "{transport}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(seen["Architecture"], "amd64");
        assert_eq!(seen["Labels"], json!({ "a": "1", "b": "2" }));
    }
    // A copy reads every layer and checks every digest on the way.
    let copy = place.path().join("copy");
    let from = format!("docker-archive:{}", archive.display());
    let to = format!("oci:{}", copy.display());
    let output = Command::new("skopeo")
        .args(["copy", "--insecure-policy", &from, &to])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
