//! What counts as a failure of a rollout, and what a person can still do about it.

use std::collections::BTreeSet;

use roadstead_core::{
    model::state::Outcome::{Failed, RolledBack, Succeeded},
    plan::absorb::RolloutVerb,
};
use serde_json::json;

use super::{
    life::{image, with},
    story::{Story, web},
};

#[test]
fn a_restart_can_be_aborted_half_way() {
    let mut story = Story::begin(web(3), image("demo:1"));
    story.live(20);
    let before: BTreeSet<_> = story.wanted().into_iter().map(|task| task.id).collect();
    let left = |story: &Story| story.wanted().iter().filter(|task| before.contains(&task.id)).count();
    // One at a time, so that there is a half.
    let spec = &mut story.desired.services.get_mut("web").unwrap().spec;
    spec.deployment_configuration.minimum_healthy_percent = Some(66);
    spec.deployment_configuration.maximum_percent = Some(100);
    story.tell();
    story.order(RolloutVerb::Restart).unwrap();
    while left(&story) == 3 {
        story.live(1);
    }
    story.order(RolloutVerb::Abort).unwrap();
    story.restart_controller();
    story.live(60);
    assert_eq!(story.outcomes(), [(1, Some(Succeeded)), (1, Some(RolledBack)), (1, Some(Succeeded))]);
    assert_eq!((left(&story), story.wanted().len()), (2, 3), "what was not started anew yet stays");
    story.order(RolloutVerb::Restart).unwrap();
    story.live(60);
    assert_eq!((left(&story), story.outcomes()[0]), (0, (1, Some(Succeeded))), "it can be asked for again");
}

#[test]
fn a_restart_of_what_never_completed_is_aborted_to_what_it_restarted() {
    let mut story = Story::begin(web(1), image("sick:1"));
    story.live(2);
    story.order(RolloutVerb::Restart).unwrap();
    story.live(2);
    story.order(RolloutVerb::Abort).unwrap();
    story.live(2);
    assert_eq!(story.outcomes()[..2], [(1, None), (1, Some(Failed))]);
}

#[test]
fn protection_does_not_hide_that_a_task_is_sick() {
    let mut story = Story::begin(web(3), image("demo:1"));
    story.live(20);
    let task = story.wanted().pop().unwrap();
    story.protect(&task, Some(60)).unwrap();
    story.deploy("demo:2");
    story.live(60);
    assert_eq!(story.revisions(), [1, 2, 2, 2], "a deployment leaves it alone");
    // Whatever its image was, it is sick now.
    for view in story.containers.get_mut(&task.host).unwrap().values_mut().filter(|view| view.image == "demo:1") {
        view.image = "sick:1".to_owned();
    }
    story.live(60);
    assert_eq!((story.revisions(), story.outcomes()[0]), (vec![2, 2, 2], (2, Some(Succeeded))));
    let daemon = json!({ "schedulingStrategy": "DAEMON" });
    let mut story = Story::begin(with(1, daemon), image("demo:1"));
    story.live(20);
    let task = story.wanted().pop().unwrap();
    story.protect(&task, Some(60)).unwrap();
    story.deploy("demo:2");
    story.live(60);
    assert_eq!(story.revisions(), [1, 2, 2]);
    for view in story.containers.get_mut(&task.host).unwrap().values_mut().filter(|view| view.image == "demo:1") {
        view.image = "sick:1".to_owned();
    }
    story.live(60);
    assert_eq!(story.revisions(), [2, 2, 2]);
}

#[test]
fn what_is_scaled_up_for_the_first_time_is_a_rollout_with_the_breaker_on() {
    let mut story = Story::begin(web(2), image("demo:1"));
    story.live(20);
    story.scale(0);
    story.live(20);
    story.scale(2);
    story.live(20);
    assert_eq!(story.outcomes(), [(1, Some(Succeeded))], "a revision that ran is known");
    story.scale(0);
    story.live(20);
    story.deploy("nowhere:2");
    story.live(20);
    assert_eq!(story.outcomes()[0], (2, Some(Succeeded)), "nothing is wanted, and nothing runs");
    story.scale(2);
    story.live(1);
    assert_eq!(story.outcomes()[0], (2, None), "now it is tried");
    story.live(60);
    assert_eq!(story.outcomes()[..2], [(1, Some(Succeeded)), (2, Some(RolledBack))]);
    assert_eq!(story.revisions(), [1, 1]);
}
