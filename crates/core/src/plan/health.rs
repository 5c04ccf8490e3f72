//! When a task is healthy.
//!
//! Rules: "Health check", ECS task definition parameters; "healthy" for deployments, ECS service scheduler.

use crate::model::{
    container::{ContainerState, HealthStatus},
    network::SANDBOX,
    spec::{ServiceSpec, service::CrashLoop},
    task::{LastStatus, Task, TaskContainer},
    time::Timestamp,
};
use crate::plan::traffic;

/// Task health over the essential containers: any UNHEALTHY → UNHEALTHY; else any UNKNOWN → UNKNOWN; else HEALTHY.
pub fn task_health(task: &Task) -> HealthStatus {
    let verdicts =
        || task.containers.values().filter(|container| container.essential).map(|container| container.health);
    if verdicts().any(|health| health == HealthStatus::Unhealthy) {
        HealthStatus::Unhealthy
    } else if verdicts().any(|health| health == HealthStatus::Unknown) {
        HealthStatus::Unknown
    } else {
        HealthStatus::Healthy
    }
}

/// Whether every essential container runs now.
pub fn all_running(task: &Task) -> bool {
    task.containers
        .values()
        .filter(|container| container.essential)
        .all(|container| container.state == Some(ContainerState::Running))
}

/// Whether what holds its network began a new life while others go on in the network of the one before.
pub(super) fn has_lost_its_network(task: &Task) -> bool {
    let runs = |row: &&TaskContainer| row.state == Some(ContainerState::Running);
    let sandbox = task.containers.get(SANDBOX).filter(runs).and_then(|row| row.started_at);
    let others = task.containers.iter().filter(|(name, row)| name.as_str() != SANDBOX && runs(row));
    sandbox.is_some_and(|since| others.filter_map(|(_, row)| row.started_at).any(|started_at| started_at < since))
}

/// Whether a task counts as healthy at `now`; `Err` tells when it will by itself, if it only has to wait.
///
/// With a check: HEALTHY. Behind a load balancer: its target is healthy, too. Without any: RUNNING for `minimumHealthySeconds`.
pub fn healthy(task: &Task, spec: &ServiceSpec, now: Timestamp) -> Result<(), Option<Timestamp>> {
    if !task.is_wanted() || task.last_status != LastStatus::Running || !all_running(task) {
        return Err(None);
    }
    let is_behind = traffic::is_behind(spec);
    if is_behind && task.target_health != Some(HealthStatus::Healthy) {
        return Err(None);
    }
    let mut healthy_at = Timestamp(0);
    for container in task.containers.values().filter(|container| container.essential) {
        if container.has_health_check {
            if container.health != HealthStatus::Healthy {
                return Err(None);
            }
        } else if !is_behind {
            // By our own clock: the host's may be wrong. A restart by the engine starts the wait anew.
            let running_since = task.restarts.last().copied().max(task.started_at).unwrap_or(now);
            healthy_at = healthy_at.max(running_since.plus_ms(spec.minimum_healthy_seconds.as_ms()));
        }
    }
    if healthy_at <= now { Ok(()) } else { Err(Some(healthy_at)) }
}

/// Whether a check says that a task is unhealthy: one of its containers, or its service's load balancer.
pub(super) fn is_unhealthy(task: &Task, spec: &ServiceSpec) -> bool {
    task.health_status == HealthStatus::Unhealthy
        || traffic::is_behind(spec) && task.target_health == Some(HealthStatus::Unhealthy)
}

/// Whether the containers of a task were restarted so often that it is a crash loop by now.
pub(super) fn crash_loops(task: &Task, limits: CrashLoop, now: Timestamp) -> bool {
    let recent = task.restarts.iter().filter(|at| now.since_ms(**at) < limits.period.as_ms()).count();
    recent >= limits.restarts as usize
}
