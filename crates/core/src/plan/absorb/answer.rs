//! An order's answer → changes.

use std::sync::Arc;

use crate::model::{
    action::{ActionResult, Answer, PrunedImage, VerbName},
    name::{ContainerName, RuntimeId},
    state::{Change, Event, EventLevel, EventSubject, State},
    task::{LastStatus, Launch, StopCode, Task},
    volume::VolumeRecord,
};
use crate::plan::{breaker, throttle};

use super::images;

/// Notes how an order ended. Only a launch's answer changes a task: of stops and removals the next complete look tells.
pub fn answer(state: &State, answer: &Answer) -> Vec<Change> {
    if let (ActionResult::Done { .. }, VerbName::Sweep) = (&answer.result, answer.key.verb) {
        return old_copy_removed(state, answer);
    }
    if let ActionResult::Pruned { images, why, .. } = &answer.result {
        return images_removed(images, why, answer);
    }
    let Some(task) = state.tasks.get(&answer.key.task) else { return Vec::new() };
    let mut changed: Task = (**task).clone();
    let mut changes = Vec::new();
    match (&answer.result, answer.key.verb) {
        (ActionResult::Done { containers }, VerbName::Launch) => {
            changed.launch = Launch::Answered { at: answer.at };
            note_ids(&mut changed, containers);
        }
        // What runs goes on: only a further container of it could not be started, or one that it can be without.
        (
            ActionResult::Partly { reason, containers } | ActionResult::Failed { reason, containers },
            VerbName::Launch,
        ) if task.last_status >= LastStatus::Running || matches!(answer.result, ActionResult::Partly { .. }) => {
            changed.launch = Launch::Answered { at: answer.at };
            note_ids(&mut changed, containers);
            let message = format!("a container of task {} on {} could not start: {reason}", changed.id, changed.host);
            changes.push(event(answer, &changed, "ContainerFailedToStart", message));
        }
        (ActionResult::Failed { reason, containers }, VerbName::Launch) => {
            changed.launch = Launch::Answered { at: answer.at };
            note_ids(&mut changed, containers);
            fail_start(state, answer, &mut changed, reason, &mut changes);
        }
        (ActionResult::Resolved { images }, _) => changes.extend(images::resolved(state, task, images, answer)),
        (ActionResult::Failed { reason, .. }, VerbName::Resolve) if is_waiting(task) => {
            fail_start(state, answer, &mut changed, reason, &mut changes);
            changed.advance(LastStatus::Stopped);
            changed.stopped_at = Some(answer.at);
        }
        (ActionResult::Failed { reason, .. } | ActionResult::Removed { reason, .. }, VerbName::Resolve) => {
            changes.extend(images::unresolved(state, task, reason, answer));
        }
        (ActionResult::Removed { reason, containers }, VerbName::Launch) => {
            changed.launch = Launch::Answered { at: answer.at };
            note_ids(&mut changed, containers);
            if task.last_status < LastStatus::Running && task.is_wanted() {
                let reason = format!("somebody removed its container before it was started: {reason}");
                changed.order_stop(answer.at, StopCode::TaskFailedToStart, reason.clone());
                if !task.is_standalone() {
                    let record = throttle::after_removal(state.services.get(&changed.service), &changed, answer.at);
                    changes.push(Change::Service(record));
                }
                let message = format!("task {} on {} could not start: {reason}", changed.id, changed.host);
                changes.push(event(answer, &changed, "TaskFailedToStart", message));
            }
        }
        (
            ActionResult::Failed { reason, .. } | ActionResult::Removed { reason, .. },
            VerbName::Stop | VerbName::Remove | VerbName::Tidy,
        ) => {
            changes.push(event(
                answer,
                &changed,
                "OrderFailed",
                format!("host {} refused to end task {}: {reason}", changed.host, changed.id),
            ));
        }
        // A look tells whether they are gone; while a container has one, its removal is tried again.
        (
            ActionResult::Failed { .. } | ActionResult::Removed { .. } | ActionResult::Done { .. },
            VerbName::Sweep | VerbName::Prune,
        )
        | (ActionResult::Pruned { .. }, _) => {}
        // Sent or not, nobody knows for certain: the task stays as it is until a look tells (S9).
        (ActionResult::Partly { .. } | ActionResult::Unknown { .. } | ActionResult::NotSent { .. }, _)
        | (ActionResult::Done { .. }, VerbName::Resolve | VerbName::Stop | VerbName::Remove | VerbName::Tidy) => {}
    }
    if changed != **task {
        changes.push(Change::Task(Arc::new(changed)));
    }
    changes
}

/// What a move left behind is gone.
fn old_copy_removed(state: &State, answer: &Answer) -> Vec<Change> {
    let is_it =
        |record: &&VolumeRecord| record.old_copy.as_ref() == Some(&answer.host) && record.removal() == answer.key.task;
    let gone = state.volumes.values().filter(is_it);
    gone.map(|record| Change::Volume(VolumeRecord { old_copy: None, ..record.clone() })).collect()
}

/// Tells of it in the host's story.
fn images_removed(images: &[PrunedImage], why: &str, answer: &Answer) -> Vec<Change> {
    if images.is_empty() {
        return Vec::new();
    }
    let megabytes = images.iter().map(|image| image.size_bytes).fold(0, u64::saturating_add) / 1_000_000;
    let size = match megabytes {
        0..1_000 => format!("{megabytes} MB"),
        1_000.. => format!("{}.{} GB", megabytes / 1_000, megabytes % 1_000 / 100),
    };
    let number = images.len();
    let message = format!("removed {number} image{}, {size}: {why}", if number == 1 { "" } else { "s" });
    let subject = EventSubject::Host(answer.host.clone());
    vec![Change::Event(Event::new(answer.at, subject, EventLevel::Normal, "ImagesRemoved", message))]
}

/// Whether nothing was ever sent for a task that is wanted.
fn is_waiting(task: &Task) -> bool {
    task.launch == Launch::NotIssued && task.is_wanted()
}

fn fail_start(state: &State, answer: &Answer, task: &mut Task, reason: &str, changes: &mut Vec<Change>) {
    task.order_stop(answer.at, StopCode::TaskFailedToStart, reason);
    if !task.is_standalone() {
        let record = throttle::after_failure(state.services.get(&task.service), task, answer.at);
        changes.extend(breaker::told(state, record, answer.at));
    }
    let message = format!("task {} on {} could not start: {reason}", task.id, task.host);
    changes.push(event(answer, task, "TaskFailedToStart", message));
}

fn note_ids(task: &mut Task, containers: &[(ContainerName, RuntimeId)]) {
    for (name, id) in containers {
        if let Some(container) = task.containers.get_mut(name) {
            container.runtime_id = Some(id.clone());
        }
    }
}

fn event(answer: &Answer, task: &Task, reason: &str, message: String) -> Change {
    Change::Event(Event::new(answer.at, task.told_in(), EventLevel::Warning, reason, message))
}
