//! Fleets, tasks and requests written as short texts.

mod addresses;
mod language;
mod properties;
mod scale_in;
mod table;

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::*;
use crate::model::spec::service::{PlacementConstraintType, PlacementStrategyType};

pub(super) const NOW: Timestamp = Timestamp(1_000_000_000);

/// A host that owns what [`HostInput`] borrows.
#[derive(Clone, Debug)]
pub(super) struct OwnedHost {
    pub(super) name: HostName,
    pub(super) cluster: ClusterName,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) architecture: String,
    pub(super) accepts: Result<(), Refusal>,
    pub(super) cpu: u32,
    pub(super) memory: u32,
    pub(super) gpus: u32,
    pub(super) ports: Vec<HostPort>,
    pub(super) slices: Vec<Slice>,
    pub(super) has_network: bool,
}

impl OwnedHost {
    pub(super) fn input(&self) -> HostInput<'_> {
        HostInput {
            name: &self.name,
            cluster: &self.cluster,
            labels: &self.labels,
            architecture: &self.architecture,
            accepts: self.accepts,
            cpu: self.cpu,
            memory: self.memory,
            gpus: self.gpus,
            ports_in_use: self.ports.clone(),
            slices: self.slices.clone(),
            has_network: self.has_network,
        }
    }
}

/// `NAME [CPU/MEMORY] [gpus=N] [slice=SUBNET@CIDR] [unready] [zone=Z] [LABEL=VALUE] [:PORT] [ARM64] [draining …]`, with 4096/8192 and X86_64 by default.
pub(super) fn host(text: &str) -> OwnedHost {
    let mut words = text.split_whitespace();
    let mut host = OwnedHost {
        name: words.next().unwrap().into(),
        cluster: "default".into(),
        labels: BTreeMap::new(),
        architecture: "X86_64".into(),
        accepts: Ok(()),
        cpu: 4096,
        memory: 8192,
        gpus: 0,
        ports: Vec::new(),
        slices: Vec::new(),
        has_network: true,
    };
    for word in words {
        if let Some(number) = word.strip_prefix(':') {
            host.ports.push(port(number));
        } else if let Some((label, value)) = word.split_once('=') {
            match label {
                "zone" => host.labels.insert("availability-zone".into(), value.into()),
                "cluster" => {
                    host.cluster = value.into();
                    None
                }
                "gpus" => {
                    host.gpus = value.parse().unwrap();
                    None
                }
                "slice" => {
                    let (subnet, cidr) = value.split_once('@').unwrap();
                    host.slices.push(Slice { subnet: subnet.into(), cidr: cidr.parse().unwrap() });
                    None
                }
                label => host.labels.insert(label.into(), value.into()),
            };
        } else if let Some((cpu, memory)) = word.split_once('/') {
            (host.cpu, host.memory) = (cpu.parse().unwrap(), memory.parse().unwrap());
        } else {
            match word {
                "ARM64" => host.architecture = word.into(),
                "unready" => host.has_network = false,
                "cordoned" => host.accepts = Err(Refusal::Cordoned),
                "draining" => host.accepts = Err(Refusal::Draining),
                "suspect" => host.accepts = Err(Refusal::Suspect),
                "lost" => host.accepts = Err(Refusal::Lost),
                "untrusted" => host.accepts = Err(Refusal::Untrusted),
                "unseen" => host.accepts = Err(Refusal::NotSeen),
                word => panic!("{word}?"),
            }
        }
    }
    host
}

/// `80` or `80/udp`.
pub(super) fn port(text: &str) -> HostPort {
    let (number, protocol) = match text.split_once('/') {
        Some((number, "udp")) => (number, Protocol::Udp),
        Some((number, _)) => (number, Protocol::Tcp),
        None => (text, Protocol::Tcp),
    };
    HostPort { protocol, port: number.parse().unwrap() }
}

/// A task that owns what [`Placed`] borrows.
#[derive(Clone, Debug)]
pub(super) struct OwnedTask {
    pub(super) service: ServiceName,
    pub(super) host: HostName,
    pub(super) cpu: u32,
    pub(super) memory: u32,
    pub(super) gpus: u32,
    pub(super) ports: Vec<HostPort>,
    pub(super) address: Option<Ipv4Addr>,
    pub(super) counts: bool,
}

impl OwnedTask {
    pub(super) fn placed(&self) -> Placed<'_> {
        Placed {
            service: &self.service,
            host: &self.host,
            cpu: self.cpu,
            memory: self.memory,
            gpus: self.gpus,
            ports: self.ports.clone(),
            address: self.address,
            counts: self.counts,
        }
    }
}

/// `SERVICE@HOST [CPU/MEMORY] [gpus=N] [@ADDRESS] [:PORT] [stopping]`, with 0/0 by default.
pub(super) fn task(text: &str) -> OwnedTask {
    let mut words = text.split_whitespace();
    let (service, host) = words.next().unwrap().split_once('@').unwrap();
    let mut task = OwnedTask {
        service: service.into(),
        host: host.into(),
        cpu: 0,
        memory: 0,
        gpus: 0,
        ports: Vec::new(),
        address: None,
        counts: true,
    };
    for word in words {
        if let Some(number) = word.strip_prefix(':') {
            task.ports.push(port(number));
        } else if let Some(address) = word.strip_prefix('@') {
            task.address = Some(address.parse().unwrap());
        } else if let Some((cpu, memory)) = word.split_once('/') {
            (task.cpu, task.memory) = (cpu.parse().unwrap(), memory.parse().unwrap());
        } else if let Some(gpus) = word.strip_prefix("gpus=") {
            task.gpus = gpus.parse().unwrap();
        } else {
            assert_eq!(word, "stopping");
            task.counts = false;
        }
    }
    task
}

/// A request that owns what [`Request`] borrows.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) service: ServiceName,
    pub(super) cluster: ClusterName,
    pub(super) cpu: u32,
    pub(super) memory: u32,
    pub(super) gpus: u32,
    pub(super) ports: Vec<PortRequest>,
    pub(super) subnets: Option<Vec<SubnetName>>,
    pub(super) architecture: Option<String>,
    pub(super) constraints: Vec<PlacementConstraint>,
    pub(super) strategies: Vec<PlacementStrategy>,
    pub(super) launch_type: LaunchType,
    pub(super) failures: Vec<(Timestamp, HostName)>,
    pub(super) nth: u64,
}

impl Ask {
    pub(super) fn request(&self) -> Request<'_> {
        Request {
            service: &self.service,
            cluster: &self.cluster,
            cpu: self.cpu,
            memory: self.memory,
            gpus: self.gpus,
            ports: &self.ports,
            subnets: self.subnets.as_deref(),
            architecture: self.architecture.as_deref(),
            constraints: &self.constraints,
            silent: &[],
            homes: &[],
            strategies: &self.strategies,
            launch_type: self.launch_type,
            recent_failures: &self.failures,
            nth: self.nth,
        }
    }

    /// Five failures on a host, so long ago.
    pub(super) fn failed_on(mut self, host: &str, times: usize, ago_ms: u64) -> Self {
        let failure = (Timestamp(NOW.0 - ago_ms), HostName::from(host));
        self.failures.extend(std::iter::repeat_n(failure, times));
        self
    }
}

/// `SERVICE [CPU/MEMORY] [gpus=N] [subnets=A,B] [:PORT | :any] [ARM64] [FARGATE] [nth=N] [cluster=C] [spread=FIELD | binpack=FIELD | random]
/// [distinct]`, then, after a bar, a `memberOf` expression each.
pub(super) fn ask(text: &str) -> Ask {
    let mut parts = text.split(" | ");
    let mut words = parts.next().unwrap().split_whitespace();
    let mut ask = Ask {
        service: words.next().unwrap().into(),
        cluster: "default".into(),
        cpu: 0,
        memory: 0,
        gpus: 0,
        ports: Vec::new(),
        subnets: None,
        architecture: None,
        constraints: parts.map(member_of).collect(),
        strategies: Vec::new(),
        launch_type: LaunchType::Ec2,
        failures: Vec::new(),
        nth: 0,
    };
    for word in words {
        if let Some(number) = word.strip_prefix(':') {
            let (protocol, host_port) = match number {
                "any" => (Protocol::Tcp, None),
                "any/udp" => (Protocol::Udp, Some(0)),
                number => (port(number).protocol, Some(port(number).port)),
            };
            ask.ports.push(PortRequest { container_port: 80, host_port, protocol });
        } else if let Some((key, value)) = word.split_once('=') {
            match key {
                "cluster" => ask.cluster = value.into(),
                "gpus" => ask.gpus = value.parse().unwrap(),
                "nth" => ask.nth = value.parse().unwrap(),
                "subnets" => ask.subnets = Some(value.split(',').map(Into::into).collect()),
                "spread" => ask.strategies.push(strategy(PlacementStrategyType::Spread, value)),
                "binpack" => ask.strategies.push(strategy(PlacementStrategyType::Binpack, value)),
                key => panic!("{key}?"),
            }
        } else if let Some((cpu, memory)) = word.split_once('/') {
            (ask.cpu, ask.memory) = (cpu.parse().unwrap(), memory.parse().unwrap());
        } else {
            match word {
                "ARM64" | "X86_64" => ask.architecture = Some(word.into()),
                "FARGATE" => ask.launch_type = LaunchType::Fargate,
                "random" => ask.strategies.push(strategy(PlacementStrategyType::Random, "")),
                "distinct" => ask
                    .constraints
                    .push(PlacementConstraint { kind: PlacementConstraintType::DistinctInstance, expression: None }),
                word => panic!("{word}?"),
            }
        }
    }
    ask
}

pub(super) fn member_of(expression: &str) -> PlacementConstraint {
    PlacementConstraint { kind: PlacementConstraintType::MemberOf, expression: Some(expression.into()) }
}

pub(super) fn strategy(kind: PlacementStrategyType, field: &str) -> PlacementStrategy {
    let field = if field == "zone" { "attribute:availability-zone" } else { field };
    PlacementStrategy { kind, field: Some(field.to_owned()).filter(|field| !field.is_empty()) }
}

pub(super) fn hosts(texts: &[&str]) -> Vec<OwnedHost> {
    texts.iter().copied().map(host).collect()
}

pub(super) fn tasks(texts: &[&str]) -> Vec<OwnedTask> {
    texts.iter().copied().map(task).collect()
}

pub(super) fn placer<'a>(hosts: &'a [OwnedHost], tasks: &[OwnedTask]) -> Placer<'a> {
    Placer::new(hosts.iter().map(OwnedHost::input), tasks.iter().map(OwnedTask::placed), NOW, 7)
}

/// The host's name, or why there is none.
pub(super) fn outcome(result: Result<Placement, Unplaceable>) -> String {
    result.map_or_else(|why| why.to_string(), |placement| placement.host.to_string())
}
