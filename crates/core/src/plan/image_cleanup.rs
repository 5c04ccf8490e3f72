//! Images that nothing needs any more go from hosts whose disk is nearly full, those longest out of use first.
//!
//! Rule: the kubelet's image garbage collection. It goes for images that we brought only: all of whose names are of revisions
//! that we know. Docker itself refuses to remove one that a container has.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    action::{Action, ActionKey, PrunedImage, Verb, VerbName},
    image::{self, ResolvedImage},
    name::{HostName, RevisionId, ServiceName},
    observed::HostObservation,
    spec::{cluster::ImageCleanup, service::TaskDefinitionRef},
    state::{EventLevel, EventSubject, Revision},
    storage::{StorageSeen, StoredImage},
    task::LastStatus,
    time::Timestamp,
    world::{Subject, World},
};

use super::{
    draft::{Draft, HostNo},
    revision, sweep,
};

/// At most so many images in one order: what it freed is looked at before the next.
const MAX_IMAGES: usize = 16;
/// An older look at a disk is no ground to remove anything.
const STALE_MS: u64 = 5 * 60_000;

/// Orders the removal of images where a disk is too full, or says that there is none to remove.
pub(super) fn issue(draft: &mut Draft<'_>) {
    let world = draft.world;
    let mut known = Known::default();
    for (name, seen) in &world.storage {
        let Some(host) = draft.host_no(name).filter(|host| draft.hosts[*host].heard) else { continue };
        let (Some(disk), Some(look)) = (seen.disk, world.state.observations.get(name)) else { continue };
        let (cleanup, percent) = (world.state.desired.image_cleanup(name), disk.used_percent());
        if percent <= cleanup.low_threshold_percent && is_told(draft, host) {
            draft.hosts[host].change(|record| record.disk_pressure_since = None);
        }
        let is_stale = world.now.since_ms(seen.started_at) >= STALE_MS;
        if percent <= cleanup.high_threshold_percent || is_stale {
            continue;
        }
        let key = ActionKey { task: format!("images-of-{name}").into(), verb: VerbName::Prune };
        if !sweep::is_due(draft, &key) {
            continue;
        }
        let mut excess_bytes = disk.excess_bytes(cleanup.low_threshold_percent);
        let mut images = removable(draft, seen, look, cleanup, &mut known);
        images.truncate(MAX_IMAGES);
        images.retain(|image| {
            let is_needed = excess_bytes > 0;
            excess_bytes = excess_bytes.saturating_sub(image.size_bytes);
            is_needed
        });
        if images.is_empty() {
            tell(draft, host, &seen.data_root, percent, cleanup);
            continue;
        }
        let reason = format!("the disk of {} was {percent} % full", seen.data_root);
        draft.doing("remove images", Subject::Host(name.clone()), Some(name), reason.clone());
        let (task, service) = (key.task, ServiceName::default());
        draft.act(Action { task, service, host: name.clone(), verb: Verb::Prune { images }, reason });
    }
}

/// Whether some disk is fuller than it may be.
pub(super) fn is_needed(world: &World) -> bool {
    world.storage.iter().any(|(name, seen)| {
        let high = world.state.desired.image_cleanup(name).high_threshold_percent;
        seen.disk.is_some_and(|disk| disk.used_percent() > high)
    })
}

fn is_told(draft: &Draft<'_>, host: HostNo) -> bool {
    draft.hosts[host].record().is_some_and(|record| record.disk_pressure_since.is_some())
}

/// A disk stays too full: an event when it begins, a reason for as long as it lasts.
fn tell(draft: &mut Draft<'_>, host: HostNo, data_root: &str, percent: u32, cleanup: ImageCleanup) {
    let (name, now) = (draft.hosts[host].name, draft.now());
    let words = format!("the disk of {data_root} is {percent} % full, and no image can be removed");
    let wakes_when = format!("it is no fuller than {} %: free space there", cleanup.high_threshold_percent);
    draft.waiting(Subject::Host(name.clone()), words.clone(), wakes_when, None);
    if !is_told(draft, host) {
        draft.hosts[host].change(|record| record.disk_pressure_since = Some(now));
        draft.event(
            EventSubject::Host(name.clone()),
            EventLevel::Warning,
            "DiskPressure",
            format!("host {name}: {words}"),
        );
    }
}

/// What is found out once, when a disk is first seen too full.
#[derive(Default)]
struct Known {
    /// Names that revisions have for their images, and when the newest of these was made.
    ours: Option<BTreeMap<String, Timestamp>>,
    /// What is kept for the sake of what is declared, by how many revisions stay.
    kept: BTreeMap<u32, Images>,
}

/// Images on a host that may be removed, the first first.
fn removable(
    draft: &Draft<'_>,
    seen: &StorageSeen,
    look: &HostObservation,
    cleanup: ImageCleanup,
    known: &mut Known,
) -> Vec<PrunedImage> {
    let in_use = seen.in_use(look.containers.values());
    let unused: Vec<(&String, &StoredImage)> =
        seen.images.iter().filter(|(id, image)| !in_use.contains(id.as_str()) && !image.digests.is_empty()).collect();
    if unused.is_empty() {
        return Vec::new();
    }
    let ours = known.ours.get_or_insert_with(|| ours(draft));
    let kept = known.kept.entry(cleanup.keep_revisions).or_insert_with_key(|keep| kept(draft, *keep));
    let (here, ended) = tasks_on(draft, &look.host);
    let mut found: Vec<(Timestamp, Timestamp, PrunedImage)> = Vec::new();
    for (id, image) in unused {
        let is_needed = || kept.has(id, image) || here.has(id, image);
        // A name that no revision has is somebody else's.
        let made: Option<Vec<Timestamp>> =
            image.names().map(|name| ours.get(&image::familiar(name)).copied()).collect();
        let Some(made) = made.filter(|_| !is_needed()) else { continue };
        let last_ended = ended.iter().filter(|(_, images)| images.has(id, image)).map(|(at, _)| *at).max();
        let used_at = seen.used_at.get(id).copied().max(last_ended).unwrap_or(seen.started_at);
        if draft.now().since_ms(used_at) >= cleanup.minimum_age.as_ms() {
            let made = made.into_iter().max().unwrap_or_default();
            found.push((used_at, made, PrunedImage { id: id.clone(), size_bytes: image.size_bytes }));
        }
    }
    found.sort_by(|one, other| (one.0, one.1, &one.2.id).cmp(&(other.0, other.1, &other.2.id)));
    found.into_iter().map(|(_, _, image)| image).collect()
}

fn ours(draft: &Draft<'_>) -> BTreeMap<String, Timestamp> {
    let mut ours = BTreeMap::new();
    for revision in draft.revisions().into_values() {
        for reference in references(revision) {
            for name in [reference, &revision.image(reference)] {
                let at = ours.entry(image::familiar(name)).or_insert(revision.created_at);
                *at = revision.created_at.max(*at);
            }
        }
    }
    ours
}

fn references(revision: &Revision) -> impl Iterator<Item = &str> {
    let containers = revision.spec.iter().flat_map(|spec| &spec.container_definitions);
    let resolved = revision.images.keys().map(String::as_str);
    containers.map(|container| container.image.as_str()).chain(resolved)
}

/// The newest revisions of each family that a service, a schedule or a standalone task names, and those that a service aims at
/// or may go back to.
fn kept(draft: &Draft<'_>, keep: u32) -> Images {
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let (mut ids, mut families): (BTreeSet<RevisionId>, BTreeSet<&str>) = Default::default();
    for service in &draft.services {
        match &service.manifest.spec.task_definition {
            TaskDefinitionRef::Named(name) => drop(families.insert(family(name))),
            TaskDefinitionRef::Inline(_) => {}
        }
        let aims = [&service.wanted, &service.target].into_iter().filter_map(|aim| aim.as_ref()?.as_ref().ok());
        let ways_back = service.record().into_iter().flat_map(|record| {
            let runs = record.primary().map(|primary| &primary.revision);
            record.completed().take(keep).chain(record.pin.iter().map(|pin| &pin.revision)).chain(runs)
        });
        ids.extend(aims.chain(ways_back).cloned());
    }
    for manifest in draft.world.state.desired.scheduled_tasks.values() {
        let name = &manifest.spec.task_definition;
        families.insert(family(name));
        ids.extend(revision::named(draft, name).ok());
    }
    for task in draft.remembered_tasks().filter(|task| task.is_standalone()) {
        families.insert(task.revision.family.as_str());
        ids.insert(task.revision.clone());
    }
    let revisions = draft.revisions();
    for family in families {
        let of_it = |number| RevisionId { family: family.into(), number };
        let numbers = revisions.range::<RevisionId, _>(of_it(0)..=of_it(u32::MAX));
        ids.extend(numbers.rev().take(keep).map(|(id, _)| (*id).clone()));
    }
    let mut images = Images::default();
    ids.iter().filter_map(|id| revisions.get(id)).for_each(|revision| images.add(revision));
    images
}

/// Of `family` or `family:number`.
fn family(name: &str) -> &str {
    name.split_once(':').map_or(name, |(family, _)| family)
}

/// What tasks on a host run, or are about to; and what those that ended there ran, until when.
fn tasks_on(draft: &Draft<'_>, host: &HostName) -> (Images, Vec<(Timestamp, Images)>) {
    let (mut here, mut ended) = (Images::default(), Vec::new());
    for task in draft.remembered_tasks().filter(|task| task.host == *host) {
        let mut of_it = Images::default();
        let is_over = task.last_status == LastStatus::Stopped;
        let images = if is_over { &mut of_it } else { &mut here };
        draft.revision(&task.revision).into_iter().for_each(|revision| images.add(revision));
        for row in task.containers.values() {
            images.names.insert(image::familiar(&row.image));
            images.contents.extend(row.image_digest.clone());
        }
        if is_over {
            ended.push((task.stopped_at.unwrap_or_default(), of_it));
        }
    }
    (here, ended)
}

/// A set of images, by whatever is known of them.
#[derive(Default)]
struct Images {
    /// As [`image::familiar`] has them.
    names: BTreeSet<String>,
    /// Digests, and content ids of what was loaded by hand.
    contents: BTreeSet<String>,
}

impl Images {
    /// What a task of this revision may run.
    fn add(&mut self, revision: &Revision) {
        self.names.extend(references(revision).map(|reference| image::familiar(&revision.image(reference))));
        for resolved in revision.images.values() {
            let (ResolvedImage::Digest(content) | ResolvedImage::Local(content)) = resolved;
            self.contents.insert(content.clone());
        }
    }

    fn has(&self, id: &str, image: &StoredImage) -> bool {
        let is_known = |name: &str| {
            let digest = image::digest(name).is_some_and(|digest| self.contents.contains(digest));
            digest || self.names.contains(&image::familiar(name))
        };
        self.contents.contains(id) || image.names().any(is_known)
    }
}

#[cfg(test)]
mod tests;
