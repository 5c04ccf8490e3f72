//! Volumes whose data stays on one host: what mounts them goes there, waits for that host when it is lost, and is never there
//! twice (S4, S19). A move is two stages: stop all that mounts it, then copy; the copy itself is made elsewhere.
//!
//! Rule: a task that works alone (a REPLICA service that wants one) owns the shared volumes that it mounts. A volume has one
//! place from then on, for all REPLICA services of its cluster that name it. Where a service wants several tasks from the
//! start, each host has a volume of that name, as in ECS.

use std::collections::BTreeSet;

use crate::model::{
    action::{Action, ActionKey, Verb, VerbName},
    name::{ClusterName, HostName, TaskId},
    spec::{ServiceSpec, TaskDefinitionSpec, service::SchedulingStrategy},
    state::{EventLevel, EventSubject},
    task::{Launch, StopCode, Task},
    volume::{MoveStage, VolumeClaim, VolumeId, VolumeRecord, stays_on_host, works_alone},
    world::{HostStatus, Subject},
};

use super::{
    draft::{Draft, Host, ServiceNo, TaskNo},
    placement::{Home, Placement},
    service::{self, Subjected},
    sweep,
};

impl Draft<'_> {
    /// A volume's record as it stands.
    pub(super) fn volume(&self, id: &VolumeId) -> Option<&VolumeRecord> {
        self.volumes.get(id).or_else(|| self.world.state.volumes.get(id))
    }

    fn change_volume(&mut self, id: &VolumeId, change: impl FnOnce(&mut VolumeRecord)) {
        let Some(mut record) = self.volume(id).cloned() else { return };
        change(&mut record);
        self.volumes.insert(id.clone(), record);
    }

    fn has_volumes(&self) -> bool {
        !(self.volumes.is_empty() && self.world.state.volumes.is_empty())
    }

    fn definition_of(&self, task: &Task) -> Option<&TaskDefinitionSpec> {
        self.revision(&task.revision).and_then(|revision| revision.spec.as_deref())
    }

    /// Whether its service is one whose tasks go where their data is: not one with a task on each host.
    fn follows_data(&self, no: TaskNo) -> bool {
        let service = self.tasks.service(no).map(|service| self.services[service].manifest);
        service.is_none_or(|manifest| manifest.spec.scheduling_strategy == SchedulingStrategy::Replica)
    }
}

/// The volumes of a definition that have, or may get, one place in the cluster.
fn ids<'s>(spec: &ServiceSpec, definition: &'s TaskDefinitionSpec) -> impl Iterator<Item = VolumeId> + use<'s> {
    ids_in(&spec.cluster, definition)
}

fn ids_in<'s>(cluster: &ClusterName, definition: &'s TaskDefinitionSpec) -> impl Iterator<Item = VolumeId> + use<'s> {
    let cluster = cluster.clone();
    stays_on_host(definition).map(move |name| VolumeId { cluster: cluster.clone(), name: name.to_owned() })
}

/// Whether a task of this definition is the only one that may use its volumes, so that it is never there twice.
pub(super) fn owns(spec: &ServiceSpec, definition: &TaskDefinitionSpec) -> bool {
    works_alone(spec) && stays_on_host(definition).next().is_some()
}

/// The volume that keeps a task of a REPLICA service, or a standalone one, on its host, if one does.
pub(super) fn held_by(draft: &Draft<'_>, no: TaskNo) -> Option<VolumeId> {
    if !draft.has_volumes() {
        return None;
    }
    let task = draft.task(no);
    let id = |name: &str| VolumeId { cluster: task.cluster.clone(), name: name.to_owned() };
    let is_here = |id: &VolumeId| draft.volume(id).is_some_and(|record| record.host == task.host);
    stays_on_host(draft.definition_of(task)?).map(id).find(is_here)
}

/// Learns where volumes are that have no record: from the one task that uses them, else from their labels. So the database
/// may be lost, or be from before volumes were followed.
pub(super) fn learn(draft: &mut Draft<'_>) {
    let mut unknown: Vec<(ServiceNo, VolumeId)> = Vec::new();
    for (no, service) in draft.services.iter().enumerate() {
        let spec = &service.manifest.spec;
        if !works_alone(spec) {
            continue;
        }
        let target = service.target.as_ref().and_then(|target| target.as_ref().ok());
        let content = target.and_then(|id| draft.revision(id)?.spec.as_ref());
        let lacking =
            content.into_iter().flat_map(|content| ids(spec, content)).filter(|id| draft.volume(id).is_none());
        unknown.extend(lacking.map(|id| (no, id)));
    }
    for (service, id) in unknown {
        let hosts = users(draft, service, &id);
        // A host that was not asked may have the right one.
        let hosts = match hosts.is_empty() && unasked(draft, &id).is_none() {
            true => holders(draft, &id),
            false => hosts,
        };
        if let ([host], None) = (hosts.as_slice(), draft.volume(&id)) {
            let message = format!("the data of volume {} was found on {host}: what mounts it goes there", id.name);
            record(draft, service, &id, host, None);
            let name = draft.services[service].name.clone();
            draft.event(EventSubject::Service(name), EventLevel::Normal, "VolumeFound", message);
        }
    }
}

/// Hosts on which live tasks of a service use a volume.
fn users(draft: &Draft<'_>, service: ServiceNo, id: &VolumeId) -> Vec<HostName> {
    let mut hosts: BTreeSet<&HostName> = BTreeSet::new();
    for (no, task) in draft.tasks.with(|traits| traits.live) {
        let mounts = || draft.definition_of(task).is_some_and(|spec| stays_on_host(spec).any(|name| name == id.name));
        let is_of = draft.tasks.service(no) == Some(service) && task.cluster == id.cluster;
        if is_of && task.launch != Launch::NotIssued && mounts() {
            hosts.insert(&task.host);
        }
    }
    hosts.into_iter().cloned().collect()
}

/// Hosts that showed a volume of this name that we made for the cluster.
fn holders(draft: &Draft<'_>, id: &VolumeId) -> Vec<HostName> {
    let is_it = |claim: &VolumeClaim| match claim {
        VolumeClaim::Shared { cluster, .. } => *cluster == id.cluster,
        VolumeClaim::Task { .. } => false,
    };
    let seen = draft.world.volumes.iter().filter(|(_, seen)| seen.volumes.get(&id.name).is_some_and(is_it));
    seen.map(|(host, _)| host.clone()).collect()
}

fn record(draft: &mut Draft<'_>, service: ServiceNo, id: &VolumeId, host: &HostName, task: Option<&TaskId>) {
    let now = draft.now();
    let new = || VolumeRecord {
        id: id.clone(),
        host: host.clone(),
        service: draft.services[service].name.clone(),
        created_at: now,
        last_used_by: None,
        last_used_at: None,
        moving: None,
        old_copy: None,
        restored_at: None,
    };
    let mut record = draft.volume(id).cloned().unwrap_or_else(new);
    if let Some(task) = task {
        (record.last_used_by, record.last_used_at) = (Some(task.clone()), Some(now));
    }
    draft.volumes.insert(id.clone(), record);
}

/// Where the data of a service's volumes has its tasks go.
pub(super) fn homes(draft: &Draft<'_>, service: &Subjected<'_>) -> Vec<Home> {
    match service.spec.scheduling_strategy {
        SchedulingStrategy::Replica => homes_in(draft, &service.spec.cluster, &service.definition),
        SchedulingStrategy::Daemon => Vec::new(),
    }
}

/// Where the volumes of a task are that have one place already.
pub(super) fn homes_in(draft: &Draft<'_>, cluster: &ClusterName, definition: &TaskDefinitionSpec) -> Vec<Home> {
    if !draft.has_volumes() {
        return Vec::new();
    }
    let known = ids_in(cluster, definition).filter_map(|id| draft.volume(&id));
    known.map(|record| Home { volume: record.id.name.clone(), host: record.host.clone() }).collect()
}

/// A task was placed: what it owns has its place from now on.
pub(super) fn note_placed(draft: &mut Draft<'_>, service: &Subjected<'_>, placement: &Placement, task: &TaskId) {
    if owns(service.spec, &service.definition) {
        for id in ids(service.spec, &service.definition) {
            record(draft, service.no, &id, &placement.host, Some(task));
        }
    }
}

/// Why no task of a service may be placed just now, for its data's sake, and what ends that.
pub(super) fn obstacle(draft: &Draft<'_>, service: &Subjected<'_>) -> Option<(String, String)> {
    if service.spec.scheduling_strategy != SchedulingStrategy::Replica {
        return None;
    }
    let owns = owns(service.spec, &service.definition);
    ids(service.spec, &service.definition).find_map(|id| match draft.volume(&id) {
        Some(record) => out_of_reach(draft, record),
        None if owns => unknown_place(draft, &id),
        None => None,
    })
}

/// The same of a standalone task.
pub(super) fn obstacle_in(
    draft: &Draft<'_>,
    cluster: &ClusterName,
    definition: &TaskDefinitionSpec,
) -> Option<(String, String)> {
    ids_in(cluster, definition).find_map(|id| out_of_reach(draft, draft.volume(&id)?))
}

fn out_of_reach(draft: &Draft<'_>, record: &VolumeRecord) -> Option<(String, String)> {
    let name = &record.id.name;
    let Some(home) = draft.host_no(&record.host) else {
        let words = format!("the data of volume {name} is on {}, which is not declared", record.host);
        let wakes_when = format!("{} is declared, or you say `roadstead volume forget {name}`", record.host);
        return Some((words, wakes_when));
    };
    if let Some(moving) = &record.moving {
        let words = format!("volume {name}, which is on {}, {}", record.host, moving.words());
        return Some((words, format!("that is done, or you say `roadstead volume move {name} --cancel`")));
    }
    // No fault of what is to be started: not even its circuit breaker is to hear of it.
    let Host { status, heard, .. } = &draft.hosts[home];
    if *status == HostStatus::Active && *heard {
        return None;
    }
    let words = format!("the data of volume {name} is on {}, which takes no tasks just now", record.host);
    Some((words, format!("{} is ACTIVE and answers", record.host)))
}

/// A volume without a record may have data on a host that was not asked yet: then a new one would be an empty one.
fn unknown_place(draft: &Draft<'_>, id: &VolumeId) -> Option<(String, String)> {
    let name = &id.name;
    let several = holders(draft, id);
    if several.len() > 1 {
        let hosts: Vec<&str> = several.iter().map(HostName::as_str).collect();
        let words = format!("volume {name} is on {}, and nobody knows which is the right one", hosts.join(" and "));
        return Some((words, format!("you say `roadstead volume pin {name} --host HOST`")));
    }
    let silent = unasked(draft, id)?;
    let words = format!("{silent} was not asked for its volumes yet, and may have the data of {name}");
    let wakes_when =
        format!("{silent} answers, is no longer declared, or you say `roadstead volume pin {name} --host HOST`");
    Some((words, wakes_when))
}

/// A host of the volume's cluster that did not say yet which volumes it has.
fn unasked<'w>(draft: &Draft<'w>, id: &VolumeId) -> Option<&'w HostName> {
    let mut hosts = draft.hosts.iter().filter(|host| host.manifest.spec.cluster == id.cluster);
    hosts.find(|host| !draft.world.volumes.contains_key(host.name)).map(|host| host.name)
}

/// Whether a task that is to be replaced stays, since nothing could take its place: its data is on a host that takes no
/// tasks. It says so.
pub(super) fn keeps(draft: &mut Draft<'_>, no: TaskNo) -> bool {
    if draft.host_status(no) == Some(HostStatus::Active) {
        return false;
    }
    let Some(id) = held_by(draft, no) else { return false };
    let task = draft.task(no);
    let words = format!("it stays on {}, which takes no new tasks: the data of volume {} is there", task.host, id.name);
    let wakes_when = format!("{} is ACTIVE, or you say `roadstead volume move {} --to HOST`", task.host, id.name);
    let subject = Subject::Task(task.id.clone());
    draft.waiting(subject, words, wakes_when, None);
    true
}

/// Ends what mounts volumes that move, and lets their copies begin.
pub(super) fn judge_moves(draft: &mut Draft<'_>) {
    let world = draft.world;
    world.state.volumes.values().for_each(|record| judge_move(draft, record));
}

fn judge_move(draft: &mut Draft<'_>, record: &VolumeRecord) {
    let Some(moving) = &record.moving else { return };
    let (id, what) = (&record.id, moving.words());
    let mounting: Vec<TaskNo> = mounting(draft, id);
    for no in &mounting {
        let reason = format!("volume {} {what}", id.name);
        service::stop(draft, *no, StopCode::ServiceSchedulerInitiated, &reason);
    }
    let left = mounting.into_iter().find(|no| draft.task(*no).is_live()).map(|no| draft.task(no).id.clone());
    let subject = Subject::Service(record.service.clone());
    let stage = if left.is_some() { MoveStage::Stopping } else { MoveStage::Copying };
    if stage != moving.stage {
        draft.change_volume(id, |record| {
            record.moving.iter_mut().for_each(|moving| moving.stage = stage);
        });
    }
    match left {
        Some(task) => {
            let words = format!("volume {} {what}: task {task} ends first", id.name);
            draft.waiting(subject, words, "it was seen gone", None);
        }
        None => {
            let words = match &moving.from_volume {
                Some(from) => format!("volume {} is filled from {from} on {}", id.name, record.host),
                None => format!("volume {} is copied from {} to {}", id.name, record.host, moving.to),
            };
            let at = moving.not_before.filter(|at| *at > draft.now());
            draft.waiting(subject, words, "the copy was read back and is the same", at);
        }
    }
}

/// Whether containers of an ended task keep a volume that other data is to take the place of.
pub(super) fn is_in_the_way(draft: &Draft<'_>, no: TaskNo) -> bool {
    let task = draft.task(no);
    let is_restored = |name: &str| {
        let id = VolumeId { cluster: task.cluster.clone(), name: name.to_owned() };
        let moving = draft.volume(&id).and_then(|record| record.moving.as_ref());
        moving.is_some_and(|moving| moving.from_volume.is_some())
    };
    draft.has_volumes() && draft.definition_of(task).is_some_and(|spec| stays_on_host(spec).any(is_restored))
}

/// Live tasks that mount a volume where its data is.
fn mounting(draft: &Draft<'_>, id: &VolumeId) -> Vec<TaskNo> {
    let mounts = |no: TaskNo, task: &Task| {
        let definition = draft.definition_of(task);
        task.cluster == id.cluster
            && draft.follows_data(no)
            && definition.is_some_and(|spec| stays_on_host(spec).any(|name| name == id.name))
    };
    let live = draft.tasks.with(|traits| traits.live);
    live.filter(|(no, task)| mounts(*no, task)).map(|(no, _)| no).collect()
}

/// Clears up after volumes that moved.
pub(super) fn remove_old_copies(draft: &mut Draft<'_>) {
    let world = draft.world;
    world.state.volumes.values().for_each(|record| remove_old_copy(draft, record));
}

/// Once a task was healthy where the data is now, the copy that the move left behind goes.
fn remove_old_copy(draft: &mut Draft<'_>, record: &VolumeRecord) {
    let Some(old) = &record.old_copy else { return };
    let is_proven =
        |draft: &Draft<'_>, no: &TaskNo| draft.task(*no).healthy_at.is_some() && draft.task(*no).host == record.host;
    let is_heard = draft.host_no(old).is_some_and(|host| draft.hosts[host].heard);
    let key = ActionKey { task: record.removal(), verb: VerbName::Sweep };
    if record.moving.is_some() || !is_heard || !sweep::is_due(draft, &key) {
        return;
    }
    if !mounting(draft, &record.id).iter().any(|no| is_proven(draft, no)) {
        return;
    }
    draft.act(Action {
        task: key.task,
        service: record.service.clone(),
        host: old.clone(),
        verb: Verb::Sweep { volumes: vec![record.id.name.clone()] },
        reason: format!("volume {} is on {} now, and proven there", record.id.name, record.host),
    });
}
