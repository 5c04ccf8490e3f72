//! Load balancers: what each host's part of them is to be, and what it was found to be.
//!
//! A host that a load balancer's selector names is an *edge*. All edges of a load balancer show the same picture; the health
//! checks of targets are made by each edge itself, so that it goes on without the controller.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    acme::Challenges,
    certificate::Shown,
    latency::Latency,
    name::{CertificateId, LoadBalancerName, TargetGroupName, TaskId},
    spec::{LoadBalancerSpec, TargetGroupSpec, load_balancer::WeightedGroup},
    time::Timestamp,
};

/// What forwards requests: `LOADBALANCER/LISTENER/RULE`, or `LOADBALANCER/LISTENER` for what no rule is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleRef(String);

impl RuleRef {
    /// A rule, or without one a listener's default action.
    pub fn new(balancer: &LoadBalancerName, listener: &str, rule: Option<&str>) -> Self {
        match rule {
            Some(rule) => Self(format!("{balancer}/{listener}/{rule}")),
            None => Self(format!("{balancer}/{listener}")),
        }
    }

    /// As a service names it.
    pub fn named(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The load balancer's name.
    pub fn balancer(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Which of the two target groups that take turns: a deployment starts the new revision on the side that clients are not sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// `targetGroup`.
    #[default]
    Blue,
    /// `alternateTargetGroup`.
    Green,
}

impl Side {
    /// Whether it is the one that a service without a second one has.
    pub fn is_blue(&self) -> bool {
        *self == Self::Blue
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }
}

/// Where the two rules of a service send requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Shift {
    /// The side whose revision is in service: its share is the rest.
    pub live: Side,
    /// Of 1,000 requests of clients, so many go to the other side.
    pub per_mille: u32,
    /// Whether the test listener shows the other side.
    pub test: bool,
}

impl Shift {
    /// How many of 1,000 requests of clients a side gets.
    pub fn share(self, side: Side) -> u32 {
        let other = self.per_mille.min(1_000);
        if side == self.live { 1_000 - other } else { other }
    }

    /// Whether the test listener shows a side.
    pub fn tests(self, side: Side) -> bool {
        (side == self.live) != self.test
    }
}

/// An edge's part: everything that its load balancers are to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// The image that it runs from.
    pub node_image: String,
    /// Those on this host.
    pub balancers: BTreeMap<LoadBalancerName, LoadBalancerSpec>,
    /// Where each of their forwarding rules sends requests just now; deployments shift these. Each list has the groups of its
    /// rule that were ever needed, also with weight 0.
    pub forwards: BTreeMap<RuleRef, Vec<WeightedGroup>>,
    /// The groups that these name.
    pub groups: BTreeMap<TargetGroupName, Group>,
    /// Of the certificates of their listeners those that there are. Keys are not told here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub certificates: BTreeMap<CertificateId, Shown>,
    /// What authorities are answered that ask whether names are ours, by token.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub challenges: Challenges,
}

/// A target group as an edge is to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// How its targets are spoken to and checked.
    pub spec: TargetGroupSpec,
    /// Its targets.
    pub targets: BTreeMap<TaskId, Target>,
}

/// A task that can take requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Where.
    pub address: Ipv4Addr,
    /// Where.
    pub port: u16,
    /// It gets no new requests, and finishes what it does.
    pub leaves: bool,
}

/// Whether a target can take requests, as an edge's checks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetHealth {
    /// No check has ended yet.
    Initial,
    /// It can.
    Healthy,
    /// It cannot.
    Unhealthy,
}

/// What an edge knows of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetSeen {
    /// Whether it can take requests.
    pub health: TargetHealth,
    /// Why not, in the check's words.
    pub reason: Option<String>,
    /// Nothing is in flight to it.
    pub idle: bool,
    /// What it answered since its edge began to count; known while a deployment is under way.
    #[serde(default)]
    pub answers: Option<Answers>,
}

/// How requests were answered, as a load balancer counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Answers {
    /// How many there were.
    pub requests: u64,
    /// Of these were answered with 5xx, or not at all.
    pub errors: u64,
    /// How long the answers took until they began; of HTTP alone.
    #[serde(skip_serializing_if = "Latency::is_empty")]
    pub latency: Latency,
}

impl Answers {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            errors: self.errors.saturating_add(other.errors),
            latency: self.latency.plus(other.latency),
        }
    }

    /// What came since `before`; a counter that went back began anew.
    pub fn since(self, before: Self) -> Self {
        let latency = self.latency.since(before.latency);
        match (self.requests.checked_sub(before.requests), self.errors.checked_sub(before.errors)) {
            (Some(requests), Some(errors)) => Self { requests, errors, latency },
            (_, _) => Self { latency, ..self },
        }
    }

    /// Of 1,000 requests, how many are errors; rounded up, so that 0 means none.
    pub fn errors_per_mille(self) -> u64 {
        self.errors.saturating_mul(1_000).div_ceil(self.requests.max(1))
    }
}

/// What was found of an edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeSeen {
    /// When.
    pub at: Timestamp,
    /// What it was last made to be and was found to be; none until then, and not any more once it was found otherwise.
    pub confirmed: Option<Arc<Edge>>,
    /// What it is being made just now: in force or not, nobody knows.
    pub under_way: Option<Arc<Edge>>,
    /// Its targets by group.
    pub targets: BTreeMap<TargetGroupName, BTreeMap<TaskId, TargetSeen>>,
    /// Whether load balancers of ours are there, whoever made them; `None`: it could not be asked.
    pub is_there: Option<bool>,
    /// What keeps it from being as it should, in words a person can act on.
    pub problem: Option<String>,
}

impl EdgeSeen {
    /// What it knows of a target.
    pub fn target(&self, group: &TargetGroupName, task: &TaskId) -> Option<&TargetSeen> {
        self.targets.get(group)?.get(task)
    }
}
