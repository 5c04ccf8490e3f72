//! What images stand for: asked once a revision, and again when a person starts a service anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use roadstead_core::turn::{Command, Core, Input};
use roadstead_core::{
    model::{
        action::{Action, ActionResult, Verb, VerbName},
        image::{ImagePullPolicy, ResolvedImage},
        name::HostName,
        state::{Change, State},
        task::{LastStatus, StopCode},
    },
    plan::absorb::RolloutVerb,
};
use serde_json::{Value, json};

use crate::story::{Story, one_container, web};

fn begin(service: Value, definition: Value) -> Story {
    let mut story = Story::begin(service, definition);
    story.pushed.insert("demo:1".into(), 1);
    story
}

fn digest(number: u32) -> String {
    format!("sha256:{number:0>64}")
}

/// The first plan that asks or launches anything.
fn first(story: &mut Story) -> Vec<Action> {
    for _ in 0..5 {
        let plan = story.decide_once(1_000, &[]);
        if !plan.actions.is_empty() {
            return plan.actions;
        }
    }
    panic!("nothing happens");
}

fn launched(actions: &[Action]) -> BTreeSet<String> {
    let steps = actions.iter().filter_map(|action| match &action.verb {
        Verb::Launch { containers } => Some(containers),
        Verb::Resolve { .. }
        | Verb::Stop { .. }
        | Verb::Remove { .. }
        | Verb::Tidy { .. }
        | Verb::Sweep { .. }
        | Verb::Prune { .. } => None,
    });
    steps.flatten().map(|step| step.config.image.clone()).collect()
}

/// What runs, by image as the engines have it.
fn run(story: &Story) -> BTreeMap<String, usize> {
    let mut images = BTreeMap::new();
    for view in story.containers.values().flat_map(BTreeMap::values) {
        *images.entry(view.image.clone()).or_default() += 1;
    }
    images
}

fn restart(story: &mut Story) {
    let order = Command::Rollout { service: "web".into(), verb: RolloutVerb::Restart };
    let now = story.now;
    story.core.command(now, order).expect("it may be restarted");
}

fn revisions(story: &Story) -> Vec<u32> {
    story.core.world().state.revisions["web"].keys().copied().collect()
}

#[test]
fn one_host_is_asked_and_all_tasks_run_what_it_says_also_later() {
    let mut story = begin(web(3), one_container());
    let asked = first(&mut story);
    let [Action { verb: Verb::Resolve { images, fresh: false }, .. }] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(images[0].reference, "demo:1");
    assert_eq!(images[0].policy, ImagePullPolicy::IfNotPresent);
    let waiting = &story.core.report().waiting;
    assert!(waiting.iter().any(|it| it.reason.contains("what demo:1 stands for")), "{waiting:?}");
    assert!(story.decide_once(1_000, &[]).actions.is_empty(), "nobody else is asked meanwhile");

    story.resolve(&asked[0]);
    let plan = story.decide_once(1_000, &[]);
    assert_eq!(plan.actions.len(), 3);
    assert_eq!(launched(&plan.actions), [format!("demo@{}", digest(1))].into());
    plan.actions.iter().for_each(|action| story.obey(action));
    story.settle(&[]);

    // The tag moves; the revision does not.
    story.pushed.insert("demo:1".into(), 2);
    story.desired.services.get_mut("web").unwrap().spec.desired_count = 5;
    story.tell();
    story.settle(&[]);
    assert_eq!(run(&story), [(format!("demo@{}", digest(1)), 5)].into());
    let mut rows = story.core.world().state.tasks.values().flat_map(|task| task.containers.values());
    assert!(rows.all(|row| row.image == "demo:1" && row.image_digest == Some(digest(1))));
}

#[test]
fn a_restart_asks_anew_and_other_content_is_a_new_revision() {
    let mut story = begin(web(3), one_container());
    story.settle(&[]);
    let before: BTreeSet<_> = story.core.world().state.tasks.keys().cloned().collect();

    restart(&mut story);
    story.settle(&[]);
    assert_eq!(revisions(&story), [1], "the same content");
    assert_eq!(run(&story), [(format!("demo@{}", digest(1)), 3)].into());
    let mut live = story.core.world().state.tasks.values().filter(|task| task.is_live());
    assert!(live.all(|task| !before.contains(&task.id)), "and every task is a new one");

    story.pushed.insert("demo:1".into(), 2);
    restart(&mut story);
    story.settle(&[]);
    assert_eq!(revisions(&story), [1, 2]);
    assert_eq!(run(&story), [(format!("demo@{}", digest(2)), 3)].into());
    let record = &story.core.world().state.services["web"];
    assert_eq!((record.again, record.deployments.len()), (None, 3));
}

#[test]
fn a_restart_goes_on_with_what_it_has_when_nobody_can_say() {
    let mut story = begin(web(2), one_container());
    story.settle(&[]);
    let before: BTreeSet<_> = story.core.world().state.tasks.keys().cloned().collect();
    restart(&mut story);
    let asked = first(&mut story);
    let [Action { verb: Verb::Resolve { fresh: true, .. }, .. }] = &asked[..] else { panic!("{asked:?}") };
    let failed = ActionResult::Failed { reason: "denied".into(), containers: Vec::new() };
    story.answer(&asked[0], failed);
    story.settle(&[]);
    assert_eq!(revisions(&story), [1]);
    let mut live = story.core.world().state.tasks.values().filter(|task| task.is_live());
    assert!(live.all(|task| !before.contains(&task.id)));
}

#[test]
fn a_named_revision_keeps_its_bits_whatever_becomes_of_the_tag() {
    let mut story = begin(web(2), one_container());
    story.settle(&[]);
    let service = json!({ "taskDefinition": "web:1", "desiredCount": 2, "minimumHealthySeconds": 1 });
    story.desired.services.get_mut("web").unwrap().spec = serde_json::from_value(service).unwrap();
    story.tell();
    story.pushed.insert("demo:1".into(), 2);
    restart(&mut story);
    story.settle(&[]);
    assert_eq!(revisions(&story), [1]);
    assert_eq!(run(&story), [(format!("demo@{}", digest(1)), 2)].into());
}

#[test]
fn who_cannot_say_fails_its_task_and_the_next_is_asked() {
    let mut story = begin(web(3), one_container());
    let asked = first(&mut story);
    story.answer(&asked[0], ActionResult::Failed { reason: "manifest unknown".into(), containers: Vec::new() });
    let task = &story.core.world().state.tasks[&asked[0].task];
    assert_eq!((task.last_status, task.stop_code), (LastStatus::Stopped, Some(StopCode::TaskFailedToStart)));
    assert_eq!(story.core.world().state.services["web"].deployments[0].failed_tasks, 1);
    let next = first(&mut story);
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].verb.name(), VerbName::Resolve);
    assert_ne!(next[0].task, asked[0].task);

    // That host falls silent: another one is asked.
    let silent = next[0].host.to_string();
    let mut other = None;
    for _ in 0..10 {
        let plan = story.decide_once(1_000, &[&silent]);
        other = other.or_else(|| plan.actions.into_iter().find(|action| action.verb.name() == VerbName::Resolve));
    }
    assert_ne!(other.expect("another host is asked").host, next[0].host);
}

#[test]
fn a_rate_limit_fails_nothing_and_each_host_is_asked_once_a_pause() {
    let mut story = begin(web(6), one_container());
    let mut asked = Vec::new();
    let mut round = first(&mut story);
    while let Some(action) = round.pop() {
        asked.push(action.host.clone());
        story.answer(&action, ActionResult::NotSent { reason: "too many requests".into() });
        round.extend(story.decide_once(1, &[]).actions);
    }
    asked.sort();
    assert_eq!(asked, ["a", "b", "c"].map(HostName::from), "two tasks each, and one question");
    let waiting = &story.core.report().waiting;
    assert!(waiting.iter().any(|it| it.reason.contains("too many requests")), "{waiting:?}");
    assert_eq!(story.stop_codes(), []);
    let again = first(&mut story);
    story.resolve(&again[0]);
    story.settle(&[]);
    assert_eq!(story.running(), 6);
}

#[test]
fn what_was_loaded_by_hand_runs_by_its_tag() {
    let mut story = begin(web(2), one_container());
    let asked = first(&mut story);
    let local = [("demo:1".to_owned(), ResolvedImage::Local("sha256:1d".into()))];
    story.answer(&asked[0], ActionResult::Resolved { images: local.into() });
    let launches = story.decide_once(1_000, &[]).actions;
    launches.iter().for_each(|action| story.obey(action));
    assert_eq!(run(&story), [("demo:1".to_owned(), 2)].into());

    // One host has other content under that tag: it runs, and a person hears of it once.
    let (one, other) = (launches[0].host.clone(), launches[1].host.clone());
    for (host, id) in [(one, "sha256:1d"), (other, "sha256:2d")] {
        story.containers.get_mut(&host).unwrap().values_mut().for_each(|view| view.image_id = id.to_owned());
    }
    let mut said = Vec::new();
    for host in ["a", "b", "c"] {
        story.now = story.now.plus_ms(10);
        let look = story.look_at(host, story.now);
        said.extend(story.core.take(story.now, Input::Look(Arc::new(look))));
    }
    let differs = |change: &Change| match change {
        Change::Event(event) => event.reason == "ImageDiffers" && event.message.contains("sha256:2d"),
        _ => false,
    };
    assert_eq!(said.iter().filter(|change| differs(change)).count(), 1, "{said:?}");
}

#[test]
fn with_an_empty_database_the_digest_is_that_of_what_runs() {
    let mut story = begin(web(3), one_container());
    story.settle(&[]);
    story.pushed.insert("demo:1".into(), 2);
    let (core, _) = Core::new(State::default(), 2, story.now, false);
    story.core = core;
    story.tell();
    story.settle(&[]);
    story.desired.services.get_mut("web").unwrap().spec.desired_count = 5;
    story.tell();
    story.settle(&[]);
    assert_eq!(run(&story), [(format!("demo@{}", digest(1)), 5)].into());
}

/// Another controller goes on with nothing but the manifests.
fn lose_database(story: &mut Story) {
    (story.core, _) = Core::new(State::default(), 2, story.now, false);
    story.tell();
}

/// A service of three half way from one content of its tag to the next.
fn half_way() -> Story {
    let mut service = web(3);
    service["deploymentConfiguration"] = json!({ "minimumHealthyPercent": 66, "maximumPercent": 100 });
    let mut story = begin(service, one_container());
    story.settle(&[]);
    story.pushed.insert("demo:1".into(), 2);
    restart(&mut story);
    for _ in 0..100 {
        if run(&story).len() == 2 && story.running() == 3 {
            return story;
        }
        story.decide(1_000, &[]).actions.iter().for_each(|action| story.obey(action));
    }
    panic!("it never is half way: {:?}", run(&story));
}

/// By revision, what its live tasks run.
fn bits(story: &Story) -> BTreeMap<u32, BTreeSet<String>> {
    let mut bits: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for task in story.core.world().state.tasks.values().filter(|task| task.is_live()) {
        let ids = task.containers.values().filter_map(|row| row.runtime_id.as_ref());
        let views = ids.filter_map(|id| story.containers[&task.host].get(id)).map(|view| view.image.clone());
        bits.entry(task.revision.number).or_default().extend(views);
    }
    bits
}

#[test]
fn with_an_empty_database_what_runs_other_bits_is_of_another_revision() {
    for first in ["a", "b", "c"] {
        let mut story = half_way();
        lose_database(&mut story);
        let look = story.look_at(first, story.now);
        story.core.take(story.now, Input::Look(Arc::new(look)));
        let plan = story.decide(1_000, &[]);
        let of = |number: u32| (number, [format!("demo@{}", digest(number))].into());
        assert_eq!(bits(&story), BTreeMap::from([of(1), of(2)]), "{first} first");
        assert!(story.core.world().state.tasks.values().filter(|task| task.is_wanted()).count() >= 2);
        plan.actions.iter().for_each(|action| story.obey(action));
        story.settle(&[]);
        assert_eq!(run(&story), [(format!("demo@{}", digest(2)), 3)].into(), "the newest wins");
        assert_eq!(revisions(&story), [1, 2]);
    }
}

#[test]
fn what_comes_late_with_other_bits_than_its_revision_has_by_now_is_ended() {
    let mut story = half_way();
    story.settle(&[]);
    // One host is silent; the others' containers are gone with the database, and all begins anew.
    lose_database(&mut story);
    for host in ["a", "b"] {
        story.containers.get_mut(host).unwrap().clear();
    }
    let late = story.containers["c"].len();
    assert_eq!(late, 1);
    story.pushed.insert("demo:1".into(), 3);
    story.settle(&["c"]);
    story.pushed.insert("demo:1".into(), 4);
    restart(&mut story);
    story.settle(&["c"]);
    assert_eq!(revisions(&story), [1, 2]);
    story.decide(1_000, &[]).actions.iter().for_each(|action| story.obey(action));
    assert_eq!(revisions(&story), [1, 2], "it is no news for the others");
    story.settle(&[]);
    assert_eq!(run(&story), [(format!("demo@{}", digest(4)), 3)].into());
    let mut reasons = story.core.world().state.tasks.values().filter_map(|task| task.stopped_reason.as_deref());
    assert!(reasons.any(|words| words.contains("another image than the web:2")));
}

#[test]
fn what_shall_not_be_consistent_is_not_resolved() {
    let definition = json!({ "containerDefinitions": [
        { "name": "main", "image": "demo:1", "memory": 64, "versionConsistency": "disabled" }
    ] });
    let mut story = begin(web(2), definition);
    let actions = first(&mut story);
    assert_eq!(launched(&actions), ["demo:1".to_owned()].into());
}

/// The host that is asked anew, and what is said to be known.
fn asked_anew(plan: &roadstead_core::model::world::Plan) -> Vec<(String, Option<String>)> {
    let asked = plan.actions.iter().filter_map(|action| {
        let Verb::Resolve { images, .. } = &action.verb else { return None };
        Some((action.host.to_string(), images[0].last_digest.clone()))
    });
    asked.collect()
}

#[test]
fn anew_one_is_asked_who_can_be_heard_and_runs_what_the_service_wants() {
    let mut story = begin(web(2), one_container());
    story.settle(&[]);
    // Others' tasks, and those of before, are not asked through: not even the first by name.
    let live: Vec<_> = story.core.world().state.tasks.values().cloned().collect();
    story.go_on_with(|state| {
        for (id, service, number) in [("00-other", "other", 1), ("01-before", "web", 7)] {
            let mut task = (*live[0]).clone();
            (task.id, task.service, task.revision.number) = (id.into(), service.into(), number);
            task.host = "c".into();
            state.tasks.insert(task.id.clone(), Arc::new(task));
        }
    });
    restart(&mut story);
    let (first, second) = (&live[0], &live[1]);
    let plan = story.decide_once(1_000, &[first.host.as_str()]);
    assert_eq!(asked_anew(&plan), [(second.host.to_string(), Some(digest(1)))], "the first cannot be heard");
    let plan = story.decide_once(1_000, &[]);
    assert_eq!(asked_anew(&plan), [], "one is asked, and its answer awaited");
}

#[test]
fn what_was_loaded_by_hand_and_differs_from_host_to_host_is_told() {
    let mut story = Story::begin(web(3), one_container());
    story.settle(&[]);
    let said = |story: &mut Story, host: &str| -> Vec<String> {
        story.now = story.now.plus_ms(1_000);
        let changes = story.look(host, story.now);
        crate::looks::events(&changes).into_iter().map(|event| event.reason).collect()
    };
    story.go_on_with(|state| {
        for task in state.tasks.values_mut() {
            Arc::make_mut(task).containers.values_mut().for_each(|row| row.image_digest = None);
        }
    });
    story.decide(1_000, &["a", "b", "c"]);
    story.containers.get_mut("a").unwrap().values_mut().for_each(|view| view.error = "another look".into());
    assert_eq!(said(&mut story, "a"), [""; 0], "the same as where it was first asked for");
    for view in story.containers.get_mut("b").unwrap().values_mut() {
        view.image_id = "sha256:other".into();
    }
    assert_eq!(said(&mut story, "b"), ["ImageDiffers"]);
    assert_eq!(said(&mut story, "b"), [""; 0], "once");
}
