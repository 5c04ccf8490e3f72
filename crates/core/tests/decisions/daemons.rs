//! DAEMON services: when their rollouts end, and what keeps them.

use roadstead_core::model::{
    quantity::Mebibytes,
    state::{Outcome, Schedulability},
};
use roadstead_core::turn::Command;
use serde_json::{Value, json};

use super::story::{Story, one_container};

fn daemon(more: &Value) -> Value {
    let mut service = json!({ "taskDefinition": "web", "schedulingStrategy": "DAEMON", "minimumHealthySeconds": 1 });
    service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service
}

fn outcome(story: &Story) -> (Option<Outcome>, String) {
    let primary = &story.core.world().state.services["web"].deployments[0];
    (primary.outcome, primary.rollout_state_reason.clone())
}

#[test]
fn a_daemon_that_has_no_room_on_a_host_is_not_rolled_out() {
    let mut story = Story::begin(daemon(&json!({})), one_container());
    // Each of the three in memory has 8 GiB.
    let definition = story.desired.task_definitions.get_mut("web").unwrap();
    definition.spec.edit(|spec| spec.container_definitions[0].memory = Some(Mebibytes(5_000)));
    let mut other = story.desired.services["web"].clone();
    other.spec = serde_json::from_value(json!({ "taskDefinition": "web", "desiredCount": 1 })).unwrap();
    story.desired.services.insert("other".into(), other);
    story.tell();
    story.settle(&[]);
    assert_eq!((outcome(&story).0, story.running()), (None, 3), "two of it, and the other service's");
    let waiting = story.decide(1_000, &[]).report.waiting;
    assert!(waiting.iter().any(|waiting| waiting.reason.contains("no daemon task on")), "{waiting:?}");
}

#[test]
fn a_daemon_that_belongs_nowhere_is_rolled_out_with_no_task() {
    let nowhere = json!({ "placementConstraints": [{ "type": "memberOf", "expression": "attribute:disk == ssd" }] });
    let mut story = Story::begin(daemon(&nowhere), one_container());
    story.settle(&[]);
    assert_eq!(outcome(&story), (Some(Outcome::Succeeded), "0 healthy tasks".into()));
}

#[test]
fn a_daemons_old_task_on_a_cordoned_host_stays_and_says_why() {
    let mut story = Story::begin(daemon(&json!({})), one_container());
    story.settle(&[]);
    story
        .core
        .command(story.now, Command::SetSchedulability { host: "b".into(), to: Schedulability::Cordoned })
        .unwrap();
    let definition = story.desired.task_definitions.get_mut("web").unwrap();
    definition.spec.edit(|spec| spec.container_definitions[0].image = "demo:2".into());
    story.tell();
    story.settle(&[]);
    assert_eq!(outcome(&story).0, None);
    let waiting = story.decide(1_000, &[]).report.waiting;
    assert!(waiting.iter().any(|waiting| waiting.reason.contains("host b is cordoned")), "{waiting:?}");
    story.core.command(story.now, Command::SetSchedulability { host: "b".into(), to: Schedulability::Active }).unwrap();
    story.settle(&[]);
    assert_eq!(outcome(&story), (Some(Outcome::Succeeded), "3 healthy tasks".into()));
}
