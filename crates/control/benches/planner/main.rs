//! Whole plans at the size that the planner promises: 1,000 hosts; 1,000 to 100,000 tasks. Single turns of a small fleet.

mod small;
mod targets;

use std::{collections::BTreeMap, hint::black_box, sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use roadstead_core::{
    model::{
        action::{Action, Verb},
        container::ContainerState,
        definition::Definition,
        desired::{Desired, Manifest},
        name::{Family, HostName, RuntimeId, ServiceName},
        observed::{EngineIdentity, HostContact},
        spec::ServiceSpec,
        state::{HostRecord, RolloutState},
        task::{LastStatus, Launch},
        time::Timestamp,
        world::World,
    },
    plan::plan,
};
use serde_json::{Value, json};

const HOSTS: usize = 1000;
const TASKS_PER_SERVICE: usize = 100;
const START: Timestamp = Timestamp(1_000_000_000);
const A_MINUTE_MS: u64 = 60_000;

fn manifest<S: serde::de::DeserializeOwned>(labels: BTreeMap<String, String>, spec: Value) -> Manifest<S> {
    let spec = serde_json::from_value(spec).expect("the spec is a good one");
    Manifest { labels, annotations: BTreeMap::new(), file: "fleet.yaml".to_owned(), line: 1, spec }
}

fn definition(version: u32) -> Manifest<Definition> {
    // By digest: nobody is asked what it stands for.
    let image = format!("demo@sha256:{version:064}");
    let container = json!({
        "name": "web", "image": image, "cpu": 100, "memory": 1000, "portMappings": [{ "containerPort": 80 }],
    });
    manifest(BTreeMap::new(), json!({ "containerDefinitions": [container] }))
}

fn replicas(family: &str, count: usize) -> Manifest<ServiceSpec> {
    let strategy = json!([
        { "type": "spread", "field": "attribute:availability-zone" },
        { "type": "binpack", "field": "memory" },
    ]);
    let spec = json!({ "taskDefinition": family, "desiredCount": count, "placementStrategy": strategy });
    manifest(BTreeMap::new(), spec)
}

/// Hosts that answer and hold nothing, and services of a hundred tasks that want to be there.
fn empty_fleet(tasks: usize) -> World {
    let mut world = World { now: START, seed: 7, ..World::default() };
    let mut desired = Desired::default();
    for number in 0..HOSTS {
        let name = HostName::from(format!("host-{number:04}"));
        let labels = BTreeMap::from([("availability-zone".to_owned(), format!("az{}", number % 3))]);
        desired.hosts.insert(name.clone(), manifest(labels, json!({ "address": "198.18.0.1" })));
        let identity = EngineIdentity {
            engine_id: name.to_string(),
            architecture: "X86_64".to_owned(),
            cpus: 64,
            memory_mib: 262_144,
            ..EngineIdentity::default()
        };
        let record = HostRecord { name: name.clone(), identity: Some(identity), ..HostRecord::default() };
        world.state.hosts.insert(name, record);
    }
    for number in 0..tasks / TASKS_PER_SERVICE {
        let name = format!("service-{number:04}");
        desired.task_definitions.insert(Family::from(name.as_str()), definition(1));
        desired.services.insert(ServiceName::from(name.as_str()), replicas(&name, TASKS_PER_SERVICE));
    }
    world.state.desired = Arc::new(desired);
    all_answer(&mut world);
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

/// What a host that answers at once leads to: every container of the launch runs.
fn launched(world: &mut World, action: &Action) {
    let Verb::Launch { .. } = &action.verb else { panic!("an empty fleet has nothing to {:?}", action.verb.name()) };
    let task = Arc::make_mut(world.state.tasks.get_mut(&action.task).expect("the plan added it"));
    for container in task.containers.values_mut() {
        container.runtime_id = Some(RuntimeId::from(container.created_name.as_str()));
        container.state = Some(ContainerState::Running);
    }
    task.launch = Launch::Answered { at: world.now };
    task.last_status = LastStatus::Running;
    task.started_at = Some(world.now);
}

/// The same fleet a minute after it was asked for: every task runs and is healthy.
fn settled(mut world: World) -> World {
    let placing = plan(&world);
    placing.changes.iter().for_each(|change| world.state.apply(change));
    placing.actions.iter().for_each(|action| launched(&mut world, action));
    world.now = world.now.plus_ms(A_MINUTE_MS);
    all_answer(&mut world);
    let settling = plan(&world);
    settling.changes.iter().for_each(|change| world.state.apply(change));
    assert!(settling.actions.is_empty(), "nothing more is to be started");
    let completed = |record: &roadstead_core::model::state::ServiceRecord| {
        record.deployments.first().is_some_and(|primary| primary.rollout_state == RolloutState::Completed)
    };
    assert!(world.state.services.values().all(completed), "every deployment is over");
    world
}

fn assert_nothing_to_do(world: &World) {
    let idle = plan(world);
    assert!(idle.changes.is_empty() && idle.actions.is_empty(), "a settled fleet needs nothing");
    assert!(idle.report.waiting.is_empty(), "nothing waits: {:?}", idle.report.waiting.first());
}

fn nothing_to_do(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan_1000_hosts_nothing_to_do");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for tasks in [1000, 10_000, 20_000, 100_000] {
        let world = settled(empty_fleet(tasks));
        assert_eq!(world.state.tasks.len(), tasks);
        assert_nothing_to_do(&world);
        group.throughput(Throughput::Elements(tasks as u64));
        group.bench_with_input(BenchmarkId::from_parameter(tasks), &world, |bench, world| {
            bench.iter(|| black_box(plan(world)));
        });
    }
    group.finish();
}

/// A daemon asks placement which hosts it belongs on, in every plan.
fn nothing_to_do_with_a_daemon(criterion: &mut Criterion) {
    let mut world = empty_fleet(20_000);
    let desired = Arc::make_mut(&mut world.state.desired);
    desired.task_definitions.insert(Family::from("daemon"), definition(1));
    let spec = json!({ "taskDefinition": "daemon", "schedulingStrategy": "DAEMON" });
    desired.services.insert(ServiceName::from("daemon"), manifest(BTreeMap::new(), spec));
    let world = settled(world);
    assert_eq!(world.state.tasks.len(), 20_000 + HOSTS);
    assert_nothing_to_do(&world);
    let mut group = criterion.benchmark_group("plan_1000_hosts_nothing_to_do_with_a_daemon");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.bench_with_input(BenchmarkId::from_parameter(20_000), &world, |bench, world| {
        bench.iter(|| black_box(plan(world)));
    });
    group.finish();
}

fn place_all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan_1000_empty_hosts_place_all");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(5));
    for tasks in [1000, 10_000, 20_000, 100_000] {
        let world = empty_fleet(tasks);
        assert_eq!(plan(&world).actions.len(), tasks, "there is room for all");
        group.throughput(Throughput::Elements(tasks as u64));
        group.bench_with_input(BenchmarkId::from_parameter(tasks), &world, |bench, world| {
            bench.iter(|| black_box(plan(world)));
        });
    }
    group.finish();
}

/// All 200 services get a new revision at once: every task's successor is placed beside it.
fn place_during_rollout(criterion: &mut Criterion) {
    let tasks = 20_000;
    let mut world = settled(empty_fleet(tasks));
    let desired = Arc::make_mut(&mut world.state.desired);
    desired.task_definitions.values_mut().for_each(|manifest| *manifest = definition(2));
    assert_eq!(plan(&world).actions.len(), tasks, "there is room for all");
    let mut group = criterion.benchmark_group("plan_1000_hosts_place_during_rollout");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(5));
    group.bench_with_input(BenchmarkId::from_parameter(tasks), &world, |bench, world| {
        bench.iter(|| black_box(plan(world)));
    });
    group.finish();
}

criterion_group!(
    planner,
    small::small,
    targets::one_more_target,
    nothing_to_do,
    nothing_to_do_with_a_daemon,
    place_all,
    place_during_rollout
);
criterion_main!(planner);
