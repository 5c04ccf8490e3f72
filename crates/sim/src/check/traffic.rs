//! Load balancers: what they send requests to is not stopped, and what they show is what they should.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Broken, Predicate, broken};
use crate::fleet::{FakeHost, Ground};
use roadstead_core::{
    model::{
        container::ContainerState,
        name::{HostName, RuntimeId, ServiceName},
        ownership::Claim,
        state::{Schedulability, ServiceRecord, State},
        task::Task,
        time::Timestamp,
        traffic::{Shift, Side},
    },
    plan::{
        health::healthy,
        traffic::{edges, hosts_of, is_behind},
    },
};

/// A task is told to stop when no load balancer sends requests to it, wherever that is and whether it answers or not. An edge
/// that a person gave up is not asked.
pub(super) fn s10_left_balancers(
    durable: &State,
    hosts: &BTreeMap<HostName, FakeHost>,
    host: &FakeHost,
    claim: &Claim,
    id: &RuntimeId,
) -> Result<(), Broken> {
    let is_running = host.machine.state(id) == Some(ContainerState::Running);
    let known = durable.tasks.get(&claim.task).filter(|row| row.started_at.is_some());
    if !is_running || known.is_none() {
        return Ok(());
    }
    let is_given_up = |name: &HostName| {
        durable.hosts.get(name).is_none_or(|record| match record.schedulability {
            Schedulability::Active => false,
            Schedulability::Cordoned | Schedulability::Draining => true,
        })
    };
    let is_edge = |name: &HostName| {
        let mut balancers = durable.desired.load_balancers.values();
        balancers.any(|manifest| hosts_of(&durable.desired, &manifest.spec).any(|host| host == name))
    };
    for (name, other) in hosts.iter().filter(|(name, _)| is_edge(name) && !is_given_up(name)) {
        let groups = other.machine.balancers.shown.iter().flat_map(|edge| edge.groups.iter());
        let sends = |(_, group): &(_, &roadstead_core::model::traffic::Group)| {
            group.targets.get(&claim.task).is_some_and(|target| !target.leaves)
        };
        if let Some((group, _)) = groups.into_iter().find(|group| sends(group)) {
            let words = format!("{} is stopped, and {name} sends requests of {group} to it", claim.created_name);
            return broken(Predicate::S10, words);
        }
    }
    Ok(())
}

/// No requests are turned to a side where nobody can answer while somebody on the other can.
pub(super) fn s10_turns_to_somebody(durable: &State, service: &ServiceRecord, now: Timestamp) -> Result<(), Broken> {
    let Some(manifest) = durable.desired.services.get(&service.name) else { return Ok(()) };
    let was = durable.services.get(&service.name).and_then(|was| was.shift).unwrap_or_default();
    let is = service.shift.unwrap_or_default();
    let can_answer = |side| {
        let is_its = |task: &&Arc<Task>| task.service == service.name && task.side == side;
        durable.tasks.values().filter(is_its).any(|task| healthy(task, &manifest.spec, now).is_ok())
    };
    for side in [Side::Blue, Side::Green] {
        if is.share(side) > was.share(side) && !can_answer(side) && can_answer(side.other()) {
            let words = format!("{} turns requests to {side:?}, where nobody can answer", service.name);
            return broken(Predicate::S10, words);
        }
    }
    Ok(())
}

/// Every edge shows what it should, and no other host shows anything.
pub(super) fn l6_as_they_should_be(ground: &Ground, reachable: &BTreeSet<&HostName>) -> Result<(), Broken> {
    if ground.hosts.values().all(|host| host.machine.balancers.shown.is_none())
        && ground.durable.desired.load_balancers.is_empty()
    {
        return Ok(());
    }
    let wanted = edges(&ground.durable);
    for (name, host) in ground.hosts.iter().filter(|(name, _)| reachable.contains(name)) {
        if host.machine.balancers.shown.as_ref() != wanted.get(name) {
            return broken(Predicate::L6, format!("the load balancers of {name} show something else than they should"));
        }
    }
    Ok(())
}

/// Whoever took turns has one side in service, and the other is empty.
pub(super) fn l7_turns_end(record: &ServiceRecord) -> Result<(), Broken> {
    let shift = record.shift.unwrap_or_default();
    match shift == (Shift { live: shift.live, ..Shift::default() }) {
        true => Ok(()),
        false => broken(Predicate::L7, format!("{}: its requests stay on their way: {shift:?}", record.name)),
    }
}

/// Tasks that may not be stopped: an edge does not answer, and may still send requests to them (S10).
pub(super) struct Held<'g> {
    state: &'g State,
    is_edge_away: bool,
}

impl<'g> Held<'g> {
    /// By what is durable, and by what the hosts that cannot be asked show.
    pub(super) fn of(state: &'g State, hosts: &BTreeMap<HostName, FakeHost>, reachable: &BTreeSet<&HostName>) -> Self {
        let desired = &state.desired;
        let mut edges = desired.load_balancers.values().flat_map(|manifest| hosts_of(desired, &manifest.spec));
        // Also one that is none any more: nobody can tell that it shows nothing.
        let shows =
            |(name, host): (&HostName, &FakeHost)| !reachable.contains(name) && host.machine.balancers.shown.is_some();
        Self { state, is_edge_away: edges.any(|host| !reachable.contains(host)) || hosts.iter().any(shows) }
    }

    /// Whether it may be held, once it is to stop. Which groups an edge was told of is known to nobody here: the last answer may
    /// have been lost.
    pub(super) fn has(&self, task: &Task) -> bool {
        self.is_edge_away && task.started_at.is_some()
    }

    /// Whether a service has such a task: what is to take its place may have to wait.
    pub(super) fn has_of(&self, service: &ServiceName) -> bool {
        let mut tasks = self.state.tasks.values();
        tasks.any(|task| task.service == *service && !task.is_wanted() && task.is_live() && self.has(task))
    }
}

/// Whether a service's tasks may wait for an edge: one that does not answer may still send requests to them (S10), and where
/// none answers nobody says that they are well.
pub(super) fn waits_for_edge(state: &State, service: &ServiceName, reachable: &BTreeSet<&HostName>) -> bool {
    let desired = &state.desired;
    let edges = || desired.load_balancers.values().flat_map(|manifest| hosts_of(desired, &manifest.spec));
    desired.services.get(service).is_some_and(|manifest| is_behind(&manifest.spec))
        && (edges().any(|host| !reachable.contains(host)) || edges().next().is_none())
}
