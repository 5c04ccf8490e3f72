//! What the images of a revision stand for: asked once, before its first task starts, so that all of them run the same bits.
//!
//! Rule: "Container image resolution" (software version consistency), ECS developer guide.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    action::{ActionKey, Verb, VerbName},
    image::{self, ImageRequest, ResolvedImage},
    name::{HostName, RevisionId},
    spec::{
        service::TaskDefinitionRef,
        task_definition::{ContainerDefinition, VersionConsistency},
    },
    state::{Again, Revision},
    task::{Launch, Task},
    time::Timestamp,
    world::Subject,
};

use super::{
    draft::{Draft, ServiceNo, TaskNo},
    launch, orders,
};

/// References of a revision that stand for nothing certain yet, each once. Those of containers that the task can be without
/// are not asked for: what they run is what their tag says on their host.
pub(super) fn open_references(revision: &Revision) -> BTreeMap<&str, &ContainerDefinition> {
    let Some(spec) = &revision.spec else { return BTreeMap::new() };
    let open = |container: &&ContainerDefinition| {
        !image::has_digest(&container.image)
            && container.version_consistency != Some(VersionConsistency::Disabled)
            && !revision.images.contains_key(&container.image)
            && launch::is_needed(spec, container)
    };
    spec.container_definitions.iter().filter(open).map(|container| (container.image.as_str(), container)).collect()
}

/// Revisions whose images a host is being asked for: one host each.
#[derive(Default)]
pub(super) struct Resolving {
    under_way: Option<BTreeMap<RevisionId, HostName>>,
    /// Hosts that could not say, and are not asked again before this.
    paused: Option<BTreeMap<(RevisionId, HostName), Timestamp>>,
    told: BTreeSet<RevisionId>,
}

/// Whether it is known what the images of a task's revision stand for; if not, a host is asked: this task's, unless another
/// one just is.
pub(super) fn are_known(draft: &mut Draft<'_>, no: TaskNo, resolving: &mut Resolving) -> bool {
    let id = draft.task(no).revision.clone();
    let Some(revision) = draft.revision(&id).filter(|revision| !open_references(revision).is_empty()) else {
        return true;
    };
    let known = Revision { images: known_by_tasks(draft, revision), ..revision.clone() };
    if known.images != revision.images {
        let all = open_references(&known).is_empty();
        draft.put_revision(known);
        if all {
            return true;
        }
    }
    let under_way = resolving.under_way.get_or_insert_with(|| under_way(draft));
    if !under_way.contains_key(&id) {
        let (key, host) = (question(draft.task(no)), draft.task(no).host.clone());
        let paused = resolving.paused.get_or_insert_with(|| paused(draft));
        match paused.get(&(id.clone(), host.clone())) {
            // Through another task it was asked a moment ago.
            Some(at) if !draft.world.retry_at.contains_key(&key) => draft.wake_at(*at),
            Some(_) | None if orders::may_order(draft, no, VerbName::Resolve) => {
                under_way.insert(id.clone(), host);
                let images = requests(draft, no, false);
                orders::act(draft, no, Verb::Resolve { images, fresh: false }, format!("{id} is about to start"));
            }
            Some(_) | None => {}
        }
    }
    if let Some(host) = under_way.get(&id).filter(|_| resolving.told.insert(id.clone())) {
        let open = draft.revision(&id).map(open_references).unwrap_or_default();
        let open: Vec<&str> = open.into_keys().collect();
        let reason =
            format!("host {host} is asked what {} stands for, before the first task of {id} starts", open.join(", "));
        draft.waiting(subject(draft.task(no)), reason, "it answers", None);
    }
    false
}

/// Questions that hosts which can be heard have not answered. As the tasks stand in this draft: one that it stops asks no more.
fn under_way(draft: &Draft<'_>) -> BTreeMap<RevisionId, HostName> {
    let is_asked = |task: &Task| draft.world.in_flight.contains(&question(task));
    let asked =
        draft.tasks.iter().filter(|task| task.launch == Launch::NotIssued && task.is_wanted() && is_asked(task));
    let heard = asked.filter(|task| draft.host_no(&task.host).is_some_and(|host| draft.hosts[host].heard));
    heard.map(|task| (task.revision.clone(), task.host.clone())).collect()
}

/// Hosts whose last answer was of no use, until they are asked again.
fn paused(draft: &Draft<'_>) -> BTreeMap<(RevisionId, HostName), Timestamp> {
    if draft.world.retry_at.is_empty() {
        return BTreeMap::new();
    }
    let wanted = draft.tasks.iter().filter(|task| task.launch == Launch::NotIssued && task.is_wanted());
    let pause = wanted.filter_map(|task| {
        let (at, _) = draft.world.retry_at.get(&question(task)).filter(|(at, _)| *at > draft.now())?;
        Some(((task.revision.clone(), task.host.clone()), *at))
    });
    pause.collect()
}

/// Who waits: a service waits as one.
fn subject(task: &Task) -> Subject {
    match task.is_standalone() {
        true => Subject::Task(task.id.clone()),
        false => Subject::Service(task.service.clone()),
    }
}

fn question(task: &Task) -> ActionKey {
    ActionKey { task: task.id.clone(), verb: VerbName::Resolve }
}

/// What a revision's images are known to stand for: also by what its tasks run, of before the database was lost.
fn known_by_tasks(draft: &Draft<'_>, revision: &Revision) -> BTreeMap<String, ResolvedImage> {
    let mut images = revision.images.clone();
    for (reference, container) in open_references(revision) {
        let rows = draft.tasks.iter().filter(|task| task.revision == revision.id);
        let rows = rows.filter_map(|task| task.containers.get(container.name.as_str()));
        let run = rows.map(|row| row.image.as_str()).filter(|run| image::same_repository(run, reference));
        if let Some(digest) = run.filter_map(image::digest).next() {
            images.insert(reference.to_owned(), ResolvedImage::Digest(digest.to_owned()));
        }
    }
    images
}

/// What to ask a task's host; `anew`, also for what is known already.
fn requests(draft: &Draft<'_>, no: TaskNo, anew: bool) -> Vec<ImageRequest> {
    let task = draft.task(no);
    let Some(revision) = draft.revision(&task.revision) else { return Vec::new() };
    let default = draft.world.state.desired.cluster(&task.cluster).image_pull_policy;
    let all = revision.spec.iter().flat_map(|spec| &spec.container_definitions);
    let open: BTreeMap<&str, &ContainerDefinition> = match anew {
        true => all.filter(|it| revision.images.contains_key(&it.image)).map(|it| (it.image.as_str(), it)).collect(),
        false => open_references(revision),
    };
    let request = |(reference, container): (&str, &ContainerDefinition)| ImageRequest {
        reference: reference.to_owned(),
        policy: container.image_pull_policy.or(default).unwrap_or_default(),
        last_digest: last_digest(draft, &revision.id, reference),
    };
    open.into_iter().map(request).collect()
}

fn last_digest(draft: &Draft<'_>, id: &RevisionId, reference: &str) -> Option<String> {
    let family = draft.world.state.revisions.get(&id.family)?;
    family.values().rev().find_map(|revision| Some(revision.images.get(reference)?.digest()?.to_owned()))
}

/// Asks what the images of restarted services stand for by now.
pub(super) fn ask_anew(draft: &mut Draft<'_>) {
    for service in 0..draft.services.len() {
        let again = draft.services[service].record().and_then(|record| record.again);
        let Some(no) = asks_through(draft, service).filter(|_| again == Some(Again::Resolve)) else { continue };
        if orders::may_order(draft, no, VerbName::Resolve) {
            let images = requests(draft, no, true);
            orders::act(draft, no, Verb::Resolve { images, fresh: true }, "a person starts it anew".to_owned());
        }
        let name = draft.services[service].name.clone();
        let reason = format!("host {} is asked what its images stand for by now", draft.task(no).host);
        draft.waiting(Subject::Service(name), reason, "it answers", None);
    }
}

/// Through which task's host it is asked what a service's images stand for by now. None when nobody can be asked, or when the
/// answer is of no use: the manifest names a revision, or the service was taken back to one.
pub(super) fn asks_through(draft: &Draft<'_>, service: ServiceNo) -> Option<TaskNo> {
    let row = &draft.services[service];
    let names_family = |name: &TaskDefinitionRef| match name {
        TaskDefinitionRef::Named(name) => !name.contains(':'),
        TaskDefinitionRef::Inline(_) => true,
    };
    let target = row.target.as_ref()?.as_ref().ok()?;
    let is_newest = row.wanted.as_ref()?.as_ref() == Ok(target) && names_family(&row.manifest.spec.task_definition);
    if !is_newest || draft.revision(target)?.images.is_empty() {
        return None;
    }
    let asks = |no: &TaskNo| {
        let task = draft.task(*no);
        draft.tasks.service(*no) == Some(service) && task.is_wanted() && task.revision == *target && draft.is_heard(*no)
    };
    // Who was asked is not asked again through another one, whichever tasks come and go meanwhile.
    let is_asked = |no: &TaskNo| draft.world.in_flight.contains(&question(draft.task(*no)));
    draft.tasks.numbers().filter(asks).min_by_key(|no| (!is_asked(no), draft.task(*no).id.clone()))
}
