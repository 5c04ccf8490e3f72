//! The task network: what each host's part of it is to be, and what it was found to be.
//!
//! A task in `networkMode: awsvpc` has one address, in a slice of a subnet that is its host's alone. Hosts route the slices to
//! each other, let pass what security groups allow, and answer with the addresses of healthy tasks for names.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{
    hex::hex,
    name::{ClusterName, HostName, RuntimeId, SecurityGroupName, SubnetName, TaskId},
    spec::{security_group::Permission, subnet::Cut, task_definition::Protocol},
    time::Timestamp,
    wireguard::{self, PublicKey},
};

/// The container that holds a task's network: the others join it. No container of a task definition can be called so.
pub const SANDBOX: &str = "task.sandbox";
/// The image of all that touches a host's network, where the cluster names no other.
pub const NODE_IMAGE: &str = concat!("roadstead-node:", env!("CARGO_PKG_VERSION"));

/// Where machines are told of themselves (169.254.169.254), and of no use to a task: as the hosts, out of its reach unless a rule
/// says otherwise.
pub const LINK_LOCAL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);

/// Where containers without an address in the task network ask for names: the same on every host, and each answers itself.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(169, 254, 73, 53);

/// A task's place in the task network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskNetwork {
    /// Where its address is from.
    pub subnet: SubnetName,
    /// Its own until a complete look shows its containers gone (S4).
    pub address: Ipv4Addr,
    /// The groups that it was started in; a service's tasks are in those that their service names now.
    pub security_groups: Vec<SecurityGroupName>,
}

/// How a subnet is cut, and which slice is whose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubnetRecord {
    /// Its name.
    pub name: SubnetName,
    /// All its addresses.
    pub cidr: Ipv4Net,
    /// How large a slice is.
    pub host_prefix: u8,
    /// The LAN that its addresses are of, when they are not of the hosts' own networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lan: Option<Lan>,
    /// Numbers from 0, each one host's.
    pub slices: BTreeMap<HostName, u32>,
}

impl SubnetRecord {
    /// How it is cut.
    pub fn cut(&self) -> Cut {
        Cut { cidr: self.cidr, host_prefix: self.host_prefix }
    }

    /// A host's slice.
    pub fn slice_of(&self, host: &HostName) -> Option<Ipv4Net> {
        self.cut().slice(*self.slices.get(host)?)
    }
}

/// A LAN that tasks have addresses of: they are machines on it, and what they send passes none of their host's rules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lan {
    /// The hosts' interface on it; the one with an address of it when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its router, with its prefix.
    pub router: Ipv4Net,
}

/// A host's part of a subnet: a network of its engine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bridge {
    /// The subnet.
    pub subnet: SubnetName,
    /// The host's slice.
    pub slice: Ipv4Net,
    /// The LAN that it is a part of: no bridge then, but an interface beside those of the tasks, by which host and tasks reach
    /// each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lan: Option<Lan>,
}

impl Bridge {
    /// The engine's name of a subnet's network.
    pub fn network_of(subnet: &SubnetName) -> String {
        format!("rs-{subnet}")
    }

    /// The engine's name of it.
    pub fn network(&self) -> String {
        Self::network_of(&self.subnet)
    }

    /// The kernel's name of it, which has 15 bytes at most.
    pub fn interface(&self) -> String {
        use aws_lc_rs::digest;
        let hash = digest::digest(&digest::SHA256, self.subnet.as_str().as_bytes());
        format!("rs-{}", hex(hash.as_ref().get(..5).unwrap_or_default()))
    }

    /// The host's own address in it: the tasks' way out, and where they ask for names.
    pub fn gateway(&self) -> Ipv4Addr {
        gateway(self.slice)
    }
}

/// The first address of a slice is its host's.
pub fn gateway(slice: Ipv4Net) -> Ipv4Addr {
    u32::from(slice.network()).saturating_add(1).into()
}

/// The addresses of a slice that tasks can have, first and last: not the network's, the host's and the broadcast's.
pub fn task_addresses(slice: Ipv4Net) -> (u32, u32) {
    (u32::from(slice.network()).saturating_add(2), u32::from(slice.broadcast()).saturating_sub(1))
}

/// The hardware address that goes with an address: no two tasks of a network share one, and a packet that pairs one's with
/// another's is forged. Docker's own scheme.
pub fn mac_address(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// A host's part of the task network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostNetwork {
    /// The image of all that touches the network there.
    pub node_image: String,
    /// Its networks, by subnet; a host without one answers for names alone.
    pub bridges: Vec<Bridge>,
    /// The other hosts' slices, and where they are, when hosts share a network.
    pub routes: BTreeMap<Ipv4Net, Ipv4Addr>,
    /// The way to the other hosts, when they share none.
    pub tunnel: Option<Tunnel>,
    /// The other hosts' slices of a LAN: reached as everything on it is.
    #[serde(default)]
    pub on_lan: BTreeSet<Ipv4Net>,
    /// The tasks that are there, by address.
    pub tasks: BTreeMap<Ipv4Addr, LocalTask>,
    /// What is the same on every host.
    pub fleet: Arc<FleetNetwork>,
}

impl HostNetwork {
    /// The other hosts' slices.
    pub fn slices_elsewhere(&self) -> impl Iterator<Item = Ipv4Net> {
        let by_tunnel = self.tunnel.iter().flat_map(|tunnel| tunnel.peers.values()).flat_map(|peer| &peer.slices);
        self.routes.keys().chain(by_tunnel).chain(&self.on_lan).copied()
    }

    /// All hosts' slices.
    pub fn slices(&self) -> impl Iterator<Item = Ipv4Net> {
        self.bridges.iter().map(|bridge| bridge.slice).chain(self.slices_elsewhere())
    }

    /// Whether a host that is so lacks nothing but names to be as `wanted`: no task waits for that.
    pub fn lacks_only_names(&self, wanted: &Self) -> bool {
        let has_all = |had: &Names, names: &Names| {
            had.namespace == names.namespace
                && is_within(&had.addresses, &names.addresses)
                && is_within(&had.services, &names.services)
        };
        let with_names_of = |other: &FleetNetwork| FleetNetwork { names: other.names.clone(), ..(*self.fleet).clone() };
        has_all(&self.fleet.names, &wanted.fleet.names)
            && *wanted == Self { fleet: Arc::new(with_names_of(&wanted.fleet)), ..self.clone() }
    }
}

/// Whether nothing of `had` is taken away.
fn is_within<T: Ord>(had: &BTreeMap<String, BTreeSet<T>>, names: &BTreeMap<String, BTreeSet<T>>) -> bool {
    had.iter().all(|(name, had)| names.get(name).is_some_and(|names| had.is_subset(names)))
}

/// A host's end of the encrypted way between hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tunnel {
    /// Where it listens (UDP).
    pub listen_port: u16,
    /// The other hosts that have slices.
    pub peers: BTreeMap<HostName, wireguard::Peer>,
}

/// A task on its own host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalTask {
    /// Which.
    pub task: TaskId,
    /// The groups that it is in.
    pub security_groups: BTreeSet<SecurityGroupName>,
    /// Ports that its host may reach for its health checks.
    pub checked: BTreeSet<(Protocol, u16)>,
    /// Of a task on a LAN: where rules must stand, since those of its host do not see its packets. None while nothing runs that
    /// has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
}

/// A task's own network namespace: it lasts as long as its sandbox runs, and begins shut.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Namespace {
    /// The sandbox.
    pub container: RuntimeId,
    /// When it began to run: another time is another namespace.
    pub started_at: Timestamp,
}

/// What every host of a cluster knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetNetwork {
    /// The cluster.
    pub cluster: ClusterName,
    /// All addresses that tasks may have.
    pub cidr: Ipv4Net,
    /// The hosts' own addresses: out of tasks' reach unless a rule says otherwise.
    pub hosts: BTreeSet<Ipv4Addr>,
    /// The groups that have members, or that rules of these name.
    pub groups: BTreeMap<SecurityGroupName, GroupRules>,
    /// Their members' addresses.
    pub members: BTreeMap<SecurityGroupName, BTreeSet<Ipv4Addr>>,
    /// Where load balancers answer on hosts: for rules of tasks these are no hosts.
    #[serde(default)]
    pub balancers: BTreeSet<(Ipv4Addr, u16)>,
    /// What names stand for.
    pub names: Names,
}

/// What a group lets pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupRules {
    /// Towards its members.
    pub ingress: Vec<Permission>,
    /// From its members.
    pub egress: Vec<Permission>,
}

/// What names stand for: all of them whole, with the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Names {
    /// The domain that is answered for: what it does not have does not exist.
    pub namespace: String,
    /// A records.
    pub addresses: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    /// SRV records, by `_port._tcp.NAME`: names that `addresses` has, and ports.
    pub services: BTreeMap<String, BTreeSet<(String, u16)>>,
}

impl Names {
    /// Whether a task is answered with: it has a name of its own then.
    pub fn stand_for(&self, task: &TaskId) -> bool {
        let own = format!("{task}.");
        self.addresses.range(own.clone()..).next().is_some_and(|(name, _)| name.starts_with(&own))
    }
}

/// What was found of a host's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkSeen {
    /// When.
    pub at: Timestamp,
    /// What the host was last made to be and was found to be; none until then, and not any more once it was found otherwise.
    pub confirmed: Option<Arc<HostNetwork>>,
    /// What it is being made just now: in force or not, nobody knows.
    pub under_way: Option<Arc<HostNetwork>>,
    /// Our networks there, whoever made them.
    pub slices: BTreeMap<SubnetName, Ipv4Net>,
    /// Its public key, when it was told of it just now.
    pub public_key: Option<PublicKey>,
    /// What keeps the host from being as it should, in words a person can act on.
    pub problem: Option<String>,
}

impl NetworkSeen {
    /// Whether a task may start there: the rules around it are in force (S11).
    pub fn guards(&self, task: &TaskId, network: &TaskNetwork) -> bool {
        let guarded = |confirmed: &Arc<HostNetwork>| {
            confirmed.tasks.get(&network.address).is_some_and(|local| local.task == *task)
                && confirmed.bridges.iter().any(|bridge| bridge.subnet == network.subnet)
        };
        self.confirmed.as_ref().is_some_and(guarded)
    }

    /// Whether the rules of a task on a LAN are in force in this very namespace of it (S11).
    pub fn holds(&self, task: &TaskId, network: &TaskNetwork, namespace: &Namespace) -> bool {
        let held = |local: &LocalTask| local.task == *task && local.namespace.as_ref() == Some(namespace);
        self.confirmed.as_ref().is_some_and(|confirmed| confirmed.tasks.get(&network.address).is_some_and(held))
    }

    /// The slices of a subnet that are there, or are just being made.
    pub fn may_have(&self, subnet: &SubnetName) -> impl Iterator<Item = Ipv4Net> {
        let pictures = self.confirmed.iter().chain(&self.under_way).flat_map(|picture| &picture.bridges);
        let made = pictures.filter(move |bridge| bridge.subnet == *subnet).map(|bridge| bridge.slice);
        self.slices.get(subnet).copied().into_iter().chain(made)
    }

    /// Whether names there may still stand for this task.
    pub fn names(&self, task: &TaskId) -> bool {
        self.confirmed.iter().chain(&self.under_way).any(|picture| picture.fleet.names.stand_for(task))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_has_a_name_that_the_kernel_takes() {
        let bridge = Bridge {
            subnet: "private-application-subnet-of-zone-1".into(),
            slice: "10.64.1.64/26".parse().unwrap(),
            lan: None,
        };
        assert!(bridge.interface().len() <= 15);
        assert_eq!(bridge.gateway(), Ipv4Addr::new(10, 64, 1, 65));
        let (first, last) = task_addresses(bridge.slice);
        assert_eq!(Ipv4Addr::from(first), Ipv4Addr::new(10, 64, 1, 66));
        assert_eq!(Ipv4Addr::from(last), Ipv4Addr::new(10, 64, 1, 126));
        assert_eq!(last - first + 1, 61);
        assert_eq!(mac_address(Ipv4Addr::from(first)), "02:42:0a:40:01:42");
    }

    #[test]
    fn names_that_are_added_can_wait_and_nothing_else() {
        let with = |names: &[(&str, u8)], services: &[&str], node_image: &str| {
            let mut all = Names::default();
            for (name, last) in names {
                all.addresses.entry((*name).to_owned()).or_default().insert(Ipv4Addr::new(10, 64, 0, *last));
            }
            for name in services {
                all.services.entry((*name).to_owned()).or_default().insert(("web".to_owned(), 80));
            }
            HostNetwork {
                node_image: node_image.to_owned(),
                bridges: Vec::new(),
                routes: BTreeMap::new(),
                tunnel: None,
                on_lan: BTreeSet::new(),
                tasks: BTreeMap::new(),
                fleet: Arc::new(FleetNetwork {
                    cluster: "default".into(),
                    cidr: "10.64.0.0/16".parse().unwrap(),
                    hosts: BTreeSet::new(),
                    groups: BTreeMap::new(),
                    members: BTreeMap::new(),
                    balancers: BTreeSet::new(),
                    names: all,
                }),
            }
        };
        let before = with(&[("web", 2), ("api", 3)], &["_80"], "node");
        for (wanted, expected) in [
            (with(&[("web", 2), ("api", 3)], &["_80"], "node"), true),
            (with(&[("web", 2), ("web", 4), ("api", 3), ("db", 5)], &["_80", "_90"], "node"), true),
            (with(&[("web", 2), ("web", 4)], &["_80"], "node"), false),
            (with(&[("web", 4), ("api", 3)], &["_80"], "node"), false),
            (with(&[("web", 2), ("api", 3)], &["_90"], "node"), false),
            (with(&[("web", 2), ("web", 4), ("api", 3)], &["_80"], "other"), false),
        ] {
            assert_eq!(before.lacks_only_names(&wanted), expected, "{wanted:?}");
        }
    }
}
