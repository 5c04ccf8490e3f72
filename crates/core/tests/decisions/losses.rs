//! Hosts that fall silent: when they count as lost, when that is too many at once (S14), and when they are back.

use roadstead_core::{
    model::{
        action::VerbName,
        state::{Brake, Schedulability},
        task::StopCode,
        time::Timestamp,
        world::HostStatus,
    },
    plan::host_status,
    turn::Command,
};
use serde_json::json;

use super::story::{Story, one_container, web};

/// These hosts `(name, zone)`, and a service of as many tasks.
fn fleet(hosts: &[(&str, &str)]) -> Story {
    let mut story = Story::begin(web(hosts.len() as u32), one_container());
    for name in ["a", "b", "c"] {
        story.desired.hosts.remove(name);
        story.containers.remove(name);
        story.contacts.remove(name);
    }
    hosts.iter().for_each(|(name, zone)| story.add_host(name, zone));
    story.tell();
    story.settle(&[]);
    assert_eq!(story.running(), hosts.len());
    story
}

fn go_on(story: &mut Story, seconds: u32, silent: &[&str]) -> Vec<String> {
    let mut said = Vec::new();
    for _ in 0..seconds {
        let plan = story.decide(1_000, silent);
        plan.actions.iter().for_each(|action| story.obey(action));
        said.extend(story.said(&plan).filter(|it| it.starts_with("Brake") || it.starts_with("Host")));
    }
    said
}

fn brake(story: &Story) -> Option<&Brake> {
    story.state().fleet.brake.as_ref()
}

fn hosts_given_up(story: &Story) -> Vec<&str> {
    let tasks = story.state().tasks.values().filter(|task| task.stop_code == Some(StopCode::HostLost));
    let mut hosts: Vec<&str> = tasks.map(|task| task.host.as_str()).collect();
    hosts.sort_unstable();
    hosts
}

#[test]
fn more_than_half_of_the_hosts_or_a_whole_zone_of_two_or_more_are_too_many_at_once() {
    let each_its_own = [("a", "a"), ("b", "b"), ("c", "c"), ("d", "d"), ("e", "e")];
    let pairs = [("a", "z"), ("b", "z"), ("c", "y"), ("d", "y"), ("e", "x")];
    let three = [("a", "z"), ("b", "z"), ("c", "z"), ("d", "y"), ("e", "x")];
    type Row<'r> = (&'r [(&'r str, &'r str)], &'r [&'r str], Option<&'r str>);
    let rows: [Row<'_>; 9] = [
        (&each_its_own[..3], &["a"], None),
        (&each_its_own[..3], &["a", "b"], Some("2 of 3 hosts fell silent within a minute")),
        (&each_its_own[..4], &["a", "b"], None),
        (&each_its_own, &["a", "b", "c"], Some("3 of 5 hosts fell silent within a minute")),
        (&each_its_own, &["a"], None),
        (&pairs, &["a", "b"], Some("every host of zone z fell silent within a minute")),
        (&pairs, &["c", "d"], Some("every host of zone y fell silent within a minute")),
        (&pairs, &["b", "c"], None),
        (&three, &["a", "c"], None),
    ];
    for (hosts, silent, expected) in rows {
        let mut story = fleet(hosts);
        go_on(&mut story, 13, silent);
        let reason = brake(&story).map(|brake| brake.reason.as_str());
        let as_expected = match expected {
            Some(words) => reason.is_some_and(|reason| reason.starts_with(words)),
            None => reason.is_none(),
        };
        assert!(as_expected, "{hosts:?} without {silent:?}: {reason:?}");
        assert_eq!(hosts_given_up(&story).is_empty(), expected.is_some(), "{hosts:?} without {silent:?}");
    }
}

#[test]
fn losses_are_of_one_moment_when_they_are_less_than_a_minute_apart() {
    for (apart_ms, together) in [(59_999, true), (60_000, false)] {
        let mut story = fleet(&[("a", "a"), ("b", "b"), ("c", "c")]);
        // Silent for twelve seconds in the very millisecond that is decided in.
        story.decide(12_000, &["a"]);
        assert!(story.state().hosts["a"].lost_since.is_some());
        story.decide(apart_ms - 12_000, &["a"]);
        story.decide(12_000, &["a", "b"]);
        assert!(story.state().hosts["b"].lost_since.is_some());
        assert_eq!(brake(&story).is_some(), together, "{apart_ms}");
    }
}

#[test]
fn who_fell_silent_with_the_lost_counts_unless_only_its_engine_hangs() {
    // One a moment after the other: the first is lost, and the other only suspected.
    let mut story = fleet(&[("a", "a"), ("b", "b"), ("c", "c")]);
    go_on(&mut story, 6, &["a"]);
    go_on(&mut story, 6, &["a", "b"]);
    assert_eq!(host_status(story.core.world(), &"b".into()), HostStatus::Suspect);
    assert_eq!(brake(&story).map(|brake| brake.hosts.len()), Some(2));
    assert_eq!(go_on(&mut story, 30, &["a", "b"]), ["HostLost"], "and it holds while neither answers, told once");
    assert!(brake(&story).is_some());
    // The other's sshd answers all the time.
    let mut story = fleet(&[("a", "a"), ("b", "b"), ("c", "c")]);
    story.hung.insert("b".into());
    assert_eq!(go_on(&mut story, 13, &["a"]), ["HostLost"]);
    assert_eq!(hosts_given_up(&story), ["a"]);
}

#[test]
fn what_a_person_released_stays_released_and_further_losses_are_judged_by_themselves() {
    let mut story = fleet(&[("a", "a"), ("b", "b"), ("c", "c"), ("d", "d"), ("e", "e")]);
    go_on(&mut story, 13, &["a", "b", "c"]);
    assert!(brake(&story).is_some_and(|brake| !brake.released));
    // While it holds, more of them change nothing, and nothing is told twice.
    assert_eq!(go_on(&mut story, 20, &["a", "b", "c", "d", "e"]), ["HostLost", "HostLost"]);
    assert_eq!((hosts_given_up(&story), brake(&story).unwrap().hosts.len()), (vec![], 3));
    assert_eq!(go_on(&mut story, 20, &["a", "b", "c"]), ["HostReturned", "HostReturned"]);

    story.core.command(story.now, Command::ReleaseBrake).unwrap();
    go_on(&mut story, 20, &["a", "b", "c"]);
    assert_eq!(hosts_given_up(&story), ["a", "b", "c"]);
    // One of the two that are left.
    assert_eq!(go_on(&mut story, 13, &["a", "b", "c", "d"]), ["HostLost"]);
    assert!(brake(&story).is_some_and(|brake| brake.released));
    go_on(&mut story, 13, &["a", "b", "c"]);
    // Both of them.
    let mut said = go_on(&mut story, 13, &["a", "b", "c", "d", "e"]);
    said.sort();
    assert_eq!(said, ["BrakePulled", "HostLost", "HostLost"]);
    assert!(brake(&story).is_some_and(|brake| !brake.released && brake.hosts.len() == 2));
}

/// What a controller has not noticed yet is no answer: it begins to watch, and the host is as silent as before.
#[test]
fn a_lost_host_is_back_when_it_answers_and_not_when_nobody_has_asked_it_yet() {
    let mut story = fleet(&[("a", "a"), ("b", "b"), ("c", "c")]);
    go_on(&mut story, 13, &["a"]);
    story.go_on_with(|_| {});
    let now = story.now;
    story.contacts.values_mut().for_each(|contact| contact.watched_since = now);
    assert_eq!(go_on(&mut story, 3, &["a"]), [""; 0]);
    assert!(story.state().hosts["a"].lost_since.is_some());
    assert_eq!(go_on(&mut story, 1, &[]), ["HostReturned"]);
    assert_eq!(story.state().hosts["a"].lost_since, None);
}

#[test]
fn a_silent_host_is_looked_at_again_when_its_status_changes_next() {
    let mut story = fleet(&[("a", "a"), ("b", "b"), ("c", "c")]);
    let heard = story.now;
    assert_eq!(story.decide(1_000, &["a"]).wake_at, Some(heard.plus_ms(5_000)), "SUSPECT");
    assert_eq!(story.decide(4_000, &["a"]).wake_at, Some(heard.plus_ms(12_000)), "LOST");
    let plan = story.decide(7_000, &["a"]);
    assert!(story.state().hosts["a"].lost_since.is_some());
    assert!(plan.actions.is_empty() || hosts_given_up(&story) == ["a"]);
}

#[test]
fn a_host_that_answers_and_was_not_looked_at_for_a_minute_gets_no_orders() {
    for (ms, ordered) in [(59_999, true), (60_000, false)] {
        let mut story = fleet(&[("a", "a"), ("b", "b"), ("c", "c")]);
        story.time_passes(ms, &[]);
        let task = story.state().tasks.values().next().unwrap().id.clone();
        story.core.command(story.now, Command::StopTask { task, reason: None }).unwrap();
        let stops = story.plan().actions.iter().filter(|action| action.verb.name() == VerbName::Stop).count();
        assert_eq!(stops, usize::from(ordered), "{ms}");
    }
}

#[test]
fn the_time_of_a_drain_is_for_standalone_tasks_only() {
    let mut story = fleet(&[("a", "a")]);
    let request = serde_json::from_value(json!({ "taskDefinition": "web", "clientToken": "one" })).unwrap();
    story.core.command(story.now, Command::RunTask(Box::new(request))).unwrap();
    story.settle(&[]);
    assert_eq!(story.running(), 2);
    let drain = Command::SetSchedulability { host: "a".into(), to: Schedulability::Draining, timeout_s: Some(30) };
    story.core.command(story.now, drain).unwrap();
    let over = story.now.plus_ms(30_000);
    let codes = |story: &Story| {
        let tasks = story.state().tasks.values();
        tasks.map(|task| (task.is_standalone(), task.stop_code)).collect::<std::collections::BTreeMap<_, _>>()
    };
    let plan = story.decide(over.since_ms(story.now) - 1, &[]);
    assert_eq!((codes(&story), plan.wake_at), ([(false, None), (true, None)].into(), Some(over)));
    story.decide(1, &[]);
    let ended = Some(StopCode::TerminationNotice);
    assert_eq!(codes(&story), [(false, None), (true, ended)].into(), "there is no other host for the service's");
}

/// When the brake has ended, the others' silence counts anew, to the millisecond.
#[test]
fn after_the_brake_the_others_have_their_whole_time_to_answer() {
    let mut story = fleet(&[("a", "a"), ("b", "b"), ("c", "c")]);
    go_on(&mut story, 13, &["a", "b"]);
    assert!(brake(&story).is_some());
    story.decide(1_000, &["b"]);
    let ended: Timestamp = story.state().fleet.brake_ended_at.unwrap();
    let plan = story.decide(11_999, &["b"]);
    assert_eq!((hosts_given_up(&story), plan.wake_at), (vec![], Some(ended.plus_ms(12_000))));
    story.decide(1, &["b"]);
    assert_eq!(hosts_given_up(&story), ["b"]);
}

#[test]
fn the_brake_keeps_nothing_of_an_earlier_revision_that_was_never_sent() {
    let mut story = Story::begin(web(3), one_container());
    // Nobody says what its image stands for.
    for _ in 0..5 {
        story.decide_once(1_000, &[]);
    }
    for _ in 0..14 {
        story.decide_once(1_000, &["b", "c"]);
    }
    assert!(brake(&story).is_some());
    assert_eq!(story.revisions(), [1, 1, 1]);
    story.deploy("demo:2");
    story.decide_once(1_000, &["b", "c"]);
    assert_eq!(story.revisions(), [2, 2, 2]);
}
