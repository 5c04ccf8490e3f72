//! Decisions of the controller's core, told as short stories: three hosts in memory, no engine.

mod acme;
mod adoption;
mod alarms;
mod answers;
mod bare_names;
mod blue_green;
mod bounds;
mod calls;
mod certificates;
mod containers;
mod daemons;
mod deployments;
mod failures;
mod forgetting;
mod held;
mod image_cleanup;
mod images;
mod lan;
mod launches;
mod life;
mod limits;
mod looks;
mod losses;
mod moves;
mod names;
mod network;
mod probes;
mod rebalancing;
mod revisions;
mod rollouts;
mod schedules;
mod standalone;
mod story;
mod subnets;
mod traffic;
mod turns;
mod volumes;

use std::{collections::BTreeMap, sync::Arc};

use roadstead_core::model::{
    action::{Action, ActionResult, Verb, VerbName},
    container::{ContainerState, HealthStatus},
    name::RuntimeId,
    observed::Death,
    state::State,
    task::{DesiredStatus, LastStatus, StopCode},
    time::Timestamp,
};
use roadstead_core::turn::{Command, Core, Input};
use serde_json::{Value, json};

use story::{Story, one_container, web};

#[test]
fn when_the_brake_ends_the_other_hosts_get_time_to_answer_too() {
    let mut story = Story::begin(web(3), one_container());
    story.settle(&[]);
    assert_eq!(story.running(), 3);
    for _ in 0..20 {
        story.decide(1_000, &["a", "b", "c"]);
    }
    assert!(story.core.world().state.fleet.brake.is_some(), "all are silent: the brake holds");
    // One answers a moment before the others.
    let plan = story.decide(300, &["b", "c"]);
    assert!(story.core.world().state.fleet.brake.is_none(), "one answers: the brake ends");
    assert!(plan.actions.is_empty(), "and nothing is given up at once: {:?}", plan.actions);
    story.settle(&[]);
    assert_eq!(story.running(), 3);
    assert_eq!(story.stop_codes(), [], "nothing was ever replaced");
}

#[test]
fn a_task_ordered_to_stop_while_it_is_launched_keeps_its_port_until_the_launch_is_over() {
    let definition = json!({ "containerDefinitions": [
        { "name": "main", "image": "demo:1", "memory": 64, "portMappings": [{ "containerPort": 80, "hostPort": 8080 }] }
    ] });
    let mut story = Story::begin(web(1), definition);
    let mut launched = None;
    for _ in 0..5 {
        let plan = story.decide(1_000, &[]);
        launched = launched.or(plan.actions.into_iter().next());
    }
    let launch = launched.expect("it is launched");
    assert_eq!(launch.verb.name(), VerbName::Launch);
    // The image is pulled for a long time; meanwhile nothing is wanted any more.
    story.desired.services.get_mut("web").unwrap().spec.desired_count = 0;
    story.tell();
    for _ in 0..40 {
        story.decide(1_000, &[]);
    }
    let task = &story.core.world().state.tasks[&launch.task];
    assert!(task.is_live(), "its containers may appear at any moment: {:?}", task.last_status);
    story.obey(&launch);
    story.settle(&[]);
    assert_eq!(story.running(), 0, "what appeared late is stopped");
    assert!(!story.core.world().state.tasks.get(&launch.task).is_some_and(|task| task.is_live()));
}

#[test]
fn a_sick_task_that_holds_the_only_port_makes_room_for_its_replacement() {
    let definition = json!({ "containerDefinitions": [{
        "name": "main", "image": "demo:1", "memory": 64,
        "portMappings": [{ "containerPort": 80, "hostPort": 8080 }],
        "healthCheck": { "command": ["CMD", "check"] }
    }] });
    let mut story = Story::begin(web(3), definition);
    for _ in 0..5 {
        let plan = story.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| story.obey(action));
    }
    for view in story.containers.values_mut().flat_map(BTreeMap::values_mut) {
        view.health = HealthStatus::Healthy;
    }
    story.decide(1_000, &[]);
    let sick = story.containers.get_mut("a").unwrap().values_mut().next().unwrap();
    sick.health = HealthStatus::Unhealthy;
    let sick = sick.id.clone();
    story.settle(&[]);
    assert!(!story.containers["a"].contains_key(&sick), "it went");
    assert_eq!(story.containers["a"].len(), 1, "and another took its place");
}

#[test]
fn a_container_that_ended_well_and_was_tidied_away_is_not_run_again() {
    let definition = json!({ "containerDefinitions": [
        { "name": "migrate", "image": "demo:1", "memory": 64, "essential": false },
        { "name": "main", "image": "demo:1", "memory": 64, "dependsOn": [{ "containerName": "migrate", "condition": "SUCCESS" }] }
    ] });
    let mut story = Story::begin(web(1), definition);
    for _ in 0..4 {
        let plan = story.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| story.obey(action));
    }
    for view in
        story.containers.values_mut().flat_map(BTreeMap::values_mut).filter(|view| view.name.ends_with("migrate"))
    {
        view.state = ContainerState::Exited;
        view.exit_code = Some(0);
    }
    story.settle(&[]);
    assert_eq!(story.running(), 1, "main runs after migrate ended with 0");
    for containers in story.containers.values_mut() {
        containers.retain(|_, view| !view.name.ends_with("migrate"));
    }
    let made = story.made;
    story.settle(&[]);
    assert_eq!(story.made, made, "nothing was made again");
    assert_eq!(story.running(), 1);
}

#[test]
fn a_dependency_that_never_comes_ends_the_task_after_its_start_timeout() {
    let definition = json!({ "containerDefinitions": [
        { "name": "db", "image": "demo:1", "memory": 64, "startTimeout": 20, "healthCheck": { "command": ["CMD", "check"] } },
        { "name": "main", "image": "demo:1", "memory": 64, "dependsOn": [{ "containerName": "db", "condition": "HEALTHY" }] }
    ] });
    let mut story = Story::begin(web(1), definition);
    let mut reasons = Vec::new();
    for _ in 0..40 {
        let plan = story.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| story.obey(action));
        reasons.extend(story.core.world().state.tasks.values().filter_map(|task| task.stopped_reason.clone()));
    }
    assert!(
        reasons.iter().any(|reason| reason.contains("main waits for db to be healthy") && reason.contains("20 s")),
        "{reasons:?}"
    );
}

#[test]
fn a_dead_host_does_not_keep_a_deployment_from_completing() {
    let mut story = Story::begin(web(3), one_container());
    story.settle(&[]);
    for _ in 0..20 {
        let plan = story.decide(1_000, &["a"]);
        plan.actions.iter().for_each(|action| story.obey(action));
    }
    story
        .desired
        .task_definitions
        .get_mut("web")
        .unwrap()
        .spec
        .edit(|spec| spec.container_definitions[0].image = "demo:2".into());
    story.tell();
    story.settle(&["a"]);
    let record = &story.core.world().state.services["web"];
    let primary = record.deployments.first().unwrap();
    assert_eq!((primary.revision.to_string().as_str(), primary.outcome.is_some()), ("web:2", true), "{primary:?}");
}

#[test]
fn an_announced_death_is_replaced_at_once_and_holds_its_port_until_it_is_seen() {
    let definition = json!({ "containerDefinitions": [
        { "name": "main", "image": "demo:1", "memory": 64, "portMappings": [{ "containerPort": 80, "hostPort": 8080 }] }
    ] });
    let mut story = Story::begin(web(2), definition);
    story.settle(&[]);
    let host = story.containers.iter().find(|(_, on)| !on.is_empty()).unwrap().0.to_string();
    let (task, death) = story.death_on(&host);
    story.now = story.now.plus_ms(50);
    let plan = story.hear(&Death { at: story.now, heard_at: story.now, ..death.clone() });
    let orders: Vec<_> = plan.actions.iter().map(|action| (action.verb.name(), action.host.as_str() != host)).collect();
    assert_eq!(orders, [(VerbName::Launch, true)], "a replacement, where the port is free, and no stop");
    let dying = story.task(&task);
    assert_eq!((dying.desired_status, dying.last_status), (DesiredStatus::Stopped, LastStatus::Stopping));
    assert_eq!(dying.stop_code, Some(StopCode::EssentialContainerExited));
    assert_eq!(dying.stopped_reason.as_deref(), Some("essential container main was killed (exit code 137)"));

    // A look that began earlier still shows it running: it decides nothing.
    let (now, seen) = (story.now, story.now.plus_ms(80));
    for began in [now.0 - 20, now.0] {
        story.core.take(seen, Input::Look(Arc::new(story.look_at(&host, Timestamp(began)))));
        assert!(story.core.decide(seen).actions.is_empty(), "began at {began}");
        assert_eq!(story.task(&task).last_status, LastStatus::Stopping);
    }
    plan.actions.iter().for_each(|action| story.obey(action));
    let view = story.containers.get_mut(host.as_str()).unwrap().get_mut(&death.id).unwrap();
    (view.state, view.exit_code, view.oom_killed) = (ContainerState::Exited, Some(137), true);
    story.decide(1_000, &[]);
    let over = story.task(&task);
    assert_eq!(over.last_status, LastStatus::Stopped);
    assert!(
        over.stopped_reason.as_ref().unwrap().contains("more memory than its limit"),
        "the look knows more: {over:?}"
    );
    story.settle(&[]);
    assert_eq!(story.running(), 2);
}

#[test]
fn a_task_whose_death_was_announced_is_stopped_when_somebody_starts_it_again() {
    let mut story = Story::begin(web(1), one_container());
    story.settle(&[]);
    let host = story.containers.iter().find(|(_, on)| !on.is_empty()).unwrap().0.to_string();
    let (task, death) = story.death_on(&host);
    let replacement = story.hear(&death).actions;
    replacement.iter().for_each(|action| story.obey(action));
    story.containers.get_mut(host.as_str()).unwrap().get_mut(&death.id).unwrap().started_at = Some(story.now);
    let plan = story.decide(1_000, &[]);
    let stops: Vec<_> = plan.actions.iter().filter(|action| action.task == task.id).collect();
    assert!(matches!(stops[..], [Action { verb: Verb::Stop { .. }, .. }]), "never wanted again: {:?}", plan.actions);
    plan.actions.iter().for_each(|action| story.obey(action));
    story.settle(&[]);
    assert_eq!(story.running(), 1);
}

#[test]
fn news_of_a_death_that_proves_nothing_is_left_to_the_look() {
    type Change = fn(&mut Death, &Story);
    let ignored: [(&str, Value, Change); 8] = [
        ("a crash that the engine's restart policy mends", json!({}), |death, _| death.for_good = false),
        (
            "a crash that the controller mends, by its exit code",
            json!({ "restartPolicy": { "enabled": true, "ignoredExitCodes": [3] } }),
            |death, _| (death.for_good, death.exit_code) = (false, Some(1)),
        ),
        ("a container of nobody we know", json!({}), |death, _| death.id = "f00".into()),
        ("another host's container", json!({}), |death, _| death.host = "nowhere".into()),
        ("news from an earlier life", json!({}), |death, _| death.at = Timestamp(death.at.0 - 3_600_000)),
        ("overtaken by a look", json!({}), |death, _| death.heard_at = Timestamp(death.heard_at.0 - 500)),
        ("a container that may end", json!({ "essential": false }), |_, _| {}),
        (
            "one that may end, with its policy off",
            json!({ "essential": false, "restartPolicy": { "enabled": false } }),
            |death, _| {
                death.for_good = false;
            },
        ),
    ];
    for (what, more, change) in ignored {
        let mut main = json!({ "name": "main", "image": "demo:1", "memory": 64 });
        main.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        // The other container is essential; the first by name is the one that dies.
        let other = json!({ "name": "other", "image": "demo:1", "memory": 64 });
        let mut story = Story::begin(web(1), json!({ "containerDefinitions": [main, other] }));
        story.settle(&[]);
        let host = story.containers.iter().find(|(_, on)| !on.is_empty()).unwrap().0.to_string();
        story
            .containers
            .get_mut(host.as_str())
            .unwrap()
            .values_mut()
            .for_each(|view| view.started_at = Some(story.now));
        story.decide(1_000, &[]);
        let (task, mut death) = story.death_on(&host);
        change(&mut death, &story);
        let plan = story.hear(&death);
        assert!(plan.actions.is_empty(), "{what}: {:?}", plan.actions);
        assert_eq!(story.task(&task), task, "{what}");
    }
}

#[test]
fn with_its_restart_policy_off_a_crash_is_final() {
    let definition = json!({ "containerDefinitions": [
        { "name": "main", "image": "demo:1", "memory": 64, "restartPolicy": { "enabled": false } }
    ] });
    let mut story = Story::begin(web(1), definition);
    story.settle(&[]);
    let host = story.containers.iter().find(|(_, on)| !on.is_empty()).unwrap().0.to_string();
    let (task, death) = story.death_on(&host);
    let plan = story.hear(&Death { exit_code: Some(1), for_good: false, ..death });
    assert_eq!(plan.actions.len(), 1);
    assert_eq!(story.task(&task).stopped_reason.as_deref(), Some("essential container main ended with exit code 1"));
}

#[test]
fn what_dies_together_early_is_one_failed_start() {
    let mut story = Story::begin(web(9), one_container());
    for _ in 0..5 {
        let plan = story.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| story.obey(action));
    }
    let ids: Vec<RuntimeId> = story.containers["b"].keys().cloned().collect();
    assert_eq!(ids.len(), 3);
    let (_, death) = story.death_on("b");
    for id in ids {
        story.now = story.now.plus_ms(30);
        let (at, heard_at) = (story.now, story.now);
        story.core.take(story.now, Input::Died(Death { id, at, heard_at, ..death.clone() }));
    }
    let record = &story.core.world().state.services["web"];
    assert_eq!(record.consecutive_failures, 1);
    assert!(record.not_before.is_none_or(|at| at <= story.now), "the next try is not delayed");
}

#[test]
fn after_a_repin_what_was_half_made_on_the_old_machine_counts_as_gone() {
    let definition = json!({ "containerDefinitions": [
        { "name": "main", "image": "demo:1", "memory": 64 },
        { "name": "side", "image": "demo:1", "memory": 64, "dependsOn": [{ "containerName": "main", "condition": "START" }] }
    ] });
    let mut story = Story::begin(web(1), definition);
    let launch = (0..5).find_map(|_| story.decide(1_000, &[]).actions.into_iter().next()).expect("it is launched");
    let Verb::Launch { containers } = &launch.verb else { panic!("{launch:?}") };
    let first = Action { verb: Verb::Launch { containers: containers[..1].to_vec() }, ..launch.clone() };
    story.make(&first);
    story.answer(&launch, ActionResult::Unknown { reason: "no answer".into() });
    story.decide(300, &[]);
    // The machine is installed anew, and a person says so.
    story.containers.get_mut(&launch.host).unwrap().clear();
    story.core.command(story.now, Command::Repin { host: launch.host.clone() }).expect("it is known");
    story.decide(1_000, &[]);
    let task = &story.core.world().state.tasks[&launch.task];
    assert_eq!(task.desired_status, DesiredStatus::Stopped, "its first container is gone for good: {task:?}");
}

#[test]
fn quick_restarts_do_not_run_the_epoch_ahead_of_the_clock() {
    let began = Timestamp(1_700_000_000_000);
    let restart = |state: State, after_ms: u64| {
        let (core, _) = Core::new(state, 1, began.plus_ms(after_ms), false);
        core.world().state.clone()
    };
    let last = (0..20).fold(State::default(), |state, restarts| restart(state, restarts * 50));
    let amnesiac = restart(State::default(), 1_000);
    assert!(amnesiac.fleet.epoch > last.fleet.epoch, "or its own past looks like another controller");
}

#[test]
fn a_controller_that_died_half_way_through_adopting_looks_at_the_rest_before_it_starts_anything() {
    let mut story = Story::begin(web(3), one_container());
    story.settle(&[]);
    let restart = |story: &mut Story, state: State| {
        story.core = Core::new(state, 1, story.now, false).0;
        story.tell();
    };
    restart(&mut story, State::default());
    assert!(story.decide(100, &["c"]).actions.is_empty());
    assert_eq!(story.core.world().state.tasks.len(), 2, "of the two hosts that answered");
    let half = story.core.world().state.clone();
    restart(&mut story, half);
    assert!(story.decide(100, &["c"]).actions.is_empty(), "the third may run on the host that was not looked at yet");
    assert!(story.decide(100, &[]).actions.is_empty());
    assert_eq!(story.core.world().state.tasks.len(), 3);
    // Once all were looked at, a restart waits for nobody.
    let whole = story.core.world().state.clone();
    restart(&mut story, whole);
    assert!(!story.core.world().settling);
}
