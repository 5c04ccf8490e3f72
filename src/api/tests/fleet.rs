//! A fleet made by hand: three hosts, two services, and a bit of everything that the API shows.

use std::{collections::BTreeMap, sync::Arc};

use roadstead_control::{
    control::{
        Copies,
        handle::{Handle, Snapshot},
        ingest::check_expression,
    },
    engine::Engine,
    store::Store,
};
use roadstead_core::{
    manifest::{self, SourceTree},
    model::{
        container::{ContainerState, HealthStatus, PortBinding},
        desired::Desired,
        name::{HostName, RevisionId, TaskId},
        observed::{EngineIdentity, HostContact},
        ownership::FleetKey,
        report::{Doing, Report, Waiting},
        spec::{service::LaunchType, task_definition::Protocol},
        state::{
            Deployment, DeploymentStatus, Event, EventLevel, EventSubject, FleetRecord, HeldSync, HostRecord, Outcome,
            Revision, RolloutState, Schedulability, ServiceRecord, State,
        },
        task::{DesiredStatus, LastStatus, Launch, StopCode, Task, TaskContainer},
        time::Timestamp,
        world::{Subject, World},
    },
};
use tokio::sync::{mpsc, watch};

const MANIFESTS: &str = r#"
apiVersion: roadstead/v1
kind: Host
metadata: { name: box-a, labels: { availability-zone: a, disk: ssd } }
spec: { address: 192.0.2.1, ssh: { knownHosts: /keys }, reserved: { cpu: 256, memory: 512 } }
---
apiVersion: roadstead/v1
kind: Host
metadata: { name: box-b, labels: { availability-zone: b } }
spec: { address: 192.0.2.2, ssh: { knownHosts: /keys } }
---
apiVersion: roadstead/v1
kind: Host
metadata: { name: box-c }
spec: { address: 192.0.2.3, ssh: { knownHosts: /keys } }
---
apiVersion: roadstead/v1
kind: Service
metadata: { name: web }
spec:
  desiredCount: 3
  taskDefinition: { containerDefinitions: [{ name: web, image: "demo:1", memory: 64, portMappings: [{ containerPort: 80 }] }] }
---
apiVersion: roadstead/v1
kind: Service
metadata: { name: agent }
spec:
  schedulingStrategy: DAEMON
  taskDefinition: { containerDefinitions: [{ name: agent, image: "demo:1", memory: 16 }] }
"#;

/// Ten days and a half ago.
pub fn long_ago(now: Timestamp) -> Timestamp {
    Timestamp(now.0 - (10 * 24 + 12) * 3_600_000)
}

pub fn snapshot(now: Timestamp) -> Snapshot {
    let at = long_ago(now);
    let tree = SourceTree::from_texts("/manifests", [("fleet.yaml", MANIFESTS)]);
    let admission = manifest::admit(&tree, &Desired::default(), check_expression);
    assert!(!admission.has_errors(), "{:?}", admission.diagnostics);
    let mut state = State { desired: Arc::new(admission.desired), ..State::default() };
    for family in ["web", "agent"] {
        let spec = state.desired.task_definitions[family].spec.spec().clone();
        let id = RevisionId { family: family.into(), number: 1 };
        let revision =
            Revision { id, hash: "c0ffee".to_owned(), spec: Some(spec), images: BTreeMap::new(), created_at: at };
        state.revisions.entry(family.into()).or_default().insert(1, revision);
    }
    for (name, schedulability) in
        [("box-a", Schedulability::Active), ("box-b", Schedulability::Cordoned), ("box-c", Schedulability::Active)]
    {
        let identity = (name != "box-c").then(identity);
        state
            .hosts
            .insert(name.into(), HostRecord { name: name.into(), schedulability, identity, ..HostRecord::default() });
    }
    for task in tasks(at) {
        state.tasks.insert(task.id.clone(), Arc::new(task));
    }
    for (name, id, rollout_state, outcome) in
        [("web", 7, RolloutState::InProgress, None), ("agent", 3, RolloutState::Completed, Some(Outcome::Succeeded))]
    {
        let deployment = Deployment {
            id,
            revision: RevisionId { family: name.into(), number: 1 },
            status: DeploymentStatus::Primary,
            rollout_state,
            rollout_state_reason: String::new(),
            outcome,
            failed_tasks: 1,
            unplaced_at: None,
            rollback_of: None,
            restart: false,
            paused_at: None,
            stage: None,
            hooks: Vec::new(),
            queries: Vec::new(),
            analysis: Default::default(),
            created_at: at,
            updated_at: at,
        };
        let record = ServiceRecord {
            name: name.into(),
            deployments: vec![deployment],
            consecutive_failures: u32::from(name == "web"),
            ..ServiceRecord::default()
        };
        state.services.insert(name.into(), record);
    }
    state.fleet = FleetRecord {
        held: Some(HeldSync {
            token: "5eed".to_owned(),
            reason: "it would remove 2 of 2 services".to_owned(),
            since: at,
        }),
        ..FleetRecord::default()
    };
    let world = World { now, state, contacts: contacts(now).into(), ..World::default() };
    Snapshot {
        world,
        report: report().into(),
        diagnostics: admission.diagnostics,
        manifests: "/manifests".into(),
        started_at: at,
        fenced: None,
    }
}

fn identity() -> EngineIdentity {
    EngineIdentity {
        engine_id: "E".to_owned(),
        engine_version: "20.10.24".to_owned(),
        api_version: "1.41".to_owned(),
        architecture: "X86_64".to_owned(),
        cpus: 2,
        memory_mib: 4096,
        ..EngineIdentity::default()
    }
}

fn contacts(now: Timestamp) -> BTreeMap<HostName, HostContact> {
    let good = HostContact {
        engine_answered_at: Some(now),
        link_answered_at: Some(now),
        watched_since: long_ago(now),
        looked_at: Some(now),
        ..HostContact::default()
    };
    // A host chooses its own words: they must not reach a terminal as they are.
    let bad = HostContact {
        untrusted: Some("it presented \u{1b}[31mSHA256:evil\u{1b}[0m".to_owned()),
        ..HostContact::default()
    };
    BTreeMap::from([("box-a".into(), good.clone()), ("box-b".into(), good), ("box-c".into(), bad)])
}

fn report() -> Report {
    Report {
        doing: vec![Doing {
            action: "start".to_owned(),
            subject: Subject::Task("aaaa000000000002".into()),
            host: Some("box-b".into()),
            reason: "web wants it".to_owned(),
        }],
        waiting: vec![Waiting {
            subject: Subject::Service("web".into()),
            reason: "0/3 hosts fit: 1 is full, 1 is cordoned, 1 is untrusted".to_owned(),
            wakes_when: "a host has room".to_owned(),
            wakes_at: None,
        }],
    }
}

fn tasks(at: Timestamp) -> Vec<Task> {
    vec![
        task("aaaa000000000001", "web", "box-a", LastStatus::Running, at),
        task("aaaa000000000002", "web", "box-b", LastStatus::Pending, at.plus_ms(1)),
        Task {
            stop_code: Some(StopCode::EssentialContainerExited),
            stopped_reason: Some("container web exited with 3".to_owned()),
            stopped_at: Some(at.plus_ms(2)),
            ..task("bbbb000000000003", "web", "box-a", LastStatus::Stopped, at.plus_ms(2))
        },
        task("cccc000000000004", "agent", "box-a", LastStatus::Running, at),
    ]
}

fn task(id: &str, service: &str, host: &str, last_status: LastStatus, at: Timestamp) -> Task {
    let runs = last_status == LastStatus::Running;
    let container = TaskContainer {
        taken_down: false,
        created_name: format!("rs-{id}-{service}"),
        essential: true,
        image: "demo:1".to_owned(),
        image_digest: runs.then(|| "sha256:0".to_owned()),
        runtime_id: runs.then(|| format!("run-{id}").as_str().into()),
        state: runs.then_some(ContainerState::Running),
        health: HealthStatus::Unknown,
        has_health_check: false,
        exit_code: (last_status == LastStatus::Stopped).then_some(3),
        oom_killed: false,
        restart_count: 0,
        started_at: runs.then_some(at),
        seen_started_at: runs.then_some(at),
        ports: match service {
            "web" => vec![PortBinding { container_port: 80, host_port: 40_000, protocol: Protocol::Tcp }],
            _ => Vec::new(),
        },
        revived: None,
        health_reason: None,
    };
    Task {
        id: TaskId::from(id),
        cluster: "default".into(),
        service: service.into(),
        slot: 1,
        revision: RevisionId { family: service.into(), number: 1 },
        host: host.into(),
        launch_type: LaunchType::Ec2,
        cpu: 0,
        memory: 64,
        desired_status: if last_status == LastStatus::Stopped {
            DesiredStatus::Stopped
        } else {
            DesiredStatus::Running
        },
        last_status,
        health_status: HealthStatus::Unknown,
        target_health: None,
        side: Default::default(),
        launch: Launch::Answered { at },
        containers: [(service.into(), container)].into(),
        epoch: 1,
        created_at: at,
        started_at: runs.then_some(at),
        healthy_at: None,
        stopping_at: None,
        stopped_at: None,
        stop_code: None,
        stopped_reason: None,
        restarts: Vec::new(),
        strays: Vec::new(),
        deployment: 7,
        protected_until: None,
        standalone: None,
        network: None,
        uses_names: false,
    }
}

pub fn events(at: Timestamp) -> Vec<Event> {
    let event = |subject, reason: &str, level, message: &str| Event {
        id: 0,
        at,
        subject,
        level,
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    vec![
        event(EventSubject::Fleet, "ManifestsTaken", EventLevel::Normal, "manifests changed"),
        event(
            EventSubject::Service("web".into()),
            "TaskRunning",
            EventLevel::Normal,
            "task aaaa000000000001 runs on box-a",
        ),
        event(
            EventSubject::Service("web".into()),
            "TaskFailed",
            EventLevel::Warning,
            "task bbbb000000000003 failed:\n\u{1b}[2Jexit 3",
        ),
    ]
}

/// A controller's handle without a controller.
pub struct Fleet {
    pub handle: Handle,
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    pub folder: tempfile::TempDir,
}

impl Fleet {
    pub async fn new(now: Timestamp, engines: BTreeMap<HostName, Arc<dyn Engine>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manifests = folder.path().join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        std::fs::write(manifests.join("fleet.yaml"), MANIFESTS).unwrap();
        let store = Store::open(&folder.path().join("data")).await.unwrap();
        let changes: Vec<_> =
            events(long_ago(now)).into_iter().map(roadstead_core::model::state::Change::Event).collect();
        store.commit(&changes, None).await.unwrap();
        let (snapshots, watched) = watch::channel(Arc::new(Snapshot { manifests: manifests.clone(), ..snapshot(now) }));
        // Nobody takes orders, unless a test does.
        let (commands, _) = mpsc::channel(4);
        let engines = watch::Sender::new(Arc::new(engines)).subscribe();
        let handle = Handle {
            snapshots: watched,
            commands,
            engines,
            copies: Copies::new(FleetKey::new([7; 32])),
            store: Arc::new(store),
            manifests,
        };
        Self { handle, snapshots, folder }
    }
}
