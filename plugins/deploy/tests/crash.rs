//! The process ends before or after any effect. Whatever follows (the same run again, another run, the undo), the colour that has the traffic
//! is well at every call, and nothing is left over in the end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use support::{Crash, World, config, stack};
use windlass_guest::{PastEffect, Verdict};
use windlass_plugin_deploy::config::Config;

fn nginx() -> Config {
    config(json!({ "router": { "kind": "nginx", "service": "router", "port": 8000 } }))
}

/// Version 1 is live.
fn first(config: &Config) -> World {
    let mut world = World::new(stack("1", "1"));
    world.deploy("r1", config).expect("the first deployment");
    world.serves = true;
    world
}

/// Every way in which a run of a number of effects can end early.
fn crashes(effects: usize) -> impl Iterator<Item = Crash> {
    (1..=effects).flat_map(|at| [Crash::BeforeEffect(at), Crash::AfterEffect(at)])
}

/// How many effects a deployment of this model has.
fn effects(world: &World, config: &Config, model: &Value) -> usize {
    let mut world = world.clone();
    world.model = model.clone();
    world
        .deploy("r2", config)
        .expect("it deploys when nothing happens");
    world.effects.len()
}

/// A world in which a deployment was cut off.
fn cut_off(world: &World, config: &Config, model: &Value, crash: Crash) -> World {
    let mut world = world.clone();
    world.model = model.clone();
    world.begin("r2", false);
    world.crash = Some(crash);
    let error = windlass_plugin_deploy::stage::run(config, &mut world).expect_err("it was cut off");
    assert_eq!(error.code, "test.crash", "{crash:?}: {error}");
    world
}

/// Nothing but the services, what the last run can be rolled back to, and what was kept from before.
#[track_caller]
fn expect_tidy(world: &World, image: &str, runs: &[&str], crash: Crash) {
    assert_eq!(world.serving().as_deref(), Some(image), "{crash:?}");
    assert!(world.is_recorded(), "{crash:?}: the file says {:?}", world.file);
    let running = world.names(|container| container.is_running());
    let colour = world.memory["backend"].split(' ').next().unwrap().to_owned();
    let expected = [
        format!("p-backend-{colour}-1"),
        format!("p-backend-{colour}-2"),
        "p-db-1".into(),
        "p-front-1".into(),
        "p-router-1".into(),
    ];
    assert_eq!(running, expected, "{crash:?}");
    let stopped = world.names(|container| !container.is_running());
    let is_kept = |name: &String| {
        let is_aside = runs.iter().any(|run| name.ends_with(&format!("-before-{run}")));
        is_aside || (name.starts_with("p-backend-") && !name.contains(&colour))
    };
    assert!(
        stopped.iter().all(is_kept) && stopped.len() <= 3,
        "{crash:?}: {stopped:?} is left"
    );
}

fn snapshot(world: &World) -> Vec<(String, String, String)> {
    let mut all: Vec<_> = world
        .containers
        .iter()
        .map(|container| {
            (
                container.name.clone(),
                container.image.clone(),
                container.state.clone(),
            )
        })
        .collect();
    all.sort();
    all
}

fn each(mut check: impl FnMut(&Config, &World, &Value, Crash)) {
    let next = stack("2", "2");
    for config in [config(json!({})), nginx()] {
        let world = first(&config);
        for crash in crashes(effects(&world, &config, &next)) {
            check(&config, &world, &next, crash);
        }
    }
}

#[test]
fn the_same_run_goes_on() {
    each(|config, world, next, crash| {
        let mut world = cut_off(world, config, next, crash);
        world
            .deploy("r2", config)
            .unwrap_or_else(|error| panic!("{crash:?}: {error}"));
        expect_tidy(&world, "app:2", &["r2"], crash);
    });
}

#[test]
fn another_run_of_another_version_follows() {
    each(|config, world, next, crash| {
        let mut world = cut_off(world, config, next, crash);
        world.model = stack("3", "1");
        world
            .deploy("r3", config)
            .unwrap_or_else(|error| panic!("{crash:?}: {error}"));
        expect_tidy(&world, "app:3", &["r2", "r3"], crash);
    });
}

#[test]
fn another_run_of_the_old_version_follows() {
    each(|config, world, next, crash| {
        let mut world = cut_off(world, config, next, crash);
        world.model = stack("1", "1");
        world
            .deploy("r3", config)
            .unwrap_or_else(|error| panic!("{crash:?}: {error}"));
        expect_tidy(&world, "app:1", &["r2", "r3"], crash);
    });
}

#[test]
fn it_is_undone_and_the_undo_may_be_cut_off_too() {
    each(|config, world, next, crash| {
        let before = snapshot(world);
        let cut_off = cut_off(world, config, next, crash);
        let mut undone = cut_off.clone();
        undone
            .undo("r2", config)
            .unwrap_or_else(|error| panic!("{crash:?}: {error}"));
        assert_eq!(snapshot(&undone), before, "{crash:?}");
        assert_eq!(undone.serving().as_deref(), Some("app:1"));
        assert!(undone.is_recorded(), "{crash:?}: the file says {:?}", undone.file);
        for again in crashes(undone.effects.len()) {
            let mut world = cut_off.clone();
            world.begin("r2", true);
            world.crash = Some(again);
            windlass_plugin_deploy::undo::compensate(config, &mut world).expect_err("it was cut off");
            world
                .undo("r2", config)
                .unwrap_or_else(|error| panic!("{crash:?}, {again:?}: {error}"));
            assert_eq!(snapshot(&world), before, "{crash:?}, {again:?}");
        }
    });
}

#[test]
fn the_first_deployment_of_all_may_be_cut_off() {
    for config in [config(json!({})), nginx()] {
        let nothing = World::new(stack("1", "1"));
        for crash in crashes(effects(&nothing, &config, &stack("1", "1"))) {
            let world = cut_off(&nothing, &config, &stack("1", "1"), crash);
            let mut resumed = world.clone();
            resumed
                .deploy("r2", &config)
                .unwrap_or_else(|error| panic!("{crash:?}: {error}"));
            expect_tidy(&resumed, "app:1", &[], crash);
            let mut followed = world.clone();
            followed.model = stack("2", "1");
            followed
                .deploy("r3", &config)
                .unwrap_or_else(|error| panic!("{crash:?}: {error}"));
            expect_tidy(&followed, "app:2", &["r3"], crash);
            let mut undone = world;
            undone
                .undo("r2", &config)
                .unwrap_or_else(|error| panic!("{crash:?}: {error}"));
            assert_eq!(snapshot(&undone), [], "{crash:?}");
        }
    }
}

#[test]
fn two_runs_are_cut_off_one_after_the_other() {
    let config = config(json!({}));
    let (second, third) = (stack("2", "2"), stack("3", "1"));
    let world = first(&config);
    for one in crashes(effects(&world, &config, &second)) {
        let world = cut_off(&world, &config, &second, one);
        let mut whole = world.clone();
        whole.model = third.clone();
        whole
            .deploy("r3", &config)
            .expect("it deploys when nothing happens");
        for two in crashes(whole.effects.len()) {
            let mut world = world.clone();
            world.model = third.clone();
            world.begin("r3", false);
            world.crash = Some(two);
            windlass_plugin_deploy::stage::run(&config, &mut world).expect_err("it was cut off");
            world.model = stack("4", "2");
            world
                .deploy("r4", &config)
                .unwrap_or_else(|error| panic!("{one:?}, {two:?}: {error}"));
            expect_tidy(&world, "app:4", &["r2", "r3", "r4"], two);
        }
    }
}

#[test]
fn any_call_may_fail_and_all_is_as_it_was() {
    let config = config(json!({}));
    let world = first(&config);
    let before = snapshot(&world);
    let mut whole = world.clone();
    whole.model = stack("2", "2");
    whole
        .deploy("r2", &config)
        .expect("it deploys when nothing happens");
    for call in 1..=whole.calls {
        let mut world = world.clone();
        world.model = stack("2", "2");
        world.begin("r2", false);
        world.fail_call = Some(call);
        // Some are of no consequence: a log that cannot be read.
        let failed = windlass_plugin_deploy::stage::run(&config, &mut world).is_err();
        if failed {
            world
                .undo("r2", &config)
                .unwrap_or_else(|error| panic!("call {call}: {error}"));
            assert_eq!(snapshot(&world), before, "call {call}");
        }
    }
}

#[test]
fn the_router_tells_what_became_of_a_program() {
    each(|config, world, next, crash| {
        let mut world = cut_off(world, config, next, crash);
        let last = world.effects.last().cloned().unwrap();
        let Some(arguments) = last.strip_prefix("containers.exec ") else {
            return;
        };
        let effect = PastEffect {
            key: "k".into(),
            function: "containers.exec".into(),
            arguments: serde_json::from_str(arguments).unwrap(),
            state: "unknown".into(),
        };
        world.begin("r2", false);
        let found = windlass_plugin_deploy::reconcile::reconcile(config, &effect, &mut world).unwrap();
        let happened = matches!(crash, Crash::AfterEffect(_));
        assert_eq!(
            found,
            if happened { Verdict::Done } else { Verdict::NotDone },
            "{crash:?}: {last}"
        );
        let other = PastEffect {
            function: "containers.create".into(),
            ..effect
        };
        assert_eq!(
            windlass_plugin_deploy::reconcile::reconcile(config, &other, &mut world).unwrap(),
            Verdict::Unknown
        );
    });
}
