//! What a seed draws: fleet, services, their changes, and how often things go wrong.

use std::collections::BTreeMap;

use super::rng::Rng;
use crate::model::{
    desired::{Desired, Manifest},
    name::ServiceName,
    quantity::{CpuUnits, Mebibytes, Seconds},
    spec::{
        HostSpec, ServiceSpec, TaskDefinitionSpec,
        host::{Reserved, SshSpec},
        service::{
            DeploymentConfiguration, LaunchType, OnHostLoss, PlacementStrategy, PlacementStrategyType,
            SchedulingStrategy, TaskDefinitionRef,
        },
        task_definition::{
            ContainerDefinition, ContainerDependency, DependencyCondition, Environment, HealthCheck, PortMapping,
        },
    },
};

/// How often each fault comes, in per mille of steps; drawn by each seed for itself.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    pub(super) cut: u64,
    pub(super) hang: u64,
    pub(super) heal: u64,
    pub(super) engine_restart: u64,
    pub(super) kill: u64,
    pub(super) crash: u64,
    pub(super) remove_by_hand: u64,
    pub(super) lose_answer: u64,
    pub(super) lose_request: u64,
    pub(super) controller_crash: u64,
    pub(super) database_lost: u64,
    pub(super) change: u64,
    pub(super) operator: u64,
    pub(super) stale_look: u64,
}

impl Rates {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let mut rate = |most: u64| if rng.chance(400) { 0 } else { rng.within(1, most) };
        Self {
            cut: rate(20),
            hang: rate(20),
            heal: 120,
            engine_restart: rate(10),
            kill: rate(40),
            crash: rate(40),
            remove_by_hand: rate(20),
            lose_answer: rate(200),
            lose_request: rate(100),
            controller_crash: rate(30),
            database_lost: rate(4),
            change: rate(40),
            operator: rate(20),
            stale_look: rate(100),
        }
    }
}

fn manifest<S>(spec: S, labels: BTreeMap<String, String>) -> Manifest<S> {
    Manifest { labels, annotations: BTreeMap::new(), file: "sim.yaml".into(), line: 1, spec }
}

/// A fleet and its services.
pub(super) fn desired(rng: &mut Rng, hosts: u64, services: u64) -> Desired {
    let mut desired = Desired::default();
    let zones = rng.within(1, 3);
    for index in 0..hosts {
        let name = format!("host-{index}");
        let labels = BTreeMap::from([("availability-zone".to_owned(), format!("zone-{}", index % zones))]);
        let spec = HostSpec {
            address: name.clone(),
            ssh: SshSpec::default(),
            cluster: "default".into(),
            reserved: Reserved::default(),
            docker_socket: "/var/run/docker.sock".into(),
        };
        desired.hosts.insert(name.into(), manifest(spec, labels));
    }
    for index in 0..services {
        let name = format!("svc-{index}");
        let definition = definition(rng, &name);
        desired.task_definitions.insert(name.as_str().into(), manifest(definition, BTreeMap::new()));
        let spec = service(rng, &name);
        desired.services.insert(name.into(), manifest(spec, BTreeMap::new()));
    }
    desired
}

fn definition(rng: &mut Rng, family: &str) -> TaskDefinitionSpec {
    let container = |name: &str, checked: bool, ports: Vec<PortMapping>| ContainerDefinition {
        name: name.to_owned(),
        image: "demo:1".into(),
        essential: true,
        cpu: CpuUnits(64),
        memory: Some(Mebibytes(64)),
        port_mappings: ports,
        health_check: checked.then(|| HealthCheck {
            command: vec!["CMD".into(), "check".into()],
            interval: Seconds(5),
            timeout: Seconds(2),
            retries: 3,
            start_period: Seconds(0),
        }),
        ..ContainerDefinition::default()
    };
    let port = |host_port| PortMapping {
        container_port: 80,
        host_port,
        protocol: Default::default(),
        name: None,
        app_protocol: None,
        container_port_range: None,
    };
    let checked = rng.chance(600);
    let ports = if rng.chance(500) { vec![port(rng.chance(200).then_some(8080))] } else { Vec::new() };
    let mut containers = vec![container("main", checked, ports)];
    if rng.chance(300) {
        let mut side = container("side", false, Vec::new());
        side.essential = rng.chance(700);
        side.depends_on = vec![ContainerDependency {
            container_name: "main".into(),
            condition: if checked { DependencyCondition::Healthy } else { DependencyCondition::Start },
        }];
        containers.push(side);
    }
    TaskDefinitionSpec {
        family: Some(family.to_owned()),
        container_definitions: containers,
        ..TaskDefinitionSpec::default()
    }
}

fn service(rng: &mut Rng, name: &str) -> ServiceSpec {
    let strategy = |kind, field: &str| PlacementStrategy { kind, field: Some(field.to_owned()) };
    let strategies = match rng.within(0, 3) {
        0 => Vec::new(),
        1 => vec![
            strategy(PlacementStrategyType::Spread, "attribute:availability-zone"),
            strategy(PlacementStrategyType::Binpack, "memory"),
        ],
        2 => vec![PlacementStrategy { kind: PlacementStrategyType::Random, field: None }],
        _ => vec![strategy(PlacementStrategyType::Spread, "instanceId")],
    };
    let daemon = rng.chance(150);
    let bounds =
        [(None, None), (Some(50), Some(200)), (Some(100), Some(150)), (Some(0), Some(100)), (Some(50), Some(100))];
    let (minimum_healthy_percent, maximum_percent) =
        if daemon { (None, None) } else { *rng.pick(&bounds).unwrap_or(&(None, None)) };
    ServiceSpec {
        cluster: "default".into(),
        task_definition: TaskDefinitionRef::Named(name.to_owned()),
        desired_count: rng.within(1, 8) as u32,
        launch_type: LaunchType::Ec2,
        scheduling_strategy: if daemon { SchedulingStrategy::Daemon } else { SchedulingStrategy::Replica },
        placement_constraints: Vec::new(),
        placement_strategy: strategies,
        deployment_configuration: DeploymentConfiguration {
            minimum_healthy_percent,
            maximum_percent,
            ..Default::default()
        },
        health_check_grace_period_seconds: Seconds(0),
        minimum_healthy_seconds: Seconds(3),
        on_host_loss: if rng.chance(150) { OnHostLoss::Wait } else { OnHostLoss::Replace },
        ..bare(name)
    }
}

fn bare(name: &str) -> ServiceSpec {
    // Through the reader, so that fields of later versions have their defaults here, too.
    serde_json::from_value(serde_json::json!({ "taskDefinition": name }))
        .unwrap_or_else(|error| unreachable!("{error}"))
}

/// Changes one service or its task definition; says what it did.
pub(super) fn change(rng: &mut Rng, desired: &mut Desired) -> String {
    let names: Vec<ServiceName> = desired.services.keys().cloned().collect();
    let Some(name) = rng.pick(&names).cloned() else { return "nothing".into() };
    if rng.chance(500) {
        let count = rng.within(0, 8) as u32;
        if let Some(service) = desired.services.get_mut(&name) {
            service.spec.desired_count = count;
        }
        return format!("{name} wants {count} tasks");
    }
    let version = rng.within(2, 9);
    let sick = rng.chance(150);
    if let Some(definition) = desired.task_definitions.get_mut(name.as_str())
        && let Some(container) = definition.spec.container_definitions.first_mut()
    {
        container.image = format!("demo:{version}");
        let sickness = sick.then(|| ("SICK".to_owned(), "1".to_owned()));
        container.environment = Environment(sickness.into_iter().collect());
    }
    format!("{name} runs demo:{version}{}", if sick { ", which is sick" } else { "" })
}

/// Takes sickness out of every definition, so that the fleet can come to rest.
pub(super) fn cure(desired: &mut Desired) {
    for definition in desired.task_definitions.values_mut() {
        for container in &mut definition.spec.container_definitions {
            container.environment = Environment::default();
        }
    }
}
