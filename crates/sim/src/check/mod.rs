//! The predicates, named as in the invariants. Each looks at ground truth, at what is committed, or at one decision.
//!
//! | module | when |
//! |---|---|
//! | [`requests`] | a change is sent, and done |
//! | [`rows`] | something is committed |
//! | [`decisions`] | the planner decided |
//! | [`standalone`] | a standalone task is committed, made, started |
//! | [`rest`] | faults are over |
//! | [`network`] | each of these, about addresses, rules and names |
//! | [`traffic`] | the same about load balancers |
//! | [`volumes`], [`data`] | each of these, about volumes |

pub(crate) mod data;
mod decisions;
pub(crate) mod network;
mod requests;
mod rest;
mod rows;
mod standalone;
mod traffic;
mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

pub(crate) use decisions::l3_nothing_was_due;
pub(crate) use rest::at_rest;
use serde::{Deserialize, Serialize};

use roadstead_core::model::{
    name::{ContainerName, HostName, RuntimeId, ServiceName, TaskId},
    network::NetworkSeen,
    report::Report,
    shared::Shared,
    standalone::Scheduled,
    time::Timestamp,
};

/// A predicate's name, as in the invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the invariants say it")]
pub enum Predicate {
    /// Only what is ours is stopped or removed.
    S1,
    /// Never more tasks than the ceiling.
    S2,
    /// Never fewer healthy tasks by choice than the floor.
    S3,
    /// Exclusive things have one owner, and are freed by a look only.
    S4,
    /// Nothing is destroyed because something could not be seen.
    S5,
    /// Numbers never go back.
    S6,
    /// One writer: who sees what a later controller made orders nothing more.
    S7,
    /// Intent before effect.
    S8,
    /// Unknown is not failed; what was ordered to stop is never wanted again.
    S9,
    /// Names stand for nobody that is told to stop.
    S10,
    /// What has an address starts behind its rules.
    S11,
    /// Planning again finds nothing to do; back-off is respected.
    S12,
    /// One sync does not remove much.
    S13,
    /// The brake.
    S14,
    /// One rollout at a time.
    S16,
    /// A rollback happens at most once, and is never rolled back; an outcome stands.
    S17,
    /// Tasks only go forward and never move.
    S18,
    /// Never two of what may be there once.
    S19,
    /// A container starts when what it depends on is ready.
    S20,
    /// Identities are unique; another machine under a known name is quarantined.
    S21,
    /// Finally stable, and as wanted.
    L1,
    /// The same for a core of hosts while others stay broken.
    L2,
    /// What waits has a reason.
    L3,
    /// Whatever the controller's end, the next one goes on.
    L4,
    /// Duplicates go away.
    L5,
    /// Leftovers are collected.
    L6,
    /// Each rollout ends.
    L7,
}

/// A predicate that does not hold, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub predicate: Predicate,
    /// What was seen.
    pub detail: String,
}

impl Broken {
    pub(crate) fn new(predicate: Predicate, detail: impl Into<String>) -> Self {
        Self { predicate, detail: detail.into() }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.predicate, self.detail)
    }
}

fn broken(predicate: Predicate, detail: impl Into<String>) -> Result<(), Broken> {
    Err(Broken::new(predicate, detail))
}

/// What the predicates remember.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// Every task that was ever committed.
    committed: BTreeSet<TaskId>,
    /// The controller has not written its first row yet.
    newborn: bool,
    /// Tasks that were given up as lost although their service was to wait just then.
    given_up_in_wait: BTreeSet<TaskId>,
    /// Containers made, by service.
    creates: BTreeMap<ServiceName, u64>,
    /// Containers whose check was good once.
    ever_healthy: BTreeSet<RuntimeId>,
    /// When the last plan that did anything was made.
    acted_at: Timestamp,
    /// How long controllers stood still: an order goes on for as much longer.
    pub(crate) stalled_ms: u64,
    /// Containers that people laid hands on, and when.
    pub(crate) struck: BTreeMap<(TaskId, ContainerName), Timestamp>,
    /// Tasks with an order whose effect was not seen yet.
    pub(crate) under_way: Vec<TaskId>,
    /// When the look began that this controller last took in, by host.
    looked_at: BTreeMap<HostName, Timestamp>,
    /// What waited in the last plan.
    report: Shared<Report>,
    /// Tokens that a person confirmed.
    confirmed: BTreeSet<String>,
    /// Hosts whose new identity a person accepted, or of which the database forgot the old one.
    identity_may_change: BTreeSet<HostName>,
    /// Hosts that the controller does not trust just now.
    untrusted: BTreeSet<HostName>,
    /// The commit with which each fire of a schedule began.
    fires: BTreeMap<Scheduled, u64>,
    /// Containers of standalone tasks that were made.
    made_once: BTreeSet<(TaskId, ContainerName)>,
    /// The database was lost at least once: what only it knew is gone.
    database_lost: bool,
    /// When it last was.
    database_lost_at: Timestamp,
    /// When the controller first looked at a host after that.
    known_since: BTreeMap<HostName, Timestamp>,
    /// What hosts said of their parts of the task network.
    told: Shared<BTreeMap<HostName, NetworkSeen>>,
    /// What is in volumes.
    pub(crate) data: data::Data,
}

impl Checks {
    /// Another controller begins.
    pub(crate) fn reborn(&mut self) {
        self.looked_at.clear();
        self.told = Shared::default();
        self.newborn = true;
    }

    pub(crate) fn database_lost(&mut self, now: Timestamp) {
        self.database_lost = true;
        self.database_lost_at = now;
        self.known_since.clear();
        self.fires.clear();
        self.data.database_lost();
    }

    pub(crate) fn repinned(&mut self, host: &HostName) {
        self.identity_may_change.insert(host.clone());
    }

    pub(crate) fn confirmed(&mut self, token: &str) {
        self.confirmed.insert(token.to_owned());
    }

    pub(crate) fn healthy(&mut self, id: &RuntimeId) {
        self.ever_healthy.insert(id.clone());
    }

    /// Whether anything was decided since `at`.
    pub(crate) fn acted_since(&self, at: Timestamp) -> bool {
        self.acted_at >= at
    }

    pub(crate) fn creates(&self) -> BTreeMap<String, u64> {
        let of_services = self.creates.iter().filter(|(service, _)| service.family().is_none());
        of_services.map(|(service, count)| (service.to_string(), *count)).collect()
    }

    /// What the last plan said.
    pub(crate) fn note_report(&mut self, report: &Shared<Report>) {
        self.report = report.clone();
    }

    /// Hosts that the controller does not trust just now.
    pub(crate) fn untrusted(&self) -> Vec<HostName> {
        self.untrusted.iter().cloned().collect()
    }

    /// What waits, in words.
    pub(crate) fn waiting(&self) -> String {
        let reasons: Vec<&str> = self.report.waiting.iter().map(|waiting| waiting.reason.as_str()).collect();
        reasons.join(" | ")
    }
}
