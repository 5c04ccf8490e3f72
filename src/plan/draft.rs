//! A plan in the making: the world, and what was decided so far on top of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_lc_rs::digest;

use crate::model::{
    action::Action,
    name::{Family, HostName, RevisionId, ServiceName, TaskId},
    report::{Doing, Report, Waiting},
    state::{Change, Event, EventLevel, EventSubject, FleetRecord, HostRecord, Revision, ServiceRecord},
    task::{LastStatus, Task},
    time::Timestamp,
    world::{HostStatus, Plan, Subject, World},
};
use crate::plan::{hosts, placement::Placer};

/// A plan in the making.
pub(super) struct Draft<'w> {
    pub(super) world: &'w World,
    /// Hosts' statuses, computed once.
    pub(super) statuses: BTreeMap<&'w HostName, HostStatus>,
    /// Hosts that answer and were looked at not long ago.
    pub(super) heard: BTreeSet<&'w HostName>,
    tasks: BTreeMap<TaskId, Task>,
    forgotten: Vec<TaskId>,
    revisions: Vec<Revision>,
    hosts: BTreeMap<HostName, HostRecord>,
    services: BTreeMap<ServiceName, ServiceRecord>,
    removed: Vec<Change>,
    fleet: Option<FleetRecord>,
    events: Vec<Event>,
    actions: Vec<Action>,
    report: Report,
    wake_at: Option<Timestamp>,
    placer: Option<Placer<'w>>,
    placed: BTreeMap<ServiceName, u64>,
    edits: u64,
    next_id: u64,
}

impl<'w> Draft<'w> {
    pub(super) fn new(world: &'w World) -> Self {
        let statuses = world.state.desired.hosts.keys().map(|host| (host, hosts::host_status(world, host))).collect();
        let heard = world.state.desired.hosts.keys().filter(|host| hosts::takes_orders(world, host)).collect();
        Self {
            world,
            statuses,
            heard,
            tasks: BTreeMap::new(),
            forgotten: Vec::new(),
            revisions: Vec::new(),
            hosts: BTreeMap::new(),
            services: BTreeMap::new(),
            removed: Vec::new(),
            fleet: None,
            events: Vec::new(),
            actions: Vec::new(),
            report: Report::default(),
            wake_at: None,
            placer: None,
            placed: BTreeMap::new(),
            edits: 0,
            next_id: 0,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.world.now
    }

    /// A task as it stands in this draft.
    pub(super) fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id).or_else(|| self.world.state.tasks.get(id).map(Arc::as_ref))
    }

    /// Changes a task that is known.
    pub(super) fn change_task(&mut self, id: &TaskId, change: impl FnOnce(&mut Task)) {
        let Some(before) = self.task(id) else { return };
        let mut after = before.clone();
        change(&mut after);
        if Some(&after) != self.task(id) {
            self.tasks.insert(id.clone(), after);
            self.edits += 1;
        }
    }

    /// How many tasks of a service this draft placed.
    pub(super) fn placed(&self, service: &ServiceName) -> u64 {
        self.placed.get(service).copied().unwrap_or(0)
    }

    /// Adds a task.
    pub(super) fn add_task(&mut self, task: Task) {
        *self.placed.entry(task.service.clone()).or_default() += 1;
        self.edits += 1;
        self.tasks.insert(task.id.clone(), task);
    }

    /// Every task as it stands in this draft, by id: the world's, and those added.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &Task> {
        let known = self.world.state.tasks.iter().map(|(id, task)| self.tasks.get(id).unwrap_or(task));
        known.chain(self.added_tasks())
    }

    /// A task that this draft changed or added, as it stands.
    pub(super) fn edited(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id)
    }

    /// The tasks that this draft added, by id.
    pub(super) fn added_tasks(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().filter(|(id, _)| !self.world.state.tasks.contains_key(*id)).map(|(_, task)| task)
    }

    /// Forgets an ended task.
    pub(super) fn forget_task(&mut self, id: TaskId) {
        self.tasks.remove(&id);
        self.forgotten.push(id);
    }

    /// A revision, those numbered in this draft included.
    pub(super) fn revision(&self, id: &RevisionId) -> Option<&Revision> {
        self.revisions.iter().find(|revision| revision.id == *id).or_else(|| self.world.state.revision(id))
    }

    /// The newest revision of a family that has this content.
    pub(super) fn newest_with_hash(&self, family: &Family, hash: &str) -> Option<RevisionId> {
        let made_here =
            self.revisions.iter().rev().find(|revision| revision.id.family == *family && revision.hash == hash);
        made_here
            .map(|revision| revision.id.clone())
            .or_else(|| super::revision::find_by_hash(&self.world.state, family, hash))
    }

    /// Makes a revision, or completes one.
    pub(super) fn put_revision(&mut self, revision: Revision) {
        self.revisions.push(revision);
    }

    /// A host's record as it stands.
    pub(super) fn host(&self, name: &HostName) -> HostRecord {
        self.hosts
            .get(name)
            .or_else(|| self.world.state.hosts.get(name))
            .cloned()
            .unwrap_or_else(|| HostRecord { name: name.clone(), ..HostRecord::default() })
    }

    pub(super) fn put_host(&mut self, record: HostRecord) {
        if self.world.state.hosts.get(&record.name) != Some(&record) {
            self.hosts.insert(record.name.clone(), record);
        }
    }

    /// A service's record as it stands.
    pub(super) fn service(&self, name: &ServiceName) -> ServiceRecord {
        self.services
            .get(name)
            .or_else(|| self.world.state.services.get(name))
            .cloned()
            .unwrap_or_else(|| ServiceRecord { name: name.clone(), ..ServiceRecord::default() })
    }

    /// A service's record, if there is one and this draft left it as it was.
    pub(super) fn untouched_service(&self, name: &ServiceName) -> Option<&ServiceRecord> {
        if self.services.contains_key(name) { None } else { self.world.state.services.get(name) }
    }

    pub(super) fn put_service(&mut self, record: ServiceRecord) {
        if self.world.state.services.get(&record.name) != Some(&record) {
            self.services.insert(record.name.clone(), record);
        } else {
            self.services.remove(&record.name);
        }
    }

    pub(super) fn fleet(&self) -> &FleetRecord {
        self.fleet.as_ref().unwrap_or(&self.world.state.fleet)
    }

    pub(super) fn put_fleet(&mut self, fleet: FleetRecord) {
        self.fleet = Some(fleet);
    }

    /// A removal of a host's or a service's record.
    pub(super) fn remove(&mut self, change: Change) {
        self.removed.push(change);
    }

    pub(super) fn event(&mut self, subject: EventSubject, level: EventLevel, reason: &str, message: impl Into<String>) {
        let at = self.now();
        self.events.push(Event { id: 0, at, subject, level, reason: reason.to_owned(), message: message.into() });
    }

    pub(super) fn doing(&mut self, action: &str, subject: Subject, host: Option<&HostName>, reason: impl Into<String>) {
        self.report.doing.push(Doing {
            action: action.to_owned(),
            subject,
            host: host.cloned(),
            reason: reason.into(),
        });
    }

    pub(super) fn waiting(
        &mut self,
        subject: Subject,
        reason: impl Into<String>,
        wakes_when: impl Into<String>,
        wakes_at: Option<Timestamp>,
    ) {
        if let Some(at) = wakes_at {
            self.wake_at(at);
        }
        self.report.waiting.push(Waiting { subject, reason: reason.into(), wakes_when: wakes_when.into(), wakes_at });
    }

    /// Plans again at `at` at the latest.
    pub(super) fn wake_at(&mut self, at: Timestamp) {
        if at > self.now() {
            self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        self.doing(verb_word(&action), Subject::Task(action.task.clone()), Some(&action.host), action.reason.clone());
        self.actions.push(action);
    }

    /// The placer, built when first needed: most plans place nothing.
    pub(super) fn placer(&mut self) -> &mut Placer<'w> {
        let placer = self.placer.take().unwrap_or_else(|| super::service::build_placer(self));
        self.placer.insert(placer)
    }

    /// How often a task was changed or added so far.
    pub(super) fn edits(&self) -> u64 {
        self.edits
    }

    /// How much waits so far; [`Self::forget_waiting`] goes back to here.
    pub(super) fn waiting_mark(&self) -> usize {
        self.report.waiting.len()
    }

    /// Forgets what waits since the mark: it is judged again.
    pub(super) fn forget_waiting(&mut self, mark: usize) {
        self.report.waiting.truncate(mark);
    }

    /// Tells the placer, if there is one, that a task of a service no longer counts.
    pub(super) fn uncount(&mut self, service: &ServiceName, host: &HostName) {
        if let Some(placer) = &mut self.placer {
            placer.uncount(service, host);
        }
    }

    /// A new task id: from the seed, so that a plan can be computed again.
    pub(super) fn new_task_id(&mut self) -> TaskId {
        loop {
            self.next_id += 1;
            let input =
                format!("{}/{}/{}/{}", self.world.seed, self.world.state.fleet.epoch, self.world.now.0, self.next_id);
            let hash = digest::digest(&digest::SHA256, input.as_bytes());
            let id = TaskId::from(hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>());
            if self.task(&id).is_none() {
                return id;
            }
        }
    }

    pub(super) fn finish(self) -> Plan {
        let mut changes = Vec::new();
        changes.extend(self.fleet.filter(|fleet| *fleet != self.world.state.fleet).map(Change::Fleet));
        changes.extend(self.revisions.into_iter().map(Change::Revision));
        changes.extend(self.hosts.into_values().map(Change::Host));
        changes.extend(self.services.into_values().map(Change::Service));
        // What is over frees its ports before another takes them.
        let (over, rest): (Vec<Task>, Vec<Task>) =
            self.tasks.into_values().partition(|task| task.last_status == LastStatus::Stopped);
        changes.extend(over.into_iter().chain(rest).map(|task| Change::Task(Arc::new(task))));
        changes.extend(self.forgotten.into_iter().map(Change::TaskRemoved));
        changes.extend(self.removed);
        changes.extend(self.events.into_iter().map(Change::Event));
        Plan { changes, actions: self.actions, report: self.report, wake_at: self.wake_at }
    }
}

fn verb_word(action: &Action) -> &'static str {
    match action.verb.name() {
        crate::model::action::VerbName::Launch => "start",
        crate::model::action::VerbName::Stop => "stop",
        crate::model::action::VerbName::Remove => "remove",
    }
}
