//! What a seed draws: fleet, services, what happens to them, and how often things go wrong.

use std::collections::BTreeMap;

use super::{
    Change, Database, Happening, Rates, Scenario, Scripted, Sickness, images, networks, probes, traffic, volumes,
};
use crate::rng::Rng;
use roadstead_core::model::{
    desired::{Desired, Manifest},
    name::{Family, HostName, ServiceName},
    quantity::{CpuUnits, Mebibytes, Seconds},
    spec::{
        HostSpec, ScheduledTaskSpec, ServiceSpec, TaskDefinitionSpec,
        host::{Reserved, SshSpec, WireguardSpec},
        scheduled_task::ConcurrencyPolicy,
        service::{
            AvailabilityZoneRebalancing, CrashLoop, DeploymentCircuitBreaker, DeploymentConfiguration, LaunchType,
            OnHostLoss, PlacementStrategy, PlacementStrategyType, SchedulingStrategy, ServiceHostLoss,
            TaskDefinitionRef,
        },
        task_definition::{
            ContainerDefinition, ContainerDependency, DependencyCondition, HealthCheck, PortMapping, RestartPolicy,
        },
    },
    state::Schedulability,
};
use roadstead_core::plan::absorb::RolloutVerb;

/// The host port of services that want a fixed one.
pub(crate) const FIXED_PORT: u16 = 8_080;

/// How large a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Hosts.
    pub hosts: u64,
    /// Services.
    pub services: u64,
    /// How long faults last.
    pub faults_ms: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self { hosts: 5, services: 4, faults_ms: 60_000 }
    }
}

/// A fleet and its services, drawn.
pub(crate) fn draw_desired(rng: &mut Rng, shape: Shape) -> Desired {
    desired(rng, shape.hosts, shape.services)
}

/// The smallest fleet: one service of `count` tasks whose container has a health check, spread over `hosts` hosts.
pub(crate) fn plain_desired(hosts: u64, count: u32) -> Desired {
    let mut desired = desired(&mut Rng::new(0), hosts, 1);
    for (name, service) in &mut desired.services {
        service.spec = ServiceSpec { desired_count: count, minimum_healthy_seconds: Seconds(3), ..bare(name.as_str()) };
    }
    for definition in desired.task_definitions.values_mut() {
        definition.spec.edit(|spec| {
            spec.container_definitions.truncate(1);
            for container in &mut spec.container_definitions {
                container.health_check = Some(check());
                container.port_mappings = vec![port(None)];
            }
        });
    }
    desired
}

/// The scenario of a seed.
pub fn draw(seed: u64, shape: Shape) -> Scenario {
    let mut rng = Rng::new(seed);
    let mut desired = desired(&mut rng, shape.hosts, shape.services);
    volumes::draw(seed, &mut desired);
    images::draw(seed, &mut desired);
    probes::draw(seed, &mut desired);
    let networks = networks::draw(seed, &mut desired, shape.faults_ms);
    let traffic = traffic::draw(seed, &mut desired, shape.faults_ms);
    let (chances, mut rates) = (Chances::draw(&mut rng), rates(&mut rng));
    let words = volumes::words(seed, &desired, shape.faults_ms, &mut rates);
    let hosts: Vec<HostName> = desired.hosts.keys().cloned().collect();
    let mut script = Vec::new();
    let mut now = desired.clone();
    let mut at_ms = 0;
    while at_ms < shape.faults_ms {
        at_ms += rng.within(100, 1_000);
        let Some(host) = rng.pick(&hosts).cloned() else { break };
        chances.happen(&mut rng, &host, &hosts, &mut now, |later_ms, what| {
            script.push(Scripted { at_ms: at_ms + later_ms, what });
        });
    }
    if rng.chance(300) {
        jobs(&mut rng, &mut desired, &mut script, shape.faults_ms);
    }
    script.extend(outage(seed, shape, &now));
    script.extend(networks);
    script.extend(traffic);
    script.extend(words);
    script.sort_by_key(|scripted| scripted.at_ms);
    let broken_for_ever = if rng.chance(250) {
        let most = (hosts.len() as u64).saturating_sub(1) / 2;
        let count = rng.within(1, most.max(1)) as usize;
        (0..count).filter_map(|_| rng.pick(&hosts).cloned()).collect()
    } else {
        Default::default()
    };
    Scenario {
        seed,
        desired,
        script,
        rates,
        mishaps: Vec::new(),
        faults_ms: shape.faults_ms,
        broken_for_ever,
        through_yaml: rng.chance(30),
    }
}

/// The family of standalone tasks.
pub(crate) const JOB: &str = "job";

/// Standalone tasks: some that people start, some also twice with one request, and a schedule.
fn jobs(rng: &mut Rng, desired: &mut Desired, script: &mut Vec<Scripted>, faults_ms: u64) {
    let container = ContainerDefinition {
        name: "main".into(),
        image: "demo:1".into(),
        essential: true,
        memory: Some(Mebibytes(32)),
        ..ContainerDefinition::default()
    };
    let definition = TaskDefinitionSpec {
        family: Some(JOB.to_owned()),
        container_definitions: vec![container],
        ..TaskDefinitionSpec::default()
    };
    desired.task_definitions.insert(JOB.into(), manifest(definition.into(), BTreeMap::new(), "job-task.yaml"));
    for number in 0..rng.within(1, 6) {
        let (at_ms, count) = (rng.within(0, faults_ms), rng.within(1, 3) as u32);
        let again_ms = at_ms + rng.within(0, 20_000);
        script.push(Scripted { at_ms, what: Happening::Run { number, count } });
        if rng.chance(500) {
            script.push(Scripted { at_ms: again_ms, what: Happening::Run { number, count } });
        }
    }
    if rng.chance(500) {
        let policies = [ConcurrencyPolicy::Allow, ConcurrencyPolicy::Forbid, ConcurrencyPolicy::Replace];
        let spec = ScheduledTaskSpec {
            schedule: format!("rate({} seconds)", rng.within(10, 30)),
            time_zone: "UTC".into(),
            task_definition: JOB.into(),
            cluster: "default".into(),
            count: rng.within(1, 3) as u32,
            overrides: super::short(),
            launch_type: LaunchType::Ec2,
            placement_constraints: Vec::new(),
            placement_strategy: Vec::new(),
            network_configuration: None,
            concurrency_policy: *rng.pick(&policies).unwrap_or(&ConcurrencyPolicy::Allow),
            starting_deadline_seconds: rng.chance(300).then_some(Seconds(5)),
            suspend: false,
            successful_jobs_history_limit: 3,
            failed_jobs_history_limit: 3,
        };
        desired.scheduled_tasks.insert("job".into(), manifest(spec, BTreeMap::new(), "job-schedule.yaml"));
    }
}

/// How often each thing happens, in per mille of draws (there is one about every half second); drawn by each seed.
struct Chances {
    cut: u64,
    hang: u64,
    kill_engine: u64,
    reboot: u64,
    container: u64,
    people: u64,
    disk: u64,
    ports: u64,
    identity: u64,
    kill_controller: u64,
    database: u64,
    stall: u64,
    change: u64,
    manifests: u64,
    operator: u64,
    rollout: u64,
}

impl Chances {
    fn draw(rng: &mut Rng) -> Self {
        let mut chance = |most: u64| if rng.chance(400) { 0 } else { rng.within(1, most) };
        Self {
            cut: chance(30),
            hang: chance(20),
            kill_engine: chance(10),
            reboot: chance(8),
            container: chance(50),
            people: chance(15),
            disk: chance(8),
            ports: chance(8),
            identity: chance(3),
            kill_controller: chance(20),
            database: chance(150),
            stall: chance(4),
            change: chance(40),
            manifests: chance(10),
            operator: chance(20),
            rollout: chance(40),
        }
    }

    fn happen(
        &self,
        rng: &mut Rng,
        host: &HostName,
        hosts: &[HostName],
        now: &mut Desired,
        mut then: impl FnMut(u64, Happening),
    ) {
        let host = || host.clone();
        if rng.chance(self.cut) {
            let way = rng.within(0, 3);
            then(0, Happening::Cut { host: host(), there: way != 1, back: way != 2 });
            // Flaps, lost hosts, and some that stay away until the end.
            let longest = *rng.pick(&[1_500, 6_000, 30_000, 500_000]).unwrap_or(&6_000);
            then(rng.within(200, longest), Happening::Heal { host: host() });
        }
        if rng.chance(self.hang) {
            then(0, Happening::Hang { host: host() });
            then(rng.within(200, 40_000), Happening::Resume { host: host(), shuffled: rng.chance(300) });
        }
        if rng.chance(self.kill_engine) {
            then(0, Happening::KillEngine { host: host() });
        }
        if rng.chance(self.reboot) {
            then(0, Happening::Cut { host: host(), there: true, back: true });
            then(1, Happening::Reboot { host: host() });
            then(rng.within(5_000, 25_000), Happening::Heal { host: host() });
        }
        if rng.chance(self.container) {
            let nth = rng.next() % 64;
            let what = match rng.within(0, 5) {
                0 | 1 => Happening::Crash { host: host(), nth },
                2 => Happening::OutOfMemory { host: host(), nth },
                3 => Happening::Kill { host: host(), nth },
                4 => Happening::Stop { host: host(), nth },
                _ => Happening::Remove { host: host(), nth },
            };
            then(0, what);
        }
        if rng.chance(self.people) {
            let nth = rng.next() % 64;
            match rng.within(0, 4) {
                0 => {
                    then(0, Happening::Pause { host: host(), nth });
                    then(rng.within(100, 20_000), Happening::Unpause { host: host() });
                }
                1 => then(0, Happening::Rename { host: host(), nth }),
                2 => then(0, Happening::Squat { host: host() }),
                3 => then(0, Happening::Forge { host: host(), nth }),
                _ => then(0, Happening::StopTask { nth }),
            }
        }
        if rng.chance(self.disk) {
            then(0, Happening::DiskFull { host: host() });
            then(rng.within(1_000, 30_000), Happening::DiskFree { host: host() });
        }
        if rng.chance(self.ports) {
            then(0, Happening::TakePorts { host: host() });
            then(rng.within(1_000, 30_000), Happening::FreePorts { host: host() });
        }
        if rng.chance(self.identity) {
            then(0, Happening::Cut { host: host(), there: true, back: true });
            let other = rng.pick(hosts).cloned().unwrap_or_else(host);
            if rng.chance(500) && other != host() {
                then(1, Happening::Clone { host: host(), of: other });
            } else {
                then(1, Happening::Reinstall { host: host() });
            }
            then(rng.within(10_000, 20_000), Happening::Heal { host: host() });
            if rng.chance(500) {
                then(rng.within(25_000, 60_000), Happening::Repin { host: host() });
            }
        }
        if rng.chance(self.kill_controller) {
            let back_after_ms = *rng.pick(&[0, 1_000, 8_000, 40_000]).unwrap_or(&0);
            let database = match rng.chance(self.database) {
                false => Database::Kept,
                true if rng.chance(500) => Database::Lost,
                true => Database::Old,
            };
            let clock_back_ms = if rng.chance(50) { 3_600_000 } else { 0 };
            if rng.chance(200) {
                then(0, Happening::StopController { back_after_ms });
            } else {
                then(0, Happening::KillController { back_after_ms, database, clock_back_ms });
            }
        }
        if rng.chance(self.stall) {
            then(0, Happening::Stall { for_ms: rng.within(1_000, 120_000) });
        }
        if rng.chance(self.change)
            && let Some(change) = change(rng, now)
        {
            change.make(now);
            then(0, Happening::Manifests { change });
        }
        if rng.chance(self.manifests) {
            let for_ms = rng.within(500, 20_000);
            let what = match rng.within(0, 2) {
                0 => Happening::Unreadable { for_ms },
                1 => Happening::Empty { for_ms },
                _ => Happening::BrokenFile { nth: rng.next() % 8, for_ms },
            };
            then(0, what);
        }
        if rng.chance(self.operator) {
            let to = match rng.within(0, 2) {
                0 => Schedulability::Active,
                1 => Schedulability::Cordoned,
                _ => Schedulability::Draining,
            };
            then(0, Happening::Operator { host: host(), to });
        }
        if rng.chance(self.rollout) {
            let services: Vec<&ServiceName> = now.services.keys().collect();
            let verbs = [
                RolloutVerb::Pause,
                RolloutVerb::Continue,
                RolloutVerb::Abort,
                RolloutVerb::Undo { to: None },
                RolloutVerb::Restart,
            ];
            match (rng.pick(&services), rng.pick(&verbs)) {
                (Some(service), Some(verb)) if rng.chance(800) => {
                    then(0, Happening::Rollout { service: (*service).clone(), verb: verb.clone() });
                }
                _ => then(0, Happening::Protect { nth: rng.next() % 64 }),
            }
        }
        if rng.chance(20) {
            then(0, Happening::Confirm);
        }
    }
}

/// In one of six seeds, what one service needs goes away while it is rolled out, or just before: a roll-back fails, too.
fn outage(seed: u64, shape: Shape, desired: &Desired) -> Vec<Scripted> {
    let mut rng = Rng::keyed(seed, &[1_717]);
    let names: Vec<&ServiceName> = desired.services.keys().collect();
    let Some(service) = rng.pick(&names).map(|name| (*name).clone()).filter(|_| rng.chance(160)) else {
        return Vec::new();
    };
    let at_ms = rng.within(shape.faults_ms * 4 / 10, shape.faults_ms * 7 / 10);
    let for_ms = rng.within(20_000, 60_000);
    let change = Change::Image { service: service.clone(), version: rng.within(2, 9), sickness: Sickness::None };
    let after_ms = rng.within(0, 2_000);
    vec![
        Scripted { at_ms, what: Happening::Outage { service, for_ms } },
        Scripted { at_ms: at_ms + after_ms, what: Happening::Manifests { change } },
    ]
}

fn rates(rng: &mut Rng) -> Rates {
    let mut rate = |most: u64| if rng.chance(400) { 0 } else { rng.within(1, most) };
    Rates {
        lose_request: rate(100),
        lose_answer: rate(150),
        slow_request: rate(100),
        server_error: rate(60),
        stale_list: rate(100),
        lose_event: rate(300),
        kill_at_request: rate(15),
        kill_at_commit: rate(10),
        commit_fails: rate(15),
        tear: 0,
    }
}

fn manifest<S>(spec: S, labels: BTreeMap<String, String>, file: &str) -> Manifest<S> {
    Manifest { labels, annotations: BTreeMap::new(), file: file.into(), line: 1, spec }
}

/// A fleet and its services.
pub(crate) fn desired(rng: &mut Rng, hosts: u64, services: u64) -> Desired {
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
            gpus: 0,
            private_address: None,
            wireguard: WireguardSpec::default(),
            docker_socket: "/var/run/docker.sock".into(),
        };
        let file = format!("{name}.yaml");
        desired.hosts.insert(HostName::from(name), manifest(spec, labels, &file));
    }
    for index in 0..services {
        let name = format!("svc-{index}");
        let definition = definition(rng, &name);
        let file = format!("{name}.yaml");
        desired
            .task_definitions
            .insert(Family::from(name.clone()), manifest(definition.into(), BTreeMap::new(), &file));
        let spec = service(rng, &name);
        desired.services.insert(ServiceName::from(name), manifest(spec, BTreeMap::new(), &file));
    }
    desired
}

fn check() -> HealthCheck {
    HealthCheck {
        command: vec!["CMD".into(), "check".into()],
        interval: Seconds(5),
        timeout: Seconds(2),
        retries: 3,
        ..HealthCheck::default()
    }
}

fn port(host_port: Option<u16>) -> PortMapping {
    PortMapping {
        container_port: 80,
        host_port,
        protocol: Default::default(),
        name: None,
        app_protocol: None,
        container_port_range: None,
    }
}

fn definition(rng: &mut Rng, family: &str) -> TaskDefinitionSpec {
    let container = |name: &str, checked: bool, ports: Vec<PortMapping>| ContainerDefinition {
        name: name.to_owned(),
        image: "demo:1".into(),
        essential: true,
        cpu: CpuUnits(64),
        memory: Some(Mebibytes(64)),
        port_mappings: ports,
        health_check: checked.then(check),
        ..ContainerDefinition::default()
    };
    let checked = rng.chance(600);
    let ports = if rng.chance(500) { vec![port(rng.chance(200).then_some(FIXED_PORT))] } else { Vec::new() };
    let mut containers = vec![container("main", checked, ports)];
    // The controller restarts it: its engine cannot tell exit codes apart.
    let ignored = rng.chance(150).then(|| vec![143]);
    containers[0].restart_policy =
        ignored.map(|ignored_exit_codes| RestartPolicy { enabled: true, ignored_exit_codes, ..Default::default() });
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
        desired_count: rng.within(2, 16) as u32,
        launch_type: LaunchType::Ec2,
        scheduling_strategy: if daemon { SchedulingStrategy::Daemon } else { SchedulingStrategy::Replica },
        placement_constraints: Vec::new(),
        placement_strategy: if daemon { Vec::new() } else { strategies },
        deployment_configuration: DeploymentConfiguration {
            minimum_healthy_percent,
            maximum_percent,
            deployment_circuit_breaker: DeploymentCircuitBreaker {
                enable: !rng.chance(150),
                rollback: !rng.chance(200),
                reset_on_healthy_task: !rng.chance(300),
                ..Default::default()
            },
            ..Default::default()
        },
        health_check_grace_period_seconds: Seconds(0),
        minimum_healthy_seconds: Seconds(3),
        availability_zone_rebalancing: match rng.chance(200) {
            true => AvailabilityZoneRebalancing::Enabled,
            false => AvailabilityZoneRebalancing::Disabled,
        },
        on_host_loss: if rng.chance(150) { OnHostLoss::Wait } else { OnHostLoss::Replace },
        host_loss: ServiceHostLoss {
            suspect_after: rng.chance(100).then_some(Seconds(2)),
            lost_after: if rng.chance(200) { rng.pick(&[3, 4, 8, 20, 30]).copied().map(Seconds) } else { None },
        },
        crash_loop: CrashLoop {
            restarts: if rng.chance(200) { rng.within(1, 6) as u32 } else { 3 },
            ..CrashLoop::default()
        },
        ..bare(name)
    }
}

fn bare(name: &str) -> ServiceSpec {
    // Through the reader, so that fields of later versions have their defaults here, too.
    serde_json::from_value(serde_json::json!({ "taskDefinition": name }))
        .unwrap_or_else(|error| unreachable!("{error}"))
}

/// A commit that changes something, if there is anything to change.
pub(crate) fn change(rng: &mut Rng, desired: &Desired) -> Option<Change> {
    let names: Vec<ServiceName> = desired.services.keys().cloned().collect();
    let hosts: Vec<HostName> = desired.hosts.keys().cloned().collect();
    let service = rng.pick(&names).cloned();
    Some(match rng.within(0, 19) {
        0..8 => Change::DesiredCount { service: service?, to: rng.within(0, 16) as u32 },
        8..16 => {
            let sickness = match rng.within(0, 19) {
                0 => Sickness::NoImage,
                1 => Sickness::Crashes,
                2 | 3 => Sickness::Unhealthy,
                _ => Sickness::None,
            };
            Change::Image { service: service?, version: rng.within(2, 9), sickness }
        }
        16 => Change::Remove { service: service? },
        17 | 18 => {
            let name = format!("svc-{}", rng.within(0, 6));
            Change::Add { spec: Box::new((self::service(rng, &name), definition(rng, &name))), service: name.into() }
        }
        _ => Change::Zone { host: rng.pick(&hosts)?.clone(), zone: format!("zone-{}", rng.within(0, 3)) },
    })
}
