//! The real controller kills itself at each of its crash points; the next one carries on, and Docker tells how it ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::process::ExitStatusExt,
    process::Command,
    thread,
    time::{Duration, Instant, SystemTime},
};

use roadstead_control::{
    crash_point::{Point, VARIABLE},
    store::Store,
};
use serde_json::Value;

use crate::{
    pulls::Registry,
    socket::{self, Found},
    support::{Controller, Lab, MINUTE, throughout, until, web},
};

/// What happens while it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Story {
    /// There is no data folder and no service yet.
    FirstStart,
    /// Nothing changes.
    Restart,
    /// The database is gone.
    DatabaseLost,
    /// More tasks are wanted since it was away.
    Meanwhile,
    ScaleOut,
    ScaleIn,
    NewRevision,
    /// A new revision whose image only the registry has.
    NewImage,
    /// A container is killed.
    Kill,
    /// A host is drained.
    Drain,
    /// A container that is not ours bears the name of one that is to be made.
    NameTaken,
    /// It is told to stop.
    Stop,
}

use Point::{
    AnswerTaken, Answered, BeforeCreate, BeforePull, BeforeRemove, BeforeStart, BeforeStop, CommandCommitted,
    CommandTaken, Connected, Connecting, Created, DatabaseOpened, DeathHeard, DeathTaken, DecisionWritten,
    EpochCommitted, EventHeard, Identified, KeyWritten, Listed, Locked, LookTaken, ManifestsAdmitted, ManifestsRead,
    ManifestsTaken, Migrated, NameInspected, OrdersCommitted, OrdersDecided, OrdersSent, Pulled, Removed, Started,
    StateLoaded, Stopped, Stopping,
};
use Story::{
    DatabaseLost, Drain, FirstStart, Kill, Meanwhile, NameTaken, NewImage, NewRevision, Restart, ScaleIn, ScaleOut,
    Stop,
};

/// Where it dies, when it passes for the how manieth time, in which stories: each reaches the point for sure.
const TABLE: &[(Point, u32, &[Story])] = &[
    (Locked, 1, &[FirstStart]),
    (DatabaseOpened, 1, &[FirstStart]),
    (Migrated, 1, &[FirstStart]),
    (KeyWritten, 1, &[FirstStart]),
    (StateLoaded, 1, &[FirstStart, Restart]),
    (EpochCommitted, 1, &[Restart, DatabaseLost]),
    (DatabaseOpened, 1, &[DatabaseLost]),
    (Migrated, 1, &[DatabaseLost]),
    (Connecting, 2, &[Restart]),
    (Connected, 2, &[Restart, DatabaseLost]),
    (Identified, 2, &[Restart]),
    (Listed, 2, &[DatabaseLost]),
    (LookTaken, 3, &[Restart, DatabaseLost]),
    (ManifestsRead, 1, &[Meanwhile]),
    (ManifestsAdmitted, 1, &[Meanwhile]),
    (ManifestsTaken, 1, &[Meanwhile, DatabaseLost]),
    (EventHeard, 1, &[ScaleOut, Kill]),
    (DeathHeard, 1, &[Kill]),
    (DeathTaken, 1, &[Kill]),
    (CommandTaken, 1, &[Drain]),
    (CommandCommitted, 1, &[Drain]),
    (OrdersDecided, 1, &[ScaleOut, ScaleIn, NewRevision, Kill, Drain]),
    (DecisionWritten, 1, &[ScaleOut, ScaleIn, NewRevision, Drain]),
    (OrdersCommitted, 1, &[ScaleOut, ScaleIn, NewRevision, Kill, Drain]),
    (OrdersSent, 1, &[ScaleOut, ScaleIn, NewRevision, Drain]),
    (BeforeCreate, 2, &[ScaleOut, NewRevision]),
    (BeforeCreate, 1, &[Kill, Drain]),
    (BeforePull, 1, &[NewImage]),
    (Pulled, 2, &[NewImage]),
    (Point::NameTaken, 1, &[NameTaken]),
    (NameInspected, 1, &[NameTaken]),
    (Created, 1, &[ScaleOut, Kill, Drain]),
    (Created, 2, &[NewRevision]),
    (BeforeStart, 1, &[ScaleOut, NewRevision, Drain]),
    (Started, 1, &[ScaleOut, Kill, Drain]),
    (Started, 2, &[NewRevision]),
    (BeforeStop, 1, &[ScaleIn, NewRevision, Drain]),
    (Stopped, 1, &[ScaleIn, NewRevision, Drain]),
    (BeforeRemove, 1, &[ScaleIn, NewRevision, Drain]),
    (Removed, 2, &[ScaleIn, NewRevision]),
    (Removed, 1, &[Drain]),
    (Answered, 1, &[ScaleOut, ScaleIn, NewRevision, Drain]),
    (AnswerTaken, 1, &[ScaleOut, ScaleIn, NewRevision, Drain]),
    (Stopping, 1, &[Stop]),
];

/// How many tasks there are before a scale-out, and after it.
const FEW: u32 = 4;
const MANY: u32 = 6;

#[test]
fn every_point_has_a_story() {
    let told: BTreeSet<Point> = TABLE.iter().map(|(point, ..)| *point).collect();
    let missing: Vec<&Point> = Point::ALL.iter().filter(|point| !told.contains(point)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_point_that_does_not_exist_is_refused_and_the_others_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_roadstead"))
        .env(VARIABLE, "nowhere")
        .args(["controller", "--manifests"])
        .arg(folder.path())
        .arg("--data")
        .arg(folder.path().join("data"))
        .arg("--listen")
        .arg(format!("unix:{}", folder.path().join("socket").display()))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8_lossy(&output.stderr);
    for point in Point::ALL {
        assert!(words.contains(point.name()), "{}: {words}", point.name());
    }
}

#[test]
#[ignore = "needs a lab"]
fn killed_at_each_crash_point_the_next_controller_carries_on() {
    let mut fleet = Fleet::up();
    let only = std::env::var("CRASH_POINT").ok();
    let told = TABLE.iter().filter(|(point, ..)| only.as_deref().is_none_or(|only| only == point.name()));
    for (point, nth, story) in
        told.flat_map(|(point, nth, stories)| stories.iter().map(move |story| (point, nth, story)))
    {
        fleet.suit(*story);
        let began = Instant::now();
        fleet.survives(*point, *nth, *story);
        eprintln!("{}:{nth}, {story:?}: {:.1?}", point.name(), began.elapsed());
    }
    throughout("it stays at rest", 3 * SECOND, || fleet.running() == fleet.rest && fleet.wrong().is_none());
}

const SECOND: Duration = Duration::from_secs(1);

/// id → host and when it was started.
type Running = BTreeMap<String, (&'static str, String)>;

/// What the story did, and by it what must have become of what ran before.
#[derive(Default)]
struct Told {
    killed: BTreeSet<String>,
    /// Host and id.
    foreign: Option<(&'static str, String)>,
}

/// The lab, the controller on it, and what is wanted.
struct Fleet {
    controller: Controller,
    registry: Registry,
    lab: Lab,
    count: u32,
    /// What tells two revisions apart.
    revision: u32,
    images: u32,
    image: String,
    drained: Option<&'static str>,
    /// What ran when it last came to rest.
    rest: Running,
}

impl Fleet {
    fn up() -> Self {
        let lab = Lab::up("points");
        let controller = Controller::new(&lab, &[]);
        let registry = Registry::start(&lab);
        let image = "roadstead/demo:1".to_owned();
        Self { controller, registry, lab, count: 0, revision: 1, images: 0, image, drained: None, rest: Running::new() }
    }

    /// So many tasks as the story begins with.
    fn suit(&mut self, story: Story) {
        let count = match story {
            FirstStart => 0,
            Meanwhile | ScaleOut | NameTaken => FEW,
            ScaleIn => MANY,
            Restart | DatabaseLost | NewRevision | NewImage | Kill | Drain | Stop => self.count.max(FEW),
        };
        if self.count == count {
            return;
        }
        self.count = count;
        self.declare();
        if !self.controller.is_launched() {
            self.controller.launch();
        }
        self.come_to_rest("before the story");
    }

    fn declare(&self) {
        let text = web(self.count).replace("roadstead/demo:1", &self.image).replace(
            "memory: 16,",
            &format!("memory: 16, environment: [{{ name: REVISION, value: '{}' }}],", self.revision),
        );
        self.controller.write("web.yaml", &text);
    }

    /// Dies at the point, and is looked at again when the next controller is at rest.
    fn survives(&mut self, point: Point, nth: u32, story: Story) {
        let what = format!("{}:{nth}, {story:?}", point.name());
        let before = self.running();
        assert_eq!(before, self.rest, "{what}: nothing changed since the last story");
        let since = unix_time();
        self.controller.kill();
        let mut told = Told::default();
        self.prepare(&what, story, &mut told);
        self.controller.launch_to_crash(&format!("{}:{nth}", point.name()));
        if self.is_told_live(story) {
            until(&format!("{what}: the controller answers"), MINUTE, || {
                assert!(self.controller.ended().is_none(), "{what}: it died before the story began");
                self.controller.answers()
            });
            self.tell(story, &before, &mut told);
        }
        self.dies(&what, story, &before, &mut told);
        assert!(self.controller.log().contains("crash point reached"), "{what}: by itself");

        self.controller.launch();
        if let Some(host) = self.drained {
            // Whether the order was taken before it died is left open.
            self.controller.cli(&["host", "drain", host]);
        }
        // The manifests are read, and what they ask for is decided.
        until(&format!("{what}: the next controller answers"), MINUTE, || self.controller.answers());
        self.controller.try_cli(&["rollout", "status", "web", "--wait", "--timeout", "60"]);
        self.come_to_rest(&what);
        self.check(&what, story, &before, &told);
        self.check_ways(&what, story, &before, &told, since);
        if let Some(host) = self.drained.take() {
            self.controller.cli(&["host", "uncordon", host]);
        }
        if let Some((host, id)) = told.foreign {
            let (status, body) = socket::ask(&self.lab, host, "DELETE", &format!("/containers/{id}"), "");
            assert_eq!(status, 204, "{what}: the container that is not ours was left alone: {body}");
        }
    }

    fn is_told_live(&self, story: Story) -> bool {
        match story {
            FirstStart | Restart | DatabaseLost | Meanwhile | NameTaken => false,
            ScaleOut | ScaleIn | NewRevision | NewImage | Kill | Drain | Stop => true,
        }
    }

    /// What happens before it is launched.
    fn prepare(&mut self, what: &str, story: Story, told: &mut Told) {
        match story {
            FirstStart => {
                let data = self.controller.path("data");
                if data.exists() {
                    fs::remove_dir_all(data).unwrap();
                }
            }
            DatabaseLost => {
                for file in ["roadstead.db", "roadstead.db-wal", "roadstead.db-shm"] {
                    let _ = fs::remove_file(self.controller.path("data").join(file));
                }
            }
            Meanwhile => {
                self.count = MANY;
                self.declare();
            }
            NameTaken => {
                self.count = MANY;
                self.declare();
                self.controller.launch_to_crash(OrdersCommitted.name());
                self.dies(what, story, &BTreeMap::new(), told);
                let (host, name) = self.name_of_a_task_to_be_made();
                let body = r#"{"Image":"roadstead/demo:1"}"#;
                let (status, body) =
                    socket::ask(&self.lab, host, "POST", &format!("/containers/create?name={name}"), body);
                assert_eq!(status, 201, "{body}");
                let created: Value = serde_json::from_str(&body).unwrap();
                told.foreign = Some((host, created["Id"].as_str().unwrap().to_owned()));
            }
            NewImage => {
                self.images += 1;
                // Of its own content: what a host has by a digest it does not pull again.
                let version = (100 + self.images).to_string();
                self.lab.lab(&["image", "--version", &version]);
                self.registry.push_other(&self.lab, &format!("roadstead/demo:{version}"), self.images);
                self.image = self.registry.image(self.images);
            }
            Restart | ScaleOut | ScaleIn | NewRevision | Kill | Drain | Stop => {}
        }
    }

    /// What happens while it runs.
    fn tell(&mut self, story: Story, before: &Running, told: &mut Told) {
        match story {
            ScaleOut => {
                self.count = MANY;
                self.declare();
            }
            ScaleIn => {
                self.count = FEW;
                self.declare();
            }
            NewRevision => {
                self.revision += 1;
                self.declare();
            }
            NewImage => self.declare(),
            Kill => {
                until("all hosts' events are followed", MINUTE, || {
                    self.lab.hosts().iter().all(|host| socket::listeners(&self.lab, host) > 0)
                });
                let (id, (host, _)) = before.iter().find(|(id, _)| !told.killed.contains(*id)).unwrap();
                let (status, body) = socket::ask(&self.lab, host, "POST", &format!("/containers/{id}/kill"), "");
                assert_eq!(status, 204, "{body}");
                told.killed.insert(id.clone());
            }
            Drain => {
                let (_, (host, _)) = before.first_key_value().unwrap();
                self.drained = Some(host);
                // It may die before it answers.
                self.controller.try_cli(&["host", "drain", host]);
            }
            Stop => {
                assert!(Command::new("kill").arg(self.controller.pid().to_string()).status().unwrap().success());
            }
            FirstStart | Restart | DatabaseLost | Meanwhile | NameTaken => {}
        }
    }

    /// Waits until it has killed itself.
    fn dies(&mut self, what: &str, story: Story, before: &Running, told: &mut Told) {
        let mut asked = Instant::now();
        until(&format!("{what}: it dies at the point"), MINUTE, || {
            if let Some(status) = self.controller.ended() {
                assert_eq!(status.signal(), Some(9), "{what}: {status}");
                return true;
            }
            // A death before the events are followed is not heard, but seen.
            if story == Kill && asked.elapsed() > 5 * SECOND && told.killed.len() + 1 < before.len() {
                asked = Instant::now();
                self.tell(story, before, told);
            }
            false
        });
    }

    /// Of a task that is committed and that no engine knows of.
    fn name_of_a_task_to_be_made(&self) -> (&'static str, String) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let state = runtime.block_on(async {
            let store = Store::open(&self.controller.path("data")).await.unwrap();
            let state = store.load().await.unwrap();
            store.close().await.unwrap();
            state
        });
        let made = |id: &str| socket::ours(&self.lab).values().any(|found| found.labels["task"] == id);
        let task = state.tasks.values().find(|task| task.is_wanted() && !made(task.id.as_str())).unwrap();
        let host = self.lab.hosts().into_iter().find(|host| *host == task.host.as_str()).unwrap();
        (host, task.containers.values().next().unwrap().created_name.clone())
    }

    fn running(&self) -> Running {
        let running = socket::ours(&self.lab).into_iter().filter(|(_, found)| found.running);
        running
            .map(|(id, found)| {
                let started = socket::started(&self.lab, found.host, &id);
                (id, (found.host, started))
            })
            .collect()
    }

    fn come_to_rest(&mut self, what: &str) {
        let began = Instant::now();
        while let Some(wrong) = self.wrong() {
            assert!(began.elapsed() < 2 * MINUTE, "{what}: no rest: {wrong}");
            thread::sleep(Duration::from_millis(50));
        }
        self.rest = self.running();
    }

    /// What is not yet as it must be at rest.
    fn wrong(&self) -> Option<String> {
        let hosts = self.controller.items("hosts");
        if hosts.iter().filter(|host| host["connected"] == true).count() < self.lab.hosts().len() {
            return Some(format!("not all hosts answer: {hosts:?}"));
        }
        let found = socket::ours(&self.lab);
        let running: Vec<&Found> = found.values().filter(|found| found.running).collect();
        let distinct = |label: &str| running.iter().map(|found| &found.labels[label]).collect::<BTreeSet<_>>().len();
        if running.len() != self.count as usize {
            return Some(format!("{} run instead of {}", running.len(), self.count));
        }
        if running.iter().any(|found| self.drained == Some(found.host)) {
            return Some(format!("tasks run on {:?}", self.drained));
        }
        if distinct("slot") != running.len() || distinct("task") != running.len() || distinct("revision") > 1 {
            return Some(format!("two of a slot, or of two revisions: {running:#?}"));
        }
        if self.count > 0 && !self.controller.is_steady() {
            return Some("the service is not steady".to_owned());
        }
        let tasks: Value = serde_json::from_str(&self.controller.cli(&["ps", "--all", "-o", "json"])).unwrap();
        self.against_rows(&found, tasks["items"].as_array().unwrap())
    }

    /// Every container of ours has its row, every task that runs its container, and nothing else is left.
    fn against_rows(&self, found: &BTreeMap<String, Found>, tasks: &[Value]) -> Option<String> {
        let mut kept: BTreeMap<&str, u32> = BTreeMap::new();
        for (id, container) in found {
            let row = tasks.iter().find(|task| task["taskId"] == container.labels["task"].as_str());
            let Some(row) = row.filter(|row| row["containers"][0]["runtimeId"] == id.as_str()) else {
                return Some(format!("{} on {} has no row", container.name, container.host));
            };
            if row["host"] != container.host || (row["lastStatus"] == "RUNNING") != container.running {
                return Some(format!("{container:?}, but {row}"));
            }
            if !container.running {
                *kept.entry(container.host).or_default() += 1;
                let failed = ["EssentialContainerExited", "TaskFailedToStart"];
                let code = row["stopCode"].as_str().unwrap_or_default();
                if !failed.contains(&code) {
                    return Some(format!("left over: {container:?}, {row}"));
                }
            }
        }
        if kept.values().any(|count| *count > 1) {
            return Some(format!("of failed tasks one is kept on a host: {kept:?}"));
        }
        let live = tasks.iter().filter(|task| task["lastStatus"] != "STOPPED").count();
        (live != self.count as usize).then(|| format!("{live} tasks are not over: {tasks:?}"))
    }

    /// What ran before and must run on, and what must not.
    fn check(&self, what: &str, story: Story, before: &Running, told: &Told) {
        let after = &self.rest;
        let stays = |id: &String| before.get(id) == after.get(id);
        let all_stay = before.keys().all(stays);
        let right = match story {
            FirstStart => socket::ours(&self.lab).is_empty(),
            Restart | DatabaseLost | Stop => after == before,
            Meanwhile | ScaleOut | NameTaken => all_stay,
            ScaleIn => after.iter().all(|(id, container)| before.get(id) == Some(container)),
            NewRevision | NewImage => after.keys().all(|id| !before.contains_key(id)),
            Kill => before.keys().all(|id| stays(id) != told.killed.contains(id)),
            Drain => before.iter().all(|(id, (host, _))| self.drained == Some(host) || stays(id)),
        };
        assert!(right, "{what}: before {before:#?}, after {after:#?}");
    }

    /// Nothing was made or ended on the way that did not have to be.
    fn check_ways(&self, what: &str, story: Story, before: &Running, told: &Told, since: f64) {
        let until = unix_time();
        let happened: Vec<String> =
            self.lab.hosts().iter().flat_map(|host| socket::happened(&self.lab, host, since, until)).collect();
        let times = |action: &str| happened.iter().filter(|happened| *happened == action).count();
        let moved = before.values().filter(|(host, _)| self.drained == Some(host)).count();
        let (made, ended) = match story {
            FirstStart | Restart | DatabaseLost | Stop => (0, 0),
            Meanwhile | ScaleOut => (MANY - FEW, 0),
            // With the one that is not ours.
            NameTaken => (MANY - FEW + 1, 0),
            ScaleIn => (0, MANY - FEW),
            NewRevision | NewImage => (self.count, self.count),
            Kill => (told.killed.len() as u32, told.killed.len() as u32),
            Drain => (moved as u32, moved as u32),
        };
        assert_eq!((times("create"), times("die")), (made as usize, ended as usize), "{what}: {happened:?}");
    }
}

fn unix_time() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}
