//! DAEMON services: one task on every matching host.
//!
//! Rules: "Daemon scheduling strategy", ECS developer guide. A daemon is replaced in place: the old task ends first.

use std::collections::BTreeMap;

use crate::model::{
    spec::service::SchedulingStrategy,
    task::StopCode,
    world::{HostStatus, Subject},
};

use super::{
    draft::{Draft, HostNo, TaskNo},
    health, place,
    replica::{bounds, crash_loop_words, is_protected, is_unhealthy, protected_until, unhealthy_words},
    service::{self, Subjected},
    throttle,
};

/// By host, whether a daemon belongs there.
struct Eligible(Vec<bool>);

impl Eligible {
    fn of(draft: &mut Draft<'_>, service: &Subjected<'_>) -> Self {
        let mut hosts = vec![false; draft.hosts.len()];
        place::eligible_hosts(draft, service).into_iter().for_each(|host| hosts[host] = true);
        Self(hosts)
    }

    fn count(&self) -> usize {
        self.0.iter().filter(|eligible| **eligible).count()
    }
}

/// Whether reconciling would find nothing to do: exactly one task, and a good one, on every matching host, and none
/// elsewhere. `false` is always right, and only slower.
pub(super) fn is_steady(draft: &mut Draft<'_>, service: &Subjected<'_>) -> bool {
    let all_kept = service.live.iter().all(|no| draft.tasks.traits(*no).kept);
    if !all_kept || !service::is_settled(&draft.services[service.no]) {
        return false;
    }
    let mut missing = Eligible::of(draft, service);
    let takes_place = |no: &TaskNo| draft.tasks.host(*no).is_some_and(|host| std::mem::take(&mut missing.0[host]));
    service.live.iter().all(takes_place) && missing.count() == 0
}

pub(super) fn reconcile(draft: &mut Draft<'_>, service: &Subjected<'_>) {
    let eligible = Eligible::of(draft, service);
    let bounds = bounds(eligible.count(), &service.spec.deployment_configuration, 0, 100);
    let mut by_host: BTreeMap<HostNo, Vec<TaskNo>> = BTreeMap::new();
    for (no, _) in service.wanted(draft) {
        if let Some(host) = draft.tasks.host(no) {
            by_host.entry(host).or_default().push(no);
        }
    }
    let healthy = service.wanted(draft).filter(|(no, _)| service.healthy(draft, *no)).count();
    let mut budget = healthy.saturating_sub(bounds.floor);

    for (host, mut tasks) in by_host {
        // Of several on one host the newest of the wanted revision stays.
        tasks.sort_by_key(|no| (draft.task(*no).revision == service.target, draft.task(*no).created_at));
        let Some(kept) = tasks.pop() else { continue };
        for no in tasks {
            end(draft, no, StopCode::ServiceSchedulerInitiated, "one daemon task a host is enough");
        }
        let Some((code, reason)) = reason_to_end(draft, service, host, kept, &eligible) else { continue };
        let was_healthy = service.healthy(draft, kept);
        if was_healthy && budget == 0 && code == StopCode::ServiceSchedulerInitiated && eligible.0[host] {
            let subject = Subject::Task(draft.task(kept).id.clone());
            let reason = format!("{reason}: it stays while the floor is {}", bounds.floor);
            draft.waiting(subject, reason, "another task is healthy", None);
            continue;
        }
        budget = budget.saturating_sub(usize::from(was_healthy));
        end(draft, kept, code, &reason);
    }

    start_missing(draft, service, &eligible);
}

fn start_missing(draft: &mut Draft<'_>, service: &Subjected<'_>, eligible: &Eligible) {
    let mut free = eligible.0.clone();
    for no in service.live.iter().filter(|no| draft.task(**no).is_live()) {
        if let Some(host) = draft.tasks.host(*no) {
            free[host] = false;
        }
    }
    let missing: Vec<HostNo> =
        (0..free.len()).filter(|host| free[*host] && draft.hosts[*host].status == HostStatus::Active).collect();
    if missing.is_empty() || service.starts.is_none() {
        return;
    }
    if let Some(at) = service.throttled_until(draft) {
        let reason = format!(
            "{} tasks are missing, but {} in a row failed to start: the next try is delayed",
            missing.len(),
            service.failures(draft)
        );
        draft.waiting(Subject::Service(service.name.clone()), reason, format!("{at}, or a new revision"), Some(at));
        return;
    }
    for host in missing {
        let host = draft.hosts[host].name;
        if let Err(unplaceable) = place::start(draft, service, 0, Some(host), "one task on every matching host") {
            let reason = format!("no daemon task on {host}: {unplaceable}");
            draft.waiting(Subject::Service(service.name.clone()), reason, format!("host {host} has room"), None);
        }
    }
}

fn reason_to_end(
    draft: &mut Draft<'_>,
    service: &Subjected<'_>,
    host_no: HostNo,
    no: TaskNo,
    eligible: &Eligible,
) -> Option<(StopCode, String)> {
    let unhealthy = is_unhealthy(draft, service, no);
    let host = &draft.hosts[host_no];
    let (name, status, heard) = (host.name, host.status, host.heard);
    if matches!(status, HostStatus::Suspect | HostStatus::Lost | HostStatus::Untrusted) || draft.braked() {
        return None;
    }
    if status == HostStatus::Draining {
        // Daemon tasks stop last.
        return (!holds_replicas(draft, host_no))
            .then(|| (StopCode::TerminationNotice, format!("host {name} is being drained")));
    }
    if health::crash_loops(draft.task(no), service.spec.crash_loop, draft.now()) {
        throttle::count_start_failure(draft, no);
        return Some((StopCode::EssentialContainerExited, crash_loop_words(draft.task(no), service.spec.crash_loop)));
    }
    // A host that takes no new tasks just now, or was not looked at yet, does match all the same.
    if !eligible.0[host_no] && status == HostStatus::Active && heard {
        return Some((StopCode::ServiceSchedulerInitiated, format!("host {name} no longer matches {}", service.name)));
    }
    // On a cordoned host nothing could take its place.
    if status == HostStatus::Cordoned {
        if service.replaces(draft.task(no)) {
            let words = service.replacement_words(draft.task(no));
            let reason = format!("{words}: it stays, since host {name} is cordoned and takes no new task");
            let subject = Subject::Task(draft.task(no).id.clone());
            draft.waiting(subject, reason, format!("host {name} is ACTIVE again"), None);
        }
        return None;
    }
    if service.replaces(draft.task(no)) && !(unhealthy && protected_until(draft, no).is_some()) {
        let words = service.replacement_words(draft.task(no));
        if is_protected(draft, no, &words) {
            return None;
        }
        return Some((StopCode::ServiceSchedulerInitiated, words));
    }
    if unhealthy {
        throttle::count_sick(draft, no);
    }
    unhealthy.then(|| (StopCode::ServiceSchedulerInitiated, unhealthy_words(draft.world, draft.task(no))))
}

/// Whether live tasks of services other than daemons are on a host.
fn holds_replicas(draft: &Draft<'_>, host: HostNo) -> bool {
    let is_daemon = |no| {
        let service = draft.tasks.service(no).map(|service| draft.services[service].manifest);
        service.is_some_and(|manifest| manifest.spec.scheduling_strategy == SchedulingStrategy::Daemon)
    };
    draft.tasks.with(|traits| traits.live).any(|(no, _)| draft.tasks.host(no) == Some(host) && !is_daemon(no))
}

fn end(draft: &mut Draft<'_>, no: TaskNo, code: StopCode, reason: &str) {
    if !draft.braked() {
        service::stop(draft, no, code, reason);
    }
}
