//! Which host a task goes to, or why it goes nowhere.
//!
//! Filters, then strategies in their order, then ties ("Amazon ECS task placement", ECS developer guide):
//!
//! * [`filter`]: state, architecture, constraints, then room (cpu, memory, ports) on what is left;
//! * [`rank`]: one rule a strategy; a new strategy is a variant there and a line in each of its two matches;
//! * [`explain`]: the same filters in words;
//! * [`scale_in`]: the rules of [`rank`] the other way round.
//!
//! A [`Placer`] is built once per plan and knows everything by number: hosts in the order of their names.

mod addresses;
mod explain;
mod filter;
mod fleet;
mod placer;
mod ports;
pub mod query;
mod rank;
mod scale_in;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::Ipv4Addr};

use crate::model::{
    container::PortBinding,
    name::{ClusterName, HostName, ServiceName, SubnetName},
    spec::{
        service::{LaunchType, PlacementConstraint, PlacementStrategy},
        task_definition::Protocol,
    },
    time::Timestamp,
};

pub use addresses::{AddressLack, Slice};
pub use explain::{Reason, Unplaceable};
pub use filter::eligible_by_itself;
pub use placer::Placer;
pub use ports::DYNAMIC_PORTS;
pub use scale_in::ScaleInCandidate;

/// One host as placement sees it.
#[derive(Clone, Debug)]
pub struct HostInput<'a> {
    /// Its name.
    pub name: &'a HostName,
    /// Its cluster.
    pub cluster: &'a ClusterName,
    /// The labels of its manifest.
    pub labels: &'a BTreeMap<String, String>,
    /// ECS's word, X86_64 or ARM64; empty when not known yet.
    pub architecture: &'a str,
    /// Whether it takes new tasks.
    pub accepts: Result<(), Refusal>,
    /// CPU units that tasks may reserve: registered (1024 a CPU) minus reserved.
    pub cpu: u32,
    /// MiB that tasks may reserve: registered minus reserved.
    pub memory: u32,
    /// GPUs that tasks may have: as its manifest says.
    pub gpus: u32,
    /// Ports held by anything but the tasks that [`Placer::new`] is told of.
    pub ports_in_use: Vec<HostPort>,
    /// Its slices of subnets.
    pub slices: Vec<Slice>,
    /// Whether tasks with addresses of their own can start there.
    pub has_network: bool,
}

/// Why a host takes no new tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// A person said so.
    Cordoned,
    /// Its tasks move elsewhere.
    Draining,
    /// Silent for a while.
    Suspect,
    /// Silent for long.
    Lost,
    /// Not who it says it is.
    Untrusted,
    /// Never looked at yet.
    NotSeen,
}

/// A port of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// tcp or udp.
    pub protocol: Protocol,
    /// 1 to 65535.
    pub port: u16,
}

/// A task that holds room on a host.
#[derive(Clone, Debug)]
pub struct Placed<'a> {
    /// Its service.
    pub service: &'a ServiceName,
    /// Its host; one that is not known is passed over.
    pub host: &'a HostName,
    /// CPU units.
    pub cpu: u32,
    /// MiB.
    pub memory: u32,
    /// GPUs.
    pub gpus: u32,
    /// What it holds.
    pub ports: Vec<HostPort>,
    /// What it holds in the task network.
    pub address: Option<Ipv4Addr>,
    /// Whether it counts as a task of its service, for spread, `distinctInstance` and `task:group`: not when it was
    /// ordered to stop (ECS looks at the desired status).
    pub counts: bool,
}

/// A port that a task needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRequest {
    /// Inside the container.
    pub container_port: u16,
    /// On the host; absent or 0: any of [`DYNAMIC_PORTS`].
    pub host_port: Option<u16>,
    /// tcp or udp.
    pub protocol: Protocol,
}

/// A volume whose data is on one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Its name.
    pub volume: String,
    /// The host.
    pub host: HostName,
}

/// A task to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its service.
    pub service: &'a ServiceName,
    /// Its cluster.
    pub cluster: &'a ClusterName,
    /// CPU units.
    pub cpu: u32,
    /// MiB.
    pub memory: u32,
    /// GPUs.
    pub gpus: u32,
    /// Over all its containers, in the order in which the bindings are wanted back.
    pub ports: &'a [PortRequest],
    /// With awsvpc: it has an address from one of these.
    pub subnets: Option<&'a [SubnetName]>,
    /// X86_64 or ARM64, when it needs one.
    pub architecture: Option<&'a str>,
    /// The service's and the task definition's.
    pub constraints: &'a [PlacementConstraint],
    /// Where the data of its volumes is: it goes nowhere else.
    pub homes: &'a [Home],
    /// Hosts that are silent for too long for this service, although they are not SUSPECT yet.
    pub silent: &'a [&'a HostName],
    /// In order, five at most; empty: spread over zones.
    pub strategies: &'a [PlacementStrategy],
    /// FARGATE: `strategies` are not asked.
    pub launch_type: LaunchType,
    /// Failed tasks of this revision: a host with five within five minutes comes last among equals.
    pub recent_failures: &'a [(Timestamp, HostName)],
    /// Another number for each task that is placed for the service in one plan.
    pub nth: u64,
}

/// Where a task goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The host.
    pub host: HostName,
    /// One for each [`Request::ports`], in their order.
    pub ports: Vec<PortBinding>,
    /// Its address, where one was wanted, and what subnet that is from.
    pub address: Option<(SubnetName, Ipv4Addr)>,
}
