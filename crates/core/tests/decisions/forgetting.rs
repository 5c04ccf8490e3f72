//! What is over is forgotten in time, so that hosts and database stay bounded (L6), and not before.

use std::{collections::BTreeSet, sync::Arc};

use roadstead_core::model::{
    action::VerbName,
    container::ContainerState,
    desired::Manifest,
    schedule::{Fire, FireOutcome, ScheduleRecord},
    state::{HostRecord, Schedulability, ServiceRecord},
    task::{LastStatus, StopCode, Task},
    time::Timestamp,
};
use roadstead_core::turn::Command;
use serde_json::json;

use super::story::{Story, one_container, web};

const MINUTE_MS: u64 = 60_000;

/// One running task of `web`, and ended ones `(id, service, when)` that the database has beside it.
fn with_ended(ended: &[(&str, &str, Timestamp)]) -> Story {
    let mut story = Story::begin(web(1), one_container());
    story.settle(&[]);
    add_ended(&mut story, ended);
    story
}

fn add_ended(story: &mut Story, ended: &[(&str, &str, Timestamp)]) {
    let like = story.state().tasks.values().next().unwrap().clone();
    story.go_on_with(|state| {
        for (id, service, at) in ended {
            let mut task = Task { id: (*id).into(), service: (*service).into(), ..Task::clone(&like) };
            task.order_stop(*at, StopCode::UserInitiated, "a person said so");
            task.advance(LastStatus::Stopped);
            task.stopped_at = Some(*at);
            task.containers.values_mut().for_each(|row| row.runtime_id = None);
            state.tasks.insert(task.id.clone(), Arc::new(task));
        }
    });
}

/// The ended ones that are remembered.
fn remembered(story: &Story) -> Vec<&str> {
    let ended = story.state().tasks.values().filter(|task| task.last_status == LastStatus::Stopped);
    ended.map(|task| task.id.as_str()).collect()
}

#[test]
fn an_ended_task_is_remembered_for_an_hour() {
    let began = Timestamp(1_700_000_000_000);
    let mut story = with_ended(&[("first", "web", began), ("second", "web", began.plus_ms(MINUTE_MS))]);
    let hour = 60 * MINUTE_MS;
    let until_over = began.plus_ms(hour).since_ms(story.now);
    let plan = story.decide(until_over - 5_000, &[]);
    assert_eq!((remembered(&story), plan.wake_at), (vec!["first", "second"], Some(began.plus_ms(hour))));
    let plan = story.decide(5_000, &[]);
    assert_eq!((remembered(&story), plan.wake_at), (vec!["second"], Some(began.plus_ms(hour + MINUTE_MS))));
    story.decide(MINUTE_MS + 1, &[]);
    assert_eq!(remembered(&story), [""; 0]);
    assert_eq!(story.running(), 1, "what runs is not over");
}

#[test]
fn of_one_service_a_hundred_ended_tasks_are_remembered_the_newest() {
    let began = Timestamp(1_700_000_000_000);
    let names: Vec<String> = (0..103).map(|number| format!("old-{number:0>3}")).collect();
    let when = |number: usize| began.plus_ms(number as u64);
    let all: Vec<_> = names.iter().enumerate().map(|(no, name)| (name.as_str(), "web", when(no))).collect();
    let mut story = with_ended(&all);
    let others: Vec<String> = (0..50).map(|number| format!("other-{number:0>3}")).collect();
    let all: Vec<_> = others.iter().enumerate().map(|(no, name)| (name.as_str(), "gone", when(no))).collect();
    add_ended(&mut story, &all);
    let plan = story.decide(1_000, &[]);
    let expected: Vec<&str> = names[3..].iter().chain(&others).map(String::as_str).collect();
    assert_eq!(remembered(&story), expected);
    assert_eq!(plan.wake_at, Some(began.plus_ms(60 * MINUTE_MS)), "the oldest that is left");
}

#[test]
fn the_tasks_of_a_time_that_is_not_over_are_remembered_to_tell_of_it() {
    let began = Timestamp(1_700_000_000_000);
    let mut story = with_ended(&[("of-a-fire", "family:web", began), ("of-none", "family:web", began)]);
    let running = story.state().tasks.values().find(|task| task.is_live()).unwrap().id.clone();
    let spec = serde_json::from_value(json!({ "schedule": "rate(1 day)", "taskDefinition": "web" })).unwrap();
    let manifest = Manifest { labels: [].into(), annotations: [].into(), file: "story.yaml".into(), line: 1, spec };
    story.desired.scheduled_tasks.insert("nightly".into(), manifest);
    story.decide(1_000, &[]);
    let now = story.now;
    story.go_on_with(|state| {
        let fire = Fire {
            scheduled_at: began,
            outcome: FireOutcome::Running,
            reason: None,
            fired_at: Some(began),
            ended_at: None,
            exit_code: None,
            tasks: vec!["of-a-fire".into(), running],
        };
        let record = ScheduleRecord {
            name: "nightly".into(),
            timing: "rate(1 day)".into(),
            suspended: false,
            considered_until: now,
            next_at: None,
            fires: vec![fire],
        };
        state.schedules.insert("nightly".into(), record);
    });
    story.decide(61 * MINUTE_MS, &[]);
    assert_eq!(remembered(&story), ["of-a-fire"]);
}

#[test]
fn a_record_goes_with_what_it_is_about() {
    let mut story = Story::begin(web(1), one_container());
    story.settle(&[]);
    let lives_on = story.state().tasks.values().next().unwrap().host.clone();
    let empty = if lives_on.as_str() == "c" { "b" } else { "c" };
    let cordon = Command::SetSchedulability { host: empty.into(), to: Schedulability::Cordoned, timeout_s: None };
    story.core.command(story.now, cordon).unwrap();
    story.go_on_with(|state| {
        state.services.insert("gone".into(), ServiceRecord { name: "gone".into(), ..ServiceRecord::default() });
        state.hosts.insert("gone".into(), HostRecord { name: "gone".into(), ..HostRecord::default() });
    });
    story.desired.hosts.remove(empty);
    let mut other = story.desired.services["web"].clone();
    other.spec.desired_count = 0;
    story.desired.services.insert("other".into(), other);
    story.tell();
    story.decide(1_000, &[]);
    let names = |story: &Story| -> (BTreeSet<String>, BTreeSet<String>) {
        let state = story.state();
        (
            state.hosts.keys().map(ToString::to_string).collect(),
            state.services.keys().map(ToString::to_string).collect(),
        )
    };
    let (hosts, services) = names(&story);
    assert!(hosts.len() == 2 && !hosts.contains(empty) && !hosts.contains("gone"), "{hosts:?}");
    assert_eq!(services, ["other".to_owned(), "web".to_owned()].into());

    // That of a service that is no longer declared stays until its last task is over.
    story.desired.services.remove("web");
    story.tell();
    let stop = story.decide(1_000, &[]);
    assert_eq!(stop.actions.iter().map(|action| action.verb.name()).collect::<Vec<_>>(), [VerbName::Stop]);
    assert_eq!(names(&story).1, ["other".to_owned(), "web".to_owned()].into());
    stop.actions.iter().for_each(|action| story.obey(action));
    story.settle(&[]);
    assert_eq!(names(&story).1, ["other".to_owned()].into());
    assert_eq!(remembered(&story).len(), 1, "the task is told of for an hour yet");
}

/// The containers of failed tasks stay for their logs: ten minutes, and on each host only those of the newest.
#[test]
fn what_failed_keeps_its_containers_for_ten_minutes_or_until_the_next_fails() {
    let mut definition = one_container();
    definition["containerDefinitions"][0]["restartPolicy"] = json!({ "enabled": false });
    let mut story = Story::begin(web(1), definition);
    story.desired.hosts.retain(|host, _| host.as_str() == "a");
    story.tell();
    story.settle(&[]);
    let ids = |story: &Story| -> BTreeSet<_> { story.containers["a"].keys().cloned().collect() };
    let fail = |story: &mut Story| {
        let live = |view: &&mut roadstead_core::model::container::ContainerView| view.state == ContainerState::Running;
        let view = story.containers.get_mut("a").unwrap().values_mut().find(live).unwrap();
        (view.state, view.exit_code) = (ContainerState::Exited, Some(1));
        let id = view.id.clone();
        for _ in 0..20 {
            let plan = story.decide(1_000, &[]);
            plan.actions.iter().for_each(|action| story.obey(action));
        }
        id
    };
    let first = fail(&mut story);
    assert!(ids(&story).contains(&first), "for its logs");
    let second = fail(&mut story);
    assert!(!ids(&story).contains(&first), "the newer one tells more");
    assert!(ids(&story).contains(&second));
    let ended_at = story.state().tasks.values().filter_map(|task| task.stopped_at).max().unwrap();
    let until = ended_at.plus_ms(10 * MINUTE_MS);
    let plan = story.decide(until.since_ms(story.now) - 1, &[]);
    assert!(plan.actions.is_empty() && plan.wake_at == Some(until), "{plan:?}");
    let plan = story.decide(1, &[]);
    assert_eq!(plan.actions.iter().map(|action| action.verb.name()).collect::<Vec<_>>(), [VerbName::Remove]);
    plan.actions.iter().for_each(|action| story.obey(action));
    assert_eq!(story.containers["a"].len(), 1, "but for the one that runs");
}
