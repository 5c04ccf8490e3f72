//! A container's end, announced by its engine → the end of its task.

use std::sync::Arc;

use crate::model::{
    container::ContainerState,
    name::{ContainerName, TaskId},
    observed::Death,
    state::{Change, Event, EventLevel, ServiceRecord, State},
    task::{DesiredStatus, StopCode, Task, TaskContainer},
    time::Timestamp,
};
use crate::plan::{
    breaker,
    launch::{self, Restart},
    throttle,
};

/// Ends the task of an essential container that died for good, so that it can be replaced before a look shows it: the engine
/// lists a container as running for a while after its end. The task keeps all that it holds until a look does show it (S4).
///
/// `None` when the look has to decide: an unknown container, one that the engine may restart, or news from an earlier life.
pub fn death(state: &State, death: &Death) -> Option<(TaskId, Vec<Change>)> {
    let task = state.tasks.values().find(|task| {
        task.host == death.host
            && task.desired_status == DesiredStatus::Running
            && task.containers.values().any(|row| row.runtime_id.as_ref() == Some(&death.id))
    })?;
    let (name, row) = task.containers.iter().find(|(_, row)| row.runtime_id.as_ref() == Some(&death.id))?;
    let ran = matches!(row.state, Some(ContainerState::Running | ContainerState::Paused));
    // Both by the engine's clock.
    let of_this_life = row.started_at.is_some_and(|started_at| started_at <= death.at);
    if !row.essential || !ran || !of_this_life || !(death.for_good || stays_dead(state, task, name)) {
        return None;
    }
    let reason = exit_words(name, false, death.exit_code);
    let mut changed = Task::clone(task);
    let mut changes = Vec::new();
    if throttle::failed_early(task, death.heard_at) {
        changes.extend(breaker::told(state, failure(state, task, death), death.heard_at));
    }
    changed.order_stop(death.heard_at, StopCode::EssentialContainerExited, reason.clone());
    changes.push(Change::Task(Arc::new(changed)));
    changes.push(Change::Event(ended(task, death.heard_at, &reason, death.exit_code == Some(0))));
    Some((task.id.clone(), changes))
}

/// What is said when a task ends by itself, whoever told of it first.
///
/// A standalone task is meant to end, if it ends `well`; a service's is not.
pub(super) fn ended(task: &Task, at: Timestamp, reason: &str, well: bool) -> Event {
    let level = if well && task.is_standalone() { EventLevel::Normal } else { EventLevel::Warning };
    let message = format!("task {} on {} ended: {reason}", task.id, task.host);
    Event::new(at, task.told_in(), level, "TaskEnded", message)
}

/// A service's record after this failed start. What had begun before the last failure there failed together with it: it was
/// not another attempt.
fn failure(state: &State, task: &Task, death: &Death) -> ServiceRecord {
    let counted = |record: &&ServiceRecord| {
        record.failures.last().is_some_and(|(at, host)| *host == task.host && *at >= task.created_at)
    };
    match state.services.get(&task.service).filter(counted) {
        Some(record) => {
            let mut record = record.clone();
            breaker::count(&mut record, task);
            record
        }
        None => throttle::after_failure(state.services.get(&task.service), task, death.heard_at),
    }
}

/// Whether its restart policy is off from the beginning.
fn stays_dead(state: &State, task: &Task, name: &ContainerName) -> bool {
    let revision = state.revision(&task.revision).map(|revision| launch::of_task(task, revision));
    revision.as_ref().and_then(|revision| revision.spec.as_deref()).is_some_and(|spec| {
        spec.containers()
            .any(|definition| definition.name == name.as_str() && launch::restart(spec, definition) == Restart::Never)
    })
}

/// How an essential container ended, in words.
pub(super) fn exit_words(name: &ContainerName, oom_killed: bool, exit_code: Option<i64>) -> String {
    let how = match (oom_killed, exit_code) {
        (true, _) => "was killed by the kernel: it used more memory than its limit".to_owned(),
        (false, Some(137)) => "was killed (exit code 137)".to_owned(),
        (false, Some(code)) => format!("ended with exit code {code}"),
        (false, None) => "ended".to_owned(),
    };
    format!("essential container {name} {how}")
}

/// What a look adds to the words of an announced end: the announcement does not tell who killed it.
pub(super) fn clearer_words(task: &Task, name: &ContainerName, row: &TaskContainer) -> Option<String> {
    let is_announced = || task.stopped_reason.as_ref() == Some(&exit_words(name, false, row.exit_code));
    (row.oom_killed && is_announced()).then(|| exit_words(name, true, row.exit_code))
}
