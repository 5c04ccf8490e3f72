//! Some seeds give some services addresses of their own: in one subnet, in two by zone, or in the one that need not be
//! declared; sometimes with too few of them. Then people lay hands on what hosts make of it.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{Change, Happening, Scripted};
use crate::rng::Rng;
use roadstead_core::model::{
    desired::{Desired, Manifest},
    name::{HostName, SecurityGroupName, ServiceName},
    spec::{
        ClusterSpec, SecurityGroupSpec, ServiceSpec, SubnetSpec, TaskDefinitionSpec,
        network::{AwsvpcConfiguration, Encapsulation, NetworkConfiguration, ServiceRegistry},
        security_group::{IngressRule, IpProtocol, Peer},
        subnet::SubnetDriver,
        task_definition::NetworkMode,
    },
};

/// Sets these draws apart, so that they do not change the others.
const APART: u64 = 0x6e65_7477_6f72_6b73;
/// The same for those about a LAN.
const LAN_APART: u64 = 0x006c_616e;
/// The subnet on it.
const LAN: &str = "lan";
/// Groups that are declared.
const GROUPS: [&str; 3] = ["front", "back", "shut"];

/// What is wanted from the beginning, and what happens to it later.
pub(super) fn draw(seed: u64, desired: &mut Desired, faults_ms: u64) -> Vec<Scripted> {
    let mut rng = Rng::new(seed ^ APART);
    if !rng.chance(250) {
        // Some have names alone.
        return if rng.chance(100) { names(&mut rng, desired, faults_ms) } else { Vec::new() };
    }
    subnets(&mut rng, desired);
    for group in GROUPS {
        let spec = group_spec(&mut rng);
        desired.security_groups.insert(group.into(), manifest(spec, format!("{group}-group.yaml")));
    }
    let names: Vec<ServiceName> = desired.services.keys().cloned().collect();
    let mut script = Vec::new();
    for (number, name) in names.iter().enumerate() {
        // One has them for certain.
        if number > 0 && rng.chance(500) {
            continue;
        }
        let Some(spec) = with_network(&mut rng, desired, name) else { continue };
        let change = Change::Add { service: name.clone(), spec: Box::new(spec) };
        if rng.chance(800) {
            change.make(desired);
        } else {
            // It gets them later.
            script.push(Scripted { at_ms: rng.within(0, faults_ms), what: Happening::Manifests { change } });
        }
    }
    let hosts: Vec<HostName> = desired.hosts.keys().cloned().collect();
    for _ in 0..rng.within(0, 6) {
        let (Some(host), Some(service)) = (rng.pick(&hosts).cloned(), rng.pick(&names).cloned()) else { break };
        let at_ms = rng.within(0, faults_ms);
        let what = match rng.within(0, 5) {
            0 => Happening::FlushRules { host },
            1 => Happening::RemoveNode { host },
            2 => Happening::PruneNetworks { host },
            3 => {
                let back_ms = at_ms + rng.within(2_000, 40_000);
                script.push(Scripted { at_ms: back_ms, what: Happening::NodeImageBack { host: host.clone() } });
                Happening::NodeImageGone { host }
            }
            4 => {
                let name = (*rng.pick(&GROUPS).unwrap_or(&"front")).into();
                let spec = Box::new(group_spec(&mut rng));
                Happening::Manifests { change: Change::SecurityGroup { name, spec } }
            }
            _ => Happening::Manifests { change: Change::Groups { service, groups: groups(&mut rng) } },
        };
        script.push(Scripted { at_ms, what });
    }
    if rng.chance(300) {
        let new = || manifest(ClusterSpec::default(), "cluster.yaml".to_owned());
        let cluster = desired.clusters.entry("default".into()).or_insert_with(new);
        cluster.spec.network.encapsulation = Encapsulation::Wireguard;
    } else {
        lan(&mut Rng::new(seed ^ LAN_APART), desired, &mut script);
    }
    script
}

/// Some services' tasks are machines on the hosts' LAN.
fn lan(rng: &mut Rng, desired: &mut Desired, script: &mut [Scripted]) {
    if !rng.chance(400) {
        return;
    }
    let (Ok(cidr), Ok(gateway)) = ("192.168.7.0/25".parse(), "192.168.7.254/24".parse()) else { return };
    let spec = SubnetSpec {
        cluster: "default".into(),
        availability_zone: None,
        driver: SubnetDriver::Macvlan,
        parent: None,
        gateway: Some(gateway),
        cidr,
        host_prefix: 28,
    };
    desired.subnets.insert(LAN.into(), manifest(spec, format!("{LAN}.yaml")));
    let mut goes = |spec: &mut ServiceSpec| {
        if rng.chance(700) {
            let configuration = spec.network_configuration.get_or_insert_default();
            configuration.awsvpc_configuration.subnets = vec![LAN.into()];
        }
    };
    let definitions = desired.task_definitions.clone();
    for (name, service) in &mut desired.services {
        let definition = definitions.get(name.as_str());
        if definition.is_some_and(|it| it.spec.network_mode == NetworkMode::Awsvpc) {
            goes(&mut service.spec);
        }
    }
    for scripted in script {
        if let Happening::Manifests { change: Change::Add { spec, .. } } = &mut scripted.what {
            goes(&mut spec.0);
        }
    }
}

/// Services are asked for by name, and some registers another one later; hosts lose what answers.
fn names(rng: &mut Rng, desired: &mut Desired, faults_ms: u64) -> Vec<Scripted> {
    let new = || manifest(ClusterSpec::default(), "cluster.yaml".to_owned());
    let cluster = desired.clusters.entry("default".into()).or_insert_with(new);
    cluster.spec.service_discovery.namespace = Some("sim.local".to_owned());
    for (number, host) in desired.hosts.values_mut().enumerate() {
        let last = u8::try_from(number).unwrap_or_default().saturating_add(1);
        host.spec.private_address.get_or_insert(Ipv4Addr::new(192, 0, 2, last));
    }
    let hosts: Vec<HostName> = desired.hosts.keys().cloned().collect();
    let mut script = Vec::new();
    for host in hosts {
        if !rng.chance(300) {
            continue;
        }
        let what = Happening::RemoveNode { host };
        script.push(Scripted { at_ms: rng.within(0, faults_ms), what });
    }
    script
}

fn manifest<S>(spec: S, file: String) -> Manifest<S> {
    Manifest { labels: BTreeMap::new(), annotations: BTreeMap::new(), file, line: 1, spec }
}

fn subnets(rng: &mut Rng, desired: &mut Desired) {
    let zoned = rng.chance(500);
    // Five addresses for each host, or plenty.
    let host_prefix = if rng.chance(300) { 29 } else { 26 };
    for number in 0..rng.within(0, 2) {
        let cidr = if rng.chance(100) { format!("10.64.{number}.0/27") } else { format!("10.64.{number}.0/24") };
        let Ok(cidr) = cidr.parse() else { continue };
        let spec = SubnetSpec {
            cluster: "default".into(),
            availability_zone: zoned.then(|| format!("zone-{number}")),
            driver: SubnetDriver::Bridge,
            parent: None,
            gateway: None,
            cidr,
            host_prefix: if cidr.prefix_len() > host_prefix { 29 } else { host_prefix },
        };
        let name = format!("net-{number}");
        desired.subnets.insert(name.as_str().into(), manifest(spec, format!("{name}.yaml")));
    }
}

fn group_spec(rng: &mut Rng) -> SecurityGroupSpec {
    let rule = |port: u64, source: Peer| IngressRule {
        protocol: IpProtocol::Tcp,
        from_port: u16::try_from(port).ok(),
        to_port: None,
        sources: vec![source],
        description: None,
    };
    let of_group = Peer::SecurityGroup((*rng.pick(&GROUPS).unwrap_or(&"front")).into());
    let ingress = (0..rng.within(0, 2)).map(|_| rule(rng.within(1, 9_000), of_group.clone())).collect();
    SecurityGroupSpec { ingress, egress: rng.chance(200).then(Vec::new), ..SecurityGroupSpec::default() }
}

fn groups(rng: &mut Rng) -> Vec<SecurityGroupName> {
    let mut groups: Vec<SecurityGroupName> =
        GROUPS.iter().filter(|_| rng.chance(400)).map(|name| (*name).into()).collect();
    groups.dedup();
    groups
}

/// The service and what it runs, with addresses of their own.
fn with_network(rng: &mut Rng, desired: &Desired, name: &ServiceName) -> Option<(ServiceSpec, TaskDefinitionSpec)> {
    let mut service = desired.services.get(name)?.spec.clone();
    let mut definition = TaskDefinitionSpec::clone(&desired.task_definitions.get(name.as_str())?.spec);
    definition.network_mode = NetworkMode::Awsvpc;
    for mapping in definition.container_definitions.iter_mut().flat_map(|container| &mut container.port_mappings) {
        mapping.host_port = None;
    }
    let named = desired.subnets.keys().filter(|_| rng.chance(300)).cloned().collect();
    service.network_configuration = rng.chance(700).then(|| NetworkConfiguration {
        awsvpc_configuration: AwsvpcConfiguration {
            subnets: named,
            security_groups: groups(rng),
            ..AwsvpcConfiguration::default()
        },
    });
    if rng.chance(300) {
        let registry = serde_json::json!({ "name": format!("{name}-api") });
        service.service_registries = serde_json::from_value::<ServiceRegistry>(registry).into_iter().collect();
    }
    Some((service, definition))
}
