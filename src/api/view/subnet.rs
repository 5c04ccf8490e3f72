//! Subnets: how they are cut, and how many addresses are left.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use roadstead_control::control::handle::Snapshot;
use roadstead_core::{
    model::{
        name::{HostName, SubnetName},
        network::{self, SubnetRecord},
        spec::{SubnetSpec, cluster::DEFAULT_CLUSTER, subnet::SubnetDriver},
        world::Subject,
    },
    plan::network as plan,
};

/// One subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubnetView {
    /// Name.
    pub name: String,
    /// Cluster.
    pub cluster: String,
    /// The zone of its hosts; none when every host of the cluster has a slice.
    pub availability_zone: Option<String>,
    /// `macvlan` when its addresses are of the LAN; else `bridge`.
    pub driver: String,
    /// All its addresses, as it is cut now.
    pub cidr: String,
    /// How large a host's slice is.
    pub host_prefix: u8,
    /// How many hosts have a slice.
    pub slices_in_use: u32,
    /// How many hosts can have one.
    pub slices_total: u32,
    /// Addresses that tasks have.
    pub addresses_in_use: u32,
    /// Addresses that tasks on its hosts can still get (EC2).
    pub available_ip_address_count: u32,
    /// Why it is not as the manifests say.
    pub reason: Option<String>,
    /// Its slices, by host.
    pub hosts: Vec<SliceView>,
}

/// A host's slice of a subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SliceView {
    /// Host.
    pub host: String,
    /// Its addresses.
    pub slice: String,
    /// The host's own address in it.
    pub gateway: String,
    /// Addresses that tasks have.
    pub addresses_in_use: u32,
    /// Addresses that tasks can still get.
    pub available_ip_address_count: u32,
}

/// All subnets: those that are wanted, and those that tasks still have addresses of.
pub fn list(snapshot: &Snapshot, cluster: Option<&str>) -> Vec<SubnetView> {
    let state = &snapshot.world.state;
    let wanted = plan::subnets(state);
    let mut held: BTreeMap<(&SubnetName, &HostName), u32> = BTreeMap::new();
    for task in state.tasks.values().filter(|task| plan::holds_address(task)) {
        if let Some(network) = &task.network {
            *held.entry((&network.subnet, &task.host)).or_default() += 1;
        }
    }
    let gone = state.subnets.values().filter(|record| !wanted.contains_key(&record.name));
    let gone = gone.map(|record| {
        let host = record.slices.keys().find_map(|host| state.desired.hosts.get(host));
        let cluster = host.map_or_else(|| DEFAULT_CLUSTER.into(), |host| host.spec.cluster.clone());
        let driver = if record.lan.is_some() { SubnetDriver::Macvlan } else { SubnetDriver::Bridge };
        let spec = SubnetSpec {
            cluster,
            availability_zone: None,
            driver,
            parent: None,
            gateway: None,
            cidr: record.cidr,
            host_prefix: record.host_prefix,
        };
        (&record.name, spec, Some("no longer declared in the manifests; tasks have addresses of it".to_owned()))
    });
    let wanted = wanted.iter().map(|(name, spec)| (name, spec.clone(), None));
    let mut views: Vec<SubnetView> = wanted
        .chain(gone)
        .filter(|(_, spec, _)| cluster.is_none_or(|cluster| cluster == spec.cluster.as_str()))
        .map(|(name, spec, reason)| {
            let record = state.subnets.get(name);
            let slices = record.into_iter().flat_map(|record| slices(record, &held)).collect();
            view(name, &spec, record, slices, reason.or_else(|| waits(snapshot, name)))
        })
        .collect();
    views.sort_by(|one, other| one.name.cmp(&other.name));
    views
}

fn view(
    name: &SubnetName,
    spec: &SubnetSpec,
    record: Option<&SubnetRecord>,
    hosts: Vec<SliceView>,
    reason: Option<String>,
) -> SubnetView {
    let cut = record.map_or_else(|| spec.cut(), SubnetRecord::cut);
    SubnetView {
        name: name.to_string(),
        cluster: spec.cluster.to_string(),
        availability_zone: spec.availability_zone.clone(),
        driver: super::word(&record.map_or(spec.driver, |record| match record.lan {
            Some(_) => SubnetDriver::Macvlan,
            None => SubnetDriver::Bridge,
        })),
        cidr: cut.cidr.to_string(),
        host_prefix: cut.host_prefix,
        slices_in_use: u32::try_from(hosts.len()).unwrap_or(u32::MAX),
        slices_total: cut.slices(),
        addresses_in_use: hosts.iter().map(|slice| slice.addresses_in_use).sum(),
        available_ip_address_count: hosts.iter().map(|slice| slice.available_ip_address_count).sum(),
        reason,
        hosts,
    }
}

fn slices(record: &SubnetRecord, held: &BTreeMap<(&SubnetName, &HostName), u32>) -> Vec<SliceView> {
    let of = |host: &HostName| {
        let slice = record.slice_of(host)?;
        let (first, last) = network::task_addresses(slice);
        let in_use = held.get(&(&record.name, host)).copied().unwrap_or_default();
        Some(SliceView {
            host: host.to_string(),
            slice: slice.to_string(),
            gateway: network::gateway(slice).to_string(),
            addresses_in_use: in_use,
            available_ip_address_count: (last - first + 1).saturating_sub(in_use),
        })
    };
    record.slices.keys().filter_map(of).collect()
}

/// What the planner says that it waits for.
fn waits(snapshot: &Snapshot, name: &SubnetName) -> Option<String> {
    let subject = Subject::Subnet(name.clone());
    let mut waiting = snapshot.report.waiting.iter();
    waiting.find(|waiting| waiting.subject == subject).map(|waiting| waiting.reason.clone())
}
