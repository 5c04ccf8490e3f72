//! What is over is forgotten, so that the database and the hosts stay bounded (L6).

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    name::{HostName, RevisionId, ServiceName, TaskId},
    schedule::FireOutcome,
    state::Change,
    task::{LastStatus, StopCode, Task},
    time::Timestamp,
};

use super::{
    draft::{Draft, Service, TaskNo},
    orders, revision, volumes,
};

/// Containers of a failed task, or of a standalone one that ended, stay this long, for their logs.
const KEEP_FAILED_MS: u64 = 10 * 60_000;
/// Of one service on one host only those of the newest failed task stay.
const KEEP_FAILED_PER_SERVICE: usize = 1;
/// Of one family's standalone tasks on one host those of so many stay.
const KEEP_ENDED_PER_FAMILY: usize = 10;
/// An ended task stays in the list this long: it also tells a late container of it from an unknown one (S9).
const KEEP_STOPPED_MS: u64 = 60 * 60_000;
/// So many revisions of a family stay in any case: what a person may go back to.
const KEEP_REVISIONS: usize = 20;
/// At most this many ended tasks per service stay.
const KEEP_STOPPED_PER_SERVICE: usize = 100;

/// The newest tasks that keep their containers.
pub(super) struct Kept(BTreeSet<TaskId>);

impl Kept {
    fn of(draft: &Draft<'_>) -> Self {
        let mut by_place: BTreeMap<(&ServiceName, &HostName), Vec<&Task>> = BTreeMap::new();
        for task in draft.tasks.iter().filter(|task| orders::keeps_containers(task)) {
            by_place.entry((&task.service, &task.host)).or_default().push(task);
        }
        let newest = by_place.into_values().flat_map(|mut tasks| {
            tasks.sort_by_key(|task| std::cmp::Reverse((task.stopping_at, &task.id)));
            let standalone = tasks.first().is_some_and(|task| task.is_standalone());
            tasks.truncate(if standalone { KEEP_ENDED_PER_FAMILY } else { KEEP_FAILED_PER_SERVICE });
            tasks
        });
        Self(newest.map(|task| task.id.clone()).collect())
    }
}

/// Whether the containers of a failed task have been kept long enough. `kept` is found when it is first needed.
pub(super) fn keep_is_over(draft: &mut Draft<'_>, no: TaskNo, kept: &mut Option<Kept>) -> bool {
    let task = draft.task(no);
    let since = task.stopped_at.or(task.stopping_at).unwrap_or(task.created_at);
    let until = since.plus_ms(KEEP_FAILED_MS);
    let is_newest = kept.get_or_insert_with(|| Kept::of(draft)).0.contains(&task.id);
    if !is_newest || until <= draft.now() || volumes::is_in_the_way(draft, no) {
        return true;
    }
    draft.wake_at(until);
    false
}

/// Forgets ended tasks, revisions that nothing needs, and services and hosts that are neither declared nor used.
pub(super) fn forget(draft: &mut Draft<'_>) {
    strand_tasks_of_undeclared_hosts(draft);
    forget_tasks(draft);
    forget_revisions(draft);
    forget_records(draft);
}

/// Of each family the newest stay, and what a task runs, a deployment tells of, a service asks for, or may go back to.
fn forget_revisions(draft: &mut Draft<'_>) {
    let families = || draft.world.state.revisions.iter().filter(|(_, numbers)| numbers.len() > KEEP_REVISIONS);
    if families().next().is_none() {
        return;
    }
    let records = draft.world.state.services.values().chain(draft.services.iter().filter_map(Service::record));
    let deployed = records.flat_map(|record| &record.deployments);
    let records = draft.world.state.services.values().chain(draft.services.iter().filter_map(Service::record));
    let ways_back = records.flat_map(|record| record.completed().chain(record.pin.iter().map(|pin| &pin.revision)));
    let wanted = draft.services.iter().flat_map(|service| [&service.wanted, &service.target]);
    let wanted = wanted.filter_map(|revision| revision.as_ref()?.as_ref().ok());
    let scheduled = draft.world.state.desired.scheduled_tasks.values();
    let scheduled: BTreeSet<RevisionId> =
        scheduled.filter_map(|manifest| revision::named(draft, &manifest.spec.task_definition).ok()).collect();
    let run = draft.tasks.iter().map(|task| &task.revision);
    let needed: BTreeSet<&RevisionId> =
        run.chain(deployed.map(|deployment| &deployment.revision)).chain(wanted).chain(ways_back).collect();
    let old = families().flat_map(|(_, numbers)| numbers.values().rev().skip(KEEP_REVISIONS));
    let forgotten: Vec<RevisionId> = old
        .map(|revision| &revision.id)
        .filter(|id| !needed.contains(*id) && !scheduled.contains(*id))
        .cloned()
        .collect();
    forgotten.into_iter().for_each(|id| draft.remove(Change::RevisionRemoved(id)));
}

fn forget_tasks(draft: &mut Draft<'_>) {
    let world = draft.world;
    let over = || draft.tasks.with(|traits| traits.over).map(|(_, task)| task);
    let Some(oldest) = over().map(|task| task.stopped_at.unwrap_or_default().plus_ms(KEEP_STOPPED_MS)).min() else {
        return;
    };
    // Nearly always: few, and none of them is old.
    if draft.shortcuts && oldest > world.now && over().count() <= KEEP_STOPPED_PER_SERVICE {
        draft.wake_at(oldest);
        return;
    }
    let fires = world.state.schedules.values().flat_map(|record| &record.fires);
    let under_way = fires.filter(|fire| fire.outcome == FireOutcome::Running);
    // How a time went is told by all its tasks.
    let told: BTreeSet<&TaskId> = under_way.flat_map(|fire| &fire.tasks).collect();
    let mut ended: BTreeMap<&ServiceName, Vec<(Option<Timestamp>, TaskId)>> = BTreeMap::new();
    for task in over().filter(|task| !told.contains(&task.id)) {
        ended.entry(&task.service).or_default().push((task.stopped_at, task.id.clone()));
    }
    let (mut forgotten, mut next) = (Vec::new(), None);
    for tasks in ended.values_mut() {
        tasks.sort();
        let surplus = tasks.len().saturating_sub(KEEP_STOPPED_PER_SERVICE);
        for (index, (stopped_at, id)) in tasks.iter().enumerate() {
            let until = stopped_at.unwrap_or_default().plus_ms(KEEP_STOPPED_MS);
            if index < surplus || until <= world.now {
                forgotten.push(id.clone());
            } else {
                next = next.into_iter().chain([until]).min();
                break;
            }
        }
    }
    forgotten.into_iter().for_each(|id| draft.forget_task(id));
    next.into_iter().for_each(|at| draft.wake_at(at));
}

fn forget_records(draft: &mut Draft<'_>) {
    let state = &draft.world.state;
    for name in state.services.keys().filter(|name| draft.service_no(name).is_none()).collect::<Vec<_>>() {
        if !draft.tasks.iter().any(|task| task.service == *name && task.last_status != LastStatus::Stopped) {
            draft.remove(Change::ServiceRemoved(name.clone()));
        }
    }
    // One that comes back under its name is as new.
    for name in state.hosts.keys().filter(|name| draft.host_no(name).is_none()).collect::<Vec<_>>() {
        draft.remove(Change::HostRemoved(name.clone()));
    }
}

/// A host that is no longer declared cannot be reached any more: its tasks are over for us.
fn strand_tasks_of_undeclared_hosts(draft: &mut Draft<'_>) {
    let now = draft.now();
    for no in draft.tasks.numbers() {
        if draft.tasks.host(no).is_some() || draft.tasks.traits(no).over {
            continue;
        }
        draft.tasks.change(no, |task| {
            let reason = format!("host {} is no longer declared; its containers were left as they are", task.host);
            task.order_stop(now, StopCode::TerminationNotice, reason);
            task.advance(LastStatus::Stopped);
            task.stopped_at.get_or_insert(now);
            for container in task.containers.values_mut() {
                container.runtime_id = None;
            }
        });
    }
}
