//! Deployments: their record. PRIMARY is the newest; exactly one outcome each.

use crate::model::{
    spec::service::SchedulingStrategy,
    state::{
        Deployment, DeploymentStatus, EventLevel, EventSubject, MAX_DEPLOYMENTS_KEPT, Outcome, RolloutState,
        ServiceRecord,
    },
    time::Timestamp,
    world::HostStatus,
};

use super::{draft::Draft, service::Subjected, throttle};

/// Opens a deployment when the service wants another revision than its PRIMARY's.
pub(super) fn begin(draft: &mut Draft<'_>, service: &Subjected<'_>) {
    let primary = draft.services[service.no].record().and_then(|record| record.deployments.first());
    if primary.is_some_and(|primary| primary.revision == service.target) {
        return;
    }
    let now = draft.now();
    draft.change_fleet(|fleet| fleet.next_deployment += 1);
    let id = draft.fleet().next_deployment;
    draft.services[service.no].change(|record| open(record, service, id, now));
    draft.event(
        EventSubject::Service(service.name.clone()),
        EventLevel::Normal,
        "DeploymentStarted",
        format!("{} is being deployed", service.target),
    );
}

fn open(record: &mut ServiceRecord, service: &Subjected<'_>, id: u64, now: Timestamp) {
    for older in record.deployments.iter_mut().filter(|older| older.status == DeploymentStatus::Primary) {
        older.status = DeploymentStatus::Active;
        older.updated_at = now;
        if older.outcome.is_none() {
            older.outcome = Some(Outcome::Superseded);
            older.rollout_state_reason = format!("{} took over", service.target);
        }
    }
    let primary = Deployment {
        id,
        revision: service.target.clone(),
        status: DeploymentStatus::Primary,
        rollout_state: RolloutState::InProgress,
        rollout_state_reason: format!("{} is being deployed", service.target),
        outcome: None,
        failed_tasks: 0,
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
    // A daemon's task on a lost host waits for it for ever: the rollout does not.
    let is_beyond_reach = |no| {
        service.spec.scheduling_strategy == SchedulingStrategy::Daemon
            && matches!(draft.host_status(no), Some(HostStatus::Lost | HostStatus::Untrusted))
    };
    let tasks = || service.known_live(draft).filter(|(no, _)| !is_beyond_reach(*no));
    let (mut live, mut others, mut current) = (0, 0, 0);
    for (no, task) in tasks() {
        live += 1;
        if task.revision != service.target {
            others += 1;
        } else if service.healthy(draft, no) {
            current += 1;
        }
    }
    let desired = match service.spec.scheduling_strategy {
        SchedulingStrategy::Replica => service.spec.desired_count as usize,
        // Of a daemon: as many as there are, and at least one where any host matches.
        SchedulingStrategy::Daemon => live.max(1),
    };
    let steady = others == 0 && current >= desired && service.placed_now(draft) == 0;
    let is_completed = |deployment: &Deployment| steady && deployment.rollout_state == RolloutState::InProgress;
    // Tasks of the target are PRIMARY's, also when an older deployment was of the same revision.
    let has_tasks = |deployment: &Deployment| {
        deployment.revision != service.target && tasks().any(|(_, task)| task.revision == deployment.revision)
    };
    let deployments = draft.services[service.no].record().map_or(&[][..], |record| &record.deployments);
    let mut retired = Vec::new();
    let mut completed = None;
    for (index, deployment) in deployments.iter().enumerate() {
        match deployment.status {
            DeploymentStatus::Primary if is_completed(deployment) => completed = Some(index),
            DeploymentStatus::Active if !has_tasks(deployment) => retired.push(index),
            DeploymentStatus::Primary | DeploymentStatus::Active | DeploymentStatus::Inactive => {}
        }
    }
    if completed.is_none() && retired.is_empty() {
        return;
    }
    draft.services[service.no].change(|record| {
        for (index, deployment) in record.deployments.iter_mut().enumerate() {
            if completed == Some(index) {
                deployment.rollout_state = RolloutState::Completed;
                deployment.rollout_state_reason = format!("{current} healthy tasks");
                deployment.outcome = Some(Outcome::Succeeded);
                deployment.updated_at = now;
            } else if retired.contains(&index) {
                deployment.status = DeploymentStatus::Inactive;
                deployment.updated_at = now;
            }
        }
    });
    if completed.is_some() {
        let message = format!("{} is deployed: {current} healthy tasks", service.target);
        draft.event(EventSubject::Service(service.name.clone()), EventLevel::Normal, "DeploymentCompleted", message);
    }
}
