//! What one look at a host says of it and of its tasks, and what it does not say.

use std::{collections::BTreeSet, sync::Arc};

use roadstead_core::{
    model::{
        action::VerbName,
        container::{ContainerState, ContainerView},
        name::{HostName, TaskId},
        observed::{EngineIdentity, HostContact, HostObservation},
        ownership::Owner,
        state::{Change, Event, EventLevel, HostRecord, State},
        task::{DesiredStatus, LastStatus, Launch, StopCode, Task, TaskContainer},
        time::Timestamp,
    },
    plan::absorb::{Absorbed, observation},
    turn::{Command, Input},
};
use serde_json::{Value, json};

use super::story::{Story, one_container, web};

fn of(engine: &str, machine: Option<&str>) -> EngineIdentity {
    EngineIdentity { engine_id: engine.into(), machine_id: machine.map(str::to_owned), ..EngineIdentity::default() }
}

fn empty(host: &str, identity: EngineIdentity) -> Arc<HostObservation> {
    let at = Timestamp(1_700_000_100_000);
    Arc::new(HostObservation { host: host.into(), started_at: at, finished_at: at, identity, containers: [].into() })
}

#[test]
fn a_host_is_the_machine_that_it_was_and_no_other_one_is_the_same() {
    let mut story = Story::begin(web(0), one_container());
    story.add_host("new", "d");
    story.tell();
    let known = [
        ("a", of("engine-of-a-is-long", Some("machine-a"))),
        ("b", of("", Some("machine-b"))),
        ("c", of("engine-c", None)),
        ("gone", of("engine-gone", Some("machine-gone"))),
    ];
    story.go_on_with(|state| {
        for (name, identity) in known {
            let record = HostRecord { name: name.into(), identity: Some(identity), ..HostRecord::default() };
            state.hosts.insert(name.into(), record);
        }
    });
    let other = "it is another machine than before (engine";
    let rows = [
        ("a", of("engine-of-a-is-long", Some("machine-a")), None),
        ("a", of("engine-of-a-is-long", None), None),
        ("a", of("engine-of-b-is-long", Some("machine-a")), Some("(engine engine-of-b- instead of engine-of-a-)")),
        ("a", of("engine-of-b-is-long", Some("machine-x")), Some(other)),
        ("a", of("engine-of-a-is-long", Some("machine-x")), Some(other)),
        ("c", of("engine-c", Some("machine-c")), None),
        ("new", of("engine-new", Some("machine-new")), None),
        ("new", of("", None), None),
        ("new", of("engine-of-a-is-long", Some("machine-new")), Some("it has the identity of host a")),
        ("new", of("engine-new", Some("machine-b")), Some("it has the identity of host b")),
        ("new", of("engine-c", None), Some("it has the identity of host c")),
        ("new", of("engine-gone", Some("machine-gone")), None),
    ];
    for (host, identity, expected) in rows {
        let absorbed = observation(story.state(), &empty(host, identity.clone()), &BTreeSet::new());
        match (&absorbed.untrusted, expected) {
            (None, None) => {}
            (Some(reason), Some(words)) if reason.contains(words) => {
                assert_eq!(absorbed.changes, [], "{host} {identity:?}: not believed");
            }
            (untrusted, _) => panic!("{host} {identity:?}: {untrusted:?}"),
        }
    }
    // An engine that does not tell its machine's id does not make it forgotten.
    let absorbed = observation(story.state(), &empty("a", of("engine-of-a-is-long", None)), &BTreeSet::new());
    assert!(!absorbed.changes.iter().any(|change| matches!(change, Change::Host(_))), "{:?}", absorbed.changes);
}

#[test]
fn an_untrusted_host_is_told_of_once_and_asked_nothing_until_a_person_accepts_it() {
    let mut story = Story::begin(web(3), one_container());
    story.settle(&[]);
    story.identities.insert("a".into(), of("another", None));
    let mut told = Vec::new();
    for second in 0..20 {
        let changes = story.look("a", story.now);
        told.extend(events(&changes).into_iter().map(|event| (event.reason, event.level)));
        let contact = &story.core.world().contacts[&HostName::from("a")];
        assert!(contact.untrusted.is_some(), "{second}");
        let plan = story.decide(1_000, &["a"]);
        assert!(plan.actions.iter().all(|action| action.host != "a".into()), "{:?}", plan.actions);
    }
    assert_eq!(told, [("HostUntrusted".to_owned(), EventLevel::Warning)]);
    let repin = || Command::Repin { host: "a".into() };
    story.core.command(story.now, repin()).unwrap();
    assert_eq!(story.state().hosts[&HostName::from("a")].identity, None);
    story.look("a", story.now);
    assert_eq!(story.state().hosts[&HostName::from("a")].identity, Some(of("another", None)));
    story.settle(&[]);
    assert!(story.core.world().contacts[&HostName::from("a")].untrusted.is_none());
    assert_eq!(story.running(), 3);
}

#[test]
fn strangers_are_told_of_once_and_left_alone() {
    let mut story = Story::begin(web(1), one_container());
    story.settle(&[]);
    let like = story.containers.values().find_map(|on| on.values().next()).unwrap().clone();
    let mut add = |id: &str, owner: Owner| {
        let view = ContainerView { id: id.into(), name: id.into(), owner, ..like.clone() };
        story.containers.get_mut("a").unwrap().insert(id.into(), view);
    };
    add("forged", Owner::Forged);
    add("theirs", Owner::OtherFleet { fleet: "f00".into() });
    add("mine", Owner::Foreign);
    let said = |story: &mut Story| -> Vec<String> {
        let changes = story.look("a", story.now);
        events(&changes).into_iter().map(|event| event.message).collect()
    };
    let told = said(&mut story);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("container forged on a carries our labels without a valid digest"), "{told:?}");
    assert!(told[1].contains("container theirs on a belongs to another fleet (f00)"), "{told:?}");
    story.now = story.now.plus_ms(1_000);
    assert_eq!(said(&mut story), [""; 0], "once");
    story.settle(&[]);
    assert!(["forged", "theirs", "mine"].iter().all(|id| story.containers["a"].contains_key(*id)));
}

pub fn events(changes: &[Change]) -> Vec<Event> {
    changes
        .iter()
        .filter_map(|change| if let Change::Event(event) = change { Some(event.clone()) } else { None })
        .collect()
}

/// Two essential containers and one that the task can be without, on host `a`, all running; and their look.
pub struct Three {
    pub state: State,
    pub id: TaskId,
    pub look: HostObservation,
}

impl Three {
    pub fn begin() -> Self {
        Self::of(json!([
            { "name": "main", "image": "demo:1", "memory": 64 },
            { "name": "other", "image": "demo:1", "memory": 64 },
            { "name": "side", "image": "demo:1", "memory": 64, "essential": false },
        ]))
    }

    pub fn of(containers: Value) -> Self {
        let mut story = Story::begin(web(1), json!({ "containerDefinitions": containers }));
        story.desired.hosts.retain(|host, _| host.as_str() == "a");
        story.tell();
        story.settle(&[]);
        let look = story.look_at("a", story.now.plus_ms(60_000));
        let id = story.state().tasks.keys().next().unwrap().clone();
        Self { state: story.state().clone(), id, look }
    }

    pub fn edit(&mut self, change: impl FnOnce(&mut Task)) -> &mut Self {
        change(Arc::make_mut(self.state.tasks.get_mut(&self.id).unwrap()));
        self
    }

    pub fn row(&mut self, name: &str, change: impl FnOnce(&mut TaskContainer)) -> &mut Self {
        self.edit(|task| change(task.containers.get_mut(name).unwrap()))
    }

    pub fn view(&mut self, name: &str, change: impl FnOnce(&mut ContainerView)) -> &mut Self {
        let has_name = |view: &&mut ContainerView| view.owner.ours().unwrap().container.as_str() == name;
        change(self.look.containers.values_mut().find(has_name).unwrap());
        self
    }

    pub fn gone(&mut self, name: &str) -> &mut Self {
        self.look.containers.retain(|_, view| view.owner.ours().unwrap().container.as_str() != name);
        self
    }

    /// The look begins so long after the order, which nobody answered.
    pub fn issued_before(&mut self, ms: u64) -> &mut Self {
        let at = Timestamp(self.look.started_at.0 - ms);
        self.edit(|task| task.launch = Launch::Issued { at })
    }

    pub fn stopping(&mut self) -> &mut Self {
        let at = self.look.started_at;
        self.edit(|task| task.order_stop(at, StopCode::UserInitiated, "a person said so"))
    }

    pub fn taken_in(&mut self, launching: bool) -> Absorbed {
        let ids: BTreeSet<TaskId> = launching.then(|| self.id.clone()).into_iter().collect();
        let absorbed = observation(&self.state, &Arc::new(self.look.clone()), &ids.iter().collect());
        absorbed.changes.iter().for_each(|change| self.state.apply(change));
        absorbed
    }

    pub fn task(&self) -> &Task {
        &self.state.tasks[&self.id]
    }

    pub fn container(&self, name: &str) -> &TaskContainer {
        self.task().containers.get(name).unwrap()
    }
}

#[test]
fn absence_is_real_only_when_the_look_began_after_what_was_done() {
    for (later_ms, gone) in [(0, false), (1, true)] {
        let mut story = Three::begin();
        let answered = Timestamp(story.look.started_at.0 - later_ms);
        story.edit(|task| task.launch = Launch::Answered { at: answered });
        // Known by the answer, and never seen.
        story.row("main", |row| row.state = None).gone("main");
        story.taken_in(false);
        assert_eq!(story.container("main").runtime_id.is_none(), gone, "{later_ms} ms later");
        assert_eq!(story.task().is_wanted(), !gone, "{later_ms} ms later");
    }
}

#[test]
fn what_a_task_can_be_without_is_made_anew_and_does_not_end_it() {
    let mut story = Three::begin();
    story.gone("side").taken_in(false);
    assert!(story.task().is_wanted());
    let side = story.container("side");
    assert_eq!((side.state, side.runtime_id.as_ref()), (None, None), "it is to be made again");
    // What had ended is not; and before anything is certain, nothing is forgotten.
    let ended = |row: &mut TaskContainer| row.state = Some(ContainerState::Exited);
    let mut story = Three::begin();
    story.row("side", ended).gone("side").taken_in(false);
    let side = story.container("side");
    assert_eq!((side.state, side.runtime_id.as_ref()), (Some(ContainerState::Exited), None));
    let mut story = Three::begin();
    story.issued_before(1_000).row("side", ended).gone("side").taken_in(false);
    assert!(story.container("side").runtime_id.is_some());
    // Nor does the absence of an essential one that never ran.
    let mut story = Three::begin();
    story
        .issued_before(60_000)
        .row("main", |row| row.state = Some(ContainerState::Created))
        .gone("main")
        .taken_in(false);
    assert!(story.task().is_wanted(), "its launch may yet have happened");
    assert!(story.container("main").runtime_id.is_some());
}

#[test]
fn a_task_that_is_to_end_forgets_what_is_gone_only_once_nothing_can_appear() {
    for (since_ms, launching, forgotten) in
        [(10_000, false, false), (10_001, false, true), (60_000, true, false), (60_000, false, true)]
    {
        let mut story = Three::begin();
        story.issued_before(since_ms).stopping();
        for name in ["main", "other", "side"] {
            story.row(name, |row| row.state = Some(ContainerState::Created)).gone(name);
        }
        story.taken_in(launching);
        let is_forgotten = story.task().containers.values().all(|row| row.runtime_id.is_none());
        let is_over = story.task().last_status == LastStatus::Stopped;
        assert_eq!((is_forgotten, is_over), (forgotten, forgotten), "{since_ms} ms, under way: {launching}");
    }
}

#[test]
fn a_launch_without_an_answer_has_happened_when_all_that_was_asked_for_is_there() {
    let is_answered = |story: &Three| matches!(story.task().launch, Launch::Answered { .. });
    for (waits, standalone, launching, expected) in [
        (false, false, false, true),
        (true, false, false, true),
        (false, true, false, true),
        // Started once: until then a start may still be on its way.
        (true, true, false, false),
        (false, false, true, false),
    ] {
        let mut story = Three::begin();
        story.issued_before(1_000);
        if standalone {
            story.edit(|task| task.service = "family:web".into());
        }
        if waits {
            story.view("side", |view| view.state = ContainerState::Created);
        }
        story.taken_in(launching);
        assert_eq!(is_answered(&story), expected, "waits {waits}, standalone {standalone}, under way {launching}");
    }
    let mut story = Three::begin();
    story.issued_before(1_000).stopping().taken_in(false);
    assert!(!is_answered(&story), "of one that is to end, a start may still be on its way");
}

#[test]
fn a_task_is_over_when_its_last_container_ended_and_told_of_once() {
    let exited = |view: &mut ContainerView| (view.state, view.exit_code) = (ContainerState::Exited, Some(1));
    let definitions = json!([
        { "name": "main", "image": "demo:1", "memory": 64, "restartPolicy": { "enabled": false } },
        { "name": "other", "image": "demo:1", "memory": 64, "restartPolicy": { "enabled": false } },
    ]);
    let mut story = Three::of(definitions.clone());
    story.view("main", exited).taken_in(false);
    let task = story.task();
    assert_eq!((task.desired_status, task.last_status), (DesiredStatus::Stopped, LastStatus::Stopping));
    let mut story = Three::of(definitions);
    let absorbed = story.view("main", exited).view("other", exited).taken_in(false);
    assert_eq!(story.task().last_status, LastStatus::Stopped);
    let reasons = |absorbed: &Absorbed| -> Vec<String> {
        events(&absorbed.changes).into_iter().map(|event| event.reason).collect()
    };
    assert_eq!(reasons(&absorbed), ["TaskEnded", "TaskStopped", "DeploymentFailures"][..2]);
    let stopped_at = story.task().stopped_at;
    story.look.finished_at = story.look.finished_at.plus_ms(1_000);
    story.view("main", |view| view.error = "changed".into());
    let absorbed = story.taken_in(false);
    assert_eq!((story.task().stopped_at, reasons(&absorbed)), (stopped_at, vec![]));
}

#[test]
fn an_engine_has_restarted_a_container_when_it_says_so_and_it_began_anew() {
    let rows = [
        ("as it was", Some(0), 0, 0),
        ("begun anew by somebody else", Some(10), 0, 0),
        ("counted, and not begun yet", Some(0), 1, 0),
        ("begun anew", Some(10), 1, 1),
        ("first seen", None, 1, 0),
    ];
    for (what, later_ms, count, expected) in rows {
        let mut story = Three::begin();
        let began = story.container("main").started_at.unwrap();
        if later_ms.is_none() {
            story.row("main", |row| row.started_at = None);
        }
        story.view("main", |view| {
            view.started_at = Some(began.plus_ms(later_ms.unwrap_or_default()));
            view.restart_count = count;
        });
        story.taken_in(false);
        assert_eq!(story.task().restarts.len(), expected, "{what}");
    }
}

/// What ended with 0 in the look in which another of its task has begun anew was taken down with its engine, unless the
/// controller itself has started that other one again.
#[test]
fn what_ended_when_another_came_back_was_taken_down_unless_that_was_our_doing() {
    for (revived_ms, taken_down) in [(None, true), (Some(-1), true), (Some(0), false), (Some(1), false)] {
        let mut story = Three::begin();
        let began = story.container("main").started_at.unwrap();
        let revived = revived_ms.map(|ms| roadstead_core::model::task::Revived { times: 1, at: began.moved_ms(ms) });
        story.row("main", |row| row.revived = revived);
        story.view("main", |view| view.started_at = Some(began.plus_ms(10)));
        story.view("side", |view| (view.state, view.exit_code) = (ContainerState::Exited, Some(0)));
        story.taken_in(false);
        assert_eq!(story.container("side").taken_down, taken_down, "{revived_ms:?}");
    }
}

/// The first host that answers a controller that has just started would get everything.
#[test]
fn tasks_are_placed_once_every_host_was_looked_at_or_is_suspect() {
    for answers in [true, false] {
        let mut story = Story::begin(web(3), one_container());
        story.settle(&[]);
        story.go_on_with(|_| {});
        story.scale(9);
        let (restarted_at, mut launches, mut waited_ms) = (story.now, 0, 0);
        while launches == 0 {
            // Host c is being connected to.
            story.time_passes(500, &["c"]);
            let contact = HostContact { watched_since: restarted_at, ..HostContact::default() };
            story.contacts.insert("c".into(), contact);
            story.core.take(story.now, Input::Contacts(story.contacts.clone()));
            for host in ["a", "b"] {
                story.look(host, story.now);
            }
            if answers && waited_ms == 2_000 {
                story.time_passes(0, &[]);
                story.look("c", story.now);
            }
            let plan = story.plan();
            launches = plan.actions.iter().filter(|action| action.verb.name() == VerbName::Launch).count();
            waited_ms += 500;
            assert!(waited_ms < 10_000, "{:?}", plan.report.waiting);
        }
        let hosts: BTreeSet<HostName> = story.wanted().into_iter().map(|task| task.host).collect();
        match answers {
            true => assert_eq!((waited_ms, hosts.len()), (2_500, 3)),
            false => assert_eq!((waited_ms, hosts.len()), (5_000, 3), "c keeps what it has"),
        }
        let on_c = story.wanted().iter().filter(|task| task.host == "c".into()).count();
        assert_eq!(on_c, if answers { 3 } else { 1 });
    }
}
