//! What must finally be so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Broken, Checks, Predicate, broken, data, network, traffic, volumes};
use crate::{
    fleet::{FakeHost, Ground, Reach},
    scenario::{has_fixed_port, takes_fixed_port},
};
use roadstead_core::{
    model::{
        container::ContainerState,
        name::{HostName, ServiceName, TaskId},
        spec::service::SchedulingStrategy,
        state::State,
        task::{DesiredStatus, LastStatus, Task},
        time::Timestamp,
    },
    plan::health,
};

/// Ended tasks that the database keeps for each service, at most, beside those that keep their containers: one per host.
const ENDED_TASKS_KEPT: usize = 100;
/// Ended standalone tasks of one family whose containers stay on one host.
const ENDED_STANDALONE_KEPT: usize = 10;

/// Whether ground truth is what the manifests ask for; else what is missing.
pub(crate) fn at_rest(ground: &Ground) -> Result<(), Broken> {
    let state = &ground.durable;
    let reachable: BTreeSet<&HostName> =
        ground.hosts.iter().filter(|(_, host)| host.reach(ground.now) == Reach::Fine).map(|(name, _)| name).collect();
    let stability = if reachable.len() < ground.hosts.len() { Predicate::L2 } else { Predicate::L1 };
    if state.desired.services.keys().ne(ground.wanted.services.keys()) {
        let missing = ground.wanted.services.keys().find(|name| !state.desired.services.contains_key(*name));
        let words =
            missing.map_or_else(|| "more is in force than they declare".to_owned(), |name| format!("{name} is not"));
        return broken(Predicate::L1, format!("the manifests are not in force: {words}"));
    }
    let held = traffic::Held::of(state, &ground.hosts, &reachable);
    let live = live_tasks(ground, &reachable, &held)?;
    volumes::l6_swept(ground, &reachable)?;
    data::l6_copies_end(ground, &reachable, &held)?;
    network::l6_as_it_should_be(ground, &reachable, &held)?;
    traffic::l6_as_they_should_be(ground, &reachable)?;
    for (name, manifest) in &state.desired.services {
        let wanted = match manifest.spec.scheduling_strategy {
            SchedulingStrategy::Replica => manifest.spec.desired_count as usize,
            SchedulingStrategy::Daemon => reachable.len(),
        };
        if held.has_of(name) || may_wait(state, name, wanted, &reachable, ground.hosts.len()) {
            continue;
        }
        let tasks = live.get(name).cloned().unwrap_or_default();
        if tasks.len() != wanted {
            return broken(stability, format!("{name} has {} live tasks and wants {wanted}", tasks.len()));
        }
        let newest = state.services.get(name).and_then(|record| record.deployments.first());
        for id in tasks {
            let Some(task) = state.tasks.get(id) else { return broken(stability, format!("{id} has no row")) };
            if Some(&task.revision) != newest.map(|deployment| &deployment.revision) {
                return broken(stability, format!("{name}: task {id} still runs {}", task.revision));
            }
            if health::healthy(task, &manifest.spec, ground.now).is_err() {
                return broken(stability, format!("{name}: task {id} is not healthy"));
            }
        }
        state.services.get(name).map_or(Ok(()), traffic::l7_turns_end)?;
        let deployments = state.services.get(name).map_or(&[][..], |record| &record.deployments);
        if let Some(open) = deployments.iter().find(|deployment| deployment.outcome.is_none()) {
            return broken(Predicate::L7, format!("{name}: deployment {} of {} does not end", open.id, open.revision));
        }
    }
    Ok(())
}

/// Tasks whose essential containers run on hosts that can be asked.
fn live_tasks<'g>(
    ground: &'g Ground,
    reachable: &BTreeSet<&HostName>,
    held: &traffic::Held<'_>,
) -> Result<BTreeMap<&'g ServiceName, BTreeSet<&'g TaskId>>, Broken> {
    let mut live: BTreeMap<&ServiceName, BTreeSet<&TaskId>> = BTreeMap::new();
    let host_of = |id: &TaskId| ground.durable.tasks.get(id).map(|task| &task.host);
    let is_asked = |id: &&TaskId| host_of(id).is_some_and(|host| reachable.contains(host));
    if let Some(task) = ground.checks.under_way.iter().find(is_asked) {
        return Err(Broken::new(Predicate::L1, format!("an order for task {task} is under way")));
    }
    let is_ending =
        |task: &Task| task.desired_status == DesiredStatus::Stopped && task.last_status < LastStatus::Stopped;
    let ending = |task: &&Arc<Task>| is_ending(task) && reachable.contains(&task.host) && !held.has(task);
    if let Some(task) = ground.durable.tasks.values().find(ending) {
        return Err(Broken::new(Predicate::L1, format!("task {} is still being stopped", task.id)));
    }
    for (name, host) in ground.hosts.iter().filter(|(name, _)| reachable.contains(name)) {
        let mut once = BTreeSet::new();
        for (_, claim, state, _) in host.containers() {
            if !once.insert((&claim.task, &claim.container)) {
                let words = format!("container {} of task {} is on {name} twice", claim.container, claim.task);
                return Err(Broken::new(Predicate::L5, words));
            }
            let Some(row) = ground.durable.tasks.get(&claim.task) else {
                return Err(Broken::new(Predicate::L6, format!("{} on {name} has no row", claim.created_name)));
            };
            if state.is_live() && row.desired_status == DesiredStatus::Stopped {
                if held.has(row) {
                    continue;
                }
                return Err(Broken::new(
                    Predicate::L5,
                    format!("{} on {name} still runs although its task was stopped", claim.created_name),
                ));
            }
            if state == ContainerState::Running && claim.essential {
                live.entry(&claim.service).or_default().insert(&claim.task);
            }
        }
    }
    Ok(live)
}

/// Specs that can wait for ever, visibly: a fixed host port with more tasks than hosts beside each other; bounds that allow
/// neither a start nor a stop; tasks that wait for their lost host, or for the one with their data.
fn may_wait(
    state: &State,
    service: &ServiceName,
    wanted: usize,
    reachable: &BTreeSet<&HostName>,
    hosts: usize,
) -> bool {
    let Some(manifest) = state.desired.services.get(service) else { return true };
    let (floor, ceiling) = super::decisions::bounds(&manifest.spec, hosts);
    let is_replica = manifest.spec.scheduling_strategy == SchedulingStrategy::Replica;
    let stuck = is_replica && wanted > 0 && floor >= wanted && ceiling <= wanted;
    // What a rollback goes back to is no longer what the manifests say.
    let primary = state.services.get(service).and_then(|record| record.primary());
    let runs = primary.and_then(|primary| state.revision(&primary.revision)?.spec.as_deref());
    let crowded = (has_fixed_port(&state.desired, service.as_str()) || runs.is_some_and(takes_fixed_port))
        && (wanted * 2 > reachable.len() || state.desired.services.len() > 1);
    let waits_for_host = manifest.spec.waits_for_lost_host()
        && state.tasks.values().any(|task| {
            task.service == *service && task.last_status < LastStatus::Stopped && !reachable.contains(&task.host)
        });
    stuck
        || crowded
        || waits_for_host
        || network::waits_for_address(state, service, reachable)
        || traffic::waits_for_edge(state, service, reachable)
        || volumes::waits_for_data(state, service, reachable, hosts)
}

impl Checks {
    /// The fleet is at rest.
    pub(crate) fn rested(&self, durable: &State, hosts: &BTreeMap<HostName, FakeHost>) -> Result<(), Broken> {
        l3_reasons(self)?;
        l6_bounded(durable, hosts.len())?;
        l6_leftovers(durable, hosts)
    }
}

/// Whatever waits says why and until when.
fn l3_reasons(checks: &Checks) -> Result<(), Broken> {
    let silent =
        checks.report.waiting.iter().find(|waiting| waiting.reason.is_empty() || waiting.wakes_when.is_empty());
    match silent {
        Some(waiting) => broken(Predicate::L3, format!("{:?} waits without a reason", waiting.subject)),
        None => Ok(()),
    }
}

fn l6_bounded(durable: &State, hosts: usize) -> Result<(), Broken> {
    let mut ended: BTreeMap<&ServiceName, usize> = BTreeMap::new();
    for task in durable.tasks.values().filter(|task| task.last_status == LastStatus::Stopped) {
        *ended.entry(&task.service).or_default() += 1;
    }
    match ended.into_iter().find(|(_, count)| *count > ENDED_TASKS_KEPT + hosts) {
        Some((service, count)) => broken(Predicate::L6, format!("{count} ended tasks of {service} are kept")),
        None => Ok(()),
    }
}

/// Of how many ended tasks a host keeps the containers.
fn may_keep(service: &ServiceName) -> usize {
    if service.family().is_some() { ENDED_STANDALONE_KEPT } else { 1 }
}

/// What ended is removed, but for the newest failure of each service on each host, and for some standalone tasks.
fn l6_leftovers(durable: &State, hosts: &BTreeMap<HostName, FakeHost>) -> Result<(), Broken> {
    let reachable = hosts.iter().filter(|(_, host)| host.reach(Timestamp(u64::MAX)) == Reach::Fine);
    let reachable: BTreeSet<&HostName> = reachable.map(|(name, _)| name).collect();
    let held = traffic::Held::of(durable, hosts, &reachable);
    for (name, host) in hosts.iter().filter(|(name, _)| reachable.contains(name)) {
        let mut kept: BTreeMap<&ServiceName, BTreeSet<&TaskId>> = BTreeMap::new();
        for (_, claim, state, _) in host.containers() {
            let is_ending = |task: &Arc<Task>| task.is_live() && held.has(task);
            let is_over = durable
                .tasks
                .get(&claim.task)
                .is_none_or(|task| task.desired_status == DesiredStatus::Stopped && !is_ending(task));
            if is_over && !state.is_live() {
                kept.entry(&claim.service).or_default().insert(&claim.task);
            }
        }
        if let Some((service, tasks)) = kept.iter().find(|(service, tasks)| tasks.len() > may_keep(service)) {
            return broken(
                Predicate::L6,
                format!("{name} keeps the containers of {} ended tasks of {service}: {tasks:?}", tasks.len()),
            );
        }
    }
    Ok(())
}
