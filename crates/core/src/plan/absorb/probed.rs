//! A verdict of the checks from the host → the health of a container and of its task.

use std::sync::Arc;

use crate::model::{
    container::{ContainerState, HealthStatus},
    state::{Change, Event, EventLevel, State},
    task::Task,
    time::Timestamp,
};
use crate::plan::{health, probe::Life};

/// What the checks from a host say of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Of which, in which life.
    pub life: Life,
    /// When.
    pub at: Timestamp,
    /// The verdict.
    pub health: HealthStatus,
    /// Why it is UNHEALTHY, in words.
    pub reason: Option<String>,
}

/// Takes in a verdict; one over another life, or over a container that does not run any more, says nothing.
pub fn probed(state: &State, probed: &Probed) -> Vec<Change> {
    let life = &probed.life;
    let Some(task) = state.tasks.get(&life.task).filter(|task| task.host == life.host) else { return Vec::new() };
    let mut changed = Task::clone(task);
    let Some(row) = changed.containers.get_mut(life.container.as_str()) else { return Vec::new() };
    let is_it = row.runtime_id.as_ref() == Some(&life.id)
        && row.started_at == life.started_at
        && row.state == Some(ContainerState::Running);
    if !is_it || row.health == probed.health {
        return Vec::new();
    }
    row.health = probed.health;
    row.health_reason = probed.reason.clone().filter(|_| probed.health == HealthStatus::Unhealthy);
    changed.health_status = health::task_health(&changed);
    let words = probed.reason.iter().map(|reason| {
        let message =
            format!("container {} of task {} on {} is unhealthy: {reason}", life.container, life.task, life.host);
        Change::Event(Event::new(probed.at, task.told_in(), EventLevel::Warning, "ContainerUnhealthy", message))
    });
    let words: Vec<Change> = words.filter(|_| probed.health == HealthStatus::Unhealthy).collect();
    [Change::Task(Arc::new(changed))].into_iter().chain(words).collect()
}
