//! For any changes, the file says what memory says, and refuses exactly what the rules forbid.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::json;

use super::{dir, open, sample};
use crate::store::{Store, StoreError};
use roadstead_core::model::{
    acme::{AcmeAccount, AcmeOrder},
    certificate::CertificateRecord,
    desired::{Desired, Manifest},
    name::{HostName, RevisionId},
    network::SubnetRecord,
    observed::EngineIdentity,
    schedule::{Fire, FireOutcome, ScheduleRecord},
    spec::{ClusterSpec, network::ServiceDiscovery},
    state::{
        Again, Brake, Change, Deployment, DeploymentStatus, EventSubject, FleetRecord, HeldSync, HostRecord,
        LifecycleStage, Outcome, Pin, RolloutState, Schedulability, ServiceRecord, Stage, State,
    },
    task::{LastStatus, StopCode, Task},
    time::Timestamp,
    traffic::Shift,
    volume::{MoveStage, VolumeId, VolumeMove, VolumeRecord},
    wireguard::PublicKey,
};

/// Few, so that changes meet; odd, so that quoting is tried.
fn name() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "b", "it's \"ü\"; --\n"])
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), any::<String>()]
}

/// As far as RFC 3339 goes.
fn time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![0_u64..10, Just(253_402_207_200_999)].prop_map(Timestamp)
}

fn manifest<S>(spec: S) -> impl Strategy<Value = Manifest<S>>
where
    S: Clone + std::fmt::Debug,
{
    (text(), 0_u32..100, text()).prop_map(move |(label, line, file)| Manifest {
        labels: [("zone".to_owned(), label)].into(),
        annotations: BTreeMap::new(),
        file,
        line,
        spec: spec.clone(),
    })
}

fn desired() -> impl Strategy<Value = Desired> {
    let cluster = any::<i32>().prop_flat_map(|number| {
        let namespace = Some(number.to_string());
        manifest(ClusterSpec { service_discovery: ServiceDiscovery { namespace }, ..ClusterSpec::default() })
    });
    let host = text().prop_flat_map(|address| manifest(serde_json::from_value(json!({ "address": address })).unwrap()));
    let definition = text().prop_flat_map(|image| {
        let containers = json!([{ "name": "web", "image": image, "memory": 5 }]);
        manifest(serde_json::from_value(json!({ "containerDefinitions": containers })).unwrap())
    });
    let service = (0_u32..9).prop_flat_map(|count| {
        manifest(serde_json::from_value(json!({ "taskDefinition": "a", "desiredCount": count })).unwrap())
    });
    let scheduled = (1_u32..9).prop_flat_map(|count| {
        let spec = json!({ "taskDefinition": "a", "schedule": "rate(1 hour)", "count": count });
        manifest(serde_json::from_value(spec).unwrap())
    });
    let subnet = (0_u8..9).prop_flat_map(|number| {
        manifest(serde_json::from_value(json!({ "cidr": format!("10.{number}.0.0/16") })).unwrap())
    });
    let group = text().prop_flat_map(|text| manifest(serde_json::from_value(json!({ "description": text })).unwrap()));
    let target_group =
        (1_u16..9).prop_flat_map(|port| manifest(serde_json::from_value(json!({ "port": port })).unwrap()));
    let balancer = (1_u16..9).prop_flat_map(|port| {
        manifest(serde_json::from_value(json!({ "listeners": [{ "name": "http", "port": port }] })).unwrap())
    });
    (
        vec((name(), cluster), 0..2),
        vec((name(), host), 0..3),
        vec((name(), definition), 0..3),
        vec((name(), service), 0..3),
        vec((name(), scheduled), 0..2),
        vec((name(), subnet), 0..2),
        vec((name(), group), 0..2),
        vec((name(), target_group), 0..2),
        vec((name(), balancer), 0..2),
    )
        .prop_map(
            |(clusters, hosts, task_definitions, services, scheduled, subnets, groups, target_groups, balancers)| {
                Desired {
                    clusters: clusters.into_iter().map(|(name, manifest)| (name.into(), manifest)).collect(),
                    hosts: hosts.into_iter().map(|(name, manifest)| (name.into(), manifest)).collect(),
                    task_definitions: task_definitions
                        .into_iter()
                        .map(|(name, manifest)| (name.into(), manifest))
                        .collect(),
                    services: services.into_iter().map(|(name, manifest)| (name.into(), manifest)).collect(),
                    scheduled_tasks: scheduled.into_iter().map(|(name, manifest)| (name.into(), manifest)).collect(),
                    subnets: subnets.into_iter().map(|(name, manifest)| (name.into(), manifest)).collect(),
                    security_groups: groups.into_iter().map(|(name, manifest)| (name.into(), manifest)).collect(),
                    target_groups: target_groups.into_iter().map(|(name, manifest)| (name.into(), manifest)).collect(),
                    load_balancers: balancers.into_iter().map(|(name, manifest)| (name.into(), manifest)).collect(),
                }
            },
        )
}

fn host() -> impl Strategy<Value = HostRecord> {
    let said = select(vec![Schedulability::Active, Schedulability::Cordoned, Schedulability::Draining]);
    (name(), said, option::of(text()), option::of(time())).prop_map(|(name, schedulability, engine_id, lost_since)| {
        let identity = engine_id.map(|engine_id| EngineIdentity { engine_id, ..EngineIdentity::default() });
        HostRecord {
            name: name.into(),
            schedulability,
            identity,
            lost_since,
            drain_until: lost_since,
            disk_pressure_since: lost_since,
            public_key: lost_since.and_then(|_| PublicKey::parse(&format!("{:A<43}=", ""))),
        }
    })
}

fn service() -> impl Strategy<Value = ServiceRecord> {
    (name(), vec(any::<u64>(), 0..3), any::<u32>(), option::of(time()), vec((time(), name()), 0..3)).prop_map(
        |(name, ids, consecutive_failures, not_before, failures)| ServiceRecord {
            name: name.into(),
            deployments: ids.into_iter().map(deployment).collect(),
            consecutive_failures,
            not_before,
            failures: failures.into_iter().map(|(at, host)| (at, HostName::from(host))).collect(),
            completed: vec![RevisionId { family: name.into(), number: 3 }],
            pin: consecutive_failures.is_multiple_of(2).then(|| Pin {
                instead_of: RevisionId { family: name.into(), number: 4 },
                revision: RevisionId { family: name.into(), number: 3 },
                reason: name.to_owned(),
            }),
            shift: consecutive_failures.is_multiple_of(5).then(|| Shift { per_mille: 50, ..Shift::default() }),
            in_service: consecutive_failures.is_multiple_of(5).then(|| RevisionId { family: name.into(), number: 2 }),
            again: consecutive_failures.is_multiple_of(3).then_some(Again::Restart),
        },
    )
}

fn deployment(id: u64) -> Deployment {
    Deployment {
        id,
        revision: sample::revision("a", 1, "h", None).id,
        status: DeploymentStatus::Primary,
        rollout_state: RolloutState::InProgress,
        rollout_state_reason: "under way".to_owned(),
        outcome: id.is_multiple_of(2).then_some(Outcome::RolledBack),
        failed_tasks: 3,
        unplaced_at: Some(Timestamp(9)),
        rollback_of: id.checked_sub(1),
        restart: id.is_multiple_of(2),
        paused_at: id.is_multiple_of(3).then_some(Timestamp(7)),
        hooks: Vec::new(),
        queries: Vec::new(),
        analysis: Default::default(),
        stage: id.is_multiple_of(2).then(|| Stage {
            name: LifecycleStage::BakeTime,
            since: Timestamp(3),
            shown_at: id.is_multiple_of(4).then_some(Timestamp(4)),
        }),
        created_at: Timestamp(1),
        updated_at: Timestamp(2),
    }
}

fn task() -> impl Strategy<Value = Task> {
    let status = select(vec![LastStatus::Provisioning, LastStatus::Running, LastStatus::Stopped]);
    let ports = prop_oneof![2 => Just(Vec::new()), 1 => vec(1_u16..6, 1..3)];
    let id = select(vec!["0000000000000001", "0000000000000002", "0000000000000003"]);
    (id, name(), ports, status, option::of(text()), option::of(name())).prop_map(
        |(id, host, ports, last_status, stopped_reason, sidecar)| {
            let mut task = Task { last_status, stopped_reason, ..sample::task(id, host, &ports) };
            task.stop_code = task.stopped_reason.is_some().then_some(StopCode::HostLost);
            task.containers.extend(sidecar.map(|name| (name.into(), sample::container(&[]))));
            task
        },
    )
}

fn volume() -> impl Strategy<Value = VolumeRecord> {
    (name(), name(), name(), option::of(name()), time()).prop_map(|(cluster, name, host, to, at)| VolumeRecord {
        id: VolumeId { cluster: cluster.into(), name: name.to_owned() },
        host: host.into(),
        service: name.into(),
        created_at: at,
        last_used_by: to.map(|_| "0000000000000001".into()),
        last_used_at: to.map(|_| at),
        moving: to.map(|to| VolumeMove {
            to: to.into(),
            stage: MoveStage::Copying,
            since: at,
            failures: 2,
            not_before: Some(at),
            from_volume: Some("other".to_owned()),
        }),
        old_copy: to.map(HostName::from),
        restored_at: to.map(|_| at),
    })
}

fn schedule() -> impl Strategy<Value = ScheduleRecord> {
    (name(), time(), option::of(time()), vec((time(), option::of(text())), 0..3)).prop_map(
        |(name, considered_until, next_at, fires)| ScheduleRecord {
            name: name.into(),
            timing: "rate(1 hour) UTC".to_owned(),
            suspended: next_at.is_none(),
            considered_until,
            next_at,
            fires: fires
                .into_iter()
                .map(|(scheduled_at, reason)| Fire {
                    scheduled_at,
                    outcome: FireOutcome::Succeeded,
                    reason,
                    fired_at: next_at,
                    ended_at: None,
                    exit_code: Some(0),
                    tasks: vec!["t1".into()],
                })
                .collect(),
        },
    )
}

fn fleet() -> impl Strategy<Value = FleetRecord> {
    (any::<u64>(), text(), option::of(text()), vec(text(), 0..3), option::of(any::<bool>())).prop_map(
        |(epoch, manifests_hash, token, confirmed, released)| FleetRecord {
            brake_ended_at: released.map(|_| Timestamp(9)),
            epoch,
            manifests_hash,
            held: token.map(|token| HeldSync { token, reason: "too much".to_owned(), since: Timestamp(4) }),
            confirmed,
            brake: released.map(|released| Brake {
                since: Timestamp(4),
                reason: "silence".to_owned(),
                released,
                hosts: vec!["a".into()],
            }),
            next_deployment: epoch,
            settled: epoch % 2 == 0,
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    let revision = (name(), 1_u32..3, select(vec!["h1", "h1", "h2"]), option::of(select(vec!["i1", "i1", "i2"])));
    prop_oneof![
        2 => desired().prop_map(|desired| Change::Desired(Arc::new(desired))),
        3 => revision.prop_map(|(family, number, hash, image)| {
            Change::Revision(sample::revision(family, number, hash, image))
        }),
        1 => (name(), 1_u32..3).prop_map(|(family, number)| {
            Change::RevisionRemoved(sample::revision(family, number, "h1", None).id)
        }),
        2 => host().prop_map(Change::Host),
        1 => name().prop_map(|name| Change::HostRemoved(name.into())),
        2 => service().prop_map(Change::Service),
        1 => name().prop_map(|name| Change::ServiceRemoved(name.into())),
        6 => task().prop_map(|task| Change::Task(Arc::new(task))),
        1 => task().prop_map(|task| Change::TaskRemoved(task.id)),
        2 => (name(), 0_u64..9, 0_u32..3).prop_map(|(host, at, containers)| {
            Change::Observation(Arc::new(sample::observation(host, at, containers)))
        }),
        2 => volume().prop_map(Change::Volume),
        1 => volume().prop_map(|volume| Change::VolumeRemoved(volume.id)),
        2 => (name(), name(), 0_u32..9).prop_map(|(name, host, number)| Change::Subnet(SubnetRecord {
            name: name.into(),
            cidr: "10.64.0.0/16".parse().unwrap(),
            host_prefix: 24,
            lan: None,
            slices: [(host.into(), number)].into(),
        })),
        1 => name().prop_map(|name| Change::SubnetRemoved(name.into())),
        2 => (name(), text(), any::<bool>()).prop_map(|(name, sealed_key, told)| {
            Change::Certificate(CertificateRecord { id: name.into(), sealed_key, told, ..CertificateRecord::default() })
        }),
        1 => name().prop_map(|name| Change::CertificateRemoved(name.into())),
        1 => (name(), text()).prop_map(|(directory, sealed_key)| Change::AcmeAccount(AcmeAccount { directory: directory.to_owned(), sealed_key })),
        2 => (name(), text(), 0_u32..9).prop_map(|(name, problem, tries)| Change::AcmeOrder(AcmeOrder {
            id: name.into(),
            tries,
            challenges: [("token".to_owned(), problem.clone())].into(),
            problem: Some(problem),
            ..AcmeOrder::default()
        })),
        1 => name().prop_map(|name| Change::AcmeOrderRemoved(name.into())),
        1 => fleet().prop_map(Change::Fleet),
        1 => text().prop_map(|message| Change::Event(sample::event(EventSubject::Fleet, &message))),
        1 => text().prop_map(|message| Change::Event(sample::event(EventSubject::ScheduledTask("a".into()), &message))),
        2 => schedule().prop_map(Change::Schedule),
        1 => name().prop_map(|name| Change::ScheduleRemoved(name.into())),
    ]
}

/// The rules of the schema, said again over values.
fn is_admissible(state: &State, change: &Change) -> bool {
    match change {
        Change::Revision(new) => state.revision(&new.id).is_none_or(|old| {
            old.hash == new.hash && (old.spec.is_none() || (old.spec == new.spec && old.created_at == new.created_at))
        }),
        Change::Task(new) => {
            let held = |task: &Task| {
                let ports: Vec<_> = task.containers.values().flat_map(|container| &container.ports).cloned().collect();
                if task.last_status == LastStatus::Stopped { Vec::new() } else { ports }
            };
            let wanted = held(new);
            let others = state.tasks.values().filter(|task| task.id != new.id && task.host == new.host);
            others.into_iter().all(|other| held(other).iter().all(|port| !wanted.contains(port)))
        }
        Change::Desired(_)
        | Change::Host(_)
        | Change::RevisionRemoved(_)
        | Change::HostRemoved(_)
        | Change::Service(_)
        | Change::ServiceRemoved(_)
        | Change::Schedule(_)
        | Change::ScheduleRemoved(_)
        | Change::TaskRemoved(_)
        | Change::Observation(_)
        | Change::Volume(_)
        | Change::VolumeRemoved(_)
        | Change::Subnet(_)
        | Change::SubnetRemoved(_)
        | Change::Certificate(_)
        | Change::CertificateRemoved(_)
        | Change::AcmeAccount(_)
        | Change::AcmeOrder(_)
        | Change::AcmeOrderRemoved(_)
        | Change::Fleet(_)
        | Change::Event(_) => true,
    }
}

/// Memory after all of `changes`; `None` when one of them is against the rules.
fn admitted(state: &State, changes: &[Change]) -> Option<State> {
    let mut next = state.clone();
    for change in changes {
        if !is_admissible(&next, change) {
            return None;
        }
        next.apply(change);
    }
    Some(next)
}

async fn check(commits: &[Vec<Change>]) -> Result<(), TestCaseError> {
    let dir = dir();
    let mut store = open(&dir).await;
    let mut memory = State::default();
    for changes in commits {
        let outcome = store.commit(changes, None).await;
        match admitted(&memory, changes) {
            Some(next) => {
                let events = changes.iter().filter(|change| matches!(change, Change::Event(_))).count();
                prop_assert_eq!(outcome.map(|ids| ids.len()).map_err(|error| error.to_string()), Ok(events));
                memory = next;
            }
            None => prop_assert!(matches!(outcome, Err(StoreError::Refused { .. })), "{outcome:?}"),
        }
        prop_assert_eq!(&store.load().await.unwrap(), &memory);
    }
    store.close().await.unwrap();
    store = Store::open(dir.path()).await.unwrap();
    prop_assert_eq!(&store.load().await.unwrap(), &memory);
    store.close().await.unwrap();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_file_says_what_memory_says(commits in vec(vec(change(), 1..5), 1..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(&commits))?;
    }
}
