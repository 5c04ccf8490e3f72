//! Deployments: their record. PRIMARY is the newest; exactly one outcome each.

use crate::model::{
    name::RevisionId,
    spec::service::SchedulingStrategy,
    state::{
        Deployment, DeploymentStatus, EventLevel, EventSubject, MAX_DEPLOYMENTS_KEPT, Outcome, RolloutState,
        ServiceRecord,
    },
    task::Task,
    world::HostStatus,
};

use super::{
    draft::Draft,
    service::{self, Subjected},
    throttle,
};

/// Opens a deployment when the service wants another revision than its PRIMARY's.
pub(super) fn begin(draft: &mut Draft<'_>, service: &Subjected<'_>) {
    let mut record = draft.service(service.name);
    if record.deployments.first().is_some_and(|primary| primary.revision == service.target) {
        return;
    }
    let now = draft.now();
    for older in &mut record.deployments {
        if older.status == DeploymentStatus::Primary {
            older.status = DeploymentStatus::Active;
            older.updated_at = now;
            if older.outcome.is_none() {
                older.outcome = Some(Outcome::Superseded);
                older.rollout_state_reason = format!("{} took over", service.target);
            }
        }
    }
    let mut fleet = draft.fleet().clone();
    fleet.next_deployment += 1;
    record.deployments.insert(
        0,
        Deployment {
            id: fleet.next_deployment,
            revision: service.target.clone(),
            status: DeploymentStatus::Primary,
            rollout_state: RolloutState::InProgress,
            rollout_state_reason: format!("{} is being deployed", service.target),
            outcome: None,
            failed_tasks: 0,
            created_at: now,
            updated_at: now,
        },
    );
    draft.put_fleet(fleet);
    record.deployments.truncate(MAX_DEPLOYMENTS_KEPT);
    throttle::reset(&mut record);
    draft.put_service(record);
    draft.event(
        EventSubject::Service(service.name.clone()),
        EventLevel::Normal,
        "DeploymentStarted",
        format!("{} is being deployed", service.target),
    );
}

/// Completes the PRIMARY deployment when the service is steady on it, and retires older ones without tasks.
pub(super) fn conclude(draft: &mut Draft<'_>, service: &Subjected<'_>) {
    let mut record = draft.service(service.name);
    // A daemon's task on a lost host waits for it for ever: the rollout does not.
    let is_beyond_reach = |task: &Task| {
        service.spec.scheduling_strategy == SchedulingStrategy::Daemon
            && matches!(draft.statuses.get(&task.host), Some(HostStatus::Lost | HostStatus::Untrusted))
    };
    let live: Vec<_> = service
        .live
        .iter()
        .filter_map(|id| draft.task(id))
        .filter(|task| task.is_live() && !service::is_ghost(draft, task) && !is_beyond_reach(task))
        .collect();
    let now = draft.now();
    let current = live.iter().filter(|task| task.revision == service.target && service.healthy(draft, task)).count();
    let others = live.iter().filter(|task| task.revision != service.target).count();
    let desired = match service.spec.scheduling_strategy {
        SchedulingStrategy::Replica => service.spec.desired_count as usize,
        // Of a daemon: as many as there are, and at least one where any host matches.
        SchedulingStrategy::Daemon => live.len().max(1),
    };
    let steady = others == 0 && current >= desired && service.placed_now(draft) == 0;
    let mut completed = false;
    for deployment in &mut record.deployments {
        match deployment.status {
            DeploymentStatus::Primary if steady && deployment.rollout_state == RolloutState::InProgress => {
                deployment.rollout_state = RolloutState::Completed;
                deployment.rollout_state_reason = format!("{current} healthy tasks");
                deployment.outcome = Some(Outcome::Succeeded);
                deployment.updated_at = now;
                completed = true;
            }
            DeploymentStatus::Active if !live.iter().any(|task| task.revision == deployment.revision) => {
                deployment.status = DeploymentStatus::Inactive;
                deployment.updated_at = now;
            }
            DeploymentStatus::Primary | DeploymentStatus::Active | DeploymentStatus::Inactive => {}
        }
    }
    draft.put_service(record);
    if completed {
        let message = format!("{} is deployed: {current} healthy tasks", service.target);
        draft.event(EventSubject::Service(service.name.clone()), EventLevel::Normal, "DeploymentCompleted", message);
    }
}

/// Counts a task of this revision that failed before it was healthy.
pub(super) fn count_failure(record: &mut ServiceRecord, revision: &RevisionId) {
    if let Some(deployment) = record
        .deployments
        .iter_mut()
        .find(|deployment| deployment.revision == *revision && deployment.outcome.is_none())
    {
        deployment.failed_tasks = deployment.failed_tasks.saturating_add(1);
    }
}
