//! Everything durable, and the changes by which alone it changes.
//!
//! The store writes changes in one transaction, the controller applies the same changes to its copy in memory:
//! `load(commit(changes)) == apply(changes)`.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

pub use super::deployment::{Again, Deployment, DeploymentStatus, LifecycleStage, Outcome, Pin, RolloutState, Stage};
use super::{
    acme::{AcmeAccount, AcmeOrder},
    certificate::CertificateRecord,
    desired::Desired,
    image::{Familiar, ResolvedImage, familiar},
    name::{CertificateId, Family, HostName, RevisionId, ScheduleName, ServiceName, SubnetName, TaskId},
    network::SubnetRecord,
    observed::{EngineIdentity, HostObservation},
    schedule::ScheduleRecord,
    shared::Shared,
    spec::TaskDefinitionSpec,
    task::{Launch, Task},
    time::Timestamp,
    traffic::Shift,
    volume::{VolumeId, VolumeRecord},
    wireguard::PublicKey,
};

/// An immutable revision of a task definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// family:number.
    pub id: RevisionId,
    /// SHA-256 over the canonical content, hex.
    pub hash: String,
    /// The content; `None` for one that is only known from containers of before the database was lost.
    pub spec: Option<Arc<TaskDefinitionSpec>>,
    /// What the references of its containers stand for, once resolved: all its tasks run the same bits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, ResolvedImage>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Revision {
    /// What a host is asked to run for a reference.
    pub fn image(&self, reference: &str) -> String {
        self.images.get(reference).map_or_else(|| reference.to_owned(), |resolved| resolved.pinned(reference))
    }

    /// The same in its familiar form.
    pub fn familiar_image<'r>(&'r self, reference: &'r str) -> Familiar<'r> {
        self.images.get(reference).map_or_else(|| familiar(reference), |resolved| resolved.familiar(reference))
    }
}

/// What an operator said about a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Schedulability {
    /// Takes tasks.
    #[default]
    Active,
    /// Takes no new tasks.
    Cordoned,
    /// Its tasks move elsewhere.
    Draining,
}

/// What is remembered of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostRecord {
    /// Its name.
    pub name: HostName,
    /// An operator's word.
    pub schedulability: Schedulability,
    /// Who its engine said it was when first seen (S21); a later answer that differs makes it UNTRUSTED.
    pub identity: Option<EngineIdentity>,
    /// Set while it counts as lost.
    pub lost_since: Option<Timestamp>,
    /// While it is drained: when standalone tasks that still run there are stopped; without it they are left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_until: Option<Timestamp>,
    /// Since when its disk is too full and no image can be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_pressure_since: Option<Timestamp>,
    /// What other hosts know it by, where packets between hosts are encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKey>,
}

/// What is remembered of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRecord {
    /// Its name.
    pub name: ServiceName,
    /// Newest first, at most [`MAX_DEPLOYMENTS_KEPT`]; the first is PRIMARY.
    pub deployments: Vec<Deployment>,
    /// Tasks in a row that failed (reset when one is healthy, or by a new revision).
    pub consecutive_failures: u32,
    /// No start before this (start throttle).
    pub not_before: Option<Timestamp>,
    /// Failures by host in the last minutes: (when, host), newest last, at most [`MAX_FAILURES_KEPT`].
    pub failures: Vec<(Timestamp, HostName)>,
    /// Revisions whose deployment completed, the last first, each once, at most [`MAX_COMPLETED_KEPT`].
    #[serde(default)]
    pub completed: Vec<RevisionId>,
    /// Set while it runs another revision than its manifest asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// A deployment that a person asked for and that has not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Again>,
    /// Where its rules send requests, if its revisions take turns in two target groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift: Option<Shift>,
    /// What runs on the side of [`Shift::live`], if its revisions take turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_service: Option<RevisionId>,
}

impl ServiceRecord {
    /// The newest deployment.
    pub fn primary(&self) -> Option<&Deployment> {
        self.deployments.first()
    }

    /// Revisions whose deployment completed, the last first.
    pub fn completed(&self) -> impl Iterator<Item = &RevisionId> {
        // A record of before this was kept tells by its deployments.
        let told = self.deployments.iter().filter(|deployment| deployment.rollout_state == RolloutState::Completed);
        let told = told.map(|deployment| &deployment.revision);
        self.completed.iter().chain(told.filter(|_| self.completed.is_empty()))
    }

    /// Remembers that a deployment of this revision completed.
    pub fn note_completed(&mut self, revision: &RevisionId) {
        let before: Vec<RevisionId> = self.completed().filter(|known| *known != revision).cloned().collect();
        self.completed = std::iter::once(revision.clone()).chain(before).take(MAX_COMPLETED_KEPT).collect();
    }
}

/// How many deployments a service keeps.
pub const MAX_DEPLOYMENTS_KEPT: usize = 10;
/// How many completed revisions a service remembers, and can go back to.
pub const MAX_COMPLETED_KEPT: usize = 10;
/// How many failures a service keeps.
pub const MAX_FAILURES_KEPT: usize = 32;

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventSubject {
    /// The fleet or the controller.
    Fleet,
    /// A host.
    Host(HostName),
    /// A service.
    Service(ServiceName),
    /// A task.
    Task(TaskId),
    /// A scheduled task.
    ScheduledTask(ScheduleName),
    /// A manifest file.
    File(String),
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventLevel {
    /// As wanted.
    Normal,
    /// A person may want to look.
    Warning,
}

/// Something that happened, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Growing number, given by the store.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// About what.
    pub subject: EventSubject,
    /// How much it matters.
    pub level: EventLevel,
    /// Stable word for scripts: `TaskStarted`.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Event {
    /// Not written yet: the store numbers it.
    pub fn new(
        at: Timestamp,
        subject: EventSubject,
        level: EventLevel,
        reason: &str,
        message: impl Into<String>,
    ) -> Self {
        Self { id: 0, at, subject, level, reason: reason.to_owned(), message: message.into() }
    }
}

/// A change of the manifests that is not carried out until a person confirms it (S13).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldSync {
    /// What to confirm: a short hash of the wanted state.
    pub token: String,
    /// Why it is held.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// The fleet's own numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetRecord {
    /// The running controller's epoch: greater than every one seen before (S6).
    pub epoch: u64,
    /// Hash of the manifests in force.
    pub manifests_hash: String,
    /// A change that waits for a person.
    pub held: Option<HeldSync>,
    /// Tokens that a person confirmed, newest last, at most 8.
    pub confirmed: Vec<String>,
    /// The brake (S14): since when, and until when a person released it.
    pub brake: Option<Brake>,
    /// When the brake last ended because a host answered.
    pub brake_ended_at: Option<Timestamp>,
    /// Next deployment number.
    pub next_deployment: u64,
    /// Every declared host was looked at, or was out of reach, since the database was made: what ran before it is adopted.
    pub settled: bool,
}

/// The brake is on: too much of the fleet went silent at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Brake {
    /// Since when.
    pub since: Timestamp,
    /// Why, in words.
    pub reason: String,
    /// The lost hosts: the first that answers ends it.
    pub hosts: Vec<HostName>,
    /// A person said: go on regardless.
    pub released: bool,
}

/// Everything durable; a clone costs next to nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The manifests in force.
    pub desired: Arc<Desired>,
    /// Revisions by family and number.
    pub revisions: Shared<BTreeMap<Family, BTreeMap<u32, Revision>>>,
    /// Hosts.
    pub hosts: Shared<BTreeMap<HostName, HostRecord>>,
    /// Services.
    pub services: Shared<BTreeMap<ServiceName, ServiceRecord>>,
    /// Schedules.
    pub schedules: Shared<BTreeMap<ScheduleName, ScheduleRecord>>,
    /// Tasks, ended ones included for a while.
    pub tasks: Shared<BTreeMap<TaskId, Arc<Task>>>,
    /// Last complete look at each host.
    pub observations: Shared<BTreeMap<HostName, Arc<HostObservation>>>,
    /// Volumes that have one place.
    pub volumes: Shared<BTreeMap<VolumeId, VolumeRecord>>,
    /// How subnets are cut, and which slice is whose.
    pub subnets: Shared<BTreeMap<SubnetName, SubnetRecord>>,
    /// Certificates of load balancers, and the authority of our own.
    pub certificates: Shared<BTreeMap<CertificateId, CertificateRecord>>,
    /// Accounts at authorities, by directory.
    pub acme_accounts: Shared<BTreeMap<String, AcmeAccount>>,
    /// Certificates that are ordered, or could not be had.
    pub acme_orders: Shared<BTreeMap<CertificateId, AcmeOrder>>,
    /// The fleet's own numbers.
    pub fleet: FleetRecord,
}

/// One durable change. The store has one row (or one append) for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// The manifests in force, whole.
    Desired(Arc<Desired>),
    /// A new revision; one that exists is only ever completed (`spec` from `None`), never altered.
    Revision(Revision),
    /// A revision that nothing needs any more.
    RevisionRemoved(RevisionId),
    /// A host.
    Host(HostRecord),
    /// A host that is no longer declared and holds nothing.
    HostRemoved(HostName),
    /// A service.
    Service(ServiceRecord),
    /// A service that is no longer declared and has no tasks.
    ServiceRemoved(ServiceName),
    /// A schedule.
    Schedule(ScheduleRecord),
    /// A schedule that is no longer declared.
    ScheduleRemoved(ScheduleName),
    /// A task.
    Task(Arc<Task>),
    /// An ended task that is forgotten.
    TaskRemoved(TaskId),
    /// A complete look.
    Observation(Arc<HostObservation>),
    /// A volume that has one place.
    Volume(VolumeRecord),
    /// A volume of which nobody cares any more where it is.
    VolumeRemoved(VolumeId),
    /// A subnet's slices.
    Subnet(SubnetRecord),
    /// A subnet that is no longer declared and of which no task has an address.
    SubnetRemoved(SubnetName),
    /// A certificate.
    Certificate(CertificateRecord),
    /// A certificate that no load balancer shows any more.
    CertificateRemoved(CertificateId),
    /// An account at an authority: it is never removed.
    AcmeAccount(AcmeAccount),
    /// A certificate that is ordered, or could not be had.
    AcmeOrder(AcmeOrder),
    /// A certificate that came, or that nobody asks for any more.
    AcmeOrderRemoved(CertificateId),
    /// The fleet's numbers.
    Fleet(FleetRecord),
    /// Something happened (its id is given by the store).
    Event(Event),
}

impl State {
    /// Applies one change.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Desired(desired) => self.desired = Arc::clone(desired),
            Change::Revision(revision) => {
                self.revisions
                    .entry(revision.id.family.clone())
                    .or_default()
                    .insert(revision.id.number, revision.clone());
            }
            Change::RevisionRemoved(id) => {
                if let Some(family) = self.revisions.get_mut(&id.family) {
                    family.remove(&id.number);
                    if family.is_empty() {
                        self.revisions.remove(&id.family);
                    }
                }
            }
            Change::Host(host) => {
                self.hosts.insert(host.name.clone(), host.clone());
            }
            Change::HostRemoved(name) => {
                self.hosts.remove(name);
                self.observations.remove(name);
            }
            Change::Service(service) => {
                self.services.insert(service.name.clone(), service.clone());
            }
            Change::ServiceRemoved(name) => {
                self.services.remove(name);
            }
            Change::Schedule(schedule) => {
                self.schedules.insert(schedule.name.clone(), schedule.clone());
            }
            Change::ScheduleRemoved(name) => {
                self.schedules.remove(name);
            }
            Change::Task(task) => {
                self.tasks.insert(task.id.clone(), Arc::clone(task));
            }
            Change::TaskRemoved(id) => {
                self.tasks.remove(id);
            }
            Change::Observation(observation) => {
                self.observations.insert(observation.host.clone(), Arc::clone(observation));
            }
            Change::Volume(volume) => {
                self.volumes.insert(volume.id.clone(), volume.clone());
            }
            Change::VolumeRemoved(id) => {
                self.volumes.remove(id);
            }
            Change::Subnet(subnet) => {
                self.subnets.insert(subnet.name.clone(), subnet.clone());
            }
            Change::SubnetRemoved(name) => {
                self.subnets.remove(name);
            }
            Change::Certificate(record) => {
                self.certificates.insert(record.id.clone(), record.clone());
            }
            Change::CertificateRemoved(id) => {
                self.certificates.remove(id);
            }
            Change::AcmeAccount(account) => {
                self.acme_accounts.insert(account.directory.clone(), account.clone());
            }
            Change::AcmeOrder(order) => {
                self.acme_orders.insert(order.id.clone(), order.clone());
            }
            Change::AcmeOrderRemoved(id) => {
                self.acme_orders.remove(id);
            }
            Change::Fleet(fleet) => self.fleet = fleet.clone(),
            // Events are a record for people: nothing is decided from them.
            Change::Event(_) => {}
        }
    }

    /// The latest of the times of tasks and looks.
    pub fn newest_time(&self) -> Timestamp {
        let tasks = self.tasks.values().flat_map(|task| {
            let ordered = match task.launch {
                Launch::NotIssued => None,
                Launch::Issued { at } | Launch::Answered { at } => Some(at),
            };
            [Some(task.created_at), ordered, task.started_at, task.stopping_at, task.stopped_at].into_iter().flatten()
        });
        let looks = self.observations.values().map(|look| look.finished_at);
        let losses = self.hosts.values().filter_map(|host| host.lost_since);
        let brake = self.fleet.brake.as_ref().map(|brake| brake.since);
        let failures = self.services.values().flat_map(|service| &service.failures).map(|(at, _)| *at);
        let deployments = self.services.values().flat_map(|service| &service.deployments);
        let others = losses.chain(brake).chain(self.fleet.brake_ended_at).chain(failures);
        let others = others.chain(deployments.map(|deployment| deployment.updated_at));
        let others = others.chain(self.schedules.values().map(|schedule| schedule.considered_until));
        tasks.chain(looks).chain(others).max().unwrap_or_default()
    }

    /// A revision by id.
    pub fn revision(&self, id: &RevisionId) -> Option<&Revision> {
        self.revisions.get(&id.family)?.get(&id.number)
    }

    /// The newest revision of a family.
    pub fn latest_revision(&self, family: &Family) -> Option<&Revision> {
        self.revisions.get(family)?.values().next_back()
    }
}
