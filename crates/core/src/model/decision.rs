//! What was decided, from what, and why: kept for people and for replay.

use serde::{Deserialize, Serialize};

use super::{action::Action, report::Report, time::Timestamp};

/// One plan that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Growing number, given by the store.
    pub id: u64,
    /// The planner's clock.
    pub at: Timestamp,
    /// The planner's seed.
    pub seed: u64,
    /// Why each thing happens or waits.
    pub report: Report,
    /// What was sent.
    pub actions: Vec<Action>,
}
