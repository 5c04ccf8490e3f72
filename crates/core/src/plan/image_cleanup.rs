//! Images that nothing needs any more go from hosts whose disk is nearly full, those longest out of use first.
//!
//! Rule: the kubelet's image garbage collection. It goes for images that we brought only: all of whose names are of revisions
//! that we know. Docker itself refuses to remove one that a container has.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    action::{Action, ActionKey, PrunedImage, Verb, VerbName},
    image::{self, Familiar, ResolvedImage},
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
    let full = full(draft);
    let mut known = Known::default();
    let found: Vec<Vec<PrunedImage>> = full.iter().map(|disk| disk.first_to_go(draft, &mut known)).collect();
    drop(known);
    for (disk, images) in full.into_iter().zip(found) {
        let (name, percent) = (disk.look.host.clone(), disk.percent);
        if images.is_empty() {
            tell(draft, &disk);
            continue;
        }
        let reason = format!("the disk of {} was {percent} % full", disk.seen.data_root);
        draft.doing("remove images", Subject::Host(name.clone()), Some(&name), reason.clone());
        let (task, service) = (key(&name).task, ServiceName::default());
        draft.act(Action { task, service, host: name, verb: Verb::Prune { images }, reason });
    }
}

/// A disk that is too full, and how it was found.
struct FullDisk<'w> {
    host: HostNo,
    look: &'w HostObservation,
    seen: &'w StorageSeen,
    percent: u32,
    excess_bytes: u64,
    cleanup: ImageCleanup,
}

/// The disks of which images are to go now. Of those that are full no more, that is noted.
fn full<'w>(draft: &mut Draft<'w>) -> Vec<FullDisk<'w>> {
    let world = draft.world;
    let mut full = Vec::new();
    for (name, seen) in &world.storage {
        let Some(host) = draft.host_no(name).filter(|host| draft.hosts[*host].heard) else { continue };
        let (Some(disk), Some(look)) = (seen.disk, world.state.observations.get(name)) else { continue };
        let (cleanup, percent) = (world.state.desired.image_cleanup(name), disk.used_percent());
        if percent <= cleanup.low_threshold_percent && is_told(draft, host) {
            draft.hosts[host].change(|record| record.disk_pressure_since = None);
        }
        let is_stale = world.now.since_ms(seen.started_at) >= STALE_MS;
        if percent > cleanup.high_threshold_percent && !is_stale && sweep::is_due(draft, &key(name)) {
            let excess_bytes = disk.excess_bytes(cleanup.low_threshold_percent);
            full.push(FullDisk { host, look, seen, percent, excess_bytes, cleanup });
        }
    }
    full
}

fn key(host: &HostName) -> ActionKey {
    ActionKey { task: format!("images-of-{host}").into(), verb: VerbName::Prune }
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
fn tell(draft: &mut Draft<'_>, disk: &FullDisk<'_>) {
    let (name, now) = (draft.hosts[disk.host].name, draft.now());
    let words = format!("the disk of {} is {} % full, and no image can be removed", disk.seen.data_root, disk.percent);
    let wakes_when = format!("it is no fuller than {} %: free space there", disk.cleanup.high_threshold_percent);
    draft.waiting(Subject::Host(name.clone()), words.clone(), wakes_when, None);
    if !is_told(draft, disk.host) {
        draft.hosts[disk.host].change(|record| record.disk_pressure_since = Some(now));
        draft.event(
            EventSubject::Host(name.clone()),
            EventLevel::Warning,
            "DiskPressure",
            format!("host {name}: {words}"),
        );
    }
}

/// What is found out once, when it is first needed.
#[derive(Default)]
struct Known<'d> {
    revisions: Option<BTreeMap<&'d RevisionId, &'d Revision>>,
    /// Names that revisions have for their images, and when the newest of these was made.
    ours: Option<BTreeMap<Familiar<'d>, Timestamp>>,
    /// What is kept for the sake of what is declared, by how many revisions stay.
    kept: BTreeMap<u32, Images<'d>>,
}

impl<'d> Known<'d> {
    fn revisions(&mut self, draft: &'d Draft<'_>) -> &BTreeMap<&'d RevisionId, &'d Revision> {
        self.revisions.get_or_insert_with(|| draft.revisions())
    }

    /// When the newest revision that has an image of this name was made; `None` if there is none: it is somebody else's.
    fn made_at(&mut self, draft: &'d Draft<'_>, name: &str) -> Option<Timestamp> {
        if self.ours.is_none() {
            self.ours = Some(ours(self.revisions(draft).values().copied()));
        }
        self.ours.as_ref()?.get(&image::familiar(name)).copied()
    }

    fn is_kept(&mut self, draft: &'d Draft<'_>, keep: u32, id: &str, image: &StoredImage) -> bool {
        if !self.kept.contains_key(&keep) {
            let images = kept(draft, self.revisions(draft), keep);
            self.kept.insert(keep, images);
        }
        self.kept.get(&keep).is_some_and(|images| images.has(id, image))
    }
}

impl FullDisk<'_> {
    /// Images that may be removed, longest out of use first: as many as are needed, and fit one order.
    fn first_to_go<'d>(&self, draft: &'d Draft<'_>, known: &mut Known<'d>) -> Vec<PrunedImage> {
        let mut images = self.removable(draft, known);
        images.truncate(MAX_IMAGES);
        let mut excess_bytes = self.excess_bytes;
        images.retain(|image| {
            let is_needed = excess_bytes > 0;
            excess_bytes = excess_bytes.saturating_sub(image.size_bytes);
            is_needed
        });
        images
    }

    /// What is quickly found out, and leaves the fewest, comes first: this is asked in every pass for as long as a disk is full.
    fn removable<'d>(&self, draft: &'d Draft<'_>, known: &mut Known<'d>) -> Vec<PrunedImage> {
        let is_old = |at: Timestamp| draft.now().since_ms(at) >= self.cleanup.minimum_age.as_ms();
        let seen_at = |id: &String| self.seen.used_at.get(id).copied();
        let is_candidate = |(id, image): &(&String, &StoredImage)| {
            is_old(seen_at(id).unwrap_or_default()) && !image.digests.is_empty()
        };
        let mut left: Vec<_> = self.seen.images.iter().filter(is_candidate).collect();
        left.retain(|(id, image)| !known.is_kept(draft, self.cleanup.keep_revisions, id, image));
        if left.is_empty() {
            return Vec::new();
        }
        let in_use = self.seen.in_use(self.look.containers.values());
        left.retain(|(id, _)| !in_use.contains(id.as_str()));
        let mut found: Vec<(Timestamp, Timestamp, PrunedImage)> = Vec::new();
        for (id, image) in left {
            let made: Option<Vec<Timestamp>> = image.names().map(|name| known.made_at(draft, name)).collect();
            let Some(made) = made else { continue };
            let Ok(last_ended) = last_ended(draft, &self.look.host, id, image) else { continue };
            let used_at = seen_at(id).max(last_ended).unwrap_or(self.seen.started_at);
            if is_old(used_at) {
                let made = made.into_iter().max().unwrap_or_default();
                found.push((used_at, made, PrunedImage { id: id.clone(), size_bytes: image.size_bytes }));
            }
        }
        found.sort_by(|one, other| (one.0, one.1, &one.2.id).cmp(&(other.0, other.1, &other.2.id)));
        found.into_iter().map(|(_, _, image)| image).collect()
    }
}

fn ours<'d>(revisions: impl Iterator<Item = &'d Revision>) -> BTreeMap<Familiar<'d>, Timestamp> {
    let mut ours = BTreeMap::new();
    for revision in revisions {
        for reference in references(revision) {
            for name in [image::familiar(reference), revision.familiar_image(reference)] {
                let at = ours.entry(name).or_insert(revision.created_at);
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
fn kept<'d>(draft: &'d Draft<'_>, revisions: &BTreeMap<&'d RevisionId, &'d Revision>, keep: u32) -> Images<'d> {
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

/// When the last task of an image ended on a host; `Err` if one runs there, or is about to.
fn last_ended(draft: &Draft<'_>, host: &HostName, id: &str, image: &StoredImage) -> Result<Option<Timestamp>, ()> {
    let mut last = None;
    for task in draft.remembered_tasks().filter(|task| task.host == *host) {
        let mut of_it = Images::default();
        draft.revision(&task.revision).into_iter().for_each(|revision| of_it.add(revision));
        for row in task.containers.values() {
            of_it.names.insert(image::familiar(&row.image));
            of_it.contents.extend(row.image_digest.as_deref());
        }
        if !of_it.has(id, image) {
            continue;
        }
        if task.last_status != LastStatus::Stopped {
            return Err(());
        }
        last = last.max(Some(task.stopped_at.unwrap_or_default()));
    }
    Ok(last)
}

/// A set of images, by whatever is known of them.
#[derive(Default)]
struct Images<'d> {
    names: BTreeSet<Familiar<'d>>,
    /// Digests, and content ids of what was loaded by hand.
    contents: BTreeSet<&'d str>,
}

impl<'d> Images<'d> {
    /// What a task of this revision may run.
    fn add(&mut self, revision: &'d Revision) {
        self.names.extend(references(revision).map(|reference| revision.familiar_image(reference)));
        for resolved in revision.images.values() {
            let (ResolvedImage::Digest(content) | ResolvedImage::Local(content)) = resolved;
            self.contents.insert(content);
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
