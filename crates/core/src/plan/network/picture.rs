//! What each host is to make of the task network, from what is durable alone: the same state gives the same picture.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use crate::model::{
    container::{ContainerState, HealthStatus},
    desired::Desired,
    name::{ClusterName, HostName, SecurityGroupName, SubnetName},
    network::{Bridge, FleetNetwork, GroupRules, HostNetwork, LocalTask, Names, Namespace, SANDBOX, Tunnel},
    spec::{
        SecurityGroupSpec, TaskDefinitionSpec,
        network::{self, DEFAULT_SECURITY_GROUP, Encapsulation, ServiceRegistry},
        security_group::Peer,
        task_definition::{NetworkMode, PortMapping, Protocol},
    },
    state::State,
    task::{DesiredStatus, LastStatus, Task},
    wireguard::Peer as TunnelPeer,
};
use crate::plan::{launch, traffic};

/// Whether there is a task network at all: a subnet is declared, or something wants or has an address.
pub fn has_network(state: &State) -> bool {
    wants_network(&state.desired) || state.tasks.values().any(|task| holds_address(task))
}

fn wants_network(desired: &Desired) -> bool {
    let wants = |definition: &TaskDefinitionSpec| definition.network_mode == NetworkMode::Awsvpc;
    !desired.subnets.is_empty() || desired.task_definitions.values().any(|manifest| wants(&manifest.spec))
}

/// The clusters whose hosts are to answer for names: they are to have a task network, or their manifests speak of names. A fleet
/// that never does needs nothing of ours on its hosts.
pub fn answering(desired: &Desired) -> BTreeSet<&ClusterName> {
    if wants_network(desired) {
        return of_hosts(desired).collect();
    }
    let services = desired.services.values().map(|manifest| &manifest.spec);
    let registers = services.filter(|service| !service.service_registries.is_empty());
    let registers: BTreeSet<&ClusterName> = registers.map(|service| &service.cluster).collect();
    let is_named = |cluster: &ClusterName| desired.cluster(cluster).service_discovery.namespace.is_some();
    of_hosts(desired).filter(|cluster| registers.contains(cluster) || is_named(cluster)).collect()
}

fn of_hosts(desired: &Desired) -> impl Iterator<Item = &ClusterName> {
    desired.hosts.values().map(|host| &host.spec.cluster)
}

/// The clusters whose hosts have a part: there is a task network, they answer for names, or tasks of before still ask them.
fn clusters(state: &State, has_addresses: bool) -> BTreeSet<&ClusterName> {
    if has_addresses {
        return of_hosts(&state.desired).collect();
    }
    let asking = state.tasks.values().filter(|task| task.uses_names && is_there(task));
    let asking: BTreeSet<&ClusterName> = asking.map(|task| &task.cluster).collect();
    let mut clusters = answering(&state.desired);
    clusters.extend(of_hosts(&state.desired).filter(|cluster| asking.contains(cluster)));
    clusters
}

/// Whether any host of a cluster has a part.
pub fn has_part(state: &State, cluster: &ClusterName) -> bool {
    clusters(state, has_network(state)).contains(cluster)
}

/// Whether any host has one.
pub fn has_parts(state: &State) -> bool {
    !clusters(state, has_network(state)).is_empty()
}

/// Each declared host's part: of clusters with a task network, or with names.
pub fn pictures(state: &State) -> BTreeMap<HostName, Arc<HostNetwork>> {
    let has_addresses = has_network(state);
    clusters(state, has_addresses).into_iter().flat_map(|cluster| of_cluster(state, cluster, has_addresses)).collect()
}

fn of_cluster(state: &State, cluster: &ClusterName, has_addresses: bool) -> BTreeMap<HostName, Arc<HostNetwork>> {
    let desired = &state.desired;
    let spec = desired.cluster(cluster);
    // Slices stay their hosts' when nobody has an address any more.
    let subnets = if has_addresses { super::subnets_in(desired, cluster) } else { BTreeMap::new() };
    let bridges: BTreeMap<&HostName, Vec<Bridge>> = desired
        .hosts
        .iter()
        .filter(|(_, manifest)| manifest.spec.cluster == *cluster)
        .map(|(host, _)| {
            let bridge = |name: &SubnetName| {
                let record = state.subnets.get(name)?;
                // What leaves for a LAN is not encrypted, and who shares none with the others has no part in it.
                let is_apart = spec.network.encapsulation == Encapsulation::Wireguard && record.lan.is_some();
                let slice = record.slice_of(host).filter(|_| !is_apart)?;
                Some(Bridge { subnet: name.clone(), slice, lan: record.lan.clone() })
            };
            (host, subnets.keys().filter_map(bridge).collect())
        })
        .collect();
    let holders: Vec<&Task> =
        state.tasks.values().map(Arc::as_ref).filter(|task| task.cluster == *cluster && holds_address(task)).collect();
    let fleet = Arc::new(fleet(state, cluster, &holders));
    let mut hosts = BTreeMap::new();
    for (host, own) in &bridges {
        let others = || bridges.iter().filter(|(other, _)| *other != host).map(|(other, bridges)| (*other, bridges));
        let (routes, tunnel) = match spec.network.encapsulation {
            // Also for who has no slice itself: its load balancers send requests to tasks of others.
            Encapsulation::None => {
                let routes = others().filter_map(|(other, bridges)| Some((address_of(state, other)?, bridges)));
                let routes = routes.flat_map(|(via, bridges)| {
                    bridges.iter().filter(|bridge| bridge.lan.is_none()).map(move |bridge| (bridge.slice, via))
                });
                (routes.collect(), None)
            }
            Encapsulation::Wireguard if own.is_empty() => (BTreeMap::new(), None),
            Encapsulation::Wireguard => (BTreeMap::new(), tunnel(state, host, others())),
        };
        let tasks = holders.iter().filter(|task| task.host == **host).filter_map(|task| {
            let network = task.network.as_ref()?;
            let security_groups = groups_of(state, task).into_iter().collect();
            let on_lan = own.iter().any(|bridge| bridge.subnet == network.subnet && bridge.lan.is_some());
            let namespace = if on_lan { namespace(task) } else { None };
            let local = LocalTask { task: task.id.clone(), security_groups, checked: checked(state, task), namespace };
            Some((network.address, local))
        });
        let on_lan = others().flat_map(|(_, bridges)| bridges).filter(|bridge| bridge.lan.is_some());
        let picture = HostNetwork {
            node_image: spec.network.node_image().to_owned(),
            bridges: own.clone(),
            routes,
            tunnel,
            on_lan: on_lan.map(|bridge| bridge.slice).collect(),
            tasks: tasks.collect(),
            fleet: Arc::clone(&fleet),
        };
        hosts.insert((*host).clone(), Arc::new(picture));
    }
    hosts
}

/// A host's end of the encrypted way to the others.
fn tunnel<'a>(
    state: &State,
    host: &HostName,
    others: impl Iterator<Item = (&'a HostName, &'a Vec<Bridge>)>,
) -> Option<Tunnel> {
    let peer = |(other, bridges): (&HostName, &Vec<Bridge>)| {
        let peer = TunnelPeer {
            public_key: state.hosts.get(other).and_then(|record| record.public_key.clone()),
            endpoint: state.desired.hosts.get(other)?.spec.endpoint(),
            slices: bridges.iter().map(|bridge| bridge.slice).collect(),
        };
        (!peer.slices.is_empty()).then(|| (other.clone(), peer))
    };
    let listen_port = state.desired.hosts.get(host)?.spec.wireguard.listen_port();
    Some(Tunnel { listen_port, peers: others.filter_map(peer).collect() })
}

/// The network namespace that a task's sandbox was seen to hold.
pub fn namespace(task: &Task) -> Option<Namespace> {
    let row = task.containers.get(SANDBOX).filter(|row| row.state == Some(ContainerState::Running))?;
    Some(Namespace { container: row.runtime_id.clone()?, started_at: row.started_at? })
}

/// Whether a task has its address still, or may have it.
pub fn holds_address(task: &Task) -> bool {
    task.network.is_some() && is_there(task)
}

/// Whether a task is there, or may be.
fn is_there(task: &Task) -> bool {
    task.last_status != LastStatus::Stopped
}

/// Where other hosts reach this one.
pub fn address_of(state: &State, host: &HostName) -> Option<Ipv4Addr> {
    state.desired.hosts.get(host)?.spec.route_address()
}

/// The groups of a task: its service's now; of one without a service those that it was started in.
pub fn groups_of(state: &State, task: &Task) -> Vec<SecurityGroupName> {
    match state.desired.services.get(&task.service) {
        Some(service) => network::security_groups(service.spec.network_configuration.as_ref()),
        None => task.network.iter().flat_map(|network| network.security_groups.clone()).collect(),
    }
}

/// The ports that its checks from the host are made on.
fn checked(state: &State, task: &Task) -> BTreeSet<(Protocol, u16)> {
    let spec = state.revision(&task.revision).and_then(|revision| revision.spec.as_deref());
    let containers = spec.into_iter().flat_map(|spec| {
        spec.container_definitions.iter().filter_map(|container| launch::probed(spec, &container.name))
    });
    containers.filter_map(|check| Some((Protocol::Tcp, check.probe()?.port()))).collect()
}

fn fleet(state: &State, cluster: &ClusterName, holders: &[&Task]) -> FleetNetwork {
    let desired = &state.desired;
    let spec = desired.cluster(cluster);
    let mut members: BTreeMap<SecurityGroupName, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for task in holders {
        for group in groups_of(state, task) {
            members.entry(group).or_default().extend(task.network.iter().map(|network| network.address));
        }
    }
    let mut balancers = BTreeSet::new();
    for (spec, addresses) in traffic::addresses(state, cluster) {
        for group in &spec.security_groups {
            members.entry(group.clone()).or_default().extend(&addresses);
        }
        let ports = spec.listeners.iter().map(|listener| listener.port);
        balancers.extend(ports.flat_map(|port| addresses.iter().map(move |address| (*address, port))));
    }
    let groups: BTreeMap<SecurityGroupName, GroupRules> =
        members.keys().map(|name| (name.clone(), rules_of(state, name))).collect();
    let named = groups.values().flat_map(|rules| rules.ingress.iter().chain(&rules.egress));
    let named = named.flat_map(|permission| &permission.peers).filter_map(|peer| match peer {
        Peer::SecurityGroup(name) => Some(name.clone()),
        Peer::Cidr(_) => None,
    });
    for name in named.collect::<Vec<_>>() {
        members.entry(name).or_default();
    }
    let in_cluster = desired.hosts.iter().filter(|(_, manifest)| manifest.spec.cluster == *cluster);
    FleetNetwork {
        cluster: cluster.clone(),
        cidr: spec.network.cidr,
        hosts: in_cluster.flat_map(|(_, manifest)| manifest.spec.addresses()).collect(),
        groups,
        members,
        balancers,
        names: names(state, cluster),
    }
}

/// What a group lets pass.
pub fn rules_of(state: &State, name: &SecurityGroupName) -> GroupRules {
    let spec = match state.desired.security_groups.get(name) {
        Some(manifest) => manifest.spec.clone(),
        None if name.as_str() == DEFAULT_SECURITY_GROUP => SecurityGroupSpec::of_default_group(),
        // Its manifest is gone: nobody is let in, nor out.
        None => SecurityGroupSpec { egress: Some(Vec::new()), ..SecurityGroupSpec::default() },
    };
    GroupRules { ingress: spec.ingress(), egress: spec.egress() }
}

/// The names of a cluster's services: every one's own, and those that it registers.
fn names(state: &State, cluster: &ClusterName) -> Names {
    let namespace = state.desired.cluster(cluster).service_discovery.namespace(cluster);
    let mut names = Names { namespace: namespace.clone(), ..Names::default() };
    for (service, manifest) in state.desired.services.iter().filter(|(_, it)| it.spec.cluster == *cluster) {
        let registries = &manifest.spec.service_registries;
        let own: Vec<(&str, Option<&ServiceRegistry>)> = match registries.as_slice() {
            [] => vec![(service.as_str(), None)],
            some => some.iter().map(|it| (it.name().unwrap_or(service.as_str()), Some(it))).collect(),
        };
        for (name, _) in &own {
            // A name without healthy tasks is known, and has no address.
            names.addresses.entry(format!("{name}.{namespace}")).or_default();
        }
        let tasks = state.tasks.values().filter(|task| task.service == *service && is_answered(task));
        for task in tasks {
            add(state, &mut names, task, &own);
        }
    }
    names
}

fn add(state: &State, names: &mut Names, task: &Task, own: &[(&str, Option<&ServiceRegistry>)]) {
    let spec = state.revision(&task.revision).and_then(|revision| revision.spec.as_deref());
    let address = match &task.network {
        Some(network) => Some(network.address),
        None => address_of(state, &task.host),
    };
    let (Some(address), Some(spec)) = (address, spec) else { return };
    if spec.network_mode == NetworkMode::None {
        return;
    }
    for (name, registry) in own {
        let whole = format!("{name}.{}", names.namespace);
        let of_task = format!("{}.{whole}", task.id);
        names.addresses.entry(whole.clone()).or_default().insert(address);
        names.addresses.entry(of_task.clone()).or_default().insert(address);
        for (container, container_port, protocol, port) in ports(task, spec) {
            let is_meant = registry.is_none_or(|registry| {
                registry.container_name.as_ref().is_none_or(|name| *name == container)
                    && registry.container_port.or(registry.port).is_none_or(|port| port == container_port)
            });
            if is_meant {
                let word = match protocol {
                    Protocol::Tcp => "tcp",
                    Protocol::Udp => "udp",
                };
                let said = [Some(container_port.to_string()), port_name(spec, container, container_port, protocol)];
                for said in said.into_iter().flatten() {
                    let service = format!("_{said}._{word}.{whole}");
                    names.services.entry(service).or_default().insert((of_task.clone(), port));
                }
            }
        }
    }
}

/// What a port mapping is called, when a name server can be asked for it (RFC 1035, 2.3.4: with the underscore 63 letters).
fn port_name(spec: &TaskDefinitionSpec, container: &str, port: u16, protocol: Protocol) -> Option<String> {
    let definition = spec.container_definitions.iter().find(|definition| definition.name == container)?;
    let is_it = |it: &&PortMapping| it.container_port == port && it.protocol == protocol;
    let name = definition.port_mappings.iter().find(is_it)?.name.as_ref()?;
    let is_label =
        name.len() <= 62 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    (is_label && !name.is_empty()).then(|| name.clone())
}

/// The ports of a task: by container, inside, and where they are reached.
pub fn ports<'a>(task: &'a Task, spec: &'a TaskDefinitionSpec) -> Vec<(&'a str, u16, Protocol, u16)> {
    match spec.network_mode {
        NetworkMode::Awsvpc | NetworkMode::Host => spec
            .container_definitions
            .iter()
            .flat_map(|definition| definition.port_mappings.iter().map(|mapping| (definition.name.as_str(), mapping)))
            .map(|(name, mapping)| (name, mapping.container_port, mapping.protocol, mapping.container_port))
            .collect(),
        NetworkMode::Bridge => {
            let rows =
                task.containers.iter().flat_map(|(name, row)| row.ports.iter().map(|port| (name.as_str(), port)));
            rows.map(|(name, port)| (name, port.container_port, port.protocol, port.host_port)).collect()
        }
        NetworkMode::None => Vec::new(),
    }
}

/// Whether names stand for a task: it runs, is wanted, and no check says otherwise.
fn is_answered(task: &Task) -> bool {
    let is_well = task.containers.values().all(|row| {
        !(row.essential && row.has_health_check)
            || row.health == HealthStatus::Healthy && row.state == Some(ContainerState::Running)
    });
    task.desired_status == DesiredStatus::Running && task.last_status == LastStatus::Running && is_well
}
