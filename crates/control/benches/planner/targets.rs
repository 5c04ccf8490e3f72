//! One more target comes to a group that has 1,000, behind load balancers on two hosts: all that the controller computes for it.

use std::{collections::BTreeMap, hint::black_box, sync::Arc, time::Duration};

use criterion::Criterion;
use roadstead_control::lb::haproxy::{
    certificates::Pems,
    runtime::{Update, update},
    script,
};
use roadstead_core::{
    model::{
        container::{HealthStatus, PortBinding},
        desired::Desired,
        name::{Family, HostName, ServiceName},
        spec::task_definition::Protocol,
        traffic::{Edge, EdgeSeen, TargetHealth, TargetSeen},
        world::{Plan, World},
    },
    plan::{absorb, plan, traffic::edges},
};
use serde_json::json;

use super::{A_MINUTE_MS, HOSTS, START, all_answer, definition, empty_fleet, launched, manifest};

const TARGETS: usize = 1_000;

fn service(count: usize) -> serde_json::Value {
    json!({ "taskDefinition": "web", "desiredCount": count, "loadBalancers": [{ "targetGroup": "web" }] })
}

fn carried_out(world: &mut World, plan: &Plan) {
    plan.changes.iter().for_each(|change| world.state.apply(change));
    for action in &plan.actions {
        launched(world, action);
        let task = Arc::make_mut(world.state.tasks.get_mut(&action.task).expect("it was launched"));
        for container in task.containers.values_mut() {
            container.ports = vec![PortBinding { container_port: 80, host_port: 49_000, protocol: Protocol::Tcp }];
        }
    }
}

/// Every edge shows what it should, and all targets are well.
fn shown(world: &mut World) {
    for (host, edge) in edges(&world.state) {
        let well = TargetSeen { health: TargetHealth::Healthy, reason: None, idle: true, answers: None };
        let targets = edge.groups.iter().map(|(name, group)| {
            (name.clone(), group.targets.keys().map(|task| (task.clone(), well.clone())).collect::<BTreeMap<_, _>>())
        });
        let seen = EdgeSeen {
            at: world.now,
            targets: targets.collect(),
            confirmed: Some(edge),
            under_way: None,
            is_there: Some(true),
            problem: None,
        };
        world.edges.insert(host, seen);
    }
    absorb::targets(world).iter().for_each(|change| world.state.apply(change));
}

/// All 1,000 are well and nothing is to be done; then one more runs, of which edges were not told yet.
fn one_more() -> (World, BTreeMap<HostName, Arc<Edge>>) {
    let mut world = empty_fleet(0);
    let mut desired = Desired::clone(&world.state.desired);
    for host in desired.hosts.values_mut().take(2) {
        host.labels.insert("role".to_owned(), "edge".to_owned());
    }
    let none = BTreeMap::new;
    desired.task_definitions.insert(Family::from("web"), definition(1));
    desired.services.insert(ServiceName::from("web"), manifest(none(), service(TARGETS)));
    desired.target_groups.insert("web".into(), manifest(none(), json!({ "port": 80 })));
    let listeners = json!([{ "name": "http", "port": 80, "defaultAction": { "forward": "web" } }]);
    let front = json!({ "hosts": { "role": "edge" }, "listeners": listeners });
    desired.load_balancers.insert("front".into(), manifest(none(), front));
    world.state.desired = Arc::new(desired);
    let placing = plan(&world);
    assert_eq!(placing.actions.len(), TARGETS);
    carried_out(&mut world, &placing);
    for _ in 0..4 {
        world.now = world.now.plus_ms(A_MINUTE_MS);
        all_answer(&mut world);
        shown(&mut world);
        let settling = plan(&world);
        carried_out(&mut world, &settling);
    }
    let is_well = |health| health == Some(HealthStatus::Healthy);
    assert!(world.state.tasks.values().all(|task| is_well(task.target_health)), "every target is well");
    assert!(plan(&world).changes.is_empty(), "nothing is to be done");
    let before = edges(&world.state);
    let mut desired = Desired::clone(&world.state.desired);
    desired.services.insert(ServiceName::from("web"), manifest(none(), service(TARGETS + 1)));
    world.state.desired = Arc::new(desired);
    let more = plan(&world);
    assert_eq!(more.actions.len(), 1);
    carried_out(&mut world, &more);
    assert!(world.now > START && HOSTS >= 2);
    (world, before)
}

/// What edges say is taken in, it is decided, and both edges are told.
pub(super) fn one_more_target(criterion: &mut Criterion) {
    let (world, before) = one_more();
    let mut group = criterion.benchmark_group("one_more_target_of_1000_on_two_edges");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.bench_function("all", |bench| {
        bench.iter(|| {
            black_box(absorb::targets(&world));
            black_box(plan(&world));
            let told: usize = edges(&world.state)
                .iter()
                .map(|(host, wanted)| match update(&before[host], wanted) {
                    Update::Commands { first, last } => {
                        script::change(&before[host], wanted, &Pems::new(), &first, &last).len()
                    }
                    Update::Reload => panic!("one more target needs no reload"),
                })
                .sum();
            black_box(told)
        });
    });
    group.finish();
}
