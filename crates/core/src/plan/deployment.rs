//! Deployments: their record. PRIMARY is the newest; exactly one outcome each.

use crate::model::{
    deployment::Analysis,
    spec::service::SchedulingStrategy,
    state::{
        Again, Deployment, DeploymentStatus, EventLevel, EventSubject, LifecycleStage, MAX_DEPLOYMENTS_KEPT, Outcome,
        RolloutState, ServiceRecord, Stage,
    },
    time::Timestamp,
    world::HostStatus,
};

use super::{
    draft::{Draft, Host, TaskNo},
    images, place, rollout,
    service::Subjected,
    throttle, traffic,
};

/// Opens a deployment when the service wants another revision than its PRIMARY's, or a person wants it anew.
pub(super) fn begin(draft: &mut Draft<'_>, service: &Subjected<'_>) {
    let record = draft.services[service.no].record();
    let primary = record.and_then(ServiceRecord::primary).filter(|it| it.revision == service.target);
    let stands = primary.is_some_and(|primary| !was_never_tried(draft, service, primary));
    if stands {
        match record.and_then(|record| record.again) {
            None => return,
            // What its images stand for by now is asked first; the answer makes a restart of it, or a new revision.
            Some(Again::Resolve) if images::asks_through(draft, service.no).is_some() => return,
            Some(Again::Resolve | Again::Restart | Again::Retry) => {}
        }
    }
    let now = draft.now();
    draft.change_fleet(|fleet| fleet.next_deployment += 1);
    let id = draft.fleet().next_deployment;
    draft.services[service.no].change(|record| open(record, service, id, now));
    // What was answered before is not of it.
    traffic::analysis::count(draft, service.no);
    traffic::queries::watch(draft, service.no);
    let begun = draft.services[service.no].record().and_then(ServiceRecord::primary);
    let message = begun.map(|begun| format!("deployment {id}: {}", begun.rollout_state_reason)).unwrap_or_default();
    draft.event(EventSubject::Service(service.name.clone()), EventLevel::Normal, "DeploymentStarted", message);
}

/// Whether a deployment completed with no task wanted, and tasks are wanted now: nothing has shown the revision to be good.
fn was_never_tried(draft: &Draft<'_>, service: &Subjected<'_>, primary: &Deployment) -> bool {
    let completed =
        draft.services[service.no].record().is_some_and(|record| record.completed.contains(&service.target));
    let was_healthy = |no: &TaskNo| {
        let task = draft.task(*no);
        task.revision == service.target && task.healthy_at.is_some()
    };
    primary.rollout_state == RolloutState::Completed
        && service.spec.scheduling_strategy == SchedulingStrategy::Replica
        && service.spec.desired_count > 0
        && !completed
        && !service.live.iter().any(was_healthy)
}

fn open(record: &mut ServiceRecord, service: &Subjected<'_>, id: u64, now: Timestamp) {
    let target = &service.target;
    if record.primary().is_none_or(|before| before.revision != *target) {
        // Where another revision failed, this one may not.
        record.failures.clear();
    }
    let rollback_of = rollout::hand_over(record, target, now);
    let takes_turns = service.spec.takes_turns() && !service.exclusive;
    if takes_turns && record.in_service.is_none() {
        let last = record.completed().next().cloned();
        record.in_service = last;
    }
    let again = record.again.take();
    let pinned = record.pin.as_ref().map(|pin| format!(": {}", pin.reason)).unwrap_or_default();
    let restart = match again {
        Some(Again::Resolve | Again::Restart) => true,
        Some(Again::Retry) | None => false,
    };
    // What is in service already needs no turn, and the first of all has nobody to take turns with.
    let takes_its_turn = takes_turns && record.in_service.as_ref().is_some_and(|it| restart || it != target);
    let stage = takes_its_turn.then(|| Stage::begin(LifecycleStage::ReconcileService, now));
    let words = if restart { "is started anew" } else { "is being deployed" };
    let primary = Deployment {
        id,
        revision: target.clone(),
        status: DeploymentStatus::Primary,
        rollout_state: RolloutState::InProgress,
        rollout_state_reason: format!("{target} {words}{pinned}"),
        outcome: None,
        failed_tasks: 0,
        rollback_of,
        restart,
        paused_at: None,
        unplaced_at: None,
        stage,
        hooks: Vec::new(),
        queries: Vec::new(),
        analysis: Analysis::default(),
        created_at: now,
        updated_at: now,
    };
    record.deployments.insert(0, primary);
    record.deployments.truncate(MAX_DEPLOYMENTS_KEPT);
    throttle::reset(record);
}

/// Completes the PRIMARY deployment when the service is steady on it, and retires older ones without tasks.
pub(super) fn conclude(draft: &mut Draft<'_>, service: &Subjected<'_>) {
    let now = draft.now();
    let belongs = match service.spec.scheduling_strategy {
        SchedulingStrategy::Replica => 0,
        SchedulingStrategy::Daemon => place::eligible_hosts(draft, service).len(),
    };
    // A daemon's task on a lost host waits for it for ever: the rollout does not.
    let is_beyond_reach = |no| {
        service.spec.scheduling_strategy == SchedulingStrategy::Daemon
            && matches!(draft.host_status(no), Some(HostStatus::Lost | HostStatus::Untrusted))
    };
    let tasks = || service.known_live(draft).filter(|(no, _)| !is_beyond_reach(*no));
    let side = traffic::turns::live_side(draft, service.no);
    let (mut live, mut current, mut is_mixed) = (0, 0, false);
    for (no, task) in tasks() {
        live += 1;
        if service.is_outdated(task) || task.side != side {
            is_mixed = true;
        } else if service.healthy(draft, no) {
            current += 1;
        }
    }
    let desired = match service.spec.scheduling_strategy {
        SchedulingStrategy::Replica => service.spec.desired_count as usize,
        // Of a daemon: as many as there are, and one wherever it belongs; while a host may yet turn out to be such, one.
        SchedulingStrategy::Daemon => {
            let is_unknown = |host: &Host<'_>| match host.status {
                HostStatus::Active => !host.heard,
                HostStatus::Suspect => true,
                HostStatus::Cordoned | HostStatus::Draining | HostStatus::Lost | HostStatus::Untrusted => false,
            };
            let may_belong = usize::from(draft.hosts.iter().any(is_unknown));
            belongs.max(live).max(may_belong)
        }
    };
    // A daemon that failed on some hosts is missing there, and not among those that are counted.
    let lacks = service.spec.scheduling_strategy == SchedulingStrategy::Daemon && failed_in_reach(draft, service);
    let steady = !is_mixed && current >= desired && service.placed_now(draft) == 0 && !lacks;
    let is_completed = |deployment: &Deployment| {
        let turned = deployment.stage.is_none_or(|stage| stage.name == LifecycleStage::CleanUp);
        steady && turned && deployment.rollout_state == RolloutState::InProgress
    };
    // Tasks of the target are PRIMARY's, also when an older deployment was of the same revision.
    let has_tasks = |deployment: &Deployment| {
        deployment.revision != service.target && tasks().any(|(_, task)| task.revision == deployment.revision)
    };
    let deployments = draft.services[service.no].record().map_or(&[][..], |record| &record.deployments);
    let mut retired = Vec::new();
    let mut completed = false;
    for (index, deployment) in deployments.iter().enumerate() {
        match deployment.status {
            DeploymentStatus::Primary => completed |= is_completed(deployment),
            DeploymentStatus::Active if !has_tasks(deployment) => retired.push(index),
            DeploymentStatus::Active | DeploymentStatus::Inactive => {}
        }
    }
    if !completed && retired.is_empty() {
        return;
    }
    if completed {
        // What waits for the end of a rollout may begin.
        draft.tasks.look_again();
    }
    draft.services[service.no].change(|record| {
        for index in retired {
            record.deployments[index].status = DeploymentStatus::Inactive;
            record.deployments[index].updated_at = now;
        }
        if completed {
            record.deployments[0].rollout_state = RolloutState::Completed;
            record.deployments[0].paused_at = None;
            if service.spec.takes_turns() {
                record.in_service = Some(service.target.clone());
            }
            // With no task nothing was shown to be good: it is no way back.
            if current > 0 {
                record.note_completed(&service.target);
            }
            rollout::end(record, 0, Outcome::Succeeded, format!("{current} healthy tasks"), now);
        }
    });
}

/// Whether one of the failures since the last healthy task was on a host that can be asked: what a lost one lacks, nobody
/// can mend just now.
fn failed_in_reach(draft: &Draft<'_>, service: &Subjected<'_>) -> bool {
    let failures = draft.services[service.no].record().map_or(&[][..], |record| &record.failures);
    // What failed together counts once.
    let since = failures.chunk_by(|one, other| one.0 == other.0).rev().take(service.failures(draft) as usize);
    let status = |host| draft.host_no(host).map(|no| draft.hosts[no].status);
    let in_reach = |host| status(host).is_some_and(|it| !matches!(it, HostStatus::Lost | HostStatus::Untrusted));
    since.flatten().any(|(_, host)| in_reach(host))
}

/// Says of every deployment that ended in this draft how it did: once, in the word that its record has.
pub(super) fn announce_outcomes(draft: &mut Draft<'_>) {
    let mut events = Vec::new();
    for service in draft.services.iter().filter(|service| !service.is_untouched()) {
        let had_ended = |id: u64| {
            let known = service.known().map_or(&[][..], |record| &record.deployments);
            known.iter().any(|known| known.id == id && known.outcome.is_some())
        };
        for ended in service.record().map_or(&[][..], |record| &record.deployments) {
            let Some(outcome) = ended.outcome.filter(|_| !had_ended(ended.id)) else { continue };
            let level = match outcome {
                Outcome::Succeeded | Outcome::Superseded => EventLevel::Normal,
                Outcome::Failed | Outcome::RolledBack => EventLevel::Warning,
            };
            let (id, reason) = (ended.id, &ended.rollout_state_reason);
            let analysis = ended.analysis.words().map(|words| format!("; {words}")).unwrap_or_default();
            let message = format!("deployment {id} of {} {}: {reason}{analysis}", ended.revision, outcome.word());
            events.push((service.name.clone(), level, message));
        }
    }
    for (service, level, message) in events {
        draft.event(EventSubject::Service(service), level, "DeploymentEnded", message);
    }
}
