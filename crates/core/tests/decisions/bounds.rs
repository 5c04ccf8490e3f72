//! How many tasks of a service are started and stopped at once, and what is said meanwhile.

use std::{collections::BTreeSet, sync::Arc};

use roadstead_core::{
    model::{
        action::VerbName,
        container::HealthStatus,
        name::HostName,
        state::{ServiceRecord, State},
        task::{LastStatus, Launch, StopCode, Task},
        time::Timestamp,
        world::Plan,
    },
    plan::absorb::RolloutVerb,
    turn::Command,
};
use serde_json::{Value, json};

use super::{
    life::{image, with},
    story::{Story, one_container, web},
};

fn at_most(count: u32, percent: u32) -> Value {
    with(count, json!({ "deploymentConfiguration": { "maximumPercent": percent, "minimumHealthyPercent": 0 } }))
}

fn says(plan: &Plan) -> Vec<&str> {
    plan.report.waiting.iter().map(|waiting| waiting.reason.as_str()).collect()
}

fn placed(story: &Story, plan: &Plan) -> usize {
    story.said(plan).filter(|reason| reason == "TaskPlaced").count()
}

/// One service of which these many are missing since `failures` tasks failed one after the other.
fn missing(service: Value, failures: u32, change: impl FnOnce(&mut State, &mut ServiceRecord, Timestamp)) -> Story {
    let mut story = Story::begin(service, one_container());
    story.settle(&[]);
    story.containers.values_mut().for_each(|on| on.clear());
    let now = story.now;
    story.go_on_with(|state| {
        let mut record = state.services["web"].clone();
        record.consecutive_failures = failures;
        change(state, &mut record, now);
        state.services.insert("web".into(), record);
    });
    story
}

#[test]
fn a_slowed_down_service_starts_its_next_task_when_the_pause_is_over() {
    let mut story = missing(web(2), 2, |state, record, now| {
        state.tasks.clear();
        record.not_before = Some(now.plus_ms(2_000));
    });
    let due = story.now.plus_ms(2_000);
    let plan = story.decide(1_999, &[]);
    assert_eq!((placed(&story, &plan), plan.wake_at), (0, Some(due)));
    assert_eq!(says(&plan), ["2 tasks are missing, but 2 in a row failed to start: the next try is delayed"]);
    let plan = story.decide(1, &[]);
    assert_eq!(placed(&story, &plan), 1);
    let trying = "1 tasks are missing; after a failure one at a time is tried, and one just is";
    assert_eq!(says(&plan), [trying]);
    let plan = story.decide(1, &[]);
    assert_eq!((placed(&story, &plan), says(&plan)), (0, vec![trying]));
}

#[test]
fn without_failures_all_that_are_missing_are_started() {
    let mut story = missing(web(3), 0, |state, _, _| state.tasks.clear());
    let plan = story.decide(1_000, &[]);
    assert_eq!((placed(&story, &plan), says(&plan)), (3, vec![]));
}

/// After a failure one at a time is tried: what counts as trying is a task of what is started, not yet healthy, on a host
/// that can be asked.
#[test]
fn what_was_healthy_or_cannot_be_heard_or_is_of_another_revision_is_no_try() {
    use HealthStatus::Unknown;
    fn never_healthy(task: &mut Task) {
        (task.healthy_at, task.health_status) = (None, Unknown);
        task.containers.values_mut().for_each(|row| row.health = Unknown);
    }
    fn of_another_revision(task: &mut Task) {
        never_healthy(task);
        task.revision.number = 7;
    }
    type Row<'r> = (&'r str, fn(&mut Task), &'r [&'r str], usize);
    let changes: [Row<'_>; 4] = [
        ("it is on its way", never_healthy, &[], 0),
        ("it was healthy", |_| {}, &[], 1),
        ("nobody hears of it", never_healthy, &["a"], 1),
        ("of another revision", of_another_revision, &[], 1),
    ];
    for (what, change, silent, expected) in changes {
        let mut story = Story::begin(at_most(3, 200), image("demo:1"));
        story.live(20);
        let kept = story.wanted().into_iter().find(|task| task.host.as_str() == "a").unwrap();
        for (host, on) in &mut story.containers {
            if host.as_str() == "a" {
                on.values_mut().for_each(|view| view.health = Unknown);
            } else {
                on.clear();
            }
        }
        story.go_on_with(|state| {
            state.tasks.retain(|id, _| *id == kept.id);
            change(Arc::make_mut(state.tasks.get_mut(&kept.id).unwrap()));
            state.services.get_mut("web").unwrap().consecutive_failures = 1;
        });
        let plan = story.decide(1_000, silent);
        assert_eq!(placed(&story, &plan), expected, "{what}: {:?}", says(&plan));
    }
}

#[test]
fn at_the_ceiling_the_old_ends_first_and_that_is_said() {
    // A task that ends counts until it is seen gone.
    let mut story = Story::begin(at_most(1, 100), one_container());
    story.settle(&[]);
    let task = story.state().tasks.keys().next().unwrap().clone();
    story.core.command(story.now, Command::StopTask { task, reason: None }).unwrap();
    let plan = story.decide(1_000, &[]);
    assert_eq!(placed(&story, &plan), 0);
    assert_eq!(says(&plan), ["1 tasks are missing, and old ones must end first (ceiling 1)"]);
    plan.actions.iter().for_each(|action| story.obey(action));
    let plan = story.decide(1_000, &[]);
    assert_eq!(placed(&story, &plan), 1);

    // With a rollout there is one sentence for each task that stays.
    let mut story = Story::begin(
        with(3, json!({ "deploymentConfiguration": { "maximumPercent": 100, "minimumHealthyPercent": 66 } })),
        image("demo:1"),
    );
    story.live(20);
    story.deploy("demo:2");
    let plan = story.decide(1_000, &[]);
    let stays = "web:2 replaces web:1: it stays until a healthy task takes its place (floor 2)";
    assert_eq!(says(&plan), [stays, stays]);
    plan.actions.iter().for_each(|action| story.obey(action));
    let plan = story.decide(1_000, &[]);
    assert_eq!(placed(&story, &plan), 1);
}

#[test]
fn how_many_of_how_many_find_no_host_is_said() {
    let definition = json!({ "containerDefinitions": [
        { "name": "main", "image": "demo:1", "memory": 64, "portMappings": [{ "containerPort": 80, "hostPort": 8080 }] }
    ] });
    let mut story = Story::begin(web(5), definition);
    for _ in 0..3 {
        let plan = story.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| story.obey(action));
    }
    let plan = story.decide(1_000, &[]);
    assert_eq!(story.running(), 3);
    assert!(
        says(&plan).iter().any(|words| words.starts_with("2 of 5 tasks cannot be placed: 0/3 hosts fit")),
        "{:?}",
        says(&plan)
    );
    // In the very plan that places the others.
    let mut story = Story::begin(
        web(5),
        json!({ "containerDefinitions": [
        { "name": "main", "image": "demo:1", "memory": 64, "portMappings": [{ "containerPort": 80, "hostPort": 8080 }] }
    ] }),
    );
    let plans: Vec<Plan> = (0..3).map(|_| story.decide_once(1_000, &[])).collect();
    let plan = plans.into_iter().find(|plan| placed(&story, plan) > 0).unwrap();
    assert!(says(&plan).iter().any(|words| words.starts_with("2 of 5 tasks cannot be placed")), "{:?}", says(&plan));
}

/// Nothing was sent of it: it is over in the plan that replaces it, which starts as many as are wanted and no more.
#[test]
fn what_was_never_sent_is_replaced_in_one_plan_unless_it_is_protected() {
    for protected in [false, true] {
        let mut story = Story::begin(at_most(3, 100), image("demo:1"));
        story.pushed.insert("demo:1".into(), 1);
        (0..3).for_each(|_| drop(story.decide_once(1_000, &[])));
        let before: BTreeSet<_> = story.state().tasks.keys().cloned().collect();
        assert!(story.state().tasks.values().all(|task| task.launch == Launch::NotIssued));
        if protected {
            story.wanted().iter().for_each(|task| drop(story.protect(task, Some(60)).unwrap()));
        }
        story.deploy("demo:2");
        let plan = story.decide_once(1_000, &[]);
        let over = story.state().tasks.values().filter(|task| task.last_status == LastStatus::Stopped).count();
        let new = story.wanted().iter().filter(|task| !before.contains(&task.id)).count();
        let expected = if protected { (0, 0) } else { (3, 3) };
        assert_eq!((over, new, placed(&story, &plan)), (expected.0, expected.1, expected.1), "protected: {protected}");
    }
}

#[test]
fn protection_ends_to_the_millisecond() {
    let mut story = Story::begin(web(1), one_container());
    story.settle(&[]);
    let task = story.wanted().remove(0);
    story.protect(&task, Some(1)).unwrap();
    let until = story.now.plus_ms(60_000);
    story.scale(0);
    let plan = story.decide(59_999, &[]);
    assert_eq!((story.task(&task).is_wanted(), plan.wake_at), (true, Some(until)));
    story.decide(1, &[]);
    assert!(!story.task(&task).is_wanted());
}

#[test]
fn what_stands_still_is_scaled_in_when_all_of_it_is_of_one_revision() {
    let mut story = Story::begin(web(3), image("demo:1"));
    for _ in 0..3 {
        let plan = story.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| story.obey(action));
    }
    story.order(RolloutVerb::Pause).unwrap();
    story.scale(2);
    story.decide(1_000, &[]);
    assert_eq!(story.wanted().len(), 2, "its first deployment");
    // Of two revisions nobody knows which of them is to go.
    let mut story = Story::begin(web(3), image("demo:1"));
    story.live(20);
    story.deploy("demo:2");
    for _ in 0..2 {
        let plan = story.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| story.obey(action));
    }
    story.order(RolloutVerb::Pause).unwrap();
    assert_eq!(story.wanted().len(), 6);
    story.live(3);
    assert_eq!(story.wanted().len(), 6);
}

#[test]
fn while_the_first_rollout_stands_still_and_nothing_is_proven_nothing_is_healed() {
    let mut story = Story::begin(web(3), image("demo:1"));
    for _ in 0..3 {
        let plan = story.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| story.obey(action));
    }
    story.order(RolloutVerb::Pause).unwrap();
    let task = story.wanted().remove(0).id;
    story.core.command(story.now, Command::StopTask { task, reason: None }).unwrap();
    for _ in 0..5 {
        let plan = story.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| story.obey(action));
    }
    assert_eq!(story.wanted().len(), 2);
}

#[test]
fn a_new_start_of_the_same_revision_is_told_as_such() {
    let mut story = Story::begin(web(1), image("demo:1"));
    story.live(20);
    story.order(RolloutVerb::Restart).unwrap();
    story.live(20);
    let ended = story.state().tasks.values().find(|task| task.stop_code == Some(StopCode::ServiceSchedulerInitiated));
    assert_eq!(ended.and_then(|task| task.stopped_reason.clone()).as_deref(), Some("web:1 is started anew"));
}

#[test]
fn the_containers_that_restart_are_named_the_essential_ones_first() {
    for (main, side, named) in [(0, 3, "side"), (1, 9, "main")] {
        let mut story = Story::begin(
            web(1),
            json!({ "containerDefinitions": [
            { "name": "main", "image": "demo:1", "memory": 64 },
            { "name": "side", "image": "demo:1", "memory": 64, "essential": false },
        ] }),
        );
        story.settle(&[]);
        let now = story.now;
        story.go_on_with(|state| {
            let task = Arc::make_mut(state.tasks.values_mut().next().unwrap());
            task.restarts = vec![now; 3];
            task.containers.get_mut("main").unwrap().restart_count = main;
            task.containers.get_mut("side").unwrap().restart_count = side;
        });
        for view in story.containers.values_mut().flat_map(|on| on.values_mut()) {
            view.restart_count = if view.name.ends_with("main") { main } else { side };
        }
        story.decide(1_000, &[]);
        let reason = story.state().tasks.values().find_map(|task| task.stopped_reason.clone()).unwrap();
        assert!(reason.starts_with(&format!("container {named} was restarted")), "{reason}");
    }
}

#[test]
fn placement_hears_what_a_service_asks_for_and_where_it_failed() {
    let hosts = |story: &Story| -> Vec<HostName> {
        let mut hosts: Vec<HostName> = story.wanted().into_iter().map(|task| task.host).collect();
        hosts.sort();
        hosts
    };
    let packed = with(3, json!({ "placementStrategy": [{ "type": "binpack", "field": "memory" }] }));
    let mut story = Story::begin(packed, one_container());
    story.settle(&[]);
    assert_eq!(hosts(&story), ["a", "a", "a"].map(HostName::from));
    // By lot: each task draws anew.
    let mut story = Story::begin(with(12, json!({ "placementStrategy": [{ "type": "random" }] })), one_container());
    story.settle(&[]);
    let used: BTreeSet<HostName> = hosts(&story).into_iter().collect();
    assert!(used.len() == 3, "{used:?}");
    // Where five failed within five minutes the next does not go, unless it has to.
    let mut story = missing(web(1), 0, |state, record, now| {
        state.tasks.clear();
        record.failures = vec![(now, "a".into()); 5];
    });
    story.decide(1_000, &[]);
    assert_eq!(hosts(&story), [HostName::from("b")]);
    // The same of standalone tasks.
    let mut story = Story::begin(web(0), one_container());
    story.settle(&[]);
    for (token, strategy) in
        [("packed", json!([{ "type": "binpack", "field": "memory" }])), ("drawn", json!([{ "type": "random" }]))]
    {
        let request =
            json!({ "taskDefinition": "web", "clientToken": token, "count": 10, "placementStrategy": strategy });
        let request = serde_json::from_value(request).unwrap();
        story.core.command(story.now, Command::RunTask(Box::new(request))).unwrap();
        let used: BTreeSet<HostName> = hosts(&story).into_iter().collect();
        assert_eq!(used.len(), if token == "packed" { 1 } else { 3 }, "{token}");
    }
}

#[test]
fn a_host_that_was_not_looked_at_for_a_minute_gets_no_task() {
    let mut story = Story::begin(web(1), one_container());
    story.settle(&[]);
    story.scale(4);
    story.time_passes(60_000, &[]);
    let plan = story.plan();
    assert_eq!(placed(&story, &plan), 0);
    assert!(says(&plan).iter().any(|words| words.contains("3 not seen yet")), "{:?}", says(&plan));
}

#[test]
fn gpus_are_asked_for_and_counted() {
    let requirement = json!([{ "type": "GPU", "value": "1" }]);
    let mut story = Story::begin(
        web(2),
        json!({ "containerDefinitions": [
        { "name": "main", "image": "demo:1", "memory": 64, "resourceRequirements": requirement }
    ] }),
    );
    story.desired.hosts.get_mut("b").unwrap().spec.gpus = 1;
    story.tell();
    let mut asked = Vec::new();
    for _ in 0..5 {
        let plan = story.decide(1_000, &[]);
        for action in &plan.actions {
            if let roadstead_core::model::action::Verb::Launch { containers } = &action.verb {
                asked.extend(containers.iter().map(|step| (action.host.to_string(), step.config.gpus)));
            }
            assert_ne!(action.verb.name(), VerbName::Stop);
            story.obey(action);
        }
    }
    assert_eq!(asked, [("b".to_owned(), 1)]);
    assert!(story.waiting().contains("3 lack 1 GPUs"), "{}", story.waiting());
}

#[test]
fn slots_are_numbered_from_one_and_taken_again_when_they_are_free() {
    let mut story = Story::begin(web(3), one_container());
    story.settle(&[]);
    let slots = |story: &Story| -> BTreeSet<u32> { story.wanted().iter().map(|task| task.slot).collect() };
    assert_eq!(slots(&story), [1, 2, 3].into());
    // One that ends has its own until it is over.
    for (ends, expected) in [(2, [1, 3, 4]), (4, [1, 2, 3])] {
        let task = story.wanted().into_iter().find(|task| task.slot == ends).unwrap().id;
        story.core.command(story.now, Command::StopTask { task, reason: None }).unwrap();
        story.settle(&[]);
        assert_eq!(slots(&story), expected.into());
    }
}
