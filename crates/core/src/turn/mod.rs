//! One turn of the controller's loop, without any I/O: inputs in, changes and plans out.
//!
//! *Architecture invariant:* the caller commits the changes of [`Core::take`] and [`Core::decide`] before it sends an action
//! (S8). Memory is then what the store would load again.

mod command;

pub use command::{Command, CommandError};

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::model::{
    acme::AcmeNews,
    action::{ActionKey, ActionResult, Answer, VerbName},
    call::{CallId, Reply},
    certificate::CertificateRecord,
    desired::Desired,
    diagnostic::Diagnostic,
    name::{CertificateId, HostName, TaskId},
    network::NetworkSeen,
    observed::{Death, HostContact, HostObservation},
    report::{Report, Waiting},
    shared::Shared,
    state::{Change, Event, EventLevel, EventSubject, FleetRecord, State},
    storage::StorageSeen,
    time::Timestamp,
    traffic::EdgeSeen,
    volume::VolumesSeen,
    world::{HostStatus, Plan, Subject, World},
};
use crate::plan::{
    self, Quiet,
    absorb::{self, Copied, Probed},
};

/// Pause before a failed order is repeated: doubles from here …
const FIRST_RETRY_MS: u64 = 1_000;
/// … to here.
const LAST_RETRY_MS: u64 = 60_000;
/// A plan is made at least this often, whatever can be told without one: how long a host is silent is told by it.
const MAX_QUIET_MS: u64 = 10_000;

/// Something that the controller is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// The manifests were read.
    Manifests {
        /// What they ask for.
        desired: Arc<Desired>,
        /// Hash of all their bytes.
        hash: String,
        /// What is wrong with them.
        diagnostics: Vec<Diagnostic>,
    },
    /// What people asked to be read up to this number was read, and what it said was told before.
    ManifestsRead(u64),
    /// How hosts can be reached just now, all of them.
    Contacts(BTreeMap<HostName, HostContact>),
    /// A complete look at a host.
    Look(Arc<HostObservation>),
    /// The volumes of ours on a host, all of them.
    Volumes(HostName, VolumesSeen),
    /// The disk and the images of a host.
    Storage(HostName, StorageSeen),
    /// A host's part of the task network.
    Network(HostName, NetworkSeen),
    /// A host's load balancers.
    Edge(HostName, EdgeSeen),
    /// An engine announced the end of a container.
    Died(Death),
    /// An order ended.
    Answer(Answer),
    /// The copy of a volume that moves ended.
    Copied(Copied),
    /// A certificate was read or made.
    Certificate(CertificateRecord),
    /// Of an order for a certificate that began then.
    Acme(CertificateId, Timestamp, AcmeNews),
    /// What came of a question over HTTP that was due then.
    Called(CallId, Timestamp, Reply),
    /// The checks from a host came to a verdict.
    Probed(Probed),
}

/// The controller's memory.
#[derive(Clone, Debug)]
pub struct Core {
    world: World,
    /// What the hosts' looks say against them; contacts come anew and know nothing of it.
    untrusted: BTreeMap<HostName, String>,
    /// Answered orders, until a look that began later.
    answered: BTreeMap<ActionKey, (HostName, Timestamp)>,
    /// When the last look that was taken in began, by host.
    looked: BTreeMap<HostName, Timestamp>,
    attempts: BTreeMap<ActionKey, u32>,
    wanted: Option<(Arc<Desired>, String)>,
    diagnostics: Vec<Diagnostic>,
    report: Shared<Report>,
    /// Set while the last plan found nothing to do.
    quiet: Option<Quiet>,
    fenced: Option<String>,
    take_over: bool,
    manifests_read: bool,
}

impl Core {
    /// From what the store holds. `take_over` accepts that an earlier controller had a higher epoch.
    pub fn new(state: State, seed: u64, now: Timestamp, take_over: bool) -> (Self, Vec<Change>) {
        let mut core = Self {
            world: World { now, seed, settling: !state.fleet.settled, state, ..World::default() },
            untrusted: BTreeMap::new(),
            answered: BTreeMap::new(),
            looked: BTreeMap::new(),
            attempts: BTreeMap::new(),
            wanted: None,
            diagnostics: Vec::new(),
            report: Shared::default(),
            quiet: None,
            fenced: None,
            take_over,
            manifests_read: false,
        };
        // The time in ms: higher than every earlier one also when the database was lost (S6), however quick the restarts.
        let epoch = now.0.max(core.world.state.fleet.epoch.saturating_add(1));
        let changes = vec![Change::Fleet(FleetRecord { epoch, ..core.world.state.fleet.clone() })];
        core.apply(&changes);
        (core, changes)
    }

    /// What was decided could not be written, and `state` is what is durable: nothing may follow from the rest.
    pub fn fall_back(&mut self, state: State, why: &str) {
        self.world.state = state;
        self.quiet = None;
        self.report = Shared::default();
        self.report.waiting.push(Waiting {
            subject: Subject::Fleet,
            reason: format!("what is decided cannot be written, so nothing is done: {why}"),
            wakes_when: "the database takes it again; it is tried every few seconds".to_owned(),
            wakes_at: None,
        });
    }

    /// What the planner is told.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// What the next [`Self::decide`] at `now` is told.
    pub fn world_at(&self, now: Timestamp) -> World {
        World { now, settling: self.world.settling && !self.settled(), ..self.world.clone() }
    }

    /// The last plan's account.
    pub fn report(&self) -> &Shared<Report> {
        &self.report
    }

    /// What is wrong with the manifests.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Why nothing may be done, if so.
    pub fn fenced(&self) -> Option<&str> {
        self.fenced.as_deref()
    }

    /// Takes an input in.
    pub fn take(&mut self, now: Timestamp, input: Input) -> Vec<Change> {
        self.world.now = now;
        let changes = match input {
            Input::Manifests { desired, hash, diagnostics } => {
                self.manifests_read = true;
                self.diagnostics = diagnostics;
                self.wanted = Some((desired, hash));
                return self.sync();
            }
            Input::Contacts(contacts) => {
                forget_others(&mut self.world.volumes, &contacts);
                forget_others(&mut self.world.storage, &contacts);
                forget_others(&mut self.world.networks, &contacts);
                forget_others(&mut self.world.edges, &contacts);
                self.world.contacts = contacts.into();
                for (host, contact) in &mut self.world.contacts {
                    contact.looked_at = self.looked.get(host).copied();
                }
                for (host, reason) in &self.untrusted {
                    if let Some(contact) = self.world.contacts.get_mut(host) {
                        contact.untrusted.get_or_insert_with(|| reason.clone());
                    }
                }
                Vec::new()
            }
            Input::ManifestsRead(_) => Vec::new(),
            Input::Look(look) => self.look(&look),
            Input::Volumes(host, seen) => {
                if self.world.state.desired.hosts.contains_key(&host) {
                    self.world.volumes.insert(host, seen);
                }
                Vec::new()
            }
            Input::Storage(host, seen) => {
                self.storage(host, seen);
                Vec::new()
            }
            Input::Network(host, mut seen) => {
                let is_declared = self.world.state.desired.hosts.contains_key(&host);
                let is_believed = is_declared && self.believes(&host);
                // Who could not be asked has what it had.
                if let Some(before) = self.world.networks.get(&host).filter(|_| seen.problem.is_some())
                    && seen.slices.is_empty()
                {
                    seen.slices.clone_from(&before.slices);
                }
                let changes =
                    if is_believed { absorb::network(&self.world.state, &host, &mut seen) } else { Vec::new() };
                if is_declared {
                    self.world.networks.insert(host, seen);
                }
                changes
            }
            Input::Edge(host, seen) => {
                if self.world.state.desired.hosts.contains_key(&host) {
                    self.world.edges.insert(host, seen);
                }
                absorb::targets(&self.world)
            }
            Input::Certificate(record) => plan::certificates::came(&self.world.state, now, record),
            Input::Acme(id, begun_at, news) => plan::acme::came(&self.world.state, now, &id, begun_at, news),
            Input::Called(id, at, reply) => plan::calls::came(&self.world.state, now, &id, at, &reply),
            Input::Died(death) => self.died(&death),
            Input::Answer(answer) => self.answer(&answer),
            Input::Copied(copied) => absorb::volume_copied(&self.world.state, &copied),
            Input::Probed(probed) if !self.believes(&probed.life.host) => Vec::new(),
            Input::Probed(probed) => absorb::probed(&self.world.state, &probed),
        };
        self.apply(&changes);
        changes
    }

    /// How far the machine's clock is from ours: see [`World::wall_ahead_ms`].
    pub fn note_wall(&mut self, ahead_ms: i64) {
        self.world.wall_ahead_ms = ahead_ms;
    }

    /// Until when [`Self::decide`] finds nothing to do if nothing happens; none when it must be asked.
    pub fn quiet_until(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.world.now = now;
        self.quiet.as_ref().filter(|quiet| self.fenced.is_none() && quiet.goes_on(&self.world)).map(Quiet::until)
    }

    /// Decides what can be decided now. Its orders count as under way from here on.
    pub fn decide(&mut self, now: Timestamp) -> Plan {
        self.world.now = now;
        let was_settling = self.world.settling;
        self.world.settling = was_settling && !self.settled();
        if let Some(reason) = &self.fenced {
            let mut plan = Plan::default();
            plan.report.waiting.push(Waiting {
                subject: Subject::Fleet,
                reason: reason.clone(),
                wakes_when: "this controller is started with --take-over, or the other one is stopped for good"
                    .to_owned(),
                wakes_at: None,
            });
            self.report = plan.report.clone().into();
            return plan;
        }
        let mut plan = plan::plan(&self.world);
        let is_quiet = plan.changes.is_empty() && plan.actions.is_empty() && !self.world.settling;
        self.quiet = is_quiet.then(|| {
            let latest = now.plus_ms(MAX_QUIET_MS);
            Quiet::new(self.world.clone(), plan.wake_at.map_or(latest, |at| at.min(latest)))
        });
        self.apply(&plan.changes);
        if was_settling && !self.world.settling {
            // Until this is durable, whoever starts again may have adopted a part only.
            let settled = Change::Fleet(FleetRecord { settled: true, ..self.world.state.fleet.clone() });
            self.world.state.apply(&settled);
            plan.changes.push(settled);
        }
        for action in &plan.actions {
            self.world.in_flight.insert(action.key());
            self.world.retry_at.remove(&action.key());
        }
        self.report = plan.report.clone().into();
        plan
    }

    /// What would be decided if these manifests were in force.
    pub fn what_if(&self, desired: Arc<Desired>) -> Plan {
        let mut world = self.world.clone();
        world.state.desired = desired;
        plan::forecast::forecast(&world)
    }

    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            self.world.state.apply(change);
            if let Change::TaskRemoved(task) = change {
                self.attempts.retain(|key, _| key.task != *task);
                self.world.retry_at.retain(|key, _| key.task != *task);
            }
        }
    }

    fn sync(&mut self) -> Vec<Change> {
        let Some((desired, hash)) = &self.wanted else { return Vec::new() };
        let changes = match absorb::desired(&self.world.state, desired, hash, self.world.now) {
            absorb::SyncVerdict::Unchanged => Vec::new(),
            absorb::SyncVerdict::Taken(changes) | absorb::SyncVerdict::Held(_, changes) => changes,
        };
        self.apply(&changes);
        changes
    }

    fn look(&mut self, look: &Arc<HostObservation>) -> Vec<Change> {
        if !self.world.state.desired.hosts.contains_key(&look.host) {
            return Vec::new();
        }
        let settled: Vec<ActionKey> = self
            .answered
            .iter()
            .filter(|(key, (host, at))| key.verb != VerbName::Prune && *host == look.host && look.started_at > *at)
            .map(|(key, _)| key.clone())
            .collect();
        let launching: BTreeSet<&TaskId> = self
            .world
            .in_flight
            .iter()
            .filter(|key| key.verb == VerbName::Launch && !settled.contains(key))
            .map(|key| &key.task)
            .collect();
        let mut absorbed = absorb::observation(&self.world.state, look, &launching);
        if let Some(fence) = absorbed.fenced.take() {
            if self.take_over {
                // The higher number is known now: ours goes beyond it, and the look is taken in again.
                let seen = look
                    .containers
                    .values()
                    .filter_map(|container| container.owner.ours())
                    .map(|claim| claim.epoch)
                    .max()
                    .unwrap_or(0);
                let mut changes = vec![Change::Fleet(FleetRecord {
                    epoch: seen.saturating_add(1),
                    ..self.world.state.fleet.clone()
                })];
                self.apply(&changes);
                let again = absorb::observation(&self.world.state, look, &BTreeSet::new());
                changes.extend(again.changes);
                return changes;
            }
            self.fenced = Some(fence);
            return Vec::new();
        }
        let mut changes = absorbed.changes;
        match absorbed.untrusted {
            Some(reason) => {
                if self.untrusted.insert(look.host.clone(), reason.clone()).is_none() {
                    changes.push(host_event(
                        self.world.now,
                        &look.host,
                        "HostUntrusted",
                        format!("host {}: {reason}", look.host),
                    ));
                }
                if let Some(contact) = self.world.contacts.get_mut(&look.host) {
                    contact.untrusted = Some(reason);
                }
                return changes;
            }
            None => {
                self.untrusted.remove(&look.host);
            }
        }
        self.looked.insert(look.host.clone(), look.started_at);
        if let Some(contact) = self.world.contacts.get_mut(&look.host) {
            contact.looked_at = Some(look.started_at);
        }
        for key in settled {
            self.answered.remove(&key);
            self.world.in_flight.remove(&key);
        }
        changes
    }

    /// A removal of images counts as under way until a look at them that began after its answer.
    fn storage(&mut self, host: HostName, mut seen: StorageSeen) {
        if !self.world.state.desired.hosts.contains_key(&host) {
            return;
        }
        let is_settled = |key: &ActionKey, (at_host, at): &(HostName, Timestamp)| {
            key.verb == VerbName::Prune && *at_host == host && seen.started_at >= *at
        };
        let settled: Vec<ActionKey> =
            self.answered.iter().filter(|(key, at)| is_settled(key, at)).map(|(key, _)| key.clone()).collect();
        for key in settled {
            self.answered.remove(&key);
            self.world.in_flight.remove(&key);
        }
        let look = self.world.state.observations.get(&host);
        seen.note_uses(self.world.storage.get(&host), look.iter().flat_map(|look| look.containers.values()));
        self.world.storage.insert(host, seen);
    }

    /// Only of a host that is trusted, and only what no later look has overtaken.
    fn died(&mut self, death: &Death) -> Vec<Change> {
        let is_news = self.looked.get(&death.host).is_some_and(|began| *began <= death.heard_at);
        if !is_news || !self.believes(&death.host) {
            return Vec::new();
        }
        let Some((task, changes)) = absorb::death(&self.world.state, death) else { return Vec::new() };
        // There is nothing to stop unless a look that begins later shows otherwise: as if a stop had just been answered.
        let stop = ActionKey { task, verb: VerbName::Stop };
        self.world.in_flight.insert(stop.clone());
        self.answered.insert(stop, (death.host.clone(), death.heard_at));
        changes
    }

    /// Whether what a host tells between its looks counts.
    fn believes(&self, host: &HostName) -> bool {
        self.fenced.is_none() && self.world.contacts.get(host).is_some_and(|contact| contact.untrusted.is_none())
    }

    fn answer(&mut self, answer: &Answer) -> Vec<Change> {
        match &answer.result {
            ActionResult::Done { .. } | ActionResult::Resolved { .. } => {
                self.attempts.remove(&answer.key);
            }
            ActionResult::Pruned { in_use, .. } => {
                self.attempts.remove(&answer.key);
                // They are tried again when they are old again.
                if let Some(seen) = self.world.storage.get_mut(&answer.host) {
                    seen.used_at.extend(in_use.iter().map(|id| (id.clone(), answer.at)));
                }
            }
            ActionResult::Partly { reason, .. }
            | ActionResult::Failed { reason, .. }
            | ActionResult::Removed { reason, .. }
            | ActionResult::NotSent { reason }
            | ActionResult::Unknown { reason } => {
                let attempts = self.attempts.entry(answer.key.clone()).or_default();
                let pause = retry_pause_ms(&answer.key.task, *attempts);
                *attempts = attempts.saturating_add(1).min(16);
                self.world.retry_at.insert(answer.key.clone(), (answer.at.plus_ms(pause), reason.clone()));
            }
        }
        self.answered.insert(answer.key.clone(), (answer.host.clone(), answer.at));
        absorb::answer(&self.world.state, answer)
    }

    /// Whether every declared host was looked at, or is known to be out of reach.
    fn settled(&self) -> bool {
        self.manifests_read
            && !self.world.state.desired.hosts.is_empty()
            && self.world.state.desired.hosts.keys().all(|host| {
                let looked = self.world.contacts.get(host).is_some_and(|contact| contact.looked_at.is_some())
                    && self.world.state.observations.contains_key(host);
                looked || matches!(plan::host_status(&self.world, host), HostStatus::Lost | HostStatus::Untrusted)
            })
    }
}

/// Forgets what was seen on hosts that there are no more; what is shared with an earlier world is copied for that alone.
fn forget_others<T: Clone>(seen: &mut Shared<BTreeMap<HostName, T>>, contacts: &BTreeMap<HostName, HostContact>) {
    if seen.keys().any(|host| !contacts.contains_key(host)) {
        seen.retain(|host, _| contacts.contains_key(host));
    }
}

/// Doubles, and differs by up to a quarter from task to task: what failed together is not tried again together.
fn retry_pause_ms(task: &TaskId, attempts: u32) -> u64 {
    let pause = FIRST_RETRY_MS.checked_shl(attempts).unwrap_or(LAST_RETRY_MS).min(LAST_RETRY_MS);
    let mix = |hash: u64, byte: u8| hash.wrapping_mul(31).wrapping_add(byte.into());
    let share = task.as_str().bytes().fold(attempts.into(), mix) % 26;
    pause + pause * share / 100
}

fn host_event(at: Timestamp, host: &HostName, reason: &str, message: String) -> Change {
    let level = if reason == "HostUntrusted" { EventLevel::Warning } else { EventLevel::Normal };
    Change::Event(Event::new(at, EventSubject::Host(host.clone()), level, reason, message))
}
