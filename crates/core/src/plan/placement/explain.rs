//! Why no host fits, in words: `0/5 hosts fit: 2 lack 512 MiB memory (best has 300), 1 draining, 2 fail memberOf attribute:disk == ssd`.

use std::{collections::BTreeMap, fmt};

use super::{
    AddressLack, Home, HostPort, Refusal, Request,
    filter::{Class, Constraint, Misfit},
    fleet::{Fleet, HostId, Room},
    ports::PortLack,
    query::ParseError,
};
use crate::model::{
    name::{ClusterName, ServiceName},
    spec::task_definition::Protocol,
};

/// No host fits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Unplaceable {
    /// The cluster that was searched.
    pub cluster: ClusterName,
    /// How many hosts were asked: all of the cluster, or the one that was meant.
    pub total: usize,
    /// Each host is counted once, under the first filter that it does not pass.
    pub reasons: Vec<(Reason, usize)>,
}

/// What speaks against hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Too few CPU units are left.
    Cpu {
        /// What the task reserves.
        wanted: u32,
        /// The most that one of these hosts has.
        best: u32,
    },
    /// Too little memory is left.
    Memory {
        /// What the task reserves, in MiB.
        wanted: u32,
        /// The most that one of these hosts has, in MiB.
        best: u32,
    },
    /// Too few GPUs are left.
    Gpus {
        /// What the task wants.
        wanted: u32,
        /// The most that one of these hosts has.
        best: u32,
    },
    /// The host port is held.
    PortTaken(HostPort),
    /// No dynamic host port is left.
    NoDynamicPort,
    /// The task itself wants this host port twice.
    PortTwice(HostPort),
    /// It has no address for the task.
    Address(AddressLack),
    /// `distinctInstance`: a task of the service is there.
    AlreadyThere(ServiceName),
    /// The data of a volume is on another host.
    DataElsewhere(Home),
    /// The host takes no new tasks.
    Refused(Refusal),
    /// Another architecture than this.
    Architecture(String),
    /// `memberOf` does not hold; its expression.
    MemberOf(String),
    /// `memberOf` cannot be read.
    Unreadable {
        /// As written.
        expression: String,
        /// What is wrong with it.
        error: ParseError,
    },
    /// The host that was meant is not in the cluster.
    NotInCluster(ClusterName),
}

impl Unplaceable {
    /// Counts what speaks against these hosts.
    pub(super) fn new(fleet: &Fleet<'_>, class: &Class, request: &Request<'_>, misfits: &[(HostId, Misfit)]) -> Self {
        let mut hosts_by_misfit: BTreeMap<Misfit, Vec<HostId>> = BTreeMap::new();
        for (host, misfit) in misfits {
            hosts_by_misfit.entry(*misfit).or_default().push(*host);
        }
        let best = |hosts: &[HostId], of: fn(&Room) -> i64| {
            let most = hosts.iter().map(|host| of(&fleet.room[*host])).max().unwrap_or(0);
            u32::try_from(most.max(0)).unwrap_or(u32::MAX)
        };
        let reason = |(misfit, hosts): (&Misfit, &Vec<HostId>)| {
            let reason = match misfit {
                Misfit::Cpu => Reason::Cpu { wanted: request.cpu, best: best(hosts, |room| room.cpu) },
                Misfit::Memory => Reason::Memory { wanted: request.memory, best: best(hosts, |room| room.memory) },
                Misfit::Gpus => Reason::Gpus { wanted: request.gpus, best: best(hosts, |room| room.gpus) },
                Misfit::Port(PortLack::Taken(port)) => Reason::PortTaken(*port),
                Misfit::Port(PortLack::Dynamic) => Reason::NoDynamicPort,
                Misfit::Port(PortLack::Twice(port)) => Reason::PortTwice(*port),
                Misfit::Address(lack) => Reason::Address(*lack),
                Misfit::AlreadyThere => Reason::AlreadyThere(request.service.clone()),
                Misfit::Home(index) => Reason::DataElsewhere(request.homes[*index].clone()),
                Misfit::Refused(refusal) => Reason::Refused(*refusal),
                Misfit::Architecture => Reason::Architecture(request.architecture.unwrap_or_default().to_owned()),
                Misfit::Constraint(index) => match &class.constraints[*index] {
                    Constraint::Distinct => Reason::AlreadyThere(request.service.clone()),
                    Constraint::Member(expr) => Reason::MemberOf(expr.to_string()),
                    Constraint::Unreadable { expression, error } => {
                        Reason::Unreadable { expression: expression.clone(), error: error.clone() }
                    }
                },
            };
            (reason, hosts.len())
        };
        Self {
            cluster: request.cluster.clone(),
            total: misfits.len(),
            reasons: hosts_by_misfit.iter().map(reason).collect(),
        }
    }

    /// ECS's word for what stands in the way of most hosts ("API failure reasons", ECS developer guide).
    pub fn failure_reason(&self) -> &'static str {
        match self.reasons.iter().max_by_key(|(_, hosts)| *hosts).map(|(reason, _)| reason) {
            Some(Reason::Cpu { .. }) => "RESOURCE:CPU",
            Some(Reason::Memory { .. }) => "RESOURCE:MEMORY",
            Some(Reason::Gpus { .. }) => "RESOURCE:GPU",
            Some(Reason::PortTaken(_) | Reason::NoDynamicPort | Reason::PortTwice(_)) => "RESOURCE:PORTS",
            Some(Reason::Address(AddressLack::Exhausted)) => "RESOURCE:ENI",
            Some(Reason::Refused(_) | Reason::Address(AddressLack::NotReady)) => "AGENT",
            Some(Reason::AlreadyThere(_)) => "DistinctInstance placement constraint unsatisfied",
            Some(Reason::MemberOf(_) | Reason::Unreadable { .. }) => "MemberOf placement constraint unsatisfied",
            Some(
                Reason::Architecture(_)
                | Reason::NotInCluster(_)
                | Reason::DataElsewhere(_)
                | Reason::Address(AddressLack::NoSlice),
            ) => "ATTRIBUTE",
            None => "EMPTY CAPACITY",
        }
    }

    pub(super) fn not_in_cluster(cluster: &ClusterName) -> Self {
        Self { cluster: cluster.clone(), total: 1, reasons: vec![(Reason::NotInCluster(cluster.clone()), 1)] }
    }
}

impl fmt::Display for Unplaceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.total == 0 {
            return write!(f, "cluster {} has no hosts", self.cluster);
        }
        write!(f, "0/{} hosts fit: ", self.total)?;
        for (index, (reason, hosts)) in self.reasons.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{hosts} ")?;
            reason.write(f, *hosts == 1)?;
        }
        Ok(())
    }
}

impl Reason {
    fn write(&self, f: &mut fmt::Formatter<'_>, one: bool) -> fmt::Result {
        let (lack, has, is, have) =
            if one { ("lacks", "has", "is", "has") } else { ("lack", "best has", "are", "have") };
        match self {
            Self::Cpu { wanted, best } => write!(f, "{lack} {wanted} CPU units ({has} {best})"),
            Self::Memory { wanted, best } => write!(f, "{lack} {wanted} MiB memory ({has} {best})"),
            Self::Gpus { wanted, best } => write!(f, "{lack} {wanted} GPUs ({has} {best}; a Host says them in `gpus`)"),
            Self::PortTaken(port) => write!(f, "{have} port {port} in use"),
            Self::NoDynamicPort => write!(f, "{have} no dynamic port left"),
            Self::PortTwice(port) => write!(f, "cannot give port {port} twice to one task"),
            Self::AlreadyThere(service) => {
                write!(f, "already {} {service} (distinctInstance)", if one { "runs" } else { "run" })
            }
            Self::DataElsewhere(home) => {
                write!(f, "{lack} the data of volume {}, which is on {}", home.volume, home.host)
            }
            Self::Address(AddressLack::Exhausted) => write!(f, "{have} no address left in the task's subnets"),
            Self::Address(AddressLack::NotReady) => write!(f, "{have} no task network ready"),
            Self::Address(AddressLack::NoSlice) => write!(f, "{is} in no zone of the task's subnets"),
            Self::Refused(refusal) => write!(f, "{refusal}"),
            Self::Architecture(wanted) => write!(f, "{is} not {wanted}"),
            Self::MemberOf(expression) => write!(f, "{} memberOf {expression}", if one { "fails" } else { "fail" }),
            Self::Unreadable { expression, error } => {
                write!(f, "cannot be judged by memberOf `{expression}`: {error}")
            }
            Self::NotInCluster(cluster) => write!(f, "{is} not in cluster {cluster}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Suspect => "suspect",
            Self::Lost => "lost",
            Self::Untrusted => "untrusted",
            Self::NotSeen => "not seen yet",
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{}/{protocol}", self.port)
    }
}
