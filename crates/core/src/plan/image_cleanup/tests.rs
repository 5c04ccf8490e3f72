//! Which images go, in which order, and what keeps each of the others.

use serde_json::{Value, json};

use super::*;
use crate::model::{
    container::{ContainerState, ContainerView, HealthStatus},
    desired::{Desired, Manifest},
    name::RuntimeId,
    observed::{EngineIdentity, HostContact},
    ownership::Owner,
    report::Waiting,
    state::{Change, Pin, ServiceRecord},
    storage::DiskUse,
    task::{DesiredStatus, NewTask, Task, TaskContainer},
    world::{Plan, World},
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const HOUR_MS: u64 = 3_600_000;
const MB: u64 = 1_000_000;

fn manifest<S: serde::de::DeserializeOwned>(spec: Value) -> Manifest<S> {
    let spec = serde_json::from_value(spec).unwrap();
    Manifest { labels: [].into(), annotations: [].into(), file: "fleet.yaml".into(), line: 1, spec }
}

fn ago(ms: u64) -> Timestamp {
    Timestamp(NOW.0 - ms)
}

fn content(number: u32) -> String {
    format!("sha256:{number:064}")
}

/// By which its host knows it: not its digest, as in Docker's own image store.
fn id(number: u32) -> String {
    content(1_000 + number)
}

fn pinned(number: u32) -> String {
    format!("r.example/web@{}", content(number))
}

fn revision(family: &str, number: u32, reference: &str, resolved: Option<ResolvedImage>) -> Revision {
    let spec = json!({ "containerDefinitions": [{ "name": "main", "image": reference, "memory": 64 }] });
    Revision {
        id: RevisionId { family: family.into(), number },
        hash: format!("{family}{number}"),
        spec: serde_json::from_value(spec).map(std::sync::Arc::new).ok(),
        images: resolved.map(|resolved| (reference.to_owned(), resolved)).into_iter().collect(),
        created_at: ago(u64::from(100 - number) * HOUR_MS),
    }
}

/// One host, 95 % full, with the images of revisions 1 … 6 of a family that nothing names; each has been out of use for longer
/// than the next.
struct Case {
    world: World,
    images: BTreeMap<String, StoredImage>,
    containers: Vec<ContainerView>,
    disk: Option<DiskUse>,
    cleanup: Value,
    used_at: BTreeMap<String, Timestamp>,
}

impl Case {
    fn new() -> Self {
        let mut world = World { now: NOW, seed: 1, ..World::default() };
        let mut case_images = BTreeMap::new();
        let mut used_at = BTreeMap::new();
        let mut numbers = BTreeMap::new();
        for number in 1..=6 {
            let digest = ResolvedImage::Digest(content(number));
            numbers.insert(number, revision("web", number, &format!("r.example/web:{number}"), Some(digest)));
            let image = StoredImage { tags: Vec::new(), digests: vec![pinned(number)], size_bytes: 10 * MB };
            case_images.insert(id(number), image);
            used_at.insert(id(number), ago((20 - u64::from(number)) * HOUR_MS));
        }
        world.state.revisions.insert("web".into(), numbers);
        let disk = Some(DiskUse { used_bytes: 950 * MB, available_bytes: 50 * MB });
        Self { world, images: case_images, containers: Vec::new(), disk, cleanup: json!({}), used_at }
    }

    fn image(&mut self, number: u32) -> &mut StoredImage {
        self.images.get_mut(&id(number)).unwrap()
    }

    fn desired(&mut self, change: impl FnOnce(&mut Desired)) {
        let mut desired = (*self.world.state.desired).clone();
        change(&mut desired);
        self.world.state.desired = std::sync::Arc::new(desired);
    }

    fn service(&mut self, definition: &str) {
        let spec = json!({ "taskDefinition": definition, "desiredCount": 0 });
        self.desired(|desired| {
            desired.services.insert("web".into(), manifest(spec));
            let newest =
                json!({ "containerDefinitions": [{ "name": "main", "image": "r.example/web:6", "memory": 64 }] });
            desired.task_definitions.insert("web".into(), manifest(newest));
        });
        let hash = self.world.state.desired.task_definitions["web"].spec.hash().to_owned();
        self.world.state.revisions.get_mut("web").unwrap().get_mut(&6).unwrap().hash = hash;
    }

    fn task(&mut self, service: &str, number: u32, change: impl FnOnce(&mut Task)) {
        let row = TaskContainer {
            created_name: "rs-web-1".into(),
            essential: true,
            image: format!("r.example/web:{number}"),
            image_digest: None,
            runtime_id: None,
            state: None,
            health: HealthStatus::Unknown,
            has_health_check: false,
            exit_code: None,
            oom_killed: false,
            restart_count: 0,
            started_at: None,
            seen_started_at: None,
            ports: Vec::new(),
            revived: None,
            taken_down: false,
            health_reason: None,
        };
        let mut task = Task::new(NewTask {
            id: "t1".into(),
            cluster: "default".into(),
            service: service.into(),
            slot: 1,
            revision: RevisionId { family: "web".into(), number },
            host: "box".into(),
            launch_type: Default::default(),
            cpu: 0,
            memory: 64,
            containers: [("main".into(), row)].into_iter().collect(),
            epoch: 1,
            created_at: ago(2 * HOUR_MS),
        });
        change(&mut task);
        self.world.state.tasks.insert(task.id.clone(), std::sync::Arc::new(task));
    }

    fn container(&mut self, image: &str, image_id: &str) {
        self.containers.push(ContainerView {
            id: RuntimeId::from("c1"),
            name: "somebody-elses".into(),
            image: image.into(),
            image_id: image_id.into(),
            state: ContainerState::Exited,
            health: HealthStatus::Unknown,
            has_health_check: false,
            exit_code: Some(0),
            oom_killed: false,
            started_at: None,
            finished_at: None,
            restart_count: 0,
            error: String::new(),
            ports: Vec::new(),
            owner: Owner::Foreign,
        });
    }

    fn world(&self) -> World {
        let mut world = self.world.clone();
        let mut desired = (*world.state.desired).clone();
        desired.hosts.insert("box".into(), manifest(json!({ "address": "198.18.0.1" })));
        desired.clusters.insert("default".into(), manifest(json!({ "imageCleanup": self.cleanup })));
        world.state.desired = std::sync::Arc::new(desired);
        let containers = self.containers.iter().map(|view| (view.id.clone(), view.clone())).collect();
        let look = HostObservation {
            host: "box".into(),
            started_at: NOW,
            finished_at: NOW,
            identity: EngineIdentity::default(),
            containers,
        };
        world.state.observations.insert("box".into(), std::sync::Arc::new(look));
        let contact = HostContact {
            engine_answered_at: Some(NOW),
            link_answered_at: Some(NOW),
            looked_at: Some(NOW),
            ..HostContact::default()
        };
        world.contacts = [("box".into(), contact)].into_iter().collect();
        let seen = StorageSeen {
            started_at: NOW,
            data_root: "/var/lib/docker".into(),
            disk: self.disk,
            images: self.images.clone(),
            used_at: self.used_at.clone(),
        };
        world.storage = [("box".into(), seen)].into_iter().collect();
        world
    }

    fn plan(&self) -> Plan {
        crate::plan::plan(&self.world())
    }

    /// The numbers of the images that go, the first first.
    fn removed(&self) -> Vec<u32> {
        numbers(&self.plan())
    }
}

/// Its container runs yet.
fn stopping(task: &mut Task) {
    task.desired_status = DesiredStatus::Stopped;
    task.last_status = LastStatus::Stopping;
    let row = task.containers.get_mut("main").unwrap();
    (row.runtime_id, row.state) = (Some("c9".into()), Some(ContainerState::Running));
}

fn over(task: &mut Task, at: Timestamp) {
    (task.desired_status, task.last_status, task.stopped_at) = (DesiredStatus::Stopped, LastStatus::Stopped, Some(at));
}

fn numbers(plan: &Plan) -> Vec<u32> {
    let pruned = plan.actions.iter().filter_map(|action| match &action.verb {
        Verb::Prune { images } => Some(images),
        Verb::Stop { .. } => None,
        other => panic!("{other:?}"),
    });
    pruned.flatten().map(|image| image.id.trim_start_matches("sha256:").parse::<u32>().unwrap() - 1_000).collect()
}

#[test]
fn what_was_out_of_use_longest_goes_until_there_is_room() {
    let mut case = Case::new();
    case.disk = Some(DiskUse { used_bytes: 860 * MB, available_bytes: 140 * MB });
    assert_eq!(case.removed(), [1, 2, 3, 4, 5, 6], "60 MB lie above 80 %");
    case.disk = Some(DiskUse { used_bytes: 851 * MB, available_bytes: 149 * MB });
    case.image(1).size_bytes = 25 * MB;
    case.image(2).size_bytes = 25 * MB;
    assert_eq!(case.removed(), [1, 2, 3]);
    let plan = case.plan();
    let doing: Vec<&str> = plan.report.doing.iter().map(|doing| doing.reason.as_str()).collect();
    assert_eq!(doing, ["the disk of /var/lib/docker was 86 % full"]);
    // Used the same while ago, or first seen so: older revisions first.
    case.used_at = case.images.keys().map(|id| (id.clone(), ago(2 * HOUR_MS))).collect();
    case.world.state.revisions.get_mut("web").unwrap().get_mut(&2).unwrap().created_at = ago(1);
    assert_eq!(case.removed(), [1, 3, 4, 5]);
}

#[test]
fn nothing_goes_while_there_is_room_or_nobody_knows() {
    let full = Some(DiskUse { used_bytes: 950 * MB, available_bytes: 50 * MB });
    for (disk, cleanup, goes) in [
        (full, json!({}), true),
        (None, json!({}), false),
        (Some(DiskUse { used_bytes: 850 * MB, available_bytes: 150 * MB }), json!({}), false),
        (
            Some(DiskUse { used_bytes: 850 * MB, available_bytes: 150 * MB }),
            json!({ "highThresholdPercent": 84 }),
            true,
        ),
        (full, json!({ "highThresholdPercent": 95 }), false),
    ] {
        let mut case = Case::new();
        (case.disk, case.cleanup) = (disk, cleanup.clone());
        assert_eq!(!case.removed().is_empty(), goes, "{disk:?} {cleanup}");
    }
    let mut world = Case::new().world();
    world.storage.get_mut("box").unwrap().started_at = ago(STALE_MS);
    assert!(numbers(&crate::plan::plan(&world)).is_empty(), "a look that is old");
    let mut world = Case::new().world();
    world.state.observations.clear();
    assert!(numbers(&crate::plan::plan(&world)).is_empty(), "nobody knows its containers");
    let mut world = Case::new().world();
    world.contacts.get_mut("box").unwrap().error = Some("no answer".into());
    assert!(numbers(&crate::plan::plan(&world)).is_empty(), "a host that does not answer");
}

/// Each row keeps some images that go without it.
#[test]
fn what_somebody_needs_stays() {
    type Change = fn(&mut Case);
    let rows: &[(&str, Change, &[u32])] = &[
        ("nothing", |_| (), &[1, 2, 3, 4, 5, 6]),
        ("used a moment ago", |case| case.used_at.extend([(id(1), ago(HOUR_MS - 1))]), &[2, 3, 4, 5, 6]),
        ("first seen just now", |case| case.used_at.retain(|known, _| *known != id(1)), &[2, 3, 4, 5, 6]),
        ("a container, ended, of somebody else", |case| case.container("x", &id(2)), &[1, 3, 4, 5, 6]),
        ("a container that was made from it by name", |case| case.container(&pinned(2), "sha256:x"), &[1, 3, 4, 5, 6]),
        ("loaded by hand", |case| case.image(3).digests.clear(), &[1, 2, 4, 5, 6]),
        ("of no revision", |case| case.image(3).digests = vec![pinned(7)], &[1, 2, 4, 5, 6]),
        (
            "of another repository",
            |case| case.image(3).digests = vec![format!("other/web@{}", content(3))],
            &[1, 2, 4, 5, 6],
        ),
        ("somebody's name beside ours", |case| case.image(3).tags = vec!["mine:1".into()], &[1, 2, 4, 5, 6]),
        ("our own tag beside it", |case| case.image(3).tags = vec!["r.example/web:3".into()], &[1, 2, 3, 4, 5, 6]),
        ("a service's family", |case| case.service("web"), &[1, 2, 3]),
        (
            "a service's family, one revision",
            |case| {
                case.service("web");
                case.cleanup = json!({ "keepRevisions": 1 });
            },
            &[1, 2, 3, 4, 5],
        ),
        ("a revision that a service names", |case| case.service("web:1"), &[2, 3]),
        (
            "a revision that it asks for while it was taken back",
            |case| {
                case.service("web:1");
                let revision = |number| RevisionId { family: "web".into(), number };
                let pin = Pin { instead_of: revision(1), revision: revision(5), reason: "it failed".into() };
                let record = ServiceRecord { name: "web".into(), pin: Some(pin), ..ServiceRecord::default() };
                case.world.state.services.insert("web".into(), record);
            },
            &[2, 3],
        ),
        (
            "a tag by which a kept revision runs",
            |case| {
                case.service("web");
                case.world.state.revisions.get_mut("web").unwrap().get_mut(&6).unwrap().images.clear();
                case.image(1).tags = vec!["r.example/web:6".into()];
            },
            &[2, 3],
        ),
        (
            "a revision that it may go back to",
            |case| {
                case.service("web");
                let completed = vec![RevisionId { family: "web".into(), number: 2 }];
                let record = ServiceRecord { name: "web".into(), completed, ..Default::default() };
                case.world.state.services.insert("web".into(), record);
            },
            &[1, 3],
        ),
        (
            "a schedule's family",
            |case| {
                let spec = json!({ "schedule": "cron(0 5 * * ? *)", "taskDefinition": "web" });
                case.desired(|desired| drop(desired.scheduled_tasks.insert("job".into(), manifest(spec))));
            },
            &[1, 2, 3],
        ),
        (
            "a standalone task's revision and family",
            |case| {
                case.task("family:web", 1, |task| {
                    task.host = "elsewhere".into();
                    over(task, ago(1));
                })
            },
            &[2, 3],
        ),
        ("a task that is not over", |case| case.task("web", 1, stopping), &[2, 3, 4, 5, 6]),
        ("a task elsewhere", |case| case.task("web", 1, |task| task.host = "elsewhere".into()), &[1, 2, 3, 4, 5, 6]),
        (
            "a task of a revision that is forgotten",
            |case| {
                case.task("web", 9, |task| {
                    stopping(task);
                    task.containers.get_mut("main").unwrap().image_digest = Some(content(1));
                })
            },
            &[2, 3, 4, 5, 6],
        ),
        (
            "a task that ended a moment ago",
            |case| {
                case.task("web", 1, |task| {
                    over(task, ago(HOUR_MS - 1));
                })
            },
            &[2, 3, 4, 5, 6],
        ),
        (
            "a task that ended long enough ago",
            |case| {
                case.cleanup = json!({ "minimumAge": "30m" });
                case.task("web", 1, |task| over(task, ago(HOUR_MS / 2)));
            },
            &[2, 3, 4, 5, 6, 1],
        ),
        (
            "the same content in a kept revision, under another name",
            |case| {
                case.service("web");
                let newest = case.world.state.revisions.get_mut("web").unwrap().get_mut(&6).unwrap();
                newest.images = [("r.example/web:6".to_owned(), ResolvedImage::Digest(content(1)))].into();
            },
            &[2, 3],
        ),
    ];
    for (what, change, removed) in rows {
        let mut case = Case::new();
        change(&mut case);
        assert_eq!(case.removed(), *removed, "{what}");
    }
}

#[test]
fn one_order_is_bounded_and_given_once() {
    let mut case = Case::new();
    for number in 7..60 {
        let (reference, digest) = (format!("r.example/web:{number}"), ResolvedImage::Digest(content(number)));
        let revisions = case.world.state.revisions.get_mut("web").unwrap();
        revisions.insert(number, revision("web", number, &reference, Some(digest)));
        let image = StoredImage { digests: vec![pinned(number)], size_bytes: 1, ..StoredImage::default() };
        case.images.insert(id(number), image);
        case.used_at.insert(id(number), ago(2 * HOUR_MS));
    }
    let plan = case.plan();
    assert_eq!(numbers(&plan).len(), MAX_IMAGES);
    let mut world = case.world();
    world.in_flight.insert(plan.actions[0].key());
    let again = crate::plan::plan(&world);
    assert_eq!((numbers(&again), told(&again)), (vec![], vec![]), "it is under way");
    let mut world = case.world();
    world.retry_at.insert(plan.actions[0].key(), (Timestamp(NOW.0 + 1), "it did not answer".into()));
    assert!(numbers(&crate::plan::plan(&world)).is_empty(), "and not again before its time");
}

fn told(plan: &Plan) -> Vec<&str> {
    let of_host = |waiting: &&Waiting| waiting.subject == Subject::Host("box".into());
    plan.report.waiting.iter().filter(of_host).map(|waiting| waiting.reason.as_str()).collect()
}

#[test]
fn a_disk_that_stays_full_is_told_once_and_shown_for_as_long_as_it_is() {
    let mut case = Case::new();
    case.used_at.clear();
    let words = "the disk of /var/lib/docker is 95 % full, and no image can be removed";
    let event = |plan: &Plan| {
        let events = plan
            .changes
            .iter()
            .filter(|change| matches!(change, Change::Event(event) if event.reason == "DiskPressure"));
        events.count()
    };
    let mut world = case.world();
    for events in [1, 0] {
        let plan = crate::plan::plan(&world);
        assert_eq!((told(&plan), event(&plan), numbers(&plan)), (vec![words], events, vec![]));
        plan.changes.iter().for_each(|change| world.state.apply(change));
    }
    assert_eq!(world.state.hosts["box"].disk_pressure_since, Some(NOW));
    for (used_mb, since, shown) in [(820, Some(NOW), 0), (800, None, 0), (860, Some(NOW), 1)] {
        let disk = DiskUse { used_bytes: used_mb * MB, available_bytes: (1000 - used_mb) * MB };
        world.storage.get_mut("box").unwrap().disk = Some(disk);
        let plan = crate::plan::plan(&world);
        plan.changes.iter().for_each(|change| world.state.apply(change));
        assert_eq!((world.state.hosts["box"].disk_pressure_since, told(&plan).len()), (since, shown), "{used_mb}");
    }
}

#[test]
fn a_forecast_ends_when_nothing_is_left_to_remove() {
    let case = Case::new();
    let plan = crate::plan::forecast::forecast(&case.world());
    assert_eq!(numbers(&plan), [1, 2, 3, 4, 5, 6]);
    assert_eq!(told(&plan).len(), 1, "35 MB are missing");
}
