//! Hostile stages beside well-behaved ones in one run: each ends in its own typed failure, and the others go on to their end.

use super::contract::empty;
use serde_json::{Value as Json, json};
use std::{collections::BTreeMap, fmt::Write};
use windlass_tests::component::{guest, module, with_metadata};

/// What it does, and how that ends; the clock of a stage is the pipeline's `timeout`.
const HOSTILE: [(&str, &str); 14] = [
    ("spin", "limit.time"),
    ("sleep", "limit.time"),
    ("sleep-in-wasi", "limit.time"),
    ("eat-memory", "limit.memory"),
    ("recurse", "limit.stack"),
    ("shout", "limit.call-bytes"),
    ("take-randomness", "limit.random"),
    ("hoard-handles", "limit.resources"),
    ("say-too-much", "limit.outputs"),
    ("exit", "plugin.exit"),
    ("panic", "plugin.trap"),
    ("escape", "stage.bad"),
    ("use-ungranted", "grant.denied"),
    ("no-such-thing", "config.invalid"),
];

#[test]
fn the_other_stages_of_the_run_go_on() {
    let workspace = empty();
    std::fs::write(workspace.path("hostile.wasm"), guest("hostile").bytes).expect("written");
    // A list of outputs that lies outside of its memory.
    let garbage = r#"(memory (export "memory") 1) (data (i32.const 1032) "\00\00\00\f0\ff\00\00\00")
        (func (export "run") (result i32) i32.const 1024)"#;
    let metadata = json!({
        "id": "garbage", "version": "0.1.0", "abi": "0.1", "description": "Answers what is no answer.",
        "requests": [], "schema": { "type": "object", "additionalProperties": false }
    });
    let garbage = with_metadata(&module("garbage", garbage), &metadata);
    std::fs::write(workspace.path("garbage.wasm"), garbage).expect("written");
    let mut text = String::from("windlass: 1\nname: hostile\nstages:\n");
    for (action, code) in HOSTILE {
        // Only those that nothing else ends wait for their deadline: on a busy machine the others may take longer.
        let timeout = if code == "limit.time" { "3s" } else { "60s" };
        let _ = writeln!(
            text,
            "  {action}: {{ uses: ./hostile.wasm, with: {{ do: {action} }}, timeout: {timeout} }}"
        );
    }
    text += "  garbage: { uses: ./garbage.wasm }\n";
    for number in 0..4 {
        let _ = writeln!(
            text,
            "  good-{number}: {{ uses: command, with: {{ argv: [sleep, \"1\"] }}, allow: {{ process: [\"sleep 1\"] }} }}"
        );
    }
    workspace.write("a.yaml", &text);
    let ended = workspace.windlass(["run", "a.yaml", "--jobs", "32", "--progress", "json"]);
    assert!([1, 3].contains(&ended.code), "{}", ended.said());
    let finished: BTreeMap<String, Json> = ended
        .json_lines()
        .into_iter()
        .filter(|event| event["event"] == "stage.finished")
        .map(|event| (event["stage"].as_str().unwrap_or_default().to_string(), event))
        .collect();
    for (stage, code) in HOSTILE.into_iter().chain([("garbage", "plugin.trap")]) {
        assert_eq!(
            finished.get(stage).map(|event| &event["error"]["code"]),
            Some(&json!(code)),
            "{stage}: {}",
            finished[stage]
        );
    }
    for number in 0..4 {
        let stage = format!("good-{number}");
        assert_eq!(finished[&stage]["status"], "succeeded", "{}", finished[&stage]);
    }
    for control in ['\u{1b}', '\u{7}'] {
        assert!(!ended.said().contains(control), "what a guest says is inert");
    }
}
