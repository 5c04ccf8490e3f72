//! Placement at the size that the planner promises: 1,000 hosts; 1,000, 10,000 and 100,000 tasks.

use std::{collections::BTreeMap, hint::black_box};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use roadstead_core::{
    model::{
        name::{ClusterName, HostName, ServiceName},
        spec::{
            service::{LaunchType, PlacementStrategy, PlacementStrategyType},
            task_definition::Protocol,
        },
        time::Timestamp,
    },
    plan::placement::{HostInput, HostPort, Placed, Placer, PortRequest, Request},
};

const HOSTS: usize = 1000;
const NOW: Timestamp = Timestamp(1_000_000_000);

struct Fleet {
    cluster: ClusterName,
    hosts: Vec<(HostName, BTreeMap<String, String>)>,
    services: Vec<ServiceName>,
    strategies: Vec<PlacementStrategy>,
}

impl Fleet {
    fn new(services: usize) -> Self {
        let labels = |host: usize| BTreeMap::from([("availability-zone".to_owned(), format!("az{}", host % 3))]);
        let strategy = |kind, field: &str| PlacementStrategy { kind, field: Some(field.to_owned()) };
        Self {
            cluster: "default".into(),
            hosts: (0..HOSTS).map(|host| (format!("host-{host:04}").into(), labels(host))).collect(),
            services: (0..services).map(|service| format!("service-{service:03}").into()).collect(),
            strategies: vec![
                strategy(PlacementStrategyType::Spread, "attribute:availability-zone"),
                strategy(PlacementStrategyType::Binpack, "memory"),
            ],
        }
    }

    fn inputs(&self) -> impl Iterator<Item = HostInput<'_>> {
        self.hosts.iter().map(|(name, labels)| HostInput {
            name,
            cluster: &self.cluster,
            labels,
            architecture: "X86_64",
            accepts: Ok(()),
            cpu: 65_536,
            memory: 262_144,
            gpus: 0,
            ports_in_use: Vec::new(),
            slices: Vec::new(),
            has_network: false,
        })
    }

    /// Tasks that run, in an order that has nothing to do with their hosts.
    fn running(&self, tasks: usize) -> impl Iterator<Item = Placed<'_>> {
        (0..tasks).map(|task| Placed {
            service: &self.services[task * 7 % self.services.len()],
            host: &self.hosts[task * 611 % HOSTS].0,
            cpu: 100,
            memory: 100,
            gpus: 0,
            ports: vec![HostPort { protocol: Protocol::Tcp, port: 32_768 + (task / HOSTS) as u16 }],
            address: None,
            counts: true,
        })
    }

    fn place(&self, tasks: usize) -> usize {
        let mut placer = Placer::new(self.inputs(), [], NOW, 7);
        let ports = [PortRequest { container_port: 80, host_port: None, protocol: Protocol::Tcp }];
        let place = |task: usize| {
            let request = Request {
                service: &self.services[task % self.services.len()],
                cluster: &self.cluster,
                cpu: 100,
                memory: 1000,
                gpus: 0,
                ports: &ports,
                subnets: None,
                architecture: None,
                constraints: &[],
                silent: &[],
                homes: &[],
                strategies: &self.strategies,
                launch_type: LaunchType::Ec2,
                recent_failures: &[],
                nth: task as u64,
            };
            placer.place(&request).is_ok()
        };
        (0..tasks).map(place).filter(|placed| *placed).count()
    }
}

fn benches(criterion: &mut Criterion) {
    let fleet = Fleet::new(100);
    let mut group = criterion.benchmark_group("new_placer_1000_hosts");
    for tasks in [1000, 10_000, 20_000, 100_000] {
        group.throughput(Throughput::Elements(tasks as u64));
        group.bench_with_input(BenchmarkId::from_parameter(tasks), &tasks, |bench, tasks| {
            bench.iter(|| {
                black_box(Placer::new(fleet.inputs(), fleet.running(*tasks), NOW, 7)).remaining(&fleet.hosts[0].0)
            });
        });
    }
    group.finish();

    for services in [1, 100] {
        let fleet = Fleet::new(services);
        let mut group = criterion.benchmark_group(format!("place_on_1000_hosts_{services}_services"));
        group.sample_size(10);
        for tasks in [1000, 10_000, 20_000, 100_000] {
            assert_eq!(fleet.place(tasks), tasks, "there is room for all");
            group.throughput(Throughput::Elements(tasks as u64));
            group.bench_with_input(BenchmarkId::from_parameter(tasks), &tasks, |bench, tasks| {
                bench.iter(|| fleet.place(*tasks))
            });
        }
        group.finish();
    }
}

criterion_group!(placement, benches);
criterion_main!(placement);
