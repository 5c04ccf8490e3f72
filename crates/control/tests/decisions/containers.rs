//! Tasks of several containers: who is started again, in which order, and what ends the whole.

use std::collections::BTreeMap;

use roadstead_core::model::{
    action::Verb,
    container::{ContainerState, ContainerView},
};
use serde_json::{Value, json};

use super::story::{Story, web};

/// A task of an essential `main` and of others.
fn with(others: Value) -> Value {
    let mut containers = vec![json!({ "name": "main", "image": "demo:1", "memory": 64 })];
    containers.extend(others.as_array().unwrap().clone());
    json!({ "containerDefinitions": containers })
}

/// Its containers of this name, on all hosts.
fn change(story: &mut Story, name: &str, change: impl Fn(&mut ContainerView)) {
    let views = story.containers.values_mut().flat_map(|on| on.values_mut());
    views.filter(|view| view.name.ends_with(&format!("-{name}"))).for_each(change);
}

#[test]
fn a_sidecar_that_fails_again_and_again_does_not_take_its_task_down() {
    let side = json!([{ "name": "side", "image": "demo:1", "memory": 64, "essential": false }]);
    let mut story = Story::begin(web(1), with(side));
    story.settle(&[]);
    for _ in 0..5 {
        let now = story.now;
        change(&mut story, "side", |view| {
            view.restart_count += 1;
            view.started_at = Some(now.plus_ms(500));
        });
        story.settle(&[]);
    }
    assert_eq!(story.stop_codes(), []);
}

#[test]
fn whom_the_engine_restarts() {
    let others = json!([
        { "name": "side", "image": "demo:1", "memory": 64, "essential": false },
        { "name": "kept", "image": "demo:1", "memory": 64, "essential": false, "restartPolicy": { "enabled": true } },
        { "name": "once", "image": "demo:1", "memory": 64, "essential": false, "restartPolicy": { "enabled": false } },
        { "name": "init", "image": "demo:1", "memory": 64, "essential": false },
        { "name": "retried", "image": "demo:1", "memory": 64, "essential": false, "restartPolicy": { "enabled": true } },
        { "name": "last", "image": "demo:1", "memory": 64, "dependsOn": [
            { "containerName": "init", "condition": "COMPLETE" }, { "containerName": "retried", "condition": "SUCCESS" }
        ] }
    ]);
    let mut story = Story::begin(web(1), with(others));
    let launch = (0..5).find_map(|_| story.decide(1_000, &[]).actions.into_iter().next()).unwrap();
    let Verb::Launch { containers } = &launch.verb else { panic!("{launch:?}") };
    let found: BTreeMap<&str, (bool, bool)> = containers
        .iter()
        .map(|step| (step.container.as_str(), (step.config.restart, step.config.restart_failed_only)))
        .collect();
    let expected = [
        ("main", (true, false)),
        ("last", (true, false)),
        ("side", (true, true)),
        ("kept", (true, false)),
        ("once", (false, false)),
        ("init", (false, false)),
        ("retried", (true, true)),
    ];
    assert_eq!(found, BTreeMap::from(expected));
}
