//! The controller's own state.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use roadstead_control::control::handle::Snapshot;
use roadstead_core::model::{
    diagnostic::{Diagnostic, Severity},
    state::{Brake, HeldSync},
    time::Timestamp,
};

/// The controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusView {
    /// Its version.
    pub version: String,
    /// When it started.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it last decided.
    #[schema(value_type = String, format = DateTime)]
    pub decided_at: Timestamp,
    /// The manifests' folder.
    pub manifests: String,
    /// Why it must not act, when another controller drives this fleet.
    pub fenced: Option<String>,
    /// Not every host was looked at yet since the start.
    pub settling: bool,
    /// A change of the manifests that waits for a person.
    #[schema(value_type = Option<Object>)]
    pub held: Option<HeldSync>,
    /// Set while too much of the fleet is silent.
    #[schema(value_type = Option<Object>)]
    pub brake: Option<Brake>,
    /// Counts of what is declared and what runs.
    pub counts: FleetCounts,
    /// What is wrong with the manifests now.
    #[schema(value_type = Vec<Object>)]
    pub diagnostics: Vec<Diagnostic>,
    /// How many of them are errors.
    pub errors: u32,
}

/// Counts over the fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FleetCounts {
    /// Declared hosts.
    pub hosts: u32,
    /// Declared services.
    pub services: u32,
    /// Tasks that are not over.
    pub tasks: u32,
}

/// The controller at this moment.
pub fn view(snapshot: &Snapshot) -> StatusView {
    let state = &snapshot.world.state;
    StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: snapshot.started_at,
        decided_at: snapshot.world.now,
        manifests: snapshot.manifests.display().to_string(),
        fenced: snapshot.fenced.clone(),
        settling: snapshot.world.settling,
        held: state.fleet.held.clone(),
        brake: state.fleet.brake.clone(),
        counts: FleetCounts {
            hosts: state.desired.hosts.len() as u32,
            services: state.desired.services.len() as u32,
            tasks: state.tasks.values().filter(|task| task.is_live()).count() as u32,
        },
        diagnostics: snapshot.diagnostics.clone(),
        errors: snapshot.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count() as u32,
    }
}
