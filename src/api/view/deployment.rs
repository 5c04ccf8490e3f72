//! Deployments of services.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use roadstead_control::control::handle::Snapshot;
use roadstead_core::model::{
    name::ServiceName,
    state::{Deployment, DeploymentStatus, Outcome, RolloutState, State},
    time::Timestamp,
};

use super::service::{Counts, desired_count};

/// One deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentView {
    /// Unique in the fleet.
    pub id: String,
    /// Its service.
    pub service: String,
    /// PRIMARY, ACTIVE, INACTIVE.
    #[schema(value_type = String)]
    pub status: DeploymentStatus,
    /// IN_PROGRESS, COMPLETED, FAILED.
    #[schema(value_type = String)]
    pub rollout_state: RolloutState,
    /// In words.
    pub rollout_state_reason: String,
    /// SUCCEEDED, FAILED, ROLLED_BACK, SUPERSEDED; none while it goes on.
    #[schema(value_type = Option<String>)]
    pub outcome: Option<Outcome>,
    /// Lifecycle stage of a blue/green deployment.
    pub stage: Option<String>,
    /// `family:revision`.
    pub task_definition: String,
    /// Tasks that it is to have in the end.
    pub desired_count: u32,
    /// Tasks of it that run.
    pub running_count: u32,
    /// Tasks of it that are on their way.
    pub pending_count: u32,
    /// Tasks of it that failed before they were healthy.
    pub failed_tasks: u32,
    /// Start.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Last change.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// All that are remembered, by service, newest first.
pub fn list(snapshot: &Snapshot, service: Option<&str>) -> Vec<DeploymentView> {
    let state = &snapshot.world.state;
    let records = state.services.values().filter(|record| service.is_none_or(|name| name == record.name.as_str()));
    records.flat_map(|record| of_service(state, &record.name)).collect()
}

/// Those of one service, newest first.
pub(super) fn of_service(state: &State, service: &ServiceName) -> Vec<DeploymentView> {
    let Some(record) = state.services.get(service) else { return Vec::new() };
    record
        .deployments
        .iter()
        .enumerate()
        .map(|(index, deployment)| {
            // A rollback deploys an older revision again: its tasks belong to the newest deployment of it.
            let newest =
                record.deployments.iter().position(|other| other.revision == deployment.revision) == Some(index);
            view(state, service, deployment, newest)
        })
        .collect()
}

fn view(state: &State, service: &ServiceName, deployment: &Deployment, newest: bool) -> DeploymentView {
    let counts = match newest {
        true => Counts::of(state, service, Some(&deployment.revision)),
        false => Counts::default(),
    };
    DeploymentView {
        id: deployment.id.to_string(),
        service: service.to_string(),
        status: deployment.status,
        rollout_state: deployment.rollout_state,
        rollout_state_reason: deployment.rollout_state_reason.clone(),
        outcome: deployment.outcome,
        stage: None,
        task_definition: deployment.revision.to_string(),
        desired_count: match deployment.status {
            DeploymentStatus::Primary => desired_count(state, service),
            DeploymentStatus::Active | DeploymentStatus::Inactive => 0,
        },
        running_count: counts.running,
        pending_count: counts.pending,
        failed_tasks: deployment.failed_tasks,
        created_at: deployment.created_at,
        updated_at: deployment.updated_at,
    }
}
