//! The deployment circuit breaker: a deployment whose tasks fail is given up.
//!
//! Rules: "How the Amazon ECS deployment circuit breaker detects failures", ECS developer guide. Here it is on unless a
//! manifest says otherwise, and the count can be seen.

use super::{
    draft::{Draft, TaskNo},
    place,
    placement::Unplaceable,
    rollout,
    service::Subjected,
};
use crate::model::{
    name::ServiceName,
    spec::{
        ServiceSpec,
        service::{SchedulingStrategy, ThresholdType},
    },
    state::{Change, Deployment, Event, EventLevel, EventSubject, RolloutState, ServiceRecord, State},
    task::{DesiredStatus, Task},
    time::Timestamp,
    world::HostStatus,
};

/// Of bounded thresholds.
const FEWEST: u64 = 3;
/// Of bounded thresholds.
const MOST: u64 = 200;

/// How many failures end a deployment; `None` when nobody counts. A DAEMON's desired count is that of the hosts that match.
fn threshold(spec: &ServiceSpec, hosts: impl FnOnce() -> usize) -> Option<u32> {
    let breaker = &spec.deployment_configuration.deployment_circuit_breaker;
    if !breaker.enable {
        return None;
    }
    let desired = match spec.scheduling_strategy {
        SchedulingStrategy::Replica => u64::from(spec.desired_count),
        SchedulingStrategy::Daemon => hosts() as u64,
    };
    let value = u64::from(breaker.threshold_configuration.value);
    let threshold = match breaker.threshold_configuration.kind {
        ThresholdType::BoundedPercent => (desired * value).div_ceil(100).clamp(FEWEST, MOST),
        ThresholdType::UnboundedPercent => (desired * value).div_ceil(100).max(1),
        ThresholdType::Count => value.max(1),
    };
    Some(u32::try_from(threshold).unwrap_or(u32::MAX))
}

/// The threshold of a declared service.
pub fn threshold_of(state: &State, service: &ServiceName) -> Option<u32> {
    let spec = &state.desired.services.get(service)?.spec;
    threshold(spec, || place::matching_hosts(state, service, spec))
}

/// `2 of 3 failures, next try in 4 s`; of a deployment that is under way and had any.
pub fn count_in_words(record: &ServiceRecord, threshold: Option<u32>, now: Timestamp) -> Option<String> {
    let primary = record.primary().filter(|primary| primary.rollout_state == RolloutState::InProgress)?;
    if primary.failed_tasks == 0 {
        return None;
    }
    let count = match threshold {
        Some(threshold) => format!("{} of {threshold} failures", primary.failed_tasks),
        None => format!("{} failures", primary.failed_tasks),
    };
    let next = record.not_before.filter(|at| *at > now);
    Some(next.map_or(count.clone(), |at| format!("{count}, next try in {} s", at.since_ms(now).div_ceil(1000))))
}

/// The deployment under way that a task was started by.
fn deployment_of<'r>(record: &'r mut ServiceRecord, task: &Task) -> Option<&'r mut Deployment> {
    let is_its = |primary: &&mut Deployment| {
        primary.rollout_state == RolloutState::InProgress
            && primary.revision == task.revision
            && (task.deployment == primary.id || task.deployment == 0)
    };
    record.deployments.first_mut().filter(is_its)
}

/// Counts a task that failed before it was healthy.
pub(super) fn count(record: &mut ServiceRecord, task: &Task) {
    if let Some(deployment) = deployment_of(record, task) {
        deployment.failed_tasks = deployment.failed_tasks.saturating_add(1);
    }
}

/// A task was healthy for the first time.
pub(super) fn note_healthy(record: &mut ServiceRecord, spec: &ServiceSpec, task: &Task) {
    let resets = spec.deployment_configuration.deployment_circuit_breaker.reset_on_healthy_task;
    if let Some(deployment) = deployment_of(record, task).filter(|_| resets) {
        deployment.failed_tasks = 0;
    }
}

/// A task finds no host: counted once that lasts this long, and again each time it has lasted as long.
const NO_ROOM_MS: u64 = 30_000;

/// Counts that a task of the PRIMARY deployment finds no host.
pub(super) fn note_room(draft: &mut Draft<'_>, service: &Subjected<'_>, unplaceable: Option<&Unplaceable>) {
    let now = draft.now();
    let primary = draft.services[service.no].record().and_then(ServiceRecord::primary);
    let Some(primary) = primary.filter(|it| it.rollout_state == RolloutState::InProgress) else { return };
    let since = primary.unplaced_at;
    let Some(unplaceable) = unplaceable.filter(|_| counts_room(draft, service)) else {
        if since.is_some() {
            draft.services[service.no].change(|record| record.deployments[0].unplaced_at = None);
        }
        return;
    };
    let counted = since.is_some_and(|since| now.since_ms(since) >= NO_ROOM_MS);
    let from = since.filter(|_| !counted).unwrap_or(now);
    draft.wake_at(from.plus_ms(NO_ROOM_MS));
    if since == Some(from) {
        return;
    }
    draft.services[service.no].change(|record| {
        let primary = &mut record.deployments[0];
        primary.unplaced_at = Some(now);
        primary.failed_tasks = primary.failed_tasks.saturating_add(counted.into());
    });
    if counted {
        // It may be one too many.
        draft.tasks.look_again();
        let threshold = threshold_of(&draft.world.state, service.name);
        let said = draft.services[service.no].record().and_then(|record| event(record, threshold, now));
        if let Some(said) = said {
            let message = format!("{}: no host for a task of it: {unplaceable}", said.message);
            draft.event(said.subject, said.level, &said.reason, message);
        }
    }
}

/// Whether the lack of a host counts against the PRIMARY deployment: there is something to go back to, the fleet is settled,
/// and nothing of the service is about to make room. Otherwise waiting is the better answer.
fn counts_room(draft: &Draft<'_>, service: &Subjected<'_>) -> bool {
    let way_back = draft.services[service.no].record().and_then(rollout::way_back);
    let is_settled = draft.hosts.iter().all(|host| match host.status {
        HostStatus::Active | HostStatus::Cordoned | HostStatus::Draining => host.heard,
        HostStatus::Suspect => false,
        HostStatus::Lost | HostStatus::Untrusted => true,
    });
    let is_ending = |no: &TaskNo| draft.task(*no).desired_status == DesiredStatus::Stopped;
    way_back.is_some()
        && is_settled
        && draft.hosts.iter().any(|host| host.status == HostStatus::Active)
        && service.standstill.is_none()
        && !draft.braked()
        && !service.live.iter().any(is_ending)
}

/// What is said of the count once a task of the service failed.
pub(super) fn event(record: &ServiceRecord, threshold: Option<u32>, now: Timestamp) -> Option<Event> {
    let (primary, count) = (record.primary()?, count_in_words(record, threshold, now)?);
    Some(Event::new(
        now,
        EventSubject::Service(record.name.clone()),
        EventLevel::Warning,
        "DeploymentFailures",
        format!("deployment {} of {}: {count}", primary.id, primary.revision),
    ))
}

/// A service's record after a failed start, and what is said of it.
pub(super) fn told(state: &State, record: ServiceRecord, now: Timestamp) -> impl Iterator<Item = Change> {
    let event = event(&record, threshold_of(state, &record.name), now);
    std::iter::once(Change::Service(record)).chain(event.map(Change::Event))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(desired: u32, breaker: &Value) -> Option<u32> {
        let spec = json!({
            "taskDefinition": "web", "desiredCount": desired,
            "deploymentConfiguration": { "deploymentCircuitBreaker": breaker },
        });
        threshold(&serde_json::from_value(spec).unwrap(), || 7)
    }

    #[test]
    fn thresholds() {
        let with = |kind: &str, value: u32| json!({ "thresholdConfiguration": { "type": kind, "value": value } });
        for (desired, breaker, expected) in [
            (1, json!({}), Some(3)),
            (7, json!({}), Some(4)),
            (1000, json!({}), Some(200)),
            (1, json!({ "enable": false }), None),
            (10, with("BOUNDED_PERCENT", 80), Some(8)),
            (1, with("UNBOUNDED_PERCENT", 50), Some(1)),
            (0, with("UNBOUNDED_PERCENT", 50), Some(1)),
            (1000, with("UNBOUNDED_PERCENT", 50), Some(500)),
            (1000, with("COUNT", 2), Some(2)),
        ] {
            assert_eq!(of(desired, &breaker), expected, "{desired} {breaker}");
        }
        let daemon = json!({ "taskDefinition": "web", "schedulingStrategy": "DAEMON" });
        assert_eq!(threshold(&serde_json::from_value(daemon).unwrap(), || 7), Some(4));
    }
}
