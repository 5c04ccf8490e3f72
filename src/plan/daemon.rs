//! DAEMON services: one task on every matching host.
//!
//! Rules: "Daemon scheduling strategy", ECS developer guide. A daemon is replaced in place: the old task ends first.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    name::{HostName, TaskId},
    task::{StopCode, Task},
    world::{HostStatus, Subject},
};

use super::{
    draft::Draft,
    replica::{bounds, crash_loop_words, crash_loops, is_unhealthy, unhealthy_words},
    service::{self, Subjected},
};

pub(super) fn reconcile(draft: &mut Draft<'_>, service: &Subjected<'_>) {
    let eligible: BTreeSet<HostName> = service::eligible_hosts(draft, service).into_iter().collect();
    let bounds = bounds(eligible.len(), &service.spec.deployment_configuration, 0, 100);
    let mut by_host: BTreeMap<HostName, Vec<TaskId>> = BTreeMap::new();
    for task in service.wanted(draft) {
        by_host.entry(task.host.clone()).or_default().push(task.id.clone());
    }
    let healthy = service.wanted(draft).into_iter().filter(|task| service.healthy(draft, task)).count();
    let mut budget = healthy.saturating_sub(bounds.floor);

    for (host, mut tasks) in by_host.clone() {
        // Of several on one host the newest of the wanted revision stays.
        tasks.sort_by_key(|id| draft.task(id).map(|task| (task.revision == service.target, task.created_at)));
        let Some(kept) = tasks.pop() else { continue };
        for id in tasks {
            end(draft, &id, StopCode::ServiceSchedulerInitiated, "one daemon task a host is enough");
        }
        let Some((code, reason)) = reason_to_end(draft, service, &host, &kept, &eligible) else { continue };
        let was_healthy = draft.task(&kept).is_some_and(|task| service.healthy(draft, task));
        if was_healthy && budget == 0 && code == StopCode::ServiceSchedulerInitiated && eligible.contains(&host) {
            draft.waiting(
                Subject::Task(kept),
                format!("{reason}: it stays while the floor is {}", bounds.floor),
                "another task is healthy",
                None,
            );
            continue;
        }
        budget = budget.saturating_sub(usize::from(was_healthy));
        end(draft, &kept, code, &reason);
    }

    start_missing(draft, service, &eligible);
}

fn start_missing(draft: &mut Draft<'_>, service: &Subjected<'_>, eligible: &BTreeSet<HostName>) {
    let occupied: BTreeSet<HostName> = service
        .live
        .iter()
        .filter_map(|id| draft.task(id))
        .filter(|task| task.is_live())
        .map(|task| task.host.clone())
        .collect();
    let missing: Vec<&HostName> = eligible
        .iter()
        .filter(|host| !occupied.contains(*host) && draft.statuses.get(*host) == Some(&HostStatus::Active))
        .collect();
    if missing.is_empty() {
        return;
    }
    if let Some(at) = service.throttled_until(draft) {
        let failures = draft.service(service.name).consecutive_failures;
        let reason = format!(
            "{} tasks are missing, but {failures} in a row failed to start: the next try is delayed",
            missing.len()
        );
        draft.waiting(Subject::Service(service.name.clone()), reason, format!("{at}, or a new revision"), Some(at));
        return;
    }
    for host in missing {
        if let Err(unplaceable) = service::start(draft, service, 0, Some(host), "one task on every matching host") {
            let reason = format!("no daemon task on {host}: {unplaceable}");
            draft.waiting(Subject::Service(service.name.clone()), reason, format!("host {host} has room"), None);
        }
    }
}

fn reason_to_end(
    draft: &mut Draft<'_>,
    service: &Subjected<'_>,
    host: &HostName,
    id: &TaskId,
    eligible: &BTreeSet<HostName>,
) -> Option<(StopCode, String)> {
    let unhealthy = is_unhealthy(draft, service, id);
    let task: Task = draft.task(id)?.clone();
    let status = draft.statuses.get(host).copied()?;
    if matches!(status, HostStatus::Suspect | HostStatus::Lost | HostStatus::Untrusted) || draft.braked() {
        return None;
    }
    if status == HostStatus::Draining {
        // Daemon tasks stop last.
        let others = draft.tasks().any(|other| other.host == *host && other.is_live() && !is_daemon(draft, other));
        return (!others).then(|| (StopCode::TerminationNotice, format!("host {host} is being drained")));
    }
    if crash_loops(draft, &task) {
        let now = draft.now();
        service::change_record(draft, service.name, |record| {
            super::throttle::note_failure(record, host, now);
            super::deployment::count_failure(record, &task.revision);
        });
        return Some((StopCode::EssentialContainerExited, crash_loop_words(&task)));
    }
    // A host that takes no new tasks just now, or was not looked at yet, does match all the same.
    if !eligible.contains(host) && status == HostStatus::Active && draft.heard.contains(host) {
        return Some((StopCode::ServiceSchedulerInitiated, format!("host {host} no longer matches {}", service.name)));
    }
    // On a cordoned host nothing could take its place.
    if status == HostStatus::Cordoned {
        return None;
    }
    if task.revision != service.target {
        return Some((StopCode::ServiceSchedulerInitiated, format!("{} replaces {}", service.target, task.revision)));
    }
    if unhealthy {
        super::replica::note_sick_start(draft, &task);
    }
    unhealthy.then(|| (StopCode::ServiceSchedulerInitiated, unhealthy_words(&task)))
}

fn is_daemon(draft: &Draft<'_>, task: &Task) -> bool {
    use crate::model::spec::service::SchedulingStrategy;
    draft
        .world
        .state
        .desired
        .services
        .get(&task.service)
        .is_some_and(|manifest| manifest.spec.scheduling_strategy == SchedulingStrategy::Daemon)
}

fn end(draft: &mut Draft<'_>, id: &TaskId, code: StopCode, reason: &str) {
    if !draft.braked() {
        service::stop(draft, id, code, reason);
    }
}
