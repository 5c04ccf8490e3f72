//! Why each thing happens or waits: the planner's account of itself.

use serde::{Deserialize, Serialize};

use super::{name::HostName, time::Timestamp, world::Subject};

/// The account of one plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What is done.
    pub doing: Vec<Doing>,
    /// What is wanted and cannot be done now.
    pub waiting: Vec<Waiting>,
}

/// One thing that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Doing {
    /// start, stop, remove, adopt, …
    pub action: String,
    /// About what.
    #[serde(flatten)]
    pub subject: Subject,
    /// Where.
    pub host: Option<HostName>,
    /// Why.
    pub reason: String,
}

/// One thing that waits (L3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// About what.
    #[serde(flatten)]
    pub subject: Subject,
    /// Why, and what a person can do.
    pub reason: String,
    /// What ends the waiting, in words.
    pub wakes_when: String,
    /// When it will be tried again by itself.
    pub wakes_at: Option<Timestamp>,
}
