//! The task network: who has which slice of a subnet, and what each host is to make of it all.
//!
//! * here: subnets cut into slices, and what a task must wait for;
//! * [`picture`]: each host's part, from what is durable alone;
//! * addresses are given out by placement, since a host without a free one cannot take a task.

mod picture;
pub mod verdict;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

pub use picture::{groups_of, has_network, holds_address, pictures, rules_of};

use crate::model::{
    desired::Desired,
    name::{ClusterName, HostName, SubnetName},
    network::{SubnetRecord, TaskNetwork, gateway},
    spec::{
        SubnetSpec, TaskDefinitionSpec,
        network::{self, AssignPublicIp, NetworkConfiguration},
        task_definition::NetworkMode,
    },
    state::{Change, State},
    task::{DesiredStatus, LastStatus, Launch, StopCode, Task},
    time::Timestamp,
    world::Subject,
};

use super::{
    draft::{Draft, Host, TaskNo},
    placement::{Placement, Slice},
    service, throttle,
};

/// A task goes to a host whose network is being made, so that the first one that is ready does not get them all; one whose
/// host turns out to have a problem with it is given up after this.
const GUARDED_WITHIN_MS: u64 = 30_000;

/// A host that answers is looked at within this.
const LOOKED_AT_WITHIN_MS: u64 = 10_000;

/// The label of a host that says its zone.
const ZONE: &str = "availability-zone";
/// A host's slice of a subnet that nobody declared.
const DEFAULT_HOST_PREFIX: u8 = 24;

/// Whether tasks' ports are published on their hosts.
pub(super) fn is_public(configuration: Option<&NetworkConfiguration>) -> bool {
    configuration.is_some_and(|it| it.awsvpc_configuration.assign_public_ip == AssignPublicIp::Enabled)
}

/// The subnets of a cluster: those that are declared, or one over all its addresses.
pub(super) fn subnets_in(desired: &Desired, cluster: &ClusterName) -> BTreeMap<SubnetName, SubnetSpec> {
    let declared = desired.subnets.iter().filter(|(_, manifest)| manifest.spec.cluster == *cluster);
    let declared: BTreeMap<SubnetName, SubnetSpec> =
        declared.map(|(name, manifest)| (name.clone(), manifest.spec.clone())).collect();
    if !declared.is_empty() {
        return declared;
    }
    let cidr = desired.cluster(cluster).network.cidr;
    // A small network is cut into four at least.
    let host_prefix = DEFAULT_HOST_PREFIX.max(cidr.prefix_len().saturating_add(2)).min(29);
    BTreeMap::from([(
        network::default_subnet(cluster),
        SubnetSpec { cluster: cluster.clone(), availability_zone: None, cidr, host_prefix },
    )])
}

/// The subnets that there are to be: of every cluster that has hosts.
pub fn subnets(state: &State) -> BTreeMap<SubnetName, SubnetSpec> {
    if !picture::has_network(state) {
        return BTreeMap::new();
    }
    subnets_of_hosts(&state.desired).collect()
}

/// Those of every cluster that has hosts, used or not.
fn subnets_of_hosts(desired: &Desired) -> impl Iterator<Item = (SubnetName, SubnetSpec)> {
    let clusters: BTreeSet<&ClusterName> = desired.hosts.values().map(|host| &host.spec.cluster).collect();
    clusters.into_iter().flat_map(|cluster| subnets_in(desired, cluster))
}

/// Where a task's address is from; none when it has no network of its own.
pub(super) fn subnets_of(
    desired: &Desired,
    cluster: &ClusterName,
    definition: &TaskDefinitionSpec,
    configuration: Option<&NetworkConfiguration>,
) -> Option<Vec<SubnetName>> {
    match definition.network_mode {
        NetworkMode::Awsvpc => {}
        NetworkMode::Bridge | NetworkMode::Host | NetworkMode::None => return None,
    }
    let named = configuration.map(|it| it.awsvpc_configuration.subnets.as_slice()).unwrap_or_default();
    Some(match named {
        [] => subnets_in(desired, cluster).into_keys().collect(),
        named => named.to_vec(),
    })
}

/// A placed task's part of the network.
pub(super) fn of_placed(
    placement: &Placement,
    configuration: Option<&NetworkConfiguration>,
) -> Option<Arc<TaskNetwork>> {
    let (subnet, address) = placement.address.clone()?;
    Some(Arc::new(TaskNetwork { subnet, address, security_groups: network::security_groups(configuration) }))
}

/// A host's slices, as they stand.
pub(super) fn slices_of(draft: &Draft<'_>, host: &HostName) -> Vec<Slice> {
    let slice = |record: &SubnetRecord| Some(Slice { subnet: record.name.clone(), cidr: record.slice_of(host)? });
    let mut slices: Vec<Slice> = draft.subnets().filter_map(slice).collect();
    slices.sort_by(|one, other| one.subnet.cmp(&other.subnet));
    slices
}

/// A host's own address in its slice.
pub(super) fn gateway_of(draft: &Draft<'_>, host: &HostName, subnet: &SubnetName) -> Option<Ipv4Addr> {
    draft.subnet(subnet)?.slice_of(host).map(gateway)
}

/// Clusters in which no task with an address is placed yet: a host is about to have a network, and the first one that has would
/// get them all.
pub(super) fn unsettled<'w>(draft: &Draft<'w>) -> BTreeSet<&'w ClusterName> {
    let is_awaited = |host: &&Host<'w>| looked_at_by(draft, host) > Some(draft.now());
    draft.hosts.iter().filter(is_awaited).map(|host| &host.manifest.spec.cluster).collect()
}

/// Whether nothing is wrong with a host's network, as far as it was looked at.
pub(super) fn is_sound(draft: &Draft<'_>, host: &HostName) -> bool {
    draft.world.networks.get(host).is_some_and(|seen| seen.problem.is_none())
}

/// Until when a host is waited for that answers, and whose networks nobody has looked at.
fn looked_at_by(draft: &Draft<'_>, host: &Host<'_>) -> Option<Timestamp> {
    let contact = draft.world.contacts.get(host.name)?;
    let is_open = host.heard && !draft.world.networks.contains_key(host.name);
    is_open.then(|| contact.watched_since.plus_ms(LOOKED_AT_WITHIN_MS))
}

/// Gives each host of a zone its slice of the zone's subnets: the one that it has already, when the database did not know
/// of it. What tasks still have addresses of stays as it was cut.
pub(super) fn cut(draft: &mut Draft<'_>) {
    let (state, desired) = (&draft.world.state, &draft.world.state.desired);
    if state.subnets.is_empty() && !picture::has_network(state) {
        return;
    }
    let awaited: Vec<Timestamp> = draft.hosts.iter().filter_map(|host| looked_at_by(draft, host)).collect();
    awaited.into_iter().for_each(|at| draft.wake_at(at));
    let live = state.tasks.values().filter(|task| task.last_status != LastStatus::Stopped);
    let in_use: BTreeSet<(&SubnetName, &HostName)> =
        live.filter_map(|task| Some((&task.network.as_ref()?.subnet, &task.host))).collect();
    let mut wanted = BTreeSet::new();
    for (name, spec) in subnets_of_hosts(desired) {
        let before = state.subnets.get(&name);
        let uncut = || SubnetRecord {
            name: name.clone(),
            cidr: spec.cidr,
            host_prefix: spec.host_prefix,
            slices: BTreeMap::new(),
        };
        let mut record = before.cloned().unwrap_or_else(uncut);
        if record.cut() != spec.cut() {
            if in_use.iter().any(|(subnet, _)| **subnet == name) {
                let reason = format!(
                    "it is still {} with slices of /{}, since tasks have addresses of it",
                    record.cidr, record.host_prefix
                );
                draft.waiting(Subject::Subnet(name.clone()), reason, "no task has an address of it", None);
            } else {
                record = uncut();
            }
        }
        let in_zone = |host: &HostName| {
            desired.hosts.get(host).is_some_and(|manifest| {
                let zone = manifest.labels.get(ZONE);
                manifest.spec.cluster == spec.cluster
                    && spec.availability_zone.as_ref().is_none_or(|wanted| zone == Some(wanted))
            })
        };
        record.slices.retain(|host, _| in_zone(host) || in_use.contains(&(&name, host)));
        let mut taken: BTreeSet<u32> = record.slices.values().copied().collect();
        for host in desired.hosts.keys().filter(|host| in_zone(host)) {
            // What is there already is known once the host was asked.
            let seen = draft.world.networks.get(host).filter(|seen| seen.problem.is_none());
            let Some(seen) = seen.filter(|_| !record.slices.contains_key(host)) else { continue };
            let cut = record.cut();
            let there = seen.slices.get(&name).and_then(|there| cut.number_of(*there));
            let number = there.filter(|number| !taken.contains(number));
            match number.or_else(|| (0..cut.slices()).find(|number| !taken.contains(number))) {
                Some(number) => {
                    taken.insert(number);
                    record.slices.insert(host.clone(), number);
                }
                None => {
                    let reason =
                        format!("host {host} gets no slice: all {} of /{} are taken", cut.slices(), record.host_prefix);
                    let wakes_when = "another host goes, or the subnet is larger or its slices smaller";
                    draft.waiting(Subject::Subnet(name.clone()), reason, wakes_when, None);
                }
            }
        }
        if before != Some(&record) {
            draft.put_subnet(record);
        }
        wanted.insert(name);
    }
    let gone = |name: &&SubnetName| !wanted.contains(*name) && in_use.iter().all(|(subnet, _)| subnet != name);
    let gone: Vec<SubnetName> = state.subnets.keys().filter(gone).cloned().collect();
    gone.into_iter().for_each(|name| draft.remove(Change::SubnetRemoved(name)));
}

/// Whether a task's host has put the rules around it into force, if it has an address (S11); else it waits, and says so.
pub(super) fn is_guarded(draft: &mut Draft<'_>, no: TaskNo) -> bool {
    let task = draft.task(no);
    let Some(network) = &task.network else { return true };
    let seen = draft.world.networks.get(&task.host);
    if seen.is_some_and(|seen| seen.guards(&task.id, network)) {
        return true;
    }
    let problem = seen.and_then(|seen| seen.problem.as_deref());
    let reason = match problem {
        Some(problem) => format!("the task network of host {} is not ready: {problem}", task.host),
        None => format!("host {} has not confirmed the rules around its address {}", task.host, network.address),
    };
    let give_up_at = (problem.is_some() && task.launch == Launch::NotIssued).then(|| gives_up_at(task));
    let subject = Subject::Task(task.id.clone());
    draft.waiting(subject, reason, "the host confirms them", give_up_at);
    false
}

fn gives_up_at(task: &Task) -> Timestamp {
    task.created_at.plus_ms(GUARDED_WITHIN_MS)
}

/// Ends a task that was not begun since its host has a problem with its network, when that lasts.
pub(super) fn give_up(draft: &mut Draft<'_>, no: TaskNo) {
    let task = draft.task(no);
    let may_begin = task.desired_status == DesiredStatus::Running && task.launch == Launch::NotIssued;
    if task.network.is_none() || !may_begin || gives_up_at(task) > draft.now() {
        return;
    }
    let problem = draft.world.networks.get(&task.host).and_then(|seen| seen.problem.as_deref());
    let Some(problem) = problem else { return };
    let reason = format!("the task network of host {} is not ready: {problem}", task.host);
    throttle::count_sick(draft, no);
    service::stop(draft, no, StopCode::TaskFailedToStart, &reason);
}

/// Names go on standing for a task that stops until hosts have learnt of it: no longer than this is waited for them.
const LEAVE_NAMES_WITHIN_MS: u64 = 5_000;

/// Whether a task may be told to stop: no host that can be asked answers with its address any more (S10). One that did not
/// confirm anything, to this controller at least, may still answer with what it was told before.
pub(super) fn has_left_names(draft: &mut Draft<'_>, no: TaskNo) -> bool {
    let task = draft.task(no);
    let Some(address) = task.network.as_ref().map(|network| network.address) else { return true };
    let give_up_at = task.stopping_at.unwrap_or_default().plus_ms(LEAVE_NAMES_WITHIN_MS);
    if give_up_at <= draft.now() {
        return true;
    }
    if task.started_at.is_none() {
        return true;
    }
    let may_answer = |host: &HostName| match draft.world.networks.get(host) {
        Some(seen) if seen.confirmed.is_some() => seen.names(address),
        Some(_) | None => !slices_of(draft, host).is_empty(),
    };
    let answers = |host: &&Host<'_>| host.heard && may_answer(host.name);
    let Some(host) = draft.hosts.iter().find(answers).map(|host| host.name.clone()) else { return true };
    let subject = Subject::Task(task.id.clone());
    let reason = format!("host {host} may still answer with its address {address}");
    draft.waiting(subject, reason, "its name stands for others only", Some(give_up_at));
    false
}
