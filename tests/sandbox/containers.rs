//! The container interfaces against a real engine: what a stage can make, what it is hardened by, and what it is refused.

use crate::matrix::{outputs, project, windlass};
use serde_json::{Value as Json, json};
use std::{collections::BTreeMap, fs, path::Path, process::Output};
use windlass_tests::{
    component::guest,
    engine::{Engine, Project},
};

/// Stages one after the other: a name, a call and what it is called on.
struct Script<'a> {
    engine: &'a Engine,
    allow: Json,
    needs: Json,
    stages: Json,
    last: Option<String>,
}

impl<'a> Script<'a> {
    fn new(engine: &'a Engine, allow: Json) -> Self {
        let mut needs = json!({});
        for (capability, values) in allow["containers"].as_object().into_iter().flatten() {
            needs[capability] = values[0].clone();
        }
        Self {
            engine,
            allow,
            needs,
            stages: json!({}),
            last: None,
        }
    }

    fn then(&mut self, name: &str, call: &str, on: &Json) -> &mut Self {
        let on = on.as_str().map_or_else(|| on.to_string(), String::from);
        let mut needs = self.needs.clone();
        if let Some((path, _)) = self.allow["files"]
            .as_object()
            .and_then(|files| files.iter().next())
        {
            needs["files"] = json!(path);
        }
        self.stages[name] = json!({
            "uses": "./probe.wasm", "with": { "call": call, "on": on, "needs": needs }, "allow": self.allow,
        });
        if let Some(last) = self.last.replace(name.into()) {
            self.stages[name]["needs"] = json!([last]);
        }
        self
    }

    fn run_in(&self, root: &Path) -> (BTreeMap<String, Json>, Output) {
        let output = windlass(
            root,
            &["run", "--progress", "json"],
            &[("DOCKER_HOST", &self.engine.host)],
        );
        let found = outputs(&output);
        let missing: Vec<&String> = self
            .stages
            .as_object()
            .expect("stages")
            .keys()
            .filter(|name| !found.contains_key(*name))
            .collect();
        assert!(
            missing.is_empty(),
            "{missing:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        (found, output)
    }

    fn run(&self) -> BTreeMap<String, Json> {
        let root = project(&self.stages, &guest("probe").bytes);
        self.run_in(root.path()).0
    }
}

#[track_caller]
fn check(found: &BTreeMap<String, Json>, stage: &str, code: &str) -> Json {
    let outputs = &found[stage];
    assert_eq!(outputs["code"], code, "{stage}: {outputs}");
    outputs["told"].clone()
}

fn allow(project: &str, image: &str) -> Json {
    json!({ "containers": {
        "manage": [format!("{project}/*")], "run": [image], "exec": [format!("{project}/*")],
        "mount": [format!("{project}_data:rw"), "/workspace/data:ro"], "publish": ["127.0.0.1:*"],
    }, "files": { "/workspace/data": "ro" } })
}

#[test]
fn a_container_from_its_making_to_its_end() {
    let Some(engine) = Engine::get() else { return };
    let (image, project) = (engine.busybox(), Project::new(&engine, "life"));
    let p = &project.name;
    let name = format!("{p}-web-1");
    let mut script = Script::new(&engine, allow(p, image));
    let spec = json!({
        "project": p, "service": "web", "image": image, "command": ["sh", "-c", "echo begun; trap 'exit 7' TERM; while :; do sleep 0.1; done"],
        "environment": { "GREETING": "hello" }, "networks": { format!("{p}_default"): { "aliases": ["web"] }, format!("{p}_other"): { "aliases": ["web2"] } },
        "mounts": [
            { "type": "volume", "source": format!("{p}_data"), "target": "/data" },
            { "type": "bind", "source": "/workspace/data", "target": "/given", "read-only": true },
            { "type": "tmpfs", "target": "/scratch" },
        ],
        "ports": [{ "host-ip": "127.0.0.1", "target": 8000 }],
        "secrets": [{ "target": "/run/secrets/deep/key", "value": "not shown", "uid": 5, "mode": 256 }],
        "healthcheck": { "test": ["CMD", "true"], "interval-ms": 200, "timeout-ms": 1000, "retries": 3 },
        "restart": "no", "labels": { "mine": "yes" },
    });
    let mut other_spec = spec.clone();
    other_spec["secrets"][0]["value"] = json!("another");
    let look = "id -u; cat /proc/self/status | grep -E 'CapEff|NoNewPrivs'; cat /run/secrets/deep/key; stat -c '%a %u' /run/secrets/deep/key; echo $GREETING; touch /data/x && echo wrote; touch /given/x || echo refused; cat /given/file";
    script
        .then(
            "network",
            "containers.network",
            &json!({ "project": p, "name": "default" }),
        )
        .then(
            "other",
            "containers.network",
            &json!({ "project": p, "name": "other", "internal": true }),
        )
        .then(
            "volume",
            "containers.volume",
            &json!({ "project": p, "name": "data" }),
        )
        .then("create", "containers.create", &spec)
        .then("twice", "containers.create", &spec)
        .then("start", "containers.start", &json!(name))
        .then("healthy", "containers.wait-health", &json!(name))
        .then(
            "exec",
            "containers.exec",
            &json!({ "container": name, "argv": ["sh", "-c", look] }),
        )
        .then(
            "cat",
            "containers.exec",
            &json!({ "container": name, "argv": ["cat"], "input": "through" }),
        )
        .then(
            "fails",
            "containers.exec",
            &json!({ "container": name, "argv": ["false"], "repeatable": true }),
        )
        .then(
            "absent",
            "containers.exec",
            &json!({ "container": name, "argv": ["no-such-program"] }),
        )
        .then(
            "to",
            "flow.to-container",
            &json!({ "container": name, "path": "/data", "file": "given", "bytes": "some bytes" }),
        )
        .then(
            "from",
            "flow.from-container",
            &json!({ "container": name, "path": "/data/given" }),
        )
        .then(
            "no-file",
            "flow.from-container",
            &json!({ "container": name, "path": "/data/absent" }),
        )
        .then(
            "feed",
            "flow.to-exec",
            &json!({ "container": name, "argv": ["sh", "-c", "cat > /data/fed"], "bytes": "fed" }),
        )
        .then(
            "starve",
            "flow.to-exec",
            &json!({ "container": name, "argv": ["sh", "-c", "cat >&2; exit 3"], "bytes": "bad" }),
        )
        .then(
            "pour",
            "flow.from-exec",
            &json!({ "container": name, "argv": ["cat", "/data/fed"] }),
        )
        .then(
            "broken",
            "flow.from-exec",
            &json!({ "container": name, "argv": ["sh", "-c", "echo half; exit 4"] }),
        )
        .then("logs", "containers.logs", &json!(name))
        .then("list", "containers.list", &json!(format!("{p}/web")))
        .then("print", "containers.fingerprint", &spec)
        .then("same-print", "containers.fingerprint", &spec)
        .then("other-print", "containers.fingerprint", &other_spec)
        .then(
            "rename",
            "containers.rename",
            &json!({ "container": name, "name": format!("{p}-web-old") }),
        )
        .then("stop", "containers.stop", &json!(format!("{p}-web-old")))
        .then("ended", "containers.wait-exit", &json!(format!("{p}-web-old")))
        .then(
            "stopped",
            "containers.exec",
            &json!({ "container": format!("{p}-web-old"), "argv": ["true"] }),
        )
        .then(
            "in-use",
            "containers.tidy",
            &json!({ "kind": "volume", "name": format!("{p}/data") }),
        )
        .then("remove", "containers.remove", &json!(format!("{p}-web-old")))
        .then("again", "containers.remove", &json!(format!("{p}-web-old")))
        .then("gone", "containers.inspect", &json!(format!("{p}-web-old")))
        .then(
            "tidy",
            "containers.tidy",
            &json!({ "kind": "volume", "name": format!("{p}/data") }),
        );
    let found = script.run();
    for stage in [
        "network", "other", "volume", "start", "healthy", "to", "feed", "rename", "stop", "remove", "again",
    ] {
        check(&found, stage, "ok");
    }
    assert_eq!(check(&found, "create", "ok"), json!(name));
    check(&found, "twice", "container.exists");
    let said = check(&found, "exec", "ok");
    assert_eq!(said[0], 0, "{said}");
    let said = said[1].as_str().unwrap_or_default();
    // CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, NET_BIND_SERVICE.
    for line in [
        "CapEff:\t00000000000004eb",
        "NoNewPrivs:\t1",
        "400 5",
        "hello",
        "wrote",
        "refused",
        "read me",
        "not shown",
    ] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    assert_eq!(check(&found, "cat", "ok")[1], "through");
    assert_eq!(check(&found, "fails", "ok")[0], 1);
    check(&found, "absent", "exec.missing");
    assert_eq!(check(&found, "from", "ok")[0], "some bytes".len());
    check(&found, "no-file", "file.missing");
    check(&found, "starve", "target.failed");
    assert_eq!(check(&found, "pour", "ok")[0], 3);
    check(&found, "broken", "flow.source-failed");
    assert_eq!(check(&found, "logs", "ok"), json!("begun\n"));
    let listed = check(&found, "list", "ok");
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(
        (&listed[0]["state"], &listed[0]["labels"]["mine"]),
        (&json!("running"), &json!("yes"))
    );
    assert!(
        listed[0]["networks"][format!("{p}_other")]["aliases"]
            .to_string()
            .contains("web2"),
        "{listed}"
    );
    assert!(listed[0]["ports"][0]["published"].is_number(), "{listed}");
    assert_eq!(check(&found, "ended", "ok")["exit-code"], 7);
    check(&found, "stopped", "container.stopped");
    assert_eq!(check(&found, "in-use", "ok"), json!(false));
    check(&found, "gone", "container.missing");
    assert_eq!(check(&found, "tidy", "ok"), json!(true));
    assert_eq!(check(&found, "print", "ok"), check(&found, "same-print", "ok"));
    assert_ne!(check(&found, "print", "ok"), check(&found, "other-print", "ok"));
}

/// Each alone would be the engine's machine in the hands of the stage.
#[test]
fn what_no_container_is_given() {
    let Some(engine) = Engine::get() else { return };
    let (image, project) = (engine.busybox(), Project::new(&engine, "refused"));
    let p = &project.name;
    let spec = |more: Json| {
        let mut spec = json!({ "project": p, "service": "web", "image": image });
        spec.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        spec
    };
    let bind = |source: &str| json!({ "mounts": [{ "type": "bind", "source": source, "target": "/x" }] });
    let cases = [
        ("privileged", json!({ "privileged": true }), "container.spec"),
        (
            "host-network",
            json!({ "network-mode": "host" }),
            "container.spec",
        ),
        ("pid", json!({ "pid": "host" }), "container.spec"),
        ("devices", json!({ "devices": ["/dev/mem"] }), "container.spec"),
        (
            "security",
            json!({ "security-opt": ["seccomp=unconfined"] }),
            "container.spec",
        ),
        (
            "admin",
            json!({ "cap-add": ["cap_sys_admin"] }),
            "container.privilege",
        ),
        ("all", json!({ "cap-add": ["ALL"] }), "container.privilege"),
        (
            "labels",
            json!({ "labels": { "com.docker.compose.project": "other" } }),
            "container.spec",
        ),
        ("etc", bind("/etc"), "container.spec"),
        ("socket", bind("/var/run/docker.sock"), "container.spec"),
        ("linked", bind("/workspace/data/socket"), "grant.denied"),
        (
            "link-out",
            json!({ "mounts": [{ "type": "bind", "source": "/workspace/data/out", "target": "/x", "read-only": true }] }),
            "file.path",
        ),
        ("write", bind("/workspace/data"), "grant.denied"),
        (
            "volume",
            json!({ "mounts": [{ "type": "volume", "source": "somebody_elses", "target": "/x" }] }),
            "grant.denied",
        ),
        (
            "publish",
            json!({ "ports": [{ "published": 80, "target": 80 }] }),
            "grant.denied",
        ),
        ("image", json!({ "image": "another:1" }), "grant.denied"),
        ("project", json!({ "project": "somebody" }), "grant.denied"),
        ("name", json!({ "name": "../../networks/x" }), "container.spec"),
        (
            "secret",
            json!({ "secrets": [{ "target": "/run/../etc/passwd", "value": "x" }] }),
            "container.spec",
        ),
        (
            "env-file",
            json!({ "env-files": ["/workspace/secret/file"] }),
            "grant.denied",
        ),
    ];
    let mut script = Script::new(&engine, allow(p, image));
    for (name, more, _) in &cases {
        script.then(name, "containers.create", &spec(more.clone()));
    }
    let foreign = format!("{p}-foreign");
    engine.told(&["run", "-d", "--name", &foreign, image, "sleep", "1000"]);
    let container = json!({ "container": foreign, "argv": ["true"] });
    script
        .then("foreign-exec", "containers.exec", &container)
        .then("foreign-stop", "containers.stop", &json!(foreign))
        .then("foreign-remove", "containers.remove", &json!(foreign));
    let root = crate::matrix::project(&script.stages, &guest("probe").bytes);
    std::os::unix::fs::symlink("/etc", root.path().join("data/out")).expect("linked");
    let (found, _) = script.run_in(root.path());
    let running = engine.told(&["inspect", "-f", "{{.State.Running}}", &foreign]);
    engine.told(&["rm", "-f", &foreign]);
    for (name, _, code) in &cases {
        check(&found, name, code);
    }
    for name in ["foreign-exec", "foreign-stop", "foreign-remove"] {
        check(&found, name, "container.foreign");
    }
    assert_eq!(running, "true");
    assert_eq!(
        engine.told(&[
            "ps",
            "-aq",
            "--filter",
            &format!("label=com.docker.compose.project={p}")
        ]),
        ""
    );
}

/// A task's own limits, and that its end is not its failure here.
#[test]
fn a_task_is_held_tighter() {
    let Some(engine) = Engine::get() else { return };
    let (image, project) = (engine.busybox(), Project::new(&engine, "task"));
    let p = &project.name;
    let name = format!("{p}-job-1");
    let spec = json!({
        "project": p, "service": "job", "image": image, "one-off": true,
        "command": ["sh", "-c", "grep CapEff /proc/self/status; echo to stderr >&2; exit 5"],
    });
    let mut script = Script::new(&engine, allow(p, image));
    script
        .then("create", "containers.create", &spec)
        .then("start", "containers.start", &json!(name))
        .then("ended", "containers.wait-exit", &json!(name))
        .then("unwell", "containers.wait-health", &json!(name));
    let root = crate::matrix::project(&script.stages, &guest("probe").bytes);
    let (found, output) = script.run_in(root.path());
    assert_eq!(check(&found, "ended", "ok")["exit-code"], 5);
    check(&found, "unwell", "container.unhealthy");
    let limits = engine.told(&["inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}} {{.HostConfig.NetworkMode}} {{.HostConfig.Privileged}}", &name]);
    assert_eq!(limits, "1073741824 2000000000 512 none false");
    let events = String::from_utf8_lossy(&output.stdout);
    assert!(
        events.contains("CapEff:\\t0000000000000000") && events.contains("to stderr"),
        "{events}"
    );
}

#[test]
fn images_are_built_tagged_and_removed() {
    let Some(engine) = Engine::get() else { return };
    let image = engine.busybox();
    let tag = format!("windlass-built-{}", std::process::id());
    let allow = json!({ "containers": { "build": [format!("{tag}:*")], "push": ["127.0.0.1:1/*"] }, "files": { "/workspace/data": "ro" } });
    let build = |dockerfile: &str| json!({ "context": "/workspace/data", "dockerfile": dockerfile, "tags": [format!("{tag}:1")], "args": { "WORD": "given" } });
    let mut script = Script::new(&engine, allow);
    script
        .then("build", "images.build", &build("Dockerfile"))
        .then("again", "images.build", &build("Dockerfile"))
        .then("broken", "images.build", &build("Broken"))
        .then("absent", "images.build", &build("Absent"))
        .then("outside", "images.build", &build("../secret/file"))
        .then("secret", "images.build", &json!({ "context": "/workspace/data", "tags": [format!("{tag}:1")], "args": { "A": format!("wlsec_{}", "0".repeat(32)) } }))
        .then("tag", "images.tag", &json!({ "source": format!("{tag}:1"), "target": format!("{tag}:2") }))
        .then("other-tag", "images.tag", &json!({ "source": format!("{tag}:1"), "target": "other:2" }))
        .then("look", "images.inspect", &json!({ "image": format!("{tag}:2") }))
        .then("push", "images.push", &json!({ "image": "127.0.0.1:1/nothing:1" }))
        .then("remove", "images.remove", &json!({ "image": format!("{tag}:2") }))
        .then("twice", "images.remove", &json!({ "image": format!("{tag}:2") }))
        .then("last", "images.remove", &json!({ "image": format!("{tag}:1") }));
    let root = crate::matrix::project(&script.stages, &guest("probe").bytes);
    let dockerfile = format!(
        "FROM {image}\nARG WORD\nCOPY . /app\nRUN test -f /app/file && test ! -f /app/left-out && echo $WORD > /word\n"
    );
    fs::write(root.path().join("data/Dockerfile"), dockerfile).expect("written");
    fs::write(
        root.path().join("data/Broken"),
        format!("FROM {image}\nRUN echo reason >&2; exit 9\n"),
    )
    .expect("written");
    fs::write(root.path().join("data/left-out"), "").expect("written");
    fs::write(root.path().join("data/.dockerignore"), "left-*\n").expect("written");
    let (found, output) = script.run_in(root.path());
    let id = check(&found, "build", "ok");
    assert!(id.as_str().is_some_and(|id| id.starts_with("sha256:")), "{id}");
    assert_eq!(check(&found, "again", "ok"), id, "the layers' cache is used");
    check(&found, "broken", "image.build");
    check(&found, "absent", "file.missing");
    check(&found, "outside", "grant.denied");
    check(&found, "secret", "image.secret");
    check(&found, "tag", "ok");
    check(&found, "other-tag", "grant.denied");
    assert_eq!(check(&found, "look", "ok"), id);
    check(&found, "push", "image.missing");
    assert_eq!(check(&found, "remove", "ok"), json!(true));
    assert_eq!(check(&found, "twice", "ok"), json!(false));
    assert_eq!(check(&found, "last", "ok"), json!(true));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("reason"),
        "what a build says is in the log"
    );
}

#[test]
fn compose_files_become_a_model() {
    let Some(engine) = Engine::get() else { return };
    let allow = json!({ "containers": { "manage": ["*"] }, "files": { "/workspace/data": "ro" } });
    let load = |file: &str| json!({ "files": [file], "project": "p", "variables": { "NAME": "wlsec_x", "SET": "given" } });
    let mut script = Script::new(&engine, allow);
    script
        .then("fine", "compose.load", &load("/workspace/data/compose.yaml"))
        .then("broken", "compose.load", &load("/workspace/data/broken.yaml"))
        .then("absent", "compose.load", &load("/workspace/data/absent.yaml"))
        .then("denied", "compose.load", &load("/workspace/secret/compose.yaml"))
        .then("reaching", "compose.load", &load("/workspace/data/reaching.yaml"));
    let root = crate::matrix::project(&script.stages, &guest("probe").bytes);
    let write = |file: &str, text: &str| fs::write(root.path().join(file), text).expect("written");
    write(
        "data/compose.yaml",
        "services:\n  web:\n    image: web:${SET}\n    env_file: [.env.web]\n    environment: { A: \"${NAME}\", B: \"${APP}\" }\n    volumes: [./conf:/conf:ro, data:/data]\nvolumes:\n  data:\n",
    );
    write("data/broken.yaml", "services:\n  web:\n    imag: x\n");
    write(
        "data/reaching.yaml",
        "include: [../secret/compose.yaml]\nservices: {}\n",
    );
    write("secret/compose.yaml", "services: { a: { image: a } }\n");
    let (found, _) = script.run_in(root.path());
    let web = &check(&found, "fine", "ok")["model"]["services"]["web"];
    assert_eq!(web["image"], "web:given");
    assert_eq!(web["environment"], json!({ "A": "wlsec_x", "B": "x" }));
    assert_eq!(
        web["env_file"][0]["path"], "/workspace/data/.env.web",
        "unread, and not even there"
    );
    assert_eq!(web["volumes"][0]["source"], "/workspace/data/conf");
    check(&found, "broken", "compose.invalid");
    let message = found["broken"]["message"].to_string();
    assert!(
        message.contains("/workspace/data/broken.yaml:3") && message.contains("imag"),
        "{message}"
    );
    check(&found, "absent", "compose.invalid");
    check(&found, "denied", "grant.denied");
    check(&found, "reaching", "grant.denied");
}
