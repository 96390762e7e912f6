//! One container after the other, against an engine in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use support::{World, config, stack};
use windlass_plugin_deploy::config::Config;

/// Without colours, whatever the stack.
fn rolling() -> Config {
    let with = json!({ "compose": ["c"], "project": "p" });
    serde_json::from_value(with).unwrap()
}

fn stack_of(service: &str, version: &str) -> Value {
    let mut model = stack("1", "1");
    let services = model["services"].as_object_mut().unwrap();
    services.retain(|name, _| name == service || name == "db");
    services[service]["image"] = version.into();
    model
}

fn first(model: Value) -> World {
    let mut world = World::new(model);
    world.deploy("r1", &rolling()).expect("the first deployment");
    world
}

fn order(world: &World, function: &str) -> Vec<String> {
    let of = world.effects.iter().filter(|effect| effect.starts_with(function));
    of.cloned().collect()
}

#[test]
fn services_come_up_in_order_and_are_then_left_alone() {
    let mut world = first(stack_of("backend", "app:1"));
    assert_eq!(world.running(), ["p-backend-1", "p-backend-2", "p-db-1"]);
    let made = order(&world, "containers.create");
    assert!(
        made[0].contains("p-db-1") && made[2].contains("p-backend-2"),
        "{made:#?}"
    );
    let outcome = world.deploy("r2", &rolling()).expect("again");
    assert!(!outcome.changed && world.effects.is_empty());
}

#[test]
fn only_what_changed_is_recreated_one_after_the_other() {
    let mut world = first(stack_of("backend", "app:1"));
    world.model = stack_of("backend", "app:2");
    let outcome = world.deploy("r2", &rolling()).expect("deploys");
    assert_eq!(outcome.outputs["db"]["recreated"], json!([]));
    assert_eq!(
        outcome.outputs["backend"]["recreated"],
        json!(["p-backend-1", "p-backend-2"])
    );
    let kept = world.names(|container| !container.is_running());
    assert_eq!(kept, ["p-backend-1-before-r2", "p-backend-2-before-r2"]);
    // The first was replaced and had taken over before the second was touched.
    let steps: Vec<&str> = world
        .effects
        .iter()
        .map(|effect| effect.split([' ', '.']).nth(1).unwrap())
        .collect();
    assert_eq!(steps, ["rename", "create", "start", "stop"].repeat(2));
}

#[test]
fn a_container_that_does_not_run_is_made_again() {
    let mut world = first(stack_of("backend", "app:1"));
    world.kill("p-backend-2");
    let outcome = world.deploy("r2", &rolling()).expect("deploys");
    assert_eq!(outcome.outputs["backend"]["recreated"], json!(["p-backend-2"]));
}

#[test]
fn who_publishes_a_port_stops_first() {
    let model = |version: &str| {
        let mut model = stack_of("front", version);
        model["services"]["front"]["depends_on"] = json!({});
        model
    };
    let mut world = first(model("front:1"));
    world.model = model("front:2");
    world
        .deploy("r2", &rolling())
        .expect("deploys, or the engine says that the port is taken");
    assert_eq!(world.image_of("p-front-1"), "front:2");
    world.undo("r2", &rolling()).expect("undone");
    assert_eq!(world.image_of("p-front-1"), "front:1");
    assert_eq!(world.running(), ["p-db-1", "p-front-1"]);
}

#[test]
fn what_does_not_come_up_is_told_and_undone() {
    let mut world = first(stack_of("backend", "app:1"));
    world.model = stack_of("backend", "app:2");
    world.ill.insert("app:2".into());
    let error = world.deploy("r2", &rolling()).expect_err("it is ill");
    assert_eq!(error.code, "deploy.unhealthy");
    for words in ["503 database unreachable", "the last words of p-backend-1"] {
        assert!(error.message.contains(words), "{}", error.message);
    }
    assert!(
        world.running().contains(&"p-backend-1-before-r2".to_owned()),
        "the old one goes on working"
    );
    world.undo("r2", &rolling()).expect("undone");
    assert_eq!(world.names(|_| true), ["p-backend-1", "p-backend-2", "p-db-1"]);
    assert_eq!(world.image_of("p-backend-1"), "app:1");
}

#[test]
fn replicas_are_added_and_taken() {
    let mut world = first(stack_of("backend", "app:1"));
    world.model["services"]["backend"]["deploy"]["replicas"] = json!(1);
    world.deploy("r2", &rolling()).expect("deploys");
    assert_eq!(world.running(), ["p-backend-1", "p-db-1"]);
    world.undo("r2", &rolling()).expect("undone");
    assert_eq!(world.running(), ["p-backend-1", "p-backend-2", "p-db-1"]);
}

#[test]
fn a_task_runs_to_its_end_and_not_again() {
    let model = |image: &str| {
        let mut model = stack_of("backend", "app:1");
        model["services"]["task"] = json!({ "image": image, "networks": { "back": {} } });
        model["services"]["backend"]["depends_on"] =
            json!({ "task": { "condition": "service_completed_successfully" } });
        model
    };
    let mut world = first(model("tool:1"));
    let made = order(&world, "containers.create");
    assert!(
        made[0].contains("p-task-1") && made[1].contains("p-backend-1"),
        "{made:#?}"
    );
    assert!(!world.deploy("r2", &rolling()).expect("again").changed);
    world.at("p-task-1").exit_code = 3;
    let outcome = world.deploy("r3", &rolling()).expect("the task is made again");
    assert_eq!(outcome.outputs["task"]["recreated"], json!(["p-task-1"]));
}

#[test]
fn what_another_tool_started_is_taken_over() {
    let mut world = first(stack_of("backend", "app:1"));
    world.at("p-db-1").name = "p_db_1".into();
    world.at("p-backend-1").name = "p_backend_1".into();
    let outcome = world.deploy("r2", &rolling()).expect("deploys");
    assert!(!outcome.changed, "{:?}", world.effects);
}

#[test]
fn missing_images_are_pulled_unless_they_are_built_here() {
    let mut world = World::new(stack_of("backend", "reg/app:7"));
    world.registry.insert("reg/app:7".into());
    world.deploy("r1", &rolling()).expect("pulls");
    let mut world = World::new(stack_of("backend", "reg/app:7"));
    world.model["services"]["backend"]["build"] = json!({ "context": "/workspace/backend" });
    let error = world.deploy("r1", &rolling()).expect_err("it is to be built");
    assert_eq!(error.code, "image.missing");
    assert!(world.effects.is_empty(), "known before anything was touched");
}

#[test]
fn a_service_goes_from_rolling_to_colours_and_back() {
    let mut world = World::new(stack("1", "1"));
    world.deploy("r1", &rolling_all()).expect("rolling");
    world.deploy("r2", &config(json!({}))).expect("colours");
    assert_eq!(world.serving().as_deref(), Some("app:1"));
    assert!(!world.running().contains(&"p-backend-1".to_owned()));
    world.undo("r2", &config(json!({}))).expect("undone");
    assert_eq!(
        world.names(|container| container.service == "backend"),
        ["p-backend-1", "p-backend-2"]
    );
}

/// The router needs the backend here, and the backend no router.
fn rolling_all() -> Config {
    rolling()
}
