//! Containers of ours that no row knows become tasks: with an empty database, or an old one.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::model::{
    container::{ContainerState, ContainerView, HealthStatus, PortBinding},
    definition::Definition,
    image,
    name::{ContainerName, RevisionId, TaskId},
    observed::HostObservation,
    ownership::Claim,
    small_map::SmallMap,
    state::{Change, Event, EventLevel, Revision, State},
    task::{LastStatus, Launch, NewTask, StopCode, Task, TaskContainer},
    time::Timestamp,
};
use crate::plan::{health, launch, network::answering};

use super::observation::note_view;

/// What runs since before this database goes on. A task of which an essential container is missing ends, unless it is being
/// launched, so that a whole one takes its place.
pub(super) fn adopt(
    state: &State,
    look: &HostObservation,
    unknown: BTreeMap<&TaskId, Vec<(&Claim, &ContainerView)>>,
    launching: &BTreeSet<&TaskId>,
    changes: &mut Vec<Change>,
) {
    if unknown.is_empty() {
        return;
    }
    // With an old database a row may hold a port that a container it does not know has by now.
    let held: BTreeSet<u16> = state
        .tasks
        .values()
        .filter(|task| task.host == look.host && task.last_status != LastStatus::Stopped)
        .flat_map(|task| task.containers.values())
        .flat_map(|row| row.ports.iter().map(|port| port.host_port))
        .collect();
    let mut known = Known::of(state);
    let named = OnceCell::new();
    for (id, seen) in unknown {
        let Some((claim, _)) = seen.first() else { continue };
        // A task never changes its host: a container that claims otherwise is a copy, and stays alone.
        if state.tasks.contains_key(id) {
            continue;
        }
        let missing = missing_essentials(state, claim, &seen);
        if !missing.is_empty() && launching.contains(id) {
            // They are on their way: the next look tells.
            continue;
        }
        let (revision, other_bits) = known.revision(claim, &digests(&seen), look, changes);
        let containers = seen
            .iter()
            .map(|(claim, view)| (claim.container.clone(), adopted_container(claim, view, &held, look.finished_at)));
        let mut task = Task::new(NewTask {
            id: id.clone(),
            cluster: claim.cluster.clone(),
            service: claim.service.clone(),
            slot: claim.slot,
            revision,
            host: look.host.clone(),
            launch_type: claim.launch_type,
            cpu: claim.task_cpu,
            memory: claim.task_memory,
            containers: containers.collect(),
            epoch: claim.epoch,
            created_at: Timestamp(claim.task_created_at_ms),
        });
        task.launch = Launch::Answered { at: Timestamp(0) };
        // Load balancers may send requests to it, whatever the manifests say by now: they are asked before it stops (S10).
        let may_be_target = !claim.service.as_str().is_empty() && !state.desired.load_balancers.is_empty();
        task.target_health = may_be_target.then_some(HealthStatus::Unknown);
        task.network.clone_from(&claim.network);
        task.uses_names =
            task.network.is_none() && named.get_or_init(|| answering(&state.desired)).contains(&task.cluster);
        task.advance(LastStatus::Pending);
        task.health_status = health::task_health(&task);
        let lives = task.containers.values().any(|row| row.essential && row.state.is_some_and(ContainerState::is_live));
        if lives && health::all_running(&task) {
            task.advance(LastStatus::Running);
            // It has been up for long, as far as anyone knows.
            task.started_at =
                task.containers.values().filter_map(|row| row.started_at).max().map(|at| at.min(look.finished_at));
        }
        let other_bits = other_bits.map(|name| {
            format!("its container {name} has another image than the {} that is known by now", task.revision)
        });
        let mut end = |reason: &str| task.order_stop(look.finished_at, StopCode::ServiceSchedulerInitiated, reason);
        if !lives {
            end("it had ended before the database knew of it");
        } else if let Some(name) = missing.keys().next() {
            end(&format!("it was found without its essential container {name}"));
        } else if let Some(words) = &other_bits {
            end(words);
        }
        // Should one of them appear late, it is known, and ended with the others.
        task.containers.extend(missing);
        changes.push(Change::Event(Event::new(
            look.finished_at,
            task.told_in(),
            EventLevel::Normal,
            "TaskAdopted",
            match &task.stopped_reason {
                None => {
                    format!("task {id} of {} on {} was found running and is adopted as it is", task.revision, look.host)
                }
                Some(reason) => {
                    format!("task {id} of {} on {} was found and is ended: {reason}", task.revision, look.host)
                }
            },
        )));
        changes.push(Change::Task(Arc::new(task)));
    }
}

/// Rows for the essential containers that a found task should have and of which nothing was seen; none when nobody knows any
/// more what it should have.
fn missing_essentials(
    state: &State,
    claim: &Claim,
    seen: &[(&Claim, &ContainerView)],
) -> SmallMap<ContainerName, TaskContainer> {
    let declared = state.desired.task_definitions.get(&claim.revision.family).map(|manifest| &manifest.spec);
    let declared = declared.filter(|definition| definition.hash() == claim.revision_hash);
    let known = state.revision(&claim.revision).filter(|revision| revision.hash == claim.revision_hash);
    let spec = declared.map(Definition::spec).or_else(|| known.and_then(|revision| revision.spec.as_ref()));
    let mut rows = spec.map_or_else(SmallMap::default, |spec| {
        launch::task_containers(&claim.service, &claim.revision, &claim.task, spec, &[])
    });
    rows.retain(|name, row| row.essential && seen.iter().all(|(claim, _)| claim.container != *name));
    rows
}

/// By container, the digest of what it runs; not of what runs by its tag.
type Digests = BTreeMap<ContainerName, String>;

fn digests(seen: &[(&Claim, &ContainerView)]) -> Digests {
    let digest = |(claim, view): &(&Claim, &ContainerView)| {
        Some((claim.container.clone(), image::digest(&view.image)?.to_owned()))
    };
    seen.iter().filter_map(digest).collect()
}

/// The revisions that adopted tasks may be of.
struct Known<'s> {
    state: &'s State,
    /// Made of what this look showed: their hash.
    stubs: BTreeMap<RevisionId, String>,
    /// What adopted tasks run, of this look and of earlier ones. Labels do not tell: a tag that moved makes another revision
    /// of the same definition.
    adopted: BTreeMap<RevisionId, Digests>,
}

impl<'s> Known<'s> {
    fn of(state: &'s State) -> Self {
        let mut known = Self { state, stubs: BTreeMap::new(), adopted: BTreeMap::new() };
        for task in state.tasks.values() {
            let rows = task.containers.iter();
            // Only rows of adopted tasks have a digest there, others what the definition says.
            let run = rows.filter_map(|(name, row)| Some((name.clone(), image::digest(&row.image)?.to_owned())));
            known.note(&task.revision, run.collect());
        }
        known
    }

    fn note(&mut self, revision: &RevisionId, digests: Digests) {
        if !digests.is_empty() {
            self.adopted.entry(revision.clone()).or_default().extend(digests);
        }
    }

    /// The revision of an adopted task: by content first, so that an unchanged task definition keeps its tasks. With it a
    /// container that runs other bits than it, where its own revision's number is taken by one of the same definition.
    fn revision(
        &mut self,
        claim: &Claim,
        digests: &Digests,
        look: &HostObservation,
        changes: &mut Vec<Change>,
    ) -> (RevisionId, Option<ContainerName>) {
        let family = &claim.revision.family;
        let of_family = self.state.revisions.get(family).into_iter().flat_map(BTreeMap::values);
        let before = of_family.map(|revision| (&revision.id, revision.hash.as_str()));
        let now = self.stubs.iter().filter(|(id, _)| id.family == *family).map(|(id, hash)| (id, hash.as_str()));
        let same: BTreeSet<&RevisionId> =
            before.chain(now).filter(|(_, hash)| *hash == claim.revision_hash).map(|(id, _)| id).collect();
        let claimed = same.get(&claim.revision).copied();
        let mut fitting = claimed.into_iter().chain(same.iter().rev().copied());
        let found = fitting.find(|id| self.other_bits(id, digests).is_none()).cloned();
        let (id, other_bits) = match found.or_else(|| claimed.cloned()) {
            Some(id) => {
                let other_bits = self.other_bits(&id, digests);
                (id, other_bits)
            }
            None => (self.stub(claim, look, changes), None),
        };
        if other_bits.is_none() {
            self.note(&id, digests.clone());
        }
        (id, other_bits)
    }

    /// A container that runs other bits than a revision is known to stand for.
    fn other_bits(&self, id: &RevisionId, digests: &Digests) -> Option<ContainerName> {
        let revision = self.state.revision(id);
        let own = revision.and_then(|it| Some(launch::digests(it, it.spec.as_deref()?))).unwrap_or_default();
        let adopted = self.adopted.get(id);
        digests.iter().find_map(|(name, digest)| {
            let own = own.iter().find(|(container, _)| container == name.as_str()).map(|(_, digest)| digest);
            let known = own.or_else(|| adopted?.get(name))?;
            (known != digest).then(|| name.clone())
        })
    }

    /// A revision of which only its hash is known.
    fn stub(&mut self, claim: &Claim, look: &HostObservation, changes: &mut Vec<Change>) -> RevisionId {
        let mut id = claim.revision.clone();
        while self.state.revision(&id).is_some() || self.stubs.contains_key(&id) {
            id.number = id.number.saturating_add(1);
        }
        self.stubs.insert(id.clone(), claim.revision_hash.clone());
        changes.push(Change::Revision(Revision {
            id: id.clone(),
            hash: claim.revision_hash.clone(),
            spec: None,
            images: BTreeMap::new(),
            created_at: look.finished_at,
        }));
        id
    }
}

fn adopted_container(claim: &Claim, view: &ContainerView, held: &BTreeSet<u16>, seen_at: Timestamp) -> TaskContainer {
    let free = |port: &&PortBinding| !held.contains(&port.host_port);
    let mut row = TaskContainer {
        created_name: claim.created_name.clone(),
        essential: claim.essential,
        image: view.image.clone(),
        image_digest: image::digest(&view.image).map(str::to_owned),
        runtime_id: None,
        state: None,
        health: HealthStatus::Unknown,
        has_health_check: false,
        exit_code: None,
        oom_killed: false,
        restart_count: 0,
        started_at: None,
        seen_started_at: None,
        taken_down: false,
        // Only what lives holds a port: a leftover of a failed start may name one that another has by now.
        ports: if view.state.is_live() { view.ports.iter().filter(free).cloned().collect() } else { Vec::new() },
        revived: None,
        health_reason: None,
    };
    note_view(&mut row, view, seen_at, false);
    row
}
