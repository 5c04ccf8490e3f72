//! What counts as a failure of a rollout, and what a person can still do about it.

use std::collections::BTreeSet;

use roadstead_core::{
    model::{
        action::{ActionResult, VerbName},
        container::{ContainerView, HealthStatus},
        name::{HostName, RuntimeId},
        state::{
            Outcome::{Failed, RolledBack, Succeeded},
            Schedulability,
        },
        task::Task,
    },
    plan::{absorb::RolloutVerb, breaker},
    turn::Command,
};
use serde_json::{Value, json};

use super::{
    life::{self, image, with},
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

#[test]
fn a_container_that_is_gone_before_its_start_is_nobodys_failure_but_the_persons() {
    let mut story = Story::begin(web(1), image("demo:1"));
    story.live(20);
    story.deploy("demo:2");
    let mut removed = 0;
    for _ in 0..30 {
        for action in story.decide(1_000, &[]).actions {
            if action.verb.name() == VerbName::Launch && removed < 4 {
                removed += 1;
                let reason = "no such container".to_owned();
                story.answer(&action, ActionResult::Removed { reason, containers: Vec::new() });
            } else {
                story.obey(&action);
            }
        }
    }
    let record = &story.core.world().state.services["web"];
    assert!(removed == 4 || record.consecutive_failures > 1, "starts are slowed down: {removed}");
    assert_eq!((story.deployments()[0].failed_tasks, story.outcomes()[0]), (0, (2, None)));
    let tasks = story.core.world().state.tasks.values();
    let reasons: Vec<_> = tasks.filter_map(|task| task.stopped_reason.clone()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("somebody removed")), "{reasons:?}");
    story.live(120);
    assert_eq!(story.outcomes()[0], (2, Some(Succeeded)));
}

/// Another container that claims to be the main one of a task.
fn twin(story: &mut Story, task: &Task) -> RuntimeId {
    let on = story.containers.get_mut(&task.host).unwrap();
    let id = task.containers.values().find_map(|row| row.runtime_id.clone()).unwrap();
    let twin = ContainerView { id: "twin".into(), name: "renamed".to_owned(), ..on[&id].clone() };
    on.insert(twin.id.clone(), twin);
    "twin".into()
}

#[test]
fn a_second_container_does_not_keep_a_task_from_being_stopped() {
    let mut story = Story::begin(web(1), image("demo:1"));
    story.live(20);
    let task = story.wanted().pop().unwrap();
    let twin = twin(&mut story, &task);
    let first: Vec<_> = story.decide(1_000, &[]).actions;
    assert_eq!(first.iter().map(|action| action.verb.name()).collect::<Vec<_>>(), [VerbName::Tidy]);
    // It cannot be removed, and the order has no end.
    story.scale(0);
    let then: Vec<_> = story.decide(1_000, &[]).actions;
    assert_eq!(then.iter().map(|action| action.verb.name()).collect::<Vec<_>>(), [VerbName::Stop]);
    then.iter().for_each(|action| story.obey(action));
    story.decide(1_000, &[]);
    assert!(story.containers[&task.host].keys().eq([&twin]), "only the second one is left");
    first.iter().for_each(|action| story.obey(action));
    story.live(10);
    assert_eq!(story.containers[&task.host].len(), 0);
}

/// Only one task of it fits on a host.
fn with_port(more: Value) -> (Value, Value) {
    let mut definition = image("demo:1");
    definition["containerDefinitions"][0]["portMappings"] = json!([{ "containerPort": 80, "hostPort": 8080 }]);
    (with(3, more), definition)
}

#[test]
fn a_rollout_that_finds_no_host_is_taken_back() {
    let (service, definition) = with_port(json!({}));
    let mut story = Story::begin(service, definition);
    story.live(20);
    // Start-first, and every host has one already.
    story.deploy("demo:2");
    let mut said = story.live(35);
    assert_eq!((story.deployments()[0].failed_tasks, story.outcomes()[0]), (1, (2, None)));
    said.extend(story.live(70));
    assert_eq!(story.outcomes(), [(1, Some(Succeeded)), (2, Some(RolledBack)), (1, Some(Succeeded))]);
    assert_eq!(story.revisions(), [1, 1, 1]);
    let said = said.join("\n");
    assert!(said.contains("1 of 3 failures: no host for a task of it: 0/3 hosts fit: 3 "), "{said}");
}

#[test]
fn the_lack_of_a_host_is_not_held_against_a_rollout_while_it_may_end() {
    // Of a fleet that is still coming up, and of a first revision, which has nothing to go back to.
    let (service, definition) = with_port(json!({}));
    let mut story = Story::begin(service, definition.clone());
    story.scale(4);
    story.live(200);
    assert_eq!((story.deployments()[0].failed_tasks, story.outcomes()), (0, vec![(1, None)]), "it waits for a fourth");
    story.scale(3);
    story.live(10);
    story.deploy("demo:2");
    // One host is silent now and then, never long enough to be lost.
    for _ in 0..30 {
        story.live(2);
        story.live_without(8, &["c"]);
    }
    assert_eq!((story.deployments()[0].failed_tasks, story.outcomes()[0]), (0, (2, None)));
    // Stop-first, and the old one takes its time.
    let (service, definition) = with_port(json!({ "deploymentConfiguration": { "minimumHealthyPercent": 0 } }));
    let mut story = Story::begin(service, definition);
    story.live(20);
    story.deploy("demo:2");
    for _ in 0..200 {
        let actions = story.decide(1_000, &[]).actions;
        actions.iter().filter(|action| action.verb.name() != VerbName::Stop).for_each(|action| story.obey(action));
    }
    assert_eq!((story.deployments()[0].failed_tasks, story.outcomes()[0]), (0, (2, None)));
}

#[test]
fn a_daemons_threshold_is_that_of_the_hosts_that_match() {
    for (constraint, expected) in [
        (json!([]), 3),
        (json!([{ "type": "memberOf", "expression": "attribute:availability-zone != c" }]), 2),
        (json!([{ "type": "memberOf", "expression": "attribute:availability-zone == c" }]), 1),
        (json!([{ "type": "memberOf", "expression": "not(task:group == service:other)" }]), 3),
    ] {
        let whole = json!({ "type": "UNBOUNDED_PERCENT", "value": 100 });
        let more = json!({
            "schedulingStrategy": "DAEMON", "placementConstraints": constraint,
            "deploymentConfiguration": { "deploymentCircuitBreaker": { "thresholdConfiguration": whole } },
        });
        let mut story = Story::begin(with(1, more), image("nowhere:1"));
        story.live(30);
        let threshold = breaker::threshold_of(&story.core.world().state, &"web".into());
        assert_eq!(threshold, Some(expected), "{constraint}");
        let reason = story.deployments()[0].rollout_state_reason.clone();
        assert!(reason.contains(&format!("of {expected} failures")), "{constraint}: {reason}");
    }
}

#[test]
fn a_paused_rollout_heals_what_crash_loops() {
    let more = json!({ "deploymentConfiguration": { "maximumPercent": 150 } });
    let mut story = Story::begin(with(2, more), image("demo:1"));
    story.live(20);
    story.deploy("demo:2");
    while story.revisions() != [1, 1, 2] {
        story.live(1);
    }
    story.order(RolloutVerb::Pause).unwrap();
    story.live(5);
    for round in 1..=3 {
        for view in story.containers.values_mut().flat_map(|on| on.values_mut()).filter(|it| it.image == "demo:2") {
            (view.restart_count, view.started_at) = (round, Some(story.now.plus_ms(500)));
        }
        story.live(1);
    }
    story.live(30);
    assert_eq!((story.revisions(), story.outcomes()[0]), (vec![1, 1], (2, None)), "{}", story.waiting());
}

/// The port of a container in host mode.
fn in_host_mode() -> Value {
    json!({ "networkMode": "host", "containerDefinitions": [{
        "name": "main", "image": "demo:1", "memory": 64, "portMappings": [{ "containerPort": 80 }],
        "healthCheck": { "command": ["CMD", "check"] }
    }] })
}

#[test]
fn in_host_mode_a_containers_port_is_the_hosts() {
    let mut story = Story::begin(web(4), in_host_mode());
    story.live(20);
    assert_eq!(story.wanted().iter().map(|task| task.host.clone()).collect::<BTreeSet<_>>().len(), 3);
    assert_eq!(story.wanted().len(), 3, "no two on one host");
    assert!(story.waiting().contains("0/3 hosts fit: 3 have port 80/tcp in use"), "{}", story.waiting());
    // One goes before the next begins, since there is nowhere beside it.
    story.scale(3);
    let spec = &mut story.desired.services.get_mut("web").unwrap().spec;
    spec.deployment_configuration.minimum_healthy_percent = Some(66);
    story.tell();
    story.deploy("demo:2");
    story.live(60);
    assert_eq!(story.revisions(), [2, 2, 2]);
    assert_eq!(story.outcomes()[0], (2, Some(Succeeded)));
}

#[test]
fn a_sick_task_goes_once_its_replacement_is_healthy_where_there_is_room_for_both() {
    for (most, first_gone) in [(200, false), (100, true)] {
        let mut story = Story::begin(
            with(2, json!({ "deploymentConfiguration": { "maximumPercent": most, "minimumHealthyPercent": 50 } })),
            image("demo:1"),
        );
        story.live(20);
        let sick = story.wanted().remove(0);
        let id = sick.containers.values().find_map(|row| row.runtime_id.clone()).unwrap();
        let health = |story: &mut Story, of_new: HealthStatus| {
            for view in story.containers.values_mut().flat_map(|host| host.values_mut()) {
                view.health = if view.id == id { HealthStatus::Unhealthy } else { HealthStatus::Healthy };
            }
            let news = story.wanted().into_iter().filter(|task| task.created_at > sick.created_at);
            let ids: Vec<RuntimeId> = news
                .flat_map(|task| task.containers.values().filter_map(|row| row.runtime_id.clone()).collect::<Vec<_>>())
                .collect();
            for view in story.containers.values_mut().flat_map(|host| host.values_mut()) {
                if ids.contains(&view.id) {
                    view.health = of_new;
                }
            }
        };
        for _ in 0..10 {
            health(&mut story, HealthStatus::Unknown);
            story.decide(1_000, &[]).actions.iter().for_each(|action| story.obey(action));
        }
        assert_eq!(!story.task(&sick).is_wanted(), first_gone, "{most} %");
        for _ in 0..10 {
            health(&mut story, HealthStatus::Healthy);
            story.decide(1_000, &[]).actions.iter().for_each(|action| story.obey(action));
        }
        assert!(!story.task(&sick).is_wanted(), "{most} %");
        assert_eq!(story.wanted().len(), 2);
    }
}

#[test]
fn on_a_draining_host_what_never_ran_goes_at_once_and_what_runs_once_it_is_replaced() {
    let mut story = Story::begin(web(1), image("demo:1"));
    // Its launch has no answer yet.
    let launch = (0..5).find_map(|_| story.decide(1_000, &[]).actions.into_iter().next()).unwrap();
    let drain = |story: &mut Story, host: &HostName| {
        let order = Command::SetSchedulability { host: host.clone(), to: Schedulability::Draining, timeout_s: None };
        story.core.command(story.now, order).unwrap();
    };
    drain(&mut story, &launch.host);
    story.decide(1_000, &[]).actions.iter().for_each(|action| story.obey(action));
    assert!(!story.core.world().state.tasks[&launch.task].is_wanted());
    assert_eq!(story.wanted().len(), 1, "another takes its place");
    story.obey(&launch);
    story.live(20);
    let runs = story.wanted().remove(0);
    drain(&mut story, &runs.host);
    story.decide(1_000, &[]).actions.iter().for_each(|action| story.obey(action));
    assert!(story.task(&runs).is_wanted(), "the other one is not healthy yet");
    story.live(20);
    assert!(!story.task(&runs).is_wanted());
    assert_eq!(story.wanted().len(), 1);
}

#[test]
fn where_an_earlier_revision_failed_the_next_may_go() {
    let mut story = Story::begin(
        life::breaker(json!({ "thresholdConfiguration": { "type": "COUNT", "value": 4 } })),
        image("demo:1"),
    );
    story.live(20);
    story.deploy("crash:2");
    story.live(60);
    assert_eq!(story.outcomes()[0].1, Some(Succeeded), "it was rolled back");
    assert_eq!(story.core.world().state.services["web"].failures, [], "of the bad revision");
}
