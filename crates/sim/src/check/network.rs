//! The task network: addresses that one task has, rules before starts, names that stand for none that stops.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use super::{Broken, Checks, Predicate, broken, traffic};
use crate::fleet::{FakeHost, Ground};
use roadstead_core::{
    model::{
        container::ContainerState,
        name::{HostName, RuntimeId, ServiceName, SubnetName},
        network::{LocalTask, NetworkSeen, SANDBOX, SubnetRecord},
        ownership::Claim,
        spec::{
            TaskDefinitionSpec, network::default_subnet, service::SchedulingStrategy, subnet::SubnetDriver,
            task_definition::NetworkMode,
        },
        state::State,
        task::{DesiredStatus, LastStatus, Launch, Task},
        time::Timestamp,
        volume::stays_on_host,
        world::World,
    },
    plan::{
        host_status,
        network::{has_parts, pictures},
        takes_orders,
    },
};

/// For so long the planner waits for hosts to forget a name.
const LEAVE_NAMES_WITHIN_MS: u64 = 5_000;

impl Checks {
    /// Which hosts' parts the controller relies on, and when it first saw a host with this database.
    pub(super) fn note_network(&mut self, world: &World) {
        self.told = world.networks.clone();
        // A host that does not answer just now is not waited for.
        let is_silent = |host: &HostName| !takes_orders(world, host, host_status(world, host));
        if self.told.keys().any(is_silent) {
            self.told.retain(|host, _| !is_silent(host));
        }
        if self.database_lost {
            for (host, contact) in world.contacts.iter().filter(|(_, contact)| contact.looked_at.is_some()) {
                if contact.looked_at.is_some_and(|at| at > self.database_lost_at) {
                    self.known_since.entry(host.clone()).or_insert(world.now);
                }
            }
        }
    }

    /// Whether what runs on a host was not known yet when a task was decided.
    fn is_ghost(&self, host: &HostName, task: &Task) -> bool {
        self.database_lost && self.known_since.get(host).is_none_or(|since| *since >= task.created_at)
    }
}

/// A container with an address of its own started, whoever wanted it: nobody else has the address anywhere, and what its
/// host lets pass is about this task.
pub(crate) fn started(
    checks: &Checks,
    durable: &State,
    hosts: &BTreeMap<HostName, FakeHost>,
    name: &HostName,
    id: &RuntimeId,
) -> Result<(), Broken> {
    let Some(host) = hosts.get(name) else { return Ok(()) };
    joined_what_is_held(durable, host, name, id)?;
    let (Some(address), Some(claim)) = (host.machine.own_address(id), host.ours.get(id)) else { return Ok(()) };
    // A request that comes late starts what was given up.
    let Some(row) = durable.tasks.get(&claim.task).filter(|row| row.is_wanted() && row.host == *name) else {
        return Ok(());
    };
    for (other_name, other) in hosts {
        let has_it = |(other_id, claim, state, _): &(&RuntimeId, &Claim, ContainerState, _)| {
            (other_name, *other_id) != (name, id)
                && state.is_live()
                && other.machine.own_address(other_id) == Some(address)
                && claim.task != row.id
        };
        if let Some((_, twin, _, _)) = other.containers().find(has_it)
            && !checks.is_ghost(other_name, row)
            && durable.tasks.get(&twin.task).is_some_and(|twin| twin.last_status < LastStatus::Stopped)
        {
            let words = format!("{} on {name} and {} on {other_name} have", claim.created_name, twin.created_name);
            return broken(Predicate::S4, format!("{words} the address {address}"));
        }
    }
    let part = &host.machine.part;
    let guarded = part.rules.as_ref().and_then(|rules| rules.tasks.get(&address));
    if !part.struck && guarded.is_none_or(|guarded| guarded.task != row.id) {
        let words = guarded.map_or_else(|| "for nobody".to_owned(), |guarded| format!("for task {}", guarded.task));
        let detail = format!("{} starts on {name}, whose rules have {address} {words}", claim.created_name);
        return broken(Predicate::S11, detail);
    }
    Ok(())
}

/// What joins a task's namespace on a LAN finds rules in it, unless that began anew while the order was on its way: then it is shut.
fn joined_what_is_held(durable: &State, host: &FakeHost, name: &HostName, id: &RuntimeId) -> Result<(), Broken> {
    let (Some(sandbox), Some(claim)) = (host.machine.joined_open(id), host.ours.get(id)) else { return Ok(()) };
    let Some(row) = durable.tasks.get(&claim.task).filter(|row| row.is_wanted() && row.host == *name) else {
        return Ok(());
    };
    let seen = row.containers.get(SANDBOX).and_then(|row| row.started_at);
    let began = host.machine.times(sandbox).0;
    let ordered_before = match row.launch {
        Launch::Issued { at } => began > Some(at) && host.machine.was_held(sandbox),
        Launch::NotIssued | Launch::Answered { .. } => false,
    };
    let began_anew = (seen.is_some() && seen != began) || ordered_before;
    if host.machine.part.struck || began_anew {
        return Ok(());
    }
    let detail = format!("{} starts on {name} in a network on a LAN in which no rules are", claim.created_name);
    broken(Predicate::S11, detail)
}

/// No two hosts have networks that overlap, but for one that was not seen since the database was lost.
pub(super) fn s4_slices(
    checks: &Checks,
    durable: &State,
    hosts: &BTreeMap<HostName, FakeHost>,
    name: &HostName,
) -> Result<(), Broken> {
    let Some(host) = hosts.get(name) else { return Ok(()) };
    for (network, slice) in &host.machine.part.networks {
        for (other_name, other) in hosts.iter().filter(|(other, _)| *other != name) {
            let overlaps =
                |other: &ipnet::Ipv4Net| slice.contains(&other.network()) || other.contains(&slice.network());
            let is_told = |host: &HostName| {
                let slices = durable.subnets.values().filter(|record| record.slices.contains_key(host));
                slices.count() > 0 && !checks.database_lost
            };
            if let Some(theirs) = other.machine.part.networks.values().find(|theirs| overlaps(theirs))
                && is_told(other_name)
            {
                let words = format!("{network} of {name} is {slice}, and {other_name} has {theirs}");
                return broken(Predicate::S4, words);
            }
        }
    }
    Ok(())
}

/// Slices in one commit: of a subnet each host has its own.
pub(super) fn s4_slices_of(state: &State) -> Result<(), Broken> {
    for record in state.subnets.values() {
        let mut numbers = BTreeSet::new();
        if let Some((host, number)) = record.slices.iter().find(|(_, number)| !numbers.insert(**number)) {
            return broken(Predicate::S4, format!("slice {number} of {} is {host}'s and another's", record.name));
        }
    }
    Ok(())
}

/// A task that is decided gets an address that no other holds, seen or not.
pub(super) fn s4_address(durable: &State, task: &Task) -> Result<(), Broken> {
    let Some(network) = task.network.as_ref().filter(|_| task.launch == Launch::NotIssued) else { return Ok(()) };
    let holds = |other: &&Arc<Task>| {
        other.last_status != LastStatus::Stopped
            && other.network.as_ref().is_some_and(|other| other.address == network.address)
    };
    match durable.tasks.values().find(holds) {
        Some(other) => {
            let words = format!("task {} is given {}, which task {} holds", task.id, network.address, other.id);
            broken(Predicate::S4, words)
        }
        None => Ok(()),
    }
}

/// A task is told to stop when no host answers with it that confirmed that it does, or after the longest wait.
pub(super) fn s10_left_names(
    checks: &Checks,
    durable: &State,
    hosts: &BTreeMap<HostName, FakeHost>,
    claim: &Claim,
    now: Timestamp,
) -> Result<(), Broken> {
    let Some(row) = durable.tasks.get(&claim.task).filter(|row| row.desired_status == DesiredStatus::Stopped) else {
        return Ok(());
    };
    let Some(since) = row.stopping_at else { return Ok(()) };
    if now.since_ms(since) >= LEAVE_NAMES_WITHIN_MS {
        return Ok(());
    }
    // The task's other containers go with the one that was stopped when nobody was to be asked.
    let is_it = |other: &Claim| other.task == claim.task && other.essential && other.container != claim.container;
    let mut serving = hosts.get(&row.host).into_iter().flat_map(FakeHost::containers);
    if !serving.any(|(_, other, state, _)| is_it(other) && state.is_live()) {
        return Ok(());
    }
    let answers =
        |host: &FakeHost| host.machine.part.names().is_some_and(|part| part.fleet.names.stand_for(&claim.task));
    // What was under way to a host that could not be asked then was waited for by nobody.
    let names = |seen: &NetworkSeen| NetworkSeen { under_way: None, ..seen.clone() }.names(&claim.task);
    let is_told = |name: &HostName| checks.told.get(name).is_some_and(names);
    match hosts.iter().find(|(name, host)| host.is_well() && is_told(name) && answers(host)) {
        Some((name, _)) => {
            let words = format!("{} is stopped, and {name} answers with it", claim.created_name);
            broken(Predicate::S10, words)
        }
        None => Ok(()),
    }
}

/// What hosts have is what they should, no more and no less: nothing of tasks or subnets that are gone; and nothing runs in a
/// network that is gone.
pub(super) fn l6_as_it_should_be(
    ground: &Ground,
    reachable: &BTreeSet<&HostName>,
    held: &traffic::Held<'_>,
) -> Result<(), Broken> {
    let mut wanted = None;
    for (name, host) in ground.hosts.iter().filter(|(name, _)| reachable.contains(name)) {
        let part = &host.machine.part;
        let is_held = |claim: &Claim| ground.durable.tasks.get(&claim.task).is_some_and(|task| held.has(task));
        let mut lost = host.containers().filter(|(id, _, _, _)| host.machine.has_lost_its_network(id));
        if let Some((_, claim, _, _)) = lost.find(|(_, claim, _, _)| !is_held(claim)) {
            return broken(Predicate::L1, format!("{} on {name} runs without a network", claim.created_name));
        }
        if part.is_clear() && wanted.is_none() && !has_parts(&ground.durable) {
            continue;
        }
        let wanted = wanted.get_or_insert_with(|| pictures(&ground.durable));
        let Some(picture) = wanted.get(name) else {
            // With the database went what told of it.
            if part.is_clear() || ground.checks.database_lost {
                continue;
            }
            return broken(Predicate::L6, format!("{name} has a part of a task network that is gone"));
        };
        l6_nothing_of_the_dead(&ground.durable, name, host)?;
        let slices = picture.bridges.iter().map(|bridge| (bridge.network(), bridge.slice)).collect();
        if part.networks != slices {
            return broken(Predicate::L6, format!("{name} has networks {:?}, and should {slices:?}", part.networks));
        }
        if part.rules.as_ref() != Some(picture) {
            return broken(Predicate::L6, format!("{name} has other rules than it should"));
        }
        let peers = picture.tunnel.iter().flat_map(|tunnel| &tunnel.peers);
        for (other, peer) in peers.filter(|(other, _)| reachable.contains(other)) {
            let key = ground.hosts.get(other).and_then(|other| other.machine.part.public_key());
            if peer.public_key.as_ref() != key {
                return broken(Predicate::L6, format!("{name} knows {other} by a key that it does not have"));
            }
        }
        if part.names() != Some(picture) {
            return broken(Predicate::L6, format!("{name} answers for other names than it should"));
        }
    }
    Ok(())
}

/// What a host guards, lets in and answers with is of tasks that are there; its networks are of subnets that are.
fn l6_nothing_of_the_dead(durable: &State, name: &HostName, host: &FakeHost) -> Result<(), Broken> {
    let live = durable.tasks.values().filter(|task| task.last_status != LastStatus::Stopped);
    let holders: BTreeMap<Ipv4Addr, &Arc<Task>> =
        live.filter_map(|task| Some((task.network.as_ref()?.address, task))).collect();
    let part = &host.machine.part;
    if let Some(rules) = &part.rules {
        let is_theirs = |(address, guarded): &(&Ipv4Addr, &LocalTask)| {
            holders.get(*address).is_some_and(|task| task.id == guarded.task && task.host == *name)
        };
        if let Some((address, guarded)) = rules.tasks.iter().find(|guarded| !is_theirs(guarded)) {
            let words = format!("{name} guards {address} for task {}, which is gone", guarded.task);
            return broken(Predicate::L6, words);
        }
        let mut named = rules.fleet.members.values().chain(rules.fleet.names.addresses.values()).flatten();
        // Names of tasks without an address of their own stand for hosts, and load balancers are there, too.
        let hosts: BTreeSet<Ipv4Addr> =
            durable.desired.hosts.values().filter_map(|manifest| manifest.spec.route_address()).collect();
        if let Some(address) = named.find(|address| !holders.contains_key(*address) && !hosts.contains(address)) {
            return broken(Predicate::L6, format!("{name} knows {address}, which nobody has"));
        }
    }
    let declared = &durable.desired.subnets;
    let no_bridge = declared.values().all(|it| it.spec.driver != SubnetDriver::Bridge);
    let is_there = |subnet: &SubnetName| {
        declared.contains_key(subnet)
            || (no_bridge && *subnet == default_subnet(&"default".into()))
            || holders.values().any(|task| task.network.as_ref().is_some_and(|network| network.subnet == *subnet))
    };
    match host.machine.slices().keys().find(|subnet| !is_there(subnet)) {
        Some(subnet) => broken(Predicate::L6, format!("{name} has a network of subnet {subnet}, which is gone")),
        None => Ok(()),
    }
}

/// Whether a service's tasks may wait for addresses: there are not enough for it and all others twice, or for a daemon on
/// each host.
pub(super) fn waits_for_address(state: &State, service: &ServiceName, reachable: &BTreeSet<&HostName>) -> bool {
    let definition = |service: &ServiceName| -> Option<&TaskDefinitionSpec> {
        let definition = state.desired.task_definitions.get(service.as_str())?;
        Some(&definition.spec)
    };
    let has_address = |service: &ServiceName| {
        definition(service).is_some_and(|spec| spec.network_mode == NetworkMode::Awsvpc)
            || state.tasks.values().any(|task| {
                task.service == *service && task.network.is_some() && task.last_status < LastStatus::Stopped
            })
    };
    // What a rollback goes back to is no longer what the manifests say.
    let primary = state.services.get(service).and_then(|record| record.primary());
    let runs = primary.and_then(|primary| state.revision(&primary.revision)?.spec.as_deref());
    if !has_address(service) && runs.is_none_or(|spec| spec.network_mode != NetworkMode::Awsvpc) {
        return false;
    }
    let Some(manifest) = state.desired.services.get(service) else { return false };
    let configuration = manifest.spec.network_configuration.as_ref();
    let named = configuration.map(|it| it.awsvpc_configuration.subnets.as_slice()).unwrap_or_default();
    let is_meant = |record: &&SubnetRecord| match named {
        [] => record.lan.is_none(),
        named => named.contains(&record.name),
    };
    let records: Vec<_> = state.subnets.values().filter(is_meant).collect();
    let room_on = |host: &HostName| -> usize {
        let cut = records.iter().filter(|record| record.slices.contains_key(host));
        cut.map(|record| (1_usize << (32 - record.host_prefix.min(31))).saturating_sub(3)).sum()
    };
    let wanted: usize = state
        .desired
        .services
        .iter()
        .filter(|(name, _)| has_address(name))
        .map(|(_, manifest)| match manifest.spec.scheduling_strategy {
            SchedulingStrategy::Replica => manifest.spec.desired_count as usize,
            SchedulingStrategy::Daemon => reachable.len(),
        })
        .sum();
    // Failed tasks of which nobody knows whether they are gone keep theirs, too.
    let held = state.tasks.values().filter(|task| task.network.is_some() && task.last_status < LastStatus::Stopped);
    let held = held.filter(|task| !reachable.contains(&task.host)).count();
    let spec = runs.or(definition(service));
    let room = match spec.is_some_and(|spec| stays_on_host(spec).next().is_some()) {
        // All of them are where their data is.
        true => reachable.iter().map(|host| room_on(host)).min().unwrap_or_default(),
        false => reachable.iter().map(|host| room_on(host)).sum(),
    };
    let lacks_on_one = reachable.iter().any(|host| room_on(host) == 0);
    let daemon = manifest.spec.scheduling_strategy == SchedulingStrategy::Daemon;
    wanted * 2 + held > room || (daemon && lacks_on_one)
}
