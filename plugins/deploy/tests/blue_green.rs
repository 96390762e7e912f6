//! Two colours behind a router, against an engine in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::json;
use support::{World, config, stack};
use windlass_plugin_deploy::plan;

/// Version 1 is live, as blue.
fn first() -> World {
    let mut world = World::new(stack("1", "1"));
    world
        .deploy("r1", &config(json!({})))
        .expect("the first deployment");
    world.serves = true;
    world
}

fn live(world: &World) -> &str {
    world
        .memory
        .get("backend")
        .map_or("nothing", |live| live.rsplit_once(' ').unwrap().0)
}

#[test]
fn the_first_deployment_is_blue() {
    let world = first();
    assert_eq!(live(&world), "blue 1");
    assert_eq!(world.file, "backend blue 1 sha256:app1\n");
    assert_eq!(world.serving().as_deref(), Some("app:1"));
    assert_eq!(
        world.running(),
        [
            "p-backend-blue-1",
            "p-backend-blue-2",
            "p-db-1",
            "p-front-1",
            "p-router-1"
        ]
    );
}

#[test]
fn colours_take_turns_and_the_one_before_is_kept() {
    let mut world = first();
    for (version, run, expected) in [
        ("2", "r2", "green 2"),
        ("3", "r3", "blue 3"),
        ("4", "r4", "green 4"),
    ] {
        world.model = stack(version, "1");
        let outcome = world.deploy(run, &config(json!({}))).expect("deploys");
        assert_eq!(live(&world), expected);
        assert_eq!(outcome.outputs["backend"]["image"], format!("app:{version}"));
        assert_eq!(
            outcome.outputs["backend"]["colour"],
            expected.split(' ').next().unwrap()
        );
        let stopped = world.names(|container| !container.is_running());
        let before = if expected.starts_with("green") {
            "blue"
        } else {
            "green"
        };
        assert_eq!(
            stopped,
            [format!("p-backend-{before}-1"), format!("p-backend-{before}-2")]
        );
    }
    assert_eq!(world.image_of("p-backend-blue-1"), "app:3");
}

#[test]
fn what_is_as_wanted_is_left_alone() {
    let mut world = first();
    let outcome = world.deploy("r2", &config(json!({}))).expect("deploys");
    assert!(
        !outcome.changed && world.effects.is_empty(),
        "{:?}",
        world.effects
    );
    assert_eq!(plan::plan(&config(json!({})), &mut world).unwrap(), []);
}

#[test]
fn a_candidate_that_is_not_well_gets_no_traffic() {
    let mut world = first();
    world.model = stack("2", "1");
    world.ill.insert("app:2".into());
    let error = world.deploy("r2", &config(json!({}))).expect_err("it is ill");
    assert_eq!(error.code, "deploy.unhealthy");
    for words in ["503 database unreachable", "the last words of p-backend-green-1"] {
        assert!(error.message.contains(words), "{}", error.message);
    }
    assert_eq!(live(&world), "blue 1");
    world.undo("r2", &config(json!({}))).expect("undone");
    assert_eq!(
        world.names(|container| container.service == "backend"),
        ["p-backend-blue-1", "p-backend-blue-2"]
    );
}

#[test]
fn a_candidate_that_answers_wrongly_gets_no_traffic() {
    let mut world = first();
    world.model = stack("2", "1");
    world.wrong.insert("app:2".into(), 500);
    let error = world.deploy("r2", &config(json!({}))).expect_err("it is wrong");
    assert_eq!(error.code, "deploy.check");
    assert!(
        error
            .message
            .contains("-> 500, expected 200 or 401; the reply was: {\"from\":\"app:2\"}"),
        "{}",
        error.message
    );
    assert_eq!(live(&world), "blue 1");
    assert_eq!(
        world.names(|container| container.service == "backend"),
        ["p-backend-blue-1", "p-backend-blue-2"]
    );
}

#[test]
fn what_breaks_under_traffic_goes_back() {
    let mut world = first();
    world.model = stack("2", "1");
    world.fragile.insert("app:2".into());
    // It breaks after the switch: for that moment nobody can serve.
    world.serves = false;
    let error = world.deploy("r2", &config(json!({}))).expect_err("it breaks");
    assert_eq!(error.code, "deploy.unhealthy");
    assert_eq!(live(&world), "blue 3");
    world.serves = true;
    world.undo("r2", &config(json!({}))).expect("nothing is left");
    assert_eq!(world.running().len(), 5);
    assert_eq!(
        world.names(|container| container.service == "backend"),
        ["p-backend-blue-1", "p-backend-blue-2"]
    );
}

#[test]
fn a_first_deployment_that_breaks_leaves_no_traffic() {
    let mut world = World::new(stack("1", "1"));
    world.fragile.insert("app:1".into());
    world.deploy("r1", &config(json!({}))).expect_err("it breaks");
    world.undo("r1", &config(json!({}))).expect("undone");
    assert_eq!(live(&world), "nothing");
    assert_eq!(world.file, "");
    assert_eq!(world.names(|_| true), Vec::<String>::new());
}

#[test]
fn a_finished_run_is_rolled_back_and_once_more() {
    let mut world = first();
    world.model = stack("2", "2");
    world.deploy("r2", &config(json!({}))).expect("deploys");
    for expected in ["blue 3", "blue 3"] {
        world.undo("r2", &config(json!({}))).expect("undone");
        assert_eq!(live(&world), expected);
        assert_eq!(world.serving().as_deref(), Some("app:1"));
        assert_eq!(
            world.names(|_| true),
            [
                "p-backend-blue-1",
                "p-backend-blue-2",
                "p-db-1",
                "p-front-1",
                "p-router-1"
            ]
        );
        assert_eq!(world.image_of("p-front-1"), "front:1");
    }
}

#[test]
fn a_colour_that_stands_by_gets_the_traffic_back_at_once() {
    let running = config(json!({ "standby": "running" }));
    let mut world = first();
    for version in ["2", "3"] {
        world.model = stack(version, "1");
        world.deploy(&format!("r{version}"), &running).expect("deploys");
        let backends = world.names(|container| container.service == "backend" && container.is_running());
        assert_eq!(backends.len(), 4, "{backends:?}");
        // Nothing to do, and nothing is stopped.
        world
            .deploy(&format!("r{version}-again"), &running)
            .expect("deploys");
        assert_eq!(world.effects, [] as [&str; 0]);
    }
    assert_eq!(world.serving().as_deref(), Some("app:3"));
    world.undo("r3", &running).expect("undone");
    assert_eq!(world.serving().as_deref(), Some("app:2"));
    let started = world.effects.iter().any(|effect| effect.starts_with("start "));
    assert!(!started, "{:?}", world.effects);
    assert_eq!(
        world.names(|container| container.service == "backend"),
        ["p-backend-green-1", "p-backend-green-2"]
    );
}

#[test]
fn a_colour_that_loses_its_traffic_finishes_what_it_was_asked() {
    let mut world = first();
    world.in_flight.insert("backend-blue".into(), 3);
    world.model = stack("2", "1");
    world.deploy("r2", &config(json!({}))).expect("deploys");
    assert_eq!(world.in_flight["backend-blue"], 0);
    world.in_flight.insert("backend-green".into(), 3);
    world.undo("r2", &config(json!({}))).expect("undone");
    assert_eq!(world.in_flight["backend-green"], 0);

    world.model = stack("3", "1");
    world.fragile.insert("app:3".into());
    world.in_flight.insert("backend-green".into(), 3);
    world.serves = false;
    world.deploy("r3", &config(json!({}))).expect_err("it breaks");
    assert_eq!(world.in_flight["backend-green"], 0);
}

#[test]
fn a_router_that_is_down_is_started_and_its_file_counts() {
    let mut world = first();
    world.serves = false;
    world.kill("p-router-1");
    world.model = stack("2", "1");
    world.deploy("r2", &config(json!({}))).expect("deploys");
    assert_eq!(live(&world), "green 2");
}

#[test]
fn a_file_that_says_something_else_is_written_again() {
    let mut world = first();
    world.file = "backend green 2 sha256:app2\nother blue 9 sha256:x\n".into();
    world.deploy("r2", &config(json!({}))).expect("nothing to deploy");
    assert_eq!(world.file, "other blue 9 sha256:x\nbackend blue 1 sha256:app1\n");
}

#[test]
fn a_lost_colour_is_nobodys_guess() {
    let mut world = first();
    world.model = stack("2", "1");
    world.deploy("r2", &config(json!({}))).expect("deploys");
    world.serves = false;
    world.memory.clear();
    world.model = stack("3", "2");
    let error = world.deploy("r3", &config(json!({}))).expect_err("lost");
    assert_eq!(error.code, "deploy.router-lost");
    assert_eq!(world.effects, Vec::<String>::new());
    // Which makes the run one that needs an operator.
    let lost = world.undo("r3", &config(json!({}))).expect_err("lost");
    assert!(lost.message.contains("router cannot say"), "{}", lost.message);
    world.memory.insert("backend".into(), "purple 7 x".into());
    assert_eq!(
        world.deploy("r4", &config(json!({}))).expect_err("lost").code,
        "deploy.router-lost"
    );
}

#[test]
fn nginx_is_switched_by_its_file() {
    let nginx = config(json!({ "router": { "kind": "nginx", "service": "router", "port": 8000 } }));
    let mut world = World::new(stack("1", "1"));
    world.deploy("r1", &nginx).expect("the first deployment");
    world.serves = true;
    assert_eq!(live(&world), "blue 1");
    world.model = stack("2", "1");
    world.deploy("r2", &nginx).expect("deploys");
    assert!(
        world.file.contains("server backend-green:8000;"),
        "{}",
        world.file
    );
    assert_eq!(world.serving().as_deref(), Some("app:2"));
    world.undo("r2", &nginx).expect("undone");
    assert_eq!(live(&world), "blue 3");
}

#[test]
fn old_images_go_when_more_than_enough_are_kept() {
    let mut world = first();
    let two = config(json!({ "keep": 2 }));
    for version in 2..=5 {
        world.model = stack(&version.to_string(), "1");
        world.deploy(&format!("r{version}"), &two).expect("deploys");
    }
    let left: Vec<&String> = world
        .images
        .iter()
        .filter(|image| image.starts_with("app:"))
        .filter(|image| image.as_str() < "app:6")
        .collect();
    assert_eq!(left, ["app:3", "app:4", "app:5"]);
}

#[test]
fn a_plan_tells_the_switch_and_every_capability() {
    let mut world = first();
    world.model = stack("2", "2");
    world.begin("r2", false);
    let effects = plan::plan(&config(json!({})), &mut world).unwrap();
    assert!(world.effects.is_empty());
    let needs: Vec<String> = effects
        .iter()
        .map(|effect| {
            format!(
                "{} {}",
                effect.capability.as_deref().unwrap(),
                effect.value.as_deref().unwrap()
            )
        })
        .collect();
    for need in [
        "containers.manage p/back",
        "containers.manage p/backend",
        "containers.run app:2",
        "containers.exec p/router",
        "containers.publish 0.0.0.0:80",
    ] {
        assert!(needs.contains(&need.to_owned()), "{need} is not in {needs:#?}");
    }
    let summaries: Vec<&str> = effects.iter().map(|effect| effect.summary.as_str()).collect();
    assert!(
        summaries.contains(
            &"2 containers of green at app:2, checked, then the traffic from blue in generation 1 to it"
        ),
        "{summaries:#?}"
    );
    assert!(
        summaries
            .iter()
            .any(|summary| summary.contains("it publishes a port")),
        "{summaries:#?}"
    );
}
