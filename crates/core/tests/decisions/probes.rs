//! Health checks that are made from the hosts: what follows from their verdicts.

use std::sync::Arc;

use roadstead_core::{
    model::{
        container::{ContainerState, ContainerView, HealthStatus},
        task::{DesiredStatus, Task},
    },
    plan::{
        absorb::Probed,
        health,
        probe::{Life, targets},
    },
    turn::Input,
};
use serde_json::{Value, json};

use super::story::{Story, web};

const WHY: &str = "GET :80/healthz answered 503, 3 times in a row";

fn probed() -> Value {
    let check = json!({ "http": { "port": 80, "path": "/healthz" } });
    json!({ "containerDefinitions": [{ "name": "main", "image": "demo:1", "memory": 64, "healthCheck": check }] })
}

/// What is to be checked now.
fn lives(story: &Story) -> Vec<Life> {
    targets(story.core.world()).into_iter().map(|target| target.life).collect()
}

fn tell(story: &mut Story, life: &Life, health: HealthStatus) -> usize {
    let reason = (health == HealthStatus::Unhealthy).then(|| WHY.to_owned());
    let probed = Probed { life: life.clone(), at: story.now, health, reason };
    story.core.take(story.now, Input::Probed(probed)).len()
}

/// Every container that runs is well, whenever anybody asks.
fn all_well(story: &mut Story) {
    for life in lives(story) {
        tell(story, &life, HealthStatus::Healthy);
    }
}

fn task(story: &Story, life: &Life) -> Arc<Task> {
    Arc::clone(&story.core.world().state.tasks[&life.task])
}

fn is_healthy(story: &Story, life: &Life) -> bool {
    let task_row = task(story, life);
    let spec = &story.core.world().state.desired.services[&task_row.service].spec;
    health::healthy(&task_row, spec, story.now).is_ok()
}

fn change(story: &mut Story, life: &Life, change: impl FnOnce(&mut ContainerView)) {
    change(story.containers.get_mut(&life.host).unwrap().get_mut(&life.id).unwrap());
}

/// One task, and the life of its container.
fn one() -> (Story, Life) {
    let mut story = Story::begin(web(1), probed());
    story.settle(&[]);
    let life = lives(&story).remove(0);
    (story, life)
}

#[test]
fn a_task_is_as_healthy_as_its_check_from_the_host_says() {
    let (mut story, life) = one();
    assert!(!is_healthy(&story, &life), "nobody said so yet, however long it runs");
    assert!(story.containers[&life.host].values().all(|view| !view.has_health_check), "Docker checks nothing");
    assert_eq!(tell(&mut story, &life, HealthStatus::Healthy), 1);
    assert_eq!(tell(&mut story, &life, HealthStatus::Healthy), 0, "no news");
    story.settle(&[]);
    assert!(is_healthy(&story, &life), "looks know nothing of it, and change nothing");

    tell(&mut story, &life, HealthStatus::Unhealthy);
    assert_eq!(task(&story, &life).health_status, HealthStatus::Unhealthy);
    story.decide(1_000, &[]).actions.iter().for_each(|action| story.obey(action));
    assert_eq!(task(&story, &life).desired_status, DesiredStatus::Running, "its successor comes first");
    for _ in 0..10 {
        story.decide(1_000, &[]).actions.iter().for_each(|action| story.obey(action));
        if let Some(next) = lives(&story).into_iter().find(|next| next.task != life.task) {
            tell(&mut story, &next, HealthStatus::Healthy);
        }
    }
    let reason = task(&story, &life).stopped_reason.clone().unwrap();
    assert_eq!(reason, format!("its health check fails: {WHY}"));
    assert_eq!(story.running(), 1);
}

#[test]
fn a_verdict_is_of_one_life() {
    let (mut story, life) = one();
    let other_id = Life { id: "another".into(), ..life.clone() };
    let earlier = Life { started_at: Some(story.now.plus_ms(1)), ..life.clone() };
    let elsewhere = Life { host: "nowhere".into(), ..life.clone() };
    for other in [other_id, earlier, elsewhere] {
        assert_eq!(tell(&mut story, &other, HealthStatus::Healthy), 0, "{other:?}");
    }
    tell(&mut story, &life, HealthStatus::Healthy);
    // Restarted by its engine: it begins anew.
    let now = story.now;
    change(&mut story, &life, |view| (view.started_at, view.restart_count) = (Some(now), 1));
    story.decide(1_000, &[]);
    assert!(!is_healthy(&story, &life));
    assert_eq!(tell(&mut story, &life, HealthStatus::Healthy), 0, "that life is over");
    let next = lives(&story).remove(0);
    assert_eq!((next.id.clone(), next.started_at), (life.id, Some(now)));
    tell(&mut story, &next, HealthStatus::Healthy);
    story.decide(5_000, &[]);
    assert!(is_healthy(&story, &next));
}

#[test]
fn a_frozen_container_is_unhealthy_and_then_judged_anew() {
    let mut service = web(1);
    service["healthCheckGracePeriodSeconds"] = json!(600);
    let mut story = Story::begin(service, probed());
    story.settle(&[]);
    let life = lives(&story).remove(0);
    tell(&mut story, &life, HealthStatus::Healthy);
    change(&mut story, &life, |view| view.state = ContainerState::Paused);
    story.decide(1_000, &[]);
    assert_eq!(task(&story, &life).health_status, HealthStatus::Unhealthy);
    assert_eq!(lives(&story), [], "what stands still is not asked");
    assert_eq!(tell(&mut story, &life, HealthStatus::Healthy), 0);
    change(&mut story, &life, |view| view.state = ContainerState::Running);
    story.decide(1_000, &[]);
    assert_eq!(task(&story, &life).health_status, HealthStatus::Unknown);
    assert_eq!(lives(&story), [life]);
}

#[test]
fn what_waits_for_a_container_to_be_healthy_waits_for_its_check_from_the_host() {
    let mut definition = probed();
    let waits = json!([{ "containerName": "main", "condition": "HEALTHY" }]);
    let second = json!({ "name": "second", "image": "demo:1", "memory": 64, "dependsOn": waits });
    definition["containerDefinitions"].as_array_mut().unwrap().push(second);
    let mut story = Story::begin(web(1), definition);
    story.settle(&[]);
    assert_eq!((story.running(), lives(&story).len()), (1, 1));
    all_well(&mut story);
    story.settle(&[]);
    assert_eq!(story.running(), 2);
}

#[test]
fn a_host_that_is_lost_or_not_believed_gives_no_verdict() {
    let mut story = Story::begin(web(3), probed());
    for _ in 0..20 {
        story.decide(1_000, &[]).actions.iter().for_each(|action| story.obey(action));
        all_well(&mut story);
    }
    let on = |story: &Story, host: &str| lives(story).into_iter().filter(|life| life.host.as_str() == host).count();
    assert_eq!(on(&story, "a"), 1);
    for _ in 0..5 {
        story.decide(1_000, &["a"]);
    }
    assert_eq!(on(&story, "a"), 1, "silent for a while only");
    for _ in 0..20 {
        story.decide(1_000, &["a"]);
    }
    assert_eq!(on(&story, "a"), 0);
    let life = lives(&story).into_iter().find(|life| life.host.as_str() == "b").unwrap();
    story.contacts.get_mut("b").unwrap().untrusted = Some("another machine".into());
    story.decide(1_000, &["a"]);
    assert_eq!(tell(&mut story, &life, HealthStatus::Unhealthy), 0);
    assert_eq!(on(&story, "b"), 0);
}

#[test]
fn why_a_check_fails_is_kept_while_it_does_and_told_once() {
    let (mut story, life) = one();
    assert_eq!(tell(&mut story, &life, HealthStatus::Unhealthy), 2, "the task and its event");
    assert_eq!(tell(&mut story, &life, HealthStatus::Unhealthy), 0);
    let why = |story: &mut Story| {
        story.now = story.now.plus_ms(1_000);
        change(story, &life, |view| view.error.push('!'));
        story.look(life.host.as_str(), story.now);
        task(story, &life).containers.values().find_map(|row| row.health_reason.clone())
    };
    assert_eq!(why(&mut story).as_deref(), Some(WHY), "no look knows better");
    change(&mut story, &life, |view| view.state = ContainerState::Paused);
    assert_eq!(why(&mut story), None, "it is unhealthy for another reason");

    let (mut story, life) = one();
    let reason = Some("it was so".to_owned());
    for health in [HealthStatus::Healthy, HealthStatus::Unknown] {
        let probed = Probed { life: life.clone(), at: story.now, health, reason: reason.clone() };
        let changes = story.core.take(story.now, Input::Probed(probed));
        assert_eq!(changes.len(), 1, "no event: it is not unhealthy");
    }
}
