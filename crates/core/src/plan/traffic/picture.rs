//! What each edge's load balancers are to show, from what is durable alone: the same state gives the same picture.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use crate::model::{
    container::HealthStatus,
    desired::{Desired, Manifest},
    name::{ClusterName, HostName, LoadBalancerName, TargetGroupName},
    network::gateway,
    spec::{
        LoadBalancerSpec, ServiceSpec,
        load_balancer::{ServiceLoadBalancer, WeightedGroup},
    },
    state::State,
    task::{DesiredStatus, LastStatus, Task},
    traffic::{Edge, Group, RuleRef, Shift, Side, Target},
};
use crate::plan::{acme, certificates, network};

/// Whether there are load balancers at all.
pub fn has_balancers(state: &State) -> bool {
    !state.desired.load_balancers.is_empty()
}

/// The cluster that a load balancer serves.
pub fn cluster_of(desired: &Desired, spec: &LoadBalancerSpec) -> ClusterName {
    spec.cluster.clone().unwrap_or_else(|| desired.home_cluster())
}

/// The hosts that a load balancer runs on.
pub fn hosts_of<'a>(desired: &'a Desired, spec: &'a LoadBalancerSpec) -> impl Iterator<Item = &'a HostName> {
    let cluster = cluster_of(desired, spec);
    let is_meant = move |labels: &BTreeMap<String, String>| {
        spec.hosts.iter().all(|(label, value)| labels.get(label) == Some(value))
    };
    let hosts = desired.hosts.iter().filter(move |(_, host)| host.spec.cluster == cluster && is_meant(&host.labels));
    hosts.map(|(name, _)| name)
}

/// The load balancers of a cluster, each with the addresses that its requests come from and that it answers on: its hosts', and
/// theirs in the task network.
pub fn addresses<'a>(
    state: &'a State,
    cluster: &ClusterName,
) -> impl Iterator<Item = (&'a LoadBalancerSpec, BTreeSet<Ipv4Addr>)> {
    let balancers = state.desired.load_balancers.values().map(|manifest| &manifest.spec);
    let here = balancers.filter(move |spec| cluster_of(&state.desired, spec) == *cluster);
    here.map(|spec| {
        let of_host = |host| {
            let slices = state.subnets.values().filter_map(move |subnet| subnet.slice_of(host));
            network::address_of(state, host).into_iter().chain(slices.map(gateway))
        };
        (spec, hosts_of(&state.desired, spec).flat_map(of_host).collect())
    })
}

/// Each edge's part.
pub fn edges(state: &State) -> BTreeMap<HostName, Arc<Edge>> {
    let desired = &state.desired;
    if !has_balancers(state) {
        return BTreeMap::new();
    }
    let mut placed: BTreeMap<&HostName, Vec<(&LoadBalancerName, &Manifest<LoadBalancerSpec>)>> = BTreeMap::new();
    for (name, manifest) in &desired.load_balancers {
        for host in hosts_of(desired, &manifest.spec) {
            placed.entry(host).or_default().push((name, manifest));
        }
    }
    let forwards = forwards(state);
    let groups = groups(state);
    // Most edges show the same: made once.
    let mut made: BTreeMap<Vec<&LoadBalancerName>, Arc<Edge>> = BTreeMap::new();
    placed
        .into_iter()
        .map(|(host, balancers)| {
            let key = balancers.iter().map(|(name, _)| *name).collect();
            let edge = made.entry(key).or_insert_with(|| Arc::new(of_host(state, &balancers, &forwards, &groups)));
            (host.clone(), Arc::clone(edge))
        })
        .collect()
}

fn of_host(
    state: &State,
    balancers: &[(&LoadBalancerName, &Manifest<LoadBalancerSpec>)],
    forwards: &BTreeMap<RuleRef, Vec<WeightedGroup>>,
    groups: &BTreeMap<TargetGroupName, Group>,
) -> Edge {
    let desired = &state.desired;
    let cluster = balancers.first().map(|(_, manifest)| cluster_of(desired, &manifest.spec));
    let mut edge = Edge {
        node_image: desired.cluster(&cluster.unwrap_or_default()).network.node_image().to_owned(),
        certificates: certificates::shown(state, balancers.iter().map(|(_, manifest)| &manifest.spec)),
        challenges: acme::challenges(state, balancers.iter().map(|(_, manifest)| &manifest.spec)),
        ..Edge::default()
    };
    for (name, manifest) in balancers {
        for (listener, rule, _) in manifest.spec.forwards() {
            let rule = RuleRef::new(name, &listener.name, rule.map(|rule| rule.name.as_str()));
            let Some(shares) = forwards.get(&rule) else { continue };
            for share in shares {
                let group = groups.get(&share.target_group);
                edge.groups.extend(group.map(|group| (share.target_group.clone(), group.clone())));
            }
            edge.forwards.insert(rule, shares.clone());
        }
        edge.balancers.insert((*name).clone(), manifest.spec.clone());
    }
    edge
}

/// Where every forwarding rule sends requests just now.
pub fn forwards(state: &State) -> BTreeMap<RuleRef, Vec<WeightedGroup>> {
    let mut forwards = BTreeMap::new();
    for (name, manifest) in &state.desired.load_balancers {
        for (listener, rule, groups) in manifest.spec.forwards() {
            forwards.insert(RuleRef::new(name, &listener.name, rule.map(|rule| rule.name.as_str())), groups.to_vec());
        }
    }
    // What deployments say of the rules that are theirs.
    for (name, manifest) in &state.desired.services {
        let shift = state.services.get(name).and_then(|record| record.shift).unwrap_or_default();
        for own in &manifest.spec.load_balancers {
            let Rules { production, test } = shares(own, shift);
            for (rule, shares) in [production, test].into_iter().flatten() {
                forwards.entry(rule).and_modify(|groups| *groups = shares);
            }
        }
    }
    forwards
}

/// Where the rules of a service's entry send requests.
pub(super) struct Rules {
    pub(super) production: Option<(RuleRef, Vec<WeightedGroup>)>,
    pub(super) test: Option<(RuleRef, Vec<WeightedGroup>)>,
}

/// Of an entry whose two groups take turns.
pub(super) fn shares(own: &ServiceLoadBalancer, shift: Shift) -> Rules {
    let of = |rule: Option<&String>, share: &dyn Fn(Side) -> u32| {
        let green = own.alternate_target_group.as_ref()?;
        let of = |group: &TargetGroupName, side| WeightedGroup { target_group: group.clone(), weight: share(side) };
        Some((RuleRef::named(rule?), vec![of(&own.target_group, Side::Blue), of(green, Side::Green)]))
    };
    Rules {
        production: of(own.production_listener_rule.as_ref(), &|side| shift.share(side)),
        test: of(own.test_listener_rule.as_ref(), &|side| u32::from(shift.tests(side))),
    }
}

/// Every target group with its targets.
fn groups(state: &State) -> BTreeMap<TargetGroupName, Group> {
    let declared = state.desired.target_groups.iter();
    let mut groups: BTreeMap<TargetGroupName, Group> = declared
        .map(|(name, manifest)| (name.clone(), Group { spec: manifest.spec.clone(), targets: BTreeMap::new() }))
        .collect();
    let services: BTreeSet<_> = state
        .desired
        .services
        .iter()
        .filter(|(_, it)| !it.spec.load_balancers.is_empty())
        .map(|(name, _)| name)
        .collect();
    for task in state.tasks.values().filter(|task| services.contains(&task.service)) {
        for (group, target) in targets(state, task) {
            groups.entry(group).and_modify(|group| {
                group.targets.insert(task.id.clone(), target);
            });
        }
    }
    groups
}

/// The group of a service's two that a task is in.
pub fn group_of(own: &ServiceLoadBalancer, side: Side) -> &TargetGroupName {
    match (side, &own.alternate_target_group) {
        (Side::Green, Some(green)) => green,
        (Side::Green, None) | (Side::Blue, _) => &own.target_group,
    }
}

/// The target groups that a task is in by its service's manifest.
pub fn groups_of<'a>(
    state: &'a State,
    task: &'a Task,
) -> impl Iterator<Item = (&'a ServiceLoadBalancer, &'a TargetGroupName)> {
    let own = state.desired.services.get(&task.service).map(|manifest| &manifest.spec.load_balancers);
    own.into_iter().flatten().map(|own| (own, group_of(own, task.side)))
}

/// What a task is a target of: from when it runs until its containers ended.
pub fn targets(state: &State, task: &Task) -> Vec<(TargetGroupName, Target)> {
    if !is_registered(task) {
        return Vec::new();
    }
    let leaves = task.desired_status == DesiredStatus::Stopped;
    let target = |(own, group): (&ServiceLoadBalancer, &TargetGroupName)| {
        let (address, port) = place(state, task, own)?;
        Some((group.clone(), Target { address, port, leaves }))
    };
    groups_of(state, task).filter_map(target).collect()
}

/// Whether load balancers know of a task: it runs, and its own checks have come to a verdict; or it leaves.
pub fn is_registered(task: &Task) -> bool {
    let knows_itself = || {
        let checked = task.containers.values().filter(|row| row.essential && row.has_health_check);
        checked.into_iter().all(|row| row.health != HealthStatus::Unknown)
    };
    match task.desired_status {
        DesiredStatus::Running => task.last_status == LastStatus::Running && knows_itself(),
        DesiredStatus::Stopped => task.started_at.is_some() && task.last_status < LastStatus::Deprovisioning,
    }
}

/// Where a task is reached as a target.
fn place(state: &State, task: &Task, own: &ServiceLoadBalancer) -> Option<(Ipv4Addr, u16)> {
    let revision = state.revision(&task.revision)?;
    let spec = revision.spec.as_deref()?;
    let (container, port) = own.answering(spec)?;
    let address = match &task.network {
        Some(network) => network.address,
        None => network::address_of(state, &task.host)?,
    };
    let ports = network::ports(task, spec);
    let (_, _, _, port) = ports.into_iter().find(|(name, inside, _, _)| *name == container && *inside == port)?;
    Some((address, port))
}

/// Whether a load balancer decides on the health of a service's tasks.
pub fn is_behind(spec: &ServiceSpec) -> bool {
    !spec.load_balancers.is_empty()
}
