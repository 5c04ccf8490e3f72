//! A plan in the making: the world, and what was decided so far on top of it.

mod index;
mod roster;
mod tasks;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_lc_rs::digest;

use crate::model::{
    acme::AcmeOrder,
    action::{Action, VerbName},
    certificate::CertificateRecord,
    name::{ClusterName, Family, HostName, RevisionId, ScheduleName, ServiceName, SubnetName, TaskId},
    network::SubnetRecord,
    report::{Doing, Report, Waiting},
    schedule::ScheduleRecord,
    state::{Change, Event, EventLevel, EventSubject, FleetRecord, Revision, ServiceRecord},
    task::{LastStatus, Task},
    time::Timestamp,
    volume::{VolumeId, VolumeRecord},
    world::{HostStatus, Plan, Subject, World},
};
use crate::plan::{
    place,
    placement::{HostInput, Placer},
};

use index::Index;
pub(super) use roster::{Host, HostNo, Service, ServiceNo};
pub(super) use tasks::{Counts, TaskNo, Tasks};

/// A plan in the making.
pub(super) struct Draft<'w> {
    pub(super) world: &'w World,
    /// Whether what is steady is told without going into it: always, but for the test that compares the two.
    pub(super) shortcuts: bool,
    /// Declared hosts by name.
    pub(super) hosts: Vec<Host<'w>>,
    /// Declared services by name.
    pub(super) services: Vec<Service<'w>>,
    host_index: Index,
    service_index: Index,
    /// None until [`Self::read_tasks`].
    pub(super) tasks: Tasks<'w>,
    forgotten: Vec<TaskId>,
    added: BTreeSet<TaskId>,
    revisions: BTreeMap<RevisionId, Revision>,
    schedules: BTreeMap<ScheduleName, ScheduleRecord>,
    removed: Vec<Change>,
    /// Volumes that this draft changed.
    pub(super) volumes: BTreeMap<VolumeId, VolumeRecord>,
    /// Subnets that this draft cut, or cut anew.
    subnets: BTreeMap<SubnetName, SubnetRecord>,
    certificates: Vec<CertificateRecord>,
    orders: Vec<AcmeOrder>,
    fleet: Option<FleetRecord>,
    events: Vec<Event>,
    actions: Vec<Action>,
    report: Report,
    wake_at: Option<Timestamp>,
    answering: OnceCell<BTreeSet<ClusterName>>,
    placer: Option<Placer<'w>>,
    next_id: u64,
}

impl<'w> Draft<'w> {
    pub(super) fn new(world: &'w World) -> Self {
        let desired = &world.state.desired;
        Self {
            world,
            shortcuts: true,
            hosts: desired.hosts.iter().map(|(name, manifest)| Host::new(world, name, manifest)).collect(),
            services: desired.services.iter().map(|(name, manifest)| Service::new(world, name, manifest)).collect(),
            host_index: Index::new(desired.hosts.keys().map(HostName::as_str)),
            service_index: Index::new(desired.services.keys().map(ServiceName::as_str)),
            tasks: Tasks::default(),
            forgotten: Vec::new(),
            added: BTreeSet::new(),
            revisions: BTreeMap::new(),
            schedules: BTreeMap::new(),
            removed: Vec::new(),
            volumes: BTreeMap::new(),
            subnets: BTreeMap::new(),
            certificates: Vec::new(),
            orders: Vec::new(),
            fleet: None,
            events: Vec::new(),
            actions: Vec::new(),
            report: Report::default(),
            wake_at: None,
            answering: OnceCell::new(),
            placer: None,
            next_id: 0,
        }
    }

    /// Reads every task of the world, once; `is_kept` tells whether one is as its service wants it.
    pub(super) fn read_tasks(&mut self, is_kept: fn(&Draft<'_>, &Service<'_>, Option<&Host<'_>>, &Task) -> bool) {
        let mut tasks = Tasks::with_capacity(self.world.state.tasks.len());
        for task in self.world.state.tasks.values() {
            let host = self.host_no(&task.host);
            let service = self.service_no(&task.service);
            let host_row = host.map(|host| &self.hosts[host]);
            let kept = service.is_some_and(|service| is_kept(self, &self.services[service], host_row, task));
            tasks.know(task, service, host, kept);
        }
        self.tasks = tasks;
    }

    pub(super) fn now(&self) -> Timestamp {
        self.world.now
    }

    /// A declared host's number.
    pub(super) fn host_no(&self, name: &HostName) -> Option<HostNo> {
        self.host_index.find(name.as_str(), |host| self.hosts[host].name.as_str())
    }

    /// A declared service's number.
    pub(super) fn service_no(&self, name: &ServiceName) -> Option<ServiceNo> {
        self.service_index.find(name.as_str(), |service| self.services[service].name.as_str())
    }

    /// A task as it stands in this draft.
    pub(super) fn task(&self, no: TaskNo) -> &Task {
        self.tasks.get(no)
    }

    /// The status of a task's host; none when it is not declared.
    pub(super) fn host_status(&self, no: TaskNo) -> Option<HostStatus> {
        self.tasks.host(no).map(|host| self.hosts[host].status)
    }

    /// Whether a task's host can be asked, and given orders.
    pub(super) fn is_heard(&self, no: TaskNo) -> bool {
        self.tasks.host(no).is_some_and(|host| self.hosts[host].heard)
    }

    /// Adds a task of a service, or a standalone one.
    pub(super) fn add_task(&mut self, task: Task, service: Option<ServiceNo>) {
        let host = self.host_no(&task.host);
        if let Some(service) = service {
            self.services[service].placed += 1;
        }
        self.added.insert(task.id.clone());
        self.tasks.add(task, service, host);
    }

    /// Changes the record of a task's service; one that is not declared has none that matters.
    pub(super) fn change_service_of(&mut self, no: TaskNo, change: impl FnOnce(&Task, &mut ServiceRecord)) {
        let (tasks, services) = (&self.tasks, &mut self.services);
        if let Some(service) = tasks.service(no) {
            services[service].change(|record| change(tasks.get(no), record));
        }
    }

    /// Forgets an ended task.
    pub(super) fn forget_task(&mut self, id: TaskId) {
        self.forgotten.push(id);
    }

    /// Every task as it stands, but for those that this draft forgets.
    pub(super) fn remembered_tasks(&self) -> impl Iterator<Item = &Task> {
        let forgotten: BTreeSet<&TaskId> = self.forgotten.iter().collect();
        self.tasks.iter().filter(move |task| !forgotten.contains(&task.id))
    }

    /// A revision, those numbered in this draft included.
    pub(super) fn revision(&self, id: &RevisionId) -> Option<&Revision> {
        self.revisions.get(id).or_else(|| self.world.state.revision(id))
    }

    /// Every revision as it stands: those numbered in this draft, and without those that it forgets.
    pub(super) fn revisions(&self) -> BTreeMap<&RevisionId, &Revision> {
        let known = self.world.state.revisions.values().flat_map(BTreeMap::values);
        let mut all: BTreeMap<_, _> = known.chain(self.revisions.values()).map(|made| (&made.id, made)).collect();
        for change in &self.removed {
            if let Change::RevisionRemoved(id) = change {
                all.remove(id);
            }
        }
        all
    }

    /// The newest revision of a family that has this content.
    pub(super) fn newest_with_hash(&self, family: &Family, hash: &str) -> Option<RevisionId> {
        let made_here = self.revisions.values().filter(|made| made.id.family == *family && made.hash == hash);
        let known = super::revision::find_by_hash(&self.world.state, family, hash);
        made_here.map(|made| made.id.clone()).chain(known).max()
    }

    /// Makes a revision, or completes one.
    pub(super) fn put_revision(&mut self, revision: Revision) {
        self.revisions.insert(revision.id.clone(), revision);
    }

    /// A declared schedule's record as it stands, if there is one.
    pub(super) fn schedule(&self, name: &ScheduleName) -> Option<&ScheduleRecord> {
        self.schedules.get(name).or_else(|| self.world.state.schedules.get(name))
    }

    pub(super) fn put_schedule(&mut self, record: ScheduleRecord) {
        self.schedules.insert(record.name.clone(), record);
    }

    /// The clusters whose hosts answer for names.
    pub(super) fn answering(&self) -> &BTreeSet<ClusterName> {
        self.answering
            .get_or_init(|| super::network::answering(&self.world.state.desired).into_iter().cloned().collect())
    }

    /// How a subnet is cut, as it stands.
    pub(super) fn subnet(&self, name: &SubnetName) -> Option<&SubnetRecord> {
        self.subnets.get(name).or_else(|| self.world.state.subnets.get(name))
    }

    /// Every subnet as it is cut: those that this draft left alone, then the others.
    pub(super) fn subnets(&self) -> impl Iterator<Item = &SubnetRecord> {
        let known = self.world.state.subnets.values().filter(|record| !self.subnets.contains_key(&record.name));
        known.chain(self.subnets.values())
    }

    pub(super) fn put_subnet(&mut self, record: SubnetRecord) {
        self.subnets.insert(record.name.clone(), record);
    }

    pub(super) fn put_certificate(&mut self, record: CertificateRecord) {
        self.certificates.push(record);
    }

    pub(super) fn put_order(&mut self, order: AcmeOrder) {
        self.orders.retain(|put| put.id != order.id);
        self.orders.push(order);
    }

    pub(super) fn fleet(&self) -> &FleetRecord {
        self.fleet.as_ref().unwrap_or(&self.world.state.fleet)
    }

    /// Changes the fleet's numbers.
    pub(super) fn change_fleet(&mut self, change: impl FnOnce(&mut FleetRecord)) {
        change(self.fleet.get_or_insert_with(|| self.world.state.fleet.clone()));
    }

    /// A removal of a host's or a service's record.
    pub(super) fn remove(&mut self, change: Change) {
        if !self.removed.contains(&change) {
            self.removed.push(change);
        }
    }

    pub(super) fn event(&mut self, subject: EventSubject, level: EventLevel, reason: &str, message: impl Into<String>) {
        let at = self.now();
        self.events.push(Event::new(at, subject, level, reason, message));
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
    /// The machine's time, which schedules follow.
    pub(super) fn wall(&self) -> Timestamp {
        self.now().moved_ms(self.world.wall_ahead_ms)
    }

    /// Our time when it is `wall` by the machine's, as far as anybody knows now.
    pub(super) fn when_wall_is(&self, wall: Timestamp) -> Timestamp {
        wall.moved_ms(self.world.wall_ahead_ms.saturating_neg())
    }

    pub(super) fn wake_at(&mut self, at: Timestamp) {
        if at > self.now() {
            self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        if let Some(word) = verb_word(&action) {
            self.doing(word, Subject::Task(action.task.clone()), Some(&action.host), action.reason.clone());
        }
        self.actions.push(action);
    }

    /// The hosts as placement sees them, but for the ports that others hold there.
    pub(super) fn host_inputs(&self) -> impl Iterator<Item = HostInput<'w>> {
        self.hosts.iter().map(place::host_input)
    }

    /// Asks the placer, which is built when first needed: most plans place nothing.
    pub(super) fn with_placer<T>(&mut self, ask: impl FnOnce(&Self, &mut Placer<'w>) -> T) -> T {
        let mut placer = self.placer.take().unwrap_or_else(|| place::build_placer(self));
        let answer = ask(self, &mut placer);
        self.placer = Some(placer);
        answer
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

    /// Tells the placer, if there is one, that a task is over, and what it took is free. The task is as it was before.
    pub(super) fn release(&mut self, task: &Task) {
        if let Some(mut placer) = self.placer.take() {
            placer.release(&place::placed(self, task));
            self.placer = Some(placer);
        }
    }

    /// A new task id: from the seed, so that a plan can be computed again.
    pub(super) fn new_task_id(&mut self) -> TaskId {
        loop {
            self.next_id += 1;
            let input =
                format!("{}/{}/{}/{}", self.world.seed, self.world.state.fleet.epoch, self.world.now.0, self.next_id);
            let hash = digest::digest(&digest::SHA256, input.as_bytes());
            let first = hash.as_ref().first_chunk().copied().unwrap_or_default();
            let id = TaskId::from(format!("{:016x}", u64::from_be_bytes(first)));
            if !self.world.state.tasks.contains_key(&id) && !self.added.contains(&id) {
                return id;
            }
        }
    }

    pub(super) fn finish(self) -> Plan {
        let mut changes = Vec::new();
        changes.extend(self.fleet.filter(|fleet| *fleet != self.world.state.fleet).map(Change::Fleet));
        changes.extend(self.revisions.into_values().map(Change::Revision));
        changes.extend(self.hosts.into_iter().filter_map(Host::into_changed).map(Change::Host));
        changes.extend(self.services.into_iter().filter_map(Service::into_changed).map(Change::Service));
        let known = &self.world.state.volumes;
        let volumes = self.volumes.into_values().filter(|record| known.get(&record.id) != Some(record));
        changes.extend(volumes.map(Change::Volume));
        changes.extend(self.schedules.into_values().map(Change::Schedule));
        changes.extend(self.subnets.into_values().map(Change::Subnet));
        changes.extend(self.certificates.into_iter().map(Change::Certificate));
        changes.extend(self.orders.into_iter().map(Change::AcmeOrder));
        // What is over frees its ports before another takes them.
        let (over, rest): (Vec<Arc<Task>>, Vec<Arc<Task>>) =
            self.tasks.into_edited().partition(|task| task.last_status == LastStatus::Stopped);
        changes.extend(over.into_iter().chain(rest).map(Change::Task));
        changes.extend(self.forgotten.into_iter().map(Change::TaskRemoved));
        changes.extend(self.removed);
        changes.extend(self.events.into_iter().map(Change::Event));
        Plan { changes, actions: self.actions, report: self.report, wake_at: self.wake_at }
    }
}

/// None for a question, which changes nothing, and for what is about no task.
fn verb_word(action: &Action) -> Option<&'static str> {
    match action.verb.name() {
        VerbName::Resolve | VerbName::Prune => None,
        VerbName::Launch => Some("start"),
        VerbName::Stop | VerbName::Tidy => Some("stop"),
        VerbName::Remove => Some("remove"),
        VerbName::Sweep => Some("sweep"),
    }
}
