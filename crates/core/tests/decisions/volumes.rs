//! Tasks that follow their data, volumes that move, and what ended tasks leave behind.

use std::collections::BTreeSet;

use roadstead_core::turn::{Command, CommandError, Core, Input};
use roadstead_core::{
    model::{
        action::{ActionResult, VerbName},
        container::ContainerState,
        name::HostName,
        state::State,
        task::{DesiredStatus, LastStatus, Task},
        volume::{VolumeClaim, VolumeId, VolumeRecord, VolumesSeen},
    },
    plan::{
        absorb::{Copied, CopyDone, CopyFailed, VolumeVerb},
        forecast::forecast,
    },
};
use serde_json::{Value, json};

use super::story::{Story, one_container, web};

pub fn id() -> VolumeId {
    VolumeId { cluster: "default".into(), name: "data".into() }
}

pub fn database(image: &str, scope: &str) -> Value {
    let docker = match scope {
        "shared" => json!({ "scope": "shared", "autoprovision": true }),
        _ => json!({ "scope": "task" }),
    };
    json!({
        "containerDefinitions": [{
            "name": "main", "image": image, "memory": 64,
            "mountPoints": [{ "sourceVolume": "data", "containerPath": "/data" }],
        }],
        "volumes": [{ "name": "data", "dockerVolumeConfiguration": docker }],
    })
}

/// One task with a volume of its own, at rest; and its host.
pub fn at_rest() -> (Story, HostName) {
    let mut story = Story::begin(web(1), database("db:1", "shared"));
    story.settle(&[]);
    let host = only(&story).host;
    assert_eq!(story.record().host, host);
    (story, host)
}

pub fn only(story: &Story) -> Task {
    let tasks = story.live_tasks();
    assert_eq!(tasks.len(), 1, "{tasks:#?}");
    tasks.into_iter().next().unwrap()
}

impl Story {
    pub fn record(&self) -> VolumeRecord {
        self.state().volumes[&id()].clone()
    }

    pub fn live_tasks(&self) -> Vec<Task> {
        self.state().tasks.values().filter(|task| task.is_live()).map(|task| (**task).clone()).collect()
    }

    pub fn say(&mut self, verb: VolumeVerb) -> Result<String, CommandError> {
        let command = Command::Volume { volume: id(), verb };
        self.core.command(self.now, command).map(|(words, _)| words)
    }

    pub fn copied(&mut self, since: &VolumeRecord, result: Result<(), CopyFailed>) {
        let since = since.moving.as_ref().unwrap().since;
        let result = result.map(|()| CopyDone { bytes: 1_024, sha256: "ab".into() });
        self.core.take(self.now, Input::Copied(Copied { id: id(), since, at: self.now, result }));
    }

    pub fn others(&self, host: &HostName) -> Vec<String> {
        self.containers.keys().filter(|other| *other != host).map(ToString::to_string).collect()
    }
}

#[test]
fn a_new_revision_starts_where_the_data_is_after_the_old_one_is_gone() {
    let (mut story, home) = at_rest();
    let old = only(&story).id;
    story.desired.task_definitions.get_mut("web").unwrap().spec =
        serde_json::from_value::<roadstead_core::model::spec::TaskDefinitionSpec>(database("db:2", "shared"))
            .unwrap()
            .into();
    story.tell();
    for _ in 0..60 {
        let plan = story.decide(1_000, &[]);
        let launched = plan.actions.iter().filter(|action| action.verb.name() == VerbName::Launch).count();
        assert!(launched == 0 || !story.state().tasks[&old].is_live(), "never two at once");
        plan.actions.iter().for_each(|action| story.obey(action));
    }
    let new = only(&story);
    assert_ne!(new.id, old);
    assert_eq!(new.host, home);
    assert_eq!(story.record().last_used_by, Some(new.id));
}

#[test]
fn a_lost_host_is_waited_for_and_a_drained_one_keeps_its_task() {
    let (mut story, home) = at_rest();
    let task = only(&story).id;
    story.settle(&[home.as_str()]);
    assert_eq!(only(&story).id, task);
    assert_eq!(only(&story).desired_status, DesiredStatus::Running);
    let lost = format!("host {home} is lost and is waited for: the data of volume data is there");
    assert!(story.waiting().contains(&lost), "{}", story.waiting());
    story.settle(&[]);
    let drain = Command::SetSchedulability {
        host: home.clone(),
        to: roadstead_core::model::state::Schedulability::Draining,
        timeout_s: None,
    };
    story.core.command(story.now, drain).unwrap();
    story.settle(&[]);
    assert_eq!(only(&story).id, task);
    let stays = format!("it stays on {home}, which takes no new tasks: the data of volume data is there");
    assert!(story.waiting().contains(&stays), "{}", story.waiting());
}

#[test]
fn without_its_task_the_volume_keeps_its_host_also_while_that_is_away() {
    let (mut story, home) = at_rest();
    let scale = |story: &mut Story, count: u32, silent: &[&str]| {
        story.desired.services.get_mut("web").unwrap().spec.desired_count = count;
        story.tell();
        story.settle(silent);
    };
    scale(&mut story, 0, &[]);
    assert!(story.live_tasks().is_empty());
    scale(&mut story, 1, &[home.as_str()]);
    assert!(story.live_tasks().is_empty(), "{:?}", story.live_tasks());
    let elsewhere = format!("the data of volume data is on {home}, which takes no tasks just now");
    assert!(story.waiting().contains(&elsewhere), "{}", story.waiting());
    story.settle(&[]);
    assert_eq!(only(&story).host, home);
    scale(&mut story, 3, &[]);
    let hosts: BTreeSet<HostName> = story.live_tasks().into_iter().map(|task| task.host).collect();
    assert_eq!(hosts, BTreeSet::from([home]), "they share what has one place");
}

#[test]
fn several_tasks_from_the_start_have_a_volume_on_each_host() {
    let mut story = Story::begin(web(3), database("db:1", "shared"));
    story.settle(&[]);
    let hosts: BTreeSet<HostName> = story.live_tasks().into_iter().map(|task| task.host).collect();
    assert_eq!(hosts.len(), 3);
    assert!(story.state().volumes.is_empty());
}

#[test]
fn with_an_empty_database_the_data_is_found_by_the_task_or_by_its_labels() {
    for runs in [true, false] {
        let (mut story, home) = at_rest();
        story.core = Core::new(State::default(), 2, story.now, false).0;
        if !runs {
            story.containers.values_mut().for_each(|containers| containers.clear());
        }
        story.tell();
        story.settle(&[]);
        assert_eq!((story.record().host, only(&story).host), (home.clone(), home));
    }
}

#[test]
fn a_volume_without_a_record_is_not_made_anew_while_a_host_may_have_it() {
    let (mut story, home) = at_rest();
    story.core = Core::new(State::default(), 2, story.now, false).0;
    story.containers.values_mut().for_each(|containers| containers.clear());
    story.tell();
    story.settle(&[home.as_str()]);
    assert!(story.live_tasks().is_empty());
    let asked = format!("{home} was not asked for its volumes yet, and may have the data of data");
    assert!(story.waiting().contains(&asked), "{}", story.waiting());
    let other = story.others(&home).remove(0);
    story.say(VolumeVerb::Pin { host: other.as_str().into() }).unwrap();
    story.settle(&[home.as_str()]);
    assert_eq!(only(&story).host.as_str(), other);
}

#[test]
fn a_volume_moves_in_stages_and_the_old_copy_goes_last() {
    let (mut story, home) = at_rest();
    let to: HostName = story.others(&home).remove(0).into();
    let old = only(&story).id;
    story.say(VolumeVerb::Move { to: to.clone() }).unwrap();
    let asked = story.record();
    // An answer before anything was stopped is none.
    story.copied(&asked, Ok(()));
    assert_eq!(story.record().host, home);
    story.settle(&[]);
    assert!(story.live_tasks().is_empty(), "nothing runs while it is copied");
    assert!(!story.state().tasks[&old].is_live());
    story.copied(&asked, Ok(()));
    assert_eq!((story.record().host, story.record().old_copy), (to.clone(), Some(home.clone())));
    let plan = story.decide(1_000, &[]);
    assert!(plan.actions.iter().all(|action| action.verb.name() != VerbName::Sweep), "not proven yet");
    let forecast = forecast(story.core.world());
    let sweeps = forecast.actions.iter().filter(|action| action.verb.name() == VerbName::Sweep).count();
    assert_eq!(sweeps, 1, "foreseen, and once");
    plan.actions.iter().for_each(|action| story.obey(action));
    story.settle(&[]);
    assert_eq!(only(&story).host, to);
    assert_eq!(story.record().old_copy, None);
    assert!(!story.volumes[&home].contains_key("data"), "the old copy is removed in the end");
    assert!(story.volumes[&to].contains_key("data"));
}

#[test]
fn a_move_that_fails_or_is_cancelled_leaves_everything_where_it_was() {
    let failed = |for_good| Err(CopyFailed { reason: "no space left".into(), for_good });
    for how in ["for good", "again and again", "cancelled"] {
        let (mut story, home) = at_rest();
        let to: HostName = story.others(&home).remove(0).into();
        story.say(VolumeVerb::Move { to }).unwrap();
        story.settle(&[]);
        let asked = story.record();
        match how {
            "for good" => story.copied(&asked, failed(true)),
            "cancelled" => drop(story.say(VolumeVerb::CancelMove).unwrap()),
            _ => (0..4).for_each(|_| story.copied(&asked, failed(false))),
        }
        assert_eq!(story.record().moving, None, "{how}");
        story.copied(&asked, Ok(()));
        story.settle(&[]);
        assert_eq!((only(&story).host, story.record().host), (home.clone(), home), "{how}");
    }
}

#[test]
fn a_restore_stops_what_has_the_volume_and_goes_on_until_it_is_whole() {
    let (mut story, home) = at_rest();
    let failed = |for_good| Err(CopyFailed { reason: "no space left".into(), for_good });
    let restore = || VolumeVerb::Restore { from: "rs-restore-data".into() };
    // What failed keeps its container for a while, and that has the volume.
    for view in story.containers.get_mut(&home).unwrap().values_mut() {
        (view.state, view.exit_code) = (ContainerState::Exited, Some(1));
    }
    story.settle(&[]);
    assert_eq!((story.containers[&home].len(), story.running()), (2, 1));

    story.say(restore()).unwrap();
    let asked = story.record();
    assert!(story.say(restore()).is_err(), "one after the other");
    story.copied(&asked, Ok(()));
    assert_eq!(story.record().restored_at, None, "its task may still write");
    story.settle(&[]);
    assert!(story.live_tasks().is_empty() && story.containers[&home].is_empty(), "{:?}", story.containers);
    (0..10).for_each(|_| story.copied(&asked, failed(false)));
    story.settle(&[]);
    assert!(story.record().moving.is_some() && story.live_tasks().is_empty(), "half of it is no data to start on");
    // Half of it would be found, and taken for whole.
    for verb in [VolumeVerb::CancelMove, VolumeVerb::Forget] {
        let refused = story.say(verb).unwrap_err().to_string();
        assert!(refused.contains("the data of volume data is being replaced"), "{refused}");
    }
    story.copied(&asked, Ok(()));
    assert_eq!((story.record().moving, story.record().restored_at), (None, Some(story.now)));
    story.settle(&[]);
    assert_eq!((only(&story).host, story.record().host), (home.clone(), home));
}

#[test]
fn a_restore_that_cannot_begin_changes_nothing() {
    let restore = || VolumeVerb::Restore { from: "rs-restore-data".into() };
    let (mut story, home) = at_rest();
    story.settle(&[home.as_str()]);
    let refused = story.say(restore()).unwrap_err();
    assert!(refused.to_string().contains("nobody can tell whether a task there still writes"), "{refused}");
    story.settle(&[]);
    story.say(restore()).unwrap();
    story.say(VolumeVerb::CancelMove).unwrap();
    story.settle(&[]);
    assert_eq!((only(&story).host, story.record().restored_at), (home, None));
    story.say(restore()).unwrap();
    let asked = story.record();
    story.settle(&[]);
    story.copied(&asked, Err(CopyFailed { reason: "it is gone".into(), for_good: true }));
    story.settle(&[]);
    assert_eq!((only(&story).host, story.record().moving), (asked.host, None));
}

#[test]
fn an_old_copy_on_a_host_that_is_gone_says_how_to_go_on() {
    let (mut story, home) = at_rest();
    let others: Vec<HostName> = story.others(&home).iter().map(|name| name.as_str().into()).collect();
    story.say(VolumeVerb::Move { to: others[0].clone() }).unwrap();
    let asked = story.record();
    story.settle(&[]);
    story.copied(&asked, Ok(()));
    story.settle(&[home.as_str()]);
    let refused = story.say(VolumeVerb::Move { to: others[1].clone() }).unwrap_err().to_string();
    assert!(refused.contains(&format!("roadstead volume pin data --host {}", others[0])), "{refused}");
    story.say(VolumeVerb::Pin { host: others[0].clone() }).unwrap();
    story.say(VolumeVerb::Move { to: others[1].clone() }).unwrap();
}

#[test]
fn a_move_waits_for_the_tasks_of_a_silent_host() {
    let (mut story, home) = at_rest();
    let to: HostName = story.others(&home).remove(0).into();
    story.settle(&[home.as_str()]);
    story.say(VolumeVerb::Move { to }).unwrap();
    let asked = story.record();
    story.settle(&[home.as_str()]);
    story.copied(&asked, Ok(()));
    assert_eq!(story.record().host, home, "its task may still write");
    assert!(story.say(VolumeVerb::Forget).is_err());
}

#[test]
fn what_an_ended_task_left_behind_is_swept_and_nothing_else() {
    let mut story = Story::begin(web(1), database("db:1", "task"));
    story.settle(&[]);
    let task = only(&story);
    let name = format!("rs-task-{}-data", task.id);
    let seen = story.volumes[&task.host].clone();
    assert!(seen.contains_key(&name), "{seen:?}");
    // One of a task that was forgotten long ago, and data that stays.
    let claim = VolumeClaim::Task { task: "00000000000000aa".into(), service: "web".into() };
    let left = story.volumes.get_mut(&task.host).unwrap();
    left.insert("rs-task-00000000000000aa-data".into(), claim);
    left.insert("kept".into(), VolumeClaim::Shared { cluster: "default".into(), moved_at: None });
    story.settle(&[]);
    let names: Vec<&String> = story.volumes[&task.host].keys().collect();
    assert_eq!(names, ["kept", name.as_str()]);
    story.containers.values_mut().for_each(|containers| containers.clear());
    story.settle(&[]);
    assert!(!story.volumes[&task.host].contains_key(&name), "its containers were removed by somebody");
}

#[test]
fn what_is_left_is_swept_again_after_a_failure_and_only_when_no_container_is_left() {
    let mut story = Story::begin(web(1), one_container());
    story.settle(&[]);
    let live = only(&story);
    let leave = |story: &mut Story, task: &str| {
        let claim = VolumeClaim::Task { task: task.into(), service: "web".into() };
        story.volumes.get_mut(&live.host).unwrap().insert(format!("rs-task-{task}-data"), claim);
    };
    for (last_status, has_container) in [(LastStatus::Stopped, true), (LastStatus::Running, false)] {
        let mut story = Story::begin(web(0), one_container());
        story.settle(&[]);
        let now = story.now;
        story.go_on_with(|state| {
            let mut task = Task { id: "kept".into(), last_status, ..live.clone() };
            task.stopped_at = Some(now);
            if !has_container {
                task.containers.values_mut().for_each(|row| row.runtime_id = None);
            }
            state.tasks.insert(task.id.clone(), std::sync::Arc::new(task));
        });
        leave(&mut story, "kept");
        let mut world = story.core.world_at(story.now);
        world.contacts = story.contacts.clone().into();
        for contact in (*world.contacts).values_mut() {
            contact.looked_at = Some(story.now);
        }
        let seen = VolumesSeen { started_at: story.now, volumes: story.volumes[&live.host].clone() };
        world.volumes = [(live.host.clone(), seen)].into_iter().collect();
        let plan = roadstead_core::plan::plan(&world);
        assert!(plan.actions.iter().all(|action| action.verb.name() != VerbName::Sweep), "{last_status:?}");
    }

    leave(&mut story, "gone");
    let sweeps = |plan: &roadstead_core::model::world::Plan| {
        plan.actions.iter().filter(|action| action.verb.name() == VerbName::Sweep).cloned().collect::<Vec<_>>()
    };
    let plan = story.decide(1_000, &[]);
    let ordered = sweeps(&plan);
    assert_eq!(ordered.len(), 1);
    let mut before = story.core.world().clone();
    before.in_flight = Default::default();
    assert_eq!(sweeps(&forecast(&before)).len(), 1, "foreseen, and once");
    story.answer(&ordered[0], ActionResult::NotSent { reason: "no connection".into() });
    let (again_at, _) = story.core.world().retry_at[&ordered[0].key()].clone();
    story.decide(1, &[]);
    let plan = story.decide(again_at.since_ms(story.now) - 1, &[]);
    assert_eq!((sweeps(&plan).len(), plan.wake_at), (0, Some(again_at)));
    let plan = story.decide(1, &[]);
    assert_eq!(sweeps(&plan).len(), 1);
}
