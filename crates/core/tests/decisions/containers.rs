//! Tasks of several containers: who is started again, in which order, and what ends the whole.

use std::collections::BTreeMap;

use roadstead_core::model::{
    action::{Action, ActionResult, StopStep, Verb},
    container::{ContainerState, ContainerView, HealthStatus},
    task::{LastStatus, Revived, StopCode},
    time::Timestamp,
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

/// As Docker leaves it: the signal switched its policy off.
fn killed(view: &mut ContainerView) {
    (view.state, view.exit_code) = (ContainerState::Exited, Some(137));
}

#[test]
fn a_killed_sidecar_is_started_again_with_growing_pauses_and_its_task_goes_on() {
    let side = json!([{ "name": "side", "image": "demo:1", "memory": 64, "essential": false }]);
    let mut story = Story::begin(web(1), with(side));
    story.settle(&[]);
    let made = story.containers.clone();
    let mut starts = Vec::new();
    for second in 0..10 {
        change(&mut story, "side", killed);
        let plan = story.decide(1_000, &[]);
        for action in &plan.actions {
            let Verb::Launch { containers } = &action.verb else { panic!("{action:?}") };
            let names: Vec<&str> = containers.iter().map(|step| step.container.as_str()).collect();
            assert_eq!(names, ["side"]);
            story.obey(action);
            starts.push(second);
        }
    }
    assert_eq!(starts, [0, 1, 3, 7], "at once, then after 2 s and 4 s");
    story.settle(&[]);
    assert_eq!(story.stop_codes(), []);
    assert_eq!(story.running(), 2);
    let ids = |of: &BTreeMap<_, BTreeMap<_, _>>| of.values().flat_map(BTreeMap::keys).cloned().collect::<Vec<_>>();
    assert_eq!(ids(&story.containers), ids(&made), "in place: no container was made");
}

/// It failed for another reason when it stayed up for five minutes.
#[test]
fn what_stayed_up_for_five_minutes_is_started_again_for_the_first_time() {
    for (since_ms, times) in [(299_999, 2), (300_000, 1)] {
        let side = json!([{ "name": "side", "image": "demo:1", "memory": 64, "essential": false }]);
        let mut story = Story::begin(web(1), with(side));
        story.settle(&[]);
        let at = Timestamp(story.now.0 + 1_000 - since_ms);
        story.go_on_with(|state| {
            let task = std::sync::Arc::make_mut(state.tasks.values_mut().next().unwrap());
            task.containers.get_mut("side").unwrap().revived = Some(Revived { times: 1, at });
        });
        change(&mut story, "side", killed);
        story.decide(1_000, &[]);
        let rows = story.state().tasks.values().flat_map(|task| task.containers.values());
        let revived: Vec<u32> = rows.filter_map(|row| row.revived).map(|revived| revived.times).collect();
        assert_eq!(revived, [times], "{since_ms}");
    }
}

#[test]
fn what_ended_well_only_with_its_engine_comes_back_with_it() {
    let others = json!([
        { "name": "side", "image": "demo:1", "memory": 64, "essential": false },
        { "name": "init", "image": "demo:1", "memory": 64, "essential": false }
    ]);
    let ended = |view: &mut ContainerView| (view.state, view.exit_code) = (ContainerState::Exited, Some(0));
    let mut story = Story::begin(web(1), with(others));
    story.settle(&[]);
    change(&mut story, "init", ended);
    story.settle(&[]);
    assert_eq!(story.running(), 2, "it has done its work");
    // A crash of another one is no stop of the engine.
    let now = story.now;
    change(&mut story, "main", |view| (view.started_at, view.restart_count) = (Some(now.plus_ms(1)), 1));
    story.settle(&[]);
    assert_eq!(story.running(), 2);
    // The engine is stopped in order, and begins anew: it counts restarts from 0.
    let now = story.now;
    change(&mut story, "side", ended);
    change(&mut story, "main", |view| (view.started_at, view.restart_count) = (Some(now.plus_ms(1)), 0));
    story.settle(&[]);
    assert_eq!((story.running(), story.stop_codes()), (2, vec![]), "the sidecar, and not what was done before");
    let running: Vec<String> = story
        .containers
        .values()
        .flat_map(|host| host.values())
        .filter(|view| view.state == ContainerState::Running)
        .map(|view| view.name.clone())
        .collect();
    assert!(running.iter().any(|name| name.ends_with("-side")), "{running:?}");
}

#[test]
fn the_health_of_a_task_is_that_of_its_essential_containers() {
    for (essential, replaced) in [(false, false), (true, true)] {
        let side = json!([{
            "name": "side", "image": "demo:1", "memory": 64, "essential": essential,
            "healthCheck": { "command": ["CMD", "check"] }
        }]);
        let mut story = Story::begin(web(1), with(side));
        story.settle(&[]);
        change(&mut story, "side", |view| view.health = HealthStatus::Healthy);
        story.settle(&[]);
        change(&mut story, "side", |view| view.health = HealthStatus::Unhealthy);
        story.settle(&[]);
        assert_eq!(story.core.world().state.tasks.len() > 1, replaced, "essential: {essential}");
    }
}

#[test]
fn a_sidecar_whose_image_is_nowhere_does_not_stop_the_clock_of_a_start_timeout() {
    let mut definition = waits_for_db(&json!({ "essential": false, "startTimeout": 20 }));
    let side = json!({ "name": "side", "image": "nowhere:1", "memory": 64, "essential": false });
    definition["containerDefinitions"].as_array_mut().unwrap().push(side);
    let mut story = Story::begin(web(1), definition);
    let mut stopped = None;
    for _ in 0..60 {
        for action in story.decide(1_000, &[]).actions {
            let Verb::Launch { containers } = &action.verb else {
                story.obey(&action);
                continue;
            };
            let well = containers.iter().filter(|step| step.container.as_str() != "side").cloned().collect();
            let made = story.make(&Action { verb: Verb::Launch { containers: well }, ..action.clone() });
            story.answer(&action, ActionResult::Partly { reason: "side: no such image".into(), containers: made });
        }
        let mut tasks = story.core.world().state.tasks.values();
        stopped = stopped.or(tasks.find_map(|task| task.stopped_reason.clone()));
    }
    let words = stopped.expect("it gives up");
    assert!(words.contains("main waits for db to be healthy") && words.contains("startTimeout of 20 s"), "{words}");
}

#[test]
fn what_has_done_its_work_or_may_not_come_back_is_left_alone() {
    for (what, more, code) in [
        ("it ended well", json!({}), 0),
        ("its policy is off", json!({ "restartPolicy": { "enabled": false } }), 137),
        ("its exit code is ignored", json!({ "restartPolicy": { "enabled": true, "ignoredExitCodes": [0, 7] } }), 7),
    ] {
        let mut side = json!({ "name": "side", "image": "demo:1", "memory": 64, "essential": false });
        side.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut story = Story::begin(web(1), with(json!([side])));
        story.settle(&[]);
        change(&mut story, "side", |view| (view.state, view.exit_code) = (ContainerState::Exited, Some(code)));
        story.settle(&[]);
        assert_eq!((story.running(), story.stop_codes()), (1, vec![]), "{what}");
        let silent = story.decide(6_000, &["a", "b", "c"]).report.waiting;
        assert!(!silent.iter().any(|waiting| waiting.reason.contains("cannot start")), "{what}: {silent:?}");
    }
}

/// The main container ends with this code.
fn end_main(story: &mut Story, code: i64) {
    change(story, "main", |view| (view.state, view.exit_code) = (ContainerState::Exited, Some(code)));
}

#[test]
fn after_an_exit_code_that_is_ignored_nothing_is_restarted() {
    let definition = |codes: Value| {
        let mut definition = with(json!([]));
        definition["containerDefinitions"][0]["restartPolicy"] = json!({ "enabled": true, "ignoredExitCodes": codes });
        definition
    };
    for (codes, code, goes_on) in
        [(json!([0, 3]), 1, true), (json!([0, 3]), 3, false), (json!([0, 3]), 0, false), (json!([3]), 0, true)]
    {
        let mut story = Story::begin(web(1), definition(codes.clone()));
        story.settle(&[]);
        let made = story.made;
        end_main(&mut story, code);
        story.settle(&[]);
        let stopped = if goes_on { vec![] } else { vec![StopCode::EssentialContainerExited] };
        assert_eq!((story.stop_codes(), story.running()), (stopped, 1), "{codes} {code}");
        let task = story.core.world().state.tasks.values().find(|task| task.is_wanted()).unwrap();
        assert_eq!(task.restarts.len(), usize::from(goes_on), "{codes} {code}");
        assert_eq!(story.containers.values().flat_map(BTreeMap::values).count(), if goes_on { 1 } else { 2 });
        assert!(story.made > made, "a start was ordered");
    }
    // What goes on with another container is no restart of it.
    let side = json!({ "name": "side", "image": "demo:1", "memory": 64, "essential": false });
    let mut both = definition(json!([3]));
    both["containerDefinitions"].as_array_mut().unwrap().push(side);
    let mut story = Story::begin(web(1), both);
    story.settle(&[]);
    for restart in 1..6 {
        let now = story.now;
        change(&mut story, "side", |view| (view.restart_count, view.started_at) = (restart, Some(now)));
        story.decide(1_000, &[]);
    }
    let task = story.core.world().state.tasks.values().next().unwrap();
    assert_eq!((task.restarts.len(), story.stop_codes()), (0, vec![]));
    // What is not ignored is a crash, and three of them are a loop.
    let mut story = Story::begin(web(1), definition(json!([3])));
    story.settle(&[]);
    for _ in 0..3 {
        assert_eq!(story.stop_codes(), []);
        end_main(&mut story, 1);
        for _ in 0..10 {
            let plan = story.decide(1_000, &[]);
            let again = story.core.decide(story.now);
            assert_eq!(again.changes, [], "all of it is decided at once (S12)");
            plan.actions.iter().for_each(|action| story.obey(action));
        }
    }
    assert_eq!(story.stop_codes(), [StopCode::EssentialContainerExited]);
    let reasons: Vec<_> =
        story.core.world().state.tasks.values().filter_map(|task| task.stopped_reason.clone()).collect();
    assert!(reasons[0].starts_with("container main was restarted 3 times in 5 minutes"), "{reasons:?}");
}

#[test]
fn what_shares_a_sandbox_with_a_container_that_crashed_is_started_again_once_that_one_runs() {
    let joiner = json!([{ "name": "second", "image": "demo:1", "memory": 64 }]);
    let mut definition = with(joiner);
    definition["pidMode"] = json!("task");
    let mut story = Story::begin(web(1), definition);
    story.settle(&[]);
    change(&mut story, "main", |view| view.state = ContainerState::Restarting);
    change(&mut story, "second", killed);
    assert!(story.decide(1_000, &[]).actions.is_empty(), "there is nothing to join yet");
    let now = story.now;
    change(&mut story, "main", |view| {
        (view.state, view.restart_count, view.started_at) = (ContainerState::Running, 1, Some(now));
    });
    story.settle(&[]);
    assert_eq!((story.running(), story.stop_codes()), (2, vec![]));
    // One that does not stay up takes its task down after all: the fourth time.
    let mut revived = 1;
    for _ in 0..60 {
        if story.stop_codes().is_empty() {
            change(&mut story, "second", killed);
            let plan = story.decide(1_000, &[]);
            revived += story.said(&plan).filter(|reason| reason == "ContainerRestarted").count();
            plan.actions.iter().for_each(|action| story.obey(action));
        }
    }
    assert_eq!((revived, story.stop_codes()), (3, vec![StopCode::EssentialContainerExited]));
}

#[test]
fn a_container_that_is_killed_now_and_then_is_started_again_each_time() {
    let mut definition = with(json!([{ "name": "second", "image": "demo:1", "memory": 64 }]));
    definition["pidMode"] = json!("task");
    let mut story = Story::begin(web(1), definition);
    story.settle(&[]);
    for _ in 0..6 {
        change(&mut story, "second", killed);
        for _ in 0..100 {
            story.decide(5_000, &[]).actions.iter().for_each(|action| story.obey(action));
        }
        assert_eq!((story.running(), story.stop_codes()), (2, vec![]));
        let rows = story.state().tasks.values().flat_map(|task| task.containers.values());
        let times: Vec<u32> = rows.filter_map(|row| row.revived).map(|revived| revived.times).collect();
        assert_eq!(times, [1], "each time for the first time");
    }
}

#[test]
fn what_a_task_can_be_without_does_not_fail_it() {
    let others = json!([
        { "name": "side", "image": "demo:1", "memory": 64, "essential": false },
        { "name": "shared", "image": "demo:1", "memory": 64, "essential": false },
        { "name": "second", "image": "demo:1", "memory": 64, "volumesFrom": [{ "sourceContainer": "shared" }] }
    ]);
    let mut story = Story::begin(web(1), with(others));
    let launch = (0..5).find_map(|_| story.decide(1_000, &[]).actions.into_iter().next()).unwrap();
    let Verb::Launch { containers } = &launch.verb else { panic!("{launch:?}") };
    let needed: Vec<&str> = containers.iter().filter(|step| step.needed).map(|step| step.container.as_str()).collect();
    assert_eq!(needed, ["main", "shared", "second"]);
    let made = containers.iter().filter(|step| step.needed).cloned().collect();
    let containers = story.make(&Action { verb: Verb::Launch { containers: made }, ..launch.clone() });
    story.answer(&launch, ActionResult::Partly { reason: "side: no such image".into(), containers });
    story.decide(1_000, &[]).actions.iter().for_each(|action| story.obey(action));
    assert_eq!(story.stop_codes(), []);
    assert_eq!(story.core.world().state.tasks[&launch.task].last_status, LastStatus::Running);
    story.settle(&[]);
    assert_eq!((story.running(), story.stop_codes()), (4, vec![]), "it was tried again");
}

/// `db`, with a health check, and `main`, which waits for it.
fn waits_for_db(more: &Value) -> Value {
    let mut db =
        json!({ "name": "db", "image": "demo:1", "memory": 64, "healthCheck": { "command": ["CMD", "check"] } });
    db.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let condition = json!([{ "containerName": "db", "condition": "HEALTHY" }]);
    json!({ "containerDefinitions": [db, { "name": "main", "image": "demo:1", "memory": 64, "dependsOn": condition }] })
}

/// How long the first task lived, and why it was stopped.
fn first_stop(story: &mut Story, seconds: u64) -> Option<(u64, String)> {
    for _ in 0..seconds {
        story.decide(1_000, &[]).actions.iter().for_each(|action| story.obey(action));
        let mut tasks = story.core.world().state.tasks.values();
        if let Some((at, why)) = tasks
            .find_map(|task| Some((task.stopping_at?.since_ms(task.created_at) / 1_000, task.stopped_reason.clone()?)))
        {
            return Some((at, why));
        }
    }
    None
}

#[test]
fn a_dependency_without_a_start_timeout_is_not_waited_for_for_ever() {
    for (more, least, most) in [
        (json!({}), 180, 185),
        (json!({ "healthCheck": { "command": ["CMD", "check"], "startPeriod": 60 } }), 240, 245),
        (json!({ "startTimeout": 20 }), 20, 25),
    ] {
        let mut story = Story::begin(web(1), waits_for_db(&more));
        let (lived, why) = first_stop(&mut story, 400).expect("it is given up");
        assert!((least..=most).contains(&lived) && why.contains("main waits for db to be healthy"), "{lived} s: {why}");
    }
}

#[test]
fn a_start_timeout_counts_from_the_dependencys_own_start() {
    // db itself waits for a migration, which may take its time.
    let migrate = json!({ "name": "migrate", "image": "demo:1", "memory": 64, "essential": false });
    let mut definition = waits_for_db(
        &json!({ "startTimeout": 20, "dependsOn": [{ "containerName": "migrate", "condition": "SUCCESS" }] }),
    );
    definition["containerDefinitions"].as_array_mut().unwrap().push(migrate);
    let mut story = Story::begin(web(1), definition);
    assert_eq!(first_stop(&mut story, 300), None);
    change(&mut story, "migrate", |view| (view.state, view.exit_code) = (ContainerState::Exited, Some(0)));
    assert_eq!(first_stop(&mut story, 15), None);
    change(&mut story, "db", |view| view.health = HealthStatus::Healthy);
    story.settle(&[]);
    assert_eq!((story.running(), story.stop_codes()), (2, vec![]));
}

#[test]
fn a_dependency_that_is_unhealthy_ends_the_task_before_it_ever_ran_and_after_the_grace_period() {
    for (grace, least, most) in [(0, 0, 5), (60, 60, 65)] {
        let mut service = web(1);
        service["healthCheckGracePeriodSeconds"] = json!(grace);
        let mut story = Story::begin(service, waits_for_db(&json!({})));
        assert_eq!(first_stop(&mut story, 3), None);
        change(&mut story, "db", |view| view.health = HealthStatus::Unhealthy);
        let (lived, why) = first_stop(&mut story, 100).expect("it is given up");
        assert!((least..=most).contains(&lived) && why == "its health check fails", "{lived} s: {why}");
    }
}

#[test]
fn containers_stop_at_once_but_for_those_that_others_need() {
    let needs = |name: &str, other: &str| {
        let needed = json!([{ "containerName": other, "condition": "START" }]);
        json!({ "name": name, "image": "demo:1", "memory": 64, "stopTimeout": 7, "dependsOn": needed })
    };
    let others = json!([
        needs("app", "db"), needs("db", "net"), { "name": "net", "image": "demo:1", "memory": 64 },
        { "name": "logs", "image": "demo:1", "memory": 64 }
    ]);
    let mut story = Story::begin(web(1), with(others));
    story.settle(&[]);
    story.desired.services.get_mut("web").unwrap().spec.desired_count = 0;
    story.tell();
    let stop = story.decide(1_000, &[]).actions.remove(0);
    let Verb::Stop { containers } = &stop.verb else { panic!("{stop:?}") };
    let name = |step: &StopStep| {
        let name = story.containers[&stop.host][&step.runtime_id].name.clone();
        name.rsplit_once('-').unwrap().1.to_owned()
    };
    let mut found: Vec<(u32, String, u32)> =
        containers.iter().map(|step| (step.wave, name(step), step.timeout_s)).collect();
    assert!(found.is_sorted_by_key(|(wave, ..)| *wave), "{found:?}");
    found.sort();
    let expected = [(0, "app", 7), (0, "logs", 30), (0, "main", 30), (1, "db", 7), (2, "net", 30)];
    assert_eq!(found, expected.map(|(wave, name, timeout_s)| (wave, name.to_owned(), timeout_s)));
}

#[test]
fn a_task_whose_first_step_fails_never_started() {
    let init = json!({ "name": "init", "image": "demo:1", "memory": 64, "essential": false });
    let mut definition = with(json!([init]));
    definition["containerDefinitions"][0]["dependsOn"] = json!([{ "containerName": "init", "condition": "SUCCESS" }]);
    let mut story = Story::begin(web(1), definition);
    assert_eq!(first_stop(&mut story, 5), None);
    change(&mut story, "init", |view| (view.state, view.exit_code) = (ContainerState::Exited, Some(1)));
    let (_, why) = first_stop(&mut story, 5).expect("it is given up");
    assert_eq!(why, "container init had to end with 0 and ended with 1");
    assert_eq!(story.stop_codes(), [StopCode::TaskFailedToStart]);
}

#[test]
fn with_complete_any_exit_code_will_do() {
    let init = json!({ "name": "init", "image": "demo:1", "memory": 64, "essential": false });
    let mut definition = with(json!([init]));
    definition["containerDefinitions"][0]["dependsOn"] = json!([{ "containerName": "init", "condition": "COMPLETE" }]);
    let mut story = Story::begin(web(1), definition);
    story.settle(&[]);
    assert_eq!(story.running(), 1, "main waits");
    change(&mut story, "init", |view| (view.state, view.exit_code) = (ContainerState::Exited, Some(7)));
    story.settle(&[]);
    let ended = |view: &&ContainerView| view.state == ContainerState::Exited;
    let left = story.containers.values().flat_map(BTreeMap::values).filter(ended).count();
    assert_eq!((story.running(), left, story.stop_codes()), (1, 1, vec![]), "main runs, and init is not run again");
}
