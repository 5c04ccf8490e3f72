//! The short ways of the planner lead where the long ones do.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::vec, prelude::*, sample::Index, sample::select};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::model::{
    action::{Action, ActionKey, VerbName},
    container::{ContainerState, HealthStatus},
    desired::{Desired, Manifest},
    name::{Family, HostName, RevisionId, ServiceName, TaskId},
    observed::{EngineIdentity, HostContact},
    spec::{
        ServiceSpec,
        service::{AvailabilityZoneRebalancing, PlacementConstraint, PlacementConstraintType, TaskDefinitionRef},
    },
    state::{Again, Change, Deployment, DeploymentStatus, HostRecord, Pin, Revision, RolloutState, Schedulability},
    task::{StopCode, Task},
    time::Timestamp,
    traffic::EdgeSeen,
    volume::VolumesSeen,
};

const START: Timestamp = Timestamp(1_700_000_000_000);
const AN_HOUR_MS: u64 = 3_600_000;

fn manifest<S: DeserializeOwned>(spec: Value) -> Manifest<S> {
    let spec = serde_json::from_value(spec).unwrap();
    Manifest { labels: [].into(), annotations: [].into(), file: "fleet.yaml".into(), line: 1, spec }
}

/// A service to be drawn.
#[derive(Clone, Debug)]
pub(super) struct Service {
    strategy: &'static str,
    desired_count: u32,
    constraint: Option<&'static str>,
    checked: bool,
    /// It has a second essential container.
    paired: bool,
}

pub(super) fn any_service() -> impl Strategy<Value = Service> {
    let constraint = select(vec![None, None, Some("attribute:disk == ssd"), Some("not(task:group == service:s0)")]);
    (select(vec!["REPLICA", "DAEMON"]), 0_u32..4, constraint, any::<bool>(), any::<bool>()).prop_map(
        |(strategy, desired_count, constraint, checked, paired)| Service {
            strategy,
            desired_count,
            constraint,
            checked,
            paired,
        },
    )
}

/// One task of two essential containers.
pub(super) fn one_pair() -> Service {
    Service { strategy: "REPLICA", desired_count: 1, constraint: None, checked: false, paired: true }
}

/// A fleet at rest: every task that could be started is healthy.
pub(super) fn at_rest(hosts: usize, services: &[Service]) -> World {
    let mut world = World { now: START, seed: 7, ..World::default() };
    let mut desired = Desired::default();
    for number in 0..hosts {
        let name = HostName::from(format!("h{number}"));
        let mut host = manifest(json!({ "address": "198.18.0.1" }));
        let labels = [("availability-zone", format!("z{}", number % 2)), ("disk", "ssd".to_owned())];
        host.labels = labels.into_iter().take(1 + number % 2).map(|(label, value)| (label.to_owned(), value)).collect();
        desired.hosts.insert(name.clone(), host);
        let identity = EngineIdentity { engine_id: name.to_string(), cpus: 4, memory_mib: 4_096, ..Default::default() };
        world.state.hosts.insert(name.clone(), HostRecord { name, identity: Some(identity), ..HostRecord::default() });
    }
    for (number, service) in services.iter().enumerate() {
        let name = format!("s{number}");
        let check = service.checked.then(|| json!({ "command": ["CMD", "true"] }));
        let container = json!({ "name": "main", "image": "demo:1", "memory": 64, "healthCheck": check });
        let side = service.paired.then(|| json!({ "name": "side", "image": "demo:1", "memory": 64 }));
        let containers: Vec<Value> = [container].into_iter().chain(side).collect();
        let definition = manifest(json!({ "containerDefinitions": containers }));
        desired.task_definitions.insert(name.as_str().into(), definition);
        let mut spec: Manifest<ServiceSpec> = manifest(json!({
            "taskDefinition": name, "desiredCount": service.desired_count, "schedulingStrategy": service.strategy,
        }));
        // A service that must not be where it is never comes to rest.
        let constraint = service.constraint.filter(|constraint| !constraint.contains(&name));
        spec.spec.placement_constraints.extend(constraint.map(|expression| PlacementConstraint {
            kind: PlacementConstraintType::MemberOf,
            expression: Some(expression.to_owned()),
        }));
        desired.services.insert(name.as_str().into(), spec);
    }
    world.state.desired = Arc::new(desired);
    all_answer(&mut world);
    forecast::settle(&mut world);
    world
}

fn all_answer(world: &mut World) {
    let now = Some(world.now);
    let contact = HostContact {
        engine_answered_at: now,
        link_answered_at: now,
        looked_at: now,
        watched_since: START,
        ..HostContact::default()
    };
    world.contacts = world.state.desired.hosts.keys().map(|host| (host.clone(), contact.clone())).collect();
}

/// Something that makes a fleet need attention, or nearly.
#[derive(Clone, Copy, Debug)]
pub(super) enum Nudge {
    Unhealthy,
    NeverHealthy,
    Restarts(usize),
    OldRevision,
    OtherCluster,
    Stopped,
    Gone,
    Twin,
    Elsewhere,
    Container(Option<ContainerState>),
    Host(Schedulability),
    Silent(u64),
    NotLookedAt,
    Count(u32),
    Undeclared,
    HostUndeclared,
    NewDefinition,
    InProgress,
    OlderDeployment,
    NoRecord,
    Failing,
    Paused,
    FailedTasks(u32),
    Failed,
    Rollback,
    Restarting,
    Again(Again),
    Pinned(&'static str),
    Protected,
    Singleton,
    Rebalancing,
}

pub(super) fn any_nudge() -> impl Strategy<Value = Nudge> {
    prop_oneof![
        Just(Nudge::Unhealthy),
        Just(Nudge::NeverHealthy),
        (1_usize..4).prop_map(Nudge::Restarts),
        Just(Nudge::OldRevision),
        Just(Nudge::OtherCluster),
        Just(Nudge::Stopped),
        Just(Nudge::Gone),
        Just(Nudge::Twin),
        Just(Nudge::Elsewhere),
        select(vec![None, Some(ContainerState::Created), Some(ContainerState::Exited), Some(ContainerState::Paused)])
            .prop_map(Nudge::Container),
        select(vec![Schedulability::Cordoned, Schedulability::Draining]).prop_map(Nudge::Host),
        (0_u64..20_000).prop_map(Nudge::Silent),
        Just(Nudge::NotLookedAt),
        (0_u32..4).prop_map(Nudge::Count),
        Just(Nudge::Undeclared),
        Just(Nudge::HostUndeclared),
        Just(Nudge::NewDefinition),
        Just(Nudge::InProgress),
        Just(Nudge::OlderDeployment),
        Just(Nudge::NoRecord),
        Just(Nudge::Failing),
        Just(Nudge::Paused),
        (2_u32..4).prop_map(Nudge::FailedTasks),
        Just(Nudge::Failed),
        Just(Nudge::Rollback),
        Just(Nudge::Restarting),
        select(vec![Again::Restart, Again::Retry]).prop_map(Nudge::Again),
        select(vec!["s0:1", "s0:7", "s1:1"]).prop_map(Nudge::Pinned),
        Just(Nudge::Protected),
        Just(Nudge::Singleton),
        Just(Nudge::Rebalancing),
    ]
}

fn pick<'a, T>(items: impl Iterator<Item = &'a T>, which: Index) -> Option<T>
where
    T: Clone + 'a,
{
    let items: Vec<&T> = items.collect();
    (!items.is_empty()).then(|| (*which.get(&items)).clone())
}

fn change_task(world: &mut World, id: Option<TaskId>, change: impl FnOnce(&mut Task)) {
    if let Some(task) = id.and_then(|id| world.state.tasks.get_mut(&id)) {
        change(Arc::make_mut(task));
    }
}

fn change_primary(world: &mut World, service: Option<ServiceName>, change: impl FnOnce(&mut Deployment)) {
    let record = service.and_then(|service| world.state.services.get_mut(&service));
    if let Some(primary) = record.and_then(|record| record.deployments.first_mut()) {
        change(primary);
    }
}

pub(super) fn nudge(world: &mut World, nudge: Nudge, which: Index) {
    let now = world.now;
    let task = pick(world.state.tasks.keys(), which);
    let host = pick(world.state.desired.hosts.keys(), which);
    let service = pick(world.state.desired.services.keys(), which);
    match nudge {
        Nudge::Unhealthy => change_task(world, task, |task| task.health_status = HealthStatus::Unhealthy),
        Nudge::NeverHealthy => change_task(world, task, |task| task.healthy_at = None),
        Nudge::Restarts(times) => change_task(world, task, |task| task.restarts = vec![now; times]),
        Nudge::OldRevision => change_task(world, task, |task| task.revision.number = 7),
        Nudge::OtherCluster => change_task(world, task, |task| task.cluster = "other".into()),
        Nudge::Stopped => change_task(world, task, |task| task.order_stop(now, StopCode::UserInitiated, "a person")),
        Nudge::Container(state) => change_task(world, task, |task| {
            task.containers.values_mut().for_each(|row| row.state = state);
        }),
        Nudge::Gone => {
            task.and_then(|task| world.state.tasks.remove(&task));
        }
        Nudge::Twin => {
            if let Some(task) = task.and_then(|task| world.state.tasks.get(&task).cloned()) {
                let twin = Task { id: "twin".into(), ..Task::clone(&task) };
                world.state.tasks.insert(twin.id.clone(), Arc::new(twin));
            }
        }
        Nudge::Elsewhere => {
            if let Some(host) = host {
                change_task(world, task, |task| task.host = host);
            }
        }
        Nudge::Host(schedulability) => {
            if let Some(record) = host.and_then(|host| world.state.hosts.get_mut(&host)) {
                record.schedulability = schedulability;
            }
        }
        Nudge::Silent(ms) => {
            if let Some(contact) = host.and_then(|host| world.contacts.get_mut(&host)) {
                let heard = Some(Timestamp(now.0 - ms));
                contact.watched_since = Timestamp(0);
                contact.engine_answered_at = heard;
                contact.link_answered_at = heard;
                contact.error = Some("no answer".into());
            }
        }
        Nudge::NotLookedAt => {
            if let Some(contact) = host.and_then(|host| world.contacts.get_mut(&host)) {
                contact.looked_at = None;
            }
        }
        Nudge::Count(count) => {
            let desired = Arc::make_mut(&mut world.state.desired);
            if let Some(manifest) = service.and_then(|service| desired.services.get_mut(&service)) {
                manifest.spec.desired_count = count;
            }
        }
        Nudge::Undeclared => {
            let desired = Arc::make_mut(&mut world.state.desired);
            service.and_then(|service| desired.services.remove(&service));
        }
        Nudge::HostUndeclared => {
            let desired = Arc::make_mut(&mut world.state.desired);
            host.and_then(|host| desired.hosts.remove(&host));
        }
        Nudge::NewDefinition => {
            let desired = Arc::make_mut(&mut world.state.desired);
            let manifest = service.and_then(|service| desired.task_definitions.get_mut(service.as_str()));
            if let Some(manifest) = manifest {
                manifest.spec.edit(|spec| spec.container_definitions[0].image = "demo:2".into());
            }
        }
        Nudge::InProgress => change_primary(world, service, |primary| primary.rollout_state = RolloutState::InProgress),
        Nudge::OlderDeployment => {
            let record = service.and_then(|service| world.state.services.get_mut(&service));
            if let Some(record) = record {
                let older = record.deployments.first().cloned();
                record.deployments.extend(older.map(|mut older| {
                    older.status = DeploymentStatus::Active;
                    older
                }));
            }
        }
        Nudge::NoRecord => {
            service.and_then(|service| world.state.services.remove(&service));
        }
        Nudge::Failing => {
            if let Some(record) = service.and_then(|service| world.state.services.get_mut(&service)) {
                record.consecutive_failures = 3;
                record.not_before = Some(now.plus_ms(4_000));
            }
        }
        Nudge::Paused => change_primary(world, service, |primary| {
            primary.rollout_state = RolloutState::InProgress;
            primary.paused_at = Some(now);
        }),
        Nudge::FailedTasks(count) => change_primary(world, service, |primary| {
            primary.rollout_state = RolloutState::InProgress;
            primary.outcome = None;
            primary.failed_tasks = count;
        }),
        Nudge::Failed => change_primary(world, service, |primary| primary.rollout_state = RolloutState::Failed),
        Nudge::Rollback => change_primary(world, service, |primary| {
            primary.rollout_state = RolloutState::Failed;
            primary.rollback_of = Some(1);
        }),
        Nudge::Restarting => change_primary(world, service, |primary| {
            primary.rollout_state = RolloutState::InProgress;
            primary.restart = true;
            primary.id += 1;
        }),
        Nudge::Again(again) => {
            if let Some(record) = service.and_then(|service| world.state.services.get_mut(&service)) {
                record.again = Some(again);
            }
        }
        Nudge::Pinned(instead_of) => {
            if let Some(record) = service.and_then(|service| world.state.services.get_mut(&service)) {
                let revision = RevisionId { family: record.name.as_str().into(), number: 1 };
                let instead_of = instead_of.parse().unwrap();
                record.pin = Some(Pin { instead_of, revision, reason: "a person said so".to_owned() });
            }
        }
        Nudge::Protected => change_task(world, task, |task| task.protected_until = Some(now.plus_ms(60_000))),
        Nudge::Singleton => {
            let desired = Arc::make_mut(&mut world.state.desired);
            if let Some(manifest) = service.and_then(|service| desired.services.get_mut(&service)) {
                manifest.spec.singleton = true;
            }
        }
        Nudge::Rebalancing => {
            let desired = Arc::make_mut(&mut world.state.desired);
            if let Some(manifest) = service.and_then(|service| desired.services.get_mut(&service)) {
                manifest.spec.availability_zone_rebalancing = AvailabilityZoneRebalancing::Enabled;
            }
        }
    }
}

fn plan_the_long_way(world: &World) -> Plan {
    let mut draft = Draft::new(world);
    draft.shortcuts = false;
    decide(draft)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_short_way_decides_what_the_long_one_does(
        hosts in 1_usize..4,
        services in vec(any_service(), 1..4),
        nudges in vec((any_nudge(), any::<Index>()), 0..4),
        later in select(vec![0, AN_HOUR_MS]),
    ) {
        let mut world = at_rest(hosts, &services);
        world.now = world.now.plus_ms(later);
        all_answer(&mut world);
        for (what, which) in nudges {
            nudge(&mut world, what, which);
        }
        let (short, mut long) = (plan(&world), plan_the_long_way(&world));
        // The long way may also wake for what makes no difference to a service that is as it should be.
        prop_assert!(short.wake_at.is_none_or(|at| long.wake_at.is_some_and(|earlier| earlier <= at)));
        long.wake_at = short.wake_at;
        prop_assert_eq!(short, long);
    }

    #[test]
    fn what_goes_on_quietly_has_nothing_to_do(
        hosts in 1_usize..4,
        services in vec(any_service(), 1..4),
        nudges in vec((any_nudge(), any::<Index>()), 0..4),
        later_ms in 0_u64..70_000,
        answers in any::<bool>(),
        more in vec((any_nudge(), any::<Index>()), 0..2),
    ) {
        let mut world = at_rest(hosts, &services);
        for (what, which) in nudges {
            nudge(&mut world, what, which);
        }
        carry_out(&mut world);
        let found = plan(&world);
        if found.changes.is_empty() && found.actions.is_empty() {
            let quiet = Quiet::new(world.clone(), found.wake_at.unwrap_or(Timestamp(u64::MAX)));
            world.now = world.now.plus_ms(later_ms);
            if answers {
                all_answer(&mut world);
            }
            for (what, which) in more {
                nudge(&mut world, what, which);
            }
            if quiet.goes_on(&world) {
                let found = plan(&world);
                prop_assert_eq!((found.changes, found.actions), Default::default());
            }
        }
    }
}

/// What is decided is ordered, and no answer comes.
fn carry_out(world: &mut World) {
    let found = plan(world);
    found.changes.iter().for_each(|change| world.state.apply(change));
    world.in_flight.extend(found.actions.iter().map(Action::key));
}

#[test]
fn a_fleet_at_rest_is_quiet_until_something_matters() {
    let mut rest = at_rest(3, &[one_pair()]);
    carry_out(&mut rest);
    let later = |ms| World { now: rest.now.plus_ms(ms), ..rest.clone() };
    let quiet = Quiet::new(rest.clone(), rest.now.plus_ms(10_000));
    let changed = |change: &dyn Fn(&mut World)| {
        let mut world = later(2_000);
        change(&mut world);
        quiet.goes_on(&world)
    };
    let any_task = rest.state.tasks.keys().next().cloned();
    let (host, key) = (HostName::from("h1"), ActionKey { task: "t".into(), verb: VerbName::Stop });
    assert!(changed(&|_| {}), "nothing happened");
    assert!(changed(&all_answer), "a look as the last one");
    assert!(!quiet.goes_on(&later(10_000)), "the alarm");
    assert!(!quiet.goes_on(&World { now: Timestamp(rest.now.0 - 1), ..rest.clone() }), "a clock that was set back");
    assert!(!quiet.goes_on(&later(5_500)), "silence beyond suspectAfter");
    assert!(!changed(&|world| world.settling = true));
    assert!(!changed(&|world| world.in_flight.extend([key.clone()])));
    assert!(!changed(&|world| world.retry_at.extend([(key.clone(), (rest.now, String::new()))])));
    assert!(!changed(&|world| world.volumes.extend([(host.clone(), VolumesSeen::default())])));
    assert!(!changed(
        &|world| change_task(world, any_task.clone(), |task| task.health_status = HealthStatus::Unhealthy)
    ));
    let contact = |change: &dyn Fn(&mut HostContact)| {
        changed(&|world| world.contacts.get_mut(&host).into_iter().for_each(change))
    };
    assert!(!contact(&|contact| contact.error = Some("no answer".into())));
    assert!(!contact(&|contact| contact.looked_at = None));
    assert!(!contact(&|contact| contact.untrusted = Some("a clone".into())));
}

#[test]
fn what_is_told_to_an_edge_lets_nothing_happen_that_was_not_to_before() {
    let edge = || EdgeSeen {
        at: Timestamp(1),
        confirmed: None,
        under_way: None,
        targets: BTreeMap::new(),
        is_there: Some(false),
        problem: None,
    };
    let mut rest = at_rest(1, &[one_pair()]);
    carry_out(&mut rest);
    let later = |host: &str, edge: EdgeSeen| {
        let mut world = World { now: rest.now.plus_ms(2_000), ..rest.clone() };
        world.edges.insert(host.into(), edge);
        world
    };
    let quiet = Quiet::new(later("h0", edge()), rest.now.plus_ms(10_000));
    assert!(quiet.goes_on(&later("h0", EdgeSeen { at: Timestamp(2), ..edge() })), "when it was looked at is no matter");
    assert!(!quiet.goes_on(&later("h0", EdgeSeen { is_there: Some(true), ..edge() })));
    assert!(!quiet.goes_on(&later("h0", EdgeSeen { problem: Some("no".into()), ..edge() })));
    assert!(!quiet.goes_on(&later("h1", edge())));
    let told = EdgeSeen { under_way: Some(Arc::default()), ..edge() };
    assert!(quiet.goes_on(&later("h0", told.clone())), "it only ever keeps a task from being stopped");
    let quiet = Quiet::new(later("h0", told.clone()), rest.now.plus_ms(10_000));
    assert!(quiet.goes_on(&later("h0", told)));
    assert!(!quiet.goes_on(&later("h0", edge())), "it is in force, or not");
}

#[test]
fn a_fleet_at_rest_takes_the_short_way() {
    let service = |strategy| Service { strategy, desired_count: 2, constraint: None, checked: true, paired: false };
    let world = at_rest(3, &[service("REPLICA"), service("DAEMON")]);
    assert_eq!(world.state.tasks.len(), 2 + 3);
    assert_eq!(plan(&world), Plan::default());
    let mut draft = Draft::new(&world);
    revision::number(&mut draft);
    draft.read_tasks(service::is_kept);
    let counts = draft.tasks.counts(draft.services.len());
    assert!(service::is_steady(&draft.services[0], counts[0]));
    let daemon = draft.tasks.members(draft.services.len());
    let subjected = service::Subjected::new(&draft, 1, daemon.of(1)).unwrap();
    assert!(daemon::is_steady(&mut draft, &subjected));
}

#[test]
fn old_revisions_go_but_for_those_in_use() {
    let mut world = at_rest(1, &[one_pair()]);
    let family = Family::from("s0");
    let revision = world.state.latest_revision(&family).cloned().unwrap();
    for number in 2..=40 {
        let id = RevisionId { family: family.clone(), number };
        let hash = if number == 40 { revision.hash.clone() } else { number.to_string() };
        world.state.apply(&Change::Revision(Revision { id, hash, ..revision.clone() }));
    }
    // 1 still runs; 5 is what another service names.
    let desired = Arc::make_mut(&mut world.state.desired);
    let mut other = desired.services["s0"].clone();
    other.spec.task_definition = TaskDefinitionRef::Named("s0:5".to_owned());
    other.spec.desired_count = 0;
    desired.services.insert("s1".into(), other);
    // 9 is what s0 may go back to.
    let record = world.state.services.get_mut("s0").unwrap();
    record.note_completed(&RevisionId { family: family.clone(), number: 9 });
    plan(&world).changes.iter().for_each(|change| world.state.apply(change));
    let left: Vec<u32> = world.state.revisions[&family].keys().copied().collect();
    assert_eq!(left, [1, 5, 9].into_iter().chain(21..=40).collect::<Vec<u32>>());
}
