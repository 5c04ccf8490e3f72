//! Values to store.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;

use roadstead_core::model::{
    action::{Action, Verb},
    container::{ContainerState, ContainerView, HealthStatus, PortBinding},
    decision::Decision,
    name::{HostName, RevisionId},
    observed::{EngineIdentity, HostObservation},
    ownership::Owner,
    report::{Doing, Report, Waiting},
    spec::{service::LaunchType, task_definition::Protocol},
    state::{Event, EventLevel, EventSubject, Revision},
    task::{DesiredStatus, LastStatus, Launch, Task, TaskContainer},
    time::Timestamp,
    world::Subject,
};

/// A task with one container that publishes `ports`.
pub fn task(id: &str, host: &str, ports: &[u16]) -> Task {
    Task {
        id: id.into(),
        cluster: "default".into(),
        service: "web".into(),
        slot: 1,
        revision: RevisionId { family: "web".into(), number: 1 },
        host: host.into(),
        launch_type: LaunchType::Ec2,
        cpu: 256,
        memory: 64,
        desired_status: DesiredStatus::Running,
        last_status: LastStatus::Provisioning,
        health_status: HealthStatus::Unknown,
        target_health: None,
        side: Default::default(),
        launch: Launch::Issued { at: Timestamp(7) },
        containers: [("web".into(), container(ports))].into(),
        epoch: 1,
        created_at: Timestamp(5),
        started_at: None,
        healthy_at: None,
        stopping_at: None,
        stopped_at: None,
        stop_code: None,
        stopped_reason: None,
        restarts: vec![Timestamp(1), Timestamp(2)],
        strays: Vec::new(),
        deployment: 7,
        protected_until: Some(Timestamp(8)),
        network: None,
        uses_names: true,
        standalone: None,
    }
}

pub fn container(ports: &[u16]) -> TaskContainer {
    TaskContainer {
        taken_down: false,
        created_name: "rs-web-1".to_owned(),
        essential: true,
        image: "demo:1".to_owned(),
        image_digest: None,
        runtime_id: Some("f00".into()),
        state: Some(ContainerState::Running),
        health: HealthStatus::Healthy,
        has_health_check: true,
        exit_code: Some(-1),
        oom_killed: false,
        restart_count: 2,
        started_at: Some(Timestamp(9)),
        seen_started_at: Some(Timestamp(9)),
        ports: ports.iter().map(|&port| binding(port)).collect(),
        revived: None,
        health_reason: Some("GET :80/healthz answered 503".into()),
    }
}

fn binding(host_port: u16) -> PortBinding {
    PortBinding { container_port: 80, host_port, protocol: Protocol::Tcp }
}

/// Revision `family:number`; `image` is its content.
pub fn revision(family: &str, number: u32, hash: &str, image: Option<&str>) -> Revision {
    let spec = image.map(|image| {
        let definition = json!({ "containerDefinitions": [{ "name": "web", "image": image }] });
        Arc::new(serde_json::from_value(definition).unwrap())
    });
    let id = RevisionId { family: family.into(), number };
    Revision { id, hash: hash.to_owned(), spec, images: BTreeMap::new(), created_at: Timestamp(3) }
}

/// A look at `host` that saw `containers` containers.
pub fn observation(host: &str, started_at: u64, containers: u32) -> HostObservation {
    let view = |n: u32| ContainerView {
        id: format!("{n:064x}").into(),
        name: format!("c{n}"),
        image: "demo:1".to_owned(),
        image_id: "sha256:0".to_owned(),
        state: ContainerState::Exited,
        health: HealthStatus::Unknown,
        has_health_check: false,
        exit_code: Some(i64::MIN),
        oom_killed: true,
        started_at: Some(Timestamp(1)),
        finished_at: Some(Timestamp(2)),
        restart_count: n,
        error: "it's \"broken\"\n".to_owned(),
        ports: vec![binding(8080)],
        owner: Owner::OtherFleet { fleet: "0abc".to_owned() },
    };
    HostObservation {
        host: host.into(),
        started_at: Timestamp(started_at),
        finished_at: Timestamp(started_at).plus_ms(3),
        identity: EngineIdentity { engine_id: "E".to_owned(), ..EngineIdentity::default() },
        containers: (0..containers).map(view).map(|view| (view.id.clone(), view)).collect::<BTreeMap<_, _>>(),
    }
}

pub fn event(subject: EventSubject, message: &str) -> Event {
    Event {
        id: 0,
        at: Timestamp(11),
        subject,
        level: EventLevel::Warning,
        reason: "TaskStarted".to_owned(),
        message: message.to_owned(),
    }
}

pub fn decision(seed: u64) -> Decision {
    let host: HostName = "box-a".into();
    let waiting = |subject| Waiting {
        subject,
        reason: "no room".to_owned(),
        wakes_when: "a task ends".to_owned(),
        wakes_at: Some(Timestamp(99)),
    };
    Decision {
        id: 0,
        at: Timestamp(12),
        seed,
        report: Report {
            doing: vec![Doing {
                action: "remove".to_owned(),
                subject: Subject::Task("t1".into()),
                host: Some(host.clone()),
                reason: "ended".to_owned(),
            }],
            waiting: vec![waiting(Subject::Fleet), waiting(Subject::Service("web".into()))],
        },
        actions: vec![Action {
            task: "t1".into(),
            service: "web".into(),
            host,
            verb: Verb::Remove { containers: vec!["f00".into()] },
            reason: "ended".to_owned(),
        }],
    }
}
