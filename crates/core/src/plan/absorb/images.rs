//! What images stand for, as a host answered → changes.

use std::collections::BTreeMap;

use crate::model::{
    action::Answer,
    image::ResolvedImage,
    name::RevisionId,
    state::{Again, Change, Event, EventLevel, Revision, ServiceRecord, State},
    task::Task,
};
use crate::plan::images::open_references;

/// Notes it in the task's revision; of a service that a person starts anew, new content is a new revision.
pub(super) fn resolved(
    state: &State,
    task: &Task,
    images: &BTreeMap<String, ResolvedImage>,
    answer: &Answer,
) -> Vec<Change> {
    let Some(revision) = state.revision(&task.revision) else { return Vec::new() };
    let open = open_references(revision);
    if !open.is_empty() {
        let found = images.iter().filter(|(reference, _)| open.contains_key(reference.as_str()));
        return changed(task, revision, revision.id.clone(), found, answer);
    }
    let Some(record) = restarted(state, task) else { return Vec::new() };
    let differs = |(reference, now): &(&String, &ResolvedImage)| {
        revision.images.get(*reference).is_some_and(|known| known != *now)
    };
    let newest = state.revisions.get(&revision.id.family).and_then(|family| family.values().next_back());
    let declared = state.desired.task_definitions.get(&revision.id.family);
    let is_declared = declared.is_some_and(|manifest| manifest.spec.hash() == revision.hash);
    match newest.filter(|_| is_declared && images.iter().any(|image| differs(&image))) {
        Some(newest) => {
            let id = RevisionId { number: newest.id.number.saturating_add(1), ..newest.id.clone() };
            let mut changes = changed(task, revision, id, images.iter().filter(differs), answer);
            changes.push(Change::Service(ServiceRecord { again: None, ..record.clone() }));
            changes
        }
        None => vec![Change::Service(ServiceRecord { again: Some(Again::Restart), ..record.clone() })],
    }
}

/// Nobody could say what the images of a restarted service stand for by now: its tasks are replaced all the same.
pub(super) fn unresolved(state: &State, task: &Task, reason: &str, answer: &Answer) -> Vec<Change> {
    let Some(record) = restarted(state, task) else { return Vec::new() };
    let message = format!("{} is started anew with the images that it has: {reason}", task.service);
    vec![
        Change::Service(ServiceRecord { again: Some(Again::Restart), ..record.clone() }),
        event(task, EventLevel::Warning, "ImagesNotResolved", message, answer),
    ]
}

fn restarted<'a>(state: &'a State, task: &Task) -> Option<&'a ServiceRecord> {
    state.services.get(&task.service).filter(|record| record.again == Some(Again::Resolve))
}

fn changed<'a>(
    task: &Task,
    of: &Revision,
    id: RevisionId,
    found: impl Iterator<Item = (&'a String, &'a ResolvedImage)>,
    answer: &Answer,
) -> Vec<Change> {
    let mut revision = Revision { id, ..of.clone() };
    if revision.id != of.id {
        revision.created_at = answer.at;
    }
    let mut words = Vec::new();
    for (reference, image) in found {
        words.push(match image {
            ResolvedImage::Digest(digest) => format!("{reference} is {digest}"),
            ResolvedImage::Local(id) => format!("{reference} is in no registry, and is {id} on {}", answer.host),
        });
        revision.images.insert(reference.clone(), image.clone());
    }
    let message = format!("in {} {}", revision.id, words.join(", "));
    vec![Change::Revision(revision), event(task, EventLevel::Normal, "ImagesResolved", message, answer)]
}

fn event(task: &Task, level: EventLevel, reason: &str, message: String, answer: &Answer) -> Change {
    Change::Event(Event::new(answer.at, task.told_in(), level, reason, message))
}
