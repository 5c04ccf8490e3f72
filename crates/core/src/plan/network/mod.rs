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

pub(super) use picture::{address_of, ports};
pub use picture::{answering, groups_of, has_network, has_part, has_parts, holds_address, pictures, rules_of};

use ipnet::Ipv4Net;

use crate::model::{
    desired::Desired,
    name::{ClusterName, HostName, SubnetName},
    network::{NAME_SERVER, SubnetRecord, TaskNetwork, gateway},
    spec::{
        SubnetSpec, TaskDefinitionSpec,
        network::{self, AssignPublicIp, NetworkConfiguration},
        subnet::SubnetDriver,
        task_definition::NetworkMode,
    },
    state::{Change, State},
    task::{LastStatus, Launch, StopCode, Task},
    time::Timestamp,
    world::Subject,
};

use super::{
    draft::{Draft, Host, TaskNo},
    hosts::ZONE_LABEL,
    placement::{Placement, Slice},
    service, throttle,
};

/// A task goes to a host whose network is being made, so that the first one that is ready does not get them all; one whose
/// host turns out to have a problem with it is given up after this.
const GUARDED_WITHIN_MS: u64 = 30_000;

/// A host that answers is looked at within this.
const LOOKED_AT_WITHIN_MS: u64 = 10_000;

/// A host's slice of a subnet that nobody declared.
const DEFAULT_HOST_PREFIX: u8 = 24;

/// Whether tasks' ports are published on their hosts.
pub(super) fn is_public(configuration: Option<&NetworkConfiguration>) -> bool {
    configuration.is_some_and(|it| it.awsvpc_configuration.assign_public_ip == AssignPublicIp::Enabled)
}

/// The subnets of a cluster: those that are declared, and one over all its addresses when none of these is the hosts' own.
pub(super) fn subnets_in(desired: &Desired, cluster: &ClusterName) -> BTreeMap<SubnetName, SubnetSpec> {
    let declared = desired.subnets.iter().filter(|(_, manifest)| manifest.spec.cluster == *cluster);
    let mut subnets: BTreeMap<SubnetName, SubnetSpec> =
        declared.map(|(name, manifest)| (name.clone(), manifest.spec.clone())).collect();
    if subnets.values().any(|spec| spec.driver == SubnetDriver::Bridge) {
        return subnets;
    }
    let cidr = desired.cluster(cluster).network.cidr;
    // A small network is cut into four at least.
    let host_prefix = DEFAULT_HOST_PREFIX.max(cidr.prefix_len().saturating_add(2)).min(29);
    let spec = SubnetSpec {
        cluster: cluster.clone(),
        availability_zone: None,
        driver: SubnetDriver::Bridge,
        parent: None,
        gateway: None,
        cidr,
        host_prefix,
    };
    subnets.entry(network::default_subnet(cluster)).or_insert(spec);
    subnets
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

/// Where a task's address is from; none when it has no network of its own. Nothing is put on a LAN that does not name it, nor what
/// could lift the rules around it there.
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
    let is_safe = definition.container_definitions.iter().all(|container| container.power_over_network().is_none());
    let on_lan =
        |name: &SubnetName| desired.subnets.get(name).is_some_and(|it| it.spec.driver == SubnetDriver::Macvlan);
    Some(match named {
        [] => subnets_in(desired, cluster).into_keys().filter(|name| !on_lan(name)).collect(),
        named => named.iter().filter(|name| is_safe || !on_lan(name)).cloned().collect(),
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
fn gateway_of(draft: &Draft<'_>, host: &HostName, subnet: &SubnetName) -> Option<Ipv4Addr> {
    draft.subnet(subnet)?.slice_of(host).map(gateway)
}

/// Whether a new task's containers are to ask their host for names: those in the task network ask its gateway.
pub(super) fn uses_names(draft: &Draft<'_>, task: &Task) -> bool {
    task.network.is_none() && draft.answering().contains(&task.cluster)
}

/// Where a task's containers ask for names, if not where their host does.
pub(super) fn name_server(draft: &Draft<'_>, task: &Task) -> Option<Ipv4Addr> {
    match &task.network {
        Some(network) => gateway_of(draft, &task.host, &network.subnet),
        None => task.uses_names.then_some(NAME_SERVER),
    }
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
    cut_by(draft, &in_use(draft.world.state.tasks.values().map(Arc::as_ref)));
}

/// The same once more, where tasks ended in this very plan that alone had kept something as it was: planning again would find
/// it (S12).
pub(super) fn cut_again(draft: &mut Draft<'_>) {
    if draft.world.state.subnets.is_empty() {
        return;
    }
    let before = in_use(draft.world.state.tasks.values().map(Arc::as_ref));
    let now = in_use(draft.tasks.iter());
    let is_less = |(key, had): (_, &BTreeSet<Ipv4Addr>)| now.get(key).is_none_or(|have| !had.is_subset(have));
    if before.iter().any(is_less) {
        let mark = draft.waiting_mark();
        cut_by(draft, &now);
        draft.forget_waiting(mark);
    }
}

fn cut_by(draft: &mut Draft<'_>, in_use: &InUse) {
    let (state, desired) = (&draft.world.state, &draft.world.state.desired);
    if state.subnets.is_empty() && !picture::has_network(state) {
        return;
    }
    let awaited: Vec<Timestamp> = draft.hosts.iter().filter_map(|host| looked_at_by(draft, host)).collect();
    // One that has a slice already may not have said so: none is given away meanwhile.
    let is_awaited = awaited.iter().any(|at| *at > draft.now());
    awaited.into_iter().for_each(|at| draft.wake_at(at));
    let mut wanted = BTreeSet::new();
    for (name, spec) in subnets_of_hosts(desired) {
        let before = draft.subnet(&name).cloned();
        let uncut = || SubnetRecord {
            name: name.clone(),
            cidr: spec.cidr,
            host_prefix: spec.host_prefix,
            lan: spec.lan(),
            slices: BTreeMap::new(),
        };
        let mut record = before.clone().unwrap_or_else(uncut);
        if (record.cut(), &record.lan) != (spec.cut(), &spec.lan()) {
            if in_use.keys().any(|(subnet, _)| *subnet == name) {
                let reason = format!(
                    "it is still {} with slices of /{}, since tasks have addresses of it",
                    record.cidr, record.host_prefix
                );
                draft.waiting(Subject::Subnet(name.clone()), reason, "no task has an address of it", None);
            } else {
                record = uncut();
            }
        }
        let in_zone = |host: &HostName| is_in_zone(desired, &spec, host);
        record.slices.retain(|host, _| in_zone(host) || in_use.contains_key(&(name.clone(), host.clone())));
        let mut taken: BTreeSet<u32> = record.slices.values().copied().collect();
        // What another host still has is given to nobody.
        let others = draft.world.networks.iter().filter(|(host, _)| !record.slices.contains_key(*host));
        let left = others.flat_map(|(host, seen)| seen.may_have(&name).map(move |slice| (host.clone(), slice)));
        let left = left.filter_map(|(host, slice)| Some((host, record.cut().number_of(slice)?)));
        // Nor is what a task has its address of: it may have been found before its host's network was.
        let left: Vec<(HostName, u32)> = left.chain(addressed(in_use, &record)).collect();
        for host in desired.hosts.keys().filter(|host| in_zone(host)) {
            // What is there already is known once the host was asked.
            let seen = draft.world.networks.get(host).filter(|seen| seen.problem.is_none());
            let Some(seen) = seen.filter(|_| !record.slices.contains_key(host)) else { continue };
            let cut = record.cut();
            let of_tasks = || left.iter().find(|(other, _)| other == host).map(|(_, number)| *number);
            let there = seen.slices.get(&name).and_then(|there| cut.number_of(*there)).or_else(of_tasks);
            let is_free = |number: &u32| {
                !taken.contains(number) && !left.iter().any(|(other, theirs)| other != host && theirs == number)
            };
            let there = there.filter(is_free);
            if there.is_none() && is_awaited {
                continue;
            }
            match there.or_else(|| (0..cut.slices()).find(is_free)) {
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
        if before.as_ref() != Some(&record) {
            draft.put_subnet(record);
        }
        wanted.insert(name);
    }
    let gone = |name: &&SubnetName| !wanted.contains(*name) && in_use.keys().all(|(subnet, _)| subnet != *name);
    let gone: Vec<SubnetName> = state.subnets.keys().filter(gone).cloned().collect();
    gone.into_iter().for_each(|name| draft.remove(Change::SubnetRemoved(name)));
}

/// Which addresses tasks have, by subnet and host.
type InUse = BTreeMap<(SubnetName, HostName), BTreeSet<Ipv4Addr>>;

fn in_use<'t>(tasks: impl Iterator<Item = &'t Task>) -> InUse {
    let mut in_use = InUse::new();
    for task in tasks.filter(|task| task.last_status != LastStatus::Stopped) {
        if let Some(network) = &task.network {
            in_use.entry((network.subnet.clone(), task.host.clone())).or_default().insert(network.address);
        }
    }
    in_use
}

/// Slices of a subnet of which tasks have addresses, on hosts that are not known to have one.
fn addressed(in_use: &InUse, record: &SubnetRecord) -> BTreeSet<(HostName, u32)> {
    let of_others =
        in_use.iter().filter(|((subnet, host), _)| *subnet == record.name && !record.slices.contains_key(host));
    let number = |address: &Ipv4Addr| slice_number(record, *address);
    of_others
        .flat_map(|((_, host), addresses)| addresses.iter().filter_map(|it| Some((host.clone(), number(it)?))))
        .collect()
}

fn slice_number(record: &SubnetRecord, address: Ipv4Addr) -> Option<u32> {
    record.cut().number_of(Ipv4Net::new(address, record.host_prefix).ok()?.trunc())
}

/// Whose slice a task's address is in, if that is another host's by now: nobody finds it any more where it is. The database was
/// lost while its host was away, and the slice was given to the other.
pub fn lost_its_address_to<'s>(state: &'s State, task: &Task) -> Option<&'s HostName> {
    let network = task.network.as_ref()?;
    let record = state.subnets.get(&network.subnet)?;
    let number = slice_number(record, network.address)?;
    let holder = record.slices.iter().find(|(_, theirs)| **theirs == number);
    holder.map(|(host, _)| host).filter(|host| **host != task.host)
}

fn is_in_zone(desired: &Desired, spec: &SubnetSpec, host: &HostName) -> bool {
    desired.hosts.get(host).is_some_and(|manifest| {
        let zone = manifest.labels.get(ZONE_LABEL);
        manifest.spec.cluster == spec.cluster
            && spec.availability_zone.as_ref().is_none_or(|wanted| zone == Some(wanted))
    })
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

/// How the other containers of a task stand to the namespace that its sandbox holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Around {
    /// The rules of the host are all there is to be.
    Guarded,
    /// Rules must stand in it before anything joins it, and they do not.
    Open,
    /// They do, and its sandbox runs.
    Held,
}

/// Whether what joins a task's sandbox may start: on a LAN, once the rules in that very namespace are confirmed (S11).
pub(super) fn around(draft: &Draft<'_>, task: &Task) -> Around {
    let Some(network) = &task.network else { return Around::Guarded };
    if draft.subnet(&network.subnet).is_none_or(|record| record.lan.is_none()) {
        return Around::Guarded;
    }
    let seen = draft.world.networks.get(&task.host);
    match (picture::namespace(task), seen) {
        (Some(namespace), Some(seen)) if seen.holds(&task.id, network, &namespace) => Around::Held,
        (_, _) => Around::Open,
    }
}

/// Says that a task's other containers wait for the rules in its namespace.
pub(super) fn wait_for_namespace(draft: &mut Draft<'_>, no: TaskNo) {
    let task = draft.task(no);
    let address = task.network.as_ref().map(|network| network.address.to_string()).unwrap_or_default();
    let reason = format!("host {} has not confirmed the rules inside the network of the task, {address}", task.host);
    let subject = Subject::Task(task.id.clone());
    draft.waiting(subject, reason, "the host confirms them", None);
}

fn gives_up_at(task: &Task) -> Timestamp {
    task.created_at.plus_ms(GUARDED_WITHIN_MS)
}

/// Ends a wanted task that was not begun since its host has a problem with its network, when that lasts.
pub(super) fn give_up(draft: &mut Draft<'_>, no: TaskNo) {
    let task = draft.task(no);
    if task.network.is_none() || task.launch != Launch::NotIssued || gives_up_at(task) > draft.now() {
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

/// Whether a task may be told to stop: no host that can be asked answers with it any more (S10). One that did not
/// confirm anything, to this controller at least, may still answer with what it was told before.
pub(super) fn has_left_names(draft: &mut Draft<'_>, no: TaskNo) -> bool {
    let task = draft.task(no);
    let give_up_at = task.stopping_at.unwrap_or_default().plus_ms(LEAVE_NAMES_WITHIN_MS);
    if give_up_at <= draft.now() || task.started_at.is_none() || !may_be_named(draft, task) {
        return true;
    }
    // Answered with until this very decision, it may be in a picture that no host was told of yet.
    let is_news = task.stopping_at.is_some_and(|at| at >= draft.now());
    let may_answer = |host: &HostName| match draft.world.networks.get(host) {
        Some(seen) if seen.confirmed.is_some() => is_news || seen.names(&task.id),
        Some(_) | None if task.network.is_some() => !slices_of(draft, host).is_empty(),
        Some(_) | None => true,
    };
    let answers = |host: &&Host<'_>| host.heard && may_answer(host.name);
    let Some(host) = draft.hosts.iter().find(answers).map(|host| host.name.clone()) else { return true };
    let subject = Subject::Task(task.id.clone());
    let reason = match &task.network {
        Some(network) => format!("host {host} may still answer with its address {}", network.address),
        None => format!("host {host} may still answer with it"),
    };
    if is_news {
        draft.wake_at(draft.now().plus_ms(1));
    }
    draft.waiting(subject, reason, "its name stands for others only", Some(give_up_at));
    false
}

/// Whether there are names that could stand for a task.
fn may_be_named(draft: &Draft<'_>, task: &Task) -> bool {
    if task.network.is_some() {
        return true;
    }
    let spec = draft.revision(&task.revision).and_then(|revision| revision.spec.as_deref());
    let is_reached = spec.is_some_and(|spec| spec.network_mode != NetworkMode::None)
        && picture::address_of(&draft.world.state, &task.host).is_some();
    let is_asked = || task.uses_names || draft.answering().contains(&task.cluster);
    is_reached && !task.is_standalone() && is_asked()
}
