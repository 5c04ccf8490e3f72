//! Changes of the manifests that take too much away at once are held until a person confirms them (S13).

use std::sync::Arc;

use roadstead_core::{
    model::{action::VerbName, desired::Manifest, spec::Kind},
    turn::{Command, CommandError, Input},
};
use serde_json::json;

use crate::{
    looks::events,
    story::{Story, one_container, web},
};

/// So many services of one task each, and so many schedules.
fn fleet(services: usize, schedules: usize) -> Story {
    let mut story = Story::begin(web(1), one_container());
    let first = story.desired.services.remove("web").unwrap();
    for no in 0..services {
        story.desired.services.insert(format!("web-{no}").as_str().into(), first.clone());
    }
    for no in 0..schedules {
        let spec = json!({ "schedule": "rate(1 day)", "taskDefinition": "web" });
        let spec = serde_json::from_value(spec).unwrap();
        let manifest = Manifest { labels: [].into(), annotations: [].into(), file: "story.yaml".into(), line: 1, spec };
        story.desired.scheduled_tasks.insert(format!("job-{no}").as_str().into(), manifest);
    }
    read(&mut story, "11111111");
    story.settle(&[]);
    assert_eq!(story.running(), services);
    story
}

fn read(story: &mut Story, hash: &str) {
    let desired = Arc::new(story.desired.clone());
    story.core.take(story.now, Input::Manifests { desired, hash: hash.into(), diagnostics: Vec::new() });
}

fn remove(story: &mut Story, kind: Kind, count: usize) {
    for no in 0..count {
        match kind {
            Kind::Service => story.desired.services.remove(format!("web-{no}").as_str()).map(drop),
            Kind::ScheduledTask => story.desired.scheduled_tasks.remove(format!("job-{no}").as_str()).map(drop),
            other => panic!("{other:?}"),
        };
    }
}

fn held(story: &Story) -> Option<&str> {
    story.core.world().state.fleet.held.as_ref().map(|held| held.reason.as_str())
}

#[test]
fn more_than_one_and_more_than_a_fifth_are_too_many() {
    for (kind, has, loses, words) in [
        (Kind::Service, 3, 1, None),
        (Kind::Service, 3, 2, Some("it removes 2 of 3 services (web-0, web-1)")),
        (Kind::Service, 10, 2, None),
        (Kind::Service, 10, 3, Some("it removes 3 of 10 services (web-0, web-1, web-2)")),
        (Kind::Service, 1, 1, Some("it removes every service (web-0)")),
        (Kind::ScheduledTask, 1, 1, None),
        (Kind::ScheduledTask, 2, 2, Some("it removes 2 of 2 schedules (job-0, job-1)")),
        (Kind::ScheduledTask, 10, 2, None),
        (Kind::ScheduledTask, 10, 3, Some("it removes 3 of 10 schedules (job-0, job-1, job-2)")),
    ] {
        let mut story = if kind == Kind::Service { fleet(has, 0) } else { fleet(1, has) };
        let running = story.running();
        remove(&mut story, kind, loses);
        read(&mut story, "22222222");
        assert_eq!(held(&story), words);
        story.settle(&[]);
        let stopped = if kind == Kind::Service && words.is_none() { loses } else { 0 };
        assert_eq!(story.running(), running - stopped, "{kind:?} {has} {loses}");
    }
}

#[test]
fn tasks_count_too_but_for_small_fleets_and_a_host_that_still_runs_some() {
    for (before, after, words) in [(6, 3, None), (6, 2, Some("it stops 4 of 6 tasks")), (5, 1, None)] {
        let mut story = Story::begin(web(before), one_container());
        story.settle(&[]);
        story.desired.services.get_mut("web").unwrap().spec.desired_count = after;
        read(&mut story, "22222222");
        assert_eq!(held(&story), words, "{before} {after}");
    }
    let mut story = fleet(3, 0);
    story.desired.hosts.remove("a");
    read(&mut story, "22222222");
    assert_eq!(held(&story), Some("it removes host a, which still runs 1 tasks (first: roadstead host drain a)"));
}

#[test]
fn a_confirmation_is_of_one_content_and_for_one_time() {
    let mut story = fleet(3, 0);
    let whole = story.desired.clone();
    remove(&mut story, Kind::Service, 2);
    read(&mut story, "22222222");
    let confirm = |token: &str| Command::Confirm { token: token.into() };
    let refused = story.core.command(story.now, confirm("33333333")).unwrap_err();
    assert!(matches!(refused, CommandError::Refused(_)), "{refused:?}");
    story.core.command(story.now, confirm("22222222")).unwrap();
    story.settle(&[]);
    assert_eq!((held(&story), story.running()), (None, 1));
    // The same loss once more is held once more.
    let less = std::mem::replace(&mut story.desired, whole);
    read(&mut story, "11111111");
    story.settle(&[]);
    assert_eq!(story.running(), 3);
    story.desired = less;
    read(&mut story, "22222222");
    assert!(held(&story).is_some());
    story.settle(&[]);
    assert_eq!(story.running(), 3);
    // Taken back, nothing is held.
    story.desired = (*story.core.world().state.desired).clone();
    read(&mut story, "11111111");
    assert_eq!(held(&story), None);
}

#[test]
fn what_was_left_running_on_a_host_that_was_not_declared_for_a_while_is_not_started_beside_itself() {
    let mut service = web(1);
    service["singleton"] = json!(true);
    let mut story = Story::begin(service, one_container());
    story.settle(&[]);
    let whole = story.desired.clone();
    story.desired.services.clear();
    story.desired.hosts.clear();
    read(&mut story, "22222222");
    story.core.command(story.now, Command::Confirm { token: "22222222".into() }).unwrap();
    story.core.decide(story.now);
    assert!(story.core.world().state.tasks.values().all(|task| !task.is_live()), "nobody can be asked");
    story.desired = whole;
    read(&mut story, "11111111");
    let plan = story.decide(1, &[]);
    assert!(plan.actions.iter().all(|action| action.verb.name() != VerbName::Launch), "{:?}", plan.actions);
    plan.actions.iter().for_each(|action| story.obey(action));
    assert!(story.waiting().contains("still runs on"), "{}", story.waiting());
    let mut most = 0;
    for _ in 0..30 {
        most = most.max(story.running());
        story.decide(1_000, &[]).actions.iter().for_each(|action| story.obey(action));
    }
    assert_eq!((most, story.running()), (1, 1));
    assert_eq!(story.made, 2, "the old one went, and then a new one came");
}

#[test]
fn what_is_read_again_changes_nothing_and_what_is_held_is_told_once() {
    let mut story = fleet(3, 0);
    let said = |story: &mut Story, hash: &str| -> Option<Vec<String>> {
        let desired = Arc::new(story.desired.clone());
        let input = Input::Manifests { desired, hash: hash.into(), diagnostics: Vec::new() };
        let changes = story.core.take(story.now, input);
        let told = events(&changes).into_iter().map(|event| event.reason).collect();
        (!changes.is_empty()).then_some(told)
    };
    assert_eq!(said(&mut story, "11111111"), None);
    assert_eq!(said(&mut story, "12121212"), Some(vec![]), "other bytes that mean the same");
    assert_eq!(said(&mut story, "12121212"), None);
    remove(&mut story, Kind::Service, 2);
    assert_eq!(said(&mut story, "22222222"), Some(vec!["SyncHeld".into()]));
    assert_eq!(said(&mut story, "22222222"), None);
    remove(&mut story, Kind::Service, 3);
    assert_eq!(said(&mut story, "33333333"), Some(vec!["SyncHeld".into()]), "another change");
    assert_eq!(held(&story), Some("it removes every service (web-0, web-1, web-2)"));
}

#[test]
fn a_confirmation_of_another_content_outlives_a_sync() {
    let mut story = fleet(3, 0);
    story.go_on_with(|state| state.fleet.confirmed = vec!["99999999".into(), "44444444".into()]);
    read(&mut story, "44444444");
    assert_eq!(story.state().fleet.confirmed, ["99999999"]);
}

#[test]
fn an_empty_host_may_go_and_standalone_tasks_are_not_counted() {
    let mut story = fleet(3, 0);
    story.add_host("d", "d");
    read(&mut story, "11111112");
    story.desired.hosts.remove("d");
    read(&mut story, "11111113");
    assert_eq!(held(&story), None);

    let mut story = Story::begin(web(6), one_container());
    for token in ["one", "two"] {
        let request = json!({ "taskDefinition": "web", "clientToken": token, "count": 6 });
        let request = serde_json::from_value(request).unwrap();
        story.settle(&[]);
        story.core.command(story.now, Command::RunTask(Box::new(request))).unwrap();
    }
    story.settle(&[]);
    assert_eq!(story.running(), 18);
    story.desired.services.get_mut("web").unwrap().spec.desired_count = 2;
    read(&mut story, "22222222");
    assert_eq!(held(&story), Some("it stops 4 of 6 tasks"));
}

#[test]
fn a_sync_tells_what_changed_a_dozen_by_name() {
    let mut story = fleet(1, 1);
    let said = |story: &mut Story, hash: &str| -> String {
        let desired = Arc::new(story.desired.clone());
        let input = Input::Manifests { desired, hash: hash.into(), diagnostics: Vec::new() };
        let changes = story.core.take(story.now, input);
        events(&changes).into_iter().map(|event| event.message).collect()
    };
    story.desired.hosts.get_mut("a").unwrap().labels.insert("disk".into(), "ssd".into());
    let mut other = story.desired.services["web-0"].clone();
    other.spec.desired_count = 0;
    story.desired.services.insert("another".into(), other.clone());
    story.desired.scheduled_tasks.remove("job-0");
    assert_eq!(said(&mut story, "22222222"), "manifests changed: ~host a, +service another, -scheduledtask job-0");
    let mut add = |range: std::ops::Range<u32>| {
        for number in range {
            story.desired.services.insert(format!("s-{number:0>2}").as_str().into(), other.clone());
        }
        said(&mut story, &format!("{:08}", 33_000_000))
    };
    let names = |range: std::ops::Range<u32>| -> String {
        range.map(|number| format!("+service s-{number:0>2}")).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(add(0..12), format!("manifests changed: {}", names(0..12)));
    assert_eq!(add(20..34), format!("manifests changed: {} and 2 more", names(20..32)));
}
