//! Rollouts that fail, are taken back, stand still, or are asked for anew.

use std::collections::{BTreeMap, BTreeSet};

use roadstead_core::turn::Command;
use roadstead_core::{
    model::{
        container::{ContainerState, HealthStatus},
        state::{Deployment, DeploymentStatus, Outcome, RolloutState},
        task::DesiredStatus,
    },
    plan::absorb::RolloutVerb,
};
use serde_json::json;

use super::{
    life::{breaker, image, with},
    story::{Story, web},
};

use Outcome::{Failed, RolledBack, Succeeded, Superseded};

#[test]
fn a_broken_revision_is_taken_back_by_itself_while_the_old_one_serves() {
    for broken in ["nowhere:2", "crash:2", "sick:2"] {
        let mut story = Story::begin(web(3), image("demo:1"));
        story.live(20);
        assert_eq!(story.outcomes(), [(1, Some(Succeeded))], "{broken}");
        let before: BTreeSet<_> = story.wanted().into_iter().map(|task| task.id).collect();
        story.deploy(broken);
        let mut said = Vec::new();
        for _ in 0..60 {
            said.extend(story.live(1));
            let stay: BTreeSet<_> = story.wanted().into_iter().map(|task| task.id).collect();
            assert!(before.is_subset(&stay), "{broken}: what served is not touched");
        }
        assert_eq!(story.outcomes(), [(1, Some(Succeeded)), (2, Some(RolledBack)), (1, Some(Succeeded))], "{broken}");
        assert_eq!(story.revisions(), [1, 1, 1], "{broken}");
        let said = said.join("\n");
        for words in [
            "deployment 2 of web:2 is taken back: 3 of 3 failures",
            "deployment 3: web:1 is being deployed: web:2 failed: 3 of 3 failures",
            "deployment 3 of web:1 SUCCEEDED",
            "deployment 2 of web:2 ROLLED_BACK: 3 of 3 failures: the service runs web:1 again",
        ] {
            assert_eq!(said.matches(words).count(), 1, "{broken}: {words}: {said}");
        }
        let created = |story: &Story| story.core.world().state.tasks.len();
        let tasks = created(&story);
        story.live(1_200);
        assert!(created(&story) <= tasks, "{broken}: it is not tried again by itself");
        story.deploy("demo:3");
        story.live(60);
        assert_eq!(story.outcomes()[0], (3, Some(Succeeded)), "{broken}: a new revision is a fresh deployment");
        assert_eq!(story.revisions(), [3, 3, 3], "{broken}");
    }
}

#[test]
fn the_count_of_failures_and_the_next_try_are_said() {
    let mut story = Story::begin(web(1), image("demo:1"));
    story.live(20);
    story.deploy("nowhere:2");
    story.live(2);
    let record = story.core.world().state.services["web"].clone();
    let words = roadstead_core::plan::breaker::count_in_words(&record, Some(3), story.now);
    assert_eq!(words.as_deref(), Some("2 of 3 failures, next try in 2 s"));
}

#[test]
fn without_rollback_a_failed_rollout_stands_still_and_what_dies_is_healed_with_what_is_good() {
    let mut story = Story::begin(breaker(json!({ "rollback": false })), image("demo:1"));
    story.live(20);
    story.deploy("nowhere:2");
    story.live(60);
    assert_eq!(story.outcomes(), [(2, Some(Failed)), (1, Some(Succeeded))]);
    assert_eq!(story.revisions(), [1, 1, 1]);
    assert!(story.waiting().contains("the rollout of web:2 failed: 3 of 3 failures"), "{}", story.waiting());
    let victim = story.wanted().remove(0);
    story.lose(&victim);
    story.live(30);
    assert_eq!(story.revisions(), [1, 1, 1], "healed with the last completed revision");
    assert_eq!(story.deployments().len(), 2);
    assert!(story.order(RolloutVerb::Restart).is_err(), "first it has to go on");
    story.order(RolloutVerb::Continue).unwrap();
    story.live(60);
    assert_eq!(story.outcomes()[..2], [(2, Some(Failed)), (2, Some(Failed))], "a person had it tried again");
}

#[test]
fn a_first_deployment_that_fails_has_nothing_to_return_to_and_is_not_repeated_for_ever() {
    let mut story = Story::begin(web(1), image("nowhere:1"));
    story.live(60);
    assert_eq!(story.outcomes(), [(1, Some(Failed))]);
    let tasks = story.core.world().state.tasks.len();
    story.live(600);
    assert_eq!(story.core.world().state.tasks.len(), tasks);
    assert!(story.waiting().contains("web:1 failed"), "{}", story.waiting());
    assert!(story.order(RolloutVerb::Abort).is_err());
    story.deploy("demo:2");
    story.live(30);
    assert_eq!(story.outcomes()[0], (2, Some(Succeeded)));
}

#[test]
fn containers_that_somebody_takes_away_are_not_the_revisions_fault() {
    let mut story = Story::begin(web(3), image("demo:1"));
    story.live(20);
    story.deploy("demo:2");
    for _ in 0..40 {
        story.live(1);
        for on in story.containers.values_mut() {
            on.retain(|_, view| view.image != "demo:2");
        }
    }
    assert_eq!(story.outcomes(), [(2, None), (1, Some(Succeeded))]);
    assert_eq!(story.deployments()[0].failed_tasks, 0);
}

#[test]
fn with_nothing_to_return_to_what_was_once_healthy_is_still_healed() {
    let mut story = Story::begin(web(3), image("demo:1"));
    // Of one nobody hears whether it is healthy, so nothing completes.
    story.live(1);
    story.live_without(3, &["c"]);
    story.order(RolloutVerb::Pause).unwrap();
    let victim = story.wanted().into_iter().find(|task| task.healthy_at.is_some()).unwrap();
    story.lose(&victim);
    story.live_without(3, &["c"]);
    assert!(story.wanted().len() >= 3, "{}", story.waiting());
}

#[test]
fn a_paused_rollout_is_not_taken_back() {
    let mut story = Story::begin(web(3), image("demo:1"));
    story.live(20);
    story.deploy("demo:2");
    story.live(1);
    story.order(RolloutVerb::Pause).unwrap();
    for _ in 0..60 {
        story.live(1);
        for view in story.containers.values_mut().flat_map(|on| on.values_mut()) {
            if view.image == "demo:2" {
                (view.state, view.exit_code) = (ContainerState::Exited, Some(1));
            }
        }
    }
    assert_eq!(story.outcomes(), [(2, None), (1, Some(Succeeded))]);
}

#[test]
fn with_the_circuit_breaker_off_it_is_tried_for_ever() {
    let mut story = Story::begin(breaker(json!({ "enable": false })), image("demo:1"));
    story.live(20);
    story.deploy("nowhere:2");
    story.live(120);
    assert_eq!(story.outcomes(), [(2, None), (1, Some(Succeeded))]);
    assert!(story.deployments()[0].failed_tasks > 3);
}

#[test]
fn a_rollback_that_fails_is_not_rolled_back_and_goes_on() {
    let mut story = Story::begin(
        with(3, json!({ "deploymentConfiguration": { "minimumHealthyPercent": 0, "maximumPercent": 100 } })),
        image("demo:1"),
    );
    story.live(20);
    // Stop-first, and by now the old image does not run any more, either.
    story.deploy("crash:2");
    let nobody = |story: &mut Story| {
        for view in story.containers.values_mut().flat_map(|on| on.values_mut()) {
            if view.image.starts_with("demo") {
                (view.state, view.exit_code) = (ContainerState::Exited, Some(1));
            }
        }
    };
    for _ in 0..120 {
        story.live(1);
        nobody(&mut story);
    }
    let outcomes = story.outcomes();
    assert_eq!(outcomes, [(1, Some(Failed)), (2, Some(Failed)), (1, Some(Succeeded))]);
    assert_eq!(story.deployments()[0].rollback_of, Some(story.deployments()[1].id));
    story.live(1_000);
    assert_eq!(story.outcomes(), outcomes, "neither has a second end");
    assert_eq!(story.revisions(), [1, 1, 1], "it went on by itself");
}

#[test]
fn an_aborted_rollout_ends_rolled_back() {
    let mut story = Story::begin(web(3), image("demo:1"));
    story.live(20);
    assert!(story.order(RolloutVerb::Abort).is_err(), "none is under way");
    story.deploy("demo:2");
    story.live(1);
    story.order(RolloutVerb::Abort).unwrap();
    story.restart_controller();
    story.live(1);
    let again = story.order(RolloutVerb::Abort);
    assert!(again.is_err(), "a rollback is not taken back: {again:?}");
    story.live(60);
    assert_eq!(story.outcomes(), [(1, Some(Succeeded)), (2, Some(RolledBack)), (1, Some(Succeeded))]);
    assert_eq!(story.revisions(), [1, 1, 1]);
    story.order(RolloutVerb::Continue).unwrap();
    story.live(60);
    assert_eq!(story.outcomes()[0], (2, Some(Succeeded)), "a person had it tried again");
}

#[test]
fn undo_goes_to_the_one_before_and_back_again() {
    let mut story = Story::begin(web(3), image("demo:1"));
    story.live(20);
    assert!(story.order(RolloutVerb::Undo { to: None }).is_err(), "there is none before");
    for version in [2, 3] {
        story.deploy(&format!("demo:{version}"));
        story.live(60);
    }
    let undo = |to: Option<&str>| RolloutVerb::Undo { to: to.map(|to| to.parse().unwrap()) };
    for (to, runs) in [(None, 2), (Some("web:1"), 1), (Some("web:3"), 3)] {
        story.order(undo(to)).unwrap();
        story.live(60);
        assert_eq!(story.revisions(), [runs; 3]);
        assert_eq!(story.outcomes()[0], (runs, Some(Succeeded)));
        if runs != 3 {
            assert!(story.order(undo(None)).is_err(), "said twice it does not bring back what was undone");
        }
    }
    assert!(story.order(undo(Some("db:1"))).is_err(), "another family");
    assert!(story.order(undo(Some("web:3"))).is_err(), "it runs that already");
    assert!(story.order(undo(Some("web:9"))).is_err());
    story.order(undo(None)).unwrap();
    story.live(60);
    story.deploy("demo:4");
    story.live(60);
    assert_eq!(story.revisions(), [4; 3], "the manifests have the last word once they change");
}

#[test]
fn a_restart_replaces_every_task_and_keeps_the_floor() {
    let mut story = Story::begin(web(3), image("demo:1"));
    story.live(20);
    let before: BTreeSet<_> = story.wanted().into_iter().map(|task| task.id).collect();
    story.order(RolloutVerb::Restart).unwrap();
    story.restart_controller();
    for _ in 0..60 {
        story.live(1);
        let healthy = story.wanted().iter().filter(|task| task.healthy_at.is_some()).count();
        assert!(healthy >= 3, "{healthy}");
    }
    let after: BTreeSet<_> = story.wanted().into_iter().map(|task| task.id).collect();
    assert!(after.is_disjoint(&before) && after.len() == 3, "{after:?}");
    assert_eq!(story.outcomes(), [(1, Some(Succeeded)), (1, Some(Succeeded))]);
    let made = story.made;
    story.live(60);
    assert_eq!(story.made, made, "once");
}

#[test]
fn what_it_can_return_to_outlives_any_number_of_failed_deployments() {
    let mut story = Story::begin(web(1), image("demo:1"));
    story.live(20);
    for version in 2..30 {
        story.deploy(&format!("nowhere:{version}"));
        story.live(20);
    }
    let state = &story.core.world().state;
    assert!(state.revision(&"web:1".parse().unwrap()).is_some(), "{:?}", state.revisions["web"].keys());
    assert_eq!(story.outcomes()[..2], [(1, Some(Succeeded)), (29, Some(RolledBack))]);
    assert_eq!(story.revisions(), [1]);
}

#[test]
fn a_protected_task_outlives_scale_in_and_deployments_until_its_time_is_over() {
    let mut story = Story::begin(web(3), image("demo:1"));
    story.live(20);
    let task = story.wanted().pop().unwrap();
    assert!(story.protect(&task, Some(0)).is_err() && story.protect(&task, Some(2881)).is_err());
    story.protect(&task, Some(10)).unwrap();
    story.restart_controller();
    story.scale(1);
    story.live(60);
    assert_eq!(story.wanted().iter().map(|task| &task.id).collect::<Vec<_>>(), [&task.id]);
    story.scale(0);
    story.live(30);
    assert_eq!(story.wanted().len(), 1);
    assert!(story.waiting().contains("a person protected it"), "{}", story.waiting());
    story.scale(2);
    story.deploy("demo:2");
    story.live(60);
    assert_eq!(story.revisions(), [1, 2, 2]);
    story.live(600);
    assert_eq!(story.revisions(), [2, 2]);
    let task = story.wanted().pop().unwrap();
    story.protect(&task, Some(60)).unwrap();
    story.scale(0);
    story.live(30);
    assert_eq!(story.wanted().len(), 1);
    story.protect(&task, None).unwrap();
    story.live(30);
    assert_eq!(story.wanted().len(), 0, "a person ended it");
}

#[test]
fn of_a_singleton_there_are_never_two() {
    let mut story = Story::begin(with(1, json!({ "singleton": true })), image("demo:1"));
    story.live(20);
    story.deploy("demo:2");
    for _ in 0..30 {
        story.live(1);
        assert!(story.running() <= 1);
    }
    assert_eq!(story.outcomes()[0], (2, Some(Succeeded)), "it stops first");
    let task = story.wanted().pop().unwrap();
    let host = task.host.to_string();
    story.live_without(60, &[&host]);
    assert_eq!(story.running(), 1, "it waits for its host");
    // A person stops it where nobody can see it.
    let now = story.now;
    story.core.command(now, Command::StopTask { task: task.id.clone(), reason: None }).unwrap();
    story.live_without(60, &[&host]);
    assert_eq!(story.running(), 1, "it may still run: {}", story.waiting());
    story.live(30);
    assert_eq!(story.running(), 1);
    assert_eq!(story.task(&task).desired_status, DesiredStatus::Stopped);
    assert!(story.wanted().iter().all(|other| other.id != task.id), "another one runs");
}

#[test]
fn one_primary_and_no_two_rollouts_under_way_whatever_is_said() {
    let mut story = Story::begin(web(3), image("demo:1"));
    story.live(1);
    let verbs = [
        RolloutVerb::Restart,
        RolloutVerb::Pause,
        RolloutVerb::Continue,
        RolloutVerb::Undo { to: None },
        RolloutVerb::Abort,
    ];
    for step in 0..120_usize {
        if step % 7 == 0 {
            story.deploy(["demo:1", "nowhere:2", "demo:3", "crash:4"][step / 7 % 4]);
        }
        let _ = story.order(verbs[step * 5 % 11 % verbs.len()].clone());
        story.live((step % 4) as u32);
        let deployments = story.deployments();
        let under_way = |it: &&Deployment| it.rollout_state == RolloutState::InProgress && it.outcome.is_none();
        assert_eq!(deployments.iter().filter(|it| it.status == DeploymentStatus::Primary).count(), 1);
        assert!(deployments.iter().filter(under_way).count() <= 1);
        for it in deployments.iter().filter(|it| it.rollback_of.is_some()) {
            let taken_back = deployments.iter().find(|other| Some(other.id) == it.rollback_of);
            assert!(taken_back.is_none_or(|other| other.rollback_of.is_none()), "a rollback was rolled back");
        }
    }
}

#[test]
fn a_healthy_task_sets_the_count_back_unless_the_manifest_says_otherwise() {
    for (resets, left) in [(true, 0), (false, 1)] {
        let more = json!({ "deploymentConfiguration": {
            "maximumPercent": 100, "minimumHealthyPercent": 50,
            "deploymentCircuitBreaker": { "resetOnHealthyTask": resets },
        } });
        let mut story = Story::begin(with(2, more), image("demo:1"));
        story.live(20);
        story.deploy("crash:2");
        while story.deployments()[0].failed_tasks == 0 {
            story.live(1);
        }
        // The next one is well.
        while story.wanted().iter().all(|task| task.revision.number == 1 || task.healthy_at.is_none()) {
            for view in story.containers.values_mut().flat_map(BTreeMap::values_mut) {
                view.image = view.image.replace("crash", "well");
            }
            story.live(1);
        }
        assert_eq!(story.deployments()[0].failed_tasks, left, "{resets}");
    }
}

#[test]
fn a_new_revision_overtakes_a_rollout_and_a_rollback() {
    let mut story = Story::begin(web(3), image("demo:1"));
    story.live(20);
    story.deploy("demo:2");
    story.live(1);
    story.deploy("demo:3");
    story.live(60);
    assert_eq!(story.outcomes(), [(3, Some(Succeeded)), (2, Some(Superseded)), (1, Some(Succeeded))]);
    // Stop-first, so that the rollback has something to do.
    let spec = &mut story.desired.services.get_mut("web").unwrap().spec;
    spec.deployment_configuration.minimum_healthy_percent = Some(0);
    spec.deployment_configuration.maximum_percent = Some(100);
    story.deploy("crash:4");
    while story.deployments()[0].rollback_of.is_none() {
        story.live(1);
    }
    story.deploy("demo:5");
    story.live(60);
    let outcomes = story.outcomes();
    assert_eq!(
        outcomes[..3],
        [(5, Some(Succeeded)), (3, Some(Superseded)), (4, Some(Failed))],
        "not back, so not ROLLED_BACK"
    );
}

#[test]
fn a_paused_rollout_neither_starts_nor_stops_anything_and_heals() {
    let mut story =
        Story::begin(with(4, json!({ "deploymentConfiguration": { "maximumPercent": 125 } })), image("demo:1"));
    story.live(20);
    story.deploy("demo:2");
    while story.revisions() != [1, 1, 1, 2, 2] {
        story.live(1);
    }
    story.order(RolloutVerb::Pause).unwrap();
    story.restart_controller();
    let made = story.made;
    story.live(60);
    assert_eq!((story.revisions(), story.made), (vec![1, 1, 1, 2, 2], made), "also after a restart");
    assert!(story.waiting().contains("a person paused it"), "{}", story.waiting());
    for number in [1, 2, 2] {
        let victim = story.wanted().into_iter().find(|task| task.revision.number == number).unwrap();
        story.lose(&victim);
        story.live(30);
    }
    assert_eq!(story.revisions(), [1, 1, 1, 1], "what dies is replaced by what is known to be good");
    story.order(RolloutVerb::Continue).unwrap();
    story.live(120);
    assert_eq!(story.outcomes()[0], (2, Some(Succeeded)));
    assert_eq!(story.revisions(), [2, 2, 2, 2]);
    assert!(story.order(RolloutVerb::Pause).is_err(), "none is under way");
    assert!(story.order(RolloutVerb::Continue).is_err());
}

#[test]
fn tasks_that_fail_their_check_after_they_were_healthy_count_against_the_rollout_under_way() {
    let mut story = Story::begin(breaker(json!({ "resetOnHealthyTask": false })), image("demo:1"));
    story.live(20);
    story.deploy("demo:2");
    for _ in 0..100 {
        story.decide(1_000, &[]).actions.iter().for_each(|action| story.obey(action));
        let now = story.now;
        for (host, on) in &mut story.containers {
            for view in on.values_mut().filter(|view| view.started_at.is_some()) {
                let is_young = now.since_ms(view.started_at.unwrap()) < 10_000;
                view.health = match (view.image.as_str(), host.as_str(), is_young) {
                    // It keeps the rollout going.
                    ("demo:2", "a", _) => HealthStatus::Unknown,
                    ("demo:2", _, false) => HealthStatus::Unhealthy,
                    _ => HealthStatus::Healthy,
                };
            }
        }
        let deployments = &story.core.world().state.services["web"].deployments;
        if deployments.iter().any(|deployment| deployment.outcome.is_some() && deployment.failed_tasks == 3) {
            return;
        }
    }
    panic!("{:?}", story.core.world().state.services["web"].deployments);
}

#[test]
fn undo_goes_to_a_revision_of_the_same_family_that_is_known() {
    let mut story = Story::begin(web(1), image("demo:1"));
    story.live(20);
    story.deploy("demo:2");
    story.live(20);
    for (to, words) in [
        ("other:1", "other:1 is of another family than web:2"),
        ("web:2", "web runs web:2 already"),
        ("web:9", "there is no revision web:9 any more"),
    ] {
        let refused = story.order(RolloutVerb::Undo { to: Some(to.parse().unwrap()) }).unwrap_err().to_string();
        assert!(refused.starts_with(words), "{refused}");
    }
    story.order(RolloutVerb::Undo { to: Some("web:1".parse().unwrap()) }).unwrap();
    story.live(20);
    assert_eq!(story.revisions(), [1]);
}

#[test]
fn a_restart_of_what_never_completed_goes_back_to_what_did() {
    let mut story = Story::begin(web(1), image("demo:1"));
    story.live(20);
    story.deploy("sick:2");
    story.live(1);
    story.order(RolloutVerb::Restart).unwrap();
    story.live(1);
    let said = story.order(RolloutVerb::Abort).unwrap();
    assert!(said.ends_with("goes back from web:2 to web:1"), "{said}");
    story.live(20);
    assert_eq!(story.revisions(), [1]);
}

#[test]
fn the_end_of_each_deployment_is_told_once() {
    let mut story = Story::begin(web(2), image("demo:1"));
    let mut said = story.live(20);
    for number in 2..=3 {
        story.deploy(&format!("demo:{number}"));
        said.extend(story.live(20));
    }
    let ends: Vec<&str> = said.iter().map(String::as_str).filter(|words| words.contains(" SUCCEEDED")).collect();
    assert_eq!(ends.len(), 3, "{ends:?}");
}
