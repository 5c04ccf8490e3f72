//! Volumes: one place for data that a task owns, one task on it, and nothing left of those that ended.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Broken, Predicate, broken,
    data::{Data, MOVED},
};
use crate::fleet::{FakeHost, Ground};
use roadstead_core::model::{
    container::is_task_volume,
    name::{HostName, ServiceName, TaskId},
    ownership::{self, Claim},
    spec::{ServiceSpec, TaskDefinitionSpec},
    state::{Change, State},
    task::LastStatus,
    volume::{VolumeId, stays_on_host, works_alone},
    world::{Plan, World},
};

fn owned<'s>(state: &'s State, claim: &Claim) -> Option<&'s TaskDefinitionSpec> {
    let manifest = state.desired.services.get(&claim.service)?;
    let spec = state.revision(&claim.revision)?.spec.as_deref()?;
    owns(&manifest.spec, spec).then_some(spec)
}

/// Whether tasks of a service, with this definition, own a volume.
pub(super) fn owns(service: &ServiceSpec, definition: &TaskDefinitionSpec) -> bool {
    works_alone(service) && stays_on_host(definition).next().is_some()
}

/// A task whose data has a place is started there and nowhere else.
pub(super) fn s4_with_its_data(durable: &State, name: &HostName, claim: &Claim) -> Result<(), Broken> {
    let Some(spec) = owned(durable, claim) else { return Ok(()) };
    for volume in stays_on_host(spec) {
        let id = VolumeId { cluster: claim.cluster.clone(), name: volume.to_owned() };
        if let Some(record) = durable.volumes.get(&id).filter(|record| record.host != *name) {
            let words = format!("{} starts on {name}, and its data is on {}", claim.created_name, record.host);
            return broken(Predicate::S4, words);
        }
    }
    Ok(())
}

/// A volume that a task owns is not made anew while its data is on another host.
pub(super) fn s4_not_empty(
    data: &Data,
    durable: &State,
    hosts: &BTreeMap<HostName, FakeHost>,
    name: &HostName,
    claim: &Claim,
) -> Result<(), Broken> {
    let Some(spec) = owned(durable, claim) else { return Ok(()) };
    for volume in stays_on_host(spec) {
        let host = hosts.get(name);
        let is_new = host.and_then(|host| host.machine.volumes.get(volume));
        let is_new = is_new.is_some_and(|made| made.made_for == claim.created_name.as_str());
        // A machine that was installed anew has none.
        let was_reinstalled = host.is_some_and(|host| host.lives > 0);
        // Several are those of a service that had several tasks.
        let had_several = durable.tasks.values().any(|task| task.service == claim.service && task.slot > 1);
        if !is_new || was_reinstalled || had_several || data.is_pinned(volume, name) || data.is_given_up(volume) {
            continue;
        }
        let has_data = |host: &&HostName| {
            let found = hosts.get(*host).and_then(|host| host.machine.volumes.get(volume));
            // A move makes a second one, and leaves the first for a while; a request that comes late makes an empty one.
            *host != name && found.is_some_and(|found| !found.content.is_empty() && !found.labels.contains_key(MOVED))
        };
        if let Some(other) = durable.desired.hosts.keys().find(has_data) {
            let words = format!("{} has volume {volume} on {name}, and its data is on {other}", claim.created_name);
            return broken(Predicate::S4, words);
        }
    }
    Ok(())
}

impl Ground {
    /// A task that owns a volume is decided only when no other of its service runs anywhere, seen or not.
    pub(crate) fn s19_owner_is_alone(&self, world: &World, plan: &Plan) -> Result<(), Broken> {
        let state = &world.state;
        for change in &plan.changes {
            let Change::Task(task) = change else { continue };
            let Some(manifest) = state.desired.services.get(&task.service) else { continue };
            let spec = state.revision(&task.revision).and_then(|revision| revision.spec.as_deref());
            let owns = spec.is_some_and(|spec| owns(&manifest.spec, spec));
            if !owns || state.tasks.contains_key(&task.id) {
                continue;
            }
            let all = self.hosts.values().flat_map(FakeHost::containers);
            let twin = all.filter(|(_, claim, state, _)| {
                claim.service == task.service && claim.task != task.id && claim.essential && state.is_live()
            });
            if let Some((_, twin, _, _)) = twin.into_iter().next() {
                let words = format!("task {} owns a volume and is decided while {} runs", task.id, twin.created_name);
                return broken(Predicate::S19, words);
            }
        }
        Ok(())
    }
}

/// Data is removed with its task only: of one that is not over, or of none at all, never.
pub(super) fn s5_of_the_dead(data: &Data, durable: &State, host: &FakeHost, name: &str) -> Result<(), Broken> {
    let Some(volume) = host.machine.volumes.get(name) else { return Ok(()) };
    let task = volume.labels.get(ownership::TASK).map(|id| TaskId::from(id.as_str()));
    let Some(task) = task.filter(|task| is_task_volume(name, task)) else {
        return data.s5_may_remove(durable, host, name);
    };
    match durable.tasks.get(&task) {
        Some(row) if row.last_status != LastStatus::Stopped => {
            broken(Predicate::S5, format!("volume {name} of {} is removed, and its task is not over", host.name))
        }
        Some(_) | None => Ok(()),
    }
}

/// No ended task's volume is left on a host that can be asked.
pub(super) fn l6_swept(ground: &Ground, reachable: &BTreeSet<&HostName>) -> Result<(), Broken> {
    for (name, host) in ground.hosts.iter().filter(|(name, _)| reachable.contains(name)) {
        for (volume, found) in &host.machine.volumes {
            let Some(task) = found.labels.get(ownership::TASK) else { continue };
            let row = ground.durable.tasks.get(task.as_str());
            let is_over = row.is_none_or(|row| {
                row.last_status == LastStatus::Stopped && row.containers.values().all(|row| row.runtime_id.is_none())
            });
            if is_over {
                return broken(Predicate::L6, format!("{name} keeps volume {volume} of an ended task"));
            }
        }
    }
    Ok(())
}

/// Whether a service's data is, or may be, on a host that cannot be asked.
pub(super) fn waits_for_data(
    state: &State,
    service: &ServiceName,
    reachable: &BTreeSet<&HostName>,
    hosts: usize,
) -> bool {
    let Some(manifest) = state.desired.services.get(service) else { return false };
    let runs = state.services.get(service).and_then(|record| record.primary()).map(|primary| &primary.revision);
    let spec = runs.and_then(|revision| state.revision(revision)?.spec.as_deref());
    let mut names = spec.into_iter().flat_map(stays_on_host);
    names.any(|name| {
        let id = VolumeId { cluster: manifest.spec.cluster.clone(), name: name.to_owned() };
        match state.volumes.get(&id) {
            Some(record) => !reachable.contains(&record.host),
            None => works_alone(&manifest.spec) && reachable.len() < hosts,
        }
    })
}
