//! What the answer to an order changes, and what an announced death does.

use std::collections::BTreeMap;

use roadstead_core::{
    model::{
        action::{ActionKey, ActionResult, Answer, VerbName},
        container::ContainerState,
        image::ResolvedImage,
        name::HostName,
        observed::Death,
        state::{Again, Change, EventLevel, ServiceRecord},
        task::{LastStatus, Launch, StopCode},
        time::Timestamp,
        volume::{VolumeId, VolumeRecord},
    },
    plan::absorb::{answer, death},
    turn::Input,
};
use serde_json::json;

use super::{
    looks::{Three, events},
    story::{Story, one_container, web},
};

const WHY: &str = "the engine says why";

fn told(story: &mut Three, verb: VerbName, result: ActionResult) -> Vec<String> {
    let at = story.look.started_at;
    let key = ActionKey { task: story.id.clone(), verb };
    let changes = answer(&story.state, &Answer { key, host: "a".into(), at, result });
    changes.iter().for_each(|change| story.state.apply(change));
    events(&changes).into_iter().map(|event| event.reason).collect()
}

fn failed() -> ActionResult {
    ActionResult::Failed { reason: WHY.into(), containers: Vec::new() }
}

fn partly() -> ActionResult {
    ActionResult::Partly { reason: WHY.into(), containers: Vec::new() }
}

fn removed() -> ActionResult {
    ActionResult::Removed { reason: WHY.into(), containers: Vec::new() }
}

fn again(story: &Three) -> Option<Again> {
    story.state.services["web"].again
}

#[test]
fn a_launch_that_fails_ends_what_never_ran_and_nothing_else() {
    for (status, result, wanted, said) in [
        (LastStatus::Pending, failed(), false, "TaskFailedToStart"),
        (LastStatus::Running, failed(), true, "ContainerFailedToStart"),
        (LastStatus::Pending, partly(), true, "ContainerFailedToStart"),
        (LastStatus::Running, partly(), true, "ContainerFailedToStart"),
    ] {
        let mut story = Three::begin();
        story.issued_before(1_000).edit(|task| task.last_status = status);
        let before = story.state.services["web"].consecutive_failures;
        assert!(told(&mut story, VerbName::Launch, result.clone()).contains(&said.to_owned()), "{status:?} {result:?}");
        assert_eq!(story.task().is_wanted(), wanted, "{status:?} {result:?}");
        assert!(matches!(story.task().launch, Launch::Answered { .. }), "{status:?} {result:?}");
        let counted = story.state.services["web"].consecutive_failures - before;
        assert_eq!(counted, u32::from(!wanted), "{status:?} {result:?}");
    }
}

#[test]
fn what_somebody_removed_before_it_was_started_ends_its_task_unless_that_runs_or_ends_already() {
    for (status, standalone, to_stop, ended) in [
        (LastStatus::Pending, false, false, true),
        (LastStatus::Pending, true, false, true),
        (LastStatus::Running, false, false, false),
        (LastStatus::Pending, false, true, false),
    ] {
        let mut story = Three::begin();
        story.issued_before(1_000).edit(|task| task.last_status = status);
        if standalone {
            story.edit(|task| task.service = "family:web".into());
        }
        if to_stop {
            story.stopping();
        }
        let said = told(&mut story, VerbName::Launch, removed());
        assert_eq!(!said.is_empty(), ended, "{status:?} {standalone} {to_stop}: {said:?}");
        assert_eq!(story.task().stop_code == Some(StopCode::TaskFailedToStart), ended);
        // Slowed down, and not counted against the revision; a standalone task is nobody's failure.
        let record = &story.state.services["web"];
        assert_eq!(record.consecutive_failures, u32::from(ended && !standalone), "{status:?} {standalone} {to_stop}");
        assert_eq!(record.deployments[0].failed_tasks, 0);
        assert_eq!(story.state.services.len(), 1);
    }
}

#[test]
fn who_cannot_say_what_images_stand_for_fails_a_task_that_waits_for_it_and_no_other() {
    let asked = |story: &mut Three| {
        let record = ServiceRecord { again: Some(Again::Resolve), ..story.state.services["web"].clone() };
        story.state.apply(&Change::Service(record));
    };
    let mut story = Three::begin();
    asked(&mut story);
    story.edit(|task| (task.launch, task.last_status) = (Launch::NotIssued, LastStatus::Provisioning));
    assert!(told(&mut story, VerbName::Resolve, failed()).contains(&"TaskFailedToStart".to_owned()));
    assert_eq!((story.task().last_status, again(&story)), (LastStatus::Stopped, Some(Again::Resolve)));

    for (sent, to_stop) in [(true, false), (true, true), (false, true)] {
        let mut story = Three::begin();
        asked(&mut story);
        if to_stop {
            story.stopping();
        }
        if !sent {
            story.edit(|task| task.launch = Launch::NotIssued);
        }
        let before = story.task().clone();
        // Its service is started anew with the images that it has.
        assert_eq!(told(&mut story, VerbName::Resolve, failed()), ["ImagesNotResolved"]);
        assert_eq!((story.task(), again(&story)), (&before, Some(Again::Restart)));
        assert_eq!(told(&mut story, VerbName::Resolve, failed()), [""; 0], "nobody is started anew");
    }
}

#[test]
fn other_content_found_at_a_restart_is_a_revision_of_that_moment_and_answers_the_restart() {
    let mut story = Three::begin();
    let made = story.state.revision(&story.task().revision).unwrap().created_at;
    let image = |number: u32| {
        let images = [("demo:1".to_owned(), ResolvedImage::Digest(format!("sha256:{number:0>64}")))].into();
        ActionResult::Resolved { images }
    };
    // First asked: the same revision.
    let mut revision = story.state.revision(&story.task().revision).unwrap().clone();
    revision.images = BTreeMap::new();
    story.state.apply(&Change::Revision(revision));
    assert_eq!(told(&mut story, VerbName::Resolve, image(1)), ["ImagesResolved"]);
    let first = story.state.revision(&story.task().revision).unwrap();
    assert_eq!((first.created_at, first.images.len()), (made, 1));

    let record = ServiceRecord { again: Some(Again::Resolve), ..story.state.services["web"].clone() };
    story.state.apply(&Change::Service(record));
    assert_eq!(told(&mut story, VerbName::Resolve, image(2)), ["ImagesResolved"]);
    let newest = story.state.revisions["web"].values().next_back().unwrap();
    assert_eq!((newest.id.number, newest.created_at, again(&story)), (2, story.look.started_at, None));
}

#[test]
fn an_old_copy_is_gone_when_its_own_removal_was_answered() {
    let mut story = Three::begin();
    for name in ["one", "two"] {
        let record = VolumeRecord {
            id: VolumeId { cluster: "default".into(), name: name.into() },
            host: "b".into(),
            service: "web".into(),
            created_at: Timestamp(1),
            last_used_by: None,
            last_used_at: None,
            moving: None,
            old_copy: Some("a".into()),
            restored_at: None,
        };
        story.state.apply(&Change::Volume(record));
    }
    let copies = |story: &Three| -> Vec<Option<HostName>> {
        story.state.volumes.values().map(|record| record.old_copy.clone()).collect()
    };
    let removal = story.state.volumes.values().next().unwrap().removal();
    let key = ActionKey { task: removal, verb: VerbName::Sweep };
    for (host, expected) in [("c", [Some("a".into()), Some("a".into())]), ("a", [None, Some("a".into())])] {
        let done = ActionResult::Done { containers: Vec::new() };
        let at = story.look.started_at;
        let changes = answer(&story.state, &Answer { key: key.clone(), host: host.into(), at, result: done });
        changes.iter().for_each(|change| story.state.apply(change));
        assert_eq!(copies(&story), expected, "answered by {host}");
    }
}

#[test]
fn of_several_on_a_host_the_one_that_died_ends() {
    let mut story = Story::begin(web(3), one_container());
    story.desired.hosts.retain(|host, _| host.as_str() == "a");
    story.tell();
    story.settle(&[]);
    let ids: Vec<_> = story.containers["a"].keys().cloned().collect();
    let (_, like) = story.death_on("a");
    for (dead, id) in ids.into_iter().rev().enumerate() {
        let death = Death { id: id.clone(), at: story.now, heard_at: story.now, ..like.clone() };
        story.core.take(story.now, Input::Died(death));
        let ended: Vec<_> = story.state().tasks.values().filter(|task| task.stop_code.is_some()).collect();
        assert_eq!(ended.len(), dead + 1);
        assert!(ended.iter().any(|task| task.containers.values().any(|row| row.runtime_id.as_ref() == Some(&id))));
    }
}

#[test]
fn the_end_of_a_standalone_task_that_ended_well_is_no_warning() {
    for (standalone, code, level) in [
        (true, Some(0), EventLevel::Normal),
        (true, Some(1), EventLevel::Warning),
        (true, None, EventLevel::Warning),
        (false, Some(0), EventLevel::Warning),
    ] {
        let mut story = Three::begin();
        if standalone {
            story.edit(|task| task.service = "family:web".into());
        }
        let at = story.look.started_at;
        let id = story.container("main").runtime_id.clone().unwrap();
        let news = Death { host: "a".into(), id, at, heard_at: at, exit_code: code, for_good: true };
        let (_, changes) = death(&story.state, &news).expect("it is news");
        assert_eq!(events(&changes).last().map(|event| event.level), Some(level), "{standalone} {code:?}");

        // The same when a look shows it first; one that somebody removed did not end well.
        let ended = |view: &mut roadstead_core::model::container::ContainerView| {
            (view.state, view.exit_code) = (ContainerState::Exited, code);
        };
        let absorbed = match code {
            Some(_) => story.view("main", ended).view("other", ended).taken_in(false),
            None => story.gone("main").taken_in(false),
        };
        let told = events(&absorbed.changes).into_iter().find(|event| event.reason == "TaskEnded");
        assert_eq!(told.map(|event| event.level), Some(level), "{standalone} {code:?}");
    }
}

/// What failed together with the last failure is not another attempt.
#[test]
fn a_death_is_another_attempt_unless_the_last_failure_was_there_and_since_then() {
    for (host, since_created_ms, attempts) in [("a", 0, 1), ("a", -1, 2), ("b", 0, 2)] {
        let mut story = Three::begin();
        story.edit(|task| task.healthy_at = None);
        let failed_at = story.task().created_at.moved_ms(since_created_ms);
        let mut record = story.state.services["web"].clone();
        (record.consecutive_failures, record.failures) = (1, vec![(failed_at, host.into())]);
        story.state.apply(&Change::Service(record));
        let at = story.look.started_at;
        let id = story.container("main").runtime_id.clone().unwrap();
        let news = Death { host: "a".into(), id, at, heard_at: at, exit_code: Some(1), for_good: true };
        let (_, changes) = death(&story.state, &news).expect("it is news");
        changes.iter().for_each(|change| story.state.apply(change));
        assert_eq!(story.state.services["web"].consecutive_failures, attempts, "on {host} {since_created_ms}");
    }
}

#[test]
fn a_look_says_more_of_an_announced_death_only_if_it_knows_more() {
    for (oom_killed, words) in [(false, "was killed (exit code 137)"), (true, "used more memory than its limit")] {
        let mut story = Three::begin();
        let at = story.look.started_at;
        let id = story.container("main").runtime_id.clone().unwrap();
        let news = Death { host: "a".into(), id, at, heard_at: at, exit_code: Some(137), for_good: true };
        let (_, changes) = death(&story.state, &news).expect("it is news");
        changes.iter().for_each(|change| story.state.apply(change));
        story.view("main", |view| {
            (view.state, view.exit_code, view.oom_killed) = (ContainerState::Exited, Some(137), oom_killed);
        });
        story.taken_in(false);
        let reason = story.task().stopped_reason.clone().unwrap();
        assert!(reason.ends_with(words), "{reason}");
    }
    // Nor of one that a person stopped.
    let mut story = Three::begin();
    story.stopping().view("main", |view| {
        (view.state, view.exit_code, view.oom_killed) = (ContainerState::Exited, Some(137), true);
    });
    story.taken_in(false);
    assert_eq!(story.task().stopped_reason.as_deref(), Some("a person said so"));
    assert_eq!(json!(story.task().stop_code), json!("UserInitiated"));
}

/// A task that ended soon after it was first healthy failed, too; a standalone one fails nobody.
#[test]
fn an_early_end_is_a_failed_start_of_its_service() {
    for (healthy_ms, standalone, known, counted) in [
        (None, false, true, 1),
        (Some(9_999), false, true, 1),
        (Some(10_000), false, true, 0),
        (None, true, true, 0),
        (None, false, false, 1),
    ] {
        let mut story = Three::begin();
        let at = story.look.finished_at;
        story.edit(|task| {
            task.healthy_at = healthy_ms.map(|ms| Timestamp(at.0 - ms));
            if standalone {
                task.service = "family:web".into();
            }
        });
        if !known {
            story.state.services.clear();
        }
        story.gone("main").taken_in(false);
        assert_eq!(story.task().stop_code, Some(StopCode::EssentialContainerExited));
        let records: Vec<_> = story.state.services.values().collect();
        assert!(records.iter().all(|record| record.name.as_str() == "web"), "{records:?}");
        let failures: u32 = records.iter().map(|record| record.consecutive_failures).sum();
        assert_eq!(failures, counted, "{healthy_ms:?} {standalone} {known}");
    }
}
