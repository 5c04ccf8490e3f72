//! What is over is forgotten, so that the database and the hosts stay bounded (L6).

use std::collections::BTreeMap;

use crate::model::{
    name::{ServiceName, TaskId},
    state::{Change, Schedulability},
    task::{LastStatus, StopCode, Task},
    time::Timestamp,
};

use super::{draft::Draft, orders};

/// Containers of a failed task stay this long, for their logs …
const KEEP_FAILED_MS: u64 = 10 * 60_000;
/// … and of one service on one host only the newest.
const KEEP_FAILED_PER_HOST: usize = 1;
/// An ended task stays in the list this long: it also tells a late container of it from an unknown one (S9).
const KEEP_STOPPED_MS: u64 = 60 * 60_000;
/// At most this many ended tasks per service stay.
const KEEP_STOPPED_PER_SERVICE: usize = 100;

/// Whether the containers of a failed task have been kept long enough.
pub(super) fn keep_is_over(draft: &mut Draft<'_>, task: &Task) -> bool {
    let since = task.stopped_at.or(task.stopping_at).unwrap_or(task.created_at);
    let until = since.plus_ms(KEEP_FAILED_MS);
    let newer = draft
        .tasks()
        .filter(|other| other.service == task.service && other.host == task.host && orders::keeps_containers(other))
        .filter(|other| (other.stopping_at, &other.id) > (task.stopping_at, &task.id))
        .count();
    if newer >= KEEP_FAILED_PER_HOST || until <= draft.now() {
        return true;
    }
    draft.wake_at(until);
    false
}

/// Forgets ended tasks, and services and hosts that are neither declared nor used.
pub(super) fn forget(draft: &mut Draft<'_>) {
    let world = draft.world;
    let declared = &world.state.desired;
    strand_tasks_of_undeclared_hosts(draft);
    let mut ended: BTreeMap<&ServiceName, Vec<(Option<Timestamp>, TaskId)>> = BTreeMap::new();
    for task in world.state.tasks.values() {
        if task.last_status == LastStatus::Stopped
            && task.containers.values().all(|container| container.runtime_id.is_none())
        {
            ended.entry(&task.service).or_default().push((task.stopped_at, task.id.clone()));
        }
    }
    let mut forgotten = Vec::new();
    for tasks in ended.values_mut() {
        tasks.sort();
        let surplus = tasks.len().saturating_sub(KEEP_STOPPED_PER_SERVICE);
        for (index, (stopped_at, id)) in tasks.iter().enumerate() {
            let until = stopped_at.unwrap_or_default().plus_ms(KEEP_STOPPED_MS);
            if index < surplus || until <= world.now {
                forgotten.push(id.clone());
            } else {
                draft.wake_at(until);
                break;
            }
        }
    }
    for id in forgotten {
        draft.forget_task(id);
    }
    for name in world.state.services.keys().filter(|name| !declared.services.contains_key(*name)) {
        if !draft.tasks().any(|task| task.service == *name && task.last_status != LastStatus::Stopped) {
            draft.remove(Change::ServiceRemoved(name.clone()));
        }
    }
    for (name, record) in world.state.hosts.iter().filter(|(name, _)| !declared.hosts.contains_key(*name)) {
        // A host that comes back under its name is as new; only an operator's word would be lost with its record.
        if record.schedulability == Schedulability::Active
            || !draft.tasks().any(|task| task.host == *name && task.is_live())
        {
            draft.remove(Change::HostRemoved(name.clone()));
        }
    }
}

/// A host that is no longer declared cannot be reached any more: its tasks are over for us.
fn strand_tasks_of_undeclared_hosts(draft: &mut Draft<'_>) {
    let world = draft.world;
    let stranded: Vec<TaskId> = draft
        .tasks()
        .filter(|task| !world.state.desired.hosts.contains_key(&task.host))
        .filter(|task| {
            task.last_status != LastStatus::Stopped || task.containers.values().any(|row| row.runtime_id.is_some())
        })
        .map(|task| task.id.clone())
        .collect();
    for id in stranded {
        draft.change_task(&id, |task| {
            let reason = format!("host {} is no longer declared; its containers were left as they are", task.host);
            task.order_stop(world.now, StopCode::TerminationNotice, reason);
            task.advance(LastStatus::Stopped);
            task.stopped_at.get_or_insert(world.now);
            for container in task.containers.values_mut() {
                container.runtime_id = None;
            }
        });
    }
}
