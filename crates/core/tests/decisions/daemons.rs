//! DAEMON services: when their rollouts end, and what keeps them. Hosts whose engine hangs.

use roadstead_core::{
    model::{
        container::HealthStatus,
        quantity::Mebibytes,
        state::{Change, Outcome, Schedulability},
        task::{LastStatus, StopCode},
        world::HostStatus,
    },
    plan::host_status,
    turn::Command,
};
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
        .command(
            story.now,
            Command::SetSchedulability { host: "b".into(), to: Schedulability::Cordoned, timeout_s: None },
        )
        .unwrap();
    let definition = story.desired.task_definitions.get_mut("web").unwrap();
    definition.spec.edit(|spec| spec.container_definitions[0].image = "demo:2".into());
    story.tell();
    story.settle(&[]);
    assert_eq!(outcome(&story).0, None);
    let waiting = story.decide(1_000, &[]).report.waiting;
    assert!(waiting.iter().any(|waiting| waiting.reason.contains("host b is cordoned")), "{waiting:?}");
    story
        .core
        .command(
            story.now,
            Command::SetSchedulability { host: "b".into(), to: Schedulability::Active, timeout_s: None },
        )
        .unwrap();
    story.settle(&[]);
    assert_eq!(outcome(&story), (Some(Outcome::Succeeded), "3 healthy tasks".into()));
}

fn new_revision(story: &mut Story) {
    let definition = story.desired.task_definitions.get_mut("web").unwrap();
    definition.spec.edit(|spec| spec.container_definitions[0].image = "demo:2".into());
    story.tell();
}

#[test]
fn as_many_daemon_tasks_are_replaced_at_once_as_the_floor_lets() {
    // Of three: ceil(3 x percent / 100) stay healthy.
    for (percent, fewest) in [(67, 3), (66, 2), (34, 2), (33, 1), (0, 0)] {
        let floor = json!({ "deploymentConfiguration": { "minimumHealthyPercent": percent } });
        let mut story = Story::begin(daemon(&floor), one_container());
        story.settle(&[]);
        new_revision(&mut story);
        let least = (0..30).map(|_| {
            let plan = story.decide(1_000, &[]);
            let wanted =
                story.core.world().state.tasks.values().filter(|task| task.is_wanted() && task.healthy_at.is_some());
            let wanted = wanted.count();
            plan.actions.iter().for_each(|action| story.obey(action));
            wanted
        });
        assert_eq!(least.min(), Some(fewest), "{percent} %");
        assert_eq!(outcome(&story).0.is_some(), percent <= 66, "{percent} %");
    }
}

#[test]
fn on_a_draining_host_the_daemons_task_stops_last() {
    let mut story = Story::begin(daemon(&json!({})), one_container());
    let mut other = story.desired.services["web"].clone();
    other.spec = serde_json::from_value(json!({ "taskDefinition": "other", "desiredCount": 3 })).unwrap();
    let sick = json!({ "containerDefinitions": [{
        "name": "main", "image": "demo:1", "memory": 64, "healthCheck": { "command": ["CMD", "check"] }
    }] });
    let mut definition = story.desired.task_definitions["web"].clone();
    definition.spec = serde_json::from_value(sick).unwrap();
    story.desired.task_definitions.insert("other".into(), definition);
    story.desired.services.insert("other".into(), other);
    story.tell();
    let all_well = |story: &mut Story| {
        let views = story.containers.values_mut().flat_map(|host| host.values_mut());
        views.for_each(|view| view.health = HealthStatus::Healthy);
    };
    for _ in 0..5 {
        story.settle(&[]);
        all_well(&mut story);
    }
    assert_eq!(story.running(), 6);
    let drain = Command::SetSchedulability { host: "a".into(), to: Schedulability::Draining, timeout_s: None };
    story.core.command(story.now, drain).unwrap();
    // What takes the other service's place elsewhere is not healthy yet.
    for _ in 0..20 {
        story.decide(1_000, &[]).actions.iter().for_each(|action| story.obey(action));
    }
    assert_eq!(story.containers["a"].len(), 2, "both stay");
    all_well(&mut story);
    story.settle(&[]);
    assert_eq!(story.containers["a"].len(), 0);
    let tasks: Vec<_> = story.core.world().state.tasks.values().filter(|task| task.host == "a".into()).collect();
    let [first, last] = ["other", "web"].map(|name| tasks.iter().find(|task| task.service.as_str() == name).unwrap());
    assert!(first.stopping_at < last.stopping_at, "the daemon's goes last");
    assert_eq!(last.stop_code, Some(StopCode::TerminationNotice));
}

#[test]
fn an_engine_that_hangs_is_waited_for_longer_than_a_host_that_is_silent() {
    let mut story = Story::begin(super::story::web(3), one_container());
    story.settle(&[]);
    story.hung.insert("a".into());
    let hang = |story: &mut Story, seconds: u64| {
        for _ in 0..seconds {
            let plan = story.decide(1_000, &[]);
            plan.actions.iter().filter(|it| it.host != "a".into()).for_each(|it| story.obey(it));
        }
    };
    hang(&mut story, 59);
    assert_eq!(story.stop_codes(), []);
    assert_eq!(host_status(story.core.world(), &"a".into()), HostStatus::Suspect);
    hang(&mut story, 5);
    assert_eq!(story.stop_codes(), [StopCode::HostLost]);
    assert!(story.core.world().state.fleet.brake.is_none(), "one of three is no reason to brake");
    assert_eq!(story.containers["b"].len() + story.containers["c"].len(), 3);
}

#[test]
fn a_task_that_was_never_sent_makes_room_in_the_plan_that_ends_it() {
    let definition = json!({ "containerDefinitions": [
        { "name": "main", "image": "demo:1", "memory": 64, "portMappings": [{ "containerPort": 80, "hostPort": 8080 }] }
    ] });
    let mut story = Story::begin(daemon(&json!({})), definition);
    // Nobody says what the image stands for, so nothing is sent.
    for _ in 0..3 {
        story.decide_once(1_000, &[]);
    }
    // Placement is asked before, for another service.
    let mut other = story.desired.services["web"].clone();
    other.spec = serde_json::from_value(json!({ "taskDefinition": "a", "desiredCount": 1 })).unwrap();
    story.desired.services.insert("a".into(), other);
    let mut definition = story.desired.task_definitions["web"].clone();
    definition.spec = serde_json::from_value(one_container()).unwrap();
    story.desired.task_definitions.insert("a".into(), definition);
    new_revision(&mut story);
    let plan = story.decide_once(1_000, &[]);
    let is_over = |change: &Change| {
        let Change::Task(task) = change else { return None };
        Some(task.last_status == LastStatus::Stopped)
    };
    let over: Vec<bool> = plan.changes.iter().filter_map(is_over).collect();
    assert!(over[..3] == [true; 3] && !over[3..].contains(&true), "what is over frees its ports first: {over:?}");
    let tasks = story.core.world().state.tasks.values();
    let wanted = tasks.filter(|task| task.is_wanted() && task.service.as_str() == "web");
    assert_eq!(wanted.map(|task| task.revision.number).collect::<Vec<_>>(), [2, 2, 2]);
    let again = story.core.decide(story.now);
    assert!(again.changes.is_empty() && again.actions.is_empty(), "{:?} {:?}", again.changes, again.actions);
}
