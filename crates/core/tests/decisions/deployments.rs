//! When a deployment is over, what counts against it, and what becomes of the older ones.

use std::sync::Arc;

use roadstead_core::{
    model::{
        action::ActionResult,
        container::{ContainerState, HealthStatus},
        name::HostName,
        observed::EngineIdentity,
        quantity::Seconds,
        spec::{ServiceSpec, service::SchedulingStrategy},
        state::{Change, DeploymentStatus, Outcome, RolloutState, Schedulability},
        task::{LastStatus, StopCode, Task},
        time::Timestamp,
    },
    plan::{absorb::RolloutVerb, breaker, health},
    turn::Command,
};
use serde_json::json;

use super::{
    life::{image, with},
    looks::Three,
    story::{Story, one_container, web},
};

fn daemon() -> Story {
    let service = json!({ "taskDefinition": "web", "schedulingStrategy": "DAEMON", "minimumHealthySeconds": 1 });
    Story::begin(service, image("demo:1"))
}

fn cordon(story: &mut Story, host: &str) {
    let to = Schedulability::Cordoned;
    story.core.command(story.now, Command::SetSchedulability { host: host.into(), to, timeout_s: None }).unwrap();
}

fn stop_orders(story: &Story) -> Vec<(String, StopCode, String)> {
    let stopped = story
        .state()
        .tasks
        .values()
        .filter_map(|task| Some((task.host.to_string(), task.stop_code?, task.stopped_reason.clone()?)));
    stopped.collect()
}

#[test]
fn older_deployments_are_active_while_they_have_tasks() {
    let mut story = Story::begin(web(3), image("demo:1"));
    story.live(20);
    let statuses = |story: &Story| -> Vec<DeploymentStatus> {
        story.deployments().iter().map(|deployment| deployment.status).collect()
    };
    use DeploymentStatus::{Active, Inactive, Primary};
    assert_eq!(statuses(&story), [Primary]);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let number = story.deployments().len() + 1;
        story.deploy(&format!("demo:{number}"));
        for _ in 0..30 {
            story.live(1);
            let has_old =
                story.state().tasks.values().any(|task| task.is_live() && task.revision.number as usize == number - 1);
            assert_eq!(statuses(&story)[1], if has_old { Active } else { Inactive }, "{number}");
            seen.push(has_old);
        }
        assert!(statuses(&story)[2..].iter().all(|status| *status == Inactive));
    }
    assert!(seen.contains(&true) && seen.contains(&false));
    // Started anew: the tasks of the revision are the newest deployment's.
    story.order(RolloutVerb::Restart).unwrap();
    story.live(2);
    assert_eq!(statuses(&story)[..2], [Primary, Inactive]);
}

#[test]
fn what_was_ever_healthy_is_no_first_rollout_whatever_the_record_says() {
    for (was_healthy, begins) in [(true, false), (false, true)] {
        // Never told from its count alone.
        let service = with(1, json!({ "availabilityZoneRebalancing": "ENABLED" }));
        let mut story = Story::begin(service, one_container());
        story.settle(&[]);
        story.go_on_with(|state| {
            state.services.get_mut("web").unwrap().completed.clear();
            let task = state.tasks.values_mut().next().unwrap();
            if !was_healthy {
                let task = Arc::make_mut(task);
                (task.healthy_at, task.health_status) = (None, HealthStatus::Unhealthy);
                task.containers.values_mut().for_each(|row| row.health = HealthStatus::Unhealthy);
            }
        });
        story.core.decide(story.now);
        assert_eq!(story.deployments().len() == 2, begins, "was healthy: {was_healthy}");
    }
}

#[test]
fn a_restart_of_what_has_no_task_to_ask_through_begins_at_once() {
    let mut story = Story::begin(web(0), one_container());
    story.settle(&[]);
    story.order(RolloutVerb::Restart).unwrap();
    story.decide(1_000, &[]);
    assert_eq!((story.deployments().len(), story.state().services["web"].again), (2, None));
}

#[test]
fn a_daemons_rollout_does_not_wait_for_a_lost_host_and_leaves_its_task_alone() {
    let mut story = daemon();
    story.live(20);
    story.live_without(20, &["a"]);
    story.deploy("demo:2");
    story.live_without(40, &["a"]);
    assert_eq!(story.outcomes()[0], (2, Some(Outcome::Succeeded)));
    let left = story.wanted().into_iter().find(|task| task.host.as_str() == "a").expect("nobody may end it");
    assert_eq!(left.revision.number, 1);
    story.live(20);
    assert_eq!(story.revisions(), [2, 2, 2]);
}

#[test]
fn a_daemon_on_a_cordoned_host_has_to_be_healthy_too() {
    let mut story = daemon();
    for _ in 0..3 {
        let plan = story.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| story.obey(action));
    }
    cordon(&mut story, "a");
    let mut answers = |healthy: &[&str]| {
        for (host, views) in &mut story.containers {
            let health = if healthy.contains(&host.as_str()) { HealthStatus::Healthy } else { HealthStatus::Unknown };
            views.values_mut().for_each(|view| view.health = health);
        }
        (0..3).for_each(|_| drop(story.decide(1_000, &[])));
        story.outcomes()[0].1
    };
    assert_eq!(answers(&["b", "c"]), None);
    assert_eq!(answers(&["a", "b", "c"]), Some(Outcome::Succeeded));
}

/// Where it failed last it is missing, though not counted, as long as that host can be asked.
#[test]
fn a_daemon_that_failed_last_on_a_host_in_reach_is_not_rolled_out() {
    let at = |ms: u64| Timestamp(1_700_000_000_000 + ms);
    let (lost, cordoned) = ("a", "c");
    for (failures, in_a_row, completes) in [
        (vec![(at(1), cordoned)], 1, false),
        (vec![(at(1), cordoned)], 0, true),
        (vec![(at(1), lost)], 1, true),
        (vec![(at(1), cordoned), (at(2), lost)], 1, true),
        (vec![(at(1), cordoned), (at(2), lost)], 2, false),
        (vec![(at(2), cordoned), (at(2), lost)], 1, false),
        (vec![(at(1), "undeclared")], 1, true),
    ] {
        let mut story = daemon();
        story.live(20);
        story.live_without(20, &[lost]);
        cordon(&mut story, cordoned);
        let row: Vec<(Timestamp, HostName)> = failures.iter().map(|(at, host)| (*at, (*host).into())).collect();
        story.go_on_with(|state| {
            state.tasks.retain(|_, task| task.host.as_str() != cordoned);
            let record = state.services.get_mut("web").unwrap();
            (record.failures, record.consecutive_failures) = (row, in_a_row);
            (record.deployments[0].rollout_state, record.deployments[0].outcome) = (RolloutState::InProgress, None);
        });
        story.containers.get_mut(cordoned).unwrap().clear();
        story.live_without(3, &[lost]);
        assert_eq!(story.outcomes()[0].1.is_some(), completes, "{failures:?}, {in_a_row} in a row");
    }
}

#[test]
fn of_several_daemon_tasks_on_a_host_the_one_of_the_wanted_revision_stays() {
    let mut story = daemon();
    story.live(20);
    let task = story.wanted().into_iter().find(|task| task.host.as_str() == "a").unwrap();
    story.go_on_with(|state| {
        let mut twin = Task { id: "twin".into(), created_at: task.created_at.plus_ms(1_000), ..task.clone() };
        twin.revision.number = 7;
        state.tasks.insert(twin.id.clone(), Arc::new(twin));
    });
    story.decide(1_000, &["a"]);
    story.live(3);
    assert!(story.task(&task).is_wanted(), "the older one, of the right revision");
    let reasons: Vec<String> = stop_orders(&story).into_iter().map(|(_, _, reason)| reason).collect();
    assert_eq!(reasons, ["one daemon task a host is enough"]);
}

#[test]
fn a_daemons_task_that_is_protected_stays_and_one_that_is_sick_is_replaced_by_the_rollout() {
    let mut story = daemon();
    story.live(20);
    let protected = story.wanted().into_iter().find(|task| task.host.as_str() == "a").unwrap();
    story.protect(&protected, Some(60)).unwrap();
    story.deploy("demo:2");
    for view in story.containers.get_mut("b").unwrap().values_mut() {
        view.health = HealthStatus::Unhealthy;
    }
    let plan = story.decide(1_000, &[]);
    let says = |words: &str| plan.report.waiting.iter().any(|waiting| waiting.reason.contains(words));
    assert!(says("web:2 replaces web:1: it stays, since a person protected it"), "{:?}", plan.report.waiting);
    let (host, code, reason) = stop_orders(&story).into_iter().find(|(host, ..)| host == "b").unwrap();
    assert_eq!(
        (host.as_str(), code, reason.as_str()),
        ("b", StopCode::ServiceSchedulerInitiated, "web:2 replaces web:1")
    );
}

#[test]
fn a_failure_counts_against_the_deployment_under_way_that_started_the_task() {
    for (under_way, revision, deployment, counted) in
        [(true, 1, 7, 1), (true, 1, 0, 1), (true, 1, 6, 0), (true, 2, 7, 0), (false, 1, 7, 0)]
    {
        let mut story = Three::begin();
        let mut record = story.state.services["web"].clone();
        record.deployments[0].id = 7;
        if under_way {
            (record.deployments[0].rollout_state, record.deployments[0].outcome) = (RolloutState::InProgress, None);
        }
        story.state.apply(&Change::Service(record));
        story.edit(|task| {
            task.healthy_at = None;
            task.deployment = deployment;
            task.revision.number = revision;
        });
        for name in ["main", "other"] {
            story.view(name, |view| (view.state, view.exit_code) = (ContainerState::Dead, Some(1)));
        }
        story.taken_in(false);
        let record = &story.state.services["web"];
        assert_eq!(record.consecutive_failures, 1);
        assert_eq!(record.deployments[0].failed_tasks, counted, "{under_way} web:{revision} of {deployment}");
    }
}

#[test]
fn the_next_try_is_told_until_it_is_due() {
    let mut story = Story::begin(web(1), one_container());
    story.settle(&[]);
    let mut record = story.state().services["web"].clone();
    let now = story.now;
    let words = |record: &roadstead_core::model::state::ServiceRecord| breaker::count_in_words(record, Some(3), now);
    record.deployments[0].failed_tasks = 2;
    assert_eq!(words(&record), None, "it is over");
    record.deployments[0].rollout_state = RolloutState::InProgress;
    assert_eq!(words(&record).as_deref(), Some("2 of 3 failures"));
    record.not_before = Some(now);
    assert_eq!(words(&record).as_deref(), Some("2 of 3 failures"));
    record.not_before = Some(now.plus_ms(1_001));
    assert_eq!(words(&record).as_deref(), Some("2 of 3 failures, next try in 2 s"));
    record.deployments[0].failed_tasks = 0;
    assert_eq!(words(&record), None);
}

fn spec_of(story: &Three) -> ServiceSpec {
    ServiceSpec {
        minimum_healthy_seconds: Seconds(1),
        ..story.state.desired.services[&story.task().service].spec.clone()
    }
}

#[test]
fn a_task_is_healthy_when_it_is_wanted_and_all_it_needs_runs() {
    let now = |story: &Three| story.look.started_at;
    let story = Three::begin();
    assert_eq!(health::healthy(story.task(), &spec_of(&story), now(&story)), Ok(()));
    let changes: [fn(&mut Task); 4] = [
        |task| task.order_stop(Timestamp(1), StopCode::UserInitiated, "a person said so"),
        |task| task.desired_status = roadstead_core::model::task::DesiredStatus::Stopped,
        |task| task.last_status = LastStatus::Activating,
        |task| task.containers.get_mut("main").unwrap().state = Some(ContainerState::Paused),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut story = Three::begin();
        story.edit(change);
        assert_eq!(health::healthy(story.task(), &spec_of(&story), now(&story)), Err(None), "{number}");
    }
    let mut story = Three::begin();
    story.row("side", |row| row.state = Some(ContainerState::Exited));
    assert_eq!(health::healthy(story.task(), &spec_of(&story), now(&story)), Ok(()), "it can be without that one");
}

#[test]
fn a_crash_loop_is_three_restarts_within_five_minutes() {
    for (ago_ms, times, loops) in [(299_999, 3, true), (300_000, 3, false), (299_999, 2, false)] {
        let mut story = Story::begin(web(1), one_container());
        story.settle(&[]);
        assert_eq!(story.desired.services["web"].spec.scheduling_strategy, SchedulingStrategy::Replica);
        let at = Timestamp(story.now.0 + 1_000 - ago_ms);
        story.go_on_with(|state| {
            let task = Arc::make_mut(state.tasks.values_mut().next().unwrap());
            task.restarts = vec![at; times];
            let row = task.containers.get_mut("main").unwrap();
            (row.restart_count, row.exit_code) = (times as u32, Some(3));
        });
        for view in story.containers.values_mut().flat_map(|on| on.values_mut()) {
            (view.restart_count, view.exit_code) = (times as u32, Some(3));
        }
        story.decide(1_000, &[]);
        let reasons: Vec<String> = stop_orders(&story).into_iter().map(|(_, _, reason)| reason).collect();
        let expected = "container main was restarted 3 times in 5 minutes, last with exit code 3";
        assert_eq!(reasons, if loops { vec![expected] } else { vec![] }, "{ago_ms} {times}");
    }
}

/// What the circuit breaker counts is the start of a task that somebody gave up, and not the answer to its order.
#[test]
fn an_order_without_an_answer_counts_against_nobody() {
    let mut story = Story::begin(web(1), one_container());
    let launch = (0..5).find_map(|_| story.decide(1_000, &[]).actions.into_iter().next()).unwrap();
    story.answer(&launch, ActionResult::Unknown { reason: "no answer".into() });
    let record = &story.state().services["web"];
    assert_eq!((record.consecutive_failures, record.deployments[0].failed_tasks), (0, 0));
}

#[test]
fn a_daemons_desired_count_is_that_of_the_hosts_that_may_run_it() {
    let all = json!({ "deploymentCircuitBreaker": { "thresholdConfiguration": { "type": "UNBOUNDED_PERCENT", "value": 100 } } });
    let service = json!({ "taskDefinition": "web", "schedulingStrategy": "DAEMON", "deploymentConfiguration": all });
    let mut definition = one_container();
    for (architecture, hosts) in [(None, 3), (Some("ARM64"), 1)] {
        definition["runtimePlatform"] = json!({ "cpuArchitecture": architecture });
        let mut story = Story::begin(service.clone(), definition.clone());
        let b = EngineIdentity {
            engine_id: "b".into(),
            architecture: "ARM64".into(),
            cpus: 8,
            memory_mib: 8_192,
            ..EngineIdentity::default()
        };
        story.identities.insert("b".into(), b);
        story.settle(&[]);
        assert_eq!(breaker::threshold_of(story.state(), &"web".into()), Some(hosts), "{architecture:?}");
    }
}
