//! The controller's picture as the contract prints it: pure functions from a [`Snapshot`] to serialisable views.
//!
//! [`Snapshot`]: roadstead_control::control::handle::Snapshot

pub mod certificate;
pub mod cluster;
pub mod deployment;
pub mod event;
pub mod host;
pub mod load_balancer;
pub mod metrics;
pub mod plan;
pub mod reachability;
pub mod scheduled_task;
pub mod security_group;
pub mod service;
pub mod status;
pub mod subnet;
pub mod target_group;
pub mod task;
pub mod task_definition;
pub mod volume;
pub mod why;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use roadstead_core::model::{name::HostName, state::State};

/// The label that stands for ECS's availability zone.
pub const ZONE_LABEL: &str = "availability-zone";

/// Every list of the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Items<T> {
    /// In a stable order.
    pub items: Vec<T>,
}

/// The zone of a declared host.
fn zone_of(state: &State, host: &HostName) -> Option<String> {
    state.desired.hosts.get(host)?.labels.get(ZONE_LABEL).cloned()
}

/// A unit-like value's name in JSON: `RUNNING`, `bridge`.
pub fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(error) => error.to_string(),
    }
}
