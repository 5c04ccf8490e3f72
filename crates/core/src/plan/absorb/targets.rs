//! What edges say of targets → what load balancers make of each task.
//!
//! Rule: "Service load balancing", ECS developer guide: a task behind a load balancer is healthy when its target is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::model::{
    container::HealthStatus,
    name::TargetGroupName,
    state::{Change, Event, EventLevel},
    task::{DesiredStatus, Task},
    traffic::TargetHealth,
    world::World,
};
use crate::plan::traffic;

/// Takes in what the edges show by now.
pub fn targets(world: &World) -> Vec<Change> {
    let state = &world.state;
    let behind = |task: &&Arc<Task>| {
        let service = state.desired.services.get(&task.service);
        service.is_some_and(|manifest| traffic::is_behind(&manifest.spec))
            && task.desired_status == DesiredStatus::Running
    };
    let mut used: BTreeMap<&TargetGroupName, bool> = BTreeMap::new();
    let mut changes = Vec::new();
    for task in state.tasks.values().filter(behind) {
        let mut verdicts = Vec::new();
        for (_, group) in traffic::groups_of(state, task) {
            if *used.entry(group).or_insert_with(|| traffic::is_used(state, group)) {
                verdicts.push(verdict(world, task, group));
            }
        }
        let is_any = |health| verdicts.contains(&health);
        let health = if !traffic::is_registered(task) {
            // What was a target may still be one wherever nobody could ask since (S10).
            task.target_health.map(|_| HealthStatus::Unknown)
        } else if is_any(HealthStatus::Unhealthy) {
            Some(HealthStatus::Unhealthy)
        } else if is_any(HealthStatus::Unknown) {
            // A verdict stands until there is another: an edge that is made anew has none yet.
            task.target_health.or(Some(HealthStatus::Unknown))
        } else {
            Some(HealthStatus::Healthy)
        };
        if health == task.target_health {
            continue;
        }
        let mut changed = Task::clone(task);
        changed.target_health = health;
        if health == Some(HealthStatus::Unhealthy) {
            let why = traffic::reason(world, task).unwrap_or_default();
            let message = format!("task {} on {} takes no requests: {why}", task.id, task.host);
            let event = Event::new(world.now, task.told_in(), EventLevel::Warning, "TargetUnhealthy", message);
            changes.push(Change::Event(event));
        }
        changes.push(Change::Task(Arc::new(changed)));
    }
    changes
}

/// What all edges that know a target say of it together. One that says otherwise may be the one that cannot reach it.
fn verdict(world: &World, task: &Task, group: &TargetGroupName) -> HealthStatus {
    let knows = world.edges.values().filter(|seen| {
        let confirmed = seen.confirmed.as_ref().and_then(|edge| edge.groups.get(group));
        confirmed.is_some_and(|group| group.targets.contains_key(&task.id))
    });
    let said: BTreeSet<TargetHealth> =
        knows.map(|seen| seen.target(group, &task.id).map_or(TargetHealth::Initial, |target| target.health)).collect();
    match said.into_iter().collect::<Vec<_>>().as_slice() {
        [TargetHealth::Healthy] => HealthStatus::Healthy,
        [TargetHealth::Unhealthy] => HealthStatus::Unhealthy,
        _ => HealthStatus::Unknown,
    }
}
