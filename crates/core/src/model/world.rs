//! All that the planner is told: the same World gives the same Plan, byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    action::{Action, ActionKey},
    name::{HostName, LoadBalancerName, ScheduleName, ServiceName, SubnetName, TaskId},
    network::NetworkSeen,
    observed::HostContact,
    report::Report,
    shared::Shared,
    state::{Change, State},
    storage::StorageSeen,
    time::Timestamp,
    traffic::EdgeSeen,
    volume::VolumesSeen,
};

/// The planner's whole input.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The clock: that of the controller, which never jumps.
    pub now: Timestamp,
    /// How far the machine's own clock is from `now` since it was set or slept; 0 within a second. Schedules follow it.
    pub wall_ahead_ms: i64,
    /// For `random` placement and new ids.
    pub seed: u64,
    /// Everything durable.
    pub state: State,
    /// How hosts can be reached just now.
    pub contacts: Shared<BTreeMap<HostName, HostContact>>,
    /// The volumes of ours that each host's last list of them showed.
    pub volumes: Shared<BTreeMap<HostName, VolumesSeen>>,
    /// The disk and the images of each host, as last looked at.
    pub storage: Shared<BTreeMap<HostName, StorageSeen>>,
    /// Each host's part of the task network, as last found.
    pub networks: Shared<BTreeMap<HostName, NetworkSeen>>,
    /// Each edge's load balancers, as last found.
    pub edges: Shared<BTreeMap<HostName, EdgeSeen>>,
    /// Orders under way: from being sent until a complete look that began after their answer.
    pub in_flight: Shared<BTreeSet<ActionKey>>,
    /// Orders that went wrong: not again before this, and what went wrong.
    pub retry_at: Shared<BTreeMap<ActionKey, (Timestamp, String)>>,
    /// Adoption first: set until every reachable host was looked at once since the controller started.
    pub settling: bool,
}

/// The planner's whole output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// To be committed, in this order, before any action is sent (S8).
    pub changes: Vec<Change>,
    /// To be sent after that.
    pub actions: Vec<Action>,
    /// Why each thing happens or waits.
    pub report: Report,
    /// When to plan again although nothing happens.
    pub wake_at: Option<Timestamp>,
}

/// A host's status as the contract prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HostStatus {
    /// Takes tasks.
    Active,
    /// Takes no new tasks: a person said so.
    Cordoned,
    /// Its tasks move elsewhere: a person said so.
    Draining,
    /// Silent for a while.
    Suspect,
    /// Silent for long: its tasks are replaced.
    Lost,
    /// Not who it says it is: not one command is sent.
    Untrusted,
}

/// What a report line is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", content = "name", rename_all = "lowercase")]
pub enum Subject {
    /// The whole fleet.
    Fleet,
    /// A host.
    Host(HostName),
    /// A service.
    Service(ServiceName),
    /// A task.
    Task(TaskId),
    /// A scheduled task.
    ScheduledTask(ScheduleName),
    /// A subnet.
    Subnet(SubnetName),
    /// A load balancer.
    LoadBalancer(LoadBalancerName),
}
