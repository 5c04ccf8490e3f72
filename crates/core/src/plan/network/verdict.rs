//! Whether a packet passes, and by which rule: the words for what the hosts' rules do, from the same pictures.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{picture::address_of, pictures};
use crate::model::{
    name::{HostName, SecurityGroupName, TaskId},
    network::{Bridge, GroupRules, HostNetwork, LINK_LOCAL, LocalTask, gateway},
    spec::{
        security_group::{IpProtocol, Peer, Permission},
        task_definition::Protocol,
    },
    state::State,
};

/// Where names are answered.
const NAMES: u16 = 53;

/// The first packet of a conversation: answers to what passed always pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who sends it.
    pub from: Endpoint,
    /// Whom it is for.
    pub to: Endpoint,
    /// What it is.
    pub flow: Flow,
}

/// One end of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A task that has an address.
    Task(TaskId),
    /// Any address: a task's is the task.
    Address(Ipv4Addr),
}

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To a TCP port.
    Tcp(u16),
    /// To a UDP port.
    Udp(u16),
    /// A ping.
    Echo,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp {port}"),
            Self::Udp(port) => write!(f, "udp {port}"),
            Self::Echo => f.write_str("icmp"),
        }
    }
}

/// What becomes of a packet. Of the rules as they are to be: whether a host has them in force is its own matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Its source, as the other end sees it.
    pub from: Ipv4Addr,
    /// Its destination.
    pub to: Ipv4Addr,
    /// On the sender's host.
    pub egress: Judgement,
    /// On the receiver's host.
    pub ingress: Judgement,
}

impl Verdict {
    /// Whether it arrives: both ends agree.
    pub fn passes(&self) -> bool {
        self.egress.passes() && self.ingress.passes()
    }
}

/// What one end says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Judgement {
    /// There is no task at this end: nothing of ours says no.
    NoTask,
    /// A rule of a security group lets it pass.
    Rule(RuleOfGroup),
    /// It needs no rule, and why.
    Always(String),
    /// Nothing lets it pass, in words that say what is missing.
    Refused(String),
}

/// A rule, by its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleOfGroup {
    /// Whose.
    pub group: SecurityGroupName,
    /// Which of them, from 0.
    pub index: usize,
    /// What it says.
    pub permission: Permission,
}

impl Judgement {
    /// Whether this end lets it pass.
    pub fn passes(&self) -> bool {
        match self {
            Self::NoTask | Self::Rule(_) | Self::Always(_) => true,
            Self::Refused(_) => false,
        }
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTask => f.write_str("no task is at this end"),
            Self::Rule(rule) => rule.fmt(f),
            Self::Always(why) | Self::Refused(why) => f.write_str(why),
        }
    }
}

impl fmt::Display for RuleOfGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.permission.protocol {
            IpProtocol::Tcp => "tcp",
            IpProtocol::Udp => "udp",
            IpProtocol::Icmp => "icmp",
            IpProtocol::All => "all",
        };
        write!(f, "rule {} of `{}`: {what}", self.index.saturating_add(1), self.group)?;
        match self.permission.ports {
            Some((first, last)) if first == last => write!(f, " {first}")?,
            Some((first, last)) => write!(f, " {first}-{last}")?,
            None => {}
        }
        let peer = |peer: &Peer| match peer {
            Peer::Cidr(cidr) => cidr.to_string(),
            Peer::SecurityGroup(group) => format!("members of `{group}`"),
        };
        let peers: Vec<String> = self.permission.peers.iter().map(peer).collect();
        write!(f, ", {}", peers.join(" or "))
    }
}

/// Why a packet cannot be judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotJudged {
    /// No such task.
    #[error("there is no task {0}")]
    NoSuchTask(TaskId),
    /// The task is over, or has no network of its own.
    #[error("task {0} has no address of its own: security groups are for tasks that run in `networkMode: awsvpc`")]
    NoAddress(TaskId),
}

/// Whether a packet passes, and why.
pub fn verdict(state: &State, packet: &Packet) -> Result<Verdict, NotJudged> {
    let fleet = pictures(state);
    let (from, to) = (End::of(state, &fleet, &packet.from)?, End::of(state, &fleet, &packet.to)?);
    // An address says more in the cluster of the other end.
    let (from, to) = (from.known_to(&to), to.known_to(&from));
    let flow = packet.flow;
    if from.address == to.address {
        let inside = || Judgement::Always("it never leaves the task".into());
        return Ok(Verdict { from: from.address, to: to.address, egress: inside(), ingress: inside() });
    }
    let egress = match from.at {
        Some(at) => egress(state, at, from.address, &to, flow),
        None => nobody(&from, &to),
    };
    // What leaves both the host and the cluster's addresses bears its host's, unless it is on a LAN itself.
    let leaves = |at: &At<'_>| {
        let is_machine = at.network.bridges.iter().any(|it| it.lan.is_some() && it.slice.contains(&from.address));
        !is_machine && !is_inside(at.network, to.address) && address_of(state, at.host) != Some(to.address)
    };
    let seen_from = match from.at.filter(leaves) {
        Some(at) => address_of(state, at.host).unwrap_or(from.address),
        None => from.address,
    };
    let ingress = match to.at {
        Some(at) => ingress(state, at, seen_from, &to, flow),
        None => nobody(&to, &from),
    };
    Ok(Verdict { from: seen_from, to: to.address, egress, ingress })
}

type Fleet = BTreeMap<HostName, Arc<HostNetwork>>;

/// Where a task is.
#[derive(Clone, Copy)]
struct At<'a> {
    host: &'a HostName,
    network: &'a HostNetwork,
    task: &'a LocalTask,
}

#[derive(Clone, Copy)]
struct End<'a> {
    address: Ipv4Addr,
    at: Option<At<'a>>,
    fleet: &'a Fleet,
}

impl<'a> End<'a> {
    fn of(state: &State, fleet: &'a Fleet, endpoint: &Endpoint) -> Result<Self, NotJudged> {
        let id = match endpoint {
            Endpoint::Address(address) => return Ok(Self { address: *address, at: None, fleet }),
            Endpoint::Task(id) => id,
        };
        let task = state.tasks.get(id).ok_or_else(|| NotJudged::NoSuchTask(id.clone()))?;
        let no_address = || NotJudged::NoAddress(id.clone());
        let address = task.network.as_ref().ok_or_else(no_address)?.address;
        let (host, network) = fleet.get_key_value(&task.host).ok_or_else(no_address)?;
        let local = network.tasks.get(&address).filter(|local| local.task == *id).ok_or_else(no_address)?;
        Ok(Self { address, at: Some(At { host, network, task: local }), fleet })
    }

    /// With the task whose address it is, among those of the other end's cluster: clusters may use the same addresses.
    fn known_to(self, other: &Self) -> Self {
        let cluster = other.at.map(|at| &at.network.fleet.cluster);
        let here = |(host, network): (&'a HostName, &'a Arc<HostNetwork>)| {
            let is_meant = cluster.is_none_or(|cluster| network.fleet.cluster == *cluster);
            let task = network.tasks.get(&self.address).filter(|_| is_meant)?;
            Some(At { host, network, task })
        };
        Self { at: self.at.or_else(|| self.fleet.iter().find_map(here)), ..self }
    }
}

/// An end that is no task: all is well with it, unless it is in a place for tasks.
fn nobody(end: &End<'_>, other: &End<'_>) -> Judgement {
    let Some(network) = other.at.map(|at| at.network) else { return Judgement::NoTask };
    let mut slices = network.slices();
    let is_nobodys = slices.any(|slice| slice.contains(&end.address) && gateway(slice) != end.address);
    if is_nobodys { Judgement::Refused(format!("no task has the address {}", end.address)) } else { Judgement::NoTask }
}

/// Whether an address is one of the task network.
fn is_inside(network: &HostNetwork, address: Ipv4Addr) -> bool {
    let mut slices = network.slices();
    network.fleet.cidr.contains(&address) || slices.any(|slice| slice.contains(&address))
}

/// Which addresses a rule of all addresses covers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Every one.
    Everywhere,
    /// No host's: a narrower rule is needed.
    Host,
    /// A host's inside the task network: a rule for it alone is needed.
    Gateway,
}

fn egress(state: &State, at: At<'_>, from: Ipv4Addr, to: &End<'_>, flow: Flow) -> Judgement {
    let (network, address) = (at.network, to.address);
    let own_gateway = network.bridges.iter().any(|bridge| bridge.gateway() == address);
    if own_gateway {
        match flow {
            Flow::Tcp(NAMES) | Flow::Udp(NAMES) => return Judgement::Always("names are answered there".into()),
            Flow::Echo => return Judgement::Always("a task's gateway answers it".into()),
            Flow::Tcp(_) | Flow::Udp(_) => {}
        }
    }
    let is_balancer = match flow {
        Flow::Tcp(port) => network.fleet.balancers.contains(&(address, port)),
        Flow::Udp(_) | Flow::Echo => false,
    };
    let reach = if is_balancer {
        Reach::Everywhere
    } else if own_gateway || network.slices_elsewhere().any(|slice| gateway(slice) == address) {
        Reach::Gateway
    } else if network.fleet.hosts.contains(&address)
        || address_of(state, at.host) == Some(address)
        || LINK_LOCAL.contains(&address)
    {
        Reach::Host
    } else {
        Reach::Everywhere
    };
    let rule = first_rule(at, flow, |rules| &rules.egress, address, reach);
    let but = match reach {
        Reach::Everywhere => String::new(),
        Reach::Host if LINK_LOCAL.contains(&address) => {
            ": 0.0.0.0/0 does not cover what machines are told of themselves".to_owned()
        }
        Reach::Host => ": 0.0.0.0/0 does not cover hosts".to_owned(),
        Reach::Gateway => format!(": it is a host's, for which only a rule for {address}/32 is meant"),
    };
    let missing = || {
        let whom = whom(network, address);
        format!("no egress rule of {} of {from} names {flow} to {whom}{but}", own_groups(at.task))
    };
    rule.map_or_else(|| Judgement::Refused(missing()), Judgement::Rule)
}

fn ingress(state: &State, at: At<'_>, from: Ipv4Addr, to: &End<'_>, flow: Flow) -> Judgement {
    let (network, task) = (at.network, at.task);
    let of_its_host = network.bridges.iter().map(Bridge::gateway).chain(address_of(state, at.host));
    let is_checked = match flow {
        Flow::Tcp(port) => task.checked.contains(&(Protocol::Tcp, port)),
        Flow::Udp(port) => task.checked.contains(&(Protocol::Udp, port)),
        Flow::Echo => false,
    };
    if is_checked && of_its_host.into_iter().any(|address| address == from) {
        return Judgement::Always("its own host checks its health there".into());
    }
    let rule = first_rule(at, flow, |rules| &rules.ingress, from, Reach::Everywhere);
    let missing = || {
        let whom = whom(network, from);
        format!("no ingress rule of {} of {} names {flow} from {whom}", own_groups(task), to.address)
    };
    rule.map_or_else(|| Judgement::Refused(missing()), Judgement::Rule)
}

fn first_rule(
    at: At<'_>,
    flow: Flow,
    way: fn(&GroupRules) -> &Vec<Permission>,
    peer: Ipv4Addr,
    reach: Reach,
) -> Option<RuleOfGroup> {
    let fleet = &at.network.fleet;
    let is_peer = |named: &Peer| match named {
        Peer::Cidr(cidr) => {
            let is_meant = match reach {
                Reach::Everywhere => true,
                Reach::Host => cidr.prefix_len() > 0,
                Reach::Gateway => cidr.prefix_len() == 32,
            };
            is_meant && cidr.contains(&peer)
        }
        Peer::SecurityGroup(group) => fleet.members.get(group).is_some_and(|members| members.contains(&peer)),
    };
    let rules = at.task.security_groups.iter().filter_map(|group| Some((group, way(fleet.groups.get(group)?))));
    let mut rules = rules.flat_map(|(group, rules)| rules.iter().enumerate().map(move |rule| (group, rule)));
    let (group, (index, permission)) =
        rules.find(|(_, (_, permission))| covers(permission, flow) && permission.peers.iter().any(is_peer))?;
    Some(RuleOfGroup { group: group.clone(), index, permission: permission.clone() })
}

fn covers(permission: &Permission, flow: Flow) -> bool {
    let has = |port: u16| permission.ports.is_none_or(|(first, last)| (first..=last).contains(&port));
    match (permission.protocol, flow) {
        (IpProtocol::All, Flow::Tcp(_) | Flow::Udp(_) | Flow::Echo) | (IpProtocol::Icmp, Flow::Echo) => true,
        (IpProtocol::Tcp, Flow::Tcp(port)) | (IpProtocol::Udp, Flow::Udp(port)) => has(port),
        (IpProtocol::Tcp, Flow::Udp(_) | Flow::Echo)
        | (IpProtocol::Udp, Flow::Tcp(_) | Flow::Echo)
        | (IpProtocol::Icmp, Flow::Tcp(_) | Flow::Udp(_)) => false,
    }
}

fn own_groups(task: &LocalTask) -> String {
    task.security_groups.iter().map(|group| format!("`{group}`")).collect::<Vec<_>>().join(" or ")
}

/// An address, and the groups by which a rule may name it.
fn whom(network: &HostNetwork, address: Ipv4Addr) -> String {
    let members = network.fleet.members.iter().filter(|(_, members)| members.contains(&address));
    let groups: Vec<String> = members.map(|(group, _)| format!("`{group}`")).collect();
    match groups.as_slice() {
        [] => address.to_string(),
        [one] => format!("{address} (group {one})"),
        some => format!("{address} (groups {})", some.join(", ")),
    }
}

#[cfg(test)]
mod tests;
