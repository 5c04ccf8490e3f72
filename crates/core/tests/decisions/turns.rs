//! The controller's memory around the planner: what it keeps of its inputs and orders, and what people may say.

use std::{collections::BTreeSet, sync::Arc};

use roadstead_core::{
    model::{
        action::{Action, ActionKey, ActionResult, Answer, VerbName},
        diagnostic::Diagnostic,
        name::HostName,
        state::{EventLevel, Schedulability, State},
        storage::StorageSeen,
        task::{LastStatus, Launch},
        time::Timestamp,
        volume::{VolumeClaim, VolumesSeen},
    },
    turn::{Command, CommandError, Core, Input},
};
use serde_json::json;

use super::{
    looks::events,
    story::{Story, one_container, web},
};

fn at_rest(tasks: u32) -> Story {
    let mut story = Story::begin(web(tasks), one_container());
    story.settle(&[]);
    story
}

/// The first plan that launches something, and its launches.
fn launches(story: &mut Story) -> Vec<Action> {
    for _ in 0..5 {
        let plan = story.decide(1_000, &[]);
        let launches: Vec<_> =
            plan.actions.into_iter().filter(|action| action.verb.name() == VerbName::Launch).collect();
        if !launches.is_empty() {
            return launches;
        }
    }
    panic!("nothing is launched");
}

fn not_sent() -> ActionResult {
    ActionResult::NotSent { reason: "no connection".into() }
}

#[test]
fn what_cannot_be_written_was_never_decided() {
    let mut story = Story::begin(web(1), one_container());
    let durable = story.state().clone();
    let launched = launches(&mut story);
    assert!(!launched.is_empty() && !story.state().tasks.is_empty());
    story.core.fall_back(durable, "the disk is full");
    assert!(story.state().tasks.is_empty());
    let waiting = &story.core.report().waiting;
    assert!(waiting.len() == 1 && waiting[0].reason.ends_with("so nothing is done: the disk is full"), "{waiting:?}");
    let now = story.now;
    assert_eq!(story.core.quiet_until(now), None);
}

#[test]
fn a_controller_at_rest_is_quiet_for_ten_seconds_at_most_unless_it_is_fenced() {
    let mut story = at_rest(1);
    let planned_at = story.now;
    let later = planned_at.plus_ms(1);
    let until = story.core.quiet_until(later).expect("nothing is to be done");
    assert!(until > later && until <= planned_at.plus_ms(10_000), "{until:?}");
    assert_eq!(story.core.quiet_until(until), None, "its time is over");
    assert_eq!(story.core.fenced(), None);
    // When hosts' volumes were listed matters nothing; what the lists show does.
    let same = VolumesSeen { started_at: later, volumes: [].into() };
    story.core.take(later, Input::Volumes("a".into(), same));
    assert!(story.core.quiet_until(later).is_some());
    let left = VolumeClaim::Task { task: "gone".into(), service: "web".into() };
    let more = VolumesSeen { started_at: later, volumes: [("rs-task-gone-data".to_owned(), left)].into() };
    let mut told = story.core.clone();
    told.take(later, Input::Volumes("a".into(), more));
    assert_eq!(told.quiet_until(later), None);
    // A controller that began later has made something.
    let mut look = story.look_at("a", story.now);
    let mut view = story.containers.values().find_map(|on| on.values().next()).unwrap().clone();
    if let roadstead_core::model::ownership::Owner::Ours(claim) = &mut view.owner {
        claim.epoch += 1_000_000_000;
    }
    look.containers.insert(view.id.clone(), view);
    story.core.take(later, Input::Look(Arc::new(look)));
    assert!(story.core.fenced().is_some_and(|why| why.contains("another controller drives this fleet")));
    assert_eq!(story.core.quiet_until(later), None);
    let plan = story.core.decide(later);
    assert!(plan.actions.is_empty() && plan.report.waiting[0].reason.contains("another controller"));
}

#[test]
fn what_would_be_planned_is_asked_without_deciding_it() {
    let mut story = Story::begin(web(1), one_container());
    assert!(story.core.world_at(story.now).settling, "no host was looked at yet");
    story.time_passes(1_000, &[]);
    ["a", "b", "c"].iter().for_each(|host| drop(story.look(host, story.now)));
    assert!(story.core.world().settling);
    let then = story.now.plus_ms(5_000);
    let world = story.core.world_at(then);
    assert_eq!((world.now, world.settling), (then, false));
    story.settle(&[]);
    assert!(!story.core.world_at(then).settling);

    let before = story.state().clone();
    let mut desired = story.desired.clone();
    desired.services.get_mut("web").unwrap().spec.desired_count = 3;
    let launches =
        story.core.what_if(Arc::new(desired)).actions.iter().filter(|it| it.verb.name() == VerbName::Launch).count();
    assert_eq!((launches, story.state() == &before), (2, true));
}

#[test]
fn what_is_wrong_with_the_manifests_is_kept() {
    let mut story = at_rest(0);
    let wrong: Diagnostic = serde_json::from_value(json!({
        "file": "fleet.yaml", "line": 3, "column": 1, "length": 1, "severity": "error", "code": "E1", "message": "wrong",
    }))
    .unwrap();
    let desired = Arc::new(story.desired.clone());
    let input = Input::Manifests { desired, hash: "1".into(), diagnostics: vec![wrong.clone()] };
    story.core.take(story.now, input);
    assert_eq!(story.core.diagnostics(), [wrong]);
}

#[test]
fn what_was_seen_of_a_host_goes_with_it() {
    let mut story = at_rest(0);
    let hosts = |story: &Story| -> (Vec<String>, Vec<String>) {
        let world = story.core.world();
        let names = |name: &HostName| name.to_string();
        (world.volumes.keys().map(names).collect(), world.storage.keys().map(names).collect())
    };
    story.core.take(story.now, Input::Storage("a".into(), StorageSeen::default()));
    story.core.take(story.now, Input::Storage("b".into(), StorageSeen::default()));
    let strange = || VolumesSeen { started_at: Timestamp(1), volumes: [].into() };
    story.core.take(story.now, Input::Volumes("nowhere".into(), strange()));
    story.core.take(story.now, Input::Storage("nowhere".into(), StorageSeen::default()));
    let both = |names: &[&str]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
    assert_eq!(hosts(&story), (both(&["a", "b", "c"]), both(&["a", "b"])));
    for left in [&["b", "c"][..], &["c"], &[]] {
        let contacts = story.contacts.iter().filter(|(host, _)| left.contains(&host.as_str()));
        let contacts = contacts.map(|(host, contact)| (host.clone(), contact.clone())).collect();
        story.core.take(story.now, Input::Contacts(contacts));
        let storage: Vec<&str> = left.iter().copied().filter(|host| *host == "b").collect();
        assert_eq!(hosts(&story), (both(left), both(&storage)));
    }
}

#[test]
fn an_order_is_under_way_until_a_later_look_at_its_own_host() {
    let mut story = Story::begin(web(1), one_container());
    let launch = launches(&mut story).remove(0);
    let other = if launch.host.as_str() == "a" { "b" } else { "a" };
    let is_under_way = |story: &Story| story.core.world().in_flight.contains(&launch.key());
    story.obey(&launch);
    let answered = story.now;
    story.look(launch.host.as_str(), answered);
    assert!(is_under_way(&story), "begun when the answer came");
    story.now = answered.plus_ms(1);
    story.look(other, story.now);
    assert!(is_under_way(&story), "of another host");
    story.core.take(
        story.now,
        Input::Storage(launch.host.clone(), StorageSeen { started_at: story.now, ..StorageSeen::default() }),
    );
    assert!(is_under_way(&story), "of images");
    story.look(launch.host.as_str(), story.now);
    assert!(!is_under_way(&story));
}

#[test]
fn a_failed_order_is_tried_again_after_a_growing_pause_that_differs_from_task_to_task() {
    let mut story = Story::begin(web(60), one_container());
    let launches = launches(&mut story);
    assert_eq!(launches.len(), 60);
    let mut base_ms = 1_000;
    for attempt in 0..8 {
        let now = story.now;
        let mut percents = BTreeSet::new();
        for launch in &launches {
            story.answer(launch, not_sent());
            let (at, why) = &story.core.world().retry_at[&launch.key()];
            assert_eq!(why, "no connection");
            let beyond_ms = at.since_ms(now) - base_ms;
            assert_eq!(at.since_ms(now) % (base_ms / 100), 0);
            percents.insert(beyond_ms * 100 / base_ms);
        }
        let (least, most) = (percents.first().unwrap(), percents.last().unwrap());
        assert!(*least < 3 && *most > 22 && *most < 26 && percents.len() > 15, "attempt {attempt}: {percents:?}");
        base_ms = (base_ms * 2).min(60_000);
    }
    // One that succeeds begins anew.
    let containers = story.make(&launches[0]);
    story.answer(&launches[0], ActionResult::Done { containers });
    story.answer(&launches[0], not_sent());
    assert!(story.core.world().retry_at[&launches[0].key()].0.since_ms(story.now) < 2_000);
}

#[test]
fn with_a_task_its_failed_orders_are_forgotten_and_no_others() {
    let mut story = at_rest(1);
    let like = story.state().tasks.values().next().unwrap().clone();
    let now = story.now;
    story.go_on_with(|state| {
        let mut over = roadstead_core::model::task::Task { id: "over".into(), ..(*like).clone() };
        over.advance(LastStatus::Stopped);
        over.stopped_at = Some(now);
        over.containers.values_mut().for_each(|row| row.runtime_id = None);
        state.tasks.insert(over.id.clone(), Arc::new(over));
    });
    let fail = |story: &mut Story, task: &str| {
        let key = ActionKey { task: task.into(), verb: VerbName::Stop };
        let answer = Answer { key: key.clone(), host: like.host.clone(), at: story.now, result: not_sent() };
        story.core.take(story.now, Input::Answer(answer));
        story.core.world().retry_at[&key].0.since_ms(story.now)
    };
    for task in ["over", like.id.as_str()] {
        fail(&mut story, task);
    }
    story.decide(3_600_000, &[]);
    assert!(!story.state().tasks.contains_key("over"), "it is forgotten");
    let left: Vec<_> = story.core.world().retry_at.keys().map(|key| key.task.clone()).collect();
    assert_eq!(left, std::slice::from_ref(&like.id));
    assert!(fail(&mut story, like.id.as_str()) >= 2_000, "the second time");
    assert!(fail(&mut story, "over") < 2_000, "the first, should there be one of that name again");
}

#[test]
fn a_controller_that_has_not_adopted_all_asks_again_whom_an_earlier_one_has_seen() {
    let mut story = Story::begin(web(3), one_container());
    story.settle(&[]);
    story.core = Core::new(State::default(), 1, story.now, false).0;
    story.tell();
    story.decide(100, &["c"]);
    story.go_on_with(|_| {});
    story.time_passes(100, &[]);
    story.look("c", story.now);
    assert!(story.plan().actions.is_empty() && story.core.world().settling, "a and b were seen by another one only");
}

#[test]
fn an_unknown_host_is_not_found_and_one_that_was_never_seen_may_be_cordoned() {
    let mut story = at_rest(0);
    story.add_host("new", "d");
    story.tell();
    let cordon =
        |host: &str| Command::SetSchedulability { host: host.into(), to: Schedulability::Cordoned, timeout_s: None };
    let now = story.now;
    for command in [cordon("nowhere"), Command::Repin { host: "nowhere".into() }] {
        let refused = story.core.command(now, command).unwrap_err();
        assert!(
            matches!(&refused, CommandError::NotFound(words) if words == "there is no host nowhere"),
            "{refused:?}"
        );
    }
    let refused = story.core.command(now, Command::Repin { host: "new".into() }).unwrap_err();
    assert!(matches!(&refused, CommandError::Refused(words) if words.contains("was never seen")), "{refused:?}");
    let (_, changes) = story.core.command(now, cordon("new")).unwrap();
    assert_eq!(events(&changes).iter().map(|event| event.level).collect::<Vec<_>>(), [EventLevel::Normal]);
    let record = &story.state().hosts["new"];
    assert_eq!((record.name.as_str(), record.schedulability), ("new", Schedulability::Cordoned));
}

/// What the old machine had is gone when a look at the new one says so; only what was half made can no longer be waited for.
#[test]
fn a_repin_forgets_what_was_half_made_on_that_host_and_nothing_else() {
    let story = at_rest(3);
    let tasks: Vec<_> = story.state().tasks.values().cloned().collect();
    let (here, there) = (tasks[0].clone(), tasks[1].clone());
    assert_ne!(here.host, there.host);
    let repin = |change: &dyn Fn(&mut roadstead_core::model::task::Task)| {
        let mut state = story.state().clone();
        for id in [&here.id, &there.id] {
            change(Arc::make_mut(state.tasks.get_mut(id).unwrap()));
        }
        let (mut core, _) = Core::new(state, 2, story.now, false);
        core.take(
            story.now,
            Input::Manifests { desired: Arc::new(story.desired.clone()), hash: "2".into(), diagnostics: Vec::new() },
        );
        let before = core.world().state.clone();
        core.command(story.now, Command::Repin { host: here.host.clone() }).unwrap();
        let state = &core.world().state;
        assert_eq!(state.tasks[&there.id], before.tasks[&there.id], "of another host");
        let forgotten = state.tasks[&here.id].containers.values().all(|row| row.runtime_id.is_none());
        (forgotten, state.tasks[&here.id].launch)
    };
    let issued = Launch::Issued { at: Timestamp(1) };
    let (forgotten, launch) = repin(&|task| task.launch = issued);
    assert!(forgotten && launch == Launch::Answered { at: story.now }, "a launch without an answer");
    let (forgotten, _) = repin(&|task| task.last_status = LastStatus::Activating);
    assert!(forgotten, "one that never ran");
    let (forgotten, launch) = repin(&|_| {});
    assert!(!forgotten && launch == here.launch, "what ran, runs or is over");
    let (_, launch) = repin(&|task| (task.launch, task.last_status) = (Launch::NotIssued, LastStatus::Provisioning));
    assert_eq!(launch, Launch::NotIssued, "nothing was sent of it");
}
