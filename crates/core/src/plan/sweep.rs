//! Volumes that tasks left behind: a task's own volumes go with its last container, unless somebody else removed that one,
//! the engine was busy, or the controller died in between. What is still listed when its task is over is removed here (L6).

use std::collections::BTreeMap;

use crate::model::{
    action::{Action, ActionKey, Verb, VerbName},
    name::{HostName, ServiceName, TaskId},
    task::LastStatus,
    volume::VolumeClaim,
};

use super::draft::Draft;

/// At most so many volumes of one task in one order.
const MAX_VOLUMES: usize = 64;

/// Orders the removal of what ended tasks left behind. Docker itself refuses to remove a volume that a container has.
pub(super) fn issue(draft: &mut Draft<'_>) {
    let world = draft.world;
    let mut left: BTreeMap<(&HostName, &TaskId), (&ServiceName, Vec<String>)> = BTreeMap::new();
    for (host, seen) in &world.volumes {
        if !draft.host_no(host).is_some_and(|host| draft.hosts[host].heard) {
            continue;
        }
        for (name, claim) in &seen.volumes {
            match claim {
                VolumeClaim::Task { task, service } if is_over(draft, task) => {
                    let (_, names) = left.entry((host, task)).or_insert_with(|| (service, Vec::new()));
                    names.push(name.clone());
                }
                VolumeClaim::Task { .. } | VolumeClaim::Shared { .. } => {}
            }
        }
    }
    for ((host, task), (service, mut volumes)) in left {
        if !is_due(draft, &ActionKey { task: task.clone(), verb: VerbName::Sweep }) {
            continue;
        }
        volumes.truncate(MAX_VOLUMES);
        draft.act(Action {
            task: task.clone(),
            service: service.clone(),
            host: host.clone(),
            verb: Verb::Sweep { volumes },
            reason: "its task is over".to_owned(),
        });
    }
}

/// Whether this may be ordered now: not while it is under way, and not before its retry time. It holds up nobody, so nobody is
/// told to wait.
pub(super) fn is_due(draft: &mut Draft<'_>, key: &ActionKey) -> bool {
    let world = draft.world;
    if world.in_flight.contains(key) {
        return false;
    }
    match world.retry_at.get(key) {
        Some((at, _)) if *at > world.now => {
            draft.wake_at(*at);
            false
        }
        Some(_) | None => true,
    }
}

/// Whether no container of a task is left, nor can come: it was forgotten, or seen gone.
fn is_over(draft: &Draft<'_>, task: &TaskId) -> bool {
    draft.world.state.tasks.get(task).is_none_or(|task| {
        task.last_status == LastStatus::Stopped && task.containers.values().all(|row| row.runtime_id.is_none())
    })
}
