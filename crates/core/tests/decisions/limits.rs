//! What a service says itself of silence and of restarts.

use std::collections::BTreeSet;

use roadstead_core::{
    model::{quantity::Seconds, spec::service::ServiceHostLoss, state::Outcome::Succeeded, task::StopCode},
    plan,
    turn::Input,
};
use serde_json::{Value, json};

use super::{
    life::{image, with},
    story::Story,
};

fn settled(more: Value) -> Story {
    let mut story = Story::begin(with(3, more), image("demo:1"));
    story.live(20);
    assert_eq!(story.outcomes(), [(1, Some(Succeeded))]);
    story
}

/// Seconds of silence after which something was given up; `None` within a minute.
fn given_up_after(story: &mut Story, silent: &[&str]) -> Option<u32> {
    (1..=60).find(|_| {
        story.live_without(1, silent);
        story.stop_codes().contains(&StopCode::HostLost)
    })
}

#[test]
fn a_service_may_say_itself_when_a_host_counts_as_lost() {
    for (host_loss, expected) in [
        (json!({}), 12),
        (json!({ "lostAfter": "3s" }), 3),
        (json!({ "suspectAfter": "2s", "lostAfter": "8s" }), 8),
        (json!({ "lostAfter": "30s" }), 30),
    ] {
        let mut story = settled(json!({ "hostLoss": host_loss }));
        assert_eq!(given_up_after(&mut story, &["c"]), Some(expected), "{host_loss}");
        story.live_without(20, &["c"]);
        assert_eq!(story.wanted().len(), 3);
        assert!(story.wanted().iter().all(|task| task.host.as_str() != "c"), "{host_loss}");
        story.live(20);
        assert_eq!((story.running(), story.stop_codes()), (3, vec![StopCode::HostLost]), "{host_loss}");
    }
}

#[test]
fn whoever_waits_for_longer_than_the_cluster_says_so() {
    let mut story = settled(json!({ "hostLoss": { "lostAfter": "30s" } }));
    story.live_without(20, &["c"]);
    assert!(story.waiting().contains("host c is lost, and its service waits 30 s for it"), "{}", story.waiting());
    story.live(5);
    assert_eq!((story.running(), story.stop_codes()), (3, vec![]), "it was back in time");
}

#[test]
fn a_host_that_is_lost_already_is_lost_to_whoever_would_have_waited_for_less() {
    let mut story = settled(json!({ "hostLoss": { "lostAfter": "10m" } }));
    story.live_without(20, &["c"]);
    assert_eq!(story.stop_codes(), []);
    // The next controller counts silence anew; that the host is LOST it knows.
    story.desired.services.get_mut("web").unwrap().spec.host_loss.lost_after = Some(Seconds(11));
    story.restart_controller();
    assert_eq!(given_up_after(&mut story, &["c"]), Some(1));
}

#[test]
fn a_service_without_limits_does_not_go_by_those_of_another() {
    let mut story = settled(json!({ "hostLoss": { "lostAfter": "3s" } }));
    let mut patient = story.desired.services["web"].clone();
    patient.spec.host_loss = ServiceHostLoss::default();
    story.desired.services.insert("patient".into(), patient);
    story.tell();
    story.live(20);
    let given_up = |story: &Story| -> BTreeSet<String> {
        let tasks = story.core.world().state.tasks.values();
        tasks.filter(|task| task.stop_code == Some(StopCode::HostLost)).map(|task| task.service.to_string()).collect()
    };
    story.live_without(8, &["c"]);
    assert_eq!(given_up(&story), BTreeSet::from(["web".to_owned()]));
    story.live_without(8, &["c"]);
    assert_eq!(given_up(&story), BTreeSet::from(["web".to_owned(), "patient".to_owned()]));
}

#[test]
fn a_host_is_lost_early_when_it_does_not_answer_for_as_long_as_the_service_says() {
    let mut story = settled(json!({ "hostLoss": { "lostAfter": "4s" } }));
    let is_lost_early = |story: &Story| {
        let world = story.core.world();
        plan::is_lost_early(world, &"c".into(), &world.state.desired.services["web"].spec)
    };
    for (more_ms, expected) in [(1_000, false), (2_000, false), (1_000, true), (7_000, true)] {
        story.time_passes(more_ms, &["c"]);
        assert_eq!(is_lost_early(&story), expected, "{more_ms} later");
    }
    story.time_passes(1_000, &[]);
    // Nobody asked it since then.
    story.now = story.now.plus_ms(8_000);
    story.core.take(story.now, Input::Contacts(story.contacts.clone()));
    assert!(!is_lost_early(&story), "nothing went wrong with it");
}

#[test]
fn what_the_brake_let_pass_when_a_host_was_lost_is_not_judged_again_for_whoever_waits_longer() {
    let mut story = settled(json!({ "hostLoss": { "lostAfter": "30s" } }));
    story.live_without(22, &["b"]);
    assert_eq!(story.core.world().state.fleet.brake, None);
    story.live_without(7, &["b", "c"]);
    assert_eq!(story.stop_codes(), []);
    story.live_without(1, &["b", "c"]);
    assert_eq!(story.stop_codes(), [StopCode::HostLost], "{}", story.waiting());
}

#[test]
fn a_limit_of_its_own_is_no_way_around_the_brake() {
    let mut story = settled(json!({ "hostLoss": { "lostAfter": "3s" } }));
    story.live_without(8, &["b", "c"]);
    assert!(story.waiting().contains("2 of 3 hosts fell silent within a minute"), "{}", story.waiting());
    story.live_without(30, &["b", "c"]);
    assert!(story.core.world().state.fleet.brake.is_some());
    story.live(20);
    assert_eq!((story.running(), story.stop_codes()), (3, vec![]));
}

#[test]
fn what_was_given_up_early_does_not_count_against_the_ceiling() {
    let mut story = settled(json!({
        "hostLoss": { "lostAfter": "3s" }, "deploymentConfiguration": { "maximumPercent": 100 },
    }));
    story.live_without(6, &["c"]);
    assert_eq!(story.wanted().len(), 3, "{}", story.waiting());
}

/// Nobody else would look at the moment when it makes room.
#[test]
fn a_task_that_does_not_end_on_a_silent_host_has_its_alarm() {
    let mut story = settled(json!({
        "hostLoss": { "lostAfter": "3s" }, "deploymentConfiguration": { "maximumPercent": 100 },
    }));
    story.scale(2);
    story.decide(0, &[]);
    let tasks = story.core.world().state.tasks.values();
    let ending =
        tasks.filter(|task| !task.is_wanted() && task.is_live()).map(|task| task.host.to_string()).collect::<Vec<_>>();
    let [host] = ending.as_slice() else { panic!("{ending:?}") };
    let heard = story.now;
    let waits = story.decide(1_000, &[host]);
    assert_eq!(waits.wake_at, Some(heard.plus_ms(3_000)), "{waits:?}");
}

#[test]
fn a_service_may_say_itself_how_long_a_host_may_be_silent_to_get_a_task() {
    for (host_loss, hosts) in [(json!({}), 3), (json!({ "suspectAfter": "2s" }), 2)] {
        let mut story = settled(json!({ "hostLoss": host_loss }));
        story.scale(9);
        let before = story.wanted().len();
        // Nothing went wrong on the third, it just says nothing.
        story.now = story.now.plus_ms(3_000);
        for (host, contact) in &mut story.contacts {
            let answered = if host.as_str() == "c" { contact.engine_answered_at } else { Some(story.now) };
            (contact.engine_answered_at, contact.link_answered_at) = (answered, answered);
        }
        story.core.take(story.now, Input::Contacts(story.contacts.clone()));
        let plan = story.core.decide(story.now);
        let placed: BTreeSet<_> =
            story.wanted().into_iter().filter(|task| task.created_at == story.now).map(|task| task.host).collect();
        assert_eq!((before, placed.len()), (3, hosts), "{host_loss}: {placed:?}");
        assert!(hosts == 3 || plan.wake_at.is_some_and(|at| at <= story.now.plus_ms(1_000)), "an answer is no news");
    }
}

/// The engine restarts one task's container so many times, with so many seconds between; whether it was replaced then.
fn replaced_after(story: &mut Story, restarts: u32, every_s: u32) -> bool {
    let task = story.wanted().remove(0);
    for restart in 1..=restarts {
        for view in story.containers.get_mut(&task.host).unwrap().values_mut() {
            (view.restart_count, view.started_at) = (restart, Some(story.now.plus_ms(500)));
        }
        story.live(every_s);
    }
    !story.task(&task).is_wanted()
}

#[test]
fn a_service_may_say_itself_what_a_crash_loop_is() {
    let daemon = "DAEMON";
    for (crash_loop, strategy, restarts, every_s, replaced) in [
        (json!({}), "REPLICA", 2, 1, false),
        (json!({}), "REPLICA", 3, 1, true),
        (json!({ "restarts": 1 }), "REPLICA", 1, 1, true),
        (json!({ "restarts": 5 }), "REPLICA", 4, 1, false),
        (json!({ "restarts": 5 }), "REPLICA", 5, 1, true),
        (json!({ "period": "10s" }), "REPLICA", 9, 6, false),
        (json!({ "period": "30s" }), "REPLICA", 3, 6, true),
        (json!({ "restarts": 4 }), daemon, 3, 1, false),
        (json!({ "restarts": 4 }), daemon, 4, 1, true),
    ] {
        let mut story = settled(json!({ "crashLoop": crash_loop, "schedulingStrategy": strategy }));
        let words = format!("{crash_loop} {strategy} {restarts} every {every_s} s");
        assert_eq!(replaced_after(&mut story, restarts, every_s), replaced, "{words}");
    }
    for (period, within) in [("10m", "10 minutes"), ("60s", "a minute"), ("90s", "90 s")] {
        let mut story = settled(json!({ "crashLoop": { "restarts": 2, "period": period } }));
        assert!(replaced_after(&mut story, 2, 1));
        let reason = story.core.world().state.tasks.values().find_map(|task| task.stopped_reason.clone()).unwrap();
        assert_eq!(reason, format!("container main was restarted 2 times in {within}"));
    }
}
