//! What people may say about volumes, where their data is found, and what else goes on meanwhile.

use std::collections::BTreeSet;

use roadstead_core::{
    model::{
        action::VerbName,
        container::HealthStatus,
        name::HostName,
        state::{Change, EventSubject, Schedulability, State},
        task::DesiredStatus,
        volume::{MoveStage, VolumeClaim},
    },
    plan::absorb::{CopyFailed, VolumeVerb},
    turn::{Command, CommandError, Core},
};
use serde_json::{Value, json};

use super::{
    life::with,
    looks::events,
    story::{Story, one_container, web},
    volumes::{at_rest, database, id, only},
};

fn to(host: &str) -> VolumeVerb {
    VolumeVerb::Move { to: host.into() }
}

fn pin(host: &str) -> VolumeVerb {
    VolumeVerb::Pin { host: host.into() }
}

fn refused(story: &mut Story, verb: VolumeVerb) -> String {
    match story.say(verb) {
        Err(CommandError::Refused(words) | CommandError::NotFound(words)) => words,
        other => panic!("{other:?}"),
    }
}

/// Another service beside `web`.
fn beside(story: &mut Story, name: &str, definition: Value, spec: Value) {
    let mut task_definition = story.desired.task_definitions["web"].clone();
    task_definition.spec =
        serde_json::from_value::<roadstead_core::model::spec::TaskDefinitionSpec>(definition).unwrap().into();
    story.desired.task_definitions.insert(name.into(), task_definition);
    let mut service = story.desired.services["web"].clone();
    service.spec = serde_json::from_value(spec).unwrap();
    story.desired.services.insert(name.into(), service);
    story.tell();
    story.settle(&[]);
}

fn scale(story: &mut Story, count: u32, silent: &[&str]) {
    story.desired.services.get_mut("web").unwrap().spec.desired_count = count;
    story.tell();
    story.settle(silent);
}

#[test]
fn a_volume_goes_to_a_declared_host_of_its_cluster_that_takes_tasks() {
    let (mut story, home) = at_rest();
    let others = story.others(&home);
    let (one, other) = (others[0].as_str(), others[1].as_str());
    assert!(matches!(story.say(to("nowhere")), Err(CommandError::NotFound(_))));
    assert_eq!(refused(&mut story, to(home.as_str())), format!("volume data is on {home} already"));
    story.desired.hosts.get_mut(other).unwrap().spec.cluster = "other".into();
    story.tell();
    for verb in [to(other), pin(other)] {
        let words = format!("host {other} is of cluster other, and the volume of default");
        assert_eq!(refused(&mut story, verb), words);
    }
    let set = |story: &mut Story, to| {
        let host = one.into();
        story.core.command(story.now, Command::SetSchedulability { host, to, timeout_s: None }).unwrap();
    };
    set(&mut story, Schedulability::Cordoned);
    let words = format!("host {one} takes no tasks just now: roadstead get hosts");
    assert_eq!(refused(&mut story, to(one)), words);
    set(&mut story, Schedulability::Active);
    story.settle(&[one]);
    assert_eq!(refused(&mut story, to(one)), words, "lost");
    story.settle(&[]);
    story.say(to(one)).unwrap();
    assert_eq!(story.say(to(one)).unwrap(), format!("volume data moves to {one} already"));
    story.desired.hosts.get_mut(other).unwrap().spec.cluster = "default".into();
    story.tell();
    let first = format!("volume data moves to {one}; first: roadstead volume move data --cancel");
    assert_eq!(refused(&mut story, to(other)), first);
    assert_eq!(refused(&mut story, pin(other)), "volume data moves just now");
}

#[test]
fn an_old_copy_has_to_go_before_the_next_move() {
    let (mut story, home) = at_rest();
    let others = story.others(&home);
    story.say(to(&others[0])).unwrap();
    let asked = story.record();
    story.settle(&[]);
    story.copied(&asked, Ok(()));
    let words = refused(&mut story, to(&others[1]));
    assert!(words.ends_with(&format!("is still there: it goes once a task is healthy on {}", others[0])), "{words}");
    // It goes when a task was healthy where the data is now, and not when one was only started.
    let mut swept = false;
    for _ in 0..20 {
        let plan = story.decide(1_000, &[]);
        for action in &plan.actions {
            if action.verb.name() == VerbName::Sweep {
                let task = only(&story);
                assert!(task.healthy_at.is_some() && task.host.as_str() == others[0], "{task:?}");
                swept = true;
            }
            story.obey(action);
        }
    }
    assert!(swept);
    story.say(to(&others[1])).unwrap();
}

#[test]
fn what_is_copied_is_not_forgotten_before_the_move_is_cancelled() {
    let (mut story, home) = at_rest();
    let other = story.others(&home).remove(0);
    story.say(to(&other)).unwrap();
    story.settle(&[]);
    assert_eq!(story.record().moving.unwrap().stage, MoveStage::Copying);
    scale(&mut story, 0, &[]);
    let words = refused(&mut story, VolumeVerb::Forget);
    assert_eq!(words, format!("volume data moves to {other}: `roadstead volume move data --cancel` first"));
    story.say(VolumeVerb::CancelMove).unwrap();
    story.say(VolumeVerb::Forget).unwrap();
    assert!(story.state().volumes.is_empty());
}

#[test]
fn a_daemon_that_has_the_volume_where_it_is_keeps_it_there() {
    let spec = |host: &str| {
        json!({ "taskDefinition": "daemon", "schedulingStrategy": "DAEMON", "minimumHealthySeconds": 1,
                "placementConstraints": [{ "type": "memberOf", "expression": format!("attribute:availability-zone == {host}") }] })
    };
    let (mut story, home) = at_rest();
    let other = story.others(&home).remove(0);
    beside(&mut story, "daemon", database("d:1", "shared"), spec(home.as_str()));
    let words = refused(&mut story, to(&other));
    assert_eq!(words, format!("service daemon has a task on each host, and that on {home} uses volume data"));
    // It does not go where data is: for forgetting that, it does not count.
    scale(&mut story, 0, &[]);
    story.say(VolumeVerb::Forget).unwrap();
    assert!(story.state().volumes.is_empty());

    let (mut story, home) = at_rest();
    let other = story.others(&home).remove(0);
    beside(&mut story, "daemon", database("d:1", "shared"), spec(&other));
    beside(&mut story, "without", one_container(), json!({ "taskDefinition": "without", "desiredCount": 2 }));
    let before = story.live_tasks().len();
    story.say(to(&other)).unwrap();
    let asked = story.record();
    story.settle(&[]);
    assert_eq!(story.record().moving.unwrap().stage, MoveStage::Copying);
    let services: Vec<String> = story.live_tasks().iter().map(|task| task.service.to_string()).collect();
    assert_eq!((before, services.len()), (4, 3), "{services:?}: nobody else is stopped");
    assert!(!services.contains(&"web".to_owned()));
    story.copied(&asked, Ok(()));
    story.settle(&[]);
    assert_eq!(story.live_tasks().len(), 4);
}

#[test]
fn only_the_answer_to_this_very_copy_counts() {
    let (mut story, home) = at_rest();
    let other = story.others(&home).remove(0);
    scale(&mut story, 0, &[]);
    story.say(to(&other)).unwrap();
    let first = story.record();
    assert_eq!(first.moving.as_ref().unwrap().stage, MoveStage::Stopping);
    story.copied(&first, Ok(()));
    assert_eq!(story.record().host, home, "it has not begun");
    story.say(VolumeVerb::CancelMove).unwrap();
    story.now = story.now.plus_ms(1_000);
    story.say(to(&other)).unwrap();
    story.settle(&[]);
    assert_eq!(story.record().moving.unwrap().stage, MoveStage::Copying);
    story.copied(&first, Ok(()));
    assert_eq!(story.record().host, home, "that move is over");
    let second = story.record();
    story.copied(&second, Ok(()));
    assert_eq!(story.record().host.as_str(), other);
}

#[test]
fn a_copy_that_fails_is_begun_again_after_growing_pauses_four_times_at_most() {
    let (mut story, home) = at_rest();
    let other = story.others(&home).remove(0);
    story.say(to(&other)).unwrap();
    let asked = story.record();
    story.settle(&[]);
    let mut pauses = Vec::new();
    for _ in 0..4 {
        story.copied(&asked, Err(CopyFailed { reason: "no space left".into(), for_good: false }));
        let Some(moving) = story.record().moving else { break };
        let again_at = moving.not_before.unwrap();
        pauses.push(again_at.since_ms(story.now));
        let waits = |story: &mut Story, ms: u64| {
            let plan = story.decide(ms, &[]);
            let waiting = plan.report.waiting.iter().find(|it| it.reason.contains("is copied from"));
            waiting.expect("it waits for its copy").wakes_at
        };
        assert_eq!(waits(&mut story, 1), Some(again_at));
        let until_ms = again_at.since_ms(story.now);
        assert_eq!(waits(&mut story, until_ms), None, "it may be copied by now");
    }
    assert_eq!((pauses, story.record().moving), (vec![2_000, 4_000, 8_000], None));
}

#[test]
fn a_pin_says_where_data_is_and_is_told_where_it_belongs() {
    let (mut story, home) = at_rest();
    let other = story.others(&home).remove(0);
    let words = refused(&mut story, pin(&other));
    assert!(words.ends_with(&format!("uses volume data on {home}: stop its service first")), "{words}");
    scale(&mut story, 0, &[]);
    story.say(pin(&other)).unwrap();
    assert_eq!(story.record().host.as_str(), other);
    scale(&mut story, 1, &[]);
    assert_eq!(only(&story).host.as_str(), other);

    let mut story = Story::begin(web(0), one_container());
    story.settle(&[]);
    let order = Command::Volume { volume: id(), verb: pin("b") };
    let (_, changes) = story.core.command(story.now, order).unwrap();
    let told: Vec<EventSubject> = events(&changes).into_iter().map(|event| event.subject).collect();
    assert_eq!(told, [EventSubject::Host("b".into())], "no service has it yet");
    assert!(changes.iter().any(|change| matches!(change, Change::Volume(record) if record.host.as_str() == "b")));
}

fn shared(cluster: &str) -> VolumeClaim {
    VolumeClaim::Shared { cluster: cluster.into(), moved_at: None }
}

/// A controller that knows nothing, and hosts that have a volume of this name.
fn found(holders: &[(&str, &str)]) -> Story {
    let mut story = Story::begin(web(1), database("db:1", "shared"));
    for (host, cluster) in holders {
        story.volumes.get_mut(*host).unwrap().insert("data".into(), shared(cluster));
    }
    story
}

#[test]
fn data_is_where_one_host_shows_it_once_all_were_asked() {
    for (holders, host) in [(vec![("c", "default")], "c"), (vec![("b", "default"), ("c", "other")], "b")] {
        let mut story = found(&holders);
        story.settle(&[]);
        assert_eq!((only(&story).host.as_str(), story.record().host.as_str()), (host, host));
    }
    let mut story = found(&[("b", "default"), ("c", "default")]);
    story.settle(&[]);
    assert!(story.live_tasks().is_empty());
    let words = "volume data is on b and c, and nobody knows which is the right one";
    assert!(story.waiting().contains(words), "{}", story.waiting());
    story.say(pin("c")).unwrap();
    story.settle(&[]);
    assert_eq!(only(&story).host.as_str(), "c");
    // One that was not asked may have the right one.
    let mut story = found(&[("c", "default")]);
    story.settle(&["a"]);
    assert!(story.live_tasks().is_empty() && story.state().volumes.is_empty());
    assert!(story.waiting().contains("a was not asked for its volumes yet"), "{}", story.waiting());
    story.settle(&[]);
    assert_eq!(only(&story).host.as_str(), "c");
}

#[test]
fn data_is_where_the_one_task_is_that_uses_it() {
    // Others have a volume of that name of their own, on each host, or none.
    let mut story = Story::begin(web(0), database("db:1", "shared"));
    beside(&mut story, "several", database("s:1", "shared"), json!({ "taskDefinition": "several", "desiredCount": 3 }));
    story.volumes.values_mut().for_each(|volumes| volumes.clear());
    scale(&mut story, 1, &[]);
    let home = story.record().host;
    beside(&mut story, "without", one_container(), json!({ "taskDefinition": "without", "desiredCount": 3 }));
    story.go_on_with(|state| state.volumes.clear());
    story.volumes.values_mut().for_each(|volumes| volumes.clear());
    let plan = story.decide(1_000, &[]);
    assert_eq!(story.record().host, home);
    assert!(story.said(&plan).any(|reason| reason == "VolumeFound"));
    // With several it is nowhere in particular.
    let mut story = Story::begin(web(2), database("db:1", "shared"));
    story.settle(&[]);
    scale(&mut story, 1, &[]);
    let hosts: BTreeSet<HostName> = story.live_tasks().into_iter().map(|task| task.host).collect();
    assert_eq!(hosts.len(), 1);
    assert_eq!(story.record().host, *hosts.first().unwrap(), "once one is left");
}

#[test]
fn what_shares_nothing_waits_for_nobody_and_what_cannot_be_reached_is_no_failure() {
    // Several tasks from the start: each host has its own volume, and one that was never asked stands in nobody's way.
    let mut story = Story::begin(web(3), database("db:1", "shared"));
    story.settle(&["c"]);
    assert_eq!(story.live_tasks().len(), 3);

    let (mut story, home) = at_rest();
    scale(&mut story, 0, &[]);
    let cordon = Command::SetSchedulability { host: home.clone(), to: Schedulability::Cordoned, timeout_s: None };
    story.core.command(story.now, cordon).unwrap();
    scale(&mut story, 1, &[]);
    let words = format!("the data of volume data is on {home}, which takes no tasks just now");
    assert!(story.waiting().contains(&words), "{}", story.waiting());
    // Nor is a standalone task started elsewhere.
    let request = serde_json::from_value(json!({ "taskDefinition": "web", "clientToken": "one" })).unwrap();
    let refused = story.core.command(story.now, Command::RunTask(Box::new(request))).unwrap_err().to_string();
    assert!(
        refused.contains(&words) && refused.ends_with(&format!("try again once {home} is ACTIVE and answers")),
        "{refused}"
    );
}

/// The database may be of before: a task is then found on its host, and its data with it.
#[test]
fn after_the_loss_of_the_database_data_stays_where_its_task_runs() {
    let (mut story, home) = at_rest();
    let other = story.others(&home).remove(1);
    scale(&mut story, 0, &[]);
    story.say(pin(&other)).unwrap();
    scale(&mut story, 1, &[]);
    assert_eq!(only(&story).host.as_str(), other);
    story.core = Core::new(State::default(), 2, story.now, false).0;
    story.volumes.values_mut().for_each(|volumes| volumes.clear());
    story.tell();
    story.settle(&[]);
    let task = only(&story);
    assert_eq!((task.host.as_str(), task.desired_status), (other.as_str(), DesiredStatus::Running));
    assert_eq!(story.record().host.as_str(), other);
}

/// What a rollout that stands still starts again may own a volume, also where the revision that failed owns none.
#[test]
fn while_a_rollout_stands_still_the_owner_of_a_volume_is_not_there_twice() {
    let breaker = json!({ "deploymentCircuitBreaker": { "rollback": false } });
    let mut definition = database("demo:1", "shared");
    definition["containerDefinitions"][0]["healthCheck"] = json!({ "command": ["CMD", "check"] });
    let mut story = Story::begin(with(1, json!({ "deploymentConfiguration": breaker })), definition);
    story.live(20);
    story.desired.task_definitions.get_mut("web").unwrap().spec.edit(|spec| {
        spec.volumes.clear();
        spec.container_definitions[0].mount_points.clear();
        spec.container_definitions[0].image = "nowhere:2".into();
    });
    story.tell();
    story.live(60);
    assert!(story.waiting().contains("the rollout of web:2 failed"), "{}", story.waiting());
    assert_eq!(story.revisions(), [1]);
    for _ in 0..10 {
        for view in story.containers.values_mut().flat_map(|on| on.values_mut()) {
            view.health = HealthStatus::Unhealthy;
        }
        let plan = story.decide(1_000, &[]);
        assert!(story.live_tasks().len() <= 1, "{:?}", story.live_tasks());
        plan.actions.iter().for_each(|action| story.obey(action));
    }
}
